//! Sums over all tasks of a run, as they come up.

use std::collections::{BTreeMap, VecDeque};

use relevo_core::{
    graph::PolicyGraph,
    ids::AgentId,
    observation::Signature,
    policy_file::signature_key,
    record::{Record, Table},
    step::StepRule,
    warm::{Drift, drift},
};

use super::{
    cast::{Cast, Meaning},
    figures::{Counts, Latencies, Moments, Windows},
    session::{AgentFigures, SCHEMA, SITUATIONS_MAX, SessionReport, Situation, TASKS_MAX, Totals, Verdicts},
    task::{Call, Task, Verdict},
};
use crate::judge::{Check, health::JudgeHealth};

/// Situations counted apart; decisions in those met later are counted together.
const SITUATIONS_COUNTED: usize = 10_000;

/// Agents counted apart; no team has as many.
const AGENTS_MAX: usize = 10_000;
/// Most notices.
const NOTICES_MAX: usize = 100;

/// What a decision was made in.
pub(super) type Place = (AgentId, Table, Signature);

/// Sums over all tasks.
#[derive(Debug)]
pub(super) struct Tally {
    /// The report so far; what is left empty in it comes at the end.
    pub(super) session: SessionReport,
    agents: BTreeMap<String, AgentSums>,
    situations: BTreeMap<Option<Place>, SituationSums>,
    returns: Moments,
    qualities: Moments,
    judges: JudgeHealth,
    windows: Windows,
    last: VecDeque<Task>,
    /// Priors, and what came of the choices in the situations that have some.
    primed: BTreeMap<(AgentId, Table), PolicyGraph>,
    priors: u64,
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

impl Tally {
    pub(super) fn new(team: &str) -> Self {
        let session = SessionReport { schema: SCHEMA, team: team.to_owned(), ..SessionReport::default() };
        let (agents, situations, last, primed) = Default::default();
        let (returns, qualities, judges, windows) = Default::default();
        Tally { session, agents, situations, returns, windows, last, primed, qualities, judges, priors: 0 }
    }

    /// An earlier policy gave a prior, or a choice was learned from.
    pub(super) fn learned(&mut self, cast: &Cast, agent: AgentId, record: &Record) {
        let (Record::Primed { table, signature, action, .. }
        | Record::Settled { table, signature, action, .. }) = record
        else {
            return;
        };
        let width = cast.width(agent, *table);
        if action.index() >= width {
            return;
        }
        match (record, self.primed.get_mut(&(agent, *table))) {
            (Record::Primed { .. }, _) => {
                self.priors += 1;
                let graph = || PolicyGraph::new(width, 0.0, StepRule::Mean, SITUATIONS_COUNTED);
                self.primed.entry((agent, *table)).or_insert_with(graph).apply(*table, record);
            }
            (_, Some(graph)) if graph.edges(*signature).is_some() => graph.apply(*table, record),
            _ => {}
        }
    }

    /// What people should know of priors.
    fn notices(&self, cast: &Cast, name: impl Fn(Signature) -> String) -> Vec<String> {
        let mut notices = vec![];
        if self.priors > 0 {
            notices.push(format!("begun with {} priors of an earlier policy", self.priors));
        }
        for ((agent, table), graph) in &self.primed {
            for Drift { signature, action, prior, mean, standard_error, visits } in drift(graph) {
                let (choice, situation) = (cast.choice(*agent, *table, action), name(signature));
                notices.push(format!(
                    "drift: {choice} at {situation} was worth {prior:.3}, and is {mean:.3} ± {:.3} in {visits} visits since",
                    1.96 * standard_error
                ));
            }
        }
        notices.truncate(NOTICES_MAX);
        notices
    }

    /// A choice was made.
    pub(super) fn decided(&mut self, place: Place, chosen: &str, meaning: Meaning<'_>, greedy: bool) {
        let explored = u64::from(!greedy);
        self.session.totals.decisions += 1;
        self.session.totals.explored += explored;
        match meaning {
            Meaning::Act(of) => self.agent(of).chosen += 1,
            Meaning::Skip(of) => self.agent(of).skipped += 1,
            Meaning::Own => {}
        }
        let is_known =
            self.situations.len() < SITUATIONS_COUNTED || self.situations.contains_key(&Some(place));
        let situation = self.situations.entry(is_known.then_some(place)).or_default();
        situation.decisions += 1;
        situation.explored += explored;
        situation.choices.add(chosen, 1);
    }

