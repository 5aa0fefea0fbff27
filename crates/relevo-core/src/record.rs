//! Records: what a participant did and why, in canonical bytes, chained by hash. Produced by [`crate::protocol`],
//! stored by a driver before any effect leaves, folded by [`crate::graph`], and replayed by [`crate::replay`].
//!
//! A ledger is a CBOR sequence (RFC 8742) of [`Entry`] items: integers in their shortest form, arrays of stated
//! length, floats always as 64 bits (features as 32). The first item is an [`Record::Opened`]; a [`Record::Sealed`]
//! carries the BLAKE3 chain head over every byte before it.

use alloc::{
    boxed::Box,
    string::{String, ToString},
    vec::Vec,
};
use minicbor::{Decode, Encode};

use crate::{
    ids::{ActionId, AgentId, EpisodeId, Handle, HandoffId, OperationId},
    observation::{Observation, Signature},
    protocol::{Event, Handoff, Next, ValueMessage},
    units::{Confidence, Cost, Return, Tau, Usage, Value},
};

/// The version of the record format, written into every ledger.
pub const FORMAT: &str = "relevo.ledger/v1";

/// Which of an agent's two tables a choice belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
#[cbor(index_only)]
pub enum Table {
    /// Q: who comes next.
    #[n(0)]
    Successors,
    /// Q~: which local operation (adaptable agents).
    #[n(1)]
    Operations,
}

/// The direction in which a handoff crossed to or from another organisation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
#[cbor(index_only)]
pub enum Way {
    /// It came from there.
    #[n(0)]
    In,
    /// It went there.
    #[n(1)]
    Out,
}

/// One entry of a ledger: whose record it is, and the record.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
#[cbor(array)]
pub struct Entry {
    /// The agent, or [`AgentId::ORIGIN`] for the driver's own records.
    #[n(0)]
    pub agent: AgentId,
    /// The record.
    #[n(1)]
    pub record: Record,
}

