//! Teams whose agents are language models, from end to end, at a scripted server: what is learned, what a call that was
//! paid for is worth after a kill, and that a key is nowhere.

mod place;

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use relevo_core::Rng;
use relevo_lab::model_server::{Asked, ModelServer, Reply};
use serde_json::{Value, json};

use place::{Place, Said, assert_holds};

const KEY: &str = "sk-taint-5f1c";

const TEAM: &str = r#"
schema = "relevo.team/v1"
name = "sums"

[run]
episodes = 60
evaluation_tasks = 6

[reward]
call = -0.05
money = -0.1

[tasks]
train = "train.jsonl"
test = "test.jsonl"
judge = "text"

[coordinator]
plan = "flat"
granularity = 0
cell = true
skips = false
alone = false

[learner]
policy = { rule = "epsilon-greedy", epsilon = { from = 1.0, to = 0.0, over = 0.5 }, ties = "random" }

[models.careful]
model = "careful-1"
key = "SUMS_KEY"
price = { input = 1.0, output = 4.0 }

[models.hasty]
model = "hasty-1"
key = "SUMS_KEY"

[[agents]]
name = "planner"
model = "hasty"
skill = "planner.md"

[[agents]]
name = "solver"
variants = { models = ["careful", "hasty"] }

[[agents]]
name = "evaluator"
model = "hasty"
"#;

/// The goal in the document that a model is shown.
fn goal(asked: &Asked) -> String {
    let (_, user) = asked.messages.last().unwrap();
    let document: Value = serde_json::from_str(user.lines().nth(1).unwrap()).unwrap();
    document["goal"].as_str().unwrap().to_owned()
}

/// The careful model can add, the hasty one cannot; whoever evaluates is content.
fn answer(asked: &Asked) -> Reply {
    let Some(schema) = &asked.schema else { return Reply::Say("ready".into()) };
    let properties = schema["properties"].as_object().unwrap();
    if properties.contains_key("done") {
        return Reply::Say(json!({"done": true, "reason": "it is there"}).to_string());
    }
    if !properties.contains_key("draft_answer") {
        return Reply::of_form(asked, &mut Rng::stream(3, &goal(asked)));
    }
    let terms: Vec<u32> = goal(asked).split(" + ").map(|term| term.parse().unwrap()).collect();
    let sum = terms.iter().sum::<u32>() + u32::from(asked.model == "hasty-1");
    Reply::Say(json!({"draft_answer": sum.to_string()}).to_string())
}

/// A folder with the team and its tasks, and its key in a `.env` file.
fn set_up() -> Place {
    let place = Place::new();
    place.write("team.toml", TEAM);
    place.write("planner.md", "---\nname: plan\ndescription: Plans sums.\n---\nPlan the sum.\n");
    place.write(".env", &format!("SUMS_KEY={KEY}\n"));
    fs::create_dir(place.path("files")).unwrap();
    for (name, tasks) in [("train.jsonl", 0..12), ("test.jsonl", 12..18)] {
        let line = |n: u32| {
            place.write(&format!("files/{n}"), &format!("{n} + {}", n * n));
            let expect = json!({"text": (n + n * n).to_string()});
            json!({"id": n.to_string(), "input": format!("files/{n}"), "expect": expect}).to_string() + "\n"
        };
        place.write(name, &tasks.map(line).collect::<String>());
    }
    place
}

/// `relevo` where models are served by `server`.
fn relevo(place: &Place, server: &ModelServer, arguments: &str) -> Command {
    let mut command = place.command(arguments);
    command.env_remove("SUMS_KEY").env_remove("OPENAI_API_KEY").env("OPENAI_BASE_URL", server.url());
    command
}

