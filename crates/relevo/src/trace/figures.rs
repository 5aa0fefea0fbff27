//! Figures that grow by one sample at a time and stay small.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::report::Estimate;

/// Number, mean and spread of samples.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Moments {
    n: u64,
    mean: f64,
    m2: f64,
}

impl Moments {
    pub(super) fn add(&mut self, sample: f64) {
        self.merge(Moments { n: 1, mean: sample, m2: 0.0 });
    }

    /// Those of both sets of samples (Chan, Golub, LeVeque 1979).
    fn merge(&mut self, other: Moments) {
        if other.n == 0 {
            return;
        }
        let (n, delta) = ((self.n + other.n) as f64, other.mean - self.mean);
        // mean <- mean + delta n_b / n;   M2 <- M2 + M2_b + delta^2 n_a n_b / n
        self.mean += delta * (other.n as f64 / n);
        self.m2 += other.m2 + delta * delta * (self.n as f64 * other.n as f64 / n);
        self.n += other.n;
    }

    /// The mean with its 95% interval; `None` without samples.
    pub(super) fn estimate(self) -> Option<Estimate> {
        let Moments { n, mean, m2 } = self;
        let half_width = (n > 1).then(|| 1.96 * (m2 / (n as f64 - 1.0) / n as f64).sqrt());
        (n > 0).then_some(Estimate { mean, half_width, n: n as usize })
    }
}

/// Most windows that are counted; with more tasks, each window holds more of them.
const WINDOWS_MAX: usize = 120;
/// Most windows that are shown, so that each holds a few tasks also in a short run.
const WINDOWS_SHOWN: usize = 40;

/// Tasks in the order in which they ended, taken together in windows of equal width.
#[derive(Clone, Debug)]
pub(super) struct Windows {
    width: u64,
    windows: Vec<Sums>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Sums {
    returns: Moments,
    tokens: Moments,
    failures: Moments,
}

/// Some tasks that ended one after the other.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Window {
    /// The first of them, counted from 0 in the order in which tasks ended.
    pub first: u64,
    /// How many.
    pub tasks: u64,
    /// Return per task.
    #[serde(rename = "return")]
    pub task_return: Estimate,
    /// Tokens per task.
    pub tokens: Estimate,
    /// Failed calls per task.
    pub failures: Estimate,
}

impl Default for Windows {
    fn default() -> Self {
        Windows { width: 1, windows: vec![] }
    }
}

impl Windows {
    pub(super) fn add(&mut self, task_return: f64, tokens: f64, failures: f64) {
        if self.windows.last().is_none_or(|last| last.returns.n == self.width) {
            if self.windows.len() == WINDOWS_MAX {
                *self = self.joined(2);
            }
            self.windows.push(Sums::default());
        }
        let last = self.windows.last_mut().expect("just there");
        last.returns.add(task_return);
        last.tokens.add(tokens);
        last.failures.add(failures);
    }

    /// As many neighbours taken together.
    fn joined(&self, neighbours: usize) -> Self {
        let join = |chunk: &[Sums]| {
            chunk.iter().fold(Sums::default(), |mut all, next| {
                all.returns.merge(next.returns);
                all.tokens.merge(next.tokens);
                all.failures.merge(next.failures);
                all
            })
        };
        let windows = self.windows.chunks(neighbours).map(join).collect();
        Windows { width: self.width * neighbours as u64, windows }
    }

    pub(super) fn shown(&self) -> Vec<Window> {
        let shown = self.joined(self.windows.len().div_ceil(WINDOWS_SHOWN).max(1));
        let window = |(i, sums): (usize, &Sums)| {
            Some(Window {
                first: i as u64 * shown.width,
                tasks: sums.returns.n,
                task_return: sums.returns.estimate()?,
                tokens: sums.tokens.estimate()?,
                failures: sums.failures.estimate()?,
            })
        };
        shown.windows.iter().enumerate().filter_map(window).collect()
    }
}

/// Neighbouring buckets of [`Latencies`] differ by this factor.
const FACTOR: f64 = 1.02;

/// How long calls took, counted in buckets of 2%: at most 2,242 of them, whatever comes.
#[derive(Clone, Debug, Default)]
pub(super) struct Latencies {
    buckets: BTreeMap<u32, u64>,
    n: u64,
    max: u64,
}

