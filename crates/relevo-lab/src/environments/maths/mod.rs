//! `maths@1`: four simulated agents solve multiple-choice mathematics (paper, section 5.2). A simulator, not language
//! models: every agent succeeds with probabilities fitted in closed form to the accuracies of Table 1.
//!
//! Agents: commissioner (opens), editor (writes, revises, concludes), thinker (writes a rationale), checker (judges).
//! What happens to a problem is drawn once per problem (u, w, v below), as with models at temperature 0: repeating an
//! operation never rolls again, so that nothing is to be gained by trying until it works.

mod exact;
mod world;

pub use world::MathsWorld;

use relevo_core::{
    Rng,
    ids::{ActionId, AgentId},
    observation::{ActionSet, Observation, Signature},
    protocol,
    units::{Discount, Return, Tau},
};

use crate::environment::{Column, Environment, EnvironmentSpec, Next, Transition};

/// Name and version.
pub const NAME: &str = "maths@1";

/// P(checker passes a right answer), P(editor keeps a right answer that was called wrong), P(checker passes a wrong
/// answer without a rationale), and with one. Ours: chosen so that the rest follows from Table 1.
const PASSES_RIGHT: f64 = 0.95;
const KEEPS: f64 = 0.8;
const PASSES_WRONG_DIRECT: f64 = 0.1;
const PASSES_WRONG_REASONED: f64 = 0.6;

/// What is fitted to one column of Table 1.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Dataset {
    /// Its name.
    pub name: &'static str,
    /// P(right answer) without and with a rationale: the columns "Direct" and "CoT" of Table 1.
    pub direct: f64,
    /// See `direct`.
    pub reasoned: f64,
    /// P(a wrong answer is mended), without rationale, with rationale, and when feedback came by the thinker.
    pub mends_direct: f64,
    /// See `mends_direct`.
    pub mends_reasoned: f64,
    /// See `mends_direct`.
    pub mends_via_thinker: f64,
    /// P(a right answer that was called wrong is kept) when feedback came by the thinker.
    pub keeps_via_thinker: f64,
    /// Accuracies of Table 1: direct, CoT, reflection, combine-E, combine-T.
    pub table: [f64; 5],
}

impl Dataset {
    const fn fitted(name: &'static str, table: [f64; 5]) -> Self {
        let [direct, reasoned, reflect, combine_e, combine_t] = table;
        // A right answer survives checking with  L = tp + (1 - tp) b
        let survives = PASSES_RIGHT + (1.0 - PASSES_RIGHT) * KEEPS;
        // Reflection = q0 L + (1 - q0)(1 - fd) xd,  combine-E = q1 L + (1 - q1)(1 - fc) xc
        let mends_direct = (reflect - direct * survives) / ((1.0 - direct) * (1.0 - PASSES_WRONG_DIRECT));
        let mends_reasoned =
            (combine_e - reasoned * survives) / ((1.0 - reasoned) * (1.0 - PASSES_WRONG_REASONED));
        let mends_via_thinker = mends_reasoned / 2.0;
        // Combine-T = q1 (tp + (1 - tp) bt) + (1 - q1)(1 - fc) xt
        let mended = (1.0 - reasoned) * (1.0 - PASSES_WRONG_REASONED) * mends_via_thinker;
        let keeps_via_thinker = ((combine_t - mended) / reasoned - PASSES_RIGHT) / (1.0 - PASSES_RIGHT);
        Dataset {
            name,
            direct,
            reasoned,
            mends_direct,
            mends_reasoned,
            mends_via_thinker,
            keeps_via_thinker,
            table,
        }
    }
}

/// The three datasets of Table 1, in its order: direct, CoT, reflection, combine-E, combine-T.
pub const DATASETS: [Dataset; 3] = [
    Dataset::fitted("mathqa", [0.299, 0.833, 0.825, 0.836, 0.823]),
    Dataset::fitted("mmlu-hs", [0.415, 0.863, 0.859, 0.881, 0.852]),
    Dataset::fitted("mmlu-elementary", [0.648, 0.960, 0.944, 0.958, 0.950]),
];

/// The agents, in the order of their ids.
pub const ROLES: [&str; 4] = ["commissioner", "editor", "thinker", "checker"];
const COMMISSIONER: usize = 0;
const EDITOR: usize = 1;
const THINKER: usize = 2;
const CHECKER: usize = 3;

/// What is drawn once per problem, each uniform on [0, 1).
#[derive(Clone, Copy, Debug, PartialEq)]
struct Problem {
    /// Decides the first answer.
    u: f64,
    /// Decide the judgement of a right and of a wrong answer.
    w: [f64; 2],
    /// Decide the revision of a right and of a wrong answer.
    v: [f64; 2],
}

impl Problem {
    fn draw(rng: &mut Rng) -> Self {
        Problem { u: rng.unit(), w: [rng.unit(), rng.unit()], v: [rng.unit(), rng.unit()] }
    }
}

