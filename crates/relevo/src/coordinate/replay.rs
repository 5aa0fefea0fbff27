//! Replay of recordings: a participant in *parity configuration* is fed what a coordinator did elsewhere. What it then
//! knows is compared with what was recorded, and each decision with the one it would have taken itself.
//!
//! The participant, its records and its graph are those of every other agent; only [`parity`] is particular. Where the
//! participant would have gone elsewhere, it is left the recorded choice alone: so its ledger says truly that it had no
//! other, and it learns from what happened.

use std::collections::{BTreeMap, BTreeSet};

use relevo_core::{
    Rng,
    graph::{Edge, PolicyGraph, Sums},
    ids::{ActionId, AgentId, EpisodeId, HandoffId, OperationId},
    learner::{Credit, LearnerSpec, Regime},
    observation::{ActionSet, Observation, Signature},
    policy::{PolicySpec, Ties, Ucb},
    protocol::{
        Choice, Effect, Event, Handoff, Journal, Limits, Next, Participant, ParticipantSpec, ProtocolError,
    },
    record::{Record, Table},
    step::StepRule,
    units::{Bounds, Discount, Return, Tau, Usage},
};

use super::{
    plan::{Plan, Skips},
    recording::{Outcome, REWARD_MAX, RecordedEdge, RecordedNode, Run, Taken},
    state::State,
};

/// Sums of squares may differ by this.
const M2_TOLERANCE: f64 = 1e-12;

/// A coordinator that decides and learns as AgensFlow does: the final reward to every step alike, sample means, and
/// upper confidence bounds that take the first admissible cell below five visits of a state and the first of equals above.
pub fn parity(operations: u32) -> ParticipantSpec {
    let bounds = Bounds::new(-REWARD_MAX, REWARD_MAX).expect("an interval");
    let learner = LearnerSpec {
        step: StepRule::Mean,
        policy: PolicySpec::Ucb(Ucb { warm_up: 5, floor: 0.0, ties: Ties::First, ..Ucb::default() }),
        credit: Credit::Trajectory,
        ..LearnerSpec::tabular(1, Regime::Adaptable { operations }, Discount::NONE, bounds)
    };
    ParticipantSpec {
        id: AgentId(0),
        choices: vec![Choice::Finish],
        learner,
        handoff_reward: Return::ZERO,
        limits: Limits::default(),
        journal: Journal::Kept,
    }
}

/// What a replayed coordinator may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Whether it may skip cells.
    pub skips: Skips,
    /// After how many steps it stops.
    pub steps_max: usize,
}

/// A decision that the router would have taken otherwise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Disagreement {
    /// The number of the run.
    pub run: u64,
    /// The step, from 0.
    pub step: usize,
    /// The state.
    pub state: State,
    /// What was recorded.
    pub recorded: String,
    /// What the router gives; `None` where it stops.
    pub given: Option<String>,
}

/// How many of a kind are equal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Equal ones.
    pub equal: usize,
    /// All.
    pub of: usize,
}

impl Tally {
    fn count(&mut self, equal: bool) {
        self.equal += usize::from(equal);
        self.of += 1;
    }

    /// Whether all are equal.
    pub fn is_whole(self) -> bool {
        self.equal == self.of
    }
}

/// A graph held against a recorded one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Comparison {
    /// States that both know, of those that either knows.
    pub nodes: Tally,
    /// Edges with equal visits.
    pub visits: Tally,
    /// Edges whose sums of rewards are equal bit for bit.
    pub sums: Tally,
    /// Edges whose sums of squares are equal within 1e-12.
    pub m2: Tally,
    /// Edges that last led to the same state, or both nowhere.
    pub outgoing: Tally,
    /// Edges with equal failures.
    pub failures: Tally,
    /// Edges with equal sums of tokens.
    pub tokens: Tally,
}

impl Comparison {
    /// Whether nothing differs. Tokens are left out: they decide nothing here, and a recording has one number for all
    /// attempts of an agent in a run.
    pub fn is_whole(&self) -> bool {
        let Comparison { nodes, visits, sums, m2, outgoing, failures, tokens: _ } = *self;
        [nodes, visits, sums, m2, outgoing, failures].into_iter().all(Tally::is_whole)
    }
}

/// A coordinator that repeats a recording.
pub struct Replay<'p> {
    plan: &'p Plan,
    settings: Settings,
    /// Columns beyond the plan: actions that its first graph knows and the plan no longer has.
    retired: Vec<String>,
    participant: Participant,
    rng: Rng,
    effects: Vec<Effect>,
    episodes: u128,
}

