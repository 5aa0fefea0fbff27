//! The learner of one agent: appraises a situation for the predecessor, decides, and settles (paper, Algorithm 1).
//! Driven by [`crate::protocol::Participant`]; it knows nothing of handoffs, ids or messages.

mod saved;

use alloc::{
    borrow::Cow,
    collections::{BTreeMap, btree_map::Entry},
    vec::Vec,
};
use minicbor::{Decode, Encode};

pub use crate::experience::ExperienceReplay;
use crate::{
    experience::{Experience, Memory},
    graph::{Node, PolicyGraph},
    ids::{ActionId, EpisodeId},
    observation::{Observation, Signature},
    policy::{Decision, Numbers, Policy, PolicySpec, Scores, is_greedy, most_valued},
    pools::{PooledSpec, Shrunk},
    q::{FeatureError, Linear, LinearSpec, Mlp, MlpSpec, QFunction, ShapeError},
    record::Table,
    rng::Rng,
    step::{Schedule, StepRule},
    units::{Bounds, Confidence, Discount, Return, Tau, Usage, Value},
};

/// Which of its choices an agent learns (paper, section 2.1), and when it makes them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Regime {
    /// Operations are fixed; only the successor is learned, chosen at this point.
    PreConfigured(DecisionPoint),
    /// The local operations are learned too, by Q~, coupled to Q; the successor is chosen after them.
    Adaptable {
        /// How many operations there are.
        operations: u32,
    },
}

/// When a pre-configured agent chooses its successor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DecisionPoint {
    /// At activation, before its own operation.
    Before,
    /// After its own operation, on what came out of it.
    After,
}

/// How an estimate is kept.
#[derive(Clone, Debug, PartialEq)]
pub enum Estimator {
    /// One cell per signature and choice: the policy graph itself.
    Table,
    /// The same, shrunk towards what is known of coarser situations and of choices alike.
    Pooled(PooledSpec),
    /// Linear in the features.
    Linear(LinearSpec),
    /// A neural network on dense features.
    Mlp(MlpSpec),
}

/// Who learns what from how a task ends.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Credit {
    /// The successor's greedy value at its activation: `y = R + gamma^tau V` (the paper).
    ValuePassing,
    /// The same scalar, sent after the successor's own step has been settled:
    /// `V = (1 - lambda) max Q + lambda y` if its choice was greedy, else `max Q` (Watkins cut).
    Relay {
        /// lambda in [0, 1].
        lambda: f64,
    },
    /// The final reward of the task to every step alike: `y = G`.
    Trajectory,
}

/// How an adaptable agent learns Q~, the values of its local operations, where otherwise than Q.
#[derive(Clone, Debug, PartialEq)]
pub struct LocalSpec {
    /// The estimator.
    pub estimator: Estimator,
    /// The step rule.
    pub step: StepRule,
    /// Learn again from own operations; moves the estimator, and not the graph of what happened.
    pub replay: Option<ExperienceReplay>,
}

/// What goes beyond the paper's one scalar per handoff. All off by default.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Extensions {
    /// Keep own handoffs as an empirical model and ask receivers again for their current values, by opaque handle.
    pub local_model: bool,
    /// Send a value again when it has moved by more than this.
    pub refresh: Option<f64>,
    /// Send a standard error with each value; evaluate with `V - c se`, explore with `V + c se`. This is c.
    pub standard_error: Option<f64>,
}

/// Whether choices that were made and not yet settled count among the visits that a policy sees. They say nothing of
/// values.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PendingDecisions {
    /// No: tasks decided at the same time take the same choice.
    #[default]
    Ignored,
    /// Yes: tasks decided at the same time do not all try the same choice.
    Counted,
}

