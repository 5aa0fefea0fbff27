//! relevo does the work: it brings tasks before a team of agents and lets them learn who should act next.
//!
//! In reading order: the [`team`] file says who there is; [`tasks`], and generated [`problems`], say what is to be done; an [`interface`] says what each
//! agent sees of the [`artifact`]; on the [`stage`] the [`agent`]s act, some by a language [`model`] or a [`tool`]; in an [`episode`] participants of `relevo-core` decide;
//! they [`learn`] while the [`ledger`] remembers; a [`coordinate`]d team has one participant, which invokes and skips
//! the cells of a plan; [`guard`]s hold whatever is learned, an [`approval`] is a person's, and a run can be told to [`stop`];
//! a [`judge`] says how good what came out is, and [`reward`] what that earns; [`evaluate`] measures and [`report`] tells,
//! with each [`picture`]; ways to run a team are compared as [`arms`]; whoever [`observe`]s
//! a run can be told by [`telemetry`].
//!
//! What is absent: no learning target is computed here, and no learner is given what another one saw.

pub mod agent;
pub mod approval;
pub mod arms;
pub mod artifact;
pub mod coordinate;
pub mod episode;
pub mod evaluate;
pub mod guard;
pub mod interface;
pub mod judge;
pub mod learn;
pub mod ledger;
pub mod model;
pub mod observe;
pub mod outcomes;
pub mod picture;
pub mod problems;
pub mod redact;
pub mod report;
pub mod reward;
pub mod stage;
pub mod stop;
pub mod tasks;
pub mod team;
pub mod telemetry;
pub mod tool;
pub mod trace;
