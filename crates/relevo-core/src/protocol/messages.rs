//! What goes in and out of a participant, and what it is made of.

use alloc::vec::Vec;
use minicbor::{Decode, Encode};

use crate::{
    ids::{ActionId, AgentId, Handle, HandoffId, OperationId},
    learner::LearnerSpec,
    observation::{Observation, Signature},
    q::FeatureError,
    record::{Record, Table},
    units::{Confidence, Return, Tau, Usage, Value},
};

/// Control passing from one agent to another. The artifact goes beside it, by the driver's own means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct Handoff {
    /// Its identity; names the sender.
    #[n(0)]
    pub id: HandoffId,
    /// Who is to act next.
    #[n(1)]
    pub to: AgentId,
    /// Time in the unit of the schedules, carried along by the artifact.
    #[n(2)]
    pub clock: u64,
}

/// What comes back over a boundary: an id and one number. The other fields belong to extensions and are absent
/// unless they were agreed on.
#[derive(Clone, Copy, Debug, PartialEq, Encode, Decode)]
#[cbor(array)]
pub struct ValueMessage {
    /// The handoff that is answered.
    #[n(0)]
    pub handoff: HandoffId,
    /// V.
    #[n(1)]
    pub value: Value,
    /// Standard error of V (extension).
    #[n(2)]
    pub standard_error: Option<Value>,
    /// The receiver's name for the situation (extension).
    #[n(3)]
    pub handle: Option<Handle>,
    /// How often the value has been sent again; 0 is the first time (extension).
    #[n(4)]
    pub revision: u32,
}

impl ValueMessage {
    /// The message of the paper.
    pub fn new(handoff: HandoffId, value: Value) -> Self {
        ValueMessage { handoff, value, standard_error: None, handle: None, revision: 0 }
    }
}

/// What follows an operation.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
#[cbor(flat)]
pub enum Next {
    /// The invocation goes on: an adaptable agent chooses another operation at this observation.
    #[n(0)]
    Operate(#[n(0)] Observation),
    /// The operation is over: the successor is chosen at this observation.
    #[n(1)]
    HandOver(#[n(0)] Observation),
    /// The operation is over and the successor was chosen before it.
    #[n(2)]
    Committed,
    /// The task ended within the operation.
    #[n(3)]
    Ended,
}

/// What a participant is told.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// Control arrives; `observation` is what this agent sees of the artifact.
    Received {
        /// The handoff, addressed to this participant.
        handoff: Handoff,
        /// What the agent sees.
        observation: Observation,
    },
    /// The operation asked for by [`Effect::Perform`] has ended.
    Performed {
        /// The handoff that activated the agent.
        handoff: HandoffId,
        /// R: what accrued in it.
        reward: Return,
        /// How long it took.
        tau: Tau,
        /// What it used up.
        usage: Usage,
        /// What comes next.
        next: Next,
    },
    /// The local operation of an adaptable agent came to nothing: its failures are counted once the task is over, and
    /// nothing else is learned of it.
    Failed {
        /// The handoff that activated the agent.
        handoff: HandoffId,
        /// What it used up; at least one failure is counted.
        usage: Usage,
        /// What comes next.
        next: Next,
    },
    /// A successor's value came back for a handoff that this participant made.
    Valued(ValueMessage),
    /// The task ended in a handoff that this participant made: it chose to finish, or a deadline cut the task off.
    /// Under trajectory credit `reward` is the return of the whole task, else what the ending itself earned.
    Finished {
        /// The handoff made by this participant.
        handoff: HandoffId,
        /// The terminal reward.
        reward: Return,
    },
    /// The event that ends the task of this handoff comes next, and what it earned may be trusted so far.
    Trusted {
        /// The handoff of that event.
        handoff: HandoffId,
        /// It scales the steps of what is learned from that event.
        confidence: Confidence,
    },
    /// Give up a handoff: one that was made and never answered, or one that was received and will not be worked on.
    Expired {
        /// The handoff.
        handoff: HandoffId,
    },
    /// A predecessor asks again for the value of a situation, by handle (extension).
    Asked {
        /// Who asks.
        from: AgentId,
        /// This participant's own name for the situation.
        handle: Handle,
    },
    /// A receiver answered such a question (extension).
    Answered {
        /// Who answers.
        from: AgentId,
        /// Its name for the situation.
        handle: Handle,
        /// Its value there now.
        value: Value,
    },
    /// A choice begins with what an earlier policy says of it ([`crate::warm`]); told before the first handoff.
    Primed {
        /// Successor or local operation.
        table: Table,
        /// The situation.
        signature: Signature,
        /// The choice.
        action: ActionId,
        /// Its value.
        value: Value,
        /// The visits that it counts as, at least one.
        weight: u32,
    },
    /// Ask all receivers known to the local model for their current values (extension).
    Replan,
}

/// What a participant wants done, in order. Exhaustive on purpose: a driver must handle every one.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// Make this durable before anything that follows it leaves.
    Record(Record),
    /// Return the one scalar.
    Value {
        /// The predecessor.
        to: AgentId,
        /// What it is told.
        message: ValueMessage,
    },
    /// Do the work.
    Perform {
        /// The handoff that activated the agent.
        handoff: HandoffId,
        /// Which operation; always 0 for pre-configured agents.
        operation: OperationId,
        /// The successor already chosen, by an agent that decides before its operation.
        committed: Option<ActionId>,
    },
    /// Pass the task on.
    Send(Handoff),
    /// Conclude the task; the driver reports [`Event::Finished`] for the handoff once the reward is known.
    Finish {
        /// The concluding handoff.
        handoff: HandoffId,
    },
    /// Ask a receiver for its current value (extension).
    Ask {
        /// The receiver.
        to: AgentId,
        /// Its name for the situation.
        handle: Handle,
    },
    /// Answer such a question (extension).
    Answer {
        /// Who asked.
        to: AgentId,
        /// The situation.
        handle: Handle,
        /// Its value now.
        value: Value,
    },
}

