//! The line that a program replies: parsed once, held to its limits, and made into an [`Outcome`]. How a call failed is
//! taken from its `kind` and `status` alone, never from what the message says.

use std::sync::Arc;

use serde::Deserialize;
use serde_json::{Map, Value};

use super::{Ending, Failure, Outcome, process::SCHEMA};
use crate::artifact::{Artifact, Facts, merge_facts, parse_facts};

/// The longest reason or refusal that a failure repeats from the program.
const REASON_BYTES_MAX: usize = 512;

/// The line as it stands; a key that is null counts as absent.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ReplyLine {
    ok: bool,
    facts: Option<Map<String, Value>>,
    private: Option<Map<String, Value>>,
    tokens: Option<u64>,
    retries: Option<u32>,
    money: Option<f64>,
    cached: Option<bool>,
    reward: Option<f64>,
    error: Option<String>,
    status: Option<u16>,
    kind: Option<Kind>,
    retry_after_ms: Option<u64>,
}

/// The kinds of failure that a program can know of: what it, or the service that it asks, says.
#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Kind {
    Auth,
    Quota,
    RateLimit,
    Unavailable,
    InvalidRequest,
    Cancelled,
    Denied,
    Refused,
}

impl Kind {
    fn of_status(status: u16) -> Self {
        match status {
            401 | 403 => Kind::Auth,
            402 => Kind::Quota,
            429 => Kind::RateLimit,
            408 | 500..=599 => Kind::Unavailable,
            499 => Kind::Cancelled,
            400..=498 => Kind::InvalidRequest,
            _ => Kind::Refused,
        }
    }

    fn failure(self, reason: String, retry_after_ms: Option<u64>) -> Failure {
        match self {
            Kind::Auth => Failure::Unauthorised(reason),
            Kind::Quota => Failure::QuotaExceeded(reason),
            Kind::RateLimit => Failure::RateLimited { reason, retry_after_ms },
            Kind::Unavailable => Failure::Unavailable(reason),
            Kind::InvalidRequest => Failure::InvalidRequest(reason),
            Kind::Cancelled => Failure::Cancelled(reason),
            Kind::Denied => Failure::Denied(reason),
            Kind::Refused => Failure::Refused(reason),
        }
    }
}

/// How a service failed that answered with this status, and gave `reason`.
pub(crate) fn failure_of_status(status: u16, reason: String, retry_after_ms: Option<u64>) -> Failure {
    Kind::of_status(status).failure(reason, retry_after_ms)
}

/// The line with everything in its limits.
pub(super) struct Reply {
    pub(super) failure: Option<Failure>,
    facts: Facts,
    private: Facts,
    tokens: u64,
    retries: u32,
    money: f64,
    cached: bool,
    reward: Option<f64>,
}

impl Reply {
    pub(super) fn parse(stdout: &[u8]) -> Result<Self, Failure> {
        let garbage = |reason: String| Failure::Garbage(shorten(reason));
        let line = only_line(stdout).map_err(garbage)?;
        let line: ReplyLine = serde_json::from_str(line)
            .map_err(|e| garbage(format!("the line on stdout is no reply of {SCHEMA}: {e}")))?;

        let facts = |key: &str, object: Option<Map<String, Value>>| {
            parse_facts(object.unwrap_or_default()).map_err(|e| garbage(format!("`{key}` of the reply: {e}")))
        };
        if line.reward.is_some_and(|reward| !reward.is_finite()) {
            return Err(garbage("`reward` of the reply is not finite; leave it out".into()));
        }
        let money = line.money.unwrap_or(0.0);
        if !(money.is_finite() && money >= 0.0) {
            return Err(garbage(format!("`money` of the reply is {money}; it is a cost, 0 or more")));
        }
        if let Some(status) = line.status.filter(|status| !(100..=599).contains(status)) {
            return Err(garbage(format!("`status` of the reply is {status}; it lies in 100 .. 599")));
        }
        let failed = line.kind.is_some() || line.status.is_some_and(|status| status >= 400);
        if line.ok && failed {
            return Err(garbage("the reply is `ok`, and its `kind` or `status` says that it failed".into()));
        }
        let failure = (!line.ok).then(|| {
            let kind = line.kind.or(line.status.map(Kind::of_status)).unwrap_or(Kind::Refused);
            let reason = line.error.unwrap_or_else(|| "it gave no reason".into());
            kind.failure(shorten(reason), line.retry_after_ms)
        });
        Ok(Reply {
            failure,
            facts: facts("facts", line.facts)?,
            private: facts("private", line.private)?,
            tokens: line.tokens.unwrap_or(0),
            retries: line.retries.unwrap_or(0),
            money,
            cached: line.cached.unwrap_or(false),
            reward: line.reward,
        })
    }

    /// The outcome of a call that was answered. A failure leaves the artifact alone, but its tokens were spent and its
    /// notes and its reward were measured.
    pub(super) fn lay_over(self, artifact: Artifact, output: Option<Arc<[u8]>>) -> Outcome {
        let Reply { failure, facts, private, tokens, retries, money, cached, reward } = self;
        let answered = |artifact, ending| Outcome {
            artifact,
            private,
            tokens,
            retries,
            money,
            cached,
            reward,
            ending,
            stderr_tail: String::new(),
        };
        if let Some(failure) = failure {
            return answered(artifact, Ending::Failed(failure));
        }
        match merge_facts(artifact.facts.clone(), facts) {
            Err(e) => Outcome::failed(artifact, Failure::Garbage(format!("`facts` of the reply: {e}"))),
            Ok(facts) => {
                answered(Artifact { facts, payload: output.unwrap_or(artifact.payload) }, Ending::Done)
            }
        }
    }
}

/// The one line that a program has printed.
pub(crate) fn only_line(stdout: &[u8]) -> Result<&str, String> {
    let text = str::from_utf8(stdout).map_err(|e| format!("stdout is not UTF-8: {e}"))?;
    let mut lines = text.lines().filter(|line| !line.trim().is_empty());
    let line = lines.next().ok_or("stdout holds no reply; print one line of JSON")?;
    match lines.count() {
        0 => Ok(line),
        more => Err(format!(
            "stdout holds {} lines, where one is allowed; print everything but the reply on stderr",
            more + 1
        )),
    }
}

fn shorten(mut reason: String) -> String {
    if reason.len() > REASON_BYTES_MAX {
        reason.truncate(reason.floor_char_boundary(REASON_BYTES_MAX));
        reason.push_str(" ...");
    }
    reason
}
