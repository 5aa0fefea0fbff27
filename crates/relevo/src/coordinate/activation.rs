//! Activation: which cells a task of some kind gets, in which order, and which of them it must not do without.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::{
    features::Regime,
    plan::{Cell, Role},
    state::State,
};

/// The cells that a task of one regime gets, by their numbers.
///
/// The trunk comes first. Then the branch runs several times, each time on a copy of the document as it was after the
/// trunk; the tail receives the results. Within each of the three, cells come in the order of their columns, as far as
/// what they work on is there. A plan without branches is all trunk.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Activation {
    /// Cells before the branches.
    pub trunk: Vec<usize>,
    /// Cells of each branch, which takes at most one of each role.
    pub branch: Vec<usize>,
    /// Cells after the branches: those that merge, and those that end.
    pub tail: Vec<usize>,
    /// Roles that must have acted before the task may end.
    pub required: Vec<Role>,
}

/// One entry of a plan in the team file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(
    untagged,
    expecting = "an entry of a plan is a role, the name of an agent, or the list of them that is a branch"
)]
pub enum Entry {
    /// A role, which stands for all its agents; or one agent.
    Cells(String),
    /// The cells of each branch.
    Branch(Vec<String>),
}

impl Activation {
    /// The activation of a regime where nothing else is said. Each ends in an evaluator. The critic stands in the
    /// branches, behind the solver: it criticises a draft, and before the branches there is none.
    pub fn standard(regime: Regime, cells: &[Cell]) -> Self {
        use Role::{Critic, Evaluator, Memory, Planner, Solver, Synthesiser, Verifier, WebSearch};
        let (trunk, branch, tail): (&[Role], &[Role], &[Role]) = match regime {
            Regime::Straightforward => (&[Planner, Solver, Evaluator], &[], &[]),
            Regime::Exploratory => (&[Planner, Memory, WebSearch, Solver, Evaluator], &[], &[]),
            Regime::EvidenceHeavy | Regime::HighRisk => {
                (&[Planner, Memory, WebSearch, Solver, Verifier, Evaluator], &[], &[])
            }
            Regime::Ambiguous => {
                (&[Planner, Memory, WebSearch], &[Solver, Verifier], &[Synthesiser, Evaluator])
            }
            Regime::Contradictory => {
                (&[Planner, Memory, WebSearch], &[Solver, Critic, Verifier], &[Synthesiser, Evaluator])
            }
        };
        let of = |roles: &[Role]| (0..cells.len()).filter(|i| roles.contains(&cells[*i].role)).collect();
        Activation { trunk: of(trunk), branch: of(branch), tail: of(tail), required: vec![] }
    }

    /// The activation that gives every task every cell.
    pub fn flat(cells: &[Cell]) -> Self {
        Activation { trunk: (0..cells.len()).collect(), ..Activation::default() }
    }

    /// The activation that the entries of a plan make; else which entry is at fault, and why.
    pub fn of(entries: &[Entry], cells: &[Cell]) -> Result<Self, (usize, String)> {
        let mut made = Activation::default();
        let mut branched = false;
        for (at, entry) in entries.iter().enumerate() {
            let names = match entry {
                Entry::Branch(_) if branched => {
                    return Err((
                        at,
                        "a plan has one list of branch cells: put all of them into it".to_owned(),
                    ));
                }
                Entry::Branch(names) => {
                    branched = true;
                    names.as_slice()
                }
                Entry::Cells(name) => std::slice::from_ref(name),
            };
            for name in names {
                let found = select(name, cells).map_err(|what| (at, what))?;
                let part = match (entry, branched) {
                    (Entry::Branch(_), _) => &mut made.branch,
                    (_, false) => &mut made.trunk,
                    (_, true) => &mut made.tail,
                };
                part.extend(found);
            }
        }
        for part in [&mut made.trunk, &mut made.branch, &mut made.tail] {
            part.sort_unstable();
            part.dedup();
        }
        match made.cells().count() {
            0 => Err((0, "a plan needs at least one cell".to_owned())),
            _ => Ok(made),
        }
    }

    /// All its cells; one that is in several parts comes several times.
    pub fn cells(&self) -> impl Iterator<Item = usize> + '_ {
        self.trunk.iter().chain(&self.branch).chain(&self.tail).copied()
    }
}