/// The effects of one event, in order.
pub type Effects = Vec<Effect>;

/// What a column of the successor table means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Choice {
    /// Hand the task to this agent.
    HandTo(AgentId),
    /// Conclude the task.
    Finish,
}

/// How much a participant keeps. Beyond these, the oldest is dropped and counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Handoffs made and not yet answered.
    pub pending_max: usize,
    /// Handoffs received and still worked on; more are refused.
    pub active_max: usize,
    /// Handoffs remembered after their end, to answer duplicates and to tell them from unknown ones.
    pub remembered_max: usize,
    /// What the extensions keep, of each kind: situations named or answered, receivers, and settled steps.
    pub extended_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Limits { pending_max: 100_000, active_max: 100_000, remembered_max: 10_000, extended_max: 10_000 }
    }
}

/// Whether records are made. A simulation that keeps no ledger omits them; nothing else changes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Journal {
    /// Every accepted event and everything that follows from it is recorded.
    #[default]
    Kept,
    /// No records.
    Omitted,
}

/// Everything a participant is made of.
#[derive(Clone, Debug, PartialEq)]
pub struct ParticipantSpec {
    /// Who it is.
    pub id: AgentId,
    /// The meaning of each column of its successor table.
    pub choices: Vec<Choice>,
    /// How it learns.
    pub learner: LearnerSpec,
    /// Reward of handing over, usually a negative cost; it belongs to the option of the choice that causes it.
    pub handoff_reward: Return,
    /// How much it keeps.
    pub limits: Limits,
    /// Whether it records.
    pub journal: Journal,
}

/// Why an event was refused. Nothing has changed then.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum ProtocolError {
    /// Addressed to somebody else.
    #[error("handoff {handoff} is addressed to agent {to:?}, not to {me:?}")]
    NotAddressed {
        /// The handoff.
        handoff: HandoffId,
        /// Its addressee.
        to: AgentId,
        /// This participant.
        me: AgentId,
    },
    /// Too much is being worked on.
    #[error("{active} handoffs are being worked on, the most allowed; try again when some have ended")]
    Overloaded {
        /// How many.
        active: usize,
    },
    /// Not being worked on.
    #[error("handoff {handoff} is not being worked on")]
    NotActive {
        /// The handoff.
        handoff: HandoffId,
    },
    /// No choice, or one that does not exist.
    #[error("the observation admits {found} choices up to column {span}; the agent has {width}")]
    Choices {
        /// How many are admissible.
        found: usize,
        /// One more than the largest column.
        span: usize,
        /// How many columns the table has.
        width: usize,
    },
    /// A ledger could not hold the observation.
    #[error(
        "the observation of handoff {handoff} cannot be recorded: features must be finite and at most 2^20, \
         choices at most 2^16"
    )]
    Unrecordable {
        /// The handoff.
        handoff: HandoffId,
    },
    /// The features do not fit the estimator.
    #[error(transparent)]
    Features(#[from] FeatureError),
    /// The driver reports something that this kind of agent does not do.
    #[error("{0}")]
    Regime(&'static str),
    /// A prior that cannot be taken over.
    #[error("a prior is refused: {0}")]
    Prior(&'static str),
    /// The episode has too many handoffs.
    #[error("the task of handoff {handoff} has had 2^32 handoffs")]
    TooLong {
        /// The last handoff.
        handoff: HandoffId,
    },
}

/// What was dropped or refused; shown to operators.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct Counters {
    /// Handoffs received.
    #[n(0)]
    pub received: u64,
    /// Steps learned from.
    #[n(1)]
    pub settled: u64,
    /// Handoffs received twice or more.
    #[n(2)]
    pub duplicate_handoffs: u64,
    /// Values for a handoff that was already settled or had expired.
    #[n(3)]
    pub late_values: u64,
    /// Values for a handoff this participant never made, or has forgotten.
    #[n(4)]
    pub unknown_values: u64,
    /// Values outside of the declared bounds, clamped.
    #[n(5)]
    pub clamped_values: u64,
    /// Handoffs given up without learning from them.
    #[n(6)]
    pub expired: u64,
    /// Events refused with a [`ProtocolError`].
    #[n(7)]
    pub refused: u64,
}
