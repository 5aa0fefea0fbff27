//! The trace of one task: everything that its records say, in order, with names.

use serde::Serialize;

/// Name and version of the form of a task's report.
pub(super) const SCHEMA: &str = "relevo.run/v1";

/// One task in figures.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Task {
    /// Its number.
    pub task: u64,
    /// Who was called, in order; the first [`PATH_MAX`].
    pub path: Vec<String>,
    /// Choices made.
    pub decisions: u64,
    /// Those that were not the best known ones.
    pub explored: u64,
    /// Handoffs between agents.
    pub handoffs: u32,
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
    /// Choices kept from its decisions by guards.
    pub masked: u64,
    /// Why it stopped; absent while it is open.
    pub stop: Option<String>,
    /// The question that it waits with for a person.
    pub waits_for: Option<String>,
    /// The quality of what came out, as a judge on record said; absent where none did.
    pub quality: Option<f64>,
    /// Its whole return; absent while it is open.
    #[serde(rename = "return")]
    pub task_return: Option<f64>,
}

/// Most agents in a [`Task::path`].
pub const PATH_MAX: usize = 32;

impl Task {
    /// How it ended, or what it is at.
    pub fn state(&self) -> String {
        match (&self.stop, &self.waits_for) {
            (Some(stop), _) => stop.clone(),
            (None, Some(why)) => format!("waits for a person: {why}"),
            (None, None) => "open".to_owned(),
        }
    }

    /// Who was called, as one text.
    pub fn way(&self) -> String {
        let more = if self.calls > self.path.len() as u64 { " → …" } else { "" };
        self.path.join(" → ") + more
    }
}

impl Call {
    /// Whether it came to nothing.
    pub fn failed(&self) -> bool {
        self.ended != DONE
    }
}

/// How a call that did not fail has ended.
pub(super) const DONE: &str = "done";

/// Everything that is known of one task.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TaskReport {
    /// `relevo.run/v1`.
    pub schema: &'static str,
    /// The team.
    pub team: String,
    /// The task in figures.
    #[serde(flatten)]
    pub task: Task,
    /// What happened, in order; the first [`EVENTS_MAX`] of it.
    pub timeline: Vec<Event>,
    /// Events beyond those.
    pub left_out: u64,
}

/// Most events in a [`TaskReport::timeline`].
pub const EVENTS_MAX: usize = 10_000;

/// One thing that happened in a task.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Event {
    /// Control arrived.
    HandedOver {
        /// From whom.
        from: String,
        /// To whom.
        to: String,
    },
    /// A choice was made.
    Decided(Decision),
    /// An agent was called.
    Called(Call),
    /// A person is asked.
    Asked {
        /// Who is to be called.
        agent: String,
        /// Why.
        why: String,
    },
    /// A person answered, or time did.
    Answered {
        /// Whether the call may be made.
        granted: bool,
        /// Who said so.
        by: String,
    },
    /// What came out was judged.
    Judged(Verdict),
    /// A choice was learned from.
    Learned {
        /// Who learned.
        participant: String,
        /// In which situation.
        situation: String,
        /// The choice.
        choice: String,
        /// The target y.
        target: f64,
        /// How far the estimate moved towards it, as a share of the way.
        step: f64,
    },
}

/// What a judge said of a task.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Verdict {
    /// The quality of what came out, in [0, 1]; absent where it could not be judged.
    pub quality: Option<f64>,
    /// How far that may be trusted, in [0, 1].
    pub confidence: f64,
    /// Tokens used.
    pub tokens: u64,
    /// Money charged.
    pub money: f64,
    /// How long it took, in milliseconds.
    pub ms: u64,
}

/// One choice, and what it could have been.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Decision {
    /// `EPISODE.K`, K counting the decisions of the task from 0.
    pub decision: String,
    /// Who decided.
    pub participant: String,
    /// `operations` or `successors`.
    pub table: &'static str,
    /// The readable name of the situation.
    pub situation: String,
    /// Its key.
    pub signature: String,
    /// The policy that decided: how much the participant had learned from before.
    pub policy_version: u64,
    /// The admissible choices, in ascending order of their columns.
    pub choices: Vec<Choice>,
    /// What was chosen.
    pub chosen: String,
    /// Whether no admissible choice was worth more.
    pub greedy: bool,
    /// What guards kept from it.
    pub masked: Vec<Masked>,
}

/// An admissible choice.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Choice {
    /// Its column.
    pub column: u32,
    /// Its name.
    pub choice: String,
    /// Its probability.
    pub probability: f64,
}

/// Choices that a guard kept from a decision.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Masked {
    /// Which guard.
    pub guard: String,
    /// Which choices.
    pub choices: Vec<String>,
}

/// One call of an agent.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Call {
    /// Its place among the calls of the task, from 0.
    pub call: u64,
    /// Who.
    pub agent: String,
    /// Which of its operations; absent where it has no choice of them.
    pub operation: Option<String>,
    /// `done`, or the kind of the failure.
    pub ended: String,
    /// Tokens used.
    pub tokens: u64,
    /// Money charged.
    pub money: f64,
    /// How long it took, in milliseconds; absent where the call did not leave the process.
    pub ms: Option<u64>,
}
