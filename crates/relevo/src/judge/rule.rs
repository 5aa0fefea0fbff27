//! Judges that need nobody: a rule, what the task expects, and the bytes that came out. Pure.

use std::sync::LazyLock;

use async_trait::async_trait;
use regex::{Regex, RegexBuilder};
use relevo_core::policy_file::hex;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::{Candidate, Expectation, Judge, JudgeFailure, Score, Verdict};
use crate::{agent::Failure, team::nearest};

/// The longest answer that rules other than `sha256` and `text` look at; a longer one is not met.
pub const ANSWER_BYTES_MAX: usize = 1 << 20;

/// The largest compiled pattern, in bytes.
const PATTERN_BYTES_MAX: usize = 1 << 20;

/// The most facts that an answer is looked through for.
const FACTS_MAX: usize = 256;

/// How an answer is compared with what is expected.
#[derive(Clone, Debug, PartialEq)]
pub enum Rule {
    /// It has the SHA-256 `expect.sha256`.
    Sha256,
    /// It is the text `expect.text`, but for white space at the ends.
    Text,
    /// It is the number `expect.number`, within a tolerance.
    Numeric(Numeric),
    /// The pattern `expect.regex` is found in it.
    Regex,
    /// It is JSON that the JSON schema `expect.schema` holds for.
    JsonSchema,
    /// The share of the texts `expect.contains` that are found in it, whatever their case and white space.
    Contains,
}

/// How numbers are compared.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Numeric {
    /// The largest distance, as a number.
    pub tolerance: f64,
    /// The largest distance, as a share of what is expected; the larger of the two counts.
    pub relative: f64,
    /// Where the number is in an answer that is JSON, as in RFC 6901; without it, the last number of the text counts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pointer: Option<String>,
}

/// The keys of `expect` that rules read.
pub const KEYS: [&str; 6] = ["sha256", "text", "number", "regex", "schema", "contains"];

/// A rule with what one task expects, ready to be applied.
enum Test<'a> {
    Sha256(String),
    Text(&'a str),
    Number { expected: f64, within: f64, pointer: Option<&'a str> },
    Regex(Regex),
    Schema(Box<jsonschema::Validator>),
    Contains(Vec<String>),
}

impl Rule {
    /// Its word in the team file.
    pub fn word(&self) -> &'static str {
        match self {
            Rule::Sha256 => "sha256",
            Rule::Text => "text",
            Rule::Numeric(_) => "numeric",
            Rule::Regex => "regex",
            Rule::JsonSchema => "json-schema",
            Rule::Contains => "contains",
        }
    }

    /// Whether the rule can be applied to what a task expects; the message says what is missing or wrong.
    pub fn check(&self, expected: &Expectation) -> Result<(), String> {
        if let Some(key) = expected.0.keys().find(|key| !KEYS.contains(&key.as_str())) {
            let hint = match nearest(key, KEYS.into_iter()) {
                Some(near) => format!("did you mean {near:?}?"),
                None => format!("known are {}", KEYS.join(", ")),
            };
            return Err(format!("expect.{} is unknown; {hint}", super::shorten(key.clone(), 80)));
        }
        self.test(expected).map(drop)
    }

    /// The score of an answer; an error where the rule cannot be applied to what is expected.
    pub fn score(&self, expected: &Expectation, answer: &[u8]) -> Result<Score, String> {
        let test = self.test(expected)?;
        if answer.len() > ANSWER_BYTES_MAX && !matches!(self, Rule::Sha256 | Rule::Text) {
            let what = format!("an answer of {} bytes, where {ANSWER_BYTES_MAX} are looked at", answer.len());
            return Ok(Score::certain(0.0, what));
        }
        let (quality, why) = test.mark(answer);
        Ok(Score::certain(quality, why))
    }

    fn test<'a>(&'a self, expected: &'a Expectation) -> Result<Test<'a>, String> {
        let text = |key: &str| match expected.0.get(key) {
            Some(Value::String(text)) => Ok(text.as_str()),
            None => Err(format!("expect.{key} is missing")),
            Some(_) => Err(format!("expect.{key} must be a text")),
        };
        Ok(match self {
            Rule::Sha256 => match text("sha256") {
                Ok(sum) if sum.len() == 64 && sum.bytes().all(|b| b.is_ascii_hexdigit()) => {
                    Test::Sha256(sum.to_lowercase())
                }
                _ => return Err("expect.sha256 must hold 64 hexadecimal digits".into()),
            },
            Rule::Text => Test::Text(text("text")?.trim()),
            Rule::Numeric(Numeric { tolerance, relative, pointer }) => {
                let expected = expected.0.get("number").ok_or("expect.number is missing")?;
                let expected = expected.as_f64().ok_or("expect.number must be a number")?;
                // within = max(tolerance, relative |expected|)
                let within = tolerance.max(relative * expected.abs());
                Test::Number { expected, within, pointer: pointer.as_deref() }
            }
            Rule::Regex => {
                let mut pattern = RegexBuilder::new(text("regex")?);
                let pattern = pattern.size_limit(PATTERN_BYTES_MAX).dfa_size_limit(PATTERN_BYTES_MAX).build();
                Test::Regex(pattern.map_err(|e| format!("expect.regex is no pattern: {e}"))?)
            }
            Rule::JsonSchema => {
                let schema = expected.0.get("schema").ok_or("expect.schema is missing")?;
                // Linear-time patterns, and nothing is fetched from elsewhere.
                let patterns = jsonschema::PatternOptions::regex().size_limit(PATTERN_BYTES_MAX);
                let options = jsonschema::options().offline().with_pattern_options(patterns);
                let schema = options.build(schema).map_err(|e| format!("expect.schema is no schema: {e}"))?;
                Test::Schema(Box::new(schema))
            }
            Rule::Contains => {
                let facts = expected.0.get("contains").ok_or("expect.contains is missing")?.as_array();
                let facts = facts.filter(|facts| (1..=FACTS_MAX).contains(&facts.len()));
                let facts = facts.and_then(|facts| facts.iter().map(|f| f.as_str().map(plain)).collect());
                match facts {
                    Some::<Vec<String>>(facts) if facts.iter().all(|fact| !fact.is_empty()) => {
                        Test::Contains(facts)
                    }
                    _ => return Err(format!("expect.contains must be a list of 1 to {FACTS_MAX} texts")),
                }
            }
        })
    }
}

