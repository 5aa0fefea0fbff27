//! Guards: what holds whatever has been learned. They are asked before a decision, where they mask choices; before a
//! call, where they let it through, stop the task, ask a person or hand it to somebody else; and at every handoff.
//!
//! They are state machines without input or output: agents are numbers, and the time is an argument, in milliseconds
//! from any fixed moment. The same questions in the same order get the same answers, so a guard that is asked again
//! what it was asked before is where it was. A guard that has stopped a task says so for ever after.
//!
//! [`TaskGuard`] watches one task, [`TeamGuard`] what all tasks share: who fails, what calls cost, what the run has
//! spent. Neither knows whether agents hand to each other or a coordinator invokes them. A driver asks in this order:
//!
//! ```
//! use relevo::guard::{Cost, GuardSpec, TaskGuard, TeamGuard, Verdict};
//! use relevo_core::ids::AgentId;
//!
//! let (from, to, other) = (AgentId(0), AgentId(1), AgentId(2));
//! let mut team = TeamGuard::new(GuardSpec { max_turns: Some(1), ..GuardSpec::default() }, 0);
//! let mut task = TaskGuard::new(&mut team, 0);
//!
//! let masks = task.before_decision(&team, from, &[to, other], 10);
//! assert_eq!(masks.of(to), None); // so `to` may be chosen, and it is
//! let what_it_is_given = 7; // a digest
//! assert_eq!(task.on_handoff(&team, from, to, what_it_is_given), None);
//! let Verdict::Go(permit) = task.before_call(&mut team, to, false, 20) else { panic!() };
//! // ... the call itself ...
//! task.after_call(&mut team, permit, Cost { tokens: 100, money: 0.01, ms: 300 }, Ok(()));
//!
//! let Verdict::Stop(reason) = task.before_call(&mut team, other, false, 400) else { panic!() };
//! assert_eq!(reason.word(), "max-turns");
//! ```

mod breaker;
mod budget;
mod reason;
mod task;
mod team;

use std::collections::{BTreeMap, BTreeSet};

use relevo_core::ids::AgentId;
pub use relevo_core::units::Cost;
use serde::{Deserialize, Serialize};

use crate::agent::FailureKind;

pub use breaker::BreakerSpec;
pub use budget::{Budget, DeclaredCost, OnExceed, Resource};
pub use reason::{Guard, StopReason};
pub(crate) use task::SavedGuard;
pub use task::TaskGuard;
pub use team::TeamGuard;

/// What is guarded, and where the limits are.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct GuardSpec {
    /// Most handoffs of a task.
    pub max_handoffs: Option<u32>,
    /// Most calls of agents in a task.
    pub max_turns: Option<u32>,
    /// When a task goes in circles.
    pub repetition: Option<Repetition>,
    /// What a task may cost.
    pub budget: Option<Budget<AgentId>>,
    /// What the run may cost.
    pub session_budget: Option<Budget<AgentId>>,
    /// To whom an agent may hand; one that is not listed may hand to all.
    pub allow: BTreeMap<AgentId, BTreeSet<AgentId>>,
    /// When an agent that fails is left alone.
    pub breaker: Option<BreakerSpec>,
    /// Failures after which a task cannot go on.
    pub halt_on: BTreeSet<FailureKind>,
    /// What a call of an agent costs, where that is declared.
    pub costs: BTreeMap<AgentId, DeclaredCost>,
}

impl GuardSpec {
    /// Whether any guard ever masks a choice.
    pub fn masks(&self) -> bool {
        let degrades = |budget: &Budget<AgentId>| budget.on_exceed == OnExceed::Degrade;
        !self.allow.is_empty()
            || self.breaker.is_some()
            || [&self.budget, &self.session_budget].into_iter().flatten().any(degrades)
    }
}

/// A task goes in circles when the same agent is given the same thing `times` times among the last `window` handoffs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Repetition {
    /// Handoffs looked back at.
    pub window: usize,
    /// How often is too often.
    pub times: usize,
}

