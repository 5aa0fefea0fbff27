//! Action values `Q_i(o, a)`: what an agent expects of each choice. Read by [`crate::policy`], moved by
//! [`crate::learner`].
//!
//! Three estimators obey one contract: the table, which is the policy graph
//! itself ([`crate::graph::PolicyGraph`]), with or without [`crate::pools`], [`Linear`] and [`Mlp`].

mod kernels;
mod linear;
mod mlp;

pub use linear::{Inputs, Linear, LinearSpec, LmsRule};
pub use mlp::{Gradient, Mlp, MlpSpec, Optimiser};

use crate::{ids::ActionId, observation::Observation, units::UnitError};

/// An estimate of the value of each choice in a situation.
pub trait QFunction {
    /// The number of choices (columns).
    fn width(&self) -> usize;

    /// Write the value of every choice, legal or not, into `out[..width]`.
    fn values(&self, o: &Observation, out: &mut [f64]);

    /// Move the value of `a` at `o` towards `target` by the fraction `step`, and return the error
    /// `target - Q(o, a)` as it was before.
    fn update(&mut self, o: &Observation, a: ActionId, target: f64, step: f64) -> f64;
}

/// Features that an estimator cannot read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FeatureError {
    /// Another kind or length.
    #[error("the features are {got} and of length {length}: expected {expected}")]
    Shape {
        /// What the estimator reads.
        expected: Inputs,
        /// Which kind was given: "absent", "dense", "sparse" or "coarser signatures".
        got: &'static str,
        /// How many numbers were given.
        length: usize,
    },
    /// A number that is not finite.
    #[error("a feature is not finite: expected finite numbers")]
    NotFinite,
}

/// An estimator of impossible shape, or parameters that are not its own: of another number, or not finite.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
#[error(transparent)]
pub struct ShapeError(#[from] UnitError);
