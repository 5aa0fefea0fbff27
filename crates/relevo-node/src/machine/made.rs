//! Work goes out: kept, carried under one id until it is taken, looked after until it is over.

use relevo::artifact::Artifact;
use relevo_core::{
    ids::AgentId,
    protocol::{Event, Handoff, ValueMessage},
    record::{Record, Way},
    units::{Return, Value},
};

use super::{Act, Due, Machine, MachineError, Turn};
use crate::{
    ids::{PeerId, WireId},
    store::{Closing, MadeRow, MadeState, TaskRow, TaskState},
    transport::{Load, Packet, Report},
    wire::{self, Progress, Standing},
};

/// What a hop keeps of the time that its task has, in milliseconds: every chain of handoffs ends.
pub(super) const HOP_MS: u64 = 10;

/// The time before a packet that could not be carried is carried again, doubled each time, in milliseconds.
const AGAIN_MS: (u64, u64) = (200, 30_000);

/// The shortest time between two looks at a task of a peer, in milliseconds.
const LOOK_MS_MIN: u64 = 20;

/// Looks at tasks of peers in a millisecond, at most, however many there are.
const LOOKS_A_MS: u64 = 5;

/// What is on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Flight {
    Card,
    Handoff,
    Look,
    Outcome,
    Cancel,
}

impl<'s> Machine<'s> {
    /// An agent of this node hands a task to one of a peer.
    pub(super) fn hand_over(
        &mut self,
        turn: &mut Turn<'_, 's>,
        row: &mut TaskRow,
        handoff: Handoff,
        artifact: Artifact,
    ) -> Result<(), MachineError> {
        let (peer, _) = self.remote(handoff.to)?;
        let mut artifact = artifact;
        if let Some(may_leave) = &self.peers[peer.0 as usize].spec.facts {
            artifact.facts.retain(|name, _| may_leave.contains(name));
        }
        if let Err(refused) = wire::crosses(&artifact, &self.spec.wire) {
            // The task ends in this handoff, which nobody could take.
            self.tell(handoff.id.from, Event::Finished { handoff: handoff.id, reward: Return::ZERO })?;
            self.over(turn, row, TaskState::Failed, Some(refused.word));
            return Ok(());
        }
        let wire = turn.ids.next(turn.now_ms);
        let made = MadeRow {
            wire,
            peer,
            agent: handoff.to,
            task: (row.peer, row.id),
            handoff: handoff.id,
            deadline_ms: row.deadline_ms.saturating_sub(HOP_MS),
            state: MadeState::Sending,
            artifact: Some(artifact),
            passes_value: self.terms.get(&handoff.to).map(Option::is_some),
            remote: None,
            value: None,
            settled: false,
            outcome: None,
            telling: None,
            cancels: false,
        };
        row.closing = Some(Closing::There(wire));
        let to = self.peer_name(peer).to_owned();
        let (handoff, way) = (handoff.id, Way::Out);
        self.record(AgentId::ORIGIN, Record::Crossed { handoff, wire: wire.bytes(), peer: to, way });
        self.count(peer, "handed");
        self.put_made(&made)?;
        self.due.insert((turn.now_ms, Due::Carry(wire)));
        Ok(())
    }

    /// Whose an agent is, and what it is called there.
    fn remote(&self, agent: AgentId) -> Result<(PeerId, &'s str), MachineError> {
        let remote = self.stage.remote(agent);
        let found = remote.and_then(|(peer, name)| {
            let number = self.peers.iter().position(|known| known.spec.name == peer)?;
            Some((PeerId(number as u32), name))
        });
        found.ok_or_else(|| {
            let name = self.stage.participant_name(agent);
            MachineError::Unfit(format!("agent {name:?} is of a peer that this node does not know"))
        })
    }

