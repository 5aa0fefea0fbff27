//! Multiple-choice arithmetic of three levels, from a seed: questions, plausible options, worked solutions.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::{question::ask, rng::Rng};

/// How hard problems are, in the spirit of three public collections of multiple-choice mathematics.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Level {
    /// Sums and differences of two to four numbers, or a product; four options.
    Elementary,
    /// Two steps, often with brackets or a product; four options.
    HighSchool,
    /// Three steps, one of which may be a longer product; five options.
    Hard,
}

impl Level {
    /// All of them, the easiest first.
    pub const ALL: [Level; 3] = [Level::Elementary, Level::HighSchool, Level::Hard];

    /// Its name in files and on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Level::Elementary => "elementary",
            Level::HighSchool => "high-school",
            Level::Hard => "hard",
        }
    }

    fn options(self) -> usize {
        if self == Level::Hard { 5 } else { 4 }
    }

    /// The share of problems whose options are so wide apart that a rough guess finds the right one.
    fn wide(self) -> f64 {
        match self {
            Level::Elementary => 0.05,
            Level::HighSchool => 0.5,
            Level::Hard => 0.7,
        }
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Level {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let level = Level::ALL.into_iter().find(|l| l.name() == name);
        level.ok_or_else(|| format!("no level `{name}`; there are elementary, high-school and hard"))
    }
}

/// Which half of all problems: no question is in both.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Split {
    /// What the model has been trained on.
    Train,
    /// What it is measured on.
    Evaluation,
}

impl Split {
    /// Where a question belongs: one in eight is for evaluation, by the hash of its text.
    pub fn of(question: &str) -> Self {
        if blake3::hash(question.as_bytes()).as_bytes()[0] < 32 { Split::Evaluation } else { Split::Train }
    }
}

/// One step of a worked solution: `left operator right = value`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Step {
    pub(crate) left: i64,
    pub(crate) operator: char,
    pub(crate) right: i64,
    pub(crate) value: i64,
}

impl Step {
    /// The same, the other way round: `34+12=46`. A difference stays as it is.
    pub(crate) fn turned(&self) -> Self {
        let Step { left, operator, right, value } = *self;
        if operator == '-' { *self } else { Step { left: right, operator, right: left, value } }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}{}={}", self.left, self.operator, self.right, self.value)
    }
}

/// A multiple-choice problem.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// How hard it is.
    pub level: Level,
    /// What is asked, in one line.
    pub question: String,
    /// What may be answered; option A first.
    pub options: Vec<String>,
    /// The letter of the right option.
    pub key: char,
    steps: Vec<Step>,
}

impl Problem {
    /// The `index`-th problem of a level, in one of the halves, under a seed.
    pub fn generate(split: Split, level: Level, seed: u64, index: u64) -> Self {
        let half = matches!(split, Split::Evaluation) as u64;
        let mut rng = Rng::stream("problem", &[half, level as u64, seed, index]);
        loop {
            let (question, steps, slips) = ask(level, &mut rng);
            if Split::of(&question) == split {
                return Problem::of(level, question, steps, &slips, &mut rng);
            }
        }
    }

    /// The problem that a question such as `What is (12 + 34) * 5?` asks, with four options made up for it; `None` if
    /// it is no sum of whole numbers that stays between 0 and 9999.
    pub fn asked(question: &str, seed: u64) -> Option<Self> {
        let sum = question.trim().strip_prefix("What is ")?.strip_suffix('?')?;
        let mut reader = Reader { rest: sum.trim(), work: Work(vec![]) };
        reader.sum()?;
        let steps = reader.work.0;
        let sound = reader.rest.is_empty()
            && !steps.is_empty()
            && steps.iter().all(|s| (0..10_000).contains(&s.value));
        let mut rng = Rng::stream("asked", &[seed]);
        sound.then(|| Problem::of(Level::HighSchool, question.trim().to_owned(), steps, &[], &mut rng))
    }

    fn of(level: Level, question: String, steps: Vec<Step>, slips: &[i64], rng: &mut Rng) -> Self {
        let right = steps.last().expect("there is something to work out").value;
        let mut options = vec![right];
        let wide = rng.unit() < level.wide();
        while options.len() < level.options() {
            let slip = if !slips.is_empty() && rng.unit() < 0.45 {
                *rng.pick(slips)
            } else {
                near(right, wide, rng)
            };
            if slip >= 0 && !options.contains(&slip) {
                options.push(slip);
            }
        }
        rng.shuffle(&mut options);
        let place = options.iter().position(|o| *o == right).expect("it is among them");
        let options = options.iter().map(i64::to_string).collect();
        Problem { level, question, options, key: letter(place), steps }
    }

