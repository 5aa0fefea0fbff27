//! The team file, `relevo.team/v1`: who there is, what each sees, whom it may hand to, what counts.
//!
//! Parsed once, here; everything after works on a [`TeamSpec`] that is known to make sense. Faults are reported with
//! the line, and unknown keys and names with the nearest known one.

mod check;
mod check_coordinator;
mod coordinator;
mod guards;
mod judges;
mod learner;
mod models;
mod remote;
mod reward;
mod tools;
mod trace;

pub(crate) use check::shown;
pub use check::{line_of, nearest, place_in, plainly};
pub use coordinator::{CoordinatorSection, Failures, PlanName, Variants};
pub use guards::{AllowSection, ApprovalSection, ApprovalWhen, GuardsSection};
pub use judges::{AuditSection, JudgeSpec, RelativeSection};
pub use learner::{
    CreditSection, Decides, EpsilonSection, EstimatorSection, ExtensionsSection, LearnerSection,
    PolicySection, StepSection, TiesSection,
};
pub use models::ModelSection;
pub use reward::{RewardScale, RewardSpec};
pub use tools::{TURNS_MAX, ToolSection, server_and_tool};
pub use trace::TraceSection;

use std::{
    collections::BTreeMap,
    num::NonZeroUsize,
    path::{Path, PathBuf},
    sync::Arc,
};

use relevo_core::{
    ids::{ActionId, AgentId},
    learner::{DecisionPoint, LearnerSpec, Regime},
    protocol::{Choice, Journal, Limits, ParticipantSpec},
    units::{Bounds, Discount, Return},
};
use serde::{Deserialize, Serialize};

use check::all_finite;

use crate::{
    artifact::Scalar,
    coordinate::{
        card::SkillCard,
        plan::{Plan, Role},
    },
    guard::DeclaredCost,
};

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
    /// Who receives every task first; empty in a coordinated team, where that is the coordinator.
    #[serde(default)]
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
    /// What holds before anything is learned.
    #[serde(default, skip_serializing_if = "GuardsSection::is_off")]
    pub guards: GuardsSection,
    /// What is kept besides the ledger.
    #[serde(default, skip_serializing_if = "TraceSection::is_off")]
    pub trace: TraceSection,
    /// A simulated world, instead of tasks from files.
    #[serde(default)]
    pub simulate: Option<SimulateSpec>,
    /// Tasks from files.
    #[serde(default)]
    pub tasks: Option<TasksSpec>,
    /// Generated problems, instead of tasks from files.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problems: Option<ProblemsSection>,
    /// One coordinator decides who acts, and the agents are its cells.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub coordinator: Option<CoordinatorSection>,
    /// Language models by which agents act.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub models: BTreeMap<String, ModelSection>,
    /// MCP servers whose tools agents are, or may call.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub tools: BTreeMap<String, ToolSection>,
    /// Patterns that agents may look for in a payload, by name: each is observed as `payload.NAME`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub payload: BTreeMap<String, String>,
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
    /// How many tasks the team has before it at a time, unless the command line says otherwise.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub jobs: Option<NonZeroUsize>,
    /// What the calls of these tasks bring is taken all together, in the order of the tasks, once the last has come back.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub rounds: bool,
}

