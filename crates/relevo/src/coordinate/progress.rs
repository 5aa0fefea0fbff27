//! One task on its way through a coordinated team: what may be done next, and what came of what was done. No IO here, and
//! no decisions: the participant decides, the driver performs.

use std::{collections::BTreeSet, sync::Arc};

use relevo_core::{ids::ActionId, observation::ActionSet};

use super::{
    activation::{Activation, chain},
    belief::Beliefs,
    coordination::Coordination,
    document::{BranchResult, Document, DocumentError, best, stated},
    features::{Regime, TaskFeatures},
    plan::{Move, Role},
    stand::{Decision, Stand},
    state::{Folded, State},
};
use crate::{
    artifact::{Facts, Scalar},
    guard::StopReason,
};

/// What came of a cell's call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reply<'a> {
    /// The payload that it gave back.
    Document(&'a [u8]),
    /// Nothing.
    Failed,
}

/// Where in its plan a task is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Trunk,
    /// The branch of this number, from 0.
    Branch(u32),
    Tail,
    /// Behind an `only:`: what is required, and nothing else.
    Alone,
}

/// A document, and how far it got.
#[derive(Clone, Debug, PartialEq)]
struct Work {
    document: Document,
    beliefs: Beliefs,
    /// Cells invoked or skipped.
    taken: ActionSet,
}

/// One task on its way.
#[derive(Clone, Debug)]
pub struct Progress {
    coordination: Arc<Coordination>,
    regime: Regime,
    /// Those that the signature asks for.
    facts: Vec<Option<Scalar>>,
    part: Part,
    work: Work,
    /// Within the branches: the work as it was after the trunk.
    fork: Option<Work>,
    /// What came of the branches so far, and what is believed of it.
    results: Vec<(BranchResult, Beliefs)>,
    /// Roles that have acted.
    acted: BTreeSet<Role>,
    /// Those that have in this branch.
    acted_here: BTreeSet<Role>,
    last: Option<usize>,
    steps: u32,
    legal: ActionSet,
    masked: Vec<(ActionId, &'static str)>,
    stopped: Option<StopReason>,
}

impl Progress {
    /// Begin a task. A payload that is no document becomes one whose goal is its text; its features are those that the
    /// document states, else those that the facts state.
    pub fn open(
        coordination: &Arc<Coordination>,
        facts: &Facts,
        payload: &[u8],
    ) -> Result<Self, ProgressError> {
        let mut document = Document::open(payload)?;
        if document.features.is_none() {
            document.features = TaskFeatures::of_facts(facts).map_err(ProgressError::Facts)?;
        }
        // These are the coordinator's to say.
        (document.branches, document.done) = (vec![], None);
        let mut progress = Progress {
            coordination: coordination.clone(),
            regime: Regime::of(&document.features.unwrap_or_default()),
            facts: coordination.signature().facts.iter().map(|name| facts.get(name).cloned()).collect(),
            part: Part::Trunk,
            work: Work { document, beliefs: Beliefs::default(), taken: ActionSet::default() },
            fork: None,
            results: vec![],
            acted: BTreeSet::new(),
            acted_here: BTreeSet::new(),
            last: None,
            steps: 0,
            legal: ActionSet::default(),
            masked: vec![],
            stopped: None,
        };
        progress.settle();
        Ok(progress)
    }

    /// The kind of task that it is.
    pub fn regime(&self) -> Regime {
        self.regime
    }

    /// The kind of task with the facts that tell tasks apart, readable.
    pub fn kind(&self) -> String {
        let names = self.coordination.signature().facts.iter();
        let facts = names.zip(&self.facts).map(|(name, value)| match value {
            Some(value) => format!(" {name}={value}"),
            None => format!(" {name}=-"),
        });
        format!("regime={}{}", self.regime.name(), facts.collect::<String>())
    }

    /// The document as it is now; within a branch, the branch's own.
    pub fn document(&self) -> &Document {
        &self.work.document
    }

    /// What is believed now.
    pub fn beliefs(&self) -> &Beliefs {
        &self.work.beliefs
    }

    /// How many steps it took.
    pub fn steps(&self) -> u32 {
        self.steps
    }

