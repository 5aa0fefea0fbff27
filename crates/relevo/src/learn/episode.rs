//! One task on its way: effects are carried out one after the other, until a call is needed or nothing is left to do.
//! Played by [`super::Session`] as it happens, and by [`super::resume`] once more from the ledger.

use std::collections::{VecDeque, btree_map::Entry as Vacancy};

use futures_util::future::BoxFuture;
use relevo_core::{
    ids::{ActionId, AgentId, EpisodeId, HandoffId, OperationId},
    learner::{DecisionPoint, Regime},
    observation::{ActionSet, Observation, Signature},
    protocol::{Effect, Event, Handoff, Next},
    record::Record,
    units::{Confidence, Return, Tau, Usage},
};

use super::{Crew, EpisodeEnd, LearnError};
use crate::{
    agent::{FailureKind, Outcome},
    approval::{Asked, question_id},
    guard::{Cost, Guard, Masks, Permit, Question, Said, StopReason, TaskGuard, Verdict, Why},
    judge::Candidate,
    reward::Spent,
    stage::{After, Scene, Sight, Stage},
    team::CreditSection,
};

/// The most names of situations that a run keeps; the rest go by their signatures.
const NAMES_MAX: usize = 1 << 20;

/// A call that an episode waits for.
pub(super) struct Call<'s> {
    /// The handoff that activated the participant.
    pub(super) handoff: HandoffId,
    /// Who is called, by its place in the team file.
    pub(super) agent: AgentId,
    /// With which operation.
    pub(super) operation: OperationId,
    /// The call itself.
    pub(super) outcome: BoxFuture<'s, Outcome>,
}

/// What a person is asked before a call.
pub(super) struct Ask {
    /// The name of the question.
    pub(super) id: String,
    /// The question.
    pub(super) asked: Asked,
}

/// What came of one step of an episode.
pub(super) enum Step<'s> {
    /// A record to be kept before the next step.
    Record(AgentId, Record),
    /// An effect was carried out.
    Done,
    /// Nothing goes on before this call has come back, and [`Episode::called`] was told of it.
    Call(Call<'s>),
    /// Nothing goes on before [`Episode::answered`] was told what a person says.
    Ask(Ask),
    /// Nothing goes on before [`Episode::judged`] was told how good what came out is.
    Judge,
    /// The task has ended.
    Ended,
}

/// One task being played.
pub(super) struct Episode<'s> {
    stage: &'s Stage,
    scene: Scene<'s>,
    number: u64,
    /// The driver's own records, to be made before anything else.
    notes: VecDeque<Record>,
    /// Effects to carry out, with the participant that wants them.
    todo: VecDeque<(AgentId, Effect)>,
    /// The call that has not come back, or not been looked at yet.
    calling: Option<Calling>,
    /// What came back. It is looked at in the next step and not before, so that what happens is recorded in the order in
    /// which it happened.
    news: Option<News>,
    /// How the task is to end, once it has been judged.
    ending: Option<Ending>,
    /// What the ledger says that comes next, where the task is played once more: what guards said is taken from there.
    script: VecDeque<Record>,
    guard: TaskGuard,
    end: EpisodeEnd,
    /// gamma^(primitive steps so far).
    discount: f64,
    /// Who is still to re-compute its local model, once the task has ended.
    replans: Option<Vec<AgentId>>,
}

/// A call on its way.
struct Calling {
    participant: AgentId,
    handoff: HandoffId,
    operation: OperationId,
    /// How far the guards have let it.
    pass: Pass,
    /// Who does it instead, as the budget of the task is used up.
    takeover: Option<AgentId>,
}

/// How far the guards have let a call.
enum Pass {
    Unasked,
    /// A person is to say, since that time.
    Question(Question, u64),
    /// They have.
    Answered,
    Permitted(Permit),
}

/// What an episode waited for.
enum News {
    /// A call came back, after so many milliseconds.
    Outcome(AgentId, Outcome, u64),
    /// What came out was judged, or could not be.
    Judgement(Option<Judgement>),
}

/// How a task ends.
struct Ending {
    participant: AgentId,
    event: Event,
    /// The reward of the last operation; none where the task ends apart from one.
    own: f64,
}

