//! Services of language models, spoken to by `genai`: one request, its answer, and what each way to fail means. How a call
//! failed is taken from the status, the headers and the codes of a service, never from what its messages say.

use std::{
    error::Error,
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime},
};

use async_trait::async_trait;
use futures_util::StreamExt;
use genai::{
    Client, ModelIden, ServiceTarget,
    adapter::AdapterKind,
    chat::{ChatOptions, ChatResponseFormat, ChatStreamEvent, JsonSpec},
    resolver::{AuthData, Endpoint, ProviderConfig},
    webc::{self, StreamTimeout},
};
use relevo_core::Rng;
use reqwest::{StatusCode, header::HeaderMap};
use serde_json::{Value, json};
use tokio::{sync::Semaphore, time::timeout};

use super::{
    ChatReply, ChatRequest, Hear, Model,
    environment::{self, Environment, Key, presentable},
    patience::{Patience, Refusal},
    wire::{finished, messages, usage},
};
use crate::{
    agent::Failure,
    observe::{Asking, Whom},
    team::ModelSection,
};

/// The variable that says where the models of OpenAI are served.
pub const BASE_URL: &str = "OPENAI_BASE_URL";

/// The longest that a connection may take to be made.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// The longest answer that is taken in pieces, in bytes.
const ANSWER_BYTES_MAX: usize = 64 << 20;

/// Codes by which services say that an account is used up, whatever their status.
const QUOTA_CODES: [&str; 3] = ["insufficient_quota", "billing_hard_limit_reached", "billing_not_active"];

/// A model at a service.
pub struct Provider {
    client: Client,
    /// Its name in the team file.
    title: String,
    name: ModelIden,
    /// Where it is served, if not where the provider does.
    endpoint: Option<String>,
    access: Access,
    patience: Patience,
    /// Requests under way at its endpoint.
    gate: Arc<Semaphore>,
    rng: Rng,
    calls: AtomicU64,
}

/// How a service is to know who asks.
enum Access {
    /// By the key in the variable of this name.
    Key(String, Key),
    /// It need not.
    Open,
    /// By the key in the variable of this name, which has none.
    Missing(String),
}

/// The providers that a team file can name.
pub fn kinds() -> impl Iterator<Item = &'static str> + Clone {
    AdapterKind::all().iter().map(AdapterKind::as_lower_str)
}

/// The variable that holds the key of a model: that which its section names, else its provider's, if that wants one.
pub fn key_variable(section: &ModelSection) -> Option<String> {
    let of_provider = || AdapterKind::from_lower_str(&section.provider)?.default_key_env_name();
    section.key.clone().or_else(|| of_provider().map(str::to_owned))
}

/// Whether this can be the address of a service; the reason if it cannot.
pub fn check_url(url: &str) -> Result<(), String> {
    let parsed = reqwest::Url::parse(url).map_err(|e| format!("url is no address: {e}"))?;
    if !["http", "https"].contains(&parsed.scheme()) || parsed.host_str().is_none() {
        return Err("url must be one of http or https, such as \"http://127.0.0.1:8000/v1\"".to_owned());
    }
    let secret = !parsed.username().is_empty() || parsed.password().is_some() || parsed.query().is_some();
    match secret || parsed.fragment().is_some() {
        true => Err("url must hold no user, password or query: keys come from the environment".to_owned()),
        false => Ok(()),
    }
}

/// What speaks HTTP for models and tools. A redirect is not followed, as a key would go with it.
pub(crate) fn http() -> Result<reqwest::Client, String> {
    let http = reqwest::Client::builder()
        .redirect(reqwest::redirect::Policy::none())
        .connect_timeout(CONNECT_TIMEOUT)
        .tcp_nodelay(true)
        .user_agent(concat!("relevo/", env!("CARGO_PKG_VERSION")))
        .build();
    http.map_err(|e| {
        let cause = e.source().map_or(e.to_string(), ToString::to_string);
        format!("no service can be asked from here: {cause}")
    })
}

/// What all models of a team share.
pub(super) fn client() -> Result<Client, String> {
    Client::builder().with_reqwest(http()?).build().map_err(|_| "no models can be asked from here".to_owned())
}

