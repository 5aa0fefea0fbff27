//! `synthetic@1`: random tasks with N agents and |Z| interface states whose every value is known exactly ([`oracle`]). Each
//! agent sees the state through its own map, which keeps it whole or merges it.
//!
//! An option begins in state z with the choice of a successor j by the active agent i. At every primitive step a reward
//! accrues and the state moves by P_ij; with probability p_h the step is the option's last. So tau is geometric, and
//!
//! ```text
//! R = sum_{k < tau} gamma^k (r_ij(z_k) + noise),     z' = z_tau
//! ```
//!
//! After each handoff, with probability e, the task begins anew from a uniform state and agent: as a restart of a task that
//! continues (the value of the handoff has come back, nothing is cut off), or as its end. Agents, states, rewards and
//! transitions are drawn once per instance; the same instance is seen through every map.

pub mod chain;
pub mod oracle;

use core::f64::consts::{PI, TAU};

use relevo_core::{
    Rng,
    ids::{ActionId, AgentId},
    observation::{ActionSet, Features, Observation, Signature},
    protocol::Choice,
    units::{Discount, Return, Tau},
};

use crate::{
    environment::{Column, Environment, EnvironmentSpec, Next, Transition},
    linalg::Square,
};

/// Name and version.
pub const NAME: &str = "synthetic@1";

/// How rewards and transitions of an ordered pair of agents are drawn.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Generator {
    /// On a ring, with f and g random sums of cosines of unit mean square, `r = .5 + .5 tanh(.7 f)`, and next states
    /// around `z + drift (U(-1, 1) + g(z) / 2)` with a Gaussian, or anywhere.
    Smooth {
        /// M, how many frequencies f has; g has at most three.
        modes: u32,
        /// Amplitudes fall like m^-beta.
        beta: f64,
        /// The probability of anywhere.
        teleport: f64,
        /// Width of the Gaussian, in states.
        width: f64,
        /// How far a step leads on, in states.
        drift: f64,
    },
    /// Rewards uniform on [0, 1], every row of P uniform on the simplex.
    Dense,
    /// Rewards uniform on [0, 1], four next states with a distribution uniform on the simplex.
    Garnet,
    /// Rewards uniform on [0, 1], next states uniform on the state's half of all states, or on the other half.
    TwoBlocks {
        /// The probability of the other half.
        switch: f64,
    },
}

impl Generator {
    /// The smooth one with beta 0, that reaches a fifth of its next states from anywhere.
    pub const fn smooth(modes: u32) -> Self {
        Generator::Smooth { modes, beta: 0.0, teleport: 0.2, width: 1.5, drift: 3.0 }
    }
}

/// What agents see of a state, keeping `K = max(1, floor(rho |Z|))` observations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ObservationMap {
    /// All but K - 1 states are one observation; which, each agent's own random permutation says.
    TailMerge,
    /// The same without permutation: the last states are merged.
    TailMergeUnpermuted,
    /// Neighbouring states are merged: `o = floor(z K / |Z|)`.
    Bucket,
}

/// What happens with probability e after a handoff.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Ending {
    /// The task continues, from a uniform state and agent, after the value has come back.
    Restart(f64),
    /// The task is over.
    Terminal(f64),
}

impl Ending {
    /// e.
    pub fn probability(self) -> f64 {
        let (Ending::Restart(e) | Ending::Terminal(e)) = self;
        e
    }
}

/// Everything but the seed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Design {
    /// N.
    pub agents: usize,
    /// |Z|.
    pub states: usize,
    /// gamma.
    pub gamma: f64,
    /// p_h.
    pub handoff: f64,
    /// What happens with probability e.
    pub ending: Ending,
    /// Standard deviation of the reward of a primitive step around its mean.
    pub noise: f64,
    /// How rewards and transitions are drawn.
    pub generator: Generator,
    /// What agents see.
    pub map: ObservationMap,
    /// rho, the share of states that is kept apart.
    pub rho: f64,
    /// Whether an observation carries `(cos, sin)(2 pi o / K)`, for estimators that generalise.
    pub features: bool,
}