    /// What the next cell is given: the document in its canonical bytes.
    pub fn payload(&self) -> Vec<u8> {
        self.work.document.write()
    }

    /// What came out: the answer in bytes, nothing where there is none.
    pub fn result(&self) -> Vec<u8> {
        self.work.document.answer().unwrap_or_default().into()
    }

    /// Required roles that have not acted. Where the task has stopped and some are left, they could not: what they work
    /// on was never found, or all their cells failed.
    pub fn missing(&self) -> Vec<Role> {
        self.outstanding().collect()
    }

    /// Where it stands.
    pub fn stand(&self) -> Stand {
        if let Some(reason) = self.stopped {
            return Stand::Stop(reason);
        }
        let cells = self.coordination.plan().cells();
        let spec = self.coordination.signature();
        let name = |cell: usize| cells[cell].name.as_str();
        let folded = Folded {
            state: self.state(),
            branch: match self.part {
                Part::Branch(number) => Some(number + 1),
                _ => None,
            },
            taken: spec.taken.then(|| self.work.taken.iter().map(|cell| name(cell.index())).collect()),
            cell: spec.cell.then(|| self.last.map(name)),
            facts: spec.facts.iter().map(String::as_str).zip(self.facts.iter().map(Option::as_ref)).collect(),
        };
        Stand::Decide(Decision {
            name: folded.to_string(),
            coarser: folded.coarser(),
            legal: self.legal.clone(),
            masked: self.masked.clone(),
        })
    }

    /// Pass a cell over, as the column `action` says.
    ///
    /// # Panics
    ///
    /// If that is not admissible now, or not to skip a cell.
    pub fn skip(&mut self, action: ActionId) {
        let of = self.coordination.plan().move_of(action);
        assert!(
            self.legal.contains(action) && matches!(of, Move::Skip(_)),
            "column {action:?} does not skip a cell here"
        );
        self.take(of.cell());
        self.settle();
    }

    /// A cell was called, as the column `action` says. A reply that is no document is an error, and the call then counts as
    /// failed. A failed cell was taken, and changes nothing else.
    ///
    /// # Panics
    ///
    /// If that is not admissible now, or to skip a cell.
    pub fn performed(&mut self, action: ActionId, reply: Reply<'_>) -> Result<(), DocumentError> {
        let coordination = self.coordination.clone();
        let of = coordination.plan().move_of(action);
        assert!(
            self.legal.contains(action) && !matches!(of, Move::Skip(_)),
            "column {action:?} does not invoke a cell here"
        );
        if let Move::Only(_) = of {
            (self.part, self.fork) = (Part::Alone, None);
            self.results.clear();
        }
        self.take(of.cell());
        self.last = Some(of.cell());
        let role = coordination.plan().cells()[of.cell()].role;
        let read = match reply {
            Reply::Document(bytes) => Document::parse(bytes).map(Some),
            Reply::Failed => Ok(None),
        };
        let before = &self.work.document;
        if let Ok(Some(mut after)) = read.clone() {
            after.features = before.features;
            after.branches.clone_from(&before.branches);
            if role != Role::Evaluator {
                after.done = before.done;
            }
            self.work.beliefs = self.work.beliefs.after(role, before, &after, coordination.empty_search());
            self.work.document = after;
            self.acted.insert(role);
            self.acted_here.insert(role);
        } else if matches!(role, Role::Memory | Role::WebSearch) {
            self.work.beliefs = self.work.beliefs.after(role, before, before, coordination.empty_search());
        }
        self.settle();
        read.map(drop)
    }

    /// Stop it, if it has not stopped, for a reason that lies outside of its plan.
    pub fn halt(&mut self, reason: StopReason) {
        if self.stopped.is_none() {
            self.stop(reason);
        }
    }

    fn take(&mut self, cell: usize) {
        self.steps += 1;
        self.work.taken.insert(ActionId(cell as u32));
    }

    fn stop(&mut self, reason: StopReason) {
        if self.fork.is_some() {
            self.join();
        }
        (self.legal, self.masked) = (ActionSet::default(), vec![]);
        self.stopped = Some(reason);
    }

