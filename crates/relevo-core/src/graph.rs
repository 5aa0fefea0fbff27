//! The policy graph: what one agent has learned of each situation, as a fold of its records.
//!
//! It is also the tabular estimator. A node is a signature, an edge one choice there; the edges of a node lie side
//! by side in memory. Settlements come from [`crate::learner`]; `relevo explain` and the policy file read it. Nothing
//! else writes it: if it is wrong, the fold or the log is.

use alloc::{boxed::Box, vec, vec::Vec};
use core::ops::Range;
use foldhash::fast::FixedState;
use hashbrown::HashMap;

use crate::{
    ids::ActionId,
    observation::{Observation, Signature},
    pools::{PooledSpec, Pools, Shrunk},
    q::QFunction,
    record::{Record, Table},
    step::StepRule,
    units::Usage,
};

/// What a decision reads of an edge: 16 bytes, so that a node of 16 choices spans four cache lines.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Edge {
    /// Q(o, a): the current estimate, in the team's unit of reward.
    pub value: f64,
    /// Settlements so far.
    pub visits: u32,
    /// Failed attempts so far.
    pub failures: u32,
}

/// What a report reads of an edge: sums over its settlements.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Sums {
    /// Sum of the targets y.
    pub targets: f64,
    /// Sum of squared deviations of the targets from their mean.
    pub targets_m2: f64,
    /// Sum of the tokens used.
    pub tokens: f64,
    /// Sum of squared deviations of the tokens from their mean.
    pub tokens_m2: f64,
}

/// The row of one situation in every column of a [`PolicyGraph`], looked up once.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Node<'a> {
    pub(crate) edges: &'a [Edge],
    pub(crate) sums: &'a [Sums],
    /// Where the step rule averages.
    pub(crate) averages: Option<&'a [f64]>,
    /// Where values come with standard errors.
    pub(crate) spreads: Option<&'a [f64]>,
}

/// The policy graph of one agent and one table of choices.
#[derive(Clone, Debug)]
pub struct PolicyGraph {
    width: usize,
    initial: f64,
    step: StepRule,
    nodes_max: usize,
    index: HashMap<Signature, u32, FixedState>,
    signatures: Vec<Signature>,
    edges: Vec<Edge>,
    sums: Vec<Sums>,
    /// Tail averages of the values; empty unless the step rule averages.
    averages: Vec<f64>,
    /// Running mean of gamma^tau times the standard error that came with V; empty until one comes.
    spreads: Vec<f64>,
    /// Where each choice last led within the agent; empty until one is told.
    leads: Vec<Option<Signature>>,
    pools: Option<Box<Pools>>,
}

impl PolicyGraph {
    /// Where situations are kept together once the graph is full.
    pub const OTHER: Signature = Signature(u64::MAX);

    /// An empty graph of `width` choices a node, each worth `initial` until it is first settled. Beyond `nodes_max`
    /// signatures, new ones share the node [`PolicyGraph::OTHER`].
    pub fn new(width: usize, initial: f64, step: StepRule, nodes_max: usize) -> Self {
        PolicyGraph {
            width,
            initial,
            step,
            nodes_max: nodes_max.clamp(1, u32::MAX as usize),
            index: HashMap::with_hasher(FixedState::with_seed(0x72_65_6c_65_76_6f)),
            signatures: vec![],
            edges: vec![],
            sums: vec![],
            averages: vec![],
            spreads: vec![],
            leads: vec![],
            pools: None,
        }
    }

    /// The same graph, its values shrunk towards pools; see [`crate::pools`]. Records name no coarser signatures, so
    /// that a fold of them leaves the pools as they are: [`crate::replay`] moves them too.
    pub fn with_pools(self, spec: PooledSpec) -> Self {
        let pools = PolicyGraph::new(self.width, self.initial, self.step, self.nodes_max);
        PolicyGraph { pools: Some(Box::new(Pools::new(spec, pools))), ..self }
    }

    /// The pools, by coarser signature and column, where there are any.
    pub fn pools(&self) -> Option<&PolicyGraph> {
        self.pools.as_ref().map(|pools| &pools.graph)
    }

