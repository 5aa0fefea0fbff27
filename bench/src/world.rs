//! The least world in which whole handoffs happen: 16 agents, each of which may hand to the 15 others or finish, and
//! an artifact that is one number. All the work is the agents' own deciding and learning.

use foldhash::fast::FixedState;
use relevo_core::{
    Rng,
    ids::{ActionId, AgentId, EpisodeId, HandoffId},
    learner::{DecisionPoint, Estimator, LearnerSpec, Regime, Step},
    observation::{ActionSet, Features, Observation, Signature},
    policy::argmax,
    protocol::{Choice, Effect, Event, Handoff, Journal, Limits, Next, Participant, ParticipantSpec},
    q::{Inputs, LinearSpec, LmsRule},
    step::StepRule,
    units::{Bounds, Discount, Return, Tau, Usage},
};
use std::hash::BuildHasher;

/// How many agents there are, and how many choices each has.
pub const AGENTS: u32 = 16;
/// How many situations each agent tells apart.
pub const SITUATIONS: u32 = 64;
/// How many features an agent sees, where it sees features.
pub const FEATURES: usize = 20;

/// How an agent keeps its values.
#[derive(Clone, Copy, PartialEq)]
pub enum Kind {
    Table,
    Linear,
}

pub fn learner(kind: Kind) -> LearnerSpec {
    let mut spec = LearnerSpec::tabular(
        AGENTS,
        Regime::PreConfigured(DecisionPoint::Before),
        Discount::new(0.95).unwrap(),
        Bounds::new(-2.0, 2.0).unwrap(),
    );
    if kind == Kind::Linear {
        spec.estimator = Estimator::Linear(LinearSpec {
            inputs: Inputs::Dense(FEATURES),
            width: AGENTS as usize,
            init: 0.0,
            rule: LmsRule::Normalised,
        });
        spec.step = StepRule::Constant(0.05);
    }
    spec
}

/// What the artifact does when `agent` has it in `state` and chooses `a`.
fn after(state: u32, agent: u32, a: ActionId) -> u32 {
    FixedState::with_seed(7).hash_one((state, agent, a.0)) as u32 % SITUATIONS
}

/// What finishing earns.
fn worth(state: u32) -> f64 {
    f64::from(state) / f64::from(SITUATIONS)
}

const HANDING_OVER: f64 = -0.05;

/// What an agent sees of each state.
fn observations(kind: Kind) -> Vec<Observation> {
    let mut rng = Rng::stream(1, "bench/features");
    (0..SITUATIONS)
        .map(|state| Observation {
            signature: Signature(crate::limits::key(state)),
            features: match kind {
                Kind::Table => Features::None,
                Kind::Linear => Features::Dense((0..FEATURES).map(|_| rng.normal() as f32).collect()),
            },
            legal: ActionSet::all(AGENTS as usize),
        })
        .collect()
}

/// A team that hands tasks on in memory, for ever.
pub struct World {
    participants: Vec<Participant>,
    rngs: Vec<Rng>,
    observations: Vec<Observation>,
    /// All effects of the task at hand, in order, and which agent wants each.
    effects: Vec<Effect>,
    wanted_by: Vec<AgentId>,
    state: u32,
    episode: u128,
    /// Handoffs received so far, each of them decided, performed and, but for the last, settled.
    pub handoffs: u64,
}

impl World {
    /// A team whose agents remember so many ended handoffs each.
    pub fn new(kind: Kind, remembered_max: usize) -> Self {
        let agents = 0..AGENTS;
        let rngs: Vec<Rng> = agents.clone().map(|i| Rng::stream(1, &format!("policy/{i}"))).collect();
        let participants = agents
            .map(|i| {
                let others = (0..AGENTS).filter(|j| *j != i).map(|j| Choice::HandTo(AgentId(j)));
                let spec = ParticipantSpec {
                    id: AgentId(i),
                    choices: [Choice::Finish].into_iter().chain(others).collect(),
                    learner: learner(kind),
                    handoff_reward: Return::new(HANDING_OVER).unwrap(),
                    limits: Limits { remembered_max, ..Limits::default() },
                    journal: Journal::Omitted,
                };
                Participant::new(spec, &mut Rng::stream(1, &format!("initial/{i}"))).unwrap()
            })
            .collect();
        let observations = observations(kind);
        let (effects, wanted_by) = (vec![], vec![]);
        World { participants, rngs, observations, effects, wanted_by, state: 0, episode: 0, handoffs: 0 }
    }

