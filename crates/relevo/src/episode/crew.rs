//! The participants of a team, and what they share.

use std::collections::BTreeMap;

use relevo_core::{
    Rng,
    ids::AgentId,
    learner::SpecError,
    observation::Signature,
    protocol::{Effect, Event, Participant, ParticipantSpec},
};

use super::EpisodeError;
use crate::{
    guard::TeamGuard,
    stage::{Clock, Stage},
};

/// The participants of a team, their random streams, and what all its tasks share.
#[derive(Clone)]
pub struct Crew {
    /// The participants, by agent.
    pub participants: Vec<Participant>,
    /// The random stream of each.
    pub rngs: Vec<Rng>,
    /// The names of what they have seen.
    pub names: BTreeMap<Signature, String>,
    /// What all tasks share of the guards.
    pub guard: TeamGuard,
    /// By what the time of calls is told, in milliseconds.
    pub clock: Clock,
}

impl Crew {
    /// The participants of a team as a run of this seed begins with them, which plans its exploration over `episodes`.
    pub fn new(stage: &Stage, seed: u64, episodes: u64) -> Result<Self, EpisodeError> {
        let specs = stage
            .participants(episodes)
            .map_err(|e| EpisodeError::Spec { agent: stage.team().name.clone(), message: e.to_string() })?;
        let (mut participants, mut rngs) = (vec![], vec![]);
        for (name, spec) in specs {
            let fail = |e: SpecError| EpisodeError::Spec { agent: name.to_owned(), message: e.to_string() };
            let (participant, rng) = newcomer(name, spec, seed).map_err(fail)?;
            participants.push(participant);
            rngs.push(rng);
        }
        let (clock, guard) = (stage.clock(), stage.guard());
        Ok(Crew { participants, rngs, names: BTreeMap::new(), guard, clock })
    }

    /// Whether this is one of its participants.
    pub(super) fn has(&self, agent: AgentId) -> bool {
        (agent.0 as usize) < self.participants.len()
    }

    /// Tell an agent what happened, and take what it wants done: within an episode, or apart from all.
    pub fn tell(
        &mut self,
        stage: &Stage,
        agent: AgentId,
        event: Event,
    ) -> Result<Vec<(AgentId, Effect)>, EpisodeError> {
        if !self.has(agent) {
            return Err(EpisodeError::Nobody { agent });
        }
        let (i, mut effects) = (agent.0 as usize, vec![]);
        let fail =
            |source| EpisodeError::Protocol { agent: stage.participant_name(agent).to_owned(), source };
        self.participants[i].apply(event, &mut self.rngs[i], &mut effects).map_err(fail)?;
        Ok(effects.into_iter().map(|effect| (agent, effect)).collect())
    }
}

/// A participant as a run of this seed begins with it, and its random stream.
pub(crate) fn newcomer(
    name: &str,
    spec: ParticipantSpec,
    seed: u64,
) -> Result<(Participant, Rng), SpecError> {
    let participant = Participant::new(spec, &mut Rng::stream(seed, &format!("initial/{name}")))?;
    Ok((participant, Rng::stream(seed, &format!("policy/{name}"))))
}