    /// The pools, to put back what a policy file holds.
    pub(crate) fn pools_mut(&mut self) -> Option<&mut PolicyGraph> {
        self.pools.as_mut().map(|pools| &mut pools.graph)
    }

    /// The graph that a sequence of records makes: all settlements and revisions of `table`, in order.
    pub fn fold<'r>(self, table: Table, records: impl IntoIterator<Item = &'r Record>) -> Self {
        records.into_iter().fold(self, |mut graph, record| {
            graph.apply(table, record);
            graph
        })
    }

    /// Take in one record; those of other tables, and those that settle nothing, change nothing.
    pub fn apply(&mut self, of: Table, record: &Record) {
        match record {
            Record::Settled { table, signature, action, target, step, usage, spread, lead, .. }
                if *table == of =>
            {
                self.settle(*signature, *action, *target, *step, *usage);
                if let Some(spread) = spread {
                    self.spread(*signature, *action, *spread, *step);
                }
                if let Some(lead) = lead {
                    self.lead(*signature, *action, *lead);
                }
            }
            Record::Missed { table, signature, action, failures } if *table == of => {
                self.miss(*signature, *action, *failures);
            }
            Record::Revised { table, signature, action, value, .. } if *table == of => {
                self.assign(*signature, *action, *value);
            }
            _ => {}
        }
    }

    /// Choices a node.
    pub fn width(&self) -> usize {
        self.width
    }

    /// The rule of its steps.
    pub(crate) fn step_rule(&self) -> StepRule {
        self.step
    }

    /// Whether the step rule averages.
    pub(crate) fn averages(&self) -> bool {
        self.step.average_weight(1).is_some()
    }

    /// The value of a choice that was never settled.
    pub fn initial(&self) -> f64 {
        self.initial
    }

    /// How many signatures it knows.
    pub fn len(&self) -> usize {
        self.signatures.len()
    }

    /// Whether nothing has been settled yet.
    pub fn is_empty(&self) -> bool {
        self.signatures.is_empty()
    }

    /// The signatures, in the order of their first settlement.
    pub fn signatures(&self) -> &[Signature] {
        &self.signatures
    }

    /// All that is known of a situation; `None` where nothing is.
    pub(crate) fn node(&self, signature: Signature) -> Option<Node<'_>> {
        let row = self.row(signature)?;
        Some(Node {
            edges: &self.edges[row.clone()],
            sums: &self.sums[row.clone()],
            averages: self.averages.get(row.clone()),
            spreads: self.spreads.get(row),
        })
    }

    /// The edges of a situation, one a choice; `None` where nothing is known.
    pub fn edges(&self, signature: Signature) -> Option<&[Edge]> {
        self.row(signature).map(|row| &self.edges[row])
    }

    /// The sums of a situation, one a choice; `None` where nothing is known.
    pub fn sums(&self, signature: Signature) -> Option<&[Sums]> {
        self.row(signature).map(|row| &self.sums[row])
    }

    /// Running means of gamma^tau * se(V), one a choice; `None` unless values come with standard errors.
    pub fn spreads(&self, signature: Signature) -> Option<&[f64]> {
        self.row(signature).and_then(|row| self.spreads.get(row))
    }

    /// Where each choice last led within the agent, one a choice; `None` where nothing is known.
    pub fn leads(&self, signature: Signature) -> Option<&[Option<Signature>]> {
        self.row(signature).and_then(|row| self.leads.get(row))
    }

    /// How often any choice was settled in a situation.
    pub fn visits(&self, signature: Signature) -> u64 {
        self.edges(signature).map_or(0, |edges| edges.iter().map(|e| u64::from(e.visits)).sum())
    }

    /// The values on which decisions are taken: the tail averages if the step rule averages, else the estimates.
    pub fn decision_values(&self, signature: Signature, out: &mut [f64]) {
        match self.row(signature) {
            Some(row) if !self.averages.is_empty() => out[..self.width].copy_from_slice(&self.averages[row]),
            Some(row) => out.iter_mut().zip(&self.edges[row]).for_each(|(v, e)| *v = e.value),
            None => out[..self.width].fill(self.initial),
        }
    }

    /// The step of the next settlement of an edge.
    pub fn next_step(&self, signature: Signature, action: ActionId) -> f64 {
        let visits = self.edges(signature).map_or(0, |edges| edges[action.index()].visits);
        self.step.step(visits.saturating_add(1))
    }

    /// Settle one sample: `Q(o, a) += step (y - Q(o, a))`. Returns the error `y - Q(o, a)` as it was before.
    pub fn settle(
        &mut self,
        signature: Signature,
        action: ActionId,
        target: f64,
        step: f64,
        usage: Usage,
    ) -> f64 {
        let at = self.row_or_insert(signature).start + action.index();
        self.settle_at(at, target, step, usage)
    }

    /// Settle one sample with [`PolicyGraph::next_step`], here and in the pools. Returns the error `y - Q(o, a)` as it
    /// was before, and the step.
    pub(crate) fn settle_next(
        &mut self,
        o: &Observation,
        action: ActionId,
        target: f64,
        usage: Usage,
    ) -> (f64, f64) {
        let shrunk = self.shrunk(o);
        if let Some(pools) = self.pools_mut() {
            for coarser in o.features.coarser() {
                pools.settle_here(*coarser, action, target, Usage::default());
            }
        }
        let (error, step) = self.settle_here(o.signature, action, target, usage);
        (shrunk.map_or(error, |shrunk| target - shrunk.values[action.index()]), step)
    }

    /// The values at `o`, where they are shrunk towards pools.
    fn shrunk(&self, o: &Observation) -> Option<Shrunk> {
        self.shrink(o, self.node(o.signature))
    }

    /// The same with the node of `o`, looked up before.
    pub(crate) fn shrink(&self, o: &Observation, node: Option<Node<'_>>) -> Option<Shrunk> {
        self.pools.as_ref().map(|pools| pools.shrink(o, node))
    }

    /// Settle one sample with the step of its visit, looking the situation up only once.
    fn settle_here(
        &mut self,
        signature: Signature,
        action: ActionId,
        target: f64,
        usage: Usage,
    ) -> (f64, f64) {
        let at = self.row_or_insert(signature).start + action.index();
        let step = self.step.step(self.edges[at].visits.saturating_add(1));
        (self.settle_at(at, target, step, usage), step)
    }

    fn settle_at(&mut self, at: usize, target: f64, step: f64, usage: Usage) -> f64 {
        let edge = &mut self.edges[at];
        let error = target - edge.value;
        edge.visits = edge.visits.saturating_add(1);
        edge.failures = edge.failures.saturating_add(usage.failures);
        let n = edge.visits;
        let sums = &mut self.sums[at];
        accumulate(&mut sums.targets, &mut sums.targets_m2, target, n);
        accumulate(&mut sums.tokens, &mut sums.tokens_m2, usage.tokens as f64, n);
        edge.value = match self.step {
            // The sample mean is taken from the sum: repeated steps of 1/n would differ from it in the last bits, and
            // choices that did equally well would no longer tie.
            StepRule::Mean if step == self.step.step(n) => sums.targets / f64::from(n),
            // Q(o, a) <- Q(o, a) + alpha (y - Q(o, a))
            _ => edge.value + step * error,
        };
        if let Some(weight) = self.step.average_weight(n) {
            // Qbar <- Qbar + w_n (Q - Qbar)
            self.averages[at] += weight * (self.edges[at].value - self.averages[at]);
        }
        error
    }

    /// Take in the standard error that came with V: `spread += step (gamma^tau se - spread)`.
    pub fn spread(&mut self, signature: Signature, action: ActionId, discounted_error: f64, step: f64) {
        let at = self.row_or_insert(signature).start + action.index();
        self.spreads.resize(self.edges.len(), 0.0);
        self.spreads[at] += step * (discounted_error - self.spreads[at]);
    }

    /// Note where a choice led within the agent.
    pub fn lead(&mut self, signature: Signature, action: ActionId, next: Signature) {
        let at = self.row_or_insert(signature).start + action.index();
        self.leads.resize(self.edges.len(), None);
        self.leads[at] = Some(next);
    }

    /// Count attempts that came to nothing: they speak against the choice, and say nothing of its value.
    pub fn miss(&mut self, signature: Signature, action: ActionId, failures: u32) {
        let at = self.row_or_insert(signature).start + action.index();
        let edge = &mut self.edges[at];
        edge.failures = edge.failures.saturating_add(failures);
    }

    /// Set a value without counting a visit (extensions: local model, refresh).
    pub fn assign(&mut self, signature: Signature, action: ActionId, value: f64) {
        let at = self.row_or_insert(signature).start + action.index();
        self.edges[at].value = value;
        if !self.averages.is_empty() {
            self.averages[at] = value;
        }
    }

    /// Put back an edge as it was written to a policy file.
    pub fn restore(&mut self, signature: Signature, action: ActionId, edge: Edge, sums: Sums, average: f64) {
        let at = self.row_or_insert(signature).start + action.index();
        self.edges[at] = edge;
        self.sums[at] = sums;
        if !self.averages.is_empty() {
            self.averages[at] = average;
        }
    }

    /// Bytes held per edge, without the index.
    pub const fn bytes_per_edge() -> usize {
        size_of::<Edge>() + size_of::<Sums>()
    }

    fn row(&self, signature: Signature) -> Option<Range<usize>> {
        let node = match self.index.get(&signature) {
            Some(node) => *node as usize,
            None => *self.index.get(&self.key(signature))? as usize,
        };
        Some(node * self.width..(node + 1) * self.width)
    }

    /// The signature under which a situation is kept: its own, or [`PolicyGraph::OTHER`].
    pub(crate) fn key(&self, signature: Signature) -> Signature {
        // One place is for the rest, which may also have been met under that very name.
        let others = self.index.len() - usize::from(self.index.contains_key(&Self::OTHER));
        match self.index.contains_key(&signature) || others + 1 < self.nodes_max {
            true => signature,
            false => Self::OTHER,
        }
    }

    fn row_or_insert(&mut self, signature: Signature) -> Range<usize> {
        if let Some(row) = self.row(signature) {
            return row;
        }
        let key = self.key(signature);
        self.index.insert(key, self.signatures.len() as u32);
        self.signatures.push(key);
        let start = self.edges.len();
        let end = start + self.width;
        self.edges.resize(end, Edge { value: self.initial, visits: 0, failures: 0 });
        self.sums.resize(end, Sums::default());
        if self.averages() {
            self.averages.resize(end, self.initial);
        }
        start..end
    }
}

