//! `relevo evaluate`: ways to run a coordinated team, compared over seeds.

use std::{
    collections::BTreeMap,
    fs,
    io::Write,
    num::NonZeroUsize,
    ops::ControlFlow,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::{Arc, atomic::AtomicBool},
};

use clap::Args;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use relevo::{
    arms::{self, ArmId, Evaluation, Run, Sample, Setting, class_of},
    artifact::Scalar,
    evaluate::{Chooser, Fixed, Greedy, InOrder, walk},
    guard::TeamGuard,
    learn::{BrokenOff, EpisodeEnd, LEDGER_FILE, RunConfig, Session},
    stage::Stage,
    tasks::Task,
    team::{TeamSpec, nearest},
};
use relevo_core::{
    policy_file::{PolicyFile, hex},
    warm::Caps,
};
use serde::{Deserialize, Serialize};

use super::{
    Fault,
    learn::{INTERRUPTED, interrupt, tell_of_questions, until},
    plain, print,
};
use crate::{
    info::RunInfo,
    world::{self, POLICY_FILE, write_file},
};

/// Compare ways to run a coordinated team: the plan in order, learned from nothing, from an earlier policy, one agent alone
///
/// Each arm that learns does so for each seed, and is then measured without learning on the same tasks as the rest. Leaves
/// in its folder: figures with intervals and paired differences as text, JSON and a page with plots; and every run.
#[derive(Args)]
pub(crate) struct EvaluateArguments {
    /// The team file
    team: PathBuf,
    /// What to compare: fixed, no-skip, cold, warm, single
    #[arg(
        long,
        value_name = "ARMS",
        value_delimiter = ',',
        default_value = "fixed,no-skip,cold,warm,single"
    )]
    arms: Vec<ArmId>,
    /// How many seeds, from 1
    #[arg(long, value_name = "N", default_value = "5", value_parser = clap::value_parser!(u64).range(1..=1000))]
    seeds: u64,
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
    /// Tasks before the team at a time while learning
    #[arg(long, value_name = "N", default_value = "1")]
    jobs: NonZeroUsize,
    /// Folder of the evaluation [default: runs/TEAM-arms]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Go on with the evaluation in the folder: what is finished is not run again
    #[arg(long)]
    resume: bool,
}

/// Tasks of an epoch of a simulated world, unless somebody says otherwise.
const EPOCH_TASKS: u64 = 100;

/// Tasks at most on which each agent is tried alone.
const TRIALS_MAX: u64 = 100;

/// Tasks after which an agent that has concluded none alone is given up.
const HOPELESS: usize = 16;

/// The most visits that a prior of `warm` counts as.
const CAPS: Caps = Caps { same: 20, version: 5 };

/// What an evaluation was begun with, in its folder.
const PLAN_FILE: &str = "plan.json";
/// What a finished run came to, in its folder.
const RUN_FILE: &str = "measured.json";
/// What became of the tasks that a run has learned on, line by line.
const LESSONS_FILE: &str = "lessons.jsonl";

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
    };
    let out = arguments.out.clone().unwrap_or_else(|| Path::new("runs").join(format!("{}-arms", team.name)));
    open_folder(&out, &plan, arguments.resume)?;
    let mut arms = arguments.arms.clone();
    arms.sort();
    arms.dedup();
    let setting = setting(arguments, &team, &stage, epoch_tasks, &arms);

    let runtime = world::runtime()?;
    let stop = Arc::new(AtomicBool::new(false));
    let called_off = runtime.spawn(interrupt(stop.clone()));
    let bar = ProgressBar::with_draw_target(Some(1), ProgressDrawTarget::stderr_with_hz(8));
    bar.set_style(
        ProgressStyle::with_template("{msg:28} {bar:24} {pos}/{len}  {eta} left").expect("constant"),
    );
    let comparison =
        Comparison { team, plan, policy, tests, out, jobs: arguments.jobs, stop, bar, file: &arguments.team };
    let runs = comparison.runs(&arms, arguments.seeds);
    let runs = runtime.block_on(async {
        tokio::select! {
            runs = runs => runs,
            _ = called_off => Ok(None),
        }
    });
    comparison.bar.finish_and_clear();
    let Some(runs) = runs? else {
        say!(
            "stopped; what is finished stays. Go on with the same command and --resume --out {}",
            comparison.out.display()
        );
        return Ok(ExitCode::from(INTERRUPTED));
    };
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
    if stage.judge().is_some() {
        notices.push("judges compare these tasks: quality is not measured".to_owned());
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

/// An evaluation under way.
struct Comparison<'a> {
    team: TeamSpec,
    plan: Plan,
    policy: Option<PolicyFile>,
    tests: Vec<Task>,
    out: PathBuf,
    jobs: NonZeroUsize,
    stop: Arc<AtomicBool>,
    bar: ProgressBar,
    file: &'a Path,
}

