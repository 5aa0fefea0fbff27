//! The section `[coordinator]`, which makes a team a coordinated one, and what its agents say besides.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
    sync::Arc,
};

use serde::{Deserialize, Serialize};

use super::{
    AgentSpec, FINISH, OperationSpec, TeamSpec,
    check::{Fault, check_name, shown, unknown},
};
use crate::coordinate::{
    activation::{Activation, Entry, chain},
    belief::{Beliefs, EmptySearch},
    card::{self, SkillCard},
    coordination::cell,
    document::Document,
    features::Regime,
    plan::{Cell, Plan, Role},
    state::State,
};

/// How a team is coordinated.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CoordinatorSection {
    /// The bin width of the beliefs in signatures; 0 leaves them out.
    pub granularity: f64,
    /// Whether signatures hold the cells that were taken.
    pub taken: bool,
    /// Whether signatures hold the cell that acted last: each cell learns for itself.
    pub cell: bool,
    /// Facts of the task that signatures hold.
    pub facts: Vec<String>,
    /// Whether cells may be skipped.
    pub skips: bool,
    /// Whether a solver may act alone.
    pub alone: bool,
    /// What a search that failed, or found nothing, does to the beliefs.
    pub empty_search: EmptySearch,
    /// What is learned of a call that failed.
    pub failures: Failures,
    /// After how many steps a task stops; a skip is one.
    pub steps_max: u32,
    /// How often a branch runs.
    pub branches: u32,
    /// The plan of all regimes that `plans` leaves out, instead of the standard ones.
    pub plan: Option<PlanName>,
    /// The plans of regimes.
    pub plans: BTreeMap<Regime, Vec<Entry>>,
    /// Roles that must have acted, by regime.
    pub required: BTreeMap<Regime, Vec<Role>>,
}

impl Default for CoordinatorSection {
    fn default() -> Self {
        CoordinatorSection {
            granularity: 0.1,
            taken: false,
            cell: false,
            facts: vec![],
            skips: true,
            alone: true,
            empty_search: EmptySearch::Ignored,
            failures: Failures::Outcomes,
            steps_max: 12,
            branches: 2,
            plan: None,
            plans: BTreeMap::new(),
            required: BTreeMap::new(),
        }
    }
}

/// What is learned of a call that failed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Failures {
    /// What came of the task after it, like of any other choice.
    #[default]
    Outcomes,
    /// That it failed, and nothing else (AgensFlow).
    Counted,
}

/// A plan that has a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PlanName {
    /// All agents, in the order of the file.
    Flat,
}

/// Skills and models of which every combination is a cell of its own.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Variants {
    /// Paths of skill cards.
    pub skills: Vec<String>,
    /// Names of models.
    pub models: Vec<String>,
}

impl CoordinatorSection {
    /// What a regime gets of these cells; else the place of the fault in the team file, and what it is.
    pub(crate) fn activation(&self, regime: Regime, cells: &[Cell]) -> Result<Activation, (String, String)> {
        let name = regime.name();
        let mut made = match (self.plans.get(&regime), self.plan) {
            (Some(entries), _) => Activation::of(entries, cells)
                .map_err(|(at, what)| (format!("coordinator/plans/{name}/{at}"), what))?,
            (None, Some(PlanName::Flat)) => Activation::flat(cells),
            (None, None) => Activation::standard(regime, cells),
        };
        if made.cells().next().is_none() {
            let what = format!(
                "the plan of {name} has no cells: add agents of its roles, or coordinator.plans.{name}"
            );
            return Err(("coordinator".to_owned(), what));
        }
        let roles: BTreeSet<Role> = made.cells().map(|at| cells[at].role).collect();
        let has = |role: Role| roles.contains(&role);
        made.required = match self.required.get(&regime) {
            Some(roles) => {
                if let Some(at) = roles.iter().position(|role| !has(*role)) {
                    let what = format!("the plan of {name} has no {}, which is required", roles[at].name());
                    return Err((format!("coordinator/required/{name}/{at}"), what));
                }
                roles.clone()
            }
            None if regime == Regime::HighRisk && has(Role::Verifier) => vec![Role::Verifier],
            None => vec![],
        };
        let nothing = State::of(regime, &Document::default(), &Beliefs::default(), None);
        let chains = made.required.iter().filter_map(|role| chain(*role, &nothing, &has));
        let steps = chains.flatten().collect::<BTreeSet<Role>>().len();
        if steps > self.steps_max as usize {
            let what = format!(
                "steps_max is {}, but to do what {name} requires takes {steps}: raise it, or set coordinator.required.{name}",
                self.steps_max
            );
            return Err(("coordinator/steps_max".to_owned(), what));
        }
        Ok(made)
    }
}

impl AgentSpec {
    /// The model that its skill is to use: its own, else that of the card.
    pub fn model(&self) -> Option<&str> {
        self.model.as_deref().or_else(|| self.card.as_ref()?.model.as_deref())
    }

    /// The tools that it may use: its own, else those of the card.
    pub fn tools(&self) -> &[String] {
        match (&self.card, self.tools.is_empty()) {
            (Some(card), true) => &card.tools,
            _ => &self.tools,
        }
    }

    /// Its skill cards that have been read: its own, and those of its operations.
    pub fn cards(&self) -> impl Iterator<Item = &Arc<SkillCard>> {
        let asked = self.operations.iter().filter_map(OperationSpec::asked);
        self.card.iter().chain(asked.filter_map(|asked| asked.card.as_ref()))
    }

