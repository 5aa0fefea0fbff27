//! Where a task stands: what is to be decided, or why it stopped.

use relevo_core::{
    ids::ActionId,
    observation::{ActionSet, Observation, Signature},
};

use crate::guard::StopReason;

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
