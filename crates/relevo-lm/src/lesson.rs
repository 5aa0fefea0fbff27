//! What the model learns from: worked problems, and solutions of its own that are checked and revised.

use crate::{
    backprop::{Batch, Target},
    generate::{Start, continuations},
    network::Network,
    problem::{Level, Problem, Split, Step, apply, join, nearest},
    rng::Rng,
    text::{ANSWER, CHECK, END, RIGHT, STEPS, Token, WRONG, encode, last_number},
    transcript::{Check, Solution, Transcript},
};

/// How often a problem of each level is met in the end: the harder ones need more practice.
pub(crate) const LEVELS: [f64; 3] = [0.35, 0.33, 0.32];

/// A problem, how it was solved, and, if it was, how that was checked.
pub(crate) struct Attempt {
    problem: Problem,
    solution: Solution,
    check: Option<Check>,
}

/// A problem to learn from, of a level drawn by these weights.
pub(crate) fn problem(seed: u64, weights: [f64; 3], rng: &mut Rng) -> Problem {
    let at = rng.unit() * weights.iter().sum::<f64>();
    let level = match () {
        () if at < weights[0] => Level::Elementary,
        () if at < weights[0] + weights[1] => Level::HighSchool,
        () => Level::Hard,
    };
    Problem::generate(Split::Train, level, seed, rng.below(usize::MAX) as u64)
}

/// The number of an option.
fn number(problem: &Problem, place: usize) -> Vec<Token> {
    let mut tokens = vec![];
    encode(&problem.options[place], &mut tokens).expect("options are numbers");
    tokens
}

fn key(problem: &Problem) -> usize {
    (problem.key as u8 - b'A').into()
}

fn is_right(attempt: &Attempt) -> bool {
    attempt.solution.number.as_ref() == Some(&number(&attempt.problem, key(&attempt.problem)))
}

/// Tokens, and what should follow them.
#[derive(Default)]
struct Sheet {
    tokens: Vec<Token>,
    targets: Vec<Option<Target>>,
}

impl Sheet {
    /// Given: nothing is learned from it.
    fn given(&mut self, tokens: &[Token]) {
        self.tokens.extend_from_slice(tokens);
        self.targets.resize(self.tokens.len(), None);
    }

    /// To be said after what is there. Something other may nevertheless be put in its place.
    fn learn(&mut self, token: Token, weight: f32) {
        *self.targets.last_mut().expect("something was given") = Some(Target { token, weight });
    }

    /// To be said, and then read.
    fn say(&mut self, tokens: &[Token], weight: f32) {
        for token in tokens {
            self.learn(*token, weight);
            self.given(&[*token]);
        }
    }

    /// One of the two ways to answer: the number at once; or steps, from which the number follows.
    fn answer(&mut self, problem: &Problem, in_steps: bool) {
        if in_steps {
            self.given(&[STEPS]);
            self.say(&steps(problem.steps()), 1.0);
            self.learn(END, 1.0);
            self.given(&[ANSWER]);
        }
        self.say(&number(problem, key(problem)), if in_steps { 1.0 } else { ONCE });
        self.learn(END, 1.0);
    }
}

fn steps(steps: &[Step]) -> Vec<Token> {
    let mut tokens = vec![];
    encode(&join(steps), &mut tokens).expect("steps are made of known characters");
    tokens
}

/// The steps of a checker: sums and products are worked out the other way round, so that it does not make the same mistakes.
fn checking(problem: &Problem) -> Vec<Token> {
    steps(&problem.steps().iter().map(Step::turned).collect::<Vec<_>>())
}

/// What lessons are about.
pub(crate) struct Syllabus {
    /// How often problems of each level are met.
    pub(crate) levels: [f64; 3],
    /// The share that are about a solution.
    pub(crate) checks: f64,
}

/// The share of problems that are answered at once.
const AT_ONCE: f64 = 0.5;
/// How much a digit of a number counts that is said at once, and a verdict: they are few, and hard to learn.
const ONCE: f32 = 3.0;
const VERDICT: f32 = 4.0;
/// The share of solutions that are made up, where there are some of the model's own.
const MADE_UP: f64 = 0.2;
/// The share of checked solutions that are answered anew, after the check.
const ANEW: f64 = 0.4;

