//! What one arm spends to become good, as a share of what another one spends: paired by seed.

use serde::Serialize;

use super::{PLATEAU_SHARE, Run, Sample, statistics::student};

/// The tokens that `cold` takes to reach its plateau, divided by those that `parity` takes to reach the same. Each seed has
/// a plateau of its own: the mean reward of the last epoch of `cold`, less 5%.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TokenRatio {
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
    /// The ratio of two arms with the same seeds in the same order; none where nothing was spent.
    pub(super) fn new(cold: &[&Run], parity: &[&Run], epoch_tasks: u64) -> Option<Self> {
        let epoch = epoch_tasks.max(1) as usize;
        let (mut logs, mut reached_by_parity) = (vec![], 0);
        for (cold, parity) in cold.iter().zip(parity) {
            let last = mean(cold.lessons.chunks(epoch).last()?);
            let level = last - PLATEAU_SHARE * last.abs();
            let spent = tokens_until(&parity.lessons, epoch, level);
            reached_by_parity += usize::from(spent.is_some());
            let spent = spent.unwrap_or_else(|| tokens(&parity.lessons));
            let ratio = tokens_until(&cold.lessons, epoch, level)? as f64 / spent as f64;
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
        let (ratio, seeds) = (mean.exp(), logs.len());
        (seeds > 0).then_some(TokenRatio { ratio, interval, seeds, reached_by_parity })
    }
}

fn mean(tasks: &[Sample]) -> f64 {
    tasks.iter().map(|s| s.reward).sum::<f64>() / tasks.len() as f64
}

fn tokens(tasks: &[Sample]) -> u64 {
    tasks.iter().map(|s| s.tokens).sum()
}

/// The tokens spent until the end of the first epoch whose mean reward is at the level.
fn tokens_until(lessons: &[Sample], epoch: usize, level: f64) -> Option<u64> {
    let at = lessons.chunks(epoch).position(|tasks| mean(tasks) >= level)?;
    Some(tokens(&lessons[..((at + 1) * epoch).min(lessons.len())]))
}
