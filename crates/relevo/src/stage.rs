//! The doing: one task on its way through a team, whoever decides. [`crate::learn`] decides by participants that
//! learn; [`crate::evaluate`] by a learned policy or a fixed workflow. Both act here, and only here.

use std::{
    collections::BTreeMap,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::future::BoxFuture;
use relevo_core::{
    ids::{AgentId, HandoffId, OperationId},
    learner::Regime,
    observation::{ActionSet, Observation},
    units::Usage,
};

use crate::{
    agent::{
        Agent, Ending, HandoffLabel, OperationCall, Outcome,
        process::{Brief, ProcessAgent},
    },
    artifact::{Artifact, Facts},
    interface::{Situation, View},
    tasks::{FileTasks, Simulator, Task, TaskError, TaskSource},
    team::{TeamSpec, nearest},
};

/// A team with everything that it takes to act: programs or a simulated world, and tasks.
pub struct Stage {
    team: TeamSpec,
    views: Vec<View>,
    regimes: Vec<Regime>,
    agents: Vec<Arc<dyn Agent>>,
    tasks: Arc<dyn TaskSource>,
    clock: Clock,
}

/// Milliseconds since a moment that stays the same.
pub type Clock = Arc<dyn Fn() -> u64 + Send + Sync>;

impl Stage {
    /// Set up a team whose file lies in `directory`; `simulator` is the world that its `[simulate]` section asks for.
    pub fn new(
        team: TeamSpec,
        directory: &Path,
        simulator: Option<Arc<dyn Simulator>>,
    ) -> Result<Self, TaskError> {
        let mut agents: Vec<Arc<dyn Agent>> = Vec::with_capacity(team.agents.len());
        for agent in &team.agents {
            agents.push(match (&agent.command, &agent.simulate, &simulator) {
                (Some(command), ..) => {
                    let mut program = ProcessAgent::new(command.clone(), directory);
                    program.timeout = Duration::from_millis(agent.timeout_ms);
                    program.output_bytes_max = agent.output_bytes_max;
                    program.environment.extend(agent.environment.iter().cloned());
                    program.brief = Brief {
                        skill: agent.skill_name(),
                        model: agent.model().map(str::to_owned),
                        tools: agent.tools().to_vec(),
                        instructions: agent.card.as_ref().map_or(String::new(), |c| c.instructions.clone()),
                    };
                    Arc::new(program)
                }
                (_, Some(role), Some(world)) => world.agent(role).ok_or_else(|| {
                    let hint = match nearest(role, world.roles().iter().copied()) {
                        Some(near) => format!("did you mean {near:?}?"),
                        None => format!("its roles are {}", world.roles().join(", ")),
                    };
                    TaskError(format!(
                        "agent {:?}: the simulated world has no role {role:?}; {hint}",
                        agent.name
                    ))
                })?,
                _ => return Err(TaskError(format!("agent {:?} has nothing to act with", agent.name))),
            });
        }
        let tasks: Arc<dyn TaskSource> = match (&team.tasks, simulator) {
            (Some(spec), _) => Arc::new(FileTasks::load(spec, directory)?),
            (None, Some(world)) => world,
            (None, None) => return Err(TaskError("the team has neither tasks nor a simulated world".into())),
        };
        let views = team.agents.iter().map(|a| View::new(a, &team.learner.estimator)).collect();
        let regimes = team.agents.iter().map(|a| team.regime(a)).collect();
        let began = Instant::now();
        let clock: Clock = Arc::new(move || began.elapsed().as_millis() as u64);
        Ok(Stage { team, views, regimes, agents, tasks, clock })
    }

    /// The same stage by another clock.
    pub fn with_clock(self, clock: Clock) -> Self {
        Stage { clock, ..self }
    }

    /// By what the time of calls is told.
    pub fn clock(&self) -> Clock {
        self.clock.clone()
    }

    /// The team.
    pub fn team(&self) -> &TeamSpec {
        &self.team
    }

    /// Its tasks.
    pub fn tasks(&self) -> &dyn TaskSource {
        &*self.tasks
    }

    /// What an agent learns, and when it chooses.
    pub fn regime(&self, agent: AgentId) -> Regime {
        self.regimes[agent.0 as usize]
    }

    /// Whether calls leave this process, so that their records must be durable before.
    pub fn is_external(&self) -> bool {
        self.team.agents.iter().any(|a| a.command.is_some())
    }

    /// Whether calls of this agent leave the process.
    pub fn leaves_process(&self, agent: AgentId) -> bool {
        self.team.agents[agent.0 as usize].command.is_some()
    }

    /// The names of an agent and of one of its operations.
    fn operation(&self, agent: AgentId, operation: OperationId) -> (&str, &str) {
        let spec = &self.team.agents[agent.0 as usize];
        (&spec.name, spec.operations.get(operation.0 as usize).map_or("default", String::as_str))
    }

    /// Bring a task before the team.
    pub fn open(&self, task: Task) -> Scene<'_> {
        let artifact = task.artifact.clone();
        Scene {
            stage: self,
            task,
            artifact,
            own: BTreeMap::new(),
            last: Called::default(),
            totals: Totals::default(),
        }
    }
}

