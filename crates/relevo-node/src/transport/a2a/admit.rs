use std::{
    cell::Cell,
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use a2a::{A2AError, TypedDetail, error_code, error_reason, errordetails::PROTOCOL_DOMAIN};
use axum::{
    body::{Body, to_bytes},
    extract::{Request, State},
    http::{HeaderValue, StatusCode, header},
    middleware::Next,
    response::{IntoResponse, Response},
};
use serde_json::json;

use super::{Clock, Identities, Shown};
use crate::{
    door::{self, Host},
    ids::PeerId,
    server::ServerLimits,
    wire,
};

/// After how long a peer may ask again what could not be answered now, in milliseconds.
pub(super) const RETRY_MS: u64 = 1_000;

const EXTENSIONS: &str = "a2a-extensions";

/// Who is asking, in the one place that a request cannot reach.
struct Asking {
    peer: PeerId,
    /// Whether it is told to ask again later.
    is_put_off: Cell<bool>,
}

tokio::task_local! {
    static ASKING: Asking;
}

/// Who is asking. Refuses where nobody was admitted.
pub(super) fn asker() -> Result<PeerId, A2AError> {
    ASKING
        .try_with(|asking| asking.peer)
        .map_err(|_| A2AError::invalid_request("nobody is known to be asking"))
}

/// The answer to somebody who may ask again later.
pub(super) fn later(message: impl Into<String>) -> A2AError {
    let _ = ASKING.try_with(|asking| asking.is_put_off.set(true));
    let delay = json!(format!("{:.3}s", RETRY_MS as f64 / 1_000.0));
    let retry = TypedDetail::new(
        "type.googleapis.com/google.rpc.RetryInfo",
        [("retryDelay".to_owned(), delay)].into(),
    );
    A2AError::internal(message).with_details(vec![retry])
}

/// What stands between the network and every agent's door.
pub(crate) struct Gate {
    pub(crate) identities: Identities,
    pub(crate) limits: ServerLimits,
    pub(crate) clock: Clock,
    buckets: Mutex<BTreeMap<PeerId, Bucket>>,
    streams: Mutex<BTreeMap<PeerId, usize>>,
    /// What was turned away and not told to the host yet.
    turned_away: Mutex<BTreeMap<(PeerId, &'static str), u64>>,
    /// Whoever counts that.
    host: Option<Arc<dyn Host>>,
}

impl Gate {
    pub(crate) fn new(
        identities: Identities,
        limits: ServerLimits,
        clock: Clock,
        host: Option<Arc<dyn Host>>,
    ) -> Self {
        let (buckets, streams, turned_away) = Default::default();
        Gate { identities, limits, clock, buckets, streams, turned_away, host }
    }

    /// Count what is turned away before it is read; nobody in particular counts with the operator. A flood is told to the
    /// host once a second, and not with each of its requests.
    fn count(self: &Arc<Self>, peer: PeerId, word: &'static str) {
        let is_first = {
            let mut counted = self.turned_away.lock().unwrap_or_else(PoisonError::into_inner);
            let times = counted.entry((peer, word)).or_default();
            *times += 1;
            *times == 1
        };
        if is_first {
            let gate = Arc::clone(self);
            tokio::spawn(async move {
                tokio::time::sleep(COUNTED_AFTER).await;
                let times =
                    gate.turned_away.lock().unwrap_or_else(PoisonError::into_inner).remove(&(peer, word));
                if let Some(host) = &gate.host {
                    host.ask(peer, door::Request::Count(word, times.unwrap_or(0))).await;
                }
            });
        }
    }

    /// Keep a connection of a peer open; `None` where it has as many as it may.
    pub(super) fn stream(self: &Arc<Self>, peer: PeerId) -> Option<Open> {
        let mut streams = self.streams.lock().unwrap_or_else(PoisonError::into_inner);
        let open = streams.entry(peer).or_default();
        (*open < self.limits.streams_max).then(|| {
            *open += 1;
            Open { gate: Arc::clone(self), peer }
        })
    }
}

/// A connection that is kept open, until this is dropped.
pub(super) struct Open {
    gate: Arc<Gate>,
    peer: PeerId,
}

impl Drop for Open {
    fn drop(&mut self) {
        let mut streams = self.gate.streams.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(open) = streams.get_mut(&self.peer) {
            *open -= 1;
        }
    }
}

/// How long what was turned away is gathered.
const COUNTED_AFTER: Duration = Duration::from_secs(1);

/// A token bucket.
#[derive(Clone, Copy, Debug)]
struct Bucket {
    tokens: f64,
    at_ms: u64,
}

impl Bucket {
    /// Take a token; or after how many milliseconds there is one.
    ///
    /// tokens ← min(burst, tokens + rate·Δt), then one less.
    fn take(&mut self, rate: f64, burst: f64, now_ms: u64) -> Result<(), u64> {
        let seconds = now_ms.saturating_sub(self.at_ms) as f64 / 1_000.0;
        self.tokens = (self.tokens + rate * seconds).min(burst);
        self.at_ms = now_ms;
        if self.tokens < 1.0 {
            return Err(((1.0 - self.tokens) / rate * 1_000.0).ceil() as u64);
        }
        self.tokens -= 1.0;
        Ok(())
    }
}

/// Let in whoever is known, within limits; what it showed goes no further.
pub(crate) async fn admit(State(gate): State<Arc<Gate>>, mut request: Request, next: Next) -> Response {
    let shown = request.headers_mut().remove(header::AUTHORIZATION);
    let token = shown.as_ref().and_then(|value| bearer(value.to_str().ok()?));
    let known =
        gate.identities.who(token, request.extensions().get::<Shown>().and_then(|shown| shown.0.as_ref()));
    let Some((peer, identity)) = known else {
        gate.count(PeerId::OPERATOR, "unauthenticated");
        let mut refusal = problem(
            StatusCode::UNAUTHORIZED,
            "UNAUTHENTICATED",
            "UNAUTHENTICATED",
            "nobody is known by this; send the token that you were given as `Authorization: Bearer TOKEN`",
        );
        refusal.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        return refusal;
    };
    let now_ms = (gate.clock)();
    let taken = {
        let mut buckets = gate.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        let full = Bucket { tokens: identity.burst, at_ms: now_ms };
        buckets.entry(peer).or_insert(full).take(identity.rate, identity.burst, now_ms)
    };
    if let Err(ms) = taken {
        gate.count(peer, "too-many");
        return put_off(StatusCode::TOO_MANY_REQUESTS, "RESOURCE_EXHAUSTED", "more requests than agreed", ms);
    }
    let (parts, body) = request.into_parts();
    let wait = Duration::from_millis(gate.limits.body_ms_max);
    let body = match tokio::time::timeout(wait, to_bytes(body, gate.limits.body_bytes_max)).await {
        Ok(Ok(body)) => body,
        // Whoever cut it short does not hear this.
        Ok(Err(_)) => {
            gate.count(peer, "too-long");
            let most = format!("more than {} bytes; send less", gate.limits.body_bytes_max);
            return problem(StatusCode::PAYLOAD_TOO_LARGE, "INVALID_ARGUMENT", "TOO_LONG", &most);
        }
        Err(_) => {
            gate.count(peer, "too-slow");
            return problem(
                StatusCode::REQUEST_TIMEOUT,
                "DEADLINE_EXCEEDED",
                "TOO_SLOW",
                "the body did not come",
            );
        }
    };
    let asking = Asking { peer, is_put_off: Cell::new(false) };
    ASKING.scope(asking, next.run(Request::from_parts(parts, Body::from(body)))).await
}

/// Say that values are passed to whoever asks for it, where the agent passes them.
pub(crate) async fn activate(State(passes_value): State<bool>, request: Request, next: Next) -> Response {
    let asked = request.headers().get_all(EXTENSIONS).iter().filter_map(|value| value.to_str().ok());
    let is_asked = asked.flat_map(|value| value.split(',')).any(|uri| uri.trim() == wire::EXTENSION);
    let mut response = next.run(request).await;
    if passes_value && is_asked {
        response.headers_mut().insert(EXTENSIONS, HeaderValue::from_static(wire::EXTENSION));
    }
    response
}

/// What HTTP+JSON needs beside the SDK's router: the version is looked at, as JSON-RPC does, and whoever is put off is
/// told so in HTTP's own words.
pub(crate) async fn rest(request: Request, next: Next) -> Response {
    let version = request.headers().get("a2a-version").and_then(|value| value.to_str().ok()).unwrap_or("0.3");
    if version.trim().split('.').next() != Some("1") {
        let reason = error_reason(error_code::VERSION_NOT_SUPPORTED);
        let message = "this agent speaks A2A 1.0; send `A2A-Version: 1.0`";
        return problem(StatusCode::BAD_REQUEST, "FAILED_PRECONDITION", reason, message);
    }
    let response = next.run(request).await;
    if ASKING.try_with(|asking| asking.is_put_off.get()).unwrap_or(false) {
        return put_off(StatusCode::SERVICE_UNAVAILABLE, "UNAVAILABLE", "not now; ask again", RETRY_MS);
    }
    response
}

fn bearer(shown: &str) -> Option<&str> {
    let (scheme, token) = shown.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

fn put_off(status: StatusCode, name: &str, message: &str, ms: u64) -> Response {
    let mut response = problem(status, name, name, message);
    response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(ms.div_ceil(1_000)));
    response
}

/// An error as A2A's HTTP+JSON binding writes it.
fn problem(status: StatusCode, name: &str, reason: &str, message: &str) -> Response {
    let details = [TypedDetail::error_info(reason, PROTOCOL_DOMAIN, None)];
    let error =
        json!({"error": {"code": status.as_u16(), "status": name, "message": message, "details": details}});
    (status, [(header::CONTENT_TYPE, "application/problem+json")], error.to_string()).into_response()
}

#[cfg(test)]
mod tests {
    use axum::{Router, http::HeaderMap, middleware, routing::get};
    use tokio::net::TcpListener;

    use super::*;
    use crate::transport::a2a::{Identity, TokenHash};

    #[tokio::test]
    async fn what_was_shown_goes_no_further_than_the_gate() {
        let (rate, burst, token) = (1.0, 9.0, Some(TokenHash::of("token-a")));
        let known = Identity { token, certificate: None, rate, burst, push: vec![] };
        let limits = ServerLimits {
            wire: wire::Limits { payload_bytes_max: 9, remembered_ms: 9 },
            body_bytes_max: 9,
            header_ms_max: 9_000,
            body_ms_max: 9_000,
            wait_ms_max: 9,
            streams_max: 9,
            connections_max: 9,
        };
        let identities = Identities::new([(PeerId(1), known)].into(), true);
        let gate = Arc::new(Gate::new(identities, limits, Arc::new(|| 0), None));
        let behind = |headers: HeaderMap| async move { format!("{:?} {headers:?}", asker().unwrap()) };
        let admitted = middleware::from_fn_with_state(gate, admit);
        let router = Router::new().route("/", get(behind)).route_layer(admitted);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, router).await });
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        let told = client.get(url).bearer_auth("token-a").header("x-other", "y").send().await.unwrap();
        let told = told.text().await.unwrap();
        assert!(told.starts_with("PeerId(1)") && told.contains("x-other"), "{told}");
        assert!(!told.contains("authorization") && !told.contains("token-a"), "{told}");
    }
}
