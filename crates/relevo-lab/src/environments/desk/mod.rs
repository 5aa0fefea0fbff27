//! `desk@1`: a research desk of 18 cells and eight classes of tasks, for coordinated teams. A simulation: its numbers were
//! chosen, no language model was asked. What helps depends on the class; [`oracle`] knows the best workflow of each.
//!
//! Quality is that of the draft that stands. A solver of skill `k` on model `m` writes one of quality
//!
//! `q = skill_k * model_m * (1 - needs * (1 - e))`, with `e = 1 - prod (1 - covers_s)` over the sources `s` that were found,
//!
//! where the numbers are those of the class ([`Profile`]). A plan, and a critique of an earlier draft, each close a share of
//! the gap: `q <- q + share (1 - q)`. Of several drafts the best one stands; a synthesiser closes `merge (1 - 2^(1 - n))` of
//! the gap of `n` drafts. Where a mistake is costly, an answer is worth `q (1 - risk (1 - checked))`, and a verifier checks
//! its share. On top of this comes noise in proportion to `min(q, 1 - q)`, of mean zero: so the expected quality of a fixed
//! sequence of cells is a sum over which web searches fail.

pub mod oracle;
mod world;

use serde::{Deserialize, Serialize};

pub use world::DeskWorld;

/// Name and version.
pub const NAME: &str = "desk@1";

/// A kind of task; the fact `class` of each tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Class(usize);

/// What a class is like.
#[derive(Clone, Copy, Debug)]
pub struct Profile {
    /// Its name.
    pub name: &'static str,
    /// How good the skills are at it: concise, step by step, by the evidence.
    pub skills: [f64; 3],
    /// What is left of that on the small, the fast and the large model.
    pub models: [f64; 3],
    /// How much of the answer rests on sources.
    pub needs: f64,
    /// How much of what is needed each source covers: memory and the two web searches.
    pub covers: [f64; 3],
    /// The share of the gap that a plan closes.
    pub plan: f64,
    /// The share that a critique closes in what is written after it.
    pub critique: f64,
    /// The share that merging closes at most.
    pub merge: f64,
    /// The share of the quality that is lost if nobody checks.
    pub risk: f64,
    /// Means of five features: ambiguity, contradiction, novelty, evidence availability, verification need.
    pub features: [f64; 5],
}

/// The eight classes.
pub const PROFILES: [Profile; 8] = [
    Profile {
        name: "procedural",
        skills: [0.92, 0.88, 0.80],
        models: [0.85, 1.0, 1.0],
        needs: 0.0,
        covers: [0.5, 0.3, 0.3],
        plan: 0.0,
        critique: 0.1,
        merge: 0.1,
        risk: 0.0,
        features: [0.2, 0.2, 0.2, 0.4, 0.3],
    },
    Profile {
        name: "single-document",
        skills: [0.70, 0.75, 0.95],
        models: [0.80, 0.97, 1.0],
        needs: 0.6,
        covers: [0.9, 0.2, 0.1],
        plan: 0.0,
        critique: 0.1,
        merge: 0.1,
        risk: 0.05,
        features: [0.2, 0.3, 0.2, 0.85, 0.75],
    },
    Profile {
        name: "cross-document",
        skills: [0.60, 0.75, 0.97],
        models: [0.75, 0.95, 1.0],
        needs: 0.75,
        covers: [0.6, 0.7, 0.3],
        plan: 0.15,
        critique: 0.15,
        merge: 0.2,
        risk: 0.05,
        features: [0.3, 0.82, 0.3, 0.6, 0.5],
    },
    Profile {
        name: "out-of-corpus",
        skills: [0.88, 0.75, 0.85],
        models: [0.80, 0.98, 1.0],
        needs: 0.75,
        covers: [0.0, 0.9, 0.35],
        plan: 0.0,
        critique: 0.1,
        merge: 0.1,
        risk: 0.05,
        features: [0.3, 0.3, 0.85, 0.2, 0.4],
    },
    Profile {
        name: "derivative",
        skills: [0.40, 0.94, 0.50],
        models: [0.50, 0.75, 1.0],
        needs: 0.0,
        covers: [0.3, 0.1, 0.1],
        plan: 0.1,
        critique: 0.1,
        merge: 0.1,
        risk: 0.0,
        features: [0.2, 0.2, 0.3, 0.3, 0.4],
    },
    Profile {
        name: "synthesis",
        skills: [0.60, 0.62, 0.60],
        models: [0.90, 0.97, 1.0],
        needs: 0.2,
        covers: [0.7, 0.3, 0.3],
        plan: 0.2,
        critique: 0.2,
        merge: 0.75,
        risk: 0.0,
        features: [0.85, 0.3, 0.3, 0.5, 0.4],
    },
    Profile {
        name: "mitigation",
        skills: [0.75, 0.80, 0.90],
        models: [0.80, 0.95, 1.0],
        needs: 0.35,
        covers: [0.8, 0.2, 0.2],
        plan: 0.1,
        critique: 0.15,
        merge: 0.1,
        risk: 0.45,
        features: [0.2, 0.3, 0.3, 0.4, 0.93],
    },
    Profile {
        name: "pair",
        skills: [0.92, 0.75, 0.92],
        models: [0.80, 0.97, 1.0],
        needs: 0.8,
        covers: [0.6, 0.2, 0.6],
        plan: 0.1,
        critique: 0.1,
        merge: 0.2,
        risk: 0.05,
        features: [0.3, 0.4, 0.3, 0.82, 0.72],
    },
];

impl Class {
    /// All classes.
    pub fn all() -> impl Iterator<Item = Class> {
        (0..PROFILES.len()).map(Class)
    }

