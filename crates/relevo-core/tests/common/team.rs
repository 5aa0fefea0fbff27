//! A team and a random world around it: effects become events, in order.

use super::*;
use std::collections::VecDeque;

/// Draws what happens: observations, rewards, durations, and how operations end.
#[derive(Clone)]
pub(crate) struct World {
    pub(crate) rng: Rng,
    /// Signatures are below this.
    pub(crate) signatures: u32,
    /// Handoffs with this number or a higher one are cut off as a deadline: finished with reward 0.
    pub(crate) deadline: u32,
    /// The features that come with a signature.
    pub(crate) features: fn(u64) -> Features,
}

impl World {
    pub(crate) fn new(seed: u64) -> Self {
        World { rng: Rng::stream(seed, "world"), signatures: 4, deadline: 12, features: |_| Features::None }
    }

    pub(crate) fn observation(&mut self, width: usize) -> Observation {
        let signature = u64::from(self.rng.below(self.signatures));
        // One choice at random, and each other one with probability 3/4.
        let sure = self.rng.below(width as u32);
        let legal = (0..width as u32).filter(|a| *a == sure || self.rng.below(4) > 0).map(ActionId).collect();
        Observation { features: (self.features)(signature), ..Observation::of(Signature(signature), legal) }
    }

    /// What an agent sees when it is activated.
    pub(crate) fn arrival(&mut self, spec: &ParticipantSpec) -> Observation {
        match spec.learner.regime {
            Regime::PreConfigured(_) => self.observation(spec.choices.len()),
            Regime::Adaptable { operations } => self.observation(operations as usize),
        }
    }

    pub(crate) fn operation(&mut self, spec: &ParticipantSpec, handoff: HandoffId) -> Event {
        let reward = f64::from(self.rng.below(17)) / 8.0 - 1.0;
        let tau = 1 + self.rng.below(3);
        let next = match (spec.learner.regime, self.rng.below(10)) {
            (_, 0) => Next::Ended,
            (BEFORE, _) => Next::Committed,
            (AFTER, _) => Next::HandOver(self.observation(spec.choices.len())),
            (Regime::Adaptable { operations }, 1..=4) => Next::Operate(self.observation(operations as usize)),
            (Regime::Adaptable { .. }, _) => Next::HandOver(self.observation(spec.choices.len())),
        };
        performed(handoff, reward, tau, next)
    }
}

/// Members 0, 1, ..., and the events on their way to them.
#[derive(Clone)]
pub(crate) struct Team {
    pub(crate) members: Vec<Member>,
    pub(crate) world: World,
    pub(crate) queue: VecDeque<(AgentId, Event)>,
    /// Values that came back to the origin.
    pub(crate) answers: Vec<ValueMessage>,
}

impl Team {
    pub(crate) fn new(specs: impl IntoIterator<Item = ParticipantSpec>, seed: u64) -> Self {
        let members = specs.into_iter().map(|spec| Member::new(spec, seed)).collect();
        Team { members, world: World::new(seed), queue: VecDeque::new(), answers: vec![] }
    }

    /// Three agents, each of which may hand to either other one or finish.
    pub(crate) fn ring(regime: Regime, change: impl Fn(&mut ParticipantSpec), seed: u64) -> Self {
        let specs = [[1, 2], [2, 0], [0, 1]].into_iter().zip(0..).map(|(others, me)| {
            let mut spec = spec(me, &others, regime);
            change(&mut spec);
            spec
        });
        Team::new(specs, seed)
    }

    pub(crate) fn start(&mut self, episode: u128) {
        let to = self.world.rng.below(self.members.len() as u32);
        let handoff = Handoff { clock: episode as u64, ..opening(episode, to) };
        self.send(handoff);
    }

    fn send(&mut self, handoff: Handoff) {
        let observation = self.world.arrival(self.members[handoff.to.0 as usize].participant.spec());
        self.queue.push_back((handoff.to, received(handoff, observation)));
    }

    /// Turn the effects of `agent` into the events that follow from them.
    pub(crate) fn follow(&mut self, agent: AgentId, effects: &[Effect]) {
        for effect in effects {
            match effect {
                Effect::Record(_) => {}
                Effect::Value { to: AgentId::ORIGIN, message } => self.answers.push(*message),
                Effect::Value { to, message } => self.queue.push_back((*to, Event::Valued(*message))),
                Effect::Perform { handoff, .. } => {
                    let spec = self.members[agent.0 as usize].participant.spec();
                    let event = self.world.operation(spec, *handoff);
                    self.queue.push_back((agent, event));
                }
                Effect::Send(handoff) if handoff.id.seq >= self.world.deadline => {
                    self.queue.push_back((agent, finished(handoff.id, 0.0)));
                }
                Effect::Send(handoff) => self.send(*handoff),
                Effect::Finish { handoff } => {
                    let reward = f64::from(self.world.rng.below(9)) / 4.0;
                    self.queue.push_back((agent, finished(*handoff, reward)));
                }
                Effect::Ask { to, handle } => {
                    self.queue.push_back((*to, Event::Asked { from: agent, handle: *handle }));
                }
                Effect::Answer { to, handle, value } => {
                    self.queue
                        .push_back((*to, Event::Answered { from: agent, handle: *handle, value: *value }));
                }
            }
        }
    }

    /// Deliver the next event; `watch` sees it, with the member before and after being told, and the effects.
    pub(crate) fn step(&mut self, watch: &mut impl FnMut(&Member, &Event, &Effects, &Member)) -> bool {
        let Some((to, event)) = self.queue.pop_front() else { return false };
        let before = self.members[to.0 as usize].clone();
        let effects = self.members[to.0 as usize].tell(event.clone());
        watch(&before, &event, &effects, &self.members[to.0 as usize]);
        self.follow(to, &effects);
        true
    }

    /// Run whole episodes, one after the other.
    pub(crate) fn run(&mut self, episodes: std::ops::Range<u128>) {
        for episode in episodes {
            self.start(episode);
            while let Some((to, event)) = self.queue.pop_front() {
                let effects = self.members[to.0 as usize].tell(event);
                self.follow(to, &effects);
            }
        }
    }
}
