//! Bytes held per edge (one action in one situation) of a policy graph, all of its tables counted.

use std::{
    alloc::{GlobalAlloc, Layout, System},
    sync::atomic::{AtomicUsize, Ordering},
};

use relevo_bench::{limits::key, met, verdict, world::AGENTS};
use relevo_core::{graph::PolicyGraph, ids::ActionId, observation::Signature, step::StepRule, units::Usage};

/// The system's allocator, counting.
struct Counting;

static HELD: AtomicUsize = AtomicUsize::new(0);

// SAFETY: everything is the system's; only sums are kept beside it.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        HELD.fetch_add(layout.size(), Ordering::Relaxed);
        // SAFETY: as the caller promises.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        HELD.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: as the caller promises.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn main() {
    for (rule, step) in [
        ("poly", StepRule::Poly { exponent: 0.7 }),
        ("poly-average", StepRule::PolyAverage { exponent: 0.7 }),
    ] {
        for edges in [1_000_000, 1_100_000] {
            let before = HELD.load(Ordering::Relaxed);
            let mut graph = PolicyGraph::new(AGENTS as usize, 0.0, step, usize::MAX);
            for i in 0..(edges / AGENTS) {
                graph.settle(Signature(key(i)), ActionId(i % AGENTS), 0.5, 1.0, Usage::default());
            }
            let bytes = (HELD.load(Ordering::Relaxed) - before) as f64 / f64::from(edges);
            let payload = PolicyGraph::bytes_per_edge() as f64;
            let why = if edges == 1_000_000 {
                ""
            } else {
                " (just after the vectors have doubled: the worst moment)"
            };
            verdict(&format!(
                "memory with {rule} at {edges} edges: {bytes:.1} bytes an edge{why}, {:.2} of the 64 allowed ({}); {:.2} times the \
                 {payload} of one edge's numbers; limited by those, and by the spare room of growing vectors",
                bytes / 64.0,
                met(bytes <= 64.0),
                bytes / payload,
            ));
        }
    }
}
