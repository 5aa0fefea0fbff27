//! `relevo replay agensflow` as a person meets it, on a small recording that the test makes itself.

mod place;

use std::{collections::BTreeMap, fs, ops::Deref};

use place::{Place, Said, assert_holds};

/// States: nothing yet; planned; evidence found; drafted on it; drafted without.
const A: &str = r#"["straightforward",false,false,false,false,false,false,false,0.1,0.9,0.5,0.1]"#;
const B: &str = r#"["straightforward",true,true,false,false,false,false,false,0.1,0.8,0.5,0.1]"#;
const C: &str = r#"["straightforward",true,true,true,false,false,false,false,0.1,0.7,0.5,0.2]"#;
const D: &str = r#"["straightforward",true,true,true,true,false,false,false,0.3,0.6,0.5,0.2]"#;
const E: &str = r#"["straightforward",true,true,false,true,false,false,false,0.3,0.7,0.5,0.1]"#;

type Step = (&'static str, &'static str);

/// What the first legal cells make of a run, while the states are new.
const FIRST: [Step; 4] = [(A, "planner"), (B, "memory"), (C, "solver"), (D, "evaluator")];
/// After five visits of B the untried solver is the best there; then E is new, and memory fails.
const SIXTH: [Step; 4] = [(A, "planner"), (B, "solver"), (E, "FAIL:memory"), (E, "evaluator")];

/// Then both are known, and the solver is the better one; to skip the memory is still untried.
const SEVENTH: [Step; 4] = [(A, "planner"), (B, "solver"), (E, "memory"), (D, "evaluator")];

/// Tokens of every attempt.
const TOKENS: u32 = 10;

fn run(number: usize, epoch: u32, reward: f64, steps: &[Step]) -> String {
    let agents: BTreeMap<&str, String> = steps
        .iter()
        .filter(|(_, action)| !action.starts_with("skip:"))
        .map(|(_, action)| match action.strip_prefix("FAIL:") {
            Some(name) => (name, format!("[0, 1, {TOKENS}, 0.5]")),
            None => (*action, format!("[1, 0, {TOKENS}, 0.5]")),
        })
        .collect();
    let agents: Vec<String> = agents.iter().map(|(name, agent)| format!("{name:?}: {agent}")).collect();
    let steps: Vec<String> = steps.iter().map(|(state, action)| format!("[{state}, {action:?}]")).collect();
    format!(
        r#"{{"run": {number}, "epoch": {epoch}, "task": "t", "cls": "c", "regime": "straightforward", "error": false, "reward": {reward:?}, "hybrid": null, "judge": null, "group": 1, "tokens": 0, "retries": 0, "judge_tokens": 0, "agents": {{{}}}, "steps": [{}]}}"#,
        agents.join(", "),
        steps.join(", ")
    )
}

/// The graph that runs make, by the definition of its sums.
fn graph(runs: &[(f64, &[Step])]) -> String {
    let mut rewards: BTreeMap<Step, Vec<f64>> = BTreeMap::new();
    let (mut failures, mut leads) = (BTreeMap::new(), BTreeMap::new());
    for (reward, steps) in runs {
        let (failed, path): (Vec<Step>, Vec<Step>) = steps.iter().partition(|(_, a)| a.starts_with("FAIL:"));
        path.iter().for_each(|step| rewards.entry(*step).or_default().push(*reward));
        leads.extend(path.windows(2).map(|pair| (pair[0], pair[1].0)));
        for (state, action) in failed {
            rewards.entry((state, &action[5..])).or_default();
            *failures.entry((state, &action[5..])).or_insert(0) += 1;
        }
    }
    let states: BTreeMap<&str, ()> = rewards.keys().map(|(state, _)| (*state, ())).collect();
    let nodes = states.keys().map(|state| {
        let (mut visits, mut sum, mut actions, mut outgoing) = (0, 0.0, vec![], vec![]);
        for (step, rewards) in rewards.iter().filter(|((s, _), _)| s == state) {
            let (n, total) = (rewards.len(), rewards.iter().fold(0.0, |sum, r| sum + r));
            // In halves and quarters, every way to add them up is exact.
            let m2 = rewards.iter().fold(0.0, |m2, r| m2 + (r - total / n as f64).powi(2));
            let f = failures.get(step).unwrap_or(&0);
            let tokens = n as u32 * TOKENS;
            actions.push(format!("{:?}: [{n}, {total:?}, {m2:?}, {tokens}.0, 0.0, {f}]", step.1));
            outgoing.extend(leads.get(step).map(|to| format!("{:?}: {to}", step.1)));
            visits += n;
            sum += total;
        }
        let (actions, outgoing) = (actions.join(", "), outgoing.join(", "));
        format!(
            r#"{{"sig": {state}, "visits": {visits}, "value_sum": {sum:?}, "actions": {{{actions}}}, "outgoing": {{{outgoing}}}}}"#
        )
    });
    format!("[{}]", nodes.collect::<Vec<_>>().join(",\n"))
}

