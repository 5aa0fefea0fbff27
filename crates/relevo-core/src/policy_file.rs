//! The policy file, `relevo.policy/v1`: what a team has learned, as canonical JSON that a person can read and compare.
//!
//! Canonical means that the same content has the same bytes: objects have their keys in a fixed order, nodes are
//! sorted, numbers are in their shortest exact form. Loading refuses what is not: unknown versions and keys,
//! numbers that are not finite, files that were cut off or changed, each with the place.

mod merge;

use alloc::{
    collections::BTreeMap,
    format,
    string::{String, ToString},
    vec::Vec,
};
use serde::{Deserialize, Serialize};

use crate::{
    graph::{Edge, PolicyGraph, Prior, Sums},
    ids::ActionId,
    learner::Learner,
    observation::Signature,
    record::Table,
};

/// The version of the format.
pub const SCHEMA: &str = "relevo.policy/v1";

/// A whole policy.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PolicyFile {
    /// [`SCHEMA`].
    pub schema: String,
    /// Where the policy comes from.
    pub source: Source,
    /// Readable names of signatures, by their hexadecimal key.
    pub signatures: BTreeMap<String, String>,
    /// One entry per agent, in the order of the team file.
    pub agents: Vec<AgentPolicy>,
    /// BLAKE3, hexadecimal, of this file with an empty digest here.
    pub digest: String,
}

/// Where a policy comes from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Source {
    /// Name of the team.
    pub team: String,
    /// BLAKE3, hexadecimal, of the part of the team file that learning depends on.
    pub config: String,
    /// Seed of the run.
    pub seed: u64,
    /// Episodes learned from.
    pub episodes: u64,
    /// Chain head of the ledger that this policy is a fold of.
    /// Empty for a policy merged of several, which then has the team and seed of the first, and its config if all have it.
    pub ledger: String,
    /// Digests of the policies that were merged into this one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub merged: Vec<String>,
}

/// What one agent has learned.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AgentPolicy {
    /// Its name.
    pub name: String,
    /// Names of the columns of its successor table.
    pub successors: Vec<String>,
    /// Names of the columns of its operation table; empty for pre-configured agents.
    pub operations: Vec<String>,
    /// Its graphs: Q, and Q~ of an adaptable agent.
    pub tables: Vec<TablePolicy>,
    /// BLAKE3, hexadecimal, of this entry with an empty digest here: tells which agent's part was changed.
    pub digest: String,
}

/// One table of one agent.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TablePolicy {
    /// Value of what was never tried.
    pub initial: f64,
    /// Situations, sorted by key.
    pub nodes: Vec<NodePolicy>,
    /// Parameters of a linear or neural estimator, little-endian, hexadecimal; empty for tables.
    pub parameters: String,
    /// Pools, by the coarser signatures under which they are kept; none unless the estimator is pooled.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub pools: Vec<NodePolicy>,
}

/// One situation: the choices that have been settled there.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NodePolicy {
    /// Key of the signature, hexadecimal.
    pub signature: String,
    /// Choices that were settled, failed or taken over, in ascending order of their columns.
    pub edges: Vec<EdgePolicy>,
}

/// One choice in one situation.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EdgePolicy {
    /// Its column.
    pub action: u32,
    /// Current estimate.
    pub value: f64,
    /// The value that decisions are taken on (the tail average, where the step rule averages).
    pub decision_value: f64,
    /// Settlements.
    pub visits: u32,
    /// Failed attempts.
    pub failures: u32,
    /// Sum of the targets; divided by the visits, their mean.
    pub targets: f64,
    /// Sum of squared deviations of the targets from their mean.
    pub targets_m2: f64,
    /// Sum of the tokens.
    pub tokens: f64,
    /// Sum of squared deviations of the tokens from their mean.
    pub tokens_m2: f64,
    /// Running mean of gamma^tau times the standard error that came with values; 0 unless that extension is on.
    pub spread: f64,
    /// Key of the signature where it last led within the agent (relay and trajectory credit).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lead: Option<String>,
    /// What was taken over from an earlier policy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prior: Option<PriorPolicy>,
}

/// What was taken over of one choice.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PriorPolicy {
    /// Its value at the start.
    pub value: f64,
    /// The visits that it counts as.
    pub weight: u32,
}

impl EdgePolicy {
    /// Mean of the targets.
    pub fn mean(&self) -> f64 {
        self.targets / f64::from(self.visits.max(1))
    }

    /// Half the width of the 95% interval of that mean (normal approximation); `None` below two visits.
    pub fn half_width(&self) -> Option<f64> {
        let n = f64::from(self.visits);
        (self.visits > 1).then(|| 1.96 * libm::sqrt(self.targets_m2 / (n - 1.0) / n))
    }
}

