//! Spans after the semantic conventions of OpenTelemetry for generative AI (version 1.41), with decisions under `relevo.`:
//! handoffs are not standardised there. `docs/telemetry.md` lists them.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use opentelemetry::{
    Array, InstrumentationScope, KeyValue, StringValue, Value,
    trace::{Event, SpanContext, SpanId, SpanKind, Status, TraceFlags, TraceId, TraceState},
};
use opentelemetry_sdk::trace::{SpanData, SpanEvents, SpanLinks};
use relevo_core::record::Table;

use super::{Origin, otlp::Sender};
use crate::{
    evaluate::{Turn, Walk},
    observe::{Purpose, Request, Span, Watched, Whom, Work},
    stage::Stage,
    trace::{Call, Cast, Decision, Meaning},
};

/// Who provides what is no service of models.
const OURS: &str = "relevo";

/// What stands before the names of tasks that nothing was learned from.
const MEASURED: &str = "measured";

/// Makes spans, and has them sent.
pub(super) struct Spans {
    sender: Arc<Sender>,
    scope: InstrumentationScope,
    team: String,
    origin: Origin,
    /// Provider and model of the agents that act by one.
    models: BTreeMap<String, (String, String)>,
}

/// A choice, until something follows from it.
#[derive(Clone, Debug, Default)]
pub(super) struct Choice {
    at: u64,
    /// Who is called by it, if anybody is.
    calls: Option<String>,
    value: Option<f64>,
    /// Empty as long as the rest is not said.
    id: String,
    policy: String,
    candidates: Vec<String>,
    masked: Vec<String>,
    chosen: String,
    probability: Option<f64>,
    explored: Option<bool>,
}

impl Choice {
    /// A choice that was just made: who is called by it, if anybody is, and what it was held to be worth.
    pub(super) fn made(at: u64, calls: Option<String>, value: Option<f64>) -> Self {
        Choice { at, calls, value, ..Choice::default() }
    }

    /// Whether it was said what its record says.
    pub(super) fn is_said(&self) -> bool {
        !self.id.is_empty()
    }

    /// What its record says.
    pub(super) fn say(&mut self, decision: &Decision) {
        let Decision { decision, participant, policy_version, choices, chosen, greedy, masked, .. } =
            decision;
        self.id.clone_from(decision);
        self.policy = format!("{participant}@{policy_version}");
        self.candidates = choices.iter().map(|choice| choice.choice.clone()).collect();
        self.masked = masked.iter().flat_map(|masked| masked.choices.clone()).collect();
        self.chosen.clone_from(chosen);
        self.explored = Some(!greedy);
        self.probability =
            choices.iter().find(|choice| choice.choice == *chosen).map(|choice| choice.probability);
    }

    /// One that was made without learning, from nobody's record.
    fn walked(cast: &Cast, turn: &Turn, place: usize, at: u64) -> Self {
        let (table, action) = match turn.action {
            Some(action) => (Table::Successors, action),
            None => (Table::Operations, relevo_core::ids::ActionId(turn.operation.0)),
        };
        let calls = match cast.meaning(turn.agent, table, action) {
            Meaning::Act(name) => Some(name.to_owned()),
            _ => None,
        };
        let legal = turn.observation.legal.iter();
        Choice {
            at,
            calls,
            value: None,
            id: place.to_string(),
            policy: cast.participant(turn.agent),
            candidates: legal.map(|action| cast.choice(turn.agent, table, action)).collect(),
            chosen: cast.choice(turn.agent, table, action),
            ..Choice::default()
        }
    }

    fn attributes(self) -> Vec<KeyValue> {
        let mut attributes = vec![
            KeyValue::new("relevo.decision.id", self.id),
            KeyValue::new("relevo.decision.policy", self.policy),
            KeyValue::new("relevo.decision.candidates", names(self.candidates)),
            KeyValue::new("relevo.decision.chosen", self.chosen),
        ];
        attributes.extend(self.probability.map(|p| KeyValue::new("relevo.decision.probability", p)));
        attributes.extend(self.value.map(|v| KeyValue::new("relevo.decision.value", v)));
        attributes.extend(self.explored.map(|e| KeyValue::new("relevo.decision.explored", e)));
        if !self.masked.is_empty() {
            attributes.push(KeyValue::new("relevo.decision.masked", names(self.masked)));
        }
        attributes
    }
}

