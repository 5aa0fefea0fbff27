//! The words of OpenAI's chat completions: what is asked, parsed once, and what is answered.

use axum::http::StatusCode;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::{
    chat::Role,
    generate::Finish,
    model::{Model, Request},
};

/// Stop sequences, at most.
const STOPS_MAX: usize = 4;

/// Why a request is not answered.
#[derive(Debug)]
pub(crate) struct Refusal {
    pub(crate) status: StatusCode,
    pub(crate) code: &'static str,
    pub(crate) what: String,
}

impl Refusal {
    fn bad(what: impl Into<String>) -> Self {
        Refusal { status: StatusCode::BAD_REQUEST, code: "invalid_request", what: what.into() }
    }

    pub(crate) fn model(asked: &str, there: &str) -> Self {
        let what = format!("there is no model {asked:?}; there is {there:?}");
        Refusal { status: StatusCode::NOT_FOUND, code: "model_not_found", what }
    }
}

/// A request that can be answered.
pub(crate) struct Asked {
    pub(crate) request: Request,
    pub(crate) stream: bool,
    /// Whether a stream ends with what was used.
    pub(crate) usage: bool,
    model: String,
    stops: Vec<String>,
    form: Option<Form>,
}

#[derive(Deserialize)]
struct Body {
    model: String,
    messages: Vec<Message>,
    #[serde(default)]
    stream: bool,
    stream_options: Option<StreamOptions>,
    temperature: Option<f64>,
    seed: Option<i64>,
    max_tokens: Option<u64>,
    max_completion_tokens: Option<u64>,
    n: Option<u64>,
    stop: Option<Stops>,
    response_format: Option<ResponseFormat>,
    #[serde(default)]
    tools: Vec<Value>,
}

#[derive(Deserialize)]
struct StreamOptions {
    #[serde(default)]
    include_usage: bool,
}

#[derive(Deserialize)]
struct Message {
    role: String,
    content: Option<Content>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Content {
    Text(String),
    Parts(Vec<Part>),
}

#[derive(Deserialize)]
struct Part {
    text: Option<String>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Stops {
    One(String),
    Many(Vec<String>),
}

#[derive(Deserialize)]
struct ResponseFormat {
    r#type: String,
    json_schema: Option<Named>,
}

#[derive(Deserialize)]
struct Named {
    schema: Value,
}

/// A JSON object around what was said: the names of its texts.
struct Form(Vec<String>);

/// What a text of a form may be called.
const TEXTS: [&str; 4] = ["rationale", "answer", "verdict", "text"];

impl Form {
    fn read(schema: &Value) -> Result<Self, Refusal> {
        let cannot = || {
            Refusal::bad(format!(
                "response_format: the schema must be an object of texts that are called {}",
                TEXTS.join(", ")
            ))
        };
        let properties = schema["properties"].as_object().filter(|_| schema["type"] == "object");
        let names = properties.ok_or_else(cannot)?.iter().map(|(name, schema)| {
            let known = TEXTS.contains(&name.as_str()) && schema["type"] == "string";
            if known { Ok(name.clone()) } else { Err(cannot()) }
        });
        let names: Vec<String> = names.collect::<Result<_, _>>()?;
        let required = schema["required"].as_array().into_iter().flatten();
        let all_there = required.into_iter().all(|r| names.iter().any(|name| r == name));
        if all_there && !names.is_empty() { Ok(Form(names)) } else { Err(cannot()) }
    }

