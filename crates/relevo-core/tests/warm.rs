//! Warm start: what an earlier policy says, under the names of the new team, and what becomes of it.

mod common;

use common::*;
use relevo_core::{
    Rng,
    graph::PolicyGraph,
    ids::ActionId,
    learner::{Credit, Estimator, Extensions, Learner, LearnerSpec, Step},
    observation::{Features, Observation, Signature},
    policy_file::{AgentPolicy, PolicyFileError},
    pools::PooledSpec,
    protocol::{Event, ParticipantSpec, ProtocolError},
    q::{Inputs, LinearSpec, LmsRule},
    record::{Record, Table},
    replay::Replay,
    step::StepRule,
    units::{Bounds, Discount},
    warm::{self, Caps, WarmStart},
};

const HERE: u64 = 7;

fn names(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| name.to_string()).collect()
}

fn mean_learner(estimator: Estimator) -> LearnerSpec {
    LearnerSpec {
        estimator,
        step: StepRule::Mean,
        credit: Credit::Trajectory,
        initial: 0.5,
        ..LearnerSpec::tabular(3, BEFORE, Discount::NONE, Bounds::new(-100.0, 100.0).unwrap())
    }
}

fn settle(learner: &mut Learner, o: &Observation, action: u32, target: f64) {
    let (action, reward, tau) = (ActionId(action), earned(0.0), lasting(1));
    let step = Step { observation: o.clone(), action, reward, tau, usage: Default::default() };
    learner.settle(Table::Successors, &step, target);
}

/// An agent with three choices that learned of the first two in one situation.
fn earlier() -> AgentPolicy {
    let mut learner = Learner::new(mean_learner(Estimator::Table), &mut Rng::stream(1, "initial")).unwrap();
    (0..30).for_each(|_| settle(&mut learner, &seen(HERE, 3), 0, 0.75));
    (0..3).for_each(|_| settle(&mut learner, &seen(HERE, 3), 1, 0.25));
    AgentPolicy::of("coder", names(&["write#1", "check#4", "rest"]), vec![], &learner)
}

fn primed(action: u32, value: f64, weight: u32) -> Event {
    let (table, signature, action) = (Table::Successors, Signature(HERE), ActionId(action));
    Event::Primed { table, signature, action, value: worth(value), weight }
}

#[test]
fn choices_are_known_again_by_their_names() {
    let caps = Caps { same: 20, version: 5 };
    let cases: [(&[&str], _, _); 5] = [
        (&["write#1", "check#4", "rest"], vec![primed(0, 0.75, 20), primed(1, 0.25, 3)], (2, 0, 0)),
        // In another order; a version replaced; one beside the old one; gone.
        (&["check#4", "write#1"], vec![primed(0, 0.25, 3), primed(1, 0.75, 20)], (2, 0, 0)),
        (&["write#2", "check#5"], vec![primed(0, 0.75, 5), primed(1, 0.25, 3)], (0, 2, 0)),
        (&["write#1", "write#2"], vec![primed(0, 0.75, 20), primed(1, 0.75, 5)], (1, 1, 1)),
        (&["writer", "rest"], vec![], (0, 0, 2)),
    ];
    for (now, events, (same, versions, dropped)) in cases {
        let expected = WarmStart { events, same, versions, dropped };
        assert_eq!(warm::start(&earlier(), &names(now), &[], caps).unwrap(), expected, "{now:?}");
    }
    let none = warm::start(&earlier(), &names(&["write#1"]), &[], Caps { same: 0, version: 0 }).unwrap();
    assert!(none.events.is_empty());

    let nameless = AgentPolicy { successors: names(&["write#1"]), ..earlier() };
    let error = warm::start(&nameless, &names(&["write#1"]), &[], caps).unwrap_err();
    assert!(matches!(&error, PolicyFileError::Inconsistent(what) if what.contains("column 1")), "{error}");
}

