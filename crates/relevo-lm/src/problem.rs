//! Multiple-choice arithmetic of three levels, from a seed: questions, plausible options, worked solutions.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::rng::Rng;

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
            Level::Elementary => 0.1,
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
struct Work(Vec<Step>);

impl Work {
    fn step(&mut self, left: i64, operator: char, right: i64) -> i64 {
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

/// Of elementary problems, the shares of a product alone, and of two and of four terms; the others have three.
const ELEMENTARY_PRODUCTS: f64 = 0.14;
const ELEMENTARY_TWO: f64 = 0.18;
const ELEMENTARY_FOUR: f64 = 0.28;
/// The shares of long products, of which the model gets some wrong even in steps.
const HIGH_SCHOOL_LONG: f64 = 0.2;
const HARD_LONG: f64 = 0.3;

const NAMES: [&str; 6] = ["Ann", "Ben", "Eva", "Max", "Tom", "Mia"];
const THINGS: [&str; 6] = ["pens", "eggs", "cups", "nuts", "keys", "hats"];

/// A question, its steps, and the values that people get who slip: a wrong operator, a dropped term, no brackets.
fn ask(level: Level, rng: &mut Rng) -> (String, Vec<Step>, Vec<i64>) {
    loop {
        let asked = match level {
            Level::Elementary => elementary(rng),
            Level::HighSchool => high_school(rng),
            Level::Hard => hard(rng),
        };
        // Numbers stay whole, positive and short, and factors such as one multiplies in one's head or on paper.
        let short =
            |s: &Step| (0..10_000).contains(&s.value) && (s.operator != '*' || s.left < 200 && s.right < 30);
        if asked.1.iter().all(short) {
            return asked;
        }
    }
}

/// A number of one or two digits, the smaller ones more often.
fn term(rng: &mut Rng) -> i64 {
    let most = if rng.unit() < 0.4 { 20 } else { 99 };
    rng.between(1, most)
}

/// What is multiplied with: a digit; or, in so large a share, a number that makes the product a long one.
fn factor(long: f64, rng: &mut Rng) -> i64 {
    if rng.unit() < long { rng.between(12, 29) } else { rng.between(2, 9) }
}

fn sign(rng: &mut Rng) -> char {
    *rng.pick(&['+', '-'])
}

/// In words, which of the two a sign is.
fn gets_or_loses(sign: char) -> &'static str {
    if sign == '+' { "gets" } else { "loses" }
}

/// The value with the sign of the last term turned.
fn turned(before: i64, value: i64) -> i64 {
    2 * before - value
}

fn elementary(rng: &mut Rng) -> (String, Vec<Step>, Vec<i64>) {
    let (a, b, c) = (term(rng), term(rng), term(rng));
    let (f, g) = (sign(rng), sign(rng));
    let words = rng.unit() < 0.35;
    let (name, things) = (rng.pick(&NAMES), rng.pick(&THINGS));
    let mut work = Work(vec![]);
    let kind = rng.unit();
    if kind < ELEMENTARY_PRODUCTS {
        let times = rng.between(12, 29);
        let value = work.step(a, '*', times);
        let question = match words {
            false => format!("What is {a} * {times}?"),
            true => format!("{a} bags hold {times} {things} each. How many?"),
        };
        return (question, work.0, vec![a + times, value + a, value - times]);
    }
    let first = work.step(a, f, b);
    if kind < ELEMENTARY_PRODUCTS + ELEMENTARY_TWO {
        let question = match words {
            false => format!("What is {a} {f} {b}?"),
            true => format!("{name} has {a} {things}, {} {b}. How many now?", gets_or_loses(f)),
        };
        return (question, work.0, vec![turned(a, first), (b - a).abs() + 10]);
    }
    let value = work.step(first, g, c);
    if kind > 1.0 - ELEMENTARY_FOUR {
        let (h, d) = (sign(rng), term(rng));
        let last = work.step(value, h, d);
        let question = format!("What is {a} {f} {b} {g} {c} {h} {d}?");
        return (question, work.0, vec![turned(value, last), value, apply(turned(first, value), h, d)]);
    }
    let question = match words {
        false => format!("What is {a} {f} {b} {g} {c}?"),
        true => {
            let (f, g) = (gets_or_loses(f), gets_or_loses(g));
            format!("{name} has {a} {things}, {f} {b}, {g} {c}. How many now?")
        }
    };
    (question, work.0, vec![turned(first, value), first, apply(turned(a, first), g, c)])
}

fn high_school(rng: &mut Rng) -> (String, Vec<Step>, Vec<i64>) {
    let (a, b, c) = (term(rng), term(rng), term(rng));
    let times = factor(HIGH_SCHOOL_LONG, rng);
    let f = sign(rng);
    let (name, things) = (rng.pick(&NAMES), rng.pick(&THINGS));
    let mut work = Work(vec![]);
    match rng.below(6) {
        0 => {
            let bracket = work.step(a, f, b);
            work.step(bracket, '*', times);
            let no_brackets = apply(a, f, b * times);
            (
                format!("What is ({a} {f} {b}) * {times}?"),
                work.0,
                vec![no_brackets, bracket * (times - 1), a * times],
            )
        }
        1 => {
            let product = work.step(b, '*', times);
            work.step(a, f, product);
            (format!("What is {a} {f} {b} * {times}?"), work.0, vec![(a + b) * times, product, a + b + times])
        }
        2 => {
            let product = work.step(a, '*', times);
            let sum = work.step(product, f, b);
            let question = match f {
                '+' => format!("{a} bags hold {times} {things} each, {b} are loose. How many?"),
                _ => format!("{a} bags hold {times} {things} each. {name} takes {b}. How many stay?"),
            };
            (question, work.0, vec![turned(product, sum), product, a + times + b])
        }
        3 => {
            let product = work.step(a, '*', times);
            let sum = work.step(product, f, b);
            (
                format!("What is {a} * {times} {f} {b}?"),
                work.0,
                vec![turned(product, sum), product, a * (times + b)],
            )
        }
        4 => {
            let product = work.step(b, '*', times);
            work.step(a, '+', product);
            let question = format!("{name} reads {a} pages, then {b} a day for {times} days. How many?");
            (question, work.0, vec![(a + b) * times, product, a + b])
        }
        _ => {
            let g = sign(rng);
            let bracket = work.step(b, f, c);
            let value = work.step(a, g, bracket);
            let no_brackets = apply(apply(a, g, b), f, c);
            (format!("What is {a} {g} ({b} {f} {c})?"), work.0, vec![no_brackets, bracket, value + 2 * c])
        }
    }
}

fn hard(rng: &mut Rng) -> (String, Vec<Step>, Vec<i64>) {
    let (a, b, c, d) = (term(rng), term(rng), term(rng), term(rng));
    let times = factor(HARD_LONG, rng);
    let (f, g) = (sign(rng), sign(rng));
    let (name, things) = (rng.pick(&NAMES), rng.pick(&THINGS));
    let mut work = Work(vec![]);
    match rng.below(6) {
        0 => {
            let bracket = work.step(a, f, b);
            let product = work.step(bracket, '*', times);
            let value = work.step(product, g, d);
            let question = format!("What is ({a} {f} {b}) * {times} {g} {d}?");
            (question, work.0, vec![apply(apply(a, f, b * times), g, d), product, turned(product, value)])
        }
        1 => {
            let product = work.step(b, '*', times);
            let sum = work.step(a, f, product);
            let value = work.step(sum, g, d);
            let question = format!("What is {a} {f} {b} * {times} {g} {d}?");
            (question, work.0, vec![apply((a + b) * times, g, d), sum, turned(sum, value)])
        }
        2 => {
            let product = work.step(a, '*', times);
            let bracket = work.step(b, g, c);
            let value = work.step(product, f, bracket);
            let question = format!("What is {a} * {times} {f} ({b} {g} {c})?");
            (question, work.0, vec![apply(apply(product, f, b), g, c), product, turned(product, value)])
        }
        3 => {
            let product = work.step(a, '*', times);
            let all = work.step(product, '+', b);
            let value = work.step(all, '-', d);
            let question = format!(
                "{a} bags hold {times} {things} each, {b} are loose. {name} takes {d}. How many stay?"
            );
            (question, work.0, vec![all, product, turned(all, value), product - d])
        }
        4 => {
            let product = work.step(a, '*', times);
            let less = work.step(product, '-', b);
            work.step(less, '-', d);
            let question = format!("{a} rows of {times} seats, {b} taken, {d} broken. How many free?");
            (question, work.0, vec![product, less, product - d, a + times - b - d])
        }
        _ => {
            let bracket = work.step(b, f, c);
            let first = work.step(a, g, bracket);
            let value = work.step(first, f, d);
            let question = format!("What is {a} {g} ({b} {f} {c}) {f} {d}?");
            (question, work.0, vec![apply(apply(apply(a, g, b), f, c), f, d), first, turned(first, value)])
        }
    }
}