    /// An agent was called, perhaps for the first time in its task.
    pub(super) fn called(&mut self, call: &Call, first: bool) {
        let Call { agent, ended, tokens, money, ms, .. } = call;
        let Totals { calls, failures, tokens: all_tokens, money: all_money, ms: all_ms, .. } =
            &mut self.session.totals;
        *calls += 1;
        *failures += u64::from(call.failed());
        *all_tokens += tokens;
        *all_money += money;
        *all_ms += ms.unwrap_or(0);
        let of = self.agent(agent);
        of.calls += 1;
        of.tokens += tokens;
        of.money += money;
        if call.failed() {
            of.failures.add(ended, 1);
        }
        ms.iter().for_each(|ms| of.ms.add(*ms));
        of.tasks += u64::from(first);
    }

    /// A task was judged.
    pub(super) fn judged(&mut self, verdict: &Verdict) {
        let Verdicts { unjudged, tokens, money, ms, .. } = &mut self.session.judged;
        *unjudged += u64::from(verdict.quality.is_none());
        *tokens += verdict.tokens;
        *money += verdict.money;
        *ms += verdict.ms;
        verdict.quality.iter().for_each(|quality| self.qualities.add(*quality));
    }

    /// A judge was tried.
    pub(super) fn tried(&mut self, check: &Check) {
        self.judges.check(check);
        let JudgeHealth { canaries, fooled, swaps, audits, audit_distance, .. } = self.judges;
        let judged = &mut self.session.judged;
        (judged.canaries, judged.fooled) = (canaries, fooled);
        judged.swap_agreement = swaps.value();
        (judged.audit_agreement, judged.audit_distance) = (audits.value(), audit_distance.value());
    }

    /// A task has ended.
    pub(super) fn closed(&mut self, task: Task, task_return: f64) {
        self.session.ended += 1;
        self.session.totals.handoffs += u64::from(task.handoffs);
        task.stop.iter().for_each(|stop| self.session.stops.add(stop, 1));
        self.returns.add(task_return);
        self.windows.add(task_return, task.tokens as f64, task.failures as f64);
        if self.last.len() == TASKS_MAX {
            self.last.pop_front();
        }
        self.last.push_back(task);
    }

    fn agent(&mut self, name: &str) -> &mut AgentSums {
        let is_known = self.agents.contains_key(name) || self.agents.len() < AGENTS_MAX;
        self.agents.entry(if is_known { name } else { "other" }.to_owned()).or_default()
    }

    /// What it came to, with the tasks that are still open.
    pub(super) fn finish<'t>(
        self,
        cast: &Cast,
        name: impl Fn(Signature) -> String,
        open: impl Iterator<Item = &'t Task>,
    ) -> SessionReport {
        let notices = self.notices(cast, &name);
        let Tally { mut session, mut agents, situations, returns, qualities, windows, last, .. } = self;
        session.notices = notices;
        session.tasks = last.into();
        for task in open {
            session.open += 1;
            session.totals.handoffs += u64::from(task.handoffs);
            if session.tasks.len() < 2 * TASKS_MAX {
                session.tasks.push(task.clone());
            }
        }
        session.task_return = returns.estimate();
        session.judged.quality = qualities.estimate();
        session.windows = windows.shown();
        // In the order of the team file, and then those that it does not name.
        let all = (session.ended + session.open).max(1) as f64;
        let mut order = cast.agents.clone();
        order.extend(agents.keys().filter(|name| !cast.agents.contains(name)).cloned());
        session.agents = order
            .into_iter()
            .map(|agent| {
                let AgentSums { calls, failures, tokens, money, ms, tasks, chosen, skipped } =
                    agents.remove(&agent).unwrap_or_default();
                let (ms, share) = (ms.quantiles(), tasks as f64 / all);
                AgentFigures { agent, calls, failures, tokens, money, ms, tasks, share, chosen, skipped }
            })
            .collect();
        let situations = situations.into_iter().map(|(place, sums)| {
            let SituationSums { decisions, explored, choices } = sums;
            let (participant, situation, signature) = match place {
                Some((of, _, signature)) => (cast.participant(of), name(signature), signature_key(signature)),
                None => ("all".to_owned(), "situations met later".to_owned(), String::new()),
            };
            Situation { participant, situation, signature, decisions, explored, choices }
        });
        session.situations = situations.collect();
        // A stable sort: what is equal stays in the order of participants.
        session.situations.sort_by_key(|situation| std::cmp::Reverse(situation.decisions));
        session.situations.truncate(SITUATIONS_MAX);
        session
    }
}
