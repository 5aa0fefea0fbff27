//! `relevo explain`: what a policy does in each situation, and on what evidence; or why one decision was made.

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::Args;
use relevo::{
    learn::LEDGER_FILE,
    report::table,
    team::nearest,
    trace::explain::{self, DecisionId, Replayed},
};
use relevo_core::policy_file::{AgentPolicy, NodePolicy, PolicyFile};

use super::{Fault, print};
use crate::{
    info::{self, RunInfo},
    world,
};

/// Say what a policy does in each situation, and on what evidence; or why one decision was made
///
/// A decision is replayed from the ledger: exits with 1 if it does not come out the same to the bit.
#[derive(Args)]
pub(crate) struct ExplainArguments {
    /// The policy, or the folder of the run that learned it
    policy: PathBuf,
    /// Only situations whose name or key contains this; or one decision, TASK.K, as `relevo report --task` names it
    #[arg(value_name = "SITUATION|DECISION")]
    what: Option<String>,
    /// The team file, to replay a decision [default: the one that the run was begun with]
    #[arg(long, value_name = "FILE")]
    team: Option<PathBuf>,
}

pub(crate) fn explain(arguments: &ExplainArguments) -> Result<ExitCode, Fault> {
    match arguments.what.as_deref().and_then(DecisionId::parse) {
        Some(id) => decision(&arguments.policy, id, arguments.team.as_deref()),
        None => situations(arguments),
    }
}

fn decision(run: &Path, id: DecisionId, team: Option<&Path>) -> Result<ExitCode, Fault> {
    if !run.is_dir() {
        return Err(format!("{}: a decision is looked up in the folder of its run", run.display()).into());
    }
    let info = RunInfo::read(run)?;
    let team = team.or(info.as_ref().map(|info| info.team_file.as_path()));
    let stage = match team {
        Some(team) => world::stage(team).map_err(|e| e.to_string()),
        None => Err("it is not known which team file the run was begun with; name it by --team".to_owned()),
    };
    let explained = explain::explain(
        &run.join(LEDGER_FILE),
        &info::cast(run)?,
        id,
        stage.as_ref().map_err(Clone::clone),
    )?;
    print(&explained.to_text())?;
    Ok(match explained.replayed {
        Replayed::Differs(_) => ExitCode::FAILURE,
        Replayed::Same | Replayed::Not(_) => ExitCode::SUCCESS,
    })
}

fn situations(arguments: &ExplainArguments) -> Result<ExitCode, Fault> {
    let policy = world::policy(&arguments.policy)?;
    let mut text = String::new();
    let source = &policy.source;
    text += &format!(
        "policy of {:?}: {} episodes, {}\n",
        source.team,
        source.episodes,
        match source.merged.len() {
            0 => format!("seed {}, ledger {}", source.seed, &source.ledger[..source.ledger.len().min(16)]),
            policies => format!("merged of {policies} policies"),
        }
    );
    let wanted = arguments.what.as_deref().unwrap_or("");
    let mut found = false;
    for agent in &policy.agents {
        for (table, names) in agent.tables.iter().zip([&agent.successors, &agent.operations]) {
            for node in &table.nodes {
                let name = policy.name(&node.signature);
                if name.contains(wanted) || node.signature.contains(wanted) {
                    found = true;
                    text += &situation(agent, names, node, name);
                }
            }
        }
    }
    if !found {
        return Err(not_found(&policy, wanted));
    }
    print(&text)?;
    Ok(ExitCode::SUCCESS)
}

fn situation(agent: &AgentPolicy, names: &[String], node: &NodePolicy, name: &str) -> String {
    let visits: u64 = node.edges.iter().map(|e| u64::from(e.visits)).sum();
    let best = node.edges.iter().max_by(|a, b| {
        // The first of equals wins, as it does when deciding.
        a.decision_value.total_cmp(&b.decision_value).then(b.action.cmp(&a.action))
    });
    let head = ["choice", "value", "mean of targets", "visits", "share", "failures", "tokens"];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    for edge in &node.edges {
        let chosen = best.is_some_and(|b| b.action == edge.action);
        let column = names.get(edge.action as usize).map_or("?", String::as_str);
        let interval = edge.half_width().map_or(String::new(), |h| format!(" ± {h:.4}"));
        rows.push(vec![
            format!("{} {column}", if chosen { "→" } else { " " }),
            format!("{:.4}", edge.decision_value),
            format!("{:.4}{interval}", edge.mean()),
            edge.visits.to_string(),
            format!("{:.1}%", 100.0 * f64::from(edge.visits) / visits.max(1) as f64),
            edge.failures.to_string(),
            edge.tokens.to_string(),
        ]);
    }
    format!("\n{} at {name} [{}]\n{}", agent.name, node.signature, table(&rows))
}

fn not_found(policy: &PolicyFile, wanted: &str) -> Fault {
    let names = policy.signatures.values().map(String::as_str);
    match nearest(wanted, names.clone()) {
        Some(near) => format!("no situation contains {wanted:?}; did you mean {near:?}?").into(),
        None => {
            let some: Vec<&str> = names.take(8).collect();
            format!("no situation contains {wanted:?}; some that are known: {}", some.join(" | ")).into()
        }
    }
}
