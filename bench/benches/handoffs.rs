//! The whole loop: a handoff is received, appraised, decided, performed and settled, no ledger kept.

use criterion::Throughput;
use relevo_bench::{
    cpu_time, criterion, median, met, verdict,
    world::{Bare, Kind, World},
};
use relevo_core::protocol::Limits;

const HANDOFFS: u64 = 10_000;

fn main() {
    let mut criterion = criterion();
    // How many ended handoffs each agent remembers: as in the lab, and as a node does by default.
    let lab = 64;
    let node = Limits::default().remembered_max;
    let worlds = [
        ("table", Kind::Table, lab, 5e6),
        ("table-node", Kind::Table, node, 5e6),
        ("linear", Kind::Linear, lab, 1e6),
    ];
    for (name, kind, remembered, goal) in worlds {
        let group_name = format!("handoffs-{name}");
        let mut group = criterion.benchmark_group(&group_name);
        group.throughput(Throughput::Elements(HANDOFFS));
        // Memories of ended handoffs are full from here on.
        let (mut world, mut bare) = (World::new(kind, remembered), Bare::new(kind));
        world.play(40 * HANDOFFS);
        bare.play(40 * HANDOFFS);
        group.bench_function("relevo", |b| {
            b.iter_custom(|n| {
                let start = cpu_time::now();
                // Whole tasks are played: the few handoffs beyond the number asked for are taken out again.
                let played = world.play(n * HANDOFFS);
                (cpu_time::now() - start).mul_f64((n * HANDOFFS) as f64 / played as f64)
            })
        });
        group.bench_function("bare", |b| b.iter(|| bare.play(HANDOFFS)));
        group.finish();
        println!("  mean value at the start, learned: {:.2}", world.values());
        if let (Some(ours), Some(bare)) = (median(&group_name, "relevo"), median(&group_name, "bare")) {
            let (ours, bare) = (ours / HANDOFFS as f64, bare / HANDOFFS as f64);
            let rate = 1e9 / ours;
            let limit = "bookkeeping: handoffs looked up, events and steps in flight moved, the power in the step size";
            verdict(&format!(
                "{name}, {remembered} remembered: {:.2} M handoffs/s ({ours:.0} ns), {:.2} of the goal of {:.0} M/s ({}); {:.1} times the bare arithmetic \
                 and chance ({bare:.0} ns); limited by {limit}",
                rate / 1e6,
                rate / goal,
                goal / 1e6,
                met(rate >= goal),
                ours / bare,
            ));
        }
    }
    criterion.final_summary();
}