/// One fact. The first five, [`Record::Failed`], [`Record::Primed`] and [`Record::Trusted`] mirror the events that a participant accepted, so
/// that a ledger can be replayed; the others are what followed from them, or the driver's own.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
#[cbor(flat)]
pub enum Record {
    /// Control arrived with an artifact of which this was seen.
    #[n(0)]
    Received {
        /// The handoff.
        #[n(0)]
        handoff: Handoff,
        /// What the agent saw.
        #[n(1)]
        observation: Observation,
    },
    /// An operation ended.
    #[n(1)]
    Performed {
        /// The handoff that activated the agent.
        #[n(0)]
        handoff: HandoffId,
        /// R, what accrued during the operation.
        #[n(1)]
        reward: Return,
        /// How long it took.
        #[n(2)]
        tau: Tau,
        /// What it used up.
        #[n(3)]
        usage: Usage,
        /// What comes next.
        #[n(4)]
        next: Next,
    },
    /// The successor's value came back.
    #[n(2)]
    Valued {
        /// The message.
        #[n(0)]
        message: ValueMessage,
    },
    /// The task ended in this handoff.
    #[n(3)]
    Finished {
        /// The handoff that led to the end.
        #[n(0)]
        handoff: HandoffId,
        /// The terminal reward.
        #[n(1)]
        reward: Return,
    },
    /// A receiver, asked again, told its current value (extension).
    #[n(4)]
    Answered {
        /// The receiver.
        #[n(0)]
        from: AgentId,
        /// Its name for the situation.
        #[n(1)]
        handle: Handle,
        /// Its current value there.
        #[n(2)]
        value: Value,
    },
    /// A handoff was given up: dropped without learning from it.
    #[n(5)]
    Expired {
        /// The handoff.
        #[n(0)]
        handoff: HandoffId,
    },
    /// A choice was made.
    #[n(6)]
    Decided {
        /// The handoff that activated the agent.
        #[n(0)]
        handoff: HandoffId,
        /// Successor or local operation.
        #[n(1)]
        table: Table,
        /// The situation.
        #[n(2)]
        signature: Signature,
        /// The choice.
        #[n(3)]
        action: ActionId,
        /// Whether it had the largest value.
        #[n(4)]
        greedy: bool,
        /// The probability of each admissible choice, in ascending order of their columns.
        #[n(5)]
        probabilities: Box<[f64]>,
        /// Position of the random stream before the draw.
        #[n(6)]
        position: u64,
    },
    /// A choice was learned from.
    #[n(7)]
    Settled {
        /// The handoff by which it is known: the one made (successors), or the one that activated the agent
        /// (operations).
        #[n(0)]
        handoff: HandoffId,
        /// Successor or local operation.
        #[n(1)]
        table: Table,
        /// The situation in which the choice was made.
        #[n(2)]
        signature: Signature,
        /// The choice.
        #[n(3)]
        action: ActionId,
        /// R of the option.
        #[n(4)]
        reward: Return,
        /// Its duration.
        #[n(5)]
        tau: Tau,
        /// The target y = R + gamma^tau V.
        #[n(6)]
        target: f64,
        /// How far the estimate moved towards it.
        #[n(7)]
        step: f64,
        /// What it used up.
        #[n(8)]
        usage: Usage,
        /// gamma^tau times the standard error that came with V (extension).
        #[n(9)]
        spread: Option<f64>,
        /// The situation in which the agent's next credited operation was chosen (relay and trajectory credit).
        #[n(10)]
        lead: Option<Signature>,
    },
    /// A value was re-computed without a new sample (extensions: local model, refresh).
    #[n(8)]
    Revised {
        /// Successor or local operation.
        #[n(0)]
        table: Table,
        /// The situation.
        #[n(1)]
        signature: Signature,
        /// The choice.
        #[n(2)]
        action: ActionId,
        /// Its value now.
        #[n(3)]
        value: f64,
    },
    /// The agent was told to re-compute its local model (extension).
    #[n(9)]
    Replanned,
    /// A ledger begins.
    #[n(10)]
    Opened {
        /// [`FORMAT`].
        #[n(0)]
        format: String,
        /// BLAKE3 of everything that determines the run besides the seed: the team and the limits of the run.
        #[cbor(n(1), with = "minicbor::bytes")]
        config: [u8; 32],
        /// The seed.
        #[n(2)]
        seed: u64,
        /// The number of episodes asked for.
        #[n(3)]
        episodes: u64,
    },
    /// A signature was met for the first time under this readable name.
    #[n(11)]
    Named {
        /// The signature.
        #[n(0)]
        signature: Signature,
        /// Its name.
        #[n(1)]
        name: String,
    },
    /// An episode ended.
    #[n(12)]
    Closed {
        /// Its number.
        #[n(0)]
        episode: u64,
        /// Its whole return, discounted as the team says.
        #[n(1)]
        episode_return: f64,
        /// Handoffs made.
        #[n(2)]
        handoffs: u32,
        /// Why it stopped.
        #[n(3)]
        stop: String,
        /// What it has cost, where later tasks are measured by that.
        #[n(4)]
        cost: Option<Cost>,
    },
    /// Everything before this is complete.
    #[n(13)]
    Sealed {
        /// The chain head over all bytes before this entry.
        #[cbor(n(0), with = "minicbor::bytes")]
        head: [u8; 32],
    },
    /// A local operation came to nothing.
    #[n(14)]
    Failed {
        /// The handoff that activated the agent.
        #[n(0)]
        handoff: HandoffId,
        /// What it used up.
        #[n(1)]
        usage: Usage,
        /// What comes next.
        #[n(2)]
        next: Next,
    },
    /// Failed attempts were counted against a choice from which nothing was learned.
    #[n(15)]
    Missed {
        /// Successor or local operation.
        #[n(0)]
        table: Table,
        /// The situation.
        #[n(1)]
        signature: Signature,
        /// The choice.
        #[n(2)]
        action: ActionId,
        /// How many attempts.
        #[n(3)]
        failures: u32,
    },
    /// A choice begins with what an earlier policy says of it.
    #[n(16)]
    Primed {
        /// Successor or local operation.
        #[n(0)]
        table: Table,
        /// The situation.
        #[n(1)]
        signature: Signature,
        /// The choice.
        #[n(2)]
        action: ActionId,
        /// Its value at the start.
        #[n(3)]
        value: Value,
        /// The visits that it counts as.
        #[n(4)]
        weight: u32,
    },
    /// A call that left the process has come back.
    #[n(17)]
    Called {
        /// The handoff that activated the participant.
        #[n(0)]
        handoff: HandoffId,
        /// Who was called, by its place in the team file.
        #[n(1)]
        agent: AgentId,
        /// The operation.
        #[n(2)]
        operation: OperationId,
        /// `done`, or the kind of the failure.
        #[n(3)]
        ended: String,
        /// What it used up.
        #[n(4)]
        usage: Usage,
        /// What it was charged, in the team's currency.
        #[n(5)]
        money: f64,
        /// How long it took, in milliseconds.
        #[n(6)]
        ms: u64,
        /// BLAKE3 of the outcome, which is kept beside the ledger until the task has ended: what has been paid for is
        /// not called again.
        #[cbor(n(7), with = "minicbor::bytes")]
        outcome: [u8; 32],
    },
    /// Choices were kept from the decision that follows.
    #[n(18)]
    Masked {
        /// The handoff that activated the participant.
        #[n(0)]
        handoff: HandoffId,
        /// By which guard.
        #[n(1)]
        guard: String,
        /// Which choices, in ascending order of their columns.
        #[n(2)]
        actions: Box<[ActionId]>,
    },
    /// A call waits for a person.
    #[n(19)]
    Paused {
        /// The handoff that activated the participant.
        #[n(0)]
        handoff: HandoffId,
        /// Who is to be called.
        #[n(1)]
        agent: AgentId,
        /// Why, as a word.
        #[n(2)]
        why: String,
    },
    /// A person, or the time that had passed, gave the answer.
    #[n(20)]
    Permitted {
        /// The handoff that activated the participant.
        #[n(0)]
        handoff: HandoffId,
        /// Whether the call may be made.
        #[n(1)]
        granted: bool,
        /// Who said so.
        #[n(2)]
        by: String,
    },
    /// A task was judged, or could not be.
    #[n(22)]
    Judged {
        /// Number of the episode.
        #[n(0)]
        episode: u64,
        /// The quality of what came out, in [0, 1].
        #[n(1)]
        quality: Option<f64>,
        /// How far that may be trusted.
        #[n(2)]
        confidence: Confidence,
        /// What judging it used up.
        #[n(3)]
        usage: Usage,
        /// What that was charged, in the team's currency.
        #[n(4)]
        money: f64,
        /// How long it took, in milliseconds.
        #[n(5)]
        ms: u64,
    },
    /// A judge was tried, when the task and those of its group were judged.
    #[n(24)]
    Tried {
        /// Number of the episode.
        #[n(0)]
        episode: u64,
        /// Who was tried.
        #[n(1)]
        judge: String,
        /// How, as a word.
        #[n(2)]
        check: String,
        /// What came of it: the quality that it gave where none was due, or its agreement with others.
        #[n(3)]
        value: Option<f64>,
        /// Mean distance of its qualities from another's.
        #[n(4)]
        distance: Option<f64>,
        /// Whether it was fooled.
        #[n(5)]
        fooled: bool,
    },
    /// What ends a task may be trusted so far.
    #[n(23)]
    Trusted {
        /// The handoff of the event that comes next.
        #[n(0)]
        handoff: HandoffId,
        /// How far.
        #[n(1)]
        confidence: Confidence,
    },
    /// All work was stopped from outside.
    #[n(21)]
    Halted {
        /// By whom.
        #[n(0)]
        by: String,
        /// Why.
        #[n(1)]
        reason: String,
    },
    /// A handoff crossed to or from another organisation, which knows it under another id.
    #[n(25)]
    Crossed {
        /// The handoff, as it is known here.
        #[n(0)]
        handoff: HandoffId,
        /// Its id on the wire.
        #[cbor(n(1), with = "minicbor::bytes")]
        wire: [u8; 16],
        /// The other organisation.
        #[n(2)]
        peer: String,
        /// In which direction.
        #[n(3)]
        way: Way,
    },
    /// The driver gave a handoff up: nothing is learned from it.
    #[n(26)]
    Censored {
        /// The handoff.
        #[n(0)]
        handoff: HandoffId,
        /// Why, as a word.
        #[n(1)]
        why: String,
    },
    /// Snapshots of all participants were taken.
    #[n(27)]
    Snapshotted {
        /// How many entries of the ledger they cover.
        #[n(0)]
        entries: u64,
        /// BLAKE3 of them.
        #[cbor(n(1), with = "minicbor::bytes")]
        digest: [u8; 32],
    },
}

