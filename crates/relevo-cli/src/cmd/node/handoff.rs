//! `relevo handoff` and `relevo outcome`: the operator of a node hands tasks to its agents, and says how good they were.

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::Args;
use futures_util::{StreamExt, stream};
use indicatif::{ProgressBar, ProgressStyle};
use relevo::{
    artifact::{Artifact, Facts, Scalar, check_facts},
    judge::rule::Rule,
    tasks::{FileTasks, TaskSource},
    team::{JudgeSpec, TasksSpec},
};
use relevo_node::{
    ids::WireId,
    operator::{Handed, Operator},
    spec::NodeSpec,
};

use super::{new_id, runtime};
use crate::{
    cmd::{Fault, print},
    world,
};

/// Of how many tasks in a row the mean quality is printed.
const ROW: usize = 50;

/// Hand a task to an agent of a node that runs, as its operator, and wait for what comes back
///
/// Prints the id of the handoff, under which its outcome is told. With --tasks, a whole file of tasks is handed over, what
/// comes back is judged, and each outcome is told.
#[derive(Args)]
pub(crate) struct HandoffArguments {
    /// The node file
    node: PathBuf,
    /// The agent [default: the node's entry]
    #[arg(long, value_name = "AGENT")]
    to: Option<String>,
    /// What is handed over
    #[arg(long, value_name = "FILE", required_unless_present = "tasks")]
    input: Option<PathBuf>,
    /// A public fact that goes with it: a whole number, true, false, or a text
    #[arg(long = "fact", value_name = "NAME=VALUE", conflicts_with = "tasks")]
    facts: Vec<String>,
    /// Where to put what comes back [default: standard output]
    #[arg(long, value_name = "FILE", conflicts_with = "tasks")]
    output: Option<PathBuf>,
    /// Do not wait for what comes back
    #[arg(long, conflicts_with_all = ["output", "tasks"])]
    no_wait: bool,
    /// JSON lines of tasks, each with what is expected, to be handed over one after the other
    #[arg(long, value_name = "FILE", conflicts_with = "input")]
    tasks: Option<PathBuf>,
    /// How these are judged: sha256 or text
    #[arg(long, value_name = "RULE", default_value = "sha256", requires = "tasks")]
    judge: String,
    /// How many of these there may be at a time
    #[arg(long, value_name = "N", default_value_t = 1, requires = "tasks")]
    jobs: usize,
    /// At most so many of these; a file that is shorter is gone through again
    #[arg(long, value_name = "N", requires = "tasks")]
    count: Option<usize>,
}

/// Say how good a finished task was, from 0 to 1: the agent that finished it learns from that, wherever it is
#[derive(Args)]
pub(crate) struct OutcomeArguments {
    /// The node file
    node: PathBuf,
    /// The id that `relevo handoff` printed
    handoff: String,
    /// How good it was, from 0 to 1
    quality: f64,
}

pub(crate) fn handoff(arguments: &HandoffArguments) -> Result<ExitCode, Fault> {
    let (spec, team) = NodeSpec::load(&arguments.node)?;
    let to = arguments.to.clone().unwrap_or_else(|| spec.entry.clone());
    if !team.local().any(|agent| agent.name == to) {
        let known: Vec<&str> = team.local().map(|agent| agent.name.as_str()).collect();
        return Err(format!("--to {to}: this node has no such agent; it has {}", known.join(", ")).into());
    }
    runtime()?.block_on(async {
        let operator = Operator::of(&spec).map_err(|e| format!("{}: {e}", arguments.node.display()))?;
        match (&arguments.tasks, &arguments.input) {
            (Some(tasks), _) => hand_all(arguments, &operator, &to, tasks).await,
            (None, Some(input)) => hand_one(arguments, &operator, &to, input).await,
            (None, None) => unreachable!("one of them is required"),
        }
    })
}

async fn hand_one(
    arguments: &HandoffArguments,
    operator: &Operator,
    to: &str,
    input: &Path,
) -> Result<ExitCode, Fault> {
    let payload = std::fs::read(input).map_err(|e| format!("{}: {e}", input.display()))?;
    let artifact = Artifact { facts: facts(&arguments.facts)?, payload: payload.into() };
    let handoff = new_id()?;
    let Handed { result, value, .. } = operator.hand(handoff, to, &artifact, !arguments.no_wait).await?;
    let value = value.map_or(String::new(), |value| format!(", which {to} values at {value:.3}"));
    say!("handoff {handoff}{value}");
    match result {
        Ok(artifact) => {
            match &arguments.output {
                Some(output) => world::write_file(output, &artifact.payload)?,
                None => print(&String::from_utf8_lossy(&artifact.payload))?,
            }
            Ok(ExitCode::SUCCESS)
        }
        Err(_) if arguments.no_wait => Ok(ExitCode::SUCCESS),
        Err(why) => Err(format!("nothing came back: {why}").into()),
    }
}

