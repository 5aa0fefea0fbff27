//! Learning: participants decide, the [`Scene`](crate::stage::Scene) acts, the [`Ledger`] remembers. One task after the
//! other, the same seed and the same outcomes give the same bytes; with several at a time, the ledger says in which order
//! things happened, and whoever follows it learns the same.
//!
//! Here is the path of a handoff: an effect of [`Participant::apply`] is recorded, carried out, and its outcome goes back in
//! as the next event.

mod episode;
mod resume;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    num::NonZeroUsize,
    ops::ControlFlow,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use futures_util::{FutureExt, StreamExt, future::BoxFuture, stream::FuturesUnordered};
use relevo_core::{
    Rng,
    ids::{AgentId, HandoffId, OperationId},
    learner::SpecError,
    observation::Signature,
    policy_file::{AgentPolicy, PolicyFile, Source, hex, signature_of_key},
    protocol::{Effect, Participant, ParticipantSpec, ProtocolError},
    record::{FORMAT, Record, RecordError},
    replay::ReplayError,
    units::{Confidence, UnitError, Usage},
    warm::{self, Caps, WarmStart},
};

use crate::{
    agent::Outcome,
    approval::{ApprovalError, Approvals, Standing},
    guard::{StopReason, TeamGuard},
    judge::{Candidate, Score, Verdict},
    ledger::{Ledger, LedgerError},
    outcomes::{OutcomeError, Outcomes},
    stage::{Clock, Stage},
    stop::{self, StopOrder},
    tasks::TaskError,
};
use episode::{Ask, Call, Episode, Judgement, Step};

/// Why learning cannot go on. What was learned up to the last whole episode is in the ledger.
#[derive(Debug, thiserror::Error)]
pub enum LearnError {
    /// The ledger.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// The ledger of a run that is to be taken up.
    #[error("{}: {source}", path.display())]
    Unreadable {
        /// The ledger.
        path: PathBuf,
        /// What is wrong.
        source: RecordError,
    },
    /// The ledger says something else than these agents would have done.
    #[error("{}: agent {agent:?}: {source}", path.display())]
    Replay {
        /// The ledger.
        path: PathBuf,
        /// Whose records.
        agent: String,
        /// Where they part.
        source: ReplayError,
    },
    /// The ledger belongs to another run.
    #[error("{}: {message}", path.display())]
    OtherRun {
        /// The ledger.
        path: PathBuf,
        /// In what it differs, and what to try.
        message: String,
    },
    /// What came of a call cannot be kept or had again.
    #[error(transparent)]
    Outcome(#[from] OutcomeError),
    /// A person cannot be asked.
    #[error(transparent)]
    Approval(#[from] ApprovalError),
    /// A task cannot be had.
    #[error(transparent)]
    Task(#[from] TaskError),
    /// An agent cannot be made as the team file says.
    #[error("agent {agent:?}: {message}")]
    Spec {
        /// The agent.
        agent: String,
        /// Why.
        message: String,
    },
    /// A participant refuses what it is told: a fault of this program.
    #[error("agent {agent:?} refused an event of episode {episode}: {source}; please report this")]
    Protocol {
        /// The agent.
        agent: String,
        /// The episode.
        episode: u64,
        /// Why.
        source: ProtocolError,
    },
    /// A number that is not finite came up.
    #[error("episode {episode}: {source}")]
    Unit {
        /// The episode.
        episode: u64,
        /// Which.
        source: UnitError,
    },
}

/// How a run is to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RunConfig {
    /// The seed of everything random.
    pub seed: u64,
    /// How many episodes.
    pub episodes: u64,
}

/// How an episode ended.
#[derive(Clone, Debug, PartialEq)]
pub struct EpisodeEnd {
    /// Its number, from 0.
    pub episode: u64,
    /// The whole return, discounted per primitive step.
    pub episode_return: f64,
    /// Handoffs between agents.
    pub handoffs: u32,
    /// Why it stopped.
    pub stop: StopReason,
    /// Who acted, in order.
    pub path: Vec<AgentId>,
    /// The quality of what came out, if it was judged.
    pub quality: Option<f64>,
    /// Whether every choice was the best known one.
    pub greedy: bool,
}

/// Why a run stopped before all its episodes were done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BrokenOff {
    /// It was asked to, in this process.
    Asked,
    /// It was ordered to, from outside: nothing goes on before that order is lifted.
    Ordered(StopOrder),
    /// The guard of the run lets no further task begin.
    Guarded(StopReason),
}

/// A run: participants in the state that their ledger leads to, and the tasks that they are at.
pub struct Session<'s> {
    stage: &'s Stage,
    config: RunConfig,
    jobs: NonZeroUsize,
    crew: Crew,
    ledger: Ledger,
    outcomes: Outcomes,
    seal_every: u64,
    next_episode: u64,
    /// Tasks begun and not ended, by number.
    open: BTreeMap<u64, Episode<'s>>,
    /// Tasks that wait for a person.
    waiting: BTreeMap<u64, Ask>,
    /// Tasks that wait for others of their group, to be judged together.
    unjudged: BTreeSet<u64>,
    /// Where among them answers are looked for next.
    heard: u64,
    returns: Vec<f64>,
    /// Pieces of content that could not be kept.
    dropped: u64,
    out: PathBuf,
    asked_to_stop: Arc<AtomicBool>,
    broken_off: Option<BrokenOff>,
    looked_around: u64,
}

