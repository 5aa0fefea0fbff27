//! Entries in, figures out.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};

use relevo_core::{
    ids::{ActionId, AgentId},
    observation::{ActionSet, Signature},
    policy_file::{hex, signature_key},
    protocol::Next,
    record::{Entry, Record, Table},
};

use super::{
    cast::{Cast, Meaning},
    explain::DecisionId,
    figures::{Counts, Latencies, Moments, Windows},
    session::{AgentFigures, SCHEMA, SITUATIONS_MAX, Session, Situation, TASKS_MAX, Totals},
    task::{self, Call, Choice, Decision, EVENTS_MAX, Event, Masked, PATH_MAX, Task, TaskTrace},
};

/// Situations counted apart; decisions in those met later are counted together.
const SITUATIONS_COUNTED: usize = 10_000;
/// Names of situations that are remembered; others are called by their keys.
const NAMES_MAX: usize = 1 << 16;
/// Tasks followed at a time; of more that are open at once, records are counted by agent and by nothing else.
const OPEN_MAX: usize = 10_000;

/// A ledger being read.
#[derive(Debug)]
pub struct Fold {
    cast: Cast,
    session: Session,
    names: HashMap<Signature, String>,
    agents: BTreeMap<String, AgentSums>,
    situations: BTreeMap<Option<(AgentId, Table, Signature)>, SituationSums>,
    returns: Moments,
    windows: Windows,
    last: VecDeque<Task>,
    open: BTreeMap<u64, Open>,
    /// Settlements so far, by participant.
    versions: BTreeMap<AgentId, u64>,
    watched: Option<u64>,
    trace: Option<TaskTrace>,
}

#[derive(Debug, Default)]
struct AgentSums {
    calls: u64,
    failures: Counts,
    tokens: u64,
    money: f64,
    ms: Latencies,
    tasks: u64,
    chosen: u64,
    skipped: u64,
}

#[derive(Debug, Default)]
struct SituationSums {
    decisions: u64,
    explored: u64,
    choices: Counts,
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
}

impl Fold {
    /// Nothing read yet. `watched` is the task whose trace is wanted.
    pub fn new(cast: Cast, watched: Option<u64>) -> Self {
        let known = cast.agents.iter().map(|name| (name.clone(), AgentSums::default()));
        let session = Session {
            schema: SCHEMA,
            team: cast.team.clone(),
            seed: 0,
            asked: 0,
            config: String::new(),
            ended: 0,
            open: 0,
            halted: None,
            totals: Totals::default(),
            task_return: None,
            stops: Counts::default(),
            masked: Counts::default(),
            questions: Counts::default(),
            answers: Counts::default(),
            agents: vec![],
            situations: vec![],
            windows: vec![],
            tasks: vec![],
            notices: vec![],
        };
        Fold {
            agents: known.collect(),
            cast,
            session,
            names: HashMap::new(),
            situations: BTreeMap::new(),
            returns: Moments::default(),
            windows: Windows::default(),
            last: VecDeque::new(),
            open: BTreeMap::new(),
            versions: BTreeMap::new(),
            watched,
            trace: None,
        }
    }

