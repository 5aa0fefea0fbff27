//! `compare`: IC-Q and other ways to learn on [`crate::environments::synthetic`], whose best policy is known.

use core::{
    ops::Range,
    sync::atomic::{AtomicBool, Ordering},
};

use relevo::report::Estimate;
use relevo_core::{
    ids::AgentId,
    learner::{DecisionPoint, LearnerSpec, Regime},
    observation::Observation,
    policy::{EpsilonGreedy, PolicySpec, Posterior, Ties},
    record::Table as Kind,
    step::{Schedule, StepRule},
    units::Bounds,
};
use serde::Serialize;

use crate::{
    baselines::{
        Baseline,
        central::Central,
        monte_carlo_ucb::{Credit, MonteCarloUcb},
        naive::Naive,
        next_visit::NextVisit,
        play,
    },
    drive::Crew,
    environment::{Environment, EnvironmentSpec},
    environments::synthetic::{
        Design, Ending, Generator, ObservationMap, Synthetic,
        oracle::{Exact, Values},
    },
    experiment::{Experiment, Figure, Findings, Plot, Series, Settings, Table, quantile},
};

/// The experiment.
pub const EXPERIMENT: Experiment = Experiment {
    name: "compare",
    summary: "what is lost by IC-Q, central, naive, independent and Monte Carlo learners after equal budgets",
    seeds,
    expected: include_str!("expected.json"),
    run: |settings| Ok(run(settings)),
};

fn seeds(quick: bool) -> Range<u64> {
    if quick { 0..3 } else { 0..10 }
}

/// Handoffs; each budget is a run of its own, as epsilon falls in its first half.
const BUDGETS: [u64; 6] = [1_000, 3_000, 10_000, 30_000, 100_000, 300_000];

const DESIGN: Design = Design {
    agents: 4,
    states: 16,
    gamma: 0.95,
    handoff: 0.5,
    ending: Ending::Terminal(0.05),
    noise: 0.5,
    generator: Generator::smooth(8),
    map: ObservationMap::TailMerge,
    rho: 1.0,
    features: false,
};

/// What learns.
#[derive(Clone, Copy)]
enum Learner {
    /// Initial value, steps.
    IcQ(f64, StepRule),
    /// The same, choosing by posterior sampling with this variance.
    Posterior(f64, StepRule, f64),
    Central(f64, StepRule),
    Naive(f64, StepRule),
    NextVisit(f64, StepRule),
    MonteCarlo(Credit),
    /// No learner: the exact fixed point of IC-Q under uniform choices, which is what an interface leaves to be learned.
    FixedPoint,
}

const POLY_8: StepRule = StepRule::Poly { exponent: 0.8 };
const POLY_7: StepRule = StepRule::Poly { exponent: 0.7 };

/// Two that are the same computation.
const IC_Q: &str = "IC-Q, n^-.8";
const CENTRAL: &str = "central, n^-.8";

/// A learner, and what it sees.
struct Contender {
    name: &'static str,
    /// The share of states that its interfaces keep apart.
    rho: f64,
    learner: Learner,
    /// Whether it has a curve; the table holds all.
    drawn: bool,
}

const fn contender(name: &'static str, rho: f64, learner: Learner, drawn: bool) -> Contender {
    Contender { name, rho, learner, drawn }
}

const CONTENDERS: [Contender; 16] = [
    contender(IC_Q, 1.0, Learner::IcQ(6.0, POLY_8), true),
    contender("IC-Q, n^-.7, init 0", 1.0, Learner::IcQ(0.0, POLY_7), false),
    contender("IC-Q, RESC 10, init 0", 1.0, Learner::IcQ(0.0, StepRule::Resc { horizon: 10 }), false),
    contender("IC-Q, n^-.6 averaged", 1.0, Learner::IcQ(6.0, StepRule::PolyAverage { exponent: 0.6 }), false),
    contender("IC-Q, constant .05", 1.0, Learner::IcQ(6.0, StepRule::Constant(0.05)), true),
    contender("IC-Q, n^-.8, posterior sampling", 1.0, Learner::Posterior(6.0, POLY_8, 8.0), true),
    contender(CENTRAL, 1.0, Learner::Central(6.0, POLY_8), true),
    contender("naive, n^-.8", 1.0, Learner::Naive(6.0, POLY_8), true),
    contender("next visit, n^-.8", 1.0, Learner::NextVisit(6.0, POLY_8), true),
    contender("Monte Carlo UCB, whole return", 1.0, Learner::MonteCarlo(Credit::WholeReturn), true),
    contender("Monte Carlo UCB, return to go", 1.0, Learner::MonteCarlo(Credit::ReturnToGo), true),
    contender("IC-Q, n^-.7, rho .5", 0.5, Learner::IcQ(0.0, POLY_7), true),
    contender("fixed point of IC-Q, exact, rho .5", 0.5, Learner::FixedPoint, true),
    contender("next visit, n^-.8, rho .5", 0.5, Learner::NextVisit(6.0, POLY_8), true),
    contender("Monte Carlo UCB, whole return, rho .5", 0.5, Learner::MonteCarlo(Credit::WholeReturn), true),
    contender("Monte Carlo UCB, return to go, rho .5", 0.5, Learner::MonteCarlo(Credit::ReturnToGo), true),
];

