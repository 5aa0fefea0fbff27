//! The section `[tools]`: MCP servers whose tools agents are, or may call.

use std::{collections::BTreeSet, time::Duration};

use serde::{Deserialize, Serialize};

use super::{
    AgentSpec, TeamSpec,
    check::{Fault, check_name, nearest, shown, unknown},
    models::check_key,
};
use crate::{
    agent::tool::{OF_DOCUMENT, OF_PAYLOAD, pieces},
    coordinate::{coordination::cell, plan::Role},
    model::provider,
};

/// A tool server.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ToolSection {
    /// A program that speaks MCP over its pipes, and its arguments.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command: Option<Vec<String>>,
    /// Names of variables that it may see, besides the usual ones of programs.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub environment: Vec<String>,
    /// Or the address of a server that speaks MCP over streamable HTTP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// The name of the variable that holds its key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// The only tools of it that may be called; all if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allow: Option<Vec<String>>,
    /// What a call that is answered costs, in the team's currency.
    #[serde(default)]
    pub price: f64,
    /// The longest call.
    #[serde(default = "default_timeout_ms")]
    pub timeout_ms: u64,
    /// The longest result, in bytes.
    #[serde(default = "default_result_bytes_max")]
    pub result_bytes_max: u64,
}

fn default_timeout_ms() -> u64 {
    30_000
}

fn default_result_bytes_max() -> u64 {
    1 << 18
}

/// How often a model that may call tools is asked for one answer, where `turns_max` is not written.
pub const TURNS_MAX: u32 = 8;

/// The server of a tool, and its name there; none of a whole server.
pub fn server_and_tool(name: &str) -> (&str, Option<&str>) {
    name.split_once('.').map_or((name, None), |(server, tool)| (server, Some(tool)))
}

impl ToolSection {
    /// Whether a tool of it may be called.
    pub fn allows(&self, tool: &str) -> bool {
        self.allow.as_ref().is_none_or(|allow| allow.iter().any(|name| name == tool))
    }

    /// The longest call.
    pub fn timeout(&self) -> Duration {
        Duration::from_millis(self.timeout_ms)
    }

    /// All of it that results depend on.
    fn definition(&self) -> impl Serialize {
        (&self.command, &self.url, &self.allow)
    }

    /// Without what may change while a run is broken off.
    pub(super) fn lasting(&self) -> Self {
        ToolSection { key: None, timeout_ms: default_timeout_ms(), ..self.clone() }
    }

    fn check(&self, place: &str) -> Result<(), Fault> {
        let fault = |key: &str, what: &str| Err(Fault::new(format!("{place}/{key}"), what));
        match (&self.command, &self.url) {
            (None, None) => {
                let what = "a tool server is a program or an address: add command = [\"program\"] or url = \"http://..\"";
                return Err(Fault::new(place, what));
            }
            (Some(_), Some(_)) => {
                return fault("url", "a tool server has a command or a url: leave one of them out");
            }
            (Some(command), None) if command.first().is_none_or(String::is_empty) => {
                return fault(
                    "command",
                    "command names no program: write command = [\"program\", \"argument\"]",
                );
            }
            (Some(_), None) if self.key.is_some() => {
                let what = "key is sent to a url; a program is given variables by environment = [\"NAME\"]";
                return fault("key", what);
            }
            (None, Some(_)) if !self.environment.is_empty() => {
                let what = "environment is for a command; the key for a url is named by key = \"NAME\"";
                return fault("environment", what);
            }
            (None, Some(url)) => provider::check_url(url).or_else(|what| fault("url", &what))?,
            (Some(_), None) => {}
        }
        if let Some(key) = &self.key {
            check_key(format!("{place}/key"), key)?;
        }
        if self.allow.as_ref().is_some_and(Vec::is_empty) {
            return fault(
                "allow",
                "allow is empty: name the tools that may be called, or leave it out for all",
            );
        }
        if self.price < 0.0 {
            return fault("price", "a price is 0 or more");
        }
        if !(1..=86_400_000).contains(&self.timeout_ms) {
            return fault(
                "timeout_ms",
                &format!("timeout_ms is {}: it must lie in 1 .. 86400000", self.timeout_ms),
            );
        }
        if !(1..=8 << 20).contains(&self.result_bytes_max) {
            let what =
                format!("result_bytes_max is {}: it must lie in 1 .. {}", self.result_bytes_max, 8 << 20);
            return fault("result_bytes_max", &what);
        }
        Ok(())
    }
}

