//! An evaluation as tables, which the terminal and the page of HTML show alike.

use super::{
    ArmFigures, Breakdown, EpochFigures, Evaluation, Figures, Learning, PLATEAU_SHARE, TokenRatio,
    compare::INTERVALS,
};
use crate::{
    report::{Estimate, table},
    trace::tables::Section,
};

impl Evaluation {
    /// The evaluation as a terminal shows it.
    pub fn to_text(&self) -> String {
        let mut out = format!("{}: {}\n", self.setting.team, self.summary());
        self.setting.notices.iter().for_each(|notice| out += &format!("! {notice}\n"));
        for section in self.sections() {
            out += &format!("\n{}:\n{}", section.caption, table(&section.rows));
        }
        out + "\n" + &self.notes().join("\n") + "\n"
    }

    /// It in one sentence.
    pub(super) fn summary(&self) -> String {
        let arms: Vec<&str> = self.arms.iter().map(|a| a.arm.name()).collect();
        format!(
            "{} on {}, the same for all arms and seeds; {}, {} of learning",
            arms.join(", "),
            counted(self.test_tasks as u64, "task"),
            counted(self.seeds.len() as u64, "seed"),
            counted(self.setting.epochs, "epoch")
        )
    }

    /// What the figures mean, and how many tokens `cold` took against `parity`.
    pub(super) fn notes(&self) -> Vec<String> {
        let mut notes = vec![
            format!("Intervals: {INTERVALS}."),
            format!(
                "Epoch: {}. Classes: {}. Warm: {}.",
                self.setting.epoch, self.setting.classes, self.setting.warm_from
            ),
            format!(
                "Plateau: the first epoch whose mean reward over seeds is at most {:.0}% below that of cold's last epoch.",
                100.0 * PLATEAU_SHARE
            ),
        ];
        notes.extend(self.token_ratio.as_ref().map(ratio));
        notes
    }

    pub(super) fn sections(&self) -> Vec<Section> {
        let quality = |f: &Figures| f.quality.map_or("unknown".to_owned(), |q| number(q, 3));
        let reward = |f: &Figures| number(f.reward, 3);
        let tokens = |f: &Figures| number(f.tokens, 0);
        let more = |f: &Figures| signed(f.reward, 3);
        let mut sections = vec![
            self.in_total("Per task, measured without learning", measured),
            self.in_total("Less fixed, paired by seed and task", minus_fixed),
            self.in_total("Less cold, paired by seed and task", minus_cold),
            self.by_class("Quality by class", measured, quality),
            self.by_class("Reward by class", measured, reward),
            self.by_class("Tokens by class", measured, tokens),
            self.by_class("Reward less that of fixed, by class", minus_fixed, more),
            self.by_class("Reward less that of cold, by class", minus_cold, more),
            self.by_epoch("Quality while learning", quality),
            self.by_epoch("Reward while learning", reward),
            self.by_epoch("Tokens while learning", tokens),
            self.learning(),
        ];
        sections.retain(|section| section.rows.len() > 1);
        sections
    }

    fn in_total(&self, caption: &'static str, of: Part) -> Section {
        let head = ["arm", "quality", "reward", "tokens", "money", "calls", "failed calls"];
        let mut rows = vec![head.map(str::to_owned).to_vec()];
        for arm in &self.arms {
            let Some(breakdown) = of(arm) else { continue };
            rows.push([vec![named(arm)], figures(&breakdown.total)].concat());
        }
        Section { caption, rows, long: false }
    }

    fn by_class(&self, caption: &'static str, of: Part, cell: impl Fn(&Figures) -> String) -> Section {
        let parts: Vec<(&str, &Breakdown)> =
            self.arms.iter().filter_map(|arm| Some((arm.arm.name(), of(arm)?))).collect();
        let mut rows = vec![head("class", parts.iter().map(|(name, _)| *name))];
        // All arms were measured on the same tasks.
        let classes = parts.first().into_iter().flat_map(|(_, part)| part.by_class.keys());
        for class in classes.take(CLASSES_MAX) {
            let cells = parts.iter().map(|(_, part)| part.by_class.get(class).map_or(String::new(), &cell));
            rows.push(std::iter::once(class.clone()).chain(cells).collect());
        }
        Section { caption, rows, long: false }
    }

