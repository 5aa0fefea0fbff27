//! `maths`: whether a team finds the best workflow of a simulated mathematics team ([`crate::environments::maths`]), and how
//! soon, beside learners with other credit.

use core::{ops::Range, sync::atomic::Ordering};

use relevo_core::{
    ids::AgentId,
    learner::{DecisionPoint, LearnerSpec, Regime},
    policy::{EpsilonGreedy, PolicySpec, Ties},
    step::{Schedule, StepRule},
    units::Bounds,
};
use serde::Serialize;

use crate::{
    baselines::{
        Baseline,
        fixed::Fixed,
        monte_carlo_ucb::{Credit, MonteCarloUcb},
        naive::Naive,
        play, single,
    },
    drive::Crew,
    environment::{Environment, EnvironmentSpec, follow},
    environments::maths::{DATASETS, Dataset, Maths},
    experiment::{Experiment, Figure, Findings, Plot, Series, Settings, Table, quantile},
};

/// The experiment.
pub const EXPERIMENT: Experiment = Experiment {
    name: "maths",
    summary: "whether a simulated mathematics team finds the workflow that is best for each dataset",
    seeds,
    expected: include_str!("expected.json"),
    run: |settings| Ok(run(settings)),
};

fn seeds(quick: bool) -> Range<u64> {
    if quick { 0..3 } else { 0..20 }
}

/// Episodes; each budget is a run of its own, as epsilon falls in its first half.
const BUDGETS: [u64; 4] = [1_000, 10_000, 100_000, 1_000_000];
const BUDGETS_QUICK: [u64; 3] = [1_000, 10_000, 30_000];

/// How close to the best workflow is close.
const NEAR: f64 = 0.005;

/// All workflows that the admissible choices leave: the five of Table 1, and its reflection by way of the thinker.
const WORKFLOWS: [(&str, &[u32]); 6] = [
    ("direct (the editor alone)", &[1]),
    ("CoT", &[2, 1]),
    ("reflection", &[1, 3, 1]),
    ("combine-E", &[2, 1, 3, 1]),
    ("combine-T", &[2, 1, 3, 2, 1]),
    ("reflection by the thinker", &[1, 3, 2, 1]),
];

fn workflow(env: &Maths, (_, route): (&str, &[u32])) -> Fixed {
    Fixed::new(env.spec(), &route.iter().copied().map(AgentId).collect::<Vec<_>>())
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Learner {
    IcQ,
    /// Its agents see neither the sender nor what they remember.
    IcQBits,
    MonteCarlo,
    Naive,
}

const LEARNERS: [(&str, Learner); 4] = [
    ("IC-Q, RESC 10", Learner::IcQ),
    ("IC-Q, RESC 10, four bits", Learner::IcQBits),
    ("Monte Carlo UCB", Learner::MonteCarlo),
    ("naive, n^-.7", Learner::Naive),
];

/// What was learned in one budget.
#[derive(Clone, Copy, Serialize)]
struct Check {
    episodes: u64,
    /// The return of the best workflow less that of the greedy policy, exactly.
    regret: f64,
}

/// One learner on one dataset.
#[derive(Serialize)]
struct Run {
    dataset: &'static str,
    learner: &'static str,
    seed: u64,
    checks: Vec<Check>,
}

fn environment(dataset: usize, learner: Learner) -> Maths {
    let env = Maths::new(DATASETS[dataset]);
    if learner == Learner::IcQBits { env.without_history() } else { env }
}

/// The return of the best workflow.
fn best(env: &mut Maths) -> f64 {
    let value = |env: &mut Maths, w| {
        let fixed = workflow(env, w);
        env.expectation(|env, agent| fixed.play(env, agent))
    };
    WORKFLOWS.into_iter().map(|w| value(env, w)).fold(f64::NEG_INFINITY, f64::max)
}

fn learner_spec(width: u32, spec: &EnvironmentSpec, policy: EpsilonGreedy) -> LearnerSpec {
    let bounds = Bounds::new(spec.returns.0, spec.returns.1).expect("an interval");
    LearnerSpec {
        policy: PolicySpec::EpsilonGreedy(policy),
        initial: 0.5,
        step: StepRule::Resc { horizon: 10 },
        ..LearnerSpec::tabular(width, Regime::PreConfigured(DecisionPoint::Before), spec.discount, bounds)
    }
}

/// The return of the greedy policy after `episodes`, exactly; nothing if a stop was asked for.
fn learn(
    learner: Learner,
    env: &mut Maths,
    seed: u64,
    episodes: u64,
    settings: &Settings<'_>,
) -> Option<f64> {
    let epsilon = Schedule::Linear { from: 1.0, to: 0.05, over: episodes / 2 };
    let policy = EpsilonGreedy { epsilon, ties: Ties::First };
    let spec = env.spec().clone();
    let goes_on = |episode: u64| !episode.is_multiple_of(1000) || !settings.stop.load(Ordering::Relaxed);
    let problems = (0..episodes).map(|episode| (episode, seed << 32 | episode));
    let mut baseline: Box<dyn Baseline> = match learner {
        Learner::IcQ | Learner::IcQBits => {
            let mut crew = Crew::new(env, |n| learner_spec(n, &spec, policy), seed).expect("a constant");
            for (episode, problem) in problems {
                if !goes_on(episode) {
                    return None;
                }
                crew.play(env, problem, episode);
            }
            return Some(env.expectation(|env, agent| follow(env, agent, |i, seen| crew.greedy(i, seen))));
        }
        Learner::MonteCarlo => Box::new(MonteCarloUcb::new(&spec, Credit::WholeReturn, 1.0)),
        Learner::Naive => Box::new(Naive::new(&spec, 0.5, StepRule::Poly { exponent: 0.7 }, policy, seed)),
    };
    for (episode, problem) in problems {
        if !goes_on(episode) {
            return None;
        }
        play(&mut *baseline, env, problem, episode, u64::MAX);
    }
    Some(env.expectation(|env, agent| follow(env, agent, |i, seen| baseline.greedy(i, seen))))
}

fn budgets(quick: bool) -> &'static [u64] {
    if quick { &BUDGETS_QUICK } else { &BUDGETS }
}