/// What a task has cost so far.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Totals {
    /// Calls of agents.
    pub calls: u32,
    /// Calls that failed.
    pub failures: u32,
    /// Tokens used.
    pub tokens: u64,
    /// Money charged, in the team's currency.
    pub money: f64,
}

/// How the last call ended.
#[derive(Clone, Debug)]
struct Called {
    ended: &'static str,
    operation: String,
}

impl Default for Called {
    fn default() -> Self {
        Called { ended: "-", operation: "-".to_owned() }
    }
}

/// What a call led to.
#[derive(Clone, Debug)]
pub struct Performance {
    /// r: the price of the call and what the agent itself reports.
    pub reward: f64,
    /// What it used up.
    pub usage: Usage,
    /// What went wrong, for people.
    pub failure: Option<String>,
}

/// One task before the team.
pub struct Scene<'s> {
    stage: &'s Stage,
    task: Task,
    artifact: Artifact,
    /// Private facts, by agent: kept for the task, never handed on.
    own: BTreeMap<AgentId, Facts>,
    last: Called,
    totals: Totals,
}

impl<'s> Scene<'s> {
    /// The task.
    pub fn task(&self) -> &Task {
        &self.task
    }

    /// What is being handed over.
    pub fn artifact(&self) -> &Artifact {
        &self.artifact
    }

    /// What it has cost so far.
    pub fn totals(&self) -> Totals {
        self.totals
    }

    /// Control arrives at the next agent.
    pub fn arrive(&mut self) {
        self.last = Called::default();
    }

    /// The situation of `agent`, to which `sender` handed over.
    pub fn situation(&self, agent: AgentId, sender: AgentId) -> Situation<'_> {
        const NOTHING: &Facts = &Facts::new();
        Situation {
            view: &self.stage.views[agent.0 as usize],
            own: self.own.get(&agent).unwrap_or(NOTHING),
            sender: self.stage.team.agent_name(sender),
            ended: self.last.ended,
            operation: &self.last.operation,
        }
    }

    /// What `agent` sees now, with its readable name.
    pub fn observe(&self, agent: AgentId, sender: AgentId) -> (String, Observation) {
        let situation = self.situation(agent, sender);
        let name = situation.name(&self.artifact);
        let observation = situation.observation(&name, situation.legal(&self.artifact));
        (name, observation)
    }

    /// What `agent` sees when it chooses among its own operations.
    pub fn observe_operations(&self, agent: AgentId, sender: AgentId) -> (String, Observation) {
        let situation = self.situation(agent, sender);
        let name = situation.name(&self.artifact);
        let operations = self.stage.team.agents[agent.0 as usize].operations.len();
        let observation = situation.observation(&name, ActionSet::all(operations));
        (name, observation)
    }

    /// The call by which `agent` does its work.
    pub fn call(&self, agent: AgentId, operation: OperationId, handoff: HandoffId) -> BoxFuture<'s, Outcome> {
        let stage = self.stage;
        let (performer, artifact) = (&stage.agents[agent.0 as usize], self.artifact.clone());
        let (agent, operation) = stage.operation(agent, operation);
        let call = OperationCall { agent, operation, handoff: HandoffLabel(handoff.to_string()) };
        Box::pin(async move { performer.perform(&call, artifact).await })
    }

    /// Take what came of such a call.
    pub fn take(&mut self, agent: AgentId, operation: OperationId, outcome: Outcome) -> Performance {
        let reward = &self.stage.team.reward;
        // r = price of a call + tokens / 1000 * their price + money * its weight + what the agent measured
        let used = outcome.tokens as f64 / 1000.0 * reward.tokens + outcome.money * reward.money;
        let mut performance = Performance {
            reward: reward.call + used + outcome.reward.unwrap_or(0.0),
            usage: Usage { tokens: outcome.tokens, failures: 0 },
            failure: None,
        };
        self.artifact = outcome.artifact;
        self.own.entry(agent).or_default().extend(outcome.private);
        let (_, operation) = self.stage.operation(agent, operation);
        self.last = Called { ended: "done", operation: operation.to_owned() };
        if let Ending::Failed(failure) = outcome.ending {
            self.last.ended = failure.kind().word();
            performance.reward += reward.failure;
            performance.usage.failures = 1;
            performance.failure = Some(match outcome.stderr_tail.trim() {
                "" => failure.to_string(),
                tail => format!("{failure}; its last words: {tail}"),
            });
        }
        self.totals.calls += 1;
        self.totals.failures += performance.usage.failures;
        self.totals.tokens += performance.usage.tokens;
        self.totals.money += outcome.money;
        performance
    }

    /// Let `agent` do its work.
    pub async fn perform(
        &mut self,
        agent: AgentId,
        operation: OperationId,
        handoff: HandoffId,
    ) -> Performance {
        let outcome = self.call(agent, operation, handoff).await;
        self.take(agent, operation, outcome)
    }

    /// The quality of what came out, in [0, 1], if it can be known.
    pub fn quality(&self) -> Option<f64> {
        self.stage.tasks.quality(&self.task, &self.artifact)
    }

    /// The reward of concluding the task now.
    pub fn conclude(&self) -> f64 {
        self.stage.team.reward.success * self.quality().unwrap_or(0.0)
    }
}