/// The conversation so far, as far as it matters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Conversation {
    /// An answer, or a candidate for one, exists; a second author modified it; it was checked; it was judged right.
    given: bool,
    modified: bool,
    checked: bool,
    judged_right: bool,
    /// The editor has answered.
    answered: bool,
    /// A rationale exists.
    reasoned: bool,
    /// The checker's criticism went to the thinker before the editor.
    via_thinker: bool,
    revised: bool,
    /// Hidden: whether the answer is right.
    right: bool,
}

impl Conversation {
    /// The agent with this role does its work.
    fn operate(&mut self, role: usize, data: &Dataset, problem: &Problem) {
        match role {
            EDITOR if !self.answered => {
                let q = if self.reasoned { data.reasoned } else { data.direct };
                self.right = problem.u < q;
                self.answered = true;
                // Where the thinker has given a candidate, the editor is its second author.
                self.modified |= self.given;
                self.given = true;
            }
            EDITOR if self.checked && !self.judged_right && !self.revised => {
                self.right = match (self.right, self.via_thinker, self.reasoned) {
                    (true, true, _) => problem.v[0] < data.keeps_via_thinker,
                    (true, false, _) => problem.v[0] < KEEPS,
                    (false, true, _) => problem.v[1] < data.mends_via_thinker,
                    (false, false, true) => problem.v[1] < data.mends_reasoned,
                    (false, false, false) => problem.v[1] < data.mends_direct,
                };
                self.modified = true;
                self.revised = true;
            }
            THINKER => {
                // The thinker's text is a candidate; criticism that passes through it reaches the editor blurred.
                self.via_thinker |= self.checked;
                self.reasoned = true;
                self.given = true;
            }
            CHECKER if !self.checked => {
                let passes_wrong = if self.reasoned { PASSES_WRONG_REASONED } else { PASSES_WRONG_DIRECT };
                self.judged_right =
                    if self.right { problem.w[0] < PASSES_RIGHT } else { problem.w[1] < passes_wrong };
                self.checked = true;
            }
            _ => {}
        }
    }

