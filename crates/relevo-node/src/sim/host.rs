//! A node as its driver has it: what has come, what it waits for, and the store that outlives it.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use relevo::stage::Stage;
use relevo_core::Rng;

use super::{
    network::{Letter, Shown},
    sabotage::Saboteur,
};
use crate::{
    door::Ticket,
    ids::WireId,
    machine::{Act, Ids, Input, Machine, MachineError, MachineSpec},
    store::{
        Store, StoreError,
        memory::{Disk, Fault, MemoryStore},
        sqlite::{SqliteReader, SqliteStore},
    },
};

/// 1 January 2026, in milliseconds since 1970: when a simulation begins.
pub(super) const BEGIN_MS: u64 = 1_767_225_600_000;

/// What survives a node.
#[derive(Clone)]
pub(super) enum Medium {
    Memory(Disk),
    Sqlite(PathBuf),
}

impl Medium {
    pub(super) fn open(&self) -> Result<Box<dyn Store>, StoreError> {
        Ok(match self {
            Medium::Memory(disk) => Box::new(MemoryStore::open(disk)),
            Medium::Sqlite(folder) => Box::new(SqliteStore::open(folder)?),
        })
    }

    /// Read all that was ever committed, wherever it is kept now.
    pub(super) fn whole_ledger(
        &self,
        store: &mut dyn Store,
        each: &mut dyn FnMut(&[u8]) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        match self {
            Medium::Memory(_) => store.ledger(0, each),
            Medium::Sqlite(folder) => SqliteReader::open(folder)?.whole_ledger(each),
        }
    }

    /// Only a simulated disk fails.
    pub(super) fn fail_next(&self, fault: Fault) {
        if let Medium::Memory(disk) = self {
            disk.fail_next(fault);
        }
    }
}

/// Who is answered, once it is durable.
pub(super) struct Waiting {
    pub(super) exchange: u64,
    pub(super) letter: Letter,
    /// The handoff of which an outcome is told.
    pub(super) outcome: Option<WireId>,
}

pub(super) struct Host<'s> {
    pub(super) name: String,
    pub(super) stage: &'s Stage,
    pub(super) spec: MachineSpec,
    /// Its peers, by number.
    pub(super) peers: Vec<String>,
    pub(super) medium: Medium,
    pub(super) saboteur: Saboteur,
    pub(super) machine: Option<Machine<'s>>,
    /// How often it has crashed: what belongs to an earlier life is nobody's any more.
    pub(super) life: u32,
    pub(super) clock: Arc<AtomicU64>,
    /// Whether calls of its agents fail.
    pub(super) calls_fail: Arc<AtomicBool>,
    pub(super) skew: i64,
    pub(super) ids: SimIds,
    pub(super) inbox: Vec<Input>,
    /// When it takes in what has come.
    pub(super) turn_at: Option<u64>,
    pub(super) tickets: BTreeMap<Ticket, Waiting>,
    pub(super) next_ticket: Ticket,
    pub(super) shown: Shown,
    /// Until when there is no room on its disk.
    pub(super) full_until: u64,
    /// From when on its store becomes smaller.
    pub(super) tidy_at: u64,
}

impl<'s> Host<'s> {
    /// Its time, at a time of the simulation.
    pub(super) fn time(&self, now: u64) -> u64 {
        BEGIN_MS.saturating_add(now).saturating_add_signed(self.skew)
    }

    pub(super) fn set_clock(&self, now: u64) {
        self.clock.store(self.time(now), Ordering::Relaxed);
    }

    /// Everything in memory is gone.
    pub(super) fn fall(&mut self) {
        self.machine = None;
        self.inbox.clear();
        self.tickets.clear();
        self.turn_at = None;
    }

    /// Take up what the store holds.
    pub(super) fn rise(&mut self, now: u64) -> Result<Vec<Act<'s>>, MachineError> {
        self.set_clock(now);
        let store = self.saboteur.of(self.medium.open()?);
        let mut acts = vec![];
        let (time, spec) = (self.time(now), self.spec.clone());
        let mut machine = Machine::recover(self.stage, spec, store, time, &mut self.ids, &mut acts)?;
        machine.commit()?;
        self.machine = Some(machine);
        Ok(acts)
    }
}

/// Ids from a stream of the seed.
pub(super) struct SimIds(pub(super) Rng);

impl Ids for SimIds {
    fn next(&mut self, now_ms: u64) -> WireId {
        let mut random = [0; 10];
        random[..8].copy_from_slice(&self.0.bits().to_le_bytes());
        random[8..].copy_from_slice(&self.0.bits().to_le_bytes()[..2]);
        WireId::new(now_ms, &random)
    }
}
