//! Control arrives at an agent, and what it sees is made known.

use std::collections::btree_map::Entry as Vacancy;

use relevo_core::{
    ids::{ActionId, AgentId, HandoffId},
    learner::{DecisionPoint, Regime},
    observation::{ActionSet, Observation},
    protocol::{Event, Handoff},
    record::Record,
};

use super::{Crew, Episode, EpisodeError};
use crate::{
    guard::{Guard, Masks, StopReason},
    stage::Sight,
};

/// The most names of situations that a crew keeps; the rest go by their signatures.
const NAMES_MAX: usize = 1 << 20;

impl<'s> Episode<'s> {
    /// Control arrives at an agent.
    pub(super) fn deliver(&mut self, crew: &mut Crew, handoff: Handoff) -> Result<(), EpisodeError> {
        let (to, sender) = (handoff.to, handoff.id.from);
        let sight = self.scene.arrive(to, sender);
        // Whom to hand to is chosen now by a coordinator, and by agents that decide before their work.
        let decides_before = self.stage.regime(to) == Regime::PreConfigured(DecisionPoint::Before);
        let decides_now = decides_before || self.stage.coordination().is_some();
        let observation = match self.look(crew, to, decides_now.then_some(handoff.id), sight) {
            Ok(observation) => observation,
            Err(reason) => {
                self.end.stop = reason;
                // Whoever is elsewhere hears of it from the driver.
                if crew.has(sender) {
                    let reward = self.closing(0.0)?;
                    self.tell(crew, sender, Event::Finished { handoff: handoff.id, reward })?;
                }
                return Ok(());
            }
        };
        if self.stage.coordination().is_none() {
            self.end.path.push(to);
        }
        self.tell(crew, to, Event::Received { handoff, observation })
    }

    /// A participant looks at something: its name is recorded when it is first met. To choose in a handoff, it sees no
    /// choices that guards keep from it; without any choice, the task ends for the reason returned.
    pub(super) fn look(
        &mut self,
        crew: &mut Crew,
        participant: AgentId,
        to_choose: Option<HandoffId>,
        sight: Sight,
    ) -> Result<Observation, StopReason> {
        let mut sight = sight;
        let mut reason = StopReason::NoSuccessor;
        if to_choose.is_some() && crew.guard.spec().masks() {
            let masks = self.masks(crew, participant, &sight.observation.legal);
            reason = masks.stop_reason().unwrap_or(reason);
            self.stage.mask(participant, &masks, &mut sight);
        }
        let Sight { name, observation, mut masked } = sight;
        if let Some(handoff) = to_choose {
            masked.sort_by_key(|(action, guard)| (*guard, *action));
            for of_guard in masked.chunk_by(|a, b| a.1 == b.1) {
                let actions = of_guard.iter().map(|(action, _)| *action).collect();
                self.notes.push_back(Record::Masked { handoff, guard: of_guard[0].1.to_owned(), actions });
            }
            if observation.legal.is_empty() {
                return Err(reason);
            }
        }
        let signature = observation.signature;
        let has_room = crew.names.len() < NAMES_MAX;
        if let Vacancy::Vacant(vacant) = crew.names.entry(signature)
            && has_room
        {
            self.notes.push_back(Record::Named { signature, name: name.clone() });
            vacant.insert(name);
        }
        Ok(observation)
    }

    /// What guards keep from a decision.
    fn masks(&self, crew: &Crew, participant: AgentId, legal: &ActionSet) -> Masks {
        if self.script.is_empty() {
            let candidates = self.stage.callees(participant, legal);
            let from = self.stage.giver(participant);
            return self.guard.before_decision(&crew.guard, from, &candidates, (crew.clock)());
        }
        let mut recorded: Vec<(ActionId, Guard)> = vec![];
        for record in &self.script {
            let Record::Masked { guard, actions, .. } = record else { break };
            recorded
                .extend(Guard::of_word(guard).into_iter().flat_map(|g| actions.iter().map(move |a| (*a, g))));
        }
        recorded.sort();
        let of_agent = |(action, guard)| Some((self.stage.callee(participant, action)?, guard));
        Masks::recall(recorded.into_iter().filter_map(of_agent))
    }
}
