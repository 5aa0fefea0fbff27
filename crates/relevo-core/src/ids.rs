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

    /// The bit that tells another organisation from an agent of the team.
    const PEER: u32 = 1 << 31;

    /// Another organisation, numbered by whoever knows it: where handoffs come from that no agent of this team made. No
    /// participant has this id.
    ///
    /// # Panics
    ///
    /// From 2^31 - 1 on, which would be [`AgentId::ORIGIN`] and others' ids.
    pub const fn peer(number: u32) -> AgentId {
        assert!(number < !Self::PEER, "a peer's number lies below 2^31 - 1");
        AgentId(Self::PEER | number)
    }

    /// The number of the other organisation, if it is one.
    ///
    /// ```
    /// use relevo_core::ids::AgentId;
    ///
    /// assert_eq!(AgentId::peer(3).as_peer(), Some(3));
    /// assert_eq!((AgentId(3).as_peer(), AgentId::ORIGIN.as_peer()), (None, None));
    /// ```
    pub const fn as_peer(self) -> Option<u32> {
        match self {
            AgentId::ORIGIN => None,
            AgentId(id) if id & Self::PEER != 0 => Some(id & !Self::PEER),
            AgentId(_) => None,
        }
    }
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
        match (self.from, self.from.as_peer()) {
            (AgentId::ORIGIN, _) => write!(f, "{episode:x}/{}/origin", self.seq),
            (_, Some(peer)) => write!(f, "{episode:x}/{}/peer-{peer}", self.seq),
            (AgentId(from), None) => write!(f, "{episode:x}/{}/{from}", self.seq),
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