impl Test<'_> {
    /// The quality, and why.
    fn mark(&self, answer: &[u8]) -> (f64, String) {
        let met = |met: bool, why: &str| (f64::from(u8::from(met)), why.to_owned());
        let text = || String::from_utf8_lossy(answer);
        match self {
            Test::Sha256(sum) => met(hex(&Sha256::digest(answer)) == *sum, ""),
            Test::Text(expected) => met(text().trim() == *expected, ""),
            Test::Number { expected, within, pointer } => {
                let found = match pointer {
                    None => last_number(&text()),
                    Some(pointer) => serde_json::from_str::<Value>(&text()).ok().and_then(|json| {
                        let found = json.pointer(pointer)?;
                        found.as_f64().or_else(|| found.as_str()?.trim().parse().ok())
                    }),
                };
                match found.filter(|found| found.is_finite()) {
                    Some(found) => met((found - expected).abs() <= *within, &format!("it says {found}")),
                    None => met(false, "it has no number there"),
                }
            }
            Test::Regex(pattern) => met(pattern.is_match(text().trim()), ""),
            Test::Schema(schema) => match serde_json::from_str::<Value>(&text()) {
                Err(e) => met(false, &format!("it is no JSON: {e}")),
                Ok(json) => match schema.validate(&json) {
                    Ok(()) => met(true, ""),
                    Err(e) => met(false, &format!("{}: {}", e.instance_path(), e.masked())),
                },
            },
            Test::Contains(facts) => {
                let text = plain(&text());
                let absent: Vec<&str> =
                    facts.iter().map(String::as_str).filter(|fact| !text.contains(fact)).collect();
                let share = 1.0 - absent.len() as f64 / facts.len() as f64;
                (
                    share,
                    if absent.is_empty() { String::new() } else { format!("absent: {}", absent.join(", ")) },
                )
            }
        }
    }
}

/// In lower case, with one space where there is any white space.
fn plain(text: &str) -> String {
    text.split_whitespace().map(str::to_lowercase).collect::<Vec<_>>().join(" ")
}

/// The last number of a text, `-1,234.5e-3` for one: a comma parts thousands, a sign right behind a letter or digit is a
/// hyphen, and digits right behind a letter or `_` belong to a name.
fn last_number(text: &str) -> Option<f64> {
    static NUMBERS: LazyLock<Regex> = LazyLock::new(|| Regex::new(NUMBER).expect("a pattern"));
    const NUMBER: &str =
        r"[-+−]?(?:[0-9]{1,3}(?:,[0-9]{3})+|[0-9]+)(?:\.[0-9]+)?(?:[eE][-+]?[0-9]+)?|[-+−]?\.[0-9]+";
    let mut last = None;
    for found in NUMBERS.find_iter(text) {
        let before = text[..found.start()].chars().next_back();
        let (sign, digits) = match found.as_str().strip_prefix(['-', '−']) {
            Some(digits) if !before.is_some_and(char::is_alphanumeric) => (-1.0, digits),
            Some(digits) => (1.0, digits),
            None if before.is_some_and(|c| c.is_alphabetic() || c == '_') => continue,
            None => (1.0, found.as_str().trim_start_matches('+')),
        };
        last = digits.replace(',', "").parse().ok().map(|x: f64| sign * x).or(last);
    }
    last
}

/// A [`Rule`] as a judge: every candidate for itself.
pub struct RuleJudge(pub Rule);

#[async_trait]
impl Judge for RuleJudge {
    async fn judge(&self, group: &[Candidate], _label: &str) -> Verdict {
        let mut verdict = Verdict::none(group.len());
        for (i, candidate) in group.iter().enumerate() {
            let expected = candidate.expected.as_ref().ok_or("the task expects nothing known".to_owned());
            match expected.and_then(|expected| self.0.score(expected, &candidate.answer)) {
                Ok(score) => verdict.scores[i] = Some(score),
                Err(reason) => verdict.failures.push(JudgeFailure {
                    judge: self.0.word().to_owned(),
                    candidate: Some(i),
                    failure: Failure::InvalidRequest(super::shorten(reason, super::EXPLANATION_BYTES_MAX)),
                    last_words: String::new(),
                }),
            }
        }
        verdict
    }
}
