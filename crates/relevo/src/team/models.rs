//! The section `[models]`: language models by which agents act, and what is asked of them.

use serde::{Deserialize, Serialize};

use super::{
    AgentSpec, TeamSpec,
    check::{Fault, check_name, shown, unknown},
};
use crate::model::{Price, environment::Environment, local, provider};

/// A language model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelSection {
    /// Who serves it, or whose protocol the server at `url` speaks.
    #[serde(default = "default_provider")]
    pub provider: String,
    /// What the provider calls it.
    pub model: String,
    /// Where it is served, if not where the provider does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// The name of the variable that holds the key; that of the provider if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// What a million tokens cost.
    #[serde(default)]
    pub price: Price,
    /// The longest that one attempt may take.
    #[serde(default = "default_timeout_ms")]
    pub timeout_ms: u64,
    /// How many attempts may follow the first.
    #[serde(default = "default_retries")]
    pub retries: u32,
    /// How many requests may be under way at its endpoint; of several models there, the smallest counts.
    #[serde(default = "default_concurrency")]
    pub concurrency: u32,
    /// How random its answers are; the provider's default if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub temperature: Option<f64>,
    /// The most tokens of an answer; the provider's default if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_tokens: Option<u32>,
    /// Whether a request that was answered before has the same answer again, without being made.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub remember: bool,
}

fn default_provider() -> String {
    "openai".to_owned()
}

fn default_timeout_ms() -> u64 {
    60_000
}

fn default_retries() -> u32 {
    3
}

fn default_concurrency() -> u32 {
    8
}

/// The longest call of an agent that acts by a model, where its `timeout_ms` is not written: attempts and waits add up.
pub(super) const CALL_TIMEOUT_MS: u64 = 300_000;

impl ModelSection {
    /// The address of its endpoint, which ends in a slash, if it is not its provider's: its own, else that of
    /// `OPENAI_BASE_URL` for models of OpenAI.
    pub fn endpoint(&self, environment: &Environment) -> Option<String> {
        let named = || environment.get(provider::BASE_URL).filter(|_| self.provider == "openai");
        let url = self.url.clone().or_else(named)?;
        Some(if url.ends_with('/') { url } else { url + "/" })
    }

    /// All of it that answers depend on: what it costs and how long it may take is not.
    pub(crate) fn definition(&self) -> impl Serialize {
        (&self.provider, &self.model, &self.url, self.temperature, self.max_tokens)
    }

    /// Without what may change while a run is broken off.
    pub(super) fn lasting(&self) -> Self {
        ModelSection {
            key: None,
            timeout_ms: default_timeout_ms(),
            retries: default_retries(),
            concurrency: default_concurrency(),
            ..self.clone()
        }
    }

    fn check(&self, place: &str) -> Result<(), Fault> {
        let fault = |key: &str, what: String| Err(Fault::new(format!("{place}/{key}"), what));
        let kinds = provider::kinds().chain([local::PROVIDER]);
        if kinds.clone().all(|kind| kind != self.provider) {
            return Err(unknown(
                format!("{place}/provider"),
                &self.provider,
                "the provider of a model",
                kinds,
            ));
        }
        if self.provider == local::PROVIDER {
            let name = relevo_lm::Model::bundled().name();
            if self.model != name {
                return fault("model", format!("the model in the box is {name:?}: write that"));
            }
            if self.url.is_some() || self.key.is_some() {
                let key = if self.url.is_some() { "url" } else { "key" };
                return fault(key, format!("the model in the box needs no {key}: leave it out"));
            }
        }
        if self.model.trim().is_empty() || self.model.len() > 200 || self.model.contains("::") {
            return fault("model", format!("{:?} is no name of a model", shown(&self.model)));
        }
        if let Some(url) = &self.url
            && let Err(what) = provider::check_url(url)
        {
            return fault("url", what);
        }
        if let Some(key) = &self.key {
            check_key(format!("{place}/key"), key)?;
        }
        if [self.price.input, self.price.output].iter().any(|price| *price < 0.0) {
            return fault("price", "a price is 0 or more".to_owned());
        }
        let numbers = [
            ("timeout_ms", self.timeout_ms, 1, 86_400_000),
            ("retries", u64::from(self.retries), 0, 20),
            ("concurrency", u64::from(self.concurrency), 1, 1024),
            ("max_tokens", u64::from(self.max_tokens.unwrap_or(1)), 1, 10_000_000),
        ];
        if let Some((key, n, min, max)) = numbers.into_iter().find(|(_, n, min, max)| n < min || n > max) {
            return fault(key, format!("{key} is {n}: it must lie in {min} .. {max}"));
        }
        match self.temperature {
            Some(t) if !(0.0..=2.0).contains(&t) => {
                fault("temperature", format!("temperature is {t}: it must lie in [0, 2]"))
            }
            _ => Ok(()),
        }
    }
}