/// Everything a learner is made of.
#[derive(Clone, Debug, PartialEq)]
pub struct LearnerSpec {
    /// How many successors (columns) there are.
    pub successors: u32,
    /// What is learned and when it is chosen.
    pub regime: Regime,
    /// gamma.
    pub discount: Discount,
    /// Where values lie; what comes from outside is clamped into it.
    pub bounds: Bounds,
    /// The value of what was never tried.
    pub initial: f64,
    /// The estimator.
    pub estimator: Estimator,
    /// The step rule.
    pub step: StepRule,
    /// How an adaptable agent learns its local operations; as its successors where absent.
    pub local: Option<LocalSpec>,
    /// The policy.
    pub policy: PolicySpec,
    /// Credit assignment.
    pub credit: Credit,
    /// Beyond the paper.
    pub extensions: Extensions,
    /// Whether choices not yet settled count.
    pub pending: PendingDecisions,
    /// Most signatures a graph keeps apart.
    pub signatures_max: usize,
}

/// A specification that cannot work, with the reason.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum SpecError {
    /// 1/n and bootstrapping.
    #[error(
        "the step rule 1/n (mean) cannot be used with {credit}: early targets hold the successors' first guesses \
         and 1/n never forgets them (measured error falls like T^-0.19 instead of T^-1); use resc, poly or \
         poly-average, or trajectory credit, which does not bootstrap"
    )]
    MeanWithBootstrapping {
        /// The credit assignment that bootstraps.
        credit: &'static str,
    },
    /// A number outside of its range.
    #[error("{what} is {value}: it must lie in {range}")]
    Range {
        /// Which.
        what: &'static str,
        /// What was given.
        value: f64,
        /// What is allowed.
        range: &'static str,
    },
    /// Parts that do not go together.
    #[error("{0}")]
    Combination(&'static str),
    /// A network or linear estimator of impossible shape.
    #[error(transparent)]
    Shape(#[from] ShapeError),
}

impl LearnerSpec {
    /// A tabular learner with the paper's credit and this crate's defaults.
    pub fn tabular(successors: u32, regime: Regime, discount: Discount, bounds: Bounds) -> Self {
        LearnerSpec {
            successors,
            regime,
            discount,
            bounds,
            initial: 0.0,
            estimator: Estimator::Table,
            step: StepRule::Poly { exponent: 0.7 },
            local: None,
            policy: PolicySpec::EpsilonGreedy(crate::policy::EpsilonGreedy {
                epsilon: Schedule::Constant(0.1),
                ties: crate::policy::Ties::First,
            }),
            credit: Credit::ValuePassing,
            extensions: Extensions::default(),
            pending: PendingDecisions::default(),
            signatures_max: 1 << 22,
        }
    }

    /// Whether the parts go together; every learner and participant begins with it.
    pub fn check(&self) -> Result<(), SpecError> {
        fn within(
            what: &'static str,
            value: f64,
            range: &'static str,
            holds: fn(f64) -> bool,
        ) -> Result<(), SpecError> {
            if holds(value) { Ok(()) } else { Err(SpecError::Range { what, value, range }) }
        }
        fn probability(what: &'static str, schedule: Schedule) -> Result<(), SpecError> {
            let (ends, shape) = match schedule {
                Schedule::Constant(x) => ([x, x], 1.0),
                Schedule::Linear { from, to, .. } => ([from, to], 1.0),
                Schedule::Power { floor, scale, exponent } => ([floor, floor], scale.min(exponent)),
            };
            within("the scale or exponent of a schedule", shape, "(0, inf)", |x| x > 0.0 && x.is_finite())?;
            ends.into_iter().try_for_each(|x| within(what, x, "[0, 1]", |x| (0.0..=1.0).contains(&x)))
        }
        for step in [Some(self.step), self.local.as_ref().map(|local| local.step)].into_iter().flatten() {
            match (step, self.credit) {
                (StepRule::Mean, Credit::ValuePassing) => {
                    return Err(SpecError::MeanWithBootstrapping { credit: "value passing" });
                }
                (StepRule::Mean, Credit::Relay { .. }) => {
                    return Err(SpecError::MeanWithBootstrapping { credit: "relay" });
                }
                (StepRule::Poly { exponent } | StepRule::PolyAverage { exponent }, _) => {
                    within("the exponent of the step rule", exponent, "(0.5, 1)", |x| x > 0.5 && x < 1.0)?;
                }
                (StepRule::Constant(step), _) => {
                    within("the constant step", step, "(0, 1]", |x| x > 0.0 && x <= 1.0)?;
                }
                (StepRule::Mean | StepRule::Resc { .. }, _) => {}
            }
        }
        if let Some(local) = &self.local {
            local.check(self.regime, self.credit)?;
        }
        if let Credit::Relay { lambda } = self.credit {
            within("lambda", lambda, "[0, 1]", |x| (0.0..=1.0).contains(&x))?;
        }
        match &self.policy {
            PolicySpec::EpsilonGreedy(policy) => probability("epsilon", policy.epsilon)?,
            PolicySpec::Ucb(ucb) => {
                within("the floor of the policy", ucb.floor, "[0, 1]", |x| (0.0..=1.0).contains(&x))?;
                within("the half-life of exploration", ucb.half_life, "(0, inf)", |x| {
                    x > 0.0 && x.is_finite()
                })?;
                for exploration in [ucb.exploration, ucb.exploration_min] {
                    within("exploration", exploration, "[0, inf)", |x| x >= 0.0 && x.is_finite())?;
                }
                within("the weight of reliability", ucb.reliability, "the finite numbers", f64::is_finite)?;
            }
            PolicySpec::Posterior(posterior) => {
                within("the floor of the policy", posterior.floor, "(0, 1]", |x| x > 0.0 && x <= 1.0)?;
                within("the variance of the posterior", posterior.variance, "(0, inf)", |x| {
                    x > 0.0 && x.is_finite()
                })?;
            }
        }
        within("the initial value", self.initial, "the finite numbers", f64::is_finite)?;
        if self.initial < self.bounds.min() || self.initial > self.bounds.max() {
            return Err(SpecError::Range {
                what: "the initial value",
                value: self.initial,
                range: "the declared bounds of values",
            });
        }
        if self.successors == 0 || matches!(self.regime, Regime::Adaptable { operations: 0 }) {
            return Err(SpecError::Combination("an agent needs at least one choice in every table"));
        }
        let operations = match self.regime {
            Regime::Adaptable { operations } => Some(operations),
            Regime::PreConfigured(_) => None,
        };
        let local = self.local.as_ref().map_or(&self.estimator, |local| &local.estimator);
        for (estimator, width) in [(&self.estimator, Some(self.successors)), (local, operations)] {
            let (Estimator::Pooled(pooled), Some(width)) = (estimator, width) else { continue };
            within("the strength of pools", pooled.strength, "(0, inf)", |x| x > 0.0 && x.is_finite())?;
            if !pooled.groups.is_empty() && pooled.groups.len() != width as usize {
                return Err(SpecError::Combination(
                    "a pooled estimator names the groups of every column of its table, or of none",
                ));
            }
            if pooled.groups.iter().flatten().any(|group| *group >= PooledSpec::GROUPS_MAX) {
                return Err(SpecError::Combination(
                    "the groups of a pooled estimator are numbers below 2^16",
                ));
            }
        }
        let extended = self.extensions != Extensions::default();
        if extended && self.credit != Credit::ValuePassing {
            return Err(SpecError::Combination(
                "the extensions (local model, refresh, standard error) go with value passing only",
            ));
        }
        if extended && self.regime == Regime::PreConfigured(DecisionPoint::After) {
            return Err(SpecError::Combination(
                "the extensions speak of situations at activation: they need an agent that decides before its \
                 operation, or an adaptable one",
            ));
        }
        if self.extensions.local_model && self.estimator != Estimator::Table {
            return Err(SpecError::Combination("the local model needs the tabular estimator"));
        }
        if self.extensions.local_model && self.extensions.standard_error.is_some() {
            return Err(SpecError::Combination(
                "the local model takes receivers' values as they are: it does not go with the standard error",
            ));
        }
        if let Some(c) = self.extensions.standard_error {
            within("the weight of the standard error", c, "[0, inf)", |x| x >= 0.0 && x.is_finite())?;
        }
        if let Some(theta) = self.extensions.refresh {
            within("the refresh threshold", theta, "[0, inf)", |x| x >= 0.0 && x.is_finite())?;
        }
        Ok(())
    }
}

impl LocalSpec {
    fn check(&self, regime: Regime, credit: Credit) -> Result<(), SpecError> {
        if !matches!(regime, Regime::Adaptable { .. }) {
            return Err(SpecError::Combination("only an adaptable agent learns local operations"));
        }
        let Some(ExperienceReplay { capacity, .. }) = self.replay else { return Ok(()) };
        if !(1..=ExperienceReplay::CAPACITY_MAX).contains(&capacity) {
            return Err(SpecError::Range {
                what: "the capacity of experience replay",
                value: capacity as f64,
                range: "[1, 2^24]",
            });
        }
        if credit != Credit::ValuePassing {
            return Err(SpecError::Combination(
                "experience replay goes with value passing only: other credit is not computed from own tables",
            ));
        }
        if matches!(self.estimator, Estimator::Table | Estimator::Pooled(_)) {
            return Err(SpecError::Combination(
                "experience replay needs an estimator that generalises: a table is the graph of what happened",
            ));
        }
        Ok(())
    }
}

/// What a choice led to, ready to be learned from.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
#[cbor(array)]
pub struct Step {
    /// Where the choice was made.
    #[n(0)]
    pub observation: Observation,
    /// The choice.
    #[n(1)]
    pub action: ActionId,
    /// R, accrued after the choice.
    #[n(2)]
    pub reward: Return,
    /// How long the option took.
    #[n(3)]
    pub tau: Tau,
    /// What it used up.
    #[n(4)]
    pub usage: Usage,
}

/// How an estimate moved.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Settlement {
    /// The target y.
    pub target: f64,
    /// y - Q(o, a), before.
    pub error: f64,
    /// The step alpha.
    pub step: f64,
}

