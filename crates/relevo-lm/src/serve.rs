//! The model behind HTTP, as OpenAI's chat completions, on the loopback: requests of many clients are continued
//! together by one thread.

use std::{
    convert::Infallible,
    io,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use axum::{
    Json, Router,
    body::{Body, Bytes},
    extract::{DefaultBodyLimit, State, rejection::BytesRejection},
    http::{Method, Response, StatusCode, Uri, header},
    response::IntoResponse,
    routing::{get, post},
};
use serde_json::{Value, json};
use tokio::sync::{mpsc, oneshot};

use crate::{
    model::{Model, WeightsError},
    wire::{Asked, Reading, Refusal},
    worker::{Event, Job, Worker},
};

/// The largest body of a request, in bytes.
const BODY_BYTES_MAX: usize = 1 << 20;

/// How a server is set up.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Its port on the loopback; with 0, a free one.
    pub port: u16,
    /// How long it waits before it begins an answer, as a distant service would.
    pub latency: Duration,
    /// Requests that are answered together, at most.
    pub together: usize,
    /// Requests that wait for that, at most; more are refused.
    pub queue: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Settings { port: 0, latency: Duration::ZERO, together: 256, queue: 1024 }
    }
}

/// A server on the loopback; it ends when it is dropped.
pub struct Serving {
    address: SocketAddr,
    numbers: Arc<AtomicU64>,
    end: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
    worker: Option<Worker>,
}

struct Served {
    model: &'static Model,
    latency: Duration,
    jobs: mpsc::Sender<Job>,
    numbers: Arc<AtomicU64>,
}

impl Serving {
    /// Serve the model in the box on this port; with 0, on a free one.
    ///
    /// # Errors
    ///
    /// If the port cannot be listened on.
    pub fn start(port: u16) -> io::Result<Self> {
        Serving::with(Model::bundled(), Settings { port, ..Settings::default() })
    }

    /// Serve a model.
    ///
    /// # Errors
    ///
    /// If the port cannot be listened on.
    pub fn with(model: &'static Model, settings: Settings) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, settings.port))?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (worker, jobs) = Worker::start(model, settings.together, settings.queue);
        let numbers = Arc::new(AtomicU64::new(0));
        let served = Arc::new(Served { model, latency: settings.latency, jobs, numbers: numbers.clone() });
        let app = Router::new()
            .route("/v1/chat/completions", post(complete))
            .route("/v1/models", get(models))
            .route("/v1/models/{name}", get(models))
            .route("/health", get(health))
            .fallback(nothing_there)
            .method_not_allowed_fallback(nothing_there)
            .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
            .with_state(served);
        let (end, ended) = oneshot::channel();
        let thread = std::thread::spawn(move || {
            runtime.block_on(async {
                let listener = tokio::net::TcpListener::from_std(listener).expect("it does not block");
                tokio::select! {
                    _ = axum::serve(listener, app) => {}
                    _ = ended => {}
                }
            });
        });
        Ok(Serving { address, numbers, end: Some(end), thread: Some(thread), worker: Some(worker) })
    }

    /// Where it serves.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The base of its addresses, as `OPENAI_BASE_URL` wants it.
    pub fn url(&self) -> String {
        format!("http://{}/v1/", self.address)
    }

    /// How many requests it has begun to answer.
    pub fn answered(&self) -> u64 {
        self.numbers.load(Ordering::Relaxed)
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        drop(self.end.take());
        // A thread that panicked has served nothing, which its test will have seen.
        let _ = self.thread.take().map(JoinHandle::join);
        drop(self.worker.take());
    }
}

/// A model from a file, for as long as the program runs.
///
/// # Errors
///
/// If it cannot be loaded.
pub fn load(path: &Path) -> Result<&'static Model, WeightsError> {
    Ok(Box::leak(Box::new(Model::load(path)?)))
}

async fn health(State(served): State<Arc<Served>>) -> Json<Value> {
    Json(json!({"status": "ok", "model": served.model.name(), "hash": served.model.hash()}))
}

