//! A2A over HTTP, both ways: against a node, a scripted host, the official clients and peers that misbehave.

mod bad_peers;
mod caller;
mod carry;
mod host;
mod news;
#[path = "../org/mod.rs"]
mod org;
mod peers;
mod strangers;
mod tasks;