/// The value of a situation, and how sure the agent is of it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Appraisal {
    /// max over the admissible choices.
    pub value: Value,
    /// Standard error of the best choice's value; infinite spread is cut to the width of the bounds.
    pub standard_error: f64,
}

/// What a policy looks at in a situation, and what it makes of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Evidence {
    /// The values that choices are compared by, by column.
    pub values: Vec<f64>,
    /// The visits that priors stand for, and choices not yet settled where they count, by column; empty where there are
    /// none.
    pub pseudo: Vec<f64>,
    /// The probability of each admissible choice, in ascending order of their columns.
    pub probabilities: Vec<f64>,
}

/// What one agent knows: a graph of what happened, and, unless the graph is the estimator, the estimator.
#[derive(Clone, Debug)]
struct ActionValues {
    graph: PolicyGraph,
    approximator: Option<Approximator>,
    /// Choices made and not yet settled, where they count; as many as are in flight.
    pending: BTreeMap<(Signature, ActionId), u32>,
}

#[derive(Clone, Debug)]
enum Approximator {
    Linear(Linear),
    Mlp(alloc::boxed::Box<Mlp>),
}

impl Approximator {
    fn q(&self) -> &dyn QFunction {
        match self {
            Approximator::Linear(q) => q,
            Approximator::Mlp(q) => &**q,
        }
    }

