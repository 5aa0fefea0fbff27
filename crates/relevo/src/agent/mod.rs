//! Agents work: the driver comes here with an `Effect::Perform` and the artifact, and takes the [`Outcome`] back to the
//! participant as `Event::Performed`.
//!
//! An [`Agent`] never returns an error. Whatever goes wrong, the call ends, and its end is an [`Ending::Failed`] with a
//! typed [`Failure`]: a failure is an outcome that is learned from, not an accident of the driver. What an agent learns,
//! and whom it hands over to, is decided elsewhere.

pub mod model;
pub mod process;
pub(crate) mod reply;
pub mod tool;

use std::{borrow::Cow, fmt};

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use crate::artifact::{Artifact, Facts};

/// Does one operation on one artifact.
///
/// Dropping the future of [`perform`](Agent::perform) cancels the call: nothing that it started may go on after that.
#[async_trait]
pub trait Agent: Send + Sync {
    /// Performs the operation that `call` names. A fault is an outcome that says so, with the artifact as it came.
    async fn perform(&self, call: &OperationCall<'_>, artifact: Artifact) -> Outcome;
}

/// An agent without work of its own: it hands on what it was given, to whom it decides.
pub struct Forwarder;

#[async_trait]
impl Agent for Forwarder {
    async fn perform(&self, _: &OperationCall<'_>, artifact: Artifact) -> Outcome {
        Outcome::done(artifact)
    }
}

/// Which operation of which agent is asked for, and in which handoff.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OperationCall<'a> {
    /// Name of the agent in the team file.
    pub agent: &'a str,
    /// Name of the operation; an agent with only one calls it `default`.
    pub operation: &'a str,
    /// The handoff that activated the agent.
    pub handoff: HandoffLabel,
}

/// A handoff id as people read it, `12/3/4`. Agents may print it, and may not take it apart.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HandoffLabel(pub String);

/// What came of one call.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    /// The artifact to hand on; the one that came in, unchanged, if the call failed.
    pub artifact: Artifact,
    /// What this agent keeps for itself until the task ends. It is never handed on.
    pub private: Facts,
    /// Tokens that the call used up, as far as the agent counts them.
    pub tokens: u64,
    /// Attempts that failed and were made again, as far as the agent counts them.
    pub retries: u32,
    /// What the call cost, in the team's currency; finite and not negative.
    pub money: f64,
    /// Whether the answer was taken from a cache and not made anew.
    pub cached: bool,
    /// A reward that the agent measured itself; always finite.
    pub reward: Option<f64>,
    /// Whether the operation was done.
    pub ending: Ending,
    /// The last words on stderr, at most [`STDERR_TAIL_BYTES_MAX`], to be shown beside a failure.
    pub stderr_tail: String,
}

/// The longest [`Outcome::stderr_tail`].
pub const STDERR_TAIL_BYTES_MAX: usize = 2048;

/// Whether the operation was done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ending {
    /// It was.
    Done,
    /// It was not, and the artifact is as it came.
    Failed(Failure),
}

/// How a call failed. The kind is in the type; nobody need look for it in a message.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
pub enum Failure {
    /// The call had not ended in its time, and was stopped.
    #[error("the call had not ended after {ms} ms and was stopped; raise its timeout, or give it less to do")]
    Timeout {
        /// The time it had.
        ms: u64,
    },
    /// The agent's program ended with an exit code other than 0, or by a signal.
    #[error("the program {}; the end of its stderr may say why", Crash(*code, *signal))]
    Crashed {
        /// The exit code, if it exited.
        code: Option<i32>,
        /// The signal, if it was killed.
        signal: Option<i32>,
    },
    /// The agent ended well, but what it gave back breaks the contract. The reason says where.
    #[error("the answer breaks the contract: {0}")]
    Garbage(String),
    /// The agent gave back more than is allowed.
    #[error("{what} is longer than {bytes_max} bytes; raise that limit, or let the agent write less")]
    TooLong {
        /// What was too long.
        what: Cow<'static, str>,
        /// The limit.
        bytes_max: u64,
    },
    /// The agent itself says that it could not do it.
    #[error("the agent refused: {0}")]
    Refused(String),
    /// The agent never began. The reason names the program or the place.
    #[error("the call could not be started: {0}")]
    NotStarted(String),
    /// The service does not accept who is asking.
    #[error("the service does not accept the credentials: {0}")]
    Unauthorised(String),
    /// The service will do no more for this account.
    #[error("the quota is used up: {0}")]
    QuotaExceeded(String),
    /// The service was asked too often.
    #[error("the service was asked too often{}: {reason}", Later(*retry_after_ms))]
    RateLimited {
        /// What it says.
        reason: String,
        /// After how long it may be asked again, if it says so.
        retry_after_ms: Option<u64>,
    },
    /// The service does not answer, or says that it cannot now.
    #[error("the service is not available: {0}")]
    Unavailable(String),
    /// The service will never answer this request.
    #[error("the service refuses the request: {0}")]
    InvalidRequest(String),
    /// The call was called off before its end.
    #[error("the call was called off: {0}")]
    Cancelled(String),
    /// A person, or a rule, did not allow it.
    #[error("the call was not allowed: {0}")]
    Denied(String),
}

