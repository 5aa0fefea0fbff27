//! What goes into a machine, and what it wants done.

use relevo::{
    agent::Outcome,
    episode::{Ask, Call},
};
use relevo_core::ids::{AgentId, HandoffId};

use crate::{
    door::{Answer, Request, Ticket},
    ids::{PeerId, TaskId, WireId},
    transport::{Packet, Report},
};

/// What happened.
pub enum Input {
    /// A peer asks for something.
    Asked {
        /// To whom the answer goes.
        ticket: Ticket,
        /// Who asks.
        peer: PeerId,
        /// For what.
        request: Request,
    },
    /// A packet has come to something.
    Reported {
        /// The handoff that it was about.
        wire: WireId,
        /// To what.
        report: Report,
    },
    /// A call of one of this node's agents has come back.
    Returned {
        /// The task.
        task: TaskId,
        /// The handoff in which it was made.
        handoff: HandoffId,
        /// Who was called.
        agent: AgentId,
        /// What it brought.
        outcome: Outcome,
        /// How long it took, in milliseconds.
        ms: u64,
    },
    /// A person has answered.
    Answered {
        /// The task.
        task: TaskId,
        /// Whether the call may be made.
        granted: bool,
        /// Who said so.
        by: String,
    },
    /// Time has passed.
    Tick,
}

/// What a machine wants done, once what it decided is durable.
pub enum Act<'s> {
    /// Answer somebody who asked.
    Answer(Ticket, Answer),
    /// Carry this to a peer.
    Carry(Packet),
    /// Let an agent of this node work.
    Call(TaskId, Call<'s>),
    /// Ask a person.
    Ask(TaskId, Ask),
    /// Nobody waits for the call, or the person, of a task any more.
    Drop(TaskId),
    /// Whoever wants to be told of the end of a task is to be told.
    Ended(PeerId, TaskId),
    /// Whoever waits for news of a task is to look.
    Changed(PeerId, TaskId),
}

/// Makes ids of handoffs: a clock and entropy, held by the driver.
pub trait Ids {
    /// A new one.
    fn next(&mut self, now_ms: u64) -> WireId;
}
