//! `routing`: how many packets teach a network to deliver, and to deliver on shortest paths ([`crate::environments::routing`]).

use core::{
    ops::Range,
    sync::atomic::{AtomicBool, Ordering},
};

use relevo_core::{
    Rng,
    graph::{Edge, Sums},
    ids::ActionId,
    learner::{DecisionPoint, Extensions, LearnerSpec, Regime},
    policy::{EpsilonGreedy, PolicySpec, Ties},
    record::Table as Values,
    step::{Schedule, StepRule},
    units::{Bounds, Discount},
};
use serde::Serialize;

use crate::{
    drive::Crew,
    environments::routing::{Network, Routing, Shape},
    experiment::{Experiment, Figure, Findings, Plot, Series, Settings, Table, median, quantile},
};

/// The experiment.
pub const EXPERIMENT: Experiment = Experiment {
    name: "routing",
    summary: "episodes to delivery and to shortest paths on four families of networks, plain and with refreshed values",
    seeds,
    expected: include_str!("expected.json"),
    run: |settings| Ok(run(settings)),
};

fn seeds(quick: bool) -> Range<u64> {
    if quick { 1..4 } else { 1..6 }
}

/// Checks are made after so many episodes, growing by a quarter each.
const FIRST_CHECK: u64 = 100;
/// Pairs on which larger networks are checked.
const PAIRS: usize = 2000;
/// Up to here all pairs are checked.
const ALL_PAIRS: usize = 50;
/// Share of congested nodes in the second part.
const CONGESTED: f64 = 0.2;

/// One way to learn.
#[derive(Clone, Copy)]
struct Variant {
    name: &'static str,
    /// Begin with what a node knows of its neighbourhood, instead of 0: -1 to an adjacent destination, -2 else.
    informed: bool,
    refresh: Option<f64>,
    epsilon: f64,
}

const PLAIN: Variant = Variant { name: "IC-Q (the paper)", informed: false, refresh: None, epsilon: 0.0 };
const INFORMED: Variant = Variant { name: "IC-Q, local start", informed: true, ..PLAIN };
const REFRESHED: Variant =
    Variant { name: "IC-Q, local start, refresh (extension)", refresh: Some(0.0), ..INFORMED };
const VARIANTS: [Variant; 3] = [PLAIN, INFORMED, REFRESHED];

/// Where nodes detain at random: steps that shrink, and some exploration.
const CONGESTED_VARIANTS: [Variant; 3] = [
    INFORMED,
    Variant { name: "IC-Q, local start, epsilon .2", epsilon: 0.2, ..INFORMED },
    Variant {
        name: "IC-Q, local start, epsilon .2, refresh beyond .25 (extension)",
        epsilon: 0.2,
        refresh: Some(0.25),
        ..INFORMED
    },
];

impl Variant {
    fn learner(&self, width: u32, network: &Network, congested: f64) -> LearnerSpec {
        let bounds = Bounds::new(-f64::from(network.steps_max()), 0.0).expect("an interval");
        LearnerSpec {
            initial: if self.informed { -2.0 } else { 0.0 },
            step: match congested > 0.0 {
                false => StepRule::Constant(1.0),
                true => StepRule::Resc { horizon: 10 },
            },
            policy: PolicySpec::EpsilonGreedy(EpsilonGreedy {
                epsilon: Schedule::Constant(self.epsilon),
                ties: Ties::Random,
            }),
            extensions: Extensions { refresh: self.refresh, ..Extensions::default() },
            ..LearnerSpec::tabular(
                width,
                Regime::PreConfigured(DecisionPoint::Before),
                Discount::NONE,
                bounds,
            )
        }
    }

    fn crew(&self, env: &Routing, congested: f64, seed: u64) -> Crew {
        let network = env.network();
        let mut crew = Crew::new(env, |width| self.learner(width, network, congested), seed)
            .expect("the specification is constant");
        if self.informed {
            for (node, participant) in crew.participants_mut().iter_mut().enumerate() {
                let graph = participant.learner_mut().graph_mut(Values::Successors).expect("it always is");
                for (column, neighbour) in network.neighbours(node).iter().enumerate() {
                    let edge = Edge { value: -1.0, visits: 0, failures: 0 };
                    let (signature, action) =
                        (Network::signature(*neighbour, false), ActionId(column as u32));
                    graph.restore(signature, action, edge, Sums::default(), edge.value);
                }
            }
        }
        crew
    }
}

