//! What a node keeps: its ledger, every handoff that came in and went out, and where each stands.
//!
//! What was written since the last commit can be read, and is gone after a crash; what was committed is there for ever.
//! Implementations are held to [`contract`].

pub mod contract;
pub mod memory;
pub mod sqlite;

use relevo::artifact::Artifact;
use relevo_core::ids::{AgentId, HandoffId};

use crate::ids::{PeerId, TaskId, WireId};

/// Why a store cannot go on. After any of these nothing since the last commit counts, and [`Store::recover`] tells what
/// does.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// There is no room.
    #[error("{0}: the disk is full; make room, nothing acknowledged is lost")]
    Full(String),
    /// It cannot be read or written.
    #[error("{0}")]
    Failed(String),
    /// What stands there is not what was written.
    #[error("{0}")]
    Damaged(String),
    /// Another process has it.
    #[error("{0}: another process serves from here; stop that one first")]
    Locked(String),
}

/// How far a task is, as its owner is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum TaskState {
    /// It is being worked on, here or elsewhere.
    Working,
    /// There is a result.
    Completed,
    /// There is none.
    Failed,
    /// Its owner called it off.
    Canceled,
    /// It was never taken on.
    Rejected,
}

impl TaskState {
    /// Whether it stays so.
    pub fn is_terminal(self) -> bool {
        self != TaskState::Working
    }
}

/// Which handoff an outcome of a task closes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Closing {
    /// One that an agent of this node made: the choice to finish, or a handoff to somebody behind whom nobody learns.
    Here(HandoffId),
    /// One that went on to another organisation, which is told.
    There(WireId),
}

/// A task that was handed to this node.
#[derive(Clone, Debug, PartialEq)]
pub struct TaskRow {
    /// Whose it is.
    pub peer: PeerId,
    /// Its id.
    pub id: TaskId,
    /// The id of the message that brought it; unique for its peer.
    pub message: String,
    /// What that message said, hashed.
    pub digest: [u8; 32],
    /// The context in which its owner sees it.
    pub context: String,
    /// To whom it was handed.
    pub agent: AgentId,
    /// Whether its owner learns from values.
    pub passes_value: bool,
    /// When it came, in milliseconds since 1970.
    pub received_ms: u64,
    /// When it must be over.
    pub deadline_ms: u64,
    /// How far it is.
    pub state: TaskState,
    /// When that last changed.
    pub changed_ms: u64,
    /// V, once it is known.
    pub value: Option<f64>,
    /// What came out.
    pub result: Option<Artifact>,
    /// Why there is no result, as a word.
    pub why: Option<String>,
    /// How far this node's agents are with it, while one of them works on it.
    pub stay: Option<Vec<u8>>,
    /// What its outcome closes, once that is known.
    pub closing: Option<Closing>,
    /// How good it was, once its owner has said so.
    pub outcome: Option<f64>,
}

impl TaskRow {
    /// Whether something is still to come of it: work, or its outcome.
    pub fn is_open(&self) -> bool {
        let awaits_outcome = matches!(self.closing, Some(Closing::Here(..))) && self.outcome.is_none();
        !self.state.is_terminal() || awaits_outcome
    }
}

/// How far a handoff to another organisation is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum MadeState {
    /// It is to be sent, again and again.
    Sending,
    /// It was taken, and its task is worked on there.
    Taken,
    /// That task has ended; or nobody waits for it any more.
    Ended,
}

/// A handoff that went, or is to go, to another organisation.
#[derive(Clone, Debug, PartialEq)]
pub struct MadeRow {
    /// Its id, the same in every message about it.
    pub wire: WireId,
    /// To whom.
    pub peer: PeerId,
    /// To which agent, by its place in the team.
    pub agent: AgentId,
    /// The task for which it was made.
    pub task: (PeerId, TaskId),
    /// By which name this node's agent knows it.
    pub handoff: HandoffId,
    /// When it must be over.
    pub deadline_ms: u64,
    /// How far it is.
    pub state: MadeState,
    /// What is handed over; nothing any more once it was taken.
    pub artifact: Option<Artifact>,
    /// Whether values are passed, once it is known what the agent declares; one who declares nothing is a leaf.
    pub passes_value: Option<bool>,
    /// The peer's name of the task.
    pub remote: Option<String>,
    /// The value that came back.
    pub value: Option<f64>,
    /// Whether its maker has learned from it, or never will.
    pub settled: bool,
    /// The outcome to be passed on.
    pub outcome: Option<f64>,
    /// The id of the message that passes it on, until that was acknowledged.
    pub telling: Option<WireId>,
    /// Whether the peer is to be told that nobody waits for it any more.
    pub cancels: bool,
}

impl MadeRow {
    /// Whether its peer is still to be asked or told something.
    pub fn is_open(&self) -> bool {
        self.state != MadeState::Ended || self.telling.is_some() || self.cancels
    }
}

