//! Policies of several runs as one: what each learned, added up by name.

use alloc::{
    collections::{BTreeMap, BTreeSet},
    format,
    string::{String, ToString},
    vec,
    vec::Vec,
};

use super::{AgentPolicy, EdgePolicy, NodePolicy, PolicyFile, PolicyFileError, PriorPolicy, Source};

impl PolicyFile {
    /// One policy of several. Agents and columns are the same if they have the same name, situations if they have the
    /// same key. Visits, failures and sums add up; values are means weighted by visits; of two priors the one that
    /// counts for more is kept. Refused where values began otherwise, where parameters of an estimator would have to be
    /// added up, and where a policy would count twice.
    pub fn merge(files: &[PolicyFile]) -> Result<PolicyFile, PolicyFileError> {
        let refused = |what: String| Err(PolicyFileError::Merge(what));
        let Some((first, others)) = files.split_first() else {
            return refused("there is none".to_string());
        };
        let mut source = Source { merged: parts(first), ledger: String::new(), ..first.source.clone() };
        let (mut signatures, mut agents) = (first.signatures.clone(), first.agents.clone());
        for file in others {
            source.episodes = source.episodes.saturating_add(file.source.episodes);
            source.merged.extend(parts(file));
            if source.config != file.source.config {
                source.config.clear();
            }
            for (key, name) in &file.signatures {
                signatures.entry(key.clone()).or_insert_with(|| name.clone());
            }
            for agent in &file.agents {
                match agents.iter_mut().find(|known| known.name == agent.name) {
                    Some(known) => known.add(agent)?,
                    None => agents.push(agent.clone()),
                }
            }
        }
        let mut met = BTreeSet::new();
        if let Some(twice) = source.merged.iter().find(|part| !met.insert(*part)) {
            return refused(format!("the policy with the digest {twice} would count twice"));
        }
        Ok(PolicyFile::sealed(source, signatures, agents))
    }
}

/// The digests of the policies that a file is made of.
fn parts(file: &PolicyFile) -> Vec<String> {
    match file.source.merged.is_empty() {
        true => vec![file.digest.clone()],
        false => file.source.merged.clone(),
    }
}

/// Nodes by key and column.
type Cells = BTreeMap<String, BTreeMap<u32, EdgePolicy>>;

impl AgentPolicy {
    fn add(&mut self, other: &AgentPolicy) -> Result<(), PolicyFileError> {
        let name = self.name.clone();
        let refused = |what: &str| PolicyFileError::Merge(format!("agent {name:?}: {what}"));
        if self.tables.len() != other.tables.len() {
            return Err(refused("it chooses its operations in one policy and not in another"));
        }
        let columns = [(&mut self.successors, &other.successors), (&mut self.operations, &other.operations)];
        for ((table, more), (names, others)) in self.tables.iter_mut().zip(&other.tables).zip(columns) {
            if table.initial.to_bits() != more.initial.to_bits() {
                let (one, another) = (table.initial, more.initial);
                return Err(refused(&format!("its values began at {one} and at {another}")));
            }
            if !table.parameters.is_empty() || !more.parameters.is_empty() {
                return Err(refused("only tables can be merged, not a linear or neural estimator"));
            }
            let places = others.iter().map(|name| place(names, name)).collect::<Vec<u32>>();
            for (nodes, more) in [(&mut table.nodes, &more.nodes), (&mut table.pools, &more.pools)] {
                *nodes = added(nodes, more, &places)
                    .ok_or_else(|| refused("one of its columns has no name in the file"))?;
            }
        }
        Ok(())
    }
}

/// The column of this name; a new one if there is none yet.
fn place(names: &mut Vec<String>, name: &str) -> u32 {
    let known = names.iter().position(|known| known == name);
    known.unwrap_or_else(|| {
        names.push(name.to_string());
        names.len() - 1
    }) as u32
}

/// The cells of both; those of `more` are moved to the columns `places`.
fn added(nodes: &[NodePolicy], more: &[NodePolicy], places: &[u32]) -> Option<Vec<NodePolicy>> {
    let mut cells = Cells::new();
    for NodePolicy { signature, edges } in nodes {
        let node = edges.iter().map(|edge| (edge.action, edge.clone()));
        cells.insert(signature.clone(), node.collect());
    }
    for NodePolicy { signature, edges } in more {
        let node = cells.entry(signature.clone()).or_default();
        for edge in edges {
            let action = *places.get(edge.action as usize)?;
            let edge = EdgePolicy { action, ..edge.clone() };
            node.entry(action).and_modify(|known| known.add(&edge)).or_insert(edge);
        }
    }
    let node = |(signature, edges): (String, BTreeMap<u32, EdgePolicy>)| NodePolicy {
        signature,
        edges: edges.into_values().collect(),
    };
    Some(cells.into_iter().map(node).collect())
}

impl EdgePolicy {
    fn add(&mut self, other: &EdgePolicy) {
        let (n, m) = (f64::from(self.visits), f64::from(other.visits));
        let (value, decision_value) = match (self.visits, other.visits, self.prior, other.prior) {
            // Neither has been there: what counts for more.
            (0, 0, mine, Some(prior)) if mine.is_none_or(|mine| mine.weight < prior.weight) => {
                (other.value, other.decision_value)
            }
            (_, 0, ..) => (self.value, self.decision_value),
            _ => {
                let mean = |a: f64, b: f64| a + m / (n + m) * (b - a);
                self.spread = mean(self.spread, other.spread);
                (mean(self.value, other.value), mean(self.decision_value, other.decision_value))
            }
        };
        (self.value, self.decision_value) = (value, decision_value);
        self.targets_m2 = together((n, self.targets, self.targets_m2), (m, other.targets, other.targets_m2));
        self.tokens_m2 = together((n, self.tokens, self.tokens_m2), (m, other.tokens, other.tokens_m2));
        self.targets += other.targets;
        self.tokens += other.tokens;
        self.visits = self.visits.saturating_add(other.visits);
        self.failures = self.failures.saturating_add(other.failures);
        self.lead = other.lead.clone().or(self.lead.take());
        let stronger = |mine: &PriorPolicy| other.prior.is_none_or(|prior| prior.weight <= mine.weight);
        self.prior = self.prior.filter(stronger).or(other.prior);
    }
}

/// Sum of squared deviations of two samples together (Chan et al. 1983), each with its size, sum and own M2:
/// `M2 = M2_a + M2_b + (mean_a - mean_b)^2 n m / (n + m)`.
fn together((n, sum_a, m2_a): (f64, f64, f64), (m, sum_b, m2_b): (f64, f64, f64)) -> f64 {
    if n == 0.0 || m == 0.0 {
        return m2_a + m2_b;
    }
    let gap = sum_a / n - sum_b / m;
    m2_a + m2_b + gap * gap * n * m / (n + m)
}
