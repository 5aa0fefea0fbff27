//! A fixed workflow: a route of agents, laid down beforehand. One agent alone is the route that names only it.

use relevo_core::{
    ids::{ActionId, AgentId},
    observation::Observation,
    protocol::Choice,
};

use crate::environment::{Environment, EnvironmentSpec, follow};

/// The workflow.
pub struct Fixed {
    route: Vec<AgentId>,
    /// What each agent's choices mean.
    choices: Vec<Vec<Choice>>,
}

impl Fixed {
    /// Hand to the agents of `route` in turn, then conclude.
    pub fn new(spec: &EnvironmentSpec, route: &[AgentId]) -> Self {
        let choices = spec.choices.iter().map(|columns| columns.iter().map(|c| c.leads).collect()).collect();
        Fixed { route: route.to_vec(), choices }
    }

    /// Play on from `agent`, who is active, to the end; returns the return.
    pub fn play(&self, env: &mut dyn Environment, agent: AgentId) -> f64 {
        let mut ahead = self.route.as_slice();
        follow(env, agent, |agent, seen| self.choose(agent, seen, &mut ahead))
    }

    /// The next agent of the route that may be handed to, passing over those that may not; at its end, finish.
    fn choose(&self, agent: AgentId, seen: &Observation, ahead: &mut &[AgentId]) -> ActionId {
        let choices = &self.choices[agent.0 as usize];
        let find = |wanted: Choice| seen.legal.iter().find(|a| choices[a.index()] == wanted);
        while let Some((next, rest)) = ahead.split_first() {
            *ahead = rest;
            if let Some(action) = find(Choice::HandTo(*next)) {
                return action;
            }
        }
        find(Choice::Finish).or(seen.legal.first()).expect("an observation has choices")
    }
}
