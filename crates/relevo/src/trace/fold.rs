//! Entries in, figures out.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use relevo_core::{
    ids::{ActionId, AgentId},
    observation::{ActionSet, Signature},
    policy_file::{hex, signature_key},
    protocol::Next,
    record::{Entry, Record, Table},
    units::Usage,
};

use super::{
    cast::{Cast, Meaning},
    explain::DecisionId,
    session::SessionReport,
    tally::Tally,
    task::{
        self, Call, Choice, DONE, Decision, EVENTS_MAX, Event, Masked, PATH_MAX, Task, TaskReport, Verdict,
    },
};
use crate::{
    guard::{Resource, StopReason},
    judge::Check,
};

/// Names of situations that are remembered; others are called by their keys.
const NAMES_MAX: usize = 1 << 16;
/// Tasks followed at a time; of more that are open at once, records are counted by agent and by nothing else.
const OPEN_MAX: usize = 10_000;

/// A ledger being read.
#[derive(Debug)]
pub struct Fold {
    cast: Cast,
    names: HashMap<Signature, String>,
    tally: Tally,
    open: BTreeMap<u64, Open>,
    /// Settlements so far, by participant.
    versions: BTreeMap<AgentId, u64>,
    watched: Option<u64>,
    trace: Option<TaskReport>,
    /// What happened in which task since somebody last heard of it, where somebody wants to.
    told: Option<Vec<(u64, Event)>>,
}

/// A task on its way.
#[derive(Debug, Default)]
struct Open {
    task: Task,
    /// Who was called.
    agents: BTreeSet<String>,
    /// What was admissible when something was last seen.
    legal: ActionSet,
    /// What the next decision is kept from.
    masked: Vec<(String, Box<[ActionId]>)>,
    /// The operation that was last chosen.
    operation: Option<(AgentId, ActionId)>,
    /// Whether the running operation is on record as a call already.
    called: bool,
    /// A call that was made, unless a guard has ended the task before it; and where it belongs in the trace.
    doubtful: Option<(Call, usize)>,
}

/// Why a guard ends a task before a call.
const BEFORE_CALL: [StopReason; 6] = [
    StopReason::MaxTurns,
    StopReason::Repetition,
    StopReason::Denied,
    StopReason::Budget(Resource::Tokens),
    StopReason::Budget(Resource::Money),
    StopReason::Budget(Resource::Time),
];

impl Fold {
    /// Nothing read yet. `watched` is the task whose trace is wanted.
    pub fn new(cast: Cast, watched: Option<u64>) -> Self {
        let (names, open, versions) = Default::default();
        Fold { tally: Tally::new(&cast.team), cast, names, open, versions, watched, trace: None, told: None }
    }

    /// The same, for somebody who hears of everything by [`Fold::hear`].
    pub fn telling(self) -> Self {
        Fold { told: Some(vec![]), ..self }
    }

    /// What has happened in which task since this was last asked.
    pub fn hear(&mut self) -> Vec<(u64, Event)> {
        self.told.as_mut().map(std::mem::take).unwrap_or_default()
    }

    /// Take in the next entry.
    pub fn take(&mut self, entry: &Entry) {
        let Entry { agent, record } = entry;
        let session = &mut self.tally.session;
        match record {
            Record::Opened { config, seed, episodes, .. } => {
                (session.seed, session.asked, session.config) = (*seed, *episodes, hex(config));
            }
            Record::Named { signature, name } if self.names.len() < NAMES_MAX => {
                self.names.insert(*signature, name.clone());
            }
            Record::Primed { .. } => self.tally.learned(&self.cast, *agent, record),
            Record::Halted { by, reason } => session.halted = Some(format!("{by}: {reason}")),
            Record::Closed { episode, episode_return, handoffs, stop, .. } => {
                self.close(*episode, *episode_return, *handoffs, stop);
            }
            _ => {
                if let Some(episode) = record.episode() {
                    self.take_of_task(episode.0 as u64, *agent, record);
                }
            }
        }
    }

