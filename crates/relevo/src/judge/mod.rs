//! Judges say how good what came out is. The driver brings them finished tasks and takes a [`Verdict`] back; what a score
//! earns is said by [`crate::reward`].
//!
//! A judge never fails the driver, and never invents a score: where it has none (a group of one for a judge that only
//! compares, a call that failed, a reply that breaks its form), the score is `None`, and nothing is learned from it. How
//! sure a judge is weighs the *step* of learning, never the quality.
//!
//! A [`rule`] needs no model; a [`command`] asks a program; [`relative`] asks a model to compare trajectories of the same
//! task; a [`panel`] asks several. [`health`] says how far they can be trusted, and [`audit`] which conclusions other
//! judges would not have drawn.

pub mod audit;
pub mod command;
pub mod health;
pub mod panel;
mod prompt;
pub mod relative;
mod reply;
pub mod rule;

use std::{collections::BTreeMap, num::NonZeroU64, path::Path, sync::Arc};

use async_trait::async_trait;
use relevo_core::{policy_file::hex, record::Record};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};
use serde_json::{Map, Value};

use crate::{agent::Failure, team::JudgeSpec};
use command::CommandJudge;
use panel::{Auditor, Panel};
use relative::{Ask, RelativeJudge};
use rule::RuleJudge;

/// Judges what came of one task, or compares what came of several attempts at the same one.
#[async_trait]
pub trait Judge: Send + Sync {
    /// Judges a group of attempts at the same task. `label` names the occasion: with the same label, a judge orders,
    /// delimits and probes in the same way.
    async fn judge(&self, group: &[Candidate], label: &str) -> Verdict;
}

/// The judge of a team whose file lies in `directory`, and how many attempts at a task it is to be given together.
/// `models` finds a model by its name; the error is a name that it does not know.
pub fn of_team(
    spec: &JudgeSpec,
    directory: &Path,
    models: impl Fn(&str) -> Option<Arc<dyn Ask>>,
) -> Result<(Arc<dyn Judge>, NonZeroU64), String> {
    let section = match spec {
        JudgeSpec::Rule(rule) => return Ok((Arc::new(RuleJudge(rule.clone())), NonZeroU64::MIN)),
        JudgeSpec::Command(command) => {
            return Ok((Arc::new(CommandJudge::new(command, directory)), NonZeroU64::MIN));
        }
        JudgeSpec::Relative(section) => section,
    };
    let judge = |name: &String| -> Result<Arc<dyn Judge>, String> {
        let (rubric, probes) = (section.rubric(), section.probes());
        let model = models(name).ok_or_else(|| name.clone())?;
        Ok(Arc::new(RelativeJudge { name: name.clone(), model, rubric, probes }))
    };
    let members = section.models.iter().map(judge).collect::<Result<_, _>>()?;
    let auditor = section.audit.as_ref().map(|audit| {
        Ok::<_, String>(Auditor { name: audit.model.clone(), judge: judge(&audit.model)?, rate: audit.rate })
    });
    let group = NonZeroU64::new(section.group as u64).unwrap_or(NonZeroU64::MIN);
    Ok((Arc::new(Panel { members, auditor: auditor.transpose()? }), group))
}

/// A finished attempt at a task, with all that a judge is shown of it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Candidate {
    /// The id of the task.
    pub task: String,
    /// What was asked.
    #[serde(default)]
    pub question: String,
    /// Who acted, in order, by role: never the name of an arm, a model or a skill, which would tell a judge whom it
    /// judges.
    #[serde(default)]
    pub path: Vec<String>,
    /// What was found on the way: where, and what.
    #[serde(default)]
    pub evidence: Vec<(String, String)>,
    /// What a verifier said.
    #[serde(default)]
    pub verifier_notes: String,
    /// What came out. In JSON a text, or `{"hex": "00ff"}` where it is none.
    #[serde(serialize_with = "write_bytes", deserialize_with = "read_bytes")]
    pub answer: Vec<u8>,
    /// What should have come out, where that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expected: Option<Expectation>,
}

/// The object `expect` of a line of a task file. Each rule reads its own key; a program is given all of it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Expectation(pub Map<String, Value>);

/// What a judge makes of one candidate.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Score {
    /// How good it is, in [0, 1].
    pub quality: f64,
    /// How sure that is, in [0, 1]: it weighs the step of learning.
    pub confidence: f64,
    /// The quality by axis, where a judge has several.
    #[serde(default)]
    pub axes: BTreeMap<String, f64>,
    /// Population standard deviation of the quality over several judges.
    #[serde(default)]
    pub disagreement: f64,
    /// Why, for people; at most [`EXPLANATION_BYTES_MAX`].
    #[serde(default)]
    pub explanation: String,
}

/// The longest [`Score::explanation`].
pub const EXPLANATION_BYTES_MAX: usize = 512;

impl Score {
    /// A score of one judge that knows for certain.
    pub fn certain(quality: f64, explanation: impl Into<String>) -> Self {
        let (axes, explanation) = (BTreeMap::new(), shorten(explanation.into(), EXPLANATION_BYTES_MAX));
        Score { quality, confidence: 1.0, axes, disagreement: 0.0, explanation }
    }
}

/// What a judge makes of a group, and what that took.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Verdict {
    /// One for each candidate, in their order; `None` means that nothing is known, and nothing learned.
    pub scores: Vec<Option<Score>>,
    /// Calls of models and programs.
    #[serde(default)]
    pub calls: u64,
    /// Tokens that they used.
    #[serde(default)]
    pub tokens: u64,
    /// What they were charged, in the team's currency.
    #[serde(default)]
    pub money: f64,
    /// What went wrong.
    #[serde(default)]
    pub failures: Vec<JudgeFailure>,
    /// How the judges did where they were tried.
    #[serde(default)]
    pub checks: Vec<Check>,
}

