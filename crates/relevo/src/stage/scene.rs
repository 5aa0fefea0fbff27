//! One task before a team: who is called, what came of it, and what it is worth. Opened by [`Stage::open`].

mod saved;

pub(crate) use saved::SavedScene;

use std::{collections::BTreeMap, sync::Arc};

use futures_util::future::BoxFuture;
use relevo_core::{
    ids::{ActionId, AgentId, HandoffId, OperationId},
    learner::Regime,
    observation::{ActionSet, Observation},
    units::Usage,
};

use super::{DEFAULT, Deciders, Stage};
use crate::{
    agent::{Failure, FailureKind, HandoffLabel, OperationCall, Outcome},
    artifact::{Artifact, Facts},
    coordinate::{
        document::Document,
        plan::Move,
        progress::{Progress, Reply},
        stand::Stand,
    },
    guard::{StopReason, TeamGuard},
    interface::Situation,
    judge::Candidate,
    observe::{Occasion, Purpose, Watched},
    reward::{self, Spent, Usual},
    tasks::Task,
};

/// How the last call ended.
#[derive(Clone, Debug)]
struct Called {
    ended: &'static str,
    operation: String,
}

impl Default for Called {
    fn default() -> Self {
        Called { ended: "-", operation: "-".to_owned() }
    }
}

/// What a participant sees, and under which name.
#[derive(Clone, Debug, Default)]
pub struct Sight {
    /// The readable name of the situation.
    pub name: String,
    /// All that the participant is told of it.
    pub observation: Observation,
    /// Choices that would be admissible, but for a guard that is named.
    pub masked: Vec<(ActionId, &'static str)>,
}

/// What follows an operation.
#[derive(Clone, Debug)]
pub enum After {
    /// Another operation is chosen.
    Operate(Sight),
    /// The successor is chosen.
    HandOver(Sight),
    /// The task has stopped, for this reason, and is judged.
    Concluded(StopReason),
}

/// What a call led to.
#[derive(Clone, Debug)]
pub struct Performance {
    /// r: the price of the call and what the agent itself reports.
    pub reward: f64,
    /// What it used up.
    pub usage: Usage,
    /// What it was charged, in the team's currency.
    pub money: f64,
    /// How it ended.
    pub ended: Result<(), FailureKind>,
    /// What went wrong, for people.
    pub failure: Option<String>,
}

/// One task before the team.
pub struct Scene<'s> {
    stage: &'s Stage,
    task: Task,
    artifact: Artifact,
    /// How far a coordinated task got.
    progress: Option<Progress>,
    /// What somebody came to who took the task over.
    answer: Option<Arc<[u8]>>,
    /// Private facts, by agent: kept for the task, never handed on.
    own: BTreeMap<AgentId, Facts>,
    last: Called,
    spent: Spent,
    /// What a task of this team usually costs.
    usual: Usual,
    /// Where whoever looks on gathers what is done for it.
    watched: Option<Arc<Watched>>,
}

impl<'s> Scene<'s> {
    pub(super) fn new(
        stage: &'s Stage,
        task: Task,
        artifact: Artifact,
        progress: Option<Progress>,
        usual: Usual,
    ) -> Self {
        let (answer, own, last, spent, watched) = Default::default();
        Scene { stage, task, artifact, progress, answer, own, last, spent, usual, watched }
    }

    /// The same, seen by whoever looks on.
    pub(crate) fn on(self, occasion: Occasion) -> Self {
        Scene { watched: self.stage.observer().map(|observer| observer.task(occasion)), ..self }
    }

    /// Where whoever looks on gathers what is done for it.
    pub(crate) fn watched(&self) -> Option<&Arc<Watched>> {
        self.watched.as_ref()
    }

    /// The task.
    pub fn task(&self) -> &Task {
        &self.task
    }

    /// What is being handed over.
    pub fn artifact(&self) -> &Artifact {
        &self.artifact
    }

    /// The kind of task that a coordinator has before it: its regime, and the facts that tell tasks apart.
    pub fn kind(&self) -> String {
        self.progress.as_ref().map_or(String::new(), Progress::kind)
    }

    /// What it has cost so far.
    pub fn spent(&self) -> &Spent {
        &self.spent
    }

