//! All runs in figures: by arm, class and epoch, and arm against arm, task by task.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::{ArmId, Run, Sample, TokenRatio, crossed, plateau};
use crate::report::Estimate;

/// Name and version of the form of an evaluation.
const SCHEMA: &str = "relevo.evaluation/v1";

/// What all runs of an evaluation share.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Setting {
    /// The team.
    pub team: String,
    /// Epochs that an arm learned.
    pub epochs: u64,
    /// Tasks of an epoch.
    pub epoch_tasks: u64,
    /// What an epoch is, for people.
    pub epoch: String,
    /// What classes are made of, for people.
    pub classes: String,
    /// From what `warm` learned, for people.
    pub warm_from: String,
    /// What people should know besides.
    pub notices: Vec<String>,
}

/// Figures per task. What cannot be known of every task is absent.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Figures {
    /// Quality.
    pub quality: Option<Estimate>,
    /// The whole return: quality, less cost.
    pub reward: Estimate,
    /// Tokens.
    pub tokens: Estimate,
    /// Money, in the team's currency.
    pub money: Estimate,
    /// Calls of agents.
    pub calls: Estimate,
    /// Failed calls.
    pub failures: Estimate,
}

/// Figures in total and by class.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Breakdown {
    /// All tasks.
    pub total: Figures,
    /// Those of each class.
    pub by_class: BTreeMap<String, Figures>,
}

/// Figures per task of one epoch of learning, with intervals over seeds.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct EpochFigures {
    /// Which, from 1.
    pub epoch: usize,
    /// Figures per task.
    #[serde(flatten)]
    pub figures: Figures,
}

/// What learning took.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Learning {
    /// Tasks learned on, per seed.
    pub tasks: Estimate,
    /// Tokens, per seed.
    pub tokens: Estimate,
    /// Money, per seed.
    pub money: Estimate,
    /// The learning curve; none of an arm that only tries agents out.
    pub epochs: Vec<EpochFigures>,
    /// When it was as good as `cold` became.
    pub plateau: Option<Plateau>,
}

/// The first epoch whose mean reward over seeds is at most 5% below that of the last epoch of `cold`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Plateau {
    /// Which, from 1.
    pub epoch: usize,
    /// Tokens until its end, per seed.
    pub tokens: Estimate,
}

/// One arm.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ArmFigures {
    /// Which.
    pub arm: ArmId,
    /// Of `single`, how often each agent was chosen.
    pub chosen: BTreeMap<String, usize>,
    /// Measured without learning.
    pub measured: Breakdown,
    /// This less `fixed`, paired by seed and task.
    pub minus_fixed: Option<Breakdown>,
    /// This less `cold`, paired by seed and task.
    pub minus_cold: Option<Breakdown>,
    /// What learning took; nothing of an arm that does not.
    pub learning: Option<Learning>,
}

/// Arms compared.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Evaluation {
    /// `relevo.evaluation/v1`.
    pub schema: &'static str,
    /// Version of this program.
    pub version: &'static str,
    /// What all runs share.
    #[serde(flatten)]
    pub setting: Setting,
    /// The seeds.
    pub seeds: Vec<u64>,
    /// Tasks measured on, per seed.
    pub test_tasks: usize,
    /// How intervals are made.
    pub intervals: &'static str,
    /// The arms.
    pub arms: Vec<ArmFigures>,
    /// Tokens until the plateau of `cold`, each seed its own, against `parity`; absent without these two.
    pub token_ratio: Option<TokenRatio>,
}

/// Runs that cannot be compared: what differs.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Mismatch(String);

/// Said beside every interval.
pub(super) const INTERVALS: &str = "95%, for other seeds and other tasks: h² = (t s / √n)² of the means by seed + \
                                    (t s / √n)² of the means by task; of one seed, for other tasks only";

