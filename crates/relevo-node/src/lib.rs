//! One organisation's agents behind a door: handoffs come from other organisations and go to them, durable, exactly once.
//!
//! What crosses is an artifact one way, and an id and one number back. A [`machine::Machine`] decides, without a clock, a
//! network or a disk of its own; [`store`] keeps what it decided, [`transport`] carries it, and what leaves has been kept
//! before. [`wire`] is the only way in and out.
//!
//! The path of one handoff from `a` to `b`: `a` keeps it, then [`transport::Transport::carry`] sends it, under one id,
//! until `b` has answered; `b` keeps it with what it decided, then answers with its value, then lets its agent work;
//! `a` learns from the value, once. What `b` brings goes back as the result of the task, and later the outcome of the
//! whole comes as one number along the same path.

pub mod actor;
pub mod door;
pub mod folder;
pub mod ids;
pub mod machine;
pub mod operator;
pub mod serve;
pub mod server;
pub mod sim;
pub mod spec;
pub mod store;
pub mod transport;
pub mod verify;
pub mod wire;
