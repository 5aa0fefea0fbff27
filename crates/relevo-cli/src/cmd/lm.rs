//! `relevo lm`: the language model in the box.

use std::{
    fs,
    path::PathBuf,
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use clap::{Args, Subcommand, ValueEnum, builder::ArgPredicate};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use relevo::report::table;
use relevo_lab::{
    experiment::{Plot, Series},
    plot,
};
use relevo_lm::{
    Continue, Level, Model, Problem, Request, Role, Split, WeightsError, bench,
    measure::{Accuracies, PROMPTS, WORKFLOWS, measure},
    serve::{self, Serving, Settings},
    train::{Recipe, Report, TrainError, WEIGHTS_FILE, train},
};
use serde_json::json;

use super::{Fault, plain, print};
use crate::world::{self, write_file};

/// Ask, serve, measure or train the language model in the box
#[derive(Subcommand)]
pub(crate) enum LmCommand {
    Ask(AskArguments),
    Serve(ServeArguments),
    Problems(ProblemsArguments),
    Measure(MeasureArguments),
    Bench(BenchArguments),
    Train(TrainArguments),
}

/// Ask the model one question
///
/// Options that are not given are made, of which one is right.
#[derive(Args)]
pub(crate) struct AskArguments {
    /// Such as "What is 12 + 34 - 5?", or "12 + 34 - 5"
    question: String,
    /// What may be answered: two to five, with commas between
    #[arg(long, value_name = "A,B,..", value_delimiter = ',')]
    options: Vec<String>,
    /// What the model is asked for
    #[arg(long, value_enum, default_value_t = AskedFor::Rationale, default_value_if("check", ArgPredicate::IsPresent, "check"))]
    skill: AskedFor,
    /// An answer for --skill check [default: the model's own]
    #[arg(long, value_name = "LETTER")]
    check: Option<char>,
    /// How random the answer is; 0 says the likeliest
    #[arg(long, value_name = "T", default_value_t = 0.0, value_parser = parse_temperature)]
    temperature: f64,
    /// What decides among the random
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    #[command(flatten)]
    weights: WeightsArguments,
}

/// What one question can be asked for.
#[derive(Clone, Copy, PartialEq, ValueEnum)]
enum AskedFor {
    /// The letter at once
    Answer,
    /// Steps, then the letter
    Rationale,
    /// Whether an answer is right
    Check,
}

/// Serve the model on this machine, as OpenAI's chat completions
#[derive(Args)]
pub(crate) struct ServeArguments {
    /// Port on the loopback; 0 takes a free one
    #[arg(long, value_name = "PORT", default_value_t = 8094)]
    port: u16,
    /// Wait so long before an answer begins, as a distant service would
    #[arg(long, value_name = "MS", default_value_t = 0)]
    latency_ms: u64,
    #[command(flatten)]
    weights: WeightsArguments,
}

/// Write problems as a task file for a team
///
/// The texts of the problems lie in a folder beside it. A task is done if what comes out ends with the right letter.
#[derive(Args)]
pub(crate) struct ProblemsArguments {
    /// How hard: elementary, high-school or hard
    #[arg(long)]
    level: Level,
    /// How many
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u64).range(1..=100_000))]
    n: u64,
    /// What determines them
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// Those that the model was trained on, or those that it has never seen
    #[arg(long, value_enum, default_value_t = Half::Eval)]
    split: Half,
    /// The task file
    #[arg(long, value_name = "FILE", default_value = "tasks.jsonl")]
    out: PathBuf,
}

#[derive(Clone, Copy, PartialEq, ValueEnum)]
enum Half {
    Train,
    Eval,
}

/// Measure the model in the five fixed workflows, on problems that it has never seen
#[derive(Args)]
pub(crate) struct MeasureArguments {
    /// Problems per level
    #[arg(long, value_name = "N", default_value_t = 500, value_parser = clap::value_parser!(u64).range(1..=100_000))]
    n: u64,
    /// What determines them
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    #[command(flatten)]
    weights: WeightsArguments,
}

/// Measure how fast the model speaks on one core
#[derive(Args)]
pub(crate) struct BenchArguments {
    #[command(flatten)]
    weights: WeightsArguments,
}

