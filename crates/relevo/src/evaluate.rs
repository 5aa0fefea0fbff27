//! Measuring: learned policies and fixed workflows on the same tasks, without learning. Reported by
//! [`crate::report`].

use relevo_core::{
    ids::{ActionId, AgentId, EpisodeId, HandoffId, OperationId},
    learner::{DecisionPoint, Learner, Regime},
    observation::Observation,
    policy::argmax,
    record::Table,
};

use crate::{
    artifact::Artifact,
    stage::{Scene, Stage},
    tasks::{Task, TaskError},
    team::{FINISH, WorkflowSpec},
};

/// One choice on the way, with what it was based on.
#[derive(Clone, Debug)]
pub struct Turn {
    /// Who chose.
    pub agent: AgentId,
    /// What it saw.
    pub situation: String,
    /// The key under which it is known.
    pub observation: Observation,
    /// The column chosen; `None` where no choice was possible.
    pub action: Option<ActionId>,
    /// The operation performed.
    pub operation: OperationId,
    /// What went wrong in it.
    pub failure: Option<String>,
}

/// A task's way through the team.
#[derive(Clone, Debug)]
pub struct Walk {
    /// The task.
    pub task: String,
    /// Every choice, in order.
    pub turns: Vec<Turn>,
    /// The whole return, discounted per primitive step.
    pub walk_return: f64,
    /// The quality of what came out, if it can be known.
    pub quality: Option<f64>,
    /// Calls of agents.
    pub calls: u32,
    /// Calls that failed.
    pub failures: u32,
    /// Why it stopped.
    pub stop: &'static str,
    /// What came out.
    pub artifact: Artifact,
}

impl Walk {
    /// What the first agent saw.
    pub fn start(&self) -> &str {
        self.turns.first().map_or("", |t| &t.situation)
    }
}

/// Somebody who decides.
pub trait Chooser {
    /// The operation of an adaptable agent.
    fn operation(&mut self, agent: AgentId, observation: &Observation) -> OperationId;

    /// The successor; `None` to stop without concluding.
    fn successor(
        &mut self,
        scene: &Scene<'_>,
        agent: AgentId,
        sender: AgentId,
        observation: &Observation,
    ) -> Option<ActionId>;
}

/// The best known choice of each agent.
pub struct Greedy<'l> {
    /// The learners, by agent.
    pub learners: Vec<&'l Learner>,
}

impl Chooser for Greedy<'_> {
    fn operation(&mut self, agent: AgentId, o: &Observation) -> OperationId {
        let values = self.learners[agent.0 as usize].values(Table::Operations, o);
        OperationId(argmax(&o.legal, |a| values[a.index()]).map_or(0, |a| a.0))
    }

    fn successor(&mut self, _: &Scene<'_>, agent: AgentId, _: AgentId, o: &Observation) -> Option<ActionId> {
        let values = self.learners[agent.0 as usize].values(Table::Successors, o);
        argmax(&o.legal, |a| values[a.index()])
    }
}

/// A fixed workflow of the team file.
pub struct Fixed<'w> {
    stage: &'w Stage,
    workflow: &'w WorkflowSpec,
    position: usize,
}

impl<'w> Fixed<'w> {
    /// The workflow, at its beginning.
    pub fn new(stage: &'w Stage, workflow: &'w WorkflowSpec) -> Self {
        // A route may name the agent with which every task starts, or leave it out.
        let position = usize::from(workflow.route.first() == Some(&stage.team().start));
        Fixed { stage, workflow, position }
    }

    fn column(&self, agent: AgentId, to: &str, o: &Observation) -> Option<ActionId> {
        let handoffs = &self.stage.team().agents[agent.0 as usize].handoffs;
        let column = ActionId(handoffs.iter().position(|h| h.to() == to)? as u32);
        o.legal.contains(column).then_some(column)
    }
}

impl Chooser for Fixed<'_> {
    fn operation(&mut self, _: AgentId, _: &Observation) -> OperationId {
        OperationId(0)
    }

    fn successor(
        &mut self,
        scene: &Scene<'_>,
        agent: AgentId,
        sender: AgentId,
        o: &Observation,
    ) -> Option<ActionId> {
        let WorkflowSpec { route, repeat_until, rules, .. } = self.workflow;
        let situation = scene.situation(agent, sender);
        if route.is_empty() {
            let mut holding = rules.iter().filter(|rule| situation.holds(&rule.when, scene.artifact()));
            return holding.find_map(|rule| self.column(agent, &rule.to, o));
        }
        if let Some(until) = repeat_until {
            if situation.holds(until, scene.artifact()) {
                return self.column(agent, FINISH, o);
            }
            // Once round at most: then nobody on the route is admissible.
            for _ in 0..route.len() {
                let to = &route[self.position % route.len()];
                self.position += 1;
                if let Some(column) = self.column(agent, to, o) {
                    return Some(column);
                }
            }
            return None;
        }
        while let Some(to) = route.get(self.position) {
            self.position += 1;
            if let Some(column) = self.column(agent, to, o) {
                return Some(column);
            }
        }
        self.column(agent, FINISH, o)
    }
}

