//! Agents of other organisations: columns like any other, and no participants.

use super::{
    AgentSpec, TeamSpec,
    check::{Fault, check_name},
};

/// What may be said of an agent that another organisation describes.
const KEYS: [&str; 3] = ["name", "remote", "cost"];

impl AgentSpec {
    /// The other organisation whose agent it is, and what it is called there.
    pub fn remote(&self) -> Option<(&str, &str)> {
        self.remote.as_deref()?.split_once('/')
    }
}

impl TeamSpec {
    /// `written` is the file as it is, without defaults.
    pub(super) fn check_remotes(&self, written: &toml::Value) -> Result<(), Fault> {
        for (i, agent) in self.agents.iter().enumerate().filter(|(_, agent)| agent.remote.is_some()) {
            let name = &agent.name;
            let fault = |key: &str, what: &str| {
                Err(Fault::new(format!("agents/{i}/{key}"), format!("agent {name:?} {what}")))
            };
            let Some((peer, theirs)) = agent.remote() else {
                return fault("remote", "is remote, of whom? write remote = \"PEER/AGENT\"");
            };
            for part in [peer, theirs] {
                check_name(format!("agents/{i}/remote"), part)?;
            }
            if self.coordinator.is_some() {
                return fault(
                    "remote",
                    "is remote, and a coordinator invokes the agents of its own team only: leave it out",
                );
            }
            let table = written.get("agents").and_then(|agents| agents.get(i)?.as_table());
            if let Some(key) =
                table.into_iter().flat_map(|t| t.keys()).find(|key| !KEYS.contains(&key.as_str()))
            {
                let what = format!("is another organisation's, which knows its {key}: leave {key} out");
                return fault(key, &what);
            }
            if self.start == *name {
                return Err(Fault::new(
                    "start",
                    format!("start: {name:?} is another organisation's: begin with an agent of this team"),
                ));
            }
        }
        if self.agents.iter().all(|agent| agent.remote.is_some()) {
            return Err(Fault::new(
                "agents",
                "all agents are other organisations': a team needs one of its own",
            ));
        }
        Ok(())
    }
}