    /// Send what is next to be said of a handoff, if anything is and nothing is on its way.
    pub(super) fn carry(&mut self, turn: &mut Turn<'_, 's>, wire: WireId) -> Result<(), MachineError> {
        if self.flying.contains_key(&wire) {
            return Ok(());
        }
        let Some(row) = self.store.made(wire)? else { return Ok(()) };
        let terms = self.terms.get(&row.agent).copied();
        let (flight, load) = match (&row, row.state) {
            (MadeRow { telling: Some(message), outcome: Some(outcome), .. }, _) => {
                let request = wire::outcome(message, &wire, row.remote.as_deref(), *outcome);
                (Flight::Outcome, Load::Outcome { request: Box::new(request) })
            }
            (MadeRow { cancels: true, remote: Some(task), .. }, _) => {
                (Flight::Cancel, Load::Cancel { task: task.clone() })
            }
            (_, MadeState::Sending) if row.passes_value.is_none() && terms.is_none() => {
                (Flight::Card, Load::Card)
            }
            (MadeRow { artifact: Some(artifact), .. }, MadeState::Sending) => {
                let passes_value = row.passes_value.unwrap_or(terms.flatten().is_some());
                let left =
                    row.deadline_ms.saturating_sub(turn.now_ms).clamp(1, u64::from(u32::MAX >> 1)) as u32;
                let request = wire::handoff(&wire, passes_value.then_some(left), &wire.to_string(), artifact);
                if row.passes_value.is_none() {
                    self.put_made(&MadeRow { passes_value: Some(passes_value), ..row.clone() })?;
                }
                (Flight::Handoff, Load::Handoff { request: Box::new(request), passes_value })
            }
            (MadeRow { remote: Some(task), .. }, MadeState::Taken) => {
                (Flight::Look, Load::Look { task: task.clone() })
            }
            _ => {
                self.failed.remove(&wire);
                return Ok(());
            }
        };
        let (peer, agent) = self.remote(row.agent)?;
        self.flying.insert(wire, flight);
        turn.acts.push(Act::Carry(Packet { wire, peer, agent: agent.to_owned(), load }));
        Ok(())
    }

    /// A packet has come to something.
    pub(super) fn reported(
        &mut self,
        turn: &mut Turn<'_, 's>,
        wire: WireId,
        report: Report,
    ) -> Result<(), MachineError> {
        let Some(flight) = self.flying.remove(&wire) else { return Ok(()) };
        let Some(mut row) = self.store.made(wire)? else { return Ok(()) };
        let kept = row.clone();
        let answered = !matches!(report, Report::Later(_) | Report::Unreachable(_) | Report::Garbage(_));
        if answered {
            self.failed.remove(&wire);
        }
        let mut next = turn.now_ms;
        match (flight, report) {
            // Who declares it wrongly counts as one that passes none.
            (_, Report::Card(declared)) => {
                if let Err(word) = declared {
                    self.count(row.peer, word);
                }
                self.terms.insert(row.agent, declared.unwrap_or_default());
            }
            (_, Report::Later(ms)) => {
                self.count(row.peer, "put-off");
                next += ms.unwrap_or(0).max(self.pause(wire)).min(AGAIN_MS.1);
            }
            (_, Report::Unreachable(_)) => {
                self.count(row.peer, "unreachable");
                next += self.pause(wire);
            }
            (_, Report::Garbage(word)) => {
                self.count(row.peer, &word);
                next += self.pause(wire);
            }
            // After a restart the report may be on what was said before it.
            (Flight::Outcome, Report::Noted | Report::Refused(_)) => row.telling = None,
            (Flight::Cancel, Report::Standing(_) | Report::Refused(_)) => row.cancels = false,
            (_, Report::Standing(standing)) => {
                self.stands(turn, &mut row, standing)?;
                // The longer it takes, and the more there are, the less often it is looked at.
                let age = turn.now_ms.saturating_sub(wire.made_ms());
                let crowd = self.open.values().sum::<usize>() as u64 / LOOKS_A_MS;
                next += (age / 4).clamp(LOOK_MS_MIN, self.spec.poll_ms.max(LOOK_MS_MIN)).max(crowd);
            }
            (_, Report::Refused(word)) => {
                self.count(row.peer, &format!("refused-us:{word}"));
                self.terms.remove(&row.agent);
                self.came_to_nothing(turn, &mut row, "refused")?;
            }
            (_, Report::Noted) => {
                self.count(row.peer, "bad-answer");
                next += self.pause(wire);
            }
        }
        // Most looks find that nothing has changed: they cost no commit.
        if row != kept {
            self.put_made(&row)?;
        }
        if row.is_open() {
            self.due.insert((next, Due::Carry(wire)));
        } else {
            self.failed.remove(&wire);
        }
        Ok(())
    }

    /// How long to wait after another failure; longer each time, and not the same for all.
    fn pause(&mut self, wire: WireId) -> u64 {
        let failures = self.failed.entry(wire).or_default();
        let pause = (AGAIN_MS.0 << (*failures).min(16)).min(AGAIN_MS.1);
        let spread = u64::from(wire.bytes()[15]) ^ u64::from(*failures);
        *failures += 1;
        pause + pause * (spread % 64) / 256
    }

