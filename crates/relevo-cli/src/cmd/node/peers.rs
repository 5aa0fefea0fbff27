//! `relevo peers`: who is known, what crossed, and what was refused.

use std::{fmt::Write, path::PathBuf, process::ExitCode};

use clap::Args;
use relevo::report::table;
use relevo_node::{
    machine::Counters,
    spec::NodeSpec,
    store::{Reader, sqlite::SqliteReader},
};

use crate::cmd::{Fault, print};

/// Show who is known to a node, what crossed, and what was refused, whether it runs or not
#[derive(Args)]
pub(crate) struct PeersArguments {
    /// The node file
    node: PathBuf,
    /// As JSON
    #[arg(long)]
    json: bool,
}

/// What is shown of every peer; all else that was counted follows by its word.
const COLUMNS: [&str; 5] = ["received", "handed", "valued", "outcomes", "censored"];

pub(crate) fn peers(arguments: &PeersArguments) -> Result<ExitCode, Fault> {
    let (spec, _) = NodeSpec::load(&arguments.node)?;
    let peers = SqliteReader::open(&spec.state_folder())?.peers()?;
    let peers: Vec<(String, Counters)> =
        peers.into_iter().map(|(name, bytes)| (name, Counters::of_bytes(&bytes))).collect();
    if arguments.json {
        let peers: serde_json::Map<String, serde_json::Value> = peers
            .into_iter()
            .map(|(name, Counters { counts, value_min, value_max })| {
                (
                    name,
                    serde_json::json!({ "counts": counts, "value_min": value_min, "value_max": value_max }),
                )
            })
            .collect();
        print(&format!("{}\n", serde_json::to_string_pretty(&peers)?))?;
        return Ok(ExitCode::SUCCESS);
    }
    let header = ["peer", "received", "handed", "values", "outcomes", "censored", "V from", "V to"];
    let number = |value: Option<f64>| value.map_or("-".to_owned(), |value| format!("{value:.3}"));
    let rows = peers.iter().map(|(name, counters)| {
        let mut row = vec![name.clone()];
        row.extend(COLUMNS.map(|word| counters.of(word).to_string()));
        row.extend([number(counters.value_min), number(counters.value_max)]);
        row
    });
    let rows: Vec<Vec<String>> = [header.map(str::to_owned).to_vec()].into_iter().chain(rows).collect();
    let mut text = table(&rows);
    for (name, counters) in &peers {
        let others = counters.counts.iter().filter(|(word, _)| !COLUMNS.contains(&word.as_str()));
        let others: Vec<String> = others.map(|(word, count)| format!("{word} {count}")).collect();
        if !others.is_empty() {
            writeln!(text, "{name}: {}", others.join(", "))?;
        }
    }
    print(&text)?;
    Ok(ExitCode::SUCCESS)
}
