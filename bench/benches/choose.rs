//! Choosing among 16 actions and settling, in a graph of 1,000 and of 10^6 situations met in random order.
//!
//! Situations come one by one as from a list, or (`-chained`) each depends on the choice before it, so that the processor
//! cannot look it up ahead of time.

use std::hint::black_box;

use criterion::BenchmarkId;
use relevo_bench::{
    criterion,
    limits::{Lookup, key, shuffled},
    median, met, verdict,
    world::{AGENTS, Kind, learner, step},
};
use relevo_core::{
    Rng,
    ids::{ActionId, EpisodeId},
    learner::Learner,
    observation::{ActionSet, Observation, Signature},
    record::Table,
};

const SIZES: [(usize, &str); 2] = [(1_000, "1000"), (1_000_000, "1000000")];
const ORDERS: [&str; 2] = ["", "-chained"];

fn learned(n: usize) -> Learner {
    let mut learner = Learner::new(learner(Kind::Table), &mut Rng::stream(1, "bench/initial")).unwrap();
    let mut rng = Rng::stream(1, "bench/learned");
    for i in 0..n as u32 {
        let a = ActionId(rng.below(AGENTS));
        learner.settle(Table::Successors, &step(Signature(key(i)), a), rng.unit());
    }
    learner
}

fn main() {
    let mut criterion = criterion();
    for (n, name) in SIZES {
        let order = shuffled(n);
        let mut learner = learned(n);
        let lookup = Lookup::new(n);
        for chained in ORDERS {
            let mask = if chained.is_empty() { 0 } else { 1 };
            // `depends_on` is 0 or 1.
            let next = |at: &mut usize, depends_on: bool| {
                *at = (*at + 1 + (usize::from(depends_on) & mask)) % n;
                order[*at]
            };
            let id = |what: &str| BenchmarkId::new(format!("{what}{chained}"), name);

            let mut group = criterion.benchmark_group("choose");
            let mut o = Observation::of(Signature(0), ActionSet::all(AGENTS as usize));
            group.bench_function(id("decide"), |b| {
                let (mut rng, mut at, mut a) = (Rng::stream(1, "bench/decide"), 0, 0);
                b.iter(|| {
                    o.signature = Signature(key(next(&mut at, a > 7)));
                    a = learner.decide(Table::Successors, &o, EpisodeId(1), 0, &mut rng).action.0;
                })
            });
            group.bench_function(id("appraise"), |b| {
                let (mut at, mut v) = (0, 0.0);
                b.iter(|| {
                    o.signature = Signature(key(next(&mut at, v > 0.5)));
                    v = learner.appraise(Table::Successors, &o).value.get();
                })
            });
            let graph = learner.graph(Table::Successors).unwrap();
            group.bench_function(id("limit-lookup-and-read"), |b| {
                let (mut at, mut best) = (0, 0.0);
                b.iter(|| {
                    let edges = graph.edges(Signature(key(next(&mut at, best > 0.5)))).unwrap();
                    best = edges.iter().fold(0.0, |best, e| if e.value > best { e.value } else { best });
                    black_box(best)
                })
            });
            group.bench_function(id("limit-lookup"), |b| {
                let (mut at, mut found) = (0, 0);
                b.iter(|| {
                    found = lookup.get(next(&mut at, found & 1 == 1));
                    found
                })
            });
            group.finish();

            let mut group = criterion.benchmark_group("settle");
            group.bench_function(id("settle"), |b| {
                let (mut at, mut step) = (0, step(Signature(0), ActionId(3)));
                let mut error = 0.0;
                b.iter(|| {
                    step.observation.signature = Signature(key(next(&mut at, error > 0.5)));
                    error = learner.settle(Table::Successors, &step, 0.5).error;
                })
            });
            group.finish();

            let measured = |group, id: &str| median(group, &format!("{id}{chained}/{name}"));
            if let (Some(decide), Some(appraise), Some(read), Some(lookup), Some(settle)) = (
                measured("choose", "decide"),
                measured("choose", "appraise"),
                measured("choose", "limit-lookup-and-read"),
                measured("choose", "limit-lookup"),
                measured("settle", "settle"),
            ) {
                let far = n > 100_000;
                let limit =
                    if far { "memory latency" } else { "arithmetic on 16 probabilities and one draw" };
                verdict(&format!(
                    "choose{chained} among 16 of {n}: {decide:.0} ns, {:.2} of the 150 ns allowed ({}); {:.1} times the lookup with \
                     its 16 edges ({read:.0} ns), {:.1} times a lookup alone ({lookup:.0} ns, {:.2} of the 50 ns taken as limit); \
                     limited by {limit}",
                    decide / 150.0,
                    met(decide <= 150.0),
                    decide / read,
                    decide / lookup,
                    lookup / 50.0,
                ));
                verdict(&format!(
                    "appraise{chained} {n}: {appraise:.0} ns, {:.1} times the lookup with its 16 edges; settle: {settle:.0} ns, {:.1} \
                     times a lookup alone; limited by {}",
                    appraise / read,
                    settle / lookup,
                    if far { "the latency of three places in memory" } else { "the step n^-w" }
                ));
            }
        }
    }
    criterion.final_summary();
}
