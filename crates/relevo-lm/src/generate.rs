//! Saying what comes next: many sequences at a time, each as if it were alone.

use std::collections::VecDeque;

use crate::{
    network::{Cache, Network, likeliest, sample},
    rng::Rng,
    text::{END, RIGHT, Token, VOCABULARY, WRONG},
};

/// Sequences that are continued at the same time.
const TOGETHER: usize = 256;

/// What is to be continued.
#[derive(Clone, Debug)]
pub(crate) struct Start {
    pub(crate) tokens: Vec<Token>,
    /// 0 takes the likeliest token.
    pub(crate) temperature: f64,
    pub(crate) seed: u64,
    pub(crate) tokens_max: usize,
}

/// Whether a sequence goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Continue {
    /// It does.
    Yes,
    /// It is cancelled.
    No,
}

/// Why a completion ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finish {
    /// The model had said what it had to say.
    Stop,
    /// The limit of its tokens, or of the model's context.
    Length,
    /// It was cancelled.
    Cancelled,
}

/// The end, or the verdict of a check.
fn ends(token: Token) -> bool {
    matches!(token, END | RIGHT | WRONG)
}

struct Going {
    index: usize,
    /// Its tokens are those that the network has not read yet.
    start: Start,
    cache: Cache,
    said: usize,
}

/// Sequences being continued; more may join between steps.
pub(crate) struct Batch<'n> {
    network: &'n Network,
    going: Vec<Going>,
    waiting: VecDeque<(usize, Start)>,
    joined: usize,
}

impl<'n> Batch<'n> {
    pub(crate) fn new(network: &'n Network) -> Self {
        Batch { network, going: vec![], waiting: VecDeque::new(), joined: 0 }
    }

    /// Let a sequence join; its number comes back, which counts from 0.
    pub(crate) fn join(&mut self, start: Start) -> usize {
        self.waiting.push_back((self.joined, start));
        self.joined += 1;
        self.joined - 1
    }

    /// Whether nothing is left to be said.
    pub(crate) fn is_over(&self) -> bool {
        self.going.is_empty() && self.waiting.is_empty()
    }

    /// One more token for each sequence: `told` hears it, and why the sequence ended, if it did.
    pub(crate) fn step(&mut self, told: &mut dyn FnMut(usize, Token, Option<Finish>) -> Continue) {
        let shape = self.network.plan.shape;
        while self.going.len() < TOGETHER {
            let Some((index, mut start)) = self.waiting.pop_front() else { break };
            let room = (start.tokens.len() + start.tokens_max).min(shape.context);
            start.tokens_max = room.saturating_sub(start.tokens.len());
            self.going.push(Going { index, start, cache: Cache::new(&shape, room), said: 0 });
        }
        let (mut reading, mut caches) = (vec![], vec![]);
        for going in &mut self.going {
            reading.push(going.start.tokens.as_slice());
            caches.push(&mut going.cache);
        }
        let logits = self.network.read(&reading, &mut caches);
        let mut logits = logits.chunks_exact(VOCABULARY);
        self.going.retain_mut(|going| {
            let logits = logits.next().expect("one row for each");
            let start = &mut going.start;
            let token = if start.temperature > 0.0 {
                let at = Rng::stream("sample", &[start.seed, going.said as u64]).unit();
                sample(logits, start.temperature, at)
            } else {
                likeliest(logits)
            };
            going.said += 1;
            let finish = match () {
                () if ends(token) => Some(Finish::Stop),
                () if going.said >= start.tokens_max => Some(Finish::Length),
                () => None,
            };
            start.tokens.clear();
            start.tokens.push(token);
            told(going.index, token, finish) == Continue::Yes && finish.is_none()
        });
    }
}

/// All tokens that follow each of these.
pub(crate) fn continuations(network: &Network, starts: Vec<Start>) -> Vec<Vec<Token>> {
    let mut said = vec![vec![]; starts.len()];
    let mut batch = Batch::new(network);
    starts.into_iter().for_each(|s| _ = batch.join(s));
    while !batch.is_over() {
        batch.step(&mut |index, token, _| {
            said[index].push(token);
            Continue::Yes
        });
    }
    said
}
