//! What one agent of a team sees: its observation map, made from the team file. The only place where an artifact
//! becomes an [`Observation`]; what is not named in `observes` never reaches the learner.

use std::{collections::BTreeMap, sync::Arc};

use regex::bytes::{Regex, RegexBuilder};
use relevo_core::{
    ids::ActionId,
    observation::{ActionSet, Features, Interface, Observation, Signature},
};

use crate::{
    artifact::{Artifact, Facts, Scalar},
    team::{AgentSpec, Conditions, EstimatorSection, HandoffSpec},
};

/// What can be observed besides the facts of the artifact, the agent's private ones as `own.<name>`, and whether a pattern
/// of the team file is found in the payload, as `payload.<name>`.
pub const BUILT_IN: [&str; 4] = ["payload.kind", "call.ended", "call.operation", "handoff.sender"];

/// Patterns that an agent looks for in a payload, by the names under which the team file has them. They take linear time.
///
/// ```
/// use relevo::interface::{Patterns, compile};
///
/// let answered = compile("(?m)^Answer: [A-E]").unwrap();
/// assert!(answered.is_match(b"7 + 5 = 12\nAnswer: B"));
/// assert!(compile("(").is_err());
/// ```
pub type Patterns = BTreeMap<String, Regex>;

/// The most memory that a compiled pattern takes, in bytes.
const PATTERN_BYTES_MAX: usize = 1 << 20;

/// A pattern that is looked for in payloads; why it is none, if so.
pub fn compile(pattern: &str) -> Result<Regex, String> {
    let compiled = RegexBuilder::new(pattern).size_limit(PATTERN_BYTES_MAX).build();
    compiled.map_err(|e| e.to_string())
}

/// How the observed values become features.
#[derive(Clone, Copy, Debug, Default)]
enum Encoding {
    #[default]
    None,
    Sparse,
    Dense {
        inputs: usize,
    },
}

/// The observation map of one agent, as the team file declares it; by default it shows nothing.
#[derive(Clone, Debug, Default)]
pub struct View {
    observes: Vec<String>,
    admits: Vec<Option<Conditions>>,
    patterns: Arc<Patterns>,
    encoding: Encoding,
}

/// One agent's situation: its view, and the private state that goes into it.
pub struct Situation<'a> {
    /// The agent's view.
    pub view: &'a View,
    /// Facts that only this agent has, of this task.
    pub own: &'a Facts,
    /// Who handed over.
    pub sender: &'a str,
    /// How the agent's own call ended; `-` before it.
    pub ended: &'a str,
    /// The operation it performed; `-` before it.
    pub operation: &'a str,
}

impl View {
    /// The view of an agent, which may look for these patterns.
    pub fn new(agent: &AgentSpec, estimator: &EstimatorSection, patterns: Arc<Patterns>) -> Self {
        View {
            observes: agent.observes.clone(),
            admits: agent.handoffs.iter().map(|h| HandoffSpec::when(h).cloned()).collect(),
            patterns,
            encoding: match estimator {
                EstimatorSection::Table | EstimatorSection::Pooled { .. } => Encoding::None,
                EstimatorSection::Linear { .. } => Encoding::Sparse,
                EstimatorSection::Mlp { inputs, .. } => Encoding::Dense { inputs: *inputs },
            },
        }
    }
}

