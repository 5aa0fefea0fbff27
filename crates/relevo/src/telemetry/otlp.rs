//! Sending spans by OTLP, as protobuf over HTTP, from a thread of its own. Nobody waits for it: what does not fit into its
//! queue, and what cannot be sent, is dropped and counted.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
        mpsc,
    },
    thread,
    time::Duration,
};

use opentelemetry::KeyValue;
use opentelemetry_otlp::{RetryPolicy, SpanExporter as Exporter, WithExportConfig as _, WithHttpConfig as _};
use opentelemetry_sdk::{
    Resource,
    resource::TelemetryResourceDetector,
    trace::{SpanData, SpanExporter as _},
};
use percent_encoding::percent_decode_str;
use tokio::{
    runtime,
    sync::mpsc::{Receiver, Sender as Queue, channel},
    time::timeout,
};

use crate::model::{environment::Environment, provider::check_url};

/// Spans that wait to be sent, at most.
pub const QUEUE_MAX: usize = 4096;
/// Spans that are sent at a time, at most.
const BATCH_MAX: usize = 512;
/// How long a batch may take to fill.
const FILL: Duration = Duration::from_millis(500);
/// How long a collector may take to answer.
const SEND_TIMEOUT: Duration = Duration::from_secs(5);

/// Where a collector listens on a machine that runs one.
const DEFAULT: &str = "http://localhost:4318";
const TRACES: &str = "/v1/traces";

/// The attribute that names what spans are of.
const SERVICE_NAME: &str = "service.name";

/// Where spans go.
#[derive(Clone, PartialEq, Eq)]
pub struct Target {
    url: String,
    headers: HashMap<String, String>,
    /// What is said of this process: names and values.
    resource: Vec<(String, String)>,
}

impl Target {
    /// At the address that was asked for, else where the environment says, else on this machine; `None` if the
    /// environment disables it.
    pub fn of(asked: Option<&str>, environment: &Environment) -> Result<Option<Self>, String> {
        let of_traces = |name: &str| {
            let names = ["TRACES_", ""].map(|part| format!("OTEL_EXPORTER_OTLP_{part}{name}"));
            names.into_iter().find_map(|name| environment.get(&name).map(|value| (name, value)))
        };
        if environment.get("OTEL_SDK_DISABLED").is_some_and(|v| v.eq_ignore_ascii_case("true")) {
            return Ok(None);
        }
        let (place, url) = match (asked, of_traces("ENDPOINT")) {
            (Some(url), _) => ("--otlp".to_owned(), of_base(url)),
            (None, Some((name, url))) if name.contains("TRACES") => (name, url),
            (None, Some((name, url))) => (name, of_base(&url)),
            (None, None) => ("--otlp".to_owned(), of_base(DEFAULT)),
        };
        check_url(&url).map_err(|what| format!("{place}: the {what}"))?;
        if let Some((name, protocol)) = of_traces("PROTOCOL")
            && protocol != "http/protobuf"
        {
            return Err(format!(
                "{name} is {protocol:?}; --otlp sends http/protobuf, to port 4318 of most collectors; correct it, or \
                 leave it out"
            ));
        }
        let headers = named(of_traces("HEADERS"))?.into_iter().collect();
        let attributes = "OTEL_RESOURCE_ATTRIBUTES";
        let mut resource = named(environment.get(attributes).map(|text| (attributes.to_owned(), text)))?;
        if let Some(service) = environment.get("OTEL_SERVICE_NAME") {
            resource.push((SERVICE_NAME.to_owned(), service));
        } else if resource.iter().all(|(name, _)| name != SERVICE_NAME) {
            resource.push((SERVICE_NAME.to_owned(), "relevo".to_owned()));
        }
        Ok(Some(Target { url, headers, resource }))
    }

    /// The address.
    pub fn url(&self) -> &str {
        &self.url
    }

    fn exporter(&self) -> Result<Exporter, String> {
        // A redirect is not followed, as headers would go with it.
        let http = reqwest::Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .timeout(SEND_TIMEOUT)
            .build()
            .map_err(|e| e.to_string())?;
        let exporter = Exporter::builder()
            .with_http()
            .with_http_client(http)
            .with_endpoint(&self.url)
            .with_timeout(SEND_TIMEOUT)
            .with_headers(self.headers.clone())
            .with_retry_policy(RetryPolicy::disabled())
            .build();
        let mut exporter = exporter.map_err(|e| e.to_string())?;
        let said = self.resource.iter().map(|(name, value)| KeyValue::new(name.clone(), value.clone()));
        let resource = Resource::builder_empty().with_detector(Box::new(TelemetryResourceDetector));
        exporter.set_resource(&resource.with_attributes(said).build());
        Ok(exporter)
    }
}

