//! The plan: which cells a coordinator may invoke or skip, and in which states.

use std::collections::BTreeSet;

use relevo_core::{ids::ActionId, observation::ActionSet};
use serde::{Deserialize, Serialize};

use super::state::State;

/// What a cell does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
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
    /// All roles, with their names.
    pub const NAMES: [(&str, Role); 8] = [
        ("planner", Role::Planner),
        ("memory", Role::Memory),
        ("web_search", Role::WebSearch),
        ("solver", Role::Solver),
        ("critic", Role::Critic),
        ("verifier", Role::Verifier),
        ("synthesiser", Role::Synthesiser),
        ("evaluator", Role::Evaluator),
    ];

    /// Its name.
    pub fn name(self) -> &'static str {
        Self::NAMES.iter().find(|(_, role)| *role == self).expect("every role has a name").0
    }

    /// The role of this name.
    pub fn named(name: &str) -> Option<Role> {
        Self::NAMES.iter().find(|(role, _)| *role == name).map(|(_, role)| *role)
    }

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

/// What a column of a coordinator's table stands for; the number is that of a cell.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Move {
    /// Let the cell act.
    Invoke(usize),
    /// Pass the cell over for the rest of the run.
    Skip(usize),
    /// Let the cell act, and pass all others over that are not required.
    Only(usize),
}

impl Move {
    /// The cell that it is about.
    pub fn cell(self) -> usize {
        let (Move::Invoke(cell) | Move::Skip(cell) | Move::Only(cell)) = self;
        cell
    }

    /// What stands before the name of the cell.
    pub fn prefix(self) -> &'static str {
        match self {
            Move::Invoke(_) => "",
            Move::Skip(_) => "skip:",
            Move::Only(_) => "only:",
        }
    }
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
/// `i`; column `n + i`, of `n` cells, skips it; column `2 n + i`, where there is one, lets it act alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    cells: Vec<Cell>,
    /// Whether there are columns to let a cell act alone.
    alone: bool,
}

impl Plan {
    /// The most cells of a plan.
    pub const CELLS_MAX: usize = 256;

    /// A plan of these cells, each of the role that its name begins with; refused with the reason if there are none or too
    /// many, or a name is doubled or of no role. No cell can act alone.
    pub fn new<'n>(names: impl IntoIterator<Item = &'n str>) -> Result<Self, String> {
        let cell = |name: &str| match Role::of_cell(name) {
            Some(role) => Ok(Cell { name: name.to_owned(), role }),
            None => {
                let roles = Role::NAMES.map(|(role, _)| role).join(", ");
                Err(format!("cell {name:?} has no role: its name must begin with one of {roles}"))
            }
        };
        // One more than may be is enough to refuse them.
        let names = names.into_iter().take(Self::CELLS_MAX + 1);
        Self::of(names.map(cell).collect::<Result<_, _>>()?, false)
    }

    /// A plan of these cells; refused as by [`Plan::new`].
    pub fn of(cells: Vec<Cell>, alone: bool) -> Result<Self, String> {
        let names: BTreeSet<&str> = cells.iter().map(|cell| cell.name.as_str()).collect();
        if cells.len() > Self::CELLS_MAX {
            return Err(format!("a plan has at most {} cells", Self::CELLS_MAX));
        }
        if names.len() < cells.len() {
            let twice = |(i, cell): &(usize, &Cell)| cells[..*i].iter().any(|c| c.name == cell.name);
            let twice = cells.iter().enumerate().find(twice).map(|(_, cell)| &cell.name);
            return Err(format!("cell {:?} is in the plan twice", twice.expect("fewer names than cells")));
        }
        match cells.is_empty() {
            true => Err("a plan needs at least one cell".to_owned()),
            false => Ok(Plan { cells, alone }),
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

    /// How many columns a coordinator's table has.
    pub fn width(&self) -> usize {
        Self::width_of(self.cells.len(), self.alone)
    }

    /// How many columns that of `cells` cells has.
    pub fn width_of(cells: usize, alone: bool) -> usize {
        cells * if alone { 3 } else { 2 }
    }

    /// What a column stands for.
    pub fn move_of(&self, action: ActionId) -> Move {
        let (kind, cell) = (action.index() / self.cells.len(), action.index() % self.cells.len());
        [Move::Invoke, Move::Skip, Move::Only][kind.min(2)](cell)
    }

    /// The column of a move.
    pub fn column(&self, of: Move) -> ActionId {
        let kind = match of {
            Move::Invoke(_) => 0,
            Move::Skip(_) => 1,
            Move::Only(_) => 2,
        };
        ActionId((kind * self.cells.len() + of.cell()) as u32)
    }

    /// The cell that a column is about.
    pub fn cell(&self, action: ActionId) -> usize {
        self.move_of(action).cell()
    }

    /// Whether a column invokes its cell.
    pub fn invokes(&self, action: ActionId) -> bool {
        matches!(self.move_of(action), Move::Invoke(_))
    }

    /// The name of a column: that of its cell, after `skip:` or `only:` if that is what it does.
    pub fn name(&self, action: ActionId) -> String {
        let of = self.move_of(action);
        of.prefix().to_owned() + &self.cells[of.cell()].name
    }

    /// The column of a name.
    pub fn action(&self, name: &str) -> Option<ActionId> {
        let cell = |name: &str| self.cells.iter().position(|cell| cell.name == name);
        let of = match (name.strip_prefix("skip:"), name.strip_prefix("only:")) {
            (Some(name), _) => Move::Skip(cell(name)?),
            (_, Some(name)) if self.alone => Move::Only(cell(name)?),
            _ => Move::Invoke(cell(name)?),
        };
        Some(self.column(of))
    }

    /// The cells that can come next in `state`, where those of `taken` have been invoked or skipped before.
    pub fn ready(&self, state: &State, taken: &ActionSet) -> ActionSet {
        let cells = self.cells.iter().zip((0..).map(ActionId));
        let ready = cells.filter(|(cell, at)| !taken.contains(*at) && cell.role.is_ready(state));
        ready.map(|(_, at)| at).collect()
    }

    /// The columns admissible in `state`, where the cells of `taken` have been invoked or skipped before.
    pub fn candidates(&self, state: &State, taken: &ActionSet, skips: Skips) -> ActionSet {
        self.with_skips(self.ready(state, taken), skips)
    }

    /// Cells that can come next and, where there is more than one, the columns that skip them.
    pub fn with_skips(&self, ready: ActionSet, skips: Skips) -> ActionSet {
        if skips == Skips::None || ready.len() < 2 {
            return ready;
        }
        let skipped = ready.iter().map(|cell| self.column(Move::Skip(cell.index())));
        ready.iter().chain(skipped).collect()
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
