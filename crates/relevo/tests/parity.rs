//! Recorded runs of AgensFlow, replayed: the same graph after each epoch and the same decision at each step.
//!
//! The recording stays outside of the repository: `RELEVO_PARITY_DATA` names its folder, by default
//! `../shared/data/agensflow-e07` beside the repository.

use std::{env, io::Write, path::PathBuf};

use relevo::coordinate::{
    plan::{Plan, Skips},
    recording,
    replay::{Replay, Settings},
};
use relevo_core::{graph::PolicyGraph, record::Table};

fn recording_folder() -> Option<PathBuf> {
    let named = env::var_os("RELEVO_PARITY_DATA").map(PathBuf::from);
    let folder = named.clone().unwrap_or_else(|| {
        PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/data/agensflow-e07"))
    });
    assert!(named.is_none() || folder.join("runs.jsonl").exists(), "RELEVO_PARITY_DATA holds no runs.jsonl");
    folder.join("runs.jsonl").exists().then_some(folder)
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
    let Some(folder) = recording_folder() else {
        // Straight to the terminal: what a passing test prints is not shown.
        let _ = std::io::stderr().write_all(
            b"\nSKIPPED: parity with AgensFlow was NOT tested, for there is no recording; RELEVO_PARITY_DATA names its folder\n\n",
        );
        return;
    };
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
