//! One task on its way through a team: effects are carried out one after the other, until a call is needed, the task leaves,
//! or nothing is left to do. [`crate::learn`] plays tasks as they happen, and once more from a ledger; a node plays those that
//! other organisations hand over.
//!
//! Whoever drives an [`Episode`] calls [`Episode::step`] until it says [`Step::Ended`], keeps every [`Step::Record`] before
//! the next step, and gives it what it waits for: [`Episode::called`], [`Episode::answered`] or [`Episode::judged`]. What came
//! back is looked at in the next step and not before, so that what happens is recorded in the order in which it happened.

mod arrive;
mod calls;
mod checkpoint;
mod crew;
mod ends;

pub use crew::Crew;
pub(crate) use crew::newcomer;

use std::collections::VecDeque;

use futures_util::future::BoxFuture;
use relevo_core::{
    ids::{AgentId, HandoffId, OperationId},
    observation::Signature,
    protocol::{Effect, Event, Handoff, ProtocolError, ValueMessage},
    record::Record,
    units::{Confidence, Return, UnitError},
};

use crate::{
    agent::Outcome,
    approval::Asked,
    guard::{Permit, Question, StopReason, TaskGuard},
    judge::Candidate,
    reward::Spent,
    stage::{Scene, Stage},
};

/// Why an episode cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum EpisodeError {
    /// An agent cannot be made as the team file says.
    #[error("agent {agent:?}: {message}")]
    Spec {
        /// The agent.
        agent: String,
        /// Why.
        message: String,
    },
    /// A participant refuses what it is told: a fault of this program.
    #[error("agent {agent:?} refused an event: {source}; please report this")]
    Protocol {
        /// The agent.
        agent: String,
        /// Why.
        source: ProtocolError,
    },
    /// Somebody is told something who is no participant: a fault of this program.
    #[error("{agent:?} is told something, and is no participant of the team; please report this")]
    Nobody {
        /// Who.
        agent: AgentId,
    },
    /// It cannot be written down.
    #[error("the task cannot be written down: {0}")]
    Unsaved(&'static str),
    /// What was written down cannot be taken up.
    #[error("the checkpoint of a task {0}")]
    Checkpoint(String),
    /// A number that is not finite came up.
    #[error("episode {episode}: {source}")]
    Unit {
        /// The episode.
        episode: u64,
        /// Which.
        source: UnitError,
    },
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
    /// Why it stopped.
    pub stop: StopReason,
    /// Who acted, in order.
    pub path: Vec<AgentId>,
    /// The quality of what came out, if it was judged.
    pub quality: Option<f64>,
    /// What it has used up.
    pub spent: Spent,
    /// Whether every choice was the best known one.
    pub greedy: bool,
}

/// A call that an episode waits for.
pub struct Call<'s> {
    /// The handoff that activated the participant.
    pub handoff: HandoffId,
    /// Who is called, by its place in the team file.
    pub agent: AgentId,
    /// With which operation.
    pub operation: OperationId,
    /// The call itself.
    pub outcome: BoxFuture<'s, Outcome>,
}

/// What a person is asked before a call.
pub struct Ask {
    /// The name of the question.
    pub id: String,
    /// The question.
    pub asked: Asked,
}

/// What came of one step of an episode.
pub enum Step<'s> {
    /// A record to be kept before the next step.
    Record(AgentId, Record),
    /// An effect was carried out.
    Done,
    /// Nothing goes on before this call has come back, and [`Episode::called`] was told of it.
    Call(Call<'s>),
    /// Nothing goes on before [`Episode::answered`] was told what a person says.
    Ask(Ask),
    /// Nothing goes on before [`Episode::judged`] was told how good what came out is.
    Judge,
    /// The value of the first agent, for the other organisation that handed the task over.
    Value(ValueMessage),
    /// The task leaves to another organisation's agent. The handoff stays pending until its maker is told what came of it,
    /// by [`Crew::tell`].
    Away(Handoff),
    /// An agent concluded a task of which nobody here knows how good it is. The handoff stays pending until the agent is told
    /// [`Event::Finished`], by [`Crew::tell`].
    Finished(HandoffId),
    /// Nothing is left to do.
    Ended,
}