/// The kinds of [`Failure`], as words that records, reports and team files rely on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FailureKind {
    /// `timeout`
    Timeout,
    /// `crash`
    Crash,
    /// `garbage`
    Garbage,
    /// `too-long`
    TooLong,
    /// `refused`
    Refused,
    /// `not-started`
    NotStarted,
    /// `auth`
    Auth,
    /// `quota`
    Quota,
    /// `rate-limit`
    RateLimit,
    /// `unavailable`
    Unavailable,
    /// `invalid-request`
    InvalidRequest,
    /// `cancelled`
    Cancelled,
    /// `denied`
    Denied,
}

impl FailureKind {
    /// All there are.
    pub const ALL: [FailureKind; 13] = [
        FailureKind::Timeout,
        FailureKind::Crash,
        FailureKind::Garbage,
        FailureKind::TooLong,
        FailureKind::Refused,
        FailureKind::NotStarted,
        FailureKind::Auth,
        FailureKind::Quota,
        FailureKind::RateLimit,
        FailureKind::Unavailable,
        FailureKind::InvalidRequest,
        FailureKind::Cancelled,
        FailureKind::Denied,
    ];

    /// The kind that a word stands for.
    pub fn of_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.word() == word)
    }

    /// The word.
    pub fn word(self) -> &'static str {
        match self {
            FailureKind::Timeout => "timeout",
            FailureKind::Crash => "crash",
            FailureKind::Garbage => "garbage",
            FailureKind::TooLong => "too-long",
            FailureKind::Refused => "refused",
            FailureKind::NotStarted => "not-started",
            FailureKind::Auth => "auth",
            FailureKind::Quota => "quota",
            FailureKind::RateLimit => "rate-limit",
            FailureKind::Unavailable => "unavailable",
            FailureKind::InvalidRequest => "invalid-request",
            FailureKind::Cancelled => "cancelled",
            FailureKind::Denied => "denied",
        }
    }

    /// Whether no further call can succeed before a person has done something about it.
    pub fn is_terminal(self) -> bool {
        matches!(self, FailureKind::Auth | FailureKind::Quota)
    }

    /// Whether the same call may succeed a while later.
    pub fn is_transient(self) -> bool {
        matches!(self, FailureKind::Timeout | FailureKind::RateLimit | FailureKind::Unavailable)
    }

    /// Whether it speaks against the agent. A call that was called off or not allowed does not.
    pub fn is_fault(self) -> bool {
        !matches!(self, FailureKind::Cancelled | FailureKind::Denied)
    }
}

impl Failure {
    /// Its kind.
    pub fn kind(&self) -> FailureKind {
        match self {
            Failure::Timeout { .. } => FailureKind::Timeout,
            Failure::Crashed { .. } => FailureKind::Crash,
            Failure::Garbage(_) => FailureKind::Garbage,
            Failure::TooLong { .. } => FailureKind::TooLong,
            Failure::Refused(_) => FailureKind::Refused,
            Failure::NotStarted(_) => FailureKind::NotStarted,
            Failure::Unauthorised(_) => FailureKind::Auth,
            Failure::QuotaExceeded(_) => FailureKind::Quota,
            Failure::RateLimited { .. } => FailureKind::RateLimit,
            Failure::Unavailable(_) => FailureKind::Unavailable,
            Failure::InvalidRequest(_) => FailureKind::InvalidRequest,
            Failure::Cancelled(_) => FailureKind::Cancelled,
            Failure::Denied(_) => FailureKind::Denied,
        }
    }

    /// Whether no further call can succeed before a person has done something about it.
    pub fn is_terminal(&self) -> bool {
        self.kind().is_terminal()
    }

    /// Whether the same call may succeed a while later.
    pub fn is_transient(&self) -> bool {
        self.kind().is_transient()
    }
}

impl Outcome {
    /// The operation was done and this is the artifact to hand on.
    pub fn done(artifact: Artifact) -> Self {
        Outcome {
            artifact,
            private: Facts::new(),
            tokens: 0,
            retries: 0,
            money: 0.0,
            cached: false,
            reward: None,
            ending: Ending::Done,
            stderr_tail: String::new(),
        }
    }

    /// The operation was not done; `artifact` is the one that came in.
    pub fn failed(artifact: Artifact, failure: Failure) -> Self {
        Outcome { ending: Ending::Failed(failure), ..Outcome::done(artifact) }
    }

    /// How it failed, if it did.
    pub fn failure(&self) -> Option<&Failure> {
        match &self.ending {
            Ending::Done => None,
            Ending::Failed(failure) => Some(failure),
        }
    }
}

/// For the head of a message: `gunzip/default at handoff 12/3/4`.
impl fmt::Display for OperationCall<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{} at handoff {}", self.agent, self.operation, self.handoff)
    }
}

impl fmt::Display for HandoffLabel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

struct Crash(Option<i32>, Option<i32>);

impl fmt::Display for Crash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.0, self.1) {
            (_, Some(signal)) => write!(f, "was killed by signal {signal}"),
            (Some(code), None) => write!(f, "ended with exit code {code}"),
            (None, None) => f.write_str("ended in a way that the system did not tell"),
        }
    }
}

struct Later(Option<u64>);

impl fmt::Display for Later {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.map_or(Ok(()), |ms| write!(f, ", and may be asked again in {ms} ms"))
    }
}
