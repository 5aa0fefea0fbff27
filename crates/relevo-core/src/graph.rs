//! The policy graph: what one agent has learned of each situation, as a fold of its records.
//!
//! It is also the tabular estimator. A node is a signature, an edge one choice there; the edges of a node lie side
//! by side in memory. Settlements come from [`crate::learner`]; `relevo explain` and the policy file read it. Nothing
//! else writes it: if it is wrong, the fold or the log is.

use alloc::{boxed::Box, vec, vec::Vec};
use core::ops::Range;
use foldhash::fast::FixedState;
use hashbrown::HashMap;
use minicbor::{Decode, Encode};

use crate::{
    ids::ActionId,
    observation::{Observation, Signature},
    pools::{PooledSpec, Pools, Shrunk},
    q::QFunction,
    record::{Record, Table},
    step::StepRule,
    units::{Confidence, Usage},
};

/// What a decision reads of an edge: 16 bytes, so that a node of 16 choices spans four cache lines.
#[derive(Clone, Copy, Debug, PartialEq, Encode, Decode)]
#[cbor(array)]
pub struct Edge {
    /// Q(o, a): the current estimate, in the team's unit of reward.
    #[n(0)]
    pub value: f64,
    /// Settlements so far.
    #[n(1)]
    pub visits: u32,
    /// Failed attempts so far.
    #[n(2)]
    pub failures: u32,
}

/// What a report reads of an edge: sums over its settlements.
#[derive(Clone, Copy, Debug, Default, PartialEq, Encode, Decode)]
#[cbor(array)]
pub struct Sums {
    /// Sum of the targets y.
    #[n(0)]
    pub targets: f64,
    /// Sum of squared deviations of the targets from their mean.
    #[n(1)]
    pub targets_m2: f64,
    /// Sum of the tokens used.
    #[n(2)]
    pub tokens: f64,
    /// Sum of squared deviations of the tokens from their mean.
    #[n(3)]
    pub tokens_m2: f64,
}

/// What was taken over from an earlier policy: where a value starts, and how many visits that counts as.
#[derive(Clone, Copy, Debug, Default, PartialEq, Encode, Decode)]
#[cbor(array)]
pub struct Prior {
    /// The value.
    #[n(0)]
    pub value: f64,
    /// The visits; 0 where there is no prior.
    #[n(1)]
    pub weight: u32,
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
    /// Where an earlier policy was taken over.
    pub(crate) priors: Option<&'a [Prior]>,
}

impl Node<'_> {
    /// The visits that the prior of a choice counts as.
    pub(crate) fn weight(&self, column: usize) -> f64 {
        self.priors.map_or(0.0, |priors| f64::from(priors[column].weight))
    }
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
    /// What was taken over from an earlier policy; empty until something is.
    priors: Vec<Prior>,
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
            priors: vec![],
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
            Record::Primed { table, signature, action, value, weight } if *table == of => {
                self.prime(*signature, *action, Prior { value: value.get(), weight: *weight });
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
            spreads: self.spreads.get(row.clone()),
            priors: self.priors.get(row),
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

    /// What was taken over of a situation from an earlier policy, one a choice; `None` where nothing was.
    pub fn priors(&self, signature: Signature) -> Option<&[Prior]> {
        self.row(signature).and_then(|row| self.priors.get(row))
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

    /// The step of the next settlement of an edge: that of its next visit, those of its prior counted.
    pub fn next_step(&self, signature: Signature, action: ActionId) -> f64 {
        self.row(signature).map_or(self.step.step(1), |row| self.next_step_at(row.start + action.index()))
    }

    fn next_step_at(&self, at: usize) -> f64 {
        self.step.step(self.edges[at].visits.saturating_add(self.prior(at).weight).saturating_add(1))
    }

    fn prior(&self, at: usize) -> Prior {
        self.priors.get(at).copied().unwrap_or_default()
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
        confidence: Confidence,
    ) -> (f64, f64) {
        let shrunk = self.shrunk(o);
        if let Some(pools) = self.pools_mut() {
            for coarser in o.features.coarser() {
                pools.settle_here(*coarser, action, target, Usage::default(), confidence);
            }
        }
        let (error, step) = self.settle_here(o.signature, action, target, usage, confidence);
        (shrunk.map_or(error, |shrunk| target - shrunk.values[action.index()]), step)
    }

    /// The values at `o`, where they are shrunk towards pools.
    fn shrunk(&self, o: &Observation) -> Option<Shrunk> {
        self.pools.as_ref().map(|pools| pools.shrink(o, self.node(o.signature)))
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
        confidence: Confidence,
    ) -> (f64, f64) {
        let at = self.row_or_insert(signature).start + action.index();
        // What is trusted less moves the estimate less; it is a visit like any other.
        let step = confidence.get() * self.next_step_at(at);
        (self.settle_at(at, target, step, usage), step)
    }

    fn settle_at(&mut self, at: usize, target: f64, step: f64, usage: Usage) -> f64 {
        let prior = self.prior(at);
        let edge = &mut self.edges[at];
        let error = target - edge.value;
        edge.visits = edge.visits.saturating_add(1);
        edge.failures = edge.failures.saturating_add(usage.failures);
        let n = edge.visits;
        let sums = &mut self.sums[at];
        let before = sums.targets;
        let was_mean = || n == 1 || edge.value == mean(before, n - 1, prior);
        accumulate(&mut sums.targets, &mut sums.targets_m2, target, n);
        accumulate(&mut sums.tokens, &mut sums.tokens_m2, usage.tokens as f64, n);
        let steps = n.saturating_add(prior.weight);
        edge.value = match self.step {
            // The sample mean is taken from the sum: repeated steps of 1/n would differ from it in the last bits, and
            // choices that did equally well would no longer tie. Not where some samples were trusted less than others.
            StepRule::Mean if step == self.step.step(steps) && was_mean() => mean(sums.targets, n, prior),
            // Q(o, a) <- Q(o, a) + alpha (y - Q(o, a))
            _ => edge.value + step * error,
        };
        if let Some(weight) = self.step.average_weight(steps) {
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

    /// Take over a prior: until the first settlement it is the value; from then on each step is that of a visit as many
    /// later as the prior counts for, so that sample means are those of the prior's visits and the own together.
    pub fn prime(&mut self, signature: Signature, action: ActionId, prior: Prior) {
        let at = self.row_or_insert(signature).start + action.index();
        self.priors.resize(self.edges.len(), Prior::default());
        self.priors[at] = prior;
        if self.edges[at].visits == 0 {
            self.edges[at].value = prior.value;
            if !self.averages.is_empty() {
                self.averages[at] = prior.value;
            }
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

/// The mean of `n` targets and a prior.
fn mean(targets: f64, n: u32, prior: Prior) -> f64 {
    match f64::from(prior.weight) {
        0.0 => targets / f64::from(n),
        // Q(o, a) = (w Q_0 + sum of y) / (w + n)
        w => (w * prior.value + targets) / (w + f64::from(n)),
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

mod saved;
#[cfg(test)]
mod tests;
