//! `relevo lab`: experiments with known answers.

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Instant,
};

use clap::{Args, Subcommand};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use relevo::{report::table, team::nearest};
use relevo_lab::{
    experiment::{ALL, Experiment, Findings, Settings, Verdict},
    plot,
};

use super::{Fault, print};
use crate::world::write_file;

/// Run experiments with known answers
#[derive(Subcommand)]
pub(crate) enum LabCommand {
    /// Say which experiments there are
    List,
    Run(RunArguments),
}

/// Run an experiment, and write its report, plots and raw results
///
/// Exits with 1 if a figure of the quick form is not where it is expected.
#[derive(Args)]
pub(crate) struct RunArguments {
    /// Name of the experiment, or `all`
    name: String,
    /// Seeds A to B, B excluded [default: the experiment's own]
    #[arg(long, value_name = "A..B", value_parser = parse_seeds)]
    seeds: Option<std::ops::Range<u64>>,
    /// The smaller form
    #[arg(long)]
    quick: bool,
    /// Threads [default: the processors there are]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    jobs: Option<u16>,
    /// Folder of the results; each experiment has its own in it
    #[arg(long, value_name = "DIR", default_value = "runs/lab")]
    out: PathBuf,
}

fn parse_seeds(text: &str) -> Result<std::ops::Range<u64>, String> {
    let parse = |t: &str| t.parse::<u64>().map_err(|e| format!("{t:?}: {e}"));
    let (a, b) =
        text.split_once("..").ok_or("write two numbers with two dots between, such as 1000..1024")?;
    let (a, b) = (parse(a)?, parse(b)?);
    if a >= b || b - a > 100_000 || b > 1 << 31 {
        return Err("the first must be smaller than the second, at most 100000 apart, both below 2^31".into());
    }
    Ok(a..b)
}

pub(crate) fn lab(command: &LabCommand) -> Result<ExitCode, Fault> {
    match command {
        LabCommand::List => {
            let mut rows = vec![vec!["experiment".to_owned(), "what it asks".to_owned()]];
            rows.extend(ALL.iter().map(|e| vec![e.name.to_owned(), e.summary.to_owned()]));
            print(&table(&rows))?;
            Ok(ExitCode::SUCCESS)
        }
        LabCommand::Run(arguments) => run(arguments),
    }
}