/// One learner on one instance.
#[derive(Serialize)]
struct Run {
    learner: &'static str,
    seed: u64,
    /// `(J* - J) / (J* - J_uniform)` of the greedy policy after each budget.
    gaps: Vec<f64>,
}

fn learn(contender: &Contender, seed: u64, budgets: &[u64], stop: &AtomicBool) -> Run {
    let mut env = Synthetic::new(Design { rho: contender.rho, ..DESIGN }, seed);
    let exact = Exact::new(&env);
    let best = exact.options.greedy_value(&exact.optimum, |_, z| z);
    let uniform = exact.options.policy_value(|_, _, _| 1.0 / DESIGN.choices() as f64);
    let gap = |budget: &u64| {
        let learned = train(contender.learner, &exact, &mut env, seed, *budget);
        let value = exact.options.greedy_value(&learned, |i, z| env.observed(i, z));
        (best - value) / (best - uniform)
    };
    let gaps = budgets.iter().take_while(|_| !stop.load(Ordering::Relaxed)).map(gap).collect();
    Run { learner: contender.name, seed, gaps }
}

/// What a learner holds after whole episodes of at least `budget` handoffs: by agent and choice, by observation.
fn train(learner: Learner, exact: &Exact, env: &mut Synthetic, seed: u64, budget: u64) -> Values {
    let spec = env.spec().clone();
    let epsilon = Schedule::Linear { from: 1.0, to: 0.05, over: budget / 2 };
    let policy = EpsilonGreedy { epsilon, ties: Ties::First };
    let mut baseline: Box<dyn Baseline> = match learner {
        Learner::IcQ(initial, step) => {
            return train_crew(initial, step, PolicySpec::EpsilonGreedy(policy), env, seed, budget);
        }
        Learner::Posterior(initial, step, variance) => {
            let policy = PolicySpec::Posterior(Posterior { variance, floor: 0.01 });
            return train_crew(initial, step, policy, env, seed, budget);
        }
        Learner::FixedPoint => {
            let seen = exact.seen_through(env.design().observations(), |i, z| env.observed(i, z));
            return seen.fixed_point;
        }
        Learner::Central(initial, step) => Box::new(Central::new(&spec, initial, step, policy, seed)),
        Learner::Naive(initial, step) => Box::new(Naive::new(&spec, initial, step, policy, seed)),
        Learner::NextVisit(initial, step) => Box::new(NextVisit::new(&spec, initial, step, policy, seed)),
        // A return of about 1 / (1 - gbar) times the reward of an option becomes one of about 1.
        Learner::MonteCarlo(credit) => {
            Box::new(MonteCarloUcb::new(&spec, credit, 1.0 - DESIGN.discount_mean()))
        }
    };
    let mut clock = 0;
    for episode in 0.. {
        if clock >= budget {
            break;
        }
        clock += play(&mut *baseline, env, seed << 32 | episode, clock, u64::MAX);
    }
    values(env, |agent, seen| baseline.values(agent, seen))
}

fn train_crew(
    initial: f64,
    step: StepRule,
    policy: PolicySpec,
    env: &mut Synthetic,
    seed: u64,
    budget: u64,
) -> Values {
    let EnvironmentSpec { discount, returns: (min, max), .. } = *env.spec();
    let bounds = Bounds::new(min, max).expect("an interval");
    let before = Regime::PreConfigured(DecisionPoint::Before);
    let learner =
        |n| LearnerSpec { initial, step, policy, ..LearnerSpec::tabular(n, before, discount, bounds) };
    let mut crew = Crew::new(env, learner, seed).expect("the specification is constant");
    let mut clock = 0;
    for episode in 0.. {
        if clock >= budget {
            break;
        }
        clock += u64::from(crew.play(env, seed << 32 | episode, clock).choices);
    }
    values(env, |agent, seen| crew.participants()[agent.0 as usize].learner().values(Kind::Successors, seen))
}

