//! `chain`: how many episodes each credit assignment and policy needs on the six-agent chain ([`crate::environments::chain`]).

use core::ops::Range;

use relevo_core::{
    Rng,
    learner::{Credit, DecisionPoint, Extensions, LearnerSpec, Regime},
    policy::{EpsilonGreedy, PolicySpec, Posterior, Ties},
    step::{Schedule, StepRule},
    units::{Bounds, Discount},
};
use serde::Serialize;

use crate::{
    drive::Crew,
    environment::Environment,
    environments::chain::{AGENTS, Chain, ChainPolicy},
    experiment::{Experiment, Figure, Findings, Plot, Series, Settings, Table, median, quantile},
};

/// The experiment.
pub const EXPERIMENT: Experiment = Experiment {
    name: "chain",
    summary: "episodes to 90% of the optimum on the six-agent chain, by credit assignment and policy",
    seeds,
    expected: include_str!("expected.json"),
    run: |settings| Ok(run(settings)),
};

fn seeds(quick: bool) -> Range<u64> {
    if quick { 0..8 } else { 0..24 }
}

const EPISODES: u64 = 3000;
const CHECK_EVERY: u64 = 50;

/// One way to learn.
#[derive(Clone, Copy)]
struct Variant {
    name: &'static str,
    scalars: &'static str,
    credit: Credit,
    posterior: bool,
    step: StepRule,
    local_model: bool,
}

const POLY: StepRule = StepRule::Poly { exponent: 0.7 };

const VARIANTS: [Variant; 6] = [
    Variant {
        name: "IC-Q, one step (the paper)",
        scalars: "1",
        credit: Credit::ValuePassing,
        posterior: false,
        step: POLY,
        local_model: false,
    },
    Variant {
        name: "relay, lambda 0 (reverse order)",
        scalars: "1, sent later",
        credit: Credit::Relay { lambda: 0.0 },
        posterior: false,
        step: POLY,
        local_model: false,
    },
    Variant {
        name: "relay, lambda .8",
        scalars: "1, sent later",
        credit: Credit::Relay { lambda: 0.8 },
        posterior: false,
        step: POLY,
        local_model: false,
    },
    Variant {
        name: "posterior sampling, relay 0",
        scalars: "1, sent later",
        credit: Credit::Relay { lambda: 0.0 },
        posterior: true,
        step: POLY,
        local_model: false,
    },
    Variant {
        name: "Monte Carlo (final reward to all)",
        scalars: "1, sent later",
        credit: Credit::Trajectory,
        posterior: false,
        step: StepRule::Mean,
        local_model: false,
    },
    Variant {
        name: "local model (extension)",
        scalars: "more than 1",
        credit: Credit::ValuePassing,
        posterior: false,
        step: POLY,
        local_model: true,
    },
];

impl Variant {
    fn learner(&self, width: u32) -> LearnerSpec {
        let gamma = Discount::new(0.99).expect("a constant");
        let bounds = Bounds::new(-1.0, 1.0).expect("constants");
        LearnerSpec {
            credit: self.credit,
            step: self.step,
            policy: match self.posterior {
                // N(Q, .25 / (n + 1))
                true => PolicySpec::Posterior(Posterior { variance: 0.25, floor: 0.01 }),
                // epsilon_t = max(.05, (1 + t / 150)^-.5)
                false => PolicySpec::EpsilonGreedy(EpsilonGreedy {
                    epsilon: Schedule::Power { floor: 0.05, scale: 150.0, exponent: 0.5 },
                    ties: Ties::First,
                }),
            },
            extensions: Extensions { local_model: self.local_model, ..Extensions::default() },
            ..LearnerSpec::tabular(width, Regime::PreConfigured(DecisionPoint::Before), gamma, bounds)
        }
    }
}

/// One variant on one instance: the normalised value of the greedy policy after every 50 episodes.
#[derive(Serialize)]
struct Run {
    variant: &'static str,
    seed: u64,
    values: Vec<f64>,
}

fn learn(variant: &Variant, seed: u64) -> Run {
    let mut chain = Chain::new(seed);
    let (random, optimal) = (chain.random_value(), chain.optimal_value());
    let mut crew = Crew::new(&chain, |n| variant.learner(n), seed).expect("the specification is constant");
    let mut values = vec![];
    for episode in 0..EPISODES {
        crew.play(&mut chain, seed << 32 | episode, episode);
        if variant.local_model {
            crew.replan();
        }
        if (episode + 1).is_multiple_of(CHECK_EVERY) {
            let policy: ChainPolicy = core::array::from_fn(|h| {
                core::array::from_fn(|s| {
                    crew.greedy(relevo_core::ids::AgentId(h as u32), &Chain::observation(s)).index()
                })
            });
            debug_assert_eq!(chain.spec().agents.len(), AGENTS);
            // (v - v_random) / (v_optimal - v_random)
            values.push((chain.policy_value(&policy) - random) / (optimal - random));
        }
    }
    Run { variant: variant.name, seed, values }
}