impl AgentSpec {
    /// How often its model is asked for one answer.
    pub fn turns_max(&self) -> u32 {
        self.turns_max.unwrap_or(TURNS_MAX)
    }
}

impl TeamSpec {
    /// What calls of an agent depend on besides itself: the definitions of the tools that it is, or that its model may call.
    pub(crate) fn tools_of(&self, agent: &AgentSpec) -> Option<impl Serialize> {
        let called: &[String] = if agent.acts_by_model() { agent.tools() } else { &[] };
        let named: Vec<&String> = agent.tool.iter().chain(called).collect();
        let section = |name: &&String| Some(self.tools.get(server_and_tool(name).0)?.definition());
        let sections: Vec<_> = named.iter().filter_map(section).collect();
        (!named.is_empty())
            .then(|| (agent.tool.clone(), agent.arguments.clone(), agent.turns_max(), sections))
    }

    /// The tools of a server that agents are, or that their models may call, by name.
    pub fn tools_named(&self, server: &str) -> BTreeSet<&str> {
        let models = self.agents.iter().filter(|agent| agent.acts_by_model());
        let named = self.agents.iter().filter_map(|agent| agent.tool.as_ref());
        let named = named.chain(models.flat_map(|agent| agent.tools()));
        named.filter_map(|name| Some(server_and_tool(name)).filter(|(of, _)| *of == server)?.1).collect()
    }

    /// The names of the servers that agents need.
    pub fn servers_needed(&self) -> BTreeSet<&str> {
        let models = self.agents.iter().filter(|agent| agent.acts_by_model());
        let named = self.agents.iter().filter_map(|agent| agent.tool.as_ref());
        named.chain(models.flat_map(|agent| agent.tools())).map(|name| server_and_tool(name).0).collect()
    }

    pub(super) fn check_tools(&self) -> Result<(), Fault> {
        if self.tools.len() > 100 {
            return Err(Fault::new("tools", "a team has at most 100 tool servers"));
        }
        for (name, section) in &self.tools {
            let place = format!("tools/{name}");
            check_name(place.clone(), name)?;
            if name.contains('.') {
                let what =
                    "a dot stands between a server and its tool, as in \"web.search\": rename the server";
                return Err(Fault::new(place, what));
            }
            section.check(&place)?;
        }
        for (i, agent) in self.agents.iter().enumerate() {
            self.check_tool_agent(&format!("agents/{i}"), agent)?;
        }
        Ok(())
    }

