//! Which of several independent Gaussians is the largest: the probabilities that [`crate::policy::Posterior`] records.

use core::f64::consts::FRAC_1_SQRT_2;

use smallvec::SmallVec;

use crate::policy::Numbers;

/// Deviations from its mean beyond which a Gaussian is taken to have nothing; beyond are 3e-6 on either side.
const REACH: f64 = 4.5;
/// The nodes of Gauss and Legendre on [0, 1]; each weighs a half.
const NODES: [f64; 2] = [0.211_324_865_405_187_1, 0.788_675_134_594_812_9];
/// The quadrature ends where the largest lies below with less than this probability.
const REST: f64 = 1e-4;

/// A Gaussian, and its place among those asked for.
struct Arm {
    mean: f64,
    deviation: f64,
    upper: f64,
    place: usize,
}

/// The probability of each of several independent Gaussians `(mean, deviation)` to be the largest, correct to 5e-4:
/// `P_a = integral of F(x) phi_a(x) / Phi_a(x) dx`, where `F = prod_b Phi_b` is the distribution of the largest.
///
/// What can be the largest reaches above every lower end, so the narrow ones all lie together at the bottom of what
/// matters. The quadrature therefore comes from above, in cells as wide as the least deviation met so far.
pub(crate) fn probability_of_largest(gaussians: &[(f64, f64)]) -> Numbers {
    let lower = |(mean, deviation): &(f64, f64)| mean - REACH * deviation;
    let low = gaussians.iter().map(lower).fold(f64::NEG_INFINITY, f64::max);
    let reaching = |(place, (mean, deviation)): (usize, &(f64, f64))| {
        let upper = mean + REACH * deviation;
        (upper >= low).then_some(Arm { mean: *mean, deviation: *deviation, upper, place })
    };
    let mut arms: SmallVec<[Arm; 16]> = gaussians.iter().enumerate().filter_map(reaching).collect();
    let mut p = Numbers::from_elem(0.0, gaussians.len());
    if let [only] = &arms[..] {
        p[only.place] = 1.0;
        return p;
    }
    // Only equals have an arbitrary order: no result depends on the order of the arguments.
    arms.sort_unstable_by(|a, b| b.upper.total_cmp(&a.upper).then(a.deviation.total_cmp(&b.deviation)));
    let mean: Numbers = arms.iter().map(|a| a.mean).collect();
    let scale: Numbers = arms.iter().map(|a| FRAC_1_SQRT_2 / a.deviation).collect();
    let mut won = Numbers::from_elem(0.0, arms.len());
    let (mut cdf, mut hazard) = (won.clone(), won.clone());

    let (mut x, mut met, mut finest, mut below) =
        (arms.first().map_or(low, |a| a.upper), 0, f64::INFINITY, 1.0);
    while below > REST {
        while let Some(arm) = arms.get(met).filter(|a| a.upper > x - finest.min(a.deviation)) {
            finest = finest.min(arm.deviation);
            met += 1;
        }
        // A finer one starts a cell of its own.
        let end = arms.get(met).map_or(x - finest, |a| a.upper.max(x - finest));
        let width = x - end;
        if !(width > 0.0 && width < f64::INFINITY) {
            // A deviation vanishes in the rounding of its mean: what is left goes to the first that lies above all.
            if let Some(place) = gaussians.iter().position(|g| lower(g) == low) {
                p[place] = (1.0 - won.iter().sum::<f64>()).max(0.0);
            }
            break;
        }
        for node in NODES {
            let at = x - node * width;
            let arms = mean[..met].iter().zip(&scale[..met]);
            for ((cdf, hazard), (mean, scale)) in cdf.iter_mut().zip(&mut hazard).zip(arms) {
                (*cdf, *hazard) = normal((at - mean) * scale);
                *hazard *= scale;
            }
            below = cdf[..met].iter().product();
            let weight = 0.5 * width * below;
            won.iter_mut().zip(&hazard[..met]).for_each(|(won, hazard)| *won += weight * hazard);
        }
        x = end;
    }
    for (arm, won) in arms.iter().zip(&won) {
        p[arm.place] += won;
    }
    let sum: f64 = p.iter().sum();
    p.iter_mut().for_each(|p| *p /= sum);
    p
}

/// `Phi(x sqrt 2)` and the derivative of its logarithm, by Abramowitz and Stegun 7.1.28 (error of `Phi` below 2e-7):
/// `erf(x) = 1 - (1 + a_1 x + ... + a_6 x^6)^-16` for x >= 0.
///
/// Only sums, products and quotients: the same on every machine, and several at a time where it can do so.
fn normal(x: f64) -> (f64, f64) {
    const A: [f64; 6] = [0.0705230784, 0.0422820123, 0.0092705272, 0.0001520143, 0.0002765672, 0.0000430638];
    const D: [f64; 6] = [16.0 * A[0], 32.0 * A[1], 48.0 * A[2], 64.0 * A[3], 80.0 * A[4], 96.0 * A[5]];
    let y = x.abs();
    let root = 1.0 / (1.0 + y * (A[0] + y * (A[1] + y * (A[2] + y * (A[3] + y * (A[4] + y * A[5]))))));
    let slope = D[0] + y * (D[1] + y * (D[2] + y * (D[3] + y * (D[4] + y * D[5]))));
    let fourth = (root * root) * (root * root);
    let tail = 0.5 * (fourth * fourth) * (fourth * fourth);
    let cdf = if x < 0.0 { tail } else { 1.0 - tail };
    (cdf, tail * root * slope / cdf)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_normal_distribution_is_that_of_erfc() {
        for i in -600..=600 {
            let x = f64::from(i) / 150.0;
            let (cdf, hazard) = normal(x);
            let exact = 0.5 * libm::erfc(-x);
            let density = libm::exp(-x * x) / libm::sqrt(core::f64::consts::PI);
            assert!((cdf - exact).abs() < 2e-7, "{x}: {cdf} for {exact}");
            assert!((cdf * hazard - density).abs() < 1e-5, "{x}: {} for {density}", cdf * hazard);
        }
    }
}
