//! What a run does, for those who watch many: [`spans`] for OpenTelemetry, sent by [`otlp`], and [`figures`] for Prometheus.
//!
//! Both are told from the records of a run as they are made, by the same fold that reports are told from: the figures are
//! those of the report, and a call is a span once it is on record. What was asked of models and tools for it comes with
//! it. Neither holds anything that agents were given or gave back, and neither is ever waited for.

pub mod figures;
pub mod otlp;
pub mod spans;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard},
};

use relevo_core::{
    ids::AgentId,
    observation::Observation,
    protocol::{Next, Participant},
    record::{Entry, Record, Table},
    units::UnitError,
};

use crate::{
    evaluate::Walk,
    observe::{Observer, Occasion, Purpose, Request, Span, Watched},
    stage::{Clock, Stage},
    trace::{Cast, Event, Fold, Meaning},
};
use figures::Figures;
use opentelemetry_sdk::trace::{IdGenerator as _, RandomIdGenerator};
use otlp::Sender;
use spans::{Choice, Spans};

/// What is done on a stage as long as it is observed: its name, and its place among what else is traced.
#[derive(Clone, Debug)]
pub struct Origin {
    /// What the run is called. Processes that take it up after each other call it the same.
    pub run: String,
    /// Which way to run the team it is, where ways are compared.
    pub arm: Option<&'static str>,
    /// Its identity, which no other process has.
    pub span: Span,
    /// Of what it is a part.
    pub parent: Option<Span>,
}

impl Origin {
    /// One with an identity drawn by lot, in the trace of `parent` if it has one.
    pub fn new(run: String, parent: Option<Span>) -> Self {
        let lot = RandomIdGenerator::default();
        let trace = parent.map_or_else(|| lot.new_trace_id().to_bytes(), |parent| parent.trace);
        Origin { run, arm: None, span: Span { trace, id: lot.new_span_id().to_bytes() }, parent }
    }
}

/// Tells of one session.
pub struct Telemetry {
    origin: Origin,
    began: u64,
    cast: Cast,
    clock: Clock,
    figures: Option<Arc<Figures>>,
    spans: Option<Spans>,
    state: Mutex<State>,
}

/// What the records came to.
struct State {
    fold: Fold,
    open: BTreeMap<u64, Open>,
    measured: u64,
}

/// A task on its way.
#[derive(Default)]
struct Open {
    begun: bool,
    watched: Option<Arc<Watched>>,
    /// What each participant saw last.
    seen: BTreeMap<AgentId, Observation>,
    /// Choices from which nothing has followed yet.
    choices: Vec<Choice>,
}

/// The most choices of a task from which nothing has followed that are remembered.
const CHOICES_MAX: usize = 128;

