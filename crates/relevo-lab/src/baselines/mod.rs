//! What IC-Q is held against. Each file is one learner, whole; they share a table, a way to explore, and the loop below.
//!
//! A baseline is one value for the whole team and is told everything. What each of its agents makes use of is said in
//! its file: only [`central::Central`] uses more than an agent could know.

pub mod central;
pub mod fixed;
pub mod monte_carlo_ucb;
pub mod naive;
pub mod next_visit;
pub mod single;

use std::collections::BTreeMap;

use relevo_core::{
    Rng,
    ids::{ActionId, AgentId, EpisodeId},
    observation::{Observation, Signature},
    policy::{EpsilonGreedy, Policy, Scores, argmax},
    step::StepRule,
};

use crate::environment::{Environment, EnvironmentSpec, Next, Transition};

/// A team that decides and learns in some other way than by passing values.
pub trait Baseline {
    /// The choice of the active agent; `clock` is the time of the schedules.
    fn choose(&mut self, agent: AgentId, seen: &Observation, clock: u64) -> ActionId;

    /// Learn from what a choice led to; `env` is where it led.
    fn learn(
        &mut self,
        env: &dyn Environment,
        agent: AgentId,
        seen: &Observation,
        action: ActionId,
        transition: &Transition,
    );

    /// The values of an agent's choices, by column.
    fn values(&self, agent: AgentId, seen: &Observation) -> Vec<f64>;

    /// The best known choice of an agent.
    fn greedy(&self, agent: AgentId, seen: &Observation) -> ActionId {
        let values = self.values(agent, seen);
        argmax(&seen.legal, |a| values[a.index()]).expect("an observation has choices")
    }
}

/// Play and learn from the task that `seed` determines until it ends or `handoffs` have been made, and give their
/// number. Choices, restarts and clocks go as in [`crate::drive::Crew`]: a choice is made at every activation, also by
/// an agent whose task is then begun anew, and the clock is read where a task begins.
pub fn play(
    team: &mut dyn Baseline,
    env: &mut dyn Environment,
    seed: u64,
    mut clock: u64,
    handoffs: u64,
) -> u64 {
    let begin = clock;
    let mut agent = env.reset(seed);
    let mut seen = env.observe(agent);
    let mut action = team.choose(agent, &seen, clock);
    for made in 1..=handoffs {
        let transition = env.step(action);
        team.learn(env, agent, &seen, action, &transition);
        let Next::Active(next) = transition.next else { return made };
        (agent, seen) = (next, env.observe(next));
        action = team.choose(agent, &seen, clock);
        if made < handoffs
            && let Some(anew) = env.restarts()
        {
            clock = begin + made;
            (agent, seen) = (anew, env.observe(anew));
            action = team.choose(agent, &seen, clock);
        }
    }
    handoffs
}

/// One estimate.
#[derive(Clone, Copy, Debug)]
pub struct Cell {
    /// Q.
    pub value: f64,
    /// How often it was moved.
    pub visits: u32,
}

/// The estimates of all agents, by agent, situation and choice.
#[derive(Clone, Debug)]
pub struct Tables {
    /// What an agent holds of a situation that it has not learned of.
    fresh: Vec<Vec<Cell>>,
    rows: BTreeMap<(AgentId, Signature), Vec<Cell>>,
}

impl Tables {
    /// Every estimate is `initial` at first.
    pub fn new(spec: &EnvironmentSpec, initial: f64) -> Self {
        let cell = Cell { value: initial, visits: 0 };
        let fresh = spec.choices.iter().map(|choices| vec![cell; choices.len()]).collect();
        Tables { fresh, rows: BTreeMap::new() }
    }

    /// What an agent holds of a situation.
    pub fn row(&self, agent: AgentId, seen: &Observation) -> &[Cell] {
        self.rows.get(&(agent, seen.signature)).unwrap_or(&self.fresh[agent.0 as usize])
    }

    /// The values of all choices.
    pub fn values(&self, agent: AgentId, seen: &Observation) -> Vec<f64> {
        self.row(agent, seen).iter().map(|cell| cell.value).collect()
    }

    /// `max_a Q(o, a)` over the admissible choices.
    pub fn best(&self, agent: AgentId, seen: &Observation) -> f64 {
        let row = self.row(agent, seen);
        seen.legal.iter().fold(f64::NEG_INFINITY, |top, a| top.max(row[a.index()].value))
    }

    /// `Q += alpha_n (y - Q)`.
    pub fn move_to(&mut self, target: f64, step: StepRule, agent: AgentId, at: Signature, action: ActionId) {
        let row = self.rows.entry((agent, at)).or_insert_with(|| self.fresh[agent.0 as usize].clone());
        let cell = &mut row[action.index()];
        cell.visits += 1;
        cell.value += step.step(cell.visits) * (target - cell.value);
    }
}

/// Epsilon-greedy choices, each agent drawing from a stream of the name that it has in [`crate::drive::Crew`].
#[derive(Clone, Debug)]
pub struct Explorer {
    policy: EpsilonGreedy,
    rngs: Vec<Rng>,
}

impl Explorer {
    /// For `agents` agents.
    pub fn new(policy: EpsilonGreedy, agents: usize, seed: u64) -> Self {
        Explorer { policy, rngs: (0..agents).map(|i| Rng::stream(seed, &format!("policy/{i}"))).collect() }
    }

    /// A choice.
    pub fn choose(&mut self, values: &[f64], agent: AgentId, seen: &Observation, clock: u64) -> ActionId {
        let scores = Scores {
            legal: &seen.legal,
            values,
            edges: &[],
            spreads: &[],
            pseudo: &[],
            signature: seen.signature,
            episode: EpisodeId(0),
            clock,
        };
        self.policy.decide(scores, &mut self.rngs[agent.0 as usize]).action
    }
}
