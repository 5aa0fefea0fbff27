//! What one arm spends to become good, as a share of what another one spends: paired by seed.

use serde::Serialize;

use super::{PLATEAU_SHARE, Run, Sample, statistics::student};

/// The tokens that `cold` takes to reach its plateau, divided by those that `parity` takes to reach the same.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TokenRatio {
    /// The reward per task that has to be reached in an epoch: the plateau less 5%.
    pub level: f64,
    /// The geometric mean over seeds.
    pub ratio: f64,
    /// Its 95% interval over seeds, by Student's t on logarithms; absent with one seed.
    pub interval: Option<[f64; 2]>,
    /// Seeds.
    pub seeds: usize,
    /// With how many of them `parity` reached it. With the rest all that it spent counts, which makes the ratio a bound.
    pub reached_by_parity: usize,
}

impl TokenRatio {
    /// The ratio of two arms with the same seeds in the same order; none where a seed of `cold` never reaches the level, or
    /// nothing was spent.
    pub(super) fn new(cold: &[&Run], other: &[&Run], epoch_tasks: u64, plateau: f64) -> Option<Self> {
        let level = plateau - PLATEAU_SHARE * plateau.abs();
        let (mut logs, mut reached_by_parity) = (vec![], 0);
        for (cold, other) in cold.iter().zip(other) {
            let until = |run: &Run| tokens_until(&run.lessons, epoch_tasks, level);
            let all: u64 = other.lessons.iter().map(|s| s.tokens).sum();
            let spent = until(other);
            reached_by_parity += usize::from(spent.is_some());
            let ratio = until(cold)? as f64 / spent.unwrap_or(all) as f64;
            logs.push(Some(ratio.ln()).filter(|log| log.is_finite())?);
        }
        let n = logs.len() as f64;
        let mean = logs.iter().sum::<f64>() / n;
        let interval = (logs.len() > 1).then(|| {
            let squares: f64 = logs.iter().map(|x| (x - mean) * (x - mean)).sum();
            // h = t_{S-1} s / sqrt S
            let half = student(logs.len() - 1) * (squares / (n - 1.0) / n).sqrt();
            [mean - half, mean + half].map(f64::exp)
        });
        (n > 0.0).then_some(TokenRatio {
            level,
            ratio: mean.exp(),
            interval,
            seeds: logs.len(),
            reached_by_parity,
        })
    }
}

/// The tokens spent until the end of the first epoch whose mean reward is at the level.
fn tokens_until(lessons: &[Sample], epoch_tasks: u64, level: f64) -> Option<u64> {
    let epoch = epoch_tasks.max(1) as usize;
    let mean = |tasks: &[Sample]| tasks.iter().map(|s| s.reward).sum::<f64>() / tasks.len() as f64;
    let at = lessons.chunks_exact(epoch).position(|tasks| mean(tasks) >= level)?;
    Some(lessons[..(at + 1) * epoch].iter().map(|s| s.tokens).sum())
}
