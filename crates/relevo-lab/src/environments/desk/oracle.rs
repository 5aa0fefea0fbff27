//! The best workflows of `desk@1`, exactly: a fixed sequence of cells has a closed form, and of all sequences worth their
//! tokens the best is found by branch and bound.

use super::{CELLS, Cell, Class, Truth, Work, reward};

/// What a workflow brings, in expectation.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Worth {
    /// Quality.
    pub quality: f64,
    /// Tokens.
    pub tokens: f64,
    /// Failed calls.
    pub failures: f64,
}

impl Worth {
    /// What the reward says of it.
    pub fn reward(&self) -> f64 {
        reward(self.quality, self.tokens, self.failures)
    }

    /// The mean of several.
    pub fn mean(worths: impl ExactSizeIterator<Item = Worth>) -> Self {
        let (mut mean, weight) = (Worth::default(), 1.0 / worths.len() as f64);
        worths.for_each(|worth| mean.add(worth, weight));
        mean
    }

    fn add(&mut self, other: Worth, weight: f64) {
        self.quality += weight * other.quality;
        self.tokens += weight * other.tokens;
        self.failures += weight * other.failures;
    }
}

/// A fixed sequence of cells. One that has not got what it works on when its turn comes is passed over.
#[derive(Clone, Debug, PartialEq)]
pub struct Workflow {
    cells: Vec<usize>,
}

/// Which workflows there are to choose from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Space {
    /// Those that begin with a plan and end with the evaluator.
    Concluded,
    /// Those in which a solver may also act alone, with no plan before it, or nobody after it but the verifier that is
    /// required where the risk is high.
    Alone,
}

impl Workflow {
    /// The workflow of cells with these names; `None` if one is unknown.
    pub fn of(names: &[&str]) -> Option<Self> {
        let at = |name: &&str| CELLS.iter().position(|cell| cell.name == *name);
        Some(Workflow { cells: names.iter().map(at).collect::<Option<_>>()? })
    }

    /// All cells in the order of the plan.
    pub fn full() -> Self {
        Workflow { cells: (0..CELLS.len()).collect() }
    }

    /// The names of its cells.
    pub fn names(&self) -> impl Iterator<Item = &'static str> + '_ {
        self.cells.iter().map(|cell| CELLS[*cell].name)
    }

    /// What it brings on tasks of a class, exactly.
    pub fn worth(&self, class: Class) -> Worth {
        fn follow(cells: &[usize], truth: Truth, class: Class) -> Worth {
            let profile = class.profile();
            let Some((&at, rest)) = cells.split_first() else {
                return Worth { quality: truth.quality(profile), ..Worth::default() };
            };
            let Cell { work, tokens, fails, .. } = CELLS[at];
            // A solver after which nobody comes, or only who checks, acts alone, and takes the goal for the plan.
            let alone = matches!(work, Work::Solve(..)) && rest.iter().all(|cell| VERIFIERS.contains(cell));
            if !alone && !truth.is_ready(work, profile) {
                return follow(rest, truth, class);
            }
            let mut worth = Worth { tokens: tokens as f64, failures: fails, quality: 0.0 };
            worth.add(follow(rest, truth.after(work, profile), class), 1.0 - fails);
            if fails > 0.0 {
                worth.add(follow(rest, truth, class), fails);
            }
            worth
        }
        follow(&self.cells, Truth::default(), class)
    }

    /// What it brings on average over classes.
    pub fn mean(&self, classes: &[Class]) -> Worth {
        Worth::mean(classes.iter().map(|class| self.worth(*class)))
    }
}

/// The best solver that acts alone for a mix of classes, and what it brings.
pub fn single(classes: &[Class]) -> (Workflow, Worth) {
    let alone = SOLVERS.map(|solver| Workflow { cells: vec![solver] });
    let worths = alone.map(|workflow| (workflow.mean(classes), workflow)).into_iter();
    let (worth, workflow) =
        worths.max_by(|(a, _), (b, _)| a.reward().total_cmp(&b.reward())).expect("there are solvers");
    (workflow, worth)
}

/// The best workflow for a mix of classes, and what it brings.
///
/// Within a workflow, searches come first, then drafts, a critique, more drafts, a merge, checks and the end: any other
/// order of the same cells is worth no more, as only a critique takes anything from what stands.
pub fn best(classes: &[Class], space: Space) -> (Workflow, Worth) {
    let ceiling = |class: &Class| {
        let all =
            [&[PLANNER, 1, 2, 3, FIRST_SOLVER, CRITIC][..], &SOLVERS, &[SYNTHESISER], &VERIFIERS].concat();
        let profile = class.profile();
        all.iter().fold(Truth::default(), |t, cell| t.after(CELLS[*cell].work, profile)).quality(profile)
    };
    let ceiling = classes.iter().map(ceiling).sum::<f64>() / classes.len() as f64;
    let mut search = Search { classes, ceiling, best: (Workflow { cells: vec![] }, Worth::default()) };
    search.planned(space);
    if space == Space::Alone {
        search.unplanned();
    }
    search.best
}

