//! The coordinator: one participant whose operations are to invoke, or to skip, the cells of a plan.
//!
//! What is known of a task are its [`features`]; they say which [`activation`] plan it gets. Cells read and write a
//! [`document`]; from it come the [`belief`]s, and from both the [`state`] that the coordinator decides on. A [`plan`] says
//! which column of its table stands for what, and with [`activation`] and state makes the [`coordination`] of a team.
//! [`progress`] leads one task from its first cell to its end, and says where it [`stand`]s. [`card`]s say what a cell is
//! told to be good at, and a [`contribution`] is what one adds to the document.
//!
//! A [`recording`] is what a coordinator did elsewhere, and [`replay`] feeds it to a participant of `relevo-core` and
//! compares what was learned.

pub mod activation;
pub mod belief;
pub mod card;
pub mod contribution;
pub mod coordination;
pub mod document;
pub mod features;
pub mod plan;
pub mod progress;
pub mod recording;
pub mod replay;
pub mod stand;
pub mod state;
