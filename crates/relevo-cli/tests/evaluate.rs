//! `relevo evaluate` as a person meets it.

mod place;

use std::fs;

use place::{Place, assert_holds};
use serde_json::Value;

/// Two seeds, two epochs of ten tasks, eight tasks to measure on.
const SMALL: &str = "--seeds 2 --epochs 2 --epoch-tasks 10 --tests 8 --class class";

/// A folder with the team of `examples/desk`.
fn desk() -> Place {
    let place = Place::new();
    let desk = concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples/desk/");
    fs::create_dir(place.path("skills")).unwrap();
    for skill in ["concise", "cot", "evidence"] {
        let file = format!("skills/{skill}.md");
        fs::copy(format!("{desk}{file}"), place.path(&file)).unwrap();
    }
    let team = fs::read_to_string(format!("{desk}team.toml")).unwrap();
    place.write("team.toml", &team.replace("evaluation_tasks = 1_600", "evaluation_tasks = 16"));
    place
}

fn figure<'v>(evaluation: &'v Value, arm: &str, pointer: &str) -> &'v Value {
    let arms = evaluation["arms"].as_array().unwrap();
    let found = arms.iter().find(|a| a["arm"] == arm).unwrap_or_else(|| panic!("there is no {arm}"));
    found.pointer(pointer).unwrap_or_else(|| panic!("{arm} has no {pointer}"))
}

#[test]
fn arms_are_compared_task_by_task() {
    let place = desk();
    let text = place.ok(&format!("evaluate team.toml {SMALL}"));
    assert_holds(
        &text,
        &["a simulation", "Less fixed, paired", "Quality by class", "mitigation", "Intervals: 95%"],
    );
    let out = "runs/desk-arms";
    let files = place.files(out);
    for expected in
        ["cold-1", "cold-3", "evaluation.html", "evaluation.json", "fixed-2", "no-skip-1", "single-2"]
    {
        assert!(files.iter().any(|f| f == expected), "{expected} in {files:?}");
    }
    assert_eq!(place.read(&format!("{out}/evaluation.txt")), text);

    let evaluation: Value = serde_json::from_str(&place.read(&format!("{out}/evaluation.json"))).unwrap();
    assert_eq!(
        (&evaluation["schema"], &evaluation["test_tasks"]),
        (&"relevo.evaluation/v1".into(), &8.into())
    );
    assert_eq!(evaluation["seeds"], serde_json::json!([1, 2]));
    let mean = |arm, pointer: &str| figure(&evaluation, arm, pointer)["mean"].as_f64().unwrap();
    // Its workflow, whatever comes of it.
    assert_eq!(mean("fixed", "/measured/total/calls"), 8.0);
    assert_eq!(mean("single", "/measured/total/calls"), 1.0);
    for arm in ["no-skip", "cold", "warm", "single"] {
        for kind in ["quality", "reward", "tokens"] {
            let difference = mean(arm, &format!("/minus_fixed/total/{kind}"));
            let [of_arm, of_fixed] = [arm, "fixed"].map(|arm| mean(arm, &format!("/measured/total/{kind}")));
            assert!((difference - (of_arm - of_fixed)).abs() < 1e-9, "{arm} {kind}");
        }
        assert!(mean(arm, "/learning/tokens") > 0.0);
    }
    assert_eq!(figure(&evaluation, "cold", "/measured/by_class").as_object().unwrap().len(), 8);
    assert_eq!(figure(&evaluation, "cold", "/learning/epochs").as_array().unwrap().len(), 2);
    assert_eq!(mean("cold", "/learning/tasks"), 20.0);
    assert!(figure(&evaluation, "fixed", "/learning").is_null());

    let page = place.read(&format!("{out}/evaluation.html"));
    assert_holds(
        &page,
        &["<h1>desk</h1>", "<svg", "warm: quality per task", "prefers-color-scheme: dark", "</html>"],
    );
    assert!(!page.contains("<script") && !page.contains("src="), "it needs nothing besides itself");
    assert_holds(&place.ok(&format!("report {out}/cold-1")), &["20 of 20 tasks ended, seed 1"]);
}

