//! The network as it is used: parameters, and the way forward with a cache of keys and values.
//!
//! Every row is computed as if it were alone: products are made in blocks of a fixed number of rows, so that their
//! kernels always see the same shape, and a row attends to its own sequence in the order of positions. What a model
//! says therefore does not depend on what else is in the batch, to the bit.

use pulp::Arch;

use crate::{
    linear::{Rotation, View, normalise, product, softmax},
    shape::{Matrix, Plan, Shape},
    text::{Token, VOCABULARY},
};

/// Rows in one product.
const BLOCK: usize = 16;
/// Rows in one pass through the network: their numbers stay in a core's cache.
const PASS: usize = 256;

/// Parameters, ready for use.
pub(crate) struct Network {
    pub(crate) plan: Plan,
    pub(crate) numbers: Vec<f32>,
    rotation: Rotation,
    arch: Arch,
}

/// Keys and values of one sequence.
pub(crate) struct Cache {
    /// Of each layer, `[head and its dimension][position]`.
    keys: Vec<f32>,
    /// Of each layer, `[position][head and its dimension]`.
    values: Vec<f32>,
    room: usize,
    len: usize,
}

impl Cache {
    pub(crate) fn new(shape: &Shape, room: usize) -> Self {
        let room = room.next_multiple_of(8);
        let size = shape.layers * shape.width * room;
        Cache { keys: vec![0.0; size], values: vec![0.0; size], room, len: 0 }
    }
}

/// A token to be read, in a sequence.
#[derive(Clone, Copy)]
struct Row {
    sequence: usize,
    position: usize,
    token: Token,
}

impl Network {
    pub(crate) fn new(plan: Plan, numbers: Vec<f32>) -> Self {
        let rotation = Rotation::new(plan.shape.context, plan.shape.width / plan.shape.heads);
        Network { plan, numbers, rotation, arch: Arch::new() }
    }

    /// Read these tokens, each list at the end of its sequence; what comes back are the logits after the last token
    /// of each list, one row for each.
    pub(crate) fn read(&self, reading: &[&[Token]], caches: &mut [&mut Cache]) -> Vec<f32> {
        let (width, mut out) = (self.plan.shape.width, vec![0.0; reading.len() * VOCABULARY]);
        let mut rows = vec![];
        for (sequence, tokens) in reading.iter().enumerate() {
            let start = caches[sequence].len;
            let row = |(i, token): (usize, &Token)| Row { sequence, position: start + i, token: *token };
            rows.extend(tokens.iter().enumerate().map(row));
            caches[sequence].len += tokens.len();
            debug_assert!(caches[sequence].len <= caches[sequence].room);
        }
        let last = |i: usize| rows.get(i + 1).is_none_or(|next| next.sequence != rows[i].sequence);
        let mut start = 0;
        for pass in rows.chunks(PASS) {
            let stream = self.pass(pass, caches);
            let wanted: Vec<usize> = (0..pass.len()).filter(|i| last(start + i)).collect();
            let mut ends = Vec::with_capacity(wanted.len() * width);
            wanted.iter().for_each(|i| ends.extend_from_slice(&stream[i * width..(i + 1) * width]));
            let logits = self.apply(self.plan.unembed, &self.normal(&ends), wanted.len());
            for (i, logits) in wanted.iter().zip(logits.chunks_exact(VOCABULARY)) {
                out[pass[*i].sequence * VOCABULARY..][..VOCABULARY].copy_from_slice(logits);
            }
            start += pass.len();
        }
        out
    }

    /// y = x W, block by block; the last block is filled with zeros.
    fn apply(&self, matrix: Matrix, x: &[f32], rows: usize) -> Vec<f32> {
        let (inner, outer) = (matrix.rows, matrix.columns);
        let weights = View::new(matrix.of(&self.numbers), inner, outer);
        let mut y = vec![0.0; rows.next_multiple_of(BLOCK) * outer];
        let mut filled = vec![];
        for (number, y) in y.chunks_exact_mut(BLOCK * outer).enumerate() {
            let rest = &x[number * BLOCK * inner..];
            let block = rest.get(..BLOCK * inner).unwrap_or_else(|| {
                filled.extend_from_slice(rest);
                filled.resize(BLOCK * inner, 0.0);
                &filled
            });
            product(y, outer, 0.0, 1.0, View::new(block, BLOCK, inner), weights);
        }
        y.truncate(rows * outer);
        y
    }

    fn normal(&self, x: &[f32]) -> Vec<f32> {
        let mut y = vec![0.0; x.len()];
        self.arch.dispatch(|| normalise(x, &mut y, self.plan.shape.width));
        y
    }

