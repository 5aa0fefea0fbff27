//! Mail that is not ideal: values between participants are lost, come twice, or come late.

use std::collections::BTreeMap;

use relevo_core::{Rng, ids::AgentId, protocol::ValueMessage};

/// What happens to values on their way; by default, nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Faults {
    /// The probability that a value is sent twice.
    pub doubled: f64,
    /// The probability that a value, or each copy of it, is lost.
    pub lost: f64,
    /// The longest delay in handoffs; each delay is uniform from 0 on.
    pub delay_max: u32,
}

/// The values under way.
#[derive(Clone, Debug)]
pub struct Mail {
    faults: Faults,
    rng: Rng,
    /// Handoffs so far.
    now: u64,
    posted: u64,
    /// By when they arrive, then by when they were posted.
    under_way: BTreeMap<(u64, u64), (AgentId, ValueMessage)>,
}

impl Mail {
    /// Mail whose faults `seed` determines.
    pub fn new(faults: Faults, seed: u64) -> Self {
        Mail { faults, rng: Rng::stream(seed, "mail"), now: 0, posted: 0, under_way: BTreeMap::new() }
    }

    /// Take a value to `to`.
    pub fn post(&mut self, to: AgentId, message: ValueMessage) {
        let copies = 1 + u32::from(self.rng.unit() < self.faults.doubled);
        for _ in 0..copies {
            // Both are drawn for every copy, so that runs with other faults draw the same otherwise.
            let (lost, delay) = (self.rng.unit(), self.rng.below(self.faults.delay_max + 1));
            if lost >= self.faults.lost {
                self.posted += 1;
                self.under_way.insert((self.now + u64::from(delay), self.posted), (to, message));
            }
        }
    }

    /// A handoff is made.
    pub fn tick(&mut self) {
        self.now += 1;
    }

    /// The next of the values that have arrived.
    pub fn arrived(&mut self) -> Option<(AgentId, ValueMessage)> {
        let first = self.under_way.first_entry()?;
        (first.key().0 <= self.now).then(|| first.remove())
    }
}

#[cfg(test)]
mod tests {
    use relevo_core::{
        ids::{EpisodeId, HandoffId},
        learner::{DecisionPoint, LearnerSpec, Regime},
        record::Table,
        units::{Bounds, Value},
    };

    use super::*;
    use crate::{
        drive::Crew,
        environment::Environment,
        environments::synthetic::{Design, Synthetic},
    };

    /// 20,000 values: the shares lost and doubled are met within 5 standard errors (false alarm below 1e-5; the seed is
    /// fixed), and none is later than it may be.
    #[test]
    fn faults_are_as_frequent_as_they_say() {
        let mut mail = Mail::new(Faults { doubled: 0.5, lost: 0.3, delay_max: 50 }, 1);
        let n = 20_000;
        let (mut arrived, mut latest) = (0, 0);
        for posted in 0..n + 50 {
            mail.tick();
            if posted < n {
                let value = Value::new(f64::from(posted)).expect("finite");
                let message = ValueMessage::new(HandoffId::opening(EpisodeId(1)), value);
                mail.post(AgentId(0), message);
            }
            while let Some((_, message)) = mail.arrived() {
                arrived += 1;
                latest = latest.max(posted - message.value.get() as u32);
            }
        }
        // Each posted value: 1 or 2 copies, each arriving with probability .7; variance .25 * .49 + 1.5 * .21.
        let (mean, error) = (1.05, ((0.25 * 0.49 + 1.5 * 0.21) / f64::from(n)).sqrt());
        assert!((f64::from(arrived) / f64::from(n) - mean).abs() < 5.0 * error, "{arrived}");
        assert_eq!(latest, 50);
        assert!(mail.under_way.is_empty());
    }

    /// Mail without faults, and mail that only doubles, teach a team the same as none, digit for digit.
    #[test]
    fn doubled_values_teach_nothing_else() {
        let learned = |faults: Option<Faults>| {
            let mut env = Synthetic::new(Design { states: 8, noise: 0.5, ..Design::default() }, 1);
            let bounds = Bounds::new(0.0, 20.0).expect("an interval");
            let regime = Regime::PreConfigured(DecisionPoint::Before);
            let spec = |n| LearnerSpec::tabular(n, regime, env.spec().discount, bounds);
            let mut crew = Crew::new(&env, spec, 1).expect("a valid specification");
            if let Some(faults) = faults {
                crew = crew.with_mail(Mail::new(faults, 1));
            }
            crew.begin(&mut env, 1);
            crew.go_on(&mut env, 0, 5000);
            let cells = (0..4).flat_map(|i| (0..8).map(move |o| (i, o)));
            let row = |(i, o): (usize, usize)| {
                crew.participants()[i].learner().values(Table::Successors, &env.observation(o))
            };
            cells.map(row).collect::<Vec<_>>()
        };
        let ideal = learned(None);
        assert_eq!(learned(Some(Faults::default())), ideal);
        assert_eq!(learned(Some(Faults { doubled: 0.5, ..Faults::default() })), ideal);
    }
}
