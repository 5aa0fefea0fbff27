//! `relevo replay`: repeat what a coordinator of another system did, and compare what comes of it.

use std::{path::PathBuf, process::ExitCode};

use clap::{Args, Subcommand};
use relevo::{
    coordinate::{
        plan::{Plan, Skips},
        recording,
        replay::{Comparison, Disagreement, Replay, Settings, Tally},
    },
    report::table,
};

use super::{Fault, print};

/// How many differing decisions are listed.
const LISTED_MAX: usize = 10;

/// Repeat recorded runs and compare what is learned from them
#[derive(Subcommand)]
pub(crate) enum ReplayCommand {
    Agensflow(AgensflowArguments),
}

/// Repeat runs of AgensFlow: the same graph after each epoch, and the same decision at each step?
///
/// Exits with 1 if anything but token sums differs and with 2 on trouble, like `diff`.
#[derive(Args)]
pub(crate) struct AgensflowArguments {
    /// The recorded runs, one JSON object a line
    #[arg(long, value_name = "FILE")]
    runs: PathBuf,
    /// Folder of the recorded graphs: epoch01.json, epoch02.json, ...
    #[arg(long, value_name = "FOLDER")]
    snapshots: PathBuf,
    /// The graph before the first run
    #[arg(long, value_name = "FILE")]
    warm: Option<PathBuf>,
    /// Cells in their order, divided by commas [default: the flat plan of 16]
    #[arg(long, value_delimiter = ',')]
    plan: Vec<String>,
    /// The recorded coordinator could not skip cells
    #[arg(long)]
    no_skip: bool,
    /// Steps after which the recorded coordinator stopped
    #[arg(long, default_value_t = 18, value_name = "STEPS")]
    max_steps: usize,
}

pub(crate) fn replay(command: &ReplayCommand) -> Result<ExitCode, Fault> {
    match command {
        ReplayCommand::Agensflow(arguments) => agensflow(arguments).or_else(|error| {
            say!("error: {error}");
            Ok(ExitCode::from(2))
        }),
    }
}

/// One epoch, replayed.
struct Epoch {
    number: u32,
    runs: usize,
    decisions: Tally,
    graph: Comparison,
}

fn agensflow(arguments: &AgensflowArguments) -> Result<ExitCode, Fault> {
    let plan = match arguments.plan.as_slice() {
        [] => Plan::flat(),
        cells => Plan::new(cells.iter().map(String::as_str)).map_err(|e| format!("--plan: {e}"))?,
    };
    let recorded = recording::runs(&arguments.runs, &plan)?;
    let warm = arguments.warm.as_deref().map_or(Ok(vec![]), recording::graph)?;
    let skips = if arguments.no_skip { Skips::None } else { Skips::Allowed };
    let mut replay = Replay::new(&plan, &warm, Settings { skips, steps_max: arguments.max_steps });
    let (mut epochs, mut disagreements) = (vec![], vec![]);
    for runs in recorded.runs.chunk_by(|a, b| a.epoch == b.epoch) {
        let before = disagreements.len();
        for run in runs {
            disagreements.extend(replay.run(run, drop)?);
        }
        let of: usize = runs.iter().map(|run| run.steps.len()).sum();
        let decisions = Tally { equal: of - (disagreements.len() - before), of };
        let number = runs[0].epoch;
        let graph = recording::graph(&arguments.snapshots.join(format!("epoch{number:02}.json")))?;
        epochs.push(Epoch { number, runs: runs.len(), decisions, graph: replay.compare(&graph) });
    }
    print(&told(&epochs, recorded.erroneous, &disagreements))?;
    let equal = disagreements.is_empty() && epochs.iter().all(|epoch| epoch.graph.is_whole());
    Ok(if equal { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn told(epochs: &[Epoch], erroneous: usize, disagreements: &[Disagreement]) -> String {
    let tally = |t: Tally| format!("{}/{}", t.equal, t.of);
    let head =
        ["epoch", "runs", "decisions", "nodes", "visits", "sums", "M2", "outgoing", "failures", "tokens"];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    for Epoch { number, runs, decisions, graph } in epochs {
        let Comparison { nodes, visits, sums, m2, outgoing, failures, tokens } = *graph;
        let tallies = [*decisions, nodes, visits, sums, m2, outgoing, failures, tokens];
        rows.push([number.to_string(), runs.to_string()].into_iter().chain(tallies.map(tally)).collect());
    }
    let mut text = table(&rows);
    let sum = |count: fn(&Epoch) -> usize| epochs.iter().map(count).sum::<usize>();
    let (given, of) = (sum(|e| e.decisions.equal), sum(|e| e.decisions.of));
    text += &format!("\nthe router gives {given} of {of} recorded decisions\n");
    for Disagreement { run, step, state, recorded, given } in disagreements.iter().take(LISTED_MAX) {
        let given = given.as_deref().unwrap_or("stop");
        text += &format!("  run {run}, step {step}: {recorded} was recorded, {given} is given, at {state}\n");
    }
    if disagreements.len() > LISTED_MAX {
        text += &format!("  and {} more\n", disagreements.len() - LISTED_MAX);
    }
    let differing: Vec<String> =
        epochs.iter().filter(|e| !e.graph.is_whole()).map(|e| e.number.to_string()).collect();
    text += &match differing.is_empty() {
        true => format!("the graph is as recorded after each of {} epochs\n", epochs.len()),
        false => format!("the graph differs after epoch {}\n", differing.join(", ")),
    };
    if let Some(tokens) = epochs.last().map(|e| e.graph.tokens).filter(|tokens| !tokens.is_whole()) {
        text += &format!(
            "note: the token sums of {} edges differ; they decide nothing, and are not counted as a difference\n",
            tokens.of - tokens.equal
        );
    }
    if erroneous > 0 {
        text += &format!("note: passed over, for they had ended in an error: {erroneous} of the runs\n");
    }
    text
}
