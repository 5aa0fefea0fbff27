//! Every conversation that a team can have about a problem: each is held once, by the real agents, and then learners can
//! go through them as often as they like. What a model says depends on what it is told alone, so nothing is lost by that.

use core::fmt;

use std::{
    collections::HashMap,
    fs::{self, File, OpenOptions},
    io::Write,
    path::Path,
};

use relevo::{
    evaluate::{Chooser, Walk, walk},
    reward::{Spent, Usual},
    stage::{Scene, Stage},
    tasks::{Task, TaskError},
};
use relevo_core::{
    Rng,
    ids::{ActionId, AgentId, OperationId},
    observation::{Observation, Signature},
    protocol,
    units::{Discount, Return, Tau},
};
use serde::{Deserialize, Serialize};

use crate::environment::{Column, Environment, EnvironmentSpec, Next, Transition};

/// A team with more ways through a problem than this is not for exhaustive evaluation.
const WAYS_MAX: usize = 64;

/// All conversations about one problem.
#[derive(Clone, Serialize, Deserialize)]
pub(super) struct Tree {
    /// The kind of problem: what the first agent saw of it.
    pub(super) kind: String,
    /// Calls that failed, over all conversations.
    pub(super) failed: u32,
    /// The first is where the task begins.
    decisions: Vec<Decision>,
}

/// Where an agent chooses its successor.
#[derive(Clone, Serialize, Deserialize)]
struct Decision {
    agent: u32,
    /// What it sees, and the columns that are admissible.
    signature: u64,
    legal: Vec<u32>,
    /// By column.
    branches: Vec<(u32, Branch)>,
}

/// What a choice leads to.
#[derive(Clone, Copy, Serialize, Deserialize)]
struct Branch {
    /// What is earned until the next choice, or the end.
    reward: f64,
    leads: Leads,
}

#[derive(Clone, Copy, Serialize, Deserialize)]
enum Leads {
    To(usize),
    /// The quality of what came out.
    Over(f64),
}

/// Why there is no tree.
#[derive(Debug)]
pub(super) enum TreeError {
    TooMany,
    Task(TaskError),
}

impl fmt::Display for TreeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TreeError::TooMany => {
                write!(f, "there are more than {WAYS_MAX} ways through the team: too many to try all")
            }
            TreeError::Task(e) => e.fmt(f),
        }
    }
}

/// Chooses as it is told, then the first admissible successor each time, and remembers.
#[derive(Default)]
struct Explorer {
    told: Vec<ActionId>,
    made: Vec<(AgentId, Observation, ActionId)>,
}

impl Explorer {
    /// The choices that lead to the next conversation; `None` after the last.
    fn next(mut self) -> Option<Vec<ActionId>> {
        while let Some((_, seen, action)) = self.made.pop() {
            if let Some(other) = seen.legal.iter().find(|a| *a > action) {
                let before = self.made.iter().map(|(_, _, action)| *action);
                return Some(before.chain([other]).collect());
            }
        }
        None
    }
}

impl Chooser for Explorer {
    fn operation(&mut self, _: AgentId, _: &Observation) -> Option<OperationId> {
        Some(OperationId(0))
    }

    fn successor(&mut self, _: &Scene<'_>, agent: AgentId, _: AgentId, o: &Observation) -> Option<ActionId> {
        let action = self.told.get(self.made.len()).copied().or_else(|| o.legal.first())?;
        self.made.push((agent, o.clone(), action));
        Some(action)
    }
}

impl Tree {
    /// Hold every conversation about a task, which usually costs as much as is `usual`. Also returns what each spent.
    pub(super) async fn of(
        stage: &Stage,
        task: &Task,
        usual: Usual,
    ) -> Result<(Tree, Vec<Spent>), TreeError> {
        let mut tree = Tree { kind: String::new(), failed: 0, decisions: vec![] };
        let (mut spent, mut told) = (vec![], Some(vec![]));
        while let Some(choices) = told {
            if spent.len() == WAYS_MAX {
                return Err(TreeError::TooMany);
            }
            let mut explorer = Explorer { told: choices, made: vec![] };
            let way = walk(stage, &mut stage.guard(), task.clone(), 0, usual, &mut explorer).await;
            let way = way.map_err(TreeError::Task)?;
            tree.kind.clone_from(&way.start);
            tree.failed += way.spent.failures;
            spent.push(way.spent);
            tree.add(&way, &explorer.made).map_err(TreeError::Task)?;
            told = explorer.next();
        }
        // What could be chosen in one conversation alone, as a call failed in the others, is no choice here.
        for decision in &mut tree.decisions {
            let Decision { legal, branches, .. } = decision;
            legal.retain(|column| branches.iter().any(|(known, _)| known == column));
        }
        Ok((tree, spent))
    }