    /// The name of its skill: that of its card, or of the file while the card is not read.
    pub fn skill_name(&self) -> Option<String> {
        let of_file = || self.skill.as_deref().map(|path| stem(path).to_owned());
        self.card.as_ref().map(|card| card.name.clone()).or_else(of_file)
    }
}

/// What a skill's file is called: `skills/cot.md` and `skills/cot/SKILL.md` are both `cot`.
fn stem(path: &str) -> &str {
    let (folder, file) = path.rsplit_once('/').unwrap_or(("", path));
    match file {
        "SKILL.md" if !folder.is_empty() => folder.rsplit_once('/').map_or(folder, |(_, name)| name),
        _ => file.rsplit_once('.').map_or(file, |(stem, _)| stem),
    }
}

impl TeamSpec {
    /// Put the cells that variants stand for in the place of the agents that have them. The skill cards lie in `folder`;
    /// without one they are not read.
    pub(super) fn expand(&mut self, folder: Option<&Path>) -> Result<(), Fault> {
        let (mut agents, mut places, mut models, mut names) = (vec![], vec![], vec![], BTreeSet::new());
        for (i, agent) in std::mem::take(&mut self.agents).into_iter().enumerate() {
            let entry = format!("agents/{i}");
            let model = if agent.variants.is_some() { "variants/models" } else { "model" };
            for (cell, place) in cells_of(agent, &entry) {
                check_name(place.clone(), &cell.name)?;
                if agents.len() == Plan::CELLS_MAX && self.coordinator.is_some() {
                    let what = format!("a coordinated team has at most {} cells", Plan::CELLS_MAX);
                    return Err(Fault::new(entry, what));
                }
                if !names.insert(cell.name.clone()) {
                    let what =
                        format!("two agents are called {:?}, counting variants: rename one", cell.name);
                    return Err(Fault::new(format!("{entry}/name"), what));
                }
                agents.push(cell);
                places.push(place);
                models.push((entry.clone(), model));
            }
        }
        self.agents = agents;
        if let Some(section) = &self.coordinator {
            let cells: Vec<Cell> = self.agents.iter().filter_map(|agent| cell(agent).ok()).collect();
            for regime in Regime::ALL {
                section.activation(regime, &cells).map_err(|(place, what)| Fault::new(place, what))?;
            }
            for (i, flow) in self.workflows.iter().enumerate() {
                let strange = flow.route.iter().position(|to| to != FINISH && !names.contains(to));
                if let Some(k) = strange {
                    let (place, what) =
                        (format!("workflows/{i}/route/{k}"), format!("workflow {:?}", shown(&flow.name)));
                    let cells = self.agents.iter().map(|agent| agent.name.as_str());
                    return Err(unknown(place, &flow.route[k], &what, cells));
                }
            }
        }
        folder.map_or(Ok(()), |folder| self.read_cards(folder, &places))?;
        self.check_actors(&models, folder.is_some())?;
        self.check_tools_of_models(models.iter().map(|(entry, _)| entry.as_str()))
    }

    /// Read the skill cards of all agents; `places` are those in the file that name them.
    fn read_cards(&mut self, folder: &Path, places: &[String]) -> Result<(), Fault> {
        let mut cards: BTreeMap<String, Arc<SkillCard>> = BTreeMap::new();
        let mut card = |path: &String, place: &str| match cards.get(path) {
            Some(card) => Ok(card.clone()),
            None => {
                let read = read_card(&folder.join(path));
                let card = Arc::new(read.map_err(|e| Fault::new(place, format!("skill {path:?}: {e}")))?);
                cards.insert(path.clone(), card.clone());
                Ok::<_, Fault>(card)
            }
        };
        for (agent, place) in self.agents.iter_mut().zip(places) {
            agent.card = agent.skill.as_ref().map(|path| card(path, place)).transpose()?;
            for operation in &mut agent.operations {
                if let OperationSpec::Asked(asked) = operation {
                    asked.card = asked.skill.as_ref().map(|path| card(path, place)).transpose()?;
                }
            }
        }
        Ok(())
    }
}

/// The cells of an agent, each with the place in the file that says its skill.
fn cells_of(agent: AgentSpec, entry: &str) -> Vec<(AgentSpec, String)> {
    let Some(Variants { skills, models }) = agent.variants.clone() else {
        return vec![(agent, format!("{entry}/skill"))];
    };
    let or_one = |list: Vec<String>, own: &Option<String>| match list.is_empty() {
        true => vec![(own.clone(), None)],
        false => list.into_iter().map(|x| (Some(x.clone()), Some(x))).collect(),
    };
    let mut cells = vec![];
    let models = or_one(models, &agent.model);
    for (at, (skill, skill_in_name)) in or_one(skills, &agent.skill).into_iter().enumerate() {
        for (model, model_in_name) in &models {
            let parts = [skill_in_name.as_deref().map(stem), model_in_name.as_deref()];
            let name = parts.into_iter().flatten().fold(agent.name.clone(), |name, part| name + "_" + part);
            let (skill, model) = (skill.clone(), model.clone());
            let cell = AgentSpec { name, skill, model, variants: None, ..agent.clone() };
            cells.push((cell, format!("{entry}/variants/skills/{at}")));
        }
    }
    cells
}

fn read_card(path: &Path) -> Result<SkillCard, String> {
    let size = fs::metadata(path).map_err(|e| format!("it cannot be read: {e}"))?.len();
    if size > card::BYTES_MAX as u64 {
        return Err(format!("it has {size} bytes: at most {} are read", card::BYTES_MAX));
    }
    SkillCard::parse(&fs::read(path).map_err(|e| format!("it cannot be read: {e}"))?)
}
