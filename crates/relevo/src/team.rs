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
    learner::{Credit, DecisionPoint, Estimator, Extensions, LearnerSpec, Regime},
    policy::{EpsilonGreedy, PolicySpec, Posterior, Ties, Ucb},
    protocol::{Choice, Journal, Limits, ParticipantSpec},
    q::{Inputs, LinearSpec, LmsRule, MlpSpec, Optimiser},
    step::{Schedule, StepRule},
    units::{Bounds, Discount, Return},
};
use serde::{Deserialize, Serialize};

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
#[serde(untagged)]
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
#[serde(untagged)]
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
#[serde(untagged)]
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
        let line_of = |offset: usize| {
            1 + text.as_bytes()[..offset.min(text.len())].iter().filter(|b| **b == b'\n').count()
        };
        #[derive(Deserialize)]
        struct Header {
            schema: Option<String>,
        }
        let fault = |e: toml::de::Error| (e.span().map(|s| line_of(s.start)), with_suggestion(e.message()));
        let header: Header = toml::from_str(text).map_err(fault)?;
        match header.schema.as_deref() {
            Some(SCHEMA) => {}
            Some(other) => {
                return Err((Some(1), format!("schema is {other:?}; this program reads {SCHEMA:?}")));
            }
            None => return Err((Some(1), format!("the first line of a team file is: schema = {SCHEMA:?}"))),
        }
        let team: TeamSpec = toml::from_str(text).map_err(fault)?;
        team.check().map_err(|fault| {
            // Point at the first line that spells the offending word, if there is one.
            let line = fault.word.and_then(|word| text.lines().position(|l| spells(l, &word))).map(|i| i + 1);
            (line, fault.message)
        })?;
        Ok(team)
    }

    fn check(&self) -> Result<(), Fault> {
        let names: BTreeSet<&str> = self.agents.iter().map(|a| a.name.as_str()).collect();
        let known = |name: &str, what: &str| match names.contains(name) {
            true => Ok(()),
            false => {
                Err(unknown(name, what, names.iter().copied().chain((what != "start").then_some(FINISH))))
            }
        };
        if self.agents.is_empty() {
            return Err(Fault::new("", "a team needs at least one agent: add an [[agents]] section"));
        }
        if self.agents.len() > 10_000 {
            return Err(Fault::new("agents", "a team has at most 10000 agents"));
        }
        for name in [&self.name].into_iter().chain(self.agents.iter().map(|a| &a.name)) {
            let plain = |c: char| c.is_alphanumeric() || "-_.@:".contains(c);
            if name.is_empty() || name.len() > 64 || !name.chars().all(plain) || name.starts_with('.') {
                return Err(Fault::new(
                    name,
                    format!("{name:?} is no name: use 1 to 64 letters, digits and the signs - _ . @ :"),
                ));
            }
        }
        if names.len() < self.agents.len() {
            let twice = self
                .agents
                .iter()
                .enumerate()
                .find(|(i, a)| self.agents[..*i].iter().any(|b| b.name == a.name));
            let name = twice.map_or("", |(_, a)| &a.name);
            return Err(Fault::new(name, format!("two agents are called {name:?}")));
        }
        known(&self.start, "start")?;
        for agent in &self.agents {
            self.check_agent(agent, &known)?;
        }
        match (&self.simulate, &self.tasks) {
            (Some(_), Some(_)) => {
                return Err(Fault::new("simulate", "a team has either [simulate] or [tasks], not both"));
            }
            (None, None) => {
                return Err(Fault::new("", "where do tasks come from? add [tasks] (files) or [simulate]"));
            }
            _ => {}
        }
        for flow in &self.workflows {
            if flow.route.is_empty() == flow.rules.is_empty() {
                return Err(Fault::new(
                    &flow.name,
                    format!("workflow {:?} needs either a route or rules", flow.name),
                ));
            }
            for to in flow.route.iter().chain(flow.rules.iter().map(|r| &r.to)) {
                if to != FINISH {
                    known(to, &format!("workflow {:?}", flow.name))?;
                }
            }
            let conditions = flow.rules.iter().map(|r| &r.when).chain(&flow.repeat_until);
            for name in conditions.flat_map(|c| c.keys()) {
                check_observable(name)?;
            }
        }
        if self.run.max_handoffs == 0 || self.run.evaluation_tasks == 0 || self.run.episodes == 0 {
            return Err(Fault::new("run", "episodes, evaluation_tasks and max_handoffs must be at least 1"));
        }
        if let LearnerSection {
            policy: PolicySection::EpsilonGreedy { epsilon: EpsilonSection::Ramp { over, .. }, .. },
            ..
        } = &self.learner
            && !(*over > 0.0 && *over <= 1.0)
        {
            return Err(Fault::new(
                "over",
                format!("over is {over}: it is a share of the episodes, in (0, 1]"),
            ));
        }
        let rewards = [self.reward.success, self.reward.handoff, self.reward.call, self.reward.failure];
        if !rewards.iter().all(|r| r.is_finite()) {
            return Err(Fault::new("reward", "rewards must be finite numbers"));
        }
        // Whatever the learner refuses is refused here, before anything runs.
        for (i, agent) in self.agents.iter().enumerate() {
            let spec = self.participant(AgentId(i as u32), self.run.episodes);
            let spec = spec.map_err(|e| Fault::new("learner", format!("learner: {e}")))?;
            spec.learner
                .check()
                .map_err(|e| Fault::new("learner", format!("learner of {}: {e}", agent.name)))?;
        }
        Ok(())
    }

    fn check_agent(
        &self,
        agent: &AgentSpec,
        known: &dyn Fn(&str, &str) -> Result<(), Fault>,
    ) -> Result<(), Fault> {
        let name = &agent.name;
        let fail = |message: String| Err(Fault::new(name, format!("agent {name:?} {message}")));
        if name == FINISH {
            return fail(format!("has the name of the choice that ends a task ({FINISH}): choose another"));
        }
        match (&agent.command, &agent.simulate, &self.simulate) {
            (Some(command), None, _) if command.is_empty() || command[0].is_empty() => {
                return fail("has an empty command: write command = [\"program\", \"argument\"]".into());
            }
            (Some(_), None, _) | (None, Some(_), Some(_)) => {}
            (None, Some(_), None) => {
                return fail("is simulated, but the team has no [simulate] section".into());
            }
            _ => return fail("needs exactly one of command = [..] and simulate = \"role\"".into()),
        }
        if agent.handoffs.is_empty() {
            return fail(format!("can hand to nobody: add handoffs = [\"{FINISH}\"] or others"));
        }
        if agent.timeout_ms == 0 || agent.timeout_ms > 86_400_000 {
            return fail("has a timeout_ms outside of 1 .. 86400000 (a day)".into());
        }
        let mut seen = BTreeSet::new();
        for handoff in &agent.handoffs {
            if handoff.to() != FINISH {
                known(handoff.to(), &format!("handoffs of {name:?}"))?;
            }
            if !seen.insert(handoff.to()) {
                return fail(format!("lists {:?} twice among its handoffs", handoff.to()));
            }
        }
        let conditions = agent.handoffs.iter().filter_map(HandoffSpec::when).flat_map(|c| c.keys());
        agent.observes.iter().chain(conditions).try_for_each(|name| check_observable(name))
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

/// A fault found after parsing: the word to look for, and what to say.
struct Fault {
    word: Option<String>,
    message: String,
}

impl Fault {
    fn new(word: &str, message: impl Into<String>) -> Self {
        Fault { word: (!word.is_empty()).then(|| word.to_owned()), message: message.into() }
    }
}

fn spells(line: &str, word: &str) -> bool {
    let code = line.split('#').next().unwrap_or("");
    code.split(|c: char| !(c.is_alphanumeric() || "-_.@:".contains(c))).any(|w| w == word)
}

/// What an agent may observe besides facts: see [`crate::interface`].
fn check_observable(name: &str) -> Result<(), Fault> {
    let namespaces = ["payload", "call", "handoff", "own"];
    match name.split_once('.') {
        Some(("own", rest)) if !rest.is_empty() => Ok(()),
        Some((space, _)) if namespaces.contains(&space) && !crate::interface::BUILT_IN.contains(&name) => {
            Err(unknown(name, "an observation", crate::interface::BUILT_IN.iter().copied()))
        }
        _ if name.is_empty() => Err(Fault::new("observes", "an observation has an empty name")),
        _ => Ok(()),
    }
}

fn unknown<'a>(name: &str, what: &str, known: impl Iterator<Item = &'a str> + Clone) -> Fault {
    let hint = match nearest(name, known.clone()) {
        Some(near) => format!("did you mean {near:?}?"),
        None => format!("known are {}", known.collect::<Vec<_>>().join(", ")),
    };
    Fault::new(name, format!("{what}: {name:?} is unknown; {hint}"))
}

/// The known word that `word` was probably meant to be.
pub fn nearest<'a>(word: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    known
        .map(|k| (strsim::damerau_levenshtein(word, k), k))
        .filter(|(distance, k)| *distance <= 1 + word.len().max(k.len()) / 3)
        .min()
        .map(|(_, k)| k)
}

/// Serde says `unknown field `x`, expected one of `a`, `b``: put the nearest known key first.
fn with_suggestion(message: &str) -> String {
    if !message.starts_with("unknown ") {
        return message.to_owned();
    }
    let quoted: Vec<&str> = message.split('`').skip(1).step_by(2).collect();
    match quoted.split_first().and_then(|(word, known)| Some((word, nearest(word, known.iter().copied())?))) {
        Some((word, near)) => format!("unknown key {word:?}; did you mean {near:?}? ({message})"),
        None => message.to_owned(),
    }
}
