//! `t2-mixing`: what the probability of a handoff does to the error, and what slow mixing does where nothing else changes.

use core::ops::Range;

use serde::Serialize;

use super::{DESIGN, Learning, mean, scientific};
use crate::{
    environments::synthetic::{
        Design, Ending, Generator, Synthetic,
        oracle::{Exact, Values},
    },
    experiment::{Experiment, Figure, Findings, Plot, Series, Settings, Table, median, quantile},
};
use relevo_core::{learner::LearnerSpec, step::StepRule};

/// The experiment.
pub const EXPERIMENT: Experiment = Experiment {
    name: "t2-mixing",
    summary: "what the probability of a handoff and slow mixing do to the error",
    seeds,
    expected: include_str!("mixing.json"),
    run: |settings| Ok(run(settings)),
};

fn seeds(_quick: bool) -> Range<u64> {
    0..20
}

/// p_h, on a chain that moves to neighbours only.
const HANDOFFS: [f64; 6] = [0.05, 0.1, 0.2, 0.4, 0.7, 1.0];
pub(crate) const LOCAL: Generator =
    Generator::Smooth { modes: 8, beta: 0.0, teleport: 0.0, width: 0.7, drift: 0.3 };
const LOCAL_RESTART: f64 = 0.005;
/// Probability of the other block, on a chain that forgets nothing else.
const SWITCHES: [f64; 7] = [0.5, 0.1, 0.03, 0.01, 0.003, 0.001, 0.0003];
const BLOCKS_RESTART: f64 = 1e-6;
const BLOCKS_TIMES: [u64; 5] = [600, 2000, 6000, 20_000, 200_000];

/// One instance.
#[derive(Serialize)]
struct Run {
    /// p_h, or the probability of the other block.
    parameter: f64,
    seed: u64,
    mixing_time: u32,
    /// Of the first values.
    squared_error_before: f64,
    /// At each number of handoffs, in the order asked for.
    squared_errors: Vec<f64>,
}

/// Squared errors after each of `times` handoffs, which ascend.
fn learn(settings: &Settings<'_>, design: Design, parameter: f64, seed: u64, times: &[u64]) -> Option<Run> {
    let env = Synthetic::new(design, seed);
    let exact = Exact::new(&env);
    let error = |q: &Values| exact.squared_error(q, |_, z| z);
    // H = 1 / (1 - gbar)
    let horizon = (1.0 / (1.0 - design.discount_mean())).round() as u32;
    let step = StepRule::Resc { horizon };
    let mut learning = Learning::begin(env, seed, |spec| LearnerSpec { step, ..spec });
    let squared_error_before = error(&learning.values());
    let mut squared_errors = vec![];
    for time in times {
        learning.go_on_until(*time, settings)?;
        squared_errors.push(error(&learning.values()));
    }
    Some(Run {
        parameter,
        seed,
        mixing_time: exact.chain.mixing_time(),
        squared_error_before,
        squared_errors,
    })
}

/// The same number of handoffs, and about the same number of primitive steps, for every p_h.
struct Budgets {
    handoffs: u64,
    steps: u64,
}

impl Budgets {
    fn times(&self, p_h: f64) -> [u64; 2] {
        // tau is 1 / p_h in the mean
        [self.handoffs, (self.steps as f64 * p_h) as u64]
    }
}

