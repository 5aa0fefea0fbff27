//! The team file, `relevo.team/v1`: who there is, what each sees, whom it may hand to, what counts.
//!
//! Parsed once, here; everything after works on a [`TeamSpec`] that is known to make sense. Faults are reported with
//! the line, and unknown keys and names with the nearest known one.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

use relevo_core::{
    ids::{ActionId, AgentId},
    learner::{Credit, DecisionPoint, Estimator, Extensions, LearnerSpec, Regime, SpecError},
    policy::{EpsilonGreedy, PolicySpec, Posterior, Ties, Ucb},
    protocol::{Choice, Journal, Limits, ParticipantSpec},
    q::{Inputs, LinearSpec, LmsRule, MlpSpec, Optimiser},
    step::{Schedule, StepRule},
    units::{Bounds, Discount, Return},
};
use serde::{Deserialize, Serialize};
use toml::de::{DeTable, DeValue};

use crate::artifact::Scalar;

/// The version of the team file.
pub const SCHEMA: &str = "relevo.team/v1";

/// The choice that concludes a task; no agent may have this name.
pub const FINISH: &str = "finish";

/// A team file that cannot be used: where, what, and what to try.
#[derive(Debug, thiserror::Error)]
#[error("{}{}: {message}", path.display(), line.map_or(String::new(), |l| format!(":{l}")))]
pub struct TeamError {
    path: PathBuf,
    line: Option<usize>,
    message: String,
}

/// A team, as its file says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TeamSpec {
    /// [`SCHEMA`].
    pub schema: String,
    /// Its name; also the name of the folder of its runs.
    pub name: String,
    /// One sentence for people.
    #[serde(default)]
    pub description: String,
    /// Who receives every task first.
    pub start: String,
    /// How long to learn and how to measure.
    #[serde(default)]
    pub run: RunSpec,
    /// How the agents learn.
    #[serde(default)]
    pub learner: LearnerSection,
    /// What counts.
    #[serde(default)]
    pub reward: RewardSpec,
    /// A simulated world, instead of tasks from files.
    #[serde(default)]
    pub simulate: Option<SimulateSpec>,
    /// Tasks from files.
    #[serde(default)]
    pub tasks: Option<TasksSpec>,
    /// The agents.
    pub agents: Vec<AgentSpec>,
    /// Fixed workflows to compare with.
    #[serde(default)]
    pub workflows: Vec<WorkflowSpec>,
}

/// How long to learn and how to measure.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RunSpec {
    /// Episodes, unless the command line says otherwise.
    pub episodes: u64,
    /// Tasks on which the learned and the fixed workflows are compared at the end, the same for all.
    pub evaluation_tasks: u64,
    /// A task that needs more handoffs has failed.
    pub max_handoffs: u32,
}

impl Default for RunSpec {
    fn default() -> Self {
        RunSpec { episodes: 2_000, evaluation_tasks: 500, max_handoffs: 20 }
    }
}

/// What counts. Costs are negative.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RewardSpec {
    /// For a task concluded with full quality; a quality between 0 and 1 earns its share.
    pub success: f64,
    /// For every handoff.
    pub handoff: f64,
    /// For every call of an agent.
    pub call: f64,
    /// For every call that fails, on top.
    pub failure: f64,
}

impl Default for RewardSpec {
    fn default() -> Self {
        RewardSpec { success: 1.0, handoff: 0.0, call: 0.0, failure: 0.0 }
    }
}

/// A simulated world.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SimulateSpec {
    /// Its name and version, such as `maths@1`.
    pub environment: String,
    /// What it lets one choose.
    #[serde(default)]
    pub options: BTreeMap<String, toml::Value>,
}

/// Tasks from files.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TasksSpec {
    /// JSON lines to learn from.
    pub train: PathBuf,
    /// JSON lines to measure on.
    pub test: PathBuf,
    /// How the end of a task is judged.
    pub judge: JudgeSpec,
    /// What to tell a person who has not got the files.
    #[serde(default)]
    pub missing: String,
}

/// How the end of a task is judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum JudgeSpec {
    /// The payload has the SHA-256 that the task's `expect.sha256` says.
    Sha256,
    /// The payload, without white space at its ends, is the text of the task's `expect.text`.
    Text,
}

