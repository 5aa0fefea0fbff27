//! `relevo peers`: who is known, what crossed, and what was refused.

use std::{
    collections::BTreeMap,
    fmt::Write,
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::Args;
use relevo::{model::environment::Environment, report::table};
use relevo_node::{
    ids::PeerId,
    machine::Counters,
    spec::NodeSpec,
    store::{Reader, sqlite::SqliteReader},
    transport::{
        Report,
        a2a::{A2aTransport, ClientLimits, ClientSpec, PeerAddress, Secret},
    },
    wire::{Limits, Terms},
};

use super::runtime;
use crate::cmd::{Fault, plain, print};

/// Where the card of an agent is, below the agent.
const CARD_PATH: &str = "/.well-known/agent-card.json";

/// Show who is known to a node, what crossed, and what was refused, whether it runs or not
///
/// With --check, nothing of a node is shown: the card of another agent is read, and what it declares of its values.
#[derive(Args)]
pub(crate) struct PeersArguments {
    /// The node file
    #[arg(required_unless_present = "check")]
    node: Option<PathBuf>,
    /// As JSON
    #[arg(long)]
    json: bool,
    /// Read the card of the agent at this address, and say whether it passes values: 0, or 1 and why not
    #[arg(long, value_name = "URL", conflicts_with_all = ["node", "json"])]
    check: Option<String>,
    /// The variable with the token that the agent knows us by, in the environment or in .env [default: none is shown]
    #[arg(long, value_name = "VARIABLE", requires = "check")]
    key: Option<String>,
}

/// What is shown of every peer; all else that was counted follows by its word.
const COLUMNS: [&str; 5] = ["received", "handed", "valued", "outcomes", "censored"];

pub(crate) fn peers(arguments: &PeersArguments) -> Result<ExitCode, Fault> {
    match (&arguments.check, &arguments.node) {
        (Some(url), _) => check(url, arguments.key.as_deref()),
        (None, Some(node)) => show(node, arguments.json),
        (None, None) => unreachable!("one of them is required"),
    }
}

fn show(node: &Path, as_json: bool) -> Result<ExitCode, Fault> {
    let (spec, _) = NodeSpec::load(node)?;
    let peers = SqliteReader::open(&spec.state_folder())?.peers()?;
    let peers: Vec<(String, Counters)> =
        peers.into_iter().map(|(name, bytes)| (name, Counters::of_bytes(&bytes))).collect();
    if as_json {
        let peers: serde_json::Map<String, serde_json::Value> = peers
            .into_iter()
            .map(|(name, Counters { counts, value_min, value_max })| {
                (
                    name,
                    serde_json::json!({ "counts": counts, "value_min": value_min, "value_max": value_max }),
                )
            })
            .collect();
        print(&format!("{}\n", serde_json::to_string_pretty(&peers)?))?;
        return Ok(ExitCode::SUCCESS);
    }
    let header = ["peer", "received", "handed", "values", "outcomes", "censored", "V from", "V to"];
    let number = |value: Option<f64>| value.map_or("-".to_owned(), |value| format!("{value:.3}"));
    let rows = peers.iter().map(|(name, counters)| {
        let mut row = vec![name.clone()];
        row.extend(COLUMNS.map(|word| counters.of(word).to_string()));
        row.extend([number(counters.value_min), number(counters.value_max)]);
        row
    });
    let rows: Vec<Vec<String>> = [header.map(str::to_owned).to_vec()].into_iter().chain(rows).collect();
    let mut text = table(&rows);
    for (name, counters) in &peers {
        let others = counters.counts.iter().filter(|(word, _)| !COLUMNS.contains(&word.as_str()));
        let others: Vec<String> = others.map(|(word, count)| format!("{word} {count}")).collect();
        if !others.is_empty() {
            writeln!(text, "{name}: {}", others.join(", "))?;
        }
    }
    print(&text)?;
    Ok(ExitCode::SUCCESS)
}

fn check(url: &str, key: Option<&str>) -> Result<ExitCode, Fault> {
    let agent = url.trim_end_matches('/');
    let agent = agent.strip_suffix(CARD_PATH).unwrap_or(agent);
    let credential = match key {
        None => None,
        Some(key) => {
            let token = Environment::of(Path::new(""))?.get(key);
            let token = token.ok_or_else(|| {
                format!("--key {key}: there is no such variable: set it, or write it into .env here")
            })?;
            Some(Secret::bearer(token.trim()).ok_or_else(|| format!("--key {key}: this is no token"))?)
        }
    };
    if !(agent.starts_with("http://") || agent.starts_with("https://")) {
        return Err(format!("--check {url}: an address begins with http:// or https://").into());
    }
    let address = agent.parse().map_err(|_| format!("--check {url}: this is no address"))?;
    let declared = runtime()?.block_on(async {
        let (peer, limits) = (PeerId::OPERATOR, Limits { payload_bytes_max: 0, remembered_ms: 0 });
        let address = PeerAddress {
            url: address,
            elsewhere: BTreeMap::new(),
            credential,
            authority: None,
            certificate: None,
        };
        // The agent is what it is, not one by this name below it.
        let elsewhere = BTreeMap::from([(String::new(), address.url.clone())]);
        let transport = A2aTransport::new(ClientSpec {
            peers: BTreeMap::from([(peer, PeerAddress { elsewhere, ..address })]),
            limits: ClientLimits::new(limits, 1 << 20),
            tap: None,
            runtime: tokio::runtime::Handle::current(),
        })?;
        Ok::<_, Fault>(transport.declared(peer, "").await)
    })?;
    match declared {
        Ok(Ok(Some(Terms { bounds, discount, tau_unit, emit }))) => {
            print(&format!(
                "{agent} passes values: v from {} to {}, discount {discount}, tauUnit {}, emit {}\n",
                bounds.min(),
                bounds.max(),
                tau_unit.name(),
                emit.name()
            ))?;
            Ok(ExitCode::SUCCESS)
        }
        Ok(Ok(None)) => {
            print(&format!("{agent} passes no values: whoever hands to it learns from the outcome alone\n"))?;
            Ok(ExitCode::FAILURE)
        }
        Ok(Err(refused)) => {
            print(&format!("{agent} passes no values: {refused}\n"))?;
            Ok(ExitCode::FAILURE)
        }
        Err(report) => Err(format!("--check {url}: {}", why(&report)).into()),
    }
}

/// Why a card could not be read, and what to try.
fn why(report: &Report) -> String {
    match report {
        Report::Unreachable(word) => format!("it cannot be reached: {word}"),
        Report::Refused(word) if word == "not-found" => {
            format!(
                "there is no card at {CARD_PATH} below it: give the address of an agent, such as URL/agents/NAME"
            )
        }
        Report::Refused(word) if word == "not-known-there" => {
            "its card is for those it knows: --key names the variable with our token".to_owned()
        }
        Report::Refused(word) => format!("it refuses to show its card: {}", plain(word)),
        Report::Later(_) => "it has no time just now: try again".to_owned(),
        Report::Garbage(word) if word == "other-origin" => {
            "its card says that it is somewhere else: ask there".to_owned()
        }
        Report::Garbage(word) if word == "no-interface" => {
            "its card names no interface that is known here: JSON-RPC or HTTP+JSON of A2A 1".to_owned()
        }
        Report::Garbage(word) => format!("what is there is no card: {}", plain(word)),
        other => format!("it answers something else than a card: {other:?}"),
    }
}
