//! `chain@1`: six agents in a row, each with five situations and six ways to hand on; what they cost is seen at once,
//! whether the task succeeds only at the end. Options last one to three steps.
//!
//! Everything is drawn once per instance: P(h, s, a) is Dirichlet(.3) over the next agent's situations, the cost of
//! a way is uniform on [0, .05], and the chance of success after the last agent Beta(.6, .6).

use relevo_core::{
    Rng,
    ids::{ActionId, AgentId},
    observation::{ActionSet, Observation, Signature},
    protocol::Choice,
    units::{Discount, Return, Tau},
};

use crate::{
    environment::{Column, Environment, EnvironmentSpec, Next, Transition},
    sample::{beta, dirichlet, outcome},
};

/// Name and version.
pub const NAME: &str = "chain@1";

/// Agents, H.
pub const AGENTS: usize = 6;
/// Situations of each agent.
pub const STATES: usize = 5;
/// Ways to hand on.
pub const ACTIONS: usize = 6;
const GAMMA: f64 = 0.99;
const TAU_MAX: u32 = 3;

/// A chain, and where its task is.
pub struct Chain {
    spec: EnvironmentSpec,
    /// P(next situation | agent, situation, action).
    next: Vec<[[Vec<f64>; ACTIONS]; STATES]>,
    cost: [[f64; ACTIONS]; AGENTS],
    success: [f64; STATES],
    rng: Rng,
    agent: usize,
    state: usize,
}

/// A policy of the whole chain: the action of each agent in each situation.
pub type ChainPolicy = [[usize; STATES]; AGENTS];

impl Chain {
    /// The instance that `seed` determines.
    pub fn new(seed: u64) -> Self {
        let mut rng = Rng::stream(seed, "chain/instance");
        let next = (0..AGENTS)
            .map(|_| core::array::from_fn(|_| core::array::from_fn(|_| dirichlet(0.3, STATES, &mut rng))))
            .collect();
        let cost = core::array::from_fn(|_| core::array::from_fn(|_| 0.05 * rng.unit()));
        let success = core::array::from_fn(|_| beta(0.6, 0.6, &mut rng));
        let columns = |agent: usize| {
            // The last agent hands to nobody: its options end the task.
            let leads =
                if agent + 1 < AGENTS { Choice::HandTo(AgentId(agent as u32 + 1)) } else { Choice::Finish };
            (0..ACTIONS).map(|a| Column { name: format!("way {a}"), leads }).collect()
        };
        let spec = EnvironmentSpec {
            name: NAME,
            agents: (0..AGENTS).map(|h| format!("agent {h}")).collect(),
            choices: (0..AGENTS).map(columns).collect(),
            discount: Discount::new(GAMMA).expect("a constant"),
            returns: (-0.05 * AGENTS as f64, 1.0),
        };
        Chain { spec, next, cost, success, rng, agent: 0, state: 0 }
    }

    /// E[gamma^tau], tau uniform on 1..=3.
    fn discount() -> f64 {
        (1..=TAU_MAX).map(|tau| GAMMA.powi(tau as i32)).sum::<f64>() / f64::from(TAU_MAX)
    }

    /// The value of each action of an agent in a situation, when the next agent's situations have these values.
    fn action_values(&self, agent: usize, state: usize, next: &[f64; STATES]) -> [f64; ACTIONS] {
        core::array::from_fn(|a| {
            let future: f64 = self.next[agent][state][a].iter().zip(next).map(|(p, v)| p * v).sum();
            // Q(s, a) = -c + E[gamma^tau] sum_s' P(s' | s, a) V(s')
            -self.cost[agent][a] + Self::discount() * future
        })
    }

    /// The exact value of a way to choose, from a uniform start, by backward induction.
    fn evaluate(&self, choose: impl Fn(usize, usize, &[f64; ACTIONS]) -> f64) -> f64 {
        let mut values = self.success;
        for agent in (0..AGENTS).rev() {
            let next = values;
            values = core::array::from_fn(|s| choose(agent, s, &self.action_values(agent, s, &next)));
        }
        values.iter().sum::<f64>() / STATES as f64
    }

    /// The value of a policy.
    pub fn policy_value(&self, policy: &ChainPolicy) -> f64 {
        self.evaluate(|agent, state, q| q[policy[agent][state]])
    }

    /// The value of the best policy.
    pub fn optimal_value(&self) -> f64 {
        self.evaluate(|_, _, q| q.iter().copied().fold(f64::NEG_INFINITY, f64::max))
    }

    /// The value of choosing at random.
    pub fn random_value(&self) -> f64 {
        self.evaluate(|_, _, q| q.iter().sum::<f64>() / ACTIONS as f64)
    }

    /// What an agent observes in a situation.
    pub fn observation(state: usize) -> Observation {
        Observation::of(Signature(state as u64), ActionSet::all(ACTIONS))
    }
}

impl Environment for Chain {
    fn spec(&self) -> &EnvironmentSpec {
        &self.spec
    }

    fn reset(&mut self, seed: u64) -> AgentId {
        self.rng = Rng::stream(seed, "chain/episode");
        self.agent = 0;
        self.state = self.rng.below(STATES as u32) as usize;
        AgentId(0)
    }

    fn observe(&self, _: AgentId) -> Observation {
        Chain::observation(self.state)
    }

    fn describe(&self) -> String {
        format!("situation {}", self.state)
    }

    fn step(&mut self, action: ActionId) -> Transition {
        let (agent, a) = (self.agent, action.index());
        let steps = 1 + self.rng.below(TAU_MAX);
        let tau = Tau::new(steps).expect("at least 1");
        self.state = outcome(&self.next[agent][self.state][a], &mut self.rng);
        let mut reward = -self.cost[agent][a];
        let next = if agent + 1 < AGENTS {
            self.agent += 1;
            Next::Active(AgentId(self.agent as u32))
        } else {
            // Success is known when the option is over.
            let success = self.rng.unit() < self.success[self.state];
            reward += GAMMA.powi(steps as i32) * f64::from(u8::from(success));
            Next::Terminal
        };
        Transition { reward: Return::new(reward).expect("bounded"), tau, next }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::environment::obeys_environment_laws;

    #[test]
    fn it_is_an_environment() {
        for seed in 0..5 {
            obeys_environment_laws(|| Box::new(Chain::new(seed)), 0..50, AGENTS + 1);
        }
    }

    /// 50,000 episodes at random: the mean return meets the exact value within 5 standard errors.
    #[test]
    fn exact_values_are_those_of_the_episodes() {
        let mut chain = Chain::new(3);
        let mut rng = Rng::stream(3, "choices");
        let (mut sum, mut squares, n) = (0.0, 0.0, 50_000);
        for seed in 0..n {
            chain.reset(seed);
            let (mut total, mut discount) = (0.0, 1.0);
            loop {
                let t = chain.step(ActionId(rng.below(ACTIONS as u32)));
                total += discount * t.reward.get();
                discount *= chain.spec.discount.over(t.tau);
                if t.next == Next::Terminal {
                    break;
                }
            }
            sum += total;
            squares += total * total;
        }
        let mean = sum / n as f64;
        let error = ((squares / n as f64 - mean * mean) / n as f64).sqrt();
        assert!((mean - chain.random_value()).abs() < 5.0 * error, "{mean} for {}", chain.random_value());
        assert!(chain.optimal_value() > chain.random_value());
    }
}
