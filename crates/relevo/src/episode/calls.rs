//! Calls: what the guards let through, whom a person is asked about, and what came back.

use relevo_core::{
    ids::{AgentId, HandoffId},
    learner::{DecisionPoint, Regime},
    protocol::{Effect, Event, Next},
    record::Record,
    units::{Tau, Usage},
};

use super::{Ask, Call, Calling, Crew, Episode, EpisodeError, Pass, Step};
use crate::{
    agent::{FailureKind, Outcome},
    approval::{Asked, question_id},
    guard::{Cost, Question, Said, StopReason, Verdict, Why},
    stage::After,
};

impl<'s> Episode<'s> {
    /// Make a call, as far as the guards let it.
    pub(super) fn call(&mut self, crew: &mut Crew, mut calling: Calling) -> Result<Step<'s>, EpisodeError> {
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

    /// A guard ends the task before a call.
    fn stop(
        &mut self,
        crew: &mut Crew,
        calling: &Calling,
        reason: StopReason,
    ) -> Result<Step<'s>, EpisodeError> {
        self.stopped(crew, calling, reason, 0.0, Usage::default()).map(|()| Step::Done)
    }

    /// An operation is over: its call has come back, or it needed none.
    pub(super) fn came_back(
        &mut self,
        crew: &mut Crew,
        returned: Option<(AgentId, Outcome, u64)>,
    ) -> Result<(), EpisodeError> {
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

    /// A person has answered the question that the episode waits for.
    ///
    /// # Panics
    ///
    /// If it waits for none: [`Step::Ask`] was not the last step.
    pub fn answered(&mut self, crew: &mut Crew, granted: bool, by: String) {
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

    /// The task is given up while it waits: its call or question is called off, and nothing is learned from it. The records
    /// that come of it are returned; the call itself ends when [`Call::outcome`] is dropped.
    pub fn give_up(mut self, crew: &mut Crew) -> Result<Vec<(AgentId, Effect)>, EpisodeError> {
        let Some(Calling { participant, handoff, pass, .. }) = self.calling.take() else {
            return Ok(vec![]);
        };
        if let Pass::Permitted(permit) = pass {
            let ended = Err(FailureKind::Cancelled);
            self.guard.after_call(&mut crew.guard, permit, Cost::default(), ended);
        }
        crew.tell(self.stage, participant, Event::Expired { handoff })
    }
}
