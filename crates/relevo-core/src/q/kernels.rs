//! The arithmetic of [`super::Mlp`]: a few loops over f32 slices, each compiled several times for wider
//! instructions and chosen at run time.
//!
//! A layer's matrix is kept input-major: row `i` holds the weights from input `i` to all outputs. The three
//! products of a layer are then sums over, or products with, whole contiguous rows,
//!
//! ```text
//! forward    y = b + sum_i x_i W[i,:]                   add_rows
//! gradient   G[i,:] = sum_s x_si g_s                    add_rows
//! backward   d_si = 1[x_si != 0] (W[i,:] . g_s)         dot_rows
//! ```
//!
//! (`s` counts the samples of a batch, `g_s` is the gradient at the layer's output), and a unit that a ReLU has
//! silenced (`x_si = 0`) costs nothing in any of them.
//!
//! The order of every sum depends on the lengths and on which inputs are 0, and on nothing else. The versions differ
//! only in whether a multiplication and an addition are rounded together: one machine always gives the same bits, and
//! so do any two that both have fused multiply-add (AVX2 or AVX-512), or both have not.

/// Which compiled version of the kernels to run. Only [`Simd::detect`] makes one, so that a version's
/// instructions are known to exist wherever it is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Simd(Level);

/// In ascending order of width; the last two are left out where they can never run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Level {
    /// What the target has without asking (SSE2 on x86-64, NEON on AArch64).
    Baseline,
    #[cfg(all(feature = "std", target_arch = "x86_64"))]
    Avx2,
    #[cfg(all(feature = "std", target_arch = "x86_64"))]
    Avx512,
}

impl Simd {
    /// Every version that this machine can run, in ascending order of width. The standard library asks the
    /// processor once and remembers.
    fn available() -> impl Iterator<Item = Simd> {
        let levels = [
            Some(Level::Baseline),
            #[cfg(all(feature = "std", target_arch = "x86_64"))]
            (std::is_x86_feature_detected!("avx2") && std::is_x86_feature_detected!("fma"))
                .then_some(Level::Avx2),
            #[cfg(all(feature = "std", target_arch = "x86_64"))]
            (std::is_x86_feature_detected!("avx512f") && std::is_x86_feature_detected!("fma"))
                .then_some(Level::Avx512),
        ];
        levels.into_iter().flatten().map(Simd)
    }

    /// The widest version that this machine can run.
    pub(super) fn detect() -> Simd {
        Simd::available().last().unwrap_or(Simd(Level::Baseline))
    }
}

/// The constants of one Adam step (Kingma and Ba 2015, algorithm 1), with the bias corrections folded in.
#[derive(Clone, Copy, Debug)]
pub(super) struct AdamStep {
    /// `rate / (1 - beta1^t)`.
    pub(super) rate: f32,
    /// Decay of the mean gradient.
    pub(super) beta1: f32,
    /// Decay of the mean squared gradient.
    pub(super) beta2: f32,
    /// `1 / (1 - beta2^t)`.
    pub(super) correction: f32,
    /// Added to the divisor.
    pub(super) epsilon: f32,
}