const PLANNER: usize = 0;
const MEMORY: usize = 1;
const SOURCES: [usize; 3] = [MEMORY, 2, 3];
const FIRST_SOLVER: usize = 4;
const SOLVERS: [usize; 9] = [4, 5, 6, 7, 8, 9, 10, 11, 12];
const CRITIC: usize = 13;
const VERIFIERS: [usize; 2] = [14, 15];
const SYNTHESISER: usize = 16;
const EVALUATOR: usize = 17;

struct Search<'c> {
    classes: &'c [Class],
    /// No workflow has more quality.
    ceiling: f64,
    best: (Workflow, Worth),
}

impl Search<'_> {
    /// A plan, some searches, and what may follow.
    fn planned(&mut self, space: Space) {
        for sources in subsets(&SOURCES) {
            let mut cells = [&[PLANNER], &sources[..]].concat();
            self.drafts(&mut cells, FIRST_SOLVER, space);
        }
    }

    /// One solver, with or without what is remembered.
    fn unplanned(&mut self) {
        for (before, solver) in subsets(&[MEMORY]).flat_map(|m| SOLVERS.map(|s| (m.clone(), s))) {
            self.alone(&[&before[..], &[solver]].concat());
        }
    }

    /// One more draft, by a solver from `from` on, or the critique; and what may follow.
    fn drafts(&mut self, cells: &mut Vec<usize>, from: usize, space: Space) {
        let drafted = cells.last().is_some_and(|last| SOLVERS.contains(last));
        let critique = (drafted && !cells.contains(&CRITIC)).then_some(CRITIC);
        for next in (from..CRITIC).chain(critique) {
            if cells.contains(&next) {
                continue;
            }
            cells.push(next);
            if self.may_pay(cells) {
                self.ends(cells, space);
                self.drafts(cells, if next == CRITIC { FIRST_SOLVER } else { next + 1 }, space);
            }
            cells.pop();
        }
    }

    /// What may come after the last draft or critique.
    fn ends(&mut self, cells: &[usize], space: Space) {
        if space == Space::Alone && cells.last() != Some(&CRITIC) {
            self.alone(cells);
        }
        for end in subsets(&[SYNTHESISER, VERIFIERS[0], VERIFIERS[1]]) {
            self.consider(&[cells, &end, &[EVALUATOR]].concat());
        }
    }

    /// The last cell acts alone.
    fn alone(&mut self, cells: &[usize]) {
        self.consider(cells);
        let is_high_risk = |class: &Class| class.profile().features[4] > 0.8;
        if self.classes.iter().all(is_high_risk) {
            VERIFIERS.iter().for_each(|verifier| self.consider(&[cells, &[*verifier]].concat()));
        }
    }

    /// Whether what these cells cost can be worth it.
    fn may_pay(&self, cells: &[usize]) -> bool {
        // Only what is spent for certain: a cell that is passed over costs nothing.
        let certain = cells.iter().filter(|cell| !VERIFIERS.contains(cell));
        let (tokens, failures) = certain.fold((0.0, 0.0), |(tokens, failures), cell| {
            (tokens + CELLS[*cell].tokens as f64, failures + CELLS[*cell].fails)
        });
        reward(self.ceiling, tokens, failures) > self.best.1.reward()
    }

    fn consider(&mut self, cells: &[usize]) {
        if self.may_pay(cells) {
            let workflow = Workflow { cells: cells.to_vec() };
            let worth = workflow.mean(self.classes);
            if worth.reward() > self.best.1.reward() {
                self.best = (workflow, worth);
            }
        }
    }
}