impl Evaluation {
    /// Compare runs: every arm with the same seeds, measured on the same tasks in the same order.
    ///
    /// # Errors
    ///
    /// When they are not.
    pub fn new(setting: Setting, runs: &[Run]) -> Result<Self, Mismatch> {
        let mut arms: BTreeMap<ArmId, BTreeMap<u64, &Run>> = BTreeMap::new();
        for run in runs {
            arms.entry(run.arm).or_default().insert(run.seed, run);
        }
        let first = runs.first().filter(|run| !run.tests.is_empty());
        let first = first.ok_or_else(|| Mismatch("nothing was measured".into()))?;
        let seeds: Vec<u64> = arms[&first.arm].keys().copied().collect();
        for run in runs {
            let same = |(a, b): (&Sample, &Sample)| a.task == b.task && a.class == b.class;
            if run.tests.len() != first.tests.len() || !run.tests.iter().zip(&first.tests).all(same) {
                let (arm, seed) = (run.arm.name(), run.seed);
                return Err(Mismatch(format!(
                    "{arm} with seed {seed} was measured on other tasks than the rest"
                )));
            }
        }
        for (arm, of_arm) in &arms {
            if !of_arm.keys().eq(&seeds) {
                return Err(Mismatch(format!("{} was run with other seeds than the rest", arm.name())));
            }
        }
        let classes: Vec<&str> = first.tests.iter().map(|sample| sample.class.as_str()).collect();
        let rows = |arm| Some(arms.get(&arm)?.values().copied().collect::<Vec<&Run>>());
        let [fixed, cold, parity] = [ArmId::Fixed, ArmId::Cold, ArmId::Parity].map(rows);
        let goal = cold.as_ref().and_then(|runs| {
            let lasts = curve(runs, setting.epoch_tasks);
            Some(lasts.last()?.figures.reward.mean)
        });
        let figures = arms.iter().map(|(arm, of_arm)| {
            let runs: Vec<&Run> = of_arm.values().copied().collect();
            let minus = |other: ArmId, base: &Option<Vec<&Run>>| {
                let base = base.as_ref().filter(|_| other != *arm)?;
                breakdown(&runs, Some(base), &classes)
            };
            Some(ArmFigures {
                arm: *arm,
                chosen: runs.iter().filter_map(|run| run.chosen.clone()).fold(
                    BTreeMap::new(),
                    |mut all, name| {
                        *all.entry(name).or_default() += 1;
                        all
                    },
                ),
                measured: breakdown(&runs, None, &classes)?,
                minus_fixed: minus(ArmId::Fixed, &fixed),
                minus_cold: minus(ArmId::Cold, &cold),
                learning: learning(*arm, &runs, setting.epoch_tasks, goal),
            })
        });
        Ok(Evaluation {
            schema: SCHEMA,
            version: env!("CARGO_PKG_VERSION"),
            arms: figures.collect::<Option<_>>().ok_or_else(|| Mismatch("nothing was measured".into()))?,
            token_ratio: match (&cold, &parity) {
                (Some(cold), Some(parity)) => TokenRatio::new(cold, parity, setting.epoch_tasks),
                _ => None,
            },
            setting,
            test_tasks: first.tests.len(),
            intervals: INTERVALS,
            seeds,
        })
    }

    /// The evaluation as JSON.
    pub fn to_json(&self) -> String {
        serde_json::to_string_pretty(self).expect("numbers and text") + "\n"
    }
}

/// Runs in total and by class, or how much they are above others of the same seeds.
fn breakdown(runs: &[&Run], base: Option<&[&Run]>, classes: &[&str]) -> Option<Breakdown> {
    let of = |tasks: &[usize]| {
        figures(|value| {
            let rows = |runs: &[&Run]| -> Option<Vec<Vec<f64>>> {
                runs.iter().map(|run| tasks.iter().map(|t| value(&run.tests[*t])).collect()).collect()
            };
            let mut samples = rows(runs)?;
            if let Some(base) = base {
                for (row, below) in samples.iter_mut().zip(rows(base)?) {
                    row.iter_mut().zip(below).for_each(|(x, below)| *x -= below);
                }
            }
            crossed(&samples)
        })
    };
    let mut by_class: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    classes.iter().enumerate().for_each(|(t, class)| by_class.entry(class).or_default().push(t));
    Some(Breakdown {
        total: of(&(0..classes.len()).collect::<Vec<_>>())?,
        by_class: by_class.into_iter().filter_map(|(c, tasks)| Some((c.to_owned(), of(&tasks)?))).collect(),
    })
}

/// Figures, each as `estimate` makes it of a value that samples have.
fn figures(estimate: impl Fn(&dyn Fn(&Sample) -> Option<f64>) -> Option<Estimate>) -> Option<Figures> {
    Some(Figures {
        quality: estimate(&|s| s.quality),
        reward: estimate(&|s| Some(s.reward))?,
        tokens: estimate(&|s| Some(s.tokens as f64))?,
        money: estimate(&|s| Some(s.money))?,
        calls: estimate(&|s| Some(f64::from(s.calls)))?,
        failures: estimate(&|s| Some(f64::from(s.failures)))?,
    })
}

