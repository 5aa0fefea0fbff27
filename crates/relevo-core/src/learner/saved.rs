//! What a snapshot holds of a learner. Which parts there are, and their shapes, is in its specification. Choices not yet
//! settled are those of the handoffs in flight: see [`crate::protocol`].

use super::{ActionValues, Approximator, Learner};
use crate::{
    experience::Experience,
    snapshot::{Loaded, Reader, Saved, Writer},
};

impl ActionValues {
    fn is_finite(&self) -> bool {
        self.graph.is_finite()
            && match &self.approximator {
                None => true,
                Some(Approximator::Linear(q)) => q.parameters().iter().all(|w| w.is_finite()),
                Some(Approximator::Mlp(q)) => q.is_finite(),
            }
    }

    fn save(&self, e: &mut Writer) -> Saved {
        self.graph.save(e)?;
        match &self.approximator {
            None => Ok(()),
            Some(Approximator::Linear(q)) => q.save(e),
            Some(Approximator::Mlp(q)) => q.save(e),
        }
    }

    fn load(&mut self, d: &mut Reader<'_>) -> Loaded {
        self.graph.load(d)?;
        match &mut self.approximator {
            None => Ok(()),
            Some(Approximator::Linear(q)) => q.load(d),
            Some(Approximator::Mlp(q)) => q.load(d),
        }
    }
}

impl Learner {
    /// Whether no estimate has diverged.
    pub(crate) fn is_finite(&self) -> bool {
        self.successors.is_finite() && self.operations.as_ref().is_none_or(ActionValues::is_finite)
    }

    pub(crate) fn save(&self, e: &mut Writer) -> Saved {
        self.successors.save(e)?;
        self.operations.as_ref().map_or(Ok(()), |values| values.save(e))?;
        self.memory.as_ref().map_or(Ok(()), |memory| memory.save(e))
    }

    /// Put back what was saved of a learner of the same specification, which this one, still new, has.
    pub(crate) fn load(&mut self, d: &mut Reader<'_>) -> Loaded {
        self.successors.load(d)?;
        self.operations.as_mut().map_or(Ok(()), |values| values.load(d))?;
        self.memory.as_mut().map_or(Ok(()), |memory| memory.load(d))
    }

    /// The local operations that it remembers.
    pub(crate) fn experiences(&self) -> &[Experience] {
        self.memory.as_ref().map_or(&[], |memory| memory.kept())
    }
}