/// The participants of a team, their random streams, and the names of what they have seen.
struct Crew {
    participants: Vec<Participant>,
    rngs: Vec<Rng>,
    names: BTreeMap<Signature, String>,
    guard: TeamGuard,
    clock: Clock,
}

impl Crew {
    fn new(stage: &Stage, config: RunConfig) -> Result<Self, LearnError> {
        let specs = stage
            .participants(config.episodes)
            .map_err(|e| LearnError::Spec { agent: stage.team().name.clone(), message: e.to_string() })?;
        let (mut participants, mut rngs) = (vec![], vec![]);
        for (name, spec) in specs {
            let fail = |e: SpecError| LearnError::Spec { agent: name.to_owned(), message: e.to_string() };
            let (participant, rng) = newcomer(name, spec, config.seed).map_err(fail)?;
            participants.push(participant);
            rngs.push(rng);
        }
        let (clock, guard) = (stage.clock(), stage.guard());
        Ok(Crew { participants, rngs, names: BTreeMap::new(), guard, clock })
    }
}

/// A participant as a run of this seed begins with it, and its random stream.
pub(crate) fn newcomer(
    name: &str,
    spec: ParticipantSpec,
    seed: u64,
) -> Result<(Participant, Rng), SpecError> {
    let participant = Participant::new(spec, &mut Rng::stream(seed, &format!("initial/{name}")))?;
    Ok((participant, Rng::stream(seed, &format!("policy/{name}"))))
}

/// The name of the ledger in the folder of a run.
pub const LEDGER_FILE: &str = "ledger.cbor";

impl<'s> Session<'s> {
    /// Begin a run in the folder `out`, which must hold none yet.
    pub fn start(stage: &'s Stage, out: &Path, config: RunConfig) -> Result<Self, LearnError> {
        let crew = Crew::new(stage, config)?;
        let mut ledger = Ledger::create(&out.join(LEDGER_FILE))?;
        let digest = stage.team().config_digest(&stage.tasks().identity());
        let RunConfig { seed, episodes } = config;
        ledger.append(
            AgentId::ORIGIN,
            Record::Opened { format: FORMAT.into(), config: digest, seed, episodes },
        );
        ledger.seal()?;
        Ok(Session::of(stage, out, config, crew, ledger))
    }

