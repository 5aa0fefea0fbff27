//! The stage of a node: tasks are brought and judged by other organisations, and some agents are theirs.

use std::path::Path;

use relevo_core::ids::AgentId;

use super::Stage;
use crate::{
    tasks::TaskError,
    team::{CreditSection, TeamSpec, nearest},
};

impl Stage {
    /// Set up a team whose file lies in `directory` for a node. `peers` are the names of the other organisations that it
    /// knows, by number: [`AgentId::peer`] of 0 is the first. Its remote agents are theirs.
    pub fn for_node(team: TeamSpec, directory: &Path, peers: Vec<String>) -> Result<Self, TaskError> {
        if let Some(message) = unservable(&team) {
            return Err(TaskError(message));
        }
        for agent in &team.agents {
            let Some((peer, _)) = agent.remote().filter(|(peer, _)| !peers.iter().any(|name| name == peer))
            else {
                continue;
            };
            let near = nearest(peer, peers.iter().map(String::as_str));
            let hint =
                near.map_or("make it known first".to_owned(), |near| format!("did you mean {near:?}?"));
            let what = format!("agent {:?}: remote: no peer {peer:?} is known; {hint}", agent.name);
            return Err(TaskError(what));
        }
        Ok(Stage { peers, ..Self::set_up(team, directory, None, None)? })
    }

    /// The other organisation whose agent this is, and what the agent is called there.
    pub fn remote(&self, agent: AgentId) -> Option<(&str, &str)> {
        self.team.agents.get(agent.0 as usize)?.remote()
    }
}

/// Refuses a team that has agents of others, whom only a node can reach.
pub(super) fn without_others(team: &TeamSpec) -> Result<(), TaskError> {
    match team.agents.iter().find(|agent| agent.remote.is_some()) {
        None => Ok(()),
        Some(agent) => Err(TaskError(format!(
            "agent {:?} is another organisation's: serve the team (relevo serve), or leave it out",
            agent.name
        ))),
    }
}

/// Why a team cannot be served, if so: what its agents tell goes back while the task is open, and not later.
fn unservable(team: &TeamSpec) -> Option<String> {
    if team.coordinator.is_some() {
        return Some(
            "at a node, each agent decides whom to hand to: a team with a [coordinator] cannot be served"
                .into(),
        );
    }
    let extensions = team.learner.extensions;
    let what = match team.learner.credit {
        CreditSection::Relay { .. } => "credit by relay",
        CreditSection::Trajectory => "credit by trajectory",
        CreditSection::ValuePassing if extensions.local_model => "the local model",
        CreditSection::ValuePassing if extensions.refresh.is_some() => "the extension refresh",
        CreditSection::ValuePassing => return None,
    };
    Some(format!("a node's value goes back while the task is open: {what} cannot be served"))
}
