//! An agent that is a tool: one call of an MCP server for every handoff. In a coordinated team what it finds becomes evidence
//! in the handoff document; in any other the payload is its arguments, and what it finds is the new payload.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use serde_json::{Map, Value, json};

use super::{Agent, Failure, OperationCall, Outcome};
use crate::{
    artifact::Artifact,
    coordinate::{document::Document, plan::Role},
    tool::{ToolServer, found::Found},
};

/// What texts in arguments stand for, in braces: of the document in a coordinated team.
pub const OF_DOCUMENT: [&str; 3] = ["subproblem", "goal", "draft_answer"];
/// The same in any other team.
pub const OF_PAYLOAD: [&str; 1] = ["payload"];

/// An agent that is a tool.
pub struct ToolAgent {
    /// Its server.
    pub server: Arc<ToolServer>,
    /// The name of the tool there.
    pub tool: String,
    /// Its arguments, in which `{subproblem}` and the like stand for what is handed over; the usual ones if empty.
    pub arguments: Map<String, Value>,
    /// What it does in a coordinated team.
    pub role: Option<Role>,
    /// The longest call.
    pub timeout: Duration,
    /// The longest payload that it may make, in bytes.
    pub output_bytes_max: u64,
}

impl ToolAgent {
    /// The document that is handed over, if the team is coordinated, and what the tool is called with.
    fn ask(&self, artifact: &Artifact) -> Result<(Option<Document>, Map<String, Value>), Failure> {
        if self.role.is_none() {
            return Ok((None, self.of_payload(artifact)?));
        }
        let document =
            Document::parse(&artifact.payload).map_err(|e| Failure::InvalidRequest(e.to_string()))?;
        let arguments = self.of_document(&document)?;
        Ok((Some(document), arguments))
    }

    /// The artifact with what the tool found.
    fn read(
        &self,
        found: &Found,
        document: Option<Document>,
        artifact: &Artifact,
    ) -> Result<Artifact, Failure> {
        let payload = match self.role.zip(document) {
            None => found.text().into_bytes(),
            Some((role, document)) => {
                let evidence = found.evidence(&format!("{}.{}", self.server.name(), self.tool));
                let part = json!({ "evidence": evidence }).to_string();
                document.lay_over(role, &part).map_err(Failure::Garbage)?.write()
            }
        };
        if payload.is_empty() {
            return Err(Failure::Garbage("the result of the tool holds no text".to_owned()));
        }
        if payload.len() as u64 > self.output_bytes_max {
            let bytes_max = self.output_bytes_max;
            return Err(Failure::TooLong { what: "the payload that it makes".into(), bytes_max });
        }
        Ok(Artifact { facts: artifact.facts.clone(), payload: payload.into() })
    }

    fn of_payload(&self, artifact: &Artifact) -> Result<Map<String, Value>, Failure> {
        let no_text = |_| Failure::InvalidRequest("the payload is no text in UTF-8".to_owned());
        let payload = str::from_utf8(&artifact.payload).map_err(no_text)?;
        if !self.arguments.is_empty() {
            return Ok(filled(&self.arguments, &|name| (name == "payload").then_some(payload)));
        }
        serde_json::from_str(payload).map_err(|e| {
            let what = format!(
                "the payload is the arguments of the tool, and no JSON object: {e}; or add arguments"
            );
            Failure::InvalidRequest(what)
        })
    }

    fn of_document(&self, document: &Document) -> Result<Map<String, Value>, Failure> {
        let goal = document.goal.as_deref();
        let Some(subproblem) = document.subproblem.as_deref().or(goal) else {
            return Err(Failure::InvalidRequest(
                "the document has neither a subproblem nor a goal".to_owned(),
            ));
        };
        if self.arguments.is_empty() {
            return Ok(Map::from_iter([("query".to_owned(), subproblem.into())]));
        }
        let value_of = |name: &str| match name {
            "subproblem" => Some(subproblem),
            "goal" => Some(goal.unwrap_or_default()),
            "draft_answer" => Some(document.draft_answer.as_deref().unwrap_or_default()),
            _ => None,
        };
        Ok(filled(&self.arguments, &value_of))
    }
}

#[async_trait]
impl Agent for ToolAgent {
    async fn perform(&self, _: &OperationCall<'_>, artifact: Artifact) -> Outcome {
        let (document, arguments) = match self.ask(&artifact) {
            Ok(asked) => asked,
            Err(failure) => return Outcome::failed(artifact, failure),
        };
        let called = self.server.call(&self.tool, arguments, self.timeout).await;
        let money = self.server.price_of(&called);
        match called.and_then(|found| self.read(&found, document, &artifact)) {
            Ok(artifact) => Outcome { money, ..Outcome::done(artifact) },
            Err(failure) => {
                let crashed = matches!(failure, Failure::Crashed { .. });
                let stderr_tail = if crashed { self.server.last_words() } else { String::new() };
                Outcome { money, stderr_tail, ..Outcome::failed(artifact, failure) }
            }
        }
    }
}

/// The arguments with values in the places of names in braces; what a value holds is left as it is.
fn filled<'v>(
    arguments: &Map<String, Value>,
    value_of: &impl Fn(&str) -> Option<&'v str>,
) -> Map<String, Value> {
    fn fill<'v>(value: &Value, value_of: &impl Fn(&str) -> Option<&'v str>) -> Value {
        match value {
            Value::String(text) => {
                let mut made = String::new();
                for (literal, name) in pieces(text) {
                    made.push_str(literal);
                    match name.map(|name| (name, value_of(name))) {
                        Some((_, Some(value))) => made.push_str(value),
                        Some((name, None)) => made.extend(["{", name, "}"]),
                        None => {}
                    }
                }
                made.into()
            }
            Value::Array(list) => list.iter().map(|value| fill(value, value_of)).collect(),
            Value::Object(map) => filled(map, value_of).into(),
            other => other.clone(),
        }
    }
    arguments.iter().map(|(key, value)| (key.clone(), fill(value, value_of))).collect()
}

/// A text in pieces, each with the name in braces that follows it: letters and `_`.
pub(crate) fn pieces(text: &str) -> impl Iterator<Item = (&str, Option<&str>)> {
    let mut rest = Some(text);
    std::iter::from_fn(move || {
        let text = rest.take()?;
        let is_name =
            |name: &str| !name.is_empty() && name.chars().all(|c| c.is_ascii_lowercase() || c == '_');
        let braces = text.match_indices('{').find_map(|(at, _)| {
            let name = text[at + 1..].split_once('}')?.0;
            is_name(name).then_some((at, name))
        });
        let Some((at, name)) = braces else { return Some((text, None)) };
        rest = Some(&text[at + name.len() + 2..]);
        Some((&text[..at], Some(name)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_filled_in_is_not_filled_again() {
        let value_of = |name: &str| match name {
            "a" => Some("{b}"),
            "b" => Some("x"),
            _ => None,
        };
        let arguments = json!({"q": "{a} and {b}{b}, {c} {1} {", "list": ["{b}", 7, {"deep": "{b}"}]});
        let expected = json!({"q": "{b} and xx, {c} {1} {", "list": ["x", 7, {"deep": "x"}]});
        assert_eq!(Value::Object(filled(arguments.as_object().unwrap(), &value_of)), expected);
    }
}
