//! Naive independent Q-learning: every agent bootstraps from its *own* row, at what it would see of the task that it has
//! just handed over. Nothing comes back from the successor, whose values may be quite other than its own.

use relevo_core::{
    ids::{ActionId, AgentId},
    observation::Observation,
    policy::EpsilonGreedy,
    step::StepRule,
    units::Discount,
};

use super::{Baseline, Explorer, Tables};
use crate::environment::{Environment, EnvironmentSpec, Next, Transition};

/// The learners.
pub struct Naive {
    tables: Tables,
    explorer: Explorer,
    step: StepRule,
    discount: Discount,
}

impl Naive {
    /// Learners that value everything at `initial`.
    pub fn new(
        spec: &EnvironmentSpec,
        initial: f64,
        step: StepRule,
        policy: EpsilonGreedy,
        seed: u64,
    ) -> Self {
        Naive {
            tables: Tables::new(spec, initial),
            explorer: Explorer::new(policy, spec.agents.len(), seed),
            step,
            discount: spec.discount,
        }
    }
}

impl Baseline for Naive {
    fn choose(&mut self, agent: AgentId, seen: &Observation, clock: u64) -> ActionId {
        self.explorer.choose(&self.tables.values(agent, seen), agent, seen, clock)
    }

    fn learn(
        &mut self,
        env: &dyn Environment,
        agent: AgentId,
        seen: &Observation,
        action: ActionId,
        transition: &Transition,
    ) {
        // y = R + gamma^tau max_k Q_i(phi_i(z'), k),    y = R at the end
        let mut target = transition.reward.get();
        if transition.next != Next::Terminal {
            target += self.discount.over(transition.tau) * self.tables.best(agent, &env.observe(agent));
        }
        self.tables.move_to(target, self.step, agent, seen.signature, action);
    }

    fn values(&self, agent: AgentId, seen: &Observation) -> Vec<f64> {
        self.tables.values(agent, seen)
    }
}
