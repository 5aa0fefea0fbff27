//! The loop of a session: tasks are played until they wait, calls go out and come back, people and judges are asked, and
//! all that happens is in the ledger before anything follows from it.

use std::{collections::VecDeque, ops::ControlFlow, sync::atomic::Ordering, time::Duration};

use futures_util::{FutureExt, StreamExt, future::BoxFuture, stream::FuturesUnordered};
use relevo_core::{
    ids::{AgentId, EpisodeId, HandoffId, OperationId},
    protocol::Handoff,
    record::{Entry, Record},
    units::{Confidence, Cost, Usage},
};

use super::{BrokenOff, EpisodeEnd, LearnError, Session, ends::Ends};
use crate::{
    agent::Outcome,
    approval::{Approvals, Standing},
    episode::{Ask, Call, Episode, Judgement, Step},
    judge::{Candidate, Score, Verdict},
    observe::{Occasion, Purpose},
    stop::{self, StopOrder},
    team::RewardScale,
};

impl<'s> Session<'s> {
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
        let mut ended = self.outcomes.tasks();
        ended.retain(|task| !self.open.contains_key(task));
        self.release(ended).await;
        let (mut ends, mut round) = (Ends::of(self.jobs), vec![]);
        loop {
            // One task at a time has nobody to wait for it.
            let synced = match (ends.is_empty(), self.jobs.get()) {
                (true, _) => None,
                (false, 1) => Some(ends.synced(&self.ledger, &mut self.outcomes).await?),
                (false, _) => ends.synced(&self.ledger, &mut self.outcomes).now_or_never().transpose()?,
            };
            self.release(synced.unwrap_or_default()).await;
            self.look_around(&mut ready)?;
            if let Some(BrokenOff::Ordered(_)) = self.broken_off {
                self.accept(&mut round, &mut ready)?;
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
                        if watch(&self.close(number)?).is_break() {
                            self.broken_off.get_or_insert(BrokenOff::Asked);
                        }
                        if self.stage.is_external() {
                            ends.push(number);
                        }
                        // A simulated episode never waits for anything; let others (Ctrl-C) have their turn.
                        tokio::task::yield_now().await;
                    }
                    Played::Calls(call) if goes_on => calls.push(self.under_way(number, call)?),
                    Played::Asks(ask) if goes_on => self.ask(number, ask, &mut ready)?,
                    Played::Judges if goes_on => calls.extend(self.judge(number)),
                    Played::Calls(_) | Played::Asks(_) | Played::Judges => {}
                }
            } else if !calls.is_empty() || !ends.is_empty() || (goes_on && !self.waiting.is_empty()) {
                let returned = match calls.next().now_or_never().flatten() {
                    Some(returned) => Some(returned),
                    None => tokio::select! {
                        Some(returned) = calls.next(), if !calls.is_empty() => Some(returned),
                        synced = ends.synced(&self.ledger, &mut self.outcomes), if !ends.is_empty() => {
                            self.release(synced?).await;
                            None
                        }
                        () = tokio::time::sleep(LOOK_AROUND) => None,
                    },
                };
                round.extend(returned);
                if !self.stage.team().run.rounds || calls.is_empty() {
                    self.accept(&mut round, &mut ready)?;
                }
            } else {
                break;
            }
        }
        while !ends.is_empty() {
            let synced = ends.synced(&self.ledger, &mut self.outcomes).await?;
            self.release(synced).await;
        }
        if self.broken_off.is_none() {
            return Ok(ControlFlow::Continue(()));
        }
        if let Some(BrokenOff::Ordered(StopOrder { by, reason, .. })) = self.broken_off.clone() {
            self.record(AgentId::ORIGIN, Record::Halted { by, reason });
            self.ledger.seal()?;
        }
        self.ledger.flush()?;
        Ok(ControlFlow::Break(()))
    }

    /// Take what has come back, in the order of the tasks, which are ready for more then.
    fn accept(&mut self, round: &mut Vec<Returned>, ready: &mut VecDeque<u64>) -> Result<(), LearnError> {
        round.sort_by_key(Returned::task);
        for returned in round.drain(..) {
            match returned {
                Returned::Outcome(returned) => {
                    self.take(&returned)?;
                    let ReturnedCall { episode: number, agent, outcome, ms, .. } = returned;
                    self.open_episode(number).called(agent, outcome, ms);
                    ready.push_back(number);
                }
                Returned::Verdict { tasks, verdict, ms } => {
                    self.pronounce(&tasks, verdict, ms)?;
                    ready.extend(tasks);
                }
            }
        }
        Ok(())
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
        let (stage, now) = (self.stage, self.stage.clock());
        let watched = tasks.first().and_then(|first| self.open[first].scene().watched().cloned());
        Some(Box::pin(async move {
            let began = now();
            let judged = judge.judge(&candidates, &label);
            let verdict = stage.seen(watched, Purpose::Judgement, judged).await;
            Returned::Verdict { tasks, verdict, ms: now().saturating_sub(began) }
        }))
    }

    /// Keep what judges say, and tell the tasks.
    fn pronounce(&mut self, tasks: &[u64], verdict: Verdict, ms: u64) -> Result<(), LearnError> {
        let Verdict { scores, tokens, money, failures, checks, .. } = verdict;
        let judgement = |score: &Option<Score>| {
            let score = score.as_ref()?;
            Some(Judgement { quality: score.quality, confidence: Confidence::new(score.confidence).ok()? })
        };
        let judgements: Vec<Option<Judgement>> = scores.iter().map(judgement).collect();
        let mut records = vec![];
        for (place, (number, judgement)) in tasks.iter().zip(&judgements).enumerate() {
            // What the group has cost is on record once, with its first task.
            let usage = Usage { tokens, failures: failures.len() as u32 };
            let (usage, money, ms) = if place == 0 { (usage, money, ms) } else { (Usage::default(), 0.0, 0) };
            let quality = judgement.map(|j| j.quality);
            let confidence = judgement.map_or(Confidence::FULL, |j| j.confidence);
            records.push(Record::Judged { episode: *number, quality, confidence, usage, money, ms });
        }
        records.extend(checks.into_iter().map(|check| check.record(tasks[0])));
        records.into_iter().for_each(|record| self.record(AgentId::ORIGIN, record));
        self.ledger.flush()?;
        let failed = judgements.iter().all(Option::is_none).then_some(&failures);
        let kinds = failed.into_iter().flatten().map(|failure| failure.failure.kind());
        self.crew.guard.judged(Cost { tokens, money, ms }, kinds);
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

    pub(super) fn enter(&mut self, number: u64, script: VecDeque<Record>) -> Result<(), LearnError> {
        // A group is several attempts at the same task.
        let task = self.stage.tasks().lesson(self.config.seed, number / self.group())?;
        let scene = self.stage.open(task, self.usual())?.on(Occasion::Lesson(number));
        let id = HandoffId::opening(EpisodeId(u128::from(number)));
        let entry = Handoff { id, to: self.stage.start(), clock: number };
        let episode = Episode::begin(self.stage, &mut self.crew, scene, number, entry, script)?;
        self.open.insert(number, episode);
        Ok(())
    }

    /// Add a record to the ledger.
    fn record(&mut self, agent: AgentId, record: Record) {
        let entry = Entry { agent, record };
        self.tell(&entry);
        self.ledger.append(entry.agent, entry.record);
    }

    /// Let whoever looks on know of a record.
    fn tell(&self, entry: &Entry) {
        if let Some(observer) = self.stage.observer() {
            observer.recorded(entry, &self.crew.participants);
        }
    }

    /// Play a task until it waits for something or has ended.
    fn play(&mut self, number: u64) -> Result<Played<'s>, LearnError> {
        loop {
            let episode = self.open.get_mut(&number).expect("an episode is played while it is open");
            match episode.step(&mut self.crew)? {
                Step::Record(agent, record) => self.record(agent, record),
                Step::Done => {}
                Step::Call(call) => return Ok(Played::Calls(call)),
                Step::Ask(ask) => return Ok(Played::Asks(ask)),
                Step::Judge => return Ok(Played::Judges),
                Step::Ended => return Ok(Played::Ended),
                Step::Value(_) | Step::Away(_) | Step::Finished(_) => unreachable!("a run has no peers"),
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
        self.record(AgentId::ORIGIN, record);
        Ok(self.ledger.flush()?)
    }

    /// A task has ended.
    fn close(&mut self, number: u64) -> Result<EpisodeEnd, LearnError> {
        let ended = self.open.remove(&number).expect("an open episode ends");
        let end = EpisodeEnd { spent: *ended.scene().spent(), ..ended.end().clone() };
        let EpisodeEnd { episode, episode_return, handoffs, stop, spent, .. } = end;
        let stop = stop.word().to_owned();
        let cost = (self.stage.team().reward.scale == RewardScale::Median).then(|| spent.cost());
        self.record(AgentId::ORIGIN, Record::Closed { episode, episode_return, handoffs, stop, cost });
        cost.into_iter().for_each(|cost| self.median.observe(cost));
        self.returns.push(episode_return);
        match self.is_seal_due() {
            true if self.stage.is_external() => self.ledger.seal_unsynced()?,
            true => self.ledger.seal()?,
            false => self.ledger.flush_if_large()?,
        }
        Ok(end)
    }

    /// Of tasks that have ended nothing is kept, or only what the team wants for people.
    async fn release(&mut self, tasks: Vec<u64>) {
        for number in tasks {
            match self.stage.team().trace.content {
                false => self.outcomes.forget(number),
                true => self.dropped += self.outcomes.publish(number, self.stage.redactor()).await,
            }
        }
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

impl Returned {
    /// The first task that it is for.
    fn task(&self) -> u64 {
        match self {
            Returned::Outcome(returned) => returned.episode,
            Returned::Verdict { tasks, .. } => tasks[0],
        }
    }
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
