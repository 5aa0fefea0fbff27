//! A2A over HTTP, both ways, against a scripted host, the official client and peers that misbehave.

mod bad_peers;
mod carry;
mod door;
mod host;
mod peers;
