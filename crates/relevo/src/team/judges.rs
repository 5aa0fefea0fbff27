//! How the end of a task is judged, in the words of the file.

use std::fmt;

use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{Error, MapAccess, Visitor, value::MapAccessDeserializer},
};

use super::check::{Fault, shown};
use crate::judge::{
    command::CommandSpec,
    relative::{Axis, GROUP_MAX, OnFooled, Probes, Rubric},
    rule::{Numeric, Rule},
};

/// The most models of a panel, the most axes, and the longest text that a judge is told of each.
const MODELS_MAX: usize = 16;
const AXES_MAX: usize = 16;
const WEIGHT_MAX: f64 = 1e6;
const TEXT_BYTES_MAX: usize = 4096;

/// How the end of a task is judged: `"text"` and `"sha256"`, or a table with a `rule`.
#[derive(Clone, Debug, PartialEq)]
pub enum JudgeSpec {
    /// By a rule.
    Rule(Rule),
    /// By a program.
    Command(CommandSpec),
    /// By models that compare attempts at the same task.
    Relative(RelativeSection),
}

/// Models that compare attempts at the same task.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RelativeSection {
    /// The models; the mean of their scores counts.
    pub models: Vec<String>,
    /// How many attempts at a task are compared.
    #[serde(default = "default_group")]
    pub group: usize,
    /// What each attempt is scored on.
    #[serde(default = "default_axes")]
    pub axes: Vec<Axis>,
    /// What else the judges are told.
    #[serde(default)]
    pub instructions: String,
    /// The share of groups with a canary.
    #[serde(default = "default_canary")]
    pub canary: f64,
    /// A canary that gets more than this has fooled its judge.
    #[serde(default = "default_fooled_above")]
    pub fooled_above: f64,
    /// What becomes of the scores of a judge that was fooled.
    #[serde(default)]
    pub on_fooled: OnFooled,
    /// The share of groups that are shown once more in the opposite order.
    #[serde(default = "default_swap")]
    pub swap: f64,
    /// Another model that is asked now and then, and does not count.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub audit: Option<AuditSection>,
}

/// A model that audits the others.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AuditSection {
    /// The model.
    pub model: String,
    /// The share of groups that it is asked about.
    pub rate: f64,
}

fn default_group() -> usize {
    4
}

fn default_axes() -> Vec<Axis> {
    Rubric::default().axes
}

fn default_canary() -> f64 {
    Probes::default().canary
}

fn default_fooled_above() -> f64 {
    Probes::default().fooled_above
}

fn default_swap() -> f64 {
    Probes::default().swap
}

impl RelativeSection {
    /// What is judged.
    pub fn rubric(&self) -> Rubric {
        Rubric { axes: self.axes.clone(), instructions: self.instructions.clone() }
    }

    /// How the judges are tried.
    pub fn probes(&self) -> Probes {
        let RelativeSection { canary, fooled_above, on_fooled, swap, .. } = *self;
        Probes { canary, fooled_above, on_fooled, swap }
    }
}

/// The table, as it is written.
#[derive(Serialize, Deserialize)]
#[serde(tag = "rule", rename_all = "kebab-case", deny_unknown_fields)]
enum Table {
    Sha256 {},
    Text {},
    Numeric(Numeric),
    Regex {},
    JsonSchema {},
    Contains {},
    Command(CommandSpec),
    Relative(RelativeSection),
}

struct JudgeVisitor;

impl<'de> Visitor<'de> for JudgeVisitor {
    type Value = JudgeSpec;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("\"text\", \"sha256\", or a table such as { rule = \"numeric\", tolerance = 0.01 }")
    }

    fn visit_str<E: Error>(self, word: &str) -> Result<JudgeSpec, E> {
        match word {
            "sha256" => Ok(JudgeSpec::Rule(Rule::Sha256)),
            "text" => Ok(JudgeSpec::Rule(Rule::Text)),
            other => Err(E::unknown_variant(other, &["sha256", "text"])),
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<JudgeSpec, A::Error> {
        let rule = match Table::deserialize(MapAccessDeserializer::new(map))? {
            Table::Command(spec) => return Ok(JudgeSpec::Command(spec)),
            Table::Relative(section) => return Ok(JudgeSpec::Relative(section)),
            Table::Sha256 {} => Rule::Sha256,
            Table::Text {} => Rule::Text,
            Table::Numeric(numeric) => Rule::Numeric(numeric),
            Table::Regex {} => Rule::Regex,
            Table::JsonSchema {} => Rule::JsonSchema,
            Table::Contains {} => Rule::Contains,
        };
        Ok(JudgeSpec::Rule(rule))
    }
}

impl<'de> Deserialize<'de> for JudgeSpec {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(JudgeVisitor)
    }
}