    fn of(stage: &'s Stage, out: &Path, config: RunConfig, crew: Crew, ledger: Ledger) -> Self {
        Session {
            stage,
            config,
            jobs: NonZeroUsize::MIN,
            crew,
            ledger,
            outcomes: Outcomes::of_run(out),
            // Seals cost a sync to the disk: one per episode where calls leave the process, else one now and then.
            seal_every: if stage.is_external() { 1 } else { 1000 },
            next_episode: 0,
            open: BTreeMap::new(),
            waiting: BTreeMap::new(),
            unjudged: BTreeSet::new(),
            heard: 0,
            returns: vec![],
            dropped: 0,
            out: out.to_owned(),
            asked_to_stop: Arc::default(),
            broken_off: None,
            looked_around: 0,
        }
    }

    /// Give each participant what an earlier policy says of its choices, as priors that own outcomes can outvote. Only
    /// where nothing has been learned yet. Participants are known again by name, those that the policy does not know begin
    /// without.
    pub fn warm_start(&mut self, policy: &PolicyFile, caps: Caps) -> Result<WarmStart, LearnError> {
        let mut all = WarmStart::default();
        for (i, id) in (0..self.crew.participants.len()).zip((0..).map(AgentId)) {
            let name = self.stage.participant_name(id).to_owned();
            let Some(earlier) = policy.agents.iter().find(|agent| agent.name == name) else { continue };
            let (successors, operations) = self.stage.columns(id);
            let warm = warm::start(earlier, &successors, &operations, caps)
                .map_err(|e| LearnError::Spec { agent: name.clone(), message: e.to_string() })?;
            let mut effects = vec![];
            for event in &warm.events {
                let told =
                    self.crew.participants[i].apply(event.clone(), &mut self.crew.rngs[i], &mut effects);
                told.map_err(|source| LearnError::Protocol { agent: name.clone(), episode: 0, source })?;
            }
            for effect in effects {
                if let Effect::Record(record) = effect {
                    self.ledger.append(id, record);
                }
            }
            all.same += warm.same;
            all.versions += warm.versions;
            all.dropped += warm.dropped;
            all.events.extend(warm.events);
        }
        for (key, name) in &policy.signatures {
            let Ok(signature) = signature_of_key(key) else { continue };
            if self.crew.names.insert(signature, name.clone()).is_none() {
                self.ledger.append(AgentId::ORIGIN, Record::Named { signature, name: name.clone() });
            }
        }
        self.ledger.seal()?;
        Ok(all)
    }

    /// Stop when this becomes true: no call is begun any more, and what those under way bring is kept.
    pub fn heed(self, asked_to_stop: Arc<AtomicBool>) -> Self {
        Session { asked_to_stop, ..self }
    }

    /// Have up to `jobs` tasks before the team at a time. One is what a session begins with, and what a team with the
    /// local model keeps: its agents re-compute between tasks.
    pub fn at_a_time(self, jobs: NonZeroUsize) -> Self {
        match self.stage.team().learner.extensions.local_model {
            true => self,
            false => Session { jobs, ..self },
        }
    }

    /// The seed and number of episodes.
    pub fn config(&self) -> RunConfig {
        self.config
    }

    /// Episodes done.
    pub fn episodes_done(&self) -> u64 {
        self.returns.len() as u64
    }

    /// The return of every episode done.
    pub fn returns(&self) -> &[f64] {
        &self.returns
    }

    /// The participants, by agent.
    pub fn participants(&self) -> &[Participant] {
        &self.crew.participants
    }

    /// Pieces of content that were dropped since the session began, because redaction failed on them or they could not be
    /// written.
    pub fn content_dropped(&self) -> u64 {
        self.dropped
    }

    /// Names of the signatures seen.
    pub fn names(&self) -> &BTreeMap<Signature, String> {
        &self.crew.names
    }

    /// Length of the ledger, in bytes.
    pub fn ledger_bytes(&self) -> u64 {
        self.ledger.bytes()
    }