impl Provider {
    /// A model as the section `name` of a team file says.
    pub(super) fn new(
        client: Client,
        name: &str,
        section: &ModelSection,
        environment: &Environment,
        gate: Arc<Semaphore>,
        seed: u64,
    ) -> Self {
        let kind = AdapterKind::from_lower_str(&section.provider).unwrap_or(AdapterKind::OpenAI);
        let endpoint = section.endpoint(environment);
        let access = match key_variable(section).map(|name| (environment.key(&name), name)) {
            Some((Some(key), name)) => Access::Key(name, key),
            // A server of one's own may want none.
            Some((None, name)) if section.key.is_some() || endpoint.is_none() => Access::Missing(name),
            _ => Access::Open,
        };
        Provider {
            client,
            title: name.to_owned(),
            name: ModelIden::new(kind, section.model.as_str()),
            endpoint,
            access,
            patience: Patience {
                attempt: Duration::from_millis(section.timeout_ms),
                retries: section.retries,
                ..Patience::default()
            },
            gate,
            rng: Rng::stream(seed, &format!("retries of {name}")),
            calls: AtomicU64::new(0),
        }
    }

    /// One attempt, once there is a place at the endpoint.
    async fn attempt(
        &self,
        number: u32,
        request: &ChatRequest,
        hear: Option<Hear<'_>>,
    ) -> Result<ChatReply, Refusal> {
        if let Access::Missing(name) = &self.access {
            return Err(Failure::Unauthorised(environment::missing(name)).into());
        }
        let _place = self.gate.acquire().await.expect("the gate is never closed");
        let asking = Asking::begin(number, || Whom::Model {
            name: self.title.clone(),
            provider: self.name.adapter_kind.as_lower_str().to_owned(),
            model: self.name.model_name.to_string(),
        });
        let limit = self.patience.attempt;
        let heard = AtomicU64::new(0);
        let answer = async {
            match hear {
                None => self.whole(request, &asking).await,
                Some(hear) => {
                    let hear = |piece: &str| {
                        heard.fetch_add(1, Ordering::Relaxed);
                        hear(piece);
                    };
                    self.in_pieces(request, &asking, &hear).await
                }
            }
        };
        let timed_out = || Err(Failure::Timeout { ms: limit.as_millis() as u64 }.into());
        let answer = timeout(limit, answer).await.unwrap_or_else(|_| timed_out());
        asking.end(answer.as_ref().map(|reply| reply.usage).map_err(|refusal| refusal.failure.kind()));
        answer.map_err(|refusal| Refusal { heard: heard.into_inner() > 0, ..refusal })
    }

    /// The names of all models at its endpoint.
    pub(super) async fn names(&self) -> Result<Vec<String>, Refusal> {
        let ServiceTarget { endpoint, auth, .. } = self.target().await?;
        let place = ProviderConfig::from((endpoint, auth));
        let names = self.client.all_model_names(self.name.adapter_kind, place).await;
        names.map_err(|e| self.refusal(&e))
    }

    async fn whole(&self, request: &ChatRequest, asking: &Asking) -> Result<ChatReply, Refusal> {
        let (target, options) = (self.target().await?, self.options(request, asking));
        let reply = self.client.exec_chat(target, messages(request), Some(&options)).await;
        let reply = reply.map_err(|e| self.refusal(&e))?;
        let usage = usage(Some(&reply.usage));
        let finish = reply.stop_reason.clone();
        let text = reply.texts().concat();
        finished(text, reply.into_assistant_message_for_tool_use(), usage, finish)
    }

    async fn in_pieces(
        &self,
        request: &ChatRequest,
        asking: &Asking,
        hear: &(dyn Fn(&str) + Send + Sync),
    ) -> Result<ChatReply, Refusal> {
        let calls = !request.tools.is_empty();
        let options = self.options(request, asking).with_capture_usage(true).with_capture_tool_calls(calls);
        let options = options.with_capture_content(calls).with_capture_reasoning_content(calls);
        let target = self.target().await?;
        let reply = self.client.exec_chat_stream(target, messages(request), Some(&options)).await;
        let mut stream = reply.map_err(|e| self.refusal(&e))?.stream;
        let mut text = String::new();
        while let Some(event) = stream.next().await {
            match event.map_err(|e| self.refusal(&e))? {
                ChatStreamEvent::Chunk(piece) => {
                    hear(&piece.content);
                    text.push_str(&piece.content);
                    if text.len() > ANSWER_BYTES_MAX {
                        let bytes_max = ANSWER_BYTES_MAX as u64;
                        return Err(Failure::TooLong { what: "the answer".into(), bytes_max }.into());
                    }
                }
                ChatStreamEvent::End(end) => {
                    let (usage, reason) =
                        (usage(end.captured_usage.as_ref()), end.captured_stop_reason.clone());
                    return finished(text, end.into_assistant_message_for_tool_use(), usage, reason);
                }
                _ => {}
            }
        }
        Err(Failure::Garbage("the answer breaks off".to_owned()).into())
    }

