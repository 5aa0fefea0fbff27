//! Ways to run a coordinated team, compared: each arm learns, or does not, for each of several seeds, and is then measured
//! without learning on the same tasks. Pure; the runs are the command line's. A [`Run`] is what one arm came to with one
//! seed, an [`Evaluation`] all of them in figures.

mod compare;
pub mod page;
mod statistics;
mod tables;

pub use compare::{
    ArmFigures, Breakdown, EpochFigures, Evaluation, Figures, Learning, Mismatch, Plateau, Setting,
};
pub use statistics::{PLATEAU_SHARE, crossed, plateau};

use serde::{Deserialize, Serialize};

use crate::{
    artifact::Scalar,
    evaluate::Walk,
    learn::EpisodeEnd,
    reward::Spent,
    team::{TeamSpec, WorkflowSpec, nearest},
};

/// A way to run a team.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ArmId {
    /// The plan in order, nothing passed over, nothing learned.
    Fixed,
    /// Learned from nothing, and no choice passes over a cell: neither skips, nor `only:`.
    NoSkip,
    /// Learned from nothing, as the team file says.
    Cold,
    /// Learned as the team file says, from an earlier policy.
    Warm,
    /// The agent that does best alone.
    Single,
}

impl ArmId {
    /// All arms, in the order in which they are told of.
    pub const ALL: [ArmId; 5] = [ArmId::Fixed, ArmId::NoSkip, ArmId::Cold, ArmId::Warm, ArmId::Single];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            ArmId::Fixed => "fixed",
            ArmId::NoSkip => "no-skip",
            ArmId::Cold => "cold",
            ArmId::Warm => "warm",
            ArmId::Single => "single",
        }
    }

    /// Whether it learns.
    pub fn learns(self) -> bool {
        matches!(self, ArmId::NoSkip | ArmId::Cold | ArmId::Warm)
    }

    /// The team as this arm runs it.
    pub fn team(self, team: &TeamSpec) -> TeamSpec {
        let mut team = team.clone();
        if let Some(section) = &mut team.coordinator {
            match self {
                ArmId::NoSkip => (section.skips, section.alone) = (false, false),
                ArmId::Single => section.alone = true,
                ArmId::Fixed | ArmId::Cold | ArmId::Warm => {}
            }
        }
        team
    }
}

impl std::str::FromStr for ArmId {
    type Err = String;

    fn from_str(word: &str) -> Result<Self, String> {
        let names = || ArmId::ALL.into_iter().map(ArmId::name);
        ArmId::ALL.into_iter().find(|arm| arm.name() == word).ok_or_else(|| match nearest(word, names()) {
            Some(near) => format!("there is no arm {word:?}; did you mean {near:?}?"),
            None => format!("there is no arm {word:?}; known are {}", names().collect::<Vec<_>>().join(", ")),
        })
    }
}

/// The teams of one agent that a coordinated team could be reduced to. One that may not act alone never concludes.
pub fn alone(team: &TeamSpec) -> impl Iterator<Item = WorkflowSpec> + '_ {
    team.agents.iter().map(|agent| WorkflowSpec {
        name: agent.name.clone(),
        route: vec![format!("only:{}", agent.name)],
        repeat_until: None,
        rules: vec![],
    })
}

/// One task, done once.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sample {
    /// The task: its name where it was measured, its number where it was learned on.
    pub task: String,
    /// The class that it belongs to; empty where it was learned on.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub class: String,
    /// The whole return: the quality, less the cost.
    pub reward: f64,
    /// The quality of what came out, if it can be known.
    pub quality: Option<f64>,
    /// Tokens used.
    pub tokens: u64,
    /// Money charged, in the team's currency.
    pub money: f64,
    /// Calls of agents.
    pub calls: u32,
    /// Calls that failed.
    pub failures: u32,
}

impl Sample {
    /// A task of a class that was measured.
    pub fn measured(walk: &Walk, class: String) -> Self {
        Sample {
            task: walk.task.clone(),
            class,
            reward: walk.walk_return,
            quality: walk.quality,
            tokens: walk.spent.tokens,
            money: walk.spent.money,
            calls: walk.spent.calls,
            failures: walk.spent.failures,
        }
    }

    /// A task that was learned on.
    pub fn learned(end: &EpisodeEnd) -> Self {
        let Spent { calls, failures, tokens, money, .. } = end.spent;
        Sample {
            task: end.episode.to_string(),
            class: String::new(),
            reward: end.episode_return,
            quality: end.quality,
            tokens,
            money,
            calls,
            failures,
        }
    }
}

/// What one arm came to with one seed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Run {
    /// The arm.
    pub arm: ArmId,
    /// Its seed.
    pub seed: u64,
    /// Of `single`, the agent that was chosen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub chosen: Option<String>,
    /// The tasks learned on, in their order; of `single`, those on which agents were tried.
    pub lessons: Vec<Sample>,
    /// The tasks measured on, in their order.
    pub tests: Vec<Sample>,
}

/// The class of a task: the value of a fact, or what tells tasks apart.
pub fn class_of(fact: Option<&Scalar>, kind: &str) -> String {
    fact.map_or_else(|| kind.to_owned(), Scalar::to_string)
}
