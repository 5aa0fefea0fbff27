//! What a cell of each role adds to the handoff document: the form of an answer that holds just this, and how it is laid
//! over the document.

use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    document::{Document, Evidence, Verification},
    plan::Role,
};

/// Under which key of a document's metadata an evaluator's reason stands.
const REASON: &str = "evaluator";

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Planned {
    subproblem: String,
    constraints: Vec<String>,
    open_questions: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Found {
    evidence: Vec<Evidence>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Drafted {
    draft_answer: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Criticised {
    critique: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Verified {
    verification: Verification,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Merged {
    merged_answer: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Evaluated {
    done: bool,
    reason: String,
}

/// What a cell of this role does, said to whoever plays it.
pub fn duty(role: Role) -> &'static str {
    match role {
        Role::Planner => {
            "You plan. State the subproblem to be solved next so that it can be understood by itself, the constraints that a \
             solution must keep to, and the questions that are still open."
        }
        Role::Memory => {
            "You recall. Give the evidence that you know of for the subproblem, each with its source."
        }
        Role::WebSearch => {
            "You search. Give the evidence that can be found for the subproblem, each with its source, and none that you \
             have not found."
        }
        Role::Solver => {
            "You solve. Answer the subproblem, or else the goal, using the evidence. Give the answer alone."
        }
        Role::Critic => "You criticise. Say what is wrong with the draft answer and what it lacks, briefly.",
        Role::Verifier => {
            "You verify. Hold the draft answer against the evidence, and say how far the evidence supports it, and why."
        }
        Role::Synthesiser => {
            "You merge. Make one answer out of the draft answers of the branches. Give the answer alone."
        }
        Role::Evaluator => "You evaluate. Say whether the goal is reached by the answer, and why.",
    }
}

/// The JSON schema of what a cell of this role answers.
pub fn schema(role: Role) -> Value {
    let text = || json!({"type": "string"});
    let texts = || json!({"type": "array", "items": {"type": "string"}});
    let object = |properties: Value| {
        let names: Vec<&String> = properties.as_object().into_iter().flat_map(|map| map.keys()).collect();
        json!({"type": "object", "required": names, "properties": properties, "additionalProperties": false})
    };
    match role {
        Role::Planner => {
            object(json!({"subproblem": text(), "constraints": texts(), "open_questions": texts()}))
        }
        Role::Memory | Role::WebSearch => {
            let evidence = object(json!({"source": text(), "text": text()}));
            object(json!({"evidence": {"type": "array", "items": evidence}}))
        }
        Role::Solver => object(json!({"draft_answer": text()})),
        Role::Critic => object(json!({"critique": text()})),
        Role::Verifier => {
            let status =
                json!({"type": "string", "enum": ["supported", "partially_supported", "unsupported"]});
            object(json!({"verification": object(json!({"status": status, "notes": text()}))}))
        }
        Role::Synthesiser => object(json!({"merged_answer": text()})),
        Role::Evaluator => object(json!({"done": {"type": "boolean"}, "reason": text()})),
    }
}

impl Document {
    /// Lay the answer of a cell over the document; refused with the reason if it is not of its role's form, or the document
    /// would grow beyond its limits. Lists grow by what is new in them.
    pub fn lay_over(mut self, role: Role, answer: &str) -> Result<Self, String> {
        fn read<'a, T: Deserialize<'a>>(answer: &'a str) -> Result<T, String> {
            // Some services wrap JSON in a block of Markdown.
            let answer = answer.trim();
            let fenced = answer.strip_prefix("```json").or_else(|| answer.strip_prefix("```"));
            let answer = fenced.and_then(|inner| inner.strip_suffix("```")).unwrap_or(answer).trim();
            if !answer.starts_with('{') {
                return Err("it is no JSON object".to_owned());
            }
            serde_json::from_str(answer).map_err(|e| format!("it is not of the form that was asked for: {e}"))
        }
        let said = |key: &str, text: String| match text.trim().is_empty() {
            true => Err(format!("its {key} is empty")),
            false => Ok(Some(text)),
        };
        let extend = |list: &mut Vec<String>, more: Vec<String>| {
            for text in more {
                if !text.trim().is_empty() && !list.contains(&text) {
                    list.push(text);
                }
            }
        };
        match role {
            Role::Planner => {
                let Planned { subproblem, constraints, open_questions } = read(answer)?;
                self.subproblem = said("subproblem", subproblem)?;
                extend(&mut self.constraints, constraints);
                extend(&mut self.open_questions, open_questions);
            }
            Role::Memory | Role::WebSearch => {
                let Found { evidence } = read(answer)?;
                for found in evidence {
                    if !found.text.trim().is_empty() && !self.evidence.contains(&found) {
                        self.evidence.push(found);
                    }
                }
            }
            Role::Solver => {
                self.draft_answer = said("draft_answer", read::<Drafted>(answer)?.draft_answer)?;
            }
            Role::Critic => self.critique = said("critique", read::<Criticised>(answer)?.critique)?,
            Role::Verifier => self.verification = Some(read::<Verified>(answer)?.verification),
            Role::Synthesiser => {
                self.merged_answer = said("merged_answer", read::<Merged>(answer)?.merged_answer)?;
            }
            Role::Evaluator => {
                let Evaluated { done, reason } = read(answer)?;
                self.done = Some(done);
                self.metadata.insert(REASON.to_owned(), reason.into());
            }
        }
        Document::parse(&self.write()).map_err(|e| e.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_laid_over_the_document() {
        let before = Document::parse(
            br#"{"goal":"g","constraints":["a"],"evidence":[{"source":"s","text":"t"}],"metadata":{"x":1}}"#,
        )
        .unwrap();
        let laid = |role, answer: &str| {
            String::from_utf8(before.clone().lay_over(role, answer)?.write()).map_err(|e| e.to_string())
        };
        let good = [
            (
                Role::Planner,
                r#"{"subproblem":"p","constraints":["a","b"," "],"open_questions":[]}"#,
                r#""subproblem":"p","constraints":["a","b"],"#,
            ),
            (
                Role::Memory,
                r#"{"evidence":[{"source":"s","text":"t"},{"source":"u","text":"v"}]}"#,
                r#""evidence":[{"source":"s","text":"t"},{"source":"u","text":"v"}],"#,
            ),
            (Role::WebSearch, r#"{"evidence":[]}"#, r#""evidence":[{"source":"s","text":"t"}],"#),
            (Role::Solver, "```json\n{\"draft_answer\":\"d\"}\n```", r#""draft_answer":"d""#),
            (Role::Critic, r#" {"critique":"c"}"#, r#""critique":"c""#),
            (
                Role::Verifier,
                r#"{"verification":{"status":"partially_supported","notes":"n"}}"#,
                r#""verification":{"status":"partially_supported","notes":"n"}"#,
            ),
            (Role::Synthesiser, r#"{"merged_answer":"m"}"#, r#""merged_answer":"m""#),
            (
                Role::Evaluator,
                r#"{"done":true,"reason":"r"}"#,
                r#""done":true,"metadata":{"evaluator":"r","x":1}"#,
            ),
        ];
        for (role, answer, part) in good {
            let document = laid(role, answer).unwrap();
            assert!(document.contains(part), "{role:?}: {document}");
            assert!(document.starts_with(r#"{"goal":"g""#), "the rest stays");
        }
        let long =
            format!(r#"{{"draft_answer":"{}"}}"#, "x".repeat(super::super::document::TEXT_BYTES_MAX + 1));
        let bad = [
            (Role::Planner, r#"{"subproblem":" ","constraints":[],"open_questions":[]}"#, "empty"),
            (Role::Planner, r#"{"subproblem":"p"}"#, "missing field"),
            (Role::Solver, r#"{"draft_answer":"d","done":true}"#, "unknown field"),
            (Role::Solver, "the answer is 7", "no JSON object"),
            (Role::Solver, r#"["d"]"#, "no JSON object"),
            (Role::Solver, &long, "draft_answer has"),
            (Role::Verifier, r#"{"verification":{"status":"fine","notes":""}}"#, "fine"),
            (Role::Evaluator, r#"{"done":"yes","reason":""}"#, "invalid type"),
        ];
        for (role, answer, said) in bad {
            let message = laid(role, answer).unwrap_err();
            assert!(message.contains(said), "{role:?}: {message}");
        }
    }
}
