//! What a coordinator sees of a task: what there is by now, and how sure it is, folded to a signature.

use std::fmt;

use relevo_core::observation::Signature;
use serde::Deserialize;

/// The kind of a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
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
    /// Its name in recordings and signatures.
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

/// A task on its way, folded: two tasks in the same state are the same to the coordinator.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
#[serde(try_from = "Row")]
pub struct State {
    /// The kind of task.
    pub regime: Regime,
    /// Whether the goal is stated.
    pub goal: bool,
    /// Whether a subproblem was set.
    pub subproblem: bool,
    /// Whether any evidence was found.
    pub evidence: bool,
    /// Whether there is a draft of the answer.
    pub draft: bool,
    /// Whether it was criticised.
    pub critique: bool,
    /// Whether it was verified.
    pub verification: bool,
    /// Whether drafts were merged.
    pub merged: bool,
    /// The believed correctness, uncertainty, contradiction and sufficiency of the evidence, in tenths.
    pub beliefs: [u8; 4],
}

impl State {
    /// The key under which the policy graph keeps it.
    pub fn signature(&self) -> Signature {
        Signature::of_name(&self.to_string())
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "regime={} has=", self.regime.name())?;
        let parts = [
            (self.goal, "goal"),
            (self.subproblem, "subproblem"),
            (self.evidence, "evidence"),
            (self.draft, "draft"),
            (self.critique, "critique"),
            (self.verification, "verification"),
            (self.merged, "merged"),
        ];
        let present: Vec<&str> = parts.iter().filter(|(there, _)| *there).map(|(_, name)| *name).collect();
        write!(f, "{}", present.join(","))?;
        for (name, tenths) in
            ["correctness", "uncertainty", "contradiction", "sufficiency"].iter().zip(self.beliefs)
        {
            write!(f, " {name}={}.{}", tenths / 10, tenths % 10)?;
        }
        Ok(())
    }
}

/// A state as recordings write it: regime, seven booleans, four beliefs at a granularity of .1.
#[derive(Deserialize)]
struct Row(Regime, bool, bool, bool, bool, bool, bool, bool, f64, f64, f64, f64);

impl TryFrom<Row> for State {
    type Error = String;

    fn try_from(row: Row) -> Result<Self, String> {
        let Row(regime, goal, subproblem, evidence, draft, critique, verification, merged, a, b, c, d) = row;
        let mut beliefs = [0; 4];
        for (tenths, belief) in beliefs.iter_mut().zip([a, b, c, d]) {
            let nearest = (belief * 10.0).round();
            if !(0.0..=10.0).contains(&nearest) || nearest / 10.0 != belief {
                return Err(format!("a folded belief is {belief}: it must be one of 0, 0.1, ..., 1"));
            }
            *tenths = nearest as u8;
        }
        Ok(State { regime, goal, subproblem, evidence, draft, critique, verification, merged, beliefs })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_recorded_state_is_read_and_named() {
        let text = r#"["high_risk",true,true,false,true,false,false,false,0.3,0.8,0.5,1]"#;
        let state: State = serde_json::from_str(text).unwrap();
        assert_eq!(
            state.to_string(),
            "regime=high_risk has=goal,subproblem,draft correctness=0.3 uncertainty=0.8 contradiction=0.5 \
             sufficiency=1.0"
        );
        for (from, to) in [("0.3", "0.35"), ("0.3", "-0.1"), ("0.3", "NaN"), ("high", "low"), (",1]", "]")] {
            assert!(serde_json::from_str::<State>(&text.replace(from, to)).is_err(), "{from} -> {to}");
        }
    }
}
