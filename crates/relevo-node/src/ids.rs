//! Who and what is known to other organisations, and under which name. All are arguments: nothing here asks for the time
//! or for entropy.

use std::fmt;

use relevo_core::ids::{AgentId, EpisodeId, HandoffId};
use uuid::{Builder, Uuid, Variant};

/// Another organisation, numbered once and for ever by the store; 0 is the node's own operator.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerId(pub u32);

impl PeerId {
    /// Who runs this node.
    pub const OPERATOR: PeerId = PeerId(0);

    /// How agents of this node know it: as somebody who hands to them.
    pub fn agent(self) -> AgentId {
        AgentId::peer(self.0)
    }
}

/// The id of a handoff between organisations: a UUID of version 7, lower case, the same in every message about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WireId(Uuid);

impl WireId {
    /// The id made at this time, in milliseconds since 1970, with these random bits.
    pub fn new(now_ms: u64, random: &[u8; 10]) -> Self {
        WireId(Builder::from_unix_timestamp_millis(now_ms, random).into_uuid())
    }

    /// An id as it is written; `None` where it is written in another way, or is of another version.
    pub fn parse(text: &str) -> Option<Self> {
        let id = Uuid::try_parse(text).ok().filter(|id| id.hyphenated().to_string() == text)?;
        Self::of_uuid(id)
    }

    /// An id as it is kept.
    pub fn from_bytes(bytes: [u8; 16]) -> Option<Self> {
        Self::of_uuid(Uuid::from_bytes(bytes))
    }

    fn of_uuid(id: Uuid) -> Option<Self> {
        (id.get_version_num() == 7 && id.get_variant() == Variant::RFC4122).then_some(WireId(id))
    }

    /// As it is kept.
    pub fn bytes(&self) -> [u8; 16] {
        *self.0.as_bytes()
    }

    /// When it was made, in milliseconds since 1970 by its maker's clock.
    pub fn made_ms(&self) -> u64 {
        let mut bytes = [0; 8];
        bytes[2..].copy_from_slice(&self.0.as_bytes()[..6]);
        u64::from_be_bytes(bytes)
    }
}

impl fmt::Display for WireId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.hyphenated().fmt(f)
    }
}

/// A task that was handed to this node. It follows from who handed it over and under which id, so that a handoff that is
/// sent again is the same task, and no organisation can name another's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TaskId(Uuid);

impl TaskId {
    /// The task that `peer` handed over in the message of this id.
    pub fn of(peer: &str, message: &str) -> Self {
        let mut hasher = blake3::Hasher::new_derive_key("relevo 2026 task of a node v1");
        hasher.update(&(peer.len() as u64).to_le_bytes()).update(peer.as_bytes()).update(message.as_bytes());
        let mut bytes = [0; 16];
        bytes.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
        TaskId(Builder::from_custom_bytes(bytes).into_uuid())
    }

    /// An id as it is written.
    pub fn parse(text: &str) -> Option<Self> {
        Uuid::try_parse(text).ok().filter(|id| id.hyphenated().to_string() == text).map(TaskId)
    }

    /// An id as it is kept.
    pub fn from_bytes(bytes: [u8; 16]) -> Self {
        TaskId(Uuid::from_bytes(bytes))
    }

    /// As it is kept.
    pub fn bytes(&self) -> [u8; 16] {
        *self.0.as_bytes()
    }

    /// The episode that it is to the agents of this node.
    pub fn episode(&self) -> EpisodeId {
        EpisodeId(self.0.as_u128())
    }

    /// The handoff by which it came in from `peer`.
    pub fn opening(&self, peer: PeerId) -> HandoffId {
        HandoffId { episode: self.episode(), seq: 0, from: peer.agent() }
    }
}

impl fmt::Display for TaskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.hyphenated().fmt(f)
    }
}
