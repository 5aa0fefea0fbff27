//! Values linear in the features: `Q(o, a) = b_a + w_a . x`, learned by (normalised) least mean squares.
//!
//! For an agent whose situations are too many for a table, and whose features say most of what matters.

use alloc::{vec, vec::Vec};
use core::fmt;
use smallvec::SmallVec;

use super::{FeatureError, QFunction, ShapeError};
use crate::{
    ids::ActionId,
    observation::{Features, Observation},
    snapshot::{Loaded, Reader, Saved, Writer},
    units::UnitError,
};

/// The most parameters an estimator may have (1 GiB of f32, 2 GiB of f64).
pub(super) const PARAMETERS_MAX: usize = 1 << 28;

/// Which features an estimator reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Inputs {
    /// [`Features::Dense`] of this length.
    Dense(usize),
    /// [`Features::Sparse`], hashed into `2^bits` buckets, `bits` in 1..=24.
    ///
    /// Feature `k` of value `x_k` is added as `s(k) x_k` to bucket `h(k)`, where the sign `s(k)` is also hashed:
    /// features that meet in a bucket then cancel as often as they add up, and the inner product of two hashed
    /// vectors is that of the vectors themselves on average over hash functions (Weinberger et al. 2009, "Feature
    /// hashing for large scale multitask learning", lemma 2). The hash function is fixed for ever.
    Hashed {
        /// The base-2 logarithm of the number of buckets.
        bits: u32,
    },
}

impl Inputs {
    /// The number of inputs after hashing.
    pub fn len(self) -> usize {
        match self {
            Inputs::Dense(n) => n,
            Inputs::Hashed { bits } => 1 << bits,
        }
    }

    /// Whether there is no input.
    pub fn is_empty(self) -> bool {
        self.len() == 0
    }

    /// Refuses features of another kind or length, and numbers that are not finite.
    pub fn accepts(self, features: &Features) -> Result<(), FeatureError> {
        match (self, features) {
            (Inputs::Dense(n), Features::Dense(x)) if x.len() == n => {}
            (Inputs::Hashed { .. }, Features::Sparse(_)) => {}
            _ => {
                let (got, length) = match features {
                    Features::None => ("absent", 0),
                    Features::Dense(x) => ("dense", x.len()),
                    Features::Sparse(x) => ("sparse", x.len()),
                    Features::Coarser(x) => ("coarser signatures", x.len()),
                };
                return Err(FeatureError::Shape { expected: self, got, length });
            }
        }
        if features.is_finite() { Ok(()) } else { Err(FeatureError::NotFinite) }
    }
}

impl fmt::Display for Inputs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Inputs::Dense(n) => write!(f, "dense features of length {n}"),
            Inputs::Hashed { .. } => f.write_str("sparse features"),
        }
    }
}

/// How far a unit of error moves the weights.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LmsRule {
    /// `w += step error x / (1 + |x|^2)`, the same for the bias, whose input is 1. The prediction moves by the
    /// fraction `step` of the error exactly, whatever the length of `x`: step 1 moves it fully to the target, and
    /// a step in (0, 2) is stable. A step size therefore means here what it means for a table.
    #[default]
    Normalised,
    /// `w += step error x`: plain stochastic gradient descent, stable for `step < 2 / (1 + |x|^2)`.
    Plain,
}

/// What a [`Linear`] is made of.
#[derive(Clone, Debug, PartialEq)]
pub struct LinearSpec {
    /// The features it reads.
    pub inputs: Inputs,
    /// The number of choices.
    pub width: usize,
    /// The value of every choice before anything was learned.
    pub init: f64,
    /// How far a unit of error moves the weights.
    pub rule: LmsRule,
}

/// `Q(o, a) = b_a + sum_i w_ia x_i`.
#[derive(Clone, Debug)]
pub struct Linear {
    spec: LinearSpec,
    /// Row `i < inputs`: the weights `w_i.` of one input for all choices; the last row: the bias `b`.
    /// Shape [inputs + 1, width].
    weights: Vec<f64>,
}