    /// Find out what may come next, going on to the next part of the plan where in this one nothing may.
    fn settle(&mut self) {
        if self.steps >= self.coordination.steps_max() {
            return self.stop(StopReason::MaxSteps);
        }
        if self.work.document.done == Some(true) && self.outstanding().next().is_none() {
            return self.stop(StopReason::EvaluatorDone);
        }
        loop {
            (self.legal, self.masked) = self.choices();
            if !self.legal.is_empty() {
                return;
            }
            if !self.advance() {
                return self.stop(StopReason::NothingLegal);
            }
        }
    }

    /// Go on to the next part of the plan, if there is one.
    fn advance(&mut self) -> bool {
        let coordination = self.coordination.clone();
        let plan = coordination.activation(self.regime);
        let next = match self.part {
            Part::Trunk if !plan.branch.is_empty() => Part::Branch(0),
            Part::Trunk if !plan.tail.is_empty() => Part::Tail,
            Part::Branch(number) if number + 1 < coordination.branches() => Part::Branch(number + 1),
            Part::Branch(_) => Part::Tail,
            Part::Trunk | Part::Tail | Part::Alone => return false,
        };
        match (self.part, next) {
            (Part::Branch(_), Part::Branch(_)) => {
                self.keep_result();
                self.work = self.fork.clone().expect("there is a fork before the branches");
            }
            (_, Part::Branch(_)) => self.fork = Some(self.work.clone()),
            (Part::Branch(_), _) => self.join(),
            _ => {}
        }
        self.acted_here.clear();
        self.part = next;
        true
    }

    /// The result of the branch that ends, if it has one.
    fn keep_result(&mut self) {
        let Document { draft_answer, verification, critique, .. } = &self.work.document;
        if let (Some(draft), false) = (stated(draft_answer), self.acted_here.is_empty()) {
            let result = BranchResult {
                draft_answer: draft.to_owned(),
                verification: verification.clone(),
                critique: critique.clone(),
            };
            self.results.push((result, self.work.beliefs));
        }
    }

    /// The branches end: their results go into the document as it was before them, and what is believed of the best
    /// supported one is believed of them.
    fn join(&mut self) {
        self.keep_result();
        let done = self.work.document.done;
        self.work = self.fork.take().expect("there is a fork before the branches");
        self.work.document.done = done;
        let results = std::mem::take(&mut self.results);
        if let Some(at) = best(&results, |(result, _)| result.verification.as_ref().map(|v| v.status)) {
            self.work.beliefs = results[at].1;
        }
        self.work.document.branches = results.into_iter().map(|(result, _)| result).collect();
    }

    fn state(&self) -> State {
        self.state_of(&self.work)
    }

    fn state_of(&self, Work { document, beliefs, .. }: &Work) -> State {
        State::of(self.regime, document, beliefs, self.coordination.signature().granularity)
    }

    fn activation(&self) -> &Activation {
        self.coordination.activation(self.regime)
    }

    fn outstanding(&self) -> impl Iterator<Item = Role> + '_ {
        self.activation().required.iter().copied().filter(|role| !self.acted.contains(role))
    }

