//! The handoff document `relevo.handoff/v1`: the payload that the cells of a coordinated team read and write, parsed once,
//! here.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::features::TaskFeatures;

/// The version of the document.
pub const SCHEMA: &str = "relevo.handoff/v1";
/// The longest document, in bytes.
pub const BYTES_MAX: usize = 1 << 20;
/// The longest list in a document, and the most entries of its metadata.
pub const LIST_MAX: usize = 256;
/// The longest text in a document, in bytes.
pub const TEXT_BYTES_MAX: usize = 1 << 18;

/// A task on its way through a coordinated team. Everything in it is optional; an empty text counts as absent.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Document {
    /// [`SCHEMA`], where it is stated.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub schema: Option<String>,
    /// What is known of the task. The coordinator's: what a cell says of it is put back.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub features: Option<TaskFeatures>,
    /// What is asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub goal: Option<String>,
    /// What is to be solved now.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subproblem: Option<String>,
    /// What a solution must keep to.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub constraints: Vec<String>,
    /// What was found, and where.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub evidence: Vec<Evidence>,
    /// What was remembered besides.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub retrieved_context: Vec<String>,
    /// The answer so far.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub draft_answer: Option<String>,
    /// What is wrong with it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub critique: Option<String>,
    /// Whether the evidence supports it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub verification: Option<Verification>,
    /// The answer merged from those of the branches.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub merged_answer: Option<String>,
    /// What is still to be asked.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub open_questions: Vec<String>,
    /// What it rests on, by reference.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub upstream: Vec<String>,
    /// What came of the branches, for the cell that merges. The coordinator's.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub branches: Vec<BranchResult>,
    /// Whether the task is done; only an evaluator's word counts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub done: Option<bool>,
    /// Anything else.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub metadata: BTreeMap<String, Value>,
}

/// One thing that was found.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Evidence {
    /// Where.
    pub source: String,
    /// What.
    pub text: String,
}

/// What a verifier says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Verification {
    /// The verdict.
    pub status: Support,
    /// Its reasons.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub notes: String,
}

/// How far the evidence supports a draft, the best last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Support {
    /// Not at all.
    Unsupported,
    /// In part.
    PartiallySupported,
    /// All of it.
    Supported,
}

/// What came of one branch.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BranchResult {
    /// Its answer.
    pub draft_answer: String,
    /// Whether the evidence supports it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verification: Option<Verification>,
    /// What is wrong with it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub critique: Option<String>,
}

/// A payload that is no document; the message says where, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct DocumentError(String);

impl Document {
    /// Read a document.
    pub fn parse(bytes: &[u8]) -> Result<Self, DocumentError> {
        let refuse = |what: String| Err(DocumentError(what));
        if bytes.len() > BYTES_MAX {
            return refuse(format!(
                "the document has {} bytes, more than {BYTES_MAX}: put what is long elsewhere, and refer to it",
                bytes.len()
            ));
        }
        // The parser would take a list of values in their order, too.
        if bytes.trim_ascii_start().first() != Some(&b'{') {
            return refuse(format!(
                "the payload is no handoff document ({SCHEMA}): it must be a JSON object"
            ));
        }
        let document: Document = match serde_json::from_slice(bytes) {
            Ok(document) => document,
            Err(e) => return refuse(format!("the payload is no handoff document ({SCHEMA}, JSON): {e}")),
        };
        if let Some(other) = document.schema.as_deref().filter(|schema| *schema != SCHEMA) {
            let shown = &other[..other.floor_char_boundary(80)];
            return refuse(format!("the document's schema is {shown:?}: write {SCHEMA:?}, or leave it out"));
        }
        document.check().map_err(DocumentError)?;
        Ok(document)
    }

    /// The document that a task begins with: the payload itself if it is one, else one whose goal is its text.
    pub fn open(payload: &[u8]) -> Result<Self, DocumentError> {
        let parsed = Self::parse(payload);
        let text = match (&parsed, std::str::from_utf8(payload)) {
            (Ok(_), _) => return parsed,
            // It says that it is one, and so is held to it.
            (Err(_), Ok(text)) if text.trim_start().starts_with('{') && text.contains(SCHEMA) => {
                return parsed;
            }
            (Err(_), Ok(text)) => text,
            (Err(_), Err(_)) => {
                let what = "the task is neither a handoff document nor a text in UTF-8: give its text as the payload";
                return Err(DocumentError(what.to_owned()));
            }
        };
        let document = Document { goal: Some(text.to_owned()), ..Document::default() };
        document.check().map_err(DocumentError)?;
        Ok(document)
    }

    /// Its canonical bytes: JSON without spaces, keys in the order of this type, absent ones left out.
    pub fn write(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("a document holds texts, numbers and lists")
    }

