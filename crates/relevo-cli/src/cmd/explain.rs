//! `relevo explain`: what a policy does in each situation, and on what evidence.

use std::{path::PathBuf, process::ExitCode};

use clap::Args;
use relevo::{report::table, team::nearest};
use relevo_core::policy_file::{AgentPolicy, NodePolicy, PolicyFile};

use super::{Fault, print};
use crate::world;

/// Say what a policy does in each situation, and on what evidence
#[derive(Args)]
pub(crate) struct ExplainArguments {
    /// The policy, or the folder of the run that learned it
    policy: PathBuf,
    /// Only situations whose name or key contains this
    signature: Option<String>,
}

pub(crate) fn explain(arguments: &ExplainArguments) -> Result<ExitCode, Fault> {
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
    let wanted = arguments.signature.as_deref().unwrap_or("");
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
