//! Learning: participants decide, the [`Scene`] acts, the [`Ledger`] remembers. One task after the other, so that the
//! same seed and the same outcomes give the same bytes.
//!
//! Here is the path of a handoff: an effect of [`Participant::apply`] is recorded, carried out, and its outcome goes back in
//! as the next event.

use std::{
    collections::{BTreeMap, VecDeque},
    ops::ControlFlow,
    path::{Path, PathBuf},
};

use relevo_core::{
    Rng,
    ids::{AgentId, EpisodeId, HandoffId},
    learner::{DecisionPoint, Regime},
    observation::{Observation, Signature},
    policy_file::{AgentPolicy, PolicyFile, Source, hex},
    protocol::{Effect, Event, Handoff, Next, Participant, ProtocolError},
    record::{Entry, FORMAT, Reader, Record, RecordError},
    replay::{Replay, ReplayError},
    units::{Return, Tau, UnitError},
};

use crate::{
    ledger::{Ledger, LedgerError, Recovered},
    stage::{Scene, Stage},
    tasks::TaskError,
};

/// Why learning cannot go on. What was learned up to the last whole episode is in the ledger.
#[derive(Debug, thiserror::Error)]
pub enum LearnError {
    /// The ledger.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// The ledger of a run that is to be taken up.
    #[error("{}: {source}", path.display())]
    Unreadable {
        /// The ledger.
        path: PathBuf,
        /// What is wrong.
        source: RecordError,
    },
    /// The ledger says something else than these agents would have done.
    #[error("{}: agent {agent:?}: {source}", path.display())]
    Replay {
        /// The ledger.
        path: PathBuf,
        /// Whose records.
        agent: String,
        /// Where they part.
        source: ReplayError,
    },
    /// The ledger belongs to another run.
    #[error("{}: {message}", path.display())]
    OtherRun {
        /// The ledger.
        path: PathBuf,
        /// In what it differs, and what to try.
        message: String,
    },
    /// A task cannot be had.
    #[error(transparent)]
    Task(#[from] TaskError),
    /// An agent cannot be made as the team file says.
    #[error("agent {agent:?}: {message}")]
    Spec {
        /// The agent.
        agent: String,
        /// Why.
        message: String,
    },
    /// A participant refuses what it is told: a fault of this program.
    #[error("agent {agent:?} refused an event of episode {episode}: {source}; please report this")]
    Protocol {
        /// The agent.
        agent: String,
        /// The episode.
        episode: u64,
        /// Why.
        source: ProtocolError,
    },
    /// A number that is not finite came up.
    #[error("episode {episode}: {source}")]
    Unit {
        /// The episode.
        episode: u64,
        /// Which.
        source: UnitError,
    },
}

/// How a run is to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RunConfig {
    /// The seed of everything random.
    pub seed: u64,
    /// How many episodes.
    pub episodes: u64,
}

/// How an episode ended.
#[derive(Clone, Debug, PartialEq)]
pub struct EpisodeEnd {
    /// Its number, from 0.
    pub episode: u64,
    /// The whole return, discounted per primitive step.
    pub episode_return: f64,
    /// Handoffs between agents.
    pub handoffs: u32,
    /// Why it stopped: `finished`, `ended`, `max-handoffs` or `no-successor`.
    pub stop: &'static str,
    /// Who acted, in order.
    pub path: Vec<AgentId>,
    /// Whether every choice was the best known one.
    pub greedy: bool,
}

/// A run: participants in the state that their ledger leads to.
pub struct Session<'s> {
    stage: &'s Stage,
    config: RunConfig,
    crew: Crew,
    ledger: Ledger,
    seal_every: u64,
    next_episode: u64,
    returns: Vec<f64>,
}

/// The participants of a team, their random streams, and the names of what they have seen.
struct Crew {
    participants: Vec<Participant>,
    rngs: Vec<Rng>,
    names: BTreeMap<Signature, String>,
}

impl Crew {
    fn new(stage: &Stage, config: RunConfig) -> Result<Self, LearnError> {
        let team = stage.team();
        let (mut participants, mut rngs) = (vec![], vec![]);
        for (i, agent) in team.agents.iter().enumerate() {
            let fail = |message: String| LearnError::Spec { agent: agent.name.clone(), message };
            let spec =
                team.participant(AgentId(i as u32), config.episodes).map_err(|e| fail(e.to_string()))?;
            let mut initial = Rng::stream(config.seed, &format!("initial/{}", agent.name));
            participants.push(Participant::new(spec, &mut initial).map_err(|e| fail(e.to_string()))?);
            rngs.push(Rng::stream(config.seed, &format!("policy/{}", agent.name)));
        }
        Ok(Crew { participants, rngs, names: BTreeMap::new() })
    }
}

