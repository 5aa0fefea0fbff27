//! Faults of a node on purpose, which prove that the invariants can fail. They lie in the driver and the store, so that the
//! machine is the one that serves.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use crate::{
    ids::{PeerId, TaskId, WireId},
    store::{MadeRow, MadeState, PushRow, Reader, Recovered, Store, StoreError, TaskRow},
};

/// What is done wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sabotage {
    /// What follows from a turn is done before the turn is durable.
    ActsFirst,
    /// A message that was taken on is not known when it comes again.
    ForgetsMessages,
    /// A handoff that was decided on is not kept.
    DropsHandoffs,
    /// It is forgotten that a handoff was learned from.
    ForgetsSettling,
    /// An outcome that is to be passed on is not.
    DropsOutcomes,
    /// A value of 0 is made up for a peer that cannot be reached.
    ImputesZero,
}

impl Sabotage {
    /// All of them.
    pub const ALL: [Sabotage; 6] = [
        Sabotage::ActsFirst,
        Sabotage::ForgetsMessages,
        Sabotage::DropsHandoffs,
        Sabotage::ForgetsSettling,
        Sabotage::DropsOutcomes,
        Sabotage::ImputesZero,
    ];
}

/// Does it to a store.
#[derive(Clone, Default)]
pub(super) struct Saboteur {
    pub(super) what: Option<Sabotage>,
    arrives: Arc<AtomicBool>,
}

impl Saboteur {
    pub(super) fn new(what: Option<Sabotage>) -> Self {
        Saboteur { what, arrives: Arc::default() }
    }

    /// A message is about to be looked up, or has been.
    pub(super) fn arrives(&self, arrives: bool) {
        self.arrives.store(arrives, Ordering::Relaxed);
    }

    pub(super) fn of(&self, store: Box<dyn Store>) -> Box<dyn Store> {
        match self.what {
            None => store,
            Some(_) => Box::new(Sabotaged { store, by: self.clone() }),
        }
    }
}

struct Sabotaged {
    store: Box<dyn Store>,
    by: Saboteur,
}

impl Store for Sabotaged {
    fn recover(&mut self) -> Result<Recovered, StoreError> {
        self.store.recover()
    }

    fn ledger(
        &mut self,
        after: u64,
        each: &mut dyn FnMut(&[u8]) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        self.store.ledger(after, each)
    }

    fn commits(&self) -> u64 {
        self.store.commits()
    }

    fn commit(&mut self, entries: &[u8]) -> Result<(), StoreError> {
        self.store.commit(entries)
    }

    fn snapshot(&mut self, state: &[u8]) -> Result<(), StoreError> {
        self.store.snapshot(state)
    }

    fn peer(&mut self, name: &str) -> Result<PeerId, StoreError> {
        self.store.peer(name)
    }

    fn count(&mut self, peer: PeerId, counters: &[u8]) -> Result<(), StoreError> {
        self.store.count(peer, counters)
    }

    fn task(&mut self, peer: PeerId, id: TaskId) -> Result<Option<TaskRow>, StoreError> {
        let forgets = self.by.what == Some(Sabotage::ForgetsMessages);
        if forgets && self.by.arrives.swap(false, Ordering::Relaxed) {
            return Ok(None);
        }
        self.store.task(peer, id)
    }

    fn put_task(&mut self, row: &TaskRow) -> Result<(), StoreError> {
        self.store.put_task(row)
    }

    fn made(&mut self, wire: WireId) -> Result<Option<MadeRow>, StoreError> {
        let forgets = self.by.what == Some(Sabotage::ForgetsSettling);
        let row = self.store.made(wire)?;
        Ok(row.map(|row| MadeRow { settled: row.settled && !forgets, ..row }))
    }

    fn put_made(&mut self, row: &MadeRow) -> Result<(), StoreError> {
        match self.by.what {
            Some(Sabotage::DropsHandoffs) if row.state == MadeState::Sending && row.wire.bytes()[15] < 16 => {
                Ok(())
            }
            Some(Sabotage::DropsOutcomes) => self.store.put_made(&MadeRow { telling: None, ..row.clone() }),
            _ => self.store.put_made(row),
        }
    }

    fn put_push(&mut self, row: &PushRow) -> Result<(), StoreError> {
        self.store.put_push(row)
    }

    fn drop_push(&mut self, peer: PeerId, task: TaskId, id: &str) -> Result<bool, StoreError> {
        self.store.drop_push(peer, task, id)
    }

    fn reader(&self) -> Result<Box<dyn Reader>, StoreError> {
        self.store.reader()
    }
}
