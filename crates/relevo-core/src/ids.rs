//! Identities: who, which choice, which handoff. All are given by the caller; the core never makes one up
//! from a clock or from ambient randomness.

use core::fmt;
use minicbor::{Decode, Encode};

/// One agent of a team, numbered in the order of the team file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
#[cbor(transparent)]
pub struct AgentId(#[n(0)] pub u32);

impl AgentId {
    /// Where tasks come from and finished tasks return to. No participant has this id.
    pub const ORIGIN: AgentId = AgentId(u32::MAX);
}

/// One choice of one agent: a column of its value table. Its name ("editor", "skip:memory", "finish") lives in
/// the team file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
#[cbor(transparent)]
pub struct ActionId(#[n(0)] pub u32);

impl ActionId {
    /// The column as an index.
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// One local operation of an agent (an adaptable agent has several, a pre-configured one has operation 0).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
#[cbor(transparent)]
pub struct OperationId(#[n(0)] pub u32);

/// One task on its way through the team, from its first handoff to its end.
// At the alignment of a u128, every id of a handoff would be a quarter padding.
#[repr(C, packed(8))]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EpisodeId(pub u128);

/// One handoff: the only thing, besides one number, that ever comes back over a boundary.
///
/// Ids are minted by the sender as `(episode, seq, from)`, `seq` counting the handoffs of the episode, so that
/// the same events give the same ids and no two senders can mint the same one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HandoffId {
    /// The task this handoff belongs to.
    pub episode: EpisodeId,
    /// Place of the handoff in its episode; the origin's own is 0.
    pub seq: u32,
    /// Who handed over.
    pub from: AgentId,
}

impl HandoffId {
    /// The handoff by which a task enters the team.
    pub fn opening(episode: EpisodeId) -> Self {
        HandoffId { episode, seq: 0, from: AgentId::ORIGIN }
    }

    /// The handoff that `from` makes after having been activated by `self`; `None` after 2^32 - 1 handoffs.
    pub fn next(self, from: AgentId) -> Option<Self> {
        Some(HandoffId { episode: self.episode, seq: self.seq.checked_add(1)?, from })
    }
}

impl fmt::Display for HandoffId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let EpisodeId(episode) = self.episode;
        match self.from {
            AgentId::ORIGIN => write!(f, "{episode:x}/{}/origin", self.seq),
            AgentId(from) => write!(f, "{episode:x}/{}/{from}", self.seq),
        }
    }
}

/// An opaque name that a receiver gives to one of its own situations, so that it can be asked again for its
/// current value there (extension `local model`). It tells nothing but equality.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
#[cbor(transparent)]
pub struct Handle(#[n(0)] pub u64);

// An episode id is 128 bits on the wire between organisations but a small counter inside one run; CBOR integers
// stop at 64 bits, so the id is written as [high, low] with both in their shortest form.
impl<C> Encode<C> for HandoffId {
    fn encode<W: minicbor::encode::Write>(
        &self,
        e: &mut minicbor::Encoder<W>,
        _: &mut C,
    ) -> Result<(), minicbor::encode::Error<W::Error>> {
        let EpisodeId(episode) = self.episode;
        e.array(4)?.u64((episode >> 64) as u64)?.u64(episode as u64)?.u32(self.seq)?.u32(self.from.0)?;
        Ok(())
    }
}

impl<'b, C> Decode<'b, C> for HandoffId {
    fn decode(d: &mut minicbor::Decoder<'b>, _: &mut C) -> Result<Self, minicbor::decode::Error> {
        if d.array()? != Some(4) {
            return Err(minicbor::decode::Error::message("a handoff id is an array of four integers"));
        }
        let episode = EpisodeId((u128::from(d.u64()?) << 64) | u128::from(d.u64()?));
        Ok(HandoffId { episode, seq: d.u32()?, from: AgentId(d.u32()?) })
    }
}
