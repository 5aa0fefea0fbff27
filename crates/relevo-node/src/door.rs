//! What others may ask of this node, and what they are answered.

use async_trait::async_trait;
use tokio::sync::watch;

use crate::{
    ids::{PeerId, TaskId},
    store::{Filter, PushRow, TaskRow},
    wire::{Arrival, OutcomeNote},
};

/// Whoever answers at the door of a node. Each is asked in the name of a peer whose identity has been proved.
#[async_trait]
pub trait Host: Send + Sync {
    /// Ask for something; answered once what it led to is durable.
    async fn ask(&self, peer: PeerId, request: Request) -> Answer;

    /// A task of a peer.
    async fn task(&self, peer: PeerId, id: TaskId) -> Result<Option<TaskRow>, Refusal>;

    /// Tasks of a peer, the last changed first, and how many there are without the limit.
    async fn tasks(&self, peer: PeerId, filter: Filter) -> Result<(Vec<TaskRow>, u64), Refusal>;

    /// Where a peer wants to be told of the end of a task.
    async fn pushes(&self, peer: PeerId, task: TaskId) -> Result<Vec<PushRow>, Refusal>;

    /// Where a peer is still to be told of tasks that have ended; at most so many.
    async fn untold(&self, peer: PeerId, limit: usize) -> Result<Vec<PushRow>, Refusal>;

    /// Told of each change of a task from now on; closed after the last.
    fn watch(&self, peer: PeerId, task: TaskId) -> watch::Receiver<()>;
}

/// The name under which an answer is waited for; given by whoever asks, and not looked at.
pub type Ticket = u64;

/// What a peer asks for.
#[derive(Clone, Debug)]
pub enum Request {
    /// That an agent take on work.
    Handoff {
        /// The agent's name.
        agent: String,
        /// The work.
        arrival: Arrival,
    },
    /// That it be known how good work was.
    Outcome(OutcomeNote),
    /// That a task be called off.
    Cancel(TaskId),
    /// That it be told of the end of a task.
    Push(PushRow),
    /// Nothing: something of it was refused at the door, so many times, and is counted under this word.
    Count(&'static str, u64),
    /// That it be told no more.
    DropPush {
        /// The task.
        task: TaskId,
        /// The peer's name for where it was told.
        id: String,
    },
}

/// What a peer is answered.
#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    /// This is how the task stands.
    Task(Box<TaskRow>),
    /// It was taken note of.
    Noted,
    /// No; the word is what is counted.
    Refused(Refusal),
}

/// The words for what is refused for ever behind the door; `docs/wire.md` says what to do about each.
pub const WORDS: [&str; 5] =
    ["id-reused", "not-allowed", "not-cancelable", "unknown-handoff", "unknown-task"];

/// Why a peer is refused, as it is told and counted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{word}: {message}")]
pub struct Refusal {
    /// The kind of fault.
    pub word: &'static str,
    /// What is wrong, and what to do.
    pub message: String,
    /// Whether the same may be taken later.
    pub is_transient: bool,
}

impl Refusal {
    /// The same will never be taken.
    pub fn final_(word: &'static str, message: &str) -> Self {
        Refusal { word, message: message.to_owned(), is_transient: false }
    }

    /// The same may be taken later.
    pub fn transient(word: &'static str, message: &str) -> Self {
        Refusal { word, message: message.to_owned(), is_transient: true }
    }
}
