//! Measuring: learned policies and fixed workflows on the same tasks, without learning. Reported by
//! [`crate::report`]. Guards hold here too, but nobody is asked: what a person would have to say yes to is denied.

use relevo_core::{
    ids::{ActionId, AgentId, EpisodeId, HandoffId, OperationId},
    learner::{DecisionPoint, Learner, Regime},
    observation::Observation,
    policy::argmax,
    record::Table,
};

use crate::{
    artifact::Artifact,
    guard::{self, Cost, StopReason, TaskGuard, TeamGuard},
    judge::{Candidate, Verdict, audit::Finished, health::JudgeHealth, relative::GROUP_MAX},
    observe::{Occasion, Purpose},
    reward::{Spent, Usual},
    stage::{After, Scene, Sight, Stage},
    tasks::{Task, TaskError},
    team::{FINISH, WorkflowSpec},
};

/// One choice on the way, with what it was based on.
#[derive(Clone, Debug)]
pub struct Turn {
    /// The participant that chose.
    pub agent: AgentId,
    /// What it saw.
    pub situation: String,
    /// The key under which it is known.
    pub observation: Observation,
    /// The successor chosen; `None` where no choice was possible, and for a coordinator, which chooses operations.
    pub action: Option<ActionId>,
    /// The operation performed.
    pub operation: OperationId,
    /// What was chosen, by name; empty where nothing was.
    pub choice: String,
    /// What went wrong in it.
    pub failure: Option<String>,
    /// What the task had earned by then, discounted: when the successor was chosen, or after a coordinator's operation.
    pub earned: f64,
}

/// A task's way through the team.
#[derive(Clone, Debug)]
pub struct Walk {
    /// The task.
    pub task: String,
    /// The kind of task: what the first participant saw of it.
    pub start: String,
    /// Every choice, in order.
    pub turns: Vec<Turn>,
    /// Who was called, in order.
    pub acted: Vec<AgentId>,
    /// The whole return, discounted per primitive step.
    pub walk_return: f64,
    /// The quality of what came out, if it can be known.
    pub quality: Option<f64>,
    /// What full quality adds to the return: gamma^(primitive steps) times the reward for success.
    pub worth: f64,
    /// What it used up.
    pub spent: Spent,
    /// Why it stopped.
    pub stop: StopReason,
    /// Whether it came to an end that is judged.
    pub concluded: bool,
    /// What came out.
    pub artifact: Artifact,
    /// What judges are shown of it, where they compare it with others or the team keeps content.
    pub candidate: Option<Candidate>,
    /// Whether judges who compare it with others are still to be asked.
    pub is_unjudged: bool,
}

impl Walk {
    /// It as what an arm has finished, for other judges; nothing where nothing is kept of it.
    pub fn finished(&self, arm: &str) -> Option<Finished> {
        Some(Finished { arm: arm.to_owned(), candidate: self.candidate.clone()?, quality: self.quality })
    }
}

