//! The terms of Theorem 1, estimated from what one agent logs of its own handoffs: where it was (o), what it chose (u), the
//! target (y) that came of it, when, and what finer state (x) it privately knew.

use std::collections::BTreeMap;

/// What an agent saw, and what it chose.
pub type Cell = (usize, usize);

/// Count, sum and sum of squares.
#[derive(Clone, Copy, Default)]
struct Sums {
    n: f64,
    sum: f64,
    squares: f64,
}

impl Sums {
    fn add(&mut self, x: f64) {
        *self = self.with(&Sums { n: 1.0, sum: x, squares: x * x });
    }

    fn with(self, other: &Sums) -> Sums {
        Sums { n: self.n + other.n, sum: self.sum + other.sum, squares: self.squares + other.squares }
    }

    fn mean(&self) -> f64 {
        self.sum / self.n
    }

    /// `sum (x - mean)^2`.
    fn scatter(&self) -> f64 {
        (self.squares - self.sum * self.sum / self.n).max(0.0)
    }
}

/// Term of approximation: `E [(T Q - Q)^2]` over the visits, from errors `y - Q(o, u)` that Q was not fitted to. The products of
/// two different errors of a cell have the square of its mean for expectation, whatever the noise:
///
/// ```text
/// b2(o, u) = ((sum e)^2 - sum e^2) / (n (n - 1))
/// ```
///
/// Cells visited once are left out. NaN if there is no other.
pub fn squared_bellman_error(errors: impl IntoIterator<Item = (Cell, f64)>) -> f64 {
    let mut cells: BTreeMap<Cell, Sums> = BTreeMap::new();
    errors.into_iter().for_each(|(cell, e)| cells.entry(cell).or_default().add(e));
    let of = |s: &Sums| (s.n, (s.sum * s.sum - s.squares) / (s.n * (s.n - 1.0)));
    weighted_mean(cells.values().filter(|s| s.n > 1.0).map(of))
}

/// Term of the interface (AIS): the variance between finer states x within a cell, of whatever is logged with it, from a
/// one-way analysis of variance; groups g of `n_g` of a cell's n samples:
///
/// ```text
/// sum_g n_g / n (ybar_g - ybar)^2 - sum_g (1 - n_g / n) s2 / n,        s2 = sum (y - ybar_g)^2 / (n - groups)
/// ```
///
/// It is unbiased, so it may be below 0 where x tells nothing. An x that is coarser than the whole state gives a lower
/// bound. Cells whose groups have one sample each are left out. NaN if there is no other.
pub fn hidden_variance(samples: impl IntoIterator<Item = (Cell, usize, f64)>) -> f64 {
    let mut cells: BTreeMap<Cell, BTreeMap<usize, Sums>> = BTreeMap::new();
    for (cell, x, y) in samples {
        cells.entry(cell).or_default().entry(x).or_default().add(y);
    }
    let of = |groups: &BTreeMap<usize, Sums>| {
        let all = groups.values().fold(Sums::default(), Sums::with);
        let freedom = all.n - groups.len() as f64;
        let within = groups.values().map(Sums::scatter).sum::<f64>() / freedom;
        let between = groups.values().map(|g| {
            let share = g.n / all.n;
            share * (g.mean() - all.mean()).powi(2) - (1.0 - share) * within / all.n
        });
        (freedom > 0.0).then(|| (all.n, between.sum()))
    };
    weighted_mean(cells.values().filter_map(of))
}

