//! The `[learner]` section: how the agents of a team learn, in the words of the file, and what the core makes of it.

use relevo_core::{
    learner::{Credit, Estimator, Extensions, PendingDecisions},
    policy::{EpsilonGreedy, PolicySpec, Posterior, Ties, Ucb},
    pools::PooledSpec,
    q::{Inputs, LinearSpec, LmsRule, MlpSpec, Optimiser},
    step::{Schedule, StepRule},
};
use serde::{Deserialize, Serialize};

/// How the agents learn.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LearnerSection {
    /// When an agent with one operation chooses its successor.
    pub decides: Decides,
    /// gamma, per primitive step.
    pub discount: f64,
    /// The interval in which all values lie.
    pub values: [f64; 2],
    /// The value of what was never tried.
    pub initial: f64,
    /// The step rule.
    pub step: StepSection,
    /// The policy.
    pub policy: PolicySection,
    /// The credit assignment.
    pub credit: CreditSection,
    /// The estimator.
    pub estimator: EstimatorSection,
    /// Beyond the paper's one scalar per handoff.
    pub extensions: ExtensionsSection,
    /// Whether choices not yet settled count among the visits of a policy.
    #[serde(skip_serializing_if = "PendingSection::is_ignored")]
    pub pending: PendingSection,
    /// Most situations that an agent keeps apart.
    pub signatures_max: usize,
}

impl Default for LearnerSection {
    fn default() -> Self {
        LearnerSection {
            decides: Decides::After,
            discount: 1.0,
            values: [-10.0, 10.0],
            initial: 0.0,
            step: StepSection::Poly { exponent: 0.7 },
            policy: PolicySection::EpsilonGreedy {
                epsilon: EpsilonSection::Ramp { from: 1.0, to: 0.05, over: 0.5 },
                ties: TiesSection::First,
            },
            credit: CreditSection::ValuePassing,
            estimator: EstimatorSection::Table,
            extensions: ExtensionsSection::default(),
            pending: PendingSection::Ignored,
            signatures_max: 1 << 20,
        }
    }
}

/// When an agent with one operation chooses its successor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Decides {
    /// At activation.
    Before,
    /// After its own operation.
    After,
}

/// The step rule.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "rule", rename_all = "kebab-case", deny_unknown_fields)]
pub enum StepSection {
    /// `(H + 1) / (H + n)`.
    Resc {
        /// H.
        horizon: u32,
    },
    /// `n^-exponent`.
    Poly {
        /// The exponent.
        exponent: f64,
    },
    /// `n^-exponent`, decisions on the tail average.
    PolyAverage {
        /// The exponent.
        exponent: f64,
    },
    /// A constant.
    Constant {
        /// The step.
        step: f64,
    },
    /// `1 / n`; only with trajectory credit.
    Mean,
}

/// The policy.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "rule", rename_all = "kebab-case", deny_unknown_fields)]
pub enum PolicySection {
    /// With probability epsilon a uniform choice, else the best.
    EpsilonGreedy {
        /// epsilon.
        epsilon: EpsilonSection,
        /// How equal values are told apart.
        #[serde(default)]
        ties: TiesSection,
    },
    /// Annealed, reliability-aware upper confidence bounds.
    Ucb {
        /// c at the first visit.
        #[serde(default = "ucb::exploration")]
        exploration: f64,
        /// Smallest c.
        #[serde(default = "ucb::exploration_min")]
        exploration_min: f64,
        /// Visits that halve c.
        #[serde(default = "ucb::half_life")]
        half_life: f64,
        /// Weight of the failure rate.
        #[serde(default = "ucb::reliability")]
        reliability: f64,
        /// Visits that a situation needs before scores count; below them the first admissible choice is taken.
        #[serde(default, skip_serializing_if = "ucb::is_cold")]
        warm_up: u64,
        /// Probability shared evenly by all choices.
        #[serde(default = "ucb::floor")]
        floor: f64,
    },
    /// Posterior sampling, one sample held per episode.
    Posterior {
        /// Variance of one target.
        variance: f64,
        /// Probability shared evenly by all choices.
        #[serde(default = "ucb::floor")]
        floor: f64,
    },
}

mod ucb {
    use relevo_core::policy::Ucb;

    pub(super) fn exploration() -> f64 {
        Ucb::default().exploration
    }
    pub(super) fn exploration_min() -> f64 {
        Ucb::default().exploration_min
    }
    pub(super) fn half_life() -> f64 {
        Ucb::default().half_life
    }
    pub(super) fn reliability() -> f64 {
        Ucb::default().reliability
    }
    pub(super) fn floor() -> f64 {
        Ucb::default().floor
    }
    pub(super) fn is_cold(warm_up: &u64) -> bool {
        *warm_up == 0
    }
}

/// How equal values are told apart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TiesSection {
    /// The first successor in the agent's list.
    #[default]
    First,
    /// At random.
    Random,
}

/// epsilon: a number, a ramp over a share of the run, or a power of the episode.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(
    untagged,
    deny_unknown_fields,
    expecting = "epsilon is a number such as 0.1, a ramp such as { from = 1.0, to = 0.05, over = 0.5 }, or a power such \
                 as { floor = 0.05, scale = 150.0, exponent = 0.5 }"
)]
pub enum EpsilonSection {
    /// Always the same.
    Constant(f64),
    /// In a straight line over this share of the episodes, then constant.
    Ramp {
        /// At the start.
        from: f64,
        /// At the end.
        to: f64,
        /// Share of the episodes, in (0, 1].
        over: f64,
    },
    /// `max(floor, (1 + episode / scale)^-exponent)`.
    Power {
        /// Smallest value.
        floor: f64,
        /// Episodes until the decay sets in.
        scale: f64,
        /// Speed of the decay.
        exponent: f64,
    },
}

