//! Experiments: a claim, what would refute it, and the runs that decide. Started by `relevo lab run`, which writes what
//! they give as a report.

use std::{
    ops::Range,
    path::PathBuf,
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use serde::{Deserialize, Serialize};

use crate::experiments;

/// How an experiment is to be run.
pub struct Settings<'s> {
    /// The seeds; each is one independent repetition.
    pub seeds: Range<u64>,
    /// Smaller, for a first look and for continuous integration.
    pub quick: bool,
    /// Threads.
    pub jobs: usize,
    /// Set from outside to end early; what is finished is kept.
    pub stop: &'s AtomicBool,
    /// Called with finished and all runs.
    pub progress: &'s (dyn Fn(usize, usize) + Sync),
    /// What [`ON_MODELS`] is run on.
    pub instead: Instead,
}

/// The experiment that can be run on other models and problems than those in the box.
pub const ON_MODELS: &str = experiments::maths_lm::EXPERIMENT.name;

/// What is taken instead of the model in the box and its problems.
#[derive(Clone, Debug, Default)]
pub struct Instead {
    /// The name of a dataset, and its file.
    pub dataset: Option<(String, PathBuf)>,
    /// A model: `PROVIDER::NAME`, or the `NAME` of one of OpenAI's.
    pub model: Option<String>,
    /// The file in which conversations are kept that had to be paid for.
    pub keep: Option<PathBuf>,
}

impl Settings<'_> {
    /// Whether a stop is asked for; a run of more than a second looks.
    pub fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// Run `run` for every item, on several threads; the results are in the order of the items, whatever the number of
    /// threads. Items not begun when a stop is asked for are left out.
    pub fn map<I: Sync, O: Send>(&self, items: &[I], run: impl Fn(&I) -> O + Sync) -> Vec<O> {
        let (next, done) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let results: Vec<Mutex<Option<O>>> = items.iter().map(|_| Mutex::new(None)).collect();
        std::thread::scope(|scope| {
            for _ in 0..self.jobs.clamp(1, items.len().max(1)) {
                scope.spawn(|| {
                    while !self.stopped()
                        && let i = next.fetch_add(1, Ordering::Relaxed)
                        && let Some(item) = items.get(i)
                    {
                        let result = run(item);
                        *results[i].lock().expect("no run panics while it holds its place") = Some(result);
                        (self.progress)(done.fetch_add(1, Ordering::Relaxed) + 1, items.len());
                    }
                });
            }
        });
        results.into_iter().filter_map(|r| r.into_inner().ok().flatten()).collect()
    }
}

/// What is asked.
pub struct Experiment {
    /// Its name on the command line.
    pub name: &'static str,
    /// One line.
    pub summary: &'static str,
    /// The seeds of the specification, full and quick.
    pub seeds: fn(quick: bool) -> Range<u64>,
    /// Intervals that the quick form must meet, as JSON.
    pub expected: &'static str,
    /// Does it, or says what is missing and what to try.
    pub run: fn(&Settings<'_>) -> Result<Findings, String>,
}

/// What came out.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Findings {
    /// The claim, the prediction, what would refute it; Markdown.
    pub claim: String,
    /// The result in tables.
    pub tables: Vec<Table>,
    /// The result in pictures.
    pub plots: Vec<Plot>,
    /// Single figures, which `expected.json` speaks of.
    pub figures: Vec<Figure>,
    /// What is ours rather than the paper's; Markdown.
    pub notes: String,
    /// Everything, run by run.
    pub raw: serde_json::Value,
}

/// A table.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Table {
    /// Stands above it.
    pub caption: String,
    /// The head, then the rows.
    pub rows: Vec<Vec<String>>,
}

/// A named number.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Figure {
    /// Its name.
    pub name: String,
    /// The number.
    pub value: f64,
}

/// Curves with bands.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Plot {
    /// Name of its file, without an ending.
    pub name: String,
    /// Stands above it.
    pub title: String,
    /// What x is.
    pub x_label: String,
    /// What y is.
    pub y_label: String,
    /// Whether x is drawn by its logarithm; what is not positive is left out.
    #[serde(default)]
    pub x_log: bool,
    /// The same of y.
    #[serde(default)]
    pub y_log: bool,
    /// The curves.
    pub series: Vec<Series>,
    /// Horizontal lines.
    pub levels: Vec<(String, f64)>,
}