    /// What is admissible here, and what is only not because something is required.
    fn choices(&self) -> (ActionSet, Vec<(ActionId, &'static str)>) {
        let plan = self.coordination.plan();
        let activation = self.activation();
        let role = |cell: usize| plan.cells()[cell].role;
        let state = self.state();
        let needs = self.needs(&state, None);
        let here = |cell: usize| match self.part {
            Part::Trunk => activation.trunk.contains(&cell),
            Part::Branch(_) => activation.branch.contains(&cell) && !self.acted_here.contains(&role(cell)),
            Part::Tail => activation.tail.contains(&cell),
            Part::Alone => activation.cells().any(|c| c == cell) && needs.here.contains(&role(cell)),
        };
        let ready = plan.ready(&state, &self.work.taken);
        let ready: ActionSet = ready.iter().filter(|cell| here(cell.index())).collect();
        let mut candidates = plan.with_skips(ready, self.coordination.skips());
        let more = match self.part {
            Part::Trunk => !activation.branch.is_empty() || !activation.tail.is_empty(),
            Part::Branch(_) => true,
            Part::Tail | Part::Alone => false,
        };
        // Where nothing is ready, the next part of the plan comes first.
        if self.coordination.alone() && self.part != Part::Alone && !(candidates.is_empty() && more) {
            let ahead = self.ahead().filter(|cell| role(*cell) == Role::Solver);
            ahead.for_each(|cell| candidates.insert(plan.column(Move::Only(cell))));
        }
        if needs.steps() == 0 {
            return (candidates, vec![]);
        }
        let left = (self.coordination.steps_max() - self.steps) as usize;
        let reserved = left <= needs.steps();
        let still = |after: Needs| after.reachable == needs.reachable && after.steps() < left;
        let mask = |action: ActionId| match plan.move_of(action) {
            // It gives up the branches to come.
            Move::Only(_) if !needs.later.is_empty() => Some("required"),
            Move::Invoke(cell) | Move::Only(cell) if !reserved || needs.here.contains(&role(cell)) => None,
            Move::Skip(cell) if !reserved && still(self.needs(&state, Some(cell))) => None,
            Move::Skip(_) if !reserved => Some("required"),
            _ => Some("reserved"),
        };
        let masked: Vec<_> = candidates.iter().filter_map(|a| Some((a, mask(a)?))).collect();
        (candidates.iter().filter(|a| mask(*a).is_none()).collect(), masked)
    }

    /// The cells that this work may still take, here or in a later part of the plan.
    fn ahead(&self) -> impl Iterator<Item = usize> + '_ {
        let Activation { trunk, branch, tail, .. } = self.activation();
        let (trunk, branch) = match self.part {
            Part::Trunk | Part::Alone => (trunk.as_slice(), branch.as_slice()),
            Part::Branch(_) => (&[][..], branch.as_slice()),
            Part::Tail => (&[][..], &[][..]),
        };
        let cells = trunk.iter().chain(branch).chain(tail).copied();
        cells.filter(|cell| !self.work.taken.contains(ActionId(*cell as u32)))
    }

    /// What required roles still need, if the cell `without` is passed over.
    fn needs(&self, state: &State, without: Option<usize>) -> Needs {
        let mut needs = Needs::default();
        if self.outstanding().next().is_none() {
            return needs;
        }
        let Activation { branch, tail, .. } = self.activation();
        let role = |cell: usize| self.coordination.plan().cells()[cell].role;
        let ahead: BTreeSet<Role> = self.ahead().filter(|cell| Some(*cell) != without).map(role).collect();
        // The next branch begins again with what there was before this one.
        let again = match (self.part, &self.fork) {
            (Part::Branch(number), Some(fork)) if number + 1 < self.coordination.branches() => {
                let left = |cell: &&usize| !fork.taken.contains(ActionId(**cell as u32));
                let roles: BTreeSet<Role> =
                    branch.iter().chain(tail).filter(left).map(|at| role(*at)).collect();
                Some((self.state_of(fork), roles))
            }
            _ => None,
        };
        // Behind the branches, a draft of any of them will do.
        let joined = State { draft: state.draft || !self.results.is_empty(), ..*state };
        for required in self.outstanding() {
            let from = if branch.iter().any(|cell| role(*cell) == required) { state } else { &joined };
            let here = chain(required, from, &|role| ahead.contains(&role));
            let later = || {
                chain(required, &again.as_ref()?.0, &|role| {
                    again.as_ref().is_some_and(|a| a.1.contains(&role))
                })
            };
            match here {
                Some(roles) => needs.here.extend(roles),
                None => match later() {
                    Some(roles) => needs.later.extend(roles),
                    None => continue,
                },
            }
            needs.reachable += 1;
        }
        needs
    }
}

/// What required roles still need to act.
#[derive(Default)]
struct Needs {
    /// Roles that have to, here or behind the branches.
    here: BTreeSet<Role>,
    /// Roles that have to once the next branch has begun.
    later: BTreeSet<Role>,
    /// How many required roles still can.
    reachable: usize,
}

impl Needs {
    fn steps(&self) -> usize {
        self.here.len() + self.later.len()
    }
}

/// A task that cannot be begun.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProgressError {
    /// Its payload is at fault.
    #[error(transparent)]
    Document(#[from] DocumentError),
    /// Its facts are.
    #[error("{0}")]
    Facts(String),
}
