//! `t2-width`: how the error falls with the width of a network, where nothing is hidden.

use core::ops::Range;

use relevo_core::{
    learner::{Estimator, LearnerSpec},
    q::{MlpSpec, Optimiser},
    step::StepRule,
};
use serde::Serialize;

use super::{DESIGN, INITIAL, Learning, mean, scientific, slope};
use crate::{
    environments::synthetic::{Design, Generator, Synthetic, oracle::Exact},
    experiment::{Experiment, Figure, Findings, Plot, Series, Settings, Table, median, quantile},
};

/// The experiment.
pub const EXPERIMENT: Experiment = Experiment {
    name: "t2-width",
    summary: "how the error falls with the width of a network",
    seeds,
    expected: include_str!("width.json"),
    run: |settings| Ok(run(settings)),
};

fn seeds(_quick: bool) -> Range<u64> {
    0..3
}

const WIDTHS: [usize; 7] = [2, 4, 8, 16, 32, 64, 128];
/// Values that vary slowly along the ring, so that a few units can follow them roughly and many closely.
pub(crate) const NETWORK_DESIGN: Design = Design {
    states: 64,
    generator: Generator::Smooth { modes: 6, beta: 1.0, teleport: 0.02, width: 1.5, drift: 3.0 },
    features: true,
    ..DESIGN
};
/// A choice in a state is made some 2,600 times in two million handoffs: its rate falls to a 25th.
const STEP: StepRule = StepRule::Resc { horizon: 100 };

/// A width on an instance.
#[derive(Serialize)]
struct Run {
    width: usize,
    seed: u64,
    squared_error: f64,
    /// J of the best policy, less that of the greedy one.
    loss: f64,
}

pub(crate) fn network(width: usize) -> Estimator {
    Estimator::Mlp(MlpSpec {
        inputs: 2,
        hidden: vec![width],
        width: NETWORK_DESIGN.choices(),
        optimiser: Optimiser::adam(5e-3),
        batch: 32,
        trust_radius: None,
        offset: INITIAL,
    })
}

fn learn(settings: &Settings<'_>, width: usize, seed: u64, handoffs: u64) -> Option<Run> {
    let env = Synthetic::new(NETWORK_DESIGN, seed);
    let exact = Exact::new(&env);
    let spec = |spec| LearnerSpec { estimator: network(width), step: STEP, ..spec };
    let mut learning = Learning::begin(env, seed, spec);
    learning.go_on_until(handoffs, settings)?;
    let q = learning.values();
    let value = |q| exact.options.greedy_value(q, |_, z| z);
    let loss = value(&exact.optimum) - value(&q);
    Some(Run { width, seed, squared_error: exact.squared_error(&q, |_, z| z), loss })
}

fn run(settings: &Settings<'_>) -> Findings {
    let (widths, handoffs) = if settings.quick { (&WIDTHS[..5], 300_000) } else { (&WIDTHS[..], 2_000_000) };
    let items: Vec<_> =
        widths.iter().flat_map(|&w| settings.seeds.clone().map(move |seed| (w, seed))).collect();
    let runs = settings.map(&items, |&(width, seed)| learn(settings, width, seed, handoffs));
    let runs: Vec<Run> = runs.into_iter().flatten().collect();
    let head = ["width", "squared error", "loss of the greedy policy"];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    let (mut errors, mut losses, mut curves) = (vec![], vec![], [vec![], vec![]]);
    for &width in widths {
        let of: Vec<&Run> = runs.iter().filter(|r| r.width == width).collect();
        if of.is_empty() {
            continue;
        }
        let numbers: [fn(&Run) -> f64; 2] = [|r| r.squared_error, |r| r.loss];
        let [error, loss] = numbers.map(|number| of.iter().map(|r| number(r)).collect::<Vec<_>>());
        rows.push(vec![
            width.to_string(),
            scientific(error.iter().copied()),
            scientific(loss.iter().copied()),
        ]);
        for (curve, numbers) in curves.iter_mut().zip([&error, &loss]) {
            let y = |q: f64| quantile(numbers.iter().copied(), q);
            curve.push([width as f64, y(0.25), median(numbers.iter().copied()), y(0.75)]);
        }
        errors.push((width as f64, mean(error.iter().copied())));
        losses.push((width as f64, mean(loss.iter().copied())));
    }
    let falls = |means: &[(f64, f64)]| means.windows(2).filter(|w| w[1].1 < w[0].1).count() as f64;
    let figure = |name: &str, value| Figure { name: name.to_owned(), value };
    let mut figures = vec![
        figure("widenings that lower the squared error", falls(&errors)),
        figure("widenings that lower the loss", falls(&losses)),
        figure("slope of the squared error", slope(errors.iter().copied())),
    ];
    for (width, error) in &errors {
        figures.push(figure(&format!("squared error, width {width}"), *error));
    }
    let [errors, losses] = curves;
    Findings {
        claim: include_str!("width.md").to_owned(),
        tables: vec![Table { caption: format!("After {handoffs} handoffs, mean over seeds ± 95%"), rows }],
        plots: vec![Plot {
            name: "width".to_owned(),
            title: "Error by the width of the network".to_owned(),
            x_label: "width".to_owned(),
            y_label: "median and quartiles".to_owned(),
            x_log: true,
            y_log: true,
            series: vec![
                Series { name: "squared error".to_owned(), points: errors },
                Series { name: "loss of the greedy policy".to_owned(), points: losses },
            ],
            levels: vec![],
        }],
        figures,
        notes: NOTES.to_owned(),
        raw: serde_json::to_value(&runs).expect("numbers and text"),
    }
}

const NOTES: &str = "One hidden layer of ReLU units on (cos, sin)(2 pi z / 64), Adam at .005, batches of 32, first values 10, which are \
                     subtracted from the targets; uniform choices, noise .5 a primitive step. Rewards have six frequencies whose \
                     amplitudes fall like 1/m (eight equal ones, tried first, leave more error at every width). The rate falls like `resc` 100 with the visits of a situation's choice, which takes the place \
                     of a straight line in time: the core's step rules count visits. The interval is over instances, whose \
                     difficulty differs more than neighbouring widths do.";