/// Why a policy file is refused.
#[derive(Debug, thiserror::Error)]
pub enum PolicyFileError {
    /// Another format, or another version of this one.
    #[error("the policy file has schema {found:?}; this program reads {SCHEMA:?}")]
    Schema {
        /// What stands there.
        found: String,
    },
    /// Not JSON of this form: cut off, unknown keys, wrong types, numbers out of range.
    #[error("the policy file cannot be read: {0}")]
    Parse(serde_json::Error),
    /// Readable, but not the bytes that this content has.
    #[error("the policy file was edited or reformatted: line {line} differs from its canonical form")]
    NotCanonical {
        /// First line that differs, from 1.
        line: usize,
    },
    /// Content and digest disagree.
    #[error(
        "the policy file was changed after it was written: the digest of {part} does not match its content"
    )]
    Tampered {
        /// Which part.
        part: String,
    },
    /// Policies that do not go together.
    #[error("the policies cannot be merged: {0}")]
    Merge(String),
    /// Content that no policy can have.
    #[error("the policy file is inconsistent: {0}")]
    Inconsistent(String),
}

/// The hexadecimal form of bytes.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let digits = text.as_bytes();
    if !digits.len().is_multiple_of(2)
        || !digits.iter().all(|d| d.is_ascii_digit() || (b'a'..=b'f').contains(d))
    {
        return None;
    }
    digits.chunks(2).map(|pair| u8::from_str_radix(core::str::from_utf8(pair).ok()?, 16).ok()).collect()
}

/// The key of a signature as the file spells it.
pub fn signature_key(signature: Signature) -> String {
    format!("{:016x}", signature.0)
}

/// The signature of a key, as [`signature_key`] spells it; refused with the reason.
pub fn signature_of_key(key: &str) -> Result<Signature, String> {
    u64::from_str_radix(key, 16).map(Signature).map_err(|_| format!("{key:?} is no signature key"))
}

fn canonical<T: Serialize>(content: &T) -> String {
    serde_json::to_string_pretty(content).expect("plain structures with text keys always serialise") + "\n"
}

fn digest<T: Serialize>(content: &T) -> String {
    blake3::hash(canonical(content).as_bytes()).to_hex().to_string()
}

impl AgentPolicy {
    /// What `learner` has learned.
    pub fn of(name: &str, successors: Vec<String>, operations: Vec<String>, learner: &Learner) -> Self {
        let tables = [Table::Successors, Table::Operations]
            .into_iter()
            .filter_map(|table| {
                let parameters = learner.parameters(table).map_or(String::new(), |p| hex(&p));
                learner.graph(table).map(|graph| TablePolicy { parameters, ..TablePolicy::of(graph) })
            })
            .collect();
        let digest = String::new();
        AgentPolicy { name: name.to_string(), successors, operations, tables, digest }
    }

    /// Put what was learned back into `learner`, which must have been made from the same team file.
    pub fn restore(&self, learner: &mut Learner) -> Result<(), PolicyFileError> {
        let inconsistent =
            |what: &str| PolicyFileError::Inconsistent(format!("agent {:?}: {what}", self.name));
        for (table, policy) in [Table::Successors, Table::Operations].into_iter().zip(&self.tables) {
            let Some(graph) = learner.graph_mut(table) else {
                return Err(inconsistent("it has an operation table, but the team's agent has none"));
            };
            if policy.initial != graph.initial() {
                return Err(inconsistent(&format!(
                    "it was learned with the initial value {}, the team's agent has {}",
                    policy.initial,
                    graph.initial()
                )));
            }
            restore(&policy.nodes, graph).map_err(|what| inconsistent(&what))?;
            match graph.pools_mut() {
                Some(pools) => restore(&policy.pools, pools).map_err(|what| inconsistent(&what))?,
                None if policy.pools.is_empty() => {}
                None => return Err(inconsistent("it has pools, but the team's agent has none")),
            }
            let parameters =
                unhex(&policy.parameters).ok_or_else(|| inconsistent("parameters are not hexadecimal"))?;
            learner.set_parameters(table, &parameters).map_err(|e| inconsistent(&e.to_string()))?;
        }
        Ok(())
    }
}

/// Put nodes back into a graph; refused with the reason.
fn restore(nodes: &[NodePolicy], graph: &mut PolicyGraph) -> Result<(), String> {
    for node in nodes {
        let key = signature_of_key(&node.signature)?;
        for e in &node.edges {
            if e.action as usize >= graph.width() {
                return Err(format!("column {} does not exist", e.action));
            }
            let edge = Edge { value: e.value, visits: e.visits, failures: e.failures };
            let EdgePolicy { targets, targets_m2, tokens, tokens_m2, .. } = *e;
            let sums = Sums { targets, targets_m2, tokens, tokens_m2 };
            graph.restore(key, ActionId(e.action), edge, sums, e.decision_value);
            if let Some(PriorPolicy { value, weight }) = e.prior {
                graph.prime(key, ActionId(e.action), Prior { value, weight });
            }
            if let Some(lead) = &e.lead {
                graph.lead(key, ActionId(e.action), signature_of_key(lead)?);
            }
            if e.spread != 0.0 {
                graph.spread(key, ActionId(e.action), e.spread, 1.0);
            }
        }
    }
    Ok(())
}

