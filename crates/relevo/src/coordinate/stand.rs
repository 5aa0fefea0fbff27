//! Where a task stands: what is to be decided, or why it stopped.

use relevo_core::{
    ids::ActionId,
    observation::{ActionSet, Observation, Signature},
};

/// Why a task stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StopReason {
    /// An evaluator said that it is done, and nothing that is required was outstanding.
    Done,
    /// It had all its steps.
    Budget,
    /// There is nothing that may come next.
    NothingLegal,
    /// Somebody else stopped it, who says why in a word.
    Halted(&'static str),
}

impl StopReason {
    /// The reason as a word that records and reports may rely on.
    pub fn word(self) -> &'static str {
        match self {
            StopReason::Done => "evaluator-done",
            StopReason::Budget => "max-steps",
            StopReason::NothingLegal => "nothing-legal",
            StopReason::Halted(word) => word,
        }
    }
}

/// Where a task stands.
#[derive(Clone, Debug, PartialEq)]
pub enum Stand {
    /// Something is to be decided.
    Decide(Decision),
    /// It has stopped.
    Stop(StopReason),
}

/// What is to be decided.
#[derive(Clone, Debug, PartialEq)]
pub struct Decision {
    /// The readable name of the situation.
    pub name: String,
    /// The readable names of the coarser situations that it is part of, from the coarsest on.
    pub coarser: Vec<String>,
    /// The columns that are admissible.
    pub legal: ActionSet,
    /// Columns that would be, but for a reason that is a word for records and reports: `required` (a required role could
    /// no longer act) or `reserved` (the steps left are for required roles).
    pub masked: Vec<(ActionId, &'static str)>,
}

impl Decision {
    /// The signature of the situation.
    pub fn signature(&self) -> Signature {
        Signature::of_name(&self.name)
    }

    /// The signatures of the coarser situations, from the coarsest on.
    pub fn coarser_signatures(&self) -> Box<[Signature]> {
        self.coarser.iter().map(|name| Signature::of_name(name)).collect()
    }

    /// What the coordinator sees. This is the one place where that is made.
    pub fn observation(&self) -> Observation {
        Observation::of(self.signature(), self.legal.clone())
    }
}
