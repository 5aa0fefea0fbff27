//! One folder per experiment.

pub mod chain;
pub mod routing;
pub mod t1;