/// Train a model anew, on nothing but problems that are generated
///
/// The same recipe gives the same weights, to the bit, on machines of one kind; also when it was interrupted and goes on
/// with --resume. The recipe without options is that of the model in the box.
#[derive(Args)]
pub(crate) struct TrainArguments {
    /// Steps down the gradient
    #[arg(long, value_name = "N", default_value_t = Recipe::BUNDLED.steps, value_parser = clap::value_parser!(u64).range(1..=10_000_000))]
    steps: u64,
    /// What determines the problems, and the parameters at first
    #[arg(long, value_name = "N", default_value_t = Recipe::BUNDLED.seed)]
    seed: u64,
    /// Folder of the weights, the checkpoint and the report
    #[arg(long, value_name = "DIR", default_value = "runs/lm")]
    out: PathBuf,
    /// Go on from the checkpoint in the folder
    #[arg(long)]
    resume: bool,
}

/// Which weights.
#[derive(Args)]
struct WeightsArguments {
    /// Weights that `relevo lm train` made [default: those in the box]
    #[arg(long, value_name = "FILE")]
    model: Option<PathBuf>,
}

impl WeightsArguments {
    fn load(&self) -> Result<&'static Model, Fault> {
        Ok(match &self.model {
            Some(path) => serve::load(path).map_err(|e| match e {
                WeightsError::Form(_) => format!("{}: {e}", path.display()),
                WeightsError::Read { .. } => e.to_string(),
            })?,
            None => Model::bundled(),
        })
    }
}

fn parse_temperature(text: &str) -> Result<f64, String> {
    let temperature = text.parse::<f64>().map_err(|e| e.to_string())?;
    if (0.0..=2.0).contains(&temperature) { Ok(temperature) } else { Err("it is from 0 to 2".into()) }
}

pub(crate) fn lm(command: &LmCommand) -> Result<ExitCode, Fault> {
    match command {
        LmCommand::Ask(arguments) => ask(arguments),
        LmCommand::Serve(arguments) => serve(arguments),
        LmCommand::Problems(arguments) => problems(arguments),
        LmCommand::Measure(arguments) => {
            let model = arguments.weights.load()?;
            let levels = Level::ALL.map(|level| measure(model, level, arguments.n, arguments.seed));
            print(&accuracies(&levels))?;
            Ok(ExitCode::SUCCESS)
        }
        LmCommand::Bench(arguments) => {
            let mut rows = vec![
                ["together", "characters/s", "tokens/s", "of the arithmetic's limit"]
                    .map(String::from)
                    .to_vec(),
            ];
            for speed in bench::run(arguments.weights.load()?) {
                rows.push(vec![
                    speed.together.to_string(),
                    format!("{:.0}", speed.characters),
                    format!("{:.0}", speed.tokens),
                    format!("{:.0} %", 100.0 * speed.share),
                ]);
            }
            print(&table(&rows))?;
            Ok(ExitCode::SUCCESS)
        }
        LmCommand::Train(arguments) => learn(arguments),
    }
}

/// The problem of a question, with its options in the line after it.
fn problem(arguments: &AskArguments) -> Result<String, Fault> {
    let AskArguments { question, options, seed, .. } = arguments;
    let bare = question.trim().trim_end_matches(['?', '=', ' ']);
    let question = match question.contains(char::is_alphabetic) || bare.is_empty() {
        true => question.trim().to_owned(),
        false => format!("What is {bare}?"),
    };
    if question.lines().count() != 1 {
        return Err("the question is one line; what may be answered comes with --options 41,39,51,31".into());
    }
    if options.is_empty() {
        let made = Problem::asked(&question, *seed).ok_or_else(|| {
            format!(
                "{:?}: options are made only for whole numbers with + - * and brackets, such as \"What is 12 + 34 - 5?\", \
                 where no step leaves 0 .. 9999; give them with --options 41,39,51,31",
                plain(&question)
            )
        })?;
        return Ok(made.to_string());
    }
    if !(2..=5).contains(&options.len()) || options.iter().any(|option| option.trim().is_empty()) {
        return Err("--options: two to five are given, none of them empty, with commas between".into());
    }
    let options = options.iter().zip('A'..).map(|(option, letter)| format!("{letter}) {}", option.trim()));
    Ok(format!("{question}\n{}", options.collect::<Vec<_>>().join(" ")))
}

