//! A coordinated team: the columns of its coordinator's table, and what each regime gets. The same for all its tasks.

use std::collections::BTreeMap;

use relevo_core::{ids::ActionId, policy_file::hex};

use super::{
    activation::Activation,
    belief::EmptySearch,
    features::Regime,
    plan::{Cell, Move, Plan, Role, Skips},
    state::SignatureSpec,
};
use crate::team::{AgentSpec, CoordinatorSection, TeamSpec};

/// What a coordinator needs to know of its team.
#[derive(Clone, Debug, PartialEq)]
pub struct Coordination {
    plan: Plan,
    /// Of each regime, in the order of [`Regime::ALL`].
    activations: Vec<Activation>,
    signature: SignatureSpec,
    skips: Skips,
    alone: bool,
    steps_max: u32,
    branches: u32,
    empty_search: EmptySearch,
    variants: Vec<Variant>,
}

/// What tells one cell of a role from another.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Variant {
    skill: Option<String>,
    model: Option<String>,
    /// First eight digits of the hash of all that its outcomes depend on.
    version: String,
}

impl Coordination {
    /// The coordination of a team; refused with the reason if it has no `[coordinator]`, or one that does not fit.
    pub fn of(team: &TeamSpec) -> Result<Self, String> {
        let Some(section) = &team.coordinator else {
            return Err("the team is not coordinated: add a [coordinator] section".to_owned());
        };
        let cells: Result<Vec<Cell>, String> = team.agents.iter().map(cell).collect();
        let cells = cells?;
        let activation = |regime| {
            let made = section.activation(regime, &cells);
            made.map_err(|(place, what)| format!("{}: {what}", place.replace('/', ".")))
        };
        let activations: Result<Vec<Activation>, String> = Regime::ALL.into_iter().map(activation).collect();
        let CoordinatorSection { granularity, taken, cell, ref facts, steps_max, branches, .. } = *section;
        Ok(Coordination {
            plan: Plan::of(cells, section.alone)?,
            activations: activations?,
            signature: SignatureSpec {
                granularity: Some(granularity).filter(|g| *g > 0.0),
                taken,
                cell,
                facts: facts.clone(),
            },
            skips: if section.skips { Skips::Allowed } else { Skips::None },
            alone: section.alone,
            steps_max,
            branches,
            empty_search: section.empty_search,
            variants: team.agents.iter().map(|agent| Variant::of(agent, team)).collect(),
        })
    }

    /// Its cells and columns.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// The cells that a regime gets.
    pub fn activation(&self, regime: Regime) -> &Activation {
        let at = Regime::ALL.iter().position(|r| *r == regime);
        &self.activations[at.expect("all regimes are among all regimes")]
    }

    /// What is folded into signatures.
    pub fn signature(&self) -> &SignatureSpec {
        &self.signature
    }

    /// Whether cells may be skipped.
    pub fn skips(&self) -> Skips {
        self.skips
    }

    /// Whether a solver may act alone.
    pub fn alone(&self) -> bool {
        self.alone
    }

    /// After how many steps a task stops; a skip is one.
    pub fn steps_max(&self) -> u32 {
        self.steps_max
    }

    /// How often a branch runs.
    pub fn branches(&self) -> u32 {
        self.branches
    }

    /// What a search that failed, or found nothing, does to the beliefs.
    pub fn empty_search(&self) -> EmptySearch {
        self.empty_search
    }

    /// How many columns the coordinator's table has.
    pub fn width(&self) -> usize {
        self.plan.width()
    }

    /// The readable name of a column: `planner`, `skip:planner`, `only:solver_cot`.
    pub fn column_name(&self, action: ActionId) -> String {
        self.plan.name(action)
    }

    /// What a column stands for.
    pub fn move_of(&self, action: ActionId) -> Move {
        self.plan.move_of(action)
    }

    /// The name of a column in policy files: the readable one, with `#` and the version of the cell. Where its skill,
    /// model, tools, command or role changes, or what its model is asked with, it is another arm.
    pub fn column_identity(&self, action: ActionId) -> String {
        format!("{}#{}", self.column_name(action), self.variants[self.plan.cell(action)].version)
    }

    /// For each column the groups that it belongs to, numbered from 0: those of the same kind of move and the same role,
    /// skill, model, or cell of whichever version. What is learned of one column says something of the others.
    pub fn groups(&self) -> Vec<Vec<u32>> {
        let mut numbers = BTreeMap::new();
        let columns = (0..self.width() as u32).map(|column| self.plan.move_of(ActionId(column)));
        columns
            .map(|of| {
                let (cell, variant) = (&self.plan.cells()[of.cell()], &self.variants[of.cell()]);
                let keys = [
                    Some(("role", cell.role.name())),
                    variant.skill.as_deref().map(|skill| ("skill", skill)),
                    variant.model.as_deref().map(|model| ("model", model)),
                    Some(("cell", cell.name.as_str())),
                ];
                let mut number = |(kind, name): (&'static str, &str)| {
                    let next = numbers.len() as u32;
                    *numbers.entry((of.prefix(), kind, name.to_owned())).or_insert(next)
                };
                keys.into_iter().flatten().map(&mut number).collect()
            })
            .collect()
    }
}

/// The cell that an agent is.
pub(crate) fn cell(agent: &AgentSpec) -> Result<Cell, String> {
    match agent.role.or_else(|| Role::of_cell(&agent.name)) {
        Some(role) => Ok(Cell { name: agent.name.clone(), role }),
        None => {
            let roles = Role::NAMES.map(|(role, _)| role).join(", ");
            Err(format!("agent {:?} has no role: add role = \"...\", one of {roles}", agent.name))
        }
    }
}

impl Variant {
    fn of(agent: &AgentSpec, team: &TeamSpec) -> Self {
        let AgentSpec { card, command, simulate, .. } = agent;
        let role = agent.role.or_else(|| Role::of_cell(&agent.name)).map(Role::name);
        // Lists with lengths, so that no two cells write the same bytes.
        let parts = (
            card.as_ref().map(|card| card.digest),
            // A card that was read is known by its bytes, wherever it lies.
            agent.skill.as_ref().filter(|_| card.is_none()),
            agent.model(),
            agent.tools(),
            command,
            simulate,
            role,
        );
        let mut bytes = serde_json::to_vec(&parts).expect("a team file holds texts and lists");
        if let Some(model) = team.model_of(agent) {
            serde_json::to_writer(&mut bytes, &model.definition()).expect("it holds texts and numbers");
        }
        if let Some(tools) = team.tools_of(agent) {
            serde_json::to_writer(&mut bytes, &tools).expect("it holds texts and numbers");
        }
        Variant {
            skill: agent.skill_name(),
            model: agent.model().map(str::to_owned),
            version: hex(&blake3::hash(&bytes).as_bytes()[..4]),
        }
    }
}