    /// The steps that lead to the right option: `12+34=46; 46-5=41`.
    pub fn rationale(&self) -> String {
        join(&self.steps)
    }

    /// The worked solution: the rationale, then `Answer: C`.
    pub fn solution(&self) -> String {
        format!("{}\nAnswer: {}", self.rationale(), self.key)
    }

    /// BLAKE3 of the text, in hexadecimal.
    pub fn hash(&self) -> String {
        blake3::hash(self.to_string().as_bytes()).to_hex().to_string()
    }

    pub(crate) fn steps(&self) -> &[Step] {
        &self.steps
    }
}

/// The text that people, teams and models see: the question, then the options in one line.
impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.question)?;
        for (place, option) in self.options.iter().enumerate() {
            let gap = if place == 0 { "" } else { " " };
            write!(f, "{gap}{}) {option}", letter(place))?;
        }
        Ok(())
    }
}

pub(crate) fn join(steps: &[Step]) -> String {
    steps.iter().map(Step::to_string).collect::<Vec<_>>().join("; ")
}

pub(crate) fn letter(place: usize) -> char {
    char::from(b'A' + place as u8)
}

/// The place of the option that is nearest to a number, the first of two; `None` if that or the options are none.
pub(crate) fn nearest(options: &[String], number: &str) -> Option<usize> {
    let number: i64 = number.parse().ok()?;
    let off = |option: &String| Some(option.parse::<i64>().ok()?.abs_diff(number));
    let all = options.iter().enumerate().filter_map(|(place, option)| Some((off(option)?, place)));
    all.min().map(|(_, place)| place)
}

/// A wrong number close to the right one: a unit, a carry, a hundred or two digits off; or, if the options are wide
/// apart, a part of it.
fn near(right: i64, wide: bool, rng: &mut Rng) -> i64 {
    let off = match wide {
        true => (right * rng.between(15, 60) / 100).max(rng.between(3, 9)),
        false => *rng.pick(&[1, 2, 10, 10, 10, 20, 100, 9, 11, 30]),
    };
    let off = if right < 60 { off.min(20) } else { off };
    if rng.below(2) == 0 { right + off } else { right - off }
}

/// Steps and what comes out of them.
pub(crate) struct Work(pub(crate) Vec<Step>);

impl Work {
    pub(crate) fn step(&mut self, left: i64, operator: char, right: i64) -> i64 {
        let value = apply(left, operator, right);
        self.0.push(Step { left, operator, right, value });
        value
    }
}

/// Reads a sum of numbers, products and brackets.
struct Reader<'a> {
    rest: &'a str,
    work: Work,
}

impl Reader<'_> {
    fn sum(&mut self) -> Option<i64> {
        let mut left = self.product()?;
        while let Some(operator) = self.take(&['+', '-']) {
            let right = self.product()?;
            left = self.work.step(left, operator, right);
        }
        Some(left)
    }

    fn product(&mut self) -> Option<i64> {
        let mut left = self.factor()?;
        while let Some(operator) = self.take(&['*']) {
            let right = self.factor()?;
            left = self.work.step(left, operator, right);
        }
        Some(left)
    }

    fn factor(&mut self) -> Option<i64> {
        if self.take(&['(']).is_some() {
            // Brackets within brackets have an end, as a question has.
            let value = if self.rest.len() < 1000 { self.sum()? } else { return None };
            return self.take(&[')']).map(|_| value);
        }
        let digits = self.rest.len() - self.rest.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        let value = self.rest[..digits.min(6)].parse().ok()?;
        self.rest = self.rest[digits.min(6)..].trim_start();
        Some(value)
    }

    fn take(&mut self, of: &[char]) -> Option<char> {
        let first = self.rest.chars().next().filter(|c| of.contains(c))?;
        self.rest = self.rest[1..].trim_start();
        Some(first)
    }
}

pub(crate) fn apply(left: i64, operator: char, right: i64) -> i64 {
    match operator {
        '+' => left.saturating_add(right),
        '-' => left.saturating_sub(right),
        _ => left.saturating_mul(right),
    }
}
