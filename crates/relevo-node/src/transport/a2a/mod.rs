//! A2A 1.0 over HTTP, both ways: what others ask of this node, and what it asks of others. Both bindings, JSON-RPC and
//! HTTP+JSON.
//!
//! Types and formats are the official SDK's; who may ask, what is kept and how much is read are this crate's.

mod admit;
mod card;
mod client;
mod door;
mod follow;
mod identity;
mod push;
mod reply;
mod tap;

use std::sync::Arc;

pub use client::{A2aTransport, ClientLimits, ClientSpec, PeerAddress};
pub use identity::{Certificate, Identities, Identity, Secret, TokenHash};
pub use push::Pusher;
pub use tap::Tap;

pub(crate) use admit::{Gate, activate, admit, rest};
pub(crate) use card::card;
pub(crate) use door::Door;
pub(crate) use identity::Shown;

/// The time now, in milliseconds since 1970.
pub type Clock = Arc<dyn Fn() -> u64 + Send + Sync>;

/// The path of a card below its agent.
pub(crate) const CARD_PATH: &str = "/.well-known/agent-card.json";
