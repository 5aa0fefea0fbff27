//! What all tasks of a run share: breakers, what calls cost, and the budget of the run.

use std::collections::BTreeMap;

use relevo_core::ids::AgentId;

use super::{
    Cost, GuardSpec, OnExceed, Permit, Resource, StopReason,
    breaker::{Breaker, Ended},
    budget::{History, Meter},
};
use crate::agent::FailureKind;

/// The guard of a run, shared by its tasks.
#[derive(Clone, Debug)]
pub struct TeamGuard {
    spec: GuardSpec,
    /// Calls let through, and tasks begun: the latter so that a team of which nobody may be called comes to its trials.
    clock: u64,
    breakers: BTreeMap<AgentId, Breaker>,
    histories: BTreeMap<AgentId, History>,
    session: Option<Meter>,
    stopped: Option<StopReason>,
}

impl TeamGuard {
    /// The guard of a run that begins, or goes on, at `now`. Time before that does not count against its budget.
    pub fn new(spec: GuardSpec, now: u64) -> Self {
        let session = spec.session_budget.as_ref().map(|budget| Meter::new(budget, now));
        let (breakers, histories) = Default::default();
        TeamGuard { spec, clock: 0, breakers, histories, session, stopped: None }
    }

    /// The limits.
    pub fn spec(&self) -> &GuardSpec {
        &self.spec
    }

    /// Why no further task may begin.
    pub fn stopped(&self) -> Option<StopReason> {
        self.stopped
    }

    /// What the next call of an agent is expected to cost: what is declared, else the median of its last calls, else
    /// nothing.
    pub fn estimate(&self, agent: AgentId) -> Cost {
        let declared = self.spec.costs.get(&agent).copied().unwrap_or_default();
        match self.histories.get(&agent) {
            Some(history) => history.estimate(declared),
            None => History::default().estimate(declared),
        }
    }

    /// Whether the breaker of an agent lets a call through.
    pub fn admits(&self, agent: AgentId) -> bool {
        self.breakers.get(&agent).is_none_or(|breaker| breaker.admits(self.clock))
    }

    /// Take up a call of an earlier process whose task is over: what it has cost, and how it ended. For a task that goes
    /// on there is [`TaskGuard::recall`](super::TaskGuard::recall).
    pub fn recall(&mut self, agent: AgentId, cost: Cost, ended: Result<(), FailureKind>) {
        let permit = self.permit(agent, Cost::default());
        self.settle(permit, cost, ended);
    }

    /// Judges were asked, at this cost; `failed` is why they had nothing to say. It counts against the budget of the run,
    /// though judges are not kept from tasks that were paid for; and where no further call can mend why they failed, no
    /// further task begins.
    pub fn judged(&mut self, cost: Cost, failed: impl IntoIterator<Item = FailureKind>) {
        if let Some(session) = &mut self.session {
            session.charge(cost);
        }
        if failed.into_iter().any(|kind| self.spec.halt_on.contains(&kind)) {
            self.stop(StopReason::TerminalError);
        }
    }

    /// A task begins.
    pub(super) fn begin_task(&mut self) {
        self.clock += 1;
    }

    pub(super) fn exceeded(&self, estimate: Cost, now: u64) -> Option<(Resource, &OnExceed<AgentId>)> {
        let session = self.session.as_ref()?;
        Some((session.exceeded(estimate, now)?, session.on_exceed()))
    }

    pub(super) fn stop(&mut self, reason: StopReason) {
        self.stopped.get_or_insert(reason);
    }

    pub(super) fn extend(&mut self, resource: Resource, estimate: Cost, now: u64) {
        if let Some(session) = &mut self.session {
            session.extend(resource, estimate, now);
        }
    }

    pub(super) fn permit(&mut self, agent: AgentId, estimate: Cost) -> Permit {
        self.clock += 1;
        if let Some(session) = &mut self.session {
            session.hold_back(estimate);
        }
        let trial = self.breakers.get_mut(&agent).is_some_and(|breaker| breaker.begin(self.clock));
        Permit { agent, estimate, trial, approved: None, takes_over: false }
    }

    pub(super) fn settle(&mut self, permit: Permit, cost: Cost, ended: Result<(), FailureKind>) {
        let Permit { agent, estimate, trial, .. } = permit;
        if let Some(session) = &mut self.session {
            session.settle(estimate, cost);
        }
        let ended = match ended {
            Ok(()) => Ended::Well,
            Err(kind) if kind.is_fault() => Ended::Failed,
            Err(_) => Ended::Neither,
        };
        // A call that was cut short does not say what a whole one costs.
        if ended != Ended::Neither {
            self.histories.entry(agent).or_default().push(cost);
        }
        if let Some(spec) = self.spec.breaker {
            self.breakers.entry(agent).or_insert(Breaker::NEW).end(spec, trial, ended, self.clock);
        }
    }
}