impl<'p> Replay<'p> {
    /// A coordinator that knows what the graph `warm` says.
    pub fn new(plan: &'p Plan, warm: &[RecordedNode], settings: Settings) -> Self {
        let names: BTreeSet<&String> = warm.iter().flat_map(|node| node.actions.keys()).collect();
        let retired: Vec<String> = names.into_iter().filter(|n| plan.action(n).is_none()).cloned().collect();
        let spec = parity((plan.width() + retired.len()) as u32);
        let participant = Participant::new(spec, &mut Rng::stream(0, "initial/coordinator"));
        let mut replay = Replay {
            plan,
            settings,
            retired,
            participant: participant.expect("the parity configuration goes together"),
            rng: Rng::stream(0, "policy/coordinator"),
            effects: vec![],
            episodes: 0,
        };
        warm.iter().for_each(|node| replay.restore(node));
        replay
    }

    fn restore(&mut self, node: &RecordedNode) {
        let signature = node.state.signature();
        for (name, recorded) in &node.actions {
            let action = self.action(name).expect("every action of the warm graph has a column");
            let RecordedEdge { visits, rewards, rewards_m2, tokens, tokens_m2, failures } = *recorded;
            let value = if visits == 0 { 0.0 } else { rewards / f64::from(visits) };
            let sums = Sums { targets: rewards, targets_m2: rewards_m2, tokens, tokens_m2 };
            let graph = self.participant.learner_mut().graph_mut(Table::Operations);
            let graph = graph.expect("a coordinator is adaptable");
            graph.restore(signature, action, Edge { value, visits, failures }, sums, value);
            if let Some(next) = node.outgoing.get(name) {
                graph.lead(signature, action, next.signature());
            }
        }
    }

    /// What the coordinator has learned.
    pub fn graph(&self) -> &PolicyGraph {
        self.participant.learner().graph(Table::Operations).expect("a coordinator is adaptable")
    }

    fn action(&self, name: &str) -> Option<ActionId> {
        let retired = || self.retired.iter().position(|r| r == name).map(|i| self.plan.width() + i);
        self.plan.action(name).or_else(|| retired().map(|column| ActionId(column as u32)))
    }

    /// Repeat one run. Its records go to `keep`; returned are the decisions that the router would have taken otherwise.
    pub fn run(
        &mut self,
        run: &Run,
        mut keep: impl FnMut(Record),
    ) -> Result<Vec<Disagreement>, ProtocolError> {
        let id = HandoffId::opening(EpisodeId(self.episodes));
        self.episodes += 1;
        let mut steps = run.steps.clone();
        let mut taken = ActionSet::default();
        let mut disagreements = vec![];
        for at in 0..steps.len() {
            let state = steps[at].state;
            let candidates = self.plan.candidates(&state, &taken, self.settings.skips);
            let mut observation = Observation::of(state.signature(), candidates);
            let given = self.route(at, &observation, id.episode);
            if let Some(given) = given {
                place_failed(&mut steps[at..], given);
            }
            let step = steps[at];
            if given != Some(step.action) {
                disagreements.push(Disagreement {
                    run: run.number,
                    step: at,
                    state,
                    recorded: self.plan.name(step.action),
                    given: given.map(|a| self.plan.name(a)),
                });
                observation.legal = [step.action].into_iter().collect();
            }
            let event = match at.checked_sub(1) {
                None => Event::Received { handoff: Handoff { id, to: AgentId(0), clock: 0 }, observation },
                Some(before) => ended(id, &steps[before], Next::Operate(observation)),
            };
            let asked = self.tell(event, &mut keep)?;
            assert!(
                matches!(asked, Some(Effect::Perform { operation: OperationId(o), .. }) if o == step.action.0),
                "a participant decides as its learner does, and takes the only choice it is left"
            );
            taken.insert(ActionId(self.plan.cell(step.action) as u32));
        }
        let Some(last) = steps.last() else { return Ok(disagreements) };
        let finish = Observation::of(Signature::of_name("finish"), ActionSet::all(1));
        if let Some(Effect::Finish { handoff }) =
            self.tell(ended(id, last, Next::HandOver(finish)), &mut keep)?
        {
            let reward = Return::new(run.reward).expect("rewards are read within bounds");
            self.tell(Event::Finished { handoff, reward }, &mut keep)?;
        }
        Ok(disagreements)
    }

