//! One agent alone, the best there is: the task is handed to it, it works, and it concludes. Many teams are worse than
//! this, so that no comparison is whole without it.

use relevo_core::{ids::AgentId, protocol::Choice};

use super::fixed::Fixed;
use crate::environment::EnvironmentSpec;

/// The agent that earns most alone, and what it earns, by what `value` says of its workflow; `None` if no agent may
/// conclude by itself.
pub fn best(spec: &EnvironmentSpec, mut value: impl FnMut(&Fixed) -> f64) -> Option<(AgentId, f64)> {
    let concludes = |agent: &usize| spec.choices[*agent].iter().any(|c| c.leads == Choice::Finish);
    (0..spec.agents.len())
        .filter(concludes)
        .map(|agent| AgentId(agent as u32))
        .map(|agent| (agent, value(&Fixed::new(spec, &[agent]))))
        .max_by(|(_, a), (_, b)| a.total_cmp(b))
}