/// A folder with a recording of six runs in two epochs, and one that ended in an error.
struct Recording(Place);

impl Deref for Recording {
    type Target = Place;

    fn deref(&self) -> &Place {
        &self.0
    }
}

impl Recording {
    fn new() -> Self {
        let place = Place::new();
        let all: Vec<(f64, &[Step])> =
            (0..6).map(|i| (i as f64 / 4.0, if i < 5 { &FIRST[..] } else { &SIXTH })).collect();
        let epoch = |i| if i < 4 { 1 } else { 2 };
        let mut lines: Vec<String> =
            all.iter().enumerate().map(|(i, (reward, steps))| run(i + 1, epoch(i), *reward, steps)).collect();
        let error = run(7, 2, 0.0, &FIRST[..1]).replace("\"error\": false", "\"error\": true");
        lines.push(error.replace("\"reward\": 0.0", "\"reward\": null"));
        place.write("runs.jsonl", &(lines.join("\n") + "\n"));
        place.write("epoch01.json", &graph(&all[..4]));
        place.write("epoch02.json", &graph(&all));
        Recording(place)
    }

    /// Exit code, standard output and standard error of a replay.
    fn replay(&self, more: &str) -> (i32, String, String) {
        let mut command = self.command("replay agensflow --runs runs.jsonl --snapshots .");
        command.args(["--plan", "planner,memory,solver,evaluator"]).args(more.split_whitespace());
        let Said { code, stdout, stderr } = Said::new(command.output().unwrap());
        (code.unwrap(), stdout, stderr)
    }
}

#[test]
fn a_recording_of_the_same_coordinator_is_equal() {
    let place = Recording::new();
    let (code, stdout, stderr) = place.replay("");
    assert_eq!((code, stderr.as_str()), (0, ""), "{stdout}");
    let wanted = ["24 of 24 recorded decisions", "as recorded after each of 2 epochs", "16/16", "8/8"];
    assert_holds(&stdout, &wanted);
    assert_holds(&stdout, &["1 of the runs"]);

    // Among the steps of one state, the place of the one that failed is not told: the router's own is accepted.
    let [.., failed, last] = SIXTH.map(|(state, action)| format!("[{state}, {action:?}]"));
    let whole = place.read("runs.jsonl");
    place.write("runs.jsonl", &whole.replace(&format!("{failed}, {last}"), &format!("{last}, {failed}")));
    assert_ne!(place.read("runs.jsonl"), whole);
    assert_eq!(place.replay(""), (0, stdout, String::new()));

    // Taken up after its first epoch.
    let second: Vec<String> = place.read("runs.jsonl").lines().skip(4).map(str::to_owned).collect();
    place.write("runs.jsonl", &second.join("\n"));
    let (code, stdout, _) = place.replay("--warm epoch01.json");
    assert_eq!(code, 0, "{stdout}");
    assert_holds(&stdout, &["8 of 8 recorded decisions", "after each of 1 epochs"]);
    // Cold, the sixth run finds B too little known.
    let (code, stdout, _) = place.replay("");
    assert_eq!(code, 1, "{stdout}");
    assert_holds(
        &stdout,
        &["run 6, step 1: solver was recorded, memory is given, at regime=straightforward"],
    );
    assert_holds(&stdout, &["differs after epoch 2"]);
}

/// A coordinator that skips nothing decides otherwise where to skip is untried.
#[test]
fn a_recording_without_skips_is_equal_without_them() {
    let place = Recording::new();
    let steps: Vec<&[Step]> = [&[&FIRST[..]; 5][..], &[&SIXTH, &SEVENTH]].concat();
    let all: Vec<(f64, &[Step])> =
        steps.iter().enumerate().map(|(i, steps)| (i as f64 / 4.0, *steps)).collect();
    let lines = all.iter().enumerate().map(|(i, (reward, steps))| run(i + 1, 1, *reward, steps) + "\n");
    place.write("runs.jsonl", &lines.collect::<String>());
    place.write("epoch01.json", &graph(&all));
    fs::remove_file(place.path("epoch02.json")).unwrap();
    let (code, stdout, stderr) = place.replay("--no-skip");
    assert_eq!((code, stderr.as_str()), (0, ""), "{stdout}");
    assert_holds(&stdout, &["28 of 28 recorded decisions"]);
    let (code, stdout, _) = place.replay("");
    assert_eq!(code, 1, "{stdout}");
    assert_holds(&stdout, &["27 of 28", "run 7, step 1: solver was recorded, skip:memory is given"]);
}