impl Default for Design {
    fn default() -> Self {
        Design {
            agents: 4,
            states: 64,
            gamma: 0.95,
            handoff: 0.5,
            ending: Ending::Restart(0.02),
            noise: 0.0,
            generator: Generator::smooth(24),
            map: ObservationMap::TailMerge,
            rho: 1.0,
            features: false,
        }
    }
}

impl Design {
    /// Choices of an agent: all others.
    pub fn choices(&self) -> usize {
        self.agents - 1
    }

    /// K.
    pub fn observations(&self) -> usize {
        ((self.rho * self.states as f64) as usize).max(1)
    }

    /// `gbar = E[gamma^tau] = gamma p_h / (1 - gamma (1 - p_h))`.
    pub fn discount_mean(&self) -> f64 {
        self.gamma * self.handoff / (1.0 - self.gamma * (1.0 - self.handoff))
    }

    /// Smallest and largest value: r lies in [0, 1].
    pub fn values(&self) -> (f64, f64) {
        (0.0, 1.0 / (1.0 - self.gamma))
    }

    /// `phi_i(z)`, by agent and state.
    fn maps(&self, seed: u64) -> Vec<Vec<usize>> {
        let (states, kept) = (self.states, self.observations());
        let tail = |z: usize| z.min(kept - 1);
        let map = |agent: usize| match self.map {
            ObservationMap::TailMerge => {
                let order = permutation(states, &mut Rng::stream(seed, &format!("synthetic/map/{agent}")));
                order.into_iter().map(tail).collect()
            }
            ObservationMap::TailMergeUnpermuted => (0..states).map(tail).collect(),
            ObservationMap::Bucket => (0..states).map(|z| z * kept / states).collect(),
        };
        (0..self.agents).map(map).collect()
    }
}

/// The agent that column `column` of `agent` leads to: all others, in ascending order.
pub fn successor(agent: usize, column: usize) -> usize {
    column + usize::from(column >= agent)
}

/// What one agent's choice of one other leads to, by state.
#[derive(Clone, Debug)]
struct Pair {
    /// r.
    reward: Vec<f64>,
    /// P.
    next: Square,
    /// Running sums of the rows of P.
    cumulative: Square,
}

/// An instance, and where its task is.
pub struct Synthetic {
    design: Design,
    spec: EnvironmentSpec,
    /// By agent, then choice.
    pairs: Vec<Pair>,
    /// `phi_i(z)`, by agent and state.
    maps: Vec<Vec<usize>>,
    rng: Rng,
    agent: usize,
    state: usize,
}

impl Synthetic {
    /// The instance that `seed` determines. Rewards and transitions do not depend on the map, rho, gamma, p_h or e.
    pub fn new(design: Design, seed: u64) -> Self {
        let column =
            |j: usize| Column { name: format!("agent {j}"), leads: Choice::HandTo(AgentId(j as u32)) };
        let columns = |i: usize| (0..design.choices()).map(|c| column(successor(i, c))).collect();
        // No draw of a standard normal from 53 random bits is farther out: sqrt(-2 ln 2^-53) < 8.6.
        let noise = 8.6 * design.noise;
        let horizon = 1.0 / (1.0 - design.gamma);
        let spec = EnvironmentSpec {
            name: NAME,
            agents: (0..design.agents).map(|i| format!("agent {i}")).collect(),
            choices: (0..design.agents).map(columns).collect(),
            discount: Discount::new(design.gamma).expect("a design's gamma lies in [0, 1)"),
            returns: (-noise * horizon, (1.0 + noise) * horizon),
        };
        let pair = |i: usize, c: usize| {
            let stream = format!("synthetic/pair/{i}/{}", successor(i, c));
            draw(design.generator, design.states, &mut Rng::stream(seed, &stream))
        };
        let pairs = (0..design.agents).flat_map(|i| (0..design.choices()).map(move |c| pair(i, c))).collect();
        let rng = Rng::stream(seed, "synthetic/episode");
        Synthetic { design, spec, pairs, maps: design.maps(seed), rng, agent: 0, state: 0 }
    }

    /// What it was drawn by.
    pub fn design(&self) -> &Design {
        &self.design
    }

    /// What an agent observes in a state, as a number below K.
    pub fn observed(&self, agent: usize, state: usize) -> usize {
        self.maps[agent][state]
    }

