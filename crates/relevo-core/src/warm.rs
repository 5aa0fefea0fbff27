//! Warm start: what an earlier policy says of choices that a team still has, as priors for a learner that begins; and the
//! notice that a prior no longer holds.
//!
//! A prior counts as visits up to a cap, so that it can be outvoted. A choice is known again by the name of its column. A
//! name may end in `#` and a version, of a prompt or a model: another version of a choice begins with less.

use alloc::{format, string::String, vec::Vec};

use crate::{
    graph::PolicyGraph,
    ids::ActionId,
    observation::Signature,
    policy_file::{AgentPolicy, EdgePolicy, PolicyFileError, signature_of_key},
    protocol::Event,
    record::Table,
    units::Value,
};

/// The most visits that a prior counts as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Caps {
    /// Of the same choice.
    pub same: u32,
    /// Of another version of it.
    pub version: u32,
}

impl Default for Caps {
    fn default() -> Self {
        Caps { same: 20, version: 5 }
    }
}

/// What an earlier policy gives to a learner that begins.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct WarmStart {
    /// To be told to the participant before anything else.
    pub events: Vec<Event>,
    /// Priors from the same choice.
    pub same: usize,
    /// Priors from another version of the choice.
    pub versions: usize,
    /// What was learned of choices that the team no longer has.
    pub dropped: usize,
}

/// What `old` says of the columns of these names. Each takes over the visits of the column of its name; where that has
/// none, those of the last version of it that has.
pub fn start(
    old: &AgentPolicy,
    successors: &[String],
    operations: &[String],
    caps: Caps,
) -> Result<WarmStart, PolicyFileError> {
    let inconsistent = |what: String| PolicyFileError::Inconsistent(format!("agent {:?}: {what}", old.name));
    let mut warm = WarmStart::default();
    let columns =
        [(Table::Successors, &old.successors, successors), (Table::Operations, &old.operations, operations)];
    for ((table, were, are), policy) in columns.into_iter().zip(&old.tables) {
        for node in &policy.nodes {
            let signature = signature_of_key(&node.signature).map_err(inconsistent)?;
            let mut known = Vec::with_capacity(node.edges.len());
            for edge in node.edges.iter().filter(|edge| edge.visits > 0) {
                let name = were.get(edge.action as usize);
                let name = name.ok_or_else(|| inconsistent(format!("column {} has no name", edge.action)))?;
                known.push((name.as_str(), edge));
            }
            let mut taken = Vec::with_capacity(known.len());
            for (action, name) in (0..).map(ActionId).zip(are) {
                let same = known.iter().position(|(was, _)| was == name);
                let version = || known.iter().rposition(|(was, _)| unversioned(was) == unversioned(name));
                let Some(place) = same.or_else(version) else { continue };
                let EdgePolicy { decision_value, visits, .. } = *known[place].1;
                let value = Value::new(decision_value).map_err(|e| inconsistent(format!("a value: {e}")))?;
                let weight = match same {
                    Some(_) => visits.min(caps.same),
                    None => visits.min(caps.version),
                };
                taken.push(place);
                if weight > 0 {
                    warm.events.push(Event::Primed { table, signature, action, value, weight });
                    warm.same += usize::from(same.is_some());
                    warm.versions += usize::from(same.is_none());
                }
            }
            warm.dropped += (0..known.len()).filter(|place| !taken.contains(place)).count();
        }
    }
    Ok(warm)
}

/// The name of a column without its version.
fn unversioned(name: &str) -> &str {
    name.split_once('#').map_or(name, |(name, _)| name)
}

/// A prior that own outcomes speak against.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Drift {
    /// The situation.
    pub signature: Signature,
    /// The choice.
    pub action: ActionId,
    /// Its value at the start.
    pub prior: f64,
    /// Mean of its targets since.
    pub mean: f64,
    /// The standard error of that mean.
    pub standard_error: f64,
    /// How many targets.
    pub visits: u32,
}

/// Visits before a prior can be said to have drifted.
pub const DRIFT_VISITS: u32 = 8;
/// Standard errors beyond which it is.
pub const DRIFT_ERRORS: f64 = 3.0;

/// The choices whose own mean lies more than [`DRIFT_ERRORS`] standard errors from their prior, after at least
/// [`DRIFT_VISITS`] visits. One that did not drift is named with a chance of 2% at 8 visits, falling to .3%
/// (normal targets, a true prior).
pub fn drift(graph: &PolicyGraph) -> Vec<Drift> {
    let mut drifts = Vec::new();
    for signature in graph.signatures() {
        let edges = graph.edges(*signature).unwrap_or(&[]).iter().zip(graph.sums(*signature).unwrap_or(&[]));
        let priors = graph.priors(*signature).unwrap_or(&[]);
        for (action, ((edge, sums), prior)) in (0..).map(ActionId).zip(edges.zip(priors)) {
            if prior.weight == 0 || edge.visits < DRIFT_VISITS {
                continue;
            }
            let n = f64::from(edge.visits);
            let mean = sums.targets / n;
            let standard_error = libm::sqrt(sums.targets_m2 / (n - 1.0) / n);
            // Targets that are all alike have no error; their mean has one of rounding.
            let rounding = 1e-9 * libm::fabs(prior.value).max(1.0);
            if libm::fabs(mean - prior.value) > DRIFT_ERRORS * standard_error + rounding {
                let (signature, prior, visits) = (*signature, prior.value, edge.visits);
                drifts.push(Drift { signature, action, prior, mean, standard_error, visits });
            }
        }
    }
    drifts
}
