//! How a machine is to be.

use std::collections::{BTreeMap, BTreeSet};

use crate::wire::Limits;

/// How a machine is to be; the team is the stage's.
#[derive(Clone, Debug, PartialEq)]
pub struct MachineSpec {
    /// The name of the organisation.
    pub name: String,
    /// The seed of everything random.
    pub seed: u64,
    /// Over how many handoffs schedules run.
    pub horizon: u64,
    /// How long a task may take that brings no deadline, in milliseconds.
    pub deadline_ms: u64,
    /// How long an outcome is waited for, in milliseconds.
    pub outcome_after_ms: u64,
    /// The longest time between two looks at a task of a peer, in milliseconds.
    pub poll_ms: u64,
    /// How long what is over is remembered, in milliseconds.
    pub remember_ms: u64,
    /// Tasks that are not over, of all peers together.
    pub open_max: usize,
    /// Entries of the ledger between two snapshots.
    pub snapshot_entries: u64,
    /// How much crosses.
    pub wire: Limits,
    /// Peers by name. Numbers are the store's.
    pub peers: BTreeMap<String, PeerSpec>,
}

/// What a peer may do, and what may be done with it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PeerSpec {
    /// Its name.
    pub name: String,
    /// The agents of this node that it may hand to; `None` for all.
    pub may_hand_to: Option<BTreeSet<String>>,
    /// The only facts that may leave to it; `None` for all public ones.
    pub facts: Option<BTreeSet<String>>,
    /// Tasks of it that are not over.
    pub open_max: usize,
}

impl PeerSpec {
    /// The operator: may hand to every agent.
    pub(super) fn operator(open_max: usize) -> Self {
        PeerSpec { name: "operator".to_owned(), may_hand_to: None, facts: None, open_max }
    }
}
