//! `relevo approvals`: the questions of a run to a person, and their answers.

use std::{path::PathBuf, process::ExitCode};

use clap::{Args, Subcommand};
use relevo::{
    approval::{Approval, Approvals, Decision, Listed, Standing},
    report::table,
};
use serde_json::{Value, json};

use super::{Fault, plain, print};
use crate::world;

/// Answer what a run asks a person
#[derive(Subcommand)]
pub(crate) enum ApprovalsCommand {
    List(ListArguments),
    Approve(DecideArguments),
    Deny(DecideArguments),
}

/// Show what is waiting for an answer, the oldest first
#[derive(Args)]
pub(crate) struct ListArguments {
    /// The folder of the run
    run: PathBuf,
    /// Also what has been answered, and what counts as denied
    #[arg(long)]
    all: bool,
    /// As JSON
    #[arg(long)]
    json: bool,
}

/// Answer one question; an answer stays
#[derive(Args)]
pub(crate) struct DecideArguments {
    /// The folder of the run
    run: PathBuf,
    /// The question
    id: String,
    /// Why, for people
    #[arg(long, default_value = "")]
    note: String,
    /// Who answers [default: the user]
    #[arg(long, value_name = "NAME")]
    by: Option<String>,
    /// Print the question with its answer as JSON
    #[arg(long)]
    json: bool,
}

pub(crate) fn approvals(command: &ApprovalsCommand) -> Result<ExitCode, Fault> {
    match command {
        ApprovalsCommand::List(arguments) => list(arguments),
        ApprovalsCommand::Approve(arguments) => decide(arguments, Decision::Approved),
        ApprovalsCommand::Deny(arguments) => decide(arguments, Decision::Denied),
    }
}

fn list(arguments: &ListArguments) -> Result<ExitCode, Fault> {
    let now = world::now();
    let questions = Approvals::of(world::run(&arguments.run)?).list(now)?;
    let waits = |question: &&Listed| arguments.all || question.standing == Standing::Pending;
    let shown: Vec<&Listed> = questions.iter().filter(waits).collect();
    if arguments.json {
        let values: Vec<Value> = shown.iter().map(|question| value(question)).collect();
        print(&format!("{}\n", serde_json::to_string_pretty(&values)?))?;
    } else {
        let head = ["question", "stands", "asks", "agent", "from", "task", "sees", "since", "until"];
        let mut rows = vec![head.map(str::to_owned).to_vec()];
        rows.extend(shown.iter().map(|question| row(question, now)));
        if rows.len() > 1 {
            print(&table(&rows))?;
        }
    }
    let untrusted = questions.iter().filter(|question| question.approval.is_none());
    for Listed { id, standing, .. } in untrusted {
        if let Standing::Denied(why) = standing {
            say!("warning: question {id:?} counts as denied: {}", plain(why));
        }
    }
    if shown.is_empty() {
        say!("nothing is waiting for an answer");
    }
    Ok(ExitCode::SUCCESS)
}

fn decide(arguments: &DecideArguments, decision: Decision) -> Result<ExitCode, Fault> {
    let approvals = Approvals::of(world::run(&arguments.run)?);
    let by = arguments.by.clone().unwrap_or_else(world::user);
    let approval = approvals.decide(&arguments.id, decision, &by, &arguments.note, world::now())?;
    let Approval { id, asked, .. } = &approval;
    print(&match arguments.json {
        true => format!("{}\n", serde_json::to_string_pretty(&approval)?),
        false => {
            let [why, agent, task] = [&asked.why, &asked.agent, &asked.task].map(|text| plain(text));
            format!("{decision} {id}: {why} for {agent}, task {task}\n")
        }
    })?;
    Ok(ExitCode::SUCCESS)
}

fn value(question: &Listed) -> Value {
    let why = match &question.standing {
        Standing::Denied(why) => Some(why),
        Standing::Pending | Standing::Approved(_) => None,
    };
    let stands = question.standing.word();
    json!({ "id": question.id, "standing": stands, "denied_because": why, "approval": question.approval })
}

fn row(question: &Listed, now: u64) -> Vec<String> {
    let mut row = vec![question.id.clone(), question.standing.word().to_owned()];
    if let Some(Approval { asked, asked_at, expires_at, .. }) = &question.approval {
        row.extend(
            [&asked.why, &asked.agent, &asked.from, &asked.task, &asked.situation].map(|text| short(text)),
        );
        row.push(format!("{} ago", span(now.saturating_sub(*asked_at))));
        row.push(match expires_at {
            Some(end) if *end > now => format!("in {}", span(end - now)),
            Some(_) => "over".to_owned(),
            None => "-".to_owned(),
        });
    }
    row
}

/// As much of a text as a row has room for.
fn short(text: &str) -> String {
    const CHARS_MAX: usize = 40;
    let mut short: String = text.chars().take(CHARS_MAX).collect();
    if text.chars().nth(CHARS_MAX).is_some() {
        short.push_str("...");
    }
    plain(&short)
}

fn span(ms: u64) -> String {
    match ms / 1000 {
        s @ 0..120 => format!("{s} s"),
        s @ 120..7200 => format!("{} min", s / 60),
        s @ 7200..172_800 => format!("{} h", s / 3600),
        s => format!("{} days", s / 86_400),
    }
}
