//! What is asked on each level, from a seed, and the steps that answer it.

use crate::{
    problem::{Level, Step, Work, apply},
    rng::Rng,
};

/// Of elementary problems, the shares of a product alone, and of two and of four terms; the others have three.
const ELEMENTARY_PRODUCTS: f64 = 0.12;
const ELEMENTARY_TWO: f64 = 0.08;
const ELEMENTARY_FOUR: f64 = 0.42;
/// The shares of long products, of which the model gets some wrong even in steps.
const HIGH_SCHOOL_LONG: f64 = 0.2;
const HARD_LONG: f64 = 0.6;

const NAMES: [&str; 6] = ["Ann", "Ben", "Eva", "Max", "Tom", "Mia"];
const THINGS: [&str; 6] = ["pens", "eggs", "cups", "nuts", "keys", "hats"];

/// A question, its steps, and the values that people get who slip: a wrong operator, a dropped term, no brackets.
pub(crate) fn ask(level: Level, rng: &mut Rng) -> (String, Vec<Step>, Vec<i64>) {
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
