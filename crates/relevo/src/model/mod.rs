//! Language models behind one small trait: a [`ChatRequest`] goes in, and a [`ChatReply`] comes back or a typed
//! [`Failure`], as from any other agent.
//!
//! The [`provider`] speaks to services, by `genai`, with only so many requests under way at an endpoint; [`patience`] tries
//! again what may succeed a while later; [`environment`] has the keys; [`local`] is the model in the box. [`Models`] are those
//! of a team file.
//!
//! A key comes from the environment or a `.env` file. It is sent to the service and nowhere else: it is in no type that can
//! be written, and failures are searched for it.

pub mod environment;
pub mod local;
pub mod patience;
pub mod provider;
mod remembered;
mod wire;

use std::{
    collections::{BTreeMap, btree_map::Entry},
    fmt,
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use serde_json::Value;
use tokio::{sync::Semaphore, time::timeout};

use self::{environment::Environment, local::Local, provider::Provider, remembered::Remembered};
use crate::{
    agent::Failure,
    judge::relative::{Answer, Ask, Question},
    team::{ModelSection, nearest},
};

/// A language model that can be asked.
#[async_trait]
pub trait Model: fmt::Debug + Send + Sync {
    /// Ask it. `hear` is given the answer piece by piece where the service can do that, else not before its end; a request
    /// that was answered in part is not made again.
    async fn chat(&self, request: &ChatRequest, hear: Option<Hear<'_>>) -> Result<ChatReply, Failure>;
}

/// Is told the pieces of an answer as it grows.
pub type Hear<'h> = &'h (dyn Fn(&str) + Send + Sync);

/// What a model is asked.
#[derive(Clone, Debug, PartialEq)]
pub struct ChatRequest {
    /// The messages, in order.
    pub messages: Vec<Message>,
    /// The tools that it may call.
    pub tools: Vec<ToolDefinition>,
    /// The form of the answer, where it is to be JSON.
    pub schema: Option<Schema>,
    /// How random the answer is; the service's default if absent.
    pub temperature: Option<f64>,
    /// The most tokens of the answer; the service's default if absent.
    pub max_tokens: Option<u32>,
    /// A seed, for services that know one.
    pub seed: Option<u64>,
    /// The longest that all of it may take, waiting and trying again included.
    pub timeout: Duration,
}

/// One message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Who speaks.
    pub speaker: Speaker,
    /// What is said; by a tool, what came of the call.
    pub text: String,
    /// The calls that the model makes with it; by a tool, the one call that is answered.
    pub calls: Vec<ToolCall>,
    /// What else the model's service wants to be told again of it: [`ChatReply::kept`].
    pub kept: Value,
}

/// Who speaks in a conversation with a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Speaker {
    /// Whoever gives it its task.
    System,
    /// Whoever asks.
    User,
    /// The model.
    Assistant,
    /// A tool that the model has called.
    Tool,
}

/// A tool, as a model is told of it.
#[derive(Clone, Debug, PartialEq)]
pub struct ToolDefinition {
    /// Its name: letters, digits, `-` and `_`, at most 64.
    pub name: String,
    /// What it does.
    pub description: String,
    /// The JSON schema of its arguments.
    pub schema: Value,
}

/// A call of a tool that a model asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ToolCall {
    /// By which the service tells calls apart.
    pub id: String,
    /// The name of the tool.
    pub name: String,
    /// Its arguments.
    pub arguments: Value,
}

/// The form of an answer that is JSON.
#[derive(Clone, Debug, PartialEq)]
pub struct Schema {
    /// Its name: letters, digits, `-` and `_`.
    pub name: String,
    /// The JSON schema.
    pub schema: Value,
}

/// What a model answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChatReply {
    /// The answer; empty only where it did not end of itself, or calls tools.
    pub text: String,
    /// The tools that the model calls before it answers.
    pub calls: Vec<ToolCall>,
    /// Of an answer that calls tools, what the service wants to be told again with what came of them: its reasoning, its
    /// signatures. Null if there is nothing.
    pub kept: Value,
    /// What was used up, as far as the service says.
    pub usage: TokenUsage,
    /// Why it ended.
    pub finish: Finish,
    /// How often the request was made again before this answer.
    pub retries: u32,
}

