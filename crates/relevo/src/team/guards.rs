//! The `[guards]` section: what holds before anything is learned, in the words of the file.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::{
    AgentSpec, Conditions, TeamSpec,
    check::{Fault, unknown},
};
use crate::{
    agent::FailureKind,
    guard::{BreakerSpec, Budget, DeclaredCost, GuardSpec, OnExceed, Repetition, WINDOW_MAX},
};

/// What holds before anything is learned. All of it is off unless it is asked for.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct GuardsSection {
    /// A task that needs more calls of agents stops.
    pub max_turns: Option<u32>,
    /// A task that goes in circles stops.
    pub repetition: Option<Repetition>,
    /// What a task may cost.
    pub budget: Option<Budget<String>>,
    /// What the whole run may cost.
    pub session_budget: Option<Budget<String>>,
    /// Who may hand to whom; an agent that no list is for may hand to all.
    pub allow: Vec<AllowSection>,
    /// When an agent that keeps failing is left alone.
    pub breaker: Option<BreakerSpec>,
    /// Kinds of failures after which a task stops.
    pub halt_on: Vec<FailureKind>,
    /// Seconds after which a question that nobody has answered counts as denied.
    pub approval_expires_after: Option<u64>,
}

/// To whom one agent may hand; to nobody else.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AllowSection {
    /// Who hands.
    pub from: String,
    /// To whom.
    pub to: Vec<String>,
}

/// Whether a person must approve of a handoff to an agent.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(
    untagged,
    expecting = "approval is true, false, or { when = { fact = \"value\" } } with texts, whole numbers, true, false or lists of \
                 them; a fact with a dot in its name is quoted: when = { \"payload.kind\" = \"gz\" }"
)]
pub enum ApprovalSection {
    /// Always or never.
    Always(bool),
    /// When every named fact has one of the given values.
    When(ApprovalWhen),
}

/// When a person must approve.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ApprovalWhen {
    /// Conditions on what the agent is given, as it sees it.
    pub when: Conditions,
}

impl ApprovalSection {
    /// Whether a person must be asked where `holds` says which conditions do.
    pub fn is_needed(&self, holds: impl FnOnce(&Conditions) -> bool) -> bool {
        match self {
            ApprovalSection::Always(always) => *always,
            ApprovalSection::When(ApprovalWhen { when }) => holds(when),
        }
    }
}

impl GuardsSection {
    /// Whether nothing is asked for.
    pub fn is_off(&self) -> bool {
        *self == GuardsSection::default()
    }
}

/// The largest amount of anything that a budget or a cost may name: sums of it stay exact.
const AMOUNT_MAX: f64 = 1e9;

impl TeamSpec {
    /// The guards of a run of this team.
    pub fn guards(&self) -> GuardSpec {
        let guards = &self.guards;
        let id = |name: &String| self.agent_id(name).expect("names were checked");
        let budget = |budget: &Option<Budget<String>>| budget.as_ref().map(|b| b.with_names(id));
        let lists = guards.allow.iter().map(|list| (id(&list.from), list.to.iter().map(id).collect()));
        let costs = self.agents.iter().filter_map(|agent| Some((id(&agent.name), agent.cost?)));
        GuardSpec {
            // A plan has its own limit of steps.
            max_handoffs: self.coordinator.is_none().then_some(self.run.max_handoffs),
            max_turns: guards.max_turns,
            repetition: guards.repetition,
            budget: budget(&guards.budget),
            session_budget: budget(&guards.session_budget),
            allow: lists.collect(),
            breaker: guards.breaker,
            halt_on: guards.halt_on.iter().copied().collect(),
            costs: costs.collect(),
        }
    }

