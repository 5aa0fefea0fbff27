//! `relevo serve`: a node.

use std::{io, path::PathBuf, process::ExitCode};

use clap::Args;
use relevo_node::{serve, spec::NodeSpec, store::StoreError};
use tokio::signal::unix::{SignalKind, signal};

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
    /// Append every exchange with another organisation that this node begins, as one line of JSON, without credentials
    #[arg(long, value_name = "FILE")]
    tap: Option<PathBuf>,
}

pub(crate) fn serve(arguments: &ServeArguments) -> Result<ExitCode, Fault> {
    let (spec, team) = NodeSpec::load(&arguments.node)?;
    let name = spec.name.clone();
    let ready = |url: &str| {
        let _ = print(&format!("{name} listens on {url}\n"));
        say!("its state is in {}; Ctrl-C stops it", spec.state_folder().display());
    };
    let runtime = runtime()?;
    let stop = {
        let _inside = runtime.enter();
        asked_to_stop()?
    };
    match runtime.block_on(serve::serve(&spec, team, arguments.tap.as_deref(), ready, stop)) {
        Ok(()) => Ok(ExitCode::SUCCESS),
        Err(serve::ServeError::Store(e @ StoreError::Locked(_))) => {
            say!("error: {e}");
            Ok(ExitCode::from(TAKEN))
        }
        Err(e) => Err(format!("{}: {e}", arguments.node.display()).into()),
    }
}

/// Ctrl-C, or the order of a service manager, from now on. The second one ends at once.
fn asked_to_stop() -> io::Result<impl Future<Output = ()>> {
    let (mut interrupted, mut terminated) =
        (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    let mut asked = async move || {
        tokio::select! {
            _ = interrupted.recv() => {}
            _ = terminated.recv() => {}
        }
    };
    Ok(async move {
        asked().await;
        tokio::spawn(async move {
            asked().await;
            std::process::exit(130);
        });
    })
}