/// Add the n-th sample to a sum and its M2, in the arithmetic of the recorded AgensFlow graphs, so that their sums
/// and M2 are met bit for bit: the means are taken from the sums.
fn accumulate(sum: &mut f64, m2: &mut f64, sample: f64, n: u32) {
    *sum += sample;
    if n > 1 {
        let (old, new) = ((*sum - sample) / f64::from(n - 1), *sum / f64::from(n));
        *m2 += (sample - old) * (sample - new);
    }
}

impl QFunction for PolicyGraph {
    fn width(&self) -> usize {
        self.width
    }

    fn values(&self, o: &Observation, out: &mut [f64]) {
        if let Some(shrunk) = self.shrunk(o) {
            return out[..self.width].copy_from_slice(&shrunk.values);
        }
        match self.row(o.signature) {
            Some(row) => out.iter_mut().zip(&self.edges[row]).for_each(|(v, e)| *v = e.value),
            None => out[..self.width].fill(self.initial),
        }
    }

    fn update(&mut self, o: &Observation, a: ActionId, target: f64, step: f64) -> f64 {
        let shrunk = self.shrunk(o);
        if let Some(pools) = self.pools_mut() {
            for coarser in o.features.coarser() {
                pools.settle(*coarser, a, target, step, Usage::default());
            }
        }
        let error = self.settle(o.signature, a, target, step, Usage::default());
        shrunk.map_or(error, |shrunk| target - shrunk.values[a.index()])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Mean and M2 equal the two-pass ones of the same samples, in any interleaving of edges.
        #[test]
        fn sums_are_those_of_the_samples(
            samples in proptest::collection::vec((0u64..5, 0u32..3, -10.0f64..10.0, 0u64..1000), 1..200)
        ) {
            let mut graph = PolicyGraph::new(3, 0.5, StepRule::Mean, 100);
            for (s, a, y, tokens) in &samples {
                let step = graph.next_step(Signature(*s), ActionId(*a));
                graph.settle(Signature(*s), ActionId(*a), *y, step, Usage { tokens: *tokens, failures: 1 });
            }
            for s in 0..5 {
                for a in 0..3 {
                    let ys: alloc::vec::Vec<f64> =
                        samples.iter().filter(|x| x.0 == s && x.1 == a).map(|x| x.2).collect();
                    let Some(edges) = graph.edges(Signature(s)) else { prop_assert!(ys.is_empty()); continue };
                    let (edge, sums) = (edges[a as usize], graph.sums(Signature(s)).unwrap()[a as usize]);
                    prop_assert_eq!(edge.visits as usize, ys.len());
                    prop_assert_eq!(edge.failures as usize, ys.len());
                    if ys.is_empty() { prop_assert_eq!(edge.value, 0.5); continue }
                    let mean = ys.iter().sum::<f64>() / ys.len() as f64;
                    let m2: f64 = ys.iter().map(|y| (y - mean) * (y - mean)).sum();
                    prop_assert!((edge.value - mean).abs() < 1e-9);
                    prop_assert!((sums.targets / ys.len() as f64 - mean).abs() < 1e-9);
                    prop_assert!((sums.targets_m2 - m2).abs() < 1e-7);
                }
            }
        }
    }