/// One agent.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AgentSpec {
    /// Its name.
    pub name: String,
    /// A program: one JSON line in, one JSON line out.
    #[serde(default)]
    pub command: Option<Vec<String>>,
    /// A role in the simulated world.
    #[serde(default)]
    pub simulate: Option<String>,
    /// Local operations to choose from; more than one makes the agent adaptable.
    #[serde(default)]
    pub operations: Vec<String>,
    /// What it sees.
    pub observes: Vec<String>,
    /// Whom it may hand to, in the order in which ties are broken.
    pub handoffs: Vec<HandoffSpec>,
    /// Longest call, in milliseconds.
    #[serde(default = "default_timeout_ms")]
    pub timeout_ms: u64,
    /// Largest payload a call may produce, in bytes.
    #[serde(default = "default_output_bytes_max")]
    pub output_bytes_max: u64,
    /// Names of environment variables that its program may see, besides PATH, HOME, LANG, TZ and TMPDIR.
    #[serde(default)]
    pub environment: Vec<String>,
}

fn default_timeout_ms() -> u64 {
    30_000
}

fn default_output_bytes_max() -> u64 {
    64 << 20
}

/// A successor, always or under conditions.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(
    untagged,
    expecting = "a handoff is a name, or { to = \"name\", when = { fact = \"value\" } } with texts, whole numbers, true, \
                 false or lists of them; a fact with a dot in its name is quoted: when = { \"payload.kind\" = \"gz\" }"
)]
pub enum HandoffSpec {
    /// Always admissible.
    Always(String),
    /// Admissible when every named fact has one of the given values.
    When(HandoffWhen),
}

/// A successor under conditions.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HandoffWhen {
    /// The successor.
    pub to: String,
    /// Its conditions.
    #[serde(default)]
    pub when: Conditions,
}

impl HandoffSpec {
    /// The successor.
    pub fn to(&self) -> &str {
        match self {
            HandoffSpec::Always(to) | HandoffSpec::When(HandoffWhen { to, .. }) => to,
        }
    }

    /// Its conditions.
    pub fn when(&self) -> Option<&Conditions> {
        match self {
            HandoffSpec::Always(_) => None,
            HandoffSpec::When(HandoffWhen { when, .. }) => Some(when),
        }
    }
}

/// What must hold: for every observable, one of the values.
pub type Conditions = BTreeMap<String, OneOf>;

/// One value or several.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(
    untagged,
    expecting = "a condition compares with a text, a whole number, true, false or a list of them; a fact with a dot in \
                 its name is quoted: \"payload.kind\" = \"gz\""
)]
pub enum OneOf {
    /// Just this.
    One(Scalar),
    /// Any of these.
    Several(Vec<Scalar>),
}

impl OneOf {
    /// Whether `value` is meant.
    pub fn contains(&self, value: &Scalar) -> bool {
        match self {
            OneOf::One(one) => one == value,
            OneOf::Several(several) => several.contains(value),
        }
    }
}

/// A fixed workflow: either a route or rules.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WorkflowSpec {
    /// Its name.
    pub name: String,
    /// Successors in order; those that are not admissible when their turn comes are passed over.
    #[serde(default)]
    pub route: Vec<String>,
    /// Go round the route until this holds, then finish.
    #[serde(default)]
    pub repeat_until: Option<Conditions>,
    /// A dispatcher: the first rule whose conditions hold says who is next.
    #[serde(default)]
    pub rules: Vec<HandoffWhen>,
}

/// How the agents learn.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LearnerSection {
    /// When an agent with one operation chooses its successor.
    pub decides: Decides,
    /// gamma, per primitive step.
    pub discount: f64,
    /// The interval in which all values lie.
    pub values: [f64; 2],
    /// The value of what was never tried.
    pub initial: f64,
    /// The step rule.
    pub step: StepSection,
    /// The policy.
    pub policy: PolicySection,
    /// The credit assignment.
    pub credit: CreditSection,
    /// The estimator.
    pub estimator: EstimatorSection,
    /// Beyond the paper's one scalar per handoff.
    pub extensions: ExtensionsSection,
    /// Most situations that an agent keeps apart.
    pub signatures_max: usize,
}

impl Default for LearnerSection {
    fn default() -> Self {
        LearnerSection {
            decides: Decides::After,
            discount: 1.0,
            values: [-10.0, 10.0],
            initial: 0.0,
            step: StepSection::Poly { exponent: 0.7 },
            policy: PolicySection::EpsilonGreedy {
                epsilon: EpsilonSection::Ramp { from: 1.0, to: 0.05, over: 0.5 },
                ties: TiesSection::First,
            },
            credit: CreditSection::ValuePassing,
            estimator: EstimatorSection::Table,
            extensions: ExtensionsSection::default(),
            signatures_max: 1 << 20,
        }
    }
}