    fn q_mut(&mut self) -> &mut dyn QFunction {
        match self {
            Approximator::Linear(q) => q,
            Approximator::Mlp(q) => &mut **q,
        }
    }
}

impl ActionValues {
    fn new(
        spec: &LearnerSpec,
        (estimator, step): (&Estimator, StepRule),
        width: u32,
        rng: &mut Rng,
    ) -> Result<Self, SpecError> {
        let width = width as usize;
        let mut graph = PolicyGraph::new(width, spec.initial, step, spec.signatures_max);
        let approximator = match estimator {
            Estimator::Table => None,
            Estimator::Pooled(pooled) => {
                graph = graph.with_pools(pooled.clone());
                None
            }
            Estimator::Linear(linear) => Some(Approximator::Linear(Linear::new(LinearSpec {
                width,
                init: spec.initial,
                ..linear.clone()
            })?)),
            Estimator::Mlp(mlp) => Some(Approximator::Mlp(alloc::boxed::Box::new(Mlp::new(
                MlpSpec { width, offset: spec.initial, ..mlp.clone() },
                rng,
            )?))),
        };
        Ok(ActionValues { graph, approximator, pending: BTreeMap::new() })
    }

    /// All that is known, but for one choice not yet settled of `except`.
    fn view<'a>(&'a self, spec: &'a LearnerSpec, o: &'a Observation, except: Option<ActionId>) -> View<'a> {
        let mut view = self.settled_view(spec, o);
        let here = (o.signature, ActionId(0))..=(o.signature, ActionId(u32::MAX));
        for ((_, action), choices) in self.pending.range(here) {
            let choices = choices - u32::from(except == Some(*action));
            view.pseudo.resize(self.graph.width(), 0.0);
            view.pseudo[action.index()] += f64::from(choices);
        }
        view
    }

    /// What is known from choices that were settled.
    fn settled_view<'a>(&'a self, spec: &'a LearnerSpec, o: &'a Observation) -> View<'a> {
        let node = self.graph.node(o.signature);
        if let Some(Shrunk { values, averages, pseudo }) = self.graph.shrink(o, node) {
            return View { spec, o, node, values, averages: averages.map(Cow::Owned), pseudo };
        }
        let values = match (&self.approximator, node) {
            (None, Some(node)) => node.edges.iter().map(|e| e.value).collect(),
            (None, None) => Numbers::from_elem(self.graph.initial(), self.graph.width()),
            (Some(approximator), _) => {
                let mut out = Numbers::from_elem(0.0, self.graph.width());
                approximator.q().values(o, &mut out);
                out
            }
        };
        let pseudo = match node {
            Some(node) if node.priors.is_some() => (0..self.graph.width()).map(|a| node.weight(a)).collect(),
            _ => Vec::new(),
        };
        let averages = match self.approximator {
            None => node.and_then(|node| node.averages).map(Cow::Borrowed),
            Some(_) => None,
        };
        View { spec, o, node, values, averages, pseudo }
    }

    fn accepts(&self, o: &Observation) -> Result<(), FeatureError> {
        match &self.approximator {
            None => Ok(()),
            Some(Approximator::Linear(q)) => q.accepts(o),
            Some(Approximator::Mlp(q)) => q.accepts(o),
        }
    }
}