    /// Tasks begun and not ended.
    pub fn open(&self) -> usize {
        self.open.len()
    }

    /// Tasks that wait for a person.
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// What all tasks of the run share of its guards.
    pub fn guard(&self) -> &TeamGuard {
        &self.crew.guard
    }

    fn is_seal_due(&self) -> bool {
        let done = self.episodes_done();
        done == self.config.episodes || done.is_multiple_of(self.seal_every)
    }

    /// Why the run was broken off, if it was.
    pub fn broken_off(&self) -> Option<&BrokenOff> {
        self.broken_off.as_ref()
    }

    /// Learn until all episodes are done or `watch`, called after each, breaks off. Broken off, no call is begun any
    /// more, and those that are under way are waited for: what they bring is kept. Ordered to stop from outside, they are
    /// called off. [`Session::broken_off`] says which.
    pub async fn run(
        &mut self,
        mut watch: impl FnMut(&EpisodeEnd) -> ControlFlow<()>,
    ) -> Result<ControlFlow<()>, LearnError> {
        let mut calls: FuturesUnordered<BoxFuture<'s, Returned>> = FuturesUnordered::new();
        self.waiting.clear();
        self.unjudged.clear();
        self.broken_off = None;
        // What is half done is done first, so that records come in the order of what they record.
        let (rest, begun): (Vec<u64>, _) = self.open.keys().partition(|number| self.open[number].waits());
        let mut ready: VecDeque<u64> = begun.into_iter().chain(rest).collect();
        // An earlier process may have been killed between the end of a task and this.
        for ended in
            self.outcomes.tasks().into_iter().filter(|task| !self.open.contains_key(task)).collect::<Vec<_>>()
        {
            self.release(ended).await;
        }
        loop {
            self.look_around(&mut ready)?;
            if let Some(BrokenOff::Ordered(_)) = self.broken_off {
                break;
            }
            let goes_on = self.broken_off.is_none();
            let next = match ready.is_empty() {
                false if calls.len() < self.jobs.get() => ready.pop_front(),
                true if goes_on => self.begin()?,
                _ => None,
            };
            if let Some(number) = next {
                match self.play(number)? {
                    Played::Ended => {
                        let end = self.close(number)?;
                        if self.stage.is_external() {
                            self.release(number).await;
                        }
                        if watch(&end).is_break() {
                            self.broken_off.get_or_insert(BrokenOff::Asked);
                        }
                        // A simulated episode never waits for anything; let others (Ctrl-C) have their turn.
                        tokio::task::yield_now().await;
                    }
                    Played::Calls(call) if goes_on => calls.push(self.under_way(number, call)?),
                    Played::Asks(ask) if goes_on => self.ask(number, ask, &mut ready)?,
                    Played::Judges if goes_on => calls.extend(self.judge(number)),
                    Played::Calls(_) | Played::Asks(_) | Played::Judges => {}
                }
            } else if !calls.is_empty() || (goes_on && !self.waiting.is_empty()) {
                let returned = match calls.next().now_or_never().flatten() {
                    Some(returned) => Some(returned),
                    None => tokio::select! {
                        Some(returned) = calls.next(), if !calls.is_empty() => Some(returned),
                        () = tokio::time::sleep(LOOK_AROUND) => None,
                    },
                };
                match returned {
                    Some(Returned::Outcome(returned)) => {
                        self.take(&returned)?;
                        let ReturnedCall { episode: number, agent, outcome, ms, .. } = returned;
                        self.open_episode(number).called(agent, outcome, ms);
                        ready.push_back(number);
                    }
                    Some(Returned::Verdict { tasks, verdict, ms }) => {
                        self.pronounce(&tasks, verdict, ms)?;
                        ready.extend(tasks);
                    }
                    None => {}
                }
            } else {
                break;
            }
        }
        if self.broken_off.is_none() {
            return Ok(ControlFlow::Continue(()));
        }
        if let Some(BrokenOff::Ordered(StopOrder { by, reason, .. })) = self.broken_off.clone() {
            self.ledger.append(AgentId::ORIGIN, Record::Halted { by, reason });
            self.ledger.seal()?;
        }
        self.ledger.flush()?;
        Ok(ControlFlow::Break(()))
    }

