//! `relevo join`: two organisations get to know each other.

use std::{fs, path::PathBuf, process::ExitCode};

use clap::Args;
use relevo_node::{
    folder::{Folder, new_token},
    spec::NodeSpec,
    transport::a2a::TokenHash,
};

use crate::{
    cmd::{Fault, print},
    world,
};

/// Make another organisation known to a node, and the token by which it will be known
///
/// Adds a section to the node file and prints the token, once: give it to the other organisation, which puts it into the
/// variable that its own `key` names. Only its hash is kept here.
#[derive(Args)]
pub(crate) struct JoinArguments {
    /// The node file
    node: PathBuf,
    /// Where the other organisation's agents are: URL/agents/NAME
    url: String,
    /// What it is called here
    #[arg(long)]
    name: String,
    /// An agent of ours that it may hand to; may be said more than once
    #[arg(long, value_name = "AGENT")]
    may_hand_to: Vec<String>,
    /// The variable with the token that it knows us by
    #[arg(long, value_name = "VARIABLE")]
    key: Option<String>,
}

pub(crate) fn join(arguments: &JoinArguments) -> Result<ExitCode, Fault> {
    let JoinArguments { node, url, name, may_hand_to, key } = arguments;
    let (known, _) = NodeSpec::load_unjoined(node)?;
    let text = fs::read_to_string(node).map_err(|e| format!("{}: {e}", node.display()))?;
    if known.peers.contains_key(name) {
        return Err(
            format!("{}: {name:?} is known already: edit [peers.{name}] there", node.display()).into()
        );
    }
    let token = new_token();
    let mut section = toml::Table::new();
    section.insert("url".into(), url.clone().into());
    section.insert("token".into(), TokenHash::of(&token).to_string().into());
    if let Some(key) = key {
        section.insert("key".into(), key.clone().into());
    }
    section.insert("may_hand_to".into(), may_hand_to.clone().into());
    let peers = toml::Table::from_iter([(name.clone(), section.into())]);
    let added = toml::Table::from_iter([("peers".to_owned(), peers.into())]);
    let joined = format!("{}\n\n{}", text.trim_end(), toml::to_string(&added)?);
    // What would not be accepted is not written.
    let beside = node.with_extension("toml.new");
    fs::write(&beside, &joined).map_err(|e| format!("{}: {e}", beside.display()))?;
    let checked = NodeSpec::load_unjoined(&beside);
    fs::remove_file(&beside)?;
    checked.map_err(|e| format!("{}: nothing is added: {}", node.display(), e.message()))?;
    world::write_file(node, &joined)?;
    let ours = &known.name;
    say!(
        "{name} is known now. Give it this token, which is shown this once: it is what [peers.{ours}] there has as its key"
    );
    print(&format!("{token}\n"))?;
    match key {
        Some(key) => {
            say!("what {name} gives you belongs into the variable {key}, or into .env beside the node file")
        }
        None => say!(
            "{name} is shown no token by us: --key, or `key` in [peers.{name}], names the variable that holds one"
        ),
    }
    if may_hand_to.is_empty() {
        say!(
            "it may hand to none of our agents: --may-hand-to, or `may_hand_to` in [peers.{name}], says to which"
        );
    }
    if Folder::at(&known.state_folder()).address().is_some() {
        say!("the node that runs does not know of this before it is started again");
    }
    Ok(ExitCode::SUCCESS)
}
