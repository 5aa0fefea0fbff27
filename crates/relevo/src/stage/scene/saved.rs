//! What a checkpoint keeps of a task before a team whose agents decide for themselves, and that others judge.

use std::collections::BTreeMap;

use minicbor::{Decode, Encode};
use relevo_core::ids::AgentId;

use super::{Called, Scene, Stage};
use crate::{
    agent::FailureKind,
    artifact::{Artifact, Facts, check_facts},
    reward::{Spent, Usual},
    tasks::Task,
};

/// A task before the team.
#[derive(Clone, Debug, Encode, Decode)]
#[cbor(array)]
pub(crate) struct SavedScene<'b> {
    #[b(0)]
    task: &'b str,
    #[n(1)]
    facts: Facts,
    #[cbor(b(2), with = "minicbor::bytes")]
    payload: &'b [u8],
    /// Private facts, by agent.
    #[n(3)]
    own: BTreeMap<AgentId, Facts>,
    /// How the last call ended, and its operation.
    #[b(4)]
    last: (&'b str, &'b str),
    /// Calls, failures, retries, tokens, money and milliseconds.
    #[n(5)]
    spent: (u32, u32, u32, u64, f64, u64),
    /// Tokens, money and milliseconds.
    #[n(6)]
    usual: [Option<f64>; 3],
}

impl Scene<'_> {
    pub(crate) fn save(&self) -> SavedScene<'_> {
        let Spent { calls, failures, retries, tokens, money, ms } = self.spent;
        SavedScene {
            task: &self.task.id,
            facts: self.artifact.facts.clone(),
            payload: &self.artifact.payload,
            own: self.own.clone(),
            last: (self.last.ended, &self.last.operation),
            spent: (calls, failures, retries, tokens, money, ms),
            usual: [self.usual.tokens, self.usual.money, self.usual.ms],
        }
    }
}

impl Stage {
    /// The task that was saved so; or what is wrong with it.
    pub(crate) fn reopen(&self, saved: SavedScene<'_>) -> Result<Scene<'_>, String> {
        let SavedScene { task, facts, payload, own, last: (ended, operation), spent, usual } = saved;
        for facts in own.values().chain([&facts]) {
            check_facts(facts).map_err(|e| format!("has {e}"))?;
        }
        if own.keys().any(|agent| agent.0 as usize >= self.agents.len()) {
            return Err("has private facts of an agent that the team has not".into());
        }
        let (calls, failures, retries, tokens, money, ms) = spent;
        if !usual.into_iter().flatten().chain([money]).all(f64::is_finite) {
            return Err("has a cost that is not a finite number".into());
        }
        let last = match (ended, FailureKind::of_word(ended)) {
            ("-", _) => Called::default(),
            ("done", _) => Called { ended: "done", operation: operation.to_owned() },
            (_, Some(kind)) => Called { ended: kind.word(), operation: operation.to_owned() },
            (_, None) => return Err(format!("has a call that ended as {ended:?}, which no call does")),
        };
        let artifact = Artifact { facts, payload: payload.into() };
        let task = Task { id: task.to_owned(), artifact: artifact.clone(), expected: None };
        let [usual_tokens, usual_money, usual_ms] = usual;
        let usual = Usual { tokens: usual_tokens, money: usual_money, ms: usual_ms };
        let spent = Spent { calls, failures, retries, tokens, money, ms };
        Ok(Scene { own, last, spent, ..Scene::new(self, task, artifact, None, usual) })
    }
}