    /// An observation by its number.
    pub fn observation(&self, number: usize) -> Observation {
        let plain = Observation::of(Signature(number as u64), ActionSet::all(self.design.choices()));
        match self.design.features {
            true => {
                let (sin, cos) = (TAU * number as f64 / self.design.observations() as f64).sin_cos();
                Observation { features: Features::Dense(Box::new([cos as f32, sin as f32])), ..plain }
            }
            false => plain,
        }
    }

    /// z, which no agent sees as such.
    pub fn state(&self) -> usize {
        self.state
    }

    fn begin(&mut self) -> AgentId {
        self.state = self.rng.below(self.design.states as u32) as usize;
        self.agent = self.rng.below(self.design.agents as u32) as usize;
        AgentId(self.agent as u32)
    }
}

impl Environment for Synthetic {
    fn spec(&self) -> &EnvironmentSpec {
        &self.spec
    }

    fn reset(&mut self, seed: u64) -> AgentId {
        self.rng = Rng::stream(seed, "synthetic/episode");
        self.begin()
    }

    fn observe(&self, agent: AgentId) -> Observation {
        self.observation(self.observed(agent.0 as usize, self.state))
    }

    fn describe(&self) -> String {
        format!("state {}", self.state)
    }

    fn step(&mut self, action: ActionId) -> Transition {
        let Design { gamma, handoff, noise, ending, .. } = self.design;
        let pair = &self.pairs[self.agent * self.design.choices() + action.index()];
        let (mut reward, mut discount, mut tau) = (0.0, 1.0, 0);
        // tau is geometric, and R = sum_{k < tau} gamma^k r_k
        loop {
            let noise = if noise > 0.0 { noise * self.rng.normal() } else { 0.0 };
            reward += discount * (pair.reward[self.state] + noise);
            let draw = self.rng.unit();
            let row = pair.cumulative.row(self.state);
            self.state = row.partition_point(|sum| *sum <= draw).min(row.len() - 1);
            discount *= gamma;
            tau += 1;
            if self.rng.unit() < handoff {
                break;
            }
        }
        self.agent = successor(self.agent, action.index());
        let next = match ending {
            Ending::Terminal(e) if self.rng.unit() < e => Next::Terminal,
            _ => Next::Active(AgentId(self.agent as u32)),
        };
        Transition {
            reward: Return::new(reward).expect("a sum of bounded rewards"),
            tau: Tau::new(tau).expect("at least one step"),
            next,
        }
    }

    fn restarts(&mut self) -> Option<AgentId> {
        match self.design.ending {
            Ending::Restart(e) if self.rng.unit() < e => Some(self.begin()),
            _ => None,
        }
    }
}

/// The reward and the transitions of a pair.
fn draw(generator: Generator, states: usize, rng: &mut Rng) -> Pair {
    let (reward, rows): (Vec<f64>, Vec<Vec<f64>>) = match generator {
        Generator::Smooth { modes, beta, teleport, width, drift } => {
            let f = cosines(states, modes, beta, rng);
            let g = cosines(states, modes.min(3), beta, rng);
            let onward = -drift + 2.0 * drift * rng.unit();
            let row = |z: usize| {
                let ring = ring_gaussian(states, z as f64 + onward + 0.5 * drift * g[z], width);
                ring.into_iter().map(|p| (1.0 - teleport) * p + teleport / states as f64).collect()
            };
            (f.iter().map(|f| 0.5 + 0.5 * (0.7 * f).tanh()).collect(), (0..states).map(row).collect())
        }
        Generator::Dense => {
            let reward = (0..states).map(|_| rng.unit()).collect();
            (reward, (0..states).map(|_| simplex(states, rng)).collect())
        }
        Generator::Garnet => {
            let reward = (0..states).map(|_| rng.unit()).collect();
            let mut row = || {
                let mut row = vec![0.0; states];
                let branches = permutation(states, rng).into_iter().take(4);
                let branches: Vec<usize> = branches.collect();
                let weights = simplex(branches.len(), rng);
                branches.iter().zip(weights).for_each(|(z, p)| row[*z] = p);
                row
            };
            (reward, (0..states).map(|_| row()).collect())
        }
        Generator::TwoBlocks { switch } => {
            let reward = (0..states).map(|_| rng.unit()).collect();
            let half = states / 2;
            let chance = |z: usize, to: usize| match ((z < half) == (to < half), to < half) {
                (true, true) => (1.0 - switch) / half as f64,
                (true, false) => (1.0 - switch) / (states - half) as f64,
                (false, true) => switch / half as f64,
                (false, false) => switch / (states - half) as f64,
            };
            (reward, (0..states).map(|z| (0..states).map(|to| chance(z, to)).collect()).collect())
        }
    };
    let next = Square::from_fn(states, |z, to| rows[z][to]);
    let cumulative = Square::from_fn(states, |z, to| rows[z][..=to].iter().sum());
    Pair { reward, next, cumulative }
}

