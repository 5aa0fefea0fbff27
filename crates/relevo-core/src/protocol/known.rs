//! Handoffs that a participant has met: what it answered to those received, and which of those it made have ended. So
//! that nothing is done twice, and a late value is told from an unknown one.
//!
//! Ended handoffs are forgotten oldest first. What is known lies in the order in which it was met, which is about the
//! order in which it is forgotten, beside a small index: forgetting then walks through memory instead of jumping.

use alloc::{boxed::Box, collections::VecDeque, vec, vec::Vec};
use core::hash::BuildHasher;
use foldhash::fast::FixedState;
use hashbrown::HashTable;

use super::ValueMessage;
use crate::{
    ids::{Handle, HandoffId},
    units::Value,
};

#[derive(Clone, Debug)]
enum Received {
    No,
    Unanswered,
    Answered(Answer),
}

/// A [`ValueMessage`] sent for the first time, without the handoff that it answers.
#[derive(Clone, Debug)]
struct Answer {
    value: Value,
    /// Apart, as it is rare: see [`Met`].
    extensions: Option<Box<(Option<Value>, Option<Handle>)>>,
}

/// A handoff that was met. As ever so many of them are kept, it is to fit a cache line of 64 bytes.
#[derive(Clone, Debug)]
struct Met {
    handoff: HandoffId,
    received: Received,
    /// Made, and over.
    closed: bool,
    /// How often it is in the queue of ended ones: one that an agent handed to itself ends twice.
    queued: u32,
}

const _: () = assert!(size_of::<Met>() <= 64);

#[derive(Clone, Debug)]
pub(super) struct Known {
    hash: FixedState,
    /// Places in `met`.
    index: HashTable<u32>,
    met: Vec<Met>,
    /// Places in `met` that are to be used again, the last first.
    free: Vec<u32>,
    /// Places in `met` of ended handoffs, oldest first.
    ended: VecDeque<u32>,
}

impl Known {
    pub(super) fn new(hash: FixedState) -> Self {
        Known { hash, index: HashTable::new(), met: vec![], free: vec![], ended: VecDeque::new() }
    }

    fn place(&self, handoff: HandoffId) -> Option<u32> {
        let is = |place: &u32| self.met[*place as usize].handoff == handoff;
        self.index.find(self.hash.hash_one(handoff), is).copied()
    }

    fn get(&self, handoff: HandoffId) -> Option<&Met> {
        self.place(handoff).map(|place| &self.met[place as usize])
    }

    fn place_or_insert(&mut self, handoff: HandoffId) -> u32 {
        if let Some(place) = self.place(handoff) {
            return place;
        }
        let new = Met { handoff, received: Received::No, closed: false, queued: 0 };
        let place = match self.free.pop() {
            Some(place) => {
                self.met[place as usize] = new;
                place
            }
            None => {
                self.met.push(new);
                self.met.len() as u32 - 1
            }
        };
        let Known { hash, index, met, .. } = self;
        index.insert_unique(hash.hash_one(handoff), place, |i| hash.hash_one(met[*i as usize].handoff));
        place
    }

    /// What was answered to a handoff; `None` if it was not received, `Some(None)` if there is no answer yet.
    pub(super) fn answer(&self, handoff: HandoffId) -> Option<Option<ValueMessage>> {
        match &self.get(handoff)?.received {
            Received::No => None,
            Received::Unanswered => Some(None),
            Received::Answered(Answer { value, extensions }) => {
                let (standard_error, handle) = extensions.as_deref().copied().unwrap_or_default();
                Some(Some(ValueMessage { standard_error, handle, ..ValueMessage::new(handoff, *value) }))
            }
        }
    }

    /// Note that a handoff was received, and its answer as soon as there is one.
    pub(super) fn receive(&mut self, handoff: HandoffId, answer: Option<ValueMessage>) {
        let received = match answer {
            None => Received::Unanswered,
            Some(ValueMessage { value, standard_error, handle, .. }) => {
                let extended = standard_error.is_some() || handle.is_some();
                let extensions = extended.then(|| Box::new((standard_error, handle)));
                Received::Answered(Answer { value, extensions })
            }
        };
        let place = self.place_or_insert(handoff);
        self.met[place as usize].received = received;
    }

    /// Whether a handoff that the participant made is over.
    pub(super) fn is_closed(&self, handoff: HandoffId) -> bool {
        self.get(handoff).is_some_and(|met| met.closed)
    }

    /// Note that a handoff has ended, one that the participant made if `made`, and forget the oldest beyond `max`;
    /// those that `is_active` still need their answer.
    pub(super) fn end(
        &mut self,
        handoff: HandoffId,
        made: bool,
        max: usize,
        is_active: impl Fn(&HandoffId) -> bool,
    ) {
        let place = if made { Some(self.place_or_insert(handoff)) } else { self.place(handoff) };
        if let Some(place) = place {
            let met = &mut self.met[place as usize];
            let closes = made && !core::mem::replace(&mut met.closed, true);
            if closes || !matches!(met.received, Received::No) {
                met.queued += 1;
                self.ended.push_back(place);
            }
        }
        while self.ended.len() > max
            && let Some(oldest) = self.ended.pop_front()
        {
            self.forget(oldest, &is_active);
        }
    }

    fn forget(&mut self, place: u32, is_active: impl Fn(&HandoffId) -> bool) {
        let met = &mut self.met[place as usize];
        met.queued -= 1;
        met.closed = false;
        let kept = !matches!(met.received, Received::No) && is_active(&met.handoff);
        if !kept {
            met.received = Received::No;
            if met.queued == 0
                && let Ok(entry) = self.index.find_entry(self.hash.hash_one(met.handoff), |i| *i == place)
            {
                entry.remove();
                self.free.push(place);
            }
        }
    }
}