impl Verdict {
    /// No score for any of `n` candidates.
    pub fn none(n: usize) -> Self {
        Verdict { scores: vec![None; n], ..Verdict::default() }
    }

    /// Count what another one took, without its scores.
    fn count(&mut self, other: &Verdict) {
        self.calls += other.calls;
        self.tokens = self.tokens.saturating_add(other.tokens);
        self.money += other.money;
        self.failures.extend(other.failures.iter().cloned());
        self.checks.extend(other.checks.iter().cloned());
    }
}

/// A judge that gave no score.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct JudgeFailure {
    /// Which.
    pub judge: String,
    /// For which candidate of the group; for none of them, if it is absent.
    pub candidate: Option<usize>,
    /// Why.
    pub failure: Failure,
    /// The end of what a program said on stderr.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub last_words: String,
}

/// How a judge did where it was tried.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Check {
    /// A worthless trajectory was put among the others.
    Canary {
        /// Who was tried.
        judge: String,
        /// What it got.
        quality: f64,
        /// Whether that is too much.
        fooled: bool,
    },
    /// The same group was shown once more in the opposite order.
    Swap {
        /// Who was tried.
        judge: String,
        /// See [`agreement`]: 1/2 is chance.
        agreement: f64,
    },
    /// Another judge, whose scores do not count, was asked too.
    Audit {
        /// Who was asked.
        judge: String,
        /// See [`agreement`]; `None` with fewer than two scores in common.
        agreement: Option<f64>,
        /// Mean distance of the qualities.
        distance: f64,
    },
}

impl Check {
    /// It as a record of the group that begins with this task.
    pub fn record(self, episode: u64) -> Record {
        let (check, judge, value, distance, fooled) = match self {
            Check::Canary { judge, quality, fooled } => ("canary", judge, Some(quality), None, fooled),
            Check::Swap { judge, agreement } => ("swap", judge, Some(agreement), None, false),
            Check::Audit { judge, agreement, distance } => ("audit", judge, agreement, Some(distance), false),
        };
        Record::Tried { episode, judge, check: check.to_owned(), value, distance, fooled }
    }

    /// The check that a record holds.
    pub fn of_record(record: &Record) -> Option<Self> {
        let Record::Tried { judge, check, value, distance, fooled, .. } = record else { return None };
        let judge = judge.clone();
        Some(match check.as_str() {
            "canary" => Check::Canary { judge, quality: (*value)?, fooled: *fooled },
            "swap" => Check::Swap { judge, agreement: (*value)? },
            "audit" => Check::Audit { judge, agreement: *value, distance: (*distance)? },
            _ => return None,
        })
    }
}

/// The share of pairs that two judges order alike, in [0, 1]: a pair of which only one of them makes a tie counts half.
/// `None` without a pair that both have scored.
pub fn agreement(a: &[Option<f64>], b: &[Option<f64>]) -> Option<f64> {
    let both: Vec<(f64, f64)> = a.iter().zip(b).filter_map(|(a, b)| Some(((*a)?, (*b)?))).collect();
    let sign = |x: f64| if x.abs() < TIE { 0.0 } else { x.signum() };
    let (mut alike, mut pairs) = (0.0, 0u32);
    for (i, (a1, b1)) in both.iter().enumerate() {
        for (a2, b2) in &both[..i] {
            // 1 for the same sign, 1/2 for one tie, 0 for opposite signs
            alike += 1.0 - (sign(a1 - a2) - sign(b1 - b2)).abs() / 2.0;
            pairs += 1;
        }
    }
    (pairs > 0).then(|| alike / f64::from(pairs))
}

/// Qualities that are closer are equal.
const TIE: f64 = 1e-9;

fn mean(values: impl IntoIterator<Item = f64>) -> Option<f64> {
    let (sum, n) = values.into_iter().fold((0.0, 0u32), |(sum, n), x| (sum + x, n + 1));
    (n > 0).then(|| sum / f64::from(n))
}

/// At most `bytes_max` of a text, marked where it was cut.
fn shorten(mut text: String, bytes_max: usize) -> String {
    const MARK: &str = " ...";
    if text.len() > bytes_max {
        text.truncate(text.floor_char_boundary(bytes_max - MARK.len()));
        text.push_str(MARK);
    }
    text
}

#[derive(Serialize, Deserialize)]
#[serde(untagged, expecting = "an answer is a text, or { \"hex\": \"00ff\" }")]
enum Bytes {
    Text(String),
    Hex { hex: String },
}

fn write_bytes<S: Serializer>(bytes: &[u8], to: S) -> Result<S::Ok, S::Error> {
    match str::from_utf8(bytes) {
        Ok(text) => to.serialize_str(text),
        Err(_) => Bytes::Hex { hex: hex(bytes) }.serialize(to),
    }
}

fn read_bytes<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<u8>, D::Error> {
    let digits = match Bytes::deserialize(from)? {
        Bytes::Text(text) => return Ok(text.into_bytes()),
        Bytes::Hex { hex } => hex,
    };
    let byte = |pair: &[u8]| u8::from_str_radix(str::from_utf8(pair).ok()?, 16).ok();
    let well_formed = digits.len() % 2 == 0 && digits.bytes().all(|b| b.is_ascii_hexdigit());
    let bytes = digits.as_bytes().chunks(2).map(byte).collect::<Option<Vec<u8>>>();
    bytes.filter(|_| well_formed).ok_or_else(|| D::Error::custom("`hex` holds pairs of hexadecimal digits"))
}