/// The learning curve. Seeds learn on other tasks, or in another order, so that the interval is over their means alone.
fn curve(runs: &[&Run], epoch_tasks: u64) -> Vec<EpochFigures> {
    let epoch_of = |sample: &Sample| sample.task.parse::<u64>().ok().map(|task| task / epoch_tasks.max(1));
    let epochs: BTreeSet<u64> = runs.iter().flat_map(|run| run.lessons.iter().filter_map(epoch_of)).collect();
    let of_epoch = |epoch: u64| {
        let in_it = |s: &&Sample| epoch_of(s) == Some(epoch);
        let of_seeds = runs.iter().map(|run| run.lessons.iter().filter(in_it).collect::<Vec<&Sample>>());
        let by_seed: Vec<Vec<&Sample>> = of_seeds.filter(|of| !of.is_empty()).collect();
        let figures = figures(|value| {
            let mean = |samples: &Vec<&Sample>| {
                let values: Option<Vec<f64>> = samples.iter().map(|s| value(s)).collect();
                values.map(|values| vec![values.iter().sum::<f64>() / values.len() as f64])
            };
            crossed(&by_seed.iter().map(mean).collect::<Option<Vec<_>>>()?)
        })?;
        Some(EpochFigures { epoch: epoch as usize + 1, figures })
    };
    epochs.into_iter().filter_map(of_epoch).collect()
}

