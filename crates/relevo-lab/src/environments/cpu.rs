//! `cpu@1`: six agents write a straight-line program for a small processor, one instruction each time they are active.
//!
//! The memory has three cells. In the goal one of them, d, has become `op(x, y)` of the two others, and which op that
//! was is not said. The agents are adaptable: each chooses its own instruction, and then who is next. The writer's
//! `commit` ends the task, with 1 if the memory is the goal; every handoff costs .01 and the 14th is the last.
//!
//! All agents see which cells RA and RB were loaded from, which one is selected, whether there is a result, and d. Only
//! the arithmetic unit (ALU) sees values, in one of several [`Encoding`]s, once RA and RB hold the two other cells; before
//! that it can do nothing but hand over. Whether the result is right, the zero flag, is seen by the selector and the writer, and by the ALU when its operation is over.
//! What an agent did is part of what it sees when it hands over.

use relevo_core::{
    Rng,
    ids::{ActionId, AgentId},
    observation::{ActionSet, Features, Observation, Signature},
    protocol::Choice,
    units::{Discount, Return, Tau},
};

use crate::environment::{Column, Environment, EnvironmentSpec, Next, Transition};

/// Name and version.
pub const NAME: &str = "cpu@1";

/// R: values are 0..R.
pub const VALUES: usize = 64;
/// |S|: how many values are seen in training, a fifth.
pub const SEEN: usize = VALUES / 5;
const HANDOFFS_MAX: u32 = 14;
const HANDOFF_REWARD: f64 = -0.01;

const STARTER: AgentId = AgentId(0);
const LOAD_A: AgentId = AgentId(1);
const LOAD_B: AgentId = AgentId(2);
/// The agent that computes.
pub const ALU: AgentId = AgentId(3);
const SELECTOR: AgentId = AgentId(4);
const WRITER: AgentId = AgentId(5);
const AGENTS: [&str; 6] = ["starter", "load A", "load B", "ALU", "selector", "writer"];

const COMMIT: usize = 1;
const CELLS: [&str; 3] = ["cell 0", "cell 1", "cell 2"];
const NAMES: [&str; 9] = ["no operation", "a + b", "a - b", "b - a", "max", "min", "xor", "and", "or"];

fn compute(operation: usize, a: i32, b: i32) -> i32 {
    match operation {
        0 => a + b,
        1 => a - b,
        2 => b - a,
        3 => a.max(b),
        4 => a.min(b),
        5 => a ^ b,
        6 => a & b,
        _ => a | b,
    }
}

/// How the ALU sees the registers a, b and the value t that cell d is to have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    /// Which of a and b, a and t, b and t is larger: 27 situations.
    Signs,
    /// a, b and t, scaled to [-1, 1].
    Scalars,
    /// The binary digits of a, b and t, each -1 or 1.
    Bits,
    /// a - b, a - t, b - t and a + b - t, scaled; and the first three squashed.
    Differences,
}

impl Encoding {
    /// How many numbers the ALU sees, with four that say how far the program is.
    pub fn inputs(self) -> usize {
        4 + match self {
            Encoding::Signs => 0,
            Encoding::Scalars => 3,
            Encoding::Bits => 18,
            Encoding::Differences => 7,
        }
    }

    fn encode(self, [a, b, t]: [i32; 3]) -> Vec<f32> {
        match self {
            Encoding::Signs => vec![],
            Encoding::Scalars => [a, b, t].map(|v| 2.0 * v as f32 / (VALUES - 1) as f32 - 1.0).into(),
            Encoding::Bits => {
                let digits = |v: i32| (0..6).map(move |k| if v >> k & 1 == 1 { 1.0 } else { -1.0 });
                [a, b, t].into_iter().flat_map(digits).collect()
            }
            Encoding::Differences => {
                let scaled = [a - b, a - t, b - t, a + b - t].map(|d| 4.0 * d as f32 / VALUES as f32);
                scaled.into_iter().chain(scaled[..3].iter().map(|d| (4.0 * d).tanh())).collect()
            }
        }
    }
}