    /// Whom an agent may hand to, after its own work: acyclic, so that every task ends (Assumption 1(iii)). The first
    /// is preferred among equals.
    fn admissible(&self, role: usize) -> &'static [Choice] {
        match role {
            COMMISSIONER => &[Choice::To(EDITOR), Choice::To(THINKER)],
            THINKER => &[Choice::To(EDITOR)],
            EDITOR if self.checked => &[Choice::Finish],
            EDITOR => &[Choice::Finish, Choice::To(CHECKER)],
            CHECKER if self.judged_right => &[Choice::To(EDITOR)],
            _ => &[Choice::To(EDITOR), Choice::To(THINKER)],
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Choice {
    Finish,
    To(usize),
}

/// The columns of each role's successor table.
const COLUMNS: [&[Choice]; 4] = [
    &[Choice::To(EDITOR), Choice::To(THINKER)],
    &[Choice::Finish, Choice::To(CHECKER)],
    &[Choice::To(EDITOR)],
    &[Choice::To(EDITOR), Choice::To(THINKER)],
];

/// The cost of a handoff at which the learner can still tell the workflows apart: it evens the margin between the two
/// best ones on the hardest and on the easiest dataset (.003 - 2c = .002 + ... in accuracy).
pub const HANDOFF_COST: f64 = 0.00025;

/// The environment on one dataset, for learners without a team file.
pub struct Maths {
    spec: EnvironmentSpec,
    data: Dataset,
    problem: Problem,
    conversation: Conversation,
    active: usize,
    sender: usize,
    /// Editor and checker each remember whether a rationale came with what they were handed.
    saw_rationale: [bool; 4],
    /// Whether agents see the sender and what they remember, besides the artifact.
    history: bool,
}

impl Maths {
    /// The environment on `data`.
    pub fn new(data: Dataset) -> Self {
        let column = |c: &Choice| match c {
            Choice::Finish => Column { name: "finish".to_owned(), leads: protocol::Choice::Finish },
            Choice::To(role) => {
                let leads = protocol::Choice::HandTo(AgentId(*role as u32));
                Column { name: ROLES[*role].to_owned(), leads }
            }
        };
        let spec = EnvironmentSpec {
            name: NAME,
            agents: ROLES.map(str::to_owned).to_vec(),
            choices: COLUMNS.iter().map(|columns| columns.iter().map(column).collect()).collect(),
            discount: Discount::NONE,
            returns: (-7.0 * HANDOFF_COST, 1.0),
        };
        let problem = Problem { u: 0.0, w: [0.0; 2], v: [0.0; 2] };
        Maths {
            spec,
            data,
            problem,
            conversation: Conversation::default(),
            active: COMMISSIONER,
            sender: COMMISSIONER,
            saw_rationale: [false; 4],
            history: true,
        }
    }

    /// Let agents see the four bits of the artifact and nothing else.
    pub fn without_history(self) -> Self {
        Maths { history: false, ..self }
    }

    fn begin(&mut self, problem: Problem) -> AgentId {
        self.problem = problem;
        self.conversation = Conversation::default();
        (self.active, self.sender) = (COMMISSIONER, COMMISSIONER);
        self.saw_rationale = [false; 4];
        AgentId(COMMISSIONER as u32)
    }
}

impl Environment for Maths {
    fn spec(&self) -> &EnvironmentSpec {
        &self.spec
    }

    fn reset(&mut self, seed: u64) -> AgentId {
        self.begin(Problem::draw(&mut Rng::stream(seed, "maths/problem")))
    }

    fn observe(&self, agent: AgentId) -> Observation {
        let c = &self.conversation;
        let role = agent.0 as usize;
        // Four bits of the artifact, one private bit, and the sender.
        let artifact = [c.given, c.modified, c.checked, c.judged_right];
        let artifact = artifact.into_iter().fold(0, |key, bit| key << 1 | u64::from(bit));
        let history = u64::from(self.saw_rationale[role]) << 2 | self.sender as u64;
        let key = artifact << 3 | if self.history { history } else { 0 };
        let legal: ActionSet = c.admissible(role).iter().map(|choice| column(role, *choice)).collect();
        Observation::of(Signature(key), legal)
    }

    fn describe(&self) -> String {
        let c = &self.conversation;
        let answer = match (c.answered, c.right) {
            (false, _) => "no answer yet",
            (true, true) => "the answer is right",
            (true, false) => "the answer is wrong",
        };
        let judged = match (c.checked, c.judged_right) {
            (false, _) => "",
            (true, true) => ", judged right",
            (true, false) => ", judged wrong",
        };
        let notes = [(c.reasoned, ", with a rationale"), (c.revised, ", revised")];
        let notes: String = notes.iter().filter(|(is, _)| *is).map(|(_, note)| *note).collect();
        format!("{answer}{judged}{notes}")
    }

    fn step(&mut self, action: ActionId) -> Transition {
        let reward = |r: f64| Return::new(r).expect("costs and rewards are constants");
        match COLUMNS[self.active][action.index()] {
            Choice::Finish => {
                let right = f64::from(u8::from(self.conversation.right));
                Transition { reward: reward(right), tau: Tau::ONE, next: Next::Terminal }
            }
            Choice::To(role) => {
                self.sender = self.active;
                self.active = role;
                self.saw_rationale[role] |= self.conversation.reasoned;
                self.conversation.operate(role, &self.data, &self.problem);
                let next = Next::Active(AgentId(role as u32));
                Transition { reward: reward(-HANDOFF_COST), tau: Tau::ONE, next }
            }
        }
    }
}

fn column(role: usize, choice: Choice) -> ActionId {
    let at = COLUMNS[role].iter().position(|c| *c == choice).expect("admissible choices are columns");
    ActionId(at as u32)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::environment::obeys_environment_laws;

    #[test]
    fn it_is_an_environment() {
        for data in DATASETS {
            obeys_environment_laws(|| Box::new(Maths::new(data)), 0..200, 8);
        }
    }

    /// The five fixed workflows meet all 15 cells of Table 1: 100,000 problems each, within 5 standard errors
    /// (at most .008; false alarm below 1e-5 a cell).
    #[test]
    fn fixed_workflows_meet_table_1() {
        let routes: [&[usize]; 5] = [
            &[EDITOR],
            &[THINKER, EDITOR],
            &[EDITOR, CHECKER, EDITOR],
            &[THINKER, EDITOR, CHECKER, EDITOR],
            &[THINKER, EDITOR, CHECKER, THINKER, EDITOR],
        ];
        let n = 100_000;
        let mut rng = Rng::stream(7, "table 1");
        for data in DATASETS {
            for (route, expected) in routes.iter().zip(data.table) {
                let mut right = 0;
                for _ in 0..n {
                    let problem = Problem::draw(&mut rng);
                    let mut c = Conversation::default();
                    for (i, role) in route.iter().enumerate() {
                        // A thinker that may not be asked again is passed over, as a fixed route does.
                        let from = if i == 0 { COMMISSIONER } else { route[i - 1] };
                        if !c.admissible(from).contains(&Choice::To(*role)) {
                            continue;
                        }
                        c.operate(*role, &data, &problem);
                    }
                    right += u32::from(c.right);
                }
                let accuracy = f64::from(right) / f64::from(n);
                let error = 5.0 * (expected * (1.0 - expected) / f64::from(n)).sqrt();
                assert!(
                    (accuracy - expected).abs() < error,
                    "{} {route:?}: {accuracy} for {expected}",
                    data.name
                );
            }
        }
    }
}
