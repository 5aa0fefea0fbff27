//! The loss of a batch and its gradient, by hand: forward through the blocks, then back.
//!
//! Sequences lie one after the other, without padding; the rows of all of them go through each matrix at once, and
//! attention works sequence by sequence. The same batch gives the same bytes.

use pulp::Arch;

use crate::{
    linear::{Rotation, View, dot, exp, normalise, normalise_back, product, softmax},
    shape::{Block, Plan},
    text::{Token, VOCABULARY},
};

/// A token to be said, and how much it counts to say it rightly.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Target {
    pub(crate) token: Token,
    pub(crate) weight: f32,
}

/// Sequences to learn from.
#[derive(Clone, Default)]
pub(crate) struct Batch {
    pub(crate) tokens: Vec<Token>,
    /// What should come after each token; `None` where nothing is learned.
    pub(crate) targets: Vec<Option<Target>>,
    /// Where each sequence ends.
    pub(crate) ends: Vec<usize>,
}

impl Batch {
    pub(crate) fn push(&mut self, tokens: &[Token], targets: &[Option<Target>]) {
        debug_assert_eq!(tokens.len(), targets.len());
        self.tokens.extend_from_slice(tokens);
        self.targets.extend_from_slice(targets);
        self.ends.push(self.tokens.len());
    }

    /// The sum of the weights of what is learned.
    pub(crate) fn weight(&self) -> f32 {
        self.targets.iter().flatten().map(|t| t.weight).sum()
    }

    fn sequences(&self) -> impl Iterator<Item = core::ops::Range<usize>> {
        let starts = std::iter::once(0).chain(self.ends.iter().copied());
        starts.zip(self.ends.iter().copied()).map(|(start, end)| start..end)
    }
}

/// What a batch came to, summed over its targets.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Score {
    /// Cross entropy, in nats, each target by its weight.
    pub(crate) loss: f64,
    pub(crate) weight: f64,
}

/// What the way back needs of a block.
#[derive(Default)]
struct Kept {
    input: Vec<f32>,
    attended: Vec<f32>,
    qkv: Vec<f32>,
    /// Of every sequence and head, a square.
    probabilities: Vec<f32>,
    mixed: Vec<f32>,
    middle: Vec<f32>,
    widened: Vec<f32>,
    hidden: Vec<f32>,
}

/// Works out gradients; it keeps its memory from one batch to the next.
pub(crate) struct Backprop {
    plan: Plan,
    rotation: Rotation,
    kept: Vec<Kept>,
    arch: Arch,
}

fn room(numbers: &mut Vec<f32>, len: usize) -> &mut [f32] {
    numbers.resize(len.max(numbers.len()), 0.0);
    &mut numbers[..len]
}

impl Backprop {
    pub(crate) fn new(plan: Plan) -> Self {
        let shape = plan.shape;
        let kept = (0..shape.layers).map(|_| Kept::default()).collect();
        let rotation = Rotation::new(shape.context, shape.width / shape.heads);
        Backprop { plan, rotation, kept, arch: Arch::new() }
    }