/// What a person would wire is a peer, not every cell there is.
#[test]
fn fixed_is_the_workflow_of_the_team() {
    let place = desk();
    let team = place.read("team.toml");
    let (team, _) = team.split_once("[[workflows]]").unwrap();
    let flow = |rest: &str| {
        place.write("team.toml", &format!("{team}\n[[workflows]]\nname = \"usual\"\n{rest}\n"));
    };
    flow("route = [\"planner\", \"solver_cot_large\", \"evaluator\"]");
    let text = place.ok(&format!("evaluate team.toml --arms fixed,single --out arms {SMALL}"));
    assert_holds(&text, &["fixed is the workflow usual: planner, solver_cot_large, evaluator"]);
    let evaluation: Value = serde_json::from_str(&place.read("arms/evaluation.json")).unwrap();
    assert_eq!(figure(&evaluation, "fixed", "/measured/total/calls/mean"), 3.0);
    // Without one, every cell there is.
    place.write("without.toml", team);
    place.ok(&format!("evaluate without.toml --arms fixed --out all {SMALL}"));
    let evaluation: Value = serde_json::from_str(&place.read("all/evaluation.json")).unwrap();
    assert!(figure(&evaluation, "fixed", "/measured/total/calls/mean").as_f64() > Some(17.0));
    flow("route = [\"planner\", \"evaluator\"]");
    let changed = place.error(&format!("evaluate team.toml --arms fixed,single --out arms {SMALL} --resume"));
    assert_holds(&changed, &["begun with fixed", "solver_cot_large"]);
    flow("rules = []\nroute = [\"planer\"]");
    assert_holds(&place.error("evaluate team.toml --out other"), &["did you mean \"planner\"?"]);
    flow("route = [\"planner\"]\nrepeat_until = { \"a\" = [\"b\"] }");
    assert_holds(&place.error("evaluate team.toml --out other"), &["without rules or repeat_until"]);
}

#[test]
fn what_is_finished_is_not_run_again() {
    let place = desk();
    let arms = "evaluate team.toml --out arms --arms fixed,cold,warm";
    let whole = place.ok(&format!("{arms} {SMALL}"));
    assert_holds(&place.error(&format!("{arms} {SMALL}")), &["already holds an evaluation", "--resume"]);

    // One run is half done, one was learned and not measured; the others are not touched.
    fs::remove_file(place.path("arms/cold-2/measured.json")).unwrap();
    fs::remove_file(place.path("arms/cold-2/policy.json")).unwrap();
    let ledger = fs::read(place.path("arms/cold-2/ledger.cbor")).unwrap();
    fs::write(place.path("arms/cold-2/ledger.cbor"), &ledger[..ledger.len() / 2]).unwrap();
    fs::remove_file(place.path("arms/warm-1/measured.json")).unwrap();
    let before = fs::metadata(place.path("arms/cold-1/ledger.cbor")).unwrap().modified().unwrap();
    let said = place.relevo(&format!("{arms} {SMALL} --resume"));
    assert_eq!((said.code, &said.stdout), (Some(0), &whole), "{}", said.stderr);
    assert_eq!(said.stderr.matches("measured on").count(), 2, "{}", said.stderr);
    assert_eq!(fs::metadata(place.path("arms/cold-1/ledger.cbor")).unwrap().modified().unwrap(), before);

    // Arms and seeds may be added, what learning depends on may not change.
    let more = SMALL.replace("--seeds 2", "--seeds 3");
    assert_holds(&place.ok(&format!("{arms},single {more} --resume")), &["3 seeds", "single (solver_"]);
    let longer = SMALL.replace("--epochs 2", "--epochs 3");
    assert_holds(
        &place.error(&format!("{arms} {longer} --resume")),
        &["begun with epochs 2; now it is epochs 3"],
    );
    fs::write(place.path("arms/cold-1/measured.json"), "{").unwrap();
    assert_holds(&place.error(&format!("{arms} {SMALL} --resume")), &["cold-1/measured.json", "damaged"]);
}

