//! What a coordinator believes of a task on its way, and how that is folded into few values.

use serde::{Deserialize, Serialize};

use super::{
    document::{Document, Support, stated},
    plan::Role,
};

/// Five beliefs, each in [0, 1].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Beliefs {
    /// That the answer is right.
    pub correctness: f64,
    /// That it is not known what the answer is.
    pub uncertainty: f64,
    /// That the next cell can work with what it is given. Not part of any signature.
    pub handoff_quality: f64,
    /// That something contradicts something.
    pub contradiction: f64,
    /// That there is evidence enough.
    pub sufficiency: f64,
}

impl Default for Beliefs {
    fn default() -> Self {
        Beliefs {
            correctness: 0.1,
            uncertainty: 0.9,
            handoff_quality: 0.2,
            contradiction: 0.5,
            sufficiency: 0.1,
        }
    }
}

/// What a search that failed, or found nothing, does to the beliefs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum EmptySearch {
    /// Nothing.
    #[default]
    Ignored,
    /// As much as any other (AgensFlow).
    Counted,
}

impl Beliefs {
    /// The beliefs after a cell of `role` has turned `before` into `after`. Every change is clipped to [0, 1]; nothing
    /// is rounded in between.
    pub fn after(mut self, role: Role, before: &Document, after: &Document, empty: EmptySearch) -> Self {
        let add = |belief: &mut f64, change: f64| *belief = (*belief + change).clamp(0.0, 1.0);
        let Beliefs { correctness, uncertainty, handoff_quality, contradiction, sufficiency } = &mut self;
        match role {
            Role::Planner if stated(&after.subproblem).is_some() => {
                add(handoff_quality, 0.10);
                add(uncertainty, -0.05);
            }
            Role::Memory | Role::WebSearch => {
                let found = !after.evidence.is_empty() && after.evidence != before.evidence;
                if found || empty == EmptySearch::Counted {
                    // min(.30, .10 x all evidence there is)
                    add(sufficiency, (0.10 * after.evidence.len() as f64).min(0.30));
                    add(handoff_quality, 0.05);
                    add(uncertainty, -0.10);
                }
            }
            Role::Solver if stated(&after.draft_answer).is_some() => {
                add(correctness, 0.20);
                add(uncertainty, -0.10);
                add(handoff_quality, 0.10);
            }
            Role::Critic if stated(&after.critique).is_some() => {
                add(contradiction, 0.20);
                add(uncertainty, 0.05);
            }
            Role::Verifier => {
                let Some(verification) = &after.verification else { return self };
                let changes = match verification.status {
                    Support::Supported => [0.25, -0.20, -0.15, 0.10],
                    Support::PartiallySupported => [0.10, -0.05, -0.05, 0.0],
                    Support::Unsupported => [-0.20, 0.10, 0.20, 0.0],
                };
                add(correctness, changes[0]);
                add(uncertainty, changes[1]);
                add(contradiction, changes[2]);
                add(sufficiency, changes[3]);
            }
            Role::Synthesiser if stated(&after.merged_answer).is_some() => {
                add(correctness, 0.08);
                add(handoff_quality, 0.12);
                add(uncertainty, -0.05);
            }
            Role::Planner | Role::Solver | Role::Critic | Role::Synthesiser | Role::Evaluator => {}
        }
        self
    }

    /// The four beliefs that a signature holds, folded at a granularity.
    pub fn folded(&self, granularity: f64) -> [u16; 4] {
        [self.correctness, self.uncertainty, self.contradiction, self.sufficiency]
            .map(|belief| fold(belief, granularity))
    }
}

