//! A whole run in figures.

use serde::Serialize;

use super::{
    figures::{Counts, Quantiles, Window},
    task::Task,
};
use crate::report::Estimate;

/// Name and version of the form of a session's report.
pub(super) const SCHEMA: &str = "relevo.session/v1";
/// The tasks that a session shows one by one: the last to end, and open ones.
pub const TASKS_MAX: usize = 1_000;
/// The situations that a session shows, those with the most decisions.
pub const SITUATIONS_MAX: usize = 100;
/// A whole run in figures.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct SessionReport {
    /// `relevo.session/v1`.
    pub schema: &'static str,
    /// The team.
    pub team: String,
    /// The seed.
    pub seed: u64,
    /// Tasks asked for.
    pub asked: u64,
    /// BLAKE3, hexadecimal, of what learning depends on in the team file.
    pub config: String,
    /// Tasks that have ended.
    pub ended: u64,
    /// Tasks that were begun and have not ended.
    pub open: u64,
    /// Who stopped all work and why, if somebody did and nothing has begun since.
    pub halted: Option<String>,
    /// All tasks together.
    pub totals: Totals,
    /// Return of the tasks that have ended.
    #[serde(rename = "return")]
    pub task_return: Option<Estimate>,
    /// What judges on record said, and what that took.
    pub judged: Verdicts,
    /// Why tasks stopped.
    pub stops: Counts,
    /// Choices kept from decisions, by guard.
    pub masked: Counts,
    /// Questions to people, by what they were about.
    pub questions: Counts,
    /// Their answers, by who gave them, `yes` or `no` in front.
    pub answers: Counts,
    /// By agent.
    pub agents: Vec<AgentFigures>,
    /// By situation, those with the most decisions first.
    pub situations: Vec<Situation>,
    /// Over time.
    pub windows: Vec<Window>,
    /// The last tasks to end, in the order in which they ended, and then open ones.
    pub tasks: Vec<Task>,
    /// What people should know besides.
    pub notices: Vec<String>,
}

/// Sums over all tasks, open ones among them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Totals {
    /// Choices made.
    pub decisions: u64,
    /// Those that were not the best known ones.
    pub explored: u64,
    /// Choices learned from.
    pub settlements: u64,
    /// Handoffs given up, from which nothing was learned.
    pub expired: u64,
    /// Handoffs between agents.
    pub handoffs: u64,
    /// Calls of agents.
    pub calls: u64,
    /// Calls that failed.
    pub failures: u64,
    /// Tokens used.
    pub tokens: u64,
    /// Money charged.
    pub money: f64,
    /// Milliseconds in calls that left the process.
    pub ms: u64,
}

/// What judges said of tasks. What that took is in no other figure.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Verdicts {
    /// Quality of what came out.
    pub quality: Option<Estimate>,
    /// Tasks that could not be judged.
    pub unjudged: u64,
    /// Worthless trajectories that judges were shown.
    pub canaries: u64,
    /// Those that fooled them.
    pub fooled: u64,
    /// Their agreement with themselves in the opposite order; 1/2 is chance.
    pub swap_agreement: Option<f64>,
    /// Their agreement with an auditor; 1/2 is chance.
    pub audit_agreement: Option<f64>,
    /// Mean distance of the qualities from the auditor's.
    pub audit_distance: Option<f64>,
    /// Tokens used.
    pub tokens: u64,
    /// Money charged.
    pub money: f64,
    /// Milliseconds.
    pub ms: u64,
}

/// One agent in figures.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct AgentFigures {
    /// Its name.
    pub agent: String,
    /// Calls.
    pub calls: u64,
    /// Those that failed, by kind.
    pub failures: Counts,
    /// Tokens used.
    pub tokens: u64,
    /// Money charged.
    pub money: f64,
    /// How long calls took that left the process.
    pub ms: Option<Quantiles>,
    /// Tasks in which it was called.
    pub tasks: u64,
    /// The same as a share of all tasks.
    pub share: f64,
    /// How often it was chosen.
    pub chosen: u64,
    /// How often it was passed over.
    pub skipped: u64,
}

/// One situation in figures.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Situation {
    /// Who decided.
    pub participant: String,
    /// Its readable name.
    pub situation: String,
    /// Its key.
    pub signature: String,
    /// Choices made in it.
    pub decisions: u64,
    /// Those that were not the best known ones.
    pub explored: u64,
    /// How often each choice was made.
    pub choices: Counts,
}
