//! Fifty conversations at a time, and five hundred, with models behind one HTTP server on the loopback: what passes between
//! the end of one answer and the next question of the same conversation, and whether all that was charged is on record once.

use std::{
    collections::HashMap,
    fs,
    net::Ipv4Addr,
    ops::ControlFlow,
    path::Path,
    sync::{Arc, Mutex, mpsc},
    thread,
    time::{Duration, Instant},
};

use axum::{Json, Router, extract::State, routing::post};
use relevo::{
    learn::{RunConfig, Session},
    stage::Stage,
    team::TeamSpec,
};
use relevo_bench::{met, verdict};
use relevo_core::Rng;
use serde_json::{Value, json};

/// How many at a time, and for each of them so many tasks.
const AT_A_TIME: [usize; 2] = [50, 500];
const TASKS_EACH: usize = 6;

/// What a made-up model takes for an answer, in ms, from a little to the double of it.
const LATENCY_MS: f64 = 1000.0;

const TEAM: &str = r#"
schema = "relevo.team/v1"
name = "conversations"
[run]
evaluation_tasks = 1
[tasks]
train = "tasks.jsonl"
test = "tasks.jsonl"
judge = "text"
[coordinator]
plan = "flat"
alone = false
[learner]
policy = { rule = "ucb" }
pending = "counted"
[models.m]
model = "made-up"
url = "URL"
concurrency = 500
price = { input = 1.0, output = 2.0 }
[[agents]]
name = "planner"
model = "m"
[[agents]]
name = "solver_a"
model = "m"
[[agents]]
name = "solver_b"
model = "m"
[[agents]]
name = "evaluator"
model = "m"
"#;

/// What the server has seen.
#[derive(Default)]
struct Seen {
    answers: u64,
    tokens: u64,
    /// When the last answer of each conversation was given.
    last: HashMap<String, Instant>,
    /// From one answer to the next question of the same conversation, in ms.
    gaps: Vec<f64>,
    under_way: usize,
    most_under_way: usize,
}

/// Serve made-up models; the address comes back.
fn serve(seen: Arc<Mutex<Seen>>) -> String {
    let (tell, told) = mpsc::channel();
    thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async move {
            let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port");
            tell.send(listener.local_addr().expect("it is bound")).expect("somebody waits");
            let app = Router::new().route("/v1/chat/completions", post(complete)).with_state(seen);
            axum::serve(listener, app).await.expect("it serves");
        });
    });
    format!("http://{}/v1", told.recv().expect("it starts"))
}

async fn complete(State(seen): State<Arc<Mutex<Seen>>>, Json(asked): Json<Value>) -> Json<Value> {
    let came = Instant::now();
    let text = asked["messages"]
        .as_array()
        .and_then(|all| all.last())
        .map_or("", |m| m["content"].as_str().unwrap());
    let conversation =
        text.split("conversation ").nth(1).map_or("", |rest| rest.split([' ', '"']).next().unwrap());
    let number = {
        let mut seen = seen.lock().expect("nobody panics with it");
        if let Some(last) = seen.last.remove(conversation) {
            seen.gaps.push((came - last).as_secs_f64() * 1e3);
        }
        seen.under_way += 1;
        seen.most_under_way = seen.most_under_way.max(seen.under_way);
        seen.answers += 1;
        seen.answers
    };
    let share = Rng::stream(number, "latency").unit();
    tokio::time::sleep(Duration::from_secs_f64(LATENCY_MS / 1e3 * (0.5 + share))).await;
    let properties = &asked["response_format"]["json_schema"]["schema"]["properties"];
    let answer = if !properties["done"].is_null() {
        json!({"done": true, "reason": "it is there"})
    } else if !properties["draft_answer"].is_null() {
        json!({"draft_answer": "an answer of a few words"})
    } else {
        json!({"subproblem": "what is asked", "constraints": [], "open_questions": []})
    };
    let answer = answer.to_string();
    let (input, output) = (text.len().div_ceil(4), answer.len().div_ceil(4));
    let reply = Json(json!({
        "id": "made-up", "object": "chat.completion", "model": "made-up",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": answer}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": input, "completion_tokens": output, "total_tokens": input + output},
    }));
    let mut seen = seen.lock().expect("nobody panics with it");
    seen.under_way -= 1;
    seen.tokens += (input + output) as u64;
    seen.last.insert(conversation.to_owned(), Instant::now());
    reply
}

