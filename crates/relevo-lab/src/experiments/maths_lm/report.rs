//! What `maths-lm` found, as tables, pictures and figures.

use std::collections::BTreeMap;

use super::{Check, NEAR, Score};
use crate::experiment::{Figure, Findings, Plot, Series, Table, quantile};

/// Everything that was found.
pub(super) struct Found<'a> {
    /// The workflows of the team file, in its order.
    pub(super) declared: &'a [String],
    pub(super) budgets: &'a [u64],
    pub(super) scores: &'a [Score],
    pub(super) checks: &'a [Check],
    pub(super) failed: u32,
    /// The models, for people.
    pub(super) models: String,
}

impl Found<'_> {
    pub(super) fn findings(&self) -> Findings {
        let (table_1, accuracy) = self.table_1();
        let (regrets, regret) = self.regrets();
        let problems = self.scores.iter().map(|score| score.problems).min().unwrap_or(0);
        let caption = format!(
            "Accuracy on {problems} problems a dataset: Table 1 of the paper on these models. Fixed workflows with 95% \
             intervals; learned: median over seeds (smallest to largest) after {} episodes",
            self.longest()
        );
        let caption_of_regrets = format!(
            "Regret against the best of all fixed workflows in return: median, largest (seeds within {NEAR}), by episodes"
        );
        Findings {
            claim: include_str!("README.md").to_owned(),
            tables: vec![
                Table { caption, rows: table_1 },
                Table { caption: caption_of_regrets, rows: regrets },
            ],
            plots: vec![accuracy, regret],
            figures: self.figures(),
            notes: format!(
                "Real language models: {}. Every conversation that the team can have about a problem was held once by the agents \
                 of `examples/maths/team.toml`, through the same code as in `relevo learn`, and learners went through them in an \
                 order of their own; problems to measure on are not among those to learn on, and the same for all seeds. The \
                 learner, its step sizes and its prices are those of the team file. {} calls failed.",
                self.models, self.failed
            ),
            raw: serde_json::json!({ "scores": self.scores, "checks": self.checks }),
        }
    }

    fn longest(&self) -> u64 {
        *self.budgets.last().expect("there are budgets")
    }

    /// The kinds of problems, each with the dataset that it is.
    fn kinds(&self) -> Vec<(&str, &str)> {
        let mut kinds: Vec<&str> = self.scores.iter().map(|score| score.kind.as_str()).collect();
        kinds.dedup();
        kinds.into_iter().map(|kind| (kind, kind.split_once('=').map_or(kind, |(_, value)| value))).collect()
    }

    /// The fixed workflows, those of the team file first.
    fn workflows(&self) -> Vec<&str> {
        let mut names: Vec<&str> = self.scores.iter().map(|score| score.workflow.as_str()).collect();
        names.sort_by_key(|name| {
            (self.declared.iter().position(|d| d == name).unwrap_or(usize::MAX), name.len(), *name)
        });
        names.dedup();
        names
    }

    fn score(&self, kind: &str, workflow: &str) -> Option<&Score> {
        self.scores.iter().find(|score| score.kind == kind && score.workflow == workflow)
    }

    /// The best fixed workflow of a kind.
    fn best(&self, kind: &str) -> &Score {
        let of = self.scores.iter().filter(|score| score.kind == kind);
        of.max_by(|a, b| a.value.total_cmp(&b.value)).expect("there are workflows")
    }

    fn checks(&self, kind: &str, episodes: u64) -> Vec<&Check> {
        self.checks.iter().filter(|check| check.kind == kind && check.episodes == episodes).collect()
    }

    /// By how much the learned teams are worse than the best fixed workflow; nothing if none were learned.
    fn regret(&self, kind: &str, episodes: u64) -> Vec<f64> {
        let best = self.best(kind).value;
        self.checks(kind, episodes).iter().map(|check| best - check.value).collect()
    }

    /// Table 1 of the paper, and as a picture.
    fn table_1(&self) -> (Vec<Vec<String>>, Plot) {
        let workflows = self.workflows();
        let ends = ["learned", "learned workflow (seeds)"];
        let head = ["dataset"].into_iter().chain(workflows.iter().copied()).chain(ends);
        let mut rows: Vec<Vec<String>> = vec![head.map(str::to_owned).collect()];
        let mut series = vec![];
        for (kind, dataset) in self.kinds() {
            let (mut row, mut points) = (vec![dataset.to_owned()], vec![]);
            for (x, name) in (1..).zip(&workflows) {
                let Some(Score { accuracy, problems, .. }) = self.score(kind, name) else {
                    row.push("-".to_owned());
                    continue;
                };
                let half = half_width(*accuracy, *problems);
                row.push(format!("{accuracy:.3} ± {half:.3}"));
                points.push([f64::from(x), accuracy - half, *accuracy, accuracy + half]);
            }
            let checks = self.checks(kind, self.longest());
            if !checks.is_empty() {
                let [low, middle, high] =
                    [0.0, 0.5, 1.0].map(|q| quantile(checks.iter().map(|check| check.accuracy), q));
                row.push(format!("{middle:.3} ({low:.3} to {high:.3})"));
                row.push(most_frequent(checks.iter().map(|check| check.workflow.as_str())));
                points.push([workflows.len() as f64 + 1.0, low, middle, high]);
            }
            rows.push(row);
            series.push(Series { name: dataset.to_owned(), points });
        }
        let named = (1..).zip(workflows.iter().chain(&["learned"]));
        let plot = Plot {
            name: "maths-lm-accuracy".to_owned(),
            title: "Right answers of workflows and of the learned team".to_owned(),
            x_label: named.map(|(x, name)| format!("{x} {name}")).collect::<Vec<_>>().join(", "),
            y_label: "share of right answers, 95%; learned: smallest to largest".to_owned(),
            series,
            ..Plot::default()
        };
        (rows, plot)
    }

    /// Regret by budget, and as a picture.
    fn regrets(&self) -> (Vec<Vec<String>>, Plot) {
        let head = ["dataset", "best fixed", "its return"].map(str::to_owned).into_iter();
        let mut rows: Vec<Vec<String>> = vec![head.chain(self.budgets.iter().map(u64::to_string)).collect()];
        let mut series = vec![];
        for (kind, dataset) in self.kinds() {
            let best = self.best(kind);
            let mut row = vec![dataset.to_owned(), best.workflow.clone(), format!("{:.4}", best.value)];
            let mut points = vec![];
            for budget in self.budgets {
                let regret = self.regret(kind, *budget);
                if regret.is_empty() {
                    continue;
                }
                let at = |q: f64| quantile(regret.iter().copied(), q);
                let near = regret.iter().filter(|regret| **regret <= NEAR).count();
                row.push(format!("{:.4}, {:.4} ({near} of {})", at(0.5), at(1.0), regret.len()));
                points.push([*budget as f64, at(0.0), at(0.5), at(1.0)]);
            }
            rows.push(row);
            series.push(Series { name: dataset.to_owned(), points });
        }
        let plot = Plot {
            name: "maths-lm-regret".to_owned(),
            title: "Regret of the learned team against the best fixed workflow".to_owned(),
            x_label: "episodes, over all datasets".to_owned(),
            y_label: "regret in return: median, smallest to largest".to_owned(),
            x_log: true,
            series,
            levels: vec![("within .005".to_owned(), NEAR)],
            ..Plot::default()
        };
        (rows, plot)
    }

    fn figures(&self) -> Vec<Figure> {
        let mut figures = vec![Figure { name: "failed calls".to_owned(), value: f64::from(self.failed) }];
        let mut figure = |name: String, value: f64| figures.push(Figure { name, value });
        for (kind, dataset) in self.kinds() {
            for score in self.scores.iter().filter(|score| score.kind == kind) {
                figure(format!("accuracy: {}, {dataset}", score.workflow), score.accuracy);
            }
        }
        for budget in self.budgets {
            let mut all = vec![];
            for (kind, dataset) in self.kinds() {
                let regret = self.regret(kind, *budget);
                figure(
                    format!("largest regret after {budget}: {dataset}"),
                    quantile(regret.iter().copied(), 1.0),
                );
                all.extend(regret);
            }
            figure(format!("largest regret after {budget}"), quantile(all, 1.0));
        }
        figures
    }
}

/// Half of an interval of 95% for a share.
fn half_width(share: f64, n: usize) -> f64 {
    1.96 * (share * (1.0 - share) / n.max(1) as f64).sqrt()
}

/// Names with how often each is there, the most frequent first.
fn most_frequent<'n>(names: impl Iterator<Item = &'n str>) -> String {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    names.for_each(|name| *counts.entry(name).or_default() += 1);
    let mut counts: Vec<_> = counts.into_iter().collect();
    counts.sort_by_key(|(_, count)| core::cmp::Reverse(*count));
    counts.iter().map(|(name, count)| format!("{name} ({count})")).collect::<Vec<_>>().join(", ")
}
