//! Environments, each versioned.

pub mod chain;
pub mod cpu;
pub mod desk;
pub mod maths;
pub mod routing;
pub mod synthetic;
