//! `relevo serve`: a node.

use std::{path::PathBuf, process::ExitCode};

use clap::Args;
use relevo_node::{serve, spec::NodeSpec, store::StoreError};

use super::runtime;
use crate::cmd::{Fault, print};

/// What a process ends with that finds another one at its place.
const TAKEN: u8 = 3;

/// Host an organisation's agents: take work from others and hand it on, learn, and keep it all
///
/// The node file says which team is served, where, and for whom. Ctrl-C lets what has begun be answered; started again,
/// the node goes on where it was, whatever had stopped it.
#[derive(Args)]
pub(crate) struct ServeArguments {
    /// The node file
    node: PathBuf,
}

pub(crate) fn serve(arguments: &ServeArguments) -> Result<ExitCode, Fault> {
    let (spec, team) = NodeSpec::load(&arguments.node)?;
    let name = spec.name.clone();
    let ready = |address| {
        let _ = print(&format!("{name} listens on http://{address}\n"));
        say!("its state is in {}; Ctrl-C stops it", spec.state_folder().display());
    };
    let served = runtime()?.block_on(serve::serve(&spec, team, ready, asked_to_stop()));
    match served {
        Ok(()) => Ok(ExitCode::SUCCESS),
        Err(serve::ServeError::Store(e @ StoreError::Locked(_))) => {
            say!("error: {e}");
            Ok(ExitCode::from(TAKEN))
        }
        Err(e) => Err(format!("{}: {e}", arguments.node.display()).into()),
    }
}

/// Ctrl-C, or the order of a service manager. The second one ends at once.
async fn asked_to_stop() {
    let mut terminated = match tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()) {
        Ok(signal) => signal,
        Err(_) => return drop(tokio::signal::ctrl_c().await),
    };
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        _ = terminated.recv() => {}
    }
    tokio::spawn(async move {
        tokio::select! {
            _ = tokio::signal::ctrl_c() => {}
            _ = terminated.recv() => {}
        }
        std::process::exit(130);
    });
}