/// When an agent with one operation chooses its successor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Decides {
    /// At activation.
    Before,
    /// After its own operation.
    After,
}

/// The step rule.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "rule", rename_all = "kebab-case", deny_unknown_fields)]
pub enum StepSection {
    /// `(H + 1) / (H + n)`.
    Resc {
        /// H.
        horizon: u32,
    },
    /// `n^-exponent`.
    Poly {
        /// The exponent.
        exponent: f64,
    },
    /// `n^-exponent`, decisions on the tail average.
    PolyAverage {
        /// The exponent.
        exponent: f64,
    },
    /// A constant.
    Constant {
        /// The step.
        step: f64,
    },
    /// `1 / n`; only with trajectory credit.
    Mean,
}

/// The policy.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "rule", rename_all = "kebab-case", deny_unknown_fields)]
pub enum PolicySection {
    /// With probability epsilon a uniform choice, else the best.
    EpsilonGreedy {
        /// epsilon.
        epsilon: EpsilonSection,
        /// How equal values are told apart.
        #[serde(default)]
        ties: TiesSection,
    },
    /// Annealed, reliability-aware upper confidence bounds.
    Ucb {
        /// c at the first visit.
        #[serde(default = "ucb::exploration")]
        exploration: f64,
        /// Smallest c.
        #[serde(default = "ucb::exploration_min")]
        exploration_min: f64,
        /// Visits that halve c.
        #[serde(default = "ucb::half_life")]
        half_life: f64,
        /// Weight of the failure rate.
        #[serde(default = "ucb::reliability")]
        reliability: f64,
        /// Probability shared evenly by all choices.
        #[serde(default = "ucb::floor")]
        floor: f64,
    },
    /// Posterior sampling, one sample held per episode.
    Posterior {
        /// Variance of one target.
        variance: f64,
        /// Probability shared evenly by all choices.
        #[serde(default = "ucb::floor")]
        floor: f64,
    },
}

mod ucb {
    use relevo_core::policy::Ucb;

    pub(super) fn exploration() -> f64 {
        Ucb::default().exploration
    }
    pub(super) fn exploration_min() -> f64 {
        Ucb::default().exploration_min
    }
    pub(super) fn half_life() -> f64 {
        Ucb::default().half_life
    }
    pub(super) fn reliability() -> f64 {
        Ucb::default().reliability
    }
    pub(super) fn floor() -> f64 {
        Ucb::default().floor
    }
}

/// How equal values are told apart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TiesSection {
    /// The first successor in the agent's list.
    #[default]
    First,
    /// At random.
    Random,
}

/// epsilon: a number, a ramp over a share of the run, or a power of the episode.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(
    untagged,
    deny_unknown_fields,
    expecting = "epsilon is a number such as 0.1, a ramp such as { from = 1.0, to = 0.05, over = 0.5 }, or a power such \
                 as { floor = 0.05, scale = 150.0, exponent = 0.5 }"
)]
pub enum EpsilonSection {
    /// Always the same.
    Constant(f64),
    /// In a straight line over this share of the episodes, then constant.
    Ramp {
        /// At the start.
        from: f64,
        /// At the end.
        to: f64,
        /// Share of the episodes, in (0, 1].
        over: f64,
    },
    /// `max(floor, (1 + episode / scale)^-exponent)`.
    Power {
        /// Smallest value.
        floor: f64,
        /// Episodes until the decay sets in.
        scale: f64,
        /// Speed of the decay.
        exponent: f64,
    },
}

/// The credit assignment.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "rule", rename_all = "kebab-case", deny_unknown_fields)]
pub enum CreditSection {
    /// The successor's greedy value at its activation.
    ValuePassing,
    /// The value after the successor has settled its own step.
    Relay {
        /// lambda.
        lambda: f64,
    },
    /// The final reward to every step.
    Trajectory,
}

