//! A task while agents of this node are at it.

use futures_util::FutureExt;
use relevo::{
    agent::Outcome,
    episode::{Episode, Step},
    guard::StopReason,
};
use relevo_core::ids::{AgentId, HandoffId};

use super::{Act, Due, Machine, MachineError, Turn};
use crate::{
    ids::{PeerId, TaskId},
    store::{Closing, TaskRow, TaskState},
};

/// A task while agents of this node are at it.
pub(super) struct Stay<'s> {
    /// Whose task it is.
    pub(super) peer: PeerId,
    pub(super) episode: Episode<'s>,
}

impl<'s> Machine<'s> {
    /// Let a task go on until it waits for a call or a person, or leaves, or ends here. `row` is to be kept by the caller.
    pub(super) fn advance(
        &mut self,
        turn: &mut Turn<'_, 's>,
        row: &mut TaskRow,
        mut stay: Stay<'s>,
    ) -> Result<(), MachineError> {
        loop {
            match stay.episode.step(&mut self.crew)? {
                Step::Record(agent, record) => self.record(agent, record),
                Step::Done => {}
                Step::Value(message) => row.value = Some(message.value.get()),
                Step::Call(mut call) => {
                    // Whoever only decides has done its work at once, and nobody outside has seen it.
                    if !self.stage.leaves_process(call.agent)
                        && let Some(outcome) = (&mut call.outcome).now_or_never()
                    {
                        stay.episode.called(call.agent, outcome, 0);
                        continue;
                    }
                    turn.acts.push(Act::Call(row.id, call));
                    return self.wait(row, stay);
                }
                Step::Ask(ask) => {
                    turn.acts.push(Act::Ask(row.id, ask));
                    return self.wait(row, stay);
                }
                Step::Away(handoff) => {
                    let artifact = stay.episode.scene().artifact().clone();
                    self.hand_over(turn, row, handoff, artifact)?;
                }
                Step::Finished(handoff) => {
                    row.closing = Some(Closing::Here(handoff));
                    row.result = Some(stay.episode.scene().result());
                    self.over(turn, row, TaskState::Completed, None);
                    let at = turn.now_ms + self.spec.outcome_after_ms;
                    self.due.insert((at, Due::Outcome(row.peer, row.id)));
                }
                Step::Judge => return Err(MachineError::Unfit("a node has no judge".into())),
                Step::Ended => {
                    row.stay = None;
                    if row.state == TaskState::Working && row.closing.is_none() {
                        let stop = stay.episode.end().stop;
                        let state = match stop {
                            // Somebody who took it over has come to something, of which nobody learns.
                            StopReason::HandedOff => TaskState::Completed,
                            _ => TaskState::Failed,
                        };
                        row.result = state.eq(&TaskState::Completed).then(|| stay.episode.scene().result());
                        self.over(turn, row, state, Some(stop.word()));
                    }
                    return Ok(());
                }
            }
        }
    }

    fn wait(&mut self, row: &mut TaskRow, stay: Stay<'s>) -> Result<(), MachineError> {
        row.stay = Some(stay.episode.checkpoint()?);
        self.stays.insert(row.id, stay);
        Ok(())
    }

    /// A call has come back. One that nobody waits for any more is dropped: a call is made again after a restart, and then
    /// both may come back.
    pub(super) fn returned(
        &mut self,
        turn: &mut Turn<'_, 's>,
        (task, handoff): (TaskId, HandoffId),
        (agent, outcome, ms): (AgentId, Outcome, u64),
    ) -> Result<(), MachineError> {
        let is_awaited = |stay: &Stay<'_>| stay.episode.at().is_some_and(|(_, at)| at == handoff);
        if !self.stays.get(&task).is_some_and(is_awaited) {
            return Ok(());
        }
        let Some(mut stay) = self.stays.remove(&task) else { return Ok(()) };
        stay.episode.called(agent, outcome, ms);
        self.go_on(turn, task, stay)
    }

    /// A person has answered.
    pub(super) fn answered(
        &mut self,
        turn: &mut Turn<'_, 's>,
        task: TaskId,
        granted: bool,
        by: String,
    ) -> Result<(), MachineError> {
        let Some(mut stay) = self.stays.remove(&task) else { return Ok(()) };
        stay.episode.answered(&mut self.crew, granted, by);
        self.go_on(turn, task, stay)
    }

    fn go_on(&mut self, turn: &mut Turn<'_, 's>, task: TaskId, stay: Stay<'s>) -> Result<(), MachineError> {
        let peer = stay.peer;
        let Some(mut row) = self.store.task(peer, task)? else {
            return Err(MachineError::Unfit(format!("task {task} is worked on and not in the store")));
        };
        self.advance(turn, &mut row, stay)?;
        self.put_task(turn, &row)
    }

    /// A task is over, as far as its owner is concerned.
    pub(super) fn over(
        &mut self,
        turn: &mut Turn<'_, 's>,
        row: &mut TaskRow,
        state: TaskState,
        why: Option<&str>,
    ) {
        turn.acts.push(Act::Ended(row.peer, row.id));
        row.state = state;
        row.changed_ms = turn.now_ms;
        row.why = why.map(str::to_owned);
        row.stay = None;
        self.stays.remove(&row.id);
        self.due.remove(&(row.deadline_ms, Due::Deadline(row.peer, row.id)));
        if let Some(open) = self.open.get_mut(&row.peer) {
            *open = open.saturating_sub(1);
        }
    }
}
