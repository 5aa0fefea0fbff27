//! The server, over HTTP.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use relevo_lm::{
    Model,
    measure::PROMPTS,
    serve::{Serving, Settings},
};
use serde_json::{Value, json};

const PROBLEM: &str = "What is 12 + 34 - 5?\nA) 41 B) 39 C) 51 D) 31\n";

/// Send a request; what comes back is read by the caller.
fn send(address: SocketAddr, head: &str, body: &str) -> BufReader<TcpStream> {
    let mut stream = TcpStream::connect(address).expect("it listens");
    let length = body.len();
    write!(stream, "{head} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}")
        .expect("it reads");
    BufReader::new(stream)
}

/// The status, the head and the body.
fn read(mut stream: BufReader<TcpStream>) -> (u16, String, String) {
    let mut all = String::new();
    stream.read_to_string(&mut all).expect("an answer in UTF-8");
    let (head, body) = all.split_once("\r\n\r\n").expect("a head and a body");
    let status = head.split(' ').nth(1).and_then(|s| s.parse().ok()).expect("a status");
    (status, head.to_lowercase(), body.to_owned())
}

fn ask(address: SocketAddr, who: usize, text: &str, more: Value) -> Value {
    let mut body = json!({
        "model": "relevo-lm-1",
        "messages": [{"role": "system", "content": PROMPTS[who].1}, {"role": "user", "content": text}],
    });
    body.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
    let (_, _, answer) = read(send(address, "POST /v1/chat/completions", &body.to_string()));
    serde_json::from_str(&answer).expect("JSON")
}

fn content(answer: &Value) -> &str {
    answer["choices"][0]["message"]["content"].as_str().unwrap_or_else(|| panic!("no answer: {answer}"))
}

#[test]
fn it_answers_as_openai_does() {
    let serving = Serving::start(0).expect("a port");
    let address = serving.address();
    let (status, _, health) = read(send(address, "GET /health", ""));
    assert_eq!((status, health.contains(Model::bundled().hash())), (200, true));
    let (_, _, models) = read(send(address, "GET /v1/models", ""));
    assert_eq!(serde_json::from_str::<Value>(&models).unwrap()["data"][0]["id"], "relevo-lm-1");

    let worked = ask(address, 1, PROBLEM, json!({}));
    let text = content(&worked).to_owned();
    assert!(text.starts_with("12+34=") && text.contains("\nAnswer: "), "{text}");
    assert_eq!(worked["choices"][0]["finish_reason"], "stop");
    let used = &worked["usage"];
    let count = |name: &str| used[name].as_u64().expect("a count");
    assert!(count("prompt_tokens") > 8 && count("completion_tokens") > 10);
    assert_eq!(count("prompt_tokens") + count("completion_tokens"), count("total_tokens"));
    assert_eq!(
        content(&ask(address, 1, PROBLEM, json!({"stop": "\nAns"}))),
        text.split_once("\nAns").unwrap().0
    );
    let cut = ask(address, 1, PROBLEM, json!({"max_tokens": 4}));
    assert_eq!(
        (&cut["choices"][0]["finish_reason"], &cut["usage"]["completion_tokens"]),
        (&json!("length"), &json!(4))
    );

    // A checker sees what was said, and the two speak of the same letter, or of none.
    let checked = ask(address, 2, &format!("{PROBLEM}\n[thinker]\n{text}\n"), json!({}));
    let letter = text.rsplit(' ').next().expect("a letter");
    assert!(content(&checked).contains(&format!("\nThe answer {letter} is ")), "{checked}");

    let schema = |properties: Value| {
        json!({"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema":
            {"type": "object", "properties": properties, "required": ["answer"]}}}})
    };
    let string = json!({"type": "string"});
    let formed = ask(address, 1, PROBLEM, schema(json!({"rationale": string, "answer": string})));
    let formed: Value = serde_json::from_str(content(&formed)).expect("JSON in the answer");
    let (rationale, answer) = text.rsplit_once("\nAnswer: ").unwrap();
    assert_eq!(formed, json!({"rationale": rationale, "answer": answer}));
    let refused = ask(address, 1, PROBLEM, schema(json!({"answer": {"type": "number"}})));
    assert!(refused["error"]["message"].as_str().unwrap().contains("response_format"), "{refused}");
}

#[test]
fn a_stream_has_the_same_text_and_ends_with_what_was_used() {
    let serving = Serving::start(0).expect("a port");
    let whole = ask(serving.address(), 1, PROBLEM, json!({"temperature": 1.0, "seed": 3}));
    let more = json!({
        "model": "relevo-lm-1", "stream": true, "stream_options": {"include_usage": true}, "temperature": 1.0, "seed": 3,
        "messages": [{"role": "system", "content": PROMPTS[1].1}, {"role": "user", "content": [{"type": "text", "text": PROBLEM}]}],
    });
    let (status, head, body) = read(send(serving.address(), "POST /v1/chat/completions", &more.to_string()));
    assert!(status == 200 && head.contains("text/event-stream"), "{head}");
    let lines: Vec<&str> = body.lines().filter_map(|l| l.strip_prefix("data: ")).collect();
    let (done, chunks) = lines.split_last().expect("lines");
    assert_eq!(*done, "[DONE]");
    let chunks: Vec<Value> = chunks.iter().map(|l| serde_json::from_str(l).expect("JSON")).collect();
    let text: String = chunks.iter().filter_map(|c| c["choices"][0]["delta"]["content"].as_str()).collect();
    assert_eq!(text, content(&whole));
    assert!(chunks.len() > 4, "it comes in pieces");
    assert_eq!(chunks[chunks.len() - 2]["choices"][0]["finish_reason"], "stop");
    assert_eq!(chunks[chunks.len() - 1]["usage"], whole["usage"]);
}

