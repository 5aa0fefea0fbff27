//! The verbs of a node: `serve`, `join`, `peers`, `handoff`, `outcome`, `ledger`; and `sim`, many of them in simulated time.

pub(crate) mod handoff;
pub(crate) mod join;
pub(crate) mod ledger;
pub(crate) mod peers;
pub(crate) mod serve;
pub(crate) mod sim;

use relevo_node::ids::WireId;

use super::Fault;

/// A new id of a handoff.
fn new_id() -> Result<WireId, Fault> {
    let mut random = [0; 10];
    getrandom::fill(&mut random)?;
    Ok(WireId::new(crate::world::now(), &random))
}

/// A runtime that also serves while it waits.
fn runtime() -> Result<tokio::runtime::Runtime, Fault> {
    Ok(tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?)
}
