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

#[cfg(test)]
mod tests {
    use relevo_core::{policy::Ties, step::Schedule};

    use super::*;
    use crate::{
        baselines::monte_carlo_ucb::{Credit, MonteCarloUcb},
        environments::chain::Chain,
    };

    /// On a chain no agent is active twice: waiting for the next visit is then waiting for the return from the choice on,
    /// and the first choice's is that of the whole episode.
    #[test]
    fn without_a_next_visit_it_learns_returns() {
        let policy = EpsilonGreedy { epsilon: Schedule::Constant(1.0), ties: Ties::First };
        for seed in 0..20 {
            let mut env = Chain::new(seed);
            let spec = env.spec().clone();
            let mut team = NextVisit::new(&spec, 0.0, StepRule::Constant(1.0), policy, seed);
            let mut to_go = MonteCarloUcb::new(&spec, Credit::ReturnToGo, 1.0);
            let mut whole = MonteCarloUcb::new(&spec, Credit::WholeReturn, 1.0);
            let (mut agent, mut path) = (env.reset(seed), vec![]);
            let (mut episode_return, mut discount) = (0.0, 1.0);
            loop {
                let seen = env.observe(agent);
                let action = team.choose(agent, &seen, 0);
                let transition = env.step(action);
                episode_return += discount * transition.reward.get();
                discount *= spec.discount.over(transition.tau);
                for learner in [&mut team as &mut dyn Baseline, &mut to_go, &mut whole] {
                    learner.learn(&env, agent, &seen, action, &transition);
                }
                path.push((agent, seen, action));
                match transition.next {
                    Next::Active(next) => agent = next,
                    Next::Terminal => break,
                }
            }
            let near = |a: f64, b: f64| assert!((a - b).abs() < 1e-12, "seed {seed}: {a} and {b}");
            for (agent, seen, action) in &path {
                let value = |learner: &dyn Baseline| learner.values(*agent, seen)[action.index()];
                near(value(&team), value(&to_go));
                near(value(&whole), episode_return);
            }
            let (agent, seen, action) = &path[0];
            near(team.values(*agent, seen)[action.index()], episode_return);
        }
    }
}