    /// Now and then: whether the run is to stop, and what people have answered.
    fn look_around(&mut self, ready: &mut VecDeque<u64>) -> Result<(), LearnError> {
        if self.asked_to_stop.load(Ordering::Relaxed) {
            self.broken_off.get_or_insert(BrokenOff::Asked);
        }
        if let Some(reason) = self.crew.guard.stopped() {
            self.broken_off.get_or_insert(BrokenOff::Guarded(reason));
        }
        let now = (self.crew.clock)();
        if now < self.looked_around + LOOK_AROUND.as_millis() as u64 && self.looked_around > 0 {
            return Ok(());
        }
        self.looked_around = now.max(1);
        if let Some(order) = stop::standing(&self.out) {
            self.broken_off = Some(BrokenOff::Ordered(order));
        }
        let (before, after) = (self.waiting.range(..self.heard), self.waiting.range(self.heard..));
        let numbers: Vec<u64> = after.chain(before).map(|(number, _)| *number).take(HEARD_MAX).collect();
        self.heard = numbers.last().map_or(0, |last| last + 1);
        for number in numbers {
            let ask = self.waiting.remove(&number).expect("it waits");
            let standing = Approvals::of(&self.out).standing(&ask.id, &ask.asked, now);
            self.hear(number, ask, standing, ready);
        }
        Ok(())
    }

    /// Ask a person, who may have answered an earlier process.
    fn ask(&mut self, number: u64, ask: Ask, ready: &mut VecDeque<u64>) -> Result<(), LearnError> {
        // The pause is on record before anybody is asked.
        self.ledger.flush()?;
        let expires_after_ms =
            self.stage.team().guards.approval_expires_after.map(|s| s.saturating_mul(1000));
        let approvals = Approvals::of(&self.out);
        let standing = approvals.ask(&ask.id, ask.asked.clone(), (self.crew.clock)(), expires_after_ms)?;
        self.hear(number, ask, standing, ready);
        Ok(())
    }

    fn hear(&mut self, number: u64, ask: Ask, standing: Standing, ready: &mut VecDeque<u64>) {
        let (granted, by) = match standing {
            Standing::Pending => {
                self.waiting.insert(number, ask);
                return;
            }
            Standing::Approved(by) => (true, by),
            Standing::Denied(why) => (false, why),
        };
        let episode = self.open.get_mut(&number).expect("an episode is open while it waits");
        episode.answered(&mut self.crew, granted, by);
        ready.push_back(number);
    }

    /// How many tasks are judged together.
    fn group(&self) -> u64 {
        self.stage.judge().map_or(1, |(_, group)| group.get())
    }

