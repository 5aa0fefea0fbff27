use super::*;
use proptest::prelude::*;

proptest! {
    /// Mean and M2 equal the two-pass ones of the same samples, in any interleaving of edges.
    #[test]
    fn sums_are_those_of_the_samples(
        samples in proptest::collection::vec((0u64..5, 0u32..3, -10.0f64..10.0, 0u64..1000), 1..200)
    ) {
        let mut graph = PolicyGraph::new(3, 0.5, StepRule::Mean, 100);
        for (s, a, y, tokens) in &samples {
            let step = graph.next_step(Signature(*s), ActionId(*a));
            graph.settle(Signature(*s), ActionId(*a), *y, step, Usage { tokens: *tokens, failures: 1 });
        }
        for s in 0..5 {
            for a in 0..3 {
                let ys: alloc::vec::Vec<f64> =
                    samples.iter().filter(|x| x.0 == s && x.1 == a).map(|x| x.2).collect();
                let Some(edges) = graph.edges(Signature(s)) else { prop_assert!(ys.is_empty()); continue };
                let (edge, sums) = (edges[a as usize], graph.sums(Signature(s)).unwrap()[a as usize]);
                prop_assert_eq!(edge.visits as usize, ys.len());
                prop_assert_eq!(edge.failures as usize, ys.len());
                if ys.is_empty() { prop_assert_eq!(edge.value, 0.5); continue }
                let mean = ys.iter().sum::<f64>() / ys.len() as f64;
                let m2: f64 = ys.iter().map(|y| (y - mean) * (y - mean)).sum();
                prop_assert!((edge.value - mean).abs() < 1e-9);
                prop_assert!((sums.targets / ys.len() as f64 - mean).abs() < 1e-9);
                prop_assert!((sums.targets_m2 - m2).abs() < 1e-7);
            }
        }
    }
}

#[test]
fn a_full_graph_keeps_the_rest_together() {
    let mut graph = PolicyGraph::new(1, 0.0, StepRule::Constant(1.0), 3);
    for s in 0..10 {
        graph.settle(Signature(s), ActionId(0), s as f64, 1.0, Usage::default());
    }
    assert_eq!(graph.signatures(), [Signature(0), Signature(1), PolicyGraph::OTHER]);
    assert_eq!(graph.edges(Signature(1)).unwrap()[0].value, 1.0);
    assert_eq!(graph.edges(Signature(7)).unwrap()[0], Edge { value: 9.0, visits: 8, failures: 0 });
}

#[test]
fn a_miss_counts_against_a_choice_and_says_nothing_of_its_value() {
    let mut graph = PolicyGraph::new(2, 0.5, StepRule::Mean, 10);
    let (here, there, a) = (Signature(1), Signature(2), ActionId(1));
    graph.miss(here, a, 2);
    assert_eq!(graph.edges(here).unwrap()[1], Edge { value: 0.5, visits: 0, failures: 2 });
    assert_eq!((graph.visits(here), graph.leads(here)), (0, None));
    graph.lead(here, a, there);
    graph.settle(there, ActionId(0), 1.0, 1.0, Usage::default());
    assert_eq!(graph.leads(here), Some(&[None, Some(there)][..]));
    assert_eq!(graph.leads(there).unwrap_or(&[None, None]), [None, None]);
}

#[test]
fn equal_samples_in_another_order_of_visits_have_the_mean_of_their_sum() {
    let mut graph = PolicyGraph::new(1, 0.0, StepRule::Mean, 10);
    let samples = [0.1, 0.7, 0.2, 0.9, 0.3];
    for y in samples {
        graph.settle_here(Signature(1), ActionId(0), y, Usage::default(), Confidence::FULL);
    }
    let value = graph.edges(Signature(1)).unwrap()[0].value;
    assert_eq!(value.to_bits(), (samples.iter().sum::<f64>() / 5.0).to_bits());
}

#[test]
fn an_edge_takes_at_most_64_bytes() {
    assert!(PolicyGraph::bytes_per_edge() <= 64);
}

#[test]
fn what_is_trusted_less_moves_the_estimate_less() {
    let mut graph = PolicyGraph::new(1, 0.0, StepRule::Mean, 10);
    let mut settle = |y, confidence| {
        let confidence = Confidence::new(confidence).unwrap();
        graph.settle_here(Signature(1), ActionId(0), y, Usage::default(), confidence);
        graph.edges(Signature(1)).unwrap()[0].value
    };
    assert_eq!(settle(1.0, 1.0), 1.0);
    assert_eq!(settle(0.0, 0.5), 0.75, "half of the step 1/2");
    assert_eq!(settle(0.0, 1.0), 0.5, "1/3 of the way, and not the mean of the sums");
    assert_eq!(settle(9.0, 0.0), 0.5, "a visit, and no move");
}