impl Record {
    /// The event that this record mirrors, if it mirrors one.
    pub fn event(&self) -> Option<Event> {
        Some(match self.clone() {
            Record::Received { handoff, observation } => Event::Received { handoff, observation },
            Record::Performed { handoff, reward, tau, usage, next } => {
                Event::Performed { handoff, reward, tau, usage, next }
            }
            Record::Failed { handoff, usage, next } => Event::Failed { handoff, usage, next },
            Record::Valued { message } => Event::Valued(message),
            Record::Finished { handoff, reward } => Event::Finished { handoff, reward },
            Record::Answered { from, handle, value } => Event::Answered { from, handle, value },
            Record::Expired { handoff } => Event::Expired { handoff },
            Record::Trusted { handoff, confidence } => Event::Trusted { handoff, confidence },
            Record::Replanned => Event::Replan,
            Record::Primed { table, signature, action, value, weight } => {
                Event::Primed { table, signature, action, value, weight }
            }
            _ => return None,
        })
    }

    /// Whether it is one of the driver's own.
    fn is_drivers(&self) -> bool {
        use Record::{
            Called, Censored, Closed, Crossed, Halted, Judged, Masked, Named, Opened, Paused, Permitted,
            Sealed, Snapshotted, Tried,
        };
        let of_run =
            matches!(self, Opened { .. } | Named { .. } | Closed { .. } | Sealed { .. } | Halted { .. });
        let of_task = matches!(self, Masked { .. } | Called { .. } | Paused { .. } | Permitted { .. });
        let of_node = matches!(self, Crossed { .. } | Censored { .. } | Snapshotted { .. });
        of_run || of_task || of_node || matches!(self, Judged { .. } | Tried { .. })
    }