/// The estimator.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum EstimatorSection {
    /// One cell per situation and choice.
    Table,
    /// Linear in hashed indicators of what is observed.
    Linear {
        /// log2 of the number of buckets.
        bits: u8,
    },
    /// A neural network on hashed indicators of what is observed.
    Mlp {
        /// Input buckets.
        inputs: usize,
        /// Width of each hidden layer.
        hidden: Vec<usize>,
        /// Learning rate of Adam.
        rate: f64,
        /// Samples per step.
        #[serde(default = "one")]
        batch: usize,
        /// Largest distance of the parameters from their start.
        #[serde(default)]
        trust_radius: Option<f64>,
    },
}

fn one() -> usize {
    1
}

/// Beyond the paper's one scalar per handoff.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ExtensionsSection {
    /// Keep handoffs as an empirical model, ask receivers again.
    pub local_model: bool,
    /// Send values again that moved by more than this.
    pub refresh: Option<f64>,
    /// Weight of the standard error that comes with values.
    pub standard_error: Option<f64>,
}

impl TeamSpec {
    /// Read and check a team file.
    pub fn load(path: &Path) -> Result<Self, TeamError> {
        let fail = |line, message| TeamError { path: path.to_owned(), line, message };
        let text = std::fs::read_to_string(path)
            .map_err(|e| fail(None, format!("the team file cannot be read: {e}")))?;
        Self::parse(&text).map_err(|(line, message)| fail(line, message))
    }

    /// Read and check the text of a team file; a fault comes with its line, if it has one.
    pub fn parse(text: &str) -> Result<Self, (Option<usize>, String)> {
        #[derive(Deserialize)]
        struct Header {
            schema: Option<String>,
        }
        let fault = |e: toml::de::Error| (e.span().map(|s| line_of(text, s.start)), plainly(e.message()));
        let header: Header = toml::from_str(text).map_err(fault)?;
        match header.schema.as_deref() {
            Some(SCHEMA) => {}
            Some(other) => {
                let message = format!(
                    "schema is {:?}; this program reads {SCHEMA:?}: write that, or use the program that the file is for",
                    shown(other)
                );
                return Err((place_in(text, &["schema".to_owned()]), message));
            }
            None => return Err((Some(1), format!("the first line of a team file is: schema = {SCHEMA:?}"))),
        }
        let team: TeamSpec = toml::from_str(text).map_err(fault)?;
        let numbers: toml::Value = toml::from_str(text).map_err(fault)?;
        let checked = all_finite(&numbers, &mut vec![]).and_then(|()| team.check());
        checked.map_err(|fault| (place_in(text, &fault.place), fault.message))?;
        Ok(team)
    }