fn run(arguments: &RunArguments) -> Result<ExitCode, Fault> {
    let chosen: Vec<&Experiment> =
        ALL.iter().filter(|e| arguments.name == "all" || arguments.name == e.name).collect();
    if chosen.is_empty() {
        let names = ALL.iter().map(|e| e.name);
        let hint = match nearest(&arguments.name, names.clone()) {
            Some(near) => format!("did you mean {near:?}?"),
            None => format!("known are all, {}", names.collect::<Vec<_>>().join(", ")),
        };
        return Err(format!("there is no experiment {:?}; {hint}", arguments.name).into());
    }
    let stop = Arc::new(AtomicBool::new(false));
    listen(stop.clone())?;
    let mut held = true;
    for experiment in chosen {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        held &= run_one(experiment, arguments, &stop)?;
    }
    if stop.load(Ordering::Relaxed) {
        say!("stopped; what was finished is kept in {}", arguments.out.display());
        return Ok(ExitCode::from(130));
    }
    Ok(if held { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Ctrl-C ends after the runs in progress.
fn listen(stop: Arc<AtomicBool>) -> Result<(), Fault> {
    let runtime = crate::world::runtime()?;
    std::thread::spawn(move || {
        runtime.block_on(async {
            while tokio::signal::ctrl_c().await.is_ok() {
                if stop.swap(true, Ordering::Relaxed) {
                    std::process::exit(130);
                }
            }
        });
    });
    Ok(())
}

fn run_one(experiment: &Experiment, arguments: &RunArguments, stop: &AtomicBool) -> Result<bool, Fault> {
    let out = arguments.out.join(experiment.name);
    std::fs::create_dir_all(&out)
        .map_err(|e| format!("{}: the folder cannot be made: {e}", out.display()))?;
    let seeds = arguments.seeds.clone().unwrap_or_else(|| (experiment.seeds)(arguments.quick));
    let jobs = arguments
        .jobs
        .map_or_else(|| std::thread::available_parallelism().map_or(1, std::num::NonZero::get), usize::from);
    let bar = ProgressBar::with_draw_target(Some(1), ProgressDrawTarget::stderr());
    let style = "{prefix:16} {bar:32} {pos}/{len} runs  {elapsed} elapsed  {eta} left";
    bar.set_style(ProgressStyle::with_template(style).expect("the template is constant"));
    bar.set_prefix(experiment.name);
    let progress = |done: usize, all: usize| {
        bar.set_length(all as u64);
        bar.set_position(done as u64);
    };
    let settings = Settings { seeds: seeds.clone(), quick: arguments.quick, jobs, stop, progress: &progress };
    let started = Instant::now();
    let findings = (experiment.run)(&settings);
    let seconds = started.elapsed().as_secs_f64();
    bar.finish_and_clear();
    // The intervals are those of the quick form on its own seeds.
    let verdicts = match arguments.quick && arguments.seeds.is_none() && !stop.load(Ordering::Relaxed) {
        true => experiment.verdicts(&findings),
        false => vec![],
    };
    let quick = if arguments.quick { " --quick" } else { "" };
    let about = About {
        command: format!("relevo lab run {} --seeds {}..{}{quick}", experiment.name, seeds.start, seeds.end),
        version: env!("CARGO_PKG_VERSION"),
        commit: commit(),
        seconds,
        partial: stop.load(Ordering::Relaxed),
    };
    write_results(&out, experiment, &findings, &verdicts, &about)?;
    for t in &findings.tables {
        print(&format!("{}\n{}\n", t.caption, table(&t.rows)))?;
    }
    for verdict in verdicts.iter().filter(|v| !v.holds) {
        let value = verdict.value.map_or("absent".to_owned(), |v| v.to_string());
        say!("{}: {} is {value}, expected in {:?}", experiment.name, verdict.name, verdict.interval);
    }
    say!("{} took {seconds:.1} s; report in {}", experiment.name, out.join("report.md").display());
    Ok(verdicts.iter().all(|v| v.holds))
}

/// How the results were made.
struct About {
    command: String,
    version: &'static str,
    commit: String,
    seconds: f64,
    partial: bool,
}

/// The commit of the checkout one stands in, if it is one.
fn commit() -> String {
    let asked = std::process::Command::new("git").args(["describe", "--always", "--dirty"]).output();
    match asked {
        Ok(said) if said.status.success() => String::from_utf8_lossy(&said.stdout).trim().to_owned(),
        _ => "unknown".to_owned(),
    }
}

fn write_results(
    out: &Path,
    experiment: &Experiment,
    findings: &Findings,
    verdicts: &[Verdict],
    about: &About,
) -> Result<(), Fault> {
    let results = serde_json::json!({
        "schema": "relevo.lab-results/v1",
        "experiment": experiment.name,
        "command": about.command,
        "version": about.version,
        "commit": about.commit,
        "seconds": about.seconds,
        "partial": about.partial,
        "figures": findings.figures,
        "verdicts": verdicts,
        "findings": findings,
    });
    write_file(&out.join("results.json"), &(serde_json::to_string_pretty(&results)? + "\n"))?;
    let mut report = format!("# {}: {}\n\n{}\n", experiment.name, experiment.summary, findings.claim.trim());
    for plot in &findings.plots {
        let file = format!("{}.svg", plot.name);
        write_file(&out.join(&file), &plot::svg(plot)?)?;
        report += &format!("\n![{}]({file})\n", plot.title);
    }
    for t in &findings.tables {
        report += &format!("\n## {}\n\n", t.caption);
        for (i, row) in t.rows.iter().enumerate() {
            report += &format!("| {} |\n", row.join(" | "));
            if i == 0 {
                report += &format!("|{}\n", "---|".repeat(row.len()));
            }
        }
    }
    let partial = if about.partial { " It was stopped early: the results are partial." } else { "" };
    report += &format!(
        "\n## How it was made\n\n`{}`, relevo {}, commit {}, {:.1} s.{partial}\n\n{}\n",
        about.command, about.version, about.commit, about.seconds, findings.notes
    );
    write_file(&out.join("report.md"), &report)
}
