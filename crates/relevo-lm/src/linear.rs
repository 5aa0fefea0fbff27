//! The arithmetic of both training and inference: products of matrices, and what is done to rows.
//!
//! Each call runs on the thread that makes it, and its result does not depend on the thread.

use gemm::Parallelism;

/// A matrix somewhere in a slice: `(start, distance of rows, distance of columns)`.
#[derive(Clone, Copy)]
pub(crate) struct View<'a> {
    pub(crate) numbers: &'a [f32],
    pub(crate) rows: usize,
    pub(crate) columns: usize,
    pub(crate) row_step: usize,
    pub(crate) column_step: usize,
}

impl<'a> View<'a> {
    /// Rows after rows, without gaps.
    pub(crate) fn new(numbers: &'a [f32], rows: usize, columns: usize) -> Self {
        View { numbers, rows, columns, row_step: columns, column_step: 1 }
    }

    /// A strip of columns of a matrix of `step` columns; `numbers` begins at its first number.
    pub(crate) fn strip(numbers: &'a [f32], rows: usize, columns: usize, step: usize) -> Self {
        View { numbers, rows, columns, row_step: step, column_step: 1 }
    }

    /// Its transpose.
    pub(crate) fn t(self) -> Self {
        View {
            rows: self.columns,
            columns: self.rows,
            row_step: self.column_step,
            column_step: self.row_step,
            ..self
        }
    }
}

/// out = keep * out + scale * a b, where the rows of `out` lie `out_step` apart.
pub(crate) fn product(out: &mut [f32], out_step: usize, keep: f32, scale: f32, a: View<'_>, b: View<'_>) {
    let (m, k, n) = (a.rows, a.columns, b.columns);
    assert_eq!(k, b.rows, "the inner sizes agree");
    let last = |v: &View<'_>| (v.rows.max(1) - 1) * v.row_step + (v.columns.max(1) - 1) * v.column_step;
    assert!(last(&a) < a.numbers.len() && last(&b) < b.numbers.len(), "both factors lie in their slices");
    assert!(out_step >= n && (m.max(1) - 1) * out_step + n <= out.len(), "the product lies in its slice");
    // SAFETY: the three matrices lie in their slices, as asserted above; `out` is borrowed alone, and its rows do
    // not overlap.
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            out.as_mut_ptr(),
            1,
            out_step as isize,
            keep != 0.0,
            a.numbers.as_ptr(),
            a.column_step as isize,
            a.row_step as isize,
            b.numbers.as_ptr(),
            b.column_step as isize,
            b.row_step as isize,
            keep,
            scale,
            false,
            false,
            false,
            Parallelism::None,
        );
    }
}

/// The sum of products, in eight interleaved parts.
#[inline(always)]
pub(crate) fn dot(a: &[f32], b: &[f32]) -> f32 {
    let mut sums = [0.0f32; 8];
    let (a8, b8) = (a.chunks_exact(8), b.chunks_exact(8));
    let rest: f32 = a8.remainder().iter().zip(b8.remainder()).map(|(a, b)| a * b).sum();
    for (a, b) in a8.zip(b8) {
        for i in 0..8 {
            sums[i] += a[i] * b[i];
        }
    }
    sums.iter().sum::<f32>() + rest
}

/// e^x to about 1e-6 in proportion, for x <= 0, by a polynomial that runs on many numbers at once.
#[inline(always)]
pub(crate) fn exp(x: f32) -> f32 {
    const ROUND: f32 = 12_582_912.0; // 1.5 * 2^23: adding it leaves no fraction
    let t = (x * std::f32::consts::LOG2_E).max(-126.0);
    let whole = (t + ROUND) - ROUND;
    let f = t - whole;
    let p = 0.001_339_887_4f32;
    let p = p * f + 0.009_618_437;
    let p = p * f + 0.055_503_324;
    let p = p * f + 0.240_226_46;
    let p = p * f + std::f32::consts::LN_2;
    let p = p * f + 1.0;
    f32::from_bits((((whole as i32) + 127) << 23) as u32) * p
}

/// Turn the first of these numbers into probabilities proportional to e^(scale x); the rest becomes 0.
#[inline(always)]
pub(crate) fn softmax(row: &mut [f32], first: usize, scale: f32) {
    let (row, rest) = row.split_at_mut(first);
    rest.fill(0.0);
    let mut highest = [f32::NEG_INFINITY; 8];
    for part in row.chunks(8) {
        for (highest, x) in highest.iter_mut().zip(part) {
            *highest = if *x > *highest { *x } else { *highest };
        }
    }
    let highest = highest.into_iter().fold(f32::NEG_INFINITY, f32::max);
    for x in row.iter_mut() {
        *x = exp((*x - highest) * scale);
    }
    let mut sums = [0.0f32; 8];
    for part in row.chunks(8) {
        for (sum, x) in sums.iter_mut().zip(part) {
            *sum += x;
        }
    }
    let share = 1.0 / sums.iter().sum::<f32>();
    row.iter_mut().for_each(|x| *x *= share);
}

const SMALL: f32 = 1e-5;

/// What a row is divided by: its root mean square.
#[inline(always)]
fn size(x: &[f32]) -> f32 {
    1.0 / (dot(x, x) / x.len() as f32 + SMALL).sqrt()
}

/// y = x / rms(x), row by row.
#[inline(always)]
pub(crate) fn normalise(x: &[f32], y: &mut [f32], width: usize) {
    for (x, y) in x.chunks_exact(width).zip(y.chunks_exact_mut(width)) {
        let r = size(x);
        y.iter_mut().zip(x).for_each(|(y, x)| *y = x * r);
    }
}

/// dx += J^T dy of [`normalise`], row by row: r (dy - x (x . dy) r^2 / n).
#[inline(always)]
pub(crate) fn normalise_back(x: &[f32], dy: &[f32], dx: &mut [f32], width: usize) {
    let rows = x.chunks_exact(width).zip(dy.chunks_exact(width)).zip(dx.chunks_exact_mut(width));
    for ((x, dy), dx) in rows {
        let r = size(x);
        let along = dot(x, dy) * r * r / width as f32;
        for ((dx, dy), x) in dx.iter_mut().zip(dy).zip(x) {
            *dx += r * (dy - x * along);
        }
    }
}

/// Cosines and sines of rotary positions: `[position][pair]`. The first half of a head is turned by its position, so
/// that it can tell distances; the second half is not, so that it can find equals at any distance.
pub(crate) struct Rotation {
    angles: Vec<(f32, f32)>,
    pairs: usize,
    head: usize,
}

impl Rotation {
    pub(crate) fn new(context: usize, head: usize) -> Self {
        let pairs = head / 4;
        let angle = |position: usize, pair: usize| {
            let turn = position as f64 / 100f64.powf(pair as f64 / pairs as f64);
            (turn.cos() as f32, turn.sin() as f32)
        };
        let angles = (0..context).flat_map(|p| (0..pairs).map(move |i| angle(p, i))).collect();
        Rotation { angles, pairs, head }
    }

    /// Turn each head of a row by its position; `back` turns the other way.
    #[inline(always)]
    pub(crate) fn turn(&self, row: &mut [f32], position: usize, back: bool) {
        let angles = &self.angles[position * self.pairs..(position + 1) * self.pairs];
        for head in row.chunks_exact_mut(self.head) {
            let (low, high) = head.split_at_mut(self.pairs);
            for ((x, y), (cos, sin)) in low.iter_mut().zip(high).zip(angles) {
                let sin = if back { -*sin } else { *sin };
                (*x, *y) = (*x * cos - *y * sin, *x * sin + *y * cos);
            }
        }
    }
}
