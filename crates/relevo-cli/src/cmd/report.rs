//! `relevo report`: what happened in a run, or in one of its tasks.

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::Args;
use relevo::{
    learn::LEDGER_FILE,
    ledger::Entries,
    trace::{Fold, SessionReport, TaskReport, page},
};

use super::{Fault, print};
use crate::{info, world::write_file};

/// The name of the page about a run in its folder.
pub(crate) const SESSION_FILE: &str = "session.html";

/// Tell what happened in a run, or in one of its tasks: calls, failures, cost, decisions
///
/// Reads the ledger alone, of runs that go on too, and writes a page of HTML beside it. What agents were given and gave back is
/// in neither.
#[derive(Args)]
pub(crate) struct ReportArguments {
    /// The folder of the run
    run: PathBuf,
    /// One task, from its first handoff to its end
    #[arg(long, value_name = "N")]
    task: Option<u64>,
    /// Print the figures as JSON
    #[arg(long)]
    json: bool,
    /// Where to put the page [default: session.html, or task-N.html, in the folder of the run]
    #[arg(long, value_name = "FILE.html")]
    out: Option<PathBuf>,
}

pub(crate) fn report(arguments: &ReportArguments) -> Result<ExitCode, Fault> {
    let run = &arguments.run;
    let (session, trace) = read(run, arguments.task)?;
    let (name, page, json, text) = match arguments.task {
        None => (SESSION_FILE.to_owned(), page::session(&session)?, session.to_json(), session.to_text()),
        Some(number) => {
            let trace = trace.ok_or_else(|| no_task(number, &session))?;
            (format!("task-{number}.html"), page::task(&trace), trace.to_json(), trace.to_text())
        }
    };
    let out = arguments.out.clone().unwrap_or_else(|| run.join(name));
    write_file(&out, page)?;
    print(if arguments.json { &json } else { &text })?;
    say!("the page is {}", out.display());
    Ok(ExitCode::SUCCESS)
}

/// Write the page about a run that has just ended.
pub(crate) fn write_session(run: &Path) -> Result<(), Fault> {
    write_file(&run.join(SESSION_FILE), page::session(&read(run, None)?.0)?)
}

/// A run from its ledger, and the trace of one of its tasks.
fn read(run: &Path, task: Option<u64>) -> Result<(SessionReport, Option<TaskReport>), Fault> {
    let mut entries = Entries::open(&run.join(LEDGER_FILE))?;
    let mut fold = Fold::new(info::cast(run)?, task);
    while let Some(entry) = entries.next_entry()? {
        fold.take(&entry);
    }
    Ok(fold.finish())
}

fn no_task(number: u64, session: &SessionReport) -> Fault {
    let begun = session.ended + session.open;
    match begun {
        0 => "no task of this run has begun yet".into(),
        _ => format!("there is no task {number} in this run: {begun} have begun, numbered from 0").into(),
    }
}
