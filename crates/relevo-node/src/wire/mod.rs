//! The only way in and out: A2A messages, read once, strictly, within limits; and written. `docs/wire.md` says what they
//! mean, `vectors/` what any implementation must do with them.

mod artifact;
mod card;
mod outcome;
mod reply;
mod request;
pub mod word;

use relevo::artifact::Artifact;
use relevo_core::units::Bounds;
use serde_json::{Map, Value};

use crate::ids::WireId;

pub use artifact::{FACTS_MEDIA_TYPE, crosses};
pub use outcome::{acknowledged, noted, outcome};
pub use reply::{answered, standing, status_metadata, task};
pub use request::{handoff, incoming};

/// The name of the extension by which values are passed; a change of its meaning is a new name.
pub const EXTENSION: &str = "https://w3id.org/relevo/a2a/value-passing/v1";

/// Why something that came in is refused. The word is what is counted, shown and answered; it never holds what came in.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{word}: {message}")]
pub struct WireError {
    /// The kind of fault: one of [`word::ALL`].
    pub word: &'static str,
    /// What is wrong, and what to send instead.
    pub message: String,
}

impl WireError {
    /// Whether the same may be taken later: clocks are set, and one that has gone back must not end what was taken on.
    pub fn is_transient(&self) -> bool {
        self.word == word::FUTURE_ID
    }
}

/// How much may come in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of what is handed over, or comes back.
    pub payload_bytes_max: usize,
    /// How far before the receiver's time the id of a handoff may lie, in milliseconds: older ones are forgotten.
    pub remembered_ms: u64,
}

/// The longest id of a message, a context or a task that is not an id of a handoff, in bytes.
pub const ID_BYTES_MAX: usize = 128;

/// The most parts that a message or a result may have.
pub const PARTS_MAX: usize = 16;

/// How deep lists and objects may be nested in what is handed over as JSON: protobuf readers go no deeper than 100
/// messages, of which a level takes up to three.
pub const NESTING_MAX: usize = 24;

/// The longest `sig` of a value, in bytes.
pub const SIG_BYTES_MAX: usize = 512;

/// How far ahead of the receiver's time the id of a handoff may lie, in milliseconds.
pub const AHEAD_MS_MAX: u64 = 5 * 60 * 1000;

/// What an agent declares on its card about the values it returns.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Terms {
    /// Between which V lies.
    pub bounds: Bounds,
    /// Its discount, for people: the sender's own applies.
    pub discount: f64,
    /// In what its durations are measured, for people.
    pub tau_unit: TauUnit,
    /// When V is known.
    pub emit: Emit,
}

/// In what durations are measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TauUnit {
    /// `call`: one call of an agent.
    Call,
    /// `second`
    Second,
    /// `handoff`
    Handoff,
}

/// When V is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Emit {
    /// `activation`: before the agent's work.
    Activation,
    /// `operation`: after it, which V then contains, discounted.
    Operation,
}

/// What came in.
#[derive(Clone, Debug, PartialEq)]
pub enum Incoming {
    /// Work.
    Handoff(Arrival),
    /// How good work was that went out of here.
    Outcome(OutcomeNote),
}

/// Work that came in.
#[derive(Clone, Debug, PartialEq)]
pub struct Arrival {
    /// The id of the message.
    pub message: String,
    /// How long the sender waits, counted from receipt; `None` from somebody who does not pass values.
    pub deadline_ms: Option<u32>,
    /// The context that the sender gives it, if it gives one.
    pub context: Option<String>,
    /// What is handed over.
    pub artifact: Artifact,
    /// BLAKE3 over the agent, whether values are passed, and the artifact, by which the same message is known from another
    /// under the same id. The deadline is not in it: whoever sends again has less time left.
    pub digest: [u8; 32],
}

/// How good the work of a handoff was.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct OutcomeNote {
    /// The handoff.
    pub handoff: WireId,
    /// In [0, 1].
    pub outcome: f64,
    /// Whether what was told lay outside.
    pub is_clamped: bool,
}

/// How a task stands at another organisation, as it tells.
#[derive(Clone, Debug, PartialEq)]
pub struct Standing {
    /// Its name there; none where it answered at once and keeps nothing.
    pub task: Option<String>,
    /// How far it is.
    pub progress: Progress,
    /// The value, if there is one; refused where it is not as it must be.
    pub value: Option<Result<f64, WireError>>,
}

/// How far a task is at another organisation.
#[derive(Clone, Debug, PartialEq)]
pub enum Progress {
    /// It is being worked on.
    Working,
    /// It wants something that nobody here can give.
    Asks,
    /// This came out.
    Completed(Artifact),
    /// Nothing came out, and why, as a word: `failed`, `canceled`, `rejected`, or that for which the result is refused.
    Ended(&'static str),
}

fn refused<T>(word: &'static str, message: impl Into<String>) -> Result<T, WireError> {
    Err(WireError { word, message: message.into() })
}

/// The object that has all of these fields, and no others but those.
fn object<'v>(value: &'v Value, must: &[&str], may: &[&str]) -> Option<&'v Map<String, Value>> {
    let object = value.as_object()?;
    let is_known = |name: &String| must.iter().chain(may).any(|known| known == name);
    (must.iter().all(|name| object.contains_key(*name)) && object.keys().all(is_known)).then_some(object)
}

/// A finite number.
fn number(value: &Value) -> Option<f64> {
    value.as_f64().filter(|number| number.is_finite())
}

/// A whole number from 1 to 2^31 - 1, also where it is written `1.0`: protobuf knows no other numbers than doubles.
fn count(value: &Value) -> Option<u32> {
    let in_range = |n: &f64| n.fract() == 0.0 && (1.0..=f64::from(i32::MAX)).contains(n);
    number(value).filter(in_range).map(|n| n as u32)
}

/// An id that others give, which goes into tables, logs and URLs.
fn is_plain_id(text: &str) -> bool {
    (1..=ID_BYTES_MAX).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic())
}
