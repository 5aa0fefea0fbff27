//! How fast a model speaks, on the thread that asks.

use std::time::Instant;

use crate::{
    chat::Role,
    generate::Continue,
    linear::{View, product},
    measure::PROMPTS,
    model::{Model, Request},
    problem::{Level, Problem, Split},
};

/// Speed at one size of a batch.
#[derive(Clone, Copy, Debug)]
pub struct Speed {
    /// Sequences at a time.
    pub together: usize,
    /// Characters that were said in a second, reading included.
    pub characters: f64,
    /// Tokens that were read or said in a second.
    pub tokens: f64,
    /// Of the multiplications that a core can do, the share that went into the model's matrices.
    pub share: f64,
}

/// So many rationales are said at least, at each size.
const SAID: usize = 256;

/// Speed at several sizes of a batch.
pub fn run(model: &Model) -> Vec<Speed> {
    let limit = multiplications();
    let system = PROMPTS[1].1;
    let requests: Vec<Request> = (0..SAID as u64)
        .map(|i| {
            let problem = Problem::generate(Split::Evaluation, Level::Hard, 0, i).to_string();
            let prompt = model.prompt(&[(Role::System, system), (Role::User, &problem)]);
            Request::new(prompt.expect("problems can be read"))
        })
        .collect();
    let speed = |together: usize| {
        let (mut characters, mut tokens) = (0, 0);
        // Few at a time take long.
        let some = if together == 1 { &requests[..SAID / 8] } else { &requests[..] };
        let begun = Instant::now();
        for batch in some.chunks(together) {
            for said in model.generate(batch, &mut |_, _| Continue::Yes) {
                characters += said.text.len();
                tokens += said.prompt_tokens + said.completion_tokens - 1;
            }
        }
        let per_second = |count: usize| count as f64 / begun.elapsed().as_secs_f64();
        let tokens = per_second(tokens);
        let share = tokens * model.parameters() as f64 / limit;
        Speed { together, characters: per_second(characters), tokens, share }
    };
    [1, 16, 64, 256].into_iter().map(speed).collect()
}

/// Multiplications a second in a product of matrices that fit a core's cache.
fn multiplications() -> f64 {
    let (m, k, n, times) = (192, 192, 192, 200);
    let (a, b, mut c) = (vec![1.0; m * k], vec![1.0; k * n], vec![0.0; m * n]);
    let mut go = |times: usize| {
        let begun = Instant::now();
        (0..times).for_each(|_| product(&mut c, n, 0.0, 1.0, View::new(&a, m, k), View::new(&b, k, n)));
        begun.elapsed().as_secs_f64()
    };
    go(times / 10);
    (m * k * n * times) as f64 / go(times)
}