    fn check(&self) -> Result<(), Fault> {
        let names: BTreeSet<&str> = self.agents.iter().map(|a| a.name.as_str()).collect();
        let known = |place: String, name: &str, what: &str| match names.contains(name) {
            true => Ok(()),
            false => {
                let finish = (what != "start").then_some(FINISH);
                Err(unknown(place, name, what, names.iter().copied().chain(finish)))
            }
        };
        if self.agents.is_empty() {
            return Err(Fault::new("agents", "a team needs at least one agent: add an [[agents]] section"));
        }
        if self.agents.len() > 10_000 {
            return Err(Fault::new("agents", "a team has at most 10000 agents"));
        }
        let agents = self.agents.iter().enumerate();
        let places = agents.map(|(i, a)| (format!("agents/{i}/name"), &a.name));
        for (place, name) in [("name".to_owned(), &self.name)].into_iter().chain(places) {
            let plain = |c: char| c.is_alphanumeric() || "-_.@:".contains(c);
            if name.is_empty() || name.len() > 64 || !name.chars().all(plain) || name.starts_with('.') {
                return Err(Fault::new(
                    place,
                    format!(
                        "{:?} is no name: use 1 to 64 letters, digits and the signs - _ . @ : (no . in front)",
                        shown(name)
                    ),
                ));
            }
        }
        let mut taken = BTreeSet::new();
        for (i, AgentSpec { name, .. }) in self.agents.iter().enumerate() {
            let place = format!("agents/{i}/name");
            if name == FINISH {
                let message =
                    format!("no agent may be called {FINISH:?}, the choice that ends a task: rename it");
                return Err(Fault::new(place, message));
            }
            if !taken.insert(name) {
                return Err(Fault::new(place, format!("two agents are called {name:?}: rename one")));
            }
        }
        known("start".into(), &self.start, "start")?;
        match (&self.simulate, &self.tasks) {
            (Some(_), Some(_)) => {
                return Err(Fault::new(
                    "tasks",
                    "a team has either [simulate] or [tasks], not both: leave one out",
                ));
            }
            (None, None) => {
                return Err(Fault::new(
                    "name",
                    "where do tasks come from? add [tasks] (files) or [simulate]",
                ));
            }
            _ => {}
        }
        for (i, agent) in self.agents.iter().enumerate() {
            self.check_agent(&format!("agents/{i}"), agent, &known)?;
        }
        for (i, flow) in self.workflows.iter().enumerate() {
            let place = format!("workflows/{i}");
            let what = format!("workflow {:?}", shown(&flow.name));
            let fault = match (flow.route.is_empty(), flow.rules.is_empty()) {
                (true, true) => Some("says nobody's turn: add route = [..] or rules = [..]"),
                (false, false) => Some("has both a route and rules: leave one of them out"),
                _ => None,
            };
            if let Some(fault) = fault {
                return Err(Fault::new(place + "/name", format!("{what} {fault}")));
            }
            let route = flow.route.iter().enumerate().map(|(k, to)| (format!("{place}/route/{k}"), to));
            let rules = flow.rules.iter().enumerate().map(|(k, r)| (format!("{place}/rules/{k}/to"), &r.to));
            for (place, to) in route.chain(rules).filter(|(_, to)| *to != FINISH) {
                known(place, to, &what)?;
            }
            for (k, rule) in flow.rules.iter().enumerate() {
                check_conditions(&format!("{place}/rules/{k}/when"), &rule.when)?;
            }
            flow.repeat_until
                .iter()
                .try_for_each(|c| check_conditions(&format!("{place}/repeat_until"), c))?;
        }
        let RunSpec { episodes, evaluation_tasks, max_handoffs } = self.run;
        let counts = [
            ("episodes", episodes),
            ("evaluation_tasks", evaluation_tasks),
            ("max_handoffs", u64::from(max_handoffs)),
        ];
        if let Some((key, _)) = counts.iter().find(|(_, n)| *n == 0) {
            return Err(Fault::new(format!("run/{key}"), format!("{key} is 0: it must be at least 1")));
        }
        let [min, max] = self.learner.values;
        if min > max {
            return Err(Fault::new(
                "learner/values",
                format!("values is [{min}, {max}]: write the smallest value first, then the largest"),
            ));
        }
        if let LearnerSection {
            policy: PolicySection::EpsilonGreedy { epsilon: EpsilonSection::Ramp { over, .. }, .. },
            ..
        } = &self.learner
            && !(*over > 0.0 && *over <= 1.0)
        {
            return Err(Fault::new(
                "learner/policy/epsilon/over",
                format!("over is {over}: it is a share of the episodes, in (0, 1]"),
            ));
        }
        // Whatever the learner refuses is refused here, before anything runs.
        for i in 0..self.agents.len() {
            let spec = self.participant(AgentId(i as u32), self.run.episodes);
            let spec = spec.map_err(|e| Fault::new("learner/discount", format!("learner: {e}")))?;
            spec.learner.check().map_err(|e| Fault::new(learner_key(&e), format!("learner: {e}")))?;
        }
        Ok(())
    }

    fn check_agent(
        &self,
        place: &str,
        agent: &AgentSpec,
        known: &dyn Fn(String, &str, &str) -> Result<(), Fault>,
    ) -> Result<(), Fault> {
        let name = &agent.name;
        let fail = |key: &str, message: String| {
            Err(Fault::new(format!("{place}/{key}"), format!("agent {name:?} {message}")))
        };
        match (&agent.command, &agent.simulate, &self.simulate) {
            (Some(command), None, _) if command.is_empty() || command[0].is_empty() => {
                return fail(
                    "command",
                    "has an empty command: write command = [\"program\", \"argument\"]".into(),
                );
            }
            (Some(_), None, _) | (None, Some(_), Some(_)) => {}
            (None, Some(_), None) => {
                return fail(
                    "simulate",
                    "is simulated, but the team has no [simulate] section: add it, or give the agent a command = [..]"
                        .into(),
                );
            }
            (Some(_), Some(_), _) => {
                return fail(
                    "command",
                    "has both a command and a role to simulate: leave one of them out".into(),
                );
            }
            (None, None, _) => {
                return fail(
                    "name",
                    "has nothing to act with: add command = [\"program\"] or simulate = \"role\"".into(),
                );
            }
        }
        if agent.handoffs.is_empty() {
            return fail("handoffs", format!("can hand to nobody: add handoffs = [\"{FINISH}\"] or others"));
        }
        if agent.timeout_ms == 0 || agent.timeout_ms > 86_400_000 {
            let ms = agent.timeout_ms;
            return fail(
                "timeout_ms",
                format!("has a timeout_ms of {ms}: it must lie in 1 .. 86400000 (a day)"),
            );
        }
        let mut seen = BTreeSet::new();
        for (k, handoff) in agent.handoffs.iter().enumerate() {
            let key = format!("handoffs/{k}");
            if handoff.to() != FINISH {
                known(format!("{place}/{key}"), handoff.to(), &format!("handoffs of {name:?}"))?;
            }
            if !seen.insert(handoff.to()) {
                return fail(
                    &key,
                    format!("lists {:?} twice among its handoffs: keep one of them", handoff.to()),
                );
            }
            handoff.when().map_or(Ok(()), |when| check_conditions(&format!("{place}/{key}/when"), when))?;
        }
        for (k, observed) in agent.observes.iter().enumerate() {
            check_observable(format!("{place}/observes/{k}"), observed)?;
        }
        Ok(())
    }

