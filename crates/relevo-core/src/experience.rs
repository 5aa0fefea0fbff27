//! Experience replay (Lin 1992): an adaptable agent learns again from its own most recent operations.

use alloc::vec::Vec;
use minicbor::{Decode, Encode};

use crate::{
    learner::Step,
    observation::Observation,
    record::Table,
    rng::Rng,
    snapshot::{Loaded, Reader, Saved, Writer, require},
};

/// How much an agent remembers of its operations, and how often it goes back to them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExperienceReplay {
    /// The most operations it remembers; a new one then takes the place of the oldest.
    pub capacity: usize,
    /// After each operation, Q~ is moved for this many remembered ones, drawn uniformly.
    pub updates: u32,
}

impl ExperienceReplay {
    /// The largest capacity.
    pub const CAPACITY_MAX: usize = 1 << 24;
}

/// One operation, and where it led: the table asked next and what the agent then saw. `None` where the task ended.
#[derive(Clone, Debug, Encode, Decode)]
#[cbor(array)]
pub(crate) struct Experience {
    #[n(0)]
    pub(crate) step: Step,
    #[n(1)]
    pub(crate) next: Option<(Table, Observation)>,
}

/// The most recent operations. What they were worth is not kept: targets are computed afresh from the agent's own
/// tables, so that nothing is asked of another agent.
#[derive(Clone, Debug)]
pub(crate) struct Memory {
    pub(crate) spec: ExperienceReplay,
    kept: Vec<Experience>,
    oldest: usize,
}

impl Memory {
    pub(crate) fn new(spec: ExperienceReplay) -> Self {
        Memory { spec, kept: Vec::new(), oldest: 0 }
    }

    pub(crate) fn keep(&mut self, experience: Experience) {
        if self.kept.len() < self.spec.capacity {
            return self.kept.push(experience);
        }
        self.kept[self.oldest] = experience;
        self.oldest = (self.oldest + 1) % self.spec.capacity;
    }

    /// One of them at random; something has been kept.
    pub(crate) fn draw(&self, rng: &mut Rng) -> &Experience {
        &self.kept[rng.below(self.kept.len() as u32) as usize]
    }

    pub(crate) fn kept(&self) -> &[Experience] {
        &self.kept
    }

    pub(crate) fn save(&self, e: &mut Writer) -> Saved {
        e.encode((&self.kept, self.oldest as u64))?;
        Ok(())
    }

    pub(crate) fn load(&mut self, d: &mut Reader<'_>) -> Loaded {
        let (kept, oldest): (_, u64) = d.decode()?;
        (self.kept, self.oldest) = (kept, usize::try_from(oldest).unwrap_or(usize::MAX));
        let (capacity, len) = (self.spec.capacity, self.kept.len());
        let sound = if len < capacity { self.oldest == 0 } else { len == capacity && self.oldest < capacity };
        require(sound, "more operations are remembered than there is room for")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        ids::ActionId,
        units::{Return, Tau, Usage},
    };

    #[test]
    fn the_oldest_is_forgotten_first() {
        let mut memory = Memory::new(ExperienceReplay { capacity: 3, updates: 1 });
        for number in 0..8 {
            let step = Step {
                observation: Observation::default(),
                action: ActionId(number),
                reward: Return::ZERO,
                tau: Tau::ONE,
                usage: Usage::default(),
            };
            memory.keep(Experience { step, next: None });
        }
        let mut kept: Vec<u32> = memory.kept.iter().map(|e| e.step.action.0).collect();
        kept.sort_unstable();
        assert_eq!(kept, [5, 6, 7]);
    }
}
