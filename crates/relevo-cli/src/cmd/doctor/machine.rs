//! What runs on this machine: the model in the box, those behind keys and addresses, and the commands to go on with.

use std::{collections::BTreeMap, path::Path, time::Duration};

use futures_util::future::join3;
use relevo::{
    model::{Models, environment::Environment, local, provider, served},
    team::ModelSection,
};
use relevo_lm::Model;
use serde_json::json;

use super::{Check, Fault, ask, plain};
use crate::world;

/// The longest that a service may take to say which models it has.
const LIST_LIMIT: Duration = Duration::from_secs(3);

/// The most models of a service that are named.
const NAMES_MAX: usize = 5;

/// What needs no key and no network, and what it does.
const ALONE: [(&str, &str); 5] = [
    ("relevo lm ask \"What is 12 + 34 - 15?\"", "a word with the model in the box"),
    ("relevo learn examples/maths/team.toml", "four agents, three of them by that model"),
    ("relevo learn examples/maths-simulated/team.toml", "the same team, simulated"),
    ("relevo learn examples/unpack/team.toml", "real programs; examples/unpack/make-files first"),
    ("relevo lm serve", "that model behind HTTP, for OPENAI_BASE_URL"),
];

/// What can be had here, and how to go on.
pub(super) fn look() -> Result<(Vec<Check>, String), Fault> {
    let environment = match Environment::of(Path::new(".")) {
        Ok(environment) => environment,
        Err(e) => return Ok((vec![Check::new("environment", Err(e))], next(&[]))),
    };
    let url = environment.get(provider::BASE_URL);
    let (openai, ollama) = (section("openai", "any")?, section("ollama", "any")?);
    let in_box = [("box".to_owned(), section(local::PROVIDER, Model::bundled().name())?)];
    let in_box = Models::new(&in_box.into(), &Environment::only([]), 0)?;
    let at_url = async {
        let url = url.as_deref()?;
        // What cannot be an address may hold a password: it is not repeated.
        if let Err(what) = provider::check_url(url) {
            return Some(Err(what));
        }
        let names = served(&openai, &environment, LIST_LIMIT).await;
        Some(names.map(|names| (url, names)).map_err(|e| format!("{url}: {e}")))
    };
    let in_box: Vec<_> = in_box.iter().collect();
    let asked = join3(ask(&in_box), at_url, served(&ollama, &environment, LIST_LIMIT));
    let (answers, at_url, at_ollama) = world::runtime()?.block_on(asked);

    let mut others = vec![];
    let mut checks: Vec<Check> =
        answers.into_iter().map(|answer| Check::new("model in the box", answer)).collect();
    let name = provider::BASE_URL;
    checks.push(match at_url {
        None => Check::absent(name, "not set; it names a server that speaks OpenAI's chat completions"),
        Some(Ok((url, names))) => {
            if in_process(name) {
                others.push(("openai".to_owned(), names.first().cloned()));
            }
            Check::new(name, Ok::<_, Fault>(format!("{url} serves {}", listed(&names))))
        }
        Some(Err(what)) => Check::new(name, Err(what)),
    });
    checks.push(match at_ollama {
        Ok(names) => {
            others.extend(names.first().map(|name| ("ollama".to_owned(), Some(name.clone()))));
            Check::new("ollama", Ok::<_, Fault>(format!("it serves {}", listed(&names))))
        }
        Err(_) => Check::absent("ollama", "nobody answers at http://localhost:11434"),
    });
    let keys = keys(&environment)?;
    let told = keys.iter().map(|(name, providers)| {
        let from = if in_process(name) { "" } else { ", from .env" };
        format!("{name} ({}{from})", providers.join(", "))
    });
    checks.push(match told.collect::<Vec<_>>().join(", ") {
        told if told.is_empty() => {
            Check::absent("keys", "none, neither in the environment nor in a file .env here")
        }
        told => Check::new("keys", Ok::<_, Fault>(told)),
    });
    for (_, providers) in keys.iter().filter(|(name, _)| in_process(name)) {
        if others.iter().all(|(known, _)| *known != providers[0]) {
            others.push((providers[0].clone(), None));
        }
    }
    Ok((checks, next(&others)))
}

/// Whether a variable is one of this process: those of a file `.env` here are not there for teams in other folders.
fn in_process(name: &str) -> bool {
    std::env::var_os(name).is_some()
}

/// A model of this provider, with nothing else said of it.
fn section(provider: &str, model: &str) -> Result<ModelSection, Fault> {
    Ok(serde_json::from_value(json!({"provider": provider, "model": model}))?)
}

/// The variables of keys that are set, and the providers that take them.
fn keys(environment: &Environment) -> Result<Vec<(String, Vec<String>)>, Fault> {
    let mut keys: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for kind in provider::kinds() {
        let variable = provider::key_variable(&section(kind, "any")?);
        if let Some(name) = variable.filter(|name| environment.get(name).is_some()) {
            keys.entry(name).or_default().push(kind.to_owned());
        }
    }
    Ok(keys.into_iter().collect())
}

fn listed(names: &[String]) -> String {
    match names.len() {
        0 => "no models".to_owned(),
        n if n > NAMES_MAX => format!("{} and {} more", names[..NAMES_MAX].join(", "), n - NAMES_MAX),
        _ => names.join(", "),
    }
}

/// What to try, with no more than is here; `others` are the providers that can be asked, and a model of theirs.
fn next(others: &[(String, Option<String>)]) -> String {
    let width = ALONE.iter().map(|(command, _)| command.len()).max().unwrap_or(0);
    let mut text = "\nwith no key and no network (examples/ is in the repository):\n".to_owned();
    ALONE.iter().for_each(|(command, what)| text += &format!("  {command:width$}  {what}\n"));
    if !others.is_empty() {
        text += "with the models of others:\n";
    }
    for (provider, model) in others {
        let model = model.as_deref().map_or("NAME".to_owned(), plain);
        text += &format!("  relevo learn examples/maths/team.toml --model {provider}::{model}\n");
    }
    text + "for a team of your own: relevo doctor TEAM.toml\n"
}