async fn models(State(served): State<Arc<Served>>, uri: Uri) -> Response<Body> {
    let model = json!({"id": served.model.name(), "object": "model", "created": 0, "owned_by": "relevo"});
    match uri.path().strip_prefix("/v1/models/") {
        None => Json(json!({"object": "list", "data": [model]})).into_response(),
        Some(name) if name == served.model.name() => Json(model).into_response(),
        Some(name) => Refusal::model(name, served.model.name()).into_response(),
    }
}

async fn nothing_there(method: Method, uri: Uri) -> Response<Body> {
    let what = format!(
        "there is no {method} {}: POST /v1/chat/completions, GET /v1/models and GET /health are served",
        uri.path()
    );
    Refusal { status: StatusCode::NOT_FOUND, code: "not_found", what }.into_response()
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response<Body> {
        let kind = if self.status == StatusCode::TOO_MANY_REQUESTS {
            "rate_limit_error"
        } else {
            "invalid_request_error"
        };
        let body = json!({"error": {"message": self.what, "type": kind, "param": null, "code": self.code}});
        let mut response = (self.status, Json(body)).into_response();
        if self.status == StatusCode::TOO_MANY_REQUESTS {
            response.headers_mut().insert(header::RETRY_AFTER, header::HeaderValue::from_static("1"));
        }
        response
    }
}

async fn complete(State(served): State<Arc<Served>>, body: Result<Bytes, BytesRejection>) -> Response<Body> {
    match answer(served, body).await {
        Ok(response) => response,
        Err(refusal) => refusal.into_response(),
    }
}

async fn answer(served: Arc<Served>, body: Result<Bytes, BytesRejection>) -> Result<Response<Body>, Refusal> {
    let body = body.map_err(|e| Refusal {
        status: e.status(),
        code: "invalid_body",
        what: format!("the body cannot be read: {e}; it may have {BODY_BYTES_MAX} bytes"),
    })?;
    let asked = Asked::read(&body, served.model)?;
    let (tell, mut heard) = mpsc::unbounded_channel();
    let full = |_| Refusal {
        status: StatusCode::TOO_MANY_REQUESTS,
        code: "queue_full",
        what: "too many requests are waiting; try again later".into(),
    };
    served.jobs.try_send(Job { request: asked.request.clone(), tell }).map_err(full)?;
    tokio::time::sleep(served.latency).await;
    let id = format!("chatcmpl-{}", served.numbers.fetch_add(1, Ordering::Relaxed));
    if asked.stream {
        return Ok(stream(id, asked, heard));
    }
    let (mut reading, mut text) = (Reading::new(&asked), String::new());
    while !reading.is_over() {
        text += &match heard.recv().await {
            Some(Event::Token(more)) => reading.token(&more),
            Some(Event::End(finish)) => reading.end(finish),
            None => {
                let what = "the server is ending".into();
                return Err(Refusal { status: StatusCode::SERVICE_UNAVAILABLE, code: "ending", what });
            }
        };
    }
    Ok(Json(reading.completion(&id, &text)).into_response())
}

/// The answer in pieces. A client that hangs up cancels its request, as nobody is left who hears of it.
fn stream(id: String, asked: Asked, mut heard: mpsc::UnboundedReceiver<Event>) -> Response<Body> {
    let (lines, sent) = mpsc::channel::<Value>(64);
    tokio::spawn(async move {
        let mut reading = Reading::new(&asked);
        let mut first = true;
        while !reading.is_over() {
            let event = tokio::select! {
                event = heard.recv() => event,
                () = lines.closed() => None,
            };
            let text = match event {
                Some(Event::Token(more)) => reading.token(&more),
                Some(Event::End(finish)) => reading.end(finish),
                None => return,
            };
            if !text.is_empty() && lines.send(reading.piece(&id, &text, first)).await.is_err() {
                return;
            }
            first &= text.is_empty();
        }
        for value in reading.last(&id) {
            let _ = lines.send(value).await;
        }
        let _ = lines.send(Value::Null).await;
    });
    let line =
        |value: Value| if value.is_null() { "data: [DONE]\n\n".into() } else { format!("data: {value}\n\n") };
    let events = futures_util::stream::unfold(sent, move |mut sent| async move {
        let value = sent.recv().await?;
        Some((Ok::<_, Infallible>(line(value)), sent))
    });
    let mut response = Response::new(Body::from_stream(events));
    let kind = header::HeaderValue::from_static("text/event-stream");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}
