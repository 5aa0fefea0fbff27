//! What carries packets to other organisations. Implementations are held to [`contract`].

pub mod a2a;
pub mod contract;

use std::sync::Arc;

use crate::{
    ids::{PeerId, WireId},
    wire::{Standing, Terms},
};

/// Something for another organisation.
#[derive(Clone, Debug, PartialEq)]
pub struct Packet {
    /// The handoff that it is about.
    pub wire: WireId,
    /// To whom.
    pub peer: PeerId,
    /// To which of its agents.
    pub agent: String,
    /// What.
    pub load: Load,
}

/// What is carried.
#[derive(Clone, Debug, PartialEq)]
pub enum Load {
    /// A question what the agent declares.
    Card,
    /// Work, as the A2A `SendMessageRequest`; with whether values are passed.
    Handoff {
        /// The request.
        request: Box<::a2a::SendMessageRequest>,
        /// Whether the value of the receiver is wanted.
        passes_value: bool,
    },
    /// A question how a task stands.
    Look {
        /// The peer's name of it.
        task: String,
    },
    /// How good work was, as the A2A `SendMessageRequest`.
    Outcome {
        /// The request.
        request: Box<::a2a::SendMessageRequest>,
    },
    /// Nobody waits for a task any more.
    Cancel {
        /// The peer's name of it.
        task: String,
    },
}

/// What became of a packet.
#[derive(Clone, Debug, PartialEq)]
pub enum Report {
    /// This is what the agent declares about values, if anything; or the word for which its declaration does not count.
    Card(Result<Option<Terms>, &'static str>),
    /// This is how the task stands.
    Standing(Standing),
    /// It was taken note of.
    Noted,
    /// The peer says no, and will say so again; why, as a word.
    Refused(String),
    /// The peer says not now; after so many milliseconds, if it says so.
    Later(Option<u64>),
    /// It cannot be reached, or did not answer in time.
    Unreachable(String),
    /// What it answers cannot be read, or is too long; why, as a word.
    Garbage(String),
}

/// Told what became of a packet, once.
pub type Reporter = Box<dyn FnOnce(Report) + Send>;

/// Carries packets. For each there is one report, unless the process ends before; nothing is tried twice, and nothing is
/// sent but what the packet says.
pub trait Transport: Send + Sync {
    /// Begin to carry a packet; at once, without waiting.
    fn carry(self: Arc<Self>, packet: Packet, report: Reporter);
}