    /// The situation of `agent`, to which `sender` handed over.
    pub fn situation(&self, agent: AgentId, sender: AgentId) -> Situation<'_> {
        const NOTHING: &Facts = &Facts::new();
        Situation {
            view: match &self.stage.deciders {
                Deciders::Agents { views, .. } => &views[agent.0 as usize],
                Deciders::Coordinator { view, .. } => view,
            },
            own: self.own.get(&agent).unwrap_or(NOTHING),
            sender: self.stage.participant_name(sender),
            ended: self.last.ended,
            operation: &self.last.operation,
        }
    }

    /// What a person is told of the situation of `agent`: what it sees. A cell sees all facts.
    pub fn described(&self, agent: AgentId, sender: AgentId) -> String {
        match &self.progress {
            None => self.situation(agent, sender).name(&self.artifact),
            Some(_) => {
                let facts = self.artifact.facts.iter().map(|(name, value)| format!("{name}={value}"));
                facts.collect::<Vec<_>>().join(" ")
            }
        }
    }

    /// Whether a person must approve of a call of `agent`, to which `sender` handed over.
    pub fn needs_approval(&self, agent: AgentId, sender: AgentId) -> bool {
        let approval = &self.stage.team.agents[agent.0 as usize].approval;
        approval.as_ref().is_some_and(|approval| {
            approval.is_needed(|when| self.situation(agent, sender).holds(when, &self.artifact))
        })
    }

    /// A number that stands for what is handed over, where the guards look for repetitions.
    pub fn digest(&self, guard: &TeamGuard) -> u64 {
        if guard.spec().repetition.is_none() {
            return 0;
        }
        let mut hasher = blake3::Hasher::new();
        hasher.update(&serde_json::to_vec(&self.artifact.facts).expect("texts, numbers and truth values"));
        hasher.update(&self.artifact.payload);
        let mut first = [0; 8];
        first.copy_from_slice(&hasher.finalize().as_bytes()[..8]);
        u64::from_le_bytes(first)
    }

    /// How calls in a handoff are labelled: a coordinator makes several.
    pub fn label(&self, handoff: HandoffId) -> HandoffLabel {
        HandoffLabel(match &self.progress {
            Some(progress) => format!("{handoff}.{}", progress.steps()),
            None => handoff.to_string(),
        })
    }

    /// The task ends for a reason that lies outside of its plan.
    pub fn halt(&mut self, reason: StopReason) {
        if let Some(progress) = &mut self.progress {
            progress.halt(reason);
        }
    }

    /// Control arrives at a participant, and this is what it sees: to choose an operation from, or a successor where it
    /// has but one operation.
    pub fn arrive(&mut self, participant: AgentId, sender: AgentId) -> Sight {
        self.last = Called::default();
        if let Some(progress) = &self.progress {
            return match progress.stand() {
                Stand::Decide(decision) => self.stage.sight(decision),
                Stand::Stop(_) => Sight::default(),
            };
        }
        let situation = self.situation(participant, sender);
        let legal = match self.stage.regime(participant) {
            Regime::Adaptable { operations } => ActionSet::all(operations as usize),
            Regime::PreConfigured(_) => situation.legal(&self.artifact),
        };
        self.sight(&situation, legal)
    }

    /// What follows an operation of a participant.
    pub fn after(&self, participant: AgentId, sender: AgentId) -> After {
        if let Some(progress) = &self.progress {
            return match progress.stand() {
                Stand::Decide(decision) => After::Operate(self.stage.sight(decision)),
                Stand::Stop(reason) => After::Concluded(reason),
            };
        }
        let situation = self.situation(participant, sender);
        After::HandOver(self.sight(&situation, situation.legal(&self.artifact)))
    }

    fn sight(&self, situation: &Situation<'_>, legal: ActionSet) -> Sight {
        let name = situation.name(&self.artifact);
        let observation = situation.observation(&name, legal);
        Sight { name, observation, masked: vec![] }
    }

    /// Whom an operation of a participant calls, and the call; `None` where it skips somebody.
    pub fn call(
        &self,
        participant: AgentId,
        operation: OperationId,
        handoff: HandoffId,
    ) -> Option<(AgentId, BoxFuture<'s, Outcome>)> {
        let stage = self.stage;
        let (agent, operation) = match &stage.deciders {
            Deciders::Agents { .. } => (participant, stage.operation(participant, operation)),
            Deciders::Coordinator { coordination: c, .. } => match c.move_of(ActionId(operation.0)) {
                Move::Skip(_) => return None,
                Move::Invoke(cell) | Move::Only(cell) => (AgentId(cell as u32), DEFAULT),
            },
        };
        Some((agent, self.call_with(agent, operation, handoff)))
    }

    /// A call of `agent`, whoever was chosen.
    pub fn call_agent(&self, agent: AgentId, handoff: HandoffId) -> BoxFuture<'s, Outcome> {
        self.call_with(agent, DEFAULT, handoff)
    }

    fn call_with(&self, agent: AgentId, operation: &'s str, handoff: HandoffId) -> BoxFuture<'s, Outcome> {
        let stage = self.stage;
        let (performer, artifact) = (&stage.agents[agent.0 as usize], self.artifact.clone());
        // What is simulated asks nobody.
        let watched = self.watched.clone().filter(|_| stage.leaves_process(agent));
        let purpose = Purpose::Call(self.spent.calls);
        let agent = &stage.team.agents[agent.0 as usize].name;
        let call = OperationCall { agent, operation, handoff: self.label(handoff) };
        Box::pin(async move { stage.seen(watched, purpose, performer.perform(&call, artifact)).await })
    }

    /// Take what came of such a call; nothing, where somebody was skipped.
    pub fn take(
        &mut self,
        participant: AgentId,
        operation: OperationId,
        outcome: Option<Outcome>,
        ms: u64,
    ) -> Performance {
        let Some(outcome) = outcome else {
            let progress = self.progress.as_mut().expect("only a coordinator skips");
            progress.skip(ActionId(operation.0));
            let usage = Usage::default();
            return Performance { reward: 0.0, usage, money: 0.0, ended: Ok(()), failure: None };
        };
        let mut failure = outcome.failure().cloned();
        let (facts, payload) = (outcome.artifact.facts.clone(), outcome.artifact.payload.clone());
        match &mut self.progress {
            None => {
                self.artifact = Artifact { facts, payload };
                self.own.entry(participant).or_default().extend(outcome.private.clone());
                let operation = self.stage.operation(participant, operation).to_owned();
                self.last = Called { ended: "done", operation };
            }
            Some(progress) => {
                let reply = if failure.is_none() { Reply::Document(&payload) } else { Reply::Failed };
                if let Err(e) = progress.performed(ActionId(operation.0), reply) {
                    failure = Some(Failure::Garbage(e.to_string()));
                }
                if failure.is_none() {
                    self.artifact.facts = facts;
                }
                self.artifact.payload = progress.payload().into();
            }
        }
        self.count(&outcome, ms, failure)
    }

    /// Take what came of a call of somebody who took the task over: it is what comes out.
    pub fn take_over(&mut self, outcome: Outcome, ms: u64) -> Performance {
        let mut failure = outcome.failure().cloned();
        if failure.is_none() {
            let answer = match &self.progress {
                None => Ok(outcome.artifact.payload.clone()),
                Some(_) => Document::parse(&outcome.artifact.payload)
                    .map(|document| document.answer().unwrap_or_default().as_bytes().into()),
            };
            match answer {
                Ok(payload) => self.answer = Some(payload),
                Err(e) => failure = Some(Failure::Garbage(e.to_string())),
            }
        }
        self.count(&outcome, ms, failure)
    }

    /// What a call has cost, and how it ended.
    fn count(&mut self, outcome: &Outcome, ms: u64, failure: Option<Failure>) -> Performance {
        let failures = u32::from(failure.is_some());
        let (tokens, money) = (outcome.tokens, outcome.money);
        let spent = Spent { calls: 1, failures, retries: outcome.retries, tokens, money, ms };
        let cost = reward::cost(&self.stage.team.reward, &spent, &self.spent, &self.usual);
        let mut performance = Performance {
            reward: cost + outcome.reward.unwrap_or(0.0),
            usage: Usage { tokens, failures },
            money,
            ended: Ok(()),
            failure: None,
        };
        if let Some(failure) = failure {
            self.last.ended = failure.kind().word();
            performance.ended = Err(failure.kind());
            performance.failure = Some(match outcome.stderr_tail.trim() {
                "" => failure.to_string(),
                tail => format!("{failure}; its last words: {tail}"),
            });
        }
        self.spent += spent;
        performance
    }

    /// Let a participant do its work.
    pub async fn perform(
        &mut self,
        participant: AgentId,
        operation: OperationId,
        handoff: HandoffId,
    ) -> Performance {
        let outcome = match self.call(participant, operation, handoff) {
            Some((_, call)) => Some(call.await),
            None => None,
        };
        self.take(participant, operation, outcome, 0)
    }

    /// What comes out: the artifact, or in a coordinated team the answer in it.
    pub fn result(&self) -> Artifact {
        let mut result = self.artifact.clone();
        result.payload = match (&self.answer, &self.progress) {
            (Some(answer), _) => answer.clone(),
            (None, Some(progress)) => progress.result().into(),
            (None, None) => result.payload,
        };
        result
    }

    /// What judges are shown of a task in which `acted`: their roles, never their names, which would tell whom is judged.
    pub fn candidate(&self, acted: &[AgentId]) -> Candidate {
        let role = |agent: &AgentId| self.stage.team.agents[agent.0 as usize].role;
        let mut candidate = Candidate {
            task: self.task.id.clone(),
            question: match &self.progress {
                Some(progress) => progress.document().goal.clone().unwrap_or_default(),
                None => String::from_utf8_lossy(&self.task.artifact.payload).into_owned(),
            },
            expected: self.task.expected.clone(),
            path: acted.iter().filter_map(|agent| Some(role(agent)?.name().to_owned())).collect(),
            answer: self.result().payload.to_vec(),
            ..Candidate::default()
        };
        if let Some(progress) = &self.progress {
            let document = progress.document();
            let evidence = document.evidence.iter().map(|e| (e.source.clone(), e.text.clone()));
            candidate.evidence = evidence.collect();
            candidate.verifier_notes =
                document.verification.as_ref().map_or(String::new(), |v| v.notes.clone());
        }
        candidate
    }

    /// The quality of what came out, in [0, 1], if it can be known.
    pub fn quality(&self) -> Option<f64> {
        self.stage.tasks().quality(&self.task, &self.result())
    }
}
