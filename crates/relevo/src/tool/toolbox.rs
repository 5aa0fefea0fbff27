//! The tools that a model may call, under names that every service takes.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use serde_json::{Map, Value};

use super::ToolServer;
use crate::{
    agent::Failure,
    model::{ToolCall, ToolDefinition},
    team::shown,
};

/// The tools that a model may call: all of a server, or those of these names.
#[derive(Clone, Debug)]
pub struct Toolbox {
    /// The servers, each with the names; all of them if there are none.
    pub servers: Vec<(Arc<ToolServer>, BTreeSet<String>)>,
    /// How often the model is asked for one answer, at most.
    pub turns_max: u32,
}

/// Tools as a model is offered them.
#[derive(Clone, Debug, Default)]
pub struct Offered {
    /// What the model is told.
    pub definitions: Vec<ToolDefinition>,
    behind: BTreeMap<String, (Arc<ToolServer>, String)>,
}

/// The most tools that a model is offered: services take no more.
const OFFERED_MAX: usize = 128;
/// The longest name of a tool that services take.
const NAME_BYTES_MAX: usize = 64;

impl Toolbox {
    /// Ask the servers what there is.
    pub async fn open(&self, limit: Duration) -> Result<Offered, Failure> {
        let mut offered = Offered::default();
        for (server, named) in &self.servers {
            let tools = server.tools(limit).await?;
            let names: Vec<&str> = tools.iter().map(|tool| tool.name.as_str()).collect();
            if let Some(absent) = named.iter().find(|name| !names.contains(&name.as_str())) {
                return Err(Failure::InvalidRequest(server.no_tool(absent, &names)));
            }
            for tool in tools.iter().filter(|tool| named.is_empty() || named.contains(&tool.name)) {
                let name = offered.free_name(&format!("{}_{}", server.name, tool.name));
                let behind = (server.clone(), tool.name.clone());
                offered.definitions.push(ToolDefinition {
                    name: name.clone(),
                    description: tool.description.clone(),
                    schema: tool.schema.clone(),
                });
                offered.behind.insert(name, behind);
            }
        }
        match offered.definitions.len() > OFFERED_MAX {
            true => Err(Failure::InvalidRequest(format!(
                "a model can be offered at most {OFFERED_MAX} tools: name those that it needs, as \"server.tool\""
            ))),
            false => Ok(offered),
        }
    }
}

impl Offered {
    /// `wished` in letters, digits, `_` and `-`, with a number where another tool is called so.
    fn free_name(&self, wished: &str) -> String {
        let plain = |c: char| if c.is_ascii_alphanumeric() || c == '-' { c } else { '_' };
        let mut name: String = wished.chars().map(plain).collect();
        name.truncate(NAME_BYTES_MAX);
        let mut number = 1;
        while self.behind.contains_key(&name) {
            number += 1;
            let end = format!("_{number}");
            name.truncate(name.len().min(NAME_BYTES_MAX - end.len()));
            name.push_str(&end);
        }
        name
    }

    /// What a model is told of a call, what came of it or what is wrong; and what it costs.
    pub async fn answer(&self, call: &ToolCall, limit: Duration) -> (Result<String, String>, f64) {
        let Some((server, tool)) = self.behind.get(&call.name) else {
            let there: Vec<&str> = self.behind.keys().map(String::as_str).collect();
            let what = format!("there is no tool {:?}; there are {}", shown(&call.name), there.join(", "));
            return (Err(what), 0.0);
        };
        let arguments = match &call.arguments {
            Value::Object(map) => map.clone(),
            Value::Null => Map::new(),
            _ => return (Err("the arguments of a tool are a JSON object".to_owned()), 0.0),
        };
        let called = server.call(tool, arguments, limit).await;
        let price = server.price_of(&called);
        (called.map(|found| found.text()).map_err(|failure| failure.to_string()), price)
    }
}
