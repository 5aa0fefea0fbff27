//! The doing: a team with everything that it takes to act, and each task on its way through it as a [`Scene`], whoever
//! decides. [`crate::learn`] decides by participants that learn; [`crate::evaluate`] by a learned policy or a fixed workflow.
//! Both act here, and only here.

mod cast;
mod node;
mod scene;

use cast::Cast;
pub(crate) use scene::SavedScene;
pub use scene::{After, Performance, Scene, Sight};

use std::{
    fs, io,
    num::NonZeroU64,
    path::Path,
    sync::{Arc, OnceLock},
    time::{Instant, SystemTime, UNIX_EPOCH},
};

use relevo_core::{
    ids::{ActionId, AgentId, OperationId},
    learner::{Estimator, LocalSpec, Regime},
    observation::{ActionSet, Features},
    pools::PooledSpec,
    protocol::ParticipantSpec,
    units::UnitError,
};

use crate::{
    agent::{Agent, model::Listener},
    coordinate::{coordination::Coordination, plan::Move, progress::Progress, stand::Decision},
    guard::{Masks, TeamGuard},
    interface::{Patterns, View, compile},
    judge::{self, Candidate, Judge, Verdict},
    model::{Models, environment::Environment},
    observe::{Observer, Occasion, Purpose, Watched, WorkEnd},
    problems::Problems,
    redact::Redactor,
    reward::Usual,
    tasks::{Epochs, FileTasks, NoTasks, Simulator, Task, TaskError, TaskSource},
    team::{AgentSpec, EstimatorSection, FINISH, Failures, JudgeSpec, OperationSpec, TasksSpec, TeamSpec},
    tool::ToolServers,
};

