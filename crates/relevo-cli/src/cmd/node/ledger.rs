//! `relevo ledger`: what a node keeps, checked.

use std::{path::PathBuf, process::ExitCode};

use clap::{Args, Subcommand};
use relevo_core::policy_file::hex;
use relevo_node::{spec::NodeSpec, verify};

use crate::cmd::{Fault, print};

/// What a node keeps
#[derive(Subcommand)]
pub(crate) enum LedgerCommand {
    Verify(VerifyArguments),
}

/// Walk the hash chain of a node's ledger, and replay every decision in it
///
/// Every seal must cover what stands before it, and agents that begin anew and are told what the ledger says they were told
/// must do what it says they did. Ends with 1 where they part.
#[derive(Args)]
pub(crate) struct VerifyArguments {
    /// The node file
    node: PathBuf,
}

pub(crate) fn ledger(command: &LedgerCommand) -> Result<ExitCode, Fault> {
    let LedgerCommand::Verify(arguments) = command;
    let (spec, team) = NodeSpec::load(&arguments.node)?;
    let verified = verify::verify(&spec, team).map_err(|e| format!("{}: {e}", arguments.node.display()))?;
    let verify::Verified { commits, entries, head, agents } = verified;
    print(&format!("{entries} entries in {commits} commits, head {}\n", hex(&head)))?;
    for (agent, counters) in agents {
        print(&format!("{agent}: {} received, {} settled\n", counters.received, counters.settled))?;
    }
    Ok(ExitCode::SUCCESS)
}