/// Sample means are those of the prior's visits and the own together; the other rules take the steps of later visits.
#[test]
fn a_prior_counts_as_visits() {
    for step in [StepRule::Mean, StepRule::Resc { horizon: 4 }, StepRule::PolyAverage { exponent: 0.6 }] {
        let mut graph = PolicyGraph::new(2, 0.5, step, 10);
        let (here, a) = (Signature(HERE), ActionId(1));
        graph.prime(here, a, relevo_core::graph::Prior { value: 0.75, weight: 6 });
        assert_eq!(graph.edges(here).unwrap()[1].value, 0.75);
        assert_eq!(graph.next_step(here, a), step.step(7));
        assert_eq!(graph.next_step(here, ActionId(0)), step.step(1));
        let alpha = graph.next_step(here, a);
        graph.settle(here, a, 0.25, alpha, Default::default());
        let expected = 0.75 + step.step(7) * (0.25 - 0.75);
        assert!((graph.edges(here).unwrap()[1].value - expected).abs() < 1e-12);
        let mut decisions = [0.0; 2];
        graph.decision_values(here, &mut decisions);
        let average = step.average_weight(7).map_or(expected, |w| 0.75 + w * (expected - 0.75));
        assert!((decisions[1] - average).abs() < 1e-12);
        // What happened is one visit.
        assert_eq!((graph.visits(here), graph.sums(here).unwrap()[1].targets), (1, 0.25));
    }
}

/// kappa = 4 visits of the pool at .25, 6 taken over at .75, and one own at .5.
#[test]
fn a_prior_counts_beside_the_pools() {
    let pooled = Estimator::Pooled(PooledSpec { groups: vec![], strength: 4.0 });
    let mut a = Member::new(ParticipantSpec { learner: mean_learner(pooled), ..spec(0, &[1, 2], BEFORE) }, 1);
    a.tell(primed(0, 0.75, 6));
    let at = |s| Observation { features: Features::Coarser([Signature(99)].into()), ..seen(s, 3) };
    let mut learner = a.participant.learner().clone();
    (0..20).for_each(|s| settle(&mut learner, &at(100 + s), 0, 0.25));
    let value = |learner: &Learner| learner.values(Table::Successors, &at(HERE))[0];
    assert!((value(&learner) - (4.0 * 0.25 + 6.0 * 0.75) / 10.0).abs() < 1e-12);
    settle(&mut learner, &at(HERE), 0, 0.5);
    let pool = (20.0 * 0.25 + 0.5) / 21.0;
    assert!((value(&learner) - (4.0 * pool + 6.0 * 0.75 + 0.5) / 11.0).abs() < 1e-12);
}

/// Told first, recorded, replayed, folded, and kept by a policy file.
#[test]
fn a_warm_start_is_a_fold_of_the_records() {
    for regime in REGIMES {
        let mut team = Team::ring(regime, |_| {}, 3);
        for member in &mut team.members {
            for table in tables_of(regime) {
                let (signature, action) = (Signature(2), ActionId(1));
                member.tell(Event::Primed { table: *table, signature, action, value: worth(3.0), weight: 4 });
                // Never met.
                let signature = Signature(50);
                member.tell(Event::Primed { table: *table, signature, action, value: worth(1.0), weight: 2 });
            }
        }
        team.run(0..40);
        for member in &mut team.members {
            let mut copy = Member::new(member.participant.spec().clone(), 3);
            let mut replay = Replay::default();
            for record in &member.records {
                replay.take(&mut copy.participant, &mut copy.rng, record).unwrap();
            }
            assert_eq!(copy.state(), member.state());
            let spec = member.participant.spec().learner.clone();
            let policy = AgentPolicy::of("a", vec![], vec![], member.participant.learner());
            let mut restored = Learner::new(spec.clone(), &mut Rng::stream(2, "other")).unwrap();
            policy.restore(&mut restored).unwrap();
            assert_eq!(AgentPolicy::of("a", vec![], vec![], &restored), policy);
            for table in tables_of(regime) {
                let graph = member.graph(*table);
                let empty = PolicyGraph::new(graph.width(), spec.initial, spec.step, spec.signatures_max);
                let folded = empty.fold(*table, &member.records);
                for graph in [&folded, restored.graph(*table).unwrap()] {
                    let sorted = |graph| {
                        let mut all = edges(graph);
                        all.sort_unstable();
                        all
                    };
                    assert_eq!(sorted(graph), sorted(member.graph(*table)));
                    for signature in [2, 50].map(Signature) {
                        assert_eq!(graph.priors(signature), member.graph(*table).priors(signature));
                    }
                }
            }
            assert!(matches!(member.try_tell(primed(0, 1.0, 1)), Err(ProtocolError::Prior(_))));
        }
    }
}

