//! Language models at a server with a real one: that in the box, over HTTP as `relevo lm serve` serves it, and the same in
//! this process.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use relevo::{
    agent::{Failure, FailureKind},
    model::{
        ChatRequest, Finish, Message, Model, Models, Schema, Speaker, ToolDefinition,
        environment::Environment,
    },
};
use relevo_lm::{
    measure::PROMPTS,
    serve::{Serving, Settings},
};
use serde_json::{Value, json};
use tokio::sync::Notify;

/// A key that must be nowhere but in the header.
const KEY: &str = "sk-taint-5f1c";

const PROBLEM: &str = "What is 12 + 34 - 5?\nA) 41 B) 39 C) 51 D) 31\n";

fn serve(settings: Settings) -> Serving {
    Serving::with(relevo_lm::Model::bundled(), settings).unwrap()
}

/// The served model, with these lines in its section.
fn served(serving: &Serving, lines: &str) -> Arc<dyn Model> {
    model(&format!("url = {:?}\nmodel = \"relevo-lm-1\"\n{lines}", serving.url()))
}

/// The same without a server.
fn inside() -> Arc<dyn Model> {
    model("provider = \"relevo-lm\"\nmodel = \"relevo-lm-1\"")
}

fn model(section: &str) -> Arc<dyn Model> {
    let sections: BTreeMap<_, _> = toml::from_str(&format!("[m]\n{section}")).unwrap();
    let models = Models::new(&sections, &Environment::only([("OPENAI_API_KEY", KEY)]), 7).unwrap();
    models.get("m").unwrap().model.clone()
}

/// What the editor, the thinker or the checker is asked.
fn request(who: usize, text: &str) -> ChatRequest {
    ChatRequest {
        messages: vec![Message::new(Speaker::System, PROMPTS[who].1), Message::new(Speaker::User, text)],
        tools: vec![],
        schema: None,
        temperature: None,
        max_tokens: None,
        seed: None,
        timeout: Duration::from_secs(60),
    }
}

fn form(properties: &[(&str, &str)]) -> Option<Schema> {
    let properties: BTreeMap<_, _> =
        properties.iter().map(|(name, kind)| (name, json!({"type": kind}))).collect();
    let schema = json!({"type": "object", "properties": properties, "required": properties.keys().collect::<Vec<_>>()});
    Some(Schema { name: "said".into(), schema })
}

#[tokio::test]
async fn it_says_the_same_with_and_without_a_server() {
    let serving = Serving::start(0).unwrap();
    let (over, inside) = (served(&serving, ""), inside());
    let worked = inside.chat(&request(1, PROBLEM), None).await.unwrap().text;
    let checked = format!("{PROBLEM}\n[thinker]\n{worked}\n");
    let cases = [
        request(0, PROBLEM),
        request(1, PROBLEM),
        request(2, &checked),
        ChatRequest { temperature: Some(1.0), seed: Some(3), ..request(1, PROBLEM) },
        ChatRequest { max_tokens: Some(6), ..request(1, PROBLEM) },
    ];
    for request in &cases {
        let said = inside.chat(request, None).await.unwrap();
        assert!(said.usage.input > 8 && said.usage.output > 0, "{said:?}");
        assert_eq!(said.finish == Finish::CutOff, request.max_tokens.is_some(), "{said:?}");
        assert_eq!(over.chat(request, None).await.unwrap(), said);
        let heard = Mutex::new(vec![]);
        let hear = |piece: &str| heard.lock().unwrap().push(piece.to_owned());
        assert_eq!(over.chat(request, Some(&hear)).await.unwrap(), said);
        let pieces = heard.into_inner().unwrap();
        assert_eq!(pieces.concat(), said.text);
        assert!(pieces.len() > 3 || said.usage.output < 20, "an answer comes as it grows: {pieces:?}");
    }
    assert_eq!(serving.answered(), 2 * cases.len() as u64);
}

#[tokio::test]
async fn it_answers_in_the_forms_that_it_can_follow() {
    let serving = Serving::start(0).unwrap();
    let (over, inside) = (served(&serving, ""), inside());
    let worked = inside.chat(&request(1, PROBLEM), None).await.unwrap().text;
    let (rationale, letter) = worked.split_once("\nAnswer: ").unwrap();
    let check = request(2, &format!("{PROBLEM}\n[thinker]\n{worked}\n"));
    let verdict = inside.chat(&check, None).await.unwrap().text;
    let (steps, verdict) = verdict.split_once(&format!("\nThe answer {letter} is ")).unwrap();
    let cases = [
        (request(1, PROBLEM), json!({"rationale": rationale, "answer": letter})),
        (check, json!({"rationale": steps, "answer": letter, "verdict": verdict.trim_end_matches('.')})),
        (request(1, PROBLEM), json!({"text": worked})),
    ];
    for (request, said) in cases {
        let names: Vec<_> = said.as_object().unwrap().keys().map(|name| (name.as_str(), "string")).collect();
        let request = ChatRequest { schema: form(&names), ..request };
        for hear in [None, Some(&(|_: &str| {}) as _)] {
            let reply = over.chat(&request, hear).await.unwrap();
            assert_eq!(serde_json::from_str::<Value>(&reply.text).unwrap(), said);
        }
    }
}