impl Situation<'_> {
    fn value(&self, name: &str, artifact: &Artifact) -> Scalar {
        let text = |t: &str| Scalar::Text(t.to_owned());
        match name {
            "payload.kind" => text(payload_kind(&artifact.payload)),
            "call.ended" => text(self.ended),
            "call.operation" => text(self.operation),
            "handoff.sender" => text(self.sender),
            _ => {
                let pattern = name.strip_prefix("payload.").and_then(|name| self.view.patterns.get(name));
                if let Some(pattern) = pattern {
                    return Scalar::Bool(pattern.is_match(&artifact.payload));
                }
                let fact = match name.strip_prefix("own.") {
                    Some(own) => self.own.get(own),
                    None => artifact.facts.get(name),
                };
                fact.cloned().unwrap_or_else(|| text("-"))
            }
        }
    }

    /// Whether all conditions hold.
    pub fn holds(&self, conditions: &Conditions, artifact: &Artifact) -> bool {
        conditions.iter().all(|(name, values)| values.contains(&self.value(name, artifact)))
    }

    /// The readable name of the situation, such as `payload.kind=gz call.ended=done`.
    pub fn name(&self, artifact: &Artifact) -> String {
        let mut name = String::new();
        for observed in &self.view.observes {
            if !name.is_empty() {
                name.push(' ');
            }
            name.push_str(observed);
            name.push('=');
            match self.value(observed, artifact) {
                // Names are told apart by their spaces.
                Scalar::Text(text) if text.contains(char::is_whitespace) => {
                    name.push_str(&format!("{text:?}"))
                }
                value => name.push_str(&value.to_string()),
            }
        }
        if name.is_empty() { "any".to_owned() } else { name }
    }

    /// The choices admissible for this artifact.
    pub fn legal(&self, artifact: &Artifact) -> ActionSet {
        let admitted =
            |when: &Option<Conditions>| when.as_ref().is_none_or(|when| self.holds(when, artifact));
        let columns = self.view.admits.iter().enumerate();
        columns.filter(|(_, when)| admitted(when)).map(|(i, _)| ActionId(i as u32)).collect()
    }

    /// The observation under a name that was already made.
    pub fn observation(&self, name: &str, legal: ActionSet) -> Observation {
        // One indicator per observed value, its index a hash of "name=value".
        let indicators = || name.split(' ').map(|part| Signature::of_name(part).0 as u32);
        let features = match self.view.encoding {
            Encoding::None => Features::None,
            Encoding::Sparse => Features::Sparse(indicators().map(|i| (i, 1.0)).collect()),
            Encoding::Dense { inputs } => {
                let mut x = vec![0.0; inputs];
                indicators().for_each(|i| x[i as usize % inputs] += 1.0);
                Features::Dense(x.into())
            }
        };
        Observation { signature: Signature::of_name(name), features, legal }
    }
}

impl Interface for Situation<'_> {
    type Artifact = Artifact;

    fn observe(&self, artifact: &Artifact) -> Observation {
        self.observation(&self.name(artifact), self.legal(artifact))
    }
}

/// The kind of a payload by its first bytes: the usual file extension where the format has a magic number, else
/// `empty`, `hex`, `base64`, `text` or `binary`. It looks at 4 KiB at most and never at a name.
pub fn payload_kind(payload: &[u8]) -> &'static str {
    if payload.is_empty() {
        return "empty";
    }
    if let Some(kind) = infer::get(payload) {
        return kind.extension();
    }
    let head = &payload[..payload.len().min(4096)];
    let only = |allowed: fn(u8) -> bool| head.iter().all(|b| allowed(*b) || b.is_ascii_whitespace());
    if only(|b| b.is_ascii_hexdigit()) {
        "hex"
    } else if only(|b| b.is_ascii_alphanumeric() || b"+/=".contains(&b)) {
        "base64"
    } else if head.iter().all(|b| *b >= 0x20 || b.is_ascii_whitespace()) && is_text(head) {
        "text"
    } else {
        "binary"
    }
}

/// Whether it is UTF-8, but for a character that the cut at 4 KiB may have split.
fn is_text(head: &[u8]) -> bool {
    match std::str::from_utf8(head) {
        Ok(_) => true,
        Err(e) => e.error_len().is_none() && head.len() == 4096,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_told_by_their_bytes() {
        let kinds: [(&[u8], &str); 8] = [
            (b"", "empty"),
            (b"\x1f\x8b\x08\x00rest", "gz"),
            (b"\xfd7zXZ\x00rest", "xz"),
            (b"deadbeef\n0042", "hex"),
            (b"SGVsbG8=\n", "base64"),
            (b"Hello, world", "text"),
            ("Grüße, Welt".as_bytes(), "text"),
            (b"\x00\x01\x02", "binary"),
        ];
        for (bytes, kind) in kinds {
            assert_eq!(payload_kind(bytes), kind);
        }
    }
}
