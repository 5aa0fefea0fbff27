//! `relevo policy`: what to do with policy files.

use std::{collections::BTreeMap, path::PathBuf, process::ExitCode};

use clap::{Args, Subcommand};
use relevo::report::table;
use relevo_core::policy_file::{EdgePolicy, PolicyFile};

use super::{Fault, print};
use crate::world;

/// Work with policy files
#[derive(Subcommand)]
pub(crate) enum PolicyCommand {
    Diff(DiffArguments),
}

/// Show in what two policies differ: first where they decide otherwise
///
/// Exits with 1 if they decide otherwise anywhere and with 2 on trouble, like `diff`.
#[derive(Args)]
pub(crate) struct DiffArguments {
    /// The older policy, or the folder of its run
    a: PathBuf,
    /// The newer policy, or the folder of its run
    b: PathBuf,
}

pub(crate) fn policy(command: &PolicyCommand) -> Result<ExitCode, Fault> {
    match command {
        PolicyCommand::Diff(arguments) => diff(arguments).or_else(|error| {
            say!("error: {error}");
            Ok(ExitCode::from(2))
        }),
    }
}

/// What a policy does in one situation.
struct Situation {
    best: String,
    value: f64,
    visits: u64,
}

/// Agent, table number and signature key.
type Place = (String, usize, String);

fn situations(policy: &PolicyFile) -> BTreeMap<Place, Situation> {
    let mut all = BTreeMap::new();
    for agent in &policy.agents {
        for (number, (table, names)) in
            agent.tables.iter().zip([&agent.successors, &agent.operations]).enumerate()
        {
            for node in &table.nodes {
                let better = |a: &&EdgePolicy, b: &&EdgePolicy| {
                    a.decision_value.total_cmp(&b.decision_value).then(b.action.cmp(&a.action))
                };
                let Some(best) = node.edges.iter().max_by(better) else { continue };
                let situation = Situation {
                    best: names.get(best.action as usize).cloned().unwrap_or_default(),
                    value: best.decision_value,
                    visits: node.edges.iter().map(|e| u64::from(e.visits)).sum(),
                };
                all.insert((agent.name.clone(), number, node.signature.clone()), situation);
            }
        }
    }
    all
}

fn diff(arguments: &DiffArguments) -> Result<ExitCode, Fault> {
    let (a, b) = (world::policy(&arguments.a)?, world::policy(&arguments.b)?);
    let (before, after) = (situations(&a), situations(&b));
    let head = ["agent", "situation", "decides", "value", "visits"];
    let mut decided = vec![head.map(str::to_owned).to_vec()];
    let (mut same, mut moved, mut gone) = (0, 0.0f64, 0);
    for (place, old) in &before {
        let Some(new) = after.get(place) else {
            gone += 1;
            continue;
        };
        moved = moved.max((new.value - old.value).abs());
        if old.best == new.best {
            same += 1;
            continue;
        }
        decided.push(vec![
            place.0.clone(),
            b.name(&place.2).to_owned(),
            format!("{} → {}", old.best, new.best),
            format!("{:.4} → {:.4}", old.value, new.value),
            format!("{} → {}", old.visits, new.visits),
        ]);
    }
    let fresh = after.keys().filter(|place| !before.contains_key(*place)).count();
    let differs = decided.len() > 1;
    let mut text = String::new();
    if differs {
        text += &format!("decided otherwise:\n{}\n", table(&decided));
    }
    text += &format!(
        "{} situations decided otherwise, {same} alike (largest change of value {moved:.4}), {fresh} only in the second, \
         {gone} only in the first\n",
        decided.len() - 1
    );
    if a.source.team != b.source.team {
        text += &format!(
            "note: the policies are of different teams, {:?} and {:?}\n",
            a.source.team, b.source.team
        );
    }
    print(&text)?;
    Ok(if differs { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}