impl Linear {
    /// An estimator with weights 0 and biases `init`; refused without inputs or choices, if there would be more
    /// than 2^28 parameters, or if `init` is not finite.
    pub fn new(spec: LinearSpec) -> Result<Linear, ShapeError> {
        match spec.inputs {
            Inputs::Dense(n) => within("number of inputs", n as f64, 1.0, PARAMETERS_MAX as f64)?,
            Inputs::Hashed { bits } => within("bits of a feature's hash", f64::from(bits), 1.0, 24.0)?,
        }
        within("number of choices", spec.width as f64, 1.0, PARAMETERS_MAX as f64)?;
        let parameters = (spec.inputs.len() as f64 + 1.0) * spec.width as f64;
        within("number of parameters", parameters, 2.0, PARAMETERS_MAX as f64)?;
        within("initial value", spec.init, f64::MIN, f64::MAX)?;
        let mut weights = vec![0.0; (spec.inputs.len() + 1) * spec.width];
        weights[spec.inputs.len() * spec.width..].fill(spec.init);
        Ok(Linear { spec, weights })
    }

    /// What it is made of.
    pub fn spec(&self) -> &LinearSpec {
        &self.spec
    }

    /// Refuses an observation whose features this estimator cannot read. To be called once for each observation
    /// that enters; [`QFunction::values`] and [`QFunction::update`] then take it for granted.
    pub fn accepts(&self, o: &Observation) -> Result<(), FeatureError> {
        self.spec.inputs.accepts(&o.features)
    }

    /// All weights, of shape [inputs + 1, width]; the last row are the biases.
    pub fn parameters(&self) -> &[f64] {
        &self.weights
    }

    /// Take over the weights of an estimator of the same shape; refused for another length or if a number is not
    /// finite.
    pub fn set_parameters(&mut self, weights: &[f64]) -> Result<(), ShapeError> {
        check_parameters(self.weights.len(), weights.iter().copied())?;
        self.weights.copy_from_slice(weights);
        Ok(())
    }

    pub(crate) fn save(&self, e: &mut Writer) -> Saved {
        e.encode(&self.weights)?;
        Ok(())
    }

    pub(crate) fn load(&mut self, d: &mut Reader<'_>) -> Loaded {
        let weights: Vec<f64> = d.decode()?;
        self.set_parameters(&weights).map_err(minicbor::decode::Error::message)
    }

    fn row(&self, i: usize) -> &[f64] {
        &self.weights[i * self.spec.width..][..self.spec.width]
    }

    /// Calls `visit` with the row and the value of each input that is not 0, the bias last. An input comes more
    /// than once if several features are hashed to it.
    fn for_inputs(&self, o: &Observation, mut visit: impl FnMut(usize, f64)) {
        debug_assert_eq!(self.accepts(o), Ok(()));
        match (self.spec.inputs, &o.features) {
            (Inputs::Dense(n), Features::Dense(x)) => {
                let present = x.iter().take(n).enumerate().filter(|(_, x)| **x != 0.0);
                present.for_each(|(i, x)| visit(i, f64::from(*x)));
            }
            (Inputs::Hashed { bits }, Features::Sparse(x)) => x.iter().for_each(|(k, x)| {
                let (bucket, sign) = bucket(*k, bits);
                visit(bucket, sign * f64::from(*x));
            }),
            _ => {}
        }
        visit(self.spec.inputs.len(), 1.0);
    }
}

impl QFunction for Linear {
    fn width(&self) -> usize {
        self.spec.width
    }

    fn values(&self, o: &Observation, out: &mut [f64]) {
        // Q(o, .) = sum_i x_i w_i. + b, for 16 choices at a time: as many sums stay in registers.
        let (blocks, rest) = out[..self.spec.width].as_chunks_mut::<16>();
        for (n, out) in blocks.iter_mut().enumerate() {
            let mut sums = [0.0; 16];
            self.for_inputs(o, |i, x| {
                let weights = &self.row(i).as_chunks::<16>().0[n];
                sums.iter_mut().zip(weights).for_each(|(q, w)| *q += x * w);
            });
            *out = sums;
        }
        if !rest.is_empty() {
            let first = 16 * blocks.len();
            rest.fill(0.0);
            self.for_inputs(o, |i, x| {
                rest.iter_mut().zip(&self.row(i)[first..]).for_each(|(q, w)| *q += x * w)
            });
        }
    }

