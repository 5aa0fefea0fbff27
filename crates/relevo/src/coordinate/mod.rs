//! The coordinator: one participant whose operations are to invoke, or to skip, the cells of a plan.
//!
//! A [`plan`] says which cells there are and which may come next in a [`state`]; a [`recording`] is what a coordinator
//! did elsewhere, and [`replay`] feeds it to a participant of `relevo-core` and compares what was learned.

pub mod plan;
pub mod recording;
pub mod replay;
pub mod state;
