//! One folder per experiment.

pub mod certify;
pub mod chain;
pub mod compare;
pub mod coordinate;
pub mod cpu;
pub mod faults;
pub mod maths;
pub mod maths_lm;
pub mod routing;
pub mod t1;
pub mod t2;
