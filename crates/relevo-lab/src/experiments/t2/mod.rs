//! Theorem 2's parts, each by itself: how the error of the real participants on [`crate::environments::synthetic`] depends on
//! the number of handoffs ([`samples`]), on what an interface hides ([`interface`]), on mixing ([`mixing`]) and on the width of
//! a network ([`width`]).

pub mod interface;
pub mod mixing;
pub mod samples;
pub mod width;

pub(super) use mixing::LOCAL;
pub(super) use width::{NETWORK_DESIGN, network};

use relevo::report::Estimate;
use relevo_core::{
    learner::{DecisionPoint, LearnerSpec, Regime},
    policy::{EpsilonGreedy, PolicySpec, Ties},
    record::Table,
    step::{Schedule, StepRule},
    units::Bounds,
};

use crate::{
    drive::Crew,
    environment::Environment,
    environments::synthetic::{Design, Ending, Generator, ObservationMap, Synthetic, oracle::Values},
    experiment::Settings,
};

/// 16 states, of which nothing is hidden yet, and noisy rewards.
const DESIGN: Design = Design {
    agents: 4,
    states: 16,
    gamma: 0.95,
    handoff: 0.5,
    ending: Ending::Restart(0.02),
    noise: 0.5,
    generator: Generator::smooth(8),
    map: ObservationMap::TailMergeUnpermuted,
    rho: 1.0,
    features: false,
};

/// Half of the largest value.
const INITIAL: f64 = 10.0;
/// `1 / (1 - gbar)` is 10.5.
const RESC: StepRule = StepRule::Resc { horizon: 10 };
/// Handoffs between two looks at the wish to stop.
const CHUNK: u64 = 100_000;

/// A team whose learners choose uniformly, on a task that continues.
pub(super) struct Learning {
    pub(super) env: Synthetic,
    pub(super) crew: Crew,
    clock: u64,
}

impl Learning {
    /// `change` makes each learner of a tabular one.
    pub(super) fn begin(env: Synthetic, seed: u64, change: impl Fn(LearnerSpec) -> LearnerSpec) -> Self {
        let (min, max) = env.design().values();
        let bounds = Bounds::new(min, max).expect("values are bounded");
        let regime = Regime::PreConfigured(DecisionPoint::Before);
        let uniform = EpsilonGreedy { epsilon: Schedule::Constant(1.0), ties: Ties::First };
        let spec = |n| {
            change(LearnerSpec {
                policy: PolicySpec::EpsilonGreedy(uniform),
                initial: INITIAL,
                step: RESC,
                ..LearnerSpec::tabular(n, regime, env.spec().discount, bounds)
            })
        };
        let crew = Crew::new(&env, spec, seed).expect("the specification is constant");
        let mut learning = Learning { env, crew, clock: 0 };
        learning.crew.begin(&mut learning.env, seed);
        learning
    }

    /// `None` if a stop is asked for on the way.
    pub(super) fn go_on_until(&mut self, handoffs: u64, settings: &Settings<'_>) -> Option<()> {
        while self.clock < handoffs {
            if settings.stopped() {
                return None;
            }
            let chunk = CHUNK.min(handoffs - self.clock);
            self.crew.go_on(&mut self.env, self.clock, chunk);
            self.clock += chunk;
        }
        Some(())
    }

    /// `Q_i(o, j)`, by agent and choice, by observation.
    pub(super) fn values(&self) -> Values {
        let observations: Vec<_> =
            (0..self.env.design().observations()).map(|o| self.env.observation(o)).collect();
        let mut values = vec![];
        for participant in self.crew.participants() {
            let at: Vec<Vec<f64>> =
                observations.iter().map(|o| participant.learner().values(Table::Successors, o)).collect();
            let column = |c: usize| at.iter().map(|values| values[c]).collect();
            values.extend((0..self.env.design().choices()).map(column));
        }
        values
    }
}

/// 1, 2 and 5 times the powers of ten.
fn checkpoints(first: u64, last: u64) -> Vec<u64> {
    let powers = (0..).map(|p| 10_u64.pow(p)).take_while(|p| *p <= last);
    powers.flat_map(|p| [p, 2 * p, 5 * p]).filter(|t| (first..=last).contains(t)).collect()
}

/// The slope of `log y` over `log x`, by least squares.
fn slope(points: impl Iterator<Item = (f64, f64)>) -> f64 {
    let points: Vec<(f64, f64)> = points.map(|(x, y)| (x.ln(), y.ln())).collect();
    let n = points.len() as f64;
    let (x, y) = (points.iter().map(|p| p.0).sum::<f64>() / n, points.iter().map(|p| p.1).sum::<f64>() / n);
    let covariance: f64 = points.iter().map(|p| (p.0 - x) * (p.1 - y)).sum();
    covariance / points.iter().map(|p| (p.0 - x).powi(2)).sum::<f64>()
}

fn mean(numbers: impl ExactSizeIterator<Item = f64>) -> f64 {
    let n = numbers.len() as f64;
    numbers.sum::<f64>() / n
}

/// Mean and 95% interval, of numbers of any size.
fn scientific(numbers: impl Iterator<Item = f64>) -> String {
    let Estimate { mean, half_width, .. } = Estimate::of(numbers).expect("there are runs");
    match half_width {
        Some(half) => format!("{mean:.2e} ± {half:.1e}"),
        None => format!("{mean:.2e}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checkpoints_and_slopes() {
        assert_eq!(checkpoints(100, 2000), [100, 200, 500, 1000, 2000]);
        let line = checkpoints(10, 1000).into_iter().map(|t| (t as f64, 3.0 / t as f64));
        assert!((slope(line) + 1.0).abs() < 1e-12);
    }
}
