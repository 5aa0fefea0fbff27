//! A checkpoint: an episode that waits, written down whole, for another process to take it up where it was. What agents
//! have learned, and what all tasks share of the guards, is the crew's and not part of it.
//!
//! It is a CBOR sequence: [`FORMAT`], and the episode. It holds the artifact with the private facts of agents, as they are.

use minicbor::{Decode, Encode};
use relevo_core::{
    ids::{AgentId, HandoffId, OperationId},
    units::Cost,
};

use super::{Calling, Crew, Episode, EpisodeEnd, EpisodeError, Pass};
use crate::{
    guard::{Question, SavedGuard, TaskGuard, Why},
    stage::{SavedScene, Stage},
};

/// The version of the checkpoint, with which it begins.
const FORMAT: &str = "relevo.stay/v1";

const NOT_WAITING: &str = "it does not wait for a call or a person";

/// An episode that waits.
#[derive(Encode, Decode)]
#[cbor(array)]
struct Saved<'b> {
    #[n(0)]
    number: u64,
    #[b(1)]
    scene: SavedScene<'b>,
    #[n(2)]
    guard: SavedGuard,
    #[n(3)]
    path: Vec<AgentId>,
    #[n(4)]
    handoffs: u32,
    #[n(5)]
    episode_return: f64,
    #[n(6)]
    discount: f64,
    #[n(7)]
    greedy: bool,
    #[b(8)]
    calling: SavedCall<'b>,
}

/// The call that it waits for.
#[derive(Encode, Decode)]
#[cbor(array)]
struct SavedCall<'b> {
    #[n(0)]
    participant: AgentId,
    #[n(1)]
    handoff: HandoffId,
    #[n(2)]
    operation: OperationId,
    #[n(3)]
    takeover: Option<AgentId>,
    /// Whom a person is asked about, what that is expected to cost, why, and since when.
    #[b(4)]
    question: Option<(AgentId, Cost, &'b str, u64)>,
}

impl<'s> Episode<'s> {
    /// All of an episode that waits for a call or for a person, as others bring tasks to a node. A call is made again by
    /// whoever takes it up, with the guards asked anew; a question stays the same question.
    ///
    /// # Errors
    ///
    /// If it does not wait, or has a task of the team's own: such a task is played once more from the ledger.
    pub fn checkpoint(&self) -> Result<Vec<u8>, EpisodeError> {
        if self.stage.has_tasks() {
            return Err(EpisodeError::Unsaved("it is not one that was brought to a node"));
        }
        let Some(calling) = self.calling.as_ref().filter(|_| self.waits() && self.news.is_none()) else {
            return Err(EpisodeError::Unsaved(NOT_WAITING));
        };
        let Calling { participant, handoff, operation, pass, takeover } = calling;
        let (permit, question) = match pass {
            Pass::Permitted(permit) => (Some(permit), None),
            Pass::Question(Question { agent, estimate, why }, since) => {
                (None, Some((*agent, *estimate, why.word(), *since)))
            }
            Pass::Unasked => (None, None),
            // What follows from the answer is not on record yet.
            Pass::Answered => return Err(EpisodeError::Unsaved(NOT_WAITING)),
        };
        let saved = Saved {
            number: self.number,
            scene: self.scene.save(),
            guard: self.guard.save(permit),
            path: self.end.path.clone(),
            handoffs: self.end.handoffs,
            episode_return: self.end.episode_return,
            discount: self.discount,
            greedy: self.end.greedy,
            calling: SavedCall {
                participant: *participant,
                handoff: *handoff,
                operation: *operation,
                takeover: *takeover,
                question,
            },
        };
        let mut encoder = minicbor::Encoder::new(vec![]);
        let written = encoder.str(FORMAT).and_then(|encoder| encoder.encode(&saved));
        written.expect("writing into memory cannot fail");
        Ok(encoder.into_writer())
    }

    /// The episode of which [`Episode::checkpoint`] made `bytes`. It goes on as that one would have, with a crew that knows
    /// its handoffs. Any bytes may be given: others are refused, with memory of the order of their number.
    pub fn restore(stage: &'s Stage, crew: &Crew, bytes: &[u8]) -> Result<Self, EpisodeError> {
        let refused = |what: String| EpisodeError::Checkpoint(what);
        if stage.has_tasks() {
            return Err(refused("is one of a node's: it needs a stage for a node".into()));
        }
        let mut d = minicbor::Decoder::new(bytes);
        match d.str() {
            Ok(FORMAT) => {}
            Ok(found) => {
                let found: String = found.chars().take(64).collect();
                return Err(refused(format!("begins with {found:?}; this program reads {FORMAT:?}")));
            }
            Err(_) => return Err(refused(format!("does not begin with {FORMAT:?}"))),
        }
        let saved: Result<Saved<'_>, _> = d.decode();
        let saved = saved.map_err(|e| refused(format!("cannot be read at byte {}: {e}", d.position())))?;
        if d.position() < bytes.len() {
            return Err(refused(format!("goes on after its end, at byte {}", d.position())));
        }
        Self::of_saved(stage, crew, saved).map_err(refused)
    }

    fn of_saved(stage: &'s Stage, crew: &Crew, saved: Saved<'_>) -> Result<Self, String> {
        let Saved { number, scene, guard, path, handoffs, episode_return, discount, greedy, calling } = saved;
        let SavedCall { participant, handoff, operation, takeover, question } = calling;
        let asked = question.as_ref().map(|(agent, ..)| *agent);
        let mut agents = path.iter().copied().chain([participant]).chain(takeover).chain(asked);
        if let Some(AgentId(agent)) = agents.find(|agent| !crew.has(*agent)) {
            return Err(format!("has an agent {agent}, which the team has not"));
        }
        let operations = stage.team().agents[participant.0 as usize].operations.len().max(1);
        if operation.0 as usize >= operations {
            return Err(format!("has an operation {}, which its agent has not", operation.0));
        }
        if ![episode_return, discount].into_iter().all(f64::is_finite) {
            return Err("has a number that is not finite".into());
        }
        let pass = match question {
            None => Pass::Unasked,
            Some((agent, estimate, why, since)) => {
                let why = Why::of_word(why).ok_or_else(|| {
                    format!("asks for the reason {why:?}, which this program does not know")
                })?;
                Pass::Question(Question { agent, estimate, why }, since)
            }
        };
        let guard = TaskGuard::restore(guard, &crew.guard, (crew.clock)())?;
        let begun = Episode::of(stage, stage.reopen(scene)?, number, guard);
        let end = EpisodeEnd { episode_return, handoffs, path, greedy, ..begun.end };
        let calling = Some(Calling { participant, handoff, operation, pass, takeover });
        Ok(Episode { calling, end, discount, ..begun })
    }
}