    /// Play whole tasks until at least `handoffs` more have been made; returns how many.
    pub fn play(&mut self, handoffs: u64) -> u64 {
        let before = self.handoffs;
        while self.handoffs - before < handoffs {
            self.episode += 1;
            self.state = self.episode as u32 % SITUATIONS;
            let start = AgentId(self.episode as u32 % AGENTS);
            self.deliver(Handoff {
                id: HandoffId::opening(EpisodeId(self.episode)),
                to: start,
                clock: self.episode as u64,
            });
            let mut done = 0;
            while done < self.effects.len() {
                self.carry_out(done);
                done += 1;
            }
            self.effects.clear();
            self.wanted_by.clear();
        }
        self.handoffs - before
    }

    fn deliver(&mut self, handoff: Handoff) {
        self.handoffs += 1;
        let observation = self.observations[self.state as usize].clone();
        self.tell(handoff.to, Event::Received { handoff, observation });
    }

    fn carry_out(&mut self, i: usize) {
        let agent = self.wanted_by[i];
        match self.effects[i] {
            Effect::Value { to: AgentId::ORIGIN, .. } => {}
            Effect::Value { to, message } => self.tell(to, Event::Valued(message)),
            Effect::Perform { handoff, committed, .. } => {
                if let Some(a) = committed.filter(|a| a.0 > 0) {
                    self.state = after(self.state, agent.0, a);
                }
                let (reward, usage) = (Return::ZERO, Usage::default());
                self.tell(
                    agent,
                    Event::Performed { handoff, reward, tau: Tau::ONE, usage, next: Next::Committed },
                );
            }
            Effect::Send(handoff) => self.deliver(handoff),
            Effect::Finish { handoff } => {
                let reward = Return::new(worth(self.state)).unwrap();
                self.tell(agent, Event::Finished { handoff, reward });
            }
            Effect::Record(_) | Effect::Ask { .. } | Effect::Answer { .. } => {
                unreachable!("none was asked for")
            }
        }
    }

    fn tell(&mut self, agent: AgentId, event: Event) {
        let i = agent.0 as usize;
        self.participants[i].apply(event, &mut self.rngs[i], &mut self.effects).unwrap();
        self.wanted_by.resize(self.effects.len(), agent);
    }

    /// What was learned, to see that it was.
    pub fn values(&self) -> f64 {
        let start = &self.observations[0];
        self.participants.iter().map(|p| p.learner().appraise(TABLE, start).value.get()).sum::<f64>()
            / f64::from(AGENTS)
    }
}

const TABLE: relevo_core::record::Table = relevo_core::record::Table::Successors;

/// The same decisions and the same learning without a protocol: arrays, no ids, no messages, no duplicates to notice,
/// nothing in flight. What a handoff costs at the very least.
pub struct Bare {
    kind: Kind,
    epsilon: f64,
    q: Vec<f64>,
    visits: Vec<u32>,
    observations: Vec<Observation>,
    step: StepRule,
    rngs: Vec<Rng>,
    state: u32,
    agent: u32,
    pub handoffs: u64,
}

impl Bare {
    pub fn new(kind: Kind) -> Self {
        let cells = match kind {
            Kind::Table => (AGENTS * SITUATIONS * AGENTS) as usize,
            Kind::Linear => AGENTS as usize * (FEATURES + 1) * AGENTS as usize,
        };
        Bare {
            kind,
            epsilon: 0.1,
            q: vec![0.0; cells],
            visits: vec![0; (AGENTS * SITUATIONS * AGENTS) as usize],
            observations: observations(kind),
            step: learner(kind).step,
            rngs: (0..AGENTS).map(|i| Rng::stream(1, &format!("policy/{i}"))).collect(),
            state: 0,
            agent: 0,
            handoffs: 0,
        }
    }