/// One task being played.
pub struct Episode<'s> {
    stage: &'s Stage,
    scene: Scene<'s>,
    number: u64,
    /// The driver's own records, to be made before anything else.
    notes: VecDeque<Record>,
    /// Effects to carry out, with the participant that wants them.
    todo: VecDeque<(AgentId, Effect)>,
    /// The call that has not come back, or not been looked at yet.
    calling: Option<Calling>,
    /// What came back. It is looked at in the next step and not before, so that what happens is recorded in the order in
    /// which it happened.
    news: Option<News>,
    /// How the task is to end, once it has been judged.
    ending: Option<Ending>,
    /// What the ledger says that comes next, where the task is played once more: what guards said is taken from there.
    script: VecDeque<Record>,
    guard: TaskGuard,
    end: EpisodeEnd,
    /// gamma^(primitive steps so far).
    discount: f64,
    /// Who is still to re-compute its local model, once the task has ended.
    replans: Option<Vec<AgentId>>,
}

/// A call on its way.
struct Calling {
    participant: AgentId,
    handoff: HandoffId,
    operation: OperationId,
    /// How far the guards have let it.
    pass: Pass,
    /// Who does it instead, as the budget of the task is used up.
    takeover: Option<AgentId>,
}

/// How far the guards have let a call.
enum Pass {
    Unasked,
    /// A person is to say, since that time.
    Question(Question, u64),
    /// They have.
    Answered,
    Permitted(Permit),
}

/// What an episode waited for.
enum News {
    /// A call came back, after so many milliseconds.
    Outcome(AgentId, Outcome, u64),
    /// What came out was judged, or could not be.
    Judgement(Option<Judgement>),
}

/// How a task ends.
struct Ending {
    participant: AgentId,
    event: Event,
    /// The reward of the last operation; none where the task ends apart from one.
    own: f64,
}

/// How good what came out is, and how far that may be trusted.
#[derive(Clone, Copy, Debug)]
pub struct Judgement {
    /// The quality, in [0, 1].
    pub quality: f64,
    /// How far it may be trusted.
    pub confidence: Confidence,
}

impl<'s> Episode<'s> {
    /// A task that enters the team by the handoff `entry`; with what the ledger says of it, where it has entered before.
    pub fn begin(
        stage: &'s Stage,
        crew: &mut Crew,
        scene: Scene<'s>,
        number: u64,
        entry: Handoff,
        script: VecDeque<Record>,
    ) -> Result<Self, EpisodeError> {
        let guard = TaskGuard::new(&mut crew.guard, (crew.clock)());
        let mut episode = Episode { script, ..Episode::of(stage, scene, number, guard) };
        episode.deliver(crew, entry)?;
        Ok(episode)
    }

    /// One in which nothing has happened yet.
    fn of(stage: &'s Stage, scene: Scene<'s>, number: u64, guard: TaskGuard) -> Self {
        let (notes, todo, script) = Default::default();
        let end = EpisodeEnd {
            episode: number,
            episode_return: 0.0,
            handoffs: 0,
            stop: StopReason::Ended,
            path: vec![],
            quality: None,
            spent: Spent::default(),
            greedy: true,
        };
        let (calling, news, ending, replans) = Default::default();
        let discount = 1.0;
        Episode {
            stage,
            scene,
            number,
            notes,
            todo,
            calling,
            news,
            ending,
            script,
            guard,
            end,
            discount,
            replans,
        }
    }

    /// How it went so far.
    pub fn end(&self) -> &EpisodeEnd {
        &self.end
    }

    /// How many calls have come back.
    pub fn calls(&self) -> u32 {
        self.scene.spent().calls
    }

    /// Whether nothing is left to do before a call, or a person's answer.
    pub fn waits(&self) -> bool {
        self.notes.is_empty() && self.todo.is_empty() && self.calling.is_some()
    }

    /// Who is at work, and in which handoff, while a call or a person is waited for.
    pub fn at(&self) -> Option<(AgentId, HandoffId)> {
        self.calling.as_ref().map(|calling| (calling.participant, calling.handoff))
    }

    /// What the ledger said next has been followed.
    pub(crate) fn followed(&mut self) {
        self.script.pop_front();
    }

    /// The name of a signature has been recorded already.
    pub(crate) fn is_named(&mut self, named: Signature) {
        let is_named = |note: &Record| matches!(note, Record::Named { signature, .. } if *signature == named);
        self.notes.retain(|note| !is_named(note));
    }