    fn take_of_task(&mut self, number: u64, agent: AgentId, record: &Record) {
        // Taken out while it is looked at, so that all of the rest can be.
        let known = self.open.remove(&number);
        let begins = matches!(record, Record::Received { .. } | Record::Masked { .. });
        let followed = known.is_some() || begins && self.open.len() < OPEN_MAX;
        let mut open = known.unwrap_or_default();
        open.task.task = number;
        let session = &mut self.tally.session;
        match record {
            Record::Received { handoff, observation } => {
                session.halted = None;
                open.legal.clone_from(&observation.legal);
                (open.operation, open.called) = (None, false);
                open.task.handoffs += u32::from(handoff.id.from != AgentId::ORIGIN);
                let (from, to) = (handoff.id.from, agent);
                self.note(number, |cast| Event::HandedOver {
                    from: cast.participant(from),
                    to: cast.participant(to),
                });
            }
            Record::Masked { guard, actions, .. } => {
                session.masked.add(guard, actions.len() as u64);
                open.task.masked += actions.len() as u64;
                open.masked.push((guard.clone(), actions.clone()));
            }
            Record::Decided { .. } => self.decided(number, agent, record, &mut open),
            Record::Called { agent, operation, ended, usage, money, ms, .. } => {
                open.called = true;
                let call = Call {
                    call: open.task.calls,
                    agent: self.cast.agent(*agent),
                    operation: self.cast.operation(*agent, *operation),
                    ended: ended.clone(),
                    tokens: usage.tokens,
                    money: *money,
                    ms: Some(*ms),
                };
                self.called(number, call, None, &mut open);
            }
            Record::Performed { usage, next, .. } | Record::Failed { usage, next, .. } => {
                self.performed(number, agent, *usage, next, &mut open);
            }
            Record::Paused { agent, why, .. } => {
                session.questions.add(why, 1);
                open.task.waits_for = Some(why.clone());
                let agent = self.cast.agent(*agent);
                self.note(number, |_| Event::Asked { agent, why: why.clone() });
            }
            Record::Permitted { granted, by, .. } => {
                let answer = if *granted { "yes" } else { "no" };
                session.answers.add(&format!("{answer}: {by}"), 1);
                open.task.waits_for = None;
                self.note(number, |_| Event::Answered { granted: *granted, by: by.clone() });
            }
            Record::Judged { quality, confidence, usage, money, ms, .. } => {
                let (confidence, tokens) = (confidence.get(), usage.tokens);
                let verdict = Verdict { quality: *quality, confidence, tokens, money: *money, ms: *ms };
                open.task.quality = *quality;
                self.tally.judged(&verdict);
                self.note(number, |_| Event::Judged(verdict));
            }
            Record::Settled { table, signature, action, target, step, .. } => {
                session.totals.settlements += 1;
                self.tally.learned(&self.cast, agent, record);
                *self.versions.entry(agent).or_default() += 1;
                let situation = self.name(*signature);
                self.note(number, |cast| Event::Learned {
                    participant: cast.participant(agent),
                    situation,
                    choice: cast.choice(agent, *table, *action),
                    target: *target,
                    step: *step,
                });
            }
            Record::Tried { .. } => Check::of_record(record).iter().for_each(|check| self.tally.tried(check)),
            Record::Expired { .. } => session.totals.expired += 1,
            _ => {}
        }
        if followed {
            self.open.insert(number, open);
        }
    }

    fn decided(&mut self, number: u64, agent: AgentId, record: &Record, open: &mut Open) {
        let Record::Decided { table, signature, action, greedy, probabilities, .. } = record else { return };
        let (table, action) = (*table, *action);
        let (chosen, meaning) =
            (self.cast.choice(agent, table, action), self.cast.meaning(agent, table, action));
        self.tally.decided((agent, table, *signature), &chosen, meaning, *greedy);
        let masked = std::mem::take(&mut open.masked);
        if self.watched == Some(number) || self.told.is_some() {
            let choice = |action| self.cast.choice(agent, table, action);
            let choices = open.legal.iter().zip(probabilities);
            let decision = Decision {
                decision: DecisionId { task: number, place: open.task.decisions }.to_string(),
                participant: self.cast.participant(agent),
                table: match table {
                    Table::Successors => "successors",
                    Table::Operations => "operations",
                },
                situation: self.name(*signature),
                signature: signature_key(*signature),
                policy_version: self.versions.get(&agent).copied().unwrap_or(0),
                choices: choices
                    .map(|(a, p)| Choice { column: a.0, choice: choice(a), probability: *p })
                    .collect(),
                chosen,
                greedy: *greedy,
                masked: masked
                    .into_iter()
                    .map(|(guard, actions)| Masked {
                        guard,
                        choices: actions.iter().copied().map(choice).collect(),
                    })
                    .collect(),
            };
            self.note(number, |_| Event::Decided(decision));
        }
        open.task.decisions += 1;
        open.task.explored += u64::from(!greedy);
        if table == Table::Operations {
            open.operation = Some((agent, action));
        }
    }