/// What one run is about.
#[derive(Clone, Copy)]
struct Item {
    shape: Shape,
    nodes: usize,
    congested: f64,
    variant: Variant,
    episodes_max: u64,
    seed: u64,
}

/// The shares of pairs after some episodes.
#[derive(Clone, Copy, Serialize)]
struct Check {
    episodes: u64,
    hops: u64,
    values: u64,
    delivered: f64,
    shortest: f64,
}

/// One variant on one network.
#[derive(Serialize)]
struct Run {
    shape: &'static str,
    nodes: usize,
    congested: f64,
    variant: &'static str,
    seed: u64,
    checks: Vec<Check>,
    seconds: f64,
}

impl Run {
    fn last(&self) -> &Check {
        self.checks.last().expect("there is a first check")
    }

    fn episodes_to(&self, share: impl Fn(&Check) -> f64) -> f64 {
        self.checks.iter().find(|c| share(c) == 1.0).map_or(f64::INFINITY, |c| c.episodes as f64)
    }
}

/// The pairs on which a network is checked, with the least cost of each.
fn pairs(network: &Network, seed: u64) -> Vec<(usize, usize, f64)> {
    let n = network.nodes();
    let mut pairs: Vec<(usize, usize)> = if n <= ALL_PAIRS {
        (0..n).flat_map(|d| (0..n).map(move |s| (s, d))).filter(|(s, d)| s != d).collect()
    } else {
        let mut rng = Rng::stream(seed, "routing/pairs");
        let mut draw = || (rng.below(n as u32) as usize, rng.below(n as u32) as usize);
        std::iter::repeat_with(&mut draw).filter(|(s, d)| s != d).take(PAIRS).collect()
    };
    pairs.sort_by_key(|(s, d)| (*d, *s));
    let mut costs: (usize, Vec<f64>) = (usize::MAX, vec![]);
    let mut with_cost = |(s, d)| {
        if costs.0 != d {
            costs = (d, network.costs_to(d));
        }
        (s, d, costs.1[s])
    };
    pairs.into_iter().map(&mut with_cost).collect()
}

/// Send a packet by the best known choices, ties at random: the expected cost of the path it takes, if it arrives in time.
fn path_cost(crew: &Crew, network: &Network, from: usize, to: usize, rng: &mut Rng) -> Option<f64> {
    let (mut at, mut cost) = (from, 0.0);
    for _ in 0..network.steps_max() {
        let neighbours = network.neighbours(at);
        let graph = crew.participants()[at].learner().graph(Values::Successors).expect("it always is");
        let edges = graph.edges(Network::signature(to, false));
        let value = |column: usize| edges.map_or(0.0, |e| e[column].value);
        let best = (0..neighbours.len()).map(value).fold(f64::NEG_INFINITY, f64::max);
        let ties = (0..neighbours.len()).filter(|c| value(*c) == best).count() as u32;
        let nth = if ties == 1 { 0 } else { rng.below(ties) as usize };
        let column =
            (0..neighbours.len()).filter(|c| value(*c) == best).nth(nth).expect("it is below the count");
        at = neighbours[column];
        cost += network.cost(at, to);
        if at == to {
            return Some(cost);
        }
    }
    None
}

/// A run; `None` if it was stopped.
fn learn(item: &Item, stop: &AtomicBool) -> Option<Run> {
    let started = std::time::Instant::now();
    let mut env = Routing::new(Network::generate(item.shape, item.nodes, item.congested, item.seed));
    let network = env.network().clone();
    let mut crew = item.variant.crew(&env, item.congested, item.seed);
    let pairs = pairs(&network, item.seed);
    let mut rng = Rng::stream(item.seed, "routing/checks");
    let (mut hops, mut values, mut next_check, mut checks) = (0, 0, FIRST_CHECK, vec![]);
    for episode in 1..=item.episodes_max {
        if stop.load(Ordering::Relaxed) {
            return None;
        }
        let played = crew.play(&mut env, item.seed << 32 | episode, episode);
        hops += u64::from(played.choices);
        values += played.values;
        if episode == next_check || episode == item.episodes_max {
            next_check = (next_check * 5).div_ceil(4);
            let (mut delivered, mut shortest) = (0, 0);
            for (from, to, least) in &pairs {
                if let Some(cost) = path_cost(&crew, &network, *from, *to, &mut rng) {
                    delivered += 1;
                    shortest += usize::from(cost < least + 1e-9);
                }
            }
            let share = |n: usize| n as f64 / pairs.len() as f64;
            let (delivered, shortest) = (share(delivered), share(shortest));
            checks.push(Check { episodes: episode, hops, values, delivered, shortest });
            if shortest == 1.0 {
                break;
            }
        }
    }
    Some(Run {
        shape: item.shape.name(),
        nodes: item.nodes,
        congested: item.congested,
        variant: item.variant.name,
        seed: item.seed,
        checks,
        seconds: started.elapsed().as_secs_f64(),
    })
}

