//! A server of made-up language models on the loopback, which speaks the chat completions of OpenAI: what it answers is
//! a function of the request, so that tests and experiments can have every success and every failure, and count calls.
//!
//! Nothing here is a language model, and nothing leaves the machine.

use std::{
    convert::Infallible,
    io,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use axum::{
    Json, Router,
    body::{Body, Bytes},
    extract::State,
    http::{HeaderMap, HeaderValue, Response, StatusCode, header},
    response::IntoResponse,
    routing::{get, post},
};
use relevo_core::Rng;
use serde_json::{Value, json};

use crate::loopback::Loopback;

/// The most requests that a server remembers for its tests.
const ASKED_MAX: usize = 10_000;

/// A chat completion that was asked for.
#[derive(Clone, Debug, PartialEq)]
pub struct Asked {
    /// How many came before it.
    pub number: u64,
    /// The model.
    pub model: String,
    /// Who said what.
    pub messages: Vec<(String, String)>,
    /// The names of the tools that it may call.
    pub tools: Vec<String>,
    /// The schema of the answer.
    pub schema: Option<Value>,
    /// What the schema is called.
    pub form: Option<String>,
    /// Whether it is to come in pieces.
    pub stream: bool,
    /// How random it is to be.
    pub temperature: Option<f64>,
    /// The most tokens that it may have.
    pub max_tokens: Option<u64>,
    /// The header `authorization`.
    pub authorization: Option<String>,
}

/// What the server does with a request.
#[derive(Clone, Debug, PartialEq)]
pub enum Reply {
    /// Answers with this.
    Say(String),
    /// Calls these tools with these arguments.
    Call(Vec<(String, Value)>),
    /// Answers with this, after so many tokens of thought that are paid for and not shown.
    Think {
        /// The tokens.
        thought: u64,
        /// The answer.
        text: String,
    },
    /// Answers with this so far, having reached the most tokens.
    CutOff(String),
    /// Withholds the answer.
    Withhold,
    /// Refuses, with this body, and perhaps a header `retry-after`.
    Refuse {
        /// The status.
        status: u16,
        /// The body.
        body: Value,
        /// The header.
        retry_after: Option<&'static str>,
    },
    /// Sends these bytes as its answer.
    Raw(&'static str),
    /// Sends a part of this answer, and breaks the connection.
    BreakOff(String),
    /// Never answers.
    Hang,
    /// Does this after a while.
    After(Duration, Box<Reply>),
}

impl Reply {
    /// A refusal with a code, as OpenAI words it.
    pub fn refuse(status: u16, code: &str) -> Self {
        let body = json!({"error": {"message": "no, and here is why", "type": "error", "code": code}});
        Reply::Refuse { status, body, retry_after: None }
    }

    /// An answer of the form that was asked for, made up from `rng`.
    pub fn of_form(asked: &Asked, rng: &mut Rng) -> Self {
        match &asked.schema {
            Some(schema) => Reply::Say(instance(schema, rng).to_string()),
            None => Reply::Say(format!("word-{}", rng.below(1000))),
        }
    }
}

/// A value that a JSON schema admits, of the kind that structured output is asked for with.
pub fn instance(schema: &Value, rng: &mut Rng) -> Value {
    if let Some(one_of) = schema["enum"].as_array().filter(|all| !all.is_empty()) {
        return one_of[rng.below(one_of.len() as u32) as usize].clone();
    }
    match schema["type"].as_str() {
        Some("object") => {
            let properties = schema["properties"].as_object().into_iter().flatten();
            Value::Object(properties.map(|(key, schema)| (key.clone(), instance(schema, rng))).collect())
        }
        Some("array") => (0..1 + rng.below(2)).map(|_| instance(&schema["items"], rng)).collect(),
        Some("boolean") => Value::Bool(rng.below(2) == 1),
        Some("integer" | "number") => rng.below(100).into(),
        _ => format!("word-{}", rng.below(1000)).into(),
    }
}

/// The server; it ends when it is dropped.
pub struct ModelServer {
    server: Loopback,
    state: Arc<Served>,
}

type Script = dyn Fn(&Asked) -> Reply + Send + Sync;

struct Served {
    script: Box<Script>,
    /// The most requests that are remembered.
    remembered: usize,
    asked: Mutex<Vec<Asked>>,
    requests: AtomicU64,
    under_way: AtomicU64,
    most_under_way: AtomicU64,
}

impl ModelServer {
    /// Serve by `script`, on a port of its own and a thread of its own, and remember what was asked.
    pub fn start(script: impl Fn(&Asked) -> Reply + Send + Sync + 'static) -> io::Result<Self> {
        Self::open(0, ASKED_MAX, Box::new(script))
    }

    /// Serve by `script` on a port of the loopback, 0 for any that is free, and remember nothing.
    pub fn on_port(port: u16, script: impl Fn(&Asked) -> Reply + Send + Sync + 'static) -> io::Result<Self> {
        Self::open(port, 0, Box::new(script))
    }

    fn open(port: u16, remembered: usize, script: Box<Script>) -> io::Result<Self> {
        let state = Arc::new(Served {
            script,
            remembered,
            asked: Mutex::default(),
            requests: AtomicU64::new(0),
            under_way: AtomicU64::new(0),
            most_under_way: AtomicU64::new(0),
        });
        let app = Router::new()
            .route("/v1/chat/completions", post(complete))
            .route("/v1/models", get(async || Json(json!({"object": "list", "data": [{"id": "made-up"}]}))))
            .with_state(state.clone());
        Ok(ModelServer { server: Loopback::serve(port, app)?, state })
    }

    /// Where it serves.
    pub fn url(&self) -> String {
        format!("http://{}/v1", self.server.address())
    }

    /// How many chat completions were asked for.
    pub fn requests(&self) -> u64 {
        self.state.requests.load(Ordering::SeqCst)
    }

    /// How many were under way at a time, at most.
    pub fn most_under_way(&self) -> u64 {
        self.state.most_under_way.load(Ordering::SeqCst)
    }

    /// What was asked, in order.
    pub fn asked(&self) -> Vec<Asked> {
        self.state.asked.lock().expect("no thread panics with it").clone()
    }
}

/// Counts a request as under way until it is dropped, whether it was answered or its client has gone.
struct UnderWay(Arc<Served>);

impl UnderWay {
    fn of(state: &Arc<Served>) -> Self {
        let now = state.under_way.fetch_add(1, Ordering::SeqCst) + 1;
        state.most_under_way.fetch_max(now, Ordering::SeqCst);
        UnderWay(state.clone())
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.under_way.fetch_sub(1, Ordering::SeqCst);
    }
}

async fn complete(
    State(state): State<Arc<Served>>,
    headers: HeaderMap,
    Json(request): Json<Value>,
) -> Response<Body> {
    let _under_way = UnderWay::of(&state);
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let messages = request["messages"].as_array().into_iter().flatten();
    let tools = request["tools"].as_array().into_iter().flatten();
    let form = &request["response_format"]["json_schema"];
    let asked = Asked {
        number: state.requests.fetch_add(1, Ordering::SeqCst),
        model: text(&request["model"]),
        messages: messages.map(|m| (text(&m["role"]), text(&m["content"]))).collect(),
        tools: tools.map(|tool| text(&tool["function"]["name"])).collect(),
        schema: Some(form["schema"].clone()).filter(Value::is_object),
        form: form["name"].as_str().map(str::to_owned),
        stream: request["stream"] == true,
        temperature: request["temperature"].as_f64(),
        max_tokens: request["max_tokens"].as_u64(),
        authorization: headers.get(header::AUTHORIZATION).and_then(|v| v.to_str().ok()).map(str::to_owned),
    };
    let mut reply = (state.script)(&asked);
    if state.remembered > 0 {
        let mut log = state.asked.lock().expect("no thread panics with it");
        if log.len() < state.remembered {
            log.push(asked.clone());
        }
    }
    while let Reply::After(delay, then) = reply {
        tokio::time::sleep(delay).await;
        reply = *then;
    }
    match reply {
        Reply::Say(text) => answer(&asked, &Said::text(&text)),
        Reply::Call(calls) => {
            let calls = tool_calls(&asked, &calls);
            answer(&asked, &Said { calls, finish: "tool_calls", ..Said::text("") })
        }
        Reply::Think { thought, text } => answer(&asked, &Said { thought, ..Said::text(&text) }),
        Reply::CutOff(text) => answer(&asked, &Said { finish: "length", ..Said::text(&text) }),
        Reply::Withhold => answer(&asked, &Said { finish: "content_filter", ..Said::text("") }),
        Reply::Refuse { status, body, retry_after } => {
            let status = StatusCode::from_u16(status).expect("scripts name real ones");
            let mut response = (status, Json(body)).into_response();
            if let Some(value) = retry_after {
                response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static(value));
            }
            response
        }
        Reply::Raw(body) => json_body(Body::from(body)),
        Reply::BreakOff(text) => {
            let whole = if asked.stream {
                pieces(&asked, &Said::text(&text)).concat()
            } else {
                completion(&asked, &Said::text(&text)).to_string()
            };
            let half = Bytes::from(whole.as_bytes()[..whole.len() / 2].to_vec());
            // The pause lets the half arrive before the connection breaks.
            let broken = async {
                tokio::time::sleep(Duration::from_millis(20)).await;
                Err(io::Error::other("as scripted"))
            };
            let parts = futures_util::StreamExt::chain(
                futures_util::stream::iter([Ok::<_, io::Error>(half)]),
                futures_util::stream::once(broken),
            );
            json_body(Body::from_stream(parts))
        }
        Reply::Hang => std::future::pending().await,
        Reply::After(..) => unreachable!("unwrapped above"),
    }
}

/// What a model is made to say.
struct Said<'t> {
    text: &'t str,
    calls: Value,
    thought: u64,
    finish: &'static str,
}

