//! What holds for one task.

mod saved;

pub(crate) use saved::SavedGuard;

use std::collections::VecDeque;

use minicbor::{Decode, Encode};
use relevo_core::ids::AgentId;

use super::{
    Cost, Guard, Masks, OnExceed, Permit, Question, Resource, Said, Scope, StopReason, TeamGuard, Verdict,
    Why, budget::Meter,
};
use crate::agent::FailureKind;

/// The guard of one task.
#[derive(Clone, Debug)]
pub struct TaskGuard {
    handoffs: u32,
    turns: u32,
    /// The last handoffs: to whom, and what.
    recent: VecDeque<(AgentId, u64)>,
    meter: Option<Meter>,
    takeover: Takeover,
    /// Whose next call a person has approved.
    approved: Option<AgentId>,
    stopped: Option<StopReason>,
}

/// Somebody takes over a task whose budget is used up: once, and for one call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
enum Takeover {
    #[n(0)]
    Possible,
    #[n(1)]
    By(#[n(0)] AgentId),
    #[n(2)]
    Over,
}

impl TaskGuard {
    /// The guard of a task that begins at `now`.
    pub fn new(team: &mut TeamGuard, now: u64) -> Self {
        team.begin_task();
        TaskGuard {
            handoffs: 0,
            turns: 0,
            recent: VecDeque::new(),
            meter: team.spec().budget.as_ref().map(|budget| Meter::new(budget, now)),
            takeover: Takeover::Possible,
            approved: None,
            stopped: None,
        }
    }

    /// Why the task ends, once a guard or [`TaskGuard::stop`] has ended it.
    pub fn stopped(&self) -> Option<StopReason> {
        self.stopped
    }

    /// The task ends for a reason that was found elsewhere. The first reason stays.
    pub fn stop(&mut self, reason: StopReason) -> StopReason {
        *self.stopped.get_or_insert(reason)
    }

    /// Calls let through.
    pub fn turns(&self) -> u32 {
        self.turns
    }

    /// Which of `candidates` must not be chosen by `from`. To conclude is never masked, and a coordinator, which is no
    /// agent, is [`AgentId::ORIGIN`].
    pub fn before_decision(
        &self,
        team: &TeamGuard,
        from: AgentId,
        candidates: &[AgentId],
        now: u64,
    ) -> Masks {
        let masked = |to: AgentId| {
            let estimate = team.estimate(to);
            let degraded = |on_exceed: &OnExceed<AgentId>| *on_exceed == OnExceed::Degrade;
            let session = team.exceeded(estimate, now).is_some_and(|(_, follows)| degraded(follows));
            let dear = |meter: &Meter| degraded(meter.on_exceed()) && meter.exceeded(estimate, now).is_some();
            if !is_allowed(team, from, to) {
                Some(Guard::Allow)
            } else if !team.admits(to) {
                Some(Guard::Breaker)
            } else if session || self.meter.as_ref().is_some_and(dear) {
                Some(Guard::Budget)
            } else {
                None
            }
        };
        Masks(candidates.iter().filter_map(|to| Some((*to, masked(*to)?))).collect())
    }

    /// `from` hands to `to`, or a coordinator is about to invoke it; `digest` stands for what `to` is given. `Some` is
    /// why the task ends instead.
    pub fn on_handoff(
        &mut self,
        team: &TeamGuard,
        from: AgentId,
        to: AgentId,
        digest: u64,
    ) -> Option<StopReason> {
        if self.stopped.is_some() {
            return self.stopped;
        }
        if !is_allowed(team, from, to) {
            return Some(self.stop(StopReason::Guarded(Guard::Allow)));
        }
        if team.spec().max_handoffs.is_some_and(|max| self.handoffs >= max) {
            return Some(self.stop(StopReason::MaxHandoffs));
        }
        self.handoffs += 1;
        if let Some(repetition) = team.spec().repetition {
            if self.recent.len() >= repetition.window {
                self.recent.pop_front();
            }
            self.recent.push_back((to, digest));
            if self.recent.iter().filter(|seen| **seen == (to, digest)).count() >= repetition.times {
                return Some(self.stop(StopReason::Repetition));
            }
        }
        None
    }