impl Default for RunSpec {
    fn default() -> Self {
        RunSpec { episodes: 2_000, evaluation_tasks: 500, max_handoffs: 20, jobs: None, rounds: false }
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

/// Multiple-choice problems, of several datasets in turn: generated ones, which the model in the box solves with no key
/// and no network, or those of public files.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProblemsSection {
    /// How hard the generated ones are; with no files, all levels if none is named.
    #[serde(default)]
    pub levels: Vec<String>,
    /// Files of MathQA (JSON) or MMLU (CSV), by the name of the dataset.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub files: BTreeMap<String, PathBuf>,
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
    /// It does no work of its own, and only decides whom to hand to.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub forwards: bool,
    /// Another organisation's agent, `PEER/AGENT`, to which tasks are handed over the border.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remote: Option<String>,
    /// A tool of one of [`TeamSpec::tools`], which is called once for every handoff: `server.tool`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tool: Option<String>,
    /// What the tool is called with.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub arguments: BTreeMap<String, toml::Value>,
    /// Local operations to choose from; more than one makes the agent adaptable.
    #[serde(default)]
    pub operations: Vec<OperationSpec>,
    /// What it sees; nothing in a coordinated team.
    #[serde(default)]
    pub observes: Vec<String>,
    /// Whom it may hand to, in the order in which ties are broken; nobody in a coordinated team.
    #[serde(default)]
    pub handoffs: Vec<HandoffSpec>,
    /// What it does in a coordinated team, where its name does not begin with that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<Role>,
    /// The path of the skill card that its program is told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub skill: Option<String>,
    /// The model by which it acts, one of [`TeamSpec::models`]; or that its program is told to use.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// What becomes of the payload when its model answers.
    #[serde(default, skip_serializing_if = "ReplyForm::is_replace")]
    pub reply: ReplyForm,
    /// The tools that its program is told that it may use; or that its model may call, of [`TeamSpec::tools`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tools: Vec<String>,
    /// How often its model is asked for one answer, where it may call tools.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub turns_max: Option<u32>,
    /// Skills and models of which every combination is a cell; none once the file is read, as the cells are there then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variants: Option<Variants>,
    /// What the skill card says.
    #[serde(skip)]
    pub card: Option<Arc<SkillCard>>,
    /// Longest call, in milliseconds.
    #[serde(default = "default_timeout_ms")]
    pub timeout_ms: u64,
    /// Largest payload a call may produce, in bytes.
    #[serde(default = "default_output_bytes_max")]
    pub output_bytes_max: u64,
    /// Names of environment variables that its program may see, besides PATH, HOME, LANG, TZ and TMPDIR.
    #[serde(default)]
    pub environment: Vec<String>,
    /// Whether a person must approve of a handoff to it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub approval: Option<ApprovalSection>,
    /// What one call of it is expected to cost.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cost: Option<DeclaredCost>,
}

/// An operation: its name, and for a model also how it is asked for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(
    untagged,
    expecting = "an operation is a name, or { name = \"name\", skill = \"card.md\", temperature = 0.7 }"
)]
pub enum OperationSpec {
    /// What the agent's program, role or model knows by this name.
    Named(String),
    /// What its model is asked for in another way.
    Asked(AskedOperation),
}

/// An operation of an agent that acts by a model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AskedOperation {
    /// Its name.
    pub name: String,
    /// The path of the skill card that the model is told, in place of the agent's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub skill: Option<String>,
    /// How random the answer is, in place of what the model's section says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub temperature: Option<f64>,
    /// What the skill card says.
    #[serde(skip)]
    pub card: Option<Arc<SkillCard>>,
}

impl OperationSpec {
    /// Its name.
    pub fn name(&self) -> &str {
        match self {
            OperationSpec::Named(name) | OperationSpec::Asked(AskedOperation { name, .. }) => name,
        }
    }

    /// How a model is asked for it, if in a way of its own.
    pub fn asked(&self) -> Option<&AskedOperation> {
        match self {
            OperationSpec::Named(_) => None,
            OperationSpec::Asked(asked) => Some(asked),
        }
    }
}

/// What becomes of the payload when a model answers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ReplyForm {
    /// The answer stands in its place.
    #[default]
    Replace,
    /// The answer is added to it, under the name of the agent: the payload becomes a transcript.
    Append,
}

impl ReplyForm {
    fn is_replace(&self) -> bool {
        *self == ReplyForm::Replace
    }
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

impl TeamSpec {
    /// Read and check a team file.
    pub fn load(path: &Path) -> Result<Self, TeamError> {
        let fail = |line, message| TeamError { path: path.to_owned(), line, message };
        let text = std::fs::read_to_string(path)
            .map_err(|e| fail(None, format!("the team file cannot be read: {e}")))?;
        let folder = path.parent().unwrap_or(Path::new(""));
        Self::parse_in(Some(folder), &text).map_err(|(line, message)| fail(line, message))
    }

    /// Read and check the text of a team file; a fault comes with its line, if it has one. Skill cards are not read.
    pub fn parse(text: &str) -> Result<Self, (Option<usize>, String)> {
        Self::parse_in(None, text)
    }

