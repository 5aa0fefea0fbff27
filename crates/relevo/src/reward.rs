//! What a finished task earns: its quality, less what it cost. Pure; the weights are those of the section `[reward]`.

use std::collections::VecDeque;

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

/// r: what a task earns that was concluded with this quality, after all that it has cost. Without a quality, it is the
/// cost alone.
pub fn of(spec: &RewardSpec, quality: Option<f64>, spent: &Spent, usual: &Usual) -> f64 {
    spec.success * quality.unwrap_or(0.0) + cost(spec, spent, usual)
}

/// The part of the reward that is cost. Where all of `usual` is known, or costs are absolute, that of a task is the sum
/// of those of its calls.
pub fn cost(spec: &RewardSpec, spent: &Spent, usual: &Usual) -> f64 {
    let Spent { calls, failures, retries, tokens, money, ms } = *spent;
    let (tokens, ms) = (tokens as f64, ms as f64);
    // absolute: in 1,000 tokens, units of money and seconds; median: in what a task usually costs
    let [tokens, money, time] = match spec.scale {
        RewardScale::Absolute => [tokens / 1000.0, money, ms / 1000.0],
        RewardScale::Median => [share(tokens, usual.tokens), share(money, usual.money), share(ms, usual.ms)],
    };
    // r = Q w_success + n_calls w_call + n_failures w_failure + n_retries w_retry + tokens, money and time by theirs
    spec.call * f64::from(calls)
        + spec.failure * f64::from(failures)
        + spec.retry * f64::from(retries)
        + spec.tokens * tokens
        + spec.money * money
        + spec.time * time
}

/// An amount as a share of the usual one. As long as nothing is usual, whatever is spent is as usual.
fn share(amount: f64, usual: Option<f64>) -> f64 {
    match usual.filter(|usual| *usual > 0.0) {
        Some(usual) => amount / usual,
        None => f64::from(u8::from(amount > 0.0)),
    }
}

/// How many tasks a [`Median`] looks back at.
pub const WINDOW: usize = 101;

/// The running median of what tasks cost: over the last [`WINDOW`] of them, in the order in which they ended.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Median {
    last: VecDeque<Spent>,
}

impl Median {
    /// A task has ended. What is neither finite nor positive counts as 0.
    pub fn observe(&mut self, mut spent: Spent) {
        if self.last.len() == WINDOW {
            self.last.pop_front();
        }
        spent.money = if spent.money.is_finite() { spent.money.max(0.0) } else { 0.0 };
        self.last.push_back(spent);
    }

    /// What a task usually costs, the lower of two middle ones.
    pub fn usual(&self) -> Usual {
        let middle = |of: fn(&Spent) -> f64| {
            let mut amounts: Vec<f64> = self.last.iter().map(of).collect();
            amounts.sort_by(f64::total_cmp);
            amounts.get(amounts.len().saturating_sub(1) / 2).copied()
        };
        Usual { tokens: middle(|s| s.tokens as f64), money: middle(|s| s.money), ms: middle(|s| s.ms as f64) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spent(tokens: u64, money: f64, ms: u64) -> Spent {
        Spent { tokens, money, ms, ..Spent::default() }
    }

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
        let usual = Usual { tokens: Some(8000.0), money: Some(0.5), ms: Some(4000.0) };
        let none = Usual::default();
        let (median, absolute) = (RewardScale::Median, RewardScale::Absolute);
        for (scale, spent, usual, reward) in [
            (median, spent(0, 0.0, 0), usual, 1.0),
            (median, spent(8000, 0.5, 4000), usual, 1.0 - 0.3 - 0.1 - 0.2),
            (median, spent(16_000, 0.0, 1000), usual, 1.0 - 0.6 - 0.05),
            (median, Spent { calls: 3, retries: 2, ..spent(0, 0.0, 0) }, usual, 1.0 - 0.03 - 0.3),
            (median, spent(5, 0.0, 7), none, 1.0 - 0.3 - 0.2),
            (median, spent(5, 0.0, 7), Usual { tokens: Some(0.0), ..usual }, 1.0 - 0.3 - 0.2 * 7.0 / 4000.0),
            (absolute, spent(2000, 0.5, 500), usual, 1.0 - 0.6 - 0.05 - 0.1),
        ] {
            let found = of(&spec(scale), Some(1.0), &spent, &usual);
            assert!((found - reward).abs() < 1e-12, "{scale:?} {spent:?}: {found} for {reward}");
            let without = of(&spec(scale), None, &spent, &usual);
            assert!((found - without - 1.0).abs() < 1e-12, "without a quality the cost remains");
        }
    }

    #[test]
    fn the_median_forgets_and_is_not_moved_by_outliers() {
        let mut median = Median::default();
        assert_eq!(median.usual(), Usual::default());
        let tokens_after = |median: &mut Median, tokens: &[u64]| {
            tokens.iter().for_each(|t| median.observe(spent(*t, f64::NAN, 0)));
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
