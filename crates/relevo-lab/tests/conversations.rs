//! Five hundred conversations with models at a time, at a server that is busy, fails and breaks off: everything that was
//! charged is on record, once.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    num::NonZeroUsize,
    ops::ControlFlow,
    path::Path,
    sync::{Arc, Mutex},
    time::Duration,
};

use relevo::{
    learn::{EpisodeEnd, LEDGER_FILE, RunConfig, Session},
    ledger::Entries,
    stage::Stage,
    team::TeamSpec,
};
use relevo_core::{Rng, record::Record};
use relevo_lab::model_server::{Asked, ModelServer, Reply};
use serde_json::json;
use tempfile::TempDir;
use tokio::sync::Notify;

const TASKS: u64 = 500;
const JOBS: NonZeroUsize = NonZeroUsize::new(500).unwrap();

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
[models.m]
model = "made-up"
url = "URL"
concurrency = 500
price = { input = 1.0, output = 1.0 }
[[agents]]
name = "planner"
model = "m"
[[agents]]
name = "solver"
model = "m"
[[agents]]
name = "evaluator"
model = "m"
"#;

/// What has been charged: the tokens of the answer to each question, and how often it was given.
type Charged = Arc<Mutex<BTreeMap<String, (u64, u64)>>>;

/// A server that at first turns away one question in ten, fails on one in twenty, and breaks off in one of twenty. It
/// says when it is asked for the time that is `killed_at`.
fn serve(charged: Charged, killed_at: u64, killed: Arc<Notify>) -> ModelServer {
    let met = Mutex::new(BTreeSet::new());
    let server = ModelServer::start(move |asked: &Asked| {
        if asked.number == killed_at {
            killed.notify_one();
        }
        let question = format!("{:?}", asked.messages);
        if met.lock().unwrap().insert(question.clone()) {
            match Rng::stream(5, &question).below(20) {
                0 | 1 => {
                    let body = json!({"error": {"code": "rate_limit_exceeded"}});
                    return Reply::Refuse { status: 429, body, retry_after: Some("0") };
                }
                2 => return Reply::refuse(500, "server_error"),
                3 => return Reply::BreakOff("{\"draft_answer\": \"an answer\"}".into()),
                _ => {}
            }
        }
        let properties = &asked.schema.as_ref().unwrap()["properties"];
        let answer = if !properties["done"].is_null() {
            json!({"done": true, "reason": "it is there"})
        } else if !properties["draft_answer"].is_null() {
            json!({"draft_answer": "an answer"})
        } else {
            json!({"subproblem": "what is asked", "constraints": [], "open_questions": []})
        };
        let answer = answer.to_string();
        let bytes = asked.messages.iter().map(|(_, text)| text.len()).sum::<usize>();
        let tokens = (bytes.div_ceil(4) + answer.len().div_ceil(4)) as u64;
        charged.lock().unwrap().entry(question).or_insert((tokens, 0)).1 += 1;
        // The first questions of all conversations are under way together.
        let latency = if asked.number < TASKS { 3000 } else { 50 };
        Reply::After(Duration::from_millis(latency), Box::new(Reply::Say(answer)))
    });
    server.unwrap()
}

fn stage(server: &ModelServer, folder: &Path) -> Stage {
    let tasks = (0..TASKS).map(|n| {
        fs::write(folder.join(n.to_string()), format!("conversation {n}")).unwrap();
        json!({"id": n.to_string(), "input": n.to_string(), "expect": {"text": "an answer"}}).to_string()
            + "\n"
    });
    fs::write(folder.join("tasks.jsonl"), tasks.collect::<String>()).unwrap();
    let team = TeamSpec::parse(&TEAM.replace("URL", &server.url())).unwrap();
    Stage::new(team, folder, None).unwrap().in_epochs()
}

/// What a ledger says of all calls, and how many tasks it says have ended.
#[derive(Default)]
struct OnRecord {
    calls: u64,
    failures: u64,
    tokens: u64,
    money: f64,
    closed: u64,
}

fn on_record(ledger: &Path) -> OnRecord {
    let mut entries = Entries::open(ledger).unwrap();
    let mut sum = OnRecord::default();
    while let Some(entry) = entries.next_entry().unwrap() {
        match entry.record {
            Record::Called { usage, money, .. } => {
                sum.calls += 1;
                sum.failures += u64::from(usage.failures);
                sum.tokens += usage.tokens;
                sum.money += money;
            }
            Record::Closed { .. } => sum.closed += 1,
            _ => {}
        }
    }
    sum
}

#[tokio::test]
async fn what_was_charged_is_on_record_once() {
    for killed_at in [u64::MAX, 700] {
        let (folder, charged, killed) =
            (TempDir::new().unwrap(), Charged::default(), Arc::new(Notify::new()));
        let server = serve(charged.clone(), killed_at, killed.clone());
        let stage = stage(&server, folder.path());
        let run = folder.path().join("run");
        fs::create_dir(&run).unwrap();
        let (mut told, mut retries) = (0, 0);
        let mut tell = |end: &EpisodeEnd| {
            (told, retries) = (told + 1, retries + end.spent.retries);
            ControlFlow::Continue(())
        };
        let session = Session::start(&stage, &run, RunConfig { seed: 1, episodes: TASKS });
        let mut session = session.unwrap().at_a_time(JOBS);
        let is_whole = tokio::select! {
            flow = session.run(&mut tell) => flow.unwrap().is_continue(),
            () = killed.notified() => false,
        };
        drop(session);
        assert_eq!(is_whole, killed_at == u64::MAX);
        if !is_whole {
            let (session, _) = Session::resume(&stage, &run, None, None).unwrap();
            assert!(session.at_a_time(JOBS).run(&mut tell).await.unwrap().is_continue());
        }

        let OnRecord { calls, failures, tokens: recorded, money, closed } = on_record(&run.join(LEDGER_FILE));
        assert_eq!(closed, TASKS);
        assert_eq!(told, TASKS);
        let charged = charged.lock().unwrap();
        let (tokens, answers): (u64, u64) = charged.values().fold((0, 0), |(t, n), of| (t + of.0, n + of.1));
        assert_eq!((recorded, calls - failures), (tokens, charged.len() as u64));
        assert!((money - tokens as f64 / 1e6).abs() < 1e-9, "{money} for {tokens} tokens");
        assert!(failures > 0 && retries > 0, "not everything went well: {failures}, {retries}");
        assert!(server.most_under_way() > TASKS / 2, "{} at a time", server.most_under_way());
        // Only what was under way at the kill had to be asked for once more.
        let again = answers - charged.len() as u64;
        assert!(if is_whole { again == 0 } else { (1..=TASKS).contains(&again) }, "{again} asked for again");
    }
}