/// How good what came out is, and how far that may be trusted.
#[derive(Clone, Copy, Debug)]
pub(super) struct Judgement {
    pub(super) quality: f64,
    pub(super) confidence: Confidence,
}

impl<'s> Episode<'s> {
    /// A task that enters the team; with what the ledger says of it, where it has entered before.
    pub(super) fn begin(
        stage: &'s Stage,
        crew: &mut Crew,
        scene: Scene<'s>,
        number: u64,
        script: VecDeque<Record>,
    ) -> Result<Self, LearnError> {
        let end = EpisodeEnd {
            episode: number,
            episode_return: 0.0,
            handoffs: 0,
            stop: StopReason::Ended,
            path: vec![],
            quality: None,
            spent: Spent::default(),
            greedy: true,
        };
        let guard = TaskGuard::new(&mut crew.guard, (crew.clock)());
        let (notes, todo) = Default::default();
        let mut episode = Episode {
            stage,
            scene,
            number,
            notes,
            todo,
            calling: None,
            news: None,
            ending: None,
            script,
            guard,
            end,
            discount: 1.0,
            replans: None,
        };
        let id = HandoffId::opening(EpisodeId(u128::from(number)));
        episode.deliver(crew, Handoff { id, to: stage.start(), clock: number })?;
        Ok(episode)
    }

    /// How it went.
    pub(super) fn end(&self) -> &EpisodeEnd {
        &self.end
    }

    /// How many calls have come back.
    pub(super) fn calls(&self) -> u32 {
        self.scene.spent().calls
    }

    /// Whether nothing is left to do before a call, or a person's answer.
    pub(super) fn waits(&self) -> bool {
        self.notes.is_empty() && self.todo.is_empty() && self.calling.is_some()
    }

    /// What the ledger said next has been followed.
    pub(super) fn followed(&mut self) {
        self.script.pop_front();
    }

