//! How good a finished task was comes in, once, and goes to the agent that finished it.

use relevo_core::{protocol::Event, units::Return};

use super::{Due, Machine, MachineError, Turn};
use crate::{
    door::{Answer, Refusal},
    ids::{PeerId, TaskId},
    store::{Closing, TaskState},
    wire::OutcomeNote,
};

impl<'s> Machine<'s> {
    /// A peer tells how good a task was that it handed over. The first that it says counts.
    pub(super) fn hear(
        &mut self,
        turn: &mut Turn<'_, 's>,
        peer: PeerId,
        note: OutcomeNote,
    ) -> Result<Result<Answer, Refusal>, MachineError> {
        let id = TaskId::of(self.peer_name(peer), &note.handoff.to_string());
        let Some(mut row) = self.store.task(peer, id)? else {
            return Ok(Err(Refusal::final_("unknown-handoff", "you handed nothing over under this id")));
        };
        if row.state == TaskState::Working {
            return Ok(Err(Refusal::transient("not-ended", "the task has not ended: tell its outcome then")));
        }
        if let Some(first) = row.outcome {
            if first != note.outcome {
                self.count(peer, "conflicting-outcome");
            }
            return Ok(Ok(Answer::Noted));
        }
        self.count(peer, "outcomes");
        if note.is_clamped {
            self.count(peer, "clamped-outcome");
        }
        row.outcome = Some(note.outcome);
        match row.closing {
            // y = R + success * outcome
            Some(Closing::Here(handoff)) => {
                let earned = self.stage.team().reward.success * note.outcome;
                let reward = Return::new(earned).map_err(|e| MachineError::Unfit(e.to_string()))?;
                self.tell(handoff.from, Event::Finished { handoff, reward })?;
                let at = row.changed_ms + self.spec.outcome_after_ms;
                self.due.remove(&(at, Due::Outcome(peer, id)));
            }
            Some(Closing::There(wire)) => {
                if let Some(mut made) = self.store.made(wire)? {
                    made.outcome = Some(note.outcome);
                    made.telling = Some(turn.ids.next(turn.now_ms));
                    self.put_made(&made)?;
                    self.due.insert((turn.now_ms, Due::Carry(wire)));
                }
            }
            // It was broken off, and that has been learned from.
            None => {}
        }
        self.put_task(turn, &row)?;
        Ok(Ok(Answer::Noted))
    }

    /// An outcome has not come in its time: nothing is learned from how the task ended.
    pub(super) fn unjudged(
        &mut self,
        turn: &mut Turn<'_, 's>,
        peer: PeerId,
        id: TaskId,
    ) -> Result<(), MachineError> {
        let Some(mut row) = self.store.task(peer, id)?.filter(|row| row.outcome.is_none()) else {
            return Ok(());
        };
        if let Some(Closing::Here(handoff)) = row.closing.take() {
            self.count(peer, "no-outcome");
            self.censor(handoff.from, handoff, "no-outcome")?;
            self.put_task(turn, &row)?;
        }
        Ok(())
    }
}