fn names(names: Vec<String>) -> Value {
    Value::Array(Array::String(names.into_iter().map(StringValue::from).collect()))
}

/// The choice by which an agent is called: who is to act counts before how.
pub(super) fn taken(choices: &mut Vec<Choice>, agent: &str) -> Option<Choice> {
    let of_agent = |choice: &Choice| choice.calls.as_deref() == Some(agent);
    let first = choices.iter().position(of_agent).map(|place| choices.remove(place));
    // How it acts is a part of the same call.
    choices.retain(|choice| !(of_agent(choice) && is_own(choice)));
    first
}

/// Whether a participant chose how it acts itself.
fn is_own(choice: &Choice) -> bool {
    choice.calls.as_deref() == choice.policy.split_once('@').map(|(participant, _)| participant)
}

/// What all spans have.
struct Frame<'f> {
    span: Span,
    parent: Option<Span>,
    kind: SpanKind,
    name: String,
    began: u64,
    ended: u64,
    failed: Option<&'f str>,
}

impl Spans {
    pub(super) fn new(stage: &Stage, origin: Origin, sender: Arc<Sender>) -> Self {
        let scope = InstrumentationScope::builder(OURS).with_version(env!("CARGO_PKG_VERSION")).build();
        let team = stage.team();
        let acts_by = |agent: &crate::team::AgentSpec| {
            let model = stage.models().get(agent.model()?).filter(|_| agent.command.is_none())?;
            let section = &model.section;
            Some((agent.name.clone(), (provider(&section.provider).to_owned(), section.model.clone())))
        };
        let models = team.agents.iter().filter_map(acts_by).collect();
        Spans { sender, scope, team: team.name.clone(), origin, models }
    }

    /// All is done that was to be.
    pub(super) fn session(&self, began: u64, ended: u64) {
        let mut attributes = vec![
            KeyValue::new("relevo.team", self.team.clone()),
            KeyValue::new("relevo.run", self.origin.run.clone()),
        ];
        attributes.extend(self.origin.arm.map(|arm| KeyValue::new("relevo.arm", arm)));
        let frame = Frame {
            span: self.origin.span,
            parent: self.origin.parent,
            kind: SpanKind::Internal,
            name: format!("session {}", self.team),
            began,
            ended,
            failed: None,
        };
        self.send(frame, attributes, SpanEvents::default());
    }

    /// A task is at its end, with a reason and its return, or left open; `choices` are those that led to no call.
    pub(super) fn task(
        &self,
        watched: &Watched,
        task: &str,
        mut choices: Vec<Choice>,
        ended: u64,
        end: Option<(&str, f64)>,
    ) {
        let mut attributes = vec![
            KeyValue::new("gen_ai.operation.name", "invoke_workflow"),
            KeyValue::new("gen_ai.workflow.name", self.team.clone()),
            KeyValue::new("gen_ai.conversation.id", self.conversation(task)),
        ];
        attributes.extend(self.origin.arm.map(|arm| KeyValue::new("relevo.arm", arm)));
        if let Some((stop, task_return)) = end {
            // The last choice ends a task, unless somebody is called by it.
            if let Some(last) = choices.pop_if(|last| last.calls.is_none()) {
                attributes.extend(last.attributes());
            }
            attributes.push(KeyValue::new("relevo.decision.stop_reason", stop.to_owned()));
            attributes.push(KeyValue::new("relevo.return", task_return));
        }
        let mut events = SpanEvents::default();
        events.events = choices
            .into_iter()
            .map(|choice| Event::new("relevo.decision", time(choice.at), choice.attributes(), 0))
            .collect();
        let frame = Frame {
            span: watched.span,
            parent: Some(self.origin.span),
            kind: SpanKind::Internal,
            name: format!("invoke_workflow {}", self.team),
            began: watched.began,
            ended,
            failed: None,
        };
        self.send(frame, attributes, events);
    }