/// The same waits by a bare HTTP client: so many conversations at a time, of twenty questions each.
async fn bare(at_a_time: usize, url: &str, prompt: &str) {
    let client = reqwest::Client::builder().tcp_nodelay(true).build().expect("a client");
    let conversations = (0..at_a_time).map(|number| {
        let (client, url) = (client.clone(), format!("{url}/chat/completions"));
        let content = format!("conversation {number} {prompt}");
        async move {
            for _ in 0..20 {
                let body = json!({"model": "made-up", "messages": [{"role": "user", "content": content}]});
                let answer = client.post(&url).json(&body).send().await.expect("it answers");
                let _: Value = answer.json().await.expect("it is JSON");
            }
        }
    });
    futures_util::future::join_all(conversations).await;
}

fn quantile(sorted: &[f64], share: f64) -> f64 {
    sorted[((sorted.len() - 1) as f64 * share) as usize]
}

fn main() {
    AT_A_TIME.into_iter().for_each(measure);
}

fn measure(at_a_time: usize) {
    let tasks = (TASKS_EACH * at_a_time) as u64;
    let folder = std::env::temp_dir().join(format!("relevo-conversations-{}", std::process::id()));
    fs::create_dir_all(folder.join("run")).expect("a place for the run");
    let lines = (0..tasks).map(|n| {
        fs::write(folder.join(n.to_string()), format!("conversation {n} about something"))
            .expect("it is ours");
        json!({"id": n.to_string(), "input": n.to_string(), "expect": {"text": "none"}}).to_string() + "\n"
    });
    fs::write(folder.join("tasks.jsonl"), lines.collect::<String>()).expect("it is ours");
    let seen = Arc::new(Mutex::new(Seen::default()));
    let url = serve(seen.clone());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");

    runtime.block_on(bare(at_a_time, &url, &"material ".repeat(60)));
    let bare = gaps(&seen);
    *seen.lock().expect("nobody panics with it") = Seen::default();

    let team = TeamSpec::parse(&TEAM.replace("URL", &url))
        .unwrap_or_else(|(line, what)| panic!("line {line:?}: {what}"));
    let stage = Stage::new(team, &folder, None).expect("the team acts").in_epochs();
    let config = RunConfig { seed: 1, episodes: tasks };
    let session = Session::start(&stage, Path::new(&folder.join("run")), config).expect("it begins");
    let mut session = session.at_a_time(at_a_time.try_into().expect("some"));
    let began = Instant::now();
    let (mut calls, mut tokens, mut failures) = (0, 0, 0);
    let flow = runtime.block_on(session.run(|end| {
        calls += u64::from(end.spent.calls);
        tokens += end.spent.tokens;
        failures += end.spent.failures;
        ControlFlow::Continue(())
    }));
    assert!(flow.expect("it goes through").is_continue());
    let seconds = began.elapsed().as_secs_f64();
    let ours = gaps(&seen);
    let seen = seen.lock().expect("nobody panics with it");
    fs::remove_dir_all(&folder).expect("it is ours");
    assert_eq!(failures, 0, "nothing fails here");
    let charged = (seen.answers, seen.tokens) == (calls, tokens);
    let [p50, p99] = [0.5, 0.99].map(|share| quantile(&ours, share));
    let [bare50, bare99] = [0.5, 0.99].map(|share| quantile(&bare, share));
    verdict(&format!(
        "{} conversations at a time, {:.0} calls/s of {LATENCY_MS} ms: {calls} calls and {tokens} tokens on record, {} and {} at the \
         server ({}); from an answer to the next question {p50:.2} ms at the median, {p99:.2} at the 99th percentile ({}), {bare50:.2} and \
         {bare99:.2} by a bare HTTP client with as many conversations: ratio {:.2} and {:.2}",
        seen.most_under_way,
        calls as f64 / seconds,
        seen.answers,
        seen.tokens,
        met(charged),
        met(p99 - bare99 < 1.0),
        p50 / bare50,
        p99 / bare99,
    ));
}

/// The gaps so far, sorted.
fn gaps(seen: &Mutex<Seen>) -> Vec<f64> {
    let mut gaps = seen.lock().expect("nobody panics with it").gaps.clone();
    gaps.sort_by(f64::total_cmp);
    gaps
}
