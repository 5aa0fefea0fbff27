//! `relevo lab`: experiments with known answers.

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use clap::{Args, Subcommand};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use relevo::{report::table, team::nearest};
use relevo_lab::{
    experiment::{ALL, Experiment, Instead, ON_MODELS, Settings},
    playthrough, plot,
    results::{Origin, Results, page},
    tool_server::Tools,
};

use super::{
    Fault,
    corpus::{self, CorpusArguments, ModelsArguments, SearchArguments},
    print,
};
use crate::world::{self, write_file};

/// Run experiments with known answers
#[derive(Subcommand)]
pub(crate) enum LabCommand {
    /// Say which experiments there are
    List,
    Run(RunArguments),
    Report(ReportArguments),
    Play(PlayArguments),
    Corpus(CorpusArguments),
    Search(SearchArguments),
    Models(ModelsArguments),
    ToolServer(ToolServerArguments),
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
    /// Leave out experiments that this commit has finished before, in the same form on the same seeds
    #[arg(long)]
    resume: bool,
    /// Name of the dataset that is in --file; for maths-lm
    #[arg(long, value_name = "NAME", requires = "file")]
    dataset: Option<String>,
    /// A file of MathQA (.json) or MMLU (.csv, .json), in place of generated problems; for maths-lm
    #[arg(long, value_name = "FILE", requires = "dataset")]
    file: Option<PathBuf>,
    /// A model in place of the one in the box: PROVIDER::NAME, or the NAME of one of OpenAI's or of whoever serves at
    /// OPENAI_BASE_URL; for maths-lm. What it says is kept in the folder of results, and not asked for again
    #[arg(long, value_name = "MODEL")]
    model: Option<String>,
}

/// Gather results into one page of HTML
///
/// Reads the results.json of every experiment in the folder. What is damaged is named and left out, and the exit code
/// is then 1.
#[derive(Args)]
pub(crate) struct ReportArguments {
    /// Folder that was --out of `relevo lab run`
    #[arg(default_value = "runs/lab")]
    dir: PathBuf,
    /// The page [default: report.html in the folder]
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

/// Serve made-up tools by MCP over standard input and output: search, echo, environment, fail, long, slow, crash and garbage
#[derive(Args)]
pub(crate) struct ToolServerArguments {
    /// What `search` finds: JSON lines {"source": "..", "text": ".."}
    #[arg(long, value_name = "FILE")]
    texts: Option<PathBuf>,
    /// A file to which a line is added for every call: the process, the tool, its arguments
    #[arg(long, value_name = "FILE")]
    log: Option<PathBuf>,
}

/// Show one episode of an environment, step by step, choices made at random
#[derive(Args)]
pub(crate) struct PlayArguments {
    /// Name of the environment; without one, all are listed
    environment: Option<String>,
    /// What determines the environment, the episode and the choices
    #[arg(long, value_name = "N", default_value_t = playthrough::GOLDEN_SEED)]
    seed: u64,
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
        LabCommand::Report(arguments) => report(arguments),
        LabCommand::Play(arguments) => play(arguments),
        LabCommand::Corpus(arguments) => corpus::corpus(arguments),
        LabCommand::Search(arguments) => corpus::search(arguments),
        LabCommand::Models(arguments) => corpus::models(arguments),
        LabCommand::ToolServer(arguments) => tool_server(arguments),
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
    let instead = Instead {
        dataset: arguments.dataset.clone().zip(arguments.file.clone()),
        model: arguments.model.clone(),
        keep: arguments.model.is_some().then(|| arguments.out.join(ON_MODELS).join(CONVERSATIONS)),
    };
    if (instead.dataset.is_some() || instead.model.is_some()) && arguments.name != ON_MODELS {
        return Err(
            format!("--dataset and --model are for the experiment {ON_MODELS}: leave them out").into()
        );
    }
    let stop = Arc::new(AtomicBool::new(false));
    listen(stop.clone())?;
    let benches =
        chosen.into_iter().map(|e| Bench::new(e, arguments, &instead)).collect::<Result<Vec<_>, _>>()?;
    let defaults = arguments.seeds.is_none() && instead.dataset.is_none() && instead.model.is_none();
    let mut held = true;
    for bench in benches {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        match bench.earlier().filter(|_| arguments.resume) {
            Some(earlier) => {
                say!("{} was finished before: {}", earlier.experiment, bench.folder.display());
                held &= earlier.holds();
            }
            None => held &= bench.run(defaults, &stop)?,
        }
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

/// In the folder of results: what a model said that had to be paid for.
const CONVERSATIONS: &str = "conversations.jsonl";

/// Where an experiment is run, and what was found there.
struct Bench<'a> {
    experiment: &'a Experiment,
    instead: &'a Instead,
    folder: PathBuf,
    origin: Origin,
}

impl<'a> Bench<'a> {
    /// Everything that can be refused is refused here, before anything is run.
    fn new(
        experiment: &'a Experiment,
        arguments: &RunArguments,
        instead: &'a Instead,
    ) -> Result<Self, Fault> {
        let folder = arguments.out.join(experiment.name);
        let unwritable =
            |e| format!("{}: the folder cannot be written to: {e}; try another --out", folder.display());
        std::fs::create_dir_all(&folder).map_err(unwritable)?;
        let probe = folder.join(".probe");
        std::fs::write(&probe, "").and_then(|()| std::fs::remove_file(&probe)).map_err(unwritable)?;
        let seeds = arguments.seeds.clone().unwrap_or_else(|| (experiment.seeds)(arguments.quick));
        let processors = || std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let quick = if arguments.quick { " --quick" } else { "" };
        let model = instead.model.iter().map(|model| format!(" --model {model}"));
        let files =
            instead.dataset.iter().map(|(name, file)| format!(" --dataset {name} --file {}", file.display()));
        let others: String = files.chain(model).collect();
        let origin = Origin {
            command: format!(
                "relevo lab run {} --seeds {}..{}{quick}{others}",
                experiment.name, seeds.start, seeds.end
            ),
            seeds: [seeds.start, seeds.end],
            quick: arguments.quick,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            commit: commit(),
            jobs: arguments.jobs.map_or_else(processors, usize::from),
            seconds: 0.0,
            partial: false,
        };
        Ok(Bench { experiment, instead, folder, origin })
    }

