//! What a snapshot holds of a network: its parameters, the optimiser's state, and the updates still collected.

use alloc::vec::Vec;

use super::{Mlp, Moments, Tape};
use crate::snapshot::{COUNT_MAX, Loaded, Reader, Saved, Writer, require};

impl Tape {
    /// What has been collected: the inputs of every layer, and the signals of the last; those of the others follow.
    fn collected(&self) -> impl Iterator<Item = &f32> {
        let (n, outputs) = (self.samples(), self.signals.last().map_or(0, Vec::len) / self.capacity);
        let inputs = self.inputs.iter().flat_map(|x| x.chunks(self.capacity)).flat_map(move |row| &row[..n]);
        inputs.chain(self.signals.last().into_iter().flat_map(move |d| &d[..n * outputs]))
    }

    fn collected_mut(&mut self) -> impl Iterator<Item = &mut f32> {
        let (n, outputs) = (self.samples(), self.signals.last().map_or(0, Vec::len) / self.capacity);
        let rows = self.inputs.iter_mut().flat_map(|x| x.chunks_mut(self.capacity));
        let signals = self.signals.last_mut().into_iter().flat_map(move |d| &mut d[..n * outputs]);
        rows.flat_map(move |row| &mut row[..n]).chain(signals)
    }
}

impl Mlp {
    /// Whether it has not diverged.
    pub(crate) fn is_finite(&self) -> bool {
        let Moments { mean, square, .. } = &self.moments;
        let centre = self.centre.iter().flatten();
        let mut all =
            self.parameters.iter().chain(centre).chain(mean).chain(square).chain(self.tape.collected());
        all.all(|x| x.is_finite()) && self.tape.steps.iter().all(|step| step.is_finite())
    }

    pub(crate) fn save(&self, e: &mut Writer) -> Saved {
        let Mlp { parameters, centre, moments, tape, .. } = self;
        let collected: Vec<f32> = tape.collected().copied().collect();
        e.encode((parameters, centre, moments, &tape.steps, collected))?;
        Ok(())
    }

    /// Put back what was saved of a network of the same specification, which this one has.
    pub(crate) fn load(&mut self, d: &mut Reader<'_>) -> Loaded {
        let (parameters, centre, moments, steps, collected): (
            Vec<_>,
            Option<Vec<_>>,
            Moments,
            Vec<_>,
            Vec<f32>,
        ) = d.decode()?;
        let lengths = |p: &Vec<f32>, c: &Option<Vec<f32>>, m: &Moments| {
            (p.len(), c.as_ref().map(Vec::len), m.mean.len(), m.square.len())
        };
        require(
            lengths(&parameters, &centre, &moments) == lengths(&self.parameters, &self.centre, &self.moments),
            "a network has another number of parameters",
        )?;
        require(
            moments.steps < COUNT_MAX && moments.square.iter().all(|square| *square >= 0.0),
            "the moments of an optimiser are none",
        )?;
        require(
            steps.len() < self.tape.capacity && steps.iter().all(|step| *step >= 0.0),
            "a network has collected more than a batch",
        )?;
        (self.parameters, self.centre, self.moments, self.tape.steps) = (parameters, centre, moments, steps);
        require(
            self.tape.collected().count() == collected.len(),
            "a network has collected other updates than it says",
        )?;
        self.tape.collected_mut().zip(collected).for_each(|(place, x)| *place = x);
        Ok(())
    }
}