    /// gradient += scale * d(weighted sum of the losses) / d(parameters).
    pub(crate) fn run(&mut self, numbers: &[f32], batch: &Batch, scale: f32, gradient: &mut [f32]) -> Score {
        let Backprop { plan, rotation, kept, arch } = self;
        let (rows, width) = (batch.tokens.len(), plan.shape.width);
        let mut stream = vec![0.0; rows * width];
        let embed = plan.embed.of(numbers);
        for (row, token) in stream.chunks_exact_mut(width).zip(&batch.tokens) {
            row.copy_from_slice(&embed[usize::from(*token) * width..][..width]);
        }
        for (block, kept) in plan.blocks.iter().zip(kept.iter_mut()) {
            forward(plan, block, numbers, rotation, batch, kept, &mut stream, *arch);
        }

        // The head, where something is to be learned.
        let places: Vec<usize> = (0..rows).filter(|r| batch.targets[*r].is_some()).collect();
        let mut last = Vec::with_capacity(places.len() * width);
        places.iter().for_each(|r| last.extend_from_slice(&stream[r * width..(r + 1) * width]));
        let mut normal = vec![0.0; last.len()];
        let mut logits = vec![0.0; places.len() * VOCABULARY];
        arch.dispatch(|| normalise(&last, &mut normal, width));
        let unembed = View::new(plan.unembed.of(numbers), width, VOCABULARY);
        let all = View::new(&normal, places.len(), width);
        product(&mut logits, VOCABULARY, 0.0, 1.0, all, unembed);
        let targets: Vec<Target> = batch.targets.iter().copied().flatten().collect();
        let score = arch.dispatch(|| cross_entropy(&mut logits, &targets, scale));
        let unlike = View::new(&logits, places.len(), VOCABULARY);
        product(plan.unembed.of_mut(gradient), VOCABULARY, 1.0, 1.0, all.t(), unlike);
        let mut d_normal = vec![0.0; normal.len()];
        product(&mut d_normal, width, 0.0, 1.0, unlike, unembed.t());
        let mut d_last = vec![0.0; normal.len()];
        arch.dispatch(|| normalise_back(&last, &d_normal, &mut d_last, width));
        let mut d_stream = vec![0.0; stream.len()];
        for (place, row) in places.iter().zip(d_last.chunks_exact(width)) {
            d_stream[place * width..(place + 1) * width].copy_from_slice(row);
        }

        for (block, kept) in plan.blocks.iter().zip(kept.iter_mut()).rev() {
            backward(plan, block, numbers, rotation, batch, kept, &mut d_stream, gradient, *arch);
        }
        let d_embed = plan.embed.of_mut(gradient);
        for (row, token) in d_stream.chunks_exact(width).zip(&batch.tokens) {
            let to = &mut d_embed[usize::from(*token) * width..][..width];
            to.iter_mut().zip(row).for_each(|(to, d)| *to += d);
        }
        score
    }
}

/// Turn logits into weight * scale * (probabilities - targets).
#[inline(always)]
fn cross_entropy(logits: &mut [f32], targets: &[Target], scale: f32) -> Score {
    let mut score = Score::default();
    for (row, Target { token, weight }) in logits.chunks_exact_mut(VOCABULARY).zip(targets) {
        let highest = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let aim = row[usize::from(*token)];
        score.weight += f64::from(*weight);
        let sum: f32 = row.iter().map(|x| exp(x - highest)).sum();
        score.loss += f64::from(weight * (sum.ln() + highest - aim));
        softmax(row, VOCABULARY, 1.0);
        row[usize::from(*token)] -= 1.0;
        row.iter_mut().for_each(|x| *x *= weight * scale);
    }
    score
}