    /// `agent` is about to be called; `needs_approval` says whether this handoff is one that a person must approve.
    pub fn before_call(
        &mut self,
        team: &mut TeamGuard,
        agent: AgentId,
        needs_approval: bool,
        now: u64,
    ) -> Verdict {
        if let Some(reason) = self.stopped.or(team.stopped()) {
            return Verdict::Stop(self.stop(reason));
        }
        if team.spec().max_turns.is_some_and(|max| self.turns >= max) {
            return Verdict::Stop(self.stop(StopReason::MaxTurns));
        }
        if !team.admits(agent) {
            return Verdict::Stop(self.stop(StopReason::Guarded(Guard::Breaker)));
        }
        let estimate = team.estimate(agent);
        if let Some((scope, resource, follows)) = self.exceeded(team, agent, estimate, now) {
            let reason = StopReason::Budget(resource);
            return match follows {
                OnExceed::Ask => {
                    Verdict::Ask(Question { agent, estimate, why: Why::Budget(scope, resource) })
                }
                OnExceed::HandOff(to) if scope == Scope::Task && self.takeover == Takeover::Possible => {
                    self.takeover = Takeover::By(to);
                    Verdict::HandOff(to)
                }
                OnExceed::Stop if scope == Scope::Session => {
                    team.stop(reason);
                    Verdict::Stop(self.stop(reason))
                }
                _ => Verdict::Stop(self.stop(reason)),
            };
        }
        if needs_approval && self.approved != Some(agent) {
            return Verdict::Ask(Question { agent, estimate, why: Why::Approval });
        }
        Verdict::Go(self.let_through(team, agent, estimate))
    }

    /// The same, when the answer is known from an earlier process. It may have rested on the time and on what other tasks
    /// had spent, which is not the same now.
    pub fn recall(&mut self, team: &mut TeamGuard, agent: AgentId, said: Said) -> Verdict {
        let estimate = team.estimate(agent);
        match said {
            Said::Go => Verdict::Go(self.let_through(team, agent, estimate)),
            Said::Ask(why) => Verdict::Ask(Question { agent, estimate, why }),
            Said::HandOff(to) => {
                self.takeover = Takeover::By(to);
                Verdict::HandOff(to)
            }
        }
    }

    fn let_through(&mut self, team: &mut TeamGuard, agent: AgentId, estimate: Cost) -> Permit {
        let approved = self.approved.take();
        let takes_over = self.takeover == Takeover::By(agent);
        if takes_over {
            self.takeover = Takeover::Over;
        }
        self.turns += 1;
        if let Some(meter) = &mut self.meter {
            meter.hold_back(estimate);
        }
        Permit { approved, takes_over, ..team.permit(agent, estimate) }
    }

    /// The call that was permitted has ended and has cost `cost`. [`TaskGuard::stopped`] says whether the task may go on.
    pub fn after_call(
        &mut self,
        team: &mut TeamGuard,
        permit: Permit,
        cost: Cost,
        ended: Result<(), FailureKind>,
    ) {
        if let Some(meter) = &mut self.meter {
            meter.settle(permit.estimate, cost);
        }
        if ended.is_err_and(|kind| team.spec().halt_on.contains(&kind)) {
            self.stop(StopReason::TerminalError);
        }
        team.settle(permit, cost, ended);
    }

    /// Calls of an earlier process took so long, which counts against the time of the task.
    pub fn lasted(&mut self, ms: u64) {
        if let Some(meter) = &mut self.meter {
            meter.recall_time(ms);
        }
    }

    /// A person says yes: ask again with [`TaskGuard::before_call`].
    pub fn approve(&mut self, team: &mut TeamGuard, question: &Question, now: u64) {
        let Question { agent, estimate, why } = *question;
        match why {
            Why::Approval => self.approved = Some(agent),
            Why::Budget(Scope::Session, resource) => team.extend(resource, estimate, now),
            Why::Budget(Scope::Task, resource) => {
                if let Some(meter) = &mut self.meter {
                    meter.extend(resource, estimate, now);
                }
            }
        }
    }

    /// A person says no.
    pub fn deny(&mut self) -> StopReason {
        self.stop(StopReason::Denied)
    }

    /// The task waited for a person, which does not count against its time.
    pub fn waited(&mut self, ms: u64) {
        if let Some(meter) = &mut self.meter {
            meter.pause(ms);
        }
    }

    /// What the call would exceed. Who takes over is let through by the budget of the task, but not by that of the run.
    fn exceeded(
        &self,
        team: &TeamGuard,
        agent: AgentId,
        estimate: Cost,
        now: u64,
    ) -> Option<(Scope, Resource, OnExceed<AgentId>)> {
        if let Some((resource, follows)) = team.exceeded(estimate, now) {
            return Some((Scope::Session, resource, follows.clone()));
        }
        let meter = self.meter.as_ref().filter(|_| self.takeover != Takeover::By(agent))?;
        Some((Scope::Task, meter.exceeded(estimate, now)?, meter.on_exceed().clone()))
    }
}

fn is_allowed(team: &TeamGuard, from: AgentId, to: AgentId) -> bool {
    team.spec().allow.get(&from).is_none_or(|listed| listed.contains(&to))
}