fn values(env: &Synthetic, of: impl Fn(AgentId, &Observation) -> Vec<f64>) -> Values {
    let seen: Vec<Observation> = (0..env.design().observations()).map(|o| env.observation(o)).collect();
    let row = |agent: usize, choice: usize| -> Vec<f64> {
        seen.iter().map(|o| of(AgentId(agent as u32), o)[choice]).collect()
    };
    let pairs = (0..DESIGN.agents).flat_map(|i| (0..DESIGN.choices()).map(move |c| (i, c)));
    pairs.map(|(i, c)| row(i, c)).collect()
}

fn run(settings: &Settings<'_>) -> Findings {
    let budgets = &BUDGETS[..if settings.quick { 5 } else { 6 }];
    let seeds = || settings.seeds.clone();
    let items: Vec<(&Contender, u64)> =
        CONTENDERS.iter().flat_map(|c| seeds().map(move |seed| (c, seed))).collect();
    let runs = settings.map(&items, |(contender, seed)| learn(contender, *seed, budgets, settings.stop));
    let gaps = |name: &str, i: usize| -> Vec<f64> {
        runs.iter().filter(|r| r.learner == name).filter_map(|r| r.gaps.get(i).copied()).collect()
    };
    let head = ["learner".to_owned()].into_iter().chain(budgets.iter().map(u64::to_string));
    let mut rows = vec![head.collect::<Vec<_>>()];
    let (mut figures, mut plots) = (vec![], vec![]);
    for (rho, name) in [(1.0, "compare"), (0.5, "compare-half-hidden")] {
        let mut series = vec![];
        for Contender { name, drawn, .. } in CONTENDERS.iter().filter(|c| c.rho == rho) {
            let (mut row, mut points) = (vec![(*name).to_owned()], vec![]);
            for (i, budget) in budgets.iter().enumerate() {
                let gaps = gaps(name, i);
                let Some(mean) = Estimate::of(gaps.iter().copied()) else { continue };
                row.push(mean.to_string());
                let at = |q: f64| quantile(gaps.iter().copied(), q);
                points.push([*budget as f64, at(0.25), at(0.5), at(0.75)]);
                let name = format!("relative gap after {budget}: {name}");
                figures.push(Figure { name, value: mean.mean });
            }
            rows.push(row);
            if *drawn {
                series.push(Series { name: (*name).to_owned(), points });
            }
        }
        plots.push(Plot {
            name: name.to_owned(),
            title: format!("What the learned policy still loses, rho {rho}"),
            x_label: "handoffs".to_owned(),
            y_label: "relative gap: median and quartiles".to_owned(),
            series,
            x_log: true,
            y_log: true,
            ..Plot::default()
        });
    }
    let both = (0..budgets.len()).flat_map(|i| gaps(CENTRAL, i).into_iter().zip(gaps(IC_Q, i)));
    let difference = both.map(|(central, ic_q)| (central - ic_q).abs()).fold(0.0, f64::max);
    figures
        .push(Figure { name: "largest difference between IC-Q and central".to_owned(), value: difference });
    Findings {
        claim: include_str!("README.md").to_owned(),
        tables: vec![Table { caption: "Relative gap (J* - J) / (J* - J_uniform), mean ± 95%".to_owned(), rows }],
        plots,
        figures,
        notes: "The environment, the schedules (epsilon from 1 to .05 over the first half of each budget), initial values and \
                budgets are ours; J is exact. Initial value 6 where nothing else is said. The variance of posterior sampling, \
                8, was chosen on seeds 0 to 9 among 1, 2, 4, 8 and 16; quote its figures on seeds from 1000 on. A gap of .025 \
                after 300,000 handoffs was aimed at. With n^-.8 it is met on seeds 1000 to 1009 (.022 ± .008) and missed on \
                0 to 9 (.035 ± .012); other initial values and decaying steps gave .03 to .06 there. Probably an annealed \
                epsilon tries the second best too rarely: posterior sampling, which goes on trying what is uncertain, meets \
                it on both (.016 ± .004 on 1000 to 1009). At rho .5 what remains is the interface's: the fixed point that \
                IC-Q goes to, solved exactly, loses about as much. The central learner sees the state also then: its row is \
                that of rho 1. Agents of the naive rule look at what they would themselves see of the task just handed over."
            .to_owned(),
        raw: serde_json::to_value(&runs).expect("numbers and text"),
    }
}