    /// The agents of each conversation, behind the one with which it begins.
    pub(super) fn ways(&self) -> Vec<Vec<AgentId>> {
        let mut ways = vec![];
        let mut open = vec![(0, vec![])];
        while let Some((at, way)) = open.pop() {
            for (_, branch) in &self.decisions[at].branches {
                match branch.leads {
                    Leads::Over(_) => ways.push(way.clone()),
                    Leads::To(next) => {
                        let mut longer: Vec<AgentId> = way.clone();
                        longer.push(AgentId(self.decisions[next].agent));
                        open.push((next, longer));
                    }
                }
            }
        }
        ways
    }

    fn add(&mut self, way: &Walk, made: &[(AgentId, Observation, ActionId)]) -> Result<(), TaskError> {
        let turns = way.turns.iter().filter(|turn| turn.action.is_some()).map(|turn| turn.earned);
        let earned: Vec<f64> = turns.chain([way.walk_return]).collect();
        if made.is_empty() || earned.len() != made.len() + 1 {
            return Err(TaskError(format!("task {}: nobody in the team has a choice", way.task)));
        }
        let mut at = 0;
        for (i, (agent, seen, action)) in made.iter().enumerate() {
            if at == self.decisions.len() {
                let legal = seen.legal.iter().map(|action| action.0).collect();
                let signature = seen.signature.0;
                self.decisions.push(Decision { agent: agent.0, signature, legal, branches: vec![] });
            }
            if self.decisions[at].agent != agent.0 {
                // A call that failed here had come back in an earlier conversation: what follows is another task.
                return Ok(());
            }
            let behind = self.decisions.len();
            let branches = &mut self.decisions[at].branches;
            let known = branches.iter().find(|(known, _)| *known == action.0).map(|(_, branch)| branch.leads);
            let leads = known.unwrap_or(match i + 1 == made.len() {
                true => Leads::Over(way.quality.unwrap_or(0.0)),
                false => Leads::To(behind),
            });
            if known.is_none() {
                branches.push((action.0, Branch { reward: earned[i + 1] - earned[i], leads }));
            }
            match leads {
                Leads::To(next) => at = next,
                Leads::Over(_) => break,
            }
        }
        Ok(())
    }
}

/// Conversations that were paid for, in a file: whoever comes back does not hold them again.
pub(super) struct Kept {
    /// What a conversation usually costs.
    pub(super) usual: Usual,
    /// Those that there were, by what the problem is called.
    pub(super) trees: HashMap<String, Tree>,
    file: File,
}

/// The first line of the file.
#[derive(Serialize, Deserialize)]
struct Head {
    /// Of which team, on which models and problems.
    team: String,
    usual: Usual,
}

impl Kept {
    /// The file, if it is of this team.
    pub(super) fn open(path: &Path, team: &str) -> Result<Option<Kept>, String> {
        let text = fs::read_to_string(path).unwrap_or_default();
        let mut lines = text.lines();
        let head = lines.next().and_then(|line| serde_json::from_str::<Head>(line).ok());
        let Some(Head { usual, .. }) = head.filter(|head| head.team == team) else { return Ok(None) };
        // What was being written when the process ended is no line.
        let trees = lines.filter_map(|line| serde_json::from_str(line).ok()).collect();
        let mut kept = Kept { usual, trees, file: append(path)? };
        if !text.ends_with('\n') {
            kept.write("\n", path)?;
        }
        Ok(Some(kept))
    }

    /// A new file, in the place of one of another team.
    pub(super) fn create(path: &Path, team: &str, usual: Usual) -> Result<Kept, String> {
        fs::write(path, "").map_err(|e| format!("{}: {e}", path.display()))?;
        let mut kept = Kept { usual, trees: HashMap::new(), file: append(path)? };
        let head = serde_json::to_string(&Head { team: team.to_owned(), usual }).expect("numbers and text");
        kept.write(&(head + "\n"), path)?;
        Ok(kept)
    }

