//! Why a task ended, in words that machines may rely on.

use std::{fmt, str::FromStr};

use super::Resource;

/// Why a task ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum StopReason {
    /// An agent concluded it.
    Finished,
    /// Its last agent had nobody to hand to.
    Ended,
    /// It needed more handoffs than it may have.
    MaxHandoffs,
    /// It needed more calls than it may have.
    MaxTurns,
    /// No successor was admissible.
    NoSuccessor,
    /// It went in circles.
    Repetition,
    /// The next call would not have stayed in a budget.
    Budget(Resource),
    /// A call failed in a way that no further call can mend.
    TerminalError,
    /// As a budget was used up, somebody took it over.
    HandedOff,
    /// A person said no, or nobody said yes in time.
    Denied,
    /// The run was told to stop.
    Killed,
    /// The evaluator of a plan said that it is done.
    EvaluatorDone,
    /// The plan took as many steps as it may.
    MaxSteps,
    /// No cell of the plan was admissible.
    NothingLegal,
    /// A guard masked every choice, or the only one.
    Guarded(Guard),
}

/// A guard that masks choices.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Guard {
    /// The list of who may hand to whom.
    Allow,
    /// The circuit breaker of an agent that keeps failing.
    Breaker,
    /// A budget that is degraded to what is left.
    Budget,
}

impl Guard {
    /// The guard that a word stands for.
    pub fn of_word(word: &str) -> Option<Self> {
        [Guard::Allow, Guard::Breaker, Guard::Budget].into_iter().find(|guard| guard.word() == word)
    }

    /// The word for it.
    pub const fn word(self) -> &'static str {
        match self {
            Guard::Allow => "allow",
            Guard::Breaker => "breaker",
            Guard::Budget => "budget",
        }
    }
}

impl StopReason {
    /// All there are.
    pub const ALL: [StopReason; 19] = [
        StopReason::Finished,
        StopReason::Ended,
        StopReason::MaxHandoffs,
        StopReason::MaxTurns,
        StopReason::NoSuccessor,
        StopReason::Repetition,
        StopReason::Budget(Resource::Tokens),
        StopReason::Budget(Resource::Money),
        StopReason::Budget(Resource::Time),
        StopReason::TerminalError,
        StopReason::HandedOff,
        StopReason::Denied,
        StopReason::Killed,
        StopReason::EvaluatorDone,
        StopReason::MaxSteps,
        StopReason::NothingLegal,
        StopReason::Guarded(Guard::Allow),
        StopReason::Guarded(Guard::Breaker),
        StopReason::Guarded(Guard::Budget),
    ];

    /// The word for it, which never changes.
    pub const fn word(self) -> &'static str {
        match self {
            StopReason::Finished => "finished",
            StopReason::Ended => "ended",
            StopReason::MaxHandoffs => "max-handoffs",
            StopReason::MaxTurns => "max-turns",
            StopReason::NoSuccessor => "no-successor",
            StopReason::Repetition => "repetition",
            StopReason::Budget(Resource::Tokens) => "budget-tokens",
            StopReason::Budget(Resource::Money) => "budget-money",
            StopReason::Budget(Resource::Time) => "budget-time",
            StopReason::TerminalError => "terminal-error",
            StopReason::HandedOff => "handed-off",
            StopReason::Denied => "denied",
            StopReason::Killed => "killed",
            StopReason::EvaluatorDone => "evaluator-done",
            StopReason::MaxSteps => "max-steps",
            StopReason::NothingLegal => "nothing-legal",
            StopReason::Guarded(Guard::Allow) => "guarded-allow",
            StopReason::Guarded(Guard::Breaker) => "guarded-breaker",
            StopReason::Guarded(Guard::Budget) => "guarded-budget",
        }
    }
}

impl StopReason {
    /// Whether the task has come to an end that is judged, and was not broken off.
    pub fn is_concluded(self) -> bool {
        matches!(self, StopReason::Finished | StopReason::EvaluatorDone | StopReason::MaxSteps)
            || matches!(self, StopReason::NothingLegal | StopReason::HandedOff)
    }
}

impl fmt::Display for StopReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

impl FromStr for StopReason {
    type Err = UnknownWord;

    fn from_str(word: &str) -> Result<Self, UnknownWord> {
        Self::ALL.into_iter().find(|reason| reason.word() == word).ok_or(UnknownWord)
    }
}

/// No task ends for such a reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no stop reason of this program; it is of a newer one, or no stop reason at all")]
pub struct UnknownWord;