    /// What the router gives after `taken` steps; `None` where it stops.
    fn route(&self, taken: usize, observation: &Observation, episode: EpisodeId) -> Option<ActionId> {
        if taken >= self.settings.steps_max || observation.legal.is_empty() {
            return None;
        }
        let learner = self.participant.learner();
        Some(learner.decide(Table::Operations, observation, episode, 0, &mut self.rng.clone()).action)
    }

    /// Apply an event; returns the last effect, which says what to do next.
    fn tell(&mut self, event: Event, keep: &mut impl FnMut(Record)) -> Result<Option<Effect>, ProtocolError> {
        self.participant.apply(event, &mut self.rng, &mut self.effects)?;
        let mut last = None;
        for effect in self.effects.drain(..) {
            match effect {
                Effect::Record(record) => keep(record),
                other => last = Some(other),
            }
        }
        Ok(last)
    }

    /// Hold what was learned against a recorded graph.
    pub fn compare(&self, recorded: &[RecordedNode]) -> Comparison {
        let graph = self.graph();
        let mut all = Comparison::default();
        let by_signature: BTreeMap<Signature, &RecordedNode> =
            recorded.iter().map(|node| (node.state.signature(), node)).collect();
        let known: BTreeSet<Signature> = graph.signatures().iter().copied().collect();
        for signature in known.union(&by_signature.keys().copied().collect()) {
            let node = by_signature.get(signature);
            all.nodes.count(node.is_some() && known.contains(signature));
            let columns = (0..graph.width() as u32).map(ActionId);
            let mut theirs = BTreeMap::new();
            for (name, edge) in node.iter().flat_map(|node| &node.actions) {
                let next = node.and_then(|node| node.outgoing.get(name)).map(State::signature);
                match self.action(name) {
                    Some(action) => drop(theirs.insert(action, (*edge, next))),
                    // A choice that this coordinator does not have.
                    None => all.edge(None, Some((*edge, next))),
                }
            }
            for action in columns {
                all.edge(edge(graph, *signature, action), theirs.remove(&action));
            }
        }
        all
    }
}

/// An edge in the form of recordings, and where it leads.
type Known = (RecordedEdge, Option<Signature>);

fn edge(graph: &PolicyGraph, signature: Signature, action: ActionId) -> Option<Known> {
    let at = action.index();
    let (edge, sums) = (graph.edges(signature)?[at], graph.sums(signature)?[at]);
    if edge.visits == 0 && edge.failures == 0 {
        return None;
    }
    let Sums { targets: rewards, targets_m2: rewards_m2, tokens, tokens_m2 } = sums;
    let (visits, failures) = (edge.visits, edge.failures);
    let next = graph.leads(signature).and_then(|leads| leads[at]);
    Some((RecordedEdge { visits, rewards, rewards_m2, tokens, tokens_m2, failures }, next))
}

impl Comparison {
    fn edge(&mut self, ours: Option<Known>, theirs: Option<Known>) {
        if ours.is_none() && theirs.is_none() {
            return;
        }
        let pair = ours.zip(theirs);
        let same = |equal: fn(&RecordedEdge, &RecordedEdge) -> bool| {
            pair.is_some_and(|((a, _), (b, _))| equal(&a, &b))
        };
        self.visits.count(same(|a, b| a.visits == b.visits));
        self.sums.count(same(|a, b| a.rewards.to_bits() == b.rewards.to_bits()));
        self.m2.count(same(|a, b| (a.rewards_m2 - b.rewards_m2).abs() <= M2_TOLERANCE));
        self.outgoing.count(pair.is_some_and(|((_, a), (_, b))| a == b));
        self.failures.count(same(|a, b| a.failures == b.failures));
        self.tokens.count(same(|a, b| a.tokens == b.tokens));
    }
}

/// A failed step changes no state, and recordings do not tell its place among the steps of one state: where the router
/// gives it earlier than it is written down, its place is taken to be there.
fn place_failed(rest: &mut [Taken], given: ActionId) {
    let here = rest[0].state;
    let same = rest.iter().take_while(|step| step.state == here);
    let found = same.enumerate().find(|(_, step)| step.outcome == Outcome::Failed && step.action == given);
    if let Some((place, _)) = found {
        rest[..=place].rotate_right(1);
    }
}

/// The event that ends a step.
fn ended(handoff: HandoffId, step: &Taken, next: Next) -> Event {
    let usage = Usage { tokens: step.tokens, failures: step.failures };
    match step.outcome {
        Outcome::Done => Event::Performed { handoff, reward: Return::ZERO, tau: Tau::ONE, usage, next },
        Outcome::Failed => Event::Failed { handoff, usage, next },
    }
}
