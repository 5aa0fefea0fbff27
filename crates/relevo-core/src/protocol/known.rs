//! Which handoffs a participant has met: those in flight, and of those that ended the latest, so that nothing is done
//! twice and a late value is told from an unknown one.
//!
//! Every event looks its handoff up here. Ended handoffs are forgotten oldest first. What is known lies in the
//! order in which it was met, which is about the order in which it is forgotten, beside a small index: forgetting then
//! walks through memory instead of jumping.

use alloc::{boxed::Box, collections::VecDeque, vec, vec::Vec};
use core::{
    hash::BuildHasher,
    ops::{Index, IndexMut},
};
use foldhash::fast::FixedState;
use hashbrown::HashTable;
use minicbor::{Decode, Encode};

use super::{ValueMessage, slab::Slot};
use crate::{
    ids::{Handle, HandoffId},
    units::Value,
};

#[derive(Clone, Debug, PartialEq, Encode, Decode)]
#[cbor(flat)]
pub(super) enum Received {
    #[n(0)]
    No,
    #[n(1)]
    Unanswered,
    #[n(2)]
    Answered(#[n(0)] Answer),
}

/// A [`ValueMessage`] sent for the first time, without the handoff that it answers.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
#[cbor(array)]
pub(super) struct Answer {
    #[n(0)]
    value: Value,
    /// Apart, as it is rare: see [`Met`].
    #[n(1)]
    extensions: Option<Box<(Option<Value>, Option<Handle>)>>,
}

/// A handoff that was met. As ever so many of them are kept, it is to fit a cache line of 64 bytes.
#[derive(Clone, Debug)]
pub(super) struct Met {
    pub(super) handoff: HandoffId,
    pub(super) received: Received,
    /// Where the participant keeps it while it works on it.
    pub(super) active: Option<Slot>,
    /// Where the participant keeps it while it waits for its value.
    pub(super) pending: Option<Slot>,
    /// Made, and over.
    pub(super) closed: bool,
    /// How often it is in the queue of ended ones: one that an agent handed to itself ends twice.
    queued: u32,
}

const _: () = assert!(size_of::<Met>() <= 64);

/// The place of a handoff in [`Known`], good until a handoff ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place(u32);

#[derive(Clone, Debug)]
pub(super) struct Known {
    hash: FixedState,
    index: HashTable<Place>,
    met: Vec<Met>,
    /// Places in `met` that are to be used again, the last first.
    free: Vec<Place>,
    /// Ended handoffs, oldest first.
    ended: VecDeque<Place>,
}

impl Index<Place> for Known {
    type Output = Met;

    fn index(&self, place: Place) -> &Met {
        &self.met[place.0 as usize]
    }
}

impl IndexMut<Place> for Known {
    fn index_mut(&mut self, place: Place) -> &mut Met {
        &mut self.met[place.0 as usize]
    }
}

impl Known {
    pub(super) fn new(hash: FixedState) -> Self {
        Known { hash, index: HashTable::new(), met: vec![], free: vec![], ended: VecDeque::new() }
    }

    /// The place of a handoff, if it is known.
    pub(super) fn place(&self, handoff: HandoffId) -> Option<Place> {
        self.find(self.hash.hash_one(handoff), handoff)
    }

    fn find(&self, hash: u64, handoff: HandoffId) -> Option<Place> {
        self.index.find(hash, |place| self[*place].handoff == handoff).copied()
    }

    /// The place of a handoff, known or not.
    pub(super) fn place_or_insert(&mut self, handoff: HandoffId) -> Place {
        let hash = self.hash.hash_one(handoff);
        if let Some(place) = self.find(hash, handoff) {
            return place;
        }
        let new =
            Met { handoff, received: Received::No, active: None, pending: None, closed: false, queued: 0 };
        let place = match self.free.pop() {
            Some(place) => {
                self[place] = new;
                place
            }
            None => {
                self.met.push(new);
                Place(self.met.len() as u32 - 1)
            }
        };
        let Known { hash: state, index, met, .. } = self;
        index.insert_unique(hash, place, |i| state.hash_one(met[i.0 as usize].handoff));
        place
    }

    /// All handoffs that are known.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Met> {
        self.index.iter().map(|place| &self[*place])
    }

    /// What was answered to a handoff; `None` if it was not received, `Some(None)` if there is no answer yet.
    pub(super) fn answer(&self, place: Place) -> Option<Option<ValueMessage>> {
        let Met { handoff, received, .. } = &self[place];
        match received {
            Received::No => None,
            Received::Unanswered => Some(None),
            Received::Answered(Answer { value, extensions }) => {
                let (standard_error, handle) = extensions.as_deref().copied().unwrap_or_default();
                Some(Some(ValueMessage { standard_error, handle, ..ValueMessage::new(*handoff, *value) }))
            }
        }
    }

    /// Note that a handoff was received, and its answer as soon as there is one.
    pub(super) fn receive(&mut self, place: Place, answer: Option<ValueMessage>) {
        self[place].received = match answer {
            None => Received::Unanswered,
            Some(ValueMessage { value, standard_error, handle, .. }) => {
                let extended = standard_error.is_some() || handle.is_some();
                let extensions = extended.then(|| Box::new((standard_error, handle)));
                Received::Answered(Answer { value, extensions })
            }
        };
    }

    /// Note that a handoff has ended, one that the participant made if `made`, and forget the oldest beyond `max`; those
    /// being worked on still need their answer.
    pub(super) fn end(&mut self, place: Place, made: bool, max: usize) {
        let met = &mut self[place];
        let closes = made && !core::mem::replace(&mut met.closed, true);
        if closes || !matches!(met.received, Received::No) {
            met.queued += 1;
            self.ended.push_back(place);
        }
        while self.ended.len() > max
            && let Some(oldest) = self.ended.pop_front()
        {
            self.forget(oldest);
        }
    }

    /// All handoffs that are known, in ascending order; and those that ended, oldest first, by their number in that order.
    pub(super) fn in_order(&self) -> (Vec<Place>, Vec<u32>) {
        let mut places: Vec<Place> = self.index.iter().copied().collect();
        places.sort_unstable_by_key(|place| self[*place].handoff);
        let mut numbers = vec![0; self.met.len()];
        places.iter().zip(0..).for_each(|(place, number)| numbers[place.0 as usize] = number);
        let ended = self.ended.iter().map(|place| numbers[place.0 as usize]).collect();
        (places, ended)
    }

    /// Put back which have ended, oldest first, by the order in which all were put back. False if one is not known, or
    /// if one would never be forgotten.
    pub(super) fn load_ended(&mut self, numbers: &[u32]) -> bool {
        for number in numbers {
            let Some(met) = self.met.get_mut(*number as usize) else { return false };
            met.queued += 1;
            self.ended.push_back(Place(*number));
        }
        self.iter().all(|met| {
            let in_flight = met.active.is_some() || met.pending.is_some();
            in_flight || met.queued > 0 || met.received == Received::Unanswered
        })
    }

    fn forget(&mut self, place: Place) {
        let met = &mut self[place];
        met.queued -= 1;
        met.closed = false;
        if met.active.is_some() {
            return;
        }
        met.received = Received::No;
        if met.queued == 0 && met.pending.is_none() {
            let hash = self.hash.hash_one(self[place].handoff);
            if let Ok(entry) = self.index.find_entry(hash, |i| *i == place) {
                entry.remove();
                self.free.push(place);
            }
        }
    }
}
