//! The plan: which cells a coordinator may invoke or skip, and in which states.

use relevo_core::{ids::ActionId, observation::ActionSet};

use super::state::State;

/// What a cell does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Sets the subproblem.
    Planner,
    /// Recalls evidence.
    Memory,
    /// Looks for evidence.
    WebSearch,
    /// Drafts an answer.
    Solver,
    /// Criticises a draft.
    Critic,
    /// Holds a draft against the evidence.
    Verifier,
    /// Merges drafts.
    Synthesiser,
    /// Says whether the task is done.
    Evaluator,
}

impl Role {
    const NAMES: [(&str, Role); 8] = [
        ("planner", Role::Planner),
        ("memory", Role::Memory),
        ("web_search", Role::WebSearch),
        ("solver", Role::Solver),
        ("critic", Role::Critic),
        ("verifier", Role::Verifier),
        ("synthesiser", Role::Synthesiser),
        ("evaluator", Role::Evaluator),
    ];

    /// The role of a cell called `role` or `role_variant`.
    pub fn of_cell(name: &str) -> Option<Role> {
        let plays =
            |role: &str| name.strip_prefix(role).is_some_and(|rest| rest.is_empty() || rest.starts_with('_'));
        Self::NAMES.iter().find(|(role, _)| plays(role)).map(|(_, role)| *role)
    }

    /// Whether what it works on is there.
    pub fn is_ready(self, state: &State) -> bool {
        match self {
            Role::Planner => true,
            Role::Memory => state.goal,
            Role::WebSearch | Role::Solver => state.subproblem,
            Role::Critic | Role::Synthesiser | Role::Evaluator => state.draft,
            Role::Verifier => state.draft && state.evidence,
        }
    }
}

/// One agent that a coordinator can invoke.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cell {
    /// Its name, unique in the plan.
    pub name: String,
    /// What it does.
    pub role: Role,
}

/// Whether a coordinator may pass a cell over for the rest of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Skips {
    /// Where more than one cell may come next, each may be skipped instead.
    Allowed,
    /// No cell is skipped.
    None,
}

/// Cells in the order in which they come next when nothing is known. Column `i` of the coordinator's table invokes cell
/// `i`; column `n + i`, of `n` cells, skips it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    cells: Vec<Cell>,
}

impl Plan {
    /// The most cells of a plan.
    pub const CELLS_MAX: usize = 256;