    /// Take in the next entry.
    pub fn take(&mut self, entry: &Entry) {
        let Entry { agent, record } = entry;
        match record {
            Record::Opened { config, seed, episodes, .. } => {
                (self.session.seed, self.session.asked) = (*seed, *episodes);
                self.session.config = hex(config);
            }
            Record::Named { signature, name } if self.names.len() < NAMES_MAX => {
                self.names.insert(*signature, name.clone());
            }
            Record::Halted { by, reason } => self.session.halted = Some(format!("{by}: {reason}")),
            Record::Closed { episode, episode_return, handoffs, stop } => {
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
        match record {
            Record::Received { handoff, observation } => {
                open.legal.clone_from(&observation.legal);
                (open.operation, open.called) = (None, false);
                if handoff.id.from != AgentId::ORIGIN {
                    open.task.handoffs += 1;
                }
                let (from, to) = (handoff.id.from, agent);
                self.note(number, |cast| Event::HandedOver {
                    from: cast.participant(from),
                    to: cast.participant(to),
                });
            }
            Record::Masked { guard, actions, .. } => {
                self.session.masked.add(guard, actions.len() as u64);
                open.task.masked += actions.len() as u64;
                open.masked.push((guard.clone(), actions.clone()));
            }
            Record::Decided { .. } => self.decided(number, agent, record, &mut open),
            Record::Called { agent, operation, ended, usage, money, ms, .. } => {
                let call = Call {
                    call: open.task.calls,
                    agent: self.cast.agent(*agent),
                    operation: self.cast.operation(*agent, *operation),
                    ended: ended.clone(),
                    tokens: usage.tokens,
                    money: *money,
                    ms: Some(*ms),
                };
                open.called = true;
                self.called(number, call, &mut open);
            }
            Record::Performed { usage, next, .. } | Record::Failed { usage, next, .. } => {
                if !open.called
                    && let Some((agent, operation)) = self.performer(agent, open.operation)
                {
                    let ended = if usage.failures > 0 { "failed" } else { "done" };
                    let call = Call {
                        call: open.task.calls,
                        agent,
                        operation,
                        ended: ended.to_owned(),
                        tokens: usage.tokens,
                        money: 0.0,
                        ms: None,
                    };
                    self.called(number, call, &mut open);
                }
                open.called = false;
                if let Next::Operate(seen) | Next::HandOver(seen) = next {
                    open.legal.clone_from(&seen.legal);
                }
            }
            Record::Paused { agent, why, .. } => {
                self.session.questions.add(why, 1);
                open.task.waits_for = Some(why.clone());
                let agent = self.cast.agent(*agent);
                self.note(number, |_| Event::Asked { agent, why: why.clone() });
            }
            Record::Permitted { granted, by, .. } => {
                let answer = if *granted { "yes" } else { "no" };
                self.session.answers.add(&format!("{answer}: {by}"), 1);
                open.task.waits_for = None;
                self.note(number, |_| Event::Answered { granted: *granted, by: by.clone() });
            }
            Record::Settled { table, signature, action, target, step, .. } => {
                self.session.totals.settlements += 1;
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
            Record::Expired { .. } => self.session.totals.expired += 1,
            _ => {}
        }
        if followed {
            self.open.insert(number, open);
        }
    }

    fn decided(&mut self, number: u64, agent: AgentId, record: &Record, open: &mut Open) {
        let Record::Decided { table, signature, action, greedy, probabilities, .. } = record else { return };
        let (table, action, explored) = (*table, *action, u64::from(!greedy));
        self.session.totals.decisions += 1;
        self.session.totals.explored += explored;
        match self.cast.meaning(agent, table, action) {
            Meaning::Act(of) => self.agents.entry(of.to_owned()).or_default().chosen += 1,
            Meaning::Skip(of) => self.agents.entry(of.to_owned()).or_default().skipped += 1,
            Meaning::Own => {}
        }
        let chosen = self.cast.choice(agent, table, action);
        let mut key = Some((agent, table, *signature));
        if self.situations.len() >= SITUATIONS_COUNTED && !self.situations.contains_key(&key) {
            key = None;
        }
        let situation = self.situations.entry(key).or_default();
        situation.decisions += 1;
        situation.explored += explored;
        situation.choices.add(&chosen, 1);
        let masked = std::mem::take(&mut open.masked);
        if self.watched == Some(number) {
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
        open.task.explored += explored;
        if table == Table::Operations {
            open.operation = Some((agent, action));
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

    fn called(&mut self, number: u64, call: Call, open: &mut Open) {
        let Call { agent, ended, tokens, money, ms, .. } = &call;
        let failed = u64::from(ended != "done");
        let (task, totals) = (&mut open.task, &mut self.session.totals);
        task.calls += 1;
        totals.calls += 1;
        task.failures += failed;
        totals.failures += failed;
        task.tokens += tokens;
        totals.tokens += tokens;
        task.money += money;
        totals.money += money;
        task.ms += ms.unwrap_or(0);
        totals.ms += ms.unwrap_or(0);
        if task.path.len() < PATH_MAX {
            task.path.push(agent.clone());
        }
        let of = self.agents.entry(agent.clone()).or_default();
        of.calls += 1;
        of.tokens += tokens;
        of.money += money;
        if failed > 0 {
            of.failures.add(ended, 1);
        }
        ms.iter().for_each(|ms| of.ms.add(*ms));
        of.tasks += u64::from(open.agents.insert(agent.clone()));
        self.note(number, |_| Event::Called(call));
    }

    fn close(&mut self, number: u64, task_return: f64, handoffs: u32, stop: &str) {
        let Open { mut task, .. } = self.open.remove(&number).unwrap_or_default();
        task.task = number;
        task.handoffs = handoffs;
        task.stop = Some(stop.to_owned());
        task.waits_for = None;
        task.task_return = Some(task_return);
        self.session.ended += 1;
        self.session.totals.handoffs += u64::from(handoffs);
        self.session.stops.add(stop, 1);
        self.returns.add(task_return);
        self.windows.add(task_return, task.tokens as f64, task.failures as f64);
        if let Some(trace) = self.trace.as_mut().filter(|_| self.watched == Some(number)) {
            trace.task = task.clone();
        }
        if self.last.len() == TASKS_MAX {
            self.last.pop_front();
        }
        self.last.push_back(task);
    }

    fn name(&self, signature: Signature) -> String {
        self.names.get(&signature).cloned().unwrap_or_else(|| signature_key(signature))
    }

    /// Add to the trace of the task, if it is the one that is wanted.
    fn note(&mut self, number: u64, event: impl FnOnce(&Cast) -> Event) {
        if self.watched != Some(number) {
            return;
        }
        let trace = self.trace.get_or_insert_with(|| TaskTrace {
            schema: task::SCHEMA,
            team: self.cast.team.clone(),
            task: Task { task: number, ..Task::default() },
            timeline: vec![],
            left_out: 0,
        });
        match trace.timeline.len() < EVENTS_MAX {
            true => trace.timeline.push(event(&self.cast)),
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
    pub fn finish(mut self) -> (Session, Option<TaskTrace>) {
        if let (Some(trace), Some(open)) = (&mut self.trace, self.watched.and_then(|n| self.open.get(&n))) {
            trace.task = open.task.clone();
        }
        let cast = &self.cast;
        let named = |key: Option<(AgentId, Table, Signature)>| match key {
            Some((agent, _, signature)) => {
                (cast.participant(agent), self.name(signature), signature_key(signature))
            }
            None => ("all".to_owned(), "situations met later".to_owned(), String::new()),
        };
        let mut situations: Vec<Situation> = (self.situations.iter())
            .map(|(key, sums)| {
                let (participant, situation, signature) = named(*key);
                let SituationSums { decisions, explored, choices } = sums;
                let (decisions, explored, choices) = (*decisions, *explored, choices.clone());
                Situation { participant, situation, signature, decisions, explored, choices }
            })
            .collect();
        situations.sort_by(|a, b| {
            let order = b.decisions.cmp(&a.decisions).then_with(|| a.participant.cmp(&b.participant));
            order.then_with(|| a.situation.cmp(&b.situation)).then_with(|| a.signature.cmp(&b.signature))
        });
        situations.truncate(SITUATIONS_MAX);
        let all = (self.session.ended + self.open.len() as u64).max(1) as f64;
        // In the order of the team file, and then those that it does not name.
        let known = cast.agents.clone();
        let rest = self.agents.keys().filter(|name| !known.contains(name)).cloned().collect::<Vec<_>>();
        let agents = known.iter().chain(&rest).filter_map(|name| {
            let of = self.agents.get(name)?;
            Some(AgentFigures {
                agent: name.clone(),
                calls: of.calls,
                failures: of.failures.clone(),
                tokens: of.tokens,
                money: of.money,
                ms: of.ms.quantiles(),
                tasks: of.tasks,
                share: of.tasks as f64 / all,
                chosen: of.chosen,
                skipped: of.skipped,
            })
        });
        let agents = agents.collect();
        let mut totals = self.session.totals;
        totals.handoffs += self.open.values().map(|open| u64::from(open.task.handoffs)).sum::<u64>();
        let open = self.open.values().map(|open| open.task.clone()).take(TASKS_MAX);
        let session = Session {
            open: self.open.len() as u64,
            task_return: self.returns.estimate(),
            totals,
            agents,
            situations,
            windows: self.windows.all(),
            tasks: self.last.iter().cloned().chain(open).collect(),
            ..self.session.clone()
        };
        (session, self.trace)
    }
}
