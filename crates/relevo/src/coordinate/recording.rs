//! Recordings: what a coordinator did elsewhere, and the policy graph it had then. Read once, here; what cannot be is
//! refused with its place.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use relevo_core::ids::ActionId;
use serde::Deserialize;

use super::{plan::Plan, state::State};

/// The largest file that is read, in bytes.
const BYTES_MAX: u64 = 1 << 28;
/// The longest name of an action, in bytes.
const NAME_MAX: usize = 128;
/// The most different actions of a graph.
const ACTIONS_MAX: usize = 1024;
/// The largest reward or sum, in size: beyond it, adding a reward of ordinary size would lose digits.
pub(super) const REWARD_MAX: f64 = 1e9;

/// A recording that cannot be read: where, why, and what to try.
#[derive(Debug, thiserror::Error)]
#[error("{}{}: {what}", path.display(), line.map_or(String::new(), |line| format!(", line {line}")))]
pub struct RecordingError {
    /// The file.
    pub path: PathBuf,
    /// The line, from 1, where one is to blame.
    pub line: Option<usize>,
    /// What is wrong.
    pub what: String,
}

/// One recorded run that came to an end.
#[derive(Clone, Debug, PartialEq)]
pub struct Run {
    /// Its number in the recording.
    pub number: u64,
    /// After which graph it is counted.
    pub epoch: u32,
    /// What was credited to each of its steps.
    pub reward: f64,
    /// What was done, in order.
    pub steps: Vec<Taken>,
}

/// One recorded step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Taken {
    /// The state in which it was chosen.
    pub state: State,
    /// What was chosen.
    pub action: ActionId,
    /// Whether it came to something.
    pub outcome: Outcome,
    /// Tokens that it used.
    pub tokens: u64,
    /// Attempts that failed.
    pub failures: u32,
}

/// Whether a recorded step came to something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is on the path to which the reward was credited.
    Done,
    /// All attempts failed. It is not on that path; among the steps of one state, recordings do not tell its place.
    Failed,
}

/// The runs of a recording, in order, and how many were passed over because they had ended in an error.
#[derive(Clone, Debug, PartialEq)]
pub struct Runs {
    /// Those that count.
    pub runs: Vec<Run>,
    /// How many do not.
    pub erroneous: usize,
}

/// One node of a recorded policy graph.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RecordedNode {
    /// The state.
    #[serde(rename = "sig")]
    pub state: State,
    /// How often anything was chosen in it.
    pub visits: u64,
    /// Sum of the rewards of all choices, in the order in which they came.
    pub value_sum: f64,
    /// What was chosen, by name.
    pub actions: BTreeMap<String, RecordedEdge>,
    /// Where each choice last led.
    pub outgoing: BTreeMap<String, State>,
}

/// One edge of a recorded policy graph.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(from = "(u32, f64, f64, f64, f64, u32)")]
pub struct RecordedEdge {
    /// How often it was credited.
    pub visits: u32,
    /// Sum of its rewards.
    pub rewards: f64,
    /// Sum of squared deviations of its rewards from their mean.
    pub rewards_m2: f64,
    /// Sum of its tokens.
    pub tokens: f64,
    /// Sum of squared deviations of its tokens from their mean.
    pub tokens_m2: f64,
    /// How many of its attempts failed.
    pub failures: u32,
}

impl From<(u32, f64, f64, f64, f64, u32)> for RecordedEdge {
    fn from(
        (visits, rewards, rewards_m2, tokens, tokens_m2, failures): (u32, f64, f64, f64, f64, u32),
    ) -> Self {
        RecordedEdge { visits, rewards, rewards_m2, tokens, tokens_m2, failures }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "fields that a recording has and a replay does not need; others are refused")]
struct RunRow {
    run: u64,
    epoch: u32,
    task: String,
    cls: String,
    regime: Option<String>,
    error: bool,
    reward: Option<f64>,
    hybrid: Option<f64>,
    judge: Option<f64>,
    group: u64,
    tokens: u64,
    retries: u64,
    judge_tokens: u64,
    /// Successes, failures, tokens and mean latency of each agent.
    agents: BTreeMap<String, (u32, u32, u64, f64)>,
    steps: Option<Vec<(State, String)>>,
}

/// Read the runs of a recording, one a line.
pub fn runs(path: &Path, plan: &Plan) -> Result<Runs, RecordingError> {
    let text = read(path)?;
    let mut read = Runs { runs: vec![], erroneous: 0 };
    for (number, line) in text.lines().enumerate() {
        let refuse = |what| RecordingError { path: path.to_owned(), line: Some(number + 1), what };
        let row: RunRow = serde_json::from_str(line).map_err(|e| refuse(unreadable(&e, "the line")))?;
        if row.error {
            read.erroneous += 1;
            continue;
        }
        let run = run(row, plan).map_err(refuse)?;
        if let Some(last) = read.runs.last().filter(|last| last.epoch > run.epoch) {
            return Err(refuse(format!(
                "epoch {} follows epoch {}: put the runs in the order in which they were made",
                run.epoch, last.epoch
            )));
        }
        read.runs.push(run);
    }
    if read.runs.is_empty() {
        let what = "there is no run in it that came to an end; nothing can be replayed".to_owned();
        return Err(RecordingError { path: path.to_owned(), line: None, what });
    }
    Ok(read)
}