fn run(settings: &Settings<'_>) -> Findings {
    let budgets = match settings.quick {
        true => Budgets { handoffs: 50_000, steps: 100_000 },
        false => Budgets { handoffs: 1_000_000, steps: 2_000_000 },
    };
    let local_seeds = settings.seeds.start..settings.seeds.end.min(settings.seeds.start + 5);
    let items: Vec<_> =
        HANDOFFS.iter().flat_map(|&p| local_seeds.clone().map(move |seed| (p, seed))).collect();
    let local = settings.map(&items, |&(p_h, seed)| {
        let design =
            Design { handoff: p_h, generator: LOCAL, ending: Ending::Restart(LOCAL_RESTART), ..DESIGN };
        let asked = budgets.times(p_h);
        let mut times = asked;
        times.sort_unstable();
        let mut run = learn(settings, design, p_h, seed, &times)?;
        if asked != times {
            run.squared_errors.reverse();
        }
        Some(run)
    });
    let times = if settings.quick { &BLOCKS_TIMES[..3] } else { &BLOCKS_TIMES };
    let items: Vec<_> =
        SWITCHES.iter().flat_map(|&s| settings.seeds.clone().map(move |seed| (s, seed))).collect();
    let blocks = settings.map(&items, |&(switch, seed)| {
        let generator = Generator::TwoBlocks { switch };
        let design = Design { generator, ending: Ending::Restart(BLOCKS_RESTART), ..DESIGN };
        learn(settings, design, switch, seed, times)
    });
    let local: Vec<Run> = local.into_iter().flatten().collect();
    let blocks: Vec<Run> = blocks.into_iter().flatten().collect();

    let mut figures = vec![];
    let head = ["p_h", "gbar", "tmix, handoffs", "tmix, steps"].map(str::to_owned);
    let columns =
        [format!("after {} handoffs", budgets.handoffs), format!("after {} primitive steps", budgets.steps)];
    let mut handoff_rows = vec![head.into_iter().chain(columns.clone()).collect::<Vec<_>>()];
    let mut handoff_series = columns.map(|name| Series { name, points: vec![] });
    let mut means: [Vec<f64>; 2] = [vec![], vec![]];
    for p_h in HANDOFFS {
        let of: Vec<&Run> = local.iter().filter(|r| r.parameter == p_h).collect();
        if of.is_empty() {
            continue;
        }
        let mixing = mean(of.iter().map(|r| f64::from(r.mixing_time)));
        let gbar = Design { handoff: p_h, ..DESIGN }.discount_mean();
        let mut row = vec![
            p_h.to_string(),
            format!("{gbar:.3}"),
            format!("{mixing:.1}"),
            format!("{:.0}", mixing / p_h),
        ];
        for (budget, series) in handoff_series.iter_mut().enumerate() {
            let at = || of.iter().map(|r| r.squared_errors[budget]);
            row.push(scientific(at()));
            let y = |q: f64| quantile(at(), q);
            series.points.push([p_h, y(0.25), median(at()), y(0.75)]);
            means[budget].push(mean(at()));
        }
        handoff_rows.push(row);
    }
    for (unit, means) in ["handoffs", "primitive steps"].into_iter().zip(&means) {
        let value = means.last().zip(means.first()).map_or(f64::NAN, |(last, first)| last / first);
        figures.push(Figure { name: format!("error at p_h 1 over that at .05, equal {unit}"), value });
    }
    let mut head = vec!["switch".to_owned(), "tmix, handoffs".to_owned(), "before".to_owned()];
    head.extend(times.iter().map(|t| format!("T = {t}")));
    let mut block_rows = vec![head];
    let mut block_series: Vec<Series> =
        times.iter().map(|t| Series { name: format!("T = {t}"), points: vec![] }).collect();
    let (mut first, mut late) = (vec![], vec![]);
    for switch in SWITCHES {
        let of: Vec<&Run> = blocks.iter().filter(|r| r.parameter == switch).collect();
        if of.is_empty() {
            continue;
        }
        let mixing = mean(of.iter().map(|r| f64::from(r.mixing_time)));
        let before = mean(of.iter().map(|r| r.squared_error_before));
        let mut row = vec![switch.to_string(), format!("{mixing:.0}"), format!("{before:.2}")];
        for (t, series) in block_series.iter_mut().enumerate() {
            let at = || of.iter().map(|r| r.squared_errors[t]);
            row.push(scientific(at()));
            let y = |q: f64| quantile(at(), q);
            series.points.push([mixing, y(0.25), median(at()), y(0.75)]);
        }
        first.push(mean(of.iter().map(|r| r.squared_errors[0])));
        let end = times.len() - 1;
        late.push(mean(of.iter().map(|r| r.squared_errors[end])));
        block_rows.push(row);
    }
    let rises = first.windows(2).filter(|w| w[0] < w[1]).count();
    figures.push(Figure { name: "rises of the error at T = 600, of 6".to_owned(), value: rises as f64 });
    let value = late.last().zip(late.first()).map_or(f64::NAN, |(slow, quick)| slow / quick);
    figures
        .push(Figure { name: "error of the slowest over the quickest mixing, at the end".to_owned(), value });
    let plot = |name: &str, title: &str, x_label: &str, series| Plot {
        name: name.to_owned(),
        title: title.to_owned(),
        x_label: x_label.to_owned(),
        y_label: "squared error: median and quartiles".to_owned(),
        x_log: true,
        y_log: true,
        series,
        levels: vec![],
    };
    let caption = |what: &str| format!("{what}: squared error, mean over seeds ± 95%");
    Findings {
        claim: include_str!("mixing.md").to_owned(),
        tables: vec![
            Table { caption: caption("Probability of a handoff"), rows: handoff_rows },
            Table { caption: caption("Mixing alone"), rows: block_rows },
        ],
        plots: vec![
            plot(
                "handoffs",
                "Local chain: error by the probability of a handoff",
                "p_h",
                handoff_series.into(),
            ),
            plot("mixing", "Two blocks: error by mixing time", "tmix in handoffs", block_series),
        ],
        figures,
        notes: NOTES.to_owned(),
        raw: serde_json::json!({
            "budgets": { "handoffs": budgets.handoffs, "steps": budgets.steps },
            "local": local,
            "two blocks": { "handoffs": times, "runs": blocks },
        }),
    }
}

const NOTES: &str = "Uniform choices, |Z| = 16, noise .5 a primitive step, first values 10, rescaled linear steps with H = 1 / (1 - gbar). \
                     Mixing times are exact: the first handoff after which the law of agent and state is within 1/4 of the stationary one in total \
                     variation, from the worst start. **p_h is no test of mixing**: it changes how long an option lasts, hence how \
                     much data a budget buys, the contraction gbar, and mixing all at once; which way the error goes depends on whether \
                     handoffs or primitive steps are held equal (the number of handoffs in the second is the expected one). The two \
                     blocks change mixing alone, but for the values themselves: with rare switches the halves differ in value and the \
                     first guesses are farther off (column `before`). That moves the first error by a quarter; the error at T = 600 more \
                     than doubles. That steps are counted per situation is why slow mixing costs nothing later: a situation that is met late begins \
                     with large steps. The local chain is run on the first five of the seeds only.";