    /// An agent was called. Of one that is simulated there is no work.
    pub(super) fn call(
        &self,
        watched: &Watched,
        task: &str,
        call: &Call,
        choice: Option<Choice>,
        work: Option<Work>,
        now: u64,
    ) {
        let (span, began, ended, requests) = match work {
            Some(work) => (work.span, work.began, work.ended, work.requests),
            None => (watched.span.part(&format!("call {}", call.call)), now, now, vec![]),
        };
        let (provider, model) = match self.models.get(&call.agent) {
            Some((provider, model)) => (provider.as_str(), Some(model)),
            None => (OURS, None),
        };
        let mut attributes =
            self.agent(provider, &format!("{}/{}", self.team, call.agent), &call.agent, task);
        attributes.extend(model.map(|model| KeyValue::new("gen_ai.request.model", model.clone())));
        attributes.extend(
            call.operation.iter().map(|operation| KeyValue::new("relevo.operation", operation.clone())),
        );
        attributes.extend(usage(&requests));
        attributes.push(KeyValue::new("relevo.usage.tokens", count(call.tokens)));
        attributes.push(KeyValue::new("relevo.usage.money", call.money));
        attributes.extend(choice.into_iter().flat_map(Choice::attributes));
        let failed = call.failed().then_some(call.ended.as_str());
        let (parent, name) = (Some(watched.span), format!("invoke_agent {}", call.agent));
        let frame = Frame { span, parent, kind: SpanKind::Internal, name, began, ended, failed };
        self.requests(span, task, Some(&call.agent), requests);
        self.send(frame, attributes, SpanEvents::default());
    }

    /// What came out of several tasks without records was judged.
    pub(super) fn comparison(&self, watched: &Watched) {
        for work in watched.take(|purpose| purpose == Purpose::Judgement) {
            self.judgement(self.origin.span, MEASURED, work);
        }
    }

    /// What came out was judged.
    pub(super) fn judgement(&self, parent: Span, task: &str, work: Work) {
        const JUDGE: &str = "judge";
        let Work { span, began, ended, result, requests, .. } = work;
        let mut attributes = self.agent(OURS, &format!("{}/{JUDGE}", self.team), JUDGE, task);
        attributes.extend(usage(&requests));
        attributes.push(KeyValue::new("relevo.usage.tokens", count(result.tokens)));
        attributes.push(KeyValue::new("relevo.usage.money", result.money));
        let failed = result.failure.map(|kind| kind.word());
        let (parent, name) = (Some(parent), format!("invoke_agent {JUDGE}"));
        let frame = Frame { span, parent, kind: SpanKind::Internal, name, began, ended, failed };
        self.requests(span, task, Some(JUDGE), requests);
        self.send(frame, attributes, SpanEvents::default());
    }

    /// A task without records has ended.
    pub(super) fn walk(&self, cast: &Cast, watched: &Watched, walk: &Walk, now: u64) {
        let task = format!("{MEASURED}/{}", walk.task);
        let mut works = watched.take(|purpose| matches!(purpose, Purpose::Call(_))).into_iter();
        let turns = walk.turns.iter().filter(|turn| !turn.choice.is_empty());
        let mut choices: Vec<Choice> =
            turns.zip(0..).map(|(turn, place)| Choice::walked(cast, turn, place, now)).collect();
        for (agent, number) in walk.acted.iter().zip(0..) {
            let (agent, work) = (cast.agent(*agent), works.next());
            let spent = work.as_ref().map(|work| work.result).unwrap_or_default();
            let choice = taken(&mut choices, &agent);
            let call = Call {
                call: number,
                agent,
                operation: None,
                ended: spent.failure.map_or("done", |kind| kind.word()).to_owned(),
                tokens: spent.tokens,
                money: spent.money,
                ms: None,
            };
            self.call(watched, &task, &call, choice, work, now);
        }
        for work in watched.take(|purpose| purpose == Purpose::Judgement) {
            self.judgement(watched.span, &task, work);
        }
        self.task(watched, &task, choices, now, Some((walk.stop.word(), walk.walk_return)));
    }

