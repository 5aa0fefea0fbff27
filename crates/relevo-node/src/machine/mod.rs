//! Decides what becomes of handoffs between organisations, and nothing else: events in, acts out. A clock, entropy, a
//! network and agents are the driver's ([`crate::actor`]; in simulated time [`crate::sim`]).
//!
//! Whatever is decided is written to the [`Store`], and nothing of it is done before [`Machine::commit`]. After an error
//! there is no machine any more, and [`Machine::recover`] makes one of what the store holds: a restart, and the end of a
//! crash, are the same.

mod arrive;
mod counters;
mod end;
mod fold;
mod input;
mod made;
mod outcome;
mod recover;
mod snapshot;
mod spec;
mod stay;

use std::collections::{BTreeMap, BTreeSet};

use relevo::{
    episode::{Crew, EpisodeError},
    stage::Stage,
    tasks::TaskError,
};
use relevo_core::{
    ids::{AgentId, HandoffId},
    protocol::{Effect, Event},
    record::{Chain, Entry, Record, RecordError},
    replay::ReplayError,
    snapshot::SnapshotError,
};

pub use counters::Counters;
pub use fold::Fold;
pub use input::{Act, Ids, Input};
pub use recover::{Unrecovered, number_peers};
pub use spec::{MachineSpec, PeerSpec};

use crate::{
    door::{Answer, Refusal, Request, Ticket},
    ids::{PeerId, TaskId, WireId},
    store::{MadeRow, PushRow, Store, StoreError, TaskRow},
    wire::{self, Terms},
};
use made::Flight;
use stay::Stay;

/// A clock that goes back by more than this was set back.
const SET_BACK_MS: u64 = 1_000;

/// Why a machine cannot go on. What is not committed counts for nothing.
#[derive(Debug, thiserror::Error)]
pub enum MachineError {
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// An agent cannot be made, or refuses what it is told.
    #[error(transparent)]
    Episode(#[from] EpisodeError),
    /// A task cannot be opened.
    #[error(transparent)]
    Task(#[from] TaskError),
    /// The ledger cannot be read.
    #[error("the ledger: {0}")]
    Ledger(#[from] RecordError),
    /// The ledger says something else than these agents would have done.
    #[error("the ledger: agent {agent:?}: {source}")]
    Replay {
        /// Whose records.
        agent: String,
        /// Where they part.
        source: ReplayError,
    },
    /// A snapshot cannot be made or read.
    #[error("a snapshot of agent {agent:?}: {source}")]
    Snapshot {
        /// Of whom.
        agent: String,
        /// Why.
        source: SnapshotError,
    },
    /// What stands in the store does not fit together, or belongs to another node.
    #[error("{0}")]
    Unfit(String),
}

/// Something that is to happen at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Due {
    /// A task must be over.
    Deadline(PeerId, TaskId),
    /// An outcome has not come.
    Outcome(PeerId, TaskId),
    /// A handoff made has something to be carried.
    Carry(WireId),
}

/// One organisation's agents, and every handoff that they are at.
pub struct Machine<'s> {
    stage: &'s Stage,
    spec: MachineSpec,
    store: Box<dyn Store>,
    crew: Crew,
    /// Tasks of which an agent of this node is at work.
    stays: BTreeMap<TaskId, Stay<'s>>,
    /// Handoffs of which a packet is on its way.
    flying: BTreeMap<WireId, Flight>,
    /// How often in a row a handoff could not be carried, where it could not.
    failed: BTreeMap<WireId, u32>,
    due: BTreeSet<(u64, Due)>,
    /// The time at which something happened last.
    latest_ms: u64,
    /// What the agents of others declare, as far as it has been asked for.
    terms: BTreeMap<AgentId, Option<Terms>>,
    peers: Vec<Peer>,
    ledger: LedgerEnd,
    /// Tasks that are not over, by whose they are.
    open: BTreeMap<PeerId, usize>,
}

/// The end of the ledger.
struct LedgerEnd {
    chain: Chain,
    /// Entries since the last commit.
    fresh: Vec<u8>,
    entries: u64,
    /// How many there were at the last snapshot.
    snapshot: u64,
    /// Whether rows have been written since the last commit.
    is_dirty: bool,
}

/// How much a machine holds in memory, apart from what its agents have learned.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Held {
    /// Tasks of which an agent is at work.
    pub stays: usize,
    /// Handoffs of which a packet is on its way.
    pub flying: usize,
    /// Handoffs that could not be carried the last time.
    pub failed: usize,
    /// Things that are to happen at a time.
    pub due: usize,
    /// Tasks that are not over.
    pub open: usize,
}