/// What a learner knows of one situation, read once: to appraise it, to decide in it, or both.
pub(crate) struct View<'a> {
    spec: &'a LearnerSpec,
    o: &'a Observation,
    node: Option<Node<'a>>,
    /// Current estimates: what is passed back and bootstrapped from.
    values: Numbers,
    /// What decisions are taken on instead, where a table averages.
    averages: Option<Cow<'a, [f64]>>,
    /// The visits that priors stand for, and choices not yet settled; empty where there are none.
    pseudo: Vec<f64>,
}

impl View<'_> {
    /// The situation.
    pub(crate) fn signature(&self) -> Signature {
        self.o.signature
    }

    fn decision_values(&self) -> &[f64] {
        self.averages.as_deref().unwrap_or(&self.values)
    }

    fn best(&self) -> ActionId {
        most_valued(&self.o.legal, &self.values).expect("an observation without choices is refused before")
    }

    /// `V = max_a Q(o, a)` over the admissible choices (paper, equation 4), within the declared bounds.
    pub(crate) fn value(&self) -> Value {
        self.value_of(self.best())
    }

    fn value_of(&self, best: ActionId) -> Value {
        let value = Value::new(self.values[best.index()]).unwrap_or_else(|_| {
            // A diverged approximator must not poison its neighbours.
            Value::new(self.spec.initial).expect("checked to be finite")
        });
        self.spec.bounds.clamp(value)
    }

    /// The value, and how sure the agent is of it.
    pub(crate) fn appraise(&self) -> Appraisal {
        let best = self.best();
        let width = self.spec.bounds.max() - self.spec.bounds.min();
        let standard_error = self
            .node
            .map(|node| (node.edges[best.index()].visits, node.sums[best.index()].targets_m2))
            .filter(|(n, _)| *n > 1)
            // se = sqrt(M2 / (n - 1) / n)
            .map_or(width, |(n, m2)| libm::sqrt(m2 / (f64::from(n) - 1.0) / f64::from(n)).min(width));
        Appraisal { value: self.value_of(best), standard_error }
    }

    /// Choose among the admissible choices.
    pub(crate) fn decide(&self, episode: EpisodeId, clock: u64, rng: &mut Rng) -> Decision {
        self.scored(episode, clock, |scores| self.spec.policy.decide(scores, rng))
    }

    /// The same choice without its probabilities; and whether no other is worth more.
    pub(crate) fn choose(&self, episode: EpisodeId, clock: u64, rng: &mut Rng) -> (ActionId, bool) {
        self.scored(episode, clock, |scores| {
            let action = self.spec.policy.choose(scores, rng);
            (action, is_greedy(scores, action))
        })
    }

    /// What a decision rests on.
    fn evidence(&self, episode: EpisodeId, clock: u64) -> Evidence {
        self.scored(episode, clock, |scores| Evidence {
            values: scores.values.to_vec(),
            pseudo: scores.pseudo.to_vec(),
            probabilities: self.spec.policy.probabilities(scores).to_vec(),
        })
    }

    /// What the policy is to look at.
    fn scored<T>(&self, episode: EpisodeId, clock: u64, look: impl FnOnce(Scores<'_>) -> T) -> T {
        let spreads = self.node.and_then(|node| node.spreads).unwrap_or(&[]);
        let mut optimistic;
        let mut values = self.decision_values();
        if let Some(c) = self.spec.extensions.standard_error {
            // Targets were taken at V - c se; exploration sees V + c se, that is 2 c gamma^tau se more.
            optimistic = Numbers::from_slice(values);
            optimistic.iter_mut().zip(spreads).for_each(|(v, s)| *v += 2.0 * c * s);
            values = &optimistic;
        }
        look(Scores {
            legal: &self.o.legal,
            values,
            edges: self.node.map_or(&[], |node| node.edges),
            spreads,
            pseudo: &self.pseudo,
            signature: self.o.signature,
            episode,
            clock,
        })
    }
}