/// The server gives the reason that the model in this process gives.
#[tokio::test]
async fn what_it_cannot_do_is_refused_at_once_with_the_reason() {
    let serving = Serving::start(0).unwrap();
    let (over, inside) = (served(&serving, "retries = 3"), inside());
    let asked = |system: &str, text: &str| {
        let messages = vec![Message::new(Speaker::System, system), Message::new(Speaker::User, text)];
        ChatRequest { messages, ..request(0, PROBLEM) }
    };
    let tool =
        ToolDefinition { name: "add".into(), description: "adds".into(), schema: json!({"type": "object"}) };
    let cases = [
        (asked("Be kind.", PROBLEM), "names none of the four skills"),
        (request(0, "Hello!"), "there is no problem in the messages"),
        (request(0, &PROBLEM.replace("12", "½")), "the model knows no character '½'"),
        (request(0, &PROBLEM.replace("12", &"1 + ".repeat(150))), "shorten the question"),
        (request(2, PROBLEM), "there is nothing to check"),
        (ChatRequest { schema: form(&[("score", "number")]), ..request(1, PROBLEM) }, "form"),
        (ChatRequest { tools: vec![tool], ..request(1, PROBLEM) }, "tools"),
    ];
    for (request, reason) in cases {
        for model in [&over, &inside] {
            let failure = model.chat(&request, None).await.unwrap_err();
            assert_eq!(failure.kind(), FailureKind::InvalidRequest, "{failure:?}");
            assert!(failure.to_string().contains(reason), "{reason}: {failure}");
            assert!(!format!("{failure} {failure:?} {model:?}").contains("taint"), "{failure:?}");
        }
    }
    assert_eq!(serving.answered(), 0);
    let other = model(&format!("url = {:?}\nmodel = \"gpt-9\"", serving.url()));
    let failure = other.chat(&request(0, PROBLEM), None).await.unwrap_err();
    assert!(
        matches!(&failure, Failure::InvalidRequest(why) if why.contains("there is \"relevo-lm-1\"")),
        "{failure:?}"
    );

    let gone = served(&serving, "retries = 1");
    drop(serving);
    let failure = gone.chat(&request(0, PROBLEM), None).await.unwrap_err();
    assert_eq!((failure.kind(), format!("{failure:?}").contains("taint")), (FailureKind::Unavailable, false));
}

/// Attempts that are over, and callers that are gone, are not answered; who comes after them is.
#[tokio::test]
async fn who_does_not_wait_is_forgotten() {
    let latency = Duration::from_millis(600);
    let serving = serve(Settings { latency, together: 1, queue: 1, ..Settings::default() });
    let (hasty, patient) = (served(&serving, "timeout_ms = 60\nretries = 1"), served(&serving, ""));
    let request = request(1, PROBLEM);
    let began = Instant::now();
    let failure = hasty.chat(&request, None).await.unwrap_err();
    assert_eq!(failure, Failure::Timeout { ms: 60 });
    assert!(began.elapsed() >= Duration::from_millis(120), "it was tried twice");
    let gone = tokio::time::timeout(Duration::from_millis(60), patient.chat(&request, None)).await;
    assert!(gone.is_err());
    // The others would have been answered before this one.
    let reply = patient.chat(&request, None).await.unwrap();
    assert_eq!((serving.answered(), reply.retries), (1, 0));

    // Somebody who has heard enough.
    let enough = Notify::new();
    let hear = |_: &str| enough.notify_one();
    tokio::select! {
        _ = patient.chat(&request, Some(&hear)) => panic!("it was heard to its end"),
        () = enough.notified() => {}
    }
    assert_eq!(patient.chat(&request, None).await.unwrap(), reply);
}

#[tokio::test]
async fn a_full_queue_is_come_back_to() {
    let serving = serve(Settings { together: 1, queue: 1, ..Settings::default() });
    let model = served(&serving, "concurrency = 12\nretries = 20");
    let request = request(1, "What is (12 + 34) * 17 - 25?\nA) 757 B) 739 C) 782 D) 807\n");
    let replies = futures_util::future::join_all((0..12).map(|_| model.chat(&request, None))).await;
    let replies: Vec<_> = replies.into_iter().map(Result::unwrap).collect();
    let said = inside().chat(&request, None).await.unwrap();
    assert!(replies.iter().all(|reply| reply.text == said.text && reply.usage == said.usage));
    let late = replies.iter().filter(|reply| reply.retries > 0).count();
    assert!(late > 0 && serving.answered() == 12, "{late} were refused at first");
}