/// The name of the ledger in the folder of a run.
pub const LEDGER_FILE: &str = "ledger.cbor";

impl<'s> Session<'s> {
    /// Begin a run in the folder `out`, which must hold none yet.
    pub fn start(stage: &'s Stage, out: &Path, config: RunConfig) -> Result<Self, LearnError> {
        let crew = Crew::new(stage, config)?;
        let mut ledger = Ledger::create(&out.join(LEDGER_FILE))?;
        let digest = stage.team().config_digest(&stage.tasks().identity());
        let RunConfig { seed, episodes } = config;
        ledger.append(
            AgentId::ORIGIN,
            Record::Opened { format: FORMAT.into(), config: digest, seed, episodes },
        );
        ledger.seal()?;
        Ok(Session {
            stage,
            config,
            crew,
            ledger,
            seal_every: seal_every(stage),
            next_episode: 0,
            returns: vec![],
        })
    }

    /// Take up the run in the folder `out` after its last whole episode. A seed or number of episodes that is given
    /// must be the run's own. Also says how many bytes of an unfinished episode were dropped.
    pub fn resume(
        stage: &'s Stage,
        out: &Path,
        seed: Option<u64>,
        episodes: Option<u64>,
    ) -> Result<(Self, usize), LearnError> {
        let path = out.join(LEDGER_FILE);
        let (mut ledger, Recovered { bytes, dropped, last }) = Ledger::recover(&path)?;
        let mut reader = Reader::new(&bytes);
        let mut next =
            || reader.next_entry().map_err(|source| LearnError::Unreadable { path: path.clone(), source });
        let other = |message: String| LearnError::OtherRun { path: path.clone(), message };
        let Some(Entry { record: Record::Opened { config, seed: ran, episodes: asked, .. }, .. }) = next()?
        else {
            return Err(other(
                "the ledger is empty: nothing was learned yet; remove it and start the run again, without --resume".into(),
            ));
        };
        if config != stage.team().config_digest(&stage.tasks().identity()) {
            return Err(other(
                "the team file or its training tasks have changed since this run began, and learned values would not fit; \
                 undo the change, or start a new run with --out"
                    .into(),
            ));
        }
        if seed.is_some_and(|s| s != ran) || episodes.is_some_and(|n| n != asked) {
            return Err(other(format!(
                "this run was begun with --seed {ran} --episodes {asked}; exploration is planned over all its episodes, so \
                 resume it with these (or leave them out), or start a new run with --out"
            )));
        }
        let config = RunConfig { seed: ran, episodes: asked };
        let mut crew = Crew::new(stage, config)?;
        let mut replays: Vec<Replay> = crew.participants.iter().map(|_| Replay::default()).collect();
        let mut returns = vec![];
        while let Some(Entry { agent, record }) = next()? {
            match record {
                Record::Named { signature, name } => drop(crew.names.insert(signature, name)),
                Record::Closed { episode_return, .. } => returns.push(episode_return),
                Record::Sealed { .. } => {}
                record => {
                    let i = agent.0 as usize;
                    let Some(replay) = replays.get_mut(i) else {
                        return Err(other(format!("agent {} does not exist in this team", agent.0)));
                    };
                    replay.take(&mut crew.participants[i], &mut crew.rngs[i], &record).map_err(|source| {
                        let agent = stage.team().agent_name(agent).to_owned();
                        LearnError::Replay { path: path.clone(), agent, source }
                    })?;
                }
            }
        }
        ledger.cut_off_torn_end()?;
        let next_episode = returns.len() as u64;
        let seal_every = seal_every(stage);
        let mut session = Session { stage, config, crew, ledger, seal_every, next_episode, returns };
        if !matches!(last, Some(Record::Sealed { .. })) && session.is_seal_due() {
            session.ledger.seal()?;
        }
        Ok((session, dropped))
    }

    /// The seed and number of episodes.
    pub fn config(&self) -> RunConfig {
        self.config
    }

    /// Episodes done.
    pub fn episodes_done(&self) -> u64 {
        self.next_episode
    }

    /// The return of every episode done.
    pub fn returns(&self) -> &[f64] {
        &self.returns
    }

    /// The participants, by agent.
    pub fn participants(&self) -> &[Participant] {
        &self.crew.participants
    }

    /// Names of the signatures seen.
    pub fn names(&self) -> &BTreeMap<Signature, String> {
        &self.crew.names
    }

    /// Length of the ledger, in bytes.
    pub fn ledger_bytes(&self) -> u64 {
        self.ledger.bytes()
    }

    fn is_seal_due(&self) -> bool {
        self.next_episode == self.config.episodes || self.next_episode.is_multiple_of(self.seal_every)
    }