#[test]
fn a_policy_of_another_run_is_a_beginning() {
    let place = desk();
    place.relevo("learn team.toml --episodes 30 --out earlier");
    let text = place.ok(&format!("evaluate team.toml --arms warm --from earlier --out arms {SMALL}"));
    assert_holds(&text, &["Warm: earlier."]);
    assert_eq!(place.files("arms").iter().filter(|f| f.starts_with("cold")).count(), 0);
    assert_holds(&place.ok("report arms/warm-1"), &["priors of an earlier policy"]);
}

/// A program that logs the amount that it is given.
fn logs(document: &str) -> String {
    format!(
        "read -r line\na=${{line#*'\"amount\":\"'}}\necho \"${{a%%'\"'*}}\" >> \"$0.log\"\n\
         echo '{document}' > out\necho '{{\"ok\":true,\"tokens\":10,\"money\":0.5}}'"
    )
}

#[test]
fn an_epoch_of_programs_is_every_training_task_once() {
    let place = Place::new();
    place.program("clerk", &logs(r#"{"goal":"g","subproblem":"s"}"#));
    place.program("payer", &logs(r#"{"goal":"g","subproblem":"s","draft_answer":"paid"}"#));
    place.write(
        "team.toml",
        "schema = \"relevo.team/v1\"\nname = \"office\"\n[tasks]\ntrain = \"train.jsonl\"\ntest = \"test.jsonl\"\n\
         judge = \"text\"\n[coordinator]\nplan = \"flat\"\nfacts = [\"amount\"]\nskips = false\nalone = false\n\
         [[agents]]\nname = \"clerk\"\ncommand = [\"./clerk\"]\nrole = \"planner\"\n\
         [[agents]]\nname = \"payer\"\ncommand = [\"./payer\"]\nrole = \"solver\"\n",
    );
    place.write("in.json", r#"{"goal":"g"}"#);
    let line = |n: &str| {
        format!(
            "{{\"id\":\"t{n}\",\"input\":\"in.json\",\"facts\":{{\"amount\":\"{n}\"}},\"expect\":{{\"text\":\"paid\"}}}}\n"
        )
    };
    place.write("train.jsonl", &["1", "2", "3", "4", "5"].map(line).concat());
    place.write("test.jsonl", &line("test"));
    let epochs = "evaluate team.toml --seeds 1 --epochs 3 --class amount";
    assert_holds(&place.error(&format!("{epochs} --epoch-tasks 2")), &["each of its 5 training tasks once"]);

    let text = place.ok(&format!("{epochs} --arms cold"));
    assert_holds(&text, &["cold  1.000", "each of 5 training tasks once"]);
    let log = place.read("clerk.log");
    let amounts: Vec<&str> = log.lines().collect();
    let (learned, measured) = amounts.split_at(15);
    assert_eq!(measured, ["test"]);
    for epoch in learned.chunks(5) {
        let mut sorted = epoch.to_vec();
        sorted.sort();
        assert_eq!(sorted, ["1", "2", "3", "4", "5"]);
    }
    assert!(learned[..5] != learned[5..10] || learned[..5] != learned[10..], "each in an order of its own");

    // What is paid for is not done again; alone, the one who pays takes the goal as it is.
    let text = place.ok(&format!("{epochs} --arms fixed,cold,single --resume"));
    assert_holds(&text, &["single (payer 1×)", "fixed, cold, single on 1 task,"]);
    assert_eq!(place.read("clerk.log").lines().count(), 17, "measured once more, for fixed");
}

#[test]
fn mistakes_are_answered() {
    let place = desk();
    let maths = concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples/maths-simulated/team.toml");
    for (arguments, answers) in [
        (format!("evaluate {maths}"), &["no [coordinator]", "relevo learn"][..]),
        ("evaluate team.toml --class clas".into(), &["--class clas", "did you mean \"class\"?"]),
        ("evaluate team.toml --resume".into(), &["holds no evaluation to resume"]),
        ("evaluate nowhere.toml".into(), &["nowhere.toml", "cannot be read"]),
    ] {
        assert_holds(&place.error(&arguments), answers);
    }
    let said = place.relevo("evaluate team.toml --arms fixed,warn");
    assert_eq!(said.code, Some(2));
    assert_holds(&said.stderr, &["there is no arm \"warn\"; did you mean \"warm\"?"]);
    assert!(!place.path("runs").exists());
}