    pub(super) fn check_guards(&self) -> Result<(), Fault> {
        let guards = &self.guards;
        let known = |place: String, name: &str, what: &str| match self.agent_id(name) {
            Some(_) => Ok(()),
            None => Err(unknown(place, name, what, self.agents.iter().map(|a| a.name.as_str()))),
        };
        let fail = |place: &str, message: String| Err(Fault::new(format!("guards/{place}"), message));
        if guards.max_turns == Some(0) {
            return fail("max_turns", "max_turns is 0: it must be at least 1".into());
        }
        if let Some(Repetition { window, times }) = guards.repetition
            && !(2 <= times && times <= window && window <= WINDOW_MAX)
        {
            return fail(
                "repetition",
                format!(
                    "repetition looks for {times} times in a window of {window}: times is at least 2, and at most the \
                     window, which is at most {WINDOW_MAX}"
                ),
            );
        }
        if let Some(BreakerSpec { failures, cooldown }) = guards.breaker
            && (failures == 0 || cooldown == 0)
        {
            return fail("breaker", "failures and cooldown of a breaker must be at least 1".into());
        }
        if guards.approval_expires_after == Some(0) {
            return fail(
                "approval_expires_after",
                "approval_expires_after is 0: it is in seconds, at least 1; leave it out for questions that wait for ever"
                    .into(),
            );
        }
        for (key, budget) in [("budget", &guards.budget), ("session_budget", &guards.session_budget)] {
            let Some(Budget { tokens, money, seconds, on_exceed }) = budget else { continue };
            if let OnExceed::HandOff(to) = on_exceed {
                known(format!("guards/{key}/on_exceed/hand_off"), to, "hand_off")?;
                if self.agents.iter().any(|agent| agent.name == *to && agent.remote.is_some()) {
                    let what =
                        format!("{to:?} is another organisation's and cannot take a task over: name another");
                    return fail(&format!("{key}/on_exceed/hand_off"), what);
                }
                if key == "session_budget" {
                    return fail(
                        "session_budget/on_exceed",
                        "the budget of a whole run cannot be handed off, as every task would spend on: use \"stop\", \
                         \"degrade\" or \"ask\""
                            .into(),
                    );
                }
            }
            let amounts = [("tokens", tokens.map(|n| n as f64)), ("money", *money), ("seconds", *seconds)];
            if amounts.iter().all(|(_, amount)| amount.is_none()) {
                return fail(key, format!("{key} limits nothing: add tokens, money or seconds"));
            }
            for (name, amount) in amounts {
                if amount.is_some_and(|x| !(x > 0.0 && x <= AMOUNT_MAX)) {
                    let place = format!("{key}/{name}");
                    return fail(
                        &place,
                        format!("{name} of the {key} is out of range: it must lie in (0, 1000000000]"),
                    );
                }
            }
        }
        if self.coordinator.is_some() && !guards.allow.is_empty() {
            return fail(
                "allow",
                "the agents of a coordinated team hand to nobody: leave allow out; the plan says who may act"
                    .into(),
            );
        }
        let mut listed = BTreeSet::new();
        for (i, AllowSection { from, to }) in guards.allow.iter().enumerate() {
            known(format!("guards/allow/{i}/from"), from, "allow")?;
            for (k, to) in to.iter().enumerate() {
                known(format!("guards/allow/{i}/to/{k}"), to, &format!("allow from {from:?}"))?;
            }
            if !listed.insert(from) {
                return fail(
                    &format!("allow/{i}/from"),
                    format!("two lists say to whom {from:?} may hand: make one of them"),
                );
            }
        }
        for (i, agent) in self.agents.iter().enumerate() {
            if let Some(ApprovalSection::When(ApprovalWhen { when })) = &agent.approval {
                self.check_conditions(&format!("agents/{i}/approval/when"), when)?;
            }
            check_cost(&format!("agents/{i}"), agent)?;
        }
        Ok(())
    }
}

fn check_cost(place: &str, agent: &AgentSpec) -> Result<(), Fault> {
    let DeclaredCost { tokens, money, ms } = agent.cost.unwrap_or_default();
    let amounts = [("tokens", tokens.map(|n| n as f64)), ("money", money), ("ms", ms.map(|n| n as f64))];
    match amounts.iter().find(|(_, amount)| amount.is_some_and(|x| !(0.0..=AMOUNT_MAX).contains(&x))) {
        Some((key, _)) => Err(Fault::new(
            format!("{place}/cost/{key}"),
            format!(
                "agent {:?}: {key} of its cost is out of range: it must lie in [0, 1000000000]",
                agent.name
            ),
        )),
        None => Ok(()),
    }
}