    /// Learn until all episodes are done or `watch`, called after each, breaks off.
    pub async fn run(
        &mut self,
        mut watch: impl FnMut(&EpisodeEnd) -> ControlFlow<()>,
    ) -> Result<ControlFlow<()>, LearnError> {
        let draws = Rng::stream(self.config.seed, "tasks");
        while self.next_episode < self.config.episodes {
            let episode = self.next_episode;
            let task = self.stage.tasks().training(&mut draws.fork([episode, 0, 0]))?;
            let scene = self.stage.open(task);
            let end =
                Episode::new(self.stage, &mut self.crew, &mut self.ledger, scene, episode).play().await?;
            self.ledger.append(
                AgentId::ORIGIN,
                Record::Closed {
                    episode,
                    episode_return: end.episode_return,
                    handoffs: end.handoffs,
                    stop: end.stop.to_owned(),
                },
            );
            self.returns.push(end.episode_return);
            self.next_episode += 1;
            if self.is_seal_due() {
                self.ledger.seal()?;
            }
            if watch(&end).is_break() {
                self.ledger.flush()?;
                return Ok(ControlFlow::Break(()));
            }
            // A simulated episode never waits for anything; let others (Ctrl-C) have their turn.
            tokio::task::yield_now().await;
        }
        Ok(ControlFlow::Continue(()))
    }

    /// What has been learned so far.
    pub fn policy(&self) -> PolicyFile {
        let team = self.stage.team();
        let agents = team.agents.iter().zip(&self.crew.participants).map(|(agent, participant)| {
            let successors = agent.handoffs.iter().map(|h| h.to().to_owned()).collect();
            let operations = match participant.spec().learner.regime {
                Regime::Adaptable { .. } => agent.operations.clone(),
                Regime::PreConfigured(_) => vec![],
            };
            AgentPolicy::of(&agent.name, successors, operations, participant.learner())
        });
        let source = Source {
            team: team.name.clone(),
            config: hex(&team.config_digest(&self.stage.tasks().identity())),
            seed: self.config.seed,
            episodes: self.next_episode,
            ledger: hex(&self.ledger.head()),
        };
        PolicyFile::new(source, &self.crew.names, agents.collect())
    }
}

/// Seals cost a sync to the disk: one per episode where calls leave the process, else one now and then.
fn seal_every(stage: &Stage) -> u64 {
    if stage.is_external() { 1 } else { 1000 }
}

/// One episode being played.
struct Episode<'e, 's> {
    stage: &'s Stage,
    crew: &'e mut Crew,
    ledger: &'e mut Ledger,
    scene: Scene<'s>,
    number: u64,
    /// Effects to carry out, with the agent that wants them.
    todo: VecDeque<(AgentId, Effect)>,
    end: EpisodeEnd,
    /// gamma^(primitive steps so far).
    discount: f64,
}

impl<'e, 's> Episode<'e, 's> {
    fn new(
        stage: &'s Stage,
        crew: &'e mut Crew,
        ledger: &'e mut Ledger,
        scene: Scene<'s>,
        number: u64,
    ) -> Self {
        let end = EpisodeEnd {
            episode: number,
            episode_return: 0.0,
            handoffs: 0,
            stop: "ended",
            path: vec![],
            greedy: true,
        };
        Episode { stage, crew, ledger, scene, number, todo: VecDeque::new(), end, discount: 1.0 }
    }

    async fn play(mut self) -> Result<EpisodeEnd, LearnError> {
        let start = self.stage.team().agent_id(&self.stage.team().start).expect("names were checked");
        let id = HandoffId::opening(EpisodeId(u128::from(self.number)));
        self.deliver(Handoff { id, to: start, clock: self.number })?;
        self.carry_out_all().await?;
        if self.stage.team().learner.extensions.local_model {
            // Receivers first, so that what they re-compute is what their predecessors are told.
            for agent in self.end.path.clone().into_iter().rev() {
                self.tell(agent, Event::Replan)?;
                self.carry_out_all().await?;
            }
        }
        self.ledger.flush_if_large()?;
        Ok(self.end)
    }

    async fn carry_out_all(&mut self) -> Result<(), LearnError> {
        while let Some((agent, effect)) = self.todo.pop_front() {
            self.carry_out(agent, effect).await?;
        }
        Ok(())
    }