    /// What an agent that is a tool must say, and one that is none must not.
    fn check_tool_agent(&self, place: &str, agent: &AgentSpec) -> Result<(), Fault> {
        let fault = |key: &str, what: String| {
            Err(Fault::new(format!("{place}/{key}"), format!("agent {:?} {what}", agent.name)))
        };
        if agent.turns_max.is_some() && !agent.acts_by_model() {
            return fault(
                "turns_max",
                "has turns_max, which is for agents that act by a model: leave it out".into(),
            );
        }
        if !(1..=100).contains(&agent.turns_max()) {
            return fault(
                "turns_max",
                format!("has turns_max {}: it must lie in 1 .. 100", agent.turns_max()),
            );
        }
        let Some(tool) = &agent.tool else {
            return match agent.arguments.is_empty() {
                true => Ok(()),
                false => {
                    fault("arguments", "has arguments, but is no tool: add tool = \"server.tool\"".into())
                }
            };
        };
        let others = [
            ("command", agent.command.is_some()),
            ("simulate", agent.simulate.is_some()),
            ("model", agent.model.is_some()),
            ("skill", agent.skill.is_some()),
            ("tools", !agent.tools.is_empty()),
            ("variants", agent.variants.is_some()),
            ("environment", !agent.environment.is_empty()),
        ];
        if let Some((key, _)) = others.into_iter().find(|(_, stated)| *stated) {
            return fault(key, format!("is a tool, which has no {key}: leave that or tool out"));
        }
        if server_and_tool(tool).1.is_none() {
            return fault(
                "tool",
                format!("is {:?}, which names no tool: write tool = \"server.tool\"", shown(tool)),
            );
        }
        self.check_named(format!("{place}/tool"), tool, &agent.name)?;
        let role = cell(agent).ok().map(|cell| cell.role);
        let known: &[&str] = match (&self.coordinator, role) {
            (None, _) => &OF_PAYLOAD,
            (Some(_), Some(Role::Memory | Role::WebSearch)) => &OF_DOCUMENT,
            (Some(_), _) => {
                let what = "is a tool, which finds evidence: its role is memory or web_search";
                return fault(if agent.role.is_some() { "role" } else { "name" }, what.to_owned());
            }
        };
        let arguments = toml::Value::Table(agent.arguments.clone().into_iter().collect());
        check_template(&arguments, known).or_else(|what| fault("arguments", what))
    }

    /// Whether what an agent calls `name` is a server, or a tool that may be called.
    fn check_named(&self, place: String, name: &str, agent: &str) -> Result<(), Fault> {
        let (server, tool) = server_and_tool(name);
        let Some(section) = self.tools.get(server) else {
            if self.tools.is_empty() {
                let what = format!(
                    "agent {agent:?} uses the tool {:?}, whose server is not described: add [tools.{}]",
                    shown(name),
                    shown(server)
                );
                return Err(Fault::new(place, what));
            }
            let what = format!("the tool server of agent {agent:?}");
            return Err(unknown(place, server, &what, self.tools.keys().map(String::as_str)));
        };
        match (tool, &section.allow) {
            (Some(tool), Some(allow)) if !section.allows(tool) => {
                let hint = match nearest(tool, allow.iter().map(String::as_str)) {
                    Some(near) => format!("did you mean {near:?}?"),
                    None => format!("add it to allow of [tools.{server}]"),
                };
                let what = format!("agent {agent:?}: the tool {:?} is not allowed; {hint}", shown(name));
                Err(Fault::new(place, what))
            }
            _ => Ok(()),
        }
    }

    /// Whether the tools that models may call are there; `entries` are those of the agents in the file.
    pub(super) fn check_tools_of_models<'e>(
        &self,
        entries: impl Iterator<Item = &'e str>,
    ) -> Result<(), Fault> {
        for (agent, entry) in self.agents.iter().zip(entries).filter(|(agent, _)| agent.acts_by_model()) {
            let key = if agent.tools.is_empty() { "skill" } else { "tools" };
            for name in agent.tools() {
                self.check_named(format!("{entry}/{key}"), name, &agent.name)?;
            }
        }
        Ok(())
    }
}

/// Whether arguments can be written in JSON, and hold no unknown name in braces.
fn check_template(value: &toml::Value, known: &[&str]) -> Result<(), String> {
    match value {
        toml::Value::String(text) => {
            let named = pieces(text).filter_map(|(_, name)| name);
            match named.into_iter().find(|name| !known.contains(name)) {
                None => Ok(()),
                Some(name) => {
                    let names: Vec<String> = known.iter().map(|name| format!("{{{name}}}")).collect();
                    let near = nearest(name, known.iter().copied());
                    let near = near.map_or(String::new(), |near| format!("did you mean {{{near}}}? "));
                    let names = names.join(", ");
                    Err(format!("has {{{}}} in its arguments; {near}known are {names}", shown(name)))
                }
            }
        }
        toml::Value::Datetime(_) => Err("has a date in its arguments: put it in quotes".to_owned()),
        toml::Value::Array(list) => list.iter().try_for_each(|value| check_template(value, known)),
        toml::Value::Table(table) => table.values().try_for_each(|value| check_template(value, known)),
        _ => Ok(()),
    }
}
