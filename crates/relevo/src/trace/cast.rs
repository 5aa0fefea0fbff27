//! Names for the numbers of a ledger.

use std::collections::BTreeSet;

use relevo_core::{
    ids::{ActionId, AgentId, OperationId},
    policy_file::{AgentPolicy, PolicyFile},
    protocol::ParticipantSpec,
    record::Table,
    units::UnitError,
};
use serde::{Deserialize, Serialize};

use crate::{stage::Stage, team::FINISH};

/// Who took part in a run, and what its choices are called.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cast {
    /// The team.
    pub team: String,
    /// The agents, in the order of the team file.
    pub agents: Vec<String>,
    /// Those of them whose calls leave the process, and are on record one by one.
    pub programs: BTreeSet<String>,
    /// Those who decide: the agents, or the coordinator of them.
    pub participants: Vec<Columns>,
}

/// A participant and the names of its choices. What follows a `#` is the version of a choice, which people are not shown.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Columns {
    /// Its name.
    pub name: String,
    /// The columns of its successor table.
    pub successors: Vec<String>,
    /// The columns of its operation table; empty where it has none.
    pub operations: Vec<String>,
}

/// What a choice means to those that it is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Meaning<'c> {
    /// This agent is to act.
    Act(&'c str),
    /// This agent is passed over.
    Skip(&'c str),
    /// Nobody else is concerned.
    Own,
}

impl Cast {
    /// Those on a stage.
    pub fn of(stage: &Stage) -> Result<Self, UnitError> {
        let team = stage.team();
        let columns = |(name, spec): (&str, ParticipantSpec)| {
            let (successors, operations) = stage.columns(spec.id);
            Columns { name: name.to_owned(), successors, operations }
        };
        let agents = team.agents.iter().map(|agent| agent.name.clone()).collect();
        let programs = team.agents.iter().zip((0..).map(AgentId)).filter(|(_, id)| stage.leaves_process(*id));
        let programs = programs.map(|(agent, _)| agent.name.clone()).collect();
        let participants = stage.participants(1)?.into_iter().map(columns).collect();
        Ok(Cast { team: team.name.clone(), agents, programs, participants })
    }

    /// Those of a policy of agents that decide for themselves.
    pub fn of_policy(policy: &PolicyFile) -> Self {
        let columns = |policy: &AgentPolicy| Columns {
            name: policy.name.clone(),
            successors: policy.successors.clone(),
            operations: policy.operations.clone(),
        };
        Cast {
            team: policy.source.team.clone(),
            agents: policy.agents.iter().map(|agent| agent.name.clone()).collect(),
            programs: BTreeSet::new(),
            participants: policy.agents.iter().map(columns).collect(),
        }
    }

    /// An agent.
    pub fn agent(&self, id: AgentId) -> String {
        named(&self.agents, id.0, "agent")
    }

    /// A participant; the origin, where tasks come from, is none.
    pub fn participant(&self, id: AgentId) -> String {
        match self.participants.get(id.0 as usize) {
            Some(Columns { name, .. }) => name.clone(),
            None if id == AgentId::ORIGIN => "origin".to_owned(),
            None => format!("participant {}", id.0),
        }
    }

    /// A choice of a participant.
    pub fn choice(&self, id: AgentId, table: Table, action: ActionId) -> String {
        named(self.columns(id, table), action.0, "choice")
    }

    /// An operation of an agent, where it has a choice of them.
    pub fn operation(&self, agent: AgentId, operation: OperationId) -> Option<String> {
        let of = self.participants.get(agent.0 as usize)?;
        (!self.is_coordinated() && of.operations.len() > 1)
            .then(|| named(&of.operations, operation.0, "operation"))
    }

    /// Whether one coordinator decides for all agents.
    pub(super) fn is_coordinated(&self) -> bool {
        self.participants.first().is_some_and(|first| !self.agents.contains(&first.name))
    }

    /// What a choice means to agents.
    pub(crate) fn meaning(&self, id: AgentId, table: Table, action: ActionId) -> Meaning<'_> {
        let Some(name) = self.columns(id, table).get(action.index()).map(|name| unversioned(name)) else {
            return Meaning::Own;
        };
        match (table, self.is_coordinated()) {
            (Table::Successors, false) if name != FINISH => Meaning::Act(name),
            (Table::Operations, true) => match name.strip_prefix("skip:") {
                Some(skipped) => Meaning::Skip(skipped),
                None => Meaning::Act(name.strip_prefix("only:").unwrap_or(name)),
            },
            _ => Meaning::Own,
        }
    }

    /// How many choices a table has.
    pub(super) fn width(&self, id: AgentId, table: Table) -> usize {
        self.columns(id, table).len()
    }

    fn columns(&self, id: AgentId, table: Table) -> &[String] {
        let columns = self.participants.get(id.0 as usize);
        columns.map_or(&[], |of| match table {
            Table::Successors => &of.successors,
            Table::Operations => &of.operations,
        })
    }
}

fn named(names: &[String], number: u32, what: &str) -> String {
    names.get(number as usize).map_or_else(|| format!("{what} {number}"), |name| unversioned(name).to_owned())
}

fn unversioned(name: &str) -> &str {
    name.split('#').next().unwrap_or(name)
}