/// Whether `key` can be the name of a variable.
pub(super) fn check_key(place: String, key: &str) -> Result<(), Fault> {
    let is_name = |c: char| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_';
    match !key.is_empty() && key.len() <= 64 && key.chars().all(is_name) {
        true => Ok(()),
        // It may be a key; it is not repeated.
        false => Err(Fault::new(
            place,
            "key is the name of a variable, of capital letters, digits and _, and not the key itself: put that into the \
             environment or the file .env, as OPENAI_API_KEY, and write key = \"OPENAI_API_KEY\"",
        )),
    }
}

impl AgentSpec {
    /// Whether it acts by a language model: it has no program, no role to simulate, is no tool, and does not merely forward.
    pub fn acts_by_model(&self) -> bool {
        self.leaves_process() && self.command.is_none() && self.tool.is_none()
    }

    /// Whether its calls leave the process, or are to be treated so: it is not simulated and does not merely forward.
    pub fn leaves_process(&self) -> bool {
        self.simulate.is_none() && !self.forwards && self.remote.is_none()
    }
}

impl TeamSpec {
    /// What the file says of an agent's model, if it acts by one.
    pub fn model_of(&self, agent: &AgentSpec) -> Option<&ModelSection> {
        self.models.get(agent.model()?).filter(|_| agent.acts_by_model())
    }

    /// Put another model in the place of all that the file describes: `PROVIDER::NAME`, or the `NAME` of one of OpenAI's.
    ///
    /// # Errors
    ///
    /// If there is no such provider, or the file describes no model.
    pub fn act_by(&mut self, model: &str) -> Result<(), String> {
        let (provider, name) = model.split_once("::").unwrap_or(("openai", model));
        if self.models.is_empty() {
            return Err("the team file describes no models whose place it could take".to_owned());
        }
        for section in self.models.values_mut() {
            (section.provider, section.model) = (provider.to_owned(), name.to_owned());
            (section.url, section.key) = (None, None);
            section.check("models").map_err(|fault| fault.message)?;
        }
        Ok(())
    }

    pub(super) fn check_models(&self) -> Result<(), Fault> {
        if self.models.len() > 1_000 {
            return Err(Fault::new("models", "a team has at most 1000 models"));
        }
        for (name, section) in &self.models {
            let place = format!("models/{name}");
            check_name(place.clone(), name)?;
            section.check(&place)?;
        }
        Ok(())
    }

    /// Whether agents that act by a model have one; `places` are their entries in the file, and what in them names it. What a skill card says of its
    /// model counts only where cards are read.
    pub(super) fn check_actors(&self, places: &[(String, &'static str)], cards: bool) -> Result<(), Fault> {
        for (agent, (entry, key)) in self.agents.iter().zip(places).filter(|(agent, _)| agent.acts_by_model())
        {
            let name = &agent.name;
            match agent.model() {
                Some(model) if self.models.contains_key(model) => {}
                Some(model) if self.models.is_empty() => {
                    let what = format!(
                        "agent {name:?} acts by the model {:?}, which is not described: add [models.NAME] with this name, \
                         or give the agent a command = [..]",
                        shown(model)
                    );
                    return Err(Fault::new(format!("{entry}/{key}"), what));
                }
                Some(model) => {
                    let known = self.models.keys().map(String::as_str);
                    let what = format!("the model of agent {name:?}");
                    return Err(unknown(format!("{entry}/{key}"), model, &what, known));
                }
                None if agent.skill.is_some() && !cards => {}
                None => {
                    let near = self.models.keys().next().map_or("\"name\"".to_owned(), |m| format!("{m:?}"));
                    let what = format!(
                        "agent {name:?} has nothing to act with: add command = [\"program\"], simulate = \"role\", or \
                         model = {near} with its section in [models]"
                    );
                    return Err(Fault::new(format!("{entry}/name"), what));
                }
            }
        }
        Ok(())
    }

    /// Calls of models last longer than those of programs; `written` is the file as it is.
    pub(super) fn allow_for_models(&mut self, written: &toml::Value) {
        let entries = written.get("agents").and_then(toml::Value::as_array);
        for (agent, entry) in self.agents.iter_mut().zip(entries.into_iter().flatten()) {
            if agent.acts_by_model() && entry.get("timeout_ms").is_none() {
                agent.timeout_ms = CALL_TIMEOUT_MS;
            }
        }
    }
}
