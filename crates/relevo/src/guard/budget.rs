//! Budgets: what may be spent, what has been, and what a call is expected to cost.

use std::collections::VecDeque;

use minicbor::{Decode, Encode};
use relevo_core::units::Cost;
use serde::{Deserialize, Serialize};

/// What can run out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Resource {
    /// Tokens of models.
    Tokens,
    /// Money, in the team's currency.
    Money,
    /// Wall time.
    Time,
}

impl Resource {
    pub(super) const ALL: [Resource; 3] = [Resource::Tokens, Resource::Money, Resource::Time];
}

/// What a call of an agent is declared to cost. What is left out is the median of its last calls.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DeclaredCost {
    /// Tokens.
    pub tokens: Option<u64>,
    /// Money.
    pub money: Option<f64>,
    /// Milliseconds.
    pub ms: Option<u64>,
}

/// What may be spent; `A` is how agents are named.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Budget<A> {
    /// Tokens.
    pub tokens: Option<u64>,
    /// Money.
    pub money: Option<f64>,
    /// Seconds of wall time.
    pub seconds: Option<f64>,
    /// What follows when the next call would not stay in it.
    #[serde(default)]
    pub on_exceed: OnExceed<A>,
}

/// What follows when the next call would not stay in the budget.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnExceed<A> {
    /// The task stops.
    #[default]
    Stop,
    /// Only agents whose call is expected to stay in it may be chosen.
    Degrade,
    /// A person is asked.
    Ask,
    /// This agent takes the task over, for one call that no longer counts against the budget of the task.
    HandOff(A),
}

impl<A> Budget<A> {
    /// The same with agents named otherwise.
    pub fn with_names<B>(&self, name: impl FnOnce(&A) -> B) -> Budget<B> {
        let on_exceed = match &self.on_exceed {
            OnExceed::Stop => OnExceed::Stop,
            OnExceed::Degrade => OnExceed::Degrade,
            OnExceed::Ask => OnExceed::Ask,
            OnExceed::HandOff(to) => OnExceed::HandOff(name(to)),
        };
        let Budget { tokens, money, seconds, .. } = *self;
        Budget { tokens, money, seconds, on_exceed }
    }

    fn limit(&self, resource: Resource) -> Option<u64> {
        match resource {
            Resource::Tokens => self.tokens,
            Resource::Money => self.money.map(billionths),
            Resource::Time => self.seconds.map(|s| (s * 1e3).round() as u64),
        }
    }
}

/// Whole numbers, so that what is given back is exactly what was held back.
fn billionths(money: f64) -> u64 {
    (money * 1e9).round() as u64
}