    pub(super) fn keep(&mut self, task: &str, tree: &Tree, path: &Path) -> Result<(), String> {
        let line = serde_json::to_string(&(task, tree)).expect("numbers and text");
        self.write(&(line + "\n"), path)
    }

    fn write(&mut self, text: &str, path: &Path) -> Result<(), String> {
        self.file.write_all(text.as_bytes()).map_err(|e| format!("{}: {e}", path.display()))
    }
}

fn append(path: &Path) -> Result<File, String> {
    OpenOptions::new().append(true).open(path).map_err(|e| format!("{}: {e}", path.display()))
}

/// Problems with all their conversations, as an environment.
pub(super) struct Conversations<'t> {
    spec: EnvironmentSpec,
    trees: &'t [Tree],
    tree: usize,
    at: usize,
    quality: f64,
    last: ActionId,
}

/// How a conversation ended.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct End {
    /// Its whole return.
    pub(super) value: f64,
    /// The quality of what came out.
    pub(super) quality: f64,
    /// Which conversation about the problem it was: its last decision.
    pub(super) which: (usize, ActionId),
}

impl<'t> Conversations<'t> {
    pub(super) fn new(stage: &Stage, trees: &'t [Tree]) -> Self {
        let team = stage.team();
        let column = |to: &str| {
            let leads = team.agent_id(to).map_or(protocol::Choice::Finish, protocol::Choice::HandTo);
            Column { name: to.to_owned(), leads }
        };
        let columns = |agent: u32| stage.columns(AgentId(agent)).0.iter().map(|to| column(to)).collect();
        let spec = EnvironmentSpec {
            name: "maths-lm@1",
            agents: team.agents.iter().map(|agent| agent.name.clone()).collect(),
            choices: (0..team.agents.len() as u32).map(columns).collect(),
            discount: Discount::NONE,
            returns: (team.learner.values[0], team.learner.values[1]),
        };
        Conversations { spec, trees, tree: 0, at: 0, quality: 0.0, last: ActionId(0) }
    }

    /// Let `play` go through one conversation about each problem; it is told who begins, and returns the return.
    pub(super) fn ends(&mut self, mut play: impl FnMut(&mut Self, AgentId) -> f64) -> Vec<End> {
        let trees = 0..self.trees.len();
        let one = |tree: usize| {
            let agent = self.begin(tree);
            let value = play(self, agent);
            End { value, quality: self.quality, which: (self.at, self.last) }
        };
        trees.map(one).collect()
    }

    fn begin(&mut self, tree: usize) -> AgentId {
        (self.tree, self.at) = (tree, 0);
        AgentId(self.trees[tree].decisions[0].agent)
    }
}

impl Environment for Conversations<'_> {
    fn spec(&self) -> &EnvironmentSpec {
        &self.spec
    }

    fn reset(&mut self, seed: u64) -> AgentId {
        let tree = Rng::stream(seed, "maths-lm/problem").below(self.trees.len() as u32);
        self.begin(tree as usize)
    }

    fn observe(&self, _: AgentId) -> Observation {
        let Decision { signature, legal, .. } = &self.trees[self.tree].decisions[self.at];
        Observation::of(Signature(*signature), legal.iter().map(|column| ActionId(*column)).collect())
    }

    fn describe(&self) -> String {
        format!("problem {}, decision {}", self.tree, self.at)
    }

    fn step(&mut self, action: ActionId) -> Transition {
        let decisions = &self.trees[self.tree].decisions;
        let mut branches = decisions[self.at].branches.iter();
        let (_, branch) = branches.find(|(known, _)| *known == action.0).expect("every choice was tried");
        let next = match branch.leads {
            Leads::To(next) => {
                self.at = next;
                Next::Active(AgentId(decisions[next].agent))
            }
            Leads::Over(quality) => {
                (self.quality, self.last) = (quality, action);
                Next::Terminal
            }
        };
        let reward = Return::new(branch.reward).expect("rewards of walks are finite");
        Transition { reward, tau: Tau::ONE, next }
    }
}
