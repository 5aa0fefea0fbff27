//! Teams whose agents are language models, from end to end, at a scripted server: what is learned, what a call that was
//! paid for is worth after a kill, and that a key is nowhere.

mod place;

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
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
    let route = "run team.toml --policy run --input files/15 --output sum --show --no-preflight";
    let said = run(&place, &server, route);
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
    assert_holds(&said.stdout, &["openai at http://127.0.0.1:", "key in SUMS_KEY (set)", "all is there"]);

    fs::remove_file(place.path(".env")).unwrap();
    fs::remove_file(place.path("test.jsonl")).unwrap();
    let by_model = "name = \"evaluator\"\nmodel = \"hasty\"";
    place.write("team.toml", &TEAM.replace(by_model, "name = \"evaluator\"\ncommand = [\"./gone\"]"));
    let said = run(&place, &server, "doctor team.toml");
    assert_eq!((said.code, server.requests()), (Some(1), 2), "{}", said.stdout);
    assert_holds(
        &said.stdout,
        &["SUMS_KEY is not set", "key in SUMS_KEY (not set)", "gone", "test.jsonl", "4 of 6 failed"],
    );

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
    let team = TEAM.replace("judge = \"text\"", judge);
    place.write("team.toml", &format!("{team}\n[trace]\ncontent = true\n"));
    let asked_to_judge = |asked: &Asked| !asked.messages.last().unwrap().1.starts_with("<<<material");
    let server = ModelServer::start(move |asked| match &asked.schema {
        Some(_) if asked_to_judge(asked) => marks(&asked.messages.last().unwrap().1),
        _ => answer(asked),
    });
    let server = server.unwrap();
    let said = run(&place, &server, "learn team.toml --out run --episodes 8");
    assert_eq!(said.code, Some(0), "{}", said.stderr);
    let judged = server.asked().into_iter().filter(|asked| asked.schema.is_some() && asked_to_judge(asked));
    assert!(judged.count() >= 4, "a question for each two attempts");
    place.write("other.toml", TEAM);
    let audit = place.ok("judge audit run/finished.jsonl --judges other.toml");
    assert_holds(&audit, &["12 finished tasks in 6 groups", "agreement 1.000", "in order", "learned"]);

    place.write("team.toml", &TEAM.replace("judge = \"text\"", &judge.replace("careful", "carefull")));
    let message = run(&place, &server, "learn team.toml --out other").stderr;
    assert!(message.contains("did you mean \"careful\"?"), "{message}");
}

/// The reply of a judge that can add: the marks of each trajectory, in the order in which it is shown.
fn marks(user: &str) -> Reply {
    let sections: Vec<&str> = user.split("[[").collect();
    let body = |kind: &str| -> Vec<&str> {
        let of_kind = sections.iter().filter(|section| section.lines().next().unwrap().ends_with(kind));
        of_kind.map(|section| section.lines().nth(1).unwrap_or_default()).collect()
    };
    let terms: Vec<u32> = body(" question")[0].split(" + ").map(|t| t.parse().unwrap()).collect();
    let right = terms.iter().sum::<u32>().to_string();
    let scores = (1..).zip(body(" answer")).map(|(id, answer)| {
        let score = f64::from(u8::from(answer == right));
        let axes = ["goal_achievement", "grounding", "coordination", "recovery"].map(|axis| (axis, score));
        json!({"id": id, "explanation": "sums", "axes": axes.into_iter().collect::<std::collections::BTreeMap<_, _>>(), "score": score})
    });
    Reply::Say(json!({"trajectories": scores.collect::<Vec<_>>()}).to_string())
}

/// Arms are compared by models that judge, all arms at once, with costs in what a task usually costs; and what was made
/// of the tasks is kept for other judges, where the team says so.
#[test]
fn models_judge_the_arms_of_an_evaluation() {
    let place = set_up();
    let judge = "judge = { rule = \"relative\", models = [\"careful\"], group = 2, canary = 0, swap = 0 }";
    let reward = "[reward]\nscale = \"median\"\ntokens = -0.2\n[trace]\ncontent = true\n";
    let team = TEAM.replace("judge = \"text\"", judge).replace("alone = false", "");
    let team = team.replace("[reward]\ncall = -0.05\nmoney = -0.1\n", reward);
    place.write("team.toml", &team);
    let is_judge = |asked: &Asked| asked.messages.last().unwrap().1.starts_with("mark: ");
    let judges = Arc::new(AtomicU64::new(0));
    let asked_judges = judges.clone();
    let server = ModelServer::start(move |asked| match is_judge(asked) {
        true => {
            asked_judges.fetch_add(1, Ordering::SeqCst);
            marks(&asked.messages.last().unwrap().1)
        }
        false => answer(asked),
    });
    let server = server.unwrap();
    let evaluate = "evaluate team.toml --seeds 2 --epochs 3 --out arms --jobs 3 --arms";
    let said = run(&place, &server, &format!("{evaluate} fixed,cold"));
    assert_eq!(said.code, Some(0), "{}", said.stderr);
    assert_holds(&said.stdout, &["median over all measured tasks", "judges: 12 groups, 12 calls"]);
    let evaluation: Value = serde_json::from_str(&place.read("arms/evaluation.json")).unwrap();
    let mean = |arm: usize, figure: &str| {
        evaluation["arms"][arm]["measured"]["total"][figure]["mean"].as_f64().unwrap()
    };
    // Both solvers in order: the hasty one has the last word.
    assert_eq!(mean(0, "quality"), 0.0);
    assert!(mean(1, "quality") >= 0.5, "{}", said.stdout);
    let tokens = |arm: &str| -> Vec<f64> {
        let measured = (1..=2).map(|seed| place.read(&format!("arms/{arm}-{seed}/measured.json")));
        let runs = measured.map(|text| serde_json::from_str::<Value>(&text).unwrap());
        runs.flat_map(|run| run["tests"].as_array().unwrap().clone())
            .map(|t| t["tokens"].as_f64().unwrap())
            .collect()
    };
    let mut all = [tokens("fixed"), tokens("cold")].concat();
    all.sort_by(f64::total_cmp);
    let usual = all[(all.len() - 1) / 2];
    for arm in [0, 1] {
        let reward = mean(arm, "quality") - 0.2 * mean(arm, "tokens") / usual;
        assert!((mean(arm, "reward") - reward).abs() < 1e-9, "{arm}: {}", said.stdout);
    }

    // A second run asks for nothing again, neither models nor judges.
    let (requests, questions) = (server.requests(), judges.load(Ordering::SeqCst));
    let again = run(&place, &server, &format!("{evaluate} fixed,cold --resume --no-preflight"));
    assert_eq!((again.stdout, server.requests()), (said.stdout, requests), "{}", again.stderr);
    assert_eq!(judges.load(Ordering::SeqCst), questions);
    let more = run(&place, &server, &format!("{evaluate} fixed,cold,single --resume"));
    assert!(more.code == Some(1) && more.stderr.contains("choose another folder"), "{}", more.stderr);

    // Other judges, who know what is right, draw the same conclusion from what is kept.
    place.write("other.toml", TEAM);
    let kept = "arms/fixed-1/finished.jsonl arms/cold-1/finished.jsonl";
    let audit = run(&place, &server, &format!("judge audit {kept} --judges other.toml --json"));
    let audit: Value = serde_json::from_str(&audit.stdout).unwrap();
    assert_eq!((&audit["scored"], &audit["agreement"]["mean"]), (&12.into(), &1.0.into()), "{audit:#}");
    assert!(!place.path("arms/cold-1/attempts.jsonl").exists());
}