    fn by_epoch(&self, caption: &'static str, cell: impl Fn(&Figures) -> String) -> Section {
        let curves =
            self.arms.iter().filter_map(|arm| Some((arm.arm.name(), &arm.learning.as_ref()?.epochs)));
        let curves: Vec<(&str, &Vec<EpochFigures>)> =
            curves.filter(|(_, epochs)| !epochs.is_empty()).collect();
        let mut rows = vec![head("epoch", curves.iter().map(|(name, _)| *name))];
        for at in 0..curves.iter().map(|(_, epochs)| epochs.len()).max().unwrap_or(0) {
            let cells =
                curves.iter().map(|(_, epochs)| epochs.get(at).map_or(String::new(), |e| cell(&e.figures)));
            rows.push(std::iter::once((at + 1).to_string()).chain(cells).collect());
        }
        Section { caption, rows, long: false }
    }

    fn learning(&self) -> Section {
        let head = ["arm", "tasks", "tokens", "money", "plateau", "tokens until then"];
        let mut rows = vec![head.map(str::to_owned).to_vec()];
        for arm in &self.arms {
            let Some(Learning { tasks, tokens, money, epochs, plateau }) = &arm.learning else { continue };
            let (reached, until) = match plateau {
                Some(plateau) => (format!("epoch {}", plateau.epoch), number(plateau.tokens, 0)),
                None if epochs.is_empty() => Default::default(),
                None => ("not reached".to_owned(), String::new()),
            };
            let spent = [number(*tasks, 0), number(*tokens, 0), number(*money, 4), reached, until];
            rows.push([&[arm.arm.name().to_owned()][..], &spent].concat());
        }
        Section { caption: "What learning took, per seed", rows, long: false }
    }
}

/// The tokens of two arms until a plateau, in a sentence.
fn ratio(of: &TokenRatio) -> String {
    let TokenRatio { ratio, interval, seeds, reached_by_parity } = of;
    let interval = interval.map_or(String::new(), |[low, high]| format!(" ({low:.3} to {high:.3})"));
    let most = if reached_by_parity < seeds { "at most " } else { "" };
    format!(
        "Tokens until cold's plateau, each seed's own, as a share of what parity takes to it: {most}{ratio:.3}{interval}. Parity \
         reached it with {reached_by_parity} of {}; where it did not, all that it spent counts.",
        counted(*seeds as u64, "seed")
    )
}

/// What an arm was measured to be, or to be above another one.
type Part = fn(&ArmFigures) -> Option<&Breakdown>;

fn measured(arm: &ArmFigures) -> Option<&Breakdown> {
    Some(&arm.measured)
}

fn minus_fixed(arm: &ArmFigures) -> Option<&Breakdown> {
    arm.minus_fixed.as_ref()
}

fn minus_cold(arm: &ArmFigures) -> Option<&Breakdown> {
    arm.minus_cold.as_ref()
}

fn head<'a>(first: &'a str, names: impl Iterator<Item = &'a str>) -> Vec<String> {
    std::iter::once(first).chain(names).map(str::to_owned).collect()
}

/// Classes told apart in a table; all are in the JSON.
const CLASSES_MAX: usize = 48;

fn named(arm: &ArmFigures) -> String {
    let chosen: Vec<String> = arm.chosen.iter().map(|(name, n)| format!("{name} {n}×")).collect();
    match chosen.is_empty() {
        true => arm.arm.name().to_owned(),
        false => format!("{} ({})", arm.arm.name(), chosen.join(", ")),
    }
}

fn figures(of: &Figures) -> Vec<String> {
    let Figures { quality, reward, tokens, money, calls, failures } = of;
    vec![
        quality.map_or("unknown".to_owned(), |q| number(q, 3)),
        number(*reward, 3),
        number(*tokens, 0),
        number(*money, 4),
        number(*calls, 2),
        number(*failures, 3),
    ]
}

/// A mean with its interval, to so many digits.
fn number(of: Estimate, digits: usize) -> String {
    let Estimate { mean, half_width, .. } = of;
    match half_width {
        // What never differs needs no interval.
        None | Some(0.0) if mean == 0.0 => "0".to_owned(),
        None => format!("{mean:.digits$}"),
        Some(half) => format!("{mean:.digits$} ± {half:.digits$}"),
    }
}

/// The same with its sign.
fn signed(of: Estimate, digits: usize) -> String {
    let text = number(of, digits);
    if of.mean > 0.0 { format!("+{text}") } else { text }
}

fn counted(n: u64, what: &str) -> String {
    format!("{n} {what}{}", if n == 1 { "" } else { "s" })
}