    /// A plan of these cells; refused with the reason if there are none or too many, or a name is doubled or of no role.
    pub fn new<'n>(names: impl IntoIterator<Item = &'n str>) -> Result<Self, String> {
        let mut cells: Vec<Cell> = vec![];
        for name in names {
            let Some(role) = Role::of_cell(name) else {
                let roles = Role::NAMES.map(|(role, _)| role).join(", ");
                return Err(format!("cell {name:?} has no role: its name must begin with one of {roles}"));
            };
            if cells.iter().any(|cell| cell.name == name) {
                return Err(format!("cell {name:?} is in the plan twice"));
            }
            if cells.len() == Self::CELLS_MAX {
                return Err(format!("a plan has at most {} cells", Self::CELLS_MAX));
            }
            cells.push(Cell { name: name.to_owned(), role });
        }
        match cells.is_empty() {
            true => Err("a plan needs at least one cell".to_owned()),
            false => Ok(Plan { cells }),
        }
    }

    /// The flat plan of the recorded experiments: all skills on all models.
    pub fn flat() -> Self {
        let skills = ["concise", "cot", "evidence"];
        let solvers =
            skills.iter().flat_map(|s| ["haiku", "fast", "mini"].map(|m| format!("solver_{s}_{m}")));
        let before = ["planner", "memory", "web_search_exa", "web_search_tavily"].map(str::to_owned);
        let after = ["verifier_fast", "verifier_haiku", "evaluator"].map(str::to_owned);
        let names: Vec<String> = before.into_iter().chain(solvers).chain(after).collect();
        Plan::new(names.iter().map(String::as_str)).expect("each has a role and is named once")
    }

    /// Its cells, in order.
    pub fn cells(&self) -> &[Cell] {
        &self.cells
    }

    /// How many columns a coordinator's table has: to invoke and to skip each cell.
    pub fn width(&self) -> usize {
        2 * self.cells.len()
    }

    /// The cell that a column invokes or skips.
    pub fn cell(&self, action: ActionId) -> usize {
        action.index() % self.cells.len()
    }

    /// Whether a column invokes its cell.
    pub fn invokes(&self, action: ActionId) -> bool {
        action.index() < self.cells.len()
    }

    /// The name of a column: that of its cell, or `skip:` and that of its cell.
    pub fn name(&self, action: ActionId) -> String {
        let name = &self.cells[self.cell(action)].name;
        if self.invokes(action) { name.clone() } else { format!("skip:{name}") }
    }

    /// The column of a name.
    pub fn action(&self, name: &str) -> Option<ActionId> {
        let (cell, first) = match name.strip_prefix("skip:") {
            Some(cell) => (cell, self.cells.len()),
            None => (name, 0),
        };
        self.cells.iter().position(|c| c.name == cell).map(|i| ActionId((first + i) as u32))
    }

    /// The columns admissible in `state`, where the cells of `taken` have been invoked or skipped before.
    pub fn candidates(&self, state: &State, taken: &ActionSet, skips: Skips) -> ActionSet {
        let cells = self.cells.iter().zip((0..).map(ActionId));
        let legal = cells.filter(|(cell, at)| !taken.contains(*at) && cell.role.is_ready(state));
        let mut candidates: ActionSet = legal.map(|(_, at)| at).collect();
        if skips == Skips::Allowed && candidates.len() > 1 {
            let skipped: Vec<ActionId> = candidates.iter().collect();
            let n = self.cells.len() as u32;
            skipped.into_iter().for_each(|ActionId(at)| candidates.insert(ActionId(n + at)));
        }
        candidates
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(present: [bool; 4]) -> State {
        let [goal, subproblem, evidence, draft] = present;
        let text = format!(
            r#"["ambiguous",{goal},{subproblem},{evidence},{draft},false,false,false,0.1,0.9,0.5,0.1]"#
        );
        serde_json::from_str(&text).unwrap()
    }

    fn names(plan: &Plan, candidates: &ActionSet) -> Vec<String> {
        candidates.iter().map(|a| plan.name(a)).collect()
    }

    #[test]
    fn cells_wait_for_what_they_work_on() {
        let plan = Plan::new(["planner", "memory", "solver_cot", "verifier", "evaluator"]).unwrap();
        let mut taken = ActionSet::default();
        let start = plan.candidates(&state([false; 4]), &taken, Skips::Allowed);
        assert_eq!(names(&plan, &start), ["planner"], "a single cell cannot be skipped");
        taken.insert(plan.action("planner").unwrap());
        let planned = plan.candidates(&state([true, true, false, false]), &taken, Skips::Allowed);
        assert_eq!(names(&plan, &planned), ["memory", "solver_cot", "skip:memory", "skip:solver_cot"]);
        let drafted = state([true, true, false, true]);
        taken.insert(plan.action("solver_cot").unwrap());
        assert_eq!(names(&plan, &plan.candidates(&drafted, &taken, Skips::None)), ["memory", "evaluator"]);
        let found = state([true; 4]);
        taken.insert(plan.action("memory").unwrap());
        assert_eq!(names(&plan, &plan.candidates(&found, &taken, Skips::None)), ["verifier", "evaluator"]);
    }

    #[test]
    fn columns_have_names_and_names_have_columns() {
        let plan = Plan::flat();
        assert_eq!((plan.cells().len(), plan.width()), (16, 32));
        for a in (0..32).map(ActionId) {
            assert_eq!(plan.action(&plan.name(a)), Some(a));
        }
        assert_eq!(plan.action("skip:solver_fast"), None);
        for wrong in [&[][..], &["planner", "planner"], &["plan"], &["solvers"]] {
            assert!(Plan::new(wrong.iter().copied()).is_err(), "{wrong:?}");
        }
    }
}
