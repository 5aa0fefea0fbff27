//! An evaluation as a page of HTML that needs nothing besides itself.

use std::io;

use super::{ArmFigures, Evaluation, Figures};
use crate::{
    picture::{
        curve::{self, Curve, Level, Point},
        curves::{self, Curves},
    },
    report::Estimate,
    trace::page::{page, table, text},
};

/// A figure of a task.
type Figure = fn(&Figures) -> Option<Estimate>;

/// What the learning curves show.
const PLOTS: [(&str, Figure); 3] =
    [("reward", |f| Some(f.reward)), ("quality", |f| f.quality), ("tokens", |f| Some(f.tokens))];

/// A page about an evaluation.
///
/// # Errors
///
/// When a plot cannot be drawn, which is a bug.
pub fn evaluation(evaluation: &Evaluation) -> io::Result<String> {
    let team = &evaluation.setting.team;
    let mut body = format!("<h1>{}</h1>\n<p>{}.</p>\n", text(team), text(&evaluation.summary()));
    for notice in &evaluation.setting.notices {
        body += &format!("<p class=\"notice\">{}</p>\n", text(notice));
    }
    for (what, figure) in &PLOTS[..2] {
        body += &spending(evaluation, what, *figure)?;
    }
    for (what, figure) in PLOTS {
        for arm in &evaluation.arms {
            body += &learning_curve(evaluation, arm, what, figure)?;
        }
    }
    evaluation.sections().iter().for_each(|section| body += &table(section));
    let notes: Vec<String> = evaluation.notes().iter().map(|note| text(note)).collect();
    Ok(page(&format!("{team}: arms compared"), &body, &notes.join("<br>\n")))
}

/// What all arms came to, with the tokens that they had spent; nothing where none learned.
fn spending(evaluation: &Evaluation, what: &str, figure: Figure) -> io::Result<String> {
    let curves = evaluation.arms.iter().filter_map(|arm| {
        let mut spent = 0.0;
        let epochs = arm.learning.as_ref()?.epochs.iter().filter_map(|epoch| {
            spent += epoch.figures.tokens.mean * evaluation.setting.epoch_tasks as f64;
            Some(point(spent, figure(&epoch.figures)?))
        });
        Some((arm.arm.name().to_owned(), epochs.collect::<Vec<Point>>()))
    });
    let curves: Vec<(String, Vec<Point>)> = curves.filter(|(_, points)| !points.is_empty()).collect();
    if curves.is_empty() {
        return Ok(String::new());
    }
    let curves = Curves {
        title: format!("{what} per task while learning, by the tokens spent until then"),
        x_label: "tokens spent per seed".to_owned(),
        y_label: format!("{what} per task"),
        curves,
    };
    Ok(format!("<figure>{}</figure>\n", curves::svg(&curves)?))
}

fn point(x: f64, of: Estimate) -> Point {
    let half = of.half_width.unwrap_or(0.0);
    Point { x, mean: of.mean, low: of.mean - half, high: of.mean + half }
}

/// How an arm learned, and what all came to; nothing of one that does not learn.
fn learning_curve(
    evaluation: &Evaluation,
    arm: &ArmFigures,
    what: &str,
    figure: Figure,
) -> io::Result<String> {
    let epochs = arm.learning.iter().flat_map(|learning| &learning.epochs);
    let points: Vec<Point> =
        epochs.filter_map(|epoch| Some(point(epoch.epoch as f64, figure(&epoch.figures)?))).collect();
    if points.is_empty() {
        return Ok(String::new());
    }
    let levels = evaluation.arms.iter().filter_map(|other| {
        Some(Level { name: other.arm.name().to_owned(), value: figure(&other.measured.total)?.mean })
    });
    let curve = Curve {
        title: format!("{}: {what} per task", arm.arm.name()),
        x_label: "epochs".to_owned(),
        y_label: format!("{what} per task"),
        points,
        levels: levels.collect(),
    };
    Ok(format!("<figure>{}</figure>\n", curve::svg(&curve)?))
}