    fn features(&self, state: u32) -> &[f32] {
        match &self.observations[state as usize].features {
            Features::Dense(x) => x,
            _ => &[],
        }
    }

    fn values(&self, agent: u32, state: u32) -> [f64; AGENTS as usize] {
        const WIDTH: usize = AGENTS as usize;
        let mut out = [0.0; WIDTH];
        match self.kind {
            Kind::Table => {
                out.copy_from_slice(&self.q[((agent * SITUATIONS + state) * AGENTS) as usize..][..WIDTH])
            }
            Kind::Linear => {
                let weights = &self.q[agent as usize * (FEATURES + 1) * WIDTH..][..(FEATURES + 1) * WIDTH];
                out.copy_from_slice(&weights[FEATURES * WIDTH..]);
                for (x, row) in self.features(state).iter().zip(weights.as_chunks::<WIDTH>().0) {
                    out.iter_mut().zip(row).for_each(|(q, w)| *q += f64::from(*x) * w);
                }
            }
        }
        out
    }

    fn settle(&mut self, agent: u32, state: u32, a: usize, target: f64) {
        let cell = ((agent * SITUATIONS + state) * AGENTS) as usize + a;
        self.visits[cell] += 1;
        let step = self.step.step(self.visits[cell]);
        match self.kind {
            Kind::Table => self.q[cell] += step * (target - self.q[cell]),
            Kind::Linear => {
                let error = target - self.values(agent, state)[a];
                let Features::Dense(x) = &self.observations[state as usize].features else { return };
                let square = 1.0 + x.iter().map(|x| f64::from(x * x)).sum::<f64>();
                let start = agent as usize * (FEATURES + 1) * AGENTS as usize + a;
                let column = self.q[start..].iter_mut().step_by(AGENTS as usize);
                let inputs = x.iter().map(|x| f64::from(*x)).chain([1.0]);
                column.zip(inputs).for_each(|(w, x)| *w += step * error / square * x);
            }
        }
    }

    pub fn play(&mut self, handoffs: u64) -> u64 {
        let mut last: Option<(u32, u32, usize)> = None;
        for _ in 0..handoffs {
            let values = self.values(self.agent, self.state);
            let mut best = 0;
            for a in 1..AGENTS as usize {
                best = if values[a] > values[best] { a } else { best };
            }
            if let Some((agent, state, a)) = last {
                self.settle(agent, state, a, HANDING_OVER + 0.95 * values[best]);
            }
            let mut rest = self.rngs[self.agent as usize].unit();
            let mut choice = best;
            for a in 0..AGENTS as usize {
                let p = self.epsilon / f64::from(AGENTS) + if a == best { 1.0 - self.epsilon } else { 0.0 };
                choice = a;
                if rest < p {
                    break;
                }
                rest -= p;
            }
            if choice == 0 {
                self.settle(self.agent, self.state, 0, worth(self.state));
                self.handoffs += 1;
                last = None;
                self.state = self.handoffs as u32 % SITUATIONS;
                self.agent = self.handoffs as u32 % AGENTS;
            } else {
                self.handoffs += 1;
                last = Some((self.agent, self.state, choice));
                self.state = after(self.state, self.agent, ActionId(choice as u32));
                let others = choice as u32 - 1;
                self.agent = others + u32::from(others >= self.agent);
            }
        }
        handoffs
    }
}

/// A step to settle, for benchmarks of the learner alone.
pub fn step(signature: Signature, action: ActionId) -> Step {
    Step {
        observation: Observation::of(signature, ActionSet::all(AGENTS as usize)),
        action,
        reward: Return::ZERO,
        tau: Tau::ONE,
        usage: Usage::default(),
    }
}

/// The best choice of a row, as a policy finds it.
pub fn best(legal: &ActionSet, values: &[f64]) -> Option<ActionId> {
    argmax(legal, |a| values[a.index()])
}