/// The longest [`Repetition::window`].
pub const WINDOW_MAX: usize = 1024;

/// What the guards say before a call.
#[derive(Debug, PartialEq)]
#[must_use]
pub enum Verdict {
    /// Do it, and give the permit back with what came of it.
    Go(Permit),
    /// Do nothing more in this task.
    Stop(StopReason),
    /// Ask a person; [`TaskGuard::approve`] or [`TaskGuard::deny`] is the answer.
    Ask(Question),
    /// Let this agent take the task over.
    HandOff(AgentId),
}

/// One call, let through. Its estimate is held back from every budget until [`TaskGuard::after_call`] takes the permit,
/// which must happen also when the call is called off.
#[derive(Debug, PartialEq)]
#[must_use]
pub struct Permit {
    agent: AgentId,
    estimate: Cost,
    trial: bool,
    /// The approval that the task used up for it.
    approved: Option<AgentId>,
    /// Whether it is the one call of somebody who takes the task over.
    takes_over: bool,
}

impl Permit {
    /// Who may be called.
    pub fn agent(&self) -> AgentId {
        self.agent
    }

    /// What is held back for the call.
    pub fn estimate(&self) -> Cost {
        self.estimate
    }
}

/// What a person is asked.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Question {
    /// Whom it is about to be called.
    pub agent: AgentId,
    /// What the call is expected to cost.
    pub estimate: Cost,
    /// Why a person is asked.
    pub why: Why,
}

/// What the guards of an earlier process said before a call, as its ledger shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Said {
    /// The call was made.
    Go,
    /// This agent was called instead.
    HandOff(AgentId),
    /// A person was asked.
    Ask(Why),
}

/// Why a person is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// This handoff needs an approval.
    Approval,
    /// The call would not stay in the budget. To approve means: it, and then as much again as the budget was.
    Budget(Scope, Resource),
}

impl Why {
    /// Why, by its word.
    pub fn of_word(word: &str) -> Option<Self> {
        let budgets = [Scope::Task, Scope::Session]
            .into_iter()
            .flat_map(|scope| Resource::ALL.map(|resource| Why::Budget(scope, resource)));
        [Why::Approval].into_iter().chain(budgets).find(|why| why.word() == word)
    }

    /// It as a word: with the handoff, it names a question.
    pub fn word(self) -> &'static str {
        match self {
            Why::Approval => "approval",
            Why::Budget(Scope::Task, Resource::Tokens) => "budget-tokens",
            Why::Budget(Scope::Task, Resource::Money) => "budget-money",
            Why::Budget(Scope::Task, Resource::Time) => "budget-time",
            Why::Budget(Scope::Session, Resource::Tokens) => "session-budget-tokens",
            Why::Budget(Scope::Session, Resource::Money) => "session-budget-money",
            Why::Budget(Scope::Session, Resource::Time) => "session-budget-time",
        }
    }
}

/// Whose budget.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// That of the task.
    Task,
    /// That of the whole run.
    Session,
}

/// The choices that must not be made now, with the guard that says so.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Masks(Vec<(AgentId, Guard)>);

impl Masks {
    /// Those of an earlier decision.
    pub fn recall(masked: impl IntoIterator<Item = (AgentId, Guard)>) -> Self {
        Masks(masked.into_iter().collect())
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = (AgentId, Guard)> {
        self.0.iter().copied()
    }

    /// The guard that masks an agent.
    pub fn of(&self, agent: AgentId) -> Option<Guard> {
        self.0.iter().find(|(masked, _)| *masked == agent).map(|(_, guard)| *guard)
    }

    /// Why the task ends, if without the masked choices there is none left.
    pub fn stop_reason(&self) -> Option<StopReason> {
        self.0.first().map(|(_, guard)| StopReason::Guarded(*guard))
    }
}
