//! A machine, made of what a store holds: at the first start, at any other, and after a crash.

use std::fmt;

use relevo::{
    episode::{Crew, Episode},
    stage::Stage,
};
use relevo_core::{
    ids::AgentId,
    record::{FORMAT, Record},
};

use super::{
    Due, Fold, LedgerEnd, Machine, MachineError, MachineSpec, Peer, PeerSpec, Stay, Turn, fold,
    snapshot::{self, Snapshot},
};
use crate::{
    ids::{PeerId, TaskId},
    machine::{Act, Counters, Ids},
    store::{Closing, Recovered, Store, StoreError, TaskState},
};

/// A machine could not be made of a store.
#[derive(thiserror::Error)]
#[error("{error}")]
pub struct Unrecovered {
    /// Why.
    pub error: MachineError,
    /// The store, to be tried again.
    pub store: Box<dyn Store>,
}

impl fmt::Debug for Unrecovered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.error.fmt(f)
    }
}

impl From<Unrecovered> for MachineError {
    fn from(unrecovered: Unrecovered) -> Self {
        unrecovered.error
    }
}

/// The names of all peers that a store knows, by their numbers, with those of `spec` added; the first is the operator.
/// A stage is made with them.
pub fn number_peers(store: &mut dyn Store, spec: &MachineSpec) -> Result<Vec<String>, StoreError> {
    store.recover()?;
    store.peer("operator")?;
    for name in spec.peers.keys() {
        store.peer(name)?;
    }
    store.commit(&[])?;
    Ok(store.recover()?.peers.into_iter().map(|(name, _)| name).collect())
}

impl<'s> Machine<'s> {
    /// Take up what the store holds; a store that holds nothing begins. What had not come back is asked for again, by the
    /// acts, which may be done at once.
    ///
    /// # Errors
    ///
    /// The store comes back with the error: it may be tried again.
    pub fn recover(
        stage: &'s Stage,
        spec: MachineSpec,
        mut store: Box<dyn Store>,
        now_ms: u64,
        ids: &mut dyn Ids,
        acts: &mut Vec<Act<'s>>,
    ) -> Result<Self, Unrecovered> {
        let begun = Crew::new(stage, spec.seed, spec.horizon)
            .map_err(MachineError::from)
            .and_then(|crew| Ok((crew, store.recover()?)));
        let (crew, recovered) = match begun {
            Ok(begun) => begun,
            Err(error) => return Err(Unrecovered { error, store }),
        };
        let known = recovered.peers.iter().enumerate().map(|(number, (name, counters))| {
            let configured = spec.peers.get(name).cloned();
            let stranger =
                PeerSpec { name: name.clone(), may_hand_to: Some(Default::default()), ..PeerSpec::default() };
            let of_peer = match number {
                0 => PeerSpec::operator(spec.open_max),
                _ => configured.unwrap_or(stranger),
            };
            Peer { spec: of_peer, counters: Counters::of_bytes(counters), is_dirty: false }
        });
        let ledger =
            LedgerEnd { chain: Default::default(), fresh: vec![], entries: 0, snapshot: 0, is_dirty: false };
        let peers = known.collect();
        let (stays, flying, failed, due, terms, open) = Default::default();
        let mut machine = Machine {
            stage,
            spec,
            store,
            crew,
            stays,
            flying,
            failed,
            due,
            latest_ms: now_ms,
            terms,
            peers,
            ledger,
            open,
        };
        match machine.go_on_from(recovered, Turn { now_ms, ids, acts }) {
            Ok(()) => Ok(machine),
            Err(error) => Err(Unrecovered { error, store: machine.store }),
        }
    }

    fn go_on_from(&mut self, recovered: Recovered, mut turn: Turn<'_, 's>) -> Result<(), MachineError> {
        self.fold(recovered.snapshot)?;
        for (peer, id) in recovered.open {
            self.take_up(&mut turn, peer, id)?;
        }
        self.due.extend(recovered.made.into_iter().map(|wire| (turn.now_ms, Due::Carry(wire))));
        Ok(())
    }

    /// The agents as the ledger leads to them.
    fn fold(&mut self, snapshot: Option<(u64, Vec<u8>)>) -> Result<(), MachineError> {
        let (mut fold, mut after) = (Fold::new(self.stage, &self.spec), 0);
        // The commit with which the snapshot was kept tells what it is.
        let mut kept_with = None;
        if let Some((commits, bytes)) = snapshot {
            let snapshot = Snapshot::read(&bytes)?;
            snapshot.state.fill(&mut self.crew, self.stage, &self.spec)?;
            fold = fold.after(snapshot.head, snapshot.entries);
            self.ledger.snapshot = snapshot.entries;
            after = commits.saturating_sub(1);
            kept_with = Some(snapshot.state.digest());
        }
        let (crew, mut failure) = (&mut self.crew, None);
        let walked = self.store.ledger(after, &mut |bytes| {
            let taken = match kept_with.take() {
                Some(digest) => snapshot::tells(bytes, &digest),
                None => fold.take(crew, bytes),
            };
            taken.map_err(|e| {
                let message = e.to_string();
                failure = Some(e);
                StoreError::Damaged(message)
            })
        });
        walked.map_err(|e| failure.take().unwrap_or(MachineError::Store(e)))?;
        if kept_with.is_some() {
            return Err(unfit("the commit with which the snapshot was kept is not there"));
        }
        (self.ledger.chain, self.ledger.entries) = (fold.chain(), fold.entries());
        if self.ledger.entries == 0 {
            let (config, seed) = (fold::config(self.stage, &self.spec), self.spec.seed);
            let opened = Record::Opened { format: FORMAT.into(), config, seed, episodes: u64::MAX };
            self.record(AgentId::ORIGIN, opened);
        }
        Ok(())
    }

    /// An open task of an earlier process.
    fn take_up(&mut self, turn: &mut Turn<'_, 's>, peer: PeerId, id: TaskId) -> Result<(), MachineError> {
        let Some(mut row) = self.store.task(peer, id)? else {
            return Err(unfit("an open task is not in the store"));
        };
        if row.state != TaskState::Working {
            if let Some(Closing::Here(..)) = row.closing {
                let at = row.changed_ms + self.spec.outcome_after_ms;
                self.due.insert((at, Due::Outcome(peer, id)));
            }
            return Ok(());
        }
        self.began(&row);
        self.due.insert((row.deadline_ms, Due::Deadline(peer, id)));
        if let Some(bytes) = row.stay.take() {
            let episode = Episode::restore(self.stage, &self.crew, &bytes)?;
            self.advance(turn, &mut row, Stay { peer, episode })?;
            self.put_task(turn, &row)?;
        }
        Ok(())
    }
}

fn unfit(what: &str) -> MachineError {
    MachineError::Unfit(format!("the store does not fit together: {what}"))
}