    fn check(&self) -> Result<(), String> {
        let text = |what: &str, text: &str| match text.len() <= TEXT_BYTES_MAX {
            true => Ok(()),
            false => Err(format!("{what} has {} bytes: at most {TEXT_BYTES_MAX} are read", text.len())),
        };
        let length = |what: &str, n: usize| match n <= LIST_MAX {
            true => Ok(()),
            false => Err(format!("{what} has {n} entries: at most {LIST_MAX} are read")),
        };
        let texts = [
            ("goal", &self.goal),
            ("subproblem", &self.subproblem),
            ("draft_answer", &self.draft_answer),
            ("critique", &self.critique),
            ("merged_answer", &self.merged_answer),
        ];
        texts
            .iter()
            .try_for_each(|(what, value)| value.as_ref().map_or(Ok(()), |value| text(what, value)))?;
        let lists = [
            ("constraints", &self.constraints),
            ("retrieved_context", &self.retrieved_context),
            ("open_questions", &self.open_questions),
            ("upstream", &self.upstream),
        ];
        for (what, list) in lists {
            length(what, list.len())?;
            list.iter().try_for_each(|value| text(what, value))?;
        }
        length("evidence", self.evidence.len())?;
        for Evidence { source, text: found } in &self.evidence {
            text("evidence", source)?;
            text("evidence", found)?;
        }
        let notes = |v: &Option<Verification>| v.as_ref().map_or(Ok(()), |v| text("verification", &v.notes));
        notes(&self.verification)?;
        length("branches", self.branches.len())?;
        for BranchResult { draft_answer, verification, critique } in &self.branches {
            text("branches", draft_answer)?;
            notes(verification)?;
            critique.as_ref().map_or(Ok(()), |critique| text("branches", critique))?;
        }
        length("metadata", self.metadata.len())
    }

    /// The answer: the merged one, else the draft, else that of the best branch.
    pub fn answer(&self) -> Option<&str> {
        let branch = best(&self.branches, |b| b.verification.as_ref().map(|v| v.status));
        let branch = branch.map(|at| self.branches[at].draft_answer.as_str());
        stated(&self.merged_answer).or(stated(&self.draft_answer)).or(branch)
    }
}

/// Whether an optional text says something.
pub(super) fn stated(text: &Option<String>) -> Option<&str> {
    text.as_deref().filter(|text| !text.trim().is_empty())
}

/// The place of the best supported of some results, the first of equals; unverified is better than unsupported.
pub(super) fn best<T>(results: &[T], status: impl Fn(&T) -> Option<Support>) -> Option<usize> {
    let rank = |result: &T| match status(result) {
        Some(Support::Unsupported) => 0,
        None => 1,
        Some(Support::PartiallySupported) => 2,
        Some(Support::Supported) => 3,
    };
    // Of equals, `max_by_key` gives the last.
    (0..results.len()).rev().max_by_key(|at| rank(&results[*at]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_document_is_written_as_it_was_read() {
        let text = concat!(
            r#"{"schema":"relevo.handoff/v1","goal":"why is the sky blue","evidence":[{"source":"a","text":"b"}],"#,
            r#""draft_answer":"scattering","verification":{"status":"partially_supported","notes":"n"},"#,
            r#""done":false,"metadata":{"class":[1,{"x":null}]}}"#
        );
        let document = Document::parse(text.as_bytes()).unwrap();
        assert_eq!(document.answer(), Some("scattering"));
        assert_eq!(String::from_utf8(document.write()).unwrap(), text);
    }

    #[test]
    fn what_is_no_document_is_refused() {
        let long = "x".repeat(TEXT_BYTES_MAX + 1);
        let many = vec!["\"x\""; LIST_MAX + 1].join(",");
        let wrong = [
            ("[]".to_owned(), "no handoff document"),
            ("{\"gaol\": \"x\"}".to_owned(), "gaol"),
            ("{\"verification\": {\"status\": \"fine\"}}".to_owned(), "fine"),
            ("{\"schema\": \"relevo.handoff/v2\"}".to_owned(), "v2"),
            ("{\"features\": {\"novelty_level\": 7}}".to_owned(), "[0, 1]"),
            ("{\"goal\": 7}".to_owned(), "expected a string"),
            (format!("{{\"goal\": {long:?}}}"), "goal has"),
            (format!("{{\"upstream\": [{many}]}}"), "upstream has 257"),
            (" ".repeat(BYTES_MAX + 1), "bytes, more than"),
            ("{\"metadata\": {\"x\": ".to_owned() + &"[".repeat(1000), "recursion"),
        ];
        for (text, said) in wrong {
            let message = Document::parse(text.as_bytes()).unwrap_err().to_string();
            assert!(message.contains(said), "{said}: {message}");
        }
    }

    #[test]
    fn a_text_becomes_a_goal() {
        assert_eq!(Document::open(b"{ what? }").unwrap().goal.as_deref(), Some("{ what? }"));
        assert_eq!(Document::open(b"{\"goal\": \"x\"}").unwrap().goal.as_deref(), Some("x"));
        for wrong in [&b"{\"schema\": \"relevo.handoff/v1\", \"gaol\": 1}"[..], b"\xff\x00"] {
            assert!(Document::open(wrong).is_err());
        }
    }
}
