//! The `[reward]` section: what counts. [`crate::reward`] makes a number of it.

use serde::{Deserialize, Serialize};

/// What counts. Costs are negative.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RewardSpec {
    /// For a task concluded with full quality; a quality between 0 and 1 earns its share.
    pub success: f64,
    /// For every handoff.
    pub handoff: f64,
    /// For every call of an agent.
    pub call: f64,
    /// For every call that fails, on top.
    pub failure: f64,
    /// For every 1,000 tokens that a call uses.
    pub tokens: f64,
    /// For every unit of the team's currency that a call is charged.
    pub money: f64,
    /// For every second.
    #[serde(skip_serializing_if = "is_zero")]
    pub time: f64,
    /// For every attempt that failed and was made again.
    #[serde(skip_serializing_if = "is_zero")]
    pub retry: f64,
    /// What `tokens`, `money` and `time` are counted in.
    #[serde(skip_serializing_if = "RewardScale::is_absolute")]
    pub scale: RewardScale,
}

/// What costs are counted in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RewardScale {
    /// 1,000 tokens, a unit of money, a second.
    #[default]
    Absolute,
    /// What a task of this team usually costs: the median of its last tasks.
    Median,
}

impl RewardScale {
    fn is_absolute(&self) -> bool {
        *self == RewardScale::Absolute
    }
}

fn is_zero(x: &f64) -> bool {
    *x == 0.0
}

impl Default for RewardSpec {
    fn default() -> Self {
        RewardSpec {
            success: 1.0,
            handoff: 0.0,
            call: 0.0,
            failure: 0.0,
            tokens: 0.0,
            money: 0.0,
            time: 0.0,
            retry: 0.0,
            scale: RewardScale::Absolute,
        }
    }
}