fn run(row: RunRow, plan: &Plan) -> Result<Run, String> {
    let unknown = |name: &str| {
        let cells: Vec<&str> = plan.cells().iter().map(|cell| cell.name.as_str()).collect();
        let near = crate::team::nearest(name, cells.iter().copied());
        let near = near.map_or(String::new(), |near| format!("did you mean {near:?}? "));
        format!("the plan has no cell {name:?}; {near}name the cells of this recording with --plan")
    };
    let missing = |what| format!("the run has no {what}; a run without must say \"error\": true");
    for name in row.agents.keys() {
        plan.action(name).filter(|a| plan.invokes(*a)).ok_or_else(|| unknown(name))?;
    }
    let reward = bounded("the reward", row.reward.ok_or_else(|| missing("reward"))?)?;
    let mut steps = vec![];
    for (number, (state, name)) in row.steps.ok_or_else(|| missing("steps"))?.into_iter().enumerate() {
        let (name, outcome) = match name.strip_prefix("FAIL:") {
            Some(name) => (name, Outcome::Failed),
            None => (name.as_str(), Outcome::Done),
        };
        let action = plan.action(name).ok_or_else(|| unknown(name.trim_start_matches("skip:")))?;
        let (_, failures, tokens, _) = match (row.agents.get(name), plan.invokes(action)) {
            (Some(agent), true) => *agent,
            (None, true) => {
                return Err(format!("step {number} is {name}, but it is not among the agents of the run"));
            }
            (_, false) => Default::default(),
        };
        if outcome == Outcome::Failed && failures == 0 {
            return Err(format!(
                "step {number} failed, but {name} has no failures among the agents of the run"
            ));
        }
        steps.push(Taken { state, action, outcome, tokens, failures });
    }
    // More steps than columns would take one twice.
    if steps.is_empty() || steps.len() > plan.width() {
        return Err(format!(
            "the run has {} steps: it must have between 1 and {}",
            steps.len(),
            plan.width()
        ));
    }
    Ok(Run { number: row.run, epoch: row.epoch, reward, steps })
}

/// Read a recorded policy graph.
pub fn graph(path: &Path) -> Result<Vec<RecordedNode>, RecordingError> {
    let refuse = |line, what| RecordingError { path: path.to_owned(), line, what };
    let nodes: Vec<RecordedNode> = serde_json::from_str(&read(path)?)
        .map_err(|e| refuse(Some(e.line()), unreadable(&e, "the graph")))?;
    let (mut states, mut names) = (BTreeSet::new(), BTreeSet::new());
    for node in &nodes {
        let refuse = |what: String| refuse(None, format!("the node at {}: {what}", node.state));
        if !states.insert(node.state) {
            return Err(refuse("there are two of it".to_owned()));
        }
        check(node).map_err(refuse)?;
        names.extend(node.actions.keys());
        if names.len() > ACTIONS_MAX {
            return Err(refuse(format!("more than {ACTIONS_MAX} actions in one graph")));
        }
    }
    Ok(nodes)
}

fn check(node: &RecordedNode) -> Result<(), String> {
    bounded("the sum of values", node.value_sum)?;
    for (name, edge) in &node.actions {
        if name.is_empty() || name.len() > NAME_MAX {
            return Err(format!("the name of an action must have 1 to {NAME_MAX} bytes, not {}", name.len()));
        }
        bounded(name, edge.rewards)?;
        if [edge.rewards_m2, edge.tokens, edge.tokens_m2].iter().any(|x| *x < 0.0) {
            return Err(format!("{name}: a sum of squares or of tokens is negative"));
        }
        if edge.visits == 0 && edge.rewards != 0.0 {
            return Err(format!("{name}: it has a sum of rewards, but no visit"));
        }
    }
    let visits: u64 = node.actions.values().map(|edge| u64::from(edge.visits)).sum();
    if visits != node.visits {
        return Err(format!("{} visits, but its actions have {visits} together", node.visits));
    }
    match node.outgoing.keys().find(|name| !node.actions.contains_key(*name)) {
        Some(name) => Err(format!("{name:?} leads on, but was never taken")),
        None => Ok(()),
    }
}

/// Numbers that are not finite are no JSON, and refused before.
fn bounded(what: &str, value: f64) -> Result<f64, String> {
    match value.abs() <= REWARD_MAX {
        true => Ok(value),
        false => Err(format!("{what} is {value}: it must lie between -1e9 and 1e9")),
    }
}

fn unreadable(error: &serde_json::Error, what: &str) -> String {
    match error.is_eof() {
        true => format!("{what} is cut off ({error}); record it again, or remove it"),
        false => format!("{what} is not of the recorded form: {error}"),
    }
}

fn read(path: &Path) -> Result<String, RecordingError> {
    let refuse = |what| RecordingError { path: path.to_owned(), line: None, what };
    let size = fs::metadata(path).map_err(|e| refuse(format!("it cannot be read: {e}")))?.len();
    if size > BYTES_MAX {
        return Err(refuse(format!("it has {size} bytes, more than {BYTES_MAX}: divide it")));
    }
    fs::read_to_string(path).map_err(|e| refuse(format!("it cannot be read: {e}")))
}
