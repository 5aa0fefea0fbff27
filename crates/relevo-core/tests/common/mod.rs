//! Shared by the tests: short names for values, a member of a team with its stream and ledger, a team with a random
//! world around it, and a naive reference of Algorithm 1.
#![allow(dead_code, unused_imports)] // each test file uses its own part of it

mod naive;
mod team;

pub(crate) use naive::Naive;
pub(crate) use team::{Team, World};

use relevo_core::{
    Rng,
    graph::PolicyGraph,
    ids::{ActionId, AgentId, EpisodeId, HandoffId},
    learner::{Credit, DecisionPoint, LearnerSpec, Regime},
    observation::{ActionSet, Features, Observation, Signature},
    policy::{EpsilonGreedy, PolicySpec, Ties},
    protocol::{
        Choice, Effect, Effects, Event, Handoff, Journal, Limits, Next, Participant, ParticipantSpec,
        ProtocolError, ValueMessage,
    },
    record::{Entry, Record, Table},
    step::{Schedule, StepRule},
    units::{Bounds, Discount, Return, Tau, Usage, Value},
};

pub(crate) const BEFORE: Regime = Regime::PreConfigured(DecisionPoint::Before);
pub(crate) const AFTER: Regime = Regime::PreConfigured(DecisionPoint::After);
pub(crate) const ADAPTABLE: Regime = Regime::Adaptable { operations: 3 };
pub(crate) const REGIMES: [Regime; 3] = [BEFORE, AFTER, ADAPTABLE];
pub(crate) const CREDITS: [Credit; 3] =
    [Credit::ValuePassing, Credit::Relay { lambda: 0.5 }, Credit::Trajectory];

pub(crate) fn id(episode: u128, seq: u32, from: u32) -> HandoffId {
    HandoffId { episode: EpisodeId(episode), seq, from: AgentId(from) }
}

/// The handoff that brings episode `episode` to agent `to`.
pub(crate) fn opening(episode: u128, to: u32) -> Handoff {
    Handoff { id: HandoffId::opening(EpisodeId(episode)), to: AgentId(to), clock: 0 }
}

/// The handoff that agent `from` makes in answer to [`opening`].
pub(crate) fn second(episode: u128, from: u32) -> HandoffId {
    id(episode, 1, from)
}

pub(crate) fn seen(signature: u64, width: usize) -> Observation {
    Observation::of(Signature(signature), ActionSet::all(width))
}

pub(crate) fn seen_only(signature: u64, actions: &[u32]) -> Observation {
    Observation::of(Signature(signature), actions.iter().copied().map(ActionId).collect())
}

/// Features of a table with pools: two coarser signatures.
pub(crate) fn two_coarser(signature: u64) -> Features {
    Features::Coarser([100, 200 + signature / 2].map(Signature).into())
}

pub(crate) fn earned(reward: f64) -> Return {
    Return::new(reward).unwrap()
}

pub(crate) fn worth(value: f64) -> Value {
    Value::new(value).unwrap()
}

pub(crate) fn lasting(steps: u32) -> Tau {
    Tau::new(steps).unwrap()
}

pub(crate) fn received(handoff: Handoff, observation: Observation) -> Event {
    Event::Received { handoff, observation }
}

pub(crate) fn performed(handoff: HandoffId, reward: f64, tau: u32, next: Next) -> Event {
    let usage = Usage { tokens: 10, failures: 0 };
    Event::Performed { handoff, reward: earned(reward), tau: lasting(tau), usage, next }
}

pub(crate) fn valued(handoff: HandoffId, value: f64) -> Event {
    Event::Valued(ValueMessage::new(handoff, worth(value)))
}

pub(crate) fn finished(handoff: HandoffId, reward: f64) -> Event {
    Event::Finished { handoff, reward: earned(reward) }
}

pub(crate) fn exploring(epsilon: f64) -> PolicySpec {
    PolicySpec::EpsilonGreedy(EpsilonGreedy { epsilon: Schedule::Constant(epsilon), ties: Ties::First })
}

/// A tabular participant `me` whose columns lead to `others` and then to the end; gamma .9, values in [-100, 100].
pub(crate) fn spec(me: u32, others: &[u32], regime: Regime) -> ParticipantSpec {
    let mut choices: Vec<Choice> = others.iter().map(|to| Choice::HandTo(AgentId(*to))).collect();
    choices.push(Choice::Finish);
    let (discount, bounds) = (Discount::new(0.9).unwrap(), Bounds::new(-100.0, 100.0).unwrap());
    let learner = LearnerSpec {
        policy: exploring(0.3),
        ..LearnerSpec::tabular(choices.len() as u32, regime, discount, bounds)
    };
    let (limits, journal) = (Limits::default(), Journal::Kept);
    ParticipantSpec { id: AgentId(me), choices, learner, handoff_reward: earned(-0.125), limits, journal }
}