/// A cost in whole numbers, by resource.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode)]
#[cbor(transparent)]
struct Amounts(#[n(0)] [u64; 3]);

impl From<Cost> for Amounts {
    fn from(cost: Cost) -> Self {
        Amounts([cost.tokens, billionths(cost.money), cost.ms])
    }
}

/// One budget, and what has become of it.
#[derive(Clone, Debug)]
pub(super) struct Meter {
    budget: Budget<relevo_core::ids::AgentId>,
    limits: [Option<u64>; 3],
    spent: Amounts,
    held_back: Amounts,
    /// When the clock of its time began to run.
    since: u64,
    /// What it had run before that.
    earlier: u64,
}

/// What has become of a budget.
#[derive(Clone, Debug, Encode, Decode)]
#[cbor(array)]
pub(super) struct SavedMeter {
    #[n(0)]
    limits: [Option<u64>; 3],
    #[n(1)]
    spent: Amounts,
    #[n(2)]
    held_back: Amounts,
    #[n(3)]
    since: u64,
    #[n(4)]
    earlier: u64,
}

impl Meter {
    pub(super) fn new(budget: &Budget<relevo_core::ids::AgentId>, now: u64) -> Self {
        let limits = Resource::ALL.map(|resource| budget.limit(resource));
        let (spent, held_back) = Default::default();
        Meter { budget: budget.clone(), limits, spent, held_back, since: now, earlier: 0 }
    }

    /// What has become of the budget, once `permit` is given back unused, if there is one.
    pub(super) fn save(&self, permit: Option<Cost>) -> SavedMeter {
        let mut meter = self.clone();
        permit.into_iter().for_each(|estimate| meter.settle(estimate, Cost::default()));
        let Meter { limits, spent, held_back, since, earlier, .. } = meter;
        SavedMeter { limits, spent, held_back, since, earlier }
    }

    /// This budget, of which that has become.
    pub(super) fn restore(budget: &Budget<relevo_core::ids::AgentId>, saved: SavedMeter) -> Self {
        let SavedMeter { limits, spent, held_back, since, earlier } = saved;
        Meter { budget: budget.clone(), limits, spent, held_back, since, earlier }
    }

    pub(super) fn on_exceed(&self) -> &OnExceed<relevo_core::ids::AgentId> {
        &self.budget.on_exceed
    }

    /// What is gone, and what is promised to calls under way. Those pass their time side by side.
    fn used(&self, resource: Resource, now: u64) -> u64 {
        match resource {
            Resource::Time => now.saturating_sub(self.since).saturating_add(self.earlier),
            _ => self.spent.0[resource as usize].saturating_add(self.held_back.0[resource as usize]),
        }
    }

    /// What would run out if a call cost as much as `estimate`. Once a budget is used up nothing stays in it, so that one
    /// call at most goes beyond, by what it costs beyond its estimate.
    pub(super) fn exceeded(&self, estimate: Cost, now: u64) -> Option<Resource> {
        let estimate = Amounts::from(estimate);
        Resource::ALL.into_iter().find(|resource| {
            let used = self.used(*resource, now);
            self.limits[*resource as usize]
                .is_some_and(|limit| used >= limit || estimate.0[*resource as usize] > limit - used)
        })
    }

    pub(super) fn hold_back(&mut self, estimate: Cost) {
        let estimate = Amounts::from(estimate).0;
        self.held_back = Amounts([0, 1, 2].map(|i| self.held_back.0[i].saturating_add(estimate[i])));
    }

    /// The call for which `estimate` was held back has cost `cost`.
    pub(super) fn settle(&mut self, estimate: Cost, cost: Cost) {
        let estimate = Amounts::from(estimate).0;
        self.held_back = Amounts([0, 1, 2].map(|i| self.held_back.0[i].saturating_sub(estimate[i])));
        self.charge(cost);
    }

    pub(super) fn charge(&mut self, cost: Cost) {
        let cost = Amounts::from(cost).0;
        self.spent = Amounts([0, 1, 2].map(|i| self.spent.0[i].saturating_add(cost[i])));
    }

    /// Room for a call as dear as `estimate`, and then for as much as there was in the beginning.
    pub(super) fn extend(&mut self, resource: Resource, estimate: Cost, now: u64) {
        let used = self.used(resource, now).saturating_add(Amounts::from(estimate).0[resource as usize]);
        if let (Some(limit), Some(more)) = (&mut self.limits[resource as usize], self.budget.limit(resource))
        {
            *limit = used.max(*limit).saturating_add(more);
        }
    }

    /// The clock had run for so long before it was started here.
    pub(super) fn recall_time(&mut self, ms: u64) {
        self.earlier = self.earlier.saturating_add(ms);
    }

    /// The clock stood still for so long.
    pub(super) fn pause(&mut self, ms: u64) {
        self.since = self.since.saturating_add(ms);
    }
}

/// Calls that an estimate looks back at.
const CALLS_MAX: usize = 31;

/// What the last calls of an agent have cost.
#[derive(Clone, Debug, Default)]
pub(super) struct History(VecDeque<Cost>);

impl History {
    pub(super) fn push(&mut self, cost: Cost) {
        if self.0.len() == CALLS_MAX {
            self.0.pop_front();
        }
        self.0.push_back(cost);
    }

    /// What the next call will cost: what is declared, else the median, else nothing.
    pub(super) fn estimate(&self, declared: DeclaredCost) -> Cost {
        Cost {
            tokens: declared.tokens.unwrap_or_else(|| self.median(|c| c.tokens, Ord::cmp)),
            money: declared.money.unwrap_or_else(|| self.median(|c| c.money, f64::total_cmp)),
            ms: declared.ms.unwrap_or_else(|| self.median(|c| c.ms, Ord::cmp)),
        }
    }

    /// The upper one of an even number.
    fn median<T: Default + Copy>(&self, of: fn(&Cost) -> T, order: fn(&T, &T) -> std::cmp::Ordering) -> T {
        let mut values: Vec<T> = self.0.iter().map(of).collect();
        values.sort_by(order);
        values.get(values.len() / 2).copied().unwrap_or_default()
    }
}