/// x += attention(x); x += perceptron(x)
#[allow(clippy::too_many_arguments)] // a block of the model, written once
fn forward(
    plan: &Plan,
    block: &Block,
    numbers: &[f32],
    rotation: &Rotation,
    batch: &Batch,
    kept: &mut Kept,
    x: &mut [f32],
    arch: Arch,
) {
    let (rows, width, hidden) = (batch.tokens.len(), plan.shape.width, plan.shape.hidden);
    let matrix = |m: crate::shape::Matrix| View::new(m.of(numbers), m.rows, m.columns);
    room(&mut kept.input, x.len()).copy_from_slice(x);
    let attended = room(&mut kept.attended, x.len());
    arch.dispatch(|| normalise(x, attended, width));
    let qkv = room(&mut kept.qkv, 3 * x.len());
    product(qkv, 3 * width, 0.0, 1.0, View::new(attended, rows, width), matrix(block.attend));
    arch.dispatch(|| {
        for range in batch.sequences() {
            for (position, row) in qkv[range.start * 3 * width..].chunks_exact_mut(3 * width).enumerate() {
                if position == range.len() {
                    break;
                }
                rotation.turn(&mut row[..2 * width], position, false);
            }
        }
    });
    let squares: usize = batch.sequences().map(|r| r.len() * r.len()).sum();
    let probabilities = room(&mut kept.probabilities, squares * plan.shape.heads);
    let mixed = room(&mut kept.mixed, x.len());
    let head = width / plan.shape.heads;
    let scale = (head as f32).sqrt().recip();
    let mut square = 0;
    for range in batch.sequences() {
        let n = range.len();
        let part = &qkv[range.start * 3 * width..range.end * 3 * width];
        for h in 0..plan.shape.heads {
            let strip = |which: usize| View::strip(&part[which * width + h * head..], n, head, 3 * width);
            let p = &mut probabilities[square..square + n * n];
            square += n * n;
            product(p, n, 0.0, 1.0, strip(0), strip(1).t());
            arch.dispatch(|| {
                for (i, row) in p.chunks_exact_mut(n).enumerate() {
                    softmax(row, i + 1, scale);
                }
            });
            let out = &mut mixed[range.start * width + h * head..];
            product(out, width, 0.0, 1.0, View::new(p, n, n), strip(2));
        }
    }
    product(x, width, 1.0, 1.0, View::new(mixed, rows, width), matrix(block.mix));
    room(&mut kept.middle, x.len()).copy_from_slice(x);

    let normal = &mut room(&mut kept.widened, x.len() + rows * hidden)[..];
    let (normal, widened) = normal.split_at_mut(x.len());
    arch.dispatch(|| normalise(x, normal, width));
    product(widened, hidden, 0.0, 1.0, View::new(normal, rows, width), matrix(block.widen));
    let active = room(&mut kept.hidden, rows * hidden);
    arch.dispatch(|| active.iter_mut().zip(widened.iter()).for_each(|(y, x)| *y = x.max(0.0) * x.max(0.0)));
    product(x, width, 1.0, 1.0, View::new(active, rows, hidden), matrix(block.narrow));
}

