//! `relevo evaluate`: ways to run a coordinated team, compared over seeds.

mod comparison;
mod judging;

use std::{
    collections::BTreeMap,
    fs,
    num::NonZeroUsize,
    ops::Range,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::{Arc, atomic::AtomicBool},
};

use clap::Args;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use relevo::{
    arms::{self, ArmId, Evaluation, Setting},
    stage::Stage,
    tasks::Task,
    team::{RewardScale, TeamSpec, nearest},
};
use relevo_core::policy_file::hex;
use serde::{Deserialize, Serialize};

use super::{
    Fault, doctor,
    learn::{INTERRUPTED, interrupt, run_name},
    print,
};
use crate::{
    telemetry::{MetricsOption, OtlpOption},
    world::{self, write_file},
};
use comparison::Comparison;

/// Compare ways to run a coordinated team: the plan in order, learned from nothing, from an earlier policy, one agent alone
///
/// Each arm that learns does so for each seed, and is then measured without learning on the same tasks as the rest. Leaves
/// in its folder: figures with intervals and paired differences as text, JSON and a page with plots; and every run.
#[derive(Args)]
pub(crate) struct EvaluateArguments {
    /// The team file
    team: PathBuf,
    /// What to compare: fixed, no-skip, cold, warm, single, parity
    #[arg(
        long,
        value_name = "ARMS",
        value_delimiter = ',',
        default_value = "fixed,no-skip,cold,warm,single"
    )]
    arms: Vec<ArmId>,
    /// How many seeds, from 1; or seeds A to B, B excluded
    #[arg(long, value_name = "N|A..B", default_value = "5", value_parser = parse_seeds)]
    seeds: Range<u64>,
    /// Epochs of learning
    #[arg(long, value_name = "E", default_value = "10", value_parser = clap::value_parser!(u64).range(1..))]
    epochs: u64,
    /// Tasks of an epoch of a simulated world [default: 100]; of task files, it is every training task once
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    epoch_tasks: Option<u64>,
    /// Tasks to measure on [default: as the team file says]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    tests: Option<u64>,
    /// What `warm` begins with: a policy file, or the folder of a run [default: that of a cold run of the next seed]
    #[arg(long, value_name = "POLICY")]
    from: Option<PathBuf>,
    /// The fact that says the class of a task [default: what tells tasks apart, the regime and the facts that are seen]
    #[arg(long, value_name = "FACT")]
    class: Option<String>,
    /// Tasks before the team at a time while learning [default: the team file's, or 1]
    #[arg(long, value_name = "N")]
    jobs: Option<NonZeroUsize>,
    /// Folder of the evaluation [default: runs/TEAM-arms]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Go on with the evaluation in the folder: what is finished is not run again
    #[arg(long)]
    resume: bool,
    /// Begin without asking every model and tool server first whether it answers
    #[arg(long)]
    no_preflight: bool,
    #[command(flatten)]
    otlp: OtlpOption,
    #[command(flatten)]
    metrics: MetricsOption,
}

/// The most seeds of an evaluation.
const SEEDS_MAX: u64 = 1_000;

fn parse_seeds(text: &str) -> Result<Range<u64>, String> {
    let number = |text: &str| text.parse::<u32>().map(u64::from).map_err(|e| format!("{text:?}: {e}"));
    let seeds = match text.split_once("..") {
        Some((first, beyond)) => number(first)?..number(beyond)?,
        None => 1..number(text)? + 1,
    };
    match seeds.is_empty() || seeds.end - seeds.start > SEEDS_MAX {
        true => Err(format!("a number from 1 to {SEEDS_MAX}, or at most so many seeds such as 1000..1005")),
        false => Ok(seeds),
    }
}

/// Tasks of an epoch of a simulated world, unless somebody says otherwise.
const EPOCH_TASKS: u64 = 100;

/// What an evaluation was begun with, in its folder.
const PLAN_FILE: &str = "plan.json";
/// What all runs of a folder must share.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Plan {
    schema: String,
    /// BLAKE3 of what learning depends on in the team file and its tasks.
    config: String,
    epochs: u64,
    epoch_tasks: u64,
    tests: u64,
    /// BLAKE3 of the policy of `--from`.
    from: Option<String>,
    class: Option<String>,
    /// The workflow of the team file that `fixed` is, if it has one.
    fixed: Option<Vec<String>>,
}