    fn update(&mut self, o: &Observation, a: ActionId, target: f64, step: f64) -> f64 {
        debug_assert!(target.is_finite() && step.is_finite());
        let (mut x, mut q) = (SmallVec::<[_; 32]>::new(), 0.0);
        self.for_inputs(o, |i, value| {
            q += value * self.row(i)[a.index()];
            x.push((i, value));
        });
        let error = target - q;
        let scale = match self.spec.rule {
            LmsRule::Plain => step,
            LmsRule::Normalised => {
                // 1 + |x|^2, of what is in each bucket after collisions; dense features are in order.
                if matches!(self.spec.inputs, Inputs::Hashed { .. }) {
                    x.sort_unstable_by_key(|(i, _)| *i);
                }
                let bucket = |same: &[(usize, f64)]| same.iter().map(|(_, x)| x).sum::<f64>();
                step / x.chunk_by(|l, r| l.0 == r.0).map(bucket).map(|x| x * x).sum::<f64>()
            }
        };
        // w_ia += step error x_i / (1 + |x|^2)
        x.iter().for_each(|(i, x)| self.weights[i * self.spec.width + a.index()] += scale * error * x);
        error
    }
}

/// The bucket in 0..2^bits and the sign of a sparse feature: the upper bits and the lowest bit of a bijective mix of
/// its index (the finaliser of SplitMix64, Steele et al. 2014).
fn bucket(index: u32, bits: u32) -> (usize, f64) {
    let mut h = (u64::from(index) + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    h = (h ^ (h >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    h = (h ^ (h >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    h ^= h >> 31;
    ((h >> (64 - bits)) as usize, if h & 1 == 0 { 1.0 } else { -1.0 })
}

/// Refuses a number outside of [min, max].
pub(super) fn within(what: &'static str, value: f64, min: f64, max: f64) -> Result<(), UnitError> {
    if !value.is_finite() {
        return Err(UnitError::NotFinite { what, value });
    }
    if (min..=max).contains(&value) { Ok(()) } else { Err(UnitError::OutOfRange { what, value, min, max }) }
}

/// Refuses parameters that are not `expected` finite numbers.
pub(super) fn check_parameters(
    expected: usize,
    mut parameters: impl ExactSizeIterator<Item = f64>,
) -> Result<(), UnitError> {
    within("number of parameters", parameters.len() as f64, expected as f64, expected as f64)?;
    parameters.try_for_each(|p| within("parameter", p, f64::MIN, f64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{observation::ActionSet, rng::Rng};

    fn linear(inputs: Inputs, rule: LmsRule) -> Linear {
        Linear::new(LinearSpec { inputs, width: 3, init: 2.0, rule }).unwrap()
    }

    fn observation(features: Features) -> Observation {
        Observation { features, legal: ActionSet::all(3), ..Observation::default() }
    }

    fn values(q: &Linear, o: &Observation) -> [f64; 3] {
        let mut out = [0.0; 3];
        q.values(o, &mut out);
        out
    }

    /// Exact to 1e-12, also where features collide (8 in 2 buckets) and where an index is given twice.
    #[test]
    fn a_normalised_step_moves_the_prediction_by_its_fraction() {
        let sparse: Vec<_> = (0..8).map(|k| (k, 0.5 + k as f32)).chain([(3, -1.0)]).collect();
        for (inputs, features) in [
            (Inputs::Dense(4), Features::Dense([1.0, 0.0, -2.0, 0.5].into())),
            (Inputs::Hashed { bits: 1 }, Features::Sparse(sparse.clone().into())),
            (Inputs::Hashed { bits: 20 }, Features::Sparse(sparse.into())),
            (Inputs::Hashed { bits: 4 }, Features::Sparse([].into())),
        ] {
            let (mut q, o) = (linear(inputs, LmsRule::Normalised), observation(features));
            assert_eq!(values(&q, &o), [2.0; 3]);
            assert_eq!(q.update(&o, ActionId(1), 6.0, 0.25), 4.0);
            assert!((values(&q, &o)[1] - 3.0).abs() < 1e-12);
            assert!((q.update(&o, ActionId(1), -5.0, 1.0) + 8.0).abs() < 1e-12);
            assert!((values(&q, &o)[1] + 5.0).abs() < 1e-12);
            assert_eq!((values(&q, &o)[0], values(&q, &o)[2]), (2.0, 2.0));
        }
    }

    #[test]
    fn a_plain_step_follows_the_gradient() {
        let mut q = linear(Inputs::Dense(2), LmsRule::Plain);
        q.update(&observation(Features::Dense([1.0, -3.0].into())), ActionId(2), 3.0, 0.1);
        let moved: Vec<_> = q.parameters().iter().skip(2).step_by(3).copied().collect();
        assert_eq!(moved, [0.1, 0.1 * -3.0, 2.1]);
    }

    /// 20,000 samples without noise of a linear function of 5 features; largest error below 1e-6.
    #[test]
    fn learns_a_linear_function() {
        let (mut q, mut rng) =
            (linear(Inputs::Hashed { bits: 10 }, LmsRule::Normalised), Rng::stream(1, "linear"));
        let mut last = 0.0f64;
        for n in 0..20_000 {
            let x: Vec<_> = (0..5).map(|k| (1000 * k, rng.normal() as f32)).collect();
            let y = x.iter().map(|(k, x)| f64::from(*k) * 1e-3 * f64::from(*x)).sum::<f64>() - 1.0;
            let error = q.update(&observation(Features::Sparse(x.into())), ActionId(0), y, 0.5);
            last = if n < 19_900 { 0.0 } else { last.max(error.abs()) };
        }
        assert!(last < 1e-6, "{last}");
    }

    /// 4096 indices into 64 buckets: the chi-square statistic of the buckets (63 degrees of freedom) and the sum
    /// of the signs lie within 4 standard deviations; nothing is random here.
    #[test]
    fn the_hash_is_even_and_unbiased() {
        let (mut counts, mut signs) = ([0.0; 64], 0.0);
        for k in 0..4096 {
            let (b, s) = bucket(k, 6);
            counts[b] += 1.0;
            signs += s;
        }
        let chi_square: f64 = counts.iter().map(|n: &f64| (n - 64.0) * (n - 64.0) / 64.0).sum();
        assert!((chi_square - 63.0).abs() < 4.0 * 126f64.sqrt(), "{chi_square}");
        assert!(signs.abs() < 4.0 * 64.0, "{signs}");
        assert_eq!([bucket(0, 24), bucket(7, 24)], [(14_819_496, -1.0), (12_944_403, 1.0)]);
    }

    #[test]
    fn refusals() {
        let mut q = linear(Inputs::Dense(2), LmsRule::Plain);
        let text = |q: &Linear, f| alloc::format!("{}", q.accepts(&observation(f)).unwrap_err());
        assert_eq!(q.accepts(&observation(Features::Dense([1.0, 2.0].into()))), Ok(()));
        assert_eq!(
            text(&q, Features::Dense([1.0].into())),
            "the features are dense and of length 1: expected dense features of length 2"
        );
        assert_eq!(
            text(&linear(Inputs::Hashed { bits: 3 }, LmsRule::Plain), Features::None),
            "the features are absent and of length 0: expected sparse features"
        );
        assert_eq!(
            q.accepts(&observation(Features::Dense([1.0, f32::NAN].into()))),
            Err(FeatureError::NotFinite)
        );
        assert!(q.set_parameters(&[0.0; 8]).is_err());
        assert!(q.set_parameters(&[f64::INFINITY; 9]).is_err());
        assert_eq!(q.set_parameters(&[1.0; 9]), Ok(()));
        for (inputs, width) in [
            (Inputs::Dense(0), 1),
            (Inputs::Dense(1), 0),
            (Inputs::Dense(usize::MAX), usize::MAX),
            (Inputs::Hashed { bits: 0 }, 1),
            (Inputs::Hashed { bits: 25 }, 1),
            (Inputs::Hashed { bits: 24 }, 1 << 5),
        ] {
            assert!(Linear::new(LinearSpec { inputs, width, init: 0.0, rule: LmsRule::Plain }).is_err());
        }
    }
}
