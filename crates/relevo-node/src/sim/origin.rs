//! The origin of a task: hands it to an agent as the operator of a node, follows it to its end, and tells how good it was.
//! It tries until it succeeds, and never forgets.

use relevo::artifact::Artifact;

use super::{
    faults::{Faults, Kind},
    world::quality,
};
use crate::{
    ids::WireId,
    transport::{Load, Packet, Report},
    wire::{self, Progress},
};

/// A task, as its origin sees it.
pub(super) struct Origin {
    /// The node to which it is handed.
    pub(super) host: usize,
    pub(super) agent: String,
    pub(super) wire: WireId,
    pub(super) artifact: Artifact,
    deadline_ms: u32,
    /// The node's name of the task, once it was acknowledged.
    pub(super) task: Option<String>,
    pub(super) end: Option<End>,
    /// Outcomes that are to be told, the next one first, with how long to wait before each.
    tells: Vec<(u64, Option<f64>)>,
    /// Whether one was acknowledged.
    pub(super) was_told: bool,
    cancels_after: Option<u64>,
    is_early: bool,
}

/// How a task ended for its owner.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum End {
    Result(Artifact),
    Nothing(&'static str),
    /// It was never taken on.
    Refused(String),
}

impl Origin {
    pub(super) fn draw(
        faults: &mut Faults,
        (host, agent): (usize, String),
        wire: WireId,
        artifact: Artifact,
        outcome_after_ms: u64,
    ) -> Origin {
        // An outcome is that of the result, unless something is told on purpose.
        let soon = (u64::from(faults.below(500)), None);
        let mut tells = vec![soon];
        let mut is_early = false;
        if faults.strikes(Kind::Outcome) {
            match faults.below(5) {
                0 => tells.clear(),
                1 => {
                    tells =
                        vec![(outcome_after_ms / 2 + u64::from(faults.below(outcome_after_ms as u32)), None)]
                }
                2 => tells.push((u64::from(faults.below(5_000)), None)),
                3 => tells.push((u64::from(faults.below(5_000)), Some(0.25))),
                _ => (is_early, tells) = (true, vec![(0, Some(0.5))]),
            }
        }
        let deadline_ms = 5_000 + faults.below(55_000);
        let cancels_after = faults.strikes(Kind::Cancel).then(|| u64::from(faults.below(1_000)));
        let (task, end, was_told) = (None, None, false);
        Origin {
            host,
            agent,
            wire,
            artifact,
            deadline_ms,
            task,
            end,
            tells,
            was_told,
            cancels_after,
            is_early,
        }
    }

    /// What is to be said next, if anything is.
    pub(super) fn next(&mut self) -> Option<Packet> {
        let load = match (&self.task, &self.end) {
            (_, Some(End::Refused(_))) => return None,
            (None, _) => Load::Handoff {
                request: Box::new(wire::handoff(
                    &self.wire,
                    Some(self.deadline_ms),
                    &self.wire.to_string(),
                    &self.artifact,
                )),
                passes_value: true,
            },
            (Some(task), None) if !self.is_early => match self.cancels_after {
                Some(0) => {
                    self.cancels_after = None;
                    Load::Cancel { task: task.clone() }
                }
                _ => Load::Look { task: task.clone() },
            },
            (Some(task), end) => {
                let (_, told) = self.tells.first()?;
                let of_result = || match end {
                    Some(End::Result(artifact)) => quality(artifact),
                    _ => 0.0,
                };
                let outcome = told.unwrap_or_else(of_result);
                let message = self.wire;
                Load::Outcome { request: Box::new(wire::outcome(&message, &self.wire, Some(task), outcome)) }
            }
        };
        Some(Packet { wire: self.wire, peer: crate::ids::PeerId::OPERATOR, agent: self.agent.clone(), load })
    }

    /// What became of it, and after how long to go on; an error where something is told that must not be.
    pub(super) fn reported(
        &mut self,
        load: &Load,
        report: Report,
        faults: &mut Faults,
    ) -> Result<u64, String> {
        let again = 1_000 + u64::from(faults.below(7_000));
        match (load, report) {
            (_, Report::Later(_) | Report::Unreachable(_) | Report::Garbage(_)) => Ok(again),
            (Load::Outcome { .. }, Report::Noted) => {
                self.was_told = true;
                self.is_early = false;
                self.tells.remove(0);
                Ok(self.tells.first().map_or(0, |(wait, _)| *wait))
            }
            (Load::Cancel { .. }, Report::Refused(_)) => Ok(0),
            (Load::Handoff { .. } | Load::Look { .. } | Load::Cancel { .. }, Report::Standing(standing)) => {
                let known = standing.task.or(self.task.take());
                self.task = known;
                let end = match standing.progress {
                    Progress::Working => {
                        let wait = self.cancels_after.take();
                        self.cancels_after = wait.map(|_| 0);
                        return Ok(wait.unwrap_or(again / 2));
                    }
                    Progress::Completed(artifact) => End::Result(artifact),
                    Progress::Ended(why) => End::Nothing(why),
                    Progress::Asks => return Err("a task asks for something".to_owned()),
                };
                match &self.end {
                    Some(first) if *first != end => {
                        Err(format!("a task ended as {first:?}, and then as {end:?}"))
                    }
                    Some(_) => Ok(again),
                    None => {
                        self.end = Some(end);
                        Ok(self.tells.first().map_or(0, |(wait, _)| *wait))
                    }
                }
            }
            (Load::Handoff { .. }, Report::Refused(word)) => {
                self.end = Some(End::Refused(word));
                Ok(0)
            }
            (load, report) => Err(format!("an origin is told {report:?} when it says {load:?}")),
        }
    }
}
