//! The contracts, applied to what the crate ships, and shown to catch what breaks them.

mod common;

use common::*;
use proptest::prelude::*;
use relevo_core::{
    Rng,
    contract::{obeys_policy_laws, obeys_q_laws},
    graph::{Edge, PolicyGraph},
    ids::{ActionId, EpisodeId},
    observation::{ActionSet, Features, Observation, Signature},
    policy::{Decision, EpsilonGreedy, Numbers, Policy, PolicySpec, Posterior, Scores, Ties, Ucb},
    pools::PooledSpec,
    q::{Inputs, Linear, LinearSpec, LmsRule, Mlp, MlpSpec, Optimiser, QFunction},
    step::{Schedule, StepRule},
};
use std::{cell::Cell, panic};

fn policies() -> Vec<PolicySpec> {
    let schedules = [
        Schedule::Constant(0.0),
        Schedule::Constant(0.1),
        Schedule::Constant(1.0),
        Schedule::Linear { from: 1.0, to: 0.05, over: 10 },
        Schedule::Power { floor: 0.05, scale: 150.0, exponent: 0.5 },
    ];
    let mut all = vec![
        PolicySpec::Ucb(Ucb::default()),
        PolicySpec::Ucb(Ucb { floor: 1.0, ties: Ties::Random, ..Ucb::default() }),
        PolicySpec::Posterior(Posterior { variance: 0.25, floor: 0.05 }),
        PolicySpec::Posterior(Posterior { variance: 1e-12, floor: 1e-6 }),
        PolicySpec::Posterior(Posterior { variance: 1e6, floor: 1.0 }),
    ];
    for (epsilon, ties) in schedules.into_iter().flat_map(|s| [(s, Ties::First), (s, Ties::Random)]) {
        all.push(PolicySpec::EpsilonGreedy(EpsilonGreedy { epsilon, ties }));
    }
    all
}

#[test]
fn the_policy_graph_obeys_the_laws_of_q_functions() {
    let observations: Vec<Observation> = (0..6).map(|s| seen(s, 3)).collect();
    for step in [StepRule::Constant(0.3), StepRule::PolyAverage { exponent: 0.6 }, StepRule::Mean] {
        for nodes_max in [1, 3, 100] {
            obeys_q_laws(|| PolicyGraph::new(3, 0.125, step, nodes_max), &observations);
        }
    }
}

#[test]
fn a_graph_with_pools_obeys_the_laws_of_q_functions() {
    let coarser = with_features(|s| Features::Coarser([Signature(90), Signature(80 + s / 2)].into()));
    for step in [StepRule::Constant(0.3), StepRule::PolyAverage { exponent: 0.6 }, StepRule::Mean] {
        for (groups, nodes_max) in
            [(vec![], 100), (vec![vec![0, 2], vec![1], vec![0, 1, 3]], 100), (vec![], 2)]
        {
            let spec = PooledSpec { groups, strength: 2.5 };
            let make = || PolicyGraph::new(3, 0.125, step, nodes_max).with_pools(spec.clone());
            obeys_q_laws(make, &coarser);
        }
    }
}

fn with_features(features: impl Fn(u64) -> Features) -> Vec<Observation> {
    (0..5).map(|s| Observation { features: features(s), ..seen(s, 3) }).collect()
}

#[test]
fn linear_values_obey_the_laws_of_q_functions() {
    let dense = with_features(|s| Features::Dense([1.0, s as f32 / 4.0 - 0.5, -(s as f32)].into()));
    let sparse = with_features(|s| Features::Sparse([(s as u32, 1.0), (900 + s as u32 / 2, 0.5)].into()));
    for (inputs, observations) in [(Inputs::Dense(3), dense), (Inputs::Hashed { bits: 6 }, sparse)] {
        let spec = LinearSpec { inputs, width: 3, init: 0.125, rule: LmsRule::Normalised };
        obeys_q_laws(|| Linear::new(spec.clone()).unwrap(), &observations);
    }
}