    #[test]
    fn a_full_graph_keeps_the_rest_together() {
        let mut graph = PolicyGraph::new(1, 0.0, StepRule::Constant(1.0), 3);
        for s in 0..10 {
            graph.settle(Signature(s), ActionId(0), s as f64, 1.0, Usage::default());
        }
        assert_eq!(graph.signatures(), [Signature(0), Signature(1), PolicyGraph::OTHER]);
        assert_eq!(graph.edges(Signature(1)).unwrap()[0].value, 1.0);
        assert_eq!(graph.edges(Signature(7)).unwrap()[0], Edge { value: 9.0, visits: 8, failures: 0 });
    }

    #[test]
    fn a_miss_counts_against_a_choice_and_says_nothing_of_its_value() {
        let mut graph = PolicyGraph::new(2, 0.5, StepRule::Mean, 10);
        let (here, there, a) = (Signature(1), Signature(2), ActionId(1));
        graph.miss(here, a, 2);
        assert_eq!(graph.edges(here).unwrap()[1], Edge { value: 0.5, visits: 0, failures: 2 });
        assert_eq!((graph.visits(here), graph.leads(here)), (0, None));
        graph.lead(here, a, there);
        graph.settle(there, ActionId(0), 1.0, 1.0, Usage::default());
        assert_eq!(graph.leads(here), Some(&[None, Some(there)][..]));
        assert_eq!(graph.leads(there).unwrap_or(&[None, None]), [None, None]);
    }

    #[test]
    fn equal_samples_in_another_order_of_visits_have_the_mean_of_their_sum() {
        let mut graph = PolicyGraph::new(1, 0.0, StepRule::Mean, 10);
        let samples = [0.1, 0.7, 0.2, 0.9, 0.3];
        for y in samples {
            graph.settle_here(Signature(1), ActionId(0), y, Usage::default());
        }
        let value = graph.edges(Signature(1)).unwrap()[0].value;
        assert_eq!(value.to_bits(), (samples.iter().sum::<f64>() / 5.0).to_bits());
    }

    #[test]
    fn an_edge_takes_at_most_64_bytes() {
        assert!(PolicyGraph::bytes_per_edge() <= 64);
    }
}
