//! relevo-lab asks questions: environments with known answers, in which teams learn to hand off.
//!
//! Everything here is simulated, and says so.

pub mod baselines;
pub mod certify;
pub mod corpus;
pub mod drive;
pub mod environment;
pub mod environments;
pub mod experiment;
pub mod experiments;
pub mod linalg;
mod loopback;
pub mod mail;
pub mod model_server;
pub mod playthrough;
pub mod plot;
pub mod results;
pub mod sample;
pub mod tool_server;

use std::{collections::BTreeMap, sync::Arc};

use relevo::{
    tasks::{Simulator, TaskError},
    team::{SimulateSpec, nearest},
};

/// The simulated worlds that a team file can name.
pub const WORLDS: [&str; 2] = [environments::desk::NAME, environments::maths::NAME];

/// The simulated world of a team file; `seed` draws its evaluation tasks.
pub fn simulator(spec: &SimulateSpec) -> Result<Arc<dyn Simulator>, TaskError> {
    match spec.environment.as_str() {
        environments::desk::NAME => Ok(Arc::new(environments::desk::DeskWorld::new(&spec.options)?)),
        environments::maths::NAME => Ok(Arc::new(environments::maths::MathsWorld::new(&spec.options)?)),
        other => {
            let hint = match nearest(other, WORLDS.into_iter()) {
                Some(near) => format!("did you mean {near:?}?"),
                None => format!("known are {}", WORLDS.join(", ")),
            };
            Err(TaskError(format!("[simulate]: the environment {other:?} is unknown; {hint}")))
        }
    }
}

/// Refuse options that an environment does not have.
pub(crate) fn known_options(
    options: &BTreeMap<String, toml::Value>,
    known: &[&str],
) -> Result<(), TaskError> {
    match options.keys().find(|k| !known.contains(&k.as_str())) {
        None => Ok(()),
        Some(key) => {
            let hint = nearest(key, known.iter().copied())
                .map_or(String::new(), |k| format!("; did you mean {k:?}?"));
            Err(TaskError(format!("[simulate.options]: {key:?} is unknown{hint}")))
        }
    }
}
