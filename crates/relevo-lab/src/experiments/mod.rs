//! One folder per experiment.

pub mod chain;