/// Another organisation.
struct Peer {
    spec: PeerSpec,
    counters: Counters,
    is_dirty: bool,
}

impl<'s> Machine<'s> {
    /// Take in what happened at this time, in milliseconds since 1970. The acts that it leads to are appended to `acts`, to
    /// be done after the next [`Machine::commit`] and not before.
    pub fn handle(
        &mut self,
        now_ms: u64,
        input: Input,
        ids: &mut dyn Ids,
        acts: &mut Vec<Act<'s>>,
    ) -> Result<(), MachineError> {
        self.set_back(now_ms);
        let mut turn = Turn { now_ms, ids, acts };
        match input {
            Input::Asked { ticket, peer, request } => self.asked(&mut turn, ticket, peer, request),
            Input::Reported { wire, report } => self.reported(&mut turn, wire, report),
            Input::Returned { task, handoff, agent, outcome, ms } => {
                self.returned(&mut turn, (task, handoff), (agent, outcome, ms))
            }
            Input::Answered { task, granted, by } => self.answered(&mut turn, task, granted, by),
            Input::Tick => Ok(()),
        }?;
        self.ring(&mut turn)
    }

    /// Make everything that was decided durable: what is to be done may be done then.
    pub fn commit(&mut self) -> Result<(), MachineError> {
        for (peer, number) in self.peers.iter_mut().zip(0..) {
            if std::mem::take(&mut peer.is_dirty) {
                self.store.count(PeerId(number), &peer.counters.to_bytes())?;
                self.ledger.is_dirty = true;
            }
        }
        if self.ledger.fresh.is_empty() && !self.ledger.is_dirty {
            return Ok(());
        }
        if self.ledger.entries - self.ledger.snapshot >= self.spec.snapshot_entries {
            self.snapshot()?;
        }
        let head = self.ledger.chain.seal();
        self.record(AgentId::ORIGIN, Record::Sealed { head });
        self.store.commit(&self.ledger.fresh)?;
        self.ledger.fresh.clear();
        self.ledger.is_dirty = false;
        Ok(())
    }

    /// Let the store become smaller by a step, behind a commit; whether there may be more to do.
    pub fn tidy(&mut self, now_ms: u64) -> Result<bool, MachineError> {
        Ok(self.store.compact(now_ms.saturating_sub(self.spec.remember_ms + wire::AHEAD_MS_MAX))?)
    }

    /// When something is to happen next, in milliseconds since 1970.
    pub fn next_due(&self) -> Option<u64> {
        self.due.first().map(|(at, _)| *at)
    }

    /// What the agents of this node have learned, by agent.
    pub fn crew(&self) -> &Crew {
        &self.crew
    }

    /// What was counted of each peer.
    pub fn counters(&self) -> impl Iterator<Item = (&str, &Counters)> {
        self.peers.iter().map(|peer| (peer.spec.name.as_str(), &peer.counters))
    }

    /// Let go of the store, so that another machine can be made of it.
    pub fn into_store(self) -> Box<dyn Store> {
        self.store
    }

    /// How much of everything is held in memory; nothing, once all has come to its end.
    pub fn held(&self) -> Held {
        Held {
            stays: self.stays.len(),
            flying: self.flying.len(),
            failed: self.failed.len(),
            due: self.due.len(),
            open: self.open.values().sum(),
        }
    }

    /// What stands in the store.
    pub fn store(&self) -> &dyn Store {
        &*self.store
    }

    fn asked(
        &mut self,
        turn: &mut Turn<'_, 's>,
        ticket: Ticket,
        peer: PeerId,
        request: Request,
    ) -> Result<(), MachineError> {
        let answer = match request {
            Request::Handoff { agent, arrival } => self.arrive(turn, peer, &agent, arrival)?,
            Request::Outcome(note) => self.hear(turn, peer, note)?,
            Request::Cancel(task) => self.call_off(turn, peer, task)?,
            Request::Push(row) => self.push(turn, peer, &row)?,
            Request::DropPush { task, id } => {
                self.ledger.is_dirty |= self.store.drop_push(peer, task, &id)?;
                Ok(Answer::Noted)
            }
            Request::Count(word, times) => {
                self.count_many(peer, word, times);
                Ok(Answer::Noted)
            }
        };
        let answer = answer.unwrap_or_else(|refusal| {
            self.count(peer, refusal.word);
            Answer::Refused(refusal)
        });
        turn.acts.push(Act::Answer(ticket, answer));
        Ok(())
    }