    /// The task that it is about, where it says so.
    pub fn episode(&self) -> Option<EpisodeId> {
        Some(match self {
            Record::Received { handoff: Handoff { id, .. }, .. }
            | Record::Valued { message: ValueMessage { handoff: id, .. } }
            | Record::Performed { handoff: id, .. }
            | Record::Failed { handoff: id, .. }
            | Record::Finished { handoff: id, .. }
            | Record::Expired { handoff: id }
            | Record::Decided { handoff: id, .. }
            | Record::Settled { handoff: id, .. }
            | Record::Called { handoff: id, .. }
            | Record::Masked { handoff: id, .. }
            | Record::Paused { handoff: id, .. }
            | Record::Trusted { handoff: id, .. }
            | Record::Crossed { handoff: id, .. }
            | Record::Censored { handoff: id, .. }
            | Record::Permitted { handoff: id, .. } => id.episode,
            Record::Closed { episode, .. }
            | Record::Judged { episode, .. }
            | Record::Tried { episode, .. } => EpisodeId(u128::from(*episode)),
            _ => return None,
        })
    }
}

impl Entry {
    /// Append the canonical bytes of the entry to `bytes`.
    pub fn write(&self, bytes: &mut Vec<u8>) {
        minicbor::encode(self, bytes).expect("writing into memory cannot fail");
    }

    /// Whether every number in it is finite.
    fn is_finite(&self) -> bool {
        match &self.record {
            Record::Received { observation, .. } => observation.features.is_finite(),
            Record::Performed { next: Next::Operate(o) | Next::HandOver(o), .. }
            | Record::Failed { next: Next::Operate(o) | Next::HandOver(o), .. } => o.features.is_finite(),
            Record::Decided { probabilities, .. } => probabilities.iter().all(|p| p.is_finite()),
            Record::Settled { target, step, spread, .. } => {
                target.is_finite() && step.is_finite() && spread.is_none_or(f64::is_finite)
            }
            Record::Revised { value, .. } => value.is_finite(),
            Record::Closed { episode_return, cost, .. } => {
                episode_return.is_finite() && cost.is_none_or(|cost| cost.money.is_finite())
            }
            Record::Called { money, .. } => money.is_finite(),
            Record::Judged { quality, money, .. } => quality.is_none_or(f64::is_finite) && money.is_finite(),
            Record::Tried { value, distance, .. } => {
                [value, distance].into_iter().all(|x| x.is_none_or(f64::is_finite))
            }
            // Values and returns refuse other numbers as they are decoded.
            _ => true,
        }
    }
}

/// The chain of seals: `head_k = BLAKE3(head_{k-1}, every byte since seal k-1, that seal included)`.
#[derive(Clone, Debug)]
pub struct Chain {
    hasher: blake3::Hasher,
}

impl Default for Chain {
    fn default() -> Self {
        Chain { hasher: blake3::Hasher::new_derive_key("relevo 2026 ledger chain v1") }
    }
}

impl Chain {
    /// Take in the bytes of an entry.
    pub fn absorb(&mut self, bytes: &[u8]) {
        self.hasher.update(bytes);
    }

    /// The head over all that was absorbed, and the start of the next link.
    pub fn seal(&mut self) -> [u8; 32] {
        let head = *self.hasher.finalize().as_bytes();
        *self = Chain::default();
        self.hasher.update(&head);
        head
    }
}

/// Reads the entries of a ledger in order and verifies every seal on the way.
pub struct Reader<'b> {
    bytes: &'b [u8],
    decoder: EntryDecoder,
}

impl<'b> Reader<'b> {
    /// A reader of a whole ledger.
    pub fn new(bytes: &'b [u8]) -> Self {
        Reader { bytes, decoder: EntryDecoder::default() }
    }

    /// Where the next entry begins, in bytes.
    pub fn offset(&self) -> usize {
        self.decoder.offset as usize
    }