    /// A peer tells how a task stands: its value is learned from, once; its end is the end of the task that it was for.
    fn stands(
        &mut self,
        turn: &mut Turn<'_, 's>,
        row: &mut MadeRow,
        standing: Standing,
    ) -> Result<(), MachineError> {
        let Standing { task, progress, value } = standing;
        if row.remote.is_none() {
            row.remote = task;
        }
        match value {
            Some(Ok(value)) if row.passes_value == Some(true) => self.valued(row, value)?,
            Some(Err(refused)) => self.count(row.peer, refused.word),
            _ => {}
        }
        if row.state == MadeState::Ended {
            return Ok(());
        }
        (row.state, row.artifact) = (MadeState::Taken, None);
        match progress {
            Progress::Working => Ok(()),
            Progress::Completed(artifact) => self.completed(turn, row, artifact),
            Progress::Ended(why) => {
                if !["failed", "canceled", "rejected"].contains(&why) {
                    self.count(row.peer, why);
                }
                self.came_to_nothing(turn, row, why)
            }
            Progress::Asks => {
                row.cancels = true;
                self.came_to_nothing(turn, row, "refused")
            }
        }
    }

    /// V has come back. The first one counts.
    fn valued(&mut self, row: &mut MadeRow, value: f64) -> Result<(), MachineError> {
        if let Some(first) = row.value {
            if first != value {
                self.count(row.peer, "conflicting-value");
            }
            return Ok(());
        }
        row.value = Some(value);
        let peer = &mut self.peers[row.peer.0 as usize];
        peer.counters.saw(value);
        if row.settled {
            self.count(row.peer, "late-value");
            return Ok(());
        }
        let bounds = self.terms.get(&row.agent).copied().flatten().map(|terms| terms.bounds);
        let value = Value::new(value).map_err(|e| MachineError::Unfit(e.to_string()))?;
        let clamped = bounds.map_or(value, |bounds| bounds.clamp(value));
        if clamped != value {
            self.count(row.peer, "clamped-value");
        }
        self.count(row.peer, "valued");
        row.settled = true;
        self.tell(row.handoff.from, Event::Valued(ValueMessage::new(row.handoff, clamped)))
    }

    /// A result has come back.
    fn completed(
        &mut self,
        turn: &mut Turn<'_, 's>,
        row: &mut MadeRow,
        artifact: Artifact,
    ) -> Result<(), MachineError> {
        row.state = MadeState::Ended;
        let (peer, id) = row.task;
        let is_leaf = row.passes_value != Some(true);
        if !is_leaf && !row.settled {
            self.count(row.peer, "no-value");
            row.settled = true;
            self.censor(row.handoff.from, row.handoff, "no-value")?;
        }
        let Some(mut task) = self.store.task(peer, id)?.filter(|task| !task.state.is_terminal()) else {
            return Ok(());
        };
        task.result = Some(artifact);
        self.over(turn, &mut task, TaskState::Completed, None);
        if is_leaf && !row.settled {
            // Behind a leaf nobody learns: the agent that handed to it is the one that finished.
            row.settled = true;
            task.closing = Some(Closing::Here(row.handoff));
            self.due.insert((turn.now_ms + self.spec.outcome_after_ms, Due::Outcome(peer, id)));
        }
        self.put_task(turn, &task)
    }

    /// Nothing will come of it: the task has ended in this handoff, which earned nothing but its price.
    fn came_to_nothing(
        &mut self,
        turn: &mut Turn<'_, 's>,
        row: &mut MadeRow,
        why: &'static str,
    ) -> Result<(), MachineError> {
        row.state = MadeState::Ended;
        row.artifact = None;
        if !row.settled {
            row.settled = true;
            match why {
                "canceled" => self.censor(row.handoff.from, row.handoff, why)?,
                _ => {
                    let handoff = row.handoff;
                    self.tell(row.handoff.from, Event::Finished { handoff, reward: Return::ZERO })?;
                }
            }
        }
        let (peer, id) = row.task;
        if let Some(mut task) = self.store.task(peer, id)?.filter(|task| !task.state.is_terminal()) {
            self.over(turn, &mut task, TaskState::Failed, Some(why));
            self.put_task(turn, &task)?;
        }
        Ok(())
    }
}
