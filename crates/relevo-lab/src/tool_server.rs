//! A server of made-up tools, which speaks MCP over pipes or over HTTP on the loopback: so that tests can have every success
//! and every failure, and count calls.
//!
//! | tool | |
//! |---|---|
//! | `search` | the texts in which a word of `query` occurs, at most `limit`, as a list of `source` and `text` |
//! | `echo` | `text` |
//! | `environment` | the names of the variables that the server sees |
//! | `fail` | says of itself that it failed, because of `reason` |
//! | `long` | answers with so many `bytes` |
//! | `slow` | waits for `ms` before it answers |
//! | `crash` | ends the program with exit code 3 |
//! | `garbage` | answers with something that is no result |
//!
//! The last two are only for a server that is a program. Nothing here searches anything but the texts it was given.

use std::{
    io::{self, Write},
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use axum::{
    Router,
    extract::Request,
    http::{StatusCode, header},
    middleware::{self, Next},
    response::IntoResponse,
};
use rmcp::{
    ErrorData, RoleServer, ServerHandler, ServiceExt,
    model::{
        CallToolRequestParams, CallToolResponse, CallToolResult, ContentBlock, ListToolsResult,
        PaginatedRequestParams, ServerCapabilities, ServerConfig, Tool,
    },
    service::RequestContext,
    transport::{
        StreamableHttpServerConfig, StreamableHttpService,
        streamable_http_server::session::local::LocalSessionManager,
    },
};
use serde_json::{Map, Value, json};

use crate::loopback::Loopback;

/// The most calls that are remembered.
const CALLS_MAX: usize = 10_000;

/// What the tools work on.
#[derive(Clone, Debug, Default)]
pub struct Tools {
    /// What `search` finds: sources and texts.
    texts: Vec<(String, String)>,
    /// Where a line is written for every call, if anywhere.
    log: Option<PathBuf>,
    /// The calls, with their arguments.
    calls: Arc<Mutex<Vec<(String, Value)>>>,
    /// Whether the server is a program of its own.
    program: bool,
}

impl Tools {
    /// Tools that find these texts.
    pub fn new(texts: Vec<(String, String)>) -> Self {
        Tools { texts, ..Tools::default() }
    }

    /// Tools that find the texts in JSON lines, each with a `source` and a `text`.
    pub fn read(lines: &str) -> Result<Self, String> {
        #[derive(serde::Deserialize)]
        struct Line {
            source: String,
            text: String,
        }
        let parse = |(i, line): (usize, &str)| {
            let line: Line = serde_json::from_str(line).map_err(|e| {
                format!("line {}: {e}; a line is {{\"source\": \"..\", \"text\": \"..\"}}", i + 1)
            })?;
            Ok((line.source, line.text))
        };
        let lines = lines.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
        Ok(Tools::new(lines.map(parse).collect::<Result<_, String>>()?))
    }

    /// The same tools, which add a line to a file for every call.
    pub fn logged(self, log: Option<PathBuf>) -> Self {
        Tools { log, ..self }
    }

    /// Serve over the pipes of this process, until its input ends.
    pub async fn serve_pipes(mut self) -> io::Result<()> {
        self.program = true;
        let served = self.serve(rmcp::transport::io::stdio()).await.map_err(io::Error::other)?;
        served.waiting().await.map_err(io::Error::other)?;
        Ok(())
    }

    fn note(&self, name: &str, arguments: &Map<String, Value>) {
        let mut calls = self.calls.lock().unwrap_or_else(PoisonError::into_inner);
        if calls.len() < CALLS_MAX {
            calls.push((name.to_owned(), Value::Object(arguments.clone())));
        }
        if let Some(path) = &self.log {
            let line = format!("{} {name} {}\n", std::process::id(), Value::Object(arguments.clone()));
            let file = std::fs::OpenOptions::new().create(true).append(true).open(path);
            file.and_then(|mut file| file.write_all(line.as_bytes())).expect("the log can be written");
        }
    }

    fn search(&self, query: &str, limit: usize) -> Value {
        let words: Vec<String> = query.split_whitespace().map(str::to_lowercase).collect();
        let has = |text: &str| {
            let text = text.to_lowercase();
            words.iter().any(|word| text.contains(word))
        };
        let found = self.texts.iter().filter(|(_, text)| has(text)).take(limit);
        found.map(|(source, text)| json!({"source": source, "text": text})).collect()
    }
}

/// Names of arguments, and their types.
type Arguments = &'static [(&'static str, &'static str)];

/// The tools: a name, what it does, its arguments.
const TOOLS: [(&str, &str, Arguments); 8] = [
    (
        "search",
        "Find texts in which a word of the query occurs.",
        &[("query", "string"), ("limit", "integer")],
    ),
    ("echo", "Say the text again.", &[("text", "string")]),
    ("environment", "Say which variables there are.", &[]),
    ("fail", "Fail.", &[("reason", "string")]),
    ("long", "Answer with much.", &[("bytes", "integer")]),
    ("slow", "Answer after a while.", &[("ms", "integer")]),
    ("crash", "End the program.", &[]),
    ("garbage", "Answer with something that is no result.", &[]),
];

/// Those that only a program has.
const OF_PROGRAMS: [&str; 2] = ["crash", "garbage"];

impl ServerHandler for Tools {
    fn get_info(&self) -> ServerConfig {
        ServerConfig::new(ServerCapabilities::builder().enable_tools().build())
    }

    async fn list_tools(
        &self,
        _: Option<PaginatedRequestParams>,
        _: RequestContext<RoleServer>,
    ) -> Result<ListToolsResult, ErrorData> {
        let there = TOOLS.iter().filter(|(name, ..)| self.program || !OF_PROGRAMS.contains(name));
        let tool = |(name, description, arguments): &(&'static str, &'static str, Arguments)| {
            let property = |(name, of): &(&str, &str)| ((*name).to_owned(), json!({"type": of}));
            let properties: Map<String, Value> = arguments.iter().map(property).collect();
            let schema = Map::from_iter([
                ("type".to_owned(), json!("object")),
                ("properties".to_owned(), Value::Object(properties)),
            ]);
            Tool::new(*name, *description, schema)
        };
        Ok(ListToolsResult::with_all_items(there.map(tool).collect()))
    }

    async fn call_tool(
        &self,
        request: CallToolRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, ErrorData> {
        let arguments = request.arguments.unwrap_or_default();
        self.note(&request.name, &arguments);
        let text = |key: &str| arguments.get(key).and_then(Value::as_str).unwrap_or_default();
        let number = |key: &str| arguments.get(key).and_then(Value::as_u64);
        let say = |text: &str| CallToolResult::success(vec![ContentBlock::text(text)]);
        let result = match &*request.name {
            "search" => {
                let limit = number("limit").map_or(usize::MAX, |limit| limit as usize);
                CallToolResult::structured(json!({"result": self.search(text("query"), limit)}))
            }
            "echo" => say(text("text")),
            "environment" => {
                let names: Vec<String> =
                    std::env::vars_os().map(|(name, _)| name.to_string_lossy().into()).collect();
                say(&names.join(" "))
            }
            "fail" => CallToolResult::error(vec![ContentBlock::text(text("reason"))]),
            "long" => say(&"x".repeat(number("bytes").unwrap_or_default() as usize)),
            "slow" => {
                tokio::time::sleep(Duration::from_millis(number("ms").unwrap_or_default())).await;
                say("at last")
            }
            "crash" if self.program => {
                eprintln!("it crashes as it was told to");
                std::process::exit(3);
            }
            "garbage" if self.program => {
                let answer = json!({"jsonrpc": "2.0", "id": context.id, "result": ["no result"]});
                println!("{answer}");
                std::future::pending().await
            }
            _ => return Err(ErrorData::invalid_params("there is no such tool", None)),
        };
        Ok(result.into())
    }
}

/// A server over HTTP; it ends when it is dropped.
pub struct ToolServer {
    server: Loopback,
    calls: Arc<Mutex<Vec<(String, Value)>>>,
}

impl ToolServer {
    /// Serve on a port and a thread of its own; whoever does not send `key`, if there is one, gets `status`.
    pub fn start(tools: Tools, key: Option<&'static str>, status: u16) -> io::Result<Self> {
        let calls = tools.calls.clone();
        let config = StreamableHttpServerConfig::default();
        let sessions = Arc::new(LocalSessionManager::default());
        let service = StreamableHttpService::new(move || Ok(tools.clone()), sessions, config);
        let expected = key.map(|key| format!("Bearer {key}"));
        let refused = StatusCode::from_u16(status).map_err(io::Error::other)?;
        let admit = move |request: Request, next: Next| {
            let sent = request.headers().get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
            let admitted = expected.as_deref().is_none_or(|expected| sent == Some(expected));
            async move { if admitted { next.run(request).await } else { refused.into_response() } }
        };
        let app = Router::new().nest_service("/mcp", service).layer(middleware::from_fn(admit));
        Ok(ToolServer { server: Loopback::serve(0, app)?, calls })
    }

    /// Where it serves.
    pub fn url(&self) -> String {
        format!("http://{}/mcp", self.server.address())
    }

    /// The tools that were called, in order, with their arguments.
    pub fn calls(&self) -> Vec<(String, Value)> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
