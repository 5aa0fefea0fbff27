//! What happened in a run, told from its ledger alone: a [`Fold`] takes its entries one after the other and comes to a
//! [`SessionReport`], all tasks in figures, and to the [`TaskReport`] of one task, if asked for. The trace of a run is its
//! ledger; there is no other. No payload is in either.
//!
//! The fold holds what it shows and the tasks that are open, however long the ledger is.

mod cast;
pub mod explain;
mod figures;
mod fold;
pub mod page;
mod session;
pub(crate) mod tables;
mod tally;
mod task;

pub(crate) use cast::Meaning;
pub use cast::{Cast, Columns};
pub use figures::{Counts, Quantiles, Window};
pub use fold::Fold;
pub use session::{AgentFigures, SITUATIONS_MAX, SessionReport, Situation, TASKS_MAX, Totals, Verdicts};
pub use task::{Call, Choice, Decision, EVENTS_MAX, Event, Masked, PATH_MAX, Task, TaskReport, Verdict};
