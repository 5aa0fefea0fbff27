//! Pools: what a table knows of a choice in coarser situations, and of choices like it, as the prior of a cell
//! (hierarchical shrinkage). Used by [`crate::graph::PolicyGraph`], which settles them with its own edges.
//!
//! An observation may carry its coarser signatures ([`Features::Coarser`](crate::observation::Features::Coarser)), from
//! the coarsest on. Each has a pool per column: value and visits, moved by every target of that column there. The pool of
//! a group of columns, such as those of one skill or one model, is that of its members together. From the coarsest
//! signature to the cell itself, the mean `m` of `e` visits is weighed with the next pool, `q` of `n` visits:
//!
//! `m <- (c m + n q) / (c + n)`, `e <- c + n`, with `c = min(kappa, e)`;  `m` is the initial value and `e = 0` at first
//!
//! At each signature the groups of the column come before the column. So a new situation borrows from coarser ones, a new
//! variant from its skill and its model, and no prior outweighs kappa visits of the cell's own. A prior taken over from
//! an earlier policy ([`crate::warm`]) counts with the latter.

use alloc::{vec, vec::Vec};

use crate::{
    graph::{Node, PolicyGraph},
    observation::Observation,
    policy::Numbers,
};

/// How a table borrows.
#[derive(Clone, Debug, PartialEq)]
pub struct PooledSpec {
    /// The groups of each column, such as its role, its skill and its model, each any number below
    /// [`PooledSpec::GROUPS_MAX`]; empty where columns share nothing.
    pub groups: Vec<Vec<u32>>,
    /// kappa: the most visits that a prior may stand for.
    pub strength: f64,
}

impl PooledSpec {
    /// The strength where a team names none.
    pub const STRENGTH: f64 = 5.0;
    /// The most groups.
    pub const GROUPS_MAX: u32 = 1 << 16;
}

/// A mean, and the visits that it stands for.
#[derive(Clone, Copy, Debug, Default)]
struct Belief {
    mean: f64,
    visits: f64,
}

impl Belief {
    /// Take in another mean of `n` visits. Equal means stay what they are, bit for bit.
    fn weigh(&mut self, q: f64, n: f64) {
        if n > 0.0 {
            // m <- (c m + n q) / (c + n)
            self.mean = q + self.visits / (self.visits + n) * (self.mean - q);
            self.visits += n;
        }
    }

    /// `c = min(kappa, e)`.
    fn at_most(self, kappa: f64) -> Self {
        Belief { visits: self.visits.min(kappa), ..self }
    }
}

/// What a table with pools says of a situation, by column.
#[derive(Debug)]
pub(crate) struct Shrunk {
    /// Estimates.
    pub(crate) values: Numbers,
    /// What decisions are taken on instead, where the step rule averages.
    pub(crate) averages: Option<Vec<f64>>,
    /// The visits that each prior stands for.
    pub(crate) pseudo: Vec<f64>,
}

/// The pools of one table.
#[derive(Clone, Debug)]
pub(crate) struct Pools {
    spec: PooledSpec,
    /// One more than the largest group.
    groups: usize,
    /// By coarser signature and column.
    pub(crate) graph: PolicyGraph,
}

impl Pools {
    pub(crate) fn new(spec: PooledSpec, graph: PolicyGraph) -> Self {
        let groups = spec.groups.iter().flatten().max().map_or(0, |last| *last as usize + 1);
        Pools { spec, groups, graph }
    }

    /// All that is known at `o`, of which `node` is the table's own part.
    pub(crate) fn shrink(&self, o: &Observation, node: Option<Node<'_>>) -> Shrunk {
        let estimate = |node: &Node<'_>, column: usize| node.edges[column].value;
        let average = |node: &Node<'_>, column: usize| node.averages.map_or(0.0, |averages| averages[column]);
        let (values, pseudo) = self.chain(o, node, estimate);
        let averages = self.graph.averages().then(|| self.chain(o, node, average).0.into_vec());
        Shrunk { values, averages, pseudo }
    }

    fn chain(
        &self,
        o: &Observation,
        node: Option<Node<'_>>,
        value: impl Fn(&Node<'_>, usize) -> f64,
    ) -> (Numbers, Vec<f64>) {
        let kappa = self.spec.strength;
        let unknown = Belief { mean: self.graph.initial(), visits: 0.0 };
        let mut beliefs = vec![unknown; self.graph.width()];
        let mut groups = vec![Belief::default(); self.groups];
        for pool in o.features.coarser().iter().filter_map(|coarser| self.graph.node(*coarser)) {
            groups.fill(Belief::default());
            for (column, of) in self.spec.groups.iter().enumerate() {
                for group in of {
                    groups[*group as usize].weigh(value(&pool, column), f64::from(pool.edges[column].visits));
                }
            }
            for (column, belief) in beliefs.iter_mut().enumerate() {
                // No group counts for more than a prior does: else the largest would drown what tells columns apart.
                let mut alike = Belief::default();
                for group in self.spec.groups.get(column).into_iter().flatten() {
                    let Belief { mean, visits } = groups[*group as usize].at_most(kappa);
                    alike.weigh(mean, visits);
                }
                *belief = belief.at_most(kappa);
                belief.weigh(alike.mean, alike.visits);
                *belief = belief.at_most(kappa);
                belief.weigh(value(&pool, column), f64::from(pool.edges[column].visits));
            }
        }
        let mut values = Numbers::with_capacity(beliefs.len());
        let mut pseudo = Vec::with_capacity(beliefs.len());
        for (column, belief) in beliefs.into_iter().enumerate() {
            let mut belief = belief.at_most(kappa);
            let taken_over = node.map_or(0.0, |node| node.weight(column));
            pseudo.push(belief.visits + taken_over);
            if let Some(node) = &node {
                // The cell's own value has taken its prior in.
                belief.weigh(value(node, column), taken_over + f64::from(node.edges[column].visits));
            }
            values.push(belief.mean);
        }
        (values, pseudo)
    }
}
