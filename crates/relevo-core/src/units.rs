//! Quantities: what is measured at a handoff. Each is checked once, where it enters.

use alloc::string::ToString;
use core::num::NonZeroU32;
use minicbor::{Decode, Encode};

/// A number from outside that cannot be what it is said to be.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
pub enum UnitError {
    /// Not a number, or infinite.
    #[error("{what} is {value}: it must be a finite number")]
    NotFinite {
        /// Which quantity.
        what: &'static str,
        /// What was given.
        value: f64,
    },
    /// Outside of the interval that the quantity allows.
    #[error("{what} is {value}: it must lie in [{min}, {max}]")]
    OutOfRange {
        /// Which quantity.
        what: &'static str,
        /// What was given.
        value: f64,
        /// Smallest value allowed.
        min: f64,
        /// Largest value allowed.
        max: f64,
    },
}

fn finite(what: &'static str, value: f64) -> Result<f64, UnitError> {
    if value.is_finite() { Ok(value) } else { Err(UnitError::NotFinite { what, value }) }
}

/// The duration of an option in primitive steps, never 0 (tau, paper section 2.2). One primitive step is one call
/// of a model, a tool or a remote agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
#[cbor(transparent)]
pub struct Tau(#[n(0)] NonZeroU32);

impl Tau {
    /// One primitive step.
    pub const ONE: Tau = Tau(NonZeroU32::MIN);

    /// A duration of `steps`; `None` for 0.
    pub fn new(steps: u32) -> Option<Self> {
        NonZeroU32::new(steps).map(Tau)
    }

    /// The number of primitive steps.
    pub fn steps(self) -> u32 {
        self.0.get()
    }
}

/// The discount of one primitive step, gamma in [0, 1] (paper, equation 2).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Discount(f64);

impl Discount {
    /// No discounting: for episodic tasks that are certain to end.
    pub const NONE: Discount = Discount(1.0);

    /// A discount; refused outside of [0, 1].
    pub fn new(gamma: f64) -> Result<Self, UnitError> {
        finite("discount", gamma)?;
        if !(0.0..=1.0).contains(&gamma) {
            return Err(UnitError::OutOfRange { what: "discount", value: gamma, min: 0.0, max: 1.0 });
        }
        Ok(Discount(gamma))
    }

    /// gamma.
    pub fn gamma(self) -> f64 {
        self.0
    }

    /// gamma^tau: the effective discount of an option that took `tau` (paper section 2.2).
    pub fn over(self, tau: Tau) -> f64 {
        match tau.steps() {
            1 => self.0,
            n => libm::pow(self.0, f64::from(n)),
        }
    }
}

/// The reward of an option, `R = sum_{k < tau} gamma^k r_k`, in the team's unit of reward (paper, equation 5).
#[derive(Clone, Copy, Debug, Default, PartialEq, PartialOrd, Encode)]
#[cbor(transparent)]
pub struct Return(#[n(0)] f64);

impl Return {
    /// Nothing earned, nothing paid.
    pub const ZERO: Return = Return(0.0);

    /// A reward; refused if it is not finite.
    pub fn new(reward: f64) -> Result<Self, UnitError> {
        finite("reward", reward).map(Return)
    }

    /// The reward as a number.
    pub fn get(self) -> f64 {
        self.0
    }
}

/// The one scalar: the successor's greedy value, `V = max_a Q(o', a)` (paper, equation 4). Always finite.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd, Encode)]
#[cbor(transparent)]
pub struct Value(#[n(0)] f64);

impl Value {
    /// A value; refused if it is not finite.
    pub fn new(value: f64) -> Result<Self, UnitError> {
        finite("value", value).map(Value)
    }

    /// The value as a number.
    pub fn get(self) -> f64 {
        self.0
    }
}

/// How far a judgement may be trusted, in [0, 1]: it scales the step that is made on it, never the value.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd, Encode)]
#[cbor(transparent)]
pub struct Confidence(#[n(0)] f64);

impl Confidence {
    /// Fully.
    pub const FULL: Confidence = Confidence(1.0);

    /// A confidence; refused outside of [0, 1].
    pub fn new(confidence: f64) -> Result<Self, UnitError> {
        finite("confidence", confidence)?;
        match (0.0..=1.0).contains(&confidence) {
            true => Ok(Confidence(confidence)),
            false => Err(UnitError::OutOfRange { what: "confidence", value: confidence, min: 0.0, max: 1.0 }),
        }
    }

    /// The confidence as a number.
    pub fn get(self) -> f64 {
        self.0
    }
}

impl<'b, C> Decode<'b, C> for Confidence {
    fn decode(d: &mut minicbor::Decoder<'b>, _: &mut C) -> Result<Self, minicbor::decode::Error> {
        Confidence::new(d.f64()?).map_err(|e| minicbor::decode::Error::message(e.to_string()))
    }
}

// Read from a ledger or a message, a reward or value is refused like any other that is not finite.
impl<'b, C> Decode<'b, C> for Return {
    fn decode(d: &mut minicbor::Decoder<'b>, _: &mut C) -> Result<Self, minicbor::decode::Error> {
        Return::new(d.f64()?).map_err(|e| minicbor::decode::Error::message(e.to_string()))
    }
}

impl<'b, C> Decode<'b, C> for Value {
    fn decode(d: &mut minicbor::Decoder<'b>, _: &mut C) -> Result<Self, minicbor::decode::Error> {
        Value::new(d.f64()?).map_err(|e| minicbor::decode::Error::message(e.to_string()))
    }
}

/// The interval in which every value of a team must lie, declared once and published to peers. A value off the
/// wire is clamped into it, so that a lying or mistaken successor does bounded harm.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Bounds {
    min: f64,
    max: f64,
}

impl Bounds {
    /// The interval [min, max]; refused if it is empty or not finite.
    pub fn new(min: f64, max: f64) -> Result<Self, UnitError> {
        finite("lower value bound", min)?;
        finite("upper value bound", max)?;
        if min > max {
            return Err(UnitError::OutOfRange { what: "upper value bound", value: max, min, max: f64::MAX });
        }
        Ok(Bounds { min, max })
    }

    /// The smallest value.
    pub fn min(self) -> f64 {
        self.min
    }

    /// The largest value.
    pub fn max(self) -> f64 {
        self.max
    }

    /// `value`, or the nearest bound.
    pub fn clamp(self, value: Value) -> Value {
        Value(value.0.clamp(self.min, self.max))
    }
}

/// What a call, or a whole task, has cost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Encode, Decode, serde::Serialize, serde::Deserialize)]
#[cbor(array)]
#[serde(deny_unknown_fields, default)]
pub struct Cost {
    /// Tokens.
    #[n(0)]
    pub tokens: u64,
    /// Money, in the team's currency; budgets count it to a billionth. Never negative.
    #[n(1)]
    pub money: f64,
    /// Milliseconds.
    #[n(2)]
    pub ms: u64,
}

/// What an operation used up, besides time: counted into the policy graph, never into the reward by itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct Usage {
    /// Tokens of all models called.
    #[n(0)]
    pub tokens: u64,
    /// Attempts that failed (a crash, a timeout, a refusal, an invalid answer).
    #[n(1)]
    pub failures: u32,
}
