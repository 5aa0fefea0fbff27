//! What a snapshot holds of the handoffs of a participant: those in flight, and those remembered.

use alloc::vec::Vec;

use super::{Activation, Counters, LocalStep, Participant, Pending, known::Received};
use crate::{
    ids::{ActionId, HandoffId},
    learner::{Credit, Learner, Step},
    observation::Observation,
    record::Table,
    snapshot::{COUNT_MAX, Loaded, Reader, Saved, Writer, require},
};

impl Participant {
    pub(crate) fn save_handoffs(&self, e: &mut Writer) -> Saved {
        let Participant { known, active, pending, next_made, trusted, counters, .. } = self;
        let (places, ended) = known.in_order();
        e.encode((counters, trusted, next_made))?.array(places.len() as u64)?;
        for place in places {
            let met = &known[place];
            let active = met.active.and_then(|slot| active.get(slot));
            let pending = met.pending.and_then(|slot| pending.get(slot));
            e.encode((met.handoff, &met.received, met.closed, active, pending))?;
        }
        e.encode(ended)?;
        Ok(())
    }

    /// Put back what was saved into a new participant, whose learner has been loaded. Everything that later events take
    /// for granted is checked here.
    pub(crate) fn load_handoffs(&mut self, d: &mut Reader<'_>) -> Loaded {
        (self.counters, self.trusted, self.next_made) = d.decode()?;
        let Counters { received, settled, expired, refused, .. } = self.counters;
        let Counters { duplicate_handoffs, late_values, unknown_values, clamped_values, .. } = self.counters;
        let of_values = [late_values, unknown_values, clamped_values, self.next_made];
        let counts = [received, settled, expired, refused, duplicate_handoffs].into_iter().chain(of_values);
        require(counts.max() < Some(COUNT_MAX), "a count is too large")?;

        let mut last: Option<HandoffId> = None;
        let mut made = Vec::new();
        for _ in 0..d.array()?.unwrap_or_default() {
            let (handoff, received, closed, active, pending): (_, Received, _, Option<_>, Option<_>) =
                d.decode()?;
            require(last < Some(handoff), "handoffs are not in ascending order")?;
            last = Some(handoff);
            require(
                active
                    .as_ref()
                    .is_none_or(|a| received != Received::No && self.is_sound_activation(handoff, a))
                    && pending.as_ref().is_none_or(|p| self.is_sound_pending(handoff, p)),
                "a handoff in flight is none of this agent's",
            )?;
            self.each_choice(pending.as_ref(), active.as_ref(), Learner::open);
            let place = self.known.place_or_insert(handoff);
            let active = active.map(|active| self.active.insert(active));
            let pending = pending.map(|pending: Pending| {
                let number = pending.made;
                let slot = self.pending.insert(pending);
                made.push((number, slot));
                slot
            });
            let met = &mut self.known[place];
            (met.received, met.closed, met.active, met.pending) = (received, closed, active, pending);
        }
        made.sort_unstable_by_key(|(number, _)| *number);
        require(made.is_sorted_by(|(a, _), (b, _)| a < b), "two handoffs were made at once")?;
        self.made = made.into();

        let limits = self.spec.limits;
        let ended: Vec<u32> = d.decode()?;
        require(
            self.active.len() <= limits.active_max
                && self.pending.len() <= limits.pending_max.max(1)
                && ended.len() <= limits.remembered_max,
            "there are more handoffs than the limits allow",
        )?;
        require(self.known.load_ended(&ended), "a handoff is kept and nothing is known of it")?;
        let experiences = self.learner.experiences().iter();
        require(
            experiences.into_iter().all(|experience| {
                let next = experience.next.as_ref();
                self.is_sound_step(Table::Operations, &experience.step)
                    && next.is_none_or(|(table, o)| self.is_sound(*table, o))
            }),
            "an operation is remembered that the agent does not have",
        )
    }

    fn is_sound(&self, table: Table, o: &Observation) -> bool {
        o.is_recordable() && self.check(table, o).is_ok()
    }

    fn is_sound_step(&self, table: Table, Step { observation, action, .. }: &Step) -> bool {
        self.is_sound(table, observation) && observation.legal.contains(*action)
    }

    fn is_sound_trail(&self, trail: &[LocalStep]) -> bool {
        (trail.is_empty() || self.spec.learner.credit != Credit::ValuePassing)
            && trail.iter().all(|local| self.is_sound_step(Table::Operations, &local.step))
    }

    fn is_sound_activation(&self, handoff: HandoffId, active: &Activation) -> bool {
        let Activation { observation, chosen, trail, .. } = active;
        let chosen: Option<ActionId> = chosen.map(|chosen| chosen.action);
        let sound = match (self.table_at_activation(), chosen) {
            (Some(table), Some(action)) => {
                self.is_sound(table, observation) && observation.legal.contains(action)
            }
            (None, None) => observation.is_recordable(),
            _ => false,
        };
        sound && self.is_sound_trail(trail) && handoff.next(self.spec.id).is_some()
    }

    fn is_sound_pending(&self, handoff: HandoffId, pending: &Pending) -> bool {
        let Pending { incoming, step, prefix, trail, made, .. } = pending;
        incoming.next(self.spec.id) == Some(handoff)
            && self.is_sound_step(Table::Successors, step)
            && self.is_sound_trail(trail)
            && prefix.0.is_finite()
            && prefix.1.is_finite()
            && *made < self.next_made
    }
}