impl<'t> Said<'t> {
    fn text(text: &'t str) -> Self {
        Said { text, calls: Value::Null, thought: 0, finish: "stop" }
    }
}

/// Calls of tools, as chat completions word them.
fn tool_calls(asked: &Asked, calls: &[(String, Value)]) -> Value {
    let call = |(i, (name, arguments)): (usize, &(String, Value))| {
        let function = json!({"name": name, "arguments": arguments.to_string()});
        json!({"index": i, "id": format!("call-{}-{i}", asked.number), "type": "function", "function": function})
    };
    calls.iter().enumerate().map(call).collect()
}

fn answer(asked: &Asked, said: &Said) -> Response<Body> {
    if !asked.stream {
        return json_body(Body::from(completion(asked, said).to_string()));
    }
    let pieces: Vec<_> = pieces(asked, said).into_iter().map(Ok::<_, Infallible>).collect();
    let mut response = Response::new(Body::from_stream(futures_util::stream::iter(pieces)));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    response
}

fn json_body(body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// A token is four bytes here.
fn usage(asked: &Asked, said: &Said) -> Value {
    let of = |bytes: usize| bytes.div_ceil(4) as u64;
    let input = of(asked.messages.iter().map(|(_, text)| text.len()).sum());
    let output = of(said.text.len()) + said.thought;
    json!({"prompt_tokens": input, "completion_tokens": output, "total_tokens": input + output})
}

fn completion(asked: &Asked, said: &Said) -> Value {
    let mut message = json!({"role": "assistant", "content": said.text});
    if !said.calls.is_null() {
        message["tool_calls"] = said.calls.clone();
    }
    json!({
        "id": format!("made-up-{}", asked.number),
        "object": "chat.completion",
        "model": asked.model,
        "choices": [{"index": 0, "message": message, "finish_reason": said.finish}],
        "usage": usage(asked, said),
    })
}

/// The events of an answer that comes word by word.
fn pieces(asked: &Asked, said: &Said) -> Vec<String> {
    let chunk = |choices: Value, usage: Value| {
        let chunk = json!({"object": "chat.completion.chunk", "model": asked.model, "choices": choices, "usage": usage});
        format!("data: {chunk}\n\n")
    };
    let word = |word: &str| {
        chunk(json!([{"index": 0, "delta": {"content": word}, "finish_reason": null}]), Value::Null)
    };
    let mut events: Vec<String> = said.text.split_inclusive(' ').map(word).collect();
    for call in said.calls.as_array().into_iter().flatten() {
        let delta = json!({"tool_calls": [call]});
        events.push(chunk(json!([{"index": 0, "delta": delta, "finish_reason": null}]), Value::Null));
    }
    events.push(chunk(json!([{"index": 0, "delta": {}, "finish_reason": said.finish}]), Value::Null));
    events.push(chunk(json!([]), usage(asked, said)));
    events.push("data: [DONE]\n\n".to_owned());
    events
}
