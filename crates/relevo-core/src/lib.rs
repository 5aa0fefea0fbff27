//! relevo-core decides and learns.
#![cfg_attr(not(feature = "std"), no_std)]

extern crate alloc;

pub mod graph;
pub mod ids;
pub mod learner;
pub mod observation;
pub mod policy;
pub mod policy_file;
pub mod protocol;
pub mod q;
pub mod record;
pub mod replay;
pub mod rng;
pub mod step;
pub mod units;

pub use rng::Rng;