/// The credit assignment.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "rule", rename_all = "kebab-case", deny_unknown_fields)]
pub enum CreditSection {
    /// The successor's greedy value at its activation.
    ValuePassing,
    /// The value after the successor has settled its own step.
    Relay {
        /// lambda.
        lambda: f64,
    },
    /// The final reward to every step.
    Trajectory,
}

/// The estimator.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum EstimatorSection {
    /// One cell per situation and choice.
    Table,
    /// The same, shrunk towards what is known of coarser situations and of choices alike.
    Pooled {
        /// The most visits that a prior may stand for.
        #[serde(default = "strength")]
        strength: f64,
    },
    /// Linear in hashed indicators of what is observed.
    Linear {
        /// log2 of the number of buckets.
        bits: u8,
    },
    /// A neural network on hashed indicators of what is observed.
    Mlp {
        /// Input buckets.
        inputs: usize,
        /// Width of each hidden layer.
        hidden: Vec<usize>,
        /// Learning rate of Adam.
        rate: f64,
        /// Samples per step.
        #[serde(default = "one")]
        batch: usize,
        /// Largest distance of the parameters from their start.
        #[serde(default)]
        trust_radius: Option<f64>,
    },
}

fn one() -> usize {
    1
}

fn strength() -> f64 {
    PooledSpec::STRENGTH
}

/// Beyond the paper's one scalar per handoff.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ExtensionsSection {
    /// Keep handoffs as an empirical model, ask receivers again.
    pub local_model: bool,
    /// Send values again that moved by more than this.
    pub refresh: Option<f64>,
    /// Weight of the standard error that comes with values.
    pub standard_error: Option<f64>,
}

/// Whether choices not yet settled count among the visits of a policy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PendingSection {
    /// Tasks decided at the same time take the same choice.
    #[default]
    Ignored,
    /// Tasks decided at the same time do not all try the same choice.
    Counted,
}

impl PendingSection {
    fn is_ignored(&self) -> bool {
        *self == PendingSection::Ignored
    }

    pub(super) fn decisions(self) -> PendingDecisions {
        match self {
            PendingSection::Ignored => PendingDecisions::Ignored,
            PendingSection::Counted => PendingDecisions::Counted,
        }
    }
}

impl StepSection {
    pub(super) fn rule(self) -> StepRule {
        match self {
            StepSection::Resc { horizon } => StepRule::Resc { horizon },
            StepSection::Poly { exponent } => StepRule::Poly { exponent },
            StepSection::PolyAverage { exponent } => StepRule::PolyAverage { exponent },
            StepSection::Constant { step } => StepRule::Constant(step),
            StepSection::Mean => StepRule::Mean,
        }
    }
}

impl PolicySection {
    pub(super) fn policy(self, episodes: u64) -> PolicySpec {
        match self {
            PolicySection::EpsilonGreedy { epsilon, ties } => PolicySpec::EpsilonGreedy(EpsilonGreedy {
                epsilon: match epsilon {
                    EpsilonSection::Constant(epsilon) => Schedule::Constant(epsilon),
                    EpsilonSection::Ramp { from, to, over } => {
                        Schedule::Linear { from, to, over: (episodes as f64 * over) as u64 }
                    }
                    EpsilonSection::Power { floor, scale, exponent } => {
                        Schedule::Power { floor, scale, exponent }
                    }
                },
                ties: match ties {
                    TiesSection::First => Ties::First,
                    TiesSection::Random => Ties::Random,
                },
            }),
            PolicySection::Ucb { exploration, exploration_min, half_life, reliability, warm_up, floor } => {
                let ties = Ties::First;
                PolicySpec::Ucb(Ucb {
                    exploration,
                    exploration_min,
                    half_life,
                    reliability,
                    warm_up,
                    floor,
                    ties,
                })
            }
            PolicySection::Posterior { variance, floor } => {
                PolicySpec::Posterior(Posterior { variance, floor })
            }
        }
    }
}

impl CreditSection {
    pub(super) fn credit(self) -> Credit {
        match self {
            CreditSection::ValuePassing => Credit::ValuePassing,
            CreditSection::Relay { lambda } => Credit::Relay { lambda },
            CreditSection::Trajectory => Credit::Trajectory,
        }
    }
}

impl ExtensionsSection {
    pub(super) fn extensions(self) -> Extensions {
        let ExtensionsSection { local_model, refresh, standard_error } = self;
        Extensions { local_model, refresh, standard_error }
    }
}

impl EstimatorSection {
    pub(super) fn estimator(&self, initial: f64) -> Estimator {
        match self {
            EstimatorSection::Table => Estimator::Table,
            EstimatorSection::Pooled { strength } => {
                Estimator::Pooled(PooledSpec { groups: vec![], strength: *strength })
            }
            EstimatorSection::Linear { bits } => Estimator::Linear(LinearSpec {
                inputs: Inputs::Hashed { bits: u32::from(*bits) },
                width: 0,
                init: initial,
                rule: LmsRule::default(),
            }),
            EstimatorSection::Mlp { inputs, hidden, rate, batch, trust_radius } => Estimator::Mlp(MlpSpec {
                inputs: *inputs,
                hidden: hidden.clone(),
                width: 0,
                optimiser: Optimiser::adam(*rate),
                batch: *batch,
                trust_radius: *trust_radius,
                offset: initial,
            }),
        }
    }
}
