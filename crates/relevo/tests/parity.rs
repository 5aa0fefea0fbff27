//! Recorded runs of AgensFlow, replayed: the same graph after each epoch, the same decision at each step, and the same
//! states on the way.
//!
//! The recording stays outside of the repository: `RELEVO_PARITY_DATA` names its folder, by default
//! `../shared/data/agensflow-e07` beside the repository.

use std::{collections::BTreeMap, env, io::Write, path::PathBuf, sync::Arc};

use relevo::{
    artifact::Facts,
    coordinate::{
        coordination::Coordination,
        document::{Document, Evidence, Support, Verification},
        features::Regime,
        plan::{Plan, Role, Skips},
        progress::{Progress, Reply},
        recording::{self, Outcome, Taken},
        replay::{Replay, Settings},
        stand::Stand,
    },
    team::TeamSpec,
};
use relevo_core::{graph::PolicyGraph, record::Table};

/// The folder of the recording; where there is none, that is said aloud.
fn recording_folder() -> Option<PathBuf> {
    let named = env::var_os("RELEVO_PARITY_DATA").map(PathBuf::from);
    let folder = named.clone().unwrap_or_else(|| {
        PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/data/agensflow-e07"))
    });
    assert!(named.is_none() || folder.join("runs.jsonl").exists(), "RELEVO_PARITY_DATA holds no runs.jsonl");
    if folder.join("runs.jsonl").exists() {
        return Some(folder);
    }
    // Straight to the terminal: what a passing test prints is not shown.
    let _ = std::io::stderr().write_all(
        b"\nSKIPPED: parity with AgensFlow was NOT tested, for there is no recording; RELEVO_PARITY_DATA names its folder\n\n",
    );
    None
}

/// What both graphs know of each situation, bit by bit.
fn bits(graph: &PolicyGraph) -> Vec<String> {
    let mut signatures = graph.signatures().to_vec();
    signatures.sort_unstable();
    let row = |s| format!("{s:?} {:?} {:?} {:?}", graph.edges(s), graph.sums(s), graph.leads(s));
    signatures.into_iter().map(row).collect()
}

#[test]
fn recorded_runs_give_the_recorded_graphs_and_decisions() {
    let Some(folder) = recording_folder() else { return };
    let plan = Plan::flat();
    let recorded = recording::runs(&folder.join("runs.jsonl"), &plan).unwrap();
    let warm = recording::graph(&folder.join("warm.json")).unwrap();
    let mut replay = Replay::new(&plan, &warm, Settings { skips: Skips::Allowed, steps_max: 18 });
    let mut folded = replay.graph().clone();
    for runs in recorded.runs.chunk_by(|a, b| a.epoch == b.epoch) {
        for run in runs {
            let otherwise = replay.run(run, |record| folded.apply(Table::Operations, &record)).unwrap();
            assert_eq!(otherwise, [], "run {}", run.number);
        }
        let snapshot = recording::graph(&folder.join(format!("epoch{:02}.json", runs[0].epoch))).unwrap();
        let compared = replay.compare(&snapshot);
        assert!(compared.is_whole(), "epoch {}: {compared:?}", runs[0].epoch);
        // Some runs of a recording had failed attempts, between which it does not divide tokens.
        let tokens = compared.tokens;
        assert!(tokens.equal * 100 >= tokens.of * 98, "epoch {}: {compared:?}", runs[0].epoch);
    }
    assert_eq!(bits(&folded), bits(replay.graph()), "the graph is the fold of the records");
}

/// What a cell of `role` may have made of a document, as far as a state can tell.
fn possible(role: Role, before: &Document) -> Vec<Document> {
    let mut after = before.clone();
    let evidence = |n: usize| vec![Evidence { source: String::new(), text: String::new() }; n];
    let found = |has: usize| {
        // More than three pieces tell no more than three.
        (has..=3.max(has)).map(|n| Document { evidence: evidence(n), ..before.clone() }).collect()
    };
    match role {
        Role::Planner => (after.goal, after.subproblem) = (Some("g".into()), Some("s".into())),
        Role::Memory => return found(0),
        Role::WebSearch => return found(before.evidence.len()),
        Role::Solver => after.draft_answer = Some("d".into()),
        Role::Verifier => {
            let says = |status| {
                let verification = Some(Verification { status, notes: String::new() });
                Document { verification, ..before.clone() }
            };
            return [Support::Unsupported, Support::PartiallySupported, Support::Supported]
                .map(says)
                .to_vec();
        }
        Role::Critic | Role::Synthesiser | Role::Evaluator => {}
    }
    vec![after]
}

/// Every recorded state is one that a coordinated team in the parity configuration can be in after what was done, and
/// what was done next is admissible there. What recordings leave out (how much was found, what a verifier said) may be
/// whatever fits all the states.
#[test]
fn recorded_states_follow_from_what_was_done() {
    let Some(folder) = recording_folder() else { return };
    let plan = Plan::flat();
    let agents =
        plan.cells().iter().map(|cell| format!("[[agents]]\nname = {:?}\nsimulate = \"x\"\n", cell.name));
    let team = "schema = \"relevo.team/v1\"\nname = \"parity\"\n[simulate]\nenvironment = \"x@1\"\n[coordinator]\n\
                plan = \"flat\"\nalone = false\nsteps_max = 18\nempty_search = \"counted\"\nrequired.high_risk = []\n";
    let team = TeamSpec::parse(&(team.to_owned() + &agents.collect::<String>())).unwrap();
    let coordination = Arc::new(Coordination::of(&team).unwrap());
    assert_eq!(coordination.plan(), &plan);
    let mut states = 0;
    for run in recording::runs(&folder.join("runs.jsonl"), &plan).unwrap().runs {
        let features = match run.steps[0].state.regime {
            Regime::Contradictory => r#"{"features":{"contradiction_risk":1}}"#,
            Regime::Ambiguous => r#"{"features":{"ambiguity_level":1}}"#,
            Regime::EvidenceHeavy => r#"{"features":{"evidence_availability":1,"verification_need":1}}"#,
            Regime::HighRisk => r#"{"features":{"verification_need":1}}"#,
            Regime::Exploratory => r#"{"features":{"novelty_level":1}}"#,
            Regime::Straightforward => "{}",
        };
        let mut tasks = vec![Progress::open(&coordination, &Facts::new(), features.as_bytes()).unwrap()];
        for (at, Taken { state, action, outcome, .. }) in run.steps.into_iter().enumerate() {
            tasks.retain(|task| {
                let Stand::Decide(decision) = task.stand() else { return false };
                decision.name == state.to_string() && decision.legal.contains(action)
            });
            assert!(!tasks.is_empty(), "run {}, step {at}: no task gets to {state}", run.number);
            states += 1;
            let role = plan.cells()[plan.cell(action)].role;
            let mut next = BTreeMap::new();
            for task in tasks {
                let replies: Vec<Option<Document>> = match (plan.invokes(action), outcome) {
                    (true, Outcome::Done) => possible(role, task.document()).into_iter().map(Some).collect(),
                    _ => vec![None],
                };
                for reply in replies {
                    let mut task = task.clone();
                    match (plan.invokes(action), &reply) {
                        (false, _) => task.skip(action),
                        (true, None) => task.performed(action, Reply::Failed).unwrap(),
                        (true, Some(document)) => {
                            task.performed(action, Reply::Document(&document.write())).unwrap()
                        }
                    }
                    // Tasks that nothing tells apart from here on are one.
                    next.insert(format!("{:?} {:?}", task.beliefs(), task.document()), task);
                }
            }
            tasks = next.into_values().collect();
        }
    }
    assert!(states > 0);
}