    /// What was asked of models and tools.
    fn requests(&self, parent: Span, task: &str, agent: Option<&str>, requests: Vec<Request>) {
        for Request { span, whom, attempt, began, ended, result } in requests {
            let mut attributes = vec![KeyValue::new("gen_ai.conversation.id", self.conversation(task))];
            attributes.extend(agent.map(|agent| KeyValue::new("gen_ai.agent.name", agent.to_owned())));
            let (name, kind) = match whom {
                Whom::Model { provider: kind, model, .. } => {
                    attributes.push(KeyValue::new("gen_ai.operation.name", "chat"));
                    attributes.push(KeyValue::new("gen_ai.provider.name", provider(&kind).to_owned()));
                    attributes.push(KeyValue::new("gen_ai.request.model", model.clone()));
                    (format!("chat {model}"), SpanKind::Client)
                }
                Whom::Tool { server, name } => {
                    attributes.push(KeyValue::new("gen_ai.operation.name", "execute_tool"));
                    attributes.push(KeyValue::new("gen_ai.tool.name", name.clone()));
                    attributes.push(KeyValue::new("relevo.tool.server", server));
                    (format!("execute_tool {name}"), SpanKind::Internal)
                }
            };
            if let (Ok(used), SpanKind::Client) = (result, &kind) {
                attributes.push(KeyValue::new("gen_ai.usage.input_tokens", count(used.input)));
                attributes.push(KeyValue::new("gen_ai.usage.output_tokens", count(used.output)));
            }
            if attempt > 0 {
                attributes.push(KeyValue::new("relevo.attempt", i64::from(attempt)));
            }
            let failed = result.err().map(|kind| kind.word());
            let frame = Frame { span, parent: Some(parent), kind, name, began, ended, failed };
            self.send(frame, attributes, SpanEvents::default());
        }
    }

    fn agent(&self, provider: &str, id: &str, name: &str, task: &str) -> Vec<KeyValue> {
        vec![
            KeyValue::new("gen_ai.operation.name", "invoke_agent"),
            KeyValue::new("gen_ai.provider.name", provider.to_owned()),
            KeyValue::new("gen_ai.agent.id", id.to_owned()),
            KeyValue::new("gen_ai.agent.name", name.to_owned()),
            KeyValue::new("gen_ai.conversation.id", self.conversation(task)),
        ]
    }

    fn conversation(&self, task: &str) -> String {
        format!("{}/{task}", self.origin.run)
    }

    fn send(&self, frame: Frame<'_>, mut attributes: Vec<KeyValue>, events: SpanEvents) {
        let Frame { span, parent, kind, name, began, ended, failed } = frame;
        attributes.extend(failed.map(|word| KeyValue::new("error.type", word.to_owned())));
        self.sender.send(SpanData {
            span_context: SpanContext::new(
                TraceId::from_bytes(span.trace),
                SpanId::from_bytes(span.id),
                TraceFlags::SAMPLED,
                false,
                TraceState::default(),
            ),
            parent_span_id: parent.map_or(SpanId::INVALID, |parent| SpanId::from_bytes(parent.id)),
            parent_span_is_remote: parent.is_some() && parent == self.origin.parent,
            span_kind: kind,
            name: name.into(),
            start_time: time(began),
            end_time: time(ended),
            attributes,
            dropped_attributes_count: 0,
            events,
            links: SpanLinks::default(),
            status: failed.map_or(Status::Unset, |word| Status::error(word.to_owned())),
            instrumentation_scope: self.scope.clone(),
        });
    }
}

/// Tokens of all answers, where a model has answered.
fn usage(requests: &[Request]) -> Vec<KeyValue> {
    let answered = requests.iter().filter(|request| matches!(request.whom, Whom::Model { .. }));
    let used: Vec<_> = answered.filter_map(|request| request.result.ok()).collect();
    let sum = |of: fn(&crate::model::TokenUsage) -> u64| count(used.iter().map(of).sum());
    match used.is_empty() {
        true => vec![],
        false => vec![
            KeyValue::new("gen_ai.usage.input_tokens", sum(|used| used.input)),
            KeyValue::new("gen_ai.usage.output_tokens", sum(|used| used.output)),
        ],
    }
}

fn count(n: u64) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

fn time(ms: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_millis(ms)
}

/// What the conventions call a provider that a team file names.
fn provider(kind: &str) -> &str {
    match kind {
        "openai" | "openai_resp" => "openai",
        "gemini" => "gcp.gemini",
        "mistral" => "mistral_ai",
        "xai" => "x_ai",
        other => other,
    }
}