#[test]
fn what_cannot_be_answered_is_refused_with_a_reason() {
    let serving = Serving::start(0).expect("a port");
    let message = |role: &str, text: &str| json!({"role": role, "content": text});
    let problem = message("user", PROBLEM);
    let editor = message("system", PROMPTS[0].1);
    let of = |messages: Value, more: Value| {
        let mut body = json!({"model": "relevo-lm-1", "messages": messages});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        body.to_string()
    };
    let both = json!([editor, problem]);
    let cases = [
        ("{".to_owned(), 400, "the body"),
        (of(json!([problem]), json!({})), 400, "`rationale` (or `step by step`), `check` or `revise`"),
        (of(json!([editor, message("user", "Hello!")]), json!({})), 400, "no problem"),
        (of(json!([message("system", PROMPTS[2].1), problem]), json!({})), 400, "nothing to check"),
        (of(json!([editor, message("robot", PROBLEM)]), json!({})), 400, "role"),
        (of(both.clone(), json!({"model": "gpt-9"})), 404, "gpt-9"),
        (of(both.clone(), json!({"n": 2})), 400, "n:"),
        (of(both.clone(), json!({"temperature": 3})), 400, "temperature"),
        (of(both.clone(), json!({"max_tokens": 0})), 400, "max_tokens"),
        (of(both.clone(), json!({"stop": ["a", "b", "c", "d", "e"]})), 400, "stop"),
        (of(both.clone(), json!({"tools": [{}]})), 400, "tools"),
        (of(both, json!({"response_format": {"type": "json_object"}})), 400, "response_format"),
        (" ".repeat((1 << 20) + 1), 413, "1048576"),
    ];
    for (body, status, part) in cases {
        let (found, _, answer) = read(send(serving.address(), "POST /v1/chat/completions", &body));
        let error: Value = serde_json::from_str(&answer).expect("JSON");
        let said = error["error"]["message"].as_str().unwrap_or_else(|| panic!("{answer}"));
        assert!(found == status && said.contains(part), "{found}: {said}");
        assert!(error["error"]["code"].is_string() && error["error"]["type"].is_string(), "{error}");
    }
    let (status, _, answer) = read(send(serving.address(), "GET /v1/chat", ""));
    assert!(status == 404 && answer.contains("/v1/chat/completions"), "{answer}");
    // What a program asks that only wants to know whether a model is there.
    let probe =
        [message("system", "Answer with the letter alone."), message("user", "What is 1 + 1?\nA) 2 B) 3")];
    let (status, _, answer) =
        read(send(serving.address(), "POST /v1/chat/completions", &of(json!(probe), json!({}))));
    assert!(status == 200 && answer.contains("Answer: A"), "{answer}");
}

/// One is answered at a time and one may wait; whoever hangs up makes room.
#[test]
fn a_full_queue_refuses_and_who_hangs_up_is_forgotten() {
    let latency = Duration::from_secs(3600);
    let settings = Settings { together: 1, queue: 1, latency, ..Settings::default() };
    let serving = Serving::with(Model::bundled(), settings).expect("a port");
    let address = serving.address();
    let body = json!({"model": "relevo-lm-1", "stream": true, "messages": [
        {"role": "system", "content": PROMPTS[1].1}, {"role": "user", "content": PROBLEM}]});
    let body = body.to_string();
    // Far more than the worker takes and the queue holds while this loop runs.
    let mut held = vec![];
    let mut refused = None;
    for _ in 0..64 {
        let mut bodies = vec![];
        for _ in 0..64 {
            bodies.push(send(address, "POST /v1/chat/completions", &body));
        }
        for mut stream in bodies {
            stream.get_ref().set_read_timeout(Some(Duration::from_millis(20))).expect("a time limit");
            let mut first = String::new();
            match stream.read_line(&mut first) {
                Ok(_) if first.contains("429") => refused = Some((first, stream)),
                _ => held.push(stream),
            }
        }
        if refused.is_some() {
            break;
        }
    }
    let (line, mut rest) = refused.expect("the queue is full at some time");
    let mut head = line;
    rest.read_to_string(&mut head).expect("the rest");
    assert!(head.to_lowercase().contains("retry-after: 1") && head.contains("queue_full"), "{head}");
    // Hanging up while the answers are still to begin: the server ends at once nevertheless.
    drop(held);
    drop(serving);
    TcpStream::connect(address).expect_err("it has ended");
}