impl Serialize for JudgeSpec {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let table = match self {
            JudgeSpec::Rule(rule @ (Rule::Sha256 | Rule::Text)) => return to.serialize_str(rule.word()),
            JudgeSpec::Rule(Rule::Numeric(numeric)) => Table::Numeric(numeric.clone()),
            JudgeSpec::Rule(Rule::Regex) => Table::Regex {},
            JudgeSpec::Rule(Rule::JsonSchema) => Table::JsonSchema {},
            JudgeSpec::Rule(Rule::Contains) => Table::Contains {},
            JudgeSpec::Command(spec) => Table::Command(spec.clone()),
            JudgeSpec::Relative(section) => Table::Relative(section.clone()),
        };
        table.serialize(to)
    }
}

/// What a judge must hold beyond its form.
pub(super) fn check_judge(judge: &JudgeSpec) -> Result<(), Fault> {
    let fault = |key: &str, what: String| Err(Fault::new(format!("tasks/judge/{key}"), what));
    match judge {
        JudgeSpec::Rule(Rule::Numeric(Numeric { tolerance, relative, pointer })) => {
            for (key, x) in [("tolerance", tolerance), ("relative", relative)] {
                if *x < 0.0 {
                    return fault(key, format!("{key} is {x}: it is a distance, 0 or more"));
                }
            }
            match pointer {
                Some(pointer) if !pointer.is_empty() && !pointer.starts_with('/') => fault(
                    "pointer",
                    format!("pointer is {:?}: it begins with /, as \"/total\"", shown(pointer)),
                ),
                _ => Ok(()),
            }
        }
        JudgeSpec::Rule(_) => Ok(()),
        JudgeSpec::Command(CommandSpec { command, timeout_ms, .. }) => {
            if command.first().is_none_or(String::is_empty) {
                let what = "the judge has an empty command: write command = [\"program\", \"argument\"]";
                return fault("command", what.to_owned());
            }
            if !(1..=86_400_000).contains(timeout_ms) {
                let what = format!("timeout_ms is {timeout_ms}: it must lie in 1 .. 86400000 (a day)");
                return fault("timeout_ms", what);
            }
            Ok(())
        }
        JudgeSpec::Relative(section) => check_relative(section).or_else(|(key, what)| fault(&key, what)),
    }
}

fn check_relative(section: &RelativeSection) -> Result<(), (String, String)> {
    let RelativeSection { models, group, axes, instructions, audit, .. } = section;
    let fault = |key: &str, what: String| Err((key.to_owned(), what));
    if models.is_empty() || models.len() > MODELS_MAX {
        return fault("models", format!("a panel has 1 to {MODELS_MAX} models"));
    }
    if let Some(twice) = (1..models.len()).find(|i| models[..*i].contains(&models[*i])) {
        let name = shown(&models[twice]);
        return fault(
            &format!("models/{twice}"),
            format!("{name:?} is there twice: its opinion would count twice"),
        );
    }
    if let Some(AuditSection { model, .. }) = audit.as_ref().filter(|audit| models.contains(&audit.model)) {
        let model = shown(model);
        return fault(
            "audit/model",
            format!("{model:?} is one of the judges, and would agree with itself: name another"),
        );
    }
    if !(2..=GROUP_MAX).contains(group) {
        let what = format!("group is {group}: 2 to {GROUP_MAX} attempts at a task can be compared");
        return fault("group", what);
    }
    if axes.len() > AXES_MAX || axes.iter().all(|axis| axis.weight <= 0.0) {
        return fault("axes", format!("at most {AXES_MAX} axes, one of them with a weight above 0"));
    }
    for (i, Axis { name, weight, asks }) in axes.iter().enumerate() {
        let place = format!("axes/{i}");
        let plain = |c: char| c.is_ascii_alphanumeric() || c == '_';
        if name.is_empty() || name.len() > 64 || !name.chars().all(plain) {
            let name = shown(name);
            return fault(
                &place,
                format!("{name:?} is no name of an axis: use 1 to 64 letters, digits and _"),
            );
        }
        if axes[..i].iter().any(|other| other.name == *name) {
            return fault(&place, format!("two axes are called {name:?}: rename one"));
        }
        if !(0.0..=WEIGHT_MAX).contains(weight) || asks.len() > TEXT_BYTES_MAX {
            let what = format!(
                "axis {name:?}: its weight lies in [0, {WEIGHT_MAX}], and asks has at most {TEXT_BYTES_MAX} bytes"
            );
            return fault(&place, what);
        }
    }
    if instructions.len() > TEXT_BYTES_MAX {
        return fault("instructions", format!("instructions have at most {TEXT_BYTES_MAX} bytes"));
    }
    let Probes { canary, fooled_above, swap, .. } = section.probes();
    let rate = audit.as_ref().map_or(0.0, |audit| audit.rate);
    let shares = [("canary", canary), ("fooled_above", fooled_above), ("swap", swap), ("audit/rate", rate)];
    match shares.into_iter().find(|(_, share)| !(0.0..=1.0).contains(share)) {
        Some((key, share)) => fault(key, format!("{key} is {share}: it must lie in [0, 1]")),
        None => Ok(()),
    }
}