    /// An operation has ended. Of one that did not leave the process, this is all that tells of the call.
    fn performed(&mut self, number: u64, agent: AgentId, usage: Usage, next: &Next, open: &mut Open) {
        let called = std::mem::take(&mut open.called);
        if let Next::Operate(seen) | Next::HandOver(seen) = next {
            open.legal.clone_from(&seen.legal);
        }
        let performer = self.performer(agent, open.operation).filter(|_| !called);
        let Some((agent, operation)) = performer.filter(|(name, _)| !self.cast.programs.contains(name))
        else {
            return;
        };
        let call = Call {
            call: open.task.calls,
            agent,
            operation,
            ended: if usage.failures > 0 { "failed" } else { DONE }.to_owned(),
            tokens: usage.tokens,
            money: 0.0,
            ms: None,
        };
        match *next == Next::Ended && usage == Usage::default() {
            true => open.doubtful = Some((call, self.trace.as_ref().map_or(0, |trace| trace.timeline.len()))),
            false => self.called(number, call, None, open),
        }
    }

    /// Whom a participant let act, and how; nobody where it passed somebody over.
    fn performer(
        &self,
        agent: AgentId,
        operation: Option<(AgentId, ActionId)>,
    ) -> Option<(String, Option<String>)> {
        let operation = operation.filter(|(of, _)| *of == agent).map(|(_, action)| action);
        match operation.map(|action| self.cast.meaning(agent, Table::Operations, action)) {
            Some(Meaning::Skip(_)) => None,
            Some(Meaning::Act(acts)) => Some((acts.to_owned(), None)),
            Some(Meaning::Own) => {
                let operation = operation.map(|action| self.cast.choice(agent, Table::Operations, action));
                Some((self.cast.participant(agent), operation))
            }
            None => Some((self.cast.participant(agent), None)),
        }
    }

    /// An agent was called; `place` is where that belongs in the trace, if not at its end.
    fn called(&mut self, number: u64, call: Call, place: Option<usize>, open: &mut Open) {
        let task = &mut open.task;
        task.calls += 1;
        task.failures += u64::from(call.failed());
        task.tokens += call.tokens;
        task.money += call.money;
        task.ms += call.ms.unwrap_or(0);
        if task.path.len() < PATH_MAX {
            task.path.push(call.agent.clone());
        }
        self.tally.called(&call, open.agents.insert(call.agent.clone()));
        self.note(number, |_| Event::Called(call));
        if let (Some(place), Some(trace)) = (place, &mut self.trace)
            && self.watched == Some(number)
            && trace.left_out == 0
        {
            trace.timeline[place..].rotate_right(1);
        }
    }

    fn close(&mut self, number: u64, task_return: f64, handoffs: u32, stop: &str) {
        let mut open = self.open.remove(&number).unwrap_or_default();
        if let Some((call, place)) = open.doubtful.take()
            && BEFORE_CALL.iter().all(|reason| reason.word() != stop)
        {
            self.called(number, call, Some(place), &mut open);
        }
        let stop = Some(stop.to_owned());
        let task = Task {
            task: number,
            handoffs,
            stop,
            waits_for: None,
            task_return: Some(task_return),
            ..open.task
        };
        if let Some(trace) = self.trace.as_mut().filter(|_| self.watched == Some(number)) {
            trace.task = task.clone();
        }
        self.tally.closed(task, task_return);
    }

    fn name(&self, signature: Signature) -> String {
        named(&self.names, signature)
    }

    /// Add to the trace of the task, if it is the one that is wanted.
    fn note(&mut self, number: u64, event: impl FnOnce(&Cast) -> Event) {
        if self.watched != Some(number) && self.told.is_none() {
            return;
        }
        let event = event(&self.cast);
        if let Some(told) = &mut self.told {
            told.push((number, event.clone()));
        }
        if self.watched != Some(number) {
            return;
        }
        let trace = self.trace.get_or_insert_with(|| TaskReport {
            schema: task::SCHEMA,
            team: self.cast.team.clone(),
            task: Task { task: number, ..Task::default() },
            timeline: vec![],
            left_out: 0,
        });
        match trace.timeline.len() < EVENTS_MAX {
            true => trace.timeline.push(event),
            false => trace.left_out += 1,
        }
    }

    /// The last event of the watched task, where that is a decision.
    pub(super) fn last_decision(&self) -> Option<&Decision> {
        match self.trace.as_ref()?.timeline.last()? {
            Event::Decided(decision) => Some(decision),
            _ => None,
        }
    }

    /// What it all came to, and the trace of the watched task, if there was such a task.
    pub fn finish(mut self) -> (SessionReport, Option<TaskReport>) {
        if let (Some(trace), Some(open)) = (&mut self.trace, self.watched.and_then(|n| self.open.get(&n))) {
            trace.task = open.task.clone();
        }
        let Fold { cast, names, tally, open, trace, .. } = self;
        let name = |signature| named(&names, signature);
        (tally.finish(&cast, name, open.values().map(|open| &open.task)), trace)
    }
}

fn named(names: &HashMap<Signature, String>, signature: Signature) -> String {
    names.get(&signature).cloned().unwrap_or_else(|| signature_key(signature))
}