async fn hand_all(
    arguments: &HandoffArguments,
    operator: &Operator,
    to: &str,
    file: &Path,
) -> Result<ExitCode, Fault> {
    let rule = match arguments.judge.as_str() {
        "sha256" => Rule::Sha256,
        "text" => Rule::Text,
        other => return Err(format!("--judge {other}: the rules are sha256 and text").into()),
    };
    let spec = TasksSpec {
        train: file.to_owned(),
        test: file.to_owned(),
        judge: JudgeSpec::Rule(rule),
        missing: String::new(),
    };
    let tasks = FileTasks::load(&spec, Path::new(""))?;
    let known = tasks.training_count().unwrap_or(0);
    let count = arguments.count.unwrap_or(known as usize);
    let bar = ProgressBar::new(count as u64)
        .with_style(ProgressStyle::with_template("{bar:40} {pos}/{len} tasks, {eta} left {msg}")?);
    let mut done: Vec<Result<f64, String>> = vec![];
    let mut results = stream::iter(0..count)
        .map(|number| {
            let task = tasks.training_at(number as u64 % known);
            let tasks = &tasks;
            async move {
                let task = task.map_err(|e| e.to_string())?;
                let id = new_id().map_err(|e| e.to_string())?;
                let handed = operator.hand(id, to, &task.artifact, true).await?;
                let Ok(artifact) = handed.result else { return Ok::<_, String>(0.0) };
                let quality = tasks.quality(&task, &artifact).ok_or("its quality cannot be known")?;
                let message = new_id().map_err(|e| e.to_string())?;
                operator.judge(message, id, to, quality).await?;
                Ok(quality)
            }
        })
        .buffered(arguments.jobs.clamp(1, 256));
    let interrupted = tokio::signal::ctrl_c();
    tokio::pin!(interrupted);
    loop {
        let next = tokio::select! {
            next = results.next() => next,
            _ = &mut interrupted => {
                bar.finish_and_clear();
                say!("stopped after {} of {count} tasks", done.len());
                return Ok(ExitCode::from(130));
            }
        };
        let Some(result) = next else { break };
        if let Err(e) = &result {
            bar.suspend(|| say!("task {}: {e}", done.len()));
        }
        done.push(result);
        bar.inc(1);
        if done.len().is_multiple_of(ROW) || done.len() == count {
            let row = &done[(done.len() - 1) / ROW * ROW..];
            let mean = row.iter().map(|r| r.as_ref().unwrap_or(&0.0)).sum::<f64>() / row.len() as f64;
            bar.suspend(|| print(&format!("tasks {:>5}  mean quality {mean:.3}\n", done.len())))?;
        }
    }
    bar.finish_and_clear();
    let lost = done.iter().filter(|r| r.is_err()).count();
    if lost > 0 {
        return Err(format!("{lost} of {count} tasks were not judged; what went wrong stands above").into());
    }
    Ok(ExitCode::SUCCESS)
}

pub(crate) fn outcome(arguments: &OutcomeArguments) -> Result<ExitCode, Fault> {
    let (spec, _) = NodeSpec::load(&arguments.node)?;
    let handoff = WireId::parse(&arguments.handoff).ok_or(
        "this is not the id of a handoff: relevo handoff prints one, such as 0199a7c2-6f1e-7b3a-...",
    )?;
    if !(0.0..=1.0).contains(&arguments.quality) {
        return Err(format!("{}: a quality lies between 0 and 1", arguments.quality).into());
    }
    runtime()?.block_on(async {
        let operator = Operator::of(&spec).map_err(|e| format!("{}: {e}", arguments.node.display()))?;
        operator.judge(new_id()?, handoff, &spec.entry, arguments.quality).await?;
        print(&format!("handoff {handoff}: {}\n", arguments.quality))?;
        Ok(ExitCode::SUCCESS)
    })
}

fn facts(given: &[String]) -> Result<Facts, Fault> {
    let mut facts = Facts::new();
    for fact in given {
        let (name, value) = fact.split_once('=').ok_or_else(|| format!("--fact {fact}: write NAME=VALUE"))?;
        let value = match (value.parse::<i64>(), value) {
            (Ok(number), _) => Scalar::Int(number),
            (_, "true") => Scalar::Bool(true),
            (_, "false") => Scalar::Bool(false),
            (_, text) => Scalar::Text(text.to_owned()),
        };
        facts.insert(name.to_owned(), value);
    }
    check_facts(&facts).map_err(|e| format!("--fact: {e}"))?;
    Ok(facts)
}