#[test]
fn any_difference_is_told() {
    let place = Recording::new();
    let (code, stdout, _) = place.replay("--max-steps 3");
    assert_eq!(code, 1);
    let wanted =
        ["18 of 24", "run 1, step 3: evaluator was recorded, stop is given", "as recorded after each"];
    assert_holds(&stdout, &wanted);
    let whole = place.read("epoch02.json");
    let changes = [
        // A failure, a sum in its last digit, a sum of squares, and where an action led.
        ("0.0, 0.0, 0.0, 0.0, 1]", "0.0, 0.0, 0.0, 0.0, 2]"),
        ("[6, 3.75, ", "[6, 3.7500000000000004, "),
        ("[6, 3.75, 1.09375, ", "[6, 3.75, 1.0937500001, "),
        (&*format!("\"planner\": {B}"), &*format!("\"planner\": {C}")),
    ];
    for (from, to) in changes {
        assert!(whole.contains(from), "{from}: {whole}");
        place.write("epoch02.json", &whole.replace(from, to));
        let (code, stdout, stderr) = place.replay("");
        assert_eq!((code, stderr.as_str()), (1, ""), "{from}: {stdout}");
        assert_holds(&stdout, &["24 of 24", "the graph differs after epoch 2\n"]);
    }
    // A state and an action that only the recording knows.
    for (from, to) in [(E, &*E.replace("0.7", "0.6")), ("\"solver\"", "\"solver_cot\"")] {
        place.write("epoch02.json", &whole.replace(from, to));
        let (code, stdout, stderr) = place.replay("");
        assert_eq!((code, stderr.as_str()), (1, ""), "{from}: {stdout}");
    }
}

#[test]
fn what_cannot_be_read_is_refused_with_its_place() {
    let place = Recording::new();
    let files = ["runs.jsonl", "epoch01.json"];
    let whole = files.map(|name| place.read(name));
    let planner = "[1, 0, 10, 0.5]";
    let cases: [(usize, &str, &str, &[&str]); 16] = [
        (0, "\"reward\": 0.25", "\"reward\": NaN", &["runs.jsonl, line 2", "not of the recorded form"]),
        (0, "\"reward\": 0.25", "\"reward\": 1e999", &["runs.jsonl, line 2", "out of range"]),
        (0, "\"reward\": 0.25", "\"reward\": 1e12", &["runs.jsonl, line 2", "between -1e9 and 1e9"]),
        (0, "\"reward\": 0.25", "\"reward\": null", &["runs.jsonl, line 2", "no reward", "\"error\": true"]),
        (0, planner, "[1, 0, -10, 0.5]", &["runs.jsonl, line 1", "-10"]),
        (0, "\"task\"", "\"tusk\"", &["runs.jsonl, line 1", "unknown field `tusk`"]),
        (
            0,
            "\"solver\"",
            "\"solvr\"",
            &["line 1", "no cell \"solvr\"", "did you mean \"solver\"?", "--plan"],
        ),
        (0, "0.9,0.5", "0.95,0.5", &["line 1", "0.95", "0, 0.1, ..., 1"]),
        (0, "\"straightforward\",true", "\"simple\",true", &["line 1", "simple"]),
        (0, "\"FAIL:memory\"", "\"FAIL:solver\"", &["line 6", "solver has no failures"]),
        (0, "\"epoch\": 1", "\"epoch\": 3", &["line 5", "epoch 2 follows epoch 3", "order"]),
        (
            1,
            "\"visits\": 4",
            "\"visits\": 5",
            &["epoch01.json", "at regime=straightforward", "5 visits", "4 together"],
        ),
        (1, "40.0, 0.0, 0]", "-40.0, 0.0, 0]", &["epoch01.json", "negative"]),
        (1, B, A, &["epoch01.json", "two of it"]),
        (1, "\"value_sum\"", "\"sum\"", &["epoch01.json, line 1", "unknown field `sum`"]),
        (1, "}]", "}", &["epoch01.json, line", "cut off"]),
    ];
    for (file, from, to, parts) in cases {
        assert!(whole[file].contains(from), "{from}");
        place.write(files[file], &whole[file].replace(from, to));
        let (code, stdout, stderr) = place.replay("");
        assert_eq!((code, stdout.as_str()), (2, ""), "{from} -> {to}: {stderr}");
        assert_holds(&stderr, parts);
        assert_eq!(stderr.lines().count(), 1, "{stderr}");
        place.write(files[file], &whole[file]);
    }
    let third = whole[0].lines().nth(2).unwrap();
    place.write("runs.jsonl", &whole[0].replace(third, &third[..third.len() / 2]));
    assert_holds(&place.replay("").2, &["runs.jsonl, line 3", "cut off", "record it again"]);
    place.write("runs.jsonl", "");
    assert_holds(&place.replay("").2, &["runs.jsonl", "no run"]);
    place.write("runs.jsonl", &whole[0]);
    fs::remove_file(place.path("epoch02.json")).unwrap();
    let (code, _, stderr) = place.replay("");
    assert_eq!(code, 2);
    assert_holds(&stderr, &["epoch02.json", "cannot be read"]);
    assert_holds(&place.replay("--warm none.json").2, &["none.json", "cannot be read"]);
    assert_holds(&place.replay("--plan planner").2, &["--plan: cell \"planner\" is in the plan twice"]);
}
