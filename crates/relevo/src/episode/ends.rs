//! How a task ends, what that earns, and who is told.

use relevo_core::{
    protocol::{Event, Next},
    units::{Confidence, Return, Tau, Usage},
};

use super::{Calling, Crew, Ending, Episode, EpisodeError, Judgement, Step};
use crate::{guard::StopReason, team::CreditSection};

impl<'s> Episode<'s> {
    /// The task stops in an operation. What a coordinator has come to is judged, and so is what somebody concluded; what
    /// was broken off elsewhere has nothing to show for it.
    pub(super) fn stopped(
        &mut self,
        crew: &mut Crew,
        calling: &Calling,
        reason: StopReason,
        own: f64,
        usage: Usage,
    ) -> Result<(), EpisodeError> {
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
    pub(super) fn end_with(&mut self, crew: &mut Crew, ending: Ending) -> Result<(), EpisodeError> {
        self.ending = Some(ending);
        if self.stage.judge().is_some() {
            return Ok(());
        }
        let quality = self.scene.quality();
        self.conclude(crew, quality.map(|quality| Judgement { quality, confidence: Confidence::FULL }))
    }

    /// The task ends as it was judged. Without a judgement nothing is learned from how it ended.
    pub(super) fn conclude(
        &mut self,
        crew: &mut Crew,
        judgement: Option<Judgement>,
    ) -> Result<(), EpisodeError> {
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

    /// Nothing is left to do: receivers re-compute their local models before their predecessors, so that what they
    /// are told is what was re-computed.
    pub(super) fn after(&mut self, crew: &mut Crew) -> Result<Step<'s>, EpisodeError> {
        if !self.stage.team().learner.extensions.local_model {
            return Ok(Step::Ended);
        }
        match self.replans.get_or_insert_with(|| self.end.path.clone()).pop() {
            None => Ok(Step::Ended),
            Some(agent) => self.tell(crew, agent, Event::Replan).map(|()| Step::Done),
        }
    }

    /// What a concluding agent is told: under trajectory credit the return of the whole task.
    pub(super) fn closing(&self, reward: f64) -> Result<Return, EpisodeError> {
        let trajectory = matches!(self.stage.team().learner.credit, CreditSection::Trajectory);
        self.finite(if trajectory { self.end.episode_return } else { reward })
    }

    pub(super) fn earn(&mut self, reward: f64) {
        self.end.episode_return += self.discount * reward;
    }

    pub(super) fn finite(&self, reward: f64) -> Result<Return, EpisodeError> {
        Return::new(reward).map_err(|source| EpisodeError::Unit { episode: self.number, source })
    }
}