    /// With the skill cards in `folder`, if there is one.
    fn parse_in(folder: Option<&Path>, text: &str) -> Result<Self, (Option<usize>, String)> {
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
        let mut team: TeamSpec = toml::from_str(text).map_err(fault)?;
        let written: toml::Value = toml::from_str(text).map_err(fault)?;
        let checked = all_finite(&written, &mut vec![]).and_then(|()| team.check(&written));
        team.allow_for_models(&written);
        let checked = checked.and_then(|()| team.expand(folder));
        checked.map_err(|fault| (place_in(text, &fault.place), fault.message))?;
        // Those that are no participants come last, so that participants are numbered without gaps.
        team.agents.sort_by_key(|agent| agent.remote.is_some());
        Ok(team)
    }

    /// The agents that are no other organisation's: the first of [`TeamSpec::agents`].
    pub fn local(&self) -> impl Iterator<Item = &AgentSpec> {
        self.agents.iter().take_while(|agent| agent.remote.is_none())
    }

    /// Whether it says where tasks come from. To a node that serves it, others bring them.
    pub fn has_tasks(&self) -> bool {
        self.tasks.is_some() || self.problems.is_some() || self.simulate.is_some()
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

    /// The participant of an agent in a run of `episodes`. A coordinated team has one, number 0, the coordinator: its
    /// operations are the columns of [`crate::coordinate::coordination::Coordination`], and it hands over to nobody.
    pub fn participant(
        &self,
        id: AgentId,
        episodes: u64,
    ) -> Result<ParticipantSpec, relevo_core::units::UnitError> {
        let section = &self.learner;
        let (choices, regime): (Vec<Choice>, Regime) = match &self.coordinator {
            Some(coordinator) => {
                let operations = Plan::width_of(self.agents.len(), coordinator.alone) as u32;
                (vec![Choice::Finish], Regime::Adaptable { operations })
            }
            None => {
                let agent = &self.agents[id.0 as usize];
                let choice = |h: &HandoffSpec| match h.to() {
                    FINISH => Choice::Finish,
                    name => Choice::HandTo(self.agent_id(name).expect("names were checked")),
                };
                (agent.handoffs.iter().map(choice).collect(), self.regime(agent))
            }
        };
        let [min, max] = section.values;
        let learner = LearnerSpec {
            successors: choices.len() as u32,
            regime,
            discount: Discount::new(section.discount)?,
            bounds: Bounds::new(min, max)?,
            initial: section.initial,
            estimator: section.estimator.estimator(section.initial),
            step: section.step.rule(),
            local: None,
            policy: section.policy.policy(episodes),
            credit: section.credit.credit(),
            extensions: section.extensions.extensions(),
            pending: section.pending.decisions(),
            signatures_max: section.signatures_max,
        };
        Ok(ParticipantSpec {
            id,
            choices,
            learner,
            handoff_reward: Return::new(self.reward.handoff)?,
            limits: Limits::default(),
            journal: Journal::Kept,
        })
    }

    /// BLAKE3 of everything in the file that learning depends on: not the description, the fixed workflows, how the
    /// result is measured, what is kept of it, or how much the run may cost: a run that has stopped for want of money is taken up with more.
    pub fn config_digest(&self, tasks: &[u8]) -> [u8; 32] {
        let relevant = TeamSpec {
            description: String::new(),
            workflows: vec![],
            trace: TraceSection::default(),
            tasks: self.tasks.clone().map(|tasks| TasksSpec { missing: String::new(), ..tasks }),
            run: RunSpec {
                max_handoffs: self.run.max_handoffs,
                episodes: 1,
                evaluation_tasks: 1,
                jobs: None,
                rounds: false,
            },
            models: self.models.iter().map(|(name, model)| (name.clone(), model.lasting())).collect(),
            tools: self.tools.iter().map(|(name, tools)| (name.clone(), tools.lasting())).collect(),
            guards: GuardsSection {
                session_budget: None,
                approval_expires_after: None,
                ..self.guards.clone()
            },
            ..self.clone()
        };
        let bytes = serde_json::to_vec(&relevant).expect("a team file holds text, numbers and lists");
        let mut hasher = blake3::Hasher::new_derive_key("relevo 2026 team config v1");
        hasher.update(&bytes);
        for card in self.agents.iter().flat_map(AgentSpec::cards) {
            hasher.update(&card.digest);
        }
        hasher.update(tasks);
        *hasher.finalize().as_bytes()
    }
}
