//! What a coordinated team must hold, and any other must not.

use super::{
    AgentSpec, CoordinatorSection, FINISH, TeamSpec, Variants, WorkflowSpec,
    check::{Fault, check_name, nearest},
};
use crate::coordinate::{
    coordination::cell,
    plan::{Plan, Role},
};

/// Keys that one kind of team needs and the other has no use for. `written` says which the file has.
pub(super) fn check_kind(team: &TeamSpec, written: &toml::Value) -> Result<(), Fault> {
    let none = vec![];
    let agents = written.get("agents").and_then(toml::Value::as_array).unwrap_or(&none);
    let coordinated = team.coordinator.is_some();
    let start = [(String::new(), written, "start")];
    let routed = agents
        .iter()
        .enumerate()
        .filter(|(_, agent)| agent.get("remote").is_none())
        .flat_map(|(i, agent)| ["observes", "handoffs"].map(|key| (format!("agents/{i}/"), agent, key)));
    for (place, table, key) in start.into_iter().chain(routed) {
        match (coordinated, table.get(key).is_some()) {
            (false, false) => {
                // The place of a missing key is that of its table; for the whole file, a line that every file has.
                let place = if place.is_empty() { "schema" } else { place.trim_end_matches('/') };
                return Err(Fault::new(place, format!("the key {key:?} is missing here: add it")));
            }
            (true, true) => {
                let what = format!(
                    "{key} has no place in a coordinated team, whose coordinator sees every task first and decides who \
                     is next: leave {key} out, or the section [coordinator]"
                );
                return Err(Fault::new(place + key, what));
            }
            _ => {}
        }
    }
    if !coordinated {
        for (i, agent) in agents.iter().enumerate() {
            if let Some(key) = ["role", "variants"].into_iter().find(|key| agent.get(key).is_some()) {
                let what =
                    format!("{key} is for coordinated teams: add a section [coordinator], or leave it out");
                return Err(Fault::new(format!("agents/{i}/{key}"), what));
            }
        }
    }
    Ok(())
}

/// What the section and the agents of a coordinated team say.
pub(super) fn check_coordinator(section: &CoordinatorSection, team: &TeamSpec) -> Result<(), Fault> {
    let fault = |key: &str, what: String| Err(Fault::new(format!("coordinator/{key}"), what));
    let CoordinatorSection { granularity, steps_max, branches, facts, .. } = section;
    if *granularity != 0.0 && !(0.001..=1.0).contains(granularity) {
        return fault(
            "granularity",
            format!(
                "granularity is {granularity}: it must lie in [0.001, 1], or be 0, which leaves the beliefs out"
            ),
        );
    }
    if !(1..=10_000).contains(steps_max) {
        return fault("steps_max", format!("steps_max is {steps_max}: it must lie in 1 .. 10000"));
    }
    if !(1..=16).contains(branches) {
        return fault("branches", format!("branches is {branches}: it must lie in 1 .. 16"));
    }
    if facts.len() > 16 {
        return fault("facts", "a signature holds at most 16 facts".to_owned());
    }
    if let Some(at) = facts.iter().position(|fact| fact.is_empty() || fact.contains(char::is_whitespace)) {
        return fault(&format!("facts/{at}"), format!("{:?} is no name of a fact", facts[at]));
    }
    let is_route = |flow: &WorkflowSpec| flow.rules.is_empty() && flow.repeat_until.is_none();
    if let Some(flow) = team.workflows.iter().position(|flow| !is_route(flow)) {
        let what =
            "a workflow of a coordinated team is a route = [..] of cells, without rules or repeat_until";
        return Err(Fault::new(format!("workflows/{flow}"), what));
    }
    for (i, agent) in team.agents.iter().enumerate() {
        check_cell(&format!("agents/{i}"), agent)?;
    }
    Ok(())
}

fn check_cell(place: &str, agent: &AgentSpec) -> Result<(), Fault> {
    let AgentSpec { name, operations, variants, skill, model, .. } = agent;
    let fault = |key: &str, what: String| Err(Fault::new(format!("{place}/{key}"), what));
    if let Err(what) = cell(agent) {
        let head = name.split('_').next().unwrap_or_default();
        let near = nearest(head, Role::NAMES.iter().map(|(role, _)| *role));
        let near = near.map_or(String::new(), |near| format!("; did you mean {near:?}?"));
        return fault("name", what + &near);
    }
    if operations.len() > 1 {
        let what = format!(
            "agent {name:?} has operations, but the coordinator invokes a cell as a whole: leave them out"
        );
        return fault("operations", what);
    }
    if name.contains('#') || name == FINISH {
        return fault("name", format!("a cell cannot be called {name:?}"));
    }
    if let Some(Variants { skills, models }) = variants {
        let key = match (skill, skills.is_empty(), model, models.is_empty()) {
            (_, true, _, true) => {
                return fault(
                    "variants",
                    format!("the variants of {name:?} have neither skills nor models: add some"),
                );
            }
            (Some(_), false, ..) => Some("skill"),
            (_, _, Some(_), false) => Some("model"),
            _ => None,
        };
        if let Some(key) = key {
            let what = format!("agent {name:?} has a {key} and variants of it: leave one of them out");
            return fault(key, what);
        }
        if skills.len().saturating_mul(models.len()) > Plan::CELLS_MAX {
            return fault("variants", format!("a coordinated team has at most {} cells", Plan::CELLS_MAX));
        }
        for (at, model) in models.iter().enumerate() {
            check_name(format!("{place}/variants/models/{at}"), model)?;
        }
    }
    Ok(())
}