    async fn carry_out(&mut self, agent: AgentId, effect: Effect) -> Result<(), LearnError> {
        match effect {
            Effect::Record(record) => {
                if let Record::Decided { greedy, .. } = record {
                    self.end.greedy &= greedy;
                }
                self.ledger.append(agent, record);
            }
            Effect::Value { to: AgentId::ORIGIN, .. } => {}
            Effect::Value { to, message } => self.tell(to, Event::Valued(message))?,
            Effect::Perform { handoff, operation, .. } => {
                if self.stage.is_external() {
                    self.ledger.flush()?;
                }
                let performance = self.scene.perform(agent, operation, handoff).await;
                self.earn(performance.reward);
                // Chosen before, a handover and the end belong to the same primitive step as the operation.
                if self.regime(agent) != Regime::PreConfigured(DecisionPoint::Before) {
                    self.discount *= self.stage.team().learner.discount;
                }
                let next = self.next(agent, handoff);
                let reward = match next {
                    Next::Ended => self.closing(performance.reward)?,
                    _ => self.finite(performance.reward)?,
                };
                let usage = performance.usage;
                self.tell(agent, Event::Performed { handoff, reward, tau: Tau::ONE, usage, next })?;
            }
            Effect::Send(handoff) => {
                self.earn(self.stage.team().reward.handoff);
                self.discount *= self.stage.team().learner.discount;
                if self.end.handoffs >= self.stage.team().run.max_handoffs {
                    // A deadline is an end with nothing to show for it, not something to bootstrap from.
                    self.end.stop = "max-handoffs";
                    self.tell(agent, Event::Finished { handoff: handoff.id, reward: self.closing(0.0)? })?;
                } else {
                    self.end.handoffs += 1;
                    self.deliver(handoff)?;
                }
            }
            Effect::Finish { handoff } => {
                let reward = self.scene.conclude();
                self.earn(reward);
                self.end.stop = "finished";
                self.tell(agent, Event::Finished { handoff, reward: self.closing(reward)? })?;
            }
            Effect::Ask { to, handle } => self.tell(to, Event::Asked { from: agent, handle })?,
            Effect::Answer { to, handle, value } => {
                self.tell(to, Event::Answered { from: agent, handle, value })?
            }
        }
        Ok(())
    }

    /// What a concluding agent is told: under trajectory credit the return of the whole task.
    fn closing(&self, reward: f64) -> Result<Return, LearnError> {
        let trajectory = matches!(self.stage.team().learner.credit, crate::team::CreditSection::Trajectory);
        self.finite(if trajectory { self.end.episode_return } else { reward })
    }

    fn regime(&self, agent: AgentId) -> Regime {
        self.stage.regime(agent)
    }

    fn earn(&mut self, reward: f64) {
        self.end.episode_return += self.discount * reward;
    }

    fn finite(&self, reward: f64) -> Result<Return, LearnError> {
        Return::new(reward).map_err(|source| LearnError::Unit { episode: self.number, source })
    }

    /// Control arrives at an agent.
    fn deliver(&mut self, handoff: Handoff) -> Result<(), LearnError> {
        let (to, sender) = (handoff.to, handoff.id.from);
        self.scene.arrive();
        let (name, observation) = match self.regime(to) {
            Regime::Adaptable { .. } => self.scene.observe_operations(to, sender),
            Regime::PreConfigured(_) => self.scene.observe(to, sender),
        };
        if self.regime(to) == Regime::PreConfigured(DecisionPoint::Before) && observation.legal.is_empty() {
            self.end.stop = "no-successor";
            if sender != AgentId::ORIGIN {
                self.tell(sender, Event::Finished { handoff: handoff.id, reward: self.closing(0.0)? })?;
            }
            return Ok(());
        }
        self.end.path.push(to);
        self.note(name, &observation);
        self.tell(to, Event::Received { handoff, observation })
    }

    /// What follows an operation of `agent`, which `handoff` activated.
    fn next(&mut self, agent: AgentId, handoff: HandoffId) -> Next {
        if self.regime(agent) == Regime::PreConfigured(DecisionPoint::Before) {
            return Next::Committed;
        }
        let (name, observation) = self.scene.observe(agent, handoff.from);
        if observation.legal.is_empty() {
            self.end.stop = "no-successor";
            return Next::Ended;
        }
        self.note(name, &observation);
        Next::HandOver(observation)
    }

    /// Record the name of a signature when it is first met.
    fn note(&mut self, name: String, observation: &Observation) {
        let signature = observation.signature;
        if let std::collections::btree_map::Entry::Vacant(vacant) = self.crew.names.entry(signature) {
            self.ledger.append(AgentId::ORIGIN, Record::Named { signature, name: name.clone() });
            vacant.insert(name);
        }
    }

    fn tell(&mut self, agent: AgentId, event: Event) -> Result<(), LearnError> {
        let i = agent.0 as usize;
        let mut effects = vec![];
        self.crew.participants[i].apply(event, &mut self.crew.rngs[i], &mut effects).map_err(|source| {
            LearnError::Protocol {
                agent: self.stage.team().agent_name(agent).to_owned(),
                episode: self.number,
                source,
            }
        })?;
        self.todo.extend(effects.into_iter().map(|effect| (agent, effect)));
        Ok(())
    }
}