/// The learner of one agent.
#[derive(Clone, Debug)]
pub struct Learner {
    spec: LearnerSpec,
    successors: ActionValues,
    operations: Option<ActionValues>,
    memory: Option<Memory>,
}

impl Learner {
    /// A learner that knows nothing yet; `rng` initialises networks and nothing else.
    pub fn new(spec: LearnerSpec, rng: &mut Rng) -> Result<Self, SpecError> {
        spec.check()?;
        let like = (&spec.estimator, spec.step);
        let local = spec.local.as_ref().map_or(like, |local| (&local.estimator, local.step));
        let successors = ActionValues::new(&spec, like, spec.successors, rng)?;
        let operations = match spec.regime {
            Regime::PreConfigured(_) => None,
            Regime::Adaptable { operations } => Some(ActionValues::new(&spec, local, operations, rng)?),
        };
        let memory = spec.local.as_ref().and_then(|local| local.replay).map(Memory::new);
        Ok(Learner { spec, successors, operations, memory })
    }

    /// What it was made of.
    pub fn spec(&self) -> &LearnerSpec {
        &self.spec
    }

    /// The policy graph of a table; `None` for the operations of a pre-configured agent.
    pub fn graph(&self, table: Table) -> Option<&PolicyGraph> {
        self.tables(table).map(|t| &t.graph)
    }

    /// The policy graph of a table, to put back what a policy file holds.
    pub fn graph_mut(&mut self, table: Table) -> Option<&mut PolicyGraph> {
        match table {
            Table::Successors => Some(&mut self.successors.graph),
            Table::Operations => self.operations.as_mut().map(|t| &mut t.graph),
        }
    }

    /// The parameters of a linear or neural estimator, as little-endian bytes; `None` for a table.
    pub fn parameters(&self, table: Table) -> Option<Vec<u8>> {
        match self.tables(table)?.approximator.as_ref()? {
            Approximator::Linear(q) => Some(q.parameters().iter().flat_map(|x| x.to_le_bytes()).collect()),
            Approximator::Mlp(q) => Some(q.parameters().iter().flat_map(|x| x.to_le_bytes()).collect()),
        }
    }