fn run(settings: &Settings<'_>) -> Findings {
    let seeds = || settings.seeds.clone();
    let datasets = 0..DATASETS.len();
    let pairs = datasets.clone().flat_map(|d| LEARNERS.map(|learner| (d, learner)));
    let items: Vec<_> = pairs.flat_map(|(d, learner)| seeds().map(move |seed| (d, learner, seed))).collect();
    let runs: Vec<Run> = settings.map(&items, |&(dataset, (name, learner), seed)| {
        let mut env = environment(dataset, learner);
        let best = best(&mut env);
        let check = |&episodes: &u64| {
            let value = learn(learner, &mut env, seed, episodes, settings)?;
            Some(Check { episodes, regret: best - value })
        };
        let checks = budgets(settings.quick).iter().map_while(check).collect();
        Run { dataset: DATASETS[dataset].name, learner: name, seed, checks }
    });
    let (table_1, deviation) = table_1(settings);
    let mut figures = vec![Figure { name: "Table 1: largest deviation".to_owned(), value: deviation }];
    let head = |what: &str| {
        let budgets = budgets(settings.quick).iter().map(u64::to_string);
        [what.to_owned(), "learner".to_owned()].into_iter().chain(budgets).collect::<Vec<_>>()
    };
    let (mut found, mut regrets, mut plots) =
        (vec![head("best workflow found")], vec![head("regret")], vec![]);
    for data in &DATASETS {
        let mut series = vec![];
        for (learner, _) in LEARNERS {
            let of = |r: &&Run| r.dataset == data.name && r.learner == learner;
            let of: Vec<&Run> = runs.iter().filter(of).collect();
            let mut found_row = vec![data.name.to_owned(), learner.to_owned()];
            let (mut regret_row, mut points) = (found_row.clone(), vec![]);
            for (i, budget) in budgets(settings.quick).iter().enumerate() {
                let regret: Vec<f64> = of.iter().filter_map(|r| r.checks.get(i)).map(|c| c.regret).collect();
                if regret.is_empty() {
                    continue;
                }
                let at = |q: f64| quantile(regret.iter().copied(), q);
                let within = |bound: f64| regret.iter().filter(|r| **r <= bound).count();
                // Two workflows never have the same value: what is exact up to rounding is the best one.
                let exact = within(1e-9);
                found_row.push(format!("{exact} ({}) of {}", within(NEAR), regret.len()));
                regret_row.push(format!("{:.4}, {:.4}", at(0.5), at(1.0)));
                points.push([*budget as f64, at(0.25), at(0.5), at(0.75)]);
                let mut figure = |what: &str, value| {
                    figures.push(Figure {
                        name: format!("{what} after {budget}: {learner}, {}", data.name),
                        value,
                    });
                };
                figure("largest regret", at(1.0));
                figure("share with the best workflow", exact as f64 / regret.len() as f64);
            }
            found.push(found_row);
            regrets.push(regret_row);
            series.push(Series { name: learner.to_owned(), points });
        }
        let mut row = alone(*data);
        row.resize(regrets[0].len(), String::new());
        regrets.push(row);
        plots.push(Plot {
            name: format!("maths-{}", data.name),
            title: format!("Regret on {} (simulated)", data.name),
            x_label: "episodes".to_owned(),
            y_label: "regret in return: median and quartiles".to_owned(),
            series,
            levels: vec![("within .005".to_owned(), NEAR)],
            x_log: true,
            ..Plot::default()
        });
    }
    let caption = |text: &str| text.to_owned();
    Findings {
        claim: include_str!("README.md").to_owned(),
        tables: vec![
            Table {
                caption: caption("Accuracy of fixed workflows: Table 1 of the paper, simulated, exact"),
                rows: table_1,
            },
            Table {
                caption: caption("Seeds whose greedy workflow is the best one (within .005 of it)"),
                rows: found,
            },
            Table { caption: caption("Regret of the greedy workflow: median, largest"), rows: regrets },
        ],
        plots,
        figures,
        notes: "A calibrated simulator: the accuracies of Table 1 went into it in closed form, so that meeting them says \
                nothing about language models. Regret and exactness are computed over all problems, without sampling. \
                Price of a handoff .00025, start at .5, RESC 10 and epsilon from 1 to .05 over the first half of each \
                budget are ours; each budget is a run of its own. Monte Carlo UCB is told the same as IC-Q. With four bits \
                the agents see neither the sender nor what they remember; that a second author modified the answer tells of a rationale."
            .to_owned(),
        raw: serde_json::to_value(&runs).expect("numbers and text"),
    }
}