#[test]
fn priors_that_cannot_be_taken_over_are_refused() {
    let change = |change: &dyn Fn(&mut LearnerSpec)| {
        let mut spec = spec(0, &[1, 2], BEFORE);
        change(&mut spec.learner);
        Member::new(spec, 1)
    };
    let operation = Event::Primed {
        table: Table::Operations,
        signature: Signature(HERE),
        action: ActionId(0),
        value: worth(0.0),
        weight: 1,
    };
    let linear = Estimator::Linear(LinearSpec {
        inputs: Inputs::Dense(2),
        width: 3,
        init: 0.0,
        rule: LmsRule::default(),
    });
    let local_model = Extensions { local_model: true, ..Extensions::default() };
    let cases = [
        (change(&|_| {}), primed(0, 1.0, 0)),
        (change(&|_| {}), primed(3, 1.0, 1)),
        (change(&|_| {}), operation),
        (change(&|learner| learner.estimator = linear.clone()), primed(0, 1.0, 1)),
        (change(&|learner| learner.extensions = local_model), primed(0, 1.0, 1)),
    ];
    for (mut member, event) in cases {
        assert!(matches!(member.try_tell(event.clone()), Err(ProtocolError::Prior(_))), "{event:?}");
        assert!(member.records.is_empty() && member.graph(Table::Successors).is_empty());
    }
    let mut member = change(&|_| {});
    member.tell(primed(2, 1.0, 1));
    assert!(matches!(member.records[..], [Record::Primed { weight: 1, .. }]));
}

#[test]
fn a_prior_that_no_longer_holds_is_noticed() {
    let drifts = |value: f64, targets: &[f64]| {
        let mut graph = PolicyGraph::new(2, 0.0, StepRule::Mean, 10);
        graph.prime(Signature(HERE), ActionId(1), relevo_core::graph::Prior { value, weight: 5 });
        for y in targets {
            let step = graph.next_step(Signature(HERE), ActionId(1));
            graph.settle(Signature(HERE), ActionId(1), *y, step, Default::default());
            // What was not taken over does not drift.
            graph.settle(Signature(HERE), ActionId(0), *y, 1.0, Default::default());
        }
        warm::drift(&graph)
    };
    // Mean .5, standard error .5 / sqrt(7): three of them are .567.
    let even = [0.0, 1.0, 0.0, 1.0, 0.0, 1.0, 0.0, 1.0];
    assert_eq!((drifts(1.06, &even).len(), drifts(-0.06, &even).len()), (0, 0));
    assert_eq!((drifts(1.07, &even).len(), drifts(1.07, &even[..7]).len()), (1, 0));
    let found = drifts(-0.07, &even)[0];
    assert_eq!((found.prior, found.mean, found.visits, found.action), (-0.07, 0.5, 8, ActionId(1)));
    assert!((found.standard_error - 0.5 / 7f64.sqrt()).abs() < 1e-12);
    // Targets all alike: any other prior has drifted, the same has not, in spite of rounding.
    assert_eq!((drifts(0.1, &[0.1; 9]).len(), drifts(0.2, &[0.1; 9]).len()), (0, 1));
}
