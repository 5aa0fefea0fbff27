//! Telemetry as the command line asks for it: spans to a collector, figures at a port.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener},
    path::Path,
    sync::Arc,
    thread,
    time::Duration,
};

use axum::{Router, http::header::CONTENT_TYPE, routing::get};
use clap::Args;
use relevo::{
    model::environment::Environment,
    observe::Span,
    stage::Stage,
    team::TeamSpec,
    telemetry::{
        Origin, Telemetry,
        figures::Figures,
        otlp::{Sender, Sent, Target},
    },
};

use crate::{
    cmd::{Fault, say},
    world,
};

/// Where spans are sent.
#[derive(Args)]
pub(crate) struct OtlpOption {
    /// Send spans to a collector: this one, or where OTEL_EXPORTER_OTLP_ENDPOINT says
    ///
    /// By default it is http://localhost:4318. Spans go as http/protobuf, and never hold content.
    #[arg(long, value_name = "URL", num_args = 0..=1, require_equals = true)]
    otlp: Option<Option<String>>,
}

/// Where figures are served.
#[derive(Args)]
pub(crate) struct MetricsOption {
    /// Serve figures for Prometheus at /metrics of this port while it runs
    ///
    /// It is a port of the loopback: ADDR:PORT listens at another address.
    #[arg(long, value_name = "PORT", value_parser = address)]
    metrics: Option<SocketAddr>,
}

/// How long the end of a command may wait for a collector.
const FLUSH: Duration = Duration::from_secs(2);

/// What is told of a command, as long as this is there. The stages that it looks at are to be dropped before.
pub(crate) struct Lookout {
    sender: Option<Arc<Sender>>,
    /// Of what spans are parts.
    parent: Option<Span>,
    figures: Option<Arc<Figures>>,
}

/// The variable of whoever started this process that says of what it is a part.
const PARENT: &str = "TRACEPARENT";

impl OtlpOption {
    /// Begin to send, if that is asked for. The team file is given for the `.env` beside it.
    pub(crate) fn begin(&self, team: &Path) -> Result<Lookout, Fault> {
        let mut lookout = Lookout { sender: None, parent: None, figures: None };
        let Some(asked) = &self.otlp else { return Ok(lookout) };
        let environment = Environment::of(&world::directory(team)?)?;
        let Some(target) = Target::of(asked.as_deref(), &environment)? else {
            say!("no spans are sent: OTEL_SDK_DISABLED is true");
            return Ok(lookout);
        };
        let parent = environment.get(PARENT).and_then(|text| {
            let parent = Span::parse(&text);
            if parent.is_none() {
                say!(
                    "warning: {PARENT} is not what W3C Trace Context describes; a trace of its own is begun"
                );
            }
            parent
        });
        if let Some((_, false)) = parent {
            say!("no spans are sent: {PARENT} says that its trace is not sampled");
            return Ok(lookout);
        }
        lookout.parent = parent.map(|(span, _)| span);
        lookout.sender = Some(Arc::new(Sender::start(target, |warning| say!("warning: {warning}"))?));
        Ok(lookout)
    }
}

impl Lookout {
    /// The same, which also serves figures of this team, if that is asked for.
    pub(crate) fn serving(mut self, option: &MetricsOption, team: &TeamSpec) -> Result<Self, Fault> {
        self.figures = option.metrics.map(|address| serve(team, address)).transpose()?;
        Ok(self)
    }

    /// A session as whoever started this process sees it.
    pub(crate) fn origin(&self, run: String) -> Origin {
        Origin::new(run, self.parent)
    }

    /// The stage of a session, seen by those who want to see it.
    pub(crate) fn observe(&self, stage: Stage, origin: Origin) -> Result<Stage, Fault> {
        if self.sender.is_none() && self.figures.is_none() {
            return Ok(stage);
        }
        let telemetry = Telemetry::new(&stage, origin, self.sender.clone(), self.figures.clone())?;
        Ok(stage.observed_by(Arc::new(telemetry)))
    }
}

/// However a command ends, what has been gathered is sent.
impl Drop for Lookout {
    fn drop(&mut self) {
        let Some(Sent { sent, lost }) = self.sender.as_ref().map(|sender| sender.finish(FLUSH)) else {
            return;
        };
        if lost > 0 {
            say!("{lost} of {} spans were not sent", sent + lost);
        }
    }
}

/// `PORT`, `:PORT` or `ADDRESS:PORT`.
fn address(text: &str) -> Result<SocketAddr, String> {
    let port = text.strip_prefix(':').unwrap_or(text).parse::<u16>();
    match (port, text.parse::<SocketAddr>()) {
        (Ok(port), _) => Ok(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port)),
        (_, Ok(address)) => Ok(address),
        _ => Err("it is a port such as 9464, or an address and a port such as 0.0.0.0:9464".to_owned()),
    }
}

/// Serve the figures of a run of this team, from a thread of its own, until the process ends.
fn serve(team: &TeamSpec, address: SocketAddr) -> Result<Arc<Figures>, Fault> {
    let fail = |e: std::io::Error| format!("--metrics {address}: nothing can be served there: {e}");
    let listener = TcpListener::bind(address).map_err(fail)?;
    listener.set_nonblocking(true).map_err(fail)?;
    let bound = listener.local_addr().map_err(fail)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(fail)?;
    let figures = Arc::new(Figures::new(team));
    let served = figures.clone();
    thread::spawn(move || {
        let text = async move || {
            ([(CONTENT_TYPE, "application/openmetrics-text; version=1.0.0; charset=utf-8")], served.text())
        };
        runtime.block_on(async {
            let listener = tokio::net::TcpListener::from_std(listener).expect("it does not block");
            // It ends with the process.
            let _ = axum::serve(listener, Router::new().route("/metrics", get(text))).await;
        });
    });
    say!("figures are at http://{bound}/metrics");
    Ok(figures)
}