pub(crate) fn evaluate(arguments: &EvaluateArguments) -> Result<ExitCode, Fault> {
    let team = TeamSpec::load(&arguments.team)?;
    let shown = arguments.team.display();
    if team.coordinator.is_none() {
        return Err(format!(
            "{shown}: arms are ways to coordinate, and this team has no [coordinator]; `relevo learn` compares it with its \
             workflows"
        )
        .into());
    }
    let stage = world::stage_of(team.clone(), &arguments.team)?.in_epochs();
    let epoch_tasks = match (stage.tasks().training_count(), arguments.epoch_tasks) {
        (None, tasks) => tasks.unwrap_or(EPOCH_TASKS),
        (Some(count), None) => count,
        (Some(count), Some(_)) => {
            return Err(format!(
                "{shown}: an epoch is each of its {count} training tasks once; leave out --epoch-tasks"
            )
            .into());
        }
    };
    let policy = arguments.from.as_ref().map(|path| world::policy(path)).transpose()?;
    let mut tests = vec![];
    let most = arguments.tests.unwrap_or(team.run.evaluation_tasks);
    while (tests.len() as u64) < most
        && let Some(task) = stage.tasks().evaluation(tests.len() as u64)?
    {
        check_class(arguments.class.as_deref(), &task)?;
        tests.push(task);
    }
    let plan = Plan {
        schema: "relevo.evaluation-plan/v1".to_owned(),
        config: hex(&team.config_digest(&stage.tasks().identity())),
        epochs: arguments.epochs,
        epoch_tasks,
        tests: tests.len() as u64,
        from: policy.as_ref().map(|policy| policy.source.ledger.clone()),
        class: arguments.class.clone(),
        fixed: team.workflows.first().map(|workflow| workflow.route.clone()),
    };
    let out = arguments.out.clone().unwrap_or_else(|| Path::new("runs").join(format!("{}-arms", team.name)));
    let runtime = world::runtime()?;
    if !arguments.no_preflight {
        runtime.block_on(doctor::preflight(&stage))?;
    }
    open_folder(&out, &plan, arguments.resume)?;
    let mut arms = arguments.arms.clone();
    arms.sort();
    arms.dedup();
    let mut setting = setting(arguments, &team, &stage, epoch_tasks, &arms);

    let lookout = arguments.otlp.begin(&arguments.team)?.serving(&arguments.metrics, &team)?;
    let origin = lookout.origin(run_name(&out));
    let whole = origin.span;
    let stage = lookout.observe(stage, origin)?;
    let stop = Arc::new(AtomicBool::new(false));
    let called_off = runtime.spawn(interrupt(stop.clone()));
    let bar = ProgressBar::with_draw_target(Some(1), ProgressDrawTarget::stderr_with_hz(8));
    bar.set_style(
        ProgressStyle::with_template("{msg:28} {bar:24} {pos}/{len}  {eta} left").expect("constant"),
    );
    let jobs = arguments.jobs.or(team.run.jobs).unwrap_or(NonZeroUsize::MIN);
    let comparison = Comparison {
        team,
        plan,
        policy,
        tests,
        out,
        jobs,
        stop,
        bar,
        lookout: &lookout,
        whole,
        file: &arguments.team,
    };
    let runs = comparison.runs(&stage, &arms, arguments.seeds.clone());
    let runs = runtime.block_on(async {
        tokio::select! {
            runs = runs => runs,
            _ = called_off => Ok(None),
        }
    });
    comparison.bar.finish_and_clear();
    let Some((mut runs, judges)) = runs? else {
        say!(
            "stopped; what is finished stays. Go on with the same command and --resume --out {}",
            comparison.out.display()
        );
        return Ok(ExitCode::from(INTERRUPTED));
    };
    if judges.groups > 0 {
        setting.notices.push(judges.told());
    }
    match arms::leave_out_unjudged(&mut runs) {
        0 => {}
        out => setting
            .notices
            .push(format!("{out} tasks are left out: judges had no score for what an arm made of them")),
    }
    let evaluation = Evaluation::new(setting, &runs)?;
    let out = &comparison.out;
    write_file(&out.join("evaluation.json"), evaluation.to_json())?;
    write_file(&out.join("evaluation.txt"), evaluation.to_text())?;
    write_file(&out.join("evaluation.html"), arms::page::evaluation(&evaluation)?)?;
    print(&evaluation.to_text())?;
    say!("in {}: evaluation.json, evaluation.txt, evaluation.html, and a folder for each run", out.display());
    Ok(ExitCode::SUCCESS)
}