fn learning(arm: ArmId, runs: &[&Run], epoch_tasks: u64, goal: Option<f64>) -> Option<Learning> {
    let per_seed =
        |of: &dyn Fn(&Run) -> f64| crossed(&runs.iter().map(|run| vec![of(run)]).collect::<Vec<_>>());
    let tokens_of = |samples: &[Sample]| samples.iter().map(|s| s.tokens as f64).sum();
    if runs.iter().all(|run| run.lessons.is_empty()) {
        return None;
    }
    let epochs = if arm.learns() { curve(runs, epoch_tasks) } else { vec![] };
    let means: Vec<f64> = epochs.iter().map(|e| e.figures.reward.mean).collect();
    let reached = goal.and_then(|goal| plateau(&means, goal)).map(|at| epochs[at].epoch);
    Some(Learning {
        tasks: per_seed(&|run| run.lessons.len() as f64)?,
        tokens: per_seed(&|run| tokens_of(&run.lessons))?,
        money: per_seed(&|run| run.lessons.iter().map(|s| s.money).sum())?,
        plateau: reached.and_then(|epoch| {
            let until = |run: &Run| (epoch * epoch_tasks as usize).min(run.lessons.len());
            Some(Plateau { epoch, tokens: per_seed(&|run| tokens_of(&run.lessons[..until(run)]))? })
        }),
        epochs,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reward::Spent;

    fn sample(task: usize, class: &str, reward: f64, tokens: u64) -> Sample {
        let spent = Spent { calls: 1, tokens, ..Spent::default() };
        Sample { class: class.to_owned(), ..Sample::of(task.to_string(), reward, Some(reward), &spent) }
    }

    /// Rewards of two tasks, one of class a and one of class b; and of lessons, at 100 tokens each.
    fn run(arm: ArmId, seed: u64, tests: [f64; 2], lessons: &[f64]) -> Run {
        let tests = vec![sample(0, "a", tests[0], 10), sample(1, "b", tests[1], 30)];
        let lessons = lessons.iter().enumerate().map(|(i, r)| sample(i, "", *r, 100)).collect();
        Run { arm, seed, chosen: None, lessons, tests }
    }

    fn setting() -> Setting {
        let [team, epoch, classes, warm_from] = Default::default();
        Setting { team, epochs: 2, epoch_tasks: 2, epoch, classes, warm_from, notices: vec![] }
    }

    #[test]
    fn arms_are_paired_by_seed_and_task() {
        // What seeds and tasks are like is large, and the same for both arms; the difference is .1 throughout.
        let runs = [
            run(ArmId::Cold, 2, [0.9, 5.1], &[]),
            run(ArmId::Fixed, 1, [0.3, 3.0], &[]),
            run(ArmId::Cold, 1, [0.4, 3.1], &[]),
            run(ArmId::Fixed, 2, [0.8, 5.0], &[]),
        ];
        let evaluation = Evaluation::new(setting(), &runs).unwrap();
        assert_eq!(evaluation.seeds, [1, 2]);
        let [fixed, cold] = &evaluation.arms[..] else { panic!("two arms") };
        assert!((fixed.arm, &fixed.minus_fixed) == (ArmId::Fixed, &None));
        assert!((fixed.measured.total.reward.mean - 2.275).abs() < 1e-12);
        assert!((fixed.measured.by_class["b"].reward.mean - 4.0).abs() < 1e-12);
        assert_eq!(fixed.measured.by_class["b"].tokens.mean, 30.0);
        assert!(fixed.measured.total.reward.half_width.unwrap() > 1.0);
        for of in [cold.minus_fixed.as_ref().unwrap(), fixed.minus_cold.as_ref().unwrap()] {
            for figures in [&of.total, &of.by_class["a"], &of.by_class["b"]] {
                assert!(
                    (figures.reward.mean.abs() - 0.1).abs() < 1e-9
                        && figures.reward.half_width.unwrap() < 1e-9
                );
                assert_eq!(figures.tokens.mean, 0.0);
            }
        }
        assert!(cold.minus_fixed.as_ref().unwrap().total.reward.mean > 0.0);
    }

    #[test]
    fn what_cannot_be_paired_is_refused() {
        let fixed = run(ArmId::Fixed, 1, [0.0, 0.0], &[]);
        let mut other = run(ArmId::Cold, 1, [0.0, 0.0], &[]);
        other.tests.swap(0, 1);
        for (runs, what) in [
            (vec![], "nothing was measured"),
            (vec![fixed.clone(), other], "on other tasks"),
            (vec![fixed.clone(), run(ArmId::Cold, 2, [0.0, 0.0], &[])], "other seeds"),
        ] {
            let said = Evaluation::new(setting(), &runs).unwrap_err().to_string();
            assert!(said.contains(what), "{said}");
        }
    }

    #[test]
    fn what_learning_took_is_told_until_cold_became_good() {
        let runs = [
            run(ArmId::Cold, 1, [0.0; 2], &[0.0, 0.2, 1.0, 1.0]),
            run(ArmId::Warm, 1, [0.0; 2], &[0.9, 1.0, 1.0, 1.0]),
            run(ArmId::NoSkip, 1, [0.0; 2], &[0.0, 0.0, 0.5, 0.5]),
        ];
        let evaluation = Evaluation::new(setting(), &runs).unwrap();
        let learning = |arm| {
            let of = evaluation.arms.iter().find(|a| a.arm == arm).unwrap();
            of.learning.clone().unwrap()
        };
        let cold = learning(ArmId::Cold);
        assert_eq!((cold.tokens.mean, cold.epochs.len()), (400.0, 2));
        assert_eq!(cold.epochs[0].figures.reward.mean, 0.1);
        let reached = |arm| learning(arm).plateau.map(|p| (p.epoch, p.tokens.mean));
        assert_eq!(reached(ArmId::Cold), Some((2, 400.0)));
        assert_eq!(reached(ArmId::Warm), Some((1, 200.0)));
        assert_eq!(reached(ArmId::NoSkip), None);
        assert_eq!(evaluation.token_ratio, None, "there is no parity");
    }

    #[test]
    fn tokens_until_the_plateau_are_compared_seed_by_seed() {
        let cold = |seed, lessons: &[f64]| run(ArmId::Cold, seed, [0.0; 2], lessons);
        let parity = |seed, lessons: &[f64]| run(ArmId::Parity, seed, [0.0; 2], lessons);
        let of = |runs: &[Run]| Evaluation::new(setting(), runs).unwrap().token_ratio;
        // An epoch takes 200 tokens. Cold takes one, parity four or, all that it has, eight.
        let (soon, late) = ([1.0, 0.95, 1.0, 1.0], [0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.92]);
        let mut never = [0.0; 16];
        (never[0], never[15]) = (0.9, 0.9);
        let runs = [cold(1, &soon), cold(2, &soon), parity(1, &late), parity(2, &never)];
        let ratio = of(&runs).unwrap();
        assert_eq!((ratio.seeds, ratio.reached_by_parity), (2, 1));
        // The geometric mean of 1/4 and 1/8, and t_1 s / sqrt 2 = 12.706 ln(2) / 2 on logarithms.
        assert!((ratio.ratio - 32.0_f64.sqrt().recip()).abs() < 1e-12, "{ratio:?}");
        let (factor, [low, high]) = ((12.706 * 2.0_f64.ln() / 2.0).exp(), ratio.interval.unwrap());
        assert!((low * factor / ratio.ratio - 1.0).abs() < 1e-9);
        assert!((high / factor / ratio.ratio - 1.0).abs() < 1e-9);
        assert_eq!(of(&runs[..2]), None, "there is no parity");
        assert_eq!(of(&[cold(1, &soon), parity(1, &late)]).unwrap().interval, None);
        // Each seed has its own plateau: here cold's last epoch, .1, is its best, which parity is above at once.
        let poor = [cold(1, &[0.0, 0.0, 0.1, 0.1]), parity(1, &[0.0, 0.4])];
        assert!((of(&poor).unwrap().ratio - 2.0).abs() < 1e-12);
    }
}