/// Which tasks there are, and how they are seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Design {
    /// How the ALU sees the registers.
    pub encoding: Encoding,
    /// The first so many of add, a - b, b - a, max, min, xor, and, or.
    pub operations: usize,
    /// Whether the values seen in training are the lowest instead of random ones.
    pub lowest: bool,
    /// Whether operands too, and not only the goal's value t, are split into seen and unseen.
    pub operands: bool,
}

impl Design {
    /// Five operations, random seen goals, operands without a split.
    pub fn headline(encoding: Encoding) -> Self {
        Design { encoding, operations: 5, lowest: false, operands: false }
    }
}

/// A processor, and where its task is.
pub struct Cpu {
    spec: EnvironmentSpec,
    design: Design,
    /// The tasks x, y, t of each operation.
    tasks: Vec<Vec<[i32; 3]>>,
    memory: [i32; 3],
    /// d, and what it is to hold.
    goal: (usize, i32),
    /// Which cell RA and RB were loaded from.
    loaded: [Option<usize>; 2],
    /// RO.
    result: Option<i32>,
    /// SEL.
    selected: Option<usize>,
    active: AgentId,
    /// What the active agent has just done, once it has.
    done: Option<ActionId>,
    handoffs: u32,
}

impl Cpu {
    /// The processor with the tasks of training; `seed` determines which values are seen there.
    pub fn new(design: Design, seed: u64) -> Self {
        Cpu::with_tasks(design, &Cpu::seen(design, seed))
    }

    /// The same processor with the tasks whose values are not seen in training.
    pub fn unseen(design: Design, seed: u64) -> Self {
        Cpu::with_tasks(design, &Cpu::seen(design, seed).map(|seen| !seen))
    }

    fn seen(design: Design, seed: u64) -> [bool; VALUES] {
        let mut order: [usize; VALUES] = core::array::from_fn(|v| v);
        if !design.lowest {
            let mut rng = Rng::stream(seed, "cpu/split");
            (1..VALUES).rev().for_each(|i| order.swap(i, rng.below(i as u32 + 1) as usize));
        }
        let mut seen = [false; VALUES];
        order[..SEEN].iter().for_each(|v| seen[*v] = true);
        seen
    }

    fn with_tasks(design: Design, among: &[bool; VALUES]) -> Self {
        let holds = |v: i32| usize::try_from(v).is_ok_and(|v| v < VALUES && among[v]);
        let operand = |v: i32| !design.operands || holds(v);
        let values = || (0..VALUES as i32).filter(|v| operand(*v));
        let tasks = |operation: usize| -> Vec<[i32; 3]> {
            let pairs = values().flat_map(|x| values().map(move |y| (x, y)));
            pairs.map(|(x, y)| [x, y, compute(operation, x, y)]).filter(|[_, _, t]| holds(*t)).collect()
        };
        let others = |agent: usize| {
            let hand_to =
                |to: usize| Column { name: AGENTS[to].to_owned(), leads: Choice::HandTo(AgentId(to as u32)) };
            (0..AGENTS.len()).filter(|to| *to != agent).map(hand_to).collect()
        };
        Cpu {
            spec: EnvironmentSpec {
                name: NAME,
                agents: AGENTS.map(str::to_owned).to_vec(),
                choices: (0..AGENTS.len()).map(others).collect(),
                discount: Discount::NONE,
                returns: (f64::from(HANDOFFS_MAX) * HANDOFF_REWARD - 1e-9, 1.0),
            },
            design,
            // An operation may not lead to any of the goals.
            tasks: (0..design.operations).map(tasks).filter(|tasks| !tasks.is_empty()).collect(),
            memory: [0; 3],
            goal: (0, 0),
            loaded: [None; 2],
            result: None,
            selected: None,
            active: STARTER,
            done: None,
            handoffs: 0,
        }
    }

    /// The task in words.
    pub fn task(&self) -> String {
        let (d, t) = self.goal;
        let [m0, m1, m2] = self.memory;
        format!("memory {m0} {m1} {m2}, cell {d} is to be {t}")
    }

    /// RA, RB and t, if the registers hold the cells other than d.
    fn operands(&self) -> Option<[i32; 3]> {
        let (d, t) = self.goal;
        let (a, b) = (self.loaded[0]?, self.loaded[1]?);
        (a != b && a != d && b != d).then(|| [self.memory[a], self.memory[b], t])
    }

