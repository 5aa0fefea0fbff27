//! Teams whose agents are tools, from end to end, at the made-up tools of `relevo lab tool-server`: one program for a whole
//! run, which ends with it, is started again where it crashes, and does nothing twice.

mod place;

use std::{
    collections::BTreeSet,
    fs,
    path::Path,
    process::Stdio,
    thread,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use place::{Place, assert_holds};

const TEAM: &str = r#"
schema = "relevo.team/v1"
name = "library"

[run]
episodes = 12
evaluation_tasks = 2

[tasks]
train = "tasks.jsonl"
test = "tasks.jsonl"
judge = "text"

[coordinator]
plan = "flat"
granularity = 0
skips = false
alone = false

[tools.lab]
command = ["RELEVO", "lab", "tool-server", "--texts", "texts.jsonl", "--log", "log"]
environment = ["LAB_KEY"]
allow = ["search", "environment"]

[[agents]]
name = "memory"
tool = "lab.search"
arguments = { query = "{goal}", limit = 1 }

[[agents]]
name = "solver"
command = ["./solve"]

[trace]
content = true
"#;

/// Answers with the document's evidence; once, when it has been called a few times, it hangs.
const SOLVE: &str = "read -r line\necho >> \"$0.log\"\n\
    [ -e \"$0.hangs\" ] && [ \"$(wc -l < \"$0.log\")\" -ge 5 ] && grep -q atlas in && mkdir \"$0.hung\" && sleep 5\n\
    text=$(sed 's/.*\"text\":\"\\([^\"]*\\).*/\\1/' in)\n\
    sed \"s/}$/,\\\"draft_answer\\\":\\\"$text\\\"}/\" in > out\necho '{\"ok\":true}'";

/// A folder with the team, of which `change` is made, its tasks and its texts.
fn set_up(change: (&str, &str)) -> Place {
    let place = Place::new();
    let (from, to) = change;
    assert!(TEAM.contains(from), "{from}");
    place.write("team.toml", &TEAM.replacen(from, to, 1).replace("RELEVO", env!("CARGO_BIN_EXE_relevo")));
    place.program("solve", SOLVE);
    place.write("in", &json!({"goal": "France", "subproblem": "where is Paris?"}).to_string());
    place.write("tasks.jsonl", r#"{"id": "1", "input": "in", "expect": {"text": "Paris is in France"}}"#);
    place.write("texts.jsonl", &json!({"source": "atlas", "text": "Paris is in France"}).to_string());
    place.write(".env", "LAB_KEY=sk-taint-5f1c\nOTHER_KEY=sk-taint-5f1c\n");
    place
}

/// The calls that a tool server has logged: its process, and what was called.
fn calls(place: &Place) -> Vec<(u32, String)> {
    let log = if place.path("log").exists() { place.read("log") } else { String::new() };
    let line = |line: &str| {
        let (pid, call) = line.split_once(' ').unwrap();
        (pid.parse().unwrap(), call.to_owned())
    };
    log.lines().map(line).collect()
}

fn programs(place: &Place) -> BTreeSet<u32> {
    calls(place).into_iter().map(|(pid, _)| pid).collect()
}

fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < Duration::from_secs(60), "{what} never comes");
        thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn a_tool_finds_what_is_answered_with() {
    let place = set_up(("", ""));
    place.ok("learn team.toml --out run");
    let report: Value = serde_json::from_str(&place.read("run/report.json")).unwrap();
    let in_order = &report["arms"][1];
    assert_eq!(
        (&in_order["name"], &in_order["quality"]["mean"]),
        (&json!("in order"), &json!(1.0)),
        "{report:#}"
    );
    let calls = calls(&place);
    assert!(
        calls.len() > 12 && calls.iter().all(|(_, call)| call == r#"search {"limit":1,"query":"France"}"#)
    );
    let programs = programs(&place);
    assert_eq!(programs.len(), 1, "one program for the whole run: {programs:?}");
    assert!(programs.iter().all(|pid| !Path::new(&format!("/proc/{pid}")).exists()), "which has ended");
    let found = place.read("run/content/0/0");
    assert!(found.contains(r#""evidence":[{"source":"atlas","text":"Paris is in France"}]"#), "{found}");
}

/// Killed while the agent behind the tool works: the tool is not called again for what it has already found.
#[test]
fn a_call_of_a_tool_that_came_back_is_not_made_again() {
    let (whole, killed) = (set_up(("", "")), set_up(("", "")));
    whole.ok("learn team.toml --out run");
    killed.write("solve.hangs", "");
    let mut child = killed.command("learn team.toml --out run").stderr(Stdio::null()).spawn().unwrap();
    until("the call", || killed.path("solve.hung").exists());
    child.kill().unwrap();
    child.wait().unwrap();
    let calls_then = calls(&killed).len();
    let program = *programs(&killed).first().unwrap();
    until("the end of the tool server", || !Path::new(&format!("/proc/{program}")).exists());
    killed.ok("learn team.toml --out run --resume");
    assert!(calls_then > 0);
    assert_eq!(calls(&killed).len(), calls(&whole).len(), "{calls_then} before the kill");
    assert_eq!(programs(&killed).len(), 2);
    let learned = |place: &Place| {
        serde_json::from_str::<Value>(&place.read("run/policy.json")).unwrap()["agents"].take()
    };
    assert!(learned(&whole).is_array());
    assert_eq!(learned(&killed), learned(&whole), "and the same was learned");
}

/// A handed-on team, whose payload is the arguments; a program that crashes is started again, but not for ever.
#[test]
fn a_tool_that_crashes_is_started_again() {
    let place = set_up(("", ""));
    let head = TEAM.split("[coordinator]").next().unwrap().replacen("[run]", "start = \"asker\"\n[run]", 1);
    let program = env!("CARGO_BIN_EXE_relevo");
    let server =
        format!("[tools.lab]\ncommand = [{program:?}, \"lab\", \"tool-server\", \"--log\", \"log\"]\n");
    place.write("in", &json!({"text": "Paris is in France", "reason": "why not"}).to_string());
    let crashed = "{\"Crashed\":{\"code\":3,\"signal\":null}}";
    let cases = [
        ("echo", ["null"; 8], 1),
        ("fail", ["{\"Refused\":\"why not\"}"; 8], 1),
        ("garbage", ["Garbage"; 8], 1),
        (
            "crash",
            [
                crashed,
                crashed,
                crashed,
                crashed,
                crashed,
                crashed,
                "5 sessions in a row",
                "5 sessions in a row",
            ],
            6,
        ),
    ];
    for (tool, failures, servers) in cases {
        let agent = format!(
            "[[agents]]\nname = \"asker\"\ntool = \"lab.{tool}\"\nobserves = []\nhandoffs = [\"finish\"]\n[trace]\ncontent = true\n"
        );
        place.write("team.toml", &format!("{head}{server}{agent}"));
        place.ok(&format!("learn team.toml --out {tool} --episodes 8"));
        for (episode, failure) in failures.into_iter().enumerate() {
            let content = place.read(&format!("{tool}/content/{episode}/0"));
            assert!(content.contains(failure), "{tool} {episode}: {content}");
            assert!(failure != crashed || content.contains("it crashes as it was told to"), "{content}");
        }
        assert_eq!(programs(&place).len(), servers, "{tool}");
        fs::remove_file(place.path("log")).unwrap();
    }
}

#[test]
fn the_doctor_finds_what_is_wrong_with_tools() {
    let command = TEAM.lines().find(|line| line.starts_with("command = [\"RELEVO\"")).unwrap();
    let at_url = "url = \"http://127.0.0.1:9/mcp\"";
    let environment = "environment = [\"LAB_KEY\"]\n";
    let cases: [((&str, &str), &[&str]); 6] = [
        (
            ("\"environment\"]\n", "\"enviroment\"]\n"),
            &["no tool \"enviroment\"", "did you mean \"environment\"?"],
        ),
        (("tool-server", "tool-serve"), &["exit code 2", "unrecognized subcommand"]),
        (("RELEVO", "./gone"), &["could not be started", "is the file there"]),
        (("RELEVO", "/bin/echo"), &["exit code 0"]),
        ((&format!("{command}\n{environment}"), &format!("{at_url}\n")), &["no connection can be made"]),
        (
            (&format!("{command}\n{environment}"), &format!("{at_url}\nkey = \"SEARCH_KEY\"\n")),
            &["SEARCH_KEY is not set", ".env"],
        ),
    ];
    for (change, said) in cases {
        let place = set_up(change);
        let doctor = place.relevo("doctor team.toml");
        assert_eq!(doctor.code, Some(1), "{}", doctor.stdout);
        assert_holds(&doctor.stdout, said);
        // The same is found before a run begins, which leaves nothing behind.
        let learn = place.error("learn team.toml --out run");
        assert_holds(&learn, &["tools \"lab\"", said[0]]);
        assert!(!place.path("run").exists());
    }
}

/// Of what is in the environment and in `.env`, a tool server sees what the team file names.
#[test]
fn a_tool_server_sees_the_variables_that_it_is_given() {
    let place = set_up((
        "lab.search\"\narguments = { query = \"{goal}\", limit = 1 }",
        "lab.environment\"\narguments = { for = \"{goal}\" }",
    ));
    place.ok("learn team.toml --out run --episodes 1");
    let found = place.read("run/content/0/0");
    assert_holds(&found, &["\"source\":\"lab.environment\"", "LAB_KEY", "PATH"]);
    assert!(!found.contains("OTHER_KEY") && !found.contains("USER") && !found.contains("taint"), "{found}");
    assert!(place.ok("doctor team.toml").contains("environment, search"));
}