/// The cells that a name in a plan stands for: all of a role, or one.
fn select(name: &str, cells: &[Cell]) -> Result<Vec<usize>, String> {
    if let Some(role) = Role::named(name) {
        let found: Vec<usize> = (0..cells.len()).filter(|i| cells[*i].role == role).collect();
        return match found.is_empty() {
            false => Ok(found),
            true => Err(format!("no agent has the role {name:?}: add one, or leave the role out")),
        };
    }
    if let Some(at) = cells.iter().position(|cell| cell.name == name) {
        return Ok(vec![at]);
    }
    let known = cells.iter().map(|cell| cell.name.as_str()).chain(Role::NAMES.map(|(name, _)| name));
    let near = crate::team::nearest(name, known);
    let near = near.map_or(String::new(), |near| format!("; did you mean {near:?}?"));
    let shown = &name[..name.floor_char_boundary(80)];
    Err(format!("{shown:?} is neither a role nor an agent{near}"))
}

/// The roles that at least have to act so that `role` can, itself among them: each waits for what it works on, which
/// `available` roles may bring. `None` if it cannot.
pub(crate) fn chain(role: Role, state: &State, available: &dyn Fn(Role) -> bool) -> Option<BTreeSet<Role>> {
    let mut chain = BTreeSet::new();
    chain_to(role, state, available, &mut chain).then_some(chain)
}

fn chain_to(role: Role, state: &State, available: &dyn Fn(Role) -> bool, chain: &mut BTreeSet<Role>) -> bool {
    if chain.contains(&role) {
        return true;
    }
    if !available(role) {
        return false;
    }
    chain.insert(role);
    let mut from = |there: bool, role: Role| there || chain_to(role, state, available, chain);
    match role {
        Role::Planner => true,
        Role::Memory => from(state.goal, Role::Planner),
        Role::WebSearch | Role::Solver => from(state.subproblem, Role::Planner),
        Role::Critic | Role::Synthesiser | Role::Evaluator => from(state.draft, Role::Solver),
        Role::Verifier => {
            let drafted = from(state.draft, Role::Solver);
            let mut searched = || {
                [Role::Memory, Role::WebSearch].into_iter().any(|search| {
                    let mut with = chain.clone();
                    let found = chain_to(search, state, available, &mut with);
                    if found {
                        *chain = with;
                    }
                    found
                })
            };
            drafted && (state.evidence || searched())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cells() -> Vec<Cell> {
        let names = ["planner", "memory", "solver_a", "solver_b", "verifier", "synthesiser", "evaluator"];
        let cell = |name: &str| Cell { name: name.to_owned(), role: Role::of_cell(name).unwrap() };
        names.map(cell).to_vec()
    }

    fn entries(json: &str) -> Vec<Entry> {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn a_plan_is_made_of_roles_and_agents() {
        let text = r#"["planner", "memory", ["solver_b", "verifier"], "synthesiser", "evaluator"]"#;
        let made = Activation::of(&entries(text), &cells()).unwrap();
        assert_eq!((made.trunk, made.branch, made.tail), (vec![0, 1], vec![3, 4], vec![5, 6]));
        let made = Activation::of(&entries(r#"["solver", "planner"]"#), &cells()).unwrap();
        assert_eq!(made.trunk, [0, 2, 3], "a role stands for all its agents");
        let wrong = [
            (r#"["planner", "solver_c"]"#, 1, "did you mean"),
            (r#"["critic"]"#, 0, "no agent has the role"),
            (r#"[["solver"], "planner", ["verifier"]]"#, 2, "one list"),
            ("[]", 0, "at least one"),
            (r#"["zzzzzzzzzzzzzz"]"#, 0, "neither a role nor an agent"),
        ];
        for (text, at, said) in wrong {
            let (place, message) = Activation::of(&entries(text), &cells()).unwrap_err();
            assert!(place == at && message.contains(said), "{text}: {place}, {message}");
        }
    }

    #[test]
    fn a_required_role_needs_what_it_works_on() {
        let state = |text: &str| serde_json::from_str::<State>(text).unwrap();
        let nothing = state(r#"["high_risk",true,false,false,false,false,false,false,0,0,0,0]"#);
        let drafted = state(r#"["high_risk",true,true,false,true,false,false,false,0,0,0,0]"#);
        let roles = |state: &State, missing: &[Role]| {
            let chain = chain(Role::Verifier, state, &|role| !missing.contains(&role));
            chain.map(|roles| roles.into_iter().collect::<Vec<_>>())
        };
        use Role::{Memory, Planner, Solver, Verifier, WebSearch};
        assert_eq!(roles(&nothing, &[]), Some(vec![Planner, Memory, Solver, Verifier]));
        assert_eq!(roles(&nothing, &[Memory]), Some(vec![Planner, WebSearch, Solver, Verifier]));
        assert_eq!(roles(&nothing, &[Planner]), None);
        assert_eq!(roles(&drafted, &[Planner, Solver]), Some(vec![Memory, Verifier]));
        assert_eq!(roles(&drafted, &[Memory, WebSearch]), None);
    }
}