impl TablePolicy {
    fn of(graph: &PolicyGraph) -> Self {
        TablePolicy {
            initial: graph.initial(),
            nodes: NodePolicy::all(graph),
            parameters: String::new(),
            pools: graph.pools().map_or(Vec::new(), NodePolicy::all),
        }
    }
}

impl NodePolicy {
    /// All situations of a graph, sorted by key.
    fn all(graph: &PolicyGraph) -> Vec<Self> {
        let mut signatures = graph.signatures().to_vec();
        signatures.sort_unstable();
        let mut decision_values = alloc::vec![0.0; graph.width()];
        signatures
            .into_iter()
            .map(|signature| {
                graph.decision_values(signature, &mut decision_values);
                let edges = graph.edges(signature).unwrap_or(&[]);
                let sums = graph.sums(signature).unwrap_or(&[]);
                let spreads = graph.spreads(signature).unwrap_or(&[]);
                let leads = graph.leads(signature).unwrap_or(&[]);
                let prior = |action: usize| graph.priors(signature).map_or(Prior::default(), |p| p[action]);
                let edges = edges.iter().zip(sums).zip(&decision_values).enumerate();
                let edges = edges.filter(|(action, ((edge, _), _))| {
                    edge.visits > 0 || edge.failures > 0 || prior(*action).weight > 0
                });
                let edges = edges.map(|(action, ((edge, sums), decision_value))| EdgePolicy {
                    action: action as u32,
                    value: edge.value,
                    decision_value: *decision_value,
                    visits: edge.visits,
                    failures: edge.failures,
                    targets: sums.targets,
                    targets_m2: sums.targets_m2,
                    tokens: sums.tokens,
                    tokens_m2: sums.tokens_m2,
                    spread: spreads.get(action).copied().unwrap_or(0.0),
                    lead: leads.get(action).copied().flatten().map(signature_key),
                    prior: match prior(action) {
                        Prior { weight: 0, .. } => None,
                        Prior { value, weight } => Some(PriorPolicy { value, weight }),
                    },
                });
                NodePolicy { signature: signature_key(signature), edges: edges.collect() }
            })
            .collect()
    }
}

impl PolicyFile {
    /// A policy of these agents.
    pub fn new(source: Source, names: &BTreeMap<Signature, String>, agents: Vec<AgentPolicy>) -> Self {
        let signatures = names.iter().map(|(s, name)| (signature_key(*s), name.clone())).collect();
        PolicyFile::sealed(source, signatures, agents)
    }

    /// With the digests of its content.
    fn sealed(source: Source, signatures: BTreeMap<String, String>, mut agents: Vec<AgentPolicy>) -> Self {
        for agent in &mut agents {
            agent.digest.clear();
            agent.digest = digest(agent);
        }
        let schema = SCHEMA.to_string();
        let mut file = PolicyFile { schema, source, signatures, agents, digest: String::new() };
        file.digest = digest(&file);
        file
    }

    /// The canonical text.
    pub fn to_text(&self) -> String {
        canonical(self)
    }

    /// Read a policy file.
    pub fn from_text(text: &str) -> Result<Self, PolicyFileError> {
        #[derive(Deserialize)]
        struct Header {
            schema: String,
        }
        // The version first: a file of another version must not be reported as a malformed one of this version.
        let Header { schema } = serde_json::from_str(text).map_err(PolicyFileError::Parse)?;
        if schema != SCHEMA {
            return Err(PolicyFileError::Schema { found: schema });
        }
        let file: PolicyFile = serde_json::from_str(text).map_err(PolicyFileError::Parse)?;
        let canonical = file.to_text();
        if canonical != text {
            // With their ends: another line end is a difference too.
            let lines = canonical.split_inclusive('\n').zip(text.split_inclusive('\n'));
            let same = lines.take_while(|(a, b)| a == b).count();
            return Err(PolicyFileError::NotCanonical { line: same + 1 });
        }
        for agent in &file.agents {
            if agent.digest != digest(&AgentPolicy { digest: String::new(), ..agent.clone() }) {
                return Err(PolicyFileError::Tampered { part: format!("agent {:?}", agent.name) });
            }
        }
        if file.digest != digest(&PolicyFile { digest: String::new(), ..file.clone() }) {
            return Err(PolicyFileError::Tampered { part: "the file".to_string() });
        }
        Ok(file)
    }

    /// The readable name of a signature key, or the key itself.
    pub fn name<'a>(&'a self, key: &'a str) -> &'a str {
        self.signatures.get(key).map_or(key, String::as_str)
    }
}
