//! One task on its way: effects are carried out one after the other, until a call is needed or nothing is left to do.
//! Played by [`super::Session`] as it happens, and by [`super::resume`] once more from the ledger.

use std::collections::{VecDeque, btree_map::Entry as Vacancy};

use futures_util::future::BoxFuture;
use relevo_core::{
    ids::{AgentId, EpisodeId, HandoffId, OperationId},
    learner::{DecisionPoint, Regime},
    observation::{Observation, Signature},
    protocol::{Effect, Event, Handoff, Next},
    record::Record,
    units::{Return, Tau},
};

use super::{Crew, EpisodeEnd, LearnError};
use crate::{
    agent::Outcome,
    stage::{After, Scene, Sight, Stage},
    team::CreditSection,
};

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

/// What came of one step of an episode.
pub(super) enum Step<'s> {
    /// A record to be kept before the next step.
    Record(AgentId, Record),
    /// An effect was carried out.
    Done,
    /// Nothing goes on before this call has come back, and [`Episode::called`] was told of it.
    Call(Call<'s>),
    /// The task has ended.
    Ended,
}

/// One task being played.
pub(super) struct Episode<'s> {
    stage: &'s Stage,
    scene: Scene<'s>,
    number: u64,
    /// Effects to carry out, with the participant that wants them.
    todo: VecDeque<(AgentId, Effect)>,
    /// The call that has not come back.
    calling: Option<(AgentId, Effect)>,
    end: EpisodeEnd,
    /// gamma^(primitive steps so far).
    discount: f64,
    /// Who is still to re-compute its local model, once the task has ended.
    replans: Option<Vec<AgentId>>,
}

impl<'s> Episode<'s> {
    /// A task that enters the team.
    pub(super) fn begin(
        stage: &'s Stage,
        crew: &mut Crew,
        scene: Scene<'s>,
        number: u64,
    ) -> Result<Self, LearnError> {
        let end = EpisodeEnd {
            episode: number,
            episode_return: 0.0,
            handoffs: 0,
            stop: "ended",
            path: vec![],
            greedy: true,
        };
        let todo = VecDeque::new();
        let mut episode =
            Episode { stage, scene, number, todo, calling: None, end, discount: 1.0, replans: None };
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
        self.scene.totals().calls
    }

    /// What is being handed over.
    pub(super) fn scene(&self) -> &Scene<'s> {
        &self.scene
    }

    /// Carry out the next effect.
    pub(super) fn step(&mut self, crew: &mut Crew) -> Result<Step<'s>, LearnError> {
        // A call that was never begun is asked for again.
        let next = self.calling.take().or_else(|| self.todo.pop_front());
        let Some((agent, effect)) = next else { return self.after(crew) };
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
                self.calling = Some((agent, effect));
                match self.scene.call(agent, operation, handoff) {
                    Some((agent, outcome)) => {
                        return Ok(Step::Call(Call { handoff, agent, operation, outcome }));
                    }
                    None => self.called(crew, None)?,
                }
            }
            Effect::Send(handoff) => {
                self.earn(self.stage.team().reward.handoff);
                self.discount *= self.stage.team().learner.discount;
                if self.end.handoffs >= self.stage.team().run.max_handoffs {
                    // A deadline is an end with nothing to show for it, not something to bootstrap from.
                    self.end.stop = "max-handoffs";
                    let reward = self.closing(0.0)?;
                    self.tell(crew, agent, Event::Finished { handoff: handoff.id, reward })?;
                } else {
                    self.end.handoffs += 1;
                    self.deliver(crew, handoff)?;
                }
            }
            Effect::Finish { handoff } => {
                let reward = self.scene.conclude();
                self.earn(reward);
                self.end.stop = "finished";
                let reward = self.closing(reward)?;
                self.tell(crew, agent, Event::Finished { handoff, reward })?;
            }
            Effect::Ask { to, handle } => self.tell(crew, to, Event::Asked { from: agent, handle })?,
            Effect::Answer { to, handle, value } => {
                self.tell(crew, to, Event::Answered { from: agent, handle, value })?;
            }
        }
        Ok(Step::Done)
    }

    /// The call that the episode waited for has come back.
    pub(super) fn called(
        &mut self,
        crew: &mut Crew,
        outcome: Option<(AgentId, Outcome)>,
    ) -> Result<(), LearnError> {
        let Some((agent, Effect::Perform { handoff, operation, .. })) = self.calling.take() else {
            unreachable!("an outcome is given to an episode that waits for it");
        };
        if let (Some((performer, _)), Some(_)) = (&outcome, self.stage.coordination()) {
            self.end.path.push(*performer);
        }
        let performance = self.scene.take(agent, operation, outcome.map(|(_, outcome)| outcome));
        self.earn(performance.reward);
        // Chosen before, a handover and the end belong to the same primitive step as the operation.
        let decided_before = self.stage.regime(agent) == Regime::PreConfigured(DecisionPoint::Before);
        let (mut reward, mut next) = (performance.reward, Next::Committed);
        if !decided_before {
            next = match self.scene.after(agent, handoff.from) {
                After::Operate(sight) => Next::Operate(self.look(crew, sight)),
                After::HandOver(sight) if sight.observation.legal.is_empty() => {
                    self.end.stop = "no-successor";
                    Next::Ended
                }
                After::HandOver(sight) => Next::HandOver(self.look(crew, sight)),
                After::Concluded(stop) => {
                    let judged = self.scene.conclude();
                    self.earn(judged);
                    reward += judged;
                    self.end.stop = stop;
                    Next::Ended
                }
            };
            self.discount *= self.stage.team().learner.discount;
        }
        let reward = match next {
            Next::Ended => self.closing(reward)?,
            _ => self.finite(reward)?,
        };
        let usage = performance.usage;
        self.tell(crew, agent, Event::Performed { handoff, reward, tau: Tau::ONE, usage, next })
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
        let decides_now = self.stage.regime(to) == Regime::PreConfigured(DecisionPoint::Before);
        if decides_now && sight.observation.legal.is_empty() {
            self.end.stop = "no-successor";
            if sender != AgentId::ORIGIN {
                let reward = self.closing(0.0)?;
                self.tell(crew, sender, Event::Finished { handoff: handoff.id, reward })?;
            }
            return Ok(());
        }
        if self.stage.coordination().is_none() {
            self.end.path.push(to);
        }
        let observation = self.look(crew, sight);
        self.tell(crew, to, Event::Received { handoff, observation })
    }

    /// A participant looks at something: its name is recorded when it is first met.
    fn look(&mut self, crew: &mut Crew, sight: Sight) -> Observation {
        let Sight { name, observation, .. } = sight;
        let signature = observation.signature;
        if let Vacancy::Vacant(vacant) = crew.names.entry(signature) {
            let record = Record::Named { signature, name: name.clone() };
            self.todo.push_back((AgentId::ORIGIN, Effect::Record(record)));
            vacant.insert(name);
        }
        observation
    }

    /// The name of a signature has been recorded already.
    pub(super) fn is_named(&mut self, named: Signature) {
        self.todo.retain(|(_, effect)| {
            !matches!(effect, Effect::Record(Record::Named { signature, .. }) if *signature == named)
        });
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