/// Put one lesson into the batch: a problem to be solved; or a solution to be checked, or to be
/// revised after that.
pub(crate) fn lesson(seed: u64, syllabus: &Syllabus, attempts: &[Attempt], rng: &mut Rng, batch: &mut Batch) {
    let mut sheet = Sheet::default();
    if rng.unit() >= syllabus.checks {
        let problem = problem(seed, syllabus.levels, rng);
        sheet.given(&Transcript::of(&problem).0);
        sheet.answer(&problem, rng.unit() >= AT_ONCE);
    } else {
        let made_up;
        let attempt = if attempts.is_empty() || rng.unit() < MADE_UP {
            made_up = corrupted(problem(seed, syllabus.levels, rng), rng);
            &made_up
        } else {
            rng.pick(attempts)
        };
        let problem = &attempt.problem;
        let mut transcript = Transcript::of(problem);
        transcript.solution(&attempt.solution);
        let right = is_right(attempt);
        if rng.unit() < ANEW {
            let own = Check { steps: checking(problem), right };
            transcript.check(attempt.check.as_ref().unwrap_or(&own));
            sheet.given(&transcript.0);
            sheet.answer(problem, rng.unit() >= AT_ONCE);
        } else {
            sheet.given(&transcript.0);
            sheet.given(&[CHECK]);
            sheet.say(&checking(problem), 1.0);
            sheet.learn(if right { RIGHT } else { WRONG }, VERDICT);
        }
    }
    batch.push(&sheet.tokens, &sheet.targets);
}

/// A solution with a slip in one step, or none, and the answer that seems to follow, with or without its steps.
fn corrupted(problem: Problem, rng: &mut Rng) -> Attempt {
    let mut slipped = problem.steps().to_vec();
    let right = key(&problem);
    let mut answer = right;
    if rng.unit() < 0.5 {
        let place = rng.below(slipped.len());
        let old = slipped[place].value;
        let slip = *rng.pick(&[1, 2, 10, 20, 100]) * if rng.below(2) == 0 { 1 } else { -1 };
        let mut changed = (old, (old + slip).max(0));
        slipped[place].value = changed.1;
        for step in &mut slipped[place + 1..] {
            let replaced = |x: i64| if x == changed.0 { changed.1 } else { x };
            (step.left, step.right) = (replaced(step.left), replaced(step.right));
            let old = step.value;
            step.value = apply(step.left, step.operator, step.right).max(0);
            changed = (old, step.value);
        }
        let value = slipped.last().expect("there are steps").value.to_string();
        answer = nearest(&problem.options, &value).expect("options are numbers");
    }
    let shown = rng.unit() < 0.6;
    let solution = Solution { steps: shown.then(|| steps(&slipped)), number: Some(number(&problem, answer)) };
    Attempt { problem, solution, check: None }
}

/// What was said after [`STEPS`], or at once; it settles on the nearest option. `None` if there is nothing to be
/// checked in it.
fn read_solution(said: &[Token], in_steps: bool, problem: &Problem) -> Option<Solution> {
    let [said @ .., END] = said else { return None };
    let number = nearest(&problem.options, &last_number(said)).map(|place| number(problem, place));
    (in_steps || number.is_some()).then(|| Solution { steps: in_steps.then(|| said.to_vec()), number })
}

/// What the checker said after [`CHECK`]; `None` if it came to no verdict.
pub(crate) fn read_check(said: &[Token]) -> Option<Check> {
    let [steps @ .., verdict @ (RIGHT | WRONG)] = said else { return None };
    Some(Check { steps: steps.to_vec(), right: *verdict == RIGHT })
}

/// The longest thing that is said.
pub(crate) const SAID_MAX: usize = 64;

/// Let the model solve problems of the training half in each of its ways, and check what it said. Wrong solutions
/// are kept all, right ones as many at most.
pub(crate) fn attempts(network: &Network, seed: u64, round: u64, count: usize) -> Vec<Attempt> {
    let mut rng = Rng::stream("attempts", &[seed, round]);
    let problems: Vec<Problem> = (0..count).map(|_| problem(seed, LEVELS, &mut rng)).collect();
    let start = |tokens, temperature, seed| Start { tokens, temperature, seed, tokens_max: SAID_MAX };
    let starts = problems.iter().enumerate().map(|(i, problem)| {
        let mut tokens = Transcript::of(problem).0;
        if i % 3 != 0 {
            tokens.push(STEPS);
        }
        let temperature = if i % 2 == 0 { 0.0 } else { 1.0 };
        start(tokens, temperature, rng.below(usize::MAX) as u64)
    });
    let starts: Vec<Start> = starts.collect();
    let said = continuations(network, starts);
    let solved = problems.into_iter().zip(said).enumerate().filter_map(|(i, (problem, said))| {
        let solution = read_solution(&said, i % 3 != 0, &problem)?;
        Some(Attempt { problem, solution, check: None })
    });
    let (mut kept, right): (Vec<_>, Vec<_>) = solved.partition(|attempt| !is_right(attempt));
    let (wrong, enough) = (kept.len(), kept.len().max(count / 4));
    kept.extend(right.into_iter().take(enough.max(wrong)));
    let starts = kept.iter().map(|attempt| {
        let mut transcript = Transcript::of(&attempt.problem);
        transcript.solution(&attempt.solution);
        transcript.0.push(CHECK);
        start(transcript.0, 0.0, 0)
    });
    let said = continuations(network, starts.collect());
    kept.iter_mut().zip(said).for_each(|(attempt, said)| attempt.check = read_check(&said));
    kept
}