/// A team with everything that it takes to act: programs, models or a simulated world, and tasks.
pub struct Stage {
    team: TeamSpec,
    deciders: Deciders,
    agents: Vec<Arc<dyn Agent>>,
    models: Models,
    tools: ToolServers,
    listener: Arc<OnceLock<Listener>>,
    /// None at a node, to which others bring them.
    tasks: Option<Arc<dyn TaskSource>>,
    /// Other organisations, by number.
    peers: Vec<String>,
    redactor: Option<Redactor>,
    clock: Clock,
    judge: Option<(Arc<dyn Judge>, NonZeroU64)>,
    observer: Option<Arc<dyn Observer>>,
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
        node::without_others(&team)?;
        let tasks: Arc<dyn TaskSource> = match (&team.tasks, &team.problems, simulator.clone()) {
            (Some(spec), _, _) => Arc::new(FileTasks::load(spec, directory)?),
            (None, Some(section), _) => Arc::new(Problems::new(section, directory)?),
            (None, None, Some(world)) => world,
            (None, None, None) => {
                return Err(TaskError(
                    "where do tasks come from? add [tasks] (files), [problems] (generated) or [simulate]"
                        .into(),
                ));
            }
        };
        Self::set_up(team, directory, simulator, Some(tasks))
    }

    fn set_up(
        team: TeamSpec,
        directory: &Path,
        simulator: Option<Arc<dyn Simulator>>,
        tasks: Option<Arc<dyn TaskSource>>,
    ) -> Result<Self, TaskError> {
        let (epoch, began) =
            (SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default(), Instant::now());
        let (mut models, mut tools) = (Models::default(), ToolServers::default());
        if !(team.models.is_empty() && team.tools.is_empty()) {
            let environment = Environment::of(directory).map_err(TaskError)?;
            // Processes that were turned away together are not to come back together.
            let seed = epoch.as_nanos() as u64 ^ u64::from(std::process::id());
            models = Models::new(&team.models, &environment, seed).map_err(TaskError)?;
            tools = ToolServers::new(&team.tools, directory, &environment).map_err(TaskError)?;
        }
        let listener: Arc<OnceLock<Listener>> = Arc::default();
        let cast = Cast {
            team: &team,
            directory,
            world: simulator.as_deref(),
            models: &models,
            tools: &tools,
            listener: &listener,
        };
        let agents = team.local().map(|agent| cast.actor(agent)).collect::<Result<_, _>>()?;
        // A rule is applied at once, by the tasks themselves.
        let judge = match team.tasks.as_ref().filter(|_| tasks.is_some()) {
            None | Some(TasksSpec { judge: JudgeSpec::Rule(_), .. }) => None,
            Some(TasksSpec { judge, .. }) => {
                let made = judge::of_team(judge, directory, |name| models.judge(name));
                Some(made.map_err(|name| TaskError(models.unknown("[tasks] judge", &name)))?)
            }
        };
        let deciders = match &team.coordinator {
            Some(_) => Deciders::Coordinator {
                coordination: Arc::new(Coordination::of(&team).map_err(TaskError)?),
                view: View::default(),
            },
            None => {
                let compiled = |(name, pattern): (&String, &String)| Ok((name.clone(), compile(pattern)?));
                let patterns: Result<Patterns, String> = team.payload.iter().map(compiled).collect();
                let patterns = Arc::new(patterns.map_err(TaskError)?);
                let view = |agent| View::new(agent, &team.learner.estimator, patterns.clone());
                Deciders::Agents {
                    views: team.local().map(view).collect(),
                    regimes: team.local().map(|a| team.regime(a)).collect(),
                }
            }
        };
        let clock: Clock = Arc::new(move || (epoch + began.elapsed()).as_millis() as u64);
        let redactor = team.trace.redact.clone().map(|command| Redactor::new(command, directory));
        let (peers, observer) = (vec![], None);
        Ok(Stage {
            team,
            deciders,
            agents,
            models,
            tools,
            listener,
            tasks,
            peers,
            redactor,
            clock,
            judge,
            observer,
        })
    }

    /// The same stage by another clock.
    pub fn with_clock(self, clock: Clock) -> Self {
        Stage { clock, ..self }
    }

    /// The same stage, on which these do the work of the team's own agents, in the order of the team file.
    pub fn acted_by(self, agents: Vec<Arc<dyn Agent>>) -> Self {
        Stage { agents, ..self }
    }

    /// The same stage, on which what is learned is learned in epochs.
    pub fn in_epochs(self) -> Self {
        let tasks = self.tasks.map(|tasks| Arc::new(Epochs(tasks)) as Arc<dyn TaskSource>);
        Stage { tasks, ..self }
    }

    /// The same stage, with tasks judged by `judge`, so many attempts at the same task together.
    pub fn judged_by(self, judge: Arc<dyn Judge>, group: NonZeroU64) -> Self {
        Stage { judge: Some((judge, group)), ..self }
    }

    /// The same stage, at which somebody looks.
    pub fn observed_by(self, observer: Arc<dyn Observer>) -> Self {
        Stage { observer: Some(observer), ..self }
    }

    /// Who looks on, if anybody does.
    pub fn observer(&self) -> Option<&Arc<dyn Observer>> {
        self.observer.as_ref()
    }

    /// Who judges what comes out, and how many attempts at a task together; `None` where that is known at once.
    pub fn judge(&self) -> Option<(&dyn Judge, NonZeroU64)> {
        self.judge.as_ref().map(|(judge, group)| (&**judge, *group))
    }

    /// Let somebody hear the answers of models as they grow; the first who asks.
    pub fn listen(&self, listener: Listener) {
        let _ = self.listener.set(listener);
    }

    /// Do work for a task, seen by whoever looks on.
    pub(crate) async fn seen<T>(
        &self,
        watched: Option<Arc<Watched>>,
        purpose: Purpose,
        work: impl Future<Output = T>,
    ) -> T
    where
        for<'t> WorkEnd: From<&'t T>,
    {
        match (watched, &self.observer) {
            (Some(watched), Some(observer)) => watched.see(observer, purpose, self.clock(), work).await,
            _ => work.await,
        }
    }

    /// Let a judge compare what came out of several measurements, seen by whoever looks on.
    pub async fn compare(&self, judge: &dyn Judge, candidates: &[Candidate], label: &str) -> Verdict {
        let watched = self.observer.as_ref().map(|observer| observer.task(Occasion::Comparison));
        let judged = judge.judge(candidates, label);
        let verdict = self.seen(watched.clone(), Purpose::Judgement, judged).await;
        if let (Some(observer), Some(watched)) = (&self.observer, &watched) {
            observer.compared(watched);
        }
        verdict
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

    /// Its tool servers.
    pub fn tools(&self) -> &ToolServers {
        &self.tools
    }

    /// Its tasks; a node's stage has none to give.
    pub fn tasks(&self) -> &dyn TaskSource {
        self.tasks.as_deref().unwrap_or(&NoTasks)
    }

    /// Whether tasks come from here, and are judged here.
    pub fn has_tasks(&self) -> bool {
        self.tasks.is_some()
    }

    /// Make a file content that is kept for people, after it has gone through the redactor if the team has one.
    ///
    /// # Errors
    ///
    /// When it cannot be written, or the redactor fails on it: then it is not kept. The file stays in both cases.
    pub async fn publish(&self, from: &Path, to: &Path) -> io::Result<()> {
        match &self.redactor {
            Some(redactor) => redactor.redact(from, to).await,
            None => fs::copy(from, to).map(drop),
        }
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

    /// The participants of a run of `episodes`, with their names: the agents that are not remote, or the coordinator.
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
                let agents = self.team.local().zip((0..).map(AgentId));
                agents.map(|(a, id)| Ok((a.name.as_str(), self.team.participant(id, episodes)?))).collect()
            }
        }
    }

    /// Whether of a failed call nothing is learned but that it failed.
    pub fn counts_failures(&self) -> bool {
        self.team.coordinator.as_ref().is_some_and(|section| section.failures == Failures::Counted)
    }

    /// The name of a participant, or of another organisation.
    pub fn participant_name(&self, participant: AgentId) -> &str {
        if let Some(peer) = participant.as_peer().and_then(|number| self.peers.get(number as usize)) {
            return peer;
        }
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
                let operations =
                    agent.operations.iter().filter(|_| adaptable).map(|o| o.name().to_owned()).collect();
                (agent.handoffs.iter().map(|h| h.to().to_owned()).collect(), operations)
            }
        }
    }

    /// Whether calls leave this process, so that their records must be durable before.
    pub fn is_external(&self) -> bool {
        self.team.agents.iter().any(AgentSpec::leaves_process)
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
        self.team.agents[agent.0 as usize].leaves_process()
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
        operations.get(operation.0 as usize).map_or(DEFAULT, OperationSpec::name)
    }

    /// Bring a task before the team, for which a task costs as much as is `usual`.
    pub fn open(&self, task: Task, usual: Usual) -> Result<Scene<'_>, TaskError> {
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
        Ok(Scene::new(self, task, artifact, progress, usual))
    }
}
