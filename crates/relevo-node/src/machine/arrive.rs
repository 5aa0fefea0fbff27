//! Work comes in.

use relevo::{artifact::Artifact, episode::Episode, tasks::Task};
use relevo_core::{
    ids::AgentId,
    protocol::Handoff,
    record::{Record, Way},
};

use super::{Due, Machine, MachineError, Stay, Turn};
use crate::{
    door::{Answer, Refusal},
    ids::{PeerId, TaskId, WireId},
    store::{TaskRow, TaskState},
    wire::Arrival,
};

impl<'s> Machine<'s> {
    /// Take on work that a peer hands to an agent. The same message again is answered as the first was, and nothing is
    /// done twice.
    pub(super) fn arrive(
        &mut self,
        turn: &mut Turn<'_, 's>,
        peer: PeerId,
        agent: &str,
        arrival: Arrival,
    ) -> Result<Result<Answer, Refusal>, MachineError> {
        let id = TaskId::of(self.peer_name(peer), &arrival.message);
        if let Some(row) = self.store.task(peer, id)? {
            let is_same = row.digest == arrival.digest;
            if is_same {
                self.count(peer, "handed-again");
            }
            return Ok(is_same.then(|| Answer::Task(Box::new(row))).ok_or_else(|| {
                Refusal::final_("id-reused", "another message has this id: give every message its own")
            }));
        }
        let to = match self.place_for(peer, agent) {
            Ok(to) => to,
            Err(refusal) => return Ok(Err(refusal)),
        };
        self.count(peer, "received");
        let Arrival { message, deadline_ms, context, artifact, digest } = arrival;
        let time = deadline_ms.map_or(self.spec.deadline_ms, u64::from).min(self.spec.deadline_ms);
        let mut row = TaskRow {
            peer,
            id,
            digest,
            context: context.unwrap_or_else(|| id.to_string()),
            agent: to,
            passes_value: deadline_ms.is_some(),
            received_ms: turn.now_ms,
            deadline_ms: turn.now_ms + time,
            state: TaskState::Working,
            changed_ms: turn.now_ms,
            value: None,
            result: None,
            why: None,
            stay: None,
            closing: None,
            outcome: None,
            message,
        };
        self.began(&row);
        self.due.insert((row.deadline_ms, Due::Deadline(peer, id)));
        let wire = WireId::parse(&row.message).map_or(id.bytes(), |wire| wire.bytes());
        let handoff = id.opening(peer);
        let from = self.peer_name(peer).to_owned();
        self.record(AgentId::ORIGIN, Record::Crossed { handoff, wire, peer: from, way: Way::In });
        let stay = self.enter(&row, to, artifact)?;
        self.advance(turn, &mut row, stay)?;
        self.put_task(turn, &row)?;
        Ok(Ok(Answer::Task(Box::new(row))))
    }

    /// The agent that a peer hands to, if it may and there is room.
    fn place_for(&self, peer: PeerId, agent: &str) -> Result<AgentId, Refusal> {
        let spec = &self.peers[peer.0 as usize].spec;
        let may = spec.may_hand_to.as_ref().is_none_or(|allowed| allowed.contains(agent));
        let known = self.stage.team().agent_id(agent).filter(|id| self.stage.remote(*id).is_none());
        let Some(to) = known.filter(|_| may) else {
            return Err(Refusal::final_("not-allowed", "this agent takes no work from you"));
        };
        let (all, own) = (self.open.values().sum::<usize>(), self.open.get(&peer).copied().unwrap_or(0));
        if all >= self.spec.open_max || own >= spec.open_max {
            return Err(Refusal::transient(
                "overloaded",
                "too many tasks are open: try again when some have ended",
            ));
        }
        Ok(to)
    }

    fn enter(&mut self, row: &TaskRow, to: AgentId, artifact: Artifact) -> Result<Stay<'s>, MachineError> {
        let task = Task { id: row.id.to_string(), artifact, expected: None };
        let scene = self.stage.open(task, Default::default())?;
        // The schedules of an agent run by the handoffs that it has received.
        let clock = self.crew.participants[to.0 as usize].counters().received;
        let handoff = Handoff { id: row.id.opening(row.peer), to, clock };
        let episode = Episode::begin(self.stage, &mut self.crew, scene, 0, handoff, Default::default())?;
        Ok(Stay { peer: row.peer, episode })
    }

    pub(super) fn began(&mut self, row: &TaskRow) {
        *self.open.entry(row.peer).or_default() += 1;
    }
}