    fn push(
        &mut self,
        turn: &mut Turn<'_, 's>,
        peer: PeerId,
        row: &PushRow,
    ) -> Result<Result<Answer, Refusal>, MachineError> {
        let Some(task) = self.store.task(peer, row.task)? else {
            return Ok(Err(Refusal::final_("unknown-task", "there is no such task")));
        };
        if task.state.is_terminal() {
            turn.acts.push(Act::Ended(peer, row.task));
        }
        self.store.put_push(row)?;
        self.ledger.is_dirty = true;
        Ok(Ok(Answer::Noted))
    }

    /// Where the clock was set back, what was to be carried soon would wait until it is again as late as it was.
    fn set_back(&mut self, now_ms: u64) {
        let latest_ms = std::mem::replace(&mut self.latest_ms, now_ms);
        if now_ms.saturating_add(SET_BACK_MS) < latest_ms {
            let carried = self.due.extract_if(.., |(_, due)| matches!(due, Due::Carry(_)));
            let now: Vec<_> = carried.map(|(_, due)| (now_ms, due)).collect();
            self.due.extend(now);
        }
    }

    /// Do what is due.
    fn ring(&mut self, turn: &mut Turn<'_, 's>) -> Result<(), MachineError> {
        while let Some((at, due)) = self.due.first().copied()
            && at <= turn.now_ms
        {
            self.due.pop_first();
            match due {
                Due::Deadline(peer, task) => self.run_out(turn, peer, task)?,
                Due::Outcome(peer, task) => self.unjudged(turn, peer, task)?,
                Due::Carry(wire) => self.carry(turn, wire)?,
            }
        }
        Ok(())
    }

    fn record(&mut self, agent: AgentId, record: Record) {
        let LedgerEnd { chain, fresh, entries, .. } = &mut self.ledger;
        let start = fresh.len();
        Entry { agent, record }.write(fresh);
        chain.absorb(&fresh[start..]);
        *entries += 1;
    }

    /// Tell an agent something apart from a stay; under value passing only records follow from it.
    fn tell(&mut self, agent: AgentId, event: Event) -> Result<(), MachineError> {
        let effects = self.crew.tell(self.stage, agent, event)?;
        self.keep(effects)
    }

    fn keep(&mut self, effects: Vec<(AgentId, Effect)>) -> Result<(), MachineError> {
        for (agent, effect) in effects {
            match effect {
                Effect::Record(record) => self.record(agent, record),
                other => {
                    return Err(MachineError::Unfit(format!("nobody can do {other:?} outside of a task")));
                }
            }
        }
        Ok(())
    }

    /// A handoff that an agent made, or was given, is given up: nothing is learned from it.
    fn censor(&mut self, agent: AgentId, handoff: HandoffId, why: &'static str) -> Result<(), MachineError> {
        self.tell(agent, Event::Expired { handoff })?;
        self.record(AgentId::ORIGIN, Record::Censored { handoff, why: why.to_owned() });
        Ok(())
    }

    fn put_task(&mut self, turn: &mut Turn<'_, 's>, row: &TaskRow) -> Result<(), MachineError> {
        self.ledger.is_dirty = true;
        turn.acts.push(Act::Changed(row.peer, row.id));
        Ok(self.store.put_task(row)?)
    }

    fn put_made(&mut self, row: &MadeRow) -> Result<(), MachineError> {
        self.ledger.is_dirty = true;
        Ok(self.store.put_made(row)?)
    }

    fn peer_name(&self, peer: PeerId) -> &str {
        &self.peers[peer.0 as usize].spec.name
    }

    fn count(&mut self, peer: PeerId, word: &str) {
        self.count_many(peer, word, 1);
    }

    fn count_many(&mut self, peer: PeerId, word: &str, times: u64) {
        if let Some(peer) = self.peers.get_mut(peer.0 as usize) {
            peer.counters.add(word, times);
            peer.is_dirty = true;
        }
    }
}

/// What one input is handled with.
struct Turn<'t, 's> {
    now_ms: u64,
    ids: &'t mut dyn Ids,
    acts: &'t mut Vec<Act<'s>>,
}