    /// What is being handed over.
    pub(super) fn scene(&self) -> &Scene<'s> {
        &self.scene
    }

    /// What judges are shown of it.
    pub(super) fn candidate(&self) -> Candidate {
        self.scene.candidate(&self.end.path)
    }

    /// Carry out the next effect.
    pub(super) fn step(&mut self, crew: &mut Crew) -> Result<Step<'s>, LearnError> {
        if let Some(note) = self.notes.pop_front() {
            return Ok(Step::Record(AgentId::ORIGIN, note));
        }
        match self.news.take() {
            Some(News::Outcome(agent, outcome, ms)) => {
                return self.came_back(crew, Some((agent, outcome, ms))).map(|()| Step::Done);
            }
            Some(News::Judgement(judgement)) => {
                return self.conclude(crew, judgement).map(|()| Step::Done);
            }
            None => {}
        }
        let Some((agent, effect)) = self.todo.pop_front() else { return self.wait(crew) };
        match effect {
            Effect::Record(record) => {
                if let Record::Decided { greedy, .. } = record {
                    self.end.greedy &= greedy;
                }
                return Ok(Step::Record(agent, record));
            }
            Effect::Value { to: AgentId::ORIGIN, .. } => {}
            Effect::Value { to, message } => self.tell(crew, to, Event::Valued(message))?,
            Effect::Perform { handoff, operation, .. } => {
                let (pass, takeover) = (Pass::Unasked, None);
                self.calling = Some(Calling { participant: agent, handoff, operation, pass, takeover });
            }
            Effect::Send(handoff) => {
                self.earn(self.stage.team().reward.handoff);
                self.discount *= self.stage.team().learner.discount;
                let digest = self.scene.digest(&crew.guard);
                match self.guard.on_handoff(&crew.guard, agent, handoff.to, digest) {
                    None => {
                        self.end.handoffs += 1;
                        self.deliver(crew, handoff)?;
                    }
                    // A deadline is an end with nothing to show for it, not something to bootstrap from.
                    Some(reason) => {
                        self.end.stop = reason;
                        let reward = self.closing(0.0)?;
                        self.tell(crew, agent, Event::Finished { handoff: handoff.id, reward })?;
                    }
                }
            }
            Effect::Finish { handoff } => {
                self.end.stop = StopReason::Finished;
                let event = Event::Finished { handoff, reward: Return::ZERO };
                self.end_with(crew, Ending { participant: agent, event, own: 0.0 })?;
            }
            Effect::Ask { to, handle } => self.tell(crew, to, Event::Asked { from: agent, handle })?,
            Effect::Answer { to, handle, value } => {
                self.tell(crew, to, Event::Answered { from: agent, handle, value })?;
            }
        }
        Ok(Step::Done)
    }

    /// All that has happened is on record: what the episode waits for now. A call that was never begun is asked for again.
    fn wait(&mut self, crew: &mut Crew) -> Result<Step<'s>, LearnError> {
        match self.calling.take() {
            _ if self.ending.is_some() => Ok(Step::Judge),
            Some(calling) => self.call(crew, calling),
            None => self.after(crew),
        }
    }

    /// Make a call, as far as the guards let it.
    fn call(&mut self, crew: &mut Crew, mut calling: Calling) -> Result<Step<'s>, LearnError> {
        let Calling { participant, handoff, operation, .. } = calling;
        let called = match calling.takeover {
            Some(agent) => Some((agent, self.scene.call_agent(agent, handoff))),
            None => self.scene.call(participant, operation, handoff),
        };
        let Some((agent, outcome)) = called else {
            self.calling = Some(calling);
            return self.came_back(crew, None).map(|()| Step::Done);
        };
        if let Pass::Question(question, _) = &calling.pass {
            let ask = self.ask(question, &calling);
            self.calling = Some(calling);
            return Ok(Step::Ask(ask));
        }
        if let Pass::Unasked | Pass::Answered = calling.pass {
            let digest = self.scene.digest(&crew.guard);
            let invokes = self.stage.coordination().is_some() && matches!(calling.pass, Pass::Unasked);
            if invokes
                && let Some(reason) = self.guard.on_handoff(&crew.guard, AgentId::ORIGIN, agent, digest)
            {
                return self.stop(crew, &calling, reason);
            }
            match self.verdict(crew, agent, handoff) {
                Verdict::Go(permit) => calling.pass = Pass::Permitted(permit),
                Verdict::Stop(reason) => return self.stop(crew, &calling, reason),
                Verdict::HandOff(to) => {
                    self.calling = Some(Calling { pass: Pass::Unasked, takeover: Some(to), ..calling });
                    return Ok(Step::Done);
                }
                Verdict::Ask(question) => {
                    let why = question.why.word().to_owned();
                    self.notes.push_back(Record::Paused { handoff, agent: question.agent, why });
                    self.calling =
                        Some(Calling { pass: Pass::Question(question, (crew.clock)()), ..calling });
                    return Ok(Step::Done);
                }
            }
        }
        self.calling = Some(calling);
        Ok(Step::Call(Call { handoff, agent, operation, outcome }))
    }

    /// What the guards say of a call.
    fn verdict(&mut self, crew: &mut Crew, agent: AgentId, handoff: HandoffId) -> Verdict {
        let said = match self.script.front() {
            Some(Record::Called { agent: called, .. }) if *called == agent => Some(Said::Go),
            Some(Record::Called { agent: called, .. }) => Some(Said::HandOff(*called)),
            Some(Record::Paused { why, .. }) => Why::of_word(why).map(Said::Ask),
            _ => None,
        };
        if let Some(said) = said {
            return self.guard.recall(&mut crew.guard, agent, said);
        }
        let needs_approval = self.scene.needs_approval(agent, handoff.from);
        let verdict = self.guard.before_call(&mut crew.guard, agent, needs_approval, (crew.clock)());
        match verdict {
            // It stopped the task, for a reason that was not written down any more.
            Verdict::Go(permit) if !self.script.is_empty() && self.stage.leaves_process(agent) => {
                self.guard.after_call(&mut crew.guard, permit, Cost::default(), Err(FailureKind::Cancelled));
                Verdict::Stop(self.guard.stop(StopReason::Killed))
            }
            verdict => verdict,
        }
    }

    fn ask(&self, question: &Question, calling: &Calling) -> Ask {
        let label = self.scene.label(calling.handoff);
        let why = question.why.word();
        let asked = Asked {
            agent: self.stage.team().agent_name(question.agent).to_owned(),
            from: self.stage.participant_name(calling.handoff.from).to_owned(),
            situation: self.scene.described(question.agent, calling.handoff.from),
            task: self.scene.task().id.clone(),
            estimate: question.estimate,
            why: why.to_owned(),
        };
        Ask { id: question_id(&label, why), asked }
    }

    /// A person has answered the question that the episode waits for.
    pub(super) fn answered(&mut self, crew: &mut Crew, granted: bool, by: String) {
        let Some(calling) = &mut self.calling else { unreachable!("an answer follows a question") };
        let Pass::Question(question, since) = &calling.pass else {
            unreachable!("an answer follows a question")
        };
        self.guard.waited((crew.clock)().saturating_sub(*since));
        match granted {
            true => self.guard.approve(&mut crew.guard, question, (crew.clock)()),
            false => drop(self.guard.deny()),
        }
        self.notes.push_back(Record::Permitted { handoff: calling.handoff, granted, by });
        calling.pass = Pass::Answered;
    }

    /// A guard ends the task before a call.
    fn stop(
        &mut self,
        crew: &mut Crew,
        calling: &Calling,
        reason: StopReason,
    ) -> Result<Step<'s>, LearnError> {
        self.stopped(crew, calling, reason, 0.0, Usage::default()).map(|()| Step::Done)
    }

    /// The task stops in an operation. What a coordinator has come to is judged, and so is what somebody concluded; what
    /// was broken off elsewhere has nothing to show for it.
    fn stopped(
        &mut self,
        crew: &mut Crew,
        calling: &Calling,
        reason: StopReason,
        own: f64,
        usage: Usage,
    ) -> Result<(), LearnError> {
        self.end.stop = reason;
        self.scene.halt(reason);
        let (handoff, tau, next) = (calling.handoff, Tau::ONE, Next::Ended);
        let participant = calling.participant;
        if self.stage.coordination().is_some() || reason.is_concluded() {
            let event = Event::Performed { handoff, reward: Return::ZERO, tau, usage, next };
            return self.end_with(crew, Ending { participant, event, own });
        }
        let reward = self.closing(own)?;
        self.tell(crew, participant, Event::Performed { handoff, reward, tau, usage, next })
    }

    /// The task ends so, once it has been judged: at once, where no judge needs to be called.
    fn end_with(&mut self, crew: &mut Crew, ending: Ending) -> Result<(), LearnError> {
        self.ending = Some(ending);
        if self.stage.judge().is_some() {
            return Ok(());
        }
        let quality = self.scene.quality();
        self.conclude(crew, quality.map(|quality| Judgement { quality, confidence: Confidence::FULL }))
    }

    /// What came out has been judged.
    pub(super) fn judged(&mut self, judgement: Option<Judgement>) {
        self.news = Some(News::Judgement(judgement));
    }

    /// The task ends as it was judged. Without a judgement nothing is learned from how it ended.
    fn conclude(&mut self, crew: &mut Crew, judgement: Option<Judgement>) -> Result<(), LearnError> {
        let Some(Ending { participant, mut event, own }) = self.ending.take() else {
            unreachable!("a judgement is given to an episode that waits for it");
        };
        let (Event::Finished { handoff, reward } | Event::Performed { handoff, reward, .. }) = &mut event
        else {
            unreachable!("a task ends by finishing, or in an operation");
        };
        let handoff = *handoff;
        let Some(Judgement { quality, confidence }) = judgement else {
            self.end.quality = None;
            return self.tell(crew, participant, Event::Expired { handoff });
        };
        let earned = self.stage.team().reward.success * quality;
        self.end.quality = Some(quality);
        self.end.episode_return += self.discount * earned;
        *reward = self.closing(own + earned)?;
        if confidence < Confidence::FULL {
            self.tell(crew, participant, Event::Trusted { handoff, confidence })?;
        }
        self.tell(crew, participant, event)
    }

    /// The call that the episode waited for has come back, after so many milliseconds.
    pub(super) fn called(&mut self, agent: AgentId, outcome: Outcome, ms: u64) {
        self.news = Some(News::Outcome(agent, outcome, ms));
    }

    /// An operation is over: its call has come back, or it needed none.
    fn came_back(
        &mut self,
        crew: &mut Crew,
        returned: Option<(AgentId, Outcome, u64)>,
    ) -> Result<(), LearnError> {
        let Some(mut calling) = self.calling.take() else {
            unreachable!("an outcome is given to an episode that waits for it");
        };
        let Calling { participant: agent, handoff, operation, .. } = calling;
        if let (Some((performer, ..)), Some(_)) = (&returned, self.stage.coordination()) {
            self.end.path.push(*performer);
        }
        let ms = returned.as_ref().map_or(0, |(_, _, ms)| *ms);
        let outcome = returned.map(|(_, outcome, _)| outcome);
        let performance = match calling.takeover {
            Some(_) => self.scene.take_over(outcome.expect("somebody who takes over is called"), ms),
            None => self.scene.take(agent, operation, outcome, ms),
        };
        let usage = performance.usage;
        if let Pass::Permitted(permit) = std::mem::replace(&mut calling.pass, Pass::Unasked) {
            let cost = Cost { tokens: usage.tokens, money: performance.money, ms };
            self.guard.after_call(&mut crew.guard, permit, cost, performance.ended);
        }
        self.earn(performance.reward);
        let own = performance.reward;
        if let Some(reason) = self.guard.stopped() {
            return self.stopped(crew, &calling, reason, own, usage);
        }
        if calling.takeover.is_some() {
            return self.stopped(crew, &calling, StopReason::HandedOff, own, usage);
        }
        // Chosen before, a handover and the end belong to the same primitive step as the operation.
        let mut next = Next::Committed;
        if self.stage.regime(agent) != Regime::PreConfigured(DecisionPoint::Before) {
            next = match self.scene.after(agent, handoff.from) {
                After::Concluded(reason) => return self.stopped(crew, &calling, reason, own, usage),
                After::Operate(sight) => match self.look(crew, agent, Some(handoff), sight) {
                    Ok(observation) => Next::Operate(observation),
                    Err(reason) => return self.stopped(crew, &calling, reason, own, usage),
                },
                After::HandOver(sight) => match self.look(crew, agent, Some(handoff), sight) {
                    Ok(observation) => Next::HandOver(observation),
                    Err(reason) => return self.stopped(crew, &calling, reason, own, usage),
                },
            };
            self.discount *= self.stage.team().learner.discount;
        }
        let reward = self.finite(own)?;
        // What only counts as a failure is not learned from.
        let event = match performance.ended.is_err() && self.stage.counts_failures() {
            true => Event::Failed { handoff, usage, next },
            false => Event::Performed { handoff, reward, tau: Tau::ONE, usage, next },
        };
        self.tell(crew, agent, event)
    }

    /// Nothing is left to do: receivers re-compute their local models before their predecessors, so that what they
    /// are told is what was re-computed.
    fn after(&mut self, crew: &mut Crew) -> Result<Step<'s>, LearnError> {
        if !self.stage.team().learner.extensions.local_model {
            return Ok(Step::Ended);
        }
        match self.replans.get_or_insert_with(|| self.end.path.clone()).pop() {
            None => Ok(Step::Ended),
            Some(agent) => self.tell(crew, agent, Event::Replan).map(|()| Step::Done),
        }
    }

    /// What a concluding agent is told: under trajectory credit the return of the whole task.
    fn closing(&self, reward: f64) -> Result<Return, LearnError> {
        let trajectory = matches!(self.stage.team().learner.credit, CreditSection::Trajectory);
        self.finite(if trajectory { self.end.episode_return } else { reward })
    }

    fn earn(&mut self, reward: f64) {
        self.end.episode_return += self.discount * reward;
    }

    fn finite(&self, reward: f64) -> Result<Return, LearnError> {
        Return::new(reward).map_err(|source| LearnError::Unit { episode: self.number, source })
    }

    /// Control arrives at an agent.
    fn deliver(&mut self, crew: &mut Crew, handoff: Handoff) -> Result<(), LearnError> {
        let (to, sender) = (handoff.to, handoff.id.from);
        let sight = self.scene.arrive(to, sender);
        // Whom to hand to is chosen now by a coordinator, and by agents that decide before their work.
        let decides_before = self.stage.regime(to) == Regime::PreConfigured(DecisionPoint::Before);
        let decides_now = decides_before || self.stage.coordination().is_some();
        let observation = match self.look(crew, to, decides_now.then_some(handoff.id), sight) {
            Ok(observation) => observation,
            Err(reason) => {
                self.end.stop = reason;
                if sender != AgentId::ORIGIN {
                    let reward = self.closing(0.0)?;
                    self.tell(crew, sender, Event::Finished { handoff: handoff.id, reward })?;
                }
                return Ok(());
            }
        };
        if self.stage.coordination().is_none() {
            self.end.path.push(to);
        }
        self.tell(crew, to, Event::Received { handoff, observation })
    }

    /// A participant looks at something: its name is recorded when it is first met. To choose in a handoff, it sees no
    /// choices that guards keep from it; without any choice, the task ends for the reason returned.
    fn look(
        &mut self,
        crew: &mut Crew,
        participant: AgentId,
        to_choose: Option<HandoffId>,
        sight: Sight,
    ) -> Result<Observation, StopReason> {
        let mut sight = sight;
        let mut reason = StopReason::NoSuccessor;
        if to_choose.is_some() && crew.guard.spec().masks() {
            let masks = self.masks(crew, participant, &sight.observation.legal);
            reason = masks.stop_reason().unwrap_or(reason);
            self.stage.mask(participant, &masks, &mut sight);
        }
        let Sight { name, observation, mut masked } = sight;
        if let Some(handoff) = to_choose {
            masked.sort_by_key(|(action, guard)| (*guard, *action));
            for of_guard in masked.chunk_by(|a, b| a.1 == b.1) {
                let actions = of_guard.iter().map(|(action, _)| *action).collect();
                self.notes.push_back(Record::Masked { handoff, guard: of_guard[0].1.to_owned(), actions });
            }
            if observation.legal.is_empty() {
                return Err(reason);
            }
        }
        let signature = observation.signature;
        let has_room = crew.names.len() < NAMES_MAX;
        if let Vacancy::Vacant(vacant) = crew.names.entry(signature)
            && has_room
        {
            self.notes.push_back(Record::Named { signature, name: name.clone() });
            vacant.insert(name);
        }
        Ok(observation)
    }

    /// What guards keep from a decision.
    fn masks(&self, crew: &Crew, participant: AgentId, legal: &ActionSet) -> Masks {
        if self.script.is_empty() {
            let candidates = self.stage.callees(participant, legal);
            let from = self.stage.giver(participant);
            return self.guard.before_decision(&crew.guard, from, &candidates, (crew.clock)());
        }
        let mut recorded: Vec<(ActionId, Guard)> = vec![];
        for record in &self.script {
            let Record::Masked { guard, actions, .. } = record else { break };
            recorded
                .extend(Guard::of_word(guard).into_iter().flat_map(|g| actions.iter().map(move |a| (*a, g))));
        }
        recorded.sort();
        let of_agent = |(action, guard)| Some((self.stage.callee(participant, action)?, guard));
        Masks::recall(recorded.into_iter().filter_map(of_agent))
    }

    /// A call of an earlier process took so long.
    pub(super) fn lasted(&mut self, ms: u64) {
        self.guard.lasted(ms);
    }

    /// The name of a signature has been recorded already.
    pub(super) fn is_named(&mut self, named: Signature) {
        let is_named = |note: &Record| matches!(note, Record::Named { signature, .. } if *signature == named);
        self.notes.retain(|note| !is_named(note));
    }

    fn tell(&mut self, crew: &mut Crew, agent: AgentId, event: Event) -> Result<(), LearnError> {
        let i = agent.0 as usize;
        let mut effects = vec![];
        crew.participants[i].apply(event, &mut crew.rngs[i], &mut effects).map_err(|source| {
            LearnError::Protocol {
                agent: self.stage.participant_name(agent).to_owned(),
                episode: self.number,
                source,
            }
        })?;
        self.todo.extend(effects.into_iter().map(|effect| (agent, effect)));
        Ok(())
    }
}
