//! Ways to run a coordinated team, compared: each arm learns, or does not, for each of several seeds, and is then measured
//! without learning on the same tasks. Pure; the runs are the command line's. A [`Run`] is what one arm came to with one
//! seed, an [`Evaluation`] all of them in figures.

mod compare;
pub mod page;
mod parity;
mod ratio;
mod statistics;
mod tables;

pub use compare::{
    ArmFigures, Breakdown, EpochFigures, Evaluation, Figures, Learning, Mismatch, Plateau, Setting,
};
pub use ratio::TokenRatio;
pub use statistics::{PLATEAU_SHARE, crossed, plateau};

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::{
    artifact::Scalar,
    evaluate::Walk,
    learn::EpisodeEnd,
    reward::{self, Spent, Usual},
    team::{RewardScale, RewardSpec, TeamSpec, WorkflowSpec, nearest},
};

/// A way to run a team.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ArmId {
    /// The first workflow of the team file, or else the plan in order, nothing passed over; nothing learned.
    Fixed,
    /// Learned from nothing, and no choice passes over a cell: neither skips, nor `only:`.
    NoSkip,
    /// Learned from nothing, as the team file says.
    Cold,
    /// Learned as the team file says, from an earlier policy.
    Warm,
    /// The agent that does best alone.
    Single,
    /// Learned from nothing, as AgensFlow coordinates and learns.
    Parity,
}

impl ArmId {
    /// All arms, in the order in which they are told of.
    pub const ALL: [ArmId; 6] =
        [ArmId::Fixed, ArmId::NoSkip, ArmId::Cold, ArmId::Warm, ArmId::Single, ArmId::Parity];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            ArmId::Fixed => "fixed",
            ArmId::NoSkip => "no-skip",
            ArmId::Cold => "cold",
            ArmId::Warm => "warm",
            ArmId::Single => "single",
            ArmId::Parity => "parity",
        }
    }

    /// Whether it learns.
    pub fn learns(self) -> bool {
        !matches!(self, ArmId::Fixed | ArmId::Single)
    }

    /// The team as this arm runs it.
    pub fn team(self, team: &TeamSpec) -> TeamSpec {
        let mut team = team.clone();
        if let Some(section) = &mut team.coordinator {
            match self {
                ArmId::NoSkip => (section.skips, section.alone) = (false, false),
                ArmId::Single => section.alone = true,
                ArmId::Parity => {
                    *section = parity::coordinator(section);
                    team.learner = parity::learner(&team.learner);
                }
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
    /// Attempts at calls after the first.
    #[serde(default)]
    pub retries: u32,
    /// How long calls took that left the process.
    #[serde(default)]
    pub ms: u64,
    /// Where judges are still to be asked: what full quality adds to the reward.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub worth: Option<f64>,
}

impl Sample {
    /// A task of a class that was measured.
    pub fn measured(walk: &Walk, class: String) -> Self {
        let worth = walk.is_unjudged.then_some(walk.worth);
        Sample { class, worth, ..Sample::of(walk.task.clone(), walk.walk_return, walk.quality, &walk.spent) }
    }

    /// A task that was learned on.
    pub fn learned(end: &EpisodeEnd) -> Self {
        Sample::of(end.episode.to_string(), end.episode_return, end.quality, &end.spent)
    }

    fn of(task: String, reward: f64, quality: Option<f64>, spent: &Spent) -> Self {
        let Spent { calls, failures, retries, tokens, money, ms } = *spent;
        let (class, worth) = (String::new(), None);
        Sample { task, class, reward, quality, tokens, money, calls, failures, retries, ms, worth }
    }

    /// What it used up.
    pub fn spent(&self) -> Spent {
        let Sample { calls, failures, retries, tokens, money, ms, .. } = *self;
        Spent { calls, failures, retries, tokens, money, ms }
    }

    /// Judges have compared it with others: its quality, if they had a score for it.
    pub fn judged(&mut self, quality: Option<f64>) {
        if let (Some(worth), Some(quality)) = (self.worth, quality) {
            (self.quality, self.worth) = (Some(quality), None);
            self.reward += worth * quality;
        }
    }

    /// Its reward, counted anew from its quality and, undiscounted, its cost.
    fn rescale(&mut self, spec: &RewardSpec, usual: &Usual) {
        let cost = reward::cost(spec, &self.spent(), &Spent::default(), usual);
        self.reward = spec.success * self.quality.unwrap_or(0.0) + cost;
    }
}

/// Costs that are measured by what a task usually costs depend on whose tasks these are: let rewards be measured by the
/// median over all samples, so that they are on one scale.
pub fn rescale<'r>(spec: &RewardSpec, scale: &[Sample], samples: impl Iterator<Item = &'r mut Sample>) {
    if spec.scale == RewardScale::Median {
        let usual = Usual::of(scale.iter().map(|sample| sample.spent().cost()));
        samples.for_each(|sample| sample.rescale(spec, &usual));
    }
}

/// Leave out the tasks that judges had no score for, be it of one arm with one seed; returns how many.
pub fn leave_out_unjudged(runs: &mut [Run]) -> usize {
    let unjudged = |run: &Run| -> Vec<String> {
        run.tests.iter().filter(|test| test.worth.is_some()).map(|test| test.task.clone()).collect()
    };
    let out: BTreeSet<String> = runs.iter().flat_map(unjudged).collect();
    runs.iter_mut().for_each(|run| run.tests.retain(|test| !out.contains(&test.task)));
    out.len()
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