/// Take a task through the team.
pub async fn walk(stage: &Stage, task: Task, number: u64, chooser: &mut dyn Chooser) -> Walk {
    // A simulated walk never waits for anything; let others (Ctrl-C) have their turn.
    tokio::task::yield_now().await;
    let team = stage.team();
    let (gamma, reward) = (team.learner.discount, &team.reward);
    let mut scene = stage.open(task);
    let (mut agent, mut sender) = (team.agent_id(&team.start).expect("names were checked"), AgentId::ORIGIN);
    let (mut discount, mut walk_return, mut handoffs) = (1.0, 0.0, 0);
    let mut handoff = HandoffId::opening(EpisodeId(u128::from(number)));
    let mut turns = vec![];
    let stop = loop {
        scene.arrive();
        let regime = stage.regime(agent);
        let operation = match regime {
            Regime::Adaptable { .. } => chooser.operation(agent, &scene.observe_operations(agent, sender).1),
            Regime::PreConfigured(_) => OperationId(0),
        };
        let decides_before = regime == Regime::PreConfigured(DecisionPoint::Before);
        let mut decide = |scene: &Scene<'_>| {
            let (situation, observation) = scene.observe(agent, sender);
            let action = match observation.legal.is_empty() {
                true => None,
                false => chooser.successor(scene, agent, sender, &observation),
            };
            Turn { agent, situation, observation, action, operation, failure: None }
        };
        let before = decides_before.then(|| decide(&scene));
        if before.as_ref().is_some_and(|turn| turn.action.is_none()) {
            turns.extend(before);
            break "no-successor";
        }
        let performance = scene.perform(agent, operation, handoff).await;
        walk_return += discount * performance.reward;
        if !decides_before {
            discount *= gamma;
        }
        let mut turn = before.unwrap_or_else(|| decide(&scene));
        turn.failure = performance.failure;
        let action = turn.action;
        turns.push(turn);
        let Some(action) = action else { break "no-successor" };
        let to = team.choice_name(agent, action);
        if to == FINISH {
            walk_return += discount * scene.conclude();
            break "finished";
        }
        walk_return += discount * reward.handoff;
        discount *= gamma;
        if handoffs == team.run.max_handoffs {
            break "max-handoffs";
        }
        handoffs += 1;
        handoff = handoff.next(agent).expect("handoffs are limited");
        (sender, agent) = (agent, team.agent_id(to).expect("names were checked"));
    };
    // What was not concluded has no quality, whatever it looks like.
    let quality = if stop == "finished" { scene.quality() } else { Some(0.0) };
    let totals = scene.totals();
    let task = scene.task().id.clone();
    let artifact = scene.artifact().clone();
    Walk { task, turns, walk_return, quality, calls: totals.calls, failures: totals.failures, stop, artifact }
}

/// A workflow with its walks over the evaluation tasks.
#[derive(Clone, Debug)]
pub struct Arm {
    /// Its name.
    pub name: String,
    /// What it is.
    pub kind: ArmKind,
    /// One walk per task, in the order of the tasks.
    pub walks: Vec<Walk>,
}

/// What a workflow is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ArmKind {
    /// What was learned.
    Learned,
    /// Declared in the team file.
    Fixed,
    /// The best team of one agent.
    Single,
}

/// Run the learned policy, every declared workflow and every single agent over the evaluation tasks, the same for
/// all. Of the single agents the one with the best mean return is kept: best in hindsight, which favours it.
pub async fn evaluate(
    stage: &Stage,
    learners: Vec<&Learner>,
    mut watch: impl FnMut(&str),
) -> Result<Vec<Arm>, TaskError> {
    let team = stage.team();
    let mut tasks = vec![];
    while (tasks.len() as u64) < team.run.evaluation_tasks
        && let Some(task) = stage.tasks().evaluation(tasks.len() as u64)?
    {
        tasks.push(task);
    }
    let mut arms = vec![];
    let mut greedy = Greedy { learners };
    let mut walks = vec![];
    for (number, task) in tasks.iter().enumerate() {
        walks.push(walk(stage, task.clone(), number as u64, &mut greedy).await);
        watch("learned");
    }
    arms.push(Arm { name: "learned".into(), kind: ArmKind::Learned, walks });
    let single = team.agents.iter().map(|agent| WorkflowSpec {
        name: format!("{} alone", agent.name),
        route: vec![agent.name.clone(), FINISH.into()],
        repeat_until: None,
        rules: vec![],
    });
    let declared = team.workflows.iter().cloned().map(|workflow| (workflow, ArmKind::Fixed));
    let mut best: Option<(f64, Arm)> = None;
    for (workflow, kind) in declared.chain(single.map(|workflow| (workflow, ArmKind::Single))) {
        let mut walks = vec![];
        for (number, task) in tasks.iter().enumerate() {
            walks.push(walk(stage, task.clone(), number as u64, &mut Fixed::new(stage, &workflow)).await);
            watch(&workflow.name);
            // A single agent that the start cannot reach, or that cannot conclude, is no candidate.
            if kind == ArmKind::Single && number == 15 && walks.iter().all(|w| w.stop != "finished") {
                break;
            }
        }
        let complete = walks.len() == tasks.len() && walks.iter().any(|w| w.stop == "finished");
        let mean = walks.iter().map(|w| w.walk_return).sum::<f64>() / walks.len().max(1) as f64;
        let arm = Arm { name: workflow.name, kind, walks };
        match kind {
            ArmKind::Single if complete && best.as_ref().is_none_or(|(b, _)| mean > *b) => {
                best = Some((mean, arm))
            }
            ArmKind::Single => {}
            ArmKind::Fixed | ArmKind::Learned => arms.push(arm),
        }
    }
    arms.extend(best.map(|(_, arm)| arm));
    Ok(arms)
}