    /// Put back the parameters that [`Learner::parameters`] gave; refused if their number is wrong or one is not finite.
    pub fn set_parameters(&mut self, table: Table, bytes: &[u8]) -> Result<(), ShapeError> {
        let values = match table {
            Table::Successors => Some(&mut self.successors),
            Table::Operations => self.operations.as_mut(),
        };
        match values.and_then(|v| v.approximator.as_mut()) {
            None => Ok(()),
            Some(Approximator::Linear(q)) => {
                let (words, _) = bytes.as_chunks();
                q.set_parameters(&words.iter().map(|w| f64::from_le_bytes(*w)).collect::<Vec<_>>())
            }
            Some(Approximator::Mlp(q)) => {
                let (words, _) = bytes.as_chunks();
                q.set_parameters(&words.iter().map(|w| f32::from_le_bytes(*w)).collect::<Vec<_>>())
            }
        }
    }

    fn tables(&self, table: Table) -> Option<&ActionValues> {
        match table {
            Table::Successors => Some(&self.successors),
            Table::Operations => self.operations.as_ref(),
        }
    }

    fn table(&self, table: Table) -> &ActionValues {
        self.tables(table)
            .expect("operations are only asked of an adaptable agent; the participant checks it")
    }

    fn table_mut(&mut self, table: Table) -> &mut ActionValues {
        match table {
            Table::Successors => &mut self.successors,
            Table::Operations => self.operations.as_mut().expect("checked by the participant"),
        }
    }

    /// The signature under which a table keeps a situation: its own, or that of the rest.
    pub(crate) fn key(&self, table: Table, signature: Signature) -> Signature {
        self.table(table).graph.key(signature)
    }

    /// Whether the estimator can use an observation made for `table`.
    pub fn accepts(&self, table: Table, o: &Observation) -> Result<(), FeatureError> {
        self.table(table).accepts(o)
    }

    /// The values of all choices at `o`, by column, as decisions see them.
    pub fn values(&self, table: Table, o: &Observation) -> Vec<f64> {
        self.view(table, o).decision_values().to_vec()
    }

    /// What is known of a situation.
    pub(crate) fn view<'a>(&'a self, table: Table, o: &'a Observation) -> View<'a> {
        self.table(table).view(&self.spec, o, None)
    }

    /// `V = max_a Q(o, a)` over the admissible choices (paper, equation 4), within the declared bounds.
    pub fn appraise(&self, table: Table, o: &Observation) -> Appraisal {
        self.view(table, o).appraise()
    }

    /// Choose among the admissible choices at `o`.
    pub fn decide(
        &self,
        table: Table,
        o: &Observation,
        episode: EpisodeId,
        clock: u64,
        rng: &mut Rng,
    ) -> Decision {
        self.view(table, o).decide(episode, clock, rng)
    }

    /// Whether a table can begin with what an earlier policy says.
    pub(crate) fn takes_priors(&self, table: Table) -> bool {
        // The local model computes values from its own cells alone.
        let modelled = self.spec.extensions.local_model && table == Table::Successors;
        !modelled && self.tables(table).is_some_and(|values| values.approximator.is_none())
    }

    /// Choices made in `table` and not yet settled; 0 unless they count ([`PendingDecisions`]).
    pub fn pending(&self, table: Table) -> u64 {
        self.tables(table).map_or(0, |values| values.pending.values().map(|n| u64::from(*n)).sum())
    }

    /// Note a choice, until [`Learner::close`].
    pub(crate) fn open(&mut self, table: Table, signature: Signature, action: ActionId) {
        if self.spec.pending == PendingDecisions::Counted {
            *self.table_mut(table).pending.entry((signature, action)).or_default() += 1;
        }
    }

    /// A choice was settled, or given up.
    pub(crate) fn close(&mut self, table: Table, signature: Signature, action: ActionId) {
        if self.spec.pending == PendingDecisions::Counted
            && let Entry::Occupied(mut pending) = self.table_mut(table).pending.entry((signature, action))
        {
            *pending.get_mut() -= 1;
            if *pending.get() == 0 {
                pending.remove();
            }
        }
    }

    /// What a decision looks at, and the probabilities that it draws from. `made` is its choice, if it has been made just
    /// now: it does not count among those not yet settled.
    pub fn evidence(
        &self,
        table: Table,
        o: &Observation,
        made: Option<ActionId>,
        episode: EpisodeId,
        clock: u64,
    ) -> Evidence {
        self.table(table).view(&self.spec, o, made).evidence(episode, clock)
    }