    /// The index of an agent.
    pub fn agent_id(&self, name: &str) -> Option<AgentId> {
        self.agents.iter().position(|a| a.name == name).map(|i| AgentId(i as u32))
    }

    /// The name of an agent.
    pub fn agent_name(&self, id: AgentId) -> &str {
        self.agents.get(id.0 as usize).map_or("origin", |a| &a.name)
    }

    /// The name of a column of an agent's successor table.
    pub fn choice_name(&self, agent: AgentId, action: ActionId) -> &str {
        self.agents[agent.0 as usize].handoffs[action.index()].to()
    }

    /// What an agent learns, and when it chooses.
    pub fn regime(&self, agent: &AgentSpec) -> Regime {
        match (agent.operations.len(), self.learner.decides) {
            (0 | 1, Decides::Before) => Regime::PreConfigured(DecisionPoint::Before),
            (0 | 1, Decides::After) => Regime::PreConfigured(DecisionPoint::After),
            (n, _) => Regime::Adaptable { operations: n as u32 },
        }
    }

    /// The participant of an agent in a run of `episodes`.
    pub fn participant(
        &self,
        id: AgentId,
        episodes: u64,
    ) -> Result<ParticipantSpec, relevo_core::units::UnitError> {
        let agent = &self.agents[id.0 as usize];
        let section = &self.learner;
        let choices = agent.handoffs.iter().map(|h| match h.to() {
            FINISH => Choice::Finish,
            name => Choice::HandTo(self.agent_id(name).expect("names were checked")),
        });
        let regime = self.regime(agent);
        let [min, max] = section.values;
        let learner = LearnerSpec {
            successors: agent.handoffs.len() as u32,
            regime,
            discount: Discount::new(section.discount)?,
            bounds: Bounds::new(min, max)?,
            initial: section.initial,
            estimator: section.estimator.estimator(section.initial),
            step: section.step.rule(),
            policy: section.policy.policy(episodes),
            credit: match section.credit {
                CreditSection::ValuePassing => Credit::ValuePassing,
                CreditSection::Relay { lambda } => Credit::Relay { lambda },
                CreditSection::Trajectory => Credit::Trajectory,
            },
            extensions: Extensions {
                local_model: section.extensions.local_model,
                refresh: section.extensions.refresh,
                standard_error: section.extensions.standard_error,
            },
            signatures_max: section.signatures_max,
        };
        Ok(ParticipantSpec {
            id,
            choices: choices.collect(),
            learner,
            handoff_reward: Return::new(self.reward.handoff)?,
            limits: Limits::default(),
            journal: Journal::Kept,
        })
    }

    /// BLAKE3 of everything in the file that learning depends on: not the description, the fixed workflows, or how
    /// the result is measured.
    pub fn config_digest(&self, tasks: &[u8]) -> [u8; 32] {
        let relevant = TeamSpec {
            description: String::new(),
            workflows: vec![],
            run: RunSpec { episodes: 1, evaluation_tasks: 1, ..self.run.clone() },
            ..self.clone()
        };
        let bytes = serde_json::to_vec(&relevant).expect("a team file holds text, numbers and lists");
        let mut hasher = blake3::Hasher::new_derive_key("relevo 2026 team config v1");
        hasher.update(&bytes);
        hasher.update(tasks);
        *hasher.finalize().as_bytes()
    }
}