    async fn target(&self) -> Result<ServiceTarget, Refusal> {
        let target = self.client.resolve_service_target(self.name.clone()).await;
        let mut target = target.map_err(|e| self.refusal(&e))?;
        if let Some(url) = &self.endpoint {
            target.endpoint = Endpoint::from_owned(url.as_str());
        }
        let key = match &self.access {
            Access::Key(_, key) => key.reveal(),
            // Not every adapter can leave it out, and whoever needs none does not read it.
            _ => "none",
        };
        target.auth = AuthData::from_single(key);
        Ok(target)
    }

    fn options(&self, request: &ChatRequest, asking: &Asking) -> ChatOptions {
        let form = request.schema.as_ref().map(|schema| match self.name.adapter_kind {
            // It is told no schemas; the prompt has it.
            AdapterKind::Ollama | AdapterKind::OllamaCloud => ChatResponseFormat::JsonMode,
            _ => JsonSpec::new(schema.name.as_str(), schema.schema.clone()).into(),
        });
        ChatOptions {
            temperature: request.temperature,
            max_tokens: request.max_tokens,
            seed: request.seed,
            response_format: form,
            extra_headers: asking.traceparent().map(|context| ("traceparent", context).into()),
            ..ChatOptions::default()
        }
    }

    /// What an error means. What is shown of it is chosen here, as errors may hold requests and addresses.
    fn refusal(&self, error: &genai::Error) -> Refusal {
        use genai::Error as E;
        match error {
            E::WebModelCall { webc_error, .. } | E::WebAdapterCall { webc_error, .. } => match webc_error {
                webc::Error::ResponseFailedStatus { status, body, headers } => {
                    self.of_status(*status, headers, body)
                }
                webc::Error::Reqwest(e) => self.of_transport(e),
                _ => garbage("it is not JSON"),
            },
            E::HttpError { status, headers, body, .. } => self.of_status(*status, headers, body),
            E::WebStream { error, .. } => match error.downcast_ref::<E>() {
                Some(inner) => self.refusal(inner),
                None if error.is::<StreamTimeout>() => self.timed_out().into(),
                None => match error.downcast_ref::<reqwest::Error>() {
                    Some(e) => self.of_transport(e),
                    None => garbage("it breaks off"),
                },
            },
            // It comes in the middle of an answer, when the status has long been sent.
            E::ChatResponse { body, .. } => {
                let body = json!({ "error": body });
                let said = format!("the answer was broken off{}", self.said(&body));
                let failure = if is_quota(&body) { Failure::QuotaExceeded } else { Failure::Unavailable };
                failure(said).into()
            }
            E::ChatResponseGeneration { .. }
            | E::NoChatResponse { .. }
            | E::InvalidJsonResponseElement { .. }
            | E::StreamParse { .. }
            | E::JsonValueExt(_)
            | E::SerdeJson(_) => garbage("it is not of the form that the provider's answers have"),
            E::Resolver { .. }
            | E::RequiresApiKey { .. }
            | E::NoAuthResolver { .. }
            | E::NoAuthData { .. } => {
                Failure::Unauthorised("the provider needs a key of another kind".to_owned()).into()
            }
            _ => Failure::InvalidRequest(format!("{} cannot be asked this", self.name.adapter_kind)).into(),
        }
    }

    fn of_status(&self, status: StatusCode, headers: &HeaderMap, body: &str) -> Refusal {
        let body: Value = serde_json::from_str(body).unwrap_or_default();
        let retry_after = retry_after(headers, SystemTime::now());
        let said = || format!("status {}{}", status.as_u16(), self.said(&body));
        let failure = match status.as_u16() {
            402 => Failure::QuotaExceeded(said()),
            // What is said of a key may repeat a part of it.
            401 | 403 => Failure::Unauthorised(match &self.access {
                Access::Key(name, _) => format!("status {}; look at the key in {name}", status.as_u16()),
                _ => format!("status {}; no key was sent", status.as_u16()),
            }),
            429 if is_quota(&body) => Failure::QuotaExceeded(said()),
            429 => Failure::RateLimited {
                reason: said(),
                retry_after_ms: retry_after.map(|d| d.as_millis() as u64),
            },
            408 => self.timed_out(),
            500..=599 => Failure::Unavailable(said()),
            300..=399 => Failure::InvalidRequest(format!(
                "status {}: it is served elsewhere, and redirects are not followed; correct its url",
                status.as_u16()
            )),
            _ => Failure::InvalidRequest(said()),
        };
        Refusal { retry_after, ..failure.into() }
    }

