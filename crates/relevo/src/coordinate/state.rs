//! What a coordinator sees of a task: what there is by now, and how sure it is, folded to a signature.

use std::fmt;

use relevo_core::observation::Signature;
use serde::Deserialize;

use super::{
    belief::Beliefs,
    document::{Document, stated},
    features::Regime,
};
use crate::artifact::Scalar;

/// A task on its way, folded: two tasks in the same state are the same to the coordinator, but for what its
/// [`SignatureSpec`] adds.
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
    /// Whether there is a draft of the answer, here or from a branch.
    pub draft: bool,
    /// Whether it was criticised.
    pub critique: bool,
    /// Whether it was verified.
    pub verification: bool,
    /// Whether drafts were merged.
    pub merged: bool,
    /// The believed correctness, uncertainty, contradiction and sufficiency of the evidence, in ten-thousandths; `None`
    /// where they are left out.
    pub beliefs: Option<[u16; 4]>,
}

impl State {
    /// The state of a task with this document and these beliefs, folded at `granularity`.
    pub fn of(regime: Regime, document: &Document, beliefs: &Beliefs, granularity: Option<f64>) -> Self {
        State {
            regime,
            goal: stated(&document.goal).is_some(),
            subproblem: stated(&document.subproblem).is_some(),
            evidence: !document.evidence.is_empty(),
            draft: stated(&document.draft_answer).is_some() || !document.branches.is_empty(),
            critique: stated(&document.critique).is_some(),
            verification: document.verification.is_some(),
            merged: stated(&document.merged_answer).is_some(),
            beliefs: granularity.map(|g| beliefs.folded(g)),
        }
    }

    /// The key under which the policy graph keeps it.
    pub fn signature(&self) -> Signature {
        Signature::of_name(&self.to_string())
    }

    /// The names of what there is, as in `has=goal,draft`.
    fn has(&self) -> String {
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
        format!("has={}", present.join(","))
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "regime={} {}", self.regime.name(), self.has())?;
        let names = ["correctness", "uncertainty", "contradiction", "sufficiency"];
        for (name, belief) in names.iter().zip(self.beliefs.iter().flatten()) {
            write!(f, " {name}={:?}", f64::from(*belief) / 10_000.0)?;
        }
        Ok(())
    }
}

/// What is folded into a signature, besides the regime and what there is.
#[derive(Clone, Debug, PartialEq)]
pub struct SignatureSpec {
    /// The bin width of the beliefs; `None` leaves them out.
    pub granularity: Option<f64>,
    /// Whether the cells that were taken are part of it. Without them, states with different choices may be the same.
    pub taken: bool,
    /// Whether the cell that acted last is part of it. Then every cell learns for itself whom to hand over to, and value
    /// passing over the coordinator's one table is IC-Q with the cells for agents.
    pub cell: bool,
    /// Facts of the task that are part of it.
    pub facts: Vec<String>,
}

impl Default for SignatureSpec {
    /// As in the recorded experiments.
    fn default() -> Self {
        SignatureSpec { granularity: Some(0.1), taken: false, cell: false, facts: vec![] }
    }
}

/// A state with what a [`SignatureSpec`] adds to it.
#[derive(Clone, Debug, PartialEq)]
pub struct Folded<'a> {
    /// The state.
    pub state: State,
    /// The branch that is worked on, from 1.
    pub branch: Option<u32>,
    /// The cells that were taken, in the order of their columns.
    pub taken: Option<Vec<&'a str>>,
    /// The cell that acted last; within, `None` before the first.
    pub cell: Option<Option<&'a str>>,
    /// Facts of the task; `None` for one that it has not got.
    pub facts: Vec<(&'a str, Option<&'a Scalar>)>,
}

impl Folded<'_> {
    /// The names of coarser situations that this one is part of, from the coarsest on: by what there is; then by regime
    /// and facts too, without beliefs, taken cells and last cell.
    pub fn coarser(&self) -> Vec<String> {
        let state = State { beliefs: None, ..self.state };
        let by_regime = Folded { state, taken: None, cell: None, ..self.clone() };
        let mut names = vec![self.state.has(), by_regime.to_string()];
        names.retain(|name| *name != self.to_string());
        names
    }
}

impl fmt::Display for Folded<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.state)?;
        if let Some(branch) = self.branch {
            write!(f, " branch={branch}")?;
        }
        if let Some(taken) = &self.taken {
            write!(f, " taken={}", taken.join(","))?;
        }
        if let Some(cell) = self.cell {
            write!(f, " cell={}", cell.unwrap_or("-"))?;
        }
        for (name, value) in &self.facts {
            match value {
                None => write!(f, " {name}=-")?,
                // Parts are told apart by their spaces.
                Some(Scalar::Text(text)) if text.contains(char::is_whitespace) => {
                    write!(f, " {name}={text:?}")?
                }
                Some(value) => write!(f, " {name}={value}")?,
            }
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
        for (folded, belief) in beliefs.iter_mut().zip([a, b, c, d]) {
            let nearest = (belief * 10.0).round();
            if !(0.0..=10.0).contains(&nearest) || nearest / 10.0 != belief {
                return Err(format!("a folded belief is {belief}: it must be one of 0, 0.1, ..., 1"));
            }
            *folded = nearest as u16 * 1000;
        }
        let beliefs = Some(beliefs);
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

    #[test]
    fn a_situation_is_part_of_coarser_ones() {
        let document = Document { goal: Some("x".into()), ..Document::default() };
        let fold = |g| State::of(Regime::Ambiguous, &document, &Beliefs::default(), g);
        let class = Scalar::Text("two words".into());
        let fine = Folded {
            state: fold(Some(0.05)),
            branch: Some(2),
            taken: Some(vec!["planner", "memory"]),
            cell: Some(None),
            facts: vec![("class", Some(&class)), ("year", None)],
        };
        assert_eq!(
            fine.to_string(),
            "regime=ambiguous has=goal correctness=0.1 uncertainty=0.9 contradiction=0.5 sufficiency=0.1 branch=2 \
             taken=planner,memory cell=- class=\"two words\" year=-"
        );
        let by_regime = "regime=ambiguous has=goal branch=2 class=\"two words\" year=-";
        assert_eq!(fine.coarser(), ["has=goal", by_regime]);
        let coarse = Folded { state: fold(None), branch: None, taken: None, cell: None, facts: vec![] };
        assert_eq!(coarse.coarser(), ["has=goal"], "it is its own regime's situation");
    }
}