impl StepSection {
    fn rule(self) -> StepRule {
        match self {
            StepSection::Resc { horizon } => StepRule::Resc { horizon },
            StepSection::Poly { exponent } => StepRule::Poly { exponent },
            StepSection::PolyAverage { exponent } => StepRule::PolyAverage { exponent },
            StepSection::Constant { step } => StepRule::Constant(step),
            StepSection::Mean => StepRule::Mean,
        }
    }
}

impl PolicySection {
    fn policy(self, episodes: u64) -> PolicySpec {
        match self {
            PolicySection::EpsilonGreedy { epsilon, ties } => PolicySpec::EpsilonGreedy(EpsilonGreedy {
                epsilon: match epsilon {
                    EpsilonSection::Constant(epsilon) => Schedule::Constant(epsilon),
                    EpsilonSection::Ramp { from, to, over } => {
                        Schedule::Linear { from, to, over: (episodes as f64 * over) as u64 }
                    }
                    EpsilonSection::Power { floor, scale, exponent } => {
                        Schedule::Power { floor, scale, exponent }
                    }
                },
                ties: match ties {
                    TiesSection::First => Ties::First,
                    TiesSection::Random => Ties::Random,
                },
            }),
            PolicySection::Ucb { exploration, exploration_min, half_life, reliability, floor } => {
                let ties = Ties::First;
                PolicySpec::Ucb(Ucb { exploration, exploration_min, half_life, reliability, floor, ties })
            }
            PolicySection::Posterior { variance, floor } => {
                PolicySpec::Posterior(Posterior { variance, floor })
            }
        }
    }
}

impl EstimatorSection {
    fn estimator(&self, initial: f64) -> Estimator {
        match self {
            EstimatorSection::Table => Estimator::Table,
            EstimatorSection::Linear { bits } => Estimator::Linear(LinearSpec {
                inputs: Inputs::Hashed { bits: u32::from(*bits) },
                width: 0,
                init: initial,
                rule: LmsRule::default(),
            }),
            EstimatorSection::Mlp { inputs, hidden, rate, batch, trust_radius } => Estimator::Mlp(MlpSpec {
                inputs: *inputs,
                hidden: hidden.clone(),
                width: 0,
                optimiser: Optimiser::adam(*rate),
                batch: *batch,
                trust_radius: *trust_radius,
                offset: initial,
            }),
        }
    }
}

/// A fault found after parsing: where in the file, and what to say.
struct Fault {
    /// Keys and indices from the top, as deep as the file goes.
    place: Vec<String>,
    message: String,
}

impl Fault {
    /// `place` as in `agents/1/handoffs`.
    fn new(place: impl AsRef<str>, message: impl Into<String>) -> Self {
        let place = place.as_ref().split('/').map(str::to_owned).collect();
        Fault { place, message: message.into() }
    }
}

fn line_of(text: &str, offset: usize) -> usize {
    1 + text.as_bytes()[..offset.min(text.len())].iter().filter(|b| **b == b'\n').count()
}

/// The line of the innermost part of `place` that the text spells out.
fn place_in(text: &str, place: &[String]) -> Option<usize> {
    let document = DeTable::parse(text).ok()?.into_inner();
    let mut value = &DeValue::Table(document);
    let mut start = None;
    for key in place {
        let (span, next) = match value {
            DeValue::Table(table) => match table.get_key_value(key.as_str()) {
                Some((key, next)) => (key.span(), next),
                None => break,
            },
            DeValue::Array(list) => match key.parse().ok().and_then(|i: usize| list.get(i)) {
                Some(next) => (next.span(), next),
                None => break,
            },
            _ => break,
        };
        start = Some(span.start);
        value = next.get_ref();
    }
    start.map(|offset| line_of(text, offset))
}

/// TOML has `nan` and `inf`; a team has no use for them.
fn all_finite(value: &toml::Value, place: &mut Vec<String>) -> Result<(), Fault> {
    let mut within = |key: String, value: &toml::Value| {
        place.push(key);
        all_finite(value, place)?;
        place.pop();
        Ok(())
    };
    match value {
        toml::Value::Table(table) => table.iter().try_for_each(|(key, v)| within(key.clone(), v)),
        toml::Value::Array(list) => list.iter().enumerate().try_for_each(|(i, v)| within(i.to_string(), v)),
        toml::Value::Float(x) if !x.is_finite() => {
            let key = place.iter().rev().find(|k| k.parse::<usize>().is_err()).map_or("a number", |k| k);
            let message = format!("{} is {x}: it must be a finite number", shown(key));
            Err(Fault { place: place.clone(), message })
        }
        _ => Ok(()),
    }
}