/// Somebody who decides.
pub trait Chooser {
    /// The operation of an adaptable agent, or of a coordinator; `None` to conclude without another one.
    fn operation(&mut self, agent: AgentId, observation: &Observation) -> Option<OperationId>;

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
    fn operation(&mut self, agent: AgentId, o: &Observation) -> Option<OperationId> {
        let values = self.learners[agent.0 as usize].values(Table::Operations, o);
        argmax(&o.legal, |a| values[a.index()]).map(|a| OperationId(a.0))
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
    fn operation(&mut self, _: AgentId, o: &Observation) -> Option<OperationId> {
        let Some(coordination) = self.stage.coordination() else { return Some(OperationId(0)) };
        // The next on the route that is admissible; behind its end, the task is concluded.
        while let Some(name) = self.workflow.route.get(self.position) {
            self.position += 1;
            let column = coordination.plan().action(name);
            if let Some(column) = column.filter(|column| o.legal.contains(*column)) {
                return Some(OperationId(column.0));
            }
        }
        None
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

/// What comes next when nothing is known: the first admissible cell of a coordinated team, and none skipped.
pub struct InOrder;

impl Chooser for InOrder {
    fn operation(&mut self, _: AgentId, o: &Observation) -> Option<OperationId> {
        o.legal.first().map(|a| OperationId(a.0))
    }

    fn successor(&mut self, _: &Scene<'_>, _: AgentId, _: AgentId, o: &Observation) -> Option<ActionId> {
        o.legal.first()
    }
}

/// Take a task through the team, as far as guards let it; `usual` is what a task costs, where rewards are measured by that.
pub async fn walk(
    stage: &Stage,
    team: &mut TeamGuard,
    task: Task,
    number: u64,
    usual: Usual,
    chooser: &mut dyn Chooser,
) -> Result<Walk, TaskError> {
    // A simulated walk never waits for anything; let others (Ctrl-C) have their turn.
    tokio::task::yield_now().await;
    let guard = TaskGuard::new(team, stage.clock()());
    let mut way = Way {
        stage,
        team,
        guard,
        scene: stage.open(task, usual)?.on(Occasion::Measurement),
        handoff: HandoffId::opening(EpisodeId(u128::from(number))),
        start: String::new(),
        turns: vec![],
        acted: vec![],
        earned: 0.0,
        discount: 1.0,
        judged: false,
    };
    let stop = match stage.coordination() {
        Some(_) => way.coordinated(chooser).await,
        None => way.handed_on(chooser).await,
    };
    let quality = way.quality(number).await;
    let compares = stage.judge().is_some_and(|(_, group)| group.get() > 1);
    let Way { scene, start, turns, acted, earned, discount, judged: concluded, .. } = way;
    let is_kept = compares || stage.team().trace.content;
    let candidate = is_kept.then(|| scene.candidate(&acted));
    let worth = discount * stage.team().reward.success;
    let watched = scene.watched().cloned();
    let walk = Walk {
        task: scene.task().id.clone(),
        start,
        turns,
        acted,
        walk_return: earned + worth * quality.unwrap_or(0.0),
        quality,
        worth,
        spent: *scene.spent(),
        stop,
        concluded,
        artifact: scene.result(),
        candidate,
        is_unjudged: concluded && compares,
    };
    if let (Some(observer), Some(watched)) = (stage.observer(), &watched) {
        observer.walked(watched, &walk);
    }
    Ok(walk)
}

/// Let the judge of the team compare walks over the same task, as far as they are still to be judged; `label` names the
/// occasion. Returns what that took.
pub async fn compare(stage: &Stage, walks: &mut [&mut Walk], label: &str) -> Verdict {
    let Some((judge, _)) = stage.judge() else { return Verdict::default() };
    let compared: Vec<_> = walks.iter_mut().filter(|walk| walk.is_unjudged).collect();
    let candidates: Vec<_> = compared.iter().filter_map(|walk| walk.candidate.clone()).collect();
    if candidates.is_empty() {
        return Verdict::default();
    }
    let verdict = stage.compare(judge, &candidates, label).await;
    for (walk, score) in compared.into_iter().zip(&verdict.scores) {
        walk.is_unjudged = false;
        walk.quality = score.as_ref().map(|score| score.quality);
        walk.walk_return += walk.worth * walk.quality.unwrap_or(0.0);
    }
    verdict
}

/// A walk under way.
struct Way<'s, 'g> {
    stage: &'s Stage,
    team: &'g mut TeamGuard,
    guard: TaskGuard,
    scene: Scene<'s>,
    handoff: HandoffId,
    start: String,
    turns: Vec<Turn>,
    acted: Vec<AgentId>,
    earned: f64,
    /// gamma^(primitive steps so far).
    discount: f64,
    /// Whether the task has come to an end that is judged.
    judged: bool,
}

impl Way<'_, '_> {
    /// The quality of what came out, if it can be known. What was not concluded has none, whatever it looks like; a judge
    /// that only compares has nothing to compare one walk with.
    async fn quality(&self, number: u64) -> Option<f64> {
        match self.stage.judge() {
            _ if !self.judged => Some(0.0),
            None => self.scene.quality(),
            Some((judge, group)) if group.get() == 1 => {
                let candidate = self.scene.candidate(&self.acted);
                let (label, watched) = (format!("measuring/{number}"), self.scene.watched().cloned());
                let candidates = [candidate];
                let judged = judge.judge(&candidates, &label);
                let verdict = self.stage.seen(watched, Purpose::Judgement, judged).await;
                verdict.scores.into_iter().next().flatten().map(|score| score.quality)
            }
            Some(_) => None,
        }
    }

    fn earn(&mut self, reward: f64) {
        self.earned += self.discount * reward;
    }

    /// A guard ends the task. What a coordinator has come to is judged all the same.
    fn stop(&mut self, reason: StopReason) -> StopReason {
        self.scene.halt(reason);
        if self.stage.coordination().is_some() {
            self.judged = true;
        }
        reason
    }

    /// What a participant may choose from; or why the task ends, if there is nothing.
    fn look(&self, participant: AgentId, mut sight: Sight) -> Result<Sight, (Sight, StopReason)> {
        let mut reason = StopReason::NoSuccessor;
        if self.team.spec().masks() {
            let candidates = self.stage.callees(participant, &sight.observation.legal);
            let (giver, now) = (self.stage.giver(participant), self.stage.clock()());
            let masks = self.guard.before_decision(self.team, giver, &candidates, now);
            reason = masks.stop_reason().unwrap_or(reason);
            self.stage.mask(participant, &masks, &mut sight);
        }
        if sight.observation.legal.is_empty() { Err((sight, reason)) } else { Ok(sight) }
    }

    /// Let a participant do its work: what went wrong in it, if anything did, or why the task ends.
    async fn perform(
        &mut self,
        participant: AgentId,
        operation: OperationId,
    ) -> Result<Option<String>, StopReason> {
        let Some((mut agent, mut call)) = self.scene.call(participant, operation, self.handoff) else {
            let performance = self.scene.take(participant, operation, None, 0);
            self.earn(performance.reward);
            return Ok(performance.failure);
        };
        let clock = self.stage.clock();
        let mut takes_over = false;
        let permit = loop {
            let digest = self.scene.digest(self.team);
            if self.stage.coordination().is_some()
                && let Some(reason) = self.guard.on_handoff(self.team, AgentId::ORIGIN, agent, digest)
            {
                return Err(self.stop(reason));
            }
            let needs_approval = self.scene.needs_approval(agent, self.handoff.from);
            match self.guard.before_call(self.team, agent, needs_approval, clock()) {
                guard::Verdict::Go(permit) => break permit,
                guard::Verdict::Stop(reason) => return Err(self.stop(reason)),
                guard::Verdict::HandOff(to) => {
                    (agent, call) = (to, self.scene.call_agent(to, self.handoff));
                    takes_over = true;
                }
                guard::Verdict::Ask(_) => {
                    let reason = self.guard.deny();
                    return Err(self.stop(reason));
                }
            }
        };
        self.acted.push(agent);
        let began = clock();
        let outcome = call.await;
        // What is simulated takes no time.
        let ms = if self.stage.leaves_process(agent) { clock().saturating_sub(began) } else { 0 };
        let performance = match takes_over {
            true => self.scene.take_over(outcome, ms),
            false => self.scene.take(participant, operation, Some(outcome), ms),
        };
        let cost = Cost { tokens: performance.usage.tokens, money: performance.money, ms };
        self.guard.after_call(self.team, permit, cost, performance.ended);
        self.earn(performance.reward);
        if let Some(reason) = self.guard.stopped() {
            return Err(self.stop(reason));
        }
        if takes_over {
            self.judged = true;
            return Err(StopReason::HandedOff);
        }
        Ok(performance.failure)
    }

    /// A coordinator invokes and skips until the task stops; returns why it did.
    async fn coordinated(&mut self, chooser: &mut dyn Chooser) -> StopReason {
        let coordinator = self.stage.start();
        let mut sight = self.scene.arrive(coordinator, AgentId::ORIGIN);
        self.start = self.scene.kind();
        loop {
            let Sight { name: situation, observation, .. } = match self.look(coordinator, sight) {
                Ok(sight) => sight,
                Err((_, reason)) => return self.stop(reason),
            };
            let Some(operation) = chooser.operation(coordinator, &observation) else {
                self.judged = true;
                return StopReason::Finished;
            };
            let performed = self.perform(coordinator, operation).await;
            let choice = self.stage.operation_name(coordinator, operation);
            let (agent, failure) = (coordinator, performed.clone().ok().flatten());
            let (action, earned) = (None, self.earned);
            self.turns.push(Turn {
                agent,
                situation,
                observation,
                action,
                operation,
                choice,
                failure,
                earned,
            });
            if let Err(reason) = performed {
                return reason;
            }
            match self.scene.after(coordinator, AgentId::ORIGIN) {
                After::Concluded(stop) => {
                    self.judged = true;
                    return stop;
                }
                After::Operate(next) | After::HandOver(next) => sight = next,
            }
            self.discount *= self.stage.team().learner.discount;
        }
    }

    /// The choice of a successor; and why the task ends, if there is none.
    fn decide(
        &self,
        chooser: &mut dyn Chooser,
        (agent, sender): (AgentId, AgentId),
        operation: OperationId,
        sight: Sight,
    ) -> (Turn, StopReason) {
        let mut reason = StopReason::NoSuccessor;
        let (action, Sight { name: situation, observation, .. }) = match self.look(agent, sight) {
            Ok(sight) => (chooser.successor(&self.scene, agent, sender, &sight.observation), sight),
            Err((sight, why)) => {
                reason = why;
                (None, sight)
            }
        };
        let name = |a| self.stage.team().choice_name(agent, a).to_owned();
        let choice = action.map_or(String::new(), name);
        let (failure, earned) = (None, self.earned);
        (Turn { agent, situation, observation, action, operation, choice, failure, earned }, reason)
    }

    /// Agents hand on until one of them finishes; returns why the task stopped.
    async fn handed_on(&mut self, chooser: &mut dyn Chooser) -> StopReason {
        let (stage, team) = (self.stage, self.stage.team());
        let gamma = team.learner.discount;
        let (mut agent, mut sender) = (stage.start(), AgentId::ORIGIN);
        loop {
            let sight = self.scene.arrive(agent, sender);
            if sender == AgentId::ORIGIN {
                self.start.clone_from(&sight.name);
            }
            let regime = stage.regime(agent);
            let operation = match regime {
                Regime::Adaptable { .. } => chooser.operation(agent, &sight.observation),
                Regime::PreConfigured(_) => None,
            };
            let (operation, who) = (operation.unwrap_or(OperationId(0)), (agent, sender));
            let decides_before = regime == Regime::PreConfigured(DecisionPoint::Before);
            let before = decides_before.then(|| self.decide(chooser, who, operation, sight));
            if let Some((turn @ Turn { action: None, .. }, reason)) = before {
                self.turns.push(turn);
                return reason;
            }
            let failure = match self.perform(agent, operation).await {
                Ok(failure) => failure,
                Err(reason) => {
                    self.turns.extend(before.map(|(turn, _)| turn));
                    return reason;
                }
            };
            let (mut turn, reason) = match (before, self.scene.after(agent, sender)) {
                (Some(before), _) => before,
                (None, After::HandOver(sight) | After::Operate(sight)) => {
                    self.discount *= gamma;
                    self.decide(chooser, who, operation, sight)
                }
                (None, After::Concluded(stop)) => return stop,
            };
            turn.failure = failure;
            let action = turn.action;
            self.turns.push(turn);
            let Some(action) = action else { return reason };
            let to = team.choice_name(agent, action);
            if to == FINISH {
                self.judged = true;
                return StopReason::Finished;
            }
            self.earn(team.reward.handoff);
            self.discount *= gamma;
            let to = team.agent_id(to).expect("names were checked");
            let digest = self.scene.digest(self.team);
            if let Some(reason) = self.guard.on_handoff(self.team, agent, to, digest) {
                return reason;
            }
            self.handoff = self.handoff.next(agent).expect("handoffs are limited");
            (sender, agent) = (agent, to);
        }
    }
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

/// What was measured, side by side.
#[derive(Clone, Debug)]
pub struct Measured {
    /// The learned policy first.
    pub arms: Vec<Arm>,
    /// How judges did that compared them, and what that took.
    pub judges: JudgeHealth,
}

/// Under the guard of a run, and with what a task usually costs in it, run the learned policy, every declared workflow and every single agent over the evaluation tasks, the same for
/// all. Of the single agents the one with the best mean return is kept: best in hindsight, which favours it. A judge that compares is shown together what all of them made of a task.
pub async fn evaluate(
    stage: &Stage,
    guard: &mut TeamGuard,
    learners: Vec<&Learner>,
    usual: Usual,
    mut watch: impl FnMut(&str),
) -> Result<Measured, TaskError> {
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
        walks.push(walk(stage, guard, task.clone(), number as u64, usual, &mut greedy).await?);
        watch("learned");
    }
    arms.push(Arm { name: "learned".into(), kind: ArmKind::Learned, walks });
    if stage.coordination().is_some() {
        let mut walks = vec![];
        for (number, task) in tasks.iter().enumerate() {
            walks.push(walk(stage, guard, task.clone(), number as u64, usual, &mut InOrder).await?);
            watch("in order");
        }
        arms.push(Arm { name: "in order".into(), kind: ArmKind::Fixed, walks });
    }
    let single = team.agents.iter().map(|agent| WorkflowSpec {
        name: format!("{} alone", agent.name),
        route: match stage.coordination() {
            Some(_) => vec![format!("only:{}", agent.name)],
            None => vec![agent.name.clone(), FINISH.into()],
        },
        repeat_until: None,
        rules: vec![],
    });
    let declared = team.workflows.iter().cloned().map(|workflow| (workflow, ArmKind::Fixed));
    let mut singles: Vec<Arm> = vec![];
    let compares = stage.judge().is_some_and(|(_, group)| group.get() > 1);
    for (workflow, kind) in declared.chain(single.map(|workflow| (workflow, ArmKind::Single))) {
        let mut walks = vec![];
        for (number, task) in tasks.iter().enumerate() {
            walks.push(
                walk(stage, guard, task.clone(), number as u64, usual, &mut Fixed::new(stage, &workflow))
                    .await?,
            );
            watch(&workflow.name);
            // A single agent that the start cannot reach, or that cannot conclude, is no candidate.
            let none = |w: &Walk| !w.concluded || w.acted.is_empty();
            if kind == ArmKind::Single && number == 15 && walks.iter().all(none) {
                break;
            }
        }
        let complete = walks.len() == tasks.len() && walks.iter().any(|w| w.concluded && !w.acted.is_empty());
        let arm = Arm { name: workflow.name, kind, walks };
        match kind {
            ArmKind::Single if complete => {
                singles.push(arm);
                if !compares {
                    singles = best(singles).into_iter().collect();
                }
            }
            ArmKind::Single => {}
            ArmKind::Fixed | ArmKind::Learned => arms.push(arm),
        }
    }
    let mut judges = JudgeHealth::default();
    if compares {
        // All that can be compared at once.
        singles.truncate(GROUP_MAX.saturating_sub(arms.len()));
        for number in 0..tasks.len() {
            let attempts = arms.iter_mut().chain(&mut singles).map(|arm| &mut arm.walks[number]);
            let verdict =
                compare(stage, &mut attempts.collect::<Vec<_>>(), &format!("measuring/{number}")).await;
            judges.observe(&verdict);
            watch("judges");
        }
    }
    arms.extend(best(singles));
    Ok(Measured { arms, judges })
}

/// The arm with the largest mean return, the first of several.
fn best(arms: Vec<Arm>) -> Option<Arm> {
    let mean =
        |arm: &Arm| arm.walks.iter().map(|w| w.walk_return).sum::<f64>() / arm.walks.len().max(1) as f64;
    arms.into_iter().rev().max_by(|a, b| mean(a).total_cmp(&mean(b)))
}
