//! The runs of an evaluation: each arm with each seed, unless that is on record.

use std::{
    collections::BTreeMap,
    fs,
    io::Write,
    num::NonZeroUsize,
    ops::{ControlFlow, Range},
    path::{Path, PathBuf},
    sync::{Arc, atomic::AtomicBool},
};

use indicatif::ProgressBar;
use relevo::{
    arms::{self, ArmId, Run, Sample, class_of},
    artifact::Scalar,
    evaluate::{Chooser, Fixed, Greedy, InOrder, Walk, compare, walk},
    guard::TeamGuard,
    judge::{audit, health::JudgeHealth, relative::GROUP_MAX},
    learn::{BrokenOff, EpisodeEnd, LEDGER_FILE, RunConfig, Session},
    observe::Span,
    reward::Usual,
    stage::Stage,
    tasks::Task,
    team::TeamSpec,
    telemetry::Origin,
};
use relevo_core::{policy_file::PolicyFile, warm::Caps};

use super::{
    super::{
        Fault,
        learn::{run_name, tell_of_questions, until},
        plain,
    },
    Plan,
};
use crate::{
    info::RunInfo,
    telemetry::Lookout,
    world::{self, ATTEMPTS_FILE, POLICY_FILE, write_file},
};

/// Tasks at most on which each agent is tried alone.
const TRIALS_MAX: u64 = 100;

/// Tasks after which an agent that has concluded none alone is given up.
const HOPELESS: usize = 16;

/// The most visits that a prior of `warm` counts as.
const CAPS: Caps = Caps { same: 20, version: 5 };

/// What a finished run came to, in its folder.
const RUN_FILE: &str = "measured.json";
/// What became of the tasks that a run has learned on, line by line.
const LESSONS_FILE: &str = "lessons.jsonl";

/// An evaluation under way.
pub(super) struct Comparison<'a> {
    pub(super) team: TeamSpec,
    pub(super) plan: Plan,
    pub(super) policy: Option<PolicyFile>,
    pub(super) tests: Vec<Task>,
    pub(super) out: PathBuf,
    pub(super) jobs: NonZeroUsize,
    pub(super) stop: Arc<AtomicBool>,
    pub(super) bar: ProgressBar,
    pub(super) lookout: &'a Lookout,
    /// The evaluation, of which every arm with a seed is a part.
    pub(super) whole: Span,
    pub(super) file: &'a Path,
}