/// A task must say its class.
fn check_class(class: Option<&str>, task: &Task) -> Result<(), Fault> {
    let Some(class) = class.filter(|class| !task.artifact.facts.contains_key(*class)) else { return Ok(()) };
    let known = || task.artifact.facts.keys().map(String::as_str);
    let hint = match nearest(class, known()) {
        Some(near) => format!("did you mean {near:?}?"),
        None => format!("its facts are {}", known().collect::<Vec<_>>().join(", ")),
    };
    Err(format!("--class {class}: task {} has no such fact; {hint}", task.id).into())
}

fn setting(
    arguments: &EvaluateArguments,
    team: &TeamSpec,
    stage: &Stage,
    epoch_tasks: u64,
    arms: &[ArmId],
) -> Setting {
    let section = team.coordinator.as_ref().expect("checked before");
    let mut notices = vec![];
    if team.simulate.is_some() {
        notices.push("a simulation: no model was asked".to_owned());
    }
    if arms.contains(&ArmId::NoSkip) && !section.skips && !section.alone {
        notices.push("no-skip is the same as cold: in this team no choice passes over a cell".to_owned());
    }
    if let Some(workflow) = team.workflows.first().filter(|_| arms.contains(&ArmId::Fixed)) {
        notices.push(format!("fixed is the workflow {}: {}", workflow.name, workflow.route.join(", ")));
    }
    if team.reward.scale == RewardScale::Median {
        notices.push("costs are counted in the median over all measured tasks of all arms".to_owned());
    }
    Setting {
        team: team.name.clone(),
        epochs: arguments.epochs,
        epoch_tasks,
        epoch: match stage.tasks().training_count() {
            Some(count) => format!("each of {count} training tasks once, in an order of its seed"),
            None => format!("{epoch_tasks} new tasks of the simulated world"),
        },
        classes: arguments
            .class
            .as_ref()
            .map_or("what tells tasks apart".to_owned(), |c| format!("the fact {c}")),
        warm_from: arguments
            .from
            .as_ref()
            .map_or("a cold run of the next seed".to_owned(), |f| f.display().to_string()),
        notices,
    }
}

/// Begin an evaluation in a folder, or go on with it.
fn open_folder(out: &Path, plan: &Plan, resume: bool) -> Result<(), Fault> {
    let path = out.join(PLAN_FILE);
    let shown = out.display();
    match (fs::read_to_string(&path), resume) {
        (Ok(_), false) => Err(format!(
            "{shown} already holds an evaluation: go on with it by --resume, or choose another folder with --out"
        )
        .into()),
        (Ok(text), true) => {
            let begun: Plan = serde_json::from_str(&text).map_err(|e| format!("{}: {e}", path.display()))?;
            match begun == *plan {
                true => Ok(()),
                false => Err(format!(
                    "{shown}: it was begun with {}; now it is {}. Undo the change, or choose another folder with --out",
                    differing(&begun, plan)?,
                    differing(plan, &begun)?
                )
                .into()),
            }
        }
        (Err(_), true) => Err(format!("{shown} holds no evaluation to resume; leave --resume out to begin one").into()),
        (Err(_), false) => {
            fs::create_dir_all(out).map_err(|e| format!("{shown}: the folder cannot be made: {e}"))?;
            write_file(&path, serde_json::to_string_pretty(plan)? + "\n")
        }
    }
}

/// What a plan says where another one says something else.
fn differing(plan: &Plan, other: &Plan) -> Result<String, Fault> {
    let fields =
        |plan| serde_json::from_value::<BTreeMap<String, serde_json::Value>>(serde_json::to_value(plan)?);
    let (plan, other) = (fields(plan)?, fields(other)?);
    let different = plan.iter().filter(|(name, value)| other.get(*name) != Some(value));
    Ok(different.map(|(name, value)| format!("{name} {value}")).collect::<Vec<_>>().join(", "))
}