/// The way back through [`forward`]; `dx` is turned from the gradient of what came out into that of what went in.
#[allow(clippy::too_many_arguments)] // as above
fn backward(
    plan: &Plan,
    block: &Block,
    numbers: &[f32],
    rotation: &Rotation,
    batch: &Batch,
    kept: &mut Kept,
    dx: &mut [f32],
    gradient: &mut [f32],
    arch: Arch,
) {
    let (rows, width, hidden) = (batch.tokens.len(), plan.shape.width, plan.shape.hidden);
    let matrix = |m: crate::shape::Matrix| View::new(m.of(numbers), m.rows, m.columns);
    let size = rows * width;

    // y = relu(h W1)^2 W2
    let (normal, widened) = kept.widened[..size + rows * hidden].split_at_mut(size);
    let active = View::new(&kept.hidden[..rows * hidden], rows, hidden);
    product(block.narrow.of_mut(gradient), width, 1.0, 1.0, active.t(), View::new(dx, rows, width));
    let mut d_hidden = vec![0.0; rows * hidden];
    product(&mut d_hidden, hidden, 0.0, 1.0, View::new(dx, rows, width), matrix(block.narrow).t());
    arch.dispatch(|| d_hidden.iter_mut().zip(widened.iter()).for_each(|(d, x)| *d *= 2.0 * x.max(0.0)));
    let d_widened = View::new(&d_hidden, rows, hidden);
    product(block.widen.of_mut(gradient), hidden, 1.0, 1.0, View::new(normal, rows, width).t(), d_widened);
    let mut d_normal = vec![0.0; size];
    product(&mut d_normal, width, 0.0, 1.0, d_widened, matrix(block.widen).t());
    arch.dispatch(|| normalise_back(&kept.middle[..size], &d_normal, dx, width));

    // y = softmax(q k^T / sqrt(head)) v W
    let mixed = View::new(&kept.mixed[..size], rows, width);
    product(block.mix.of_mut(gradient), width, 1.0, 1.0, mixed.t(), View::new(dx, rows, width));
    let d_mixed = &mut d_normal;
    product(d_mixed, width, 0.0, 1.0, View::new(dx, rows, width), matrix(block.mix).t());
    let head = width / plan.shape.heads;
    let scale = (head as f32).sqrt().recip();
    let mut d_qkv = vec![0.0; 3 * size];
    let mut d_scores = vec![];
    let mut square = 0;
    for range in batch.sequences() {
        let n = range.len();
        let part = &kept.qkv[range.start * 3 * width..range.end * 3 * width];
        let d_part = &mut d_qkv[range.start * 3 * width..range.end * 3 * width];
        for h in 0..plan.shape.heads {
            let at = |which: usize| which * width + h * head;
            let strip = |which: usize| View::strip(&part[at(which)..], n, head, 3 * width);
            let p = &kept.probabilities[square..square + n * n];
            square += n * n;
            let d_out = View::strip(&d_mixed[range.start * width + h * head..], n, head, width);
            let ds = room(&mut d_scores, n * n);
            product(ds, n, 0.0, 1.0, d_out, strip(2).t());
            product(&mut d_part[at(2)..], 3 * width, 0.0, 1.0, View::new(p, n, n).t(), d_out);
            // ds = p (dp - sum p dp) / sqrt(head)
            arch.dispatch(|| {
                for (i, (ds, p)) in ds.chunks_exact_mut(n).zip(p.chunks_exact(n)).enumerate() {
                    let along = dot(&ds[..=i], &p[..=i]);
                    ds.iter_mut().zip(p).for_each(|(ds, p)| *ds = p * (*ds - along) * scale);
                }
            });
            let ds = View::new(ds, n, n);
            product(&mut d_part[at(0)..], 3 * width, 0.0, 1.0, ds, strip(1));
            product(&mut d_part[at(1)..], 3 * width, 0.0, 1.0, ds.t(), strip(0));
        }
        arch.dispatch(|| {
            for (position, row) in d_part.chunks_exact_mut(3 * width).enumerate() {
                rotation.turn(&mut row[..2 * width], position, true);
            }
        });
    }
    let attended = View::new(&kept.attended[..size], rows, width);
    let d_all = View::new(&d_qkv, rows, 3 * width);
    product(block.attend.of_mut(gradient), 3 * width, 1.0, 1.0, attended.t(), d_all);
    product(&mut d_normal, width, 0.0, 1.0, d_all, matrix(block.attend).t());
    arch.dispatch(|| normalise_back(&kept.input[..size], &d_normal, dx, width));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shape::Shape;

    /// Against differences of the loss, parameter by parameter.
    #[test]
    fn the_gradient_is_that_of_the_loss() {
        let plan = Shape { layers: 2, width: 16, heads: 2, hidden: 16, context: 16 }.plan();
        let mut numbers = plan.draw(3);
        let mut batch = Batch::default();
        let say = |token, weight| Some(Target { token, weight });
        batch.push(&[7, 30, 12, 14, 9], &[None, say(3, 1.0), say(12, 3.0), None, say(40, 1.0)]);
        batch.push(&[9, 13, 13], &[say(11, 1.0), None, say(12, 0.5)]);
        let mut backprop = Backprop::new(plan.clone());
        let mut gradient = vec![0.0; plan.len];
        backprop.run(&numbers, &batch, 1.0, &mut gradient);
        let steepest = gradient.iter().fold(0.0f32, |m, g| m.max(g.abs()));
        for (name, matrix) in plan.matrices() {
            for place in (matrix.start..matrix.start + matrix.rows * matrix.columns).step_by(29) {
                let (old, small) = (numbers[place], 4e-3);
                let mut loss = |x| {
                    numbers[place] = x;
                    backprop.run(&numbers, &batch, 1.0, &mut vec![0.0; plan.len]).loss
                };
                let slope = (loss(old + small) - loss(old - small)) / f64::from(2.0 * small);
                numbers[place] = old;
                let off = (slope - f64::from(gradient[place])).abs();
                assert!(off < 1e-3 * f64::from(steepest), "{name}[{place}]: {} but {slope}", gradient[place]);
            }
        }
    }
}