/// The episodes before the first check at which the median over runs is at least .9; infinite if there is none.
fn episodes_to_90(runs: &[&Run]) -> f64 {
    let checks = 0..(EPISODES / CHECK_EVERY) as usize;
    let first = checks.clone().find(|c| median(runs.iter().map(|r| r.values[*c])) >= 0.9);
    first.map_or(f64::INFINITY, |c| ((c as u64 + 1) * CHECK_EVERY) as f64)
}

/// The 95% interval of [`episodes_to_90`] over seeds, by drawing as many runs with replacement 400 times (percentiles).
fn bootstrap(runs: &[&Run]) -> [f64; 2] {
    let mut rng = Rng::stream(0, "chain/bootstrap");
    let mut draws =
        || -> Vec<&Run> { runs.iter().map(|_| runs[rng.below(runs.len() as u32) as usize]).collect() };
    let mut reached: Vec<f64> = (0..400).map(|_| episodes_to_90(&draws())).collect();
    reached.sort_by(f64::total_cmp);
    [reached[9], reached[389]]
}

fn shown(episodes: f64) -> String {
    if episodes.is_finite() { format!("{episodes}") } else { format!("> {EPISODES}") }
}

fn run(settings: &Settings<'_>) -> Findings {
    let items: Vec<(&Variant, u64)> =
        VARIANTS.iter().flat_map(|v| settings.seeds.clone().map(move |s| (v, s))).collect();
    let runs = settings.map(&items, |(variant, seed)| learn(variant, *seed));
    let head = [
        "variant",
        "scalars per handoff",
        "AUC, mean ± 95%",
        "episodes to 90% (95%)",
        "value after 3000, median",
    ];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    let (mut series, mut figures) = (vec![], vec![]);
    for variant in &VARIANTS {
        let of: Vec<&Run> = runs.iter().filter(|r| r.variant == variant.name).collect();
        if of.is_empty() {
            continue;
        }
        let checks = (EPISODES / CHECK_EVERY) as usize;
        let at = |check: usize| of.iter().map(move |r| r.values[check]);
        let points: Vec<[f64; 4]> = (0..checks)
            .map(|c| {
                let x = ((c as u64 + 1) * CHECK_EVERY) as f64;
                [x, quantile(at(c), 0.25), median(at(c)), quantile(at(c), 0.75)]
            })
            .collect();
        let reached = episodes_to_90(&of);
        let interval = bootstrap(&of);
        let auc = of.iter().map(|r| r.values.iter().sum::<f64>() / checks as f64);
        let auc = relevo::report::Estimate::of(auc).expect("there are runs");
        rows.push(vec![
            variant.name.to_owned(),
            variant.scalars.to_owned(),
            auc.to_string(),
            format!("{} ({} to {})", shown(reached), shown(interval[0]), shown(interval[1])),
            format!("{:.3}", median(at(checks - 1))),
        ]);
        let figure = |what: &str, value| Figure { name: format!("{what}: {}", variant.name), value };
        figures.push(figure("episodes to 90%", reached));
        figures.push(figure("AUC", auc.mean));
        series.push(Series { name: variant.name.to_owned(), points });
    }
    Findings {
        claim: include_str!("README.md").to_owned(),
        tables: vec![Table { caption: "Sample efficiency on the chain".to_owned(), rows }],
        plots: vec![Plot {
            name: "chain".to_owned(),
            title: "Six-agent chain: value of the learned policy".to_owned(),
            x_label: "episode".to_owned(),
            y_label: "value (0 random, 1 optimal): median and quartiles".to_owned(),
            series,
            levels: vec![("90%".to_owned(), 0.9)], ..Plot::default() }],
        figures,
        notes: "The environment and the schedules are ours: see the module of the environment, and `docs/paper.md` D7 and \
                D8 for relay credit and the local model. The value is exact: policy evaluation by backward induction. The \
                episode at which a median of 24 instances first crosses a line is a noisy figure: its interval over seeds \
                (bootstrap) is wider than most differences between variants with one scalar; AUC tells them apart better."
            .to_owned(),
        raw: serde_json::to_value(&runs).expect("numbers and text"),
    }
}