/// Writes a method of [`Simd`] for each generic function: the function itself is the baseline, and the methods'
/// other versions are the same source compiled for other instructions.
macro_rules! versions {
    ($($(#[$doc:meta])* fn $name:ident($($arg:ident: $type:ty),*) $(-> $out:ty)?;)*) => {
        impl Simd {$(
            $(#[$doc])*
            pub(super) fn $name(self, $($arg: $type),*) $(-> $out)? {
                #[cfg(all(feature = "std", target_arch = "x86_64"))]
                {
                    #[target_feature(enable = "avx2,fma")]
                    fn avx2($($arg: $type),*) $(-> $out)? {
                        $name::<true>($($arg),*)
                    }
                    #[target_feature(enable = "avx512f,fma")]
                    fn avx512($($arg: $type),*) $(-> $out)? {
                        $name::<true>($($arg),*)
                    }
                    match self.0 {
                        Level::Baseline => {}
                        // SAFETY: `available` makes this level only where the processor has AVX2 and FMA.
                        Level::Avx2 => return unsafe { avx2($($arg),*) },
                        // SAFETY: `available` makes this level only where the processor has AVX-512F and FMA.
                        Level::Avx512 => return unsafe { avx512($($arg),*) },
                    }
                }
                $name::<false>($($arg),*)
            }
        )*}
    };
}

versions! {
    /// `y += sum_k c_k R[k,:]` over the rows of a row-major matrix of `c.len()` rows as long as `y`, which must
    /// not be empty; rows with `c_k = 0` are not read.
    fn add_rows(y: &mut [f32], c: &[f32], rows: &[f32]);

    /// `out_k = x . R[k,:]` where `mask_k != 0`, else 0, over the rows of a row-major matrix of `mask.len()` rows
    /// as long as `x`, which must not be empty; masked rows are not read.
    fn dot_rows(out: &mut [f32], mask: &[f32], x: &[f32], rows: &[f32]);

    /// `x = max(x, 0)`.
    fn relu(x: &mut [f32]);

    /// `y += a x`: with `a = -rate`, a step of gradient descent.
    fn axpy(y: &mut [f32], a: f32, x: &[f32]);

    /// A step of Adam for parameters `w` with gradient `g`, mean gradient `m` and mean squared gradient `v`, all
    /// of one length.
    fn adam(w: &mut [f32], m: &mut [f32], v: &mut [f32], g: &[f32], step: AdamStep);

    /// `|x - y|^2`, summed in f64.
    fn distance_squared(x: &[f32], y: &[f32]) -> f64;

    /// `x = centre + scale (x - centre)`.
    fn contract(x: &mut [f32], centre: &[f32], scale: f32);
}

// The kernels are plain loops without closures: those would become functions of their own, which the compiler need not
// inline, and which then lack the instructions of the version that calls them.

/// `a b + c`, rounded once where the instructions for it exist.
#[inline(always)]
fn fma<const FUSED: bool>(a: f32, b: f32, c: f32) -> f32 {
    #[cfg(feature = "std")]
    if FUSED {
        return a.mul_add(b, c);
    }
    a * b + c
}

/// The square root; both are correctly rounded.
#[inline(always)]
fn sqrt(x: f32) -> f32 {
    #[cfg(feature = "std")]
    return x.sqrt();
    #[cfg(not(feature = "std"))]
    return libm::sqrtf(x);
}

/// The next four `k >= from` with `c_k != 0`, and how many there were; fewer than four only at the end.
#[inline(always)]
fn next_active(c: &[f32], from: &mut usize) -> ([usize; 4], usize) {
    let (mut active, mut n) = ([0; 4], 0);
    while n < 4 && *from < c.len() {
        // No branch on whether c_k is 0: the processor could not guess it.
        active[n] = *from;
        n += usize::from(c[*from] != 0.0);
        *from += 1;
    }
    (active, n)
}

/// Row `k` of a row-major matrix.
#[inline(always)]
fn row(rows: &[f32], length: usize, k: usize) -> &[f32] {
    &rows[k * length..][..length]
}

#[inline(always)]
fn add_rows<const FUSED: bool>(y: &mut [f32], c: &[f32], rows: &[f32]) {
    let length = y.len();
    let mut from = 0;
    loop {
        let (active, n) = next_active(c, &mut from);
        if n < 4 {
            for k in active.into_iter().take(n) {
                axpy::<FUSED>(y, c[k], row(rows, length, k));
            }
            return;
        }
        let [k0, k1, k2, k3] = active;
        let (c0, r0) = (c[k0], row(rows, length, k0));
        let (c1, r1) = (c[k1], row(rows, length, k1));
        let (c2, r2) = (c[k2], row(rows, length, k2));
        let (c3, r3) = (c[k3], row(rows, length, k3));
        for j in 0..length {
            let two = fma::<FUSED>(c1, r1[j], fma::<FUSED>(c0, r0[j], y[j]));
            y[j] = fma::<FUSED>(c3, r3[j], fma::<FUSED>(c2, r2[j], two));
        }
    }
}

#[inline(always)]
fn dot_rows<const FUSED: bool>(out: &mut [f32], mask: &[f32], x: &[f32], rows: &[f32]) {
    let length = x.len();
    out.fill(0.0);
    let mut from = 0;
    loop {
        let (active, n) = next_active(mask, &mut from);
        if n < 4 {
            for k in active.into_iter().take(n) {
                [out[k]] = dots::<FUSED, 1, 64>(x, [row(rows, length, k)]);
            }
            return;
        }
        let [k0, k1, k2, k3] = active;
        let four =
            [row(rows, length, k0), row(rows, length, k1), row(rows, length, k2), row(rows, length, k3)];
        [out[k0], out[k1], out[k2], out[k3]] = dots::<FUSED, 4, 16>(x, four);
    }
}

/// `x . r` for each of `K` rows at once. Each sum is kept in `LANES` parts, added pairwise at the end; `K LANES`
/// is what fills the registers and hides the latency of an addition.
#[inline(always)]
fn dots<const FUSED: bool, const K: usize, const LANES: usize>(x: &[f32], rows: [&[f32]; K]) -> [f32; K] {
    let mut sums = [[0.0; LANES]; K];
    let (chunks, rest) = x.as_chunks::<LANES>();
    for (i, x) in chunks.iter().enumerate() {
        for k in 0..K {
            sums[k] = fma_lanes::<FUSED, LANES>(x, &rows[k].as_chunks().0[i], sums[k]);
        }
    }
    if !rest.is_empty() {
        let x = padded(rest);
        for k in 0..K {
            sums[k] = fma_lanes::<FUSED, LANES>(&x, &padded(rows[k].as_chunks::<LANES>().1), sums[k]);
        }
    }
    let mut products = [0.0; K];
    for k in 0..K {
        products[k] = sum_lanes(sums[k]);
    }
    products
}

/// `a b + c`, lane by lane.
#[inline(always)]
fn fma_lanes<const FUSED: bool, const LANES: usize>(
    a: &[f32; LANES],
    b: &[f32; LANES],
    mut c: [f32; LANES],
) -> [f32; LANES] {
    for lane in 0..LANES {
        c[lane] = fma::<FUSED>(a[lane], b[lane], c[lane]);
    }
    c
}

/// The last, partial chunk of a vector with zeros behind it. (To add it to only some lanes of a sum would keep the sum
/// out of the registers.)
#[inline(always)]
fn padded<const LANES: usize>(rest: &[f32]) -> [f32; LANES] {
    let mut lanes = [0.0; LANES];
    lanes[..rest.len()].copy_from_slice(rest);
    lanes
}

/// The sum of all lanes, the second half added onto the first until one is left.
#[inline(always)]
fn sum_lanes<T: Copy + core::ops::Add<Output = T>, const LANES: usize>(mut lanes: [T; LANES]) -> T {
    let mut half = LANES / 2;
    while half > 0 {
        for lane in 0..half {
            lanes[lane] = lanes[lane] + lanes[lane + half];
        }
        half /= 2;
    }
    lanes[0]
}

#[inline(always)]
fn relu<const FUSED: bool>(x: &mut [f32]) {
    for x in x {
        *x = x.max(0.0);
    }
}

#[inline(always)]
fn axpy<const FUSED: bool>(y: &mut [f32], a: f32, x: &[f32]) {
    for (y, x) in y.iter_mut().zip(x) {
        *y = fma::<FUSED>(a, *x, *y);
    }
}

#[inline(always)]
fn adam<const FUSED: bool>(w: &mut [f32], m: &mut [f32], v: &mut [f32], g: &[f32], step: AdamStep) {
    let AdamStep { rate, beta1, beta2, correction, epsilon } = step;
    for (((w, m), v), g) in w.iter_mut().zip(m).zip(v).zip(g) {
        // m = beta1 m + (1 - beta1) g,  v = beta2 v + (1 - beta2) g^2
        *m = normal(fma::<FUSED>(beta1, *m, (1.0 - beta1) * g));
        *v = normal(fma::<FUSED>(beta2, *v, (1.0 - beta2) * g * g));
        // w = w - rate (m / (1 - beta1^t)) / (sqrt(v / (1 - beta2^t)) + epsilon)
        *w -= rate * *m / (sqrt(*v * correction) + epsilon);
    }
}

/// `x`, or 0 where it is subnormal: the moments of a silent unit would otherwise decay into subnormal numbers and
/// stay there, and arithmetic with those is many times slower on some processors.
#[inline(always)]
fn normal(x: f32) -> f32 {
    if x.abs() < f32::MIN_POSITIVE { 0.0 } else { x }
}

#[inline(always)]
fn distance_squared<const FUSED: bool>(x: &[f32], y: &[f32]) -> f64 {
    let mut sums = [0.0; 16];
    let ((x, x_rest), (y, y_rest)) = (x.as_chunks(), y.as_chunks());
    for (x, y) in x.iter().zip(y) {
        add_squares(&mut sums, x, y);
    }
    add_squares(&mut sums, &padded(x_rest), &padded(y_rest));
    sum_lanes(sums)
}

#[inline(always)]
fn add_squares(sums: &mut [f64; 16], x: &[f32; 16], y: &[f32; 16]) {
    for lane in 0..16 {
        let d = f64::from(x[lane] - y[lane]);
        sums[lane] += d * d;
    }
}

#[inline(always)]
fn contract<const FUSED: bool>(x: &mut [f32], centre: &[f32], scale: f32) {
    for (x, c) in x.iter_mut().zip(centre) {
        *x = fma::<FUSED>(scale, *x - c, *c);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Rng;
    use alloc::{vec, vec::Vec};

    const SIZES: [usize; 8] = [1, 3, 7, 8, 17, 64, 129, 512];

    fn normals(rng: &mut Rng, n: usize) -> Vec<f32> {
        (0..n).map(|_| rng.normal() as f32).collect()
    }

    /// About a third are 0.
    fn sparse(rng: &mut Rng, n: usize) -> Vec<f32> {
        (0..n).map(|_| if rng.below(3) == 0 { 0.0 } else { rng.normal() as f32 }).collect()
    }

    /// `tolerance` is relative to the size of the terms that were added up.
    #[track_caller]
    fn close(got: f32, want: f64, size: f64, tolerance: f64) {
        assert!((f64::from(got) - want).abs() <= tolerance * (1.0 + size), "{got} instead of {want}");
    }

    fn each_version_and_size(mut check: impl FnMut(Simd, &mut Rng, usize, usize)) {
        for simd in Simd::available() {
            let mut rng = Rng::stream(1, "kernels");
            for n in SIZES {
                for k in [1, 2, 4, 5, 7, 32] {
                    check(simd, &mut rng, n, k);
                }
            }
        }
    }

    /// Against naive sums in f64; tolerance 1e-6 of the sum of absolute terms.
    #[test]
    fn sums_of_and_products_with_rows() {
        each_version_and_size(|simd, rng, n, k| {
            let (x, y, c, rows) = (normals(rng, n), normals(rng, n), sparse(rng, k), normals(rng, n * k));
            let mut sum = y.clone();
            simd.add_rows(&mut sum, &c, &rows);
            for j in 0..n {
                let terms = (0..k).map(|i| f64::from(c[i]) * f64::from(rows[i * n + j]));
                let (want, size) = terms.fold((0.0, 0.0), |(s, a), t| (s + t, a + t.abs()));
                close(sum[j], f64::from(y[j]) + want, size, 1e-6);
            }
            let mut out = vec![f32::NAN; k];
            simd.dot_rows(&mut out, &c, &x, &rows);
            for i in 0..k {
                let terms = (0..n).map(|j| f64::from(x[j]) * f64::from(rows[i * n + j]));
                let (want, size) = terms.fold((0.0, 0.0), |(s, a), t| (s + t, a + t.abs()));
                close(out[i], if c[i] == 0.0 { 0.0 } else { want }, size, 1e-6);
            }
        });
    }

    /// What the module says of the bits.
    #[test]
    fn versions_with_fused_multiply_add_agree_to_the_bit() {
        let mut seen = [const { Vec::new() }; 48];
        let mut case = 0;
        each_version_and_size(|simd, rng, n, k| {
            let (mut y, c, rows) = (normals(rng, n), sparse(rng, k), normals(rng, n * k));
            let (mut m, mut v, mut out) = (normals(rng, n), vec![1.0; n], vec![0.0; k]);
            let step = AdamStep { rate: 0.1, beta1: 0.9, beta2: 0.99, correction: 1.5, epsilon: 1e-8 };
            simd.add_rows(&mut y, &c, &rows);
            simd.dot_rows(&mut out, &c, &y, &rows);
            simd.adam(&mut y, &mut m, &mut v, &rows[..n], step);
            simd.axpy(&mut y, 0.3, &m);
            simd.contract(&mut y, &v, 0.7);
            let distance = simd.distance_squared(&y, &v).to_bits();
            let bits: Vec<_> = [y, m, v, out].concat().into_iter().map(f32::to_bits).collect();
            if simd.0 != Level::Baseline {
                let first: &mut Vec<_> = &mut seen[case % 48];
                first.is_empty().then(|| *first = vec![(bits.clone(), distance)]);
                assert_eq!(first[0], (bits, distance));
            }
            case += 1;
        });
    }

    /// Against naive loops in f64; tolerance 1e-6.
    #[test]
    fn elementwise_loops_and_distances() {
        each_version_and_size(|simd, rng, n, _| {
            let (x, y, a) = (normals(rng, n), normals(rng, n), rng.normal() as f32);
            let apply = |f: &dyn Fn(&mut [f32])| {
                let mut x = x.clone();
                f(&mut x);
                x
            };
            let positive = apply(&|x| simd.relu(x));
            let sum = apply(&|x| simd.axpy(x, a, &y));
            let nearer = apply(&|x| simd.contract(x, &y, 0.25));
            let mut squares = 0.0;
            for j in 0..n {
                assert_eq!(positive[j], if x[j] > 0.0 { x[j] } else { 0.0 });
                let (a, x, y) = (f64::from(a), f64::from(x[j]), f64::from(y[j]));
                close(sum[j], x + a * y, (a * y).abs(), 1e-6);
                close(nearer[j], 0.25 * x + 0.75 * y, 0.0, 1e-6);
                squares += (x - y) * (x - y);
            }
            assert!((simd.distance_squared(&x, &y) - squares).abs() <= 1e-6 * squares);
        });
    }

    /// Three steps against the published algorithm in f64; tolerance 1e-6.
    #[test]
    fn adam_is_the_published_algorithm() {
        each_version_and_size(|simd, rng, n, _| {
            let (rate, beta1, beta2, epsilon) = (0.01, 0.9f64, 0.999f64, 1e-8);
            let mut w = normals(rng, n);
            let (mut m, mut v) = (vec![0.0; n], vec![0.0; n]);
            let mut naive: Vec<_> = w.iter().map(|w| (f64::from(*w), 0.0, 0.0)).collect();
            for t in 1..=3 {
                let g = sparse(rng, n);
                let (left1, left2) = (1.0 - beta1.powi(t), 1.0 - beta2.powi(t));
                for ((w, m, v), g) in naive.iter_mut().zip(&g) {
                    let g = f64::from(*g);
                    *m = beta1 * *m + (1.0 - beta1) * g;
                    *v = beta2 * *v + (1.0 - beta2) * g * g;
                    *w -= rate * (*m / left1) / ((*v / left2).sqrt() + epsilon);
                }
                let step = AdamStep {
                    rate: (rate / left1) as f32,
                    beta1: beta1 as f32,
                    beta2: beta2 as f32,
                    correction: (1.0 / left2) as f32,
                    epsilon: epsilon as f32,
                };
                simd.adam(&mut w, &mut m, &mut v, &g, step);
            }
            w.iter().zip(&naive).for_each(|(w, (naive, ..))| close(*w, *naive, naive.abs(), 1e-6));
        });
    }

    /// 0.9^900 is subnormal.
    #[test]
    fn moments_do_not_become_subnormal() {
        let step = AdamStep { rate: 0.1, beta1: 0.9, beta2: 0.9, correction: 1.0, epsilon: 1e-8 };
        for simd in Simd::available() {
            let (mut w, mut m, mut v) = ([1.0; 17], [1.0; 17], [1.0; 17]);
            (0..900).for_each(|_| simd.adam(&mut w, &mut m, &mut v, &[0.0; 17], step));
            assert_eq!((m, v), ([0.0; 17], [0.0; 17]));
        }
    }
}
