//! `relevo judge`: how far judges can be trusted.

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::{Args, Subcommand};
use relevo::{
    judge::{
        self,
        audit::{Audit, Conclusion, TASKS_MIN},
        health::JudgeHealth,
    },
    model::{Models, environment::Environment},
    report::{Estimate, table},
    team::TeamSpec,
};
use serde_json::json;

use super::{Fault, plain, print};
use crate::world;

/// Judge what was judged before
#[derive(Subcommand)]
pub(crate) enum JudgeCommand {
    Audit(AuditArguments),
}

/// Score finished tasks once more, and say which conclusions about arms change
#[derive(Args)]
pub(crate) struct AuditArguments {
    /// Files of finished tasks, as runs leave them whose team keeps content: a line of JSON each, {"arm": "a",
    /// "candidate": {"task": "7", "answer": "42"}, "quality": 0.5}
    #[arg(required = true)]
    finished: Vec<PathBuf>,
    /// The team file whose judges are asked
    #[arg(long, value_name = "TEAM")]
    judges: PathBuf,
    /// As JSON
    #[arg(long)]
    json: bool,
}

pub(crate) fn judge(command: &JudgeCommand) -> Result<ExitCode, Fault> {
    match command {
        JudgeCommand::Audit(arguments) => audit(arguments),
    }
}

fn audit(arguments: &AuditArguments) -> Result<ExitCode, Fault> {
    let AuditArguments { finished, judges, json } = arguments;
    let team = TeamSpec::load(judges)?;
    let tasks = team.tasks.as_ref().ok_or_else(|| {
        format!(
            "{}: the team has no judges, as its tasks are simulated: name one with [tasks]",
            judges.display()
        )
    })?;
    let directory = judges.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let environment = Environment::of(directory)?;
    let models = Models::new(&team.models, &environment, u64::from(std::process::id()))?;
    let (judge, _) = judge::of_team(&tasks.judge, directory, |name| models.judge(name))
        .map_err(|name| models.unknown(&judges.display().to_string(), &name))?;
    let mut tasks = vec![];
    for path in finished {
        tasks.extend(judge::audit::read(path)?);
    }
    let audit = world::runtime()?.block_on(judge::audit::audit(&tasks, &*judge, "audit"));
    if *json {
        let pairs: Vec<_> = audit.pairs.iter().map(|pair| {
            let (before, after) = (Conclusion::of(pair.before), Conclusion::of(pair.after));
            json!({"arms": pair.arms, "before": pair.before, "after": pair.after, "concluded": [before, after]})
        }).collect();
        let mut value = serde_json::to_value(&audit)?;
        value["pairs"] = json!(pairs);
        print(&format!("{}\n", serde_json::to_string_pretty(&value)?))?;
    } else {
        print(&told(&audit))?;
    }
    if audit.scored == 0 {
        say!("no finished task has a score from both: nothing can be compared");
    }
    Ok(ExitCode::SUCCESS)
}

fn told(audit: &Audit) -> String {
    let Audit { groups, scored, agreement, distance, pairs, verdict } = audit;
    let shown = |estimate: &Option<Estimate>| estimate.map_or("-".to_owned(), |e| e.to_string());
    let mut rows =
        vec![["first", "second", "before", "after", "tasks", "conclusion"].map(str::to_owned).to_vec()];
    for pair in pairs {
        let word = |conclusion| match conclusion {
            Conclusion::First => "first",
            Conclusion::Second => "second",
            Conclusion::Open => "open",
        };
        let conclusion = match pair.change() {
            Some((before, after)) => format!("{} -> {}", word(before), word(after)),
            None => word(Conclusion::of(pair.after)).to_owned(),
        };
        let tasks = pair.after.map_or(0, |after| after.n).to_string();
        let [first, second] = [0, 1].map(|i| plain(&pair.arms[i]));
        rows.push(vec![first, second, shown(&pair.before), shown(&pair.after), tasks, conclusion]);
    }
    let mut health = JudgeHealth::default();
    health.observe(verdict);
    format!(
        "{scored} finished tasks in {groups} groups scored once more: agreement {}, distance {}\n\
         {} calls, {} tokens, money {}; {} failures\n\n{}\n\
         Quality of the first less that of the second on the same tasks, with 95% intervals; open where the interval holds 0, \
         or below {TASKS_MIN} tasks.\n",
        shown(agreement),
        shown(distance),
        verdict.calls,
        verdict.tokens,
        verdict.money,
        health.failures + health.flaws,
        table(&rows)
    )
}