    /// ZF.
    fn is_right(&self) -> bool {
        self.result == Some(self.goal.1)
    }

    /// The registers as every agent sees them.
    fn registers(&self) -> u64 {
        let tag = |cell: Option<usize>| cell.map_or(0, |c| 1 + c as u64);
        let digits = [tag(self.loaded[0]), tag(self.loaded[1]), tag(self.selected), self.goal.0 as u64];
        digits.into_iter().fold(u64::from(self.result.is_some()), |code, digit| 4 * code + digit)
    }

    fn seen_by_alu(&self) -> Observation {
        let operands = self.operands();
        let legal = match operands {
            Some(_) => (1..=self.design.operations as u32).map(ActionId).collect(),
            // A choice among operations without effect would be a maximum over noise, and undiscounted loops feed on that.
            None => ActionSet::all(1),
        };
        if self.design.encoding == Encoding::Signs {
            let signs = operands.map_or(0, |[a, b, t]| {
                let sign = |x: i32, y: i32| (x.cmp(&y) as i64 + 2) as u64;
                16 * sign(a, b) + 4 * sign(a, t) + sign(b, t)
            });
            return Observation::of(Signature(self.registers() << 6 | signs), legal);
        }
        let progress = [
            operands.is_some(),
            self.result.is_some(),
            self.selected.is_some(),
            self.selected == Some(self.goal.0),
        ];
        let mut features: Vec<f32> = progress.into_iter().map(|p| f32::from(u8::from(p))).collect();
        features.extend(operands.map_or(vec![], |operands| self.design.encoding.encode(operands)));
        features.resize(self.design.encoding.inputs(), 0.0);
        let signature = Signature(u64::from(operands.is_some()));
        Observation { signature, features: Features::Dense(features.into()), legal }
    }
}

impl Environment for Cpu {
    fn spec(&self) -> &EnvironmentSpec {
        &self.spec
    }

    fn operations(&self, agent: AgentId) -> &[&'static str] {
        match agent {
            STARTER => &["no operation"],
            LOAD_A | LOAD_B | SELECTOR => &CELLS,
            WRITER => &["no operation", "commit"],
            _ => &NAMES[..=self.design.operations],
        }
    }

    fn handoff_reward(&self) -> Return {
        Return::new(HANDOFF_REWARD).expect("a constant")
    }

    fn reset(&mut self, seed: u64) -> AgentId {
        let mut rng = Rng::stream(seed, "cpu/task");
        let tasks = &self.tasks[rng.below(self.tasks.len() as u32) as usize];
        let [x, y, t] = tasks[rng.below(tasks.len() as u32) as usize];
        let d = rng.below(3) as usize;
        let [low, high] = [[1, 2], [0, 2], [0, 1]][d];
        let other = rng.below(VALUES as u32 - 1) as i32;
        (self.memory[low], self.memory[high]) = (x, y);
        self.memory[d] = other + i32::from(other >= t);
        self.goal = (d, t);
        (self.loaded, self.result, self.selected) = ([None; 2], None, None);
        (self.active, self.done, self.handoffs) = (STARTER, None, 0);
        self.active
    }

    fn observe(&self, agent: AgentId) -> Observation {
        let flag = |seen: bool| u64::from(seen && self.is_right());
        let flagged = matches!(agent, SELECTOR | WRITER);
        match self.done {
            None if agent == ALU => self.seen_by_alu(),
            None => {
                let signature = Signature(2 * self.registers() + flag(flagged));
                Observation::of(signature, ActionSet::all(self.operations(agent).len()))
            }
            Some(done) => {
                let code = 16 * self.registers() + u64::from(done.0);
                let signature = Signature(2 * code + flag(flagged || agent == ALU));
                Observation::of(signature, ActionSet::all(AGENTS.len() - 1))
            }
        }
    }

    fn describe(&self) -> String {
        let shown = |value: Option<i32>| value.map_or("-".to_owned(), |v| v.to_string());
        let [a, b] = self.loaded.map(|cell| shown(cell.map(|c| self.memory[c])));
        let selected = shown(self.selected.map(|c| c as i32));
        format!("{}; RA {a}, RB {b}, RO {}, SEL {selected}", self.task(), shown(self.result))
    }

