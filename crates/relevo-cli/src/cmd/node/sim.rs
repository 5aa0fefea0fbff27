//! `relevo sim`: whole organisations in simulated time, with faults.

use std::{
    ops::Range,
    path::Path,
    process::ExitCode,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    thread,
};

use clap::{Args, ValueEnum};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use relevo_core::policy_file::hex;
use relevo_node::sim::{self, Kept, Options, Run};

use crate::cmd::{Fault, print};

/// Let several organisations hand work to each other in simulated time, with all that can go wrong
///
/// Each seed is a schedule: nodes crash between any two steps, messages are lost, doubled, late or lies, disks fail or are
/// full, clocks jump, agents fail. Afterwards nothing acknowledged may be lost, nothing done twice, and everything learned must follow from
/// the ledger. Ends with 1 where that does not hold, with one line for each seed to play again.
#[derive(Args)]
pub(crate) struct SimArguments {
    /// This schedule
    #[arg(long, value_name = "N", conflicts_with = "seeds")]
    seed: Option<u64>,
    /// Print everything that happens in it
    #[arg(long, requires = "seed")]
    trace: bool,
    /// These schedules, the last one left out
    #[arg(long, value_name = "A..B", value_parser = range, default_value = "0..100")]
    seeds: Range<u64>,
    /// How many are played at a time [default: as many as there are processors]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256))]
    jobs: Option<u16>,
    /// Where nodes keep what they keep; only memory fails, a file is as it is
    #[arg(long, value_enum, default_value_t = StoreName::Memory)]
    store: StoreName,
}

#[derive(Clone, Copy, ValueEnum)]
enum StoreName {
    Memory,
    Sqlite,
}

fn range(text: &str) -> Result<Range<u64>, String> {
    let ends = text.split_once("..").and_then(|(a, b)| Some((a.parse().ok()?, b.parse().ok()?)));
    match ends {
        Some((first, beyond)) if first < beyond => Ok(first..beyond),
        _ => Err("write two whole numbers, the smaller one first: 0..1000".to_owned()),
    }
}

pub(crate) fn sim(arguments: &SimArguments) -> Result<ExitCode, Fault> {
    let seeds = arguments.seed.map_or(arguments.seeds.clone(), |seed| seed..seed + 1);
    if arguments.trace {
        let mut tell = |line: &str| drop(print(&format!("{line}\n")));
        let run = play(seeds.start, arguments.store, Some(&mut tell))?;
        return conclude(&[(seeds.start, run)]);
    }
    let style = "{bar:30} {pos}/{len} schedules, {eta} left";
    let bar =
        ProgressBar::with_draw_target(Some(seeds.end - seeds.start), ProgressDrawTarget::stderr_with_hz(4))
            .with_style(ProgressStyle::with_template(style)?);
    let (next, runs) = (AtomicU64::new(seeds.start), Mutex::new(vec![]));
    let work = || -> Result<(), String> {
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= seeds.end {
                return Ok(());
            }
            let run = play(seed, arguments.store, None).map_err(|e| e.to_string())?;
            if let Some(first) = run.broken.first() {
                bar.suspend(|| say!("relevo sim --seed {seed}: {first}"));
            }
            runs.lock().unwrap_or_else(PoisonError::into_inner).push((seed, run));
            bar.inc(1);
        }
    };
    let jobs =
        arguments.jobs.map_or_else(|| thread::available_parallelism().map_or(1, usize::from), usize::from);
    thread::scope(|scope| {
        let workers: Vec<_> = (0..jobs).map(|_| scope.spawn(work)).collect();
        workers
            .into_iter()
            .try_for_each(|worker| worker.join().map_err(|_| "a schedule panicked".to_owned())?)
    })?;
    bar.finish_and_clear();
    conclude(&runs.into_inner().unwrap_or_else(PoisonError::into_inner))
}

fn play(seed: u64, store: StoreName, trace: sim::Trace<'_>) -> Result<Run, Fault> {
    let folder = tempfile::tempdir()?;
    let kept = match store {
        StoreName::Memory => Kept::Memory,
        StoreName::Sqlite => Kept::Sqlite(Path::to_owned(folder.path())),
    };
    Ok(sim::run(seed, &Options { kept, sabotage: None }, trace))
}

fn conclude(runs: &[(u64, Run)]) -> Result<ExitCode, Fault> {
    let sum = |of: fn(&Run) -> u64| runs.iter().map(|(_, run)| of(run)).sum::<u64>();
    let broken = sum(|run| u64::from(!run.broken.is_empty()));
    let mut told = format!(
        "{} schedules: {} tasks, {} handoffs between organisations, {} restarts, {} events; {broken} broken\n",
        runs.len(),
        sum(|run| run.tasks as u64),
        sum(|run| run.handoffs as u64),
        sum(|run| run.restarts as u64),
        sum(|run| run.events),
    );
    if let [(seed, run)] = runs {
        run.broken.iter().for_each(|what| told.push_str(&format!("relevo sim --seed {seed}: {what}\n")));
        told.push_str(&format!("{}\n", hex(&run.hash)));
    }
    print(&told)?;
    Ok(if broken > 0 { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}
