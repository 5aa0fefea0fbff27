//! `relevo stop`: the kill switch of a run.

use std::{path::PathBuf, process::ExitCode};

use clap::Args;
use relevo::stop;

use super::{Fault, plain, print};
use crate::world;

/// Stop all work of a run at once, and keep it stopped until that is lifted
#[derive(Args)]
pub(crate) struct StopArguments {
    /// The folder of the run
    run: PathBuf,
    /// Why, for people
    #[arg(long, default_value = "no reason given", conflicts_with = "lift")]
    reason: String,
    /// Who says so [default: the user]
    #[arg(long, value_name = "NAME")]
    by: Option<String>,
    /// Let the run go on
    #[arg(long)]
    lift: bool,
}

pub(crate) fn stop(arguments: &StopArguments) -> Result<ExitCode, Fault> {
    let run = world::run(&arguments.run)?;
    let by = arguments.by.clone().unwrap_or_else(world::user);
    let at = world::now();
    let shown = run.display();
    if arguments.lift {
        let stood = stop::lift(run, &by, at)?.ok_or_else(|| format!("{shown}: the run was not stopped"))?;
        print(&format!("{shown}: the stop by {} is lifted ({})\n", plain(&stood.by), plain(&stood.reason)))?;
    } else {
        let order = stop::order(run, &by, &arguments.reason, at)?;
        print(&format!("{shown}: stopped by {}: {}\n", plain(&order.by), plain(&order.reason)))?;
    }
    Ok(ExitCode::SUCCESS)
}