    fn operate(&mut self, operation: ActionId) -> Transition {
        self.done = Some(operation);
        let choice = operation.index();
        match self.active {
            LOAD_A => self.loaded[0] = Some(choice),
            LOAD_B => self.loaded[1] = Some(choice),
            SELECTOR => self.selected = Some(choice),
            WRITER if choice == COMMIT => {
                let success = self.selected == Some(self.goal.0) && self.is_right();
                let reward = Return::new(f64::from(u8::from(success))).expect("0 or 1");
                return Transition { reward, tau: Tau::ONE, next: Next::Terminal };
            }
            ALU if choice > 0 => {
                let [a, b, _] = self.operands().expect("nothing else is admissible without operands");
                self.result = Some(compute(choice - 1, a, b));
            }
            _ => {}
        }
        Transition { reward: Return::ZERO, tau: Tau::ONE, next: Next::Active(self.active) }
    }

    fn step(&mut self, action: ActionId) -> Transition {
        self.handoffs += 1;
        // Column k leads to the k-th of the other agents.
        let to = action.0 + u32::from(action.0 >= self.active.0);
        (self.active, self.done) = (AgentId(to), None);
        let next = match self.handoffs {
            HANDOFFS_MAX => Next::Terminal,
            _ => Next::Active(self.active),
        };
        Transition { reward: self.handoff_reward(), tau: Tau::ONE, next }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::environment::obeys_environment_laws;

    const ENCODINGS: [Encoding; 4] =
        [Encoding::Signs, Encoding::Scalars, Encoding::Bits, Encoding::Differences];

    #[test]
    fn it_is_an_environment() {
        for encoding in ENCODINGS {
            let design = Design::headline(encoding);
            obeys_environment_laws(|| Box::new(Cpu::new(design, 3)), 0..100, 2 * HANDOFFS_MAX as usize);
            obeys_environment_laws(|| Box::new(Cpu::unseen(design, 3)), 0..100, 2 * HANDOFFS_MAX as usize);
        }
    }

    /// Of 64 values 12 are seen, and no goal of one side is a goal of the other; nor an operand, where they are split.
    #[test]
    fn seen_and_unseen_tasks_are_apart() {
        for (lowest, operands) in [(false, false), (false, true), (true, false), (true, true)] {
            let design = Design { lowest, operands, operations: 8, ..Design::headline(Encoding::Signs) };
            for seed in 0..5 {
                let seen = Cpu::seen(design, seed);
                assert_eq!(seen.iter().filter(|s| **s).count(), SEEN);
                for (cpu, side) in [(Cpu::new(design, seed), true), (Cpu::unseen(design, seed), false)] {
                    for [x, y, t] in cpu.tasks.iter().flatten() {
                        let mut split = if operands { vec![x, y, t] } else { vec![t] }.into_iter();
                        assert!(split.all(|v| seen[*v as usize] == side));
                    }
                }
            }
        }
    }

    /// The program load A x, load B y, op, select d, commit solves a task whose operation is op.
    #[test]
    fn the_right_program_succeeds_and_the_flag_says_so() {
        let mut cpu = Cpu::new(Design { operations: 8, ..Design::headline(Encoding::Scalars) }, 1);
        for seed in 0..200 {
            cpu.reset(seed);
            let (d, t) = cpu.goal;
            assert_ne!(cpu.memory[d], t, "there is something to do");
            let [x, y] = [[1, 2], [0, 2], [0, 1]][d];
            let op = (0..8).find(|op| compute(*op, cpu.memory[x], cpu.memory[y]) == t);
            let program =
                [(0, 0), (1, x), (2, y), (3, 1 + op.expect("a task has a program")), (4, d), (5, COMMIT)];
            let mut total = 0.0;
            for (agent, operation) in program {
                if agent > 0 {
                    // Column k leads to agent k + 1 for all agents up to k.
                    total += cpu.step(ActionId(agent - 1)).reward.get();
                }
                assert_eq!(cpu.active, AgentId(agent));
                total += cpu.operate(ActionId(operation as u32)).reward.get();
            }
            assert!(cpu.is_right() && (total - 0.95).abs() < 1e-12);
        }
    }
}