    /// The class of this name.
    pub fn named(name: &str) -> Option<Class> {
        PROFILES.iter().position(|p| p.name == name).map(Class)
    }

    /// What it is like.
    pub fn profile(self) -> &'static Profile {
        &PROFILES[self.0]
    }

    /// Its place among all.
    pub fn index(self) -> usize {
        self.0
    }
}

/// What a cell does.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Work {
    Plan,
    /// From which source: memory, or one of the two web searches.
    Search(usize),
    /// With which skill on which model.
    Solve(usize, usize),
    Criticise,
    /// The share of what is unchecked that it checks.
    Verify(f64),
    Merge,
    Conclude,
}

/// A cell: what it does, and what it costs.
#[derive(Clone, Copy, Debug)]
struct Cell {
    name: &'static str,
    work: Work,
    /// Tokens of a call. Means over recorded runs of AgensFlow, rounded; those of critic, synthesiser and the small
    /// verifier, which it did not have, are ours.
    tokens: u64,
    /// How often a call fails; it costs its tokens all the same.
    fails: f64,
}

const fn cell(name: &'static str, work: Work, tokens: u64) -> Cell {
    Cell { name, work, tokens, fails: 0.0 }
}

/// The cells, in the order of the plan.
const CELLS: [Cell; 18] = [
    cell("planner", Work::Plan, 400),
    cell("memory", Work::Search(0), 700),
    Cell { fails: 0.05, ..cell("web_search_a", Work::Search(1), 1500) },
    Cell { fails: 0.15, ..cell("web_search_b", Work::Search(2), 500) },
    cell("solver_concise_small", Work::Solve(0, 0), 900),
    cell("solver_concise_fast", Work::Solve(0, 1), 1000),
    cell("solver_concise_large", Work::Solve(0, 2), 1600),
    cell("solver_cot_small", Work::Solve(1, 0), 1400),
    cell("solver_cot_fast", Work::Solve(1, 1), 2100),
    cell("solver_cot_large", Work::Solve(1, 2), 2700),
    cell("solver_evidence_small", Work::Solve(2, 0), 1000),
    cell("solver_evidence_fast", Work::Solve(2, 1), 1200),
    cell("solver_evidence_large", Work::Solve(2, 2), 1800),
    cell("critic", Work::Criticise, 900),
    cell("verifier_small", Work::Verify(0.5), 900),
    cell("verifier_fast", Work::Verify(0.9), 1800),
    cell("synthesiser", Work::Merge, 1000),
    cell("evaluator", Work::Conclude, 1200),
];

/// The tokens of a call of a cell; `None` if there is no such cell.
pub fn tokens(role: &str) -> Option<u64> {
    CELLS.iter().find(|cell| cell.name == role).map(|cell| cell.tokens)
}

/// What the reward says: `J = quality - .3 tokens / 8000 - .15 failures`.
pub fn reward(quality: f64, tokens: f64, failures: f64) -> f64 {
    quality - 0.3 * tokens / 8000.0 - 0.15 * failures
}

/// How far a task has really come. Travels in the document, where no interface shows it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Truth {
    planned: bool,
    found: [bool; 3],
    drafts: u32,
    /// Quality of the answer that stands.
    answer: f64,
    criticised: bool,
    /// The share of the answer that somebody has checked.
    checked: f64,
}

impl Truth {
    /// Whether a cell has what it works on.
    fn is_ready(&self, work: Work, profile: &Profile) -> bool {
        match work {
            Work::Plan => true,
            Work::Search(0) => true,
            Work::Search(_) | Work::Solve(..) => self.planned,
            Work::Criticise | Work::Merge | Work::Conclude => self.drafts > 0,
            Work::Verify(_) => self.drafts > 0 && self.has_evidence(profile),
        }
    }

    /// Whether any source had something to say.
    fn has_evidence(&self, profile: &Profile) -> bool {
        self.found.iter().zip(profile.covers).any(|(found, covers)| *found && covers > 0.0)
    }

    /// A cell has done its work.
    fn after(mut self, work: Work, profile: &Profile) -> Self {
        let closed = |q: f64, share: f64| q + share * (1.0 - q);
        match work {
            Work::Plan => self.planned = true,
            Work::Search(source) => self.found[source] = true,
            Work::Solve(skill, model) => {
                let missed = self.found.iter().zip(profile.covers).filter(|(found, _)| **found);
                // 1 - e = prod (1 - covers_s)
                let missed: f64 = missed.map(|(_, covers)| 1.0 - covers).product();
                // q = skill model (1 - needs (1 - e))
                let q = profile.skills[skill] * profile.models[model] * (1.0 - profile.needs * missed);
                let q = if self.planned { closed(q, profile.plan) } else { q };
                let q = if self.criticised { closed(q, profile.critique) } else { q };
                self.answer = self.answer.max(q);
                self.drafts += 1;
                self.checked = 0.0;
            }
            Work::Criticise => self.criticised = true,
            Work::Verify(share) => self.checked = closed(self.checked, share),
            Work::Merge => {
                let n = f64::from(self.drafts);
                // merge (1 - 2^(1 - n))
                let q = closed(self.answer, profile.merge * (1.0 - (1.0 - n).exp2()));
                self.answer = if self.criticised { closed(q, profile.critique) } else { q };
                self.checked = 0.0;
            }
            Work::Conclude => {}
        }
        self
    }

    /// The expected quality of what stands.
    fn quality(&self, profile: &Profile) -> f64 {
        // q (1 - risk (1 - checked))
        self.answer * (1.0 - profile.risk * (1.0 - self.checked))
    }
}