fn ask(arguments: &AskArguments) -> Result<ExitCode, Fault> {
    if arguments.check.is_some() && arguments.skill != AskedFor::Check {
        return Err("--check goes with --skill check alone".into());
    }
    let model = arguments.weights.load()?;
    let mut text = problem(arguments)?;
    let mut head = format!("{}\n\n", plain_lines(&text));
    let mut say = |who: &str, text: &str| -> Result<String, Fault> {
        let system = PROMPTS.iter().find(|(name, _)| *name == who).expect("one of the three").1;
        let prompt = model.prompt(&[(Role::System, system), (Role::User, text)])?;
        // What cannot be read is refused before anything is shown.
        print(&std::mem::take(&mut head))?;
        let request =
            Request { temperature: arguments.temperature, seed: arguments.seed, ..Request::new(prompt) };
        let mut completions = model.generate(&[request], &mut |_, piece| match print(piece) {
            Ok(()) => Continue::Yes,
            Err(_) => Continue::No,
        });
        print("\n")?;
        Ok(completions.remove(0).text)
    };
    match arguments.skill {
        AskedFor::Answer => _ = say("editor", &text)?,
        AskedFor::Rationale => _ = say("thinker", &text)?,
        AskedFor::Check => {
            let given = match arguments.check {
                Some(letter) => format!("Answer: {letter}"),
                None => say("editor", &text)?,
            };
            text += &format!("\n\n[editor]\n{given}\n");
            say("checker", &text)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// A text of a person, without what a terminal would obey.
fn plain_lines(text: &str) -> String {
    text.lines().map(plain).collect::<Vec<_>>().join("\n")
}

fn serve(arguments: &ServeArguments) -> Result<ExitCode, Fault> {
    let model = arguments.weights.load()?;
    let latency = Duration::from_millis(arguments.latency_ms);
    let settings = Settings { port: arguments.port, latency, ..Settings::default() };
    let serving = Serving::with(model, settings).map_err(|e| {
        format!(
            "port {}: it cannot be listened on: {e}; choose another with --port, or 0 for a free one",
            arguments.port
        )
    })?;
    world::runtime()?.block_on(async {
        // Whoever reads the address may end it at once: Ctrl-C is heeded before.
        let ended = tokio::spawn(tokio::signal::ctrl_c());
        tokio::task::yield_now().await;
        print(&format!("export OPENAI_BASE_URL={}\n", serving.url()))?;
        let name = model.name();
        super::say!(
            "{name} ({} parameters, blake3 {}); Ctrl-C ends. Where that variable is set, it is asked by:\n  \
             relevo learn examples/maths/team.toml --model openai::{name}",
            model.parameters(),
            &model.hash()[..12]
        );
        Ok::<_, Fault>(ended.await??)
    })?;
    super::say!("{} requests were answered", serving.answered());
    Ok(ExitCode::SUCCESS)
}

fn problems(arguments: &ProblemsArguments) -> Result<ExitCode, Fault> {
    let ProblemsArguments { level, n, seed, split, out } = arguments;
    let split = if *split == Half::Train { Split::Train } else { Split::Evaluation };
    let stem = out.file_stem().ok_or_else(|| format!("{}: --out names no file", out.display()))?;
    let folder = out.with_file_name(stem);
    if folder == *out {
        return Err(format!("{}: --out needs an ending, such as .jsonl", out.display()).into());
    }
    fs::create_dir_all(&folder)
        .map_err(|e| format!("{}: the folder cannot be made: {e}", folder.display()))?;
    let mut lines = String::new();
    for index in 0..*n {
        let problem = Problem::generate(split, *level, *seed, index);
        let id = format!("{level}-{index}");
        let input = folder.join(&id);
        fs::write(&input, format!("{problem}\n")).map_err(|e| format!("{}: {e}", input.display()))?;
        let line = json!({
            "id": id,
            "input": PathBuf::from(stem).join(&id),
            "facts": {"dataset": level.name()},
            "expect": {"regex": format!("Answer: {}\\W*$", problem.key)},
        });
        lines += &format!("{line}\n");
    }
    write_file(out, lines)?;
    super::say!("{n} problems of level {level}: {}", out.display());
    Ok(ExitCode::SUCCESS)
}

fn accuracies(levels: &[Accuracies]) -> String {
    let mut head = vec!["level".to_owned()];
    head.extend(WORKFLOWS.iter().map(|(name, who)| format!("{name} ({who})")));
    head.extend(["right as right".to_owned(), "wrong as right".to_owned()]);
    let mut rows = vec![head];
    for level in levels {
        let mut row = vec![level.level.to_string()];
        row.extend(level.workflows.iter().map(|share| format!("{share:.3}")));
        let (plain, shown) = (level.on_answers, level.on_rationales);
        row.push(format!("{:.2} | {:.2}", plain.true_positive, shown.true_positive));
        row.push(format!("{:.2} | {:.2}", plain.false_positive, shown.false_positive));
        rows.push(row);
    }
    let problems = levels.first().map_or(0, |level| level.problems);
    format!(
        "{}{problems} problems per level. E answers, T works out, K checks; verdicts on answers alone | with steps\n",
        table(&rows)
    )
}

fn learn(arguments: &TrainArguments) -> Result<ExitCode, Fault> {
    let recipe = Recipe { steps: arguments.steps, seed: arguments.seed, ..Recipe::BUNDLED };
    let stop = Arc::new(AtomicBool::new(false));
    let (runtime, seen) = (world::runtime()?, stop.clone());
    std::thread::spawn(move || {
        runtime.block_on(async {
            while tokio::signal::ctrl_c().await.is_ok() {
                if seen.swap(true, Ordering::Relaxed) {
                    std::process::exit(130);
                }
            }
        });
    });
    let bar = ProgressBar::with_draw_target(Some(recipe.steps), ProgressDrawTarget::stderr());
    let style = ProgressStyle::with_template("{bar:30} {pos}/{len} {elapsed} (left: {eta}) {msg}");
    bar.set_style(style.expect("a template without mistakes"));
    let (mut told, mut kept, mut done) = (0, 0, 0);
    let report = train(&recipe, &arguments.out, arguments.resume, &mut |progress| {
        let last = progress.points.last().map_or(String::new(), |point| {
            let shares = Level::ALL.iter().zip(point.accuracies);
            let shares = shares
                .map(|(level, [once, steps])| format!("; {level} {once:.2} at once, {steps:.2} in steps"));
            shares.collect()
        });
        if progress.points.len() > told {
            told = progress.points.len();
            // Where there is no bar, a log has the points.
            if bar.is_hidden() {
                super::say!("step {} loss {:.3}{last}", progress.step, progress.loss);
            }
        }
        (done, kept) = (progress.step, progress.points.last().map_or(0, |point| point.step));
        if done == recipe.steps {
            bar.suspend(|| super::say!("measuring it on {} unseen problems of each level", recipe.measured));
        }
        bar.set_position(progress.step);
        bar.set_message(format!("loss {:.3}{last}", progress.loss));
        if stop.load(Ordering::Relaxed) { Continue::No } else { Continue::Yes }
    });
    bar.finish_and_clear();
    let report = match report {
        Err(TrainError::Stopped) => {
            super::say!(
                "stopped at step {done}, and kept as it was at step {kept}. Go on with:\n  \
                 relevo lm train --steps {} --seed {} --out {} --resume",
                recipe.steps,
                recipe.seed,
                arguments.out.display()
            );
            return Ok(ExitCode::from(130));
        }
        report => report?,
    };
    let path = arguments.out.join("curve.svg");
    write_file(&path, plot::svg(&curve(&report))?)?;
    print(&accuracies(&report.levels))?;
    let weights = arguments.out.join(WEIGHTS_FILE);
    super::say!(
        "{}: {} parameters, blake3 {}, {:.0} s\n{}",
        weights.display(),
        report.parameters,
        report.hash,
        report.seconds,
        path.display()
    );
    Ok(ExitCode::SUCCESS)
}

/// Accuracies while it was trained.
fn curve(report: &Report) -> Plot {
    let line = |name: String, value: &dyn Fn(&relevo_lm::train::Point) -> f64| {
        let points = report.points.iter().map(|p| [p.step as f64, value(p), value(p), value(p)]);
        Series { name, points: points.collect() }
    };
    let mut series = vec![];
    for (i, level) in Level::ALL.into_iter().enumerate() {
        series.push(line(format!("{level}, at once"), &|p| p.accuracies[i][0]));
        series.push(line(format!("{level}, in steps"), &|p| p.accuracies[i][1]));
    }
    series.push(line("loss, nats a token".to_owned(), &|p| p.loss));
    Plot {
        name: "curve".to_owned(),
        title: format!("{}: right answers on unseen problems", report.name),
        x_label: "steps".to_owned(),
        y_label: "share, or loss".to_owned(),
        series,
        ..Plot::default()
    }
}
