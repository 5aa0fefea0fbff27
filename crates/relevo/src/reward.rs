//! What a finished task earns: its quality, less what it cost. Pure; the weights are those of the section `[reward]`.

use std::{collections::VecDeque, ops::AddAssign};

use relevo_core::units::Cost;
use serde::{Deserialize, Serialize};

use crate::team::{RewardScale, RewardSpec};

/// What a call, or a whole task, has used up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Spent {
    /// Calls of agents.
    pub calls: u32,
    /// Calls that failed.
    pub failures: u32,
    /// Attempts that failed and were made again.
    pub retries: u32,
    /// Tokens.
    pub tokens: u64,
    /// Money, in the team's currency.
    pub money: f64,
    /// Time, in milliseconds.
    pub ms: u64,
}

impl AddAssign for Spent {
    fn add_assign(&mut self, more: Spent) {
        self.calls += more.calls;
        self.failures += more.failures;
        self.retries = self.retries.saturating_add(more.retries);
        self.tokens = self.tokens.saturating_add(more.tokens);
        self.money += more.money;
        self.ms = self.ms.saturating_add(more.ms);
    }
}

impl Spent {
    /// Its part that can be measured against that of other tasks.
    pub fn cost(&self) -> Cost {
        Cost { tokens: self.tokens, money: self.money, ms: self.ms }
    }
}

/// What a task of this team usually costs; `None` as long as nobody knows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Usual {
    /// Tokens.
    pub tokens: Option<f64>,
    /// Money, in the team's currency.
    pub money: Option<f64>,
    /// Time, in milliseconds.
    pub ms: Option<f64>,
}

impl Usual {
    /// The median over tasks of each amount, the lower of two middle ones.
    pub fn of(costs: impl Iterator<Item = Cost>) -> Self {
        let costs: Vec<Cost> = costs.collect();
        let middle = |of: fn(&Cost) -> f64| {
            let mut amounts: Vec<f64> = costs.iter().map(of).collect();
            amounts.sort_by(f64::total_cmp);
            amounts.get(amounts.len().saturating_sub(1) / 2).copied()
        };
        Usual { tokens: middle(|c| c.tokens as f64), money: middle(|c| c.money), ms: middle(|c| c.ms as f64) }
    }
}

/// The part of the reward that is the cost of a call, in a task that has spent so much before it. The costs of its calls
/// sum to the cost of a task.
pub fn cost(spec: &RewardSpec, call: &Spent, before: &Spent, usual: &Usual) -> f64 {
    let amounts = |spent: &Spent| [spent.tokens as f64, spent.money, spent.ms as f64];
    let [tokens, money, time] = match spec.scale {
        // in 1,000 tokens, units of money and seconds
        RewardScale::Absolute => [call.tokens as f64 / 1000.0, call.money, call.ms as f64 / 1000.0],
        // in what a task usually costs
        RewardScale::Median => {
            let (call, before) = (amounts(call), amounts(before));
            let usual = [usual.tokens, usual.money, usual.ms];
            [0, 1, 2].map(|i| share(call[i], before[i], usual[i]))
        }
    };
    // r = n_calls w_call + n_failures w_failure + n_retries w_retry + tokens, money and time by their weights
    spec.call * f64::from(call.calls)
        + spec.failure * f64::from(call.failures)
        + spec.retry * f64::from(call.retries)
        + spec.tokens * tokens
        + spec.money * money
        + spec.time * time
}

/// An amount as a share of the usual one. As long as nothing is usual, whatever a task spends is as usual, and the call
/// that begins to spend bears it.
fn share(amount: f64, before: f64, usual: Option<f64>) -> f64 {
    match usual.filter(|usual| *usual > 0.0) {
        Some(usual) => amount / usual,
        None => f64::from(u8::from(amount > 0.0 && before <= 0.0)),
    }
}

/// How many tasks a [`Median`] looks back at.
pub const WINDOW: usize = 101;

/// The running median of what tasks cost: over the last [`WINDOW`] of them, in the order in which they ended.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Median {
    last: VecDeque<Cost>,
}

impl Median {
    /// A task has ended. What is neither finite nor positive counts as 0.
    pub fn observe(&mut self, mut cost: Cost) {
        if self.last.len() == WINDOW {
            self.last.pop_front();
        }
        cost.money = if cost.money.is_finite() { cost.money.max(0.0) } else { 0.0 };
        self.last.push_back(cost);
    }

    /// What a task usually costs, the lower of two middle ones.
    pub fn usual(&self) -> Usual {
        Usual::of(self.last.iter().copied())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_usual_cost_of_a_task_costs_its_weight() {
        let spec = |scale| RewardSpec {
            call: -0.01,
            retry: -0.15,
            tokens: -0.3,
            money: -0.1,
            time: -0.2,
            scale,
            ..RewardSpec::default()
        };
        let spent = |tokens, money, ms| Spent { tokens, money, ms, ..Spent::default() };
        let usual = Usual { tokens: Some(8000.0), money: Some(0.5), ms: Some(4000.0) };
        let free = Usual { tokens: Some(0.0), ..usual };
        let (median, absolute, none) = (RewardScale::Median, RewardScale::Absolute, Usual::default());
        let begun = spent(1, 0.0, 1);
        for (scale, call, before, usual, reward) in [
            (median, spent(0, 0.0, 0), Spent::default(), usual, 0.0),
            (median, spent(8000, 0.5, 4000), Spent::default(), usual, -0.3 - 0.1 - 0.2),
            (median, spent(16_000, 0.0, 1000), begun, usual, -0.6 - 0.05),
            (
                median,
                Spent { calls: 3, retries: 2, ..spent(0, 0.0, 0) },
                Spent::default(),
                usual,
                -0.03 - 0.3,
            ),
            (median, spent(5, 0.0, 7), Spent::default(), none, -0.3 - 0.2),
            (median, spent(5, 0.5, 7), begun, none, -0.1),
            (median, spent(5, 0.0, 7), Spent::default(), free, -0.3 - 0.2 * 7.0 / 4000.0),
            (absolute, spent(2000, 0.5, 500), begun, usual, -0.6 - 0.05 - 0.1),
        ] {
            let found = cost(&spec(scale), &call, &before, &usual);
            assert!((found - reward).abs() < 1e-12, "{scale:?} {call:?}: {found} for {reward}");
        }
    }

    #[test]
    fn the_median_forgets_and_is_not_moved_by_outliers() {
        let mut median = Median::default();
        assert_eq!(median.usual(), Usual::default());
        let tokens_after = |median: &mut Median, tokens: &[u64]| {
            tokens.iter().for_each(|t| median.observe(Cost { tokens: *t, money: f64::NAN, ms: 0 }));
            median.usual().tokens.unwrap()
        };
        assert_eq!(tokens_after(&mut median, &[10]), 10.0);
        assert_eq!(tokens_after(&mut median, &[20]), 10.0, "the lower of two");
        assert_eq!(tokens_after(&mut median, &[30, u64::MAX, 25]), 25.0);
        assert_eq!(median.usual().money, Some(0.0));
        assert_eq!(tokens_after(&mut median, &[7; 51]), 7.0);
        assert_eq!(tokens_after(&mut median, &[9; 50]), 7.0, "51 of 7 and 50 of 9 are left");
        assert_eq!(tokens_after(&mut median, &[9]), 9.0);
        assert_eq!(median.last.len(), WINDOW);
    }
}