/// What is lost by the best agent alone, as a row of the regrets.
fn alone(data: Dataset) -> Vec<String> {
    let mut env = Maths::new(data);
    let spec = env.spec().clone();
    let value = |fixed: &Fixed| env.expectation(|env, agent| fixed.play(env, agent));
    let (agent, value) = single::best(&spec, value).expect("the editor concludes");
    let regret = best(&mut Maths::new(data)) - value;
    let name = format!("the best agent alone ({})", spec.agents[agent.0 as usize]);
    vec![data.name.to_owned(), name, format!("{regret:.4}")]
}

/// The fixed workflows on every dataset, and how far simulation and paper are apart at most.
fn table_1(settings: &Settings<'_>) -> (Vec<Vec<String>>, f64) {
    let problems = if settings.quick { 50_000 } else { 400_000 };
    let cells: Vec<_> = (0..DATASETS.len()).flat_map(|d| (0..WORKFLOWS.len()).map(move |w| (d, w))).collect();
    // A return is 1 or 0 less the price of a few handoffs.
    let right = |episode_return: f64| f64::from(u8::from(episode_return > 0.5));
    let accuracies = settings.map(&cells, |&(d, w)| {
        let mut env = Maths::new(DATASETS[d]);
        let fixed = workflow(&env, WORKFLOWS[w]);
        let exact = env.expectation(|env, agent| right(fixed.play(env, agent)));
        let simulate = |seed: u64| {
            let agent = env.reset(seed);
            right(fixed.play(&mut env, agent))
        };
        (d, w, (0..problems).map(simulate).sum::<f64>() / problems as f64, exact)
    });
    let mut rows =
        vec![["workflow"].into_iter().chain(DATASETS.map(|d| d.name)).map(str::to_owned).collect()];
    rows.extend(WORKFLOWS.map(|(name, _)| vec![name.to_owned()]));
    let mut deviation: f64 = 0.0;
    for (d, w, simulated, exact) in accuracies {
        let paper = DATASETS[d].table.get(w);
        deviation = paper.map_or(deviation, |paper| deviation.max((simulated - paper).abs()));
        let paper = paper.map_or("-".to_owned(), |paper| format!("{paper:.3}"));
        rows[w + 1].push(format!("{paper}, {simulated:.4}, {exact:.4}"));
    }
    (rows, deviation)
}
