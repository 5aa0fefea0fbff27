//! What a snapshot holds of a graph: everything but its specification and its index.

use super::PolicyGraph;
use crate::snapshot::{Loaded, Reader, Saved, Writer, require};

impl PolicyGraph {
    /// Whether no estimate has diverged.
    pub(crate) fn is_finite(&self) -> bool {
        let edges = self.edges.iter().map(|edge| edge.value);
        let priors = self.priors.iter().map(|prior| prior.value);
        let mut all =
            edges.chain(priors).chain(self.averages.iter().copied()).chain(self.spreads.iter().copied());
        all.all(f64::is_finite) && self.pools().is_none_or(PolicyGraph::is_finite)
    }

    pub(crate) fn save(&self, e: &mut Writer) -> Saved {
        let PolicyGraph { signatures, edges, sums, averages, spreads, leads, priors, .. } = self;
        e.encode((signatures, edges, sums, averages, spreads, leads, priors))?;
        self.pools().map_or(Ok(()), |pools| pools.save(e))
    }

    /// Put back what was saved of a graph of the same specification, which this one, still empty, has.
    pub(crate) fn load(&mut self, d: &mut Reader<'_>) -> Loaded {
        let PolicyGraph { signatures, edges, sums, averages, spreads, leads, priors, .. } = &mut *self;
        (*signatures, *edges, *sums, *averages, *spreads, *leads, *priors) = d.decode()?;
        require(self.signatures.len() <= self.nodes_max, "a graph has too many situations")?;
        let (width, cells) = (self.width, self.width * self.signatures.len());
        let averaged = if self.averages() { cells } else { 0 };
        // What came late does not reach to the situations that came after it.
        let late = [self.spreads.len(), self.leads.len(), self.priors.len()];
        require(
            [self.edges.len(), self.sums.len(), self.averages.len()] == [cells, cells, averaged]
                && late.iter().all(|len| *len <= cells && len % width == 0),
            "a graph has not the same number of choices in every situation",
        )?;
        for (signature, node) in self.signatures.iter().zip(0..) {
            require(self.index.insert(*signature, node).is_none(), "a graph has a situation twice")?;
        }
        self.pools_mut().map_or(Ok(()), |pools| pools.load(d))
    }
}