/// The key of the learner section that a fault is about.
fn learner_key(error: &SpecError) -> String {
    let key = match error {
        SpecError::MeanWithBootstrapping { .. } => "step",
        SpecError::Combination(_) => "extensions",
        SpecError::Shape(_) => "estimator",
        SpecError::Range { what, .. } => match *what {
            "the exponent of the step rule" | "the constant step" => "step",
            "lambda" => "credit",
            "the initial value" => "initial",
            "the weight of the standard error" | "the refresh threshold" => "extensions",
            _ => "policy",
        },
    };
    format!("learner/{key}")
}

fn check_conditions(place: &str, conditions: &Conditions) -> Result<(), Fault> {
    conditions.keys().try_for_each(|name| check_observable(format!("{place}/{name}"), name))
}

/// What an agent may observe besides facts: see [`crate::interface`].
fn check_observable(place: String, name: &str) -> Result<(), Fault> {
    let namespaces = ["payload", "call", "handoff", "own"];
    match name.split_once('.') {
        Some(("own", rest)) if !rest.is_empty() => Ok(()),
        Some((space, _)) if namespaces.contains(&space) && !crate::interface::BUILT_IN.contains(&name) => {
            Err(unknown(place, name, "an observation", crate::interface::BUILT_IN.iter().copied()))
        }
        _ if name.is_empty() => Err(Fault::new(
            place,
            "an observation has an empty name: write that of a fact, or one such as \"payload.kind\"",
        )),
        _ => Ok(()),
    }
}

fn unknown<'a>(place: String, name: &str, what: &str, known: impl Iterator<Item = &'a str> + Clone) -> Fault {
    let hint = match nearest(name, known.clone()) {
        Some(near) => format!("did you mean {near:?}?"),
        None => format!("known are {}", known.collect::<Vec<_>>().join(", ")),
    };
    Fault::new(place, format!("{what}: {:?} is unknown; {hint}", shown(name)))
}

/// As much of a word as a message has room for.
fn shown(word: &str) -> &str {
    &word[..word.floor_char_boundary(80)]
}

/// The known word that `word` was probably meant to be.
pub fn nearest<'a>(word: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let length = word.chars().count();
    known
        .filter_map(|k| {
            let k_length = k.chars().count();
            let most = 1 + length.max(k_length) / 3;
            // The distance is at least the difference in length, and costs their product to find.
            (length.abs_diff(k_length) <= most)
                .then(|| (strsim::damerau_levenshtein(word, k), k))
                .filter(|(distance, _)| *distance <= most)
        })
        .min()
        .map(|(_, k)| k)
}

/// What the parser says, in the words of the file: the nearest known key first, and no types of this program.
fn plainly(message: &str) -> String {
    let quoted: Vec<&str> = message.split('`').skip(1).step_by(2).collect();
    if let (Some(kind), Some((word, known))) = (
        [("unknown field", "key"), ("unknown variant", "value")].iter().find(|(m, _)| message.starts_with(m)),
        quoted.split_first(),
    ) {
        let near = nearest(word, known.iter().copied());
        let hint = near.map_or(String::new(), |near| format!("did you mean {near:?}? "));
        return format!("unknown {} {:?}; {hint}known are {}", kind.1, shown(word), known.join(", "));
    }
    if let (true, Some(key)) = (message.starts_with("missing field"), quoted.first()) {
        return format!("the key {key:?} is missing here: add it");
    }
    let plain = [
        ("expected f64", "expected a number"),
        ("expected u64", "expected a whole number, 0 or more"),
        ("expected u32", "expected a whole number, 0 or more"),
        ("expected u8", "expected a whole number from 0 to 255"),
        ("expected usize", "expected a whole number, 0 or more"),
        (
            "invalid type: map, expected a sequence",
            "one table where a list is expected: write [[..]], with two brackets",
        ),
    ];
    plain.iter().fold(message.to_owned(), |message, (theirs, ours)| message.replace(theirs, ours))
}