/// What is run: networks without congestion of all sizes, then congested ones.
fn items(settings: &Settings<'_>) -> Vec<Item> {
    let mut items = vec![];
    let mut add =
        |nodes: usize, congested, shapes: &[Shape], variants: &[Variant], episodes_max, seeds: Range<u64>| {
            for seed in seeds {
                for (shape, variant) in shapes.iter().flat_map(|s| variants.iter().map(move |v| (*s, *v))) {
                    items.push(Item { shape, nodes, congested, variant, episodes_max, seed });
                }
            }
        };
    let seeds = &settings.seeds;
    let first = |n: u64| seeds.start..seeds.end.min(seeds.start + n);
    // The longest first, so that no thread waits for another in the end.
    if !settings.quick {
        add(1000, 0.0, &Shape::ALL, &[REFRESHED], 8_000_000, first(1));
        // Without refresh they are not awaited: what is reached by then is told.
        add(1000, 0.0, &Shape::ALL, &[INFORMED], 100_000, first(1));
        add(200, 0.0, &Shape::ALL, &VARIANTS, 4_000_000, first(2));
    }
    add(10, 0.0, &Shape::ALL, &VARIANTS, 20_000, seeds.clone());
    add(50, 0.0, &Shape::ALL, &VARIANTS, 400_000, seeds.clone());
    let congested = if settings.quick { (10, 20_000) } else { (50, 100_000) };
    add(congested.0, CONGESTED, &Shape::ALL, &CONGESTED_VARIANTS, congested.1, seeds.clone());
    items
}

/// Median, and the smallest and largest.
fn spread(numbers: &[f64]) -> String {
    let show = |x: f64| if x.is_finite() { format!("{x:.0}") } else { "not".to_owned() };
    let of = |q| show(quantile(numbers.iter().copied(), q));
    if numbers.iter().all(|x| x.is_infinite()) {
        return "not reached".to_owned();
    }
    format!("{} ({} to {})", of(0.5), of(0.0), of(1.0))
}

