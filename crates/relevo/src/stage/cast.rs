//! Who acts: every agent of a team file, made into what does its work.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    sync::{Arc, OnceLock},
    time::Duration,
};

use serde_json::{Map, Value};

use crate::{
    agent::{
        Agent, Forwarder,
        model::{Listener, ModelAgent},
        process::{Brief, ProcessAgent},
        tool::ToolAgent,
    },
    coordinate::{coordination::cell, plan::Role},
    model::{Models, NamedModel},
    tasks::{Simulator, TaskError},
    team::{AgentSpec, OperationSpec, TeamSpec, nearest, server_and_tool},
    tool::{ToolServers, toolbox::Toolbox},
};

/// What there is to act with.
pub(super) struct Cast<'s> {
    pub(super) team: &'s TeamSpec,
    /// The folder of the team file.
    pub(super) directory: &'s Path,
    pub(super) world: Option<&'s dyn Simulator>,
    pub(super) models: &'s Models,
    pub(super) tools: &'s ToolServers,
    pub(super) listener: &'s Arc<OnceLock<Listener>>,
}

impl Cast<'_> {
    /// What does the work of an agent.
    pub(super) fn actor(&self, agent: &AgentSpec) -> Result<Arc<dyn Agent>, TaskError> {
        if agent.forwards {
            return Ok(Arc::new(Forwarder));
        }
        if let Some(command) = &agent.command {
            return Ok(Arc::new(self.program(agent, command)));
        }
        if let Some(tool) = &agent.tool {
            return Ok(Arc::new(self.tool(agent, tool)?));
        }
        if let Some(role) = &agent.simulate {
            let world = self.world.ok_or_else(|| nothing_to_act_with(agent))?;
            return world.agent(role).ok_or_else(|| {
                let hint = match nearest(role, world.roles().iter().copied()) {
                    Some(near) => format!("did you mean {near:?}?"),
                    None => format!("its roles are {}", world.roles().join(", ")),
                };
                TaskError(format!("agent {:?}: the simulated world has no role {role:?}; {hint}", agent.name))
            });
        }
        let model = agent.model().and_then(|name| self.models.get(name));
        Ok(Arc::new(self.by_model(agent, model.ok_or_else(|| nothing_to_act_with(agent))?)?))
    }

    fn program(&self, agent: &AgentSpec, command: &[String]) -> ProcessAgent {
        let mut program = ProcessAgent::new(command.to_vec(), self.directory);
        program.timeout = Duration::from_millis(agent.timeout_ms);
        program.output_bytes_max = agent.output_bytes_max;
        program.environment.extend(agent.environment.iter().cloned());
        program.brief = Brief {
            skill: agent.skill_name(),
            model: agent.model().map(str::to_owned),
            tools: agent.tools().to_vec(),
            instructions: instructions(agent),
        };
        program
    }

    fn tool(&self, agent: &AgentSpec, name: &str) -> Result<ToolAgent, TaskError> {
        let (server, tool) = server_and_tool(name);
        let mut arguments = Map::new();
        for (key, value) in &agent.arguments {
            let value: Value = serde_json::to_value(value)
                .map_err(|e| TaskError(format!("agent {:?}: arguments: {e}", agent.name)))?;
            arguments.insert(key.clone(), value);
        }
        Ok(ToolAgent {
            server: self.tools.get(server).cloned().ok_or_else(|| nothing_to_act_with(agent))?,
            tool: tool.unwrap_or_default().to_owned(),
            arguments,
            role: self.role(agent),
            timeout: Duration::from_millis(agent.timeout_ms),
            output_bytes_max: agent.output_bytes_max,
        })
    }

    fn by_model(&self, agent: &AgentSpec, named: &NamedModel) -> Result<ModelAgent, TaskError> {
        let NamedModel { section, model, .. } = named;
        Ok(ModelAgent {
            model: model.clone(),
            price: section.price,
            temperature: section.temperature,
            max_tokens: section.max_tokens,
            role: self.role(agent),
            reply: agent.reply,
            instructions: instructions(agent),
            asked: agent.operations.iter().filter_map(OperationSpec::asked).cloned().collect(),
            tools: self.toolbox(agent)?,
            timeout: Duration::from_millis(agent.timeout_ms),
            output_bytes_max: agent.output_bytes_max,
            listener: self.listener.clone(),
        })
    }

    fn toolbox(&self, agent: &AgentSpec) -> Result<Option<Toolbox>, TaskError> {
        let mut servers = BTreeMap::new();
        for (server, tool) in agent.tools().iter().map(|name| server_and_tool(name)) {
            let whole = servers.entry(server).or_insert_with(|| Some(BTreeSet::new()));
            match (tool, whole.as_mut()) {
                (Some(tool), Some(names)) => drop(names.insert(tool.to_owned())),
                (None, _) => *whole = None,
                (Some(_), None) => {}
            }
        }
        if servers.is_empty() {
            return Ok(None);
        }
        let known = |(name, names): (&str, Option<_>)| {
            let server = self.tools.get(name).cloned().ok_or_else(|| nothing_to_act_with(agent))?;
            Ok((server, names.unwrap_or_default()))
        };
        let servers = servers.into_iter().map(known).collect::<Result<_, TaskError>>()?;
        Ok(Some(Toolbox { servers, turns_max: agent.turns_max() }))
    }

    /// What an agent does in a coordinated team.
    fn role(&self, agent: &AgentSpec) -> Option<Role> {
        self.team.coordinator.as_ref().and_then(|_| Some(cell(agent).ok()?.role))
    }
}

/// The text of an agent's skill card.
fn instructions(agent: &AgentSpec) -> String {
    agent.card.as_ref().map_or(String::new(), |card| card.instructions.clone())
}

fn nothing_to_act_with(agent: &AgentSpec) -> TaskError {
    TaskError(format!("agent {:?} has nothing to act with", agent.name))
}