    /// What was said, taken apart.
    fn around(&self, text: &str) -> String {
        let (before, last) = text.rsplit_once('\n').unwrap_or(("", text));
        let part = |name: &str| match name {
            "rationale" => before,
            "answer" => last.strip_prefix("Answer: ").unwrap_or_else(|| named(last)),
            "verdict" => last.rsplit(' ').next().unwrap_or("").trim_end_matches('.'),
            _ => text,
        };
        let parts: Map<String, Value> = self.0.iter().map(|name| (name.clone(), part(name).into())).collect();
        Value::Object(parts).to_string()
    }
}

/// The letter in `The answer C is right.`
fn named(line: &str) -> &str {
    line.strip_prefix("The answer ").and_then(|l| l.split(' ').next()).unwrap_or(line)
}

impl Asked {
    pub(crate) fn read(body: &[u8], model: &Model) -> Result<Self, Refusal> {
        let body: Body = serde_json::from_slice(body)
            .map_err(|e| Refusal::bad(format!("the body is no chat completion that can be read: {e}")))?;
        if body.model != model.name() {
            return Err(Refusal::model(&body.model, model.name()));
        }
        if body.n.is_some_and(|n| n != 1) {
            return Err(Refusal::bad("n: one answer is given to a request"));
        }
        if !body.tools.is_empty() {
            return Err(Refusal::bad("tools: the model calls none"));
        }
        let temperature = body.temperature.unwrap_or(0.0);
        if !(0.0..=2.0).contains(&temperature) {
            return Err(Refusal::bad("temperature: it is from 0 to 2"));
        }
        let max_tokens = body.max_completion_tokens.or(body.max_tokens);
        if max_tokens == Some(0) {
            return Err(Refusal::bad("max_tokens: it is 1 or more"));
        }
        let stops = match body.stop {
            None => vec![],
            Some(Stops::One(stop)) => vec![stop],
            Some(Stops::Many(stops)) => stops,
        };
        if stops.len() > STOPS_MAX || stops.iter().any(String::is_empty) {
            return Err(Refusal::bad(format!("stop: at most {STOPS_MAX} texts, none of them empty")));
        }
        let form = match body.response_format {
            Some(ResponseFormat { r#type, json_schema }) if r#type != "text" => match json_schema {
                Some(named) if r#type == "json_schema" => Some(Form::read(&named.schema)?),
                _ => {
                    return Err(Refusal::bad(
                        "response_format: it is of type text, or json_schema with a schema",
                    ));
                }
            },
            _ => None,
        };
        let messages = body.messages.into_iter().map(|message| {
            let role = match message.role.as_str() {
                "system" | "developer" => Role::System,
                "user" => Role::User,
                "assistant" => Role::Assistant,
                other => return Err(Refusal::bad(format!("messages: nobody has the role {other:?}"))),
            };
            let text = match message.content {
                None => String::new(),
                Some(Content::Text(text)) => text,
                Some(Content::Parts(parts)) => {
                    let texts: Option<Vec<String>> = parts.into_iter().map(|part| part.text).collect();
                    texts.ok_or_else(|| Refusal::bad("messages: the model reads only text"))?.concat()
                }
            };
            Ok((role, text))
        });
        let messages: Vec<(Role, String)> = messages.collect::<Result<_, _>>()?;
        let messages: Vec<(Role, &str)> =
            messages.iter().map(|(role, text)| (*role, text.as_str())).collect();
        let request = Request {
            prompt: model.prompt(&messages).map_err(|e| Refusal::bad(e.to_string()))?,
            temperature,
            seed: body.seed.unwrap_or(0).cast_unsigned(),
            max_tokens: max_tokens.map_or(usize::MAX, |m| usize::try_from(m).unwrap_or(usize::MAX)),
        };
        let usage = body.stream_options.is_some_and(|options| options.include_usage);
        Ok(Asked { request, stream: body.stream, usage, model: body.model, stops, form })
    }
}

/// An answer as it grows: up to a stop sequence, and in the form that was asked for.
pub(crate) struct Reading<'a> {
    asked: &'a Asked,
    /// May still become a stop sequence, or the inside of a form.
    held: String,
    tokens: usize,
    finish: Option<Finish>,
}

impl<'a> Reading<'a> {
    pub(crate) fn new(asked: &'a Asked) -> Self {
        Reading { asked, held: String::new(), tokens: 0, finish: None }
    }

    /// One token more; what can be told now.
    pub(crate) fn token(&mut self, text: &str) -> String {
        self.tokens += 1;
        self.held += text;
        let found = self.asked.stops.iter().filter_map(|stop| self.held.find(stop.as_str())).min();
        if let Some(at) = found {
            self.held.truncate(at);
            return self.end(Finish::Stop);
        }
        if self.asked.form.is_some() {
            return String::new();
        }
        let keep = |stop: &String| {
            (1..stop.len()).rev().find(|n| self.held.as_bytes().ends_with(&stop.as_bytes()[..*n]))
        };
        let kept = self.asked.stops.iter().filter_map(keep).max().unwrap_or(0);
        let rest = self.held.split_off(self.held.len() - kept);
        std::mem::replace(&mut self.held, rest)
    }

    /// That was all; what was held back.
    pub(crate) fn end(&mut self, finish: Finish) -> String {
        self.finish = Some(finish);
        let text = std::mem::take(&mut self.held);
        self.asked.form.as_ref().map_or(text.clone(), |form| form.around(&text))
    }

    /// Whether nothing more is to be heard.
    pub(crate) fn is_over(&self) -> bool {
        self.finish.is_some()
    }

    fn reason(&self) -> &'static str {
        if self.finish == Some(Finish::Length) { "length" } else { "stop" }
    }

    fn usage(&self) -> Value {
        let read = self.asked.request.prompt.tokens();
        json!({"prompt_tokens": read, "completion_tokens": self.tokens, "total_tokens": read + self.tokens})
    }

    /// The whole answer.
    pub(crate) fn completion(&self, id: &str, text: &str) -> Value {
        let choice = json!({
            "index": 0, "message": {"role": "assistant", "content": text}, "logprobs": null,
            "finish_reason": self.reason(),
        });
        json!({
            "id": id, "object": "chat.completion", "created": 0, "model": self.asked.model,
            "choices": [choice], "usage": self.usage(),
        })
    }

    fn chunk(&self, id: &str, choices: Value) -> Value {
        json!({"id": id, "object": "chat.completion.chunk", "created": 0, "model": self.asked.model, "choices": choices})
    }

    /// A piece of the answer; the first names who speaks.
    pub(crate) fn piece(&self, id: &str, text: &str, first: bool) -> Value {
        let mut delta = json!({"content": text});
        if first {
            delta["role"] = "assistant".into();
        }
        self.chunk(id, json!([{"index": 0, "delta": delta, "finish_reason": null}]))
    }

    /// The last pieces: why it ended, and what was used, if that was asked for.
    pub(crate) fn last(&self, id: &str) -> Vec<Value> {
        let mut last =
            vec![self.chunk(id, json!([{"index": 0, "delta": {}, "finish_reason": self.reason()}]))];
        if self.asked.usage {
            let mut used = self.chunk(id, json!([]));
            used["usage"] = self.usage();
            last.push(used);
        }
        last
    }
}