fn run(place: &Place, server: &ModelServer, arguments: &str) -> Said {
    Said::new(relevo(place, server, arguments).output().unwrap())
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

#[test]
fn a_team_of_models_learns_whom_to_ask() {
    let (place, server) = (set_up(), ModelServer::start(answer).unwrap());
    let said = run(&place, &server, "learn team.toml --out run");
    assert_eq!(said.code, Some(0), "{}", said.stderr);
    let report: Value = serde_json::from_str(&place.read("run/report.json")).unwrap();
    let learned = &report["arms"][0];
    assert_eq!(learned["quality"]["mean"], 1.0, "{report:#}");
    assert_eq!(learned["calls"]["mean"], 3.0, "{report:#}");
    let by_model = |name: &str| server.asked().iter().filter(|asked| asked.model == name).count();
    assert!(by_model("careful-1") > 30 && by_model("hasty-1") > 60, "both were tried");
    let planner = server.asked().into_iter().find(|asked| asked.messages[0].1.starts_with("Plan the sum."));
    assert_eq!(planner.unwrap().authorization, Some(format!("Bearer {KEY}")));

    // The key went to the service, and nowhere else.
    let written = files(&place.path("run"));
    assert!(written.len() > 5);
    let holds_key = |bytes: &[u8]| bytes.windows(8).any(|part| part == b"sk-taint");
    assert!(written.iter().all(|path| !holds_key(&fs::read(path).unwrap())), "no file holds the key");
    assert!(!holds_key(said.stdout.as_bytes()) && !holds_key(said.stderr.as_bytes()));

    let before = server.requests();
    let said = run(&place, &server, "run team.toml --policy run --input files/15 --output sum --show");
    assert_eq!((said.code, place.read("sum")), (Some(0), "240".into()), "{}", said.stderr);
    assert!(said.stdout.contains("solver_careful"), "{}", said.stdout);
    assert!(said.stderr.contains("\"draft_answer\":\"240\""), "it is shown as it grows: {}", said.stderr);
    assert!(server.asked()[before as usize..].iter().all(|asked| asked.stream));
}

/// Killed while the 31st answer is awaited: all that came back is had again, and that one call is made once more.
#[test]
fn a_call_that_was_paid_for_is_not_made_again() {
    let learn = "learn team.toml --out run --episodes 20 --no-preflight";
    let (place, whole) = (set_up(), ModelServer::start(answer).unwrap());
    assert_eq!(run(&place, &whole, learn).code, Some(0));
    let learned = |place: &Place| {
        serde_json::from_str::<Value>(&place.read("run/policy.json")).unwrap()["agents"].take()
    };

    let killed = set_up();
    let hung = Arc::new(AtomicBool::new(false));
    let hang = hung.clone();
    let server = ModelServer::start(move |asked| match asked.number {
        30 if !hang.swap(true, Ordering::SeqCst) => Reply::Hang,
        _ => answer(asked),
    });
    let server = server.unwrap();
    let mut child = relevo(&killed, &server, learn).stderr(Stdio::null()).spawn().unwrap();
    let began = Instant::now();
    while !hung.load(Ordering::SeqCst) {
        assert!(began.elapsed() < Duration::from_secs(60), "the 31st request");
        thread::sleep(Duration::from_millis(10));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    let said = run(&killed, &server, &format!("{learn} --resume"));
    assert_eq!(said.code, Some(0), "{}", said.stderr);
    assert_eq!(server.requests(), whole.requests() + 1);
    assert!(learned(&place).is_array());
    assert_eq!(learned(&killed), learned(&place), "and the same was learned");
}

#[test]
fn the_doctor_names_what_is_missing() {
    let (place, server) = (set_up(), ModelServer::start(answer).unwrap());
    let said = run(&place, &server, "doctor team.toml");
    assert_eq!(said.code, Some(0), "{}", said.stdout);
    assert_eq!(server.requests(), 2, "every model is asked once");
    assert!(!said.stdout.contains("failed") && said.stdout.contains("careful-1 answers"), "{}", said.stdout);

    fs::remove_file(place.path(".env")).unwrap();
    fs::remove_file(place.path("test.jsonl")).unwrap();
    let by_model = "name = \"evaluator\"\nmodel = \"hasty\"";
    place.write("team.toml", &TEAM.replace(by_model, "name = \"evaluator\"\ncommand = [\"./gone\"]"));
    let said = run(&place, &server, "doctor team.toml");
    assert_eq!((said.code, server.requests()), (Some(1), 2), "{}", said.stdout);
    assert_holds(&said.stdout, &["SUMS_KEY is not set", "gone", "test.jsonl", "4 of 6 failed"]);

    // The same is found before a run begins, which leaves nothing behind.
    place.write("team.toml", TEAM);
    fs::copy(place.path("train.jsonl"), place.path("test.jsonl")).unwrap();
    let said = run(&place, &server, "learn team.toml --out run");
    assert!(said.code == Some(1) && said.stderr.contains("SUMS_KEY"), "{}", said.stderr);
    assert!(!place.path("run").exists() && server.requests() == 2);
}

/// Nobody knows what is right; a model that compares attempts at the same task says which is better.
#[test]
fn models_judge_what_models_came_to() {
    let place = set_up();
    let judge = "judge = { rule = \"relative\", models = [\"careful\"], group = 2, canary = 0, swap = 0 }";
    place.write("team.toml", &TEAM.replace("judge = \"text\"", judge));
    let asked_to_judge = |asked: &Asked| !asked.messages.last().unwrap().1.starts_with("<<<material");
    let server = ModelServer::start(move |asked| match &asked.schema {
        Some(_) if asked_to_judge(asked) => Reply::of_form(asked, &mut Rng::stream(asked.number, "judge")),
        _ => answer(asked),
    });
    let server = server.unwrap();
    let said = run(&place, &server, "learn team.toml --out run --episodes 8");
    assert_eq!(said.code, Some(0), "{}", said.stderr);
    let judged = server.asked().into_iter().filter(|asked| asked.schema.is_some() && asked_to_judge(asked));
    assert!(judged.count() >= 4, "a question for each two attempts");

    place.write("team.toml", &TEAM.replace("judge = \"text\"", &judge.replace("careful", "carefull")));
    let message = run(&place, &server, "learn team.toml --out other").stderr;
    assert!(message.contains("did you mean \"careful\"?"), "{message}");
}