fn run(settings: &Settings<'_>) -> Findings {
    let items = items(settings);
    let runs = settings.map(&items, |item| learn(item, settings.stop));
    let runs: Vec<Run> = runs.into_iter().flatten().collect();
    let head = [
        "nodes",
        "network",
        "learner",
        "runs",
        "runs at 100% shortest",
        "delivered / shortest at the end, mean %",
        "episodes to 100% delivery",
        "episodes to 100% shortest",
        "handoffs",
        "values per handoff",
        "seconds",
    ];
    let tables: [Vec<Vec<String>>; 2] =
        [vec![head.map(str::to_owned).to_vec()], vec![head.map(str::to_owned).to_vec()]];
    let (mut tables, mut figures) = (tables, vec![]);
    let mut told = vec![];
    for run in &runs {
        let kind = (run.shape, run.nodes, run.congested > 0.0, run.variant);
        if told.contains(&kind) {
            continue;
        }
        told.push(kind);
        let of: Vec<&Run> =
            runs.iter().filter(|r| (r.shape, r.nodes, r.congested > 0.0, r.variant) == kind).collect();
        let all = |number: &dyn Fn(&Run) -> f64| of.iter().map(|r| number(r)).collect::<Vec<f64>>();
        let mean = |number: &dyn Fn(&Run) -> f64| all(number).iter().sum::<f64>() / of.len() as f64;
        let delivery = all(&|r| r.episodes_to(|c| c.delivered));
        let shortest = all(&|r| r.episodes_to(|c| c.shortest));
        let solved = shortest.iter().filter(|e| e.is_finite()).count();
        let (delivered_share, shortest_share) = (mean(&|r| r.last().delivered), mean(&|r| r.last().shortest));
        let handoffs = all(&|r| r.last().hops as f64);
        let values = all(&|r| r.last().values as f64 / r.last().hops as f64);
        tables[usize::from(kind.2)].push(vec![
            kind.1.to_string(),
            kind.0.to_owned(),
            kind.3.to_owned(),
            of.len().to_string(),
            solved.to_string(),
            format!("{:.2} / {:.2}", 100.0 * delivered_share, 100.0 * shortest_share),
            spread(&delivery),
            spread(&shortest),
            spread(&handoffs),
            format!("{:.2}", median(values)),
            format!("{:.1}", median(all(&|r| r.seconds))),
        ]);
        let congested = if kind.2 { "congested " } else { "" };
        let mut figure = |what: &str, value: f64| {
            let name = format!("{what}: {congested}{} {}, {}", kind.0, kind.1, kind.3);
            figures.push(Figure { name, value: if value.is_finite() { value } else { f64::MAX } });
        };
        figure("share delivered", delivered_share);
        figure("share shortest", shortest_share);
        figure("episodes to 100% shortest", median(shortest));
    }
    let [plain, congested] = tables;
    Findings {
        claim: include_str!("README.md").to_owned(),
        tables: vec![
            Table { caption: "Without congestion: median (smallest to largest) over seeds".to_owned(), rows: plain },
            Table { caption: "A fifth of the nodes congested".to_owned(), rows: congested },
        ],
        plots: Shape::ALL.iter().filter_map(|shape| plot(*shape, &runs)).collect(),
        figures,
        notes: "Networks, pairs, deadline and starting values are ours: see the module of the environment, and `docs/paper.md` D8 \
                for refresh, which sends more than one scalar per handoff. A check sends one packet per pair by the best known \
                choices, ties at random, and compares the expected cost of its path with the least one (Dijkstra); a run ends at \
                the first check at which all are shortest. Checks are a quarter apart, so episodes are known to 25%. Delivery may \
                fall again after its first 100% while optimism is resolved. The handoffs include those of detained packets to \
                themselves; values per handoff count what agents sent to one another, opening handoffs apart."
            .to_owned(),
        raw: serde_json::to_value(&runs).expect("numbers and text"),
    }
}

/// The share of shortest paths by episodes on 50 nodes; a run that has ended stays where it was.
fn plot(shape: Shape, runs: &[Run]) -> Option<Plot> {
    let of = |variant: &Variant| -> Vec<&Run> {
        let mine =
            |r: &&Run| (r.shape, r.nodes, r.congested, r.variant) == (shape.name(), 50, 0.0, variant.name);
        runs.iter().filter(mine).collect()
    };
    let series = VARIANTS.iter().map(|variant| {
        let runs = of(variant);
        let longest = runs.iter().max_by_key(|r| r.checks.len())?;
        let points = longest.checks.iter().enumerate().map(|(i, check)| {
            let at = || runs.iter().map(|r| r.checks.get(i).unwrap_or(r.last()).shortest);
            [check.episodes as f64, quantile(at(), 0.25), median(at()), quantile(at(), 0.75)]
        });
        Some(Series { name: variant.name.to_owned(), points: points.collect() })
    });
    Some(Plot {
        name: format!("routing-{}", shape.name().to_lowercase()),
        title: format!("{}, 50 nodes: pairs on shortest paths", shape.name()),
        x_label: "episode".to_owned(),
        y_label: "share of pairs: median and quartiles".to_owned(),
        series: series.collect::<Option<_>>()?,
        levels: vec![("100%".to_owned(), 1.0)],
        ..Plot::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Ten nodes, every family and variant, two seeds: all pairs on shortest paths within 20,000 episodes (the largest seen on
    /// other seeds is below 3,000); without refresh there is exactly one value for each handoff but the last.
    #[test]
    fn small_networks_learn_all_shortest_paths() {
        for (shape, variant) in Shape::ALL.into_iter().flat_map(|s| VARIANTS.map(|v| (s, v))) {
            for seed in [1, 2] {
                let item = Item { shape, nodes: 10, congested: 0.0, variant, episodes_max: 20_000, seed };
                let run = learn(&item, &AtomicBool::new(false)).expect("nobody stops it");
                let last = run.last();
                assert_eq!(
                    (last.delivered, last.shortest),
                    (1.0, 1.0),
                    "{} {} {seed}",
                    run.shape,
                    run.variant
                );
                if variant.refresh.is_none() {
                    assert_eq!(last.values, last.hops - last.episodes);
                }
            }
        }
    }
}