/// All subsets, in the order of the list.
fn subsets(list: &[usize]) -> impl Iterator<Item = Vec<usize>> {
    let pick = |subset: usize| (0..list.len()).filter(move |bit| subset >> bit & 1 == 1).map(|bit| list[bit]);
    (0..1_usize << list.len()).map(move |subset| pick(subset).collect())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use relevo::{
        agent::{Agent, HandoffLabel, OperationCall},
        artifact::Artifact,
        coordinate::document::Document,
        tasks::{Simulator, TaskSource},
    };
    use relevo_core::Rng;

    use super::*;
    use crate::environments::desk::DeskWorld;

    fn world() -> DeskWorld {
        DeskWorld::new(&Default::default()).expect("it has no options")
    }

    /// A workflow on the `number`-th evaluation task: what it brought, and every call as a line.
    async fn follow(world: &DeskWorld, number: u64, workflow: &Workflow) -> (Worth, String) {
        let task = world.evaluation(number).unwrap().unwrap();
        let (mut artifact, mut worth, mut said) = (task.artifact.clone(), Worth::default(), String::new());
        for (step, name) in workflow.names().enumerate() {
            let agent: Arc<dyn Agent> = world.agent(name).unwrap();
            let handoff = HandoffLabel(format!("{number}/0/0.{step}"));
            let call = OperationCall { agent: name, operation: "default", handoff };
            let outcome = agent.perform(&call, artifact).await;
            artifact = outcome.artifact.clone();
            worth.tokens += outcome.tokens as f64;
            worth.failures += f64::from(u8::from(outcome.failure().is_some()));
            let ended = if outcome.failure().is_some() { "failed" } else { "done" };
            said += &format!("  {name}: {ended}, {} tokens\n", outcome.tokens);
        }
        let answer =
            Document::parse(&artifact.payload).unwrap().answer().unwrap_or_default().as_bytes().into();
        let answer = Artifact { payload: answer, ..artifact };
        worth.quality = world.quality(&task, &answer).unwrap();
        let head = format!("{}\n{said}", task.id);
        (worth, format!("{head}  quality {:.6}, J {:.6}\n", worth.quality, worth.reward()))
    }

    fn run<T>(work: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(work)
    }

    /// The best workflow of each class, followed by the cells: the expected text changes only with the
    /// version of the environment.
    #[test]
    fn the_best_workflows_play_as_they_always_did() {
        let world = world();
        let mut said = String::new();
        for number in 0..8 {
            let class = Class(number as usize);
            said += &run(follow(&world, number, &best(&[class], Space::Concluded).0)).1;
        }
        assert_eq!(said, include_str!("../desk.txt"), "\n{said}");
    }

    /// What the cells do has the mean of the closed form: two workflows, 100 tasks of each class,
    /// seeds fixed, within 5 standard errors (false alarm below 1e-6 a figure).
    #[test]
    fn the_closed_form_is_what_cells_bring() {
        let world = world();
        let merged =
            ["planner", "memory", "web_search_b", "solver_cot_small", "solver_evidence_fast", "critic"];
        let merged = [&merged[..], &["synthesiser", "verifier_small", "evaluator"]].concat();
        for workflow in [Workflow::of(&merged).unwrap(), Workflow::full()] {
            for class in Class::all() {
                let n = 100;
                let (mut rewards, mut squares) = (0.0, 0.0);
                for i in 0..n {
                    let j = run(follow(&world, 8 * i + class.index() as u64, &workflow)).0.reward();
                    rewards += j;
                    squares += j * j;
                }
                let n = n as f64;
                let mean = rewards / n;
                let error = ((squares / n - mean * mean) / n).sqrt();
                let expected = workflow.worth(class).reward();
                assert!(
                    (mean - expected).abs() < 5.0 * error,
                    "{}: {mean} for {expected} +- {error}",
                    class.profile().name
                );
            }
        }
    }

    /// Of 20,000 random sequences a class, in any order, none beats the best; and no workflow is best for two classes.
    #[test]
    fn nothing_beats_the_best() {
        let mut rng = Rng::stream(1, "desk/sequences");
        let mut bests = vec![];
        for class in Class::all() {
            let (workflow, worth) = best(&[class], Space::Concluded);
            let alone = best(&[class], Space::Alone).1;
            assert!(alone.reward() >= worth.reward());
            for _ in 0..20_000 {
                let mut cells: Vec<usize> = (1..EVALUATOR).collect();
                // The first few of a shuffle.
                let length = 1 + rng.below(7) as usize;
                for i in 0..length {
                    let with = i + rng.below((cells.len() - i) as u32) as usize;
                    cells.swap(i, with);
                }
                let any = Workflow { cells: [&[PLANNER], &cells[..length]].concat() };
                if SOLVERS.contains(any.cells.last().expect("a cell")) {
                    assert!(any.worth(class).reward() <= alone.reward() + 1e-12, "{any:?}");
                }
                let ended = Workflow { cells: [&any.cells[..], &[EVALUATOR]].concat() };
                assert!(ended.worth(class).reward() <= worth.reward() + 1e-12, "{ended:?}");
            }
            assert!(!bests.contains(&workflow), "{workflow:?}");
            bests.push(workflow);
        }
    }
}
