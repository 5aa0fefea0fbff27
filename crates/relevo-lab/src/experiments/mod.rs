//! One folder per experiment.

pub mod chain;
pub mod compare;
pub mod routing;
pub mod t1;
