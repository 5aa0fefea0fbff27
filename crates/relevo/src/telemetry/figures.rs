//! Figures of a run for Prometheus. Those from records are the figures of the run's report, whichever process made them;
//! those of requests are of this process. Labels are names of the team file, and words that this program knows.

use std::{collections::BTreeMap, sync::atomic::AtomicU64};

use prometheus_client::{
    encoding::text::encode,
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::Registry,
};
use relevo_core::record::Record;

use crate::{
    agent::FailureKind,
    evaluate::Walk,
    guard::{Guard, StopReason},
    observe::{Purpose, Request, Whom},
    team::TeamSpec,
    trace::Event,
};

type Labels = Vec<(&'static str, String)>;
type Counts = Family<Labels, Counter>;
type Sums = Family<Labels, Counter<f64, AtomicU64>>;

/// Upper ends of the buckets of durations, in seconds: those of OpenTelemetry for requests to models.
const SECONDS: [f64; 14] =
    [0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92];

fn durations() -> Histogram {
    Histogram::new(SECONDS)
}

/// The figures of one run.
pub struct Figures {
    registry: Registry,
    /// The models of the team, and by which of them agents act.
    models: BTreeMap<String, String>,
    begun: Counter,
    open: Gauge,
    ended: Counts,
    decisions: Counts,
    masked: Counts,
    settlements: Counter,
    missing: Counter,
    calls: Counts,
    failures: Counts,
    tokens: Counts,
    money: Sums,
    durations: Family<Labels, Histogram, fn() -> Histogram>,
    judgements: Counts,
    judge_tokens: Counter,
    judge_money: Counter<f64, AtomicU64>,
    measured: Counts,
    measured_tokens: Counter,
    measured_money: Counter<f64, AtomicU64>,
    requests: Counts,
    request_tokens: Counts,
    retries: Counts,
    tool_calls: Counts,
}

impl Figures {
    /// Of a run of this team, all 0.
    pub fn new(team: &TeamSpec) -> Self {
        let acts_by = |agent: &crate::team::AgentSpec| {
            let model =
                agent.model().filter(|model| agent.command.is_none() && team.models.contains_key(*model));
            (agent.name.clone(), model.unwrap_or_default().to_owned())
        };
        let mut registry = Registry::with_prefix("relevo");
        macro_rules! metric {
            ($name:literal, $help:literal) => {
                metric!($name, $help, Default::default())
            };
            ($name:literal, $help:literal, $metric:expr) => {{
                let metric = $metric;
                registry.register($name, $help, Clone::clone(&metric));
                metric
            }};
        }
        let begun: Counter = metric!("tasks_begun", "Tasks that were brought before the team");
        let open: Gauge = metric!("tasks_open", "Tasks that were begun and have not ended");
        let ended: Counts = metric!("tasks_ended", "Tasks that have ended, by why they stopped");
        let decisions: Counts = metric!("decisions", "Choices made");
        let masked: Counts = metric!("masked_choices", "Choices that guards kept from decisions");
        let settlements: Counter = metric!("settlements", "Choices that were learned from");
        let missing: Counter = metric!("values_missing", "Handoffs given up, from which nothing was learned");
        let calls: Counts = metric!("calls", "Calls of agents, by how they ended");
        let failures: Counts = metric!("call_failures", "Calls of agents that failed, by kind");
        let tokens: Counts = metric!("tokens", "Tokens that calls of agents used");
        let money: Sums = metric!("money", "What calls of agents were charged, in the currency of the team");
        let durations = metric!(
            "call_duration_seconds",
            "How long calls took that left the process",
            Family::new_with_constructor(durations as fn() -> Histogram)
        );
        let judgements: Counts = metric!("judgements", "Tasks that judges were asked about");
        let judge_tokens: Counter = metric!("judge_tokens", "Tokens that judging used");
        let judge_money: Counter<f64, AtomicU64> =
            metric!("judge_money", "What judging was charged, in the currency of the team");
        let measured: Counts =
            metric!("tasks_measured", "Tasks that nothing was learned from, by why they stopped");
        let measured_tokens: Counter = metric!("measured_tokens", "Tokens that those used");
        let measured_money: Counter<f64, AtomicU64> =
            metric!("measured_money", "What those were charged, in the currency of the team");
        let requests: Counts =
            metric!("model_requests", "Requests to models by this process, by how they ended");
        let request_tokens: Counts = metric!("model_tokens", "Tokens of requests to models by this process");
        let retries: Counts =
            metric!("model_retries", "Requests to models by this process that were made again");
        let tool_calls: Counts = metric!("tool_calls", "Calls of tools by this process, by how they ended");
        Figures {
            registry,
            models: team.agents.iter().map(acts_by).collect(),
            begun,
            open,
            ended,
            decisions,
            masked,
            settlements,
            missing,
            calls,
            failures,
            tokens,
            money,
            durations,
            judgements,
            judge_tokens,
            judge_money,
            measured,
            measured_tokens,
            measured_money,
            requests,
            request_tokens,
            retries,
            tool_calls,
        }
    }

    /// All of them in the text format of OpenMetrics, which Prometheus reads.
    pub fn text(&self) -> String {
        let mut text = String::new();
        encode(&mut text, &self.registry).expect("a text grows without limit");
        text
    }

    pub(super) fn begun(&self) {
        self.begun.inc();
        self.open.inc();
    }

    pub(super) fn event(&self, event: &Event) {
        match event {
            Event::Decided(decision) => {
                let labels = vec![
                    ("participant", decision.participant.clone()),
                    ("explored", (!decision.greedy).to_string()),
                ];
                self.decisions.get_or_create(&labels).inc();
            }
            Event::Called(call) => {
                let of_agent = |more: Option<(&'static str, String)>| -> Labels {
                    std::iter::once(("agent", call.agent.clone())).chain(more).collect()
                };
                let ended = failure(&call.ended);
                self.calls.get_or_create(&of_agent(Some(("ended", ended.to_owned())))).inc();
                if call.failed() {
                    self.failures.get_or_create(&of_agent(Some(("kind", ended.to_owned())))).inc();
                }
                let model = self.models.get(&call.agent).cloned().unwrap_or_default();
                self.tokens.get_or_create(&of_agent(Some(("model", model)))).inc_by(call.tokens);
                self.money.get_or_create(&of_agent(None)).inc_by(call.money);
                if let Some(ms) = call.ms {
                    self.durations.get_or_create(&of_agent(None)).observe(ms as f64 / 1000.0);
                }
            }
            Event::Judged(verdict) => {
                let scored = verdict.quality.is_some().to_string();
                self.judgements.get_or_create(&vec![("scored", scored)]).inc();
                self.judge_tokens.inc_by(verdict.tokens);
                self.judge_money.inc_by(verdict.money);
            }
            Event::Learned { .. } => drop(self.settlements.inc()),
            _ => {}
        }
    }

    /// What no event tells of.
    pub(super) fn record(&self, record: &Record) {
        match record {
            Record::Expired { .. } => drop(self.missing.inc()),
            Record::Masked { guard, actions, .. } => {
                let guard = Guard::of_word(guard).map_or(OTHER, Guard::word).to_owned();
                self.masked.get_or_create(&vec![("guard", guard)]).inc_by(actions.len() as u64);
            }
            Record::Closed { stop, .. } => {
                let stop = stop.parse().map_or(OTHER, StopReason::word).to_owned();
                self.ended.get_or_create(&vec![("stop", stop)]).inc();
                self.open.dec();
            }
            _ => {}
        }
    }

    pub(super) fn walked(&self, walk: &Walk) {
        self.measured.get_or_create(&vec![("stop", walk.stop.word().to_owned())]).inc();
        self.measured_tokens.inc_by(walk.spent.tokens);
        self.measured_money.inc_by(walk.spent.money);
    }

    pub(super) fn asked(&self, request: &Request, purpose: Purpose) {
        let ended = request.result.map_or_else(FailureKind::word, |_| "done").to_owned();
        let model = match &request.whom {
            Whom::Model { name, .. } => name.clone(),
            Whom::Tool { server, .. } => {
                self.tool_calls.get_or_create(&vec![("server", server.clone()), ("ended", ended)]).inc();
                return;
            }
        };
        let purpose = match purpose {
            Purpose::Call(_) => "call",
            Purpose::Judgement => "judgement",
        };
        let labels = |name, word: &str| {
            vec![("model", model.clone()), ("for", purpose.to_owned()), (name, word.to_owned())]
        };
        self.requests.get_or_create(&labels("ended", &ended)).inc();
        if request.attempt > 0 {
            self.retries.get_or_create(&vec![("model", model.clone())]).inc();
        }
        if let Ok(used) = request.result {
            self.request_tokens.get_or_create(&labels("direction", "input")).inc_by(used.input);
            self.request_tokens.get_or_create(&labels("direction", "output")).inc_by(used.output);
        }
    }
}

/// What stands for words that this program does not know.
const OTHER: &str = "other";

/// How a call ended, in a word that there are few of.
fn failure(ended: &str) -> &'static str {
    match ended {
        "done" => "done",
        // Of what is simulated, no more is on record.
        "failed" => "failed",
        word => FailureKind::of_word(word).map_or(OTHER, FailureKind::word),
    }
}