    fn of_transport(&self, error: &reqwest::Error) -> Refusal {
        if error.is_timeout() {
            self.timed_out().into()
        } else if error.is_body() || error.is_decode() {
            garbage("it breaks off")
        } else if error.is_builder() {
            let what = "it cannot be sent; is there anything but letters, digits and signs in the key?";
            Failure::InvalidRequest(what.to_owned()).into()
        } else if error.is_connect() {
            Failure::Unavailable("no connection can be made".to_owned()).into()
        } else {
            Failure::Unavailable("the connection was lost before an answer".to_owned()).into()
        }
    }

    fn timed_out(&self) -> Failure {
        Failure::Timeout { ms: self.patience.attempt.as_millis() as u64 }
    }

    /// What a service says of an error, shortened, without the key: `, code: message`.
    fn said(&self, body: &Value) -> String {
        let error = &body["error"];
        let code = codes(body).next().map_or(String::new(), |code| format!(", {code}"));
        let message =
            error["message"].as_str().or(error.as_str()).map_or(String::new(), |m| format!(": {m}"));
        let key = match &self.access {
            Access::Key(_, key) => Some(key),
            _ => None,
        };
        presentable(&(code + &message), key)
    }
}

#[async_trait]
impl Model for Provider {
    async fn chat(&self, request: &ChatRequest, hear: Option<Hear<'_>>) -> Result<ChatReply, Failure> {
        let rng = self.rng.fork([self.calls.fetch_add(1, Ordering::Relaxed), 0, 0]);
        let attempts =
            self.patience.persist(request.timeout, rng, |number| self.attempt(number, request, hear));
        attempts.await.map(|(reply, retries)| ChatReply { retries, ..reply })
    }
}

/// The key is not shown.
impl fmt::Debug for Provider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Provider").field("name", &self.name).field("endpoint", &self.endpoint).finish()
    }
}

pub(super) fn garbage(what: &str) -> Refusal {
    Failure::Garbage(format!("the service's answer: {what}")).into()
}

/// The codes in the body of an error: of OpenAI, Anthropic and Google, the most particular first.
fn codes(body: &Value) -> impl Iterator<Item = &str> {
    ["code", "type", "status"].into_iter().filter_map(|key| body["error"][key].as_str())
}

fn is_quota(body: &Value) -> bool {
    codes(body).any(|code| QUOTA_CODES.contains(&code))
}

/// When a service says that it may be asked again: `retry-after-ms`, or `retry-after` in seconds or as a date.
fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).map(str::trim);
    let positive = |n: f64| Duration::try_from_secs_f64(n).ok();
    if let Some(ms) = text("retry-after-ms").and_then(|ms| ms.parse::<f64>().ok()) {
        return positive(ms / 1000.0);
    }
    let stated = text("retry-after")?;
    match stated.parse::<f64>() {
        Ok(seconds) => positive(seconds),
        Err(_) => {
            let date = httpdate::parse_http_date(stated).ok()?;
            Some(date.duration_since(now).unwrap_or_default())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_says_when_in_several_ways() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777);
        let cases = [
            ("retry-after", "7", Some(7000)),
            ("retry-after", "0.5", Some(500)),
            ("retry-after", "Sun, 06 Nov 1994 08:49:41 GMT", Some(4000)),
            ("retry-after", "Sun, 06 Nov 1994 08:49:30 GMT", Some(0)),
            ("retry-after-ms", "20", Some(20)),
            ("retry-after", "-3", None),
            ("retry-after", "NaN", None),
            ("retry-after", "soon", None),
        ];
        for (name, value, ms) in cases {
            let mut headers = HeaderMap::new();
            headers.insert(name, value.parse().unwrap());
            assert_eq!(retry_after(&headers, now), ms.map(Duration::from_millis), "{name}: {value}");
        }
    }

    #[test]
    fn addresses_hold_no_secrets() {
        assert_eq!(check_url("http://127.0.0.1:8000/v1"), Ok(()));
        for wrong in ["127.0.0.1:8000", "ftp://x/", "http://u:p@x/", "https://x/?key=1", "https://x/#a", ""] {
            assert!(check_url(wrong).is_err(), "{wrong}");
        }
    }
}