impl Comparison<'_> {
    /// Every arm with every seed, and how judges did that compared them; nothing if it was stopped.
    pub(super) async fn runs(
        &self,
        stage: &Stage,
        arms: &[ArmId],
        seeds: Range<u64>,
    ) -> Result<Option<(Vec<Run>, JudgeHealth)>, Fault> {
        let (mut runs, mut health) = (vec![], JudgeHealth::default());
        for seed in seeds {
            let mut of_seed = vec![];
            for arm in arms {
                match self.run(*arm, seed).await? {
                    Some(run) => of_seed.push(run),
                    None => return Ok(None),
                }
            }
            let judged = tokio::select! {
                judged = self.judge(stage, seed, &mut of_seed) => judged?,
                () = until(&self.stop, &self.out) => return Ok(None),
            };
            health += judged;
            self.publish(stage, &of_seed).await?;
            runs.extend(of_seed);
        }
        let scale: Vec<Sample> = runs.iter().flat_map(|run| run.tests.clone()).collect();
        let samples = runs.iter_mut().flat_map(|run| run.lessons.iter_mut().chain(&mut run.tests));
        arms::rescale(&self.team.reward, &scale, samples);
        Ok(Some((runs, health)))
    }

    pub(super) fn folder(&self, arm: ArmId, seed: u64) -> PathBuf {
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
        let stage = self.stage(arm, seed)?;
        let mut run = Run { arm, seed, chosen: None, lessons: vec![], tests: vec![] };
        let measured = match arm {
            ArmId::Fixed => {
                let mut guard = stage.guard();
                let chooser = || match self.team.workflows.first() {
                    Some(workflow) => Box::new(Fixed::new(&stage, workflow)) as Box<dyn Chooser>,
                    None => Box::new(InOrder),
                };
                self.measure(&stage, &mut guard, (arm, seed), chooser).await?
            }
            ArmId::Single => {
                let Some((chosen, lessons)) = self.single(&stage, seed).await? else { return Ok(None) };
                let workflow = arms::alone(stage.team()).find(|w| w.name == chosen).expect("one of them");
                (run.chosen, run.lessons) = (Some(chosen), lessons);
                let mut guard = stage.guard();
                self.measure(&stage, &mut guard, (arm, seed), || Box::new(Fixed::new(&stage, &workflow)))
                    .await?
            }
            ArmId::NoSkip | ArmId::Cold | ArmId::Warm | ArmId::Parity => {
                let Some(session) = Box::pin(self.learn(&stage, arm, seed)).await? else { return Ok(None) };
                run.lessons = lessons(&folder)?;
                let learners = || session.participants().iter().map(|p| p.learner()).collect();
                let mut guard = session.guard().clone();
                self.measure(&stage, &mut guard, (arm, seed), || Box::new(Greedy { learners: learners() }))
                    .await?
            }
        };
        let Some(tests) = measured else { return Ok(None) };
        run.tests = tests;
        write_file(&path, serde_json::to_string(&run)? + "\n")?;
        say!("{} with seed {seed}: measured on {} tasks", arm.name(), run.tests.len());
        Ok(Some(run))
    }

    fn stage(&self, arm: ArmId, seed: u64) -> Result<Stage, Fault> {
        let stage = world::stage_of(arm.team(&self.team), self.file)?.in_epochs();
        let run = format!("{}/{}", run_name(&self.out), run_name(&self.folder(arm, seed)));
        let origin = Origin { arm: Some(arm.name()), ..Origin::new(run, Some(self.whole)) };
        self.lookout.observe(stage, origin)
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
        self.show(arm.name(), &format!("seed {seed}, learning"), config.episodes);
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
            let stage = self.stage(ArmId::Cold, seed + 1)?;
            if Box::pin(self.learn(&stage, ArmId::Cold, seed + 1)).await?.is_none() {
                return Ok(None);
            }
        }
        Ok(Some(world::policy(&folder)?))
    }

    /// The agent that does best alone on the first tasks to learn on, and what that took to find out.
    async fn single(&self, stage: &Stage, seed: u64) -> Result<Option<(String, Vec<Sample>)>, Fault> {
        let trials = self.plan.epoch_tasks.min(TRIALS_MAX);
        let mut tried = vec![];
        let mut guard = stage.guard();
        for workflow in arms::alone(stage.team()) {
            self.show(ArmId::Single.name(), &format!("seed {seed}, {}", workflow.name), trials);
            let (mut walks, mut concluded) = (vec![], 0);
            for number in 0..trials {
                if concluded == 0 && number as usize == HOPELESS {
                    break;
                }
                let task = stage.tasks().lesson(seed, number)?;
                let mut chooser = Fixed::new(stage, &workflow);
                let walked = tokio::select! {
                    walked = walk(stage, &mut guard, task, number, Usual::default(), &mut chooser) => walked?,
                    () = until(&self.stop, &self.out) => return Ok(None),
                };
                self.bar.inc(1);
                concluded += u64::from(walked.concluded);
                walks.push(walked);
            }
            tried.push((workflow.name, walks, concluded > 0));
        }
        for number in 0..trials as usize {
            let attempts = tried.iter_mut().filter_map(|(_, walks, _)| walks.get_mut(number));
            let mut attempts: Vec<_> = attempts.collect();
            for (part, group) in attempts.chunks_mut(GROUP_MAX).enumerate() {
                let label = format!("single/{seed}/{number}/{part}");
                tokio::select! {
                    _ = compare(stage, group, &label) => {}
                    () = until(&self.stop, &self.out) => return Ok(None),
                }
            }
        }
        let samples = |walks: &[Walk]| -> Vec<Sample> {
            let acted = walks.iter().filter(|walk| !walk.acted.is_empty());
            acted.map(|walk| Sample::measured(walk, String::new())).collect()
        };
        let mut lessons: Vec<Vec<Sample>> = tried.iter().map(|(_, walks, _)| samples(walks)).collect();
        arms::rescale(&self.team.reward, &lessons.concat(), lessons.iter_mut().flatten());
        let sum = |of: &[Sample]| of.iter().map(|sample| sample.reward).sum::<f64>();
        let candidates = tried.iter().zip(&lessons).filter(|((_, _, concluded), _)| *concluded);
        // The first of several that earned the most.
        let best = candidates.rev().max_by(|(_, a), (_, b)| sum(a).total_cmp(&sum(b)));
        let Some(((name, ..), _)) = best else {
            return Err("no agent concludes a task alone: leave single out of --arms".into());
        };
        let numbered = lessons.concat().into_iter().enumerate();
        Ok(Some((name.clone(), numbered.map(|(i, s)| Sample { task: i.to_string(), ..s }).collect())))
    }

    /// The tests, done as a chooser says; nothing if it was stopped.
    async fn measure<'c>(
        &self,
        stage: &Stage,
        guard: &mut TeamGuard,
        (arm, seed): (ArmId, u64),
        chooser: impl Fn() -> Box<dyn Chooser + 'c>,
    ) -> Result<Option<Vec<Sample>>, Fault> {
        self.show(arm.name(), "measuring", self.tests.len() as u64);
        let (mut samples, mut finished) = (vec![], vec![]);
        for (task, number) in self.tests.iter().zip(0..) {
            let fact: Option<&Scalar> =
                self.plan.class.as_ref().and_then(|class| task.artifact.facts.get(class));
            let mut chooser = chooser();
            let walked = tokio::select! {
                walked = walk(stage, guard, task.clone(), number, Usual::default(), &mut *chooser) => walked?,
                () = until(&self.stop, &self.out) => return Ok(None),
            };
            samples.push(Sample::measured(&walked, class_of(fact, &walked.start)));
            finished.extend(walked.finished(arm.name()));
            self.bar.inc(1);
        }
        if !finished.is_empty() {
            write_file(&self.folder(arm, seed).join(ATTEMPTS_FILE), audit::to_lines(&finished))?;
        }
        Ok(Some(samples))
    }

    pub(super) fn show(&self, who: &str, what: &str, length: u64) {
        self.bar.set_length(length);
        self.bar.set_position(0);
        self.bar.set_message(format!("{who}, {what}"));
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
