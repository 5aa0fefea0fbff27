//! Learning: participants decide, the [`Scene`](crate::stage::Scene) acts, the [`Ledger`] remembers. One task after the
//! other, the same seed and the same outcomes give the same bytes; with several at a time, the ledger says in which order
//! things happened, and whoever follows it learns the same.
//!
//! Here is the path of a handoff: an effect of [`Participant::apply`] is recorded, carried out, and its outcome goes back in
//! as the next event.

mod ends;
mod resume;
mod run;

pub use crate::episode::EpisodeEnd;

use std::{
    collections::{BTreeMap, BTreeSet},
    num::NonZeroUsize,
    path::{Path, PathBuf},
    sync::{Arc, atomic::AtomicBool},
};

use relevo_core::{
    ids::AgentId,
    observation::Signature,
    policy_file::{AgentPolicy, PolicyFile, Source, hex, signature_of_key},
    protocol::{Effect, Participant},
    record::{FORMAT, Record, RecordError},
    replay::ReplayError,
    warm::{self, Caps, WarmStart},
};

use crate::{
    approval::ApprovalError,
    episode::{Ask, Crew, Episode, EpisodeError},
    guard::{StopReason, TeamGuard},
    ledger::{Ledger, LedgerError},
    outcomes::{OutcomeError, Outcomes},
    reward::{Median, Usual},
    stage::Stage,
    stop::StopOrder,
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
    /// What came of a call cannot be kept or had again.
    #[error(transparent)]
    Outcome(#[from] OutcomeError),
    /// A person cannot be asked.
    #[error(transparent)]
    Approval(#[from] ApprovalError),
    /// A task cannot be had.
    #[error(transparent)]
    Task(#[from] TaskError),
    /// A task cannot be played.
    #[error(transparent)]
    Episode(#[from] EpisodeError),
}

/// How a run is to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RunConfig {
    /// The seed of everything random.
    pub seed: u64,
    /// How many episodes.
    pub episodes: u64,
}

/// Why a run stopped before all its episodes were done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BrokenOff {
    /// It was asked to, in this process.
    Asked,
    /// It was ordered to, from outside: nothing goes on before that order is lifted.
    Ordered(StopOrder),
    /// The guard of the run lets no further task begin.
    Guarded(StopReason),
}

/// A run: participants in the state that their ledger leads to, and the tasks that they are at.
pub struct Session<'s> {
    stage: &'s Stage,
    config: RunConfig,
    jobs: NonZeroUsize,
    crew: Crew,
    ledger: Ledger,
    outcomes: Outcomes,
    seal_every: u64,
    next_episode: u64,
    /// Tasks begun and not ended, by number.
    open: BTreeMap<u64, Episode<'s>>,
    /// Tasks that wait for a person.
    waiting: BTreeMap<u64, Ask>,
    /// Tasks that wait for others of their group, to be judged together.
    unjudged: BTreeSet<u64>,
    /// Where among them answers are looked for next.
    heard: u64,
    returns: Vec<f64>,
    /// What tasks cost, where rewards are measured by that.
    median: Median,
    /// Pieces of content that could not be kept.
    dropped: u64,
    out: PathBuf,
    asked_to_stop: Arc<AtomicBool>,
    broken_off: Option<BrokenOff>,
    looked_around: u64,
}

/// The name of the ledger in the folder of a run.
pub const LEDGER_FILE: &str = "ledger.cbor";

impl<'s> Session<'s> {
    /// Begin a run in the folder `out`, which must hold none yet.
    pub fn start(stage: &'s Stage, out: &Path, config: RunConfig) -> Result<Self, LearnError> {
        let crew = Crew::new(stage, config.seed, config.episodes)?;
        let mut ledger = Ledger::create(&out.join(LEDGER_FILE))?;
        let digest = stage.team().config_digest(&stage.tasks().identity());
        let RunConfig { seed, episodes } = config;
        ledger.append(
            AgentId::ORIGIN,
            Record::Opened { format: FORMAT.into(), config: digest, seed, episodes },
        );
        ledger.seal()?;
        Session::of(stage, out, config, crew, ledger)
    }

    fn of(
        stage: &'s Stage,
        out: &Path,
        config: RunConfig,
        crew: Crew,
        ledger: Ledger,
    ) -> Result<Self, LearnError> {
        let outcomes = Outcomes::of_run(out)?;
        Ok(Session {
            stage,
            config,
            jobs: NonZeroUsize::MIN,
            crew,
            ledger,
            outcomes,
            // Seals cost a sync to the disk: one per episode where calls leave the process, else one now and then.
            seal_every: if stage.is_external() { 1 } else { 1000 },
            next_episode: 0,
            open: BTreeMap::new(),
            waiting: BTreeMap::new(),
            unjudged: BTreeSet::new(),
            heard: 0,
            returns: vec![],
            median: Median::default(),
            dropped: 0,
            out: out.to_owned(),
            asked_to_stop: Arc::default(),
            broken_off: None,
            looked_around: 0,
        })
    }

    /// Give each participant what an earlier policy says of its choices, as priors that own outcomes can outvote. Only
    /// where nothing has been learned yet. Participants are known again by name, those that the policy does not know begin
    /// without.
    pub fn warm_start(&mut self, policy: &PolicyFile, caps: Caps) -> Result<WarmStart, LearnError> {
        let mut all = WarmStart::default();
        for id in (0..self.crew.participants.len() as u32).map(AgentId) {
            let name = self.stage.participant_name(id).to_owned();
            let Some(earlier) = policy.agents.iter().find(|agent| agent.name == name) else { continue };
            let (successors, operations) = self.stage.columns(id);
            let warm = warm::start(earlier, &successors, &operations, caps)
                .map_err(|e| EpisodeError::Spec { agent: name.clone(), message: e.to_string() })?;
            for event in &warm.events {
                for (id, effect) in self.crew.tell(self.stage, id, event.clone())? {
                    if let Effect::Record(record) = effect {
                        self.ledger.append(id, record);
                    }
                }
            }
            all.same += warm.same;
            all.versions += warm.versions;
            all.dropped += warm.dropped;
            all.events.extend(warm.events);
        }
        for (key, name) in &policy.signatures {
            let Ok(signature) = signature_of_key(key) else { continue };
            if self.crew.names.insert(signature, name.clone()).is_none() {
                self.ledger.append(AgentId::ORIGIN, Record::Named { signature, name: name.clone() });
            }
        }
        self.ledger.seal()?;
        Ok(all)
    }

    /// Stop when this becomes true: no call is begun any more, and what those under way bring is kept.
    pub fn heed(self, asked_to_stop: Arc<AtomicBool>) -> Self {
        Session { asked_to_stop, ..self }
    }

    /// Have up to `jobs` tasks before the team at a time. One is what a session begins with, and what a team with the
    /// local model keeps: its agents re-compute between tasks.
    pub fn at_a_time(self, jobs: NonZeroUsize) -> Self {
        match self.stage.team().learner.extensions.local_model {
            true => self,
            false => Session { jobs, ..self },
        }
    }

    /// The seed and number of episodes.
    pub fn config(&self) -> RunConfig {
        self.config
    }

    /// Episodes done.
    pub fn episodes_done(&self) -> u64 {
        self.returns.len() as u64
    }

    /// The return of every episode done.
    pub fn returns(&self) -> &[f64] {
        &self.returns
    }

    /// What a task usually costs by now, where rewards are measured by that.
    pub fn usual(&self) -> Usual {
        self.median.usual()
    }

    /// The participants, by agent.
    pub fn participants(&self) -> &[Participant] {
        &self.crew.participants
    }

    /// Pieces of content that were dropped since the session began, because redaction failed on them or they could not be
    /// written.
    pub fn content_dropped(&self) -> u64 {
        self.dropped
    }

    /// Names of the signatures seen.
    pub fn names(&self) -> &BTreeMap<Signature, String> {
        &self.crew.names
    }

    /// Length of the ledger, in bytes.
    pub fn ledger_bytes(&self) -> u64 {
        self.ledger.bytes()
    }

    /// Tasks begun and not ended.
    pub fn open(&self) -> usize {
        self.open.len()
    }

    /// Tasks that wait for a person.
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// What all tasks of the run share of its guards.
    pub fn guard(&self) -> &TeamGuard {
        &self.crew.guard
    }

    fn is_seal_due(&self) -> bool {
        let done = self.episodes_done();
        done == self.config.episodes || done.is_multiple_of(self.seal_every)
    }

    /// Why the run was broken off, if it was.
    pub fn broken_off(&self) -> Option<&BrokenOff> {
        self.broken_off.as_ref()
    }

    /// What has been learned so far.
    pub fn policy(&self) -> PolicyFile {
        let team = self.stage.team();
        let participants = self.crew.participants.iter().zip((0..).map(AgentId));
        let agents = participants.map(|(participant, id)| {
            let (successors, operations) = self.stage.columns(id);
            AgentPolicy::of(self.stage.participant_name(id), successors, operations, participant.learner())
        });
        let source = Source {
            team: team.name.clone(),
            config: hex(&team.config_digest(&self.stage.tasks().identity())),
            seed: self.config.seed,
            episodes: self.episodes_done(),
            ledger: hex(&self.ledger.head()),
            merged: vec![],
        };
        PolicyFile::new(source, &self.crew.names, agents.collect())
    }
}
