//! The words for what is refused on the wire. They are answered, counted and shown; `docs/wire.md` says what to do about
//! each.

/// The declaration on a card is not as it must be; its agent counts as one without the extension.
pub const BAD_CARD: &str = "bad-card";
/// A text that is not JSON, or not what A2A puts in its place.
pub const UNREADABLE: &str = "unreadable";
/// A tenant is named.
pub const TENANT: &str = "tenant";
/// A message that goes on with a task.
pub const NAMES_A_TASK: &str = "names-a-task";
/// An id that is not written as it must be, or two that must be the same and are not.
pub const BAD_ID: &str = "bad-id";
/// An id so old that it may have been forgotten.
pub const STALE_ID: &str = "stale-id";
/// An id from the future.
pub const FUTURE_ID: &str = "future-id";
/// The metadata of a request are not as they must be.
pub const BAD_METADATA: &str = "bad-metadata";
/// A deadline that is none.
pub const BAD_DEADLINE: &str = "bad-deadline";
/// An outcome that is no number.
pub const BAD_OUTCOME: &str = "bad-outcome";
/// Parts from which no payload can be made.
pub const BAD_PARTS: &str = "bad-parts";
/// Facts outside their limits.
pub const BAD_FACTS: &str = "bad-facts";
/// A payload that is to be fetched from somewhere.
pub const URL: &str = "url";
/// JSON that is nested too deep.
pub const TOO_DEEP: &str = "too-deep";
/// A payload that is too large.
pub const TOO_LARGE: &str = "too-large";
/// A value that is not as it must be.
pub const BAD_VALUE: &str = "bad-value";
/// An answer about another handoff.
pub const OTHER_ID: &str = "other-id";
/// A task that is not as A2A has it, or an answer that is none to what was asked.
pub const BAD_ANSWER: &str = "bad-answer";

/// All of them.
pub const ALL: [&str; 18] = [
    BAD_CARD,
    UNREADABLE,
    TENANT,
    NAMES_A_TASK,
    BAD_ID,
    STALE_ID,
    FUTURE_ID,
    BAD_METADATA,
    BAD_DEADLINE,
    BAD_OUTCOME,
    BAD_PARTS,
    BAD_FACTS,
    URL,
    TOO_DEEP,
    TOO_LARGE,
    BAD_VALUE,
    OTHER_ID,
    BAD_ANSWER,
];