    fn pass(&self, rows: &[Row], caches: &mut [&mut Cache]) -> Vec<f32> {
        let Shape { width, heads, .. } = self.plan.shape;
        let embed = self.plan.embed.of(&self.numbers);
        let mut x = Vec::with_capacity(rows.len() * width);
        rows.iter().for_each(|r| x.extend_from_slice(&embed[usize::from(r.token) * width..][..width]));
        for (layer, block) in self.plan.blocks.iter().enumerate() {
            let mut qkv = self.apply(block.attend, &self.normal(&x), rows.len());
            let mut mixed = vec![0.0; x.len()];
            self.arch.dispatch(|| {
                for (row, qkv) in rows.iter().zip(qkv.chunks_exact_mut(3 * width)) {
                    self.rotation.turn(&mut qkv[..2 * width], row.position, false);
                    caches[row.sequence].write(layer, row.position, &qkv[width..]);
                }
                let mut scores = vec![];
                for ((row, qkv), out) in
                    rows.iter().zip(qkv.chunks_exact(3 * width)).zip(mixed.chunks_exact_mut(width))
                {
                    let cache = &caches[row.sequence];
                    cache.attend(layer, row.position + 1, heads, &qkv[..width], &mut scores, out);
                }
            });
            add(&mut x, &self.apply(block.mix, &mixed, rows.len()));
            let mut hidden = self.apply(block.widen, &self.normal(&x), rows.len());
            self.arch.dispatch(|| hidden.iter_mut().for_each(|x| *x = x.max(0.0) * x.max(0.0)));
            add(&mut x, &self.apply(block.narrow, &hidden, rows.len()));
        }
        x
    }
}

fn add(x: &mut [f32], y: &[f32]) {
    x.iter_mut().zip(y).for_each(|(x, y)| *x += y);
}

impl Cache {
    #[inline(always)]
    fn write(&mut self, layer: usize, position: usize, key_value: &[f32]) {
        let width = key_value.len() / 2;
        let layer = layer * width * self.room;
        for (i, key) in key_value[..width].iter().enumerate() {
            self.keys[layer + i * self.room + position] = *key;
        }
        self.values[layer + position * width..][..width].copy_from_slice(&key_value[width..]);
    }

    /// out = softmax(q K^T / sqrt(head)) V over the first `len` positions, head by head.
    #[inline(always)]
    fn attend(
        &self,
        layer: usize,
        len: usize,
        heads: usize,
        q: &[f32],
        scores: &mut Vec<f32>,
        out: &mut [f32],
    ) {
        let (width, head) = (q.len(), q.len() / heads);
        let keys = &self.keys[layer * width * self.room..];
        let values = &self.values[layer * width * self.room..];
        for h in 0..heads {
            scores.clear();
            scores.resize(len, 0.0);
            for i in h * head..(h + 1) * head {
                let q = q[i];
                let keys = &keys[i * self.room..][..len];
                scores.iter_mut().zip(keys).for_each(|(s, k)| *s += q * k);
            }
            softmax(scores, len, (head as f32).sqrt().recip());
            let out = &mut out[h * head..(h + 1) * head];
            for (position, p) in scores.iter().enumerate() {
                let values = &values[position * width + h * head..][..head];
                out.iter_mut().zip(values).for_each(|(o, v)| *o += p * v);
            }
        }
    }
}

/// The likeliest token, the first of equals.
pub(crate) fn likeliest(logits: &[f32]) -> Token {
    let mut best = 0;
    for (i, x) in logits.iter().enumerate() {
        if *x > logits[best] {
            best = i;
        }
    }
    best as Token
}

/// A token drawn at a temperature; `at` is uniform on [0, 1).
pub(crate) fn sample(logits: &[f32], temperature: f64, at: f64) -> Token {
    let highest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let weight = |x: &f32| (f64::from(x - highest) / temperature).exp();
    let mut left = at * logits.iter().map(weight).sum::<f64>();
    for (i, x) in logits.iter().enumerate() {
        left -= weight(x);
        if left < 0.0 {
            return i as Token;
        }
    }
    likeliest(logits)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backprop::{Backprop, Batch, Target};

    /// Token by token with a cache, or all at once for the gradient: the same probabilities.
    #[test]
    fn what_is_used_is_what_was_trained() {
        let plan = Shape { layers: 2, width: 24, heads: 2, hidden: 40, context: 64 }.plan();
        let mut numbers = plan.draw(5);
        // Sharper than at first, so that a difference would show.
        numbers.iter_mut().for_each(|x| *x *= 3.0);
        let tokens: Vec<Token> = (0..40).map(|i| (i * 7 % 60 + 13) as Token).collect();
        let mut batch = Batch::default();
        let target = |token: &Token| Some(Target { token: *token, weight: 1.0 });
        let targets: Vec<Option<Target>> = tokens[1..].iter().map(target).chain([None]).collect();
        batch.push(&tokens, &targets);
        let score = Backprop::new(plan.clone()).run(&numbers, &batch, 1.0, &mut vec![0.0; plan.len]);

        let network = Network::new(plan.clone(), numbers);
        let mut cache = Cache::new(&plan.shape, 40);
        let mut loss = 0.0;
        let mut logits = network.read(&[&tokens[..10]], &mut [&mut cache]);
        let all = network.read(&[&tokens[..10]], &mut [&mut Cache::new(&plan.shape, 10)]);
        assert_eq!(logits, all);
        for token in &tokens[10..] {
            let sum: f64 = logits.iter().map(|x| f64::from(*x).exp()).sum();
            loss += sum.ln() - f64::from(logits[usize::from(*token)]);
            logits = network.read(&[&[*token]], &mut [&mut cache]);
        }
        let mut begun = Batch::default();
        begun.push(
            &tokens[..10],
            &targets[..10].iter().enumerate().map(|(i, t)| t.filter(|_| i < 9)).collect::<Vec<_>>(),
        );
        let begun = Backprop::new(plan.clone()).run(&network.numbers, &begun, 1.0, &mut vec![0.0; plan.len]);
        assert!(
            (score.loss - begun.loss - loss).abs() < 1e-3 * score.loss,
            "{} but {loss}",
            score.loss - begun.loss
        );
    }
}