/// Tokens of a request and its answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TokenUsage {
    /// Of the request.
    pub input: u64,
    /// Of the answer.
    pub output: u64,
}

/// Why an answer ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Finish {
    /// Of itself.
    Stopped,
    /// It was cut off: it had as many tokens as it may have.
    CutOff,
    /// The service withheld it.
    Withheld,
}

/// What a million tokens cost, in the team's currency.
#[derive(Clone, Copy, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Price {
    /// Of requests.
    pub input: f64,
    /// Of answers.
    pub output: f64,
}

impl Price {
    /// The cost of these tokens.
    pub fn of(&self, usage: TokenUsage) -> f64 {
        // cost = (input tokens * their price + output tokens * theirs) / 10^6
        (usage.input as f64 * self.input + usage.output as f64 * self.output) / 1e6
    }
}

impl ChatReply {
    /// The answer, where it ended of itself; `max_tokens` is the most that was asked for.
    pub fn whole(&self, max_tokens: Option<u32>) -> Result<&str, Failure> {
        match (&self.finish, max_tokens) {
            (Finish::Stopped, _) => Ok(&self.text),
            (Finish::CutOff, Some(max)) => {
                Err(Failure::Garbage(format!("it was cut off after its max_tokens, {max}; raise that")))
            }
            (Finish::CutOff, None) => {
                let what = "the service cut it off at the most tokens that it gives; set max_tokens";
                Err(Failure::Garbage(what.to_owned()))
            }
            (Finish::Withheld, _) => Err(Failure::Refused("the service withheld the answer".to_owned())),
        }
    }
}

impl Message {
    /// A message of `speaker`.
    pub fn new(speaker: Speaker, text: impl Into<String>) -> Self {
        Message { speaker, text: text.into(), calls: vec![], kept: Value::Null }
    }

    /// A reply that calls tools, as it is repeated before what came of them.
    pub fn calling(reply: ChatReply) -> Self {
        Message { calls: reply.calls, kept: reply.kept, ..Message::new(Speaker::Assistant, reply.text) }
    }

    /// What came of a call.
    pub fn of_tool(call: ToolCall, text: impl Into<String>) -> Self {
        Message { calls: vec![call], ..Message::new(Speaker::Tool, text) }
    }
}

/// Ask a model whether it is there: for the answer to a problem that even a small one knows, which may take as long as `limit`.
pub async fn probe(model: &dyn Model, limit: Duration) -> Result<ChatReply, Failure> {
    let request = ChatRequest {
        messages: vec![
            Message::new(Speaker::System, "Answer with the letter alone."),
            Message::new(Speaker::User, "What is 1 + 1?\nA) 2 B) 3"),
        ],
        tools: vec![],
        schema: None,
        temperature: None,
        max_tokens: Some(16),
        seed: None,
        timeout: limit,
    };
    model.chat(&request, None).await
}

/// The names of the models that are served where a section says, whichever of them it names. Services that speak as OpenAI's
/// or Ollama does are asked; for some others, names that are known of them are given.
pub async fn served(
    section: &ModelSection,
    environment: &Environment,
    limit: Duration,
) -> Result<Vec<String>, Failure> {
    let (client, gate) = (provider::client().map_err(Failure::Unavailable)?, Arc::new(Semaphore::new(1)));
    let provider = Provider::new(client, "", section, environment, gate, 0);
    let late = |_| Failure::Timeout { ms: limit.as_millis() as u64 };
    timeout(limit, provider.names()).await.map_err(late)?.map_err(|refusal| refusal.failure)
}

/// A model of a team file, with what the file says of it.
#[derive(Clone)]
pub struct NamedModel {
    /// Its name in the file.
    pub name: String,
    /// What the file says.
    pub section: ModelSection,
    /// The model.
    pub model: Arc<dyn Model>,
}

/// The models of a team file, by their names.
#[derive(Clone, Debug, Default)]
pub struct Models {
    by_name: BTreeMap<String, NamedModel>,
}