    /// The target of a step whose successor returned `value`; `None` where the task ended in it.
    pub fn target(&self, step: &Step, value: Option<Value>) -> f64 {
        let r = step.reward.get();
        match (self.spec.credit, value) {
            // y = G
            (Credit::Trajectory, Some(value)) => value.get(),
            // y = R + gamma^tau V                                        (paper, equation 5)
            (_, Some(value)) => r + self.spec.discount.over(step.tau) * value.get(),
            // y = R                                                      (terminal)
            (_, None) => r,
        }
    }

    /// Move the estimate of a step towards `target`.
    pub fn settle(&mut self, table: Table, step: &Step, target: f64) -> Settlement {
        self.settle_trusting(table, step, target, Confidence::FULL)
    }

    /// The same, by a step that `confidence` scales.
    pub fn settle_trusting(
        &mut self,
        table: Table,
        step: &Step,
        target: f64,
        confidence: Confidence,
    ) -> Settlement {
        let values = self.table_mut(table);
        let Step { observation, action, usage, .. } = step;
        let (error, alpha) = values.graph.settle_next(observation, *action, target, *usage, confidence);
        let error = match &mut values.approximator {
            None => error,
            Some(approximator) => approximator.q_mut().update(&step.observation, step.action, target, alpha),
        };
        Settlement { target, error, step: alpha }
    }

    /// Remember a local operation and what followed it, and learn again from remembered ones. The targets are computed
    /// afresh: Q~ follows Q where the agent has not been again.
    pub(crate) fn rehearse(&mut self, step: Step, next: Option<(Table, &Observation)>, rng: &mut Rng) {
        let Some(mut memory) = self.memory.take() else { return };
        memory.keep(Experience { step, next: next.map(|(table, o)| (table, o.clone())) });
        for _ in 0..memory.spec.updates {
            let Experience { step, next } = memory.draw(rng);
            let value = next.as_ref().map(|(table, o)| self.appraise(*table, o).value);
            let target = self.target(step, value);
            self.move_again(Table::Operations, step, target);
        }
        self.memory = Some(memory);
    }

    /// Move an approximator towards `target`, by the step of a cell that is not visited; returns that step.
    fn move_again(&mut self, table: Table, step: &Step, target: f64) -> f64 {
        let values = self.table_mut(table);
        let node = values.graph.node(step.observation.signature);
        let column = step.action.index();
        let visits = node.map_or(0.0, |node| f64::from(node.edges[column].visits) + node.weight(column));
        let visits = (visits as u32).max(1);
        let alpha = values.graph.step_rule().step(visits);
        if let Some(approximator) = &mut values.approximator {
            approximator.q_mut().update(&step.observation, step.action, target, alpha);
        }
        alpha
    }

    /// Set the estimate of a step to `target`, which is an average already (extension: local model).
    pub(crate) fn settle_fully(&mut self, table: Table, step: &Step, target: f64) -> Settlement {
        let graph = self.graph_mut(table).expect("successors always have a graph");
        let error = graph.settle(step.observation.signature, step.action, target, 1.0, step.usage);
        Settlement { target, error, step: 1.0 }
    }

    /// Take in the standard error that came with a value (extension).
    pub(crate) fn spread(&mut self, table: Table, s: Signature, a: ActionId, spread: f64, step: f64) {
        if let Some(graph) = self.graph_mut(table) {
            graph.spread(s, a, spread, step);
        }
    }

    /// Move an estimate towards a corrected target without counting a visit; returns it (extension: refresh).
    pub(crate) fn revise(&mut self, step: &Step, target: f64) -> f64 {
        let signature = step.observation.signature;
        let alpha = self.move_again(Table::Successors, step, target);
        let old = self
            .successors
            .graph
            .edges(signature)
            .map_or(self.spec.initial, |e| e[step.action.index()].value);
        let value = old + alpha * (target - old);
        self.assign(signature, step.action, value);
        value
    }

    /// Set an estimate without counting a visit (extensions).
    pub(crate) fn assign(&mut self, signature: Signature, action: ActionId, value: f64) {
        self.successors.graph.assign(signature, action, value);
    }
}