/// Term of mixing: the relaxation time in handoffs, from an agent's own visits, each with its clock and a phase in turns. With
/// rho_1 the autocorrelation of `(cos, sin)(2 pi phase)` from one visit to the next, and g handoffs between them in the
/// mean,
///
/// ```text
/// t_rel = -g / ln |rho_1|
/// ```
///
/// `None` where rho_1 is within two standard errors of 0: all that is known then is that t_rel is below g.
pub fn relaxation_time(visits: &[(u64, f64)]) -> Option<f64> {
    let features = [f64::cos, f64::sin].map(|f| {
        let xs: Vec<f64> = visits.iter().map(|(_, phase)| f(core::f64::consts::TAU * phase)).collect();
        let mean = xs.iter().sum::<f64>() / xs.len() as f64;
        xs.into_iter().map(|x| x - mean).collect::<Vec<_>>()
    });
    let lagged: f64 = features.iter().flat_map(|x| x.windows(2)).map(|w| w[0] * w[1]).sum();
    let squares: f64 = features.iter().flatten().map(|x| x * x).sum();
    let rho = (lagged / squares).abs();
    let intervals = visits.len().checked_sub(1).filter(|n| *n > 0)? as f64;
    let gap = (visits[visits.len() - 1].0 - visits[0].0) as f64 / intervals;
    (rho > 2.0 / intervals.sqrt()).then(|| -gap / rho.ln())
}

/// Of pairs of a weight and a value.
fn weighted_mean(pairs: impl Iterator<Item = (f64, f64)>) -> f64 {
    let (weights, sum) = pairs.fold((0.0, 0.0), |(weights, sum), (w, x)| (weights + w, sum + w * x));
    sum / weights
}

#[cfg(test)]
mod tests {
    use relevo_core::Rng;

    use super::*;

    #[test]
    fn two_errors_give_their_product() {
        assert_eq!(squared_bellman_error([((0, 0), 1.0), ((0, 0), 3.0), ((1, 0), 9.0)]), 3.0);
        assert!(squared_bellman_error([((0, 0), 1.0)]).is_nan());
    }

    /// Cells with biases 1/2 and 0, noise 1, 20,000 samples each: 1/8 within 5 standard errors of .0036.
    #[test]
    fn noise_does_not_enter_the_bellman_error() {
        let mut rng = Rng::stream(1, "errors");
        let errors = (0..40_000).map(|i| ((i % 2, 0), 0.5 * (i % 2) as f64 + rng.normal()));
        assert!((squared_bellman_error(errors) - 0.125).abs() < 0.018);
    }

    /// Groups around 1 and -1, 3/4 and 1/4 of a cell: variance 3/4. With noise 1 and 40,000 samples, within 5 standard
    /// errors of .0087; x drawn without regard to y gives 0, within 5 of .00004.
    #[test]
    fn hidden_variance_is_that_between_groups() {
        let sample = |i: usize, noise: f64| ((0, 0), i % 4 / 3, 1.0 - 2.0 * (i % 4 / 3) as f64 + noise);
        assert!((hidden_variance((0..8).map(|i| sample(i, 0.0))) - 0.75).abs() < 1e-12);
        let mut rng = Rng::stream(2, "samples");
        let noisy: Vec<_> = (0..40_000).map(|i| sample(i, rng.normal())).collect();
        assert!((hidden_variance(noisy) - 0.75).abs() < 0.044);
        let unrelated: Vec<_> = (0..40_000).map(|i| ((0, 0), i % 2, rng.normal())).collect();
        assert!(hidden_variance(unrelated).abs() < 2e-4);
    }

    /// A phase that turns over with probability .1 at each visit, every 4 handoffs: rho_1 = .8, t_rel = -4 / ln .8 = 17.9.
    /// With 40,000 visits the standard error of rho_1 is .003, of t_rel .3; tolerance 5 of them.
    #[test]
    fn a_telegraph_has_its_relaxation_time() {
        let mut rng = Rng::stream(3, "telegraph");
        let mut phase = 0.0;
        let mut visit = |chance: f64, t: u64| {
            phase = if rng.unit() < chance { 0.5 - phase } else { phase };
            (4 * t, phase)
        };
        let slow: Vec<_> = (0..40_000).map(|t| visit(0.1, t)).collect();
        let measured = relaxation_time(&slow).expect("it is correlated");
        assert!((measured + 4.0 / 0.8_f64.ln()).abs() < 1.5, "{measured}");
        let (forgetful, short) = ((0..400).map(|t| visit(0.5, t)).collect::<Vec<_>>(), [(0, 0.0)]);
        assert_eq!((relaxation_time(&forgetful), relaxation_time(&short)), (None, None));
    }
}
