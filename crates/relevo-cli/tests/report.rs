//! `relevo report` and `relevo explain RUN DECISION` as a person meets them.

use std::{fs, path::PathBuf, process::Command};

use serde_json::Value;
use tempfile::TempDir;

/// A folder with the team of `examples/maths-simulated`, measured on few tasks, and a run of it.
struct Place(TempDir);

impl Place {
    fn new() -> Self {
        let team = concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples/maths-simulated/team.toml");
        let team = fs::read_to_string(team).unwrap();
        let place = Place(tempfile::tempdir().unwrap());
        let small = team.replace("evaluation_tasks = 60_000", "evaluation_tasks = 20");
        fs::write(place.path("team.toml"), small).unwrap();
        place.says(0, "learn team.toml --episodes 200 --out run");
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap()
    }

    /// What the command prints to standard output and to standard error, ending with this code.
    fn says(&self, code: i32, arguments: &str) -> (String, String) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_relevo"));
        let output = command.args(arguments.split_whitespace()).current_dir(self.0.path()).output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        let (out, err) = (text(output.stdout), text(output.stderr));
        assert_eq!(output.status.code(), Some(code), "{arguments}: {out}{err}");
        assert!(!err.contains("panicked"), "{arguments}: {err}");
        (out, err)
    }

    fn json(&self, arguments: &str) -> Value {
        serde_json::from_str(&self.says(0, arguments).0).unwrap()
    }

    fn edit_team(&self, from: &str, to: &str) {
        let team = self.read("team.toml");
        assert!(team.contains(from));
        fs::write(self.path("team.toml"), team.replace(from, to)).unwrap();
    }
}

fn assert_holds(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "it does not say {part:?}: {text}");
    }
}

#[test]
fn report_tells_of_a_run_and_of_its_tasks() {
    let place = Place::new();
    let left = place.read("run/session.html");
    let (text, said) = place.says(0, "report run");
    assert_holds(&text, &["200 of 200 tasks ended, seed 1", "commissioner", "share of tasks", "finished"]);
    assert_holds(&said, &["the page is run/session.html"]);
    assert_eq!(left, place.read("run/session.html"), "learn leaves the same page");
    assert_holds(
        &left,
        &[
            "<h1>maths-simulated</h1>",
            "<svg",
            "prefers-color-scheme: dark",
            "what agents were given and gave back is not in it",
        ],
    );
    for foreign in ["<script", "http://", "https://"] {
        // The name of the language of pictures is no address that is asked for anything.
        assert!(
            !left.replace("http://www.w3.org/2000/svg", "").contains(foreign),
            "the page holds {foreign}"
        );
    }

    let session = place.json("report run --json --out elsewhere.html");
    assert_eq!(place.read("elsewhere.html"), left);
    assert_eq!((&session["schema"], &session["ended"]), (&"relevo.session/v1".into(), &200.into()));
    let tasks = session["tasks"].as_array().unwrap();
    let calls: u64 = tasks.iter().map(|task| task["calls"].as_u64().unwrap()).sum();
    assert_eq!((tasks.len(), Some(calls)), (200, session["totals"]["calls"].as_u64()));
    let learned: Value = serde_json::from_str(&place.read("run/policy.json")).unwrap();
    assert_eq!(session["config"], learned["source"]["config"]);

    let task = place.json("report run --task 17 --json");
    assert_eq!((&task["schema"], &task["task"]), (&"relevo.run/v1".into(), &17.into()));
    assert_eq!(task["return"], tasks[17]["return"]);
    let of_kind =
        |kind: &str| task["timeline"].as_array().unwrap().iter().filter(|e| e["kind"] == kind).count() as u64;
    assert_eq!(Some(of_kind("decided")), task["decisions"].as_u64());
    assert_eq!((Some(of_kind("called")), of_kind("learned")), (task["calls"].as_u64(), of_kind("decided")));
    assert_holds(&place.read("run/task-17.html"), &["<h1>Task 17</h1>", "class=\"bar\"", "</html>"]);
    assert_holds(&place.says(0, "report run --task 17").0, &["decision 17.0", "could be editor"]);
}

#[test]
fn explain_replays_a_decision_as_long_as_the_team_is_what_it_was() {
    let place = Place::new();
    let (first, _) = place.says(0, "explain run 17.0");
    assert_holds(
        &first,
        &[
            "decision 17.0 of maths-simulated: commissioner chose",
            "situation: dataset=",
            "kept from it by guards: nothing",
        ],
    );
    assert_holds(
        &first,
        &["policy version: 17 settlements of commissioner", "replayed: the same to the bit"],
    );
    assert_eq!(first, place.says(0, "explain run 17.0").0, "the same question, the same answer");

    // Without a decision, what the policy does: as before.
    assert_holds(
        &place.says(0, "explain run mathqa").0,
        &["policy of \"maths-simulated\"", "dataset=mathqa"],
    );

    fs::copy(place.path("team.toml"), place.path("as-it-was.toml")).unwrap();
    place.edit_team("initial = 0.5", "initial = 0.25");
    let (changed, _) = place.says(0, "explain run 17.0");
    assert_holds(&changed, &["have changed since the run began; told from the records alone", "unknown"]);
    assert_eq!(first, place.says(0, "explain run 17.0 --team as-it-was.toml").0);
    fs::remove_file(place.path("team.toml")).unwrap();
    assert_holds(
        &place.says(0, "explain run 17.0").0,
        &["replayed: no:", "team.toml", "told from the records alone"],
    );

    // A run of an older program does not say from which team file it was begun.
    fs::remove_file(place.path("run/run.json")).unwrap();
    assert_holds(&place.says(0, "explain run 17.0").0, &["name it by --team", "told from the records alone"]);
    assert_eq!(first, place.says(0, "explain run 17.0 --team as-it-was.toml").0);
}

#[test]
fn a_warm_start_is_told_and_replayed() {
    let place = Place::new();
    place.says(0, "learn team.toml --episodes 50 --seed 2 --from run --out warm");
    let session = place.json("report warm --json");
    let notice = session["notices"][0].as_str().unwrap();
    assert!(
        notice.starts_with("begun with ") && notice.ends_with(" priors of an earlier policy"),
        "{notice}"
    );
    assert_holds(&place.read("warm/session.html"), &["class=\"notice\""]);
    assert_holds(&place.says(0, "explain warm 49.1").0, &["replayed: the same to the bit"]);
}

#[test]
fn mistakes_are_answered() {
    let place = Place::new();
    for (arguments, answer) in [
        ("report run --task 200", "there is no task 200 in this run: 200 have begun, numbered from 0"),
        ("report nowhere", "nowhere/ledger.cbor: it cannot be opened"),
        ("explain run 200.0", "there is no task 200 in this run"),
        ("explain run 17.99", "decisions, numbered from 0: see relevo report --task 17"),
        ("explain run/policy.json 17.0", "a decision is looked up in the folder of its run"),
        ("explain run nonsense", "no situation contains \"nonsense\""),
    ] {
        let (out, err) = place.says(1, arguments);
        assert_eq!(out, "", "{arguments}");
        assert_holds(&err, &["error: ", answer]);
    }
    let mut ledger = fs::read(place.path("run/ledger.cbor")).unwrap();
    let middle = ledger.len() / 2;
    ledger[middle] ^= 1;
    fs::write(place.path("run/ledger.cbor"), ledger).unwrap();
    assert_holds(&place.says(1, "report run").1, &["run/ledger.cbor", "what stands before byte"]);
}