impl Models {
    /// The models of these sections; `seed` is that of the delays between retries. Whether their keys are there is found
    /// when they are asked.
    pub fn new(
        sections: &BTreeMap<String, ModelSection>,
        environment: &Environment,
        seed: u64,
    ) -> Result<Self, String> {
        if sections.is_empty() {
            return Ok(Models::default());
        }
        let is_served = |section: &&ModelSection| section.provider != local::PROVIDER;
        let client = sections.values().find(is_served).map(|_| provider::client()).transpose()?;
        if let Some(url) = environment.get(provider::BASE_URL) {
            provider::check_url(&url)
                .map_err(|what| format!("the variable {}: {what}", provider::BASE_URL))?;
        }
        let place = |section: &ModelSection| match section.endpoint(environment) {
            Some(url) => url,
            None => section.provider.clone(),
        };
        let mut limits: BTreeMap<String, usize> = BTreeMap::new();
        for section in sections.values() {
            let limit = section.concurrency as usize;
            match limits.entry(place(section)) {
                Entry::Vacant(vacant) => drop(vacant.insert(limit)),
                Entry::Occupied(mut known) => *known.get_mut() = limit.min(*known.get()),
            }
        }
        let gate = |(place, limit)| (place, Arc::new(Semaphore::new(limit)));
        let gates: BTreeMap<String, Arc<Semaphore>> = limits.into_iter().map(gate).collect();
        let named = |(name, section): (&String, &ModelSection)| {
            let gate = gates[&place(section)].clone();
            let (model, remember): (Arc<dyn Model>, bool) =
                match client.clone().filter(|_| is_served(&section)) {
                    Some(client) => {
                        let provider = Provider::new(client, name, section, environment, gate, seed);
                        (Arc::new(provider), section.remember)
                    }
                    // What it answers is a function of the request: to know it is faster.
                    None => (Arc::new(Local), true),
                };
            let model = if remember { Arc::new(Remembered::new(model)) } else { model };
            (name.clone(), NamedModel { name: name.clone(), section: section.clone(), model })
        };
        Ok(Models { by_name: sections.iter().map(named).collect() })
    }

    /// The model of this name.
    pub fn get(&self, name: &str) -> Option<&NamedModel> {
        self.by_name.get(name)
    }

    /// The model of this name, for a judge.
    pub fn judge(&self, name: &str) -> Option<Arc<dyn Ask>> {
        self.get(name).map(|model| Arc::new(model.clone()) as Arc<dyn Ask>)
    }

    /// What to say where `what` names a model that is not there.
    pub fn unknown(&self, what: &str, name: &str) -> String {
        let hint = match nearest(name, self.by_name.keys().map(String::as_str)) {
            Some(near) => format!("did you mean {near:?}?"),
            None => "describe it by a section [models.NAME]".to_owned(),
        };
        format!("{what}: the model {name:?} is unknown; {hint}")
    }

    /// All of them, in the order of their names.
    pub fn iter(&self) -> impl Iterator<Item = &NamedModel> {
        self.by_name.values()
    }
}

/// The longest that a question of a judge may take.
const QUESTION_TIMEOUT: Duration = Duration::from_secs(300);

/// A judge's questions, put to a model of the file.
#[async_trait]
impl Ask for NamedModel {
    async fn ask(&self, question: &Question) -> Answer {
        let ModelSection { temperature, max_tokens, price, .. } = self.section;
        let messages = [(Speaker::System, &question.system), (Speaker::User, &question.user)];
        let request = ChatRequest {
            messages: messages.into_iter().map(|(speaker, text)| Message::new(speaker, text)).collect(),
            tools: vec![],
            schema: Some(Schema { name: "relevo_judgement".to_owned(), schema: question.schema.clone() }),
            temperature,
            max_tokens,
            seed: None,
            timeout: QUESTION_TIMEOUT,
        };
        match self.model.chat(&request, None).await {
            Err(failure) => Answer { text: Err(failure), tokens: 0, money: 0.0 },
            Ok(reply) => Answer {
                text: reply.whole(max_tokens).map(str::to_owned),
                tokens: reply.usage.input + reply.usage.output,
                money: price.of(reply.usage),
            },
        }
    }
}

impl fmt::Debug for NamedModel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NamedModel").field("name", &self.name).field("section", &self.section).finish()
    }
}
