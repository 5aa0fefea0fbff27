//! The circuit breaker of one agent: after some failures in a row it is left alone for a while, then tried once.

use serde::{Deserialize, Serialize};

/// When an agent that fails is left alone, and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BreakerSpec {
    /// Failures in a row after which the breaker opens.
    pub failures: u32,
    /// Calls of the team, each beginning of a task counted as one, after which the agent is tried once.
    pub cooldown: u64,
}

/// How a call ended, as far as the breaker minds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ended {
    Well,
    Failed,
    /// It says nothing about the agent.
    Neither,
}

/// Closed lets all calls through, open none, half-open one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Breaker {
    Closed { failures: u32 },
    Open { until: u64 },
    HalfOpen,
}

impl Breaker {
    pub(super) const NEW: Breaker = Breaker::Closed { failures: 0 };

    pub(super) fn admits(self, clock: u64) -> bool {
        match self {
            Breaker::Closed { .. } => true,
            Breaker::Open { until } => clock >= until,
            // The one trial is under way.
            Breaker::HalfOpen => false,
        }
    }

    /// A call begins. Says whether it is the trial.
    pub(super) fn begin(&mut self, clock: u64) -> bool {
        let trial = matches!(self, Breaker::Open { .. }) && self.admits(clock);
        if trial {
            *self = Breaker::HalfOpen;
        }
        trial
    }

    pub(super) fn end(&mut self, spec: BreakerSpec, trial: bool, ended: Ended, clock: u64) {
        let open = Breaker::Open { until: clock.saturating_add(spec.cooldown) };
        *self = match (*self, trial, ended) {
            (_, true, Ended::Well) => Self::NEW,
            (_, true, Ended::Failed) => open,
            (_, true, Ended::Neither) => Breaker::Open { until: clock },
            (Breaker::Closed { .. }, false, Ended::Well) => Self::NEW,
            (Breaker::Closed { failures }, false, Ended::Failed) if failures + 1 >= spec.failures => open,
            (Breaker::Closed { failures }, false, Ended::Failed) => {
                Breaker::Closed { failures: failures + 1 }
            }
            // A call that began before the breaker opened says nothing new.
            (same, false, _) => same,
        };
    }
}