fn of_base(url: &str) -> String {
    let url = url.trim_end_matches('/');
    if url.ends_with(TRACES) { url.to_owned() } else { format!("{url}{TRACES}") }
}

/// The values in a variable, as the W3C writes baggage: with `%41` for `A`. What it says, which may be a key, is not
/// repeated in a failure.
fn named(variable: Option<(String, String)>) -> Result<Vec<(String, String)>, String> {
    let Some((variable, text)) = variable else { return Ok(vec![]) };
    let pair = |pair: &str| {
        let (name, value) = pair.split_once('=')?;
        let value = percent_decode_str(value.trim()).decode_utf8().ok()?;
        Some((name.trim().to_owned(), value.into_owned())).filter(|(name, _)| !name.is_empty())
    };
    let pairs: Option<_> = text.split(',').filter(|pair| !pair.trim().is_empty()).map(pair).collect();
    pairs.ok_or(format!("{variable}: it is not of the form name=value,name=value"))
}

/// Sends spans.
pub struct Sender {
    queue: Mutex<Option<Queue<SpanData>>>,
    counts: Arc<Counts>,
    ended: Mutex<mpsc::Receiver<()>>,
}

#[derive(Default)]
struct Counts {
    made: AtomicU64,
    sent: AtomicU64,
}

/// How many spans there were.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sent {
    /// Those that a collector has accepted.
    pub sent: u64,
    /// Those that were dropped.
    pub lost: u64,
}

impl Sender {
    /// Begin to send. `warn` is told once, why, if something cannot be.
    pub fn start(target: Target, warn: impl Fn(&str) + Send + 'static) -> Result<Self, String> {
        let runtime = runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|e| format!("no spans can be sent: {e}"))?;
        let exporter =
            target.exporter().map_err(|e| format!("no spans can be sent to {}: {e}", target.url))?;
        let (queue, queued) = channel(QUEUE_MAX);
        let (end, ended) = mpsc::channel();
        let counts = Arc::new(Counts::default());
        let counted = counts.clone();
        thread::spawn(move || {
            let warn = |why: &str| {
                warn(&format!("spans cannot be sent to {} ({why}); the run goes on without", target.url));
            };
            runtime.block_on(send_all(&exporter, queued, &counted, warn));
            // Nobody may wait any more.
            let _ = end.send(());
        });
        Ok(Sender { queue: Mutex::new(Some(queue)), counts, ended: Mutex::new(ended) })
    }

    /// Have a span sent, if there is a place for it.
    pub(super) fn send(&self, span: SpanData) {
        self.counts.made.fetch_add(1, Ordering::Relaxed);
        if let Some(queue) = &*self.queue.lock().expect("no thread panics with it") {
            // What does not fit was made, and is not sent.
            let _ = queue.try_send(span);
        }
    }

    /// Send what waits, as far as that is possible in so long; nothing is sent any more then.
    pub fn finish(&self, limit: Duration) -> Sent {
        drop(self.queue.lock().expect("no thread panics with it").take());
        let _ = self.ended.lock().expect("no thread panics with it").recv_timeout(limit);
        let sent = self.counts.sent.load(Ordering::Relaxed);
        Sent { sent, lost: self.counts.made.load(Ordering::Relaxed) - sent }
    }
}

async fn send_all(exporter: &Exporter, mut queue: Receiver<SpanData>, counts: &Counts, warn: impl Fn(&str)) {
    let mut has_warned = false;
    while let Some(first) = queue.recv().await {
        let mut batch = vec![first];
        let fill = async {
            while batch.len() < BATCH_MAX
                && let Some(next) = queue.recv().await
            {
                batch.push(next);
            }
        };
        let _ = timeout(FILL, fill).await;
        let spans = batch.len() as u64;
        let failed = match timeout(SEND_TIMEOUT, exporter.export(batch)).await {
            Ok(Ok(())) => {
                counts.sent.fetch_add(spans, Ordering::Relaxed);
                continue;
            }
            Ok(Err(e)) => e.to_string(),
            Err(_) => format!("no answer in {} s", SEND_TIMEOUT.as_secs()),
        };
        if !std::mem::replace(&mut has_warned, true) {
            warn(&failed);
        }
    }
}
