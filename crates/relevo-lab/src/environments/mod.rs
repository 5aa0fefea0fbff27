//! Environments, each versioned.

pub mod maths;
