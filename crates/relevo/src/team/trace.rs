//! The `[trace]` section: what a run keeps besides its ledger.

use serde::{Deserialize, Serialize};

use super::{TeamSpec, check::Fault};

/// What a run keeps besides its ledger. Nothing unless it is asked for.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TraceSection {
    /// Keep what agents that are programs or models were given and gave back.
    pub content: bool,
    /// A program that everything goes through before it is kept: what it prints is kept instead of what it reads.
    pub redact: Option<Vec<String>>,
}

impl TraceSection {
    /// Whether nothing is asked for.
    pub fn is_off(&self) -> bool {
        *self == TraceSection::default()
    }
}

impl TeamSpec {
    pub(super) fn check_trace(&self) -> Result<(), Fault> {
        let fail = |message: &str| Err(Fault::new("trace/redact", message));
        match &self.trace.redact {
            Some(_) if !self.trace.content => fail(
                "redact has nothing to do, as no content is kept: add content = true, or leave redact out",
            ),
            Some(command) if command.first().is_none_or(String::is_empty) => {
                fail("redact names no program: write redact = [\"./program\", \"argument\"]")
            }
            _ => Ok(()),
        }
    }
}
