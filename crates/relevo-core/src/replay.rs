//! Replay: a ledger's records, fed to a fresh participant, must give the same records again and leave it as it was.
//! Used to resume a run, to verify a ledger, and to answer for a decision long after it was made.

use alloc::{boxed::Box, collections::VecDeque};

use crate::{
    protocol::{Effect, Effects, Participant, ProtocolError},
    record::Record,
    rng::Rng,
};

/// Where a ledger and what it should say part ways.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// The participant refuses a recorded event.
    #[error("record {index} of this agent is refused: {error}")]
    Refused {
        /// Number of the record among the agent's own, from 0.
        index: u64,
        /// Why.
        error: ProtocolError,
    },
    /// The participant, given the same events, does something else than the ledger says.
    #[error(
        "record {index} of this agent reads {found:?}, but these events lead to {expected:?}: the ledger belongs to \
         another team file, seed or version"
    )]
    Differs {
        /// Number of the record among the agent's own, from 0.
        index: u64,
        /// What the ledger says.
        found: Box<Record>,
        /// What follows from the events before it, if anything does.
        expected: Option<Box<Record>>,
    },
}

/// Replays the records of one agent, in order.
#[derive(Debug, Default)]
pub struct Replay {
    index: u64,
    expected: VecDeque<Record>,
    effects: Effects,
}

impl Replay {
    /// Take in the next record.
    pub fn take(
        &mut self,
        participant: &mut Participant,
        rng: &mut Rng,
        record: &Record,
    ) -> Result<(), ReplayError> {
        let index = self.index;
        self.index += 1;
        if self.expected.is_empty()
            && let Some(event) = record.event()
        {
            participant
                .apply(event, rng, &mut self.effects)
                .map_err(|error| ReplayError::Refused { index, error })?;
            self.expected.extend(self.effects.drain(..).filter_map(|effect| match effect {
                Effect::Record(record) => Some(record),
                _ => None,
            }));
        }
        match self.expected.pop_front() {
            Some(expected) if expected == *record => Ok(()),
            expected => Err(ReplayError::Differs {
                index,
                found: Box::new(record.clone()),
                expected: expected.map(Box::new),
            }),
        }
    }

    /// Whether the records taken so far end where an event's effects end.
    pub fn is_complete(&self) -> bool {
        self.expected.is_empty()
    }
}
