//! Independent semi-Markov learners: to each agent the others are part of its world. Its option lasts until the task comes
//! back to it; there it bootstraps from its own row. Needs no message at all, but waits longer and sees noisier returns.

use relevo_core::{
    ids::{ActionId, AgentId},
    observation::{Observation, Signature},
    policy::EpsilonGreedy,
    step::StepRule,
    units::Discount,
};

use super::{Baseline, Explorer, Tables};
use crate::environment::{Environment, EnvironmentSpec, Next, Transition};

/// A choice whose agent has not been active since.
#[derive(Clone, Copy)]
struct Open {
    situation: Signature,
    action: ActionId,
    /// What has accrued since, discounted to the choice.
    reward: f64,
    /// `gamma^(primitive steps since)`.
    discount: f64,
}

/// The learners.
pub struct NextVisit {
    tables: Tables,
    explorer: Explorer,
    step: StepRule,
    discount: Discount,
    /// By agent.
    open: Vec<Option<Open>>,
}

impl NextVisit {
    /// Learners that value everything at `initial`.
    pub fn new(
        spec: &EnvironmentSpec,
        initial: f64,
        step: StepRule,
        policy: EpsilonGreedy,
        seed: u64,
    ) -> Self {
        NextVisit {
            tables: Tables::new(spec, initial),
            explorer: Explorer::new(policy, spec.agents.len(), seed),
            step,
            discount: spec.discount,
            open: vec![None; spec.agents.len()],
        }
    }

    /// Settle the open choice of an agent that is active again, or, without a value, whose task is over.
    fn settle(&mut self, agent: AgentId, value: Option<f64>) {
        if let Some(open) = self.open[agent.0 as usize].take() {
            // y = sum of discounted rewards until the next visit + gamma^(time until then) max_k Q_i(o_next, k)
            let target = open.reward + value.map_or(0.0, |v| open.discount * v);
            self.tables.move_to(target, self.step, agent, open.situation, open.action);
        }
    }
}

impl Baseline for NextVisit {
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
        let begun = Open { situation: seen.signature, action, reward: 0.0, discount: 1.0 };
        self.open[agent.0 as usize] = Some(begun);
        for open in self.open.iter_mut().flatten() {
            open.reward += open.discount * transition.reward.get();
            open.discount *= self.discount.over(transition.tau);
        }
        match transition.next {
            Next::Active(next) => {
                let value = self.tables.best(next, &env.observe(next));
                self.settle(next, Some(value));
            }
            Next::Terminal => (0..self.open.len() as u32).for_each(|i| self.settle(AgentId(i), None)),
        }
    }

    fn values(&self, agent: AgentId, seen: &Observation) -> Vec<f64> {
        self.tables.values(agent, seen)
    }
}