    /// The chain as it stands after the entries read, to be carried on by a writer.
    pub fn chain(&self) -> &Chain {
        self.decoder.chain()
    }

    /// The next entry; `None` at the end. After an error nothing more can be read.
    pub fn next_entry(&mut self) -> Result<Option<Entry>, RecordError> {
        let rest = &self.bytes[self.offset()..];
        self.decoder.decode(rest)
    }
}

/// What [`Reader`] does, for a ledger of which only a part is in memory.
#[derive(Debug, Default)]
pub struct EntryDecoder {
    offset: u64,
    entry: u64,
    chain: Chain,
    scratch: Vec<u8>,
}

impl EntryDecoder {
    /// A decoder of what follows the seal of this head, the last of so many entries; offsets count from there.
    pub fn after(head: [u8; 32], entries: u64) -> Self {
        let mut chain = Chain::default();
        chain.absorb(&head);
        let mut seal = Vec::new();
        Entry { agent: AgentId::ORIGIN, record: Record::Sealed { head } }.write(&mut seal);
        chain.absorb(&seal);
        EntryDecoder { entry: entries, chain, ..EntryDecoder::default() }
    }

    /// How many entries there are before the next.
    pub fn entries(&self) -> u64 {
        self.entry
    }

    /// Where the next entry begins, in bytes from the start of the ledger.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// The chain as it stands after the entries decoded.
    pub fn chain(&self) -> &Chain {
        &self.chain
    }

    /// The entry with which `rest` begins, the bytes of the ledger from [`EntryDecoder::offset`] on; `None` where there
    /// are none. After [`RecordError::CutOff`] it may be asked again with more of them, after other errors not.
    pub fn decode(&mut self, rest: &[u8]) -> Result<Option<Entry>, RecordError> {
        let (entry, offset) = (self.entry, self.offset);
        if rest.is_empty() {
            return Ok(None);
        }
        let mut decoder = minicbor::Decoder::new(rest);
        let decoded: Entry = decoder.decode().map_err(|e| match e.is_end_of_input() {
            true => RecordError::CutOff { entry, offset },
            false => RecordError::Unreadable { entry, offset, reason: e.to_string() },
        })?;
        let bytes = &rest[..decoder.position()];
        self.scratch.clear();
        decoded.write(&mut self.scratch);
        if self.scratch != bytes || !decoded.is_finite() {
            return Err(RecordError::NotCanonical { entry, offset });
        }
        // A seal does not cover its own entry: what it does not cover must have one form only.
        if decoded.record.is_drivers() && decoded.agent != AgentId::ORIGIN {
            let reason = "the driver's own record under the id of an agent".to_string();
            return Err(RecordError::Unreadable { entry, offset, reason });
        }
        match &decoded.record {
            Record::Opened { format, .. } if entry == 0 && format == FORMAT => {}
            Record::Opened { format, .. } => return Err(RecordError::Format { found: format.clone() }),
            other if entry == 0 => return Err(RecordError::Format { found: alloc::format!("{other:?}") }),
            Record::Sealed { head } if *head != self.chain.seal() => {
                return Err(RecordError::Altered { entry, offset });
            }
            _ => {}
        }
        self.chain.absorb(bytes);
        self.offset += bytes.len() as u64;
        self.entry += 1;
        Ok(Some(decoded))
    }
}

/// A decoding fault, with where it lies.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// The bytes end within an entry.
    #[error("entry {entry} at byte {offset} is cut off")]
    CutOff {
        /// Number of the entry, from 0.
        entry: u64,
        /// Its first byte.
        offset: u64,
    },
    /// The bytes are no entry of this format.
    #[error("entry {entry} at byte {offset} cannot be read: {reason}")]
    Unreadable {
        /// Number of the entry, from 0.
        entry: u64,
        /// Its first byte.
        offset: u64,
        /// What is wrong.
        reason: String,
    },
    /// An entry is readable but its bytes are not the canonical ones, or a number in it is not finite.
    #[error("entry {entry} at byte {offset} is not in canonical form")]
    NotCanonical {
        /// Number of the entry, from 0.
        entry: u64,
        /// Its first byte.
        offset: u64,
    },
    /// The bytes before a seal are not those that were sealed.
    #[error("entry {entry} at byte {offset} seals other bytes than those before it: the ledger was altered")]
    Altered {
        /// Number of the sealing entry, from 0.
        entry: u64,
        /// Its first byte.
        offset: u64,
    },
    /// The ledger does not begin as one of this format does.
    #[error("the ledger opens as {found:?}; this program reads {FORMAT:?}")]
    Format {
        /// What stands there.
        found: String,
    },
}
