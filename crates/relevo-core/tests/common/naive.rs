//! Algorithm 1 of the paper under value passing, written down a second time: plain maps, no limits, no records. It is
//! told what was chosen and answers which value was due to the predecessor.

use super::*;
use std::collections::{BTreeMap, BTreeSet};

type Cells = BTreeMap<(u64, u32), (f64, u32)>;

pub(crate) struct Naive {
    regime: Regime,
    gamma: f64,
    exponent: f64,
    finish: u32,
    handoff_reward: f64,
    me: AgentId,
    pub(crate) q: Cells,
    pub(crate) q_local: Cells,
    /// Where the running operation was chosen, and which successor or operation.
    running: BTreeMap<HandoffId, (Observation, u32)>,
    /// (o, j, R, tau) of handoffs made.
    waiting: BTreeMap<HandoffId, (u64, u32, f64, u32)>,
    seen: BTreeSet<HandoffId>,
}

impl Naive {
    /// The reference of a participant made by [`spec`], whose last column is "finish".
    pub(crate) fn of(spec: &ParticipantSpec) -> Self {
        let StepRule::Poly { exponent } = spec.learner.step else { panic!("the reference steps with n^-w") };
        Naive {
            regime: spec.learner.regime,
            gamma: spec.learner.discount.gamma(),
            exponent,
            finish: spec.choices.len() as u32 - 1,
            handoff_reward: spec.handoff_reward.get(),
            me: spec.id,
            q: Cells::new(),
            q_local: Cells::new(),
            running: BTreeMap::new(),
            waiting: BTreeMap::new(),
            seen: BTreeSet::new(),
        }
    }

    fn best(cells: &Cells, o: &Observation) -> f64 {
        let value = |a: ActionId| cells.get(&(o.signature.0, a.0)).map_or(0.0, |c| c.0);
        o.legal.iter().map(value).fold(f64::NEG_INFINITY, f64::max)
    }

    fn learn(cells: &mut Cells, exponent: f64, signature: u64, action: u32, y: f64) {
        let (q, n) = cells.entry((signature, action)).or_insert((0.0, 0));
        *n += 1;
        *q += f64::from(*n).powf(-exponent) * (y - *q);
    }

    /// One event, with what the participant then decided; gives the value that is sent back, if one is.
    pub(crate) fn on(&mut self, event: &Event, decided: &[(Table, ActionId)]) -> Option<f64> {
        let choice = |of| decided.iter().find(|(table, _)| *table == of).map(|(_, action)| action.0);
        match event {
            Event::Received { handoff, observation } => {
                if !self.seen.insert(handoff.id) {
                    return None;
                }
                let (chosen, value) = match self.regime {
                    BEFORE => (choice(Table::Successors), Some(Self::best(&self.q, observation))),
                    AFTER => (Some(0), None),
                    _ => (choice(Table::Operations), Some(Self::best(&self.q_local, observation))),
                };
                self.running.insert(handoff.id, (observation.clone(), chosen.unwrap()));
                value
            }
            Event::Performed { handoff, reward, tau, next, .. } => {
                let (o, a) = self.running.remove(handoff)?;
                let (s, r, t) = (o.signature.0, reward.get(), tau.steps());
                let discount = self.gamma.powi(t as i32);
                let outgoing = handoff.next(self.me).unwrap();
                let cost = |j| if j == self.finish { 0.0 } else { self.handoff_reward };
                match (self.regime, next) {
                    (BEFORE, Next::Committed) => {
                        self.waiting.insert(outgoing, (s, a, r + cost(a), t));
                        None
                    }
                    (BEFORE, Next::Ended) => {
                        Self::learn(&mut self.q, self.exponent, s, a, r);
                        None
                    }
                    (AFTER, Next::HandOver(o)) => {
                        let value = r + discount * Self::best(&self.q, o);
                        let j = choice(Table::Successors).unwrap();
                        self.waiting.insert(outgoing, (o.signature.0, j, cost(j), 1));
                        Some(value)
                    }
                    (AFTER, Next::Ended) => Some(r),
                    (_, Next::Operate(o)) => {
                        let y = r + discount * Self::best(&self.q_local, o);
                        Self::learn(&mut self.q_local, self.exponent, s, a, y);
                        self.running.insert(*handoff, (o.clone(), choice(Table::Operations).unwrap()));
                        None
                    }
                    (_, Next::HandOver(o)) => {
                        let y = r + discount * Self::best(&self.q, o);
                        Self::learn(&mut self.q_local, self.exponent, s, a, y);
                        let j = choice(Table::Successors).unwrap();
                        self.waiting.insert(outgoing, (o.signature.0, j, cost(j), 1));
                        None
                    }
                    (_, Next::Ended) => {
                        Self::learn(&mut self.q_local, self.exponent, s, a, r);
                        None
                    }
                    (_, Next::Committed) => unreachable!("refused by the participant"),
                }
            }
            Event::Valued(message) => {
                let (s, j, r, t) = self.waiting.remove(&message.handoff)?;
                let y = r + self.gamma.powi(t as i32) * message.value.get();
                Self::learn(&mut self.q, self.exponent, s, j, y);
                None
            }
            Event::Finished { handoff, reward } => {
                let (s, j, r, _) = self.waiting.remove(handoff)?;
                Self::learn(&mut self.q, self.exponent, s, j, r + reward.get());
                None
            }
            Event::Expired { handoff } => {
                self.waiting.remove(handoff);
                self.running.remove(handoff);
                None
            }
            Event::Failed { .. } => unreachable!("not in the algorithm of the paper"),
            Event::Asked { .. } | Event::Answered { .. } | Event::Primed { .. } => None,
            Event::Trusted { .. } | Event::Replan => None,
        }
    }

    /// Whether a participant has learned the same, to within rounding.
    pub(crate) fn agrees(&self, member: &Member) -> Result<(), String> {
        for (table, cells) in [(Table::Successors, &self.q), (Table::Operations, &self.q_local)] {
            let Some(graph) = member.participant.learner().graph(table) else { continue };
            let visits: u64 = graph.signatures().iter().map(|s| graph.visits(*s)).sum();
            let expected: u64 = cells.values().map(|(_, n)| u64::from(*n)).sum();
            if visits != expected {
                return Err(format!("{table:?}: {visits} settlements, expected {expected}"));
            }
            for ((s, a), (value, n)) in cells {
                let edge = graph.edges(Signature(*s)).ok_or("unknown signature")?[*a as usize];
                if edge.visits != *n || (edge.value - value).abs() > 1e-11 * (1.0 + value.abs()) {
                    return Err(format!("{table:?} {s} {a}: {edge:?}, expected {value} after {n}"));
                }
            }
        }
        Ok(())
    }
}