#[test]
fn networks_obey_the_laws_of_q_functions() {
    let observations = with_features(|s| Features::Dense([1.0, s as f32 / 4.0 - 0.5].into()));
    for (optimiser, trust_radius) in [
        (Optimiser::Sgd { rate: 0.1 }, None),
        (Optimiser::Sgd { rate: 0.1 }, Some(10.0)),
        (Optimiser::adam(0.001), None),
    ] {
        for hidden in [vec![], vec![16], vec![32, 32]] {
            let spec =
                MlpSpec { inputs: 2, hidden, width: 3, optimiser, batch: 1, trust_radius, offset: 0.125 };
            obeys_q_laws(|| Mlp::new(spec.clone(), &mut Rng::stream(5, "network")).unwrap(), &observations);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]

    /// All policies, in situations of any width, with ties, extreme values, and anything from nothing to much known.
    #[test]
    fn every_policy_obeys_the_laws_of_policies(
        cells in proptest::collection::vec((prop_oneof![
            3 => (-4i32..4).prop_map(f64::from),
            3 => -1.0..1.0f64,
            1 => prop_oneof![Just(1e18), Just(-1e18), Just(1e300), Just(-1e300), Just(1e-300)],
        ], prop_oneof![0u32..4, any::<u32>()], 0u32..4, 0.0..2.0f64), 1..24),
        illegal in any::<u128>(),
        known in any::<(bool, bool, bool)>(),
        seed in any::<u64>(),
    ) {
        let values: Vec<f64> = cells.iter().map(|c| c.0).collect();
        let edges: Vec<Edge> =
            cells.iter().map(|c| Edge { value: c.0, visits: c.1, failures: c.2 }).collect();
        let spreads: Vec<f64> = cells.iter().map(|c| c.3).collect();
        let legal: ActionSet = (0..cells.len() as u32).filter(|a| a % 7 == 0 || illegal >> a & 1 == 0).map(ActionId).collect();
        let scores = Scores {
            legal: &legal,
            values: &values,
            edges: if known.0 { &edges } else { &[] },
            spreads: if known.1 { &spreads } else { &[] },
            pseudo: if known.2 { &spreads } else { &[] },
            signature: Signature(seed),
            episode: EpisodeId(0),
            clock: seed % 20,
        };
        for policy in policies() {
            obeys_policy_laws(&policy, &[scores], seed);
        }
    }
}

/// Values so large that their deviations vanish: probabilities are still numbers, and that of the choice is positive.
#[test]
fn posterior_sampling_bears_values_of_any_size() {
    for values in [[1e18, 1e18, 0.0], [0.0, 1e300, 1e300], [-1e300, -1e300, -1e300], [1e16, 1e16 + 2.0, 1e16]]
    {
        let scores = Scores {
            legal: &ActionSet::all(3),
            values: &values,
            edges: &[],
            spreads: &[],
            pseudo: &[],
            signature: Signature(1),
            episode: EpisodeId(0),
            clock: 0,
        };
        obeys_policy_laws(&PolicySpec::Posterior(Posterior { variance: 0.25, floor: 0.01 }), &[scores], 1);
    }
}

// ---- A contract that nothing can break is worth nothing ------------------------------------------------------------

/// What the law says when it is broken.
fn complaint(law: impl FnOnce() + panic::UnwindSafe) -> String {
    let error = panic::catch_unwind(law).expect_err("the law does not notice");
    error
        .downcast_ref::<String>()
        .cloned()
        .or_else(|| error.downcast_ref::<&str>().map(|s| s.to_string()))
        .unwrap()
}

/// A table with one fault.
struct Faulty {
    graph: PolicyGraph,
    fault: u8,
    reads: Cell<u32>,
}

impl Faulty {
    fn new(fault: u8) -> Self {
        let graph = PolicyGraph::new(2, 0.0, StepRule::Constant(0.5), 100);
        Faulty { graph, fault, reads: Cell::new(0) }
    }
}

impl QFunction for Faulty {
    fn width(&self) -> usize {
        self.graph.width()
    }

    fn values(&self, o: &Observation, out: &mut [f64]) {
        self.graph.values(o, out);
        self.reads.set(self.reads.get() + 1);
        match self.fault {
            0 => out.fill(0.0),
            1 => out[0] += f64::from(self.reads.get()) * 1e-3,
            2 => out[1] = f64::NAN,
            _ => {}
        }
    }

    fn update(&mut self, o: &Observation, a: ActionId, target: f64, step: f64) -> f64 {
        match self.fault {
            3 => self.graph.update(o, a, -target, step),
            4 => self.graph.update(o, a, target, 3.0 * step + 0.8),
            5 => self.graph.update(o, a, target, step) * (1.0 - step),
            6 => self.graph.update(o, a, target, step.max(1e-6)),
            7 => 0.0,
            _ => self.graph.update(o, a, target, step),
        }
    }
}

#[test]
fn broken_q_functions_are_noticed() {
    let laws = [
        "values writes only the first 2 cells",
        "values is pure",
        "values are finite",
        "update",
        "update does not overshoot",
        "update returns the error before it",
        "a step of 0 changes nothing",
        "update returns the error before it",
    ];
    let observations: Vec<Observation> = (0..3).map(|s| seen(s, 2)).collect();
    for (fault, law) in (0..).zip(laws) {
        let observations = observations.clone();
        let message = complaint(move || obeys_q_laws(|| Faulty::new(fault), &observations));
        assert!(message.contains(law), "fault {fault}: {message}");
    }
    obeys_q_laws(|| Faulty::new(8), &observations);

    // Not made alike each time.
    let made = Cell::new(0.0);
    let message = complaint(panic::AssertUnwindSafe(|| {
        let make = || {
            made.set(made.get() + 1e-7);
            PolicyGraph::new(2, made.get(), StepRule::Constant(0.5), 10)
        };
        obeys_q_laws(make, &observations);
    }));
    assert!(message.contains("bit for bit"), "{message}");
}

/// A greedy policy with one fault.
struct Crooked(u8);

impl Policy for Crooked {
    fn probabilities(&self, scores: Scores<'_>) -> Numbers {
        let mut p = exploring(0.2).probabilities(scores);
        match self.0 {
            0 => p[0] += 1e-9,
            1 => (p[0], p[1]) = (p[0] + 2.0, p[1] - 2.0),
            2 => p = [1.0].as_slice().into(),
            3 if scores.values[1] > 5.0 => p.swap(0, 1),
            _ => {}
        }
        p
    }

    fn decide(&self, scores: Scores<'_>, rng: &mut Rng) -> Decision {
        let mut d = exploring(0.2).decide(scores, rng);
        match self.0 {
            4 => d.action = ActionId(1),
            5 => d.probabilities = [0.5, 0.5].as_slice().into(),
            6 => d.greedy = !d.greedy,
            7 => d.position += 1,
            8 => d.action = scores.legal.iter().nth(scores.episode.0 as usize % 2).unwrap(),
            _ => {}
        }
        d
    }
}

#[test]
fn broken_policies_are_noticed() {
    let laws = [
        "probabilities sum to 1",
        "no probability is negative",
        "one probability a choice",
        "inadmissible choices do not enter",
        "a choice is admissible",
        "a decision tells the policy's probabilities",
        "greedy if no admissible choice is worth more",
        "a decision tells where the stream stood",
    ];
    let (legal, values): (ActionSet, _) = ([0, 2].map(ActionId).into_iter().collect(), [0.5, 0.25, 0.125]);
    let scores = Scores {
        legal: &legal,
        values: &values,
        edges: &[],
        spreads: &[],
        pseudo: &[],
        signature: Signature(1),
        episode: EpisodeId(0),
        clock: 0,
    };
    for (fault, law) in (0..).zip(laws) {
        let message = complaint(panic::AssertUnwindSafe(|| obeys_policy_laws(&Crooked(fault), &[scores], 1)));
        assert!(message.contains(law), "fault {fault}: {message}");
    }
    obeys_policy_laws(&Crooked(9), &[scores], 1);
}
