//! A task is broken off: its time is over, or its owner calls it off.

use relevo_core::{ids::AgentId, protocol::Event, record::Record};

use super::{Act, Due, Machine, MachineError, Turn};
use crate::{
    door::{Answer, Refusal},
    ids::{PeerId, TaskId},
    store::{Closing, MadeState, TaskRow, TaskState},
};

impl<'s> Machine<'s> {
    /// A peer calls a task off.
    pub(super) fn call_off(
        &mut self,
        turn: &mut Turn<'_, 's>,
        peer: PeerId,
        id: TaskId,
    ) -> Result<Result<Answer, Refusal>, MachineError> {
        let Some(mut row) = self.store.task(peer, id)? else {
            return Ok(Err(Refusal::final_("unknown-task", "there is no such task")));
        };
        if row.state.is_terminal() {
            return Ok(Err(Refusal::final_("not-cancelable", "the task has ended")));
        }
        self.count(peer, "canceled");
        self.break_off(turn, &mut row, TaskState::Canceled, "canceled")?;
        Ok(Ok(Answer::Task(Box::new(row))))
    }

    /// The time of a task is over.
    pub(super) fn run_out(
        &mut self,
        turn: &mut Turn<'_, 's>,
        peer: PeerId,
        id: TaskId,
    ) -> Result<(), MachineError> {
        let Some(mut row) = self.store.task(peer, id)?.filter(|row| !row.state.is_terminal()) else {
            return Ok(());
        };
        self.count(peer, "deadline");
        self.break_off(turn, &mut row, TaskState::Failed, "deadline")
    }

    /// What is under way for a task is given up: nothing is learned from it, and whoever is at it is told.
    fn break_off(
        &mut self,
        turn: &mut Turn<'_, 's>,
        row: &mut TaskRow,
        state: TaskState,
        why: &'static str,
    ) -> Result<(), MachineError> {
        if let Some(stay) = self.stays.remove(&row.id) {
            let at = stay.episode.at();
            let effects = stay.episode.give_up(&mut self.crew)?;
            self.keep(effects)?;
            if let Some((_, handoff)) = at {
                // Another agent of this node may wait for its value.
                if (handoff.from.0 as usize) < self.crew.participants.len() {
                    self.tell(handoff.from, Event::Expired { handoff })?;
                }
                self.record(AgentId::ORIGIN, Record::Censored { handoff, why: why.to_owned() });
            }
            turn.acts.push(Act::Drop(row.id));
        }
        if let Some(Closing::There(wire)) = row.closing
            && let Some(mut made) = self.store.made(wire)?
        {
            if !made.settled {
                made.settled = true;
                self.count(made.peer, "censored");
                self.censor(made.handoff.from, made.handoff, why)?;
            }
            made.cancels = made.state == MadeState::Taken && made.remote.is_some();
            (made.state, made.artifact) = (MadeState::Ended, None);
            self.put_made(&made)?;
            self.due.insert((turn.now_ms, Due::Carry(wire)));
        }
        row.closing = None;
        self.over(turn, row, state, Some(why));
        self.put_task(turn, row)
    }
}