/// `sum_m N(0, 1) m^-beta cos(2 pi m z / |Z| + phase)`, centred, of unit mean square.
fn cosines(states: usize, modes: u32, beta: f64, rng: &mut Rng) -> Vec<f64> {
    let mut f = vec![0.0; states];
    for m in (1..=modes).map(f64::from) {
        let (amplitude, phase) = (rng.normal() * m.powf(-beta), TAU * rng.unit());
        for (z, f) in f.iter_mut().enumerate() {
            *f += amplitude * (2.0 * PI * m * z as f64 / states as f64 + phase).cos();
        }
    }
    let mean = f.iter().sum::<f64>() / states as f64;
    let rms = (f.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / states as f64).sqrt();
    f.iter().map(|x| (x - mean) / rms).collect()
}

/// A Gaussian around `centre` on the ring of states.
fn ring_gaussian(states: usize, centre: f64, width: f64) -> Vec<f64> {
    let n = states as f64;
    let weight = |z: usize| {
        let around = (z as f64 - centre).rem_euclid(n);
        let distance = around.min(n - around);
        (-0.5 * (distance / width).powi(2)).exp()
    };
    let weights: Vec<f64> = (0..states).map(weight).collect();
    let sum: f64 = weights.iter().sum();
    weights.into_iter().map(|w| w / sum).collect()
}

/// Uniform on the simplex: normalised exponential numbers.
fn simplex(n: usize, rng: &mut Rng) -> Vec<f64> {
    let weights: Vec<f64> = (0..n).map(|_| -(1.0 - rng.unit()).ln()).collect();
    let sum: f64 = weights.iter().sum();
    weights.into_iter().map(|w| w / sum).collect()
}

/// A uniform order of 0..n (Fisher and Yates).
fn permutation(n: usize, rng: &mut Rng) -> Vec<usize> {
    let mut order: Vec<usize> = (0..n).collect();
    for i in (1..n).rev() {
        order.swap(i, rng.below(i as u32 + 1) as usize);
    }
    order
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::environment::obeys_environment_laws;

    fn designs() -> impl Iterator<Item = Design> {
        let generators =
            [Generator::smooth(8), Generator::Dense, Generator::Garnet, Generator::TwoBlocks { switch: 0.1 }];
        let maps = [ObservationMap::TailMerge, ObservationMap::TailMergeUnpermuted, ObservationMap::Bucket];
        let all = generators.into_iter().flat_map(move |generator| maps.map(|map| (generator, map)));
        all.map(|(generator, map)| Design { states: 16, generator, map, rho: 0.5, ..Design::default() })
    }

    #[test]
    fn it_is_an_environment() {
        for design in designs() {
            let design = Design { ending: Ending::Terminal(0.05), noise: 0.5, ..design };
            obeys_environment_laws(|| Box::new(Synthetic::new(design, 1)), 0..50, 1000);
        }
    }

    #[test]
    fn rows_are_distributions_and_maps_keep_what_they_say() {
        for design in designs() {
            for rho in [1.0, 0.5, 0.2, 0.01] {
                let design = Design { rho, ..design };
                let env = Synthetic::new(design, 2);
                for pair in &env.pairs {
                    assert!(pair.reward.iter().all(|r| (0.0..=1.0).contains(r)));
                    for z in 0..design.states {
                        assert!((pair.next.row(z).iter().sum::<f64>() - 1.0).abs() < 1e-12);
                    }
                }
                for map in &env.maps {
                    let mut seen = map.clone();
                    seen.sort_unstable();
                    seen.dedup();
                    assert_eq!(seen, (0..design.observations()).collect::<Vec<_>>());
                }
            }
        }
    }
}
