//! Random variates that the environments are generated from.

use relevo_core::Rng;

/// Gamma with this shape and scale 1 (Marsaglia and Tsang, 2000; below shape 1 by their boost).
pub fn gamma(shape: f64, rng: &mut Rng) -> f64 {
    if shape < 1.0 {
        // Gamma(a) = Gamma(a + 1) U^(1/a)
        let boosted = gamma(shape + 1.0, rng);
        return boosted * (1.0 - rng.unit()).powf(1.0 / shape);
    }
    let d = shape - 1.0 / 3.0;
    let c = 1.0 / (9.0 * d).sqrt();
    loop {
        let x = rng.normal();
        let v = (1.0 + c * x).powi(3);
        if v > 0.0 && (1.0 - rng.unit()).ln() < 0.5 * x * x + d - d * v + d * v.ln() {
            return d * v;
        }
    }
}

/// A distribution on `n` outcomes, symmetric Dirichlet.
pub fn dirichlet(concentration: f64, n: usize, rng: &mut Rng) -> Vec<f64> {
    let weights: Vec<f64> = (0..n).map(|_| gamma(concentration, rng)).collect();
    let sum: f64 = weights.iter().sum();
    weights.iter().map(|w| w / sum).collect()
}

/// Beta.
pub fn beta(a: f64, b: f64, rng: &mut Rng) -> f64 {
    let (x, y) = (gamma(a, rng), gamma(b, rng));
    x / (x + y)
}

/// An outcome of a distribution.
pub fn outcome(distribution: &[f64], rng: &mut Rng) -> usize {
    let mut rest = rng.unit();
    for (i, p) in distribution.iter().enumerate() {
        if rest < *p {
            return i;
        }
        rest -= p;
    }
    distribution.len() - 1
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 100,000 draws a shape: mean and variance of Gamma(a) are both a; within 6 standard errors (false alarm below
    /// 1e-7 a check; the seed is fixed).
    #[test]
    fn gamma_has_its_moments() {
        let mut rng = Rng::stream(1, "gamma");
        for shape in [0.3, 0.6, 1.0, 4.0] {
            let n = 100_000;
            let draws: Vec<f64> = (0..n).map(|_| gamma(shape, &mut rng)).collect();
            let mean = draws.iter().sum::<f64>() / f64::from(n);
            let variance = draws.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / f64::from(n);
            let n = f64::from(n);
            assert!((mean - shape).abs() < 6.0 * (shape / n).sqrt(), "{shape}: mean {mean}");
            // The variance of the sample variance is about (mu4 - var^2) / n, with mu4 = 3 a^2 + 6 a.
            let error = ((2.0 * shape * shape + 6.0 * shape) / n).sqrt();
            assert!((variance - shape).abs() < 6.0 * error, "{shape}: variance {variance}");
        }
    }
}