/// One curve.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Series {
    /// Its name in the legend.
    pub name: String,
    /// x, and the lower end, middle and upper end of y.
    pub points: Vec<[f64; 4]>,
}

/// An interval that a figure must lie in.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Expected {
    /// Name of the figure.
    pub name: String,
    /// Smallest value.
    pub min: f64,
    /// Largest value.
    pub max: f64,
}

/// Whether a figure is where it was expected.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Verdict {
    /// Name of the figure.
    pub name: String,
    /// The figure; absent if the experiment did not give it.
    pub value: Option<f64>,
    /// The interval.
    pub interval: [f64; 2],
    /// Whether it lies in it.
    pub holds: bool,
}

impl Experiment {
    /// Hold the findings against what is expected.
    pub fn verdicts(&self, findings: &Findings) -> Vec<Verdict> {
        let expected: Vec<Expected> = serde_json::from_str(self.expected).expect("checked by a test");
        let verdict = |e: Expected| {
            let value = findings.figures.iter().find(|f| f.name == e.name).map(|f| f.value);
            let holds = value.is_some_and(|v| (e.min..=e.max).contains(&v));
            Verdict { name: e.name, value, interval: [e.min, e.max], holds }
        };
        expected.into_iter().map(verdict).collect()
    }
}

/// All experiments.
pub const ALL: &[Experiment] = &[
    experiments::certify::EXPERIMENT,
    experiments::chain::EXPERIMENT,
    experiments::compare::EXPERIMENT,
    experiments::coordinate::EXPERIMENT,
    experiments::cpu::EXPERIMENT,
    experiments::faults::EXPERIMENT,
    experiments::maths::EXPERIMENT,
    experiments::maths_lm::EXPERIMENT,
    experiments::routing::EXPERIMENT,
    experiments::t1::EXPERIMENT,
    experiments::t2::interface::EXPERIMENT,
    experiments::t2::mixing::EXPERIMENT,
    experiments::t2::samples::EXPERIMENT,
    experiments::t2::width::EXPERIMENT,
];

/// The median of numbers; NaN of none.
pub fn median(numbers: impl IntoIterator<Item = f64>) -> f64 {
    quantile(numbers, 0.5)
}

/// A quantile of numbers, interpolated; NaN of none.
pub fn quantile(numbers: impl IntoIterator<Item = f64>, q: f64) -> f64 {
    let mut numbers: Vec<f64> = numbers.into_iter().collect();
    if numbers.is_empty() {
        return f64::NAN;
    }
    numbers.sort_by(f64::total_cmp);
    let at = q * (numbers.len() - 1) as f64;
    let (low, high) = (numbers[at.floor() as usize], numbers[at.ceil() as usize]);
    low + (high - low) * at.fract()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expectations_can_be_read_and_names_are_unique() {
        for experiment in ALL {
            let expected: Vec<Expected> = serde_json::from_str(experiment.expected).expect(experiment.name);
            assert!(!expected.is_empty() && expected.iter().all(|e| e.min <= e.max));
        }
        let mut names: Vec<_> = ALL.iter().map(|e| e.name).collect();
        names.dedup();
        assert_eq!(names.len(), ALL.len());
    }

    /// Stopped before the first run and after it: what is there is told, what is not is left out.
    #[test]
    fn every_experiment_can_be_stopped() {
        for experiment in ALL {
            for stops_after in [0, 1] {
                let stop = AtomicBool::new(stops_after == 0);
                let progress = |done: usize, _: usize| stop.store(done >= stops_after, Ordering::Relaxed);
                let seeds = (experiment.seeds)(true);
                let instead = Instead::default();
                let settings =
                    Settings { seeds, quick: true, jobs: 1, stop: &stop, progress: &progress, instead };
                (experiment.run)(&settings).expect(experiment.name);
            }
        }
    }

    #[test]
    fn quantiles_interpolate() {
        assert_eq!(median([3.0, 1.0, 2.0]), 2.0);
        assert_eq!(quantile([0.0, 1.0], 0.25), 0.25);
        assert!(median([]).is_nan());
    }
}