    /// Whole results of the same command, version and commit.
    fn earlier(&self) -> Option<Results> {
        let text = std::fs::read_to_string(self.folder.join(RESULTS)).ok()?;
        let same = |r: &Results| {
            let Origin { command, version, commit, .. } = &self.origin;
            (&r.origin.command, &r.origin.version, &r.origin.commit) == (command, version, commit)
                && !commit.ends_with("-dirty")
        };
        Results::from_json(&text).ok().filter(same)
    }

    fn run(mut self, defaults: bool, stop: &AtomicBool) -> Result<bool, Fault> {
        let experiment = self.experiment;
        let bar = ProgressBar::with_draw_target(Some(1), ProgressDrawTarget::stderr());
        let style = "{prefix:16} {bar:32} {pos}/{len} runs  {elapsed} elapsed  {eta} left";
        bar.set_style(ProgressStyle::with_template(style).expect("the template is constant"));
        bar.set_prefix(experiment.name);
        bar.enable_steady_tick(Duration::from_millis(500));
        let finished = AtomicUsize::new(0);
        let told = Mutex::new(Instant::now());
        let progress = |done: usize, all: usize| {
            finished.fetch_max(done, Ordering::Relaxed);
            // Where there is no terminal, a line now and then.
            let mut told = told.lock().expect("nobody panics while telling");
            if bar.is_hidden() && told.elapsed() > Duration::from_secs(30) {
                *told = Instant::now();
                say!("{}: {done} of {all} runs", experiment.name);
            }
            bar.set_length(all as u64);
            bar.set_position(done as u64);
        };
        let Origin { seeds: [first, beyond], quick, jobs, .. } = self.origin;
        let instead = self.instead.clone();
        let settings = Settings { seeds: first..beyond, quick, jobs, stop, progress: &progress, instead };
        let started = Instant::now();
        let findings = (experiment.run)(&settings).map_err(|what| format!("{}: {what}", experiment.name))?;
        self.origin.seconds = started.elapsed().as_secs_f64();
        self.origin.partial = stop.load(Ordering::Relaxed);
        bar.finish_and_clear();
        if self.origin.partial {
            if finished.into_inner() == 0 || findings.tables.is_empty() {
                return Ok(true);
            }
            // What was whole before stays.
            self.folder = self.folder.join(PARTIAL);
        }
        // The intervals are those of the quick form on its own seeds.
        let verdicts = match quick && defaults && !self.origin.partial {
            true => experiment.verdicts(&findings),
            false => vec![],
        };
        let results = Results::new(experiment, findings, verdicts, self.origin);
        write_results(&self.folder, &results)?;
        for t in &results.findings.tables {
            print(&format!("{}\n{}\n", t.caption, table(&t.rows)))?;
        }
        for verdict in results.verdicts.iter().filter(|v| !v.holds) {
            let value = verdict.value.map_or("absent".to_owned(), |v| v.to_string());
            say!("{}: {} is {value}, expected in {:?}", experiment.name, verdict.name, verdict.interval);
        }
        let (seconds, report) = (results.origin.seconds, self.folder.join("report.md"));
        say!("{} took {seconds:.1} s; report in {}", experiment.name, report.display());
        Ok(results.holds())
    }
}

/// The commit of the checkout one stands in, if it is one.
fn commit() -> String {
    let asked = std::process::Command::new("git").args(["describe", "--always", "--dirty"]).output();
    match asked {
        Ok(said) if said.status.success() => String::from_utf8_lossy(&said.stdout).trim().to_owned(),
        _ => "unknown".to_owned(),
    }
}

const RESULTS: &str = "results.json";
/// Folder of what a stopped run finished.
const PARTIAL: &str = "partial";

fn write_results(folder: &Path, results: &Results) -> Result<(), Fault> {
    std::fs::create_dir_all(folder).map_err(|e| format!("{}: {e}", folder.display()))?;
    for plot in &results.findings.plots {
        let svg = plot::svg(plot)?;
        write_file(&folder.join(format!("{}.svg", plot.name)), &svg)?;
        write_file(&folder.join(format!("{}.png", plot.name)), plot::png(&svg)?)?;
    }
    write_file(&folder.join("report.md"), results.markdown())?;
    write_file(&folder.join(RESULTS), results.to_json())?;
    if !results.origin.partial {
        // The part that an earlier run finished is in these results too.
        let _ = std::fs::remove_dir_all(folder.join(PARTIAL));
    }
    Ok(())
}

fn report(arguments: &ReportArguments) -> Result<ExitCode, Fault> {
    let dir = &arguments.dir;
    let unreadable = |e| format!("{}: the folder cannot be read: {e}", dir.display());
    let mut folders = vec![dir.clone()];
    for entry in std::fs::read_dir(dir).map_err(unreadable)? {
        folders.push(entry.map_err(unreadable)?.path());
    }
    folders.sort();
    let (mut gathered, mut damaged) = (vec![], 0);
    for folder in folders {
        let files = [folder.join(RESULTS), folder.join(PARTIAL).join(RESULTS)];
        let Some(file) = files.into_iter().find(|f| f.is_file()) else { continue };
        let text = std::fs::read_to_string(&file).map_err(|e| e.to_string());
        match text.and_then(|t| Results::from_json(&t)) {
            Ok(results) => gathered.push(results),
            Err(e) => {
                say!("{}: left out, for it is damaged: {e}; run the experiment again", file.display());
                damaged += 1;
            }
        }
    }
    if gathered.is_empty() {
        return Err(format!(
            "{}: there are no results in it; `relevo lab run all --quick --out {0}` makes some",
            dir.display()
        )
        .into());
    }
    let out = arguments.out.clone().unwrap_or_else(|| dir.join("report.html"));
    write_file(&out, page(&gathered)?)?;
    say!("{} experiments in {}", gathered.len(), out.display());
    Ok(if damaged == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn tool_server(arguments: &ToolServerArguments) -> Result<ExitCode, Fault> {
    let tools = match &arguments.texts {
        None => Tools::default(),
        Some(path) => {
            let fail = |e: String| format!("{}: {e}", path.display());
            let lines = std::fs::read_to_string(path).map_err(|e| fail(format!("it cannot be read: {e}")))?;
            Tools::read(&lines).map_err(fail)?
        }
    };
    world::runtime()?.block_on(tools.logged(arguments.log.clone()).serve_pipes())?;
    Ok(ExitCode::SUCCESS)
}

fn play(arguments: &PlayArguments) -> Result<ExitCode, Fault> {
    let names = || playthrough::ENVIRONMENTS.iter().map(|e| e.name);
    let Some(name) = &arguments.environment else {
        let mut rows = vec![vec!["environment".to_owned(), "what it is".to_owned()]];
        rows.extend(playthrough::ENVIRONMENTS.iter().map(|e| vec![e.name.to_owned(), e.summary.to_owned()]));
        print(&table(&rows))?;
        return Ok(ExitCode::SUCCESS);
    };
    // `maths` means `maths@1`.
    let found = playthrough::ENVIRONMENTS.iter().find(|e| {
        e.name == name || e.name.split_once('@').is_some_and(|(unversioned, _)| unversioned == name)
    });
    let Some(found) = found else {
        let hint = match nearest(name, names()) {
            Some(near) => format!("did you mean {near:?}?"),
            None => format!("known are {}", names().collect::<Vec<_>>().join(", ")),
        };
        return Err(format!("there is no environment {name:?}; {hint}").into());
    };
    print(&playthrough::play((found.make)(arguments.seed).as_mut(), arguments.seed))?;
    Ok(ExitCode::SUCCESS)
}
