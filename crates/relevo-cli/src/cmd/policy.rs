//! `relevo policy`: what to do with policy files.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    process::ExitCode,
};

use clap::{Args, Subcommand};
use relevo::report::table;
use relevo_core::policy_file::{EdgePolicy, PolicyFile};

use super::{Fault, print};
use crate::world;

/// Work with policy files
#[derive(Subcommand)]
pub(crate) enum PolicyCommand {
    Diff(DiffArguments),
    Merge(MergeArguments),
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

/// Add policies up into one
///
/// Agents, columns and situations are the same if they have the same name. Visits, failures and sums add up, values are
/// means weighted by visits.
#[derive(Args)]
pub(crate) struct MergeArguments {
    /// The policies, or the folders of their runs; at least two
    #[arg(required = true, num_args = 2.., value_name = "POLICY")]
    policies: Vec<PathBuf>,
    /// Where to write the merged policy
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// Write over a file that is already there
    #[arg(long)]
    force: bool,
}

pub(crate) fn policy(command: &PolicyCommand) -> Result<ExitCode, Fault> {
    match command {
        PolicyCommand::Diff(arguments) => diff(arguments).or_else(|error| {
            say!("error: {error}");
            Ok(ExitCode::from(2))
        }),
        PolicyCommand::Merge(arguments) => merge(arguments),
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

/// What a policy knows: its situations, and the choices in them by name.
fn known(policy: &PolicyFile) -> (BTreeSet<Place>, BTreeSet<(Place, String)>) {
    let (mut situations, mut choices) = (BTreeSet::new(), BTreeSet::new());
    for agent in &policy.agents {
        let tables = agent.tables.iter().zip([&agent.successors, &agent.operations]);
        for (number, (table, names)) in tables.enumerate() {
            for node in &table.nodes {
                let place = (agent.name.clone(), number, node.signature.clone());
                for edge in &node.edges {
                    let name = names.get(edge.action as usize).cloned().unwrap_or_default();
                    choices.insert((place.clone(), name));
                }
                situations.insert(place);
            }
        }
    }
    (situations, choices)
}

/// How many of the things in `sets` lie in more than one of them.
fn shared<T: Ord>(sets: &[&BTreeSet<T>]) -> usize {
    let all: BTreeSet<&T> = sets.iter().copied().flatten().collect();
    all.into_iter().filter(|thing| sets.iter().filter(|set| set.contains(thing)).count() > 1).count()
}

fn merge(arguments: &MergeArguments) -> Result<ExitCode, Fault> {
    let MergeArguments { policies, out, force } = arguments;
    let files = policies.iter().map(|path| world::policy(path)).collect::<Result<Vec<_>, _>>()?;
    let merged = PolicyFile::merge(&files)?;
    if out.exists() && !force {
        return Err(format!("{}: it is there already; --force writes over it", out.display()).into());
    }
    world::write_file(out, merged.to_text())?;

    let parts: Vec<_> = files.iter().map(known).collect();
    let mut rows = vec![["policy", "situations", "choices", "episodes"].map(str::to_owned).to_vec()];
    let mut row = |name: String, situations: usize, choices: usize, episodes: String| {
        rows.push(vec![name, situations.to_string(), choices.to_string(), episodes]);
    };
    for ((path, file), (situations, choices)) in policies.iter().zip(&files).zip(&parts) {
        let episodes = file.source.episodes.to_string();
        row(path.display().to_string(), situations.len(), choices.len(), episodes);
    }
    let situations: Vec<_> = parts.iter().map(|(situations, _)| situations).collect();
    let choices: Vec<_> = parts.iter().map(|(_, choices)| choices).collect();
    row("in more than one".to_owned(), shared(&situations), shared(&choices), String::new());
    let (situations, choices) = known(&merged);
    let episodes = merged.source.episodes.to_string();
    row(out.display().to_string(), situations.len(), choices.len(), episodes);
    let mut text = table(&rows);
    if let Some(other) = files.iter().find(|file| file.source.team != files[0].source.team) {
        let (one, other) = (&files[0].source.team, &other.source.team);
        text += &format!("note: the policies are of different teams, {one:?} and {other:?}\n");
    }
    print(&text)?;
    Ok(ExitCode::SUCCESS)
}