/// A belief folded at granularity g, in ten-thousandths: the whole multiple of g that is nearest, halves to the even one,
/// rounded to four decimals and clipped to [0, 1].
pub fn fold(belief: f64, granularity: f64) -> u16 {
    // round_half_even(v / g) g
    let nearest = (belief / granularity).round_ties_even() * granularity;
    (nearest * 10_000.0).round_ties_even().clamp(0.0, 10_000.0) as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn beliefs_fold_to_the_nearest_bin() {
        let tenths = [
            (0.05, 0),
            (0.15, 1),
            (0.25, 2),
            (0.35, 3),
            (0.45, 4),
            (0.55, 6),
            (0.65, 6),
            (0.75, 8),
            (0.85, 8),
            (0.95, 9),
            (0.0, 0),
            (1.0, 10),
        ];
        for (belief, bin) in tenths {
            assert_eq!(fold(belief, 0.1), bin * 1000, "{belief}");
        }
        let others = [
            (0.32, 0.05, 3000),
            (0.33, 0.05, 3500),
            (1.0, 0.05, 10_000),
            (0.025, 0.05, 0),
            (0.5, 0.2, 4000),
            (0.9, 0.2, 8000),
            (0.95, 0.2, 10_000),
            (0.5, 1.0, 0),
            (0.51, 1.0, 10_000),
            (0.9, 0.7, 7000),
        ];
        for (belief, granularity, folded) in others {
            assert_eq!(fold(belief, granularity), folded, "{belief} at {granularity}");
        }
    }

    #[test]
    fn each_role_moves_what_it_bears_on() {
        let nothing = Document::default();
        let read = |text: &str| Document::parse(text.as_bytes()).unwrap();
        let evidence = r#"{"evidence": [{"source": "", "text": "x"}, {"source": "", "text": "y"}]}"#;
        let verified = |status: &str| read(&format!(r#"{{"verification": {{"status": {status:?}}}}}"#));
        // correctness, uncertainty, handoff quality, contradiction, sufficiency
        let moves = [
            (Role::Planner, read(r#"{"subproblem": "x"}"#), [0.1, 0.85, 0.3, 0.5, 0.1]),
            (Role::Planner, read(r#"{"subproblem": " "}"#), [0.1, 0.9, 0.2, 0.5, 0.1]),
            (Role::Memory, read(evidence), [0.1, 0.8, 0.25, 0.5, 0.3]),
            (Role::WebSearch, read("{}"), [0.1, 0.9, 0.2, 0.5, 0.1]),
            (Role::Solver, read(r#"{"draft_answer": "x"}"#), [0.3, 0.8, 0.3, 0.5, 0.1]),
            (Role::Critic, read(r#"{"critique": "x"}"#), [0.1, 0.95, 0.2, 0.7, 0.1]),
            (Role::Verifier, verified("supported"), [0.35, 0.7, 0.2, 0.35, 0.2]),
            (Role::Verifier, verified("partially_supported"), [0.2, 0.85, 0.2, 0.45, 0.1]),
            (Role::Verifier, verified("unsupported"), [0.0, 1.0, 0.2, 0.7, 0.1]),
            (Role::Synthesiser, read(r#"{"merged_answer": "x"}"#), [0.18, 0.85, 0.32, 0.5, 0.1]),
            (Role::Evaluator, read(r#"{"done": true}"#), [0.1, 0.9, 0.2, 0.5, 0.1]),
        ];
        let near = |b: Beliefs, expected: [f64; 5]| {
            let b = [b.correctness, b.uncertainty, b.handoff_quality, b.contradiction, b.sufficiency];
            b.iter().zip(expected).all(|(b, e)| (b - e).abs() < 1e-12)
        };
        for (role, after, expected) in moves {
            let beliefs = Beliefs::default().after(role, &nothing, &after, EmptySearch::Ignored);
            assert!(near(beliefs, expected), "{role:?}: {beliefs:?}");
        }
        let beliefs = Beliefs::default().after(Role::WebSearch, &nothing, &nothing, EmptySearch::Counted);
        assert!(near(beliefs, [0.1, 0.8, 0.25, 0.5, 0.1]), "{beliefs:?}");
    }
}