    /// A task waits to be judged: once all of its group do that have not ended otherwise, they are.
    fn judge(&mut self, number: u64) -> Option<BoxFuture<'s, Returned>> {
        self.unjudged.insert(number);
        let (judge, group) = self.stage.judge().expect("without a judge, no task waits for one");
        let first = number - number % group;
        let members = first..(first + group.get()).min(self.config.episodes);
        let is_ready =
            |n: u64| self.unjudged.contains(&n) || (n < self.next_episode && !self.open.contains_key(&n));
        if !members.clone().all(is_ready) {
            return None;
        }
        let tasks: Vec<u64> = members.filter(|n| self.unjudged.remove(n)).collect();
        let candidates: Vec<Candidate> = tasks.iter().map(|n| self.open[n].candidate()).collect();
        let label = format!("{}/{}", self.config.seed, first / group);
        let now = self.stage.clock();
        Some(Box::pin(async move {
            let began = now();
            let verdict = judge.judge(&candidates, &label).await;
            Returned::Verdict { tasks, verdict, ms: now().saturating_sub(began) }
        }))
    }

    /// Keep what judges say, and tell the tasks.
    fn pronounce(&mut self, tasks: &[u64], verdict: Verdict, ms: u64) -> Result<(), LearnError> {
        let Verdict { scores, tokens, money, failures, .. } = verdict;
        let judgement = |score: &Option<Score>| {
            let score = score.as_ref()?;
            Some(Judgement { quality: score.quality, confidence: Confidence::new(score.confidence).ok()? })
        };
        let judgements: Vec<Option<Judgement>> = scores.iter().map(judgement).collect();
        for (place, (number, judgement)) in tasks.iter().zip(&judgements).enumerate() {
            // What the group has cost is on record once, with its first task.
            let usage = Usage { tokens, failures: failures.len() as u32 };
            let (usage, money, ms) = if place == 0 { (usage, money, ms) } else { (Usage::default(), 0.0, 0) };
            let quality = judgement.map(|j| j.quality);
            let confidence = judgement.map_or(Confidence::FULL, |j| j.confidence);
            let record = Record::Judged { episode: *number, quality, confidence, usage, money, ms };
            self.ledger.append(AgentId::ORIGIN, record);
        }
        self.ledger.flush()?;
        for (number, judgement) in tasks.iter().zip(judgements) {
            self.open_episode(*number).judged(judgement);
        }
        Ok(())
    }

    fn open_episode(&mut self, number: u64) -> &mut Episode<'s> {
        self.open.get_mut(&number).expect("an episode is open while it waits")
    }

    /// Bring the next task before the team, if there is one and a place for it.
    fn begin(&mut self) -> Result<Option<u64>, LearnError> {
        // Who waits for a person takes nobody's place.
        let busy = self.open.len() - self.waiting.len();
        let jobs = (self.jobs.get() as u64).max(self.group()) as usize;
        if busy >= jobs || self.open.len() >= OPEN_MAX || self.next_episode == self.config.episodes {
            return Ok(None);
        }
        let number = self.next_episode;
        self.next_episode += 1;
        self.enter(number, VecDeque::new()).map(|()| Some(number))
    }

    fn enter(&mut self, number: u64, script: VecDeque<Record>) -> Result<(), LearnError> {
        // A group is several attempts at the same task.
        let mut draw = Rng::stream(self.config.seed, "tasks").fork([number / self.group(), 0, 0]);
        let scene = self.stage.open(self.stage.tasks().training(&mut draw)?)?;
        let episode = Episode::begin(self.stage, &mut self.crew, scene, number, script)?;
        self.open.insert(number, episode);
        Ok(())
    }

    /// Play a task until it waits for something or has ended.
    fn play(&mut self, number: u64) -> Result<Played<'s>, LearnError> {
        let episode = self.open.get_mut(&number).expect("an episode is played while it is open");
        loop {
            match episode.step(&mut self.crew)? {
                Step::Record(agent, record) => self.ledger.append(agent, record),
                Step::Done => {}
                Step::Call(call) => return Ok(Played::Calls(call)),
                Step::Ask(ask) => return Ok(Played::Asks(ask)),
                Step::Judge => return Ok(Played::Judges),
                Step::Ended => return Ok(Played::Ended),
            }
        }
    }

    /// A call, begun: what it rests on is in the hands of the operating system before it leaves.
    fn under_way(&mut self, episode: u64, call: Call<'s>) -> Result<BoxFuture<'s, Returned>, LearnError> {
        if self.stage.leaves_process(call.agent) {
            self.ledger.flush()?;
        }
        // What is simulated takes no time.
        let now = self.stage.leaves_process(call.agent).then(|| self.stage.clock());
        let began = now.as_ref().map_or(0, |now| now());
        Ok(Box::pin(async move {
            let Call { handoff, agent, operation, outcome } = call;
            let outcome = outcome.await;
            let ms = now.map_or(0, |now| now().saturating_sub(began));
            Returned::Outcome(ReturnedCall { episode, handoff, agent, operation, outcome, ms })
        }))
    }

    /// Keep what a call that left the process has brought.
    fn take(&mut self, returned: &ReturnedCall) -> Result<(), LearnError> {
        let ReturnedCall { episode: number, handoff, agent, operation, outcome, ms } = returned;
        if !self.stage.leaves_process(*agent) {
            return Ok(());
        }
        let episode = &self.open[number];
        let digest = self.outcomes.keep(*number, episode.calls(), episode.scene().artifact(), outcome)?;
        if self.stage.team().trace.content {
            self.outcomes.keep_given(*number, episode.calls(), episode.scene().artifact())?;
        }
        let failures = u32::from(outcome.failure().is_some());
        let record = Record::Called {
            handoff: *handoff,
            agent: *agent,
            operation: *operation,
            ended: outcome.failure().map_or("done", |f| f.kind().word()).to_owned(),
            usage: Usage { tokens: outcome.tokens, failures },
            money: outcome.money,
            ms: *ms,
            outcome: digest,
        };
        self.ledger.append(AgentId::ORIGIN, record);
        Ok(self.ledger.flush()?)
    }

    /// A task has ended.
    fn close(&mut self, number: u64) -> Result<EpisodeEnd, LearnError> {
        let end = self.open.remove(&number).expect("an open episode ends").end().clone();
        let EpisodeEnd { episode, episode_return, handoffs, stop, .. } = end;
        let stop = stop.word().to_owned();
        self.ledger.append(AgentId::ORIGIN, Record::Closed { episode, episode_return, handoffs, stop });
        self.returns.push(episode_return);
        match self.is_seal_due() {
            true => self.ledger.seal()?,
            false => self.ledger.flush_if_large()?,
        }
        Ok(end)
    }

    /// Of a task that has ended nothing is kept, or only what the team wants for people.
    async fn release(&mut self, number: u64) {
        match self.stage.team().trace.content {
            false => self.outcomes.forget(number),
            true => self.dropped += self.outcomes.publish(number, self.stage.redactor()).await,
        }
    }

    /// What has been learned so far.
    pub fn policy(&self) -> PolicyFile {
        let team = self.stage.team();
        let participants = self.crew.participants.iter().zip((0..).map(AgentId));
        let agents = participants.map(|(participant, id)| {
            let (successors, operations) = self.stage.columns(id);
            AgentPolicy::of(self.stage.participant_name(id), successors, operations, participant.learner())
        });
        let source = Source {
            team: team.name.clone(),
            config: hex(&team.config_digest(&self.stage.tasks().identity())),
            seed: self.config.seed,
            episodes: self.episodes_done(),
            ledger: hex(&self.ledger.head()),
            merged: vec![],
        };
        PolicyFile::new(source, &self.crew.names, agents.collect())
    }
}

/// How often a run looks whether it is to stop, and what people have answered.
const LOOK_AROUND: Duration = Duration::from_millis(100);

/// Of how many tasks answers are looked for at a time.
const HEARD_MAX: usize = 256;

/// The most tasks that are open at a time, those included that wait for a person.
const OPEN_MAX: usize = 10_000;

/// How far a task was played.
enum Played<'s> {
    /// It waits for a call.
    Calls(Call<'s>),
    /// It waits for a person.
    Asks(Ask),
    /// It waits for its judge.
    Judges,
    /// It has ended.
    Ended,
}

/// What has come back.
enum Returned {
    /// A call of an agent.
    Outcome(ReturnedCall),
    /// What judges say of some tasks.
    Verdict { tasks: Vec<u64>, verdict: Verdict, ms: u64 },
}

/// A call that has come back.
struct ReturnedCall {
    episode: u64,
    handoff: HandoffId,
    agent: AgentId,
    operation: OperationId,
    outcome: Outcome,
    ms: u64,
}