impl Telemetry {
    /// Of what is done on a stage: to whoever wants it.
    pub fn new(
        stage: &Stage,
        origin: Origin,
        sender: Option<Arc<Sender>>,
        figures: Option<Arc<Figures>>,
    ) -> Result<Self, UnitError> {
        let cast = Cast::of(stage)?;
        let state =
            State { fold: Fold::new(cast.clone(), None).telling(), open: BTreeMap::new(), measured: 0 };
        let clock = stage.clock();
        Ok(Telemetry {
            began: clock(),
            clock,
            cast,
            figures,
            spans: sender.map(|sender| Spans::new(stage, origin.clone(), sender)),
            origin,
            state: Mutex::new(state),
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no thread panics with it")
    }

    fn take(&self, entry: &Entry, participants: Option<&[Participant]>) {
        let State { fold, open, .. } = &mut *self.state();
        let task = entry.record.episode().map(|episode| episode.0 as u64);
        if let Some(task) = task {
            self.prepare(entry, participants, open, task);
        }
        fold.take(entry);
        for (task, event) in fold.hear() {
            if let Some(figures) = &self.figures {
                figures.event(&event);
            }
            if let (Some(spans), Some(of_task)) = (&self.spans, open.get_mut(&task)) {
                self.happened(spans, task, of_task, &event, participants.is_some());
            }
        }
        if let Some(figures) = &self.figures {
            figures.record(&entry.record);
        }
        if let Record::Closed { episode, episode_return, stop, .. } = &entry.record
            && let Some(Open { watched: Some(watched), choices, .. }) = open.remove(episode)
            && let Some(spans) = &self.spans
        {
            let end = Some((stop.as_str(), *episode_return));
            spans.task(&watched, &episode.to_string(), choices, (self.clock)(), end);
        }
    }

    /// Take in what a record says of a task before what it leads to is told.
    fn prepare(
        &self,
        entry: &Entry,
        participants: Option<&[Participant]>,
        open: &mut BTreeMap<u64, Open>,
        task: u64,
    ) {
        let Entry { agent, record } = entry;
        if let Record::Received { .. } | Record::Masked { .. } = record {
            let of_task = open.entry(task).or_default();
            if !std::mem::replace(&mut of_task.begun, true)
                && let Some(figures) = &self.figures
            {
                figures.begun();
            }
        }
        let Some(of_task) = open.get_mut(&task).filter(|_| self.spans.is_some()) else { return };
        match record {
            Record::Received { observation: seen, .. }
            | Record::Performed { next: Next::Operate(seen) | Next::HandOver(seen), .. }
            | Record::Failed { next: Next::Operate(seen) | Next::HandOver(seen), .. } => {
                of_task.seen.insert(*agent, seen.clone());
            }
            Record::Decided { table, action, .. } if of_task.choices.len() < CHOICES_MAX => {
                let value = || {
                    let learner = participants?.get(agent.0 as usize)?.learner();
                    learner.values(*table, of_task.seen.get(agent)?).get(action.index()).copied()
                };
                let calls = match (self.cast.meaning(*agent, *table, *action), table) {
                    (Meaning::Act(name), _) => Some(name.to_owned()),
                    (Meaning::Own, Table::Operations) => Some(self.cast.participant(*agent)),
                    (Meaning::Own, Table::Successors) | (Meaning::Skip(_), _) => None,
                };
                let at = (self.clock)();
                of_task.choices.push(Choice::made(at, calls, value()));
            }
            _ => {}
        }
    }

    /// Something happened in a task; spans are made of it where it happened in this process.
    fn happened(&self, spans: &Spans, task: u64, open: &mut Open, event: &Event, is_live: bool) {
        match event {
            Event::Decided(decision) => {
                if let Some(choice) = open.choices.last_mut().filter(|choice| !choice.is_said()) {
                    choice.say(decision);
                }
            }
            Event::Called(call) => {
                let choice = spans::taken(&mut open.choices, &call.agent);
                let Some(watched) = open.watched.as_ref().filter(|_| is_live) else { return };
                let works = watched.take(|purpose| purpose == Purpose::Call(call.call as u32));
                spans.call(
                    watched,
                    &task.to_string(),
                    call,
                    choice,
                    works.into_iter().next(),
                    (self.clock)(),
                );
            }
            Event::Judged(_) if is_live => {
                let Some(watched) = &open.watched else { return };
                for work in watched.take(|purpose| purpose == Purpose::Judgement) {
                    spans.judgement(watched.span, &task.to_string(), work);
                }
            }
            _ => {}
        }
    }
}

impl Observer for Telemetry {
    fn task(&self, occasion: Occasion) -> Arc<Watched> {
        let mut state = self.state();
        let watched =
            |name: &str| Watched::new(self.origin.span.part(name), (self.clock)(), self.spans.is_some());
        match occasion {
            Occasion::Lesson(number) => {
                let watched = watched(&format!("task {number}"));
                state.open.entry(number).or_default().watched = Some(watched.clone());
                watched
            }
            Occasion::Measurement => {
                state.measured += 1;
                watched(&format!("measurement {}", state.measured))
            }
            Occasion::Comparison => {
                state.measured += 1;
                watched(&format!("comparison {}", state.measured))
            }
        }
    }

    fn recorded(&self, entry: &Entry, participants: &[Participant]) {
        self.take(entry, Some(participants));
    }

    fn recalled(&self, entry: &Entry) {
        self.take(entry, None);
    }

    fn asked(&self, request: &Request, purpose: Purpose) {
        if let Some(figures) = &self.figures {
            figures.asked(request, purpose);
        }
    }

    fn walked(&self, watched: &Watched, walk: &Walk) {
        if let Some(figures) = &self.figures {
            figures.walked(walk);
        }
        if let Some(spans) = &self.spans {
            spans.walk(&self.cast, watched, walk, (self.clock)());
        }
    }

    fn compared(&self, watched: &Watched) {
        if let Some(spans) = &self.spans {
            spans.comparison(watched);
        }
    }
}

/// Whatever is open stays open for whoever takes the run up; of what this process did for it, no more is to come.
impl Drop for Telemetry {
    fn drop(&mut self) {
        let (Some(spans), now) = (&self.spans, (self.clock)()) else { return };
        for (task, Open { watched, choices, .. }) in std::mem::take(&mut self.state().open) {
            if let Some(watched) = watched {
                spans.task(&watched, &task.to_string(), choices, now, None);
            }
        }
        spans.session(self.began, now);
    }
}