impl Comparison<'_> {
    /// Every arm with every seed; nothing if it was stopped.
    async fn runs(&self, arms: &[ArmId], seeds: u64) -> Result<Option<Vec<Run>>, Fault> {
        let mut runs = vec![];
        for seed in 1..=seeds {
            for arm in arms {
                match self.run(*arm, seed).await? {
                    Some(run) => runs.push(run),
                    None => return Ok(None),
                }
            }
        }
        Ok(Some(runs))
    }

    fn folder(&self, arm: ArmId, seed: u64) -> PathBuf {
        self.out.join(format!("{}-{seed}", arm.name()))
    }

    /// One arm with one seed: as it is on record, or run now.
    async fn run(&self, arm: ArmId, seed: u64) -> Result<Option<Run>, Fault> {
        let folder = self.folder(arm, seed);
        let path = folder.join(RUN_FILE);
        if let Ok(text) = fs::read_to_string(&path) {
            return Ok(Some(serde_json::from_str(&text).map_err(|e| {
                format!("{}: it is damaged ({e}); remove it, and the run is measured again", path.display())
            })?));
        }
        fs::create_dir_all(&folder)
            .map_err(|e| format!("{}: the folder cannot be made: {e}", folder.display()))?;
        let stage = self.stage(arm)?;
        let mut run = Run { arm, seed, chosen: None, lessons: vec![], tests: vec![] };
        let measured = match arm {
            ArmId::Fixed => {
                let mut guard = stage.guard();
                self.measure(&stage, &mut guard, arm, || Box::new(InOrder)).await?
            }
            ArmId::Single => {
                let Some((chosen, lessons)) = self.single(&stage, seed).await? else { return Ok(None) };
                let workflow = arms::alone(stage.team()).find(|w| w.name == chosen).expect("one of them");
                (run.chosen, run.lessons) = (Some(chosen), lessons);
                let mut guard = stage.guard();
                self.measure(&stage, &mut guard, arm, || Box::new(Fixed::new(&stage, &workflow))).await?
            }
            ArmId::NoSkip | ArmId::Cold | ArmId::Warm => {
                let Some(session) = Box::pin(self.learn(&stage, arm, seed)).await? else { return Ok(None) };
                run.lessons = lessons(&folder)?;
                let learners = || session.participants().iter().map(|p| p.learner()).collect();
                let mut guard = session.guard().clone();
                self.measure(&stage, &mut guard, arm, || Box::new(Greedy { learners: learners() })).await?
            }
        };
        let Some(tests) = measured else { return Ok(None) };
        run.tests = tests;
        write_file(&path, serde_json::to_string(&run)? + "\n")?;
        say!("{} with seed {seed}: measured on {} tasks", arm.name(), run.tests.len());
        Ok(Some(run))
    }

    fn stage(&self, arm: ArmId) -> Result<Stage, Fault> {
        Ok(world::stage_of(arm.team(&self.team), self.file)?.in_epochs())
    }

    /// An arm that has learned; nothing if it was stopped.
    async fn learn<'s>(&self, stage: &'s Stage, arm: ArmId, seed: u64) -> Result<Option<Session<'s>>, Fault> {
        let folder = self.folder(arm, seed);
        fs::create_dir_all(&folder)
            .map_err(|e| format!("{}: the folder cannot be made: {e}", folder.display()))?;
        let config = RunConfig { seed, episodes: self.plan.epochs * self.plan.epoch_tasks };
        let begun = folder.join(LEDGER_FILE).exists();
        let session = if begun && (stage.is_external() || folder.join(POLICY_FILE).exists()) {
            Session::resume(stage, &folder, Some(seed), Some(config.episodes))?.0
        } else {
            // What is simulated is begun anew: it costs nothing, and comes to the same.
            for file in [LEDGER_FILE, LESSONS_FILE] {
                let _ = fs::remove_file(folder.join(file));
            }
            let earlier = match arm {
                ArmId::Warm => match self.earlier(seed).await? {
                    Some(policy) => Some(policy),
                    None => return Ok(None),
                },
                _ => None,
            };
            let mut session = Session::start(stage, &folder, config)?;
            if let Some(policy) = earlier {
                session.warm_start(&policy, CAPS)?;
            }
            session
        };
        let mut session = session.at_a_time(self.jobs).heed(self.stop.clone());
        RunInfo::write(&folder, self.file, stage, config)?;
        self.show(arm, &format!("seed {seed}, learning"), config.episodes);
        self.bar.set_position(session.episodes_done());
        let path = folder.join(LESSONS_FILE);
        let file = fs::File::options().create(true).append(true).open(&path);
        let mut file = file.map_err(|e| format!("{}: it cannot be written: {e}", path.display()))?;
        let asked = tokio::spawn(tell_of_questions(folder.clone()));
        let mut failed = None;
        let flow = session
            .run(|end: &EpisodeEnd| {
                self.bar.inc(1);
                let line = serde_json::to_string(&Sample::learned(end)).expect("numbers") + "\n";
                match file.write_all(line.as_bytes()) {
                    Ok(()) => ControlFlow::Continue(()),
                    Err(e) => {
                        failed = Some(format!("{}: it cannot be written: {e}", path.display()));
                        ControlFlow::Break(())
                    }
                }
            })
            .await;
        asked.abort();
        if let Some(fault) = failed {
            return Err(fault.into());
        }
        if flow?.is_break() {
            let (arm, shown) = (arm.name(), folder.display());
            return match session.broken_off() {
                Some(BrokenOff::Guarded(reason)) => Err(format!(
                    "{arm} with seed {seed} was stopped, as [guards] say: {reason}; raise that limit, and go on with --resume"
                )
                .into()),
                Some(BrokenOff::Ordered(order)) => Err(format!(
                    "{arm} with seed {seed} was stopped by {}: {}; lift that with relevo stop {shown} --lift, and go on with \
                     --resume",
                    plain(&order.by),
                    plain(&order.reason)
                )
                .into()),
                Some(BrokenOff::Asked) | None => Ok(None),
            };
        }
        write_file(&folder.join(POLICY_FILE), session.policy().to_text())?;
        Ok(Some(session))
    }

    /// What `warm` with a seed learns from.
    async fn earlier(&self, seed: u64) -> Result<Option<PolicyFile>, Fault> {
        if let Some(policy) = &self.policy {
            return Ok(Some(policy.clone()));
        }
        let folder = self.folder(ArmId::Cold, seed + 1);
        if !folder.join(POLICY_FILE).exists() {
            let stage = self.stage(ArmId::Cold)?;
            if Box::pin(self.learn(&stage, ArmId::Cold, seed + 1)).await?.is_none() {
                return Ok(None);
            }
        }
        Ok(Some(world::policy(&folder)?))
    }

    /// The agent that does best alone on the first tasks to learn on, and what that took to find out.
    async fn single(&self, stage: &Stage, seed: u64) -> Result<Option<(String, Vec<Sample>)>, Fault> {
        let trials = self.plan.epoch_tasks.min(TRIALS_MAX);
        let (mut best, mut lessons): (Option<(f64, String)>, _) = (None, vec![]);
        let mut guard = stage.guard();
        for workflow in arms::alone(stage.team()) {
            self.show(ArmId::Single, &format!("seed {seed}, {}", workflow.name), trials);
            let (mut sum, mut concluded) = (0.0, 0);
            for number in 0..trials {
                if concluded == 0 && number as usize == HOPELESS {
                    break;
                }
                let task = stage.tasks().lesson(seed, number)?;
                let mut chooser = Fixed::new(stage, &workflow);
                let walked = tokio::select! {
                    walked = walk(stage, &mut guard, task, number, &mut chooser) => walked?,
                    () = until(&self.stop, &self.out) => return Ok(None),
                };
                self.bar.inc(1);
                if walked.acted.is_empty() {
                    continue;
                }
                sum += walked.walk_return;
                concluded += u64::from(walked.concluded);
                let sample = Sample::measured(&walked, String::new());
                lessons.push(Sample { task: lessons.len().to_string(), ..sample });
            }
            let mean = sum / trials as f64;
            if concluded > 0 && best.as_ref().is_none_or(|(most, _)| mean > *most) {
                best = Some((mean, workflow.name));
            }
        }
        match best {
            Some((_, name)) => Ok(Some((name, lessons))),
            None => Err("no agent concludes a task alone: leave single out of --arms".into()),
        }
    }

    /// The tests, done as a chooser says; nothing if it was stopped.
    async fn measure<'c>(
        &self,
        stage: &Stage,
        guard: &mut TeamGuard,
        arm: ArmId,
        chooser: impl Fn() -> Box<dyn Chooser + 'c>,
    ) -> Result<Option<Vec<Sample>>, Fault> {
        self.show(arm, "measuring", self.tests.len() as u64);
        let mut samples = vec![];
        for (task, number) in self.tests.iter().zip(0..) {
            let fact: Option<&Scalar> =
                self.plan.class.as_ref().and_then(|class| task.artifact.facts.get(class));
            let mut chooser = chooser();
            let walked = tokio::select! {
                walked = walk(stage, guard, task.clone(), number, &mut *chooser) => walked?,
                () = until(&self.stop, &self.out) => return Ok(None),
            };
            samples.push(Sample::measured(&walked, class_of(fact, &walked.start)));
            self.bar.inc(1);
        }
        Ok(Some(samples))
    }

    fn show(&self, arm: ArmId, what: &str, length: u64) {
        self.bar.set_length(length);
        self.bar.set_position(0);
        self.bar.set_message(format!("{}, {what}", arm.name()));
    }
}

/// What became of the tasks that a run has learned on, in their order. One that was being written when the process was
/// killed is missing; of one that was written twice, the last counts.
fn lessons(folder: &Path) -> Result<Vec<Sample>, Fault> {
    let path = folder.join(LESSONS_FILE);
    let text =
        fs::read_to_string(&path).map_err(|e| format!("{}: it cannot be read: {e}", path.display()))?;
    let samples = text.lines().filter_map(|line| serde_json::from_str::<Sample>(line).ok());
    let by_number: BTreeMap<u64, Sample> = samples.filter_map(|s| Some((s.task.parse().ok()?, s))).collect();
    Ok(by_number.into_values().collect())
}
