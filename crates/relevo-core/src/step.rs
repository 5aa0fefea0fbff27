//! Step sizes: how far one sample moves an estimate. Used by [`crate::learner`] at every settlement.

/// A rule that gives the step for the n-th update of a cell, n >= 1.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum StepRule {
    /// Rescaled linear, `(H + 1) / (H + n)`, with H about `1 / (1 - gbar)`: the default where accurate values matter.
    Resc {
        /// H, the effective horizon in handoffs.
        horizon: u32,
    },
    /// Polynomial, `n^-w`.
    Poly {
        /// w in (1/2, 1).
        exponent: f64,
    },
    /// Polynomial, and decisions are taken on the tail average of the iterates with weight `min(1, 8 / (n + 7))`:
    /// the default where good decisions matter.
    PolyAverage {
        /// w in (1/2, 1).
        exponent: f64,
    },
    /// A constant: quick at first, never settles.
    Constant(f64),
    /// The sample mean, `1 / n`. Refused together with bootstrapping (see [`crate::learner::LearnerSpec::check`]).
    Mean,
}

impl StepRule {
    /// The step of the n-th update; in (0, 1].
    pub fn step(self, n: u32) -> f64 {
        let n = f64::from(n.max(1));
        match self {
            // alpha_n = (H + 1) / (H + n)
            StepRule::Resc { horizon } => (f64::from(horizon) + 1.0) / (f64::from(horizon) + n),
            // alpha_n = n^-w
            StepRule::Poly { exponent } | StepRule::PolyAverage { exponent } => libm::pow(n, -exponent),
            StepRule::Constant(step) => step,
            StepRule::Mean => 1.0 / n,
        }
    }

    /// The weight of the n-th iterate in the tail average, if the rule averages.
    pub fn average_weight(self, n: u32) -> Option<f64> {
        match self {
            // w_n = min(1, 8 / (n + 7))
            StepRule::PolyAverage { .. } => Some((8.0 / (f64::from(n) + 7.0)).min(1.0)),
            _ => None,
        }
    }
}

/// A number that changes as the run goes on, read at the clock that the driver passes with each task.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Schedule {
    /// Always the same.
    Constant(f64),
    /// From `from` to `to` in a straight line while the clock goes from 0 to `over`, then `to`.
    Linear {
        /// Value at clock 0.
        from: f64,
        /// Value from clock `over` on.
        to: f64,
        /// Length of the ramp, in the clock's unit.
        over: u64,
    },
    /// `max(floor, (1 + t / scale)^-exponent)`.
    Power {
        /// Smallest value.
        floor: f64,
        /// Clock at which the decay sets in.
        scale: f64,
        /// Speed of the decay.
        exponent: f64,
    },
}

impl Schedule {
    /// The value at `clock`.
    pub fn at(self, clock: u64) -> f64 {
        match self {
            Schedule::Constant(value) => value,
            Schedule::Linear { to, over, .. } if clock >= over => to,
            Schedule::Linear { from, to, over } => from + (to - from) * (clock as f64 / over as f64),
            Schedule::Power { floor, scale, exponent } => {
                libm::pow(1.0 + clock as f64 / scale, -exponent).max(floor)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_rule_starts_within_one_and_falls_as_its_formula() {
        assert_eq!(StepRule::Resc { horizon: 10 }.step(1), 1.0);
        assert_eq!(StepRule::Resc { horizon: 10 }.step(2), 11.0 / 12.0);
        assert_eq!(StepRule::Poly { exponent: 0.5 }.step(4), 0.5);
        assert_eq!(StepRule::Constant(0.05).step(9), 0.05);
        assert_eq!(StepRule::Mean.step(4), 0.25);
        assert_eq!(StepRule::PolyAverage { exponent: 0.6 }.average_weight(1), Some(1.0));
        assert_eq!(StepRule::PolyAverage { exponent: 0.6 }.average_weight(9), Some(0.5));
    }

    #[test]
    fn schedules_hold_their_ends() {
        let ramp = Schedule::Linear { from: 1.0, to: 0.05, over: 100 };
        assert_eq!((ramp.at(0), ramp.at(50), ramp.at(100), ramp.at(u64::MAX)), (1.0, 0.525, 0.05, 0.05));
        let power = Schedule::Power { floor: 0.05, scale: 150.0, exponent: 0.5 };
        assert_eq!((power.at(0), power.at(450), power.at(1 << 40)), (1.0, 0.5, 0.05));
    }
}