/// How long calls took, in milliseconds, to within 1%.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Quantiles {
    /// Half of them took no longer.
    pub p50: u64,
    /// Nine of ten took no longer.
    pub p90: u64,
    /// Ninety-nine of a hundred took no longer.
    pub p99: u64,
    /// The longest, exactly.
    pub max: u64,
}

impl Latencies {
    pub(super) fn add(&mut self, ms: u64) {
        // 0 is for calls that took no time; bucket b is for (FACTOR^(b-2), FACTOR^(b-1)].
        let bucket = match ms {
            0 => 0,
            ms => 1 + (libm::log(ms as f64) / libm::log(FACTOR)).ceil() as u32,
        };
        *self.buckets.entry(bucket).or_default() += 1;
        self.n += 1;
        self.max = self.max.max(ms);
    }

    pub(super) fn quantiles(&self) -> Option<Quantiles> {
        let quantile = |share: f64| {
            let rank = (share * self.n as f64).ceil() as u64;
            let mut below = 0;
            let bucket = self.buckets.iter().find(|(_, n)| {
                below += **n;
                below >= rank
            });
            match bucket {
                None | Some((0, _)) => 0,
                Some((b, _)) => (libm::pow(FACTOR, f64::from(*b) - 1.5).round() as u64).min(self.max),
            }
        };
        (self.n > 0).then(|| Quantiles {
            p50: quantile(0.5),
            p90: quantile(0.9),
            p99: quantile(0.99),
            max: self.max,
        })
    }
}

/// Most different words in one count; those that come later are counted together.
const WORDS_MAX: usize = 64;

/// How often something was said.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Counts(BTreeMap<String, u64>);

impl Counts {
    pub(super) fn add(&mut self, word: &str, n: u64) {
        let known = self.0.contains_key(word) || self.0.len() < WORDS_MAX;
        *self.0.entry(if known { word } else { "other" }.to_owned()).or_default() += n;
    }

    /// All words with their counts, in alphabetical order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, u64)> {
        self.0.iter().map(|(word, n)| (word.as_str(), *n))
    }

    /// How often anything was said.
    pub fn sum(&self) -> u64 {
        self.0.values().sum()
    }

    /// How often `word` was said.
    pub fn of(&self, word: &str) -> u64 {
        self.0.get(word).copied().unwrap_or(0)
    }
}

impl std::fmt::Display for Counts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let words: Vec<String> = self.iter().map(|(word, n)| format!("{word} {n}")).collect();
        f.write_str(&words.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_stay_few_and_lose_no_task() {
        let mut windows = Windows::default();
        let samples: Vec<f64> = (0..10_007).map(|i| f64::from(i % 97) / 7.0).collect();
        samples.iter().for_each(|x| windows.add(*x, 2.0 * x, 0.0));
        let all = windows.shown();
        assert!(all.len() <= WINDOWS_SHOWN && all.len() > WINDOWS_SHOWN / 2, "{}", all.len());
        assert_eq!(all.iter().map(|w| w.tasks).sum::<u64>(), 10_007);
        for w in &all {
            let of = &samples[w.first as usize..][..w.tasks as usize];
            let expected = Estimate::of(of.iter().copied()).unwrap();
            assert!((w.task_return.mean - expected.mean).abs() < 1e-9);
            assert!((w.tokens.mean - 2.0 * expected.mean).abs() < 1e-9);
            assert!((w.task_return.half_width.unwrap() - expected.half_width.unwrap()).abs() < 1e-9);
        }
    }

    #[test]
    fn quantiles_are_right_to_one_percent() {
        let mut latencies = Latencies::default();
        assert_eq!(latencies.quantiles(), None);
        (0..=10_000).rev().for_each(|ms| latencies.add(ms));
        let Quantiles { p50, p90, p99, max } = latencies.quantiles().unwrap();
        assert!(p50.abs_diff(5_000) <= 51 && p90.abs_diff(9_000) <= 91 && p99.abs_diff(9_900) <= 100);
        assert_eq!(max, 10_000);
        latencies.add(u64::MAX);
        assert!(latencies.buckets.keys().all(|b| *b < 2_250));
    }

    #[test]
    fn words_beyond_the_limit_are_counted_together() {
        let mut counts = Counts::default();
        (0..1_000).for_each(|i| counts.add(&format!("word {i}"), 2));
        assert_eq!((counts.0.len(), counts.sum()), (WORDS_MAX + 1, 2_000));
    }
}
