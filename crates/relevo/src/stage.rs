//! The doing: one task on its way through a team, whoever decides. [`crate::learn`] decides by participants that
//! learn; [`crate::evaluate`] by a learned policy or a fixed workflow. Both act here, and only here.

use std::{
    collections::BTreeMap,
    num::NonZeroU64,
    path::Path,
    sync::{Arc, OnceLock},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use futures_util::future::BoxFuture;
use relevo_core::{
    ids::{ActionId, AgentId, HandoffId, OperationId},
    learner::{Estimator, LocalSpec, Regime},
    observation::{ActionSet, Features, Observation},
    pools::PooledSpec,
    protocol::ParticipantSpec,
    units::{UnitError, Usage},
};

use crate::{
    agent::{
        Agent, Failure, FailureKind, HandoffLabel, OperationCall, Outcome,
        model::{Listener, ModelAgent},
        process::{Brief, ProcessAgent},
    },
    artifact::{Artifact, Facts},
    coordinate::{
        coordination::{Coordination, cell},
        document::Document,
        plan::Move,
        progress::{Progress, Reply},
        stand::{Decision, Stand},
    },
    guard::{Masks, StopReason, TeamGuard},
    interface::{Situation, View},
    judge::{self, Candidate, Judge},
    model::{Models, NamedModel, environment::Environment},
    redact::Redactor,
    reward::{self, Spent, Usual},
    tasks::{FileTasks, Simulator, Task, TaskError, TaskSource},
    team::{
        AgentSpec, EstimatorSection, FINISH, Failures, JudgeSpec, RewardScale, TasksSpec, TeamSpec, nearest,
    },
};

/// A team with everything that it takes to act: programs, models or a simulated world, and tasks.
pub struct Stage {
    team: TeamSpec,
    deciders: Deciders,
    agents: Vec<Arc<dyn Agent>>,
    models: Models,
    listener: Arc<OnceLock<Listener>>,
    tasks: Arc<dyn TaskSource>,
    redactor: Option<Redactor>,
    clock: Clock,
    judge: Option<(Arc<dyn Judge>, NonZeroU64)>,
}

/// Who decides in a team.
enum Deciders {
    /// Every agent for itself, by what it sees.
    Agents { views: Vec<View>, regimes: Vec<Regime> },
    /// One coordinator, whose operations invoke the agents, or skip them. The view is the agents', which see facts alone.
    Coordinator { coordination: Arc<Coordination>, view: View },
}

/// What an agent with only one operation calls it.
const DEFAULT: &str = "default";

/// The participant of a coordinated team.
pub const COORDINATOR: &str = "coordinator";

/// Milliseconds since 1970; it never goes back.
pub type Clock = Arc<dyn Fn() -> u64 + Send + Sync>;

impl Stage {
    /// Set up a team whose file lies in `directory`; `simulator` is the world that its `[simulate]` section asks for.
    pub fn new(
        team: TeamSpec,
        directory: &Path,
        simulator: Option<Arc<dyn Simulator>>,
    ) -> Result<Self, TaskError> {
        let mut agents: Vec<Arc<dyn Agent>> = Vec::with_capacity(team.agents.len());
        let listener: Arc<OnceLock<Listener>> = Arc::default();
        let (epoch, began) =
            (SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default(), Instant::now());
        let models = match team.models.is_empty() {
            true => Models::default(),
            false => {
                let environment = Environment::of(directory).map_err(TaskError)?;
                // Processes that were turned away together are not to come back together.
                let seed = epoch.as_nanos() as u64 ^ u64::from(std::process::id());
                Models::new(&team.models, &environment, seed).map_err(TaskError)?
            }
        };
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
                (None, None, _) => match agent.model().and_then(|name| models.get(name)) {
                    Some(NamedModel { section, model, .. }) => Arc::new(ModelAgent {
                        model: model.clone(),
                        price: section.price,
                        temperature: section.temperature,
                        max_tokens: section.max_tokens,
                        role: team.coordinator.as_ref().and_then(|_| Some(cell(agent).ok()?.role)),
                        instructions: agent.card.as_ref().map_or(String::new(), |c| c.instructions.clone()),
                        timeout: Duration::from_millis(agent.timeout_ms),
                        output_bytes_max: agent.output_bytes_max,
                        listener: listener.clone(),
                    }),
                    None => return Err(nothing_to_act_with(agent)),
                },
                (None, Some(_), None) => return Err(nothing_to_act_with(agent)),
            });
        }
        if team.reward.retry != 0.0 || team.reward.scale != RewardScale::Absolute {
            return Err(TaskError(
                "[reward] retry and scale = \"median\" are not applied while learning yet: leave them out"
                    .into(),
            ));
        }
        // A rule is applied at once, by the tasks themselves.
        let judge = match &team.tasks {
            None | Some(TasksSpec { judge: JudgeSpec::Rule(_), .. }) => None,
            Some(TasksSpec { judge, .. }) => {
                let made = judge::of_team(judge, directory, |name| models.judge(name));
                Some(made.map_err(|name| TaskError(models.unknown("[tasks] judge", &name)))?)
            }
        };
        let tasks: Arc<dyn TaskSource> = match (&team.tasks, simulator) {
            (Some(spec), _) => Arc::new(FileTasks::load(spec, directory)?),
            (None, Some(world)) => world,
            (None, None) => return Err(TaskError("the team has neither tasks nor a simulated world".into())),
        };
        let deciders = match &team.coordinator {
            Some(_) => Deciders::Coordinator {
                coordination: Arc::new(Coordination::of(&team).map_err(TaskError)?),
                view: View::default(),
            },
            None => Deciders::Agents {
                views: team.agents.iter().map(|a| View::new(a, &team.learner.estimator)).collect(),
                regimes: team.agents.iter().map(|a| team.regime(a)).collect(),
            },
        };
        let clock: Clock = Arc::new(move || (epoch + began.elapsed()).as_millis() as u64);
        let redactor = team.trace.redact.clone().map(|command| Redactor::new(command, directory));
        Ok(Stage { team, deciders, agents, models, listener, tasks, redactor, clock, judge })
    }

    /// The same stage by another clock.
    pub fn with_clock(self, clock: Clock) -> Self {
        Stage { clock, ..self }
    }

    /// The same stage, with tasks judged by `judge`, so many attempts at the same task together.
    pub fn judged_by(self, judge: Arc<dyn Judge>, group: NonZeroU64) -> Self {
        Stage { judge: Some((judge, group)), ..self }
    }

    /// Who judges what comes out, and how many attempts at a task together; `None` where that is known at once.
    pub fn judge(&self) -> Option<(&dyn Judge, NonZeroU64)> {
        self.judge.as_ref().map(|(judge, group)| (&**judge, *group))
    }

    /// Let somebody hear the answers of models as they grow; the first who asks.
    pub fn listen(&self, listener: Listener) {
        let _ = self.listener.set(listener);
    }

    /// By what the time of calls is told.
    pub fn clock(&self) -> Clock {
        self.clock.clone()
    }

    /// The team.
    pub fn team(&self) -> &TeamSpec {
        &self.team
    }

    /// Its models.
    pub fn models(&self) -> &Models {
        &self.models
    }

    /// Its tasks.
    pub fn tasks(&self) -> &dyn TaskSource {
        &*self.tasks
    }

    /// What content goes through before it is kept, if anything is.
    pub(crate) fn redactor(&self) -> Option<&Redactor> {
        self.redactor.as_ref()
    }

    /// What a participant learns, and when it chooses.
    pub fn regime(&self, participant: AgentId) -> Regime {
        match &self.deciders {
            Deciders::Agents { regimes, .. } => regimes[participant.0 as usize],
            Deciders::Coordinator { coordination, .. } => {
                Regime::Adaptable { operations: coordination.width() as u32 }
            }
        }
    }

    /// The coordination of a coordinated team.
    pub fn coordination(&self) -> Option<&Arc<Coordination>> {
        match &self.deciders {
            Deciders::Agents { .. } => None,
            Deciders::Coordinator { coordination, .. } => Some(coordination),
        }
    }

    /// The participants of a run of `episodes`, with their names: the agents, or the coordinator.
    pub fn participants(&self, episodes: u64) -> Result<Vec<(&str, ParticipantSpec)>, UnitError> {
        match &self.deciders {
            Deciders::Coordinator { coordination, .. } => {
                let mut spec = self.team.participant(AgentId(0), episodes)?;
                if let Estimator::Pooled(pooled) = spec.learner.estimator.clone() {
                    let estimator = Estimator::Pooled(PooledSpec { groups: coordination.groups(), ..pooled });
                    let step = spec.learner.step;
                    spec.learner.local = Some(LocalSpec { estimator, step, replay: None });
                }
                Ok(vec![(COORDINATOR, spec)])
            }
            Deciders::Agents { .. } => {
                let agents = self.team.agents.iter().zip((0..).map(AgentId));
                agents.map(|(a, id)| Ok((a.name.as_str(), self.team.participant(id, episodes)?))).collect()
            }
        }
    }

    /// Whether of a failed call nothing is learned but that it failed.
    pub fn counts_failures(&self) -> bool {
        self.team.coordinator.as_ref().is_some_and(|section| section.failures == Failures::Counted)
    }

    /// The name of a participant.
    pub fn participant_name(&self, participant: AgentId) -> &str {
        match &self.deciders {
            Deciders::Coordinator { .. } if participant != AgentId::ORIGIN => COORDINATOR,
            _ => self.team.agent_name(participant),
        }
    }

    /// With whom every task begins.
    pub fn start(&self) -> AgentId {
        match &self.deciders {
            Deciders::Coordinator { .. } => AgentId(0),
            Deciders::Agents { .. } => self.team.agent_id(&self.team.start).expect("names were checked"),
        }
    }

    /// The columns of a participant's tables by name: successors, and operations if it has several.
    pub fn columns(&self, participant: AgentId) -> (Vec<String>, Vec<String>) {
        match &self.deciders {
            Deciders::Coordinator { coordination: c, .. } => {
                let columns = (0..c.width() as u32).map(|column| c.column_identity(ActionId(column)));
                (vec![FINISH.to_owned()], columns.collect())
            }
            Deciders::Agents { .. } => {
                let agent = &self.team.agents[participant.0 as usize];
                let adaptable = matches!(self.regime(participant), Regime::Adaptable { .. });
                let operations = if adaptable { agent.operations.clone() } else { vec![] };
                (agent.handoffs.iter().map(|h| h.to().to_owned()).collect(), operations)
            }
        }
    }

    /// Whether calls leave this process, so that their records must be durable before.
    pub fn is_external(&self) -> bool {
        self.team.agents.iter().any(|a| a.simulate.is_none())
    }

    /// Whom a choice of a participant is about: a successor of an agent, a cell that a coordinator invokes; `None` where it
    /// concludes or skips.
    pub fn callee(&self, participant: AgentId, action: ActionId) -> Option<AgentId> {
        match &self.deciders {
            Deciders::Agents { .. } => self.team.agent_id(self.team.choice_name(participant, action)),
            Deciders::Coordinator { coordination, .. } => match coordination.move_of(action) {
                Move::Skip(_) => None,
                Move::Invoke(cell) | Move::Only(cell) => Some(AgentId(cell as u32)),
            },
        }
    }

    /// The agents that choices are about.
    pub fn callees(&self, participant: AgentId, choices: &ActionSet) -> Vec<AgentId> {
        choices.iter().filter_map(|action| self.callee(participant, action)).collect()
    }

    /// Take from what a participant sees the choices that guards keep from it.
    pub fn mask(&self, participant: AgentId, masks: &Masks, sight: &mut Sight) {
        let guard_of = |a: ActionId| Some((a, masks.of(self.callee(participant, a)?)?.word()));
        let legal = &mut sight.observation.legal;
        sight.masked.extend(legal.iter().filter_map(guard_of));
        *legal = legal.iter().filter(|a| guard_of(*a).is_none()).collect();
    }

    /// Who hands to those that a participant chooses, as far as guards mind: a coordinator is no agent.
    pub fn giver(&self, participant: AgentId) -> AgentId {
        if self.coordination().is_some() { AgentId::ORIGIN } else { participant }
    }

    /// The guard of a run that begins now.
    pub fn guard(&self) -> TeamGuard {
        TeamGuard::new(self.team.guards(), (self.clock)())
    }

    /// The name of an operation of a participant.
    pub fn operation_name(&self, participant: AgentId, operation: OperationId) -> String {
        match &self.deciders {
            Deciders::Coordinator { coordination: c, .. } => c.column_name(ActionId(operation.0)),
            Deciders::Agents { .. } => self.operation(participant, operation).to_owned(),
        }
    }

    /// Whether calls of this agent leave the process.
    pub fn leaves_process(&self, agent: AgentId) -> bool {
        self.team.agents[agent.0 as usize].simulate.is_none()
    }

    /// What a coordinator sees.
    fn sight(&self, decision: Decision) -> Sight {
        let mut observation = decision.observation();
        if matches!(self.team.learner.estimator, EstimatorSection::Pooled { .. }) {
            observation.features = Features::Coarser(decision.coarser_signatures());
        }
        Sight { name: decision.name, observation, masked: decision.masked }
    }

    /// The name of an operation of an agent that decides for itself.
    fn operation(&self, agent: AgentId, operation: OperationId) -> &str {
        let operations = &self.team.agents[agent.0 as usize].operations;
        operations.get(operation.0 as usize).map_or(DEFAULT, String::as_str)
    }

    /// Bring a task before the team.
    pub fn open(&self, task: Task) -> Result<Scene<'_>, TaskError> {
        let mut artifact = task.artifact.clone();
        let progress = match &self.deciders {
            Deciders::Agents { .. } => None,
            Deciders::Coordinator { coordination, .. } => {
                let progress = Progress::open(coordination, &artifact.facts, &artifact.payload);
                let progress = progress.map_err(|e| TaskError(format!("task {}: {e}", task.id)))?;
                artifact.payload = progress.payload().into();
                Some(progress)
            }
        };
        let (answer, own, last, totals) = Default::default();
        Ok(Scene { stage: self, task, artifact, progress, answer, own, last, totals })
    }
}

