//! What is known of a task before anybody works on it, and which kind of task that makes it.

use serde::{Deserialize, Serialize};

use crate::artifact::{Facts, Scalar};

/// The features of a task, as whoever poses it estimates them: one yes or no, and seven numbers in [0, 1].
///
/// ```
/// use relevo::coordinate::features::{Regime, TaskFeatures};
///
/// let features: TaskFeatures = serde_json::from_str(r#"{"verification_need": 0.9}"#).unwrap();
/// assert_eq!(Regime::of(&features), Regime::HighRisk);
/// assert!(serde_json::from_str::<TaskFeatures>(r#"{"verification_need": 9}"#).is_err());
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TaskFeatures {
    /// Whether the answer must rest on sources.
    pub requires_factual_grounding: bool,
    /// How unclear it is what is asked.
    #[serde(deserialize_with = "share")]
    pub ambiguity_level: f64,
    /// How likely sources are to disagree.
    #[serde(deserialize_with = "share")]
    pub contradiction_risk: f64,
    /// How little like it has been seen.
    #[serde(deserialize_with = "share")]
    pub novelty_level: f64,
    /// How far ahead one has to think.
    #[serde(deserialize_with = "share")]
    pub time_horizon_complexity: f64,
    /// How much evidence is there to be had.
    #[serde(deserialize_with = "share")]
    pub evidence_availability: f64,
    /// How much costs count.
    #[serde(deserialize_with = "share")]
    pub cost_sensitivity: f64,
    /// How much depends on the answer being right.
    #[serde(deserialize_with = "share")]
    pub verification_need: f64,
}

fn share<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
    let value = f64::deserialize(deserializer)?;
    match (0.0..=1.0).contains(&value) {
        true => Ok(value),
        false => Err(serde::de::Error::custom(format!("a feature is {value}: it must lie in [0, 1]"))),
    }
}

impl TaskFeatures {
    /// The features that facts of a task state under the same names; none if they state none. Facts have no fractions,
    /// so a number is a text such as `"0.8"`, or 0 or 1.
    pub fn of_facts(facts: &Facts) -> Result<Option<Self>, String> {
        let mut features = TaskFeatures::default();
        let mut any = false;
        if let Some(fact) = facts.get("requires_factual_grounding") {
            let Scalar::Bool(required) = fact else {
                return Err(format!("fact requires_factual_grounding is {fact}: it must be true or false"));
            };
            (features.requires_factual_grounding, any) = (*required, true);
        }
        let numbers = [
            ("ambiguity_level", &mut features.ambiguity_level),
            ("contradiction_risk", &mut features.contradiction_risk),
            ("novelty_level", &mut features.novelty_level),
            ("time_horizon_complexity", &mut features.time_horizon_complexity),
            ("evidence_availability", &mut features.evidence_availability),
            ("cost_sensitivity", &mut features.cost_sensitivity),
            ("verification_need", &mut features.verification_need),
        ];
        for (name, feature) in numbers {
            let Some(fact) = facts.get(name) else { continue };
            let number = match fact {
                Scalar::Int(number) => Some(*number as f64),
                Scalar::Text(text) => text.parse().ok(),
                Scalar::Bool(_) => None,
            };
            let Some(number) = number.filter(|n| (0.0..=1.0).contains(n)) else {
                return Err(format!("fact {name} is {fact}: it must be a text such as \"0.8\", or 0 or 1"));
            };
            (*feature, any) = (number, true);
        }
        Ok(any.then_some(features))
    }
}

/// The kind of a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Regime {
    /// Sources disagree.
    Contradictory,
    /// What is asked is not clear.
    Ambiguous,
    /// There is much evidence to be checked.
    EvidenceHeavy,
    /// A mistake is costly.
    HighRisk,
    /// Little like it has been seen.
    Exploratory,
    /// None of these.
    Straightforward,
}

impl Regime {
    /// All, in the order in which they are looked for.
    pub const ALL: [Regime; 6] = [
        Regime::Contradictory,
        Regime::Ambiguous,
        Regime::EvidenceHeavy,
        Regime::HighRisk,
        Regime::Exploratory,
        Regime::Straightforward,
    ];

    /// The kind of a task with these features: the first of [`Regime::ALL`] that they call for.
    pub fn of(features: &TaskFeatures) -> Self {
        let f = features;
        Self::ALL
            .into_iter()
            .find(|regime| match regime {
                Regime::Contradictory => f.contradiction_risk > 0.7,
                Regime::Ambiguous => f.ambiguity_level > 0.7,
                Regime::EvidenceHeavy => f.evidence_availability > 0.7 && f.verification_need > 0.6,
                Regime::HighRisk => f.verification_need > 0.8,
                Regime::Exploratory => f.novelty_level > 0.7,
                Regime::Straightforward => true,
            })
            .expect("every task is at least straightforward")
    }

    /// Its name in recordings, team files and signatures.
    pub fn name(self) -> &'static str {
        match self {
            Regime::Contradictory => "contradictory",
            Regime::Ambiguous => "ambiguous",
            Regime::EvidenceHeavy => "evidence_heavy",
            Regime::HighRisk => "high_risk",
            Regime::Exploratory => "exploratory",
            Regime::Straightforward => "straightforward",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_rule_that_holds_decides() {
        let kinds = [
            (r#"{}"#, Regime::Straightforward),
            (r#"{"contradiction_risk": 0.7}"#, Regime::Straightforward),
            (r#"{"contradiction_risk": 0.71, "ambiguity_level": 1}"#, Regime::Contradictory),
            (r#"{"ambiguity_level": 0.8, "verification_need": 1}"#, Regime::Ambiguous),
            (r#"{"evidence_availability": 0.8, "verification_need": 0.61}"#, Regime::EvidenceHeavy),
            (r#"{"evidence_availability": 0.8, "verification_need": 0.6}"#, Regime::Straightforward),
            (r#"{"verification_need": 0.81, "novelty_level": 0.9}"#, Regime::HighRisk),
            (r#"{"verification_need": 0.8, "novelty_level": 0.9}"#, Regime::Exploratory),
        ];
        for (text, regime) in kinds {
            assert_eq!(Regime::of(&serde_json::from_str(text).unwrap()), regime, "{text}");
        }
        for wrong in [
            r#"{"novelty": 0.5}"#,
            r#"{"novelty_level": 1.5}"#,
            r#"{"novelty_level": -0.1}"#,
            r#"{"novelty_level": 1e999}"#,
            r#"{"novelty_level": "high"}"#,
        ] {
            assert!(serde_json::from_str::<TaskFeatures>(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn facts_state_features_too() {
        let fact = |name: &str, value| Facts::from([(name.to_owned(), value)]);
        let features = TaskFeatures::of_facts(&fact("novelty_level", Scalar::Text("0.8".into())));
        assert_eq!(Regime::of(&features.unwrap().unwrap()), Regime::Exploratory);
        assert_eq!(TaskFeatures::of_facts(&fact("class", Scalar::Int(3))), Ok(None));
        for wrong in
            [Scalar::Text("NaN".into()), Scalar::Text("high".into()), Scalar::Int(2), Scalar::Bool(true)]
        {
            assert!(TaskFeatures::of_facts(&fact("novelty_level", wrong)).is_err());
        }
    }
}