/// A participant with its random stream, and what it recorded.
#[derive(Clone, Debug)]
pub(crate) struct Member {
    pub(crate) participant: Participant,
    pub(crate) rng: Rng,
    pub(crate) records: Vec<Record>,
}

impl Member {
    pub(crate) fn new(spec: ParticipantSpec, seed: u64) -> Self {
        let mut rng = stream(seed, spec.id);
        Member { participant: Participant::new(spec, &mut rng).unwrap(), rng, records: vec![] }
    }

    pub(crate) fn try_tell(&mut self, event: Event) -> Result<Effects, ProtocolError> {
        let mut effects = vec![];
        self.participant.apply(event, &mut self.rng, &mut effects)?;
        self.records.extend(records(&effects));
        Ok(effects)
    }

    /// The effects of an event that is not refused; the records among them are also kept.
    pub(crate) fn tell(&mut self, event: Event) -> Effects {
        self.try_tell(event).unwrap()
    }

    pub(crate) fn graph(&self, table: Table) -> &PolicyGraph {
        self.participant.learner().graph(table).unwrap()
    }

    /// Q(signature, action) of the successor table.
    pub(crate) fn q(&self, signature: u64, action: usize) -> f64 {
        self.table(Table::Successors, signature, action)
    }

    pub(crate) fn table(&self, table: Table, signature: u64, action: usize) -> f64 {
        let graph = self.graph(table);
        graph.edges(Signature(signature)).map_or(graph.initial(), |edges| edges[action].value)
    }

    /// The bytes of its ledger.
    pub(crate) fn ledger(&self) -> Vec<u8> {
        bytes_of(self.participant.spec().id, &self.records)
    }

    /// All that it is, in writing. The public boundary shows little of the maps in flight; this shows all.
    pub(crate) fn state(&self) -> String {
        format!("{:?}", self.participant)
    }
}

pub(crate) fn stream(seed: u64, agent: AgentId) -> Rng {
    Rng::stream(seed, &format!("policy/agent-{}", agent.0))
}

pub(crate) fn bytes_of(agent: AgentId, records: &[Record]) -> Vec<u8> {
    let mut bytes = vec![];
    records.iter().for_each(|record| Entry { agent, record: record.clone() }.write(&mut bytes));
    bytes
}

pub(crate) fn records(effects: &[Effect]) -> Vec<Record> {
    let record = |effect: &Effect| match effect {
        Effect::Record(record) => Some(record.clone()),
        _ => None,
    };
    effects.iter().filter_map(record).collect()
}

pub(crate) fn values(effects: &[Effect]) -> Vec<ValueMessage> {
    let value = |effect: &Effect| match effect {
        Effect::Value { message, .. } => Some(*message),
        _ => None,
    };
    effects.iter().filter_map(value).collect()
}

/// The choices made in these effects, in order.
pub(crate) fn decided(effects: &[Effect]) -> Vec<(Table, ActionId)> {
    let decision = |effect: &Effect| match effect {
        Effect::Record(Record::Decided { table, action, .. }) => Some((*table, *action)),
        _ => None,
    };
    effects.iter().filter_map(decision).collect()
}

/// One edge: where it is, its value, visits and failures, its sums, and the value that decisions are taken on.
pub(crate) type Bits = (Signature, usize, (u64, u32, u32), [u64; 4], u64);

/// What a graph says, edge by edge, bit by bit.
pub(crate) fn edges(graph: &PolicyGraph) -> Vec<Bits> {
    let mut decisions = vec![0.0; graph.width()];
    let mut all = vec![];
    for signature in graph.signatures() {
        graph.decision_values(*signature, &mut decisions);
        let cells = graph.edges(*signature).unwrap().iter().zip(graph.sums(*signature).unwrap()).enumerate();
        for (action, (edge, sums)) in cells {
            let sums = [sums.targets, sums.targets_m2, sums.tokens, sums.tokens_m2].map(f64::to_bits);
            let decision = decisions[action].to_bits();
            all.push((
                *signature,
                action,
                (edge.value.to_bits(), edge.visits, edge.failures),
                sums,
                decision,
            ));
        }
    }
    all
}

pub(crate) fn tables_of(regime: Regime) -> &'static [Table] {
    match regime {
        Regime::PreConfigured(_) => &[Table::Successors],
        Regime::Adaptable { .. } => &[Table::Successors, Table::Operations],
    }
}