/// Where the owner of a task wants to be told of its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PushRow {
    /// Whose it is.
    pub peer: PeerId,
    /// The task.
    pub task: TaskId,
    /// The owner's name for it.
    pub id: String,
    /// The A2A `TaskPushNotificationConfig`, in JSON.
    pub config: String,
}

/// What a store holds that a node must know to go on.
#[derive(Debug, Default)]
pub struct Recovered {
    /// The last snapshot of the machine, and how many commits it stands for.
    pub snapshot: Option<(u64, Vec<u8>)>,
    /// Peers, by their numbers from 0, with what was counted of each (opaque bytes).
    pub peers: Vec<(String, Vec<u8>)>,
    /// Tasks that are open ([`TaskRow::is_open`]).
    pub open: Vec<(PeerId, TaskId)>,
    /// Handoffs that are open ([`MadeRow::is_open`]).
    pub made: Vec<WireId>,
}

/// Which tasks of a peer are wanted, the last changed first.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// In this context only.
    pub context: Option<String>,
    /// In this state only.
    pub state: Option<TaskState>,
    /// Changed at or after this time only.
    pub changed_since_ms: Option<u64>,
    /// At most so many.
    pub limit: usize,
    /// Those behind this one only: when it changed, and its id.
    pub after: Option<(u64, TaskId)>,
}

/// What a node keeps. One owner writes; see the module for what a commit promises.
pub trait Store: Send {
    /// Begin, or begin again: forget what was not committed, and tell what stands.
    fn recover(&mut self) -> Result<Recovered, StoreError>;

    /// Read the commits of the ledger behind the first `after` ones, in order; each is CBOR entries that end with a seal.
    fn ledger(
        &mut self,
        after: u64,
        each: &mut dyn FnMut(&[u8]) -> Result<(), StoreError>,
    ) -> Result<(), StoreError>;

    /// The number of commits that the ledger has.
    fn commits(&self) -> u64;

    /// Make all that was written since the last commit durable, with these entries of the ledger; or nothing of it.
    fn commit(&mut self, entries: &[u8]) -> Result<(), StoreError>;

    /// Keep a snapshot with the next commit, which it covers; only the last two are kept.
    fn snapshot(&mut self, state: &[u8]) -> Result<(), StoreError>;

    /// The number of a peer, who gets one if it has none.
    fn peer(&mut self, name: &str) -> Result<PeerId, StoreError>;

    /// Keep what was counted of a peer.
    fn count(&mut self, peer: PeerId, counters: &[u8]) -> Result<(), StoreError>;

    /// A task of a peer.
    fn task(&mut self, peer: PeerId, id: TaskId) -> Result<Option<TaskRow>, StoreError>;

    /// Keep a task, instead of what was kept of it before.
    fn put_task(&mut self, row: &TaskRow) -> Result<(), StoreError>;

    /// A handoff to another organisation.
    fn made(&mut self, wire: WireId) -> Result<Option<MadeRow>, StoreError>;

    /// Keep such a handoff, instead of what was kept of it before.
    fn put_made(&mut self, row: &MadeRow) -> Result<(), StoreError>;

    /// Keep where the owner of a task wants to be told, instead of what has the same name.
    fn put_push(&mut self, row: &PushRow) -> Result<(), StoreError>;

    /// Forget it; whether it was there.
    fn drop_push(&mut self, peer: PeerId, task: TaskId, id: &str) -> Result<bool, StoreError>;

    /// Become smaller by a step, at a time at which nothing waits for a commit; whether there may be more to do. What
    /// snapshots stand for may be put away, and tasks that were over before this time are forgotten.
    fn compact(&mut self, _forget_before_ms: u64) -> Result<bool, StoreError> {
        Ok(false)
    }

    /// Whoever reads beside the owner; sees what is committed, and never waits for a commit.
    fn reader(&self) -> Result<Box<dyn Reader>, StoreError>;
}

/// Reads what is committed. No read gives one peer what is another's.
pub trait Reader: Send {
    /// A task of a peer.
    fn task(&mut self, peer: PeerId, id: TaskId) -> Result<Option<TaskRow>, StoreError>;

    /// A page of the tasks of a peer, the last changed first and of those the highest id, and how many there are on all
    /// pages.
    fn tasks(&mut self, peer: PeerId, filter: &Filter) -> Result<(Vec<TaskRow>, u64), StoreError>;

    /// Where the owner of a task wants to be told.
    fn pushes(&mut self, peer: PeerId, task: TaskId) -> Result<Vec<PushRow>, StoreError>;

    /// Where a peer wants to be told of tasks that have ended: what is told is dropped, so these it is still to be told. At
    /// most so many.
    fn untold(&mut self, peer: PeerId, limit: usize) -> Result<Vec<PushRow>, StoreError>;

    /// Peers, with what was counted of each.
    fn peers(&mut self) -> Result<Vec<(String, Vec<u8>)>, StoreError>;
}