fn nothing_to_act_with(agent: &AgentSpec) -> TaskError {
    TaskError(format!("agent {:?} has nothing to act with", agent.name))
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

/// What a participant sees, and under which name.
#[derive(Clone, Debug, Default)]
pub struct Sight {
    /// The readable name of the situation.
    pub name: String,
    /// All that the participant is told of it.
    pub observation: Observation,
    /// Choices that would be admissible, but for a guard that is named.
    pub masked: Vec<(ActionId, &'static str)>,
}

/// What follows an operation.
#[derive(Clone, Debug)]
pub enum After {
    /// Another operation is chosen.
    Operate(Sight),
    /// The successor is chosen.
    HandOver(Sight),
    /// The task has stopped, for this reason, and is judged.
    Concluded(StopReason),
}

/// What a call led to.
#[derive(Clone, Debug)]
pub struct Performance {
    /// r: the price of the call and what the agent itself reports.
    pub reward: f64,
    /// What it used up.
    pub usage: Usage,
    /// What it was charged, in the team's currency.
    pub money: f64,
    /// How it ended.
    pub ended: Result<(), FailureKind>,
    /// What went wrong, for people.
    pub failure: Option<String>,
}

/// One task before the team.
pub struct Scene<'s> {
    stage: &'s Stage,
    task: Task,
    artifact: Artifact,
    /// How far a coordinated task got.
    progress: Option<Progress>,
    /// What somebody came to who took the task over.
    answer: Option<Arc<[u8]>>,
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

    /// The kind of task that a coordinator has before it: its regime, and the facts that tell tasks apart.
    pub fn kind(&self) -> String {
        self.progress.as_ref().map_or(String::new(), Progress::kind)
    }

    /// What it has cost so far.
    pub fn totals(&self) -> Totals {
        self.totals
    }

    /// The situation of `agent`, to which `sender` handed over.
    pub fn situation(&self, agent: AgentId, sender: AgentId) -> Situation<'_> {
        const NOTHING: &Facts = &Facts::new();
        Situation {
            view: match &self.stage.deciders {
                Deciders::Agents { views, .. } => &views[agent.0 as usize],
                Deciders::Coordinator { view, .. } => view,
            },
            own: self.own.get(&agent).unwrap_or(NOTHING),
            sender: self.stage.participant_name(sender),
            ended: self.last.ended,
            operation: &self.last.operation,
        }
    }

    /// What a person is told of the situation of `agent`: what it sees. A cell sees all facts.
    pub fn described(&self, agent: AgentId, sender: AgentId) -> String {
        match &self.progress {
            None => self.situation(agent, sender).name(&self.artifact),
            Some(_) => {
                let facts = self.artifact.facts.iter().map(|(name, value)| format!("{name}={value}"));
                facts.collect::<Vec<_>>().join(" ")
            }
        }
    }

    /// Whether a person must approve of a call of `agent`, to which `sender` handed over.
    pub fn needs_approval(&self, agent: AgentId, sender: AgentId) -> bool {
        let approval = &self.stage.team.agents[agent.0 as usize].approval;
        approval.as_ref().is_some_and(|approval| {
            approval.is_needed(|when| self.situation(agent, sender).holds(when, &self.artifact))
        })
    }

    /// A number that stands for what is handed over, where the guards look for repetitions.
    pub fn digest(&self, guard: &TeamGuard) -> u64 {
        if guard.spec().repetition.is_none() {
            return 0;
        }
        let mut hasher = blake3::Hasher::new();
        hasher.update(&serde_json::to_vec(&self.artifact.facts).expect("texts, numbers and truth values"));
        hasher.update(&self.artifact.payload);
        let mut first = [0; 8];
        first.copy_from_slice(&hasher.finalize().as_bytes()[..8]);
        u64::from_le_bytes(first)
    }

    /// How calls in a handoff are labelled: a coordinator makes several.
    pub fn label(&self, handoff: HandoffId) -> HandoffLabel {
        HandoffLabel(match &self.progress {
            Some(progress) => format!("{handoff}.{}", progress.steps()),
            None => handoff.to_string(),
        })
    }

    /// The task ends for a reason that lies outside of its plan.
    pub fn halt(&mut self, reason: StopReason) {
        if let Some(progress) = &mut self.progress {
            progress.halt(reason);
        }
    }

    /// Control arrives at a participant, and this is what it sees: to choose an operation from, or a successor where it
    /// has but one operation.
    pub fn arrive(&mut self, participant: AgentId, sender: AgentId) -> Sight {
        self.last = Called::default();
        if let Some(progress) = &self.progress {
            return match progress.stand() {
                Stand::Decide(decision) => self.stage.sight(decision),
                Stand::Stop(_) => Sight::default(),
            };
        }
        let situation = self.situation(participant, sender);
        let legal = match self.stage.regime(participant) {
            Regime::Adaptable { operations } => ActionSet::all(operations as usize),
            Regime::PreConfigured(_) => situation.legal(&self.artifact),
        };
        self.sight(&situation, legal)
    }

    /// What follows an operation of a participant.
    pub fn after(&self, participant: AgentId, sender: AgentId) -> After {
        if let Some(progress) = &self.progress {
            return match progress.stand() {
                Stand::Decide(decision) => After::Operate(self.stage.sight(decision)),
                Stand::Stop(reason) => After::Concluded(reason),
            };
        }
        let situation = self.situation(participant, sender);
        After::HandOver(self.sight(&situation, situation.legal(&self.artifact)))
    }

    fn sight(&self, situation: &Situation<'_>, legal: ActionSet) -> Sight {
        let name = situation.name(&self.artifact);
        let observation = situation.observation(&name, legal);
        Sight { name, observation, masked: vec![] }
    }

    /// Whom an operation of a participant calls, and the call; `None` where it skips somebody.
    pub fn call(
        &self,
        participant: AgentId,
        operation: OperationId,
        handoff: HandoffId,
    ) -> Option<(AgentId, BoxFuture<'s, Outcome>)> {
        let stage = self.stage;
        let (agent, operation) = match &stage.deciders {
            Deciders::Agents { .. } => (participant, stage.operation(participant, operation)),
            Deciders::Coordinator { coordination: c, .. } => match c.move_of(ActionId(operation.0)) {
                Move::Skip(_) => return None,
                Move::Invoke(cell) | Move::Only(cell) => (AgentId(cell as u32), DEFAULT),
            },
        };
        Some((agent, self.call_with(agent, operation, handoff)))
    }

    /// A call of `agent`, whoever was chosen.
    pub fn call_agent(&self, agent: AgentId, handoff: HandoffId) -> BoxFuture<'s, Outcome> {
        self.call_with(agent, DEFAULT, handoff)
    }

    fn call_with(&self, agent: AgentId, operation: &'s str, handoff: HandoffId) -> BoxFuture<'s, Outcome> {
        let stage = self.stage;
        let (performer, artifact) = (&stage.agents[agent.0 as usize], self.artifact.clone());
        let agent = &stage.team.agents[agent.0 as usize].name;
        let call = OperationCall { agent, operation, handoff: self.label(handoff) };
        Box::pin(async move { performer.perform(&call, artifact).await })
    }

    /// Take what came of such a call; nothing, where somebody was skipped.
    pub fn take(
        &mut self,
        participant: AgentId,
        operation: OperationId,
        outcome: Option<Outcome>,
        ms: u64,
    ) -> Performance {
        let Some(outcome) = outcome else {
            let progress = self.progress.as_mut().expect("only a coordinator skips");
            progress.skip(ActionId(operation.0));
            let usage = Usage::default();
            return Performance { reward: 0.0, usage, money: 0.0, ended: Ok(()), failure: None };
        };
        let mut failure = outcome.failure().cloned();
        let (facts, payload) = (outcome.artifact.facts.clone(), outcome.artifact.payload.clone());
        match &mut self.progress {
            None => {
                self.artifact = Artifact { facts, payload };
                self.own.entry(participant).or_default().extend(outcome.private.clone());
                let operation = self.stage.operation(participant, operation).to_owned();
                self.last = Called { ended: "done", operation };
            }
            Some(progress) => {
                let reply = if failure.is_none() { Reply::Document(&payload) } else { Reply::Failed };
                if let Err(e) = progress.performed(ActionId(operation.0), reply) {
                    failure = Some(Failure::Garbage(e.to_string()));
                }
                if failure.is_none() {
                    self.artifact.facts = facts;
                }
                self.artifact.payload = progress.payload().into();
            }
        }
        self.count(&outcome, ms, failure)
    }

    /// Take what came of a call of somebody who took the task over: it is what comes out.
    pub fn take_over(&mut self, outcome: Outcome, ms: u64) -> Performance {
        let mut failure = outcome.failure().cloned();
        if failure.is_none() {
            let answer = match &self.progress {
                None => Ok(outcome.artifact.payload.clone()),
                Some(_) => Document::parse(&outcome.artifact.payload)
                    .map(|document| document.answer().unwrap_or_default().as_bytes().into()),
            };
            match answer {
                Ok(payload) => self.answer = Some(payload),
                Err(e) => failure = Some(Failure::Garbage(e.to_string())),
            }
        }
        self.count(&outcome, ms, failure)
    }

    /// What a call has cost, and how it ended.
    fn count(&mut self, outcome: &Outcome, ms: u64, failure: Option<Failure>) -> Performance {
        let failures = u32::from(failure.is_some());
        let (tokens, money) = (outcome.tokens, outcome.money);
        let spent = Spent { calls: 1, failures, tokens, money, ms, ..Spent::default() };
        let cost = reward::cost(&self.stage.team.reward, &spent, &Usual::default());
        let mut performance = Performance {
            reward: cost + outcome.reward.unwrap_or(0.0),
            usage: Usage { tokens, failures },
            money,
            ended: Ok(()),
            failure: None,
        };
        if let Some(failure) = failure {
            self.last.ended = failure.kind().word();
            performance.ended = Err(failure.kind());
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

    /// Let a participant do its work.
    pub async fn perform(
        &mut self,
        participant: AgentId,
        operation: OperationId,
        handoff: HandoffId,
    ) -> Performance {
        let outcome = match self.call(participant, operation, handoff) {
            Some((_, call)) => Some(call.await),
            None => None,
        };
        self.take(participant, operation, outcome, 0)
    }

    /// What comes out: the artifact, or in a coordinated team the answer in it.
    pub fn result(&self) -> Artifact {
        let mut result = self.artifact.clone();
        result.payload = match (&self.answer, &self.progress) {
            (Some(answer), _) => answer.clone(),
            (None, Some(progress)) => progress.result().into(),
            (None, None) => result.payload,
        };
        result
    }

    /// What judges are shown of a task in which `acted`: their roles, never their names, which would tell whom is judged.
    pub fn candidate(&self, acted: &[AgentId]) -> Candidate {
        let role = |agent: &AgentId| self.stage.team.agents[agent.0 as usize].role;
        let mut candidate = Candidate {
            task: self.task.id.clone(),
            question: match &self.progress {
                Some(progress) => progress.document().goal.clone().unwrap_or_default(),
                None => String::from_utf8_lossy(&self.task.artifact.payload).into_owned(),
            },
            expected: self.task.expected.clone(),
            path: acted.iter().filter_map(|agent| Some(role(agent)?.name().to_owned())).collect(),
            answer: self.result().payload.to_vec(),
            ..Candidate::default()
        };
        if let Some(progress) = &self.progress {
            let document = progress.document();
            let evidence = document.evidence.iter().map(|e| (e.source.clone(), e.text.clone()));
            candidate.evidence = evidence.collect();
            candidate.verifier_notes =
                document.verification.as_ref().map_or(String::new(), |v| v.notes.clone());
        }
        candidate
    }

    /// The quality of what came out, in [0, 1], if it can be known.
    pub fn quality(&self) -> Option<f64> {
        self.stage.tasks.quality(&self.task, &self.result())
    }
}