    /// A call of an earlier process took so long.
    pub(crate) fn lasted(&mut self, ms: u64) {
        self.guard.lasted(ms);
    }

    /// What is being handed over.
    pub fn scene(&self) -> &Scene<'s> {
        &self.scene
    }

    /// What judges are shown of it.
    pub(crate) fn candidate(&self) -> Candidate {
        self.scene.candidate(&self.end.path)
    }

    /// The call that the episode waits for has come back, after so many milliseconds.
    pub fn called(&mut self, agent: AgentId, outcome: Outcome, ms: u64) {
        self.news = Some(News::Outcome(agent, outcome, ms));
    }

    /// What came out has been judged.
    pub fn judged(&mut self, judgement: Option<Judgement>) {
        self.news = Some(News::Judgement(judgement));
    }

    /// Carry out the next effect.
    pub fn step(&mut self, crew: &mut Crew) -> Result<Step<'s>, EpisodeError> {
        if let Some(note) = self.notes.pop_front() {
            return Ok(Step::Record(AgentId::ORIGIN, note));
        }
        match self.news.take() {
            Some(News::Outcome(agent, outcome, ms)) => {
                return self.came_back(crew, Some((agent, outcome, ms))).map(|()| Step::Done);
            }
            Some(News::Judgement(judgement)) => {
                return self.conclude(crew, judgement).map(|()| Step::Done);
            }
            None => {}
        }
        let Some((agent, effect)) = self.todo.pop_front() else { return self.wait(crew) };
        match effect {
            Effect::Record(record) => {
                if let Record::Decided { greedy, .. } = record {
                    self.end.greedy &= greedy;
                }
                return Ok(Step::Record(agent, record));
            }
            Effect::Value { to: AgentId::ORIGIN, .. } => {}
            Effect::Value { to, message } if to.as_peer().is_some() => return Ok(Step::Value(message)),
            Effect::Value { to, message } => self.tell(crew, to, Event::Valued(message))?,
            Effect::Perform { handoff, operation, .. } => {
                let (pass, takeover) = (Pass::Unasked, None);
                self.calling = Some(Calling { participant: agent, handoff, operation, pass, takeover });
            }
            Effect::Send(handoff) => {
                self.earn(self.stage.team().reward.handoff);
                self.discount *= self.stage.team().learner.discount;
                let digest = self.scene.digest(&crew.guard);
                match self.guard.on_handoff(&crew.guard, agent, handoff.to, digest) {
                    None => {
                        self.end.handoffs += 1;
                        if self.stage.remote(handoff.to).is_some() {
                            return Ok(Step::Away(handoff));
                        }
                        self.deliver(crew, handoff)?;
                    }
                    // A deadline is an end with nothing to show for it, not something to bootstrap from.
                    Some(reason) => {
                        self.end.stop = reason;
                        let reward = self.closing(0.0)?;
                        self.tell(crew, agent, Event::Finished { handoff: handoff.id, reward })?;
                    }
                }
            }
            Effect::Finish { handoff } => {
                self.end.stop = StopReason::Finished;
                if !self.stage.has_tasks() {
                    return Ok(Step::Finished(handoff));
                }
                let event = Event::Finished { handoff, reward: Return::ZERO };
                self.end_with(crew, Ending { participant: agent, event, own: 0.0 })?;
            }
            Effect::Ask { to, handle } => self.tell(crew, to, Event::Asked { from: agent, handle })?,
            Effect::Answer { to, handle, value } => {
                self.tell(crew, to, Event::Answered { from: agent, handle, value })?;
            }
        }
        Ok(Step::Done)
    }

    /// All that has happened is on record: what the episode waits for now. A call that was never begun is asked for again.
    fn wait(&mut self, crew: &mut Crew) -> Result<Step<'s>, EpisodeError> {
        match self.calling.take() {
            _ if self.ending.is_some() => Ok(Step::Judge),
            Some(calling) => self.call(crew, calling),
            None => self.after(crew),
        }
    }

    fn tell(&mut self, crew: &mut Crew, agent: AgentId, event: Event) -> Result<(), EpisodeError> {
        self.todo.extend(crew.tell(self.stage, agent, event)?);
        Ok(())
    }
}
