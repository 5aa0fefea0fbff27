//! Pools: a table that borrows from coarser situations and from choices alike, and believes its own eyes in the end.

mod common;

use common::*;
use relevo_core::{
    Rng,
    ids::{ActionId, EpisodeId},
    learner::{Credit, Estimator, Learner, LearnerSpec, LocalSpec, SpecError, Step},
    observation::{ActionSet, Features, Observation, Signature},
    policy::{PolicySpec, Posterior, Ucb},
    policy_file::AgentPolicy,
    pools::PooledSpec,
    protocol::ParticipantSpec,
    record::Table,
    replay::Replay,
    step::StepRule,
    units::{Bounds, Discount},
};

/// A learner of sample means that chooses among `width`, each column in the groups given.
fn learner(width: u32, groups: &[&[u32]], strength: f64) -> Learner {
    let groups = groups.iter().map(|of| of.to_vec()).collect();
    let spec = LearnerSpec {
        estimator: Estimator::Pooled(PooledSpec { groups, strength }),
        step: StepRule::Mean,
        credit: Credit::Trajectory,
        initial: 0.5,
        policy: PolicySpec::Ucb(Ucb { floor: 0.0, ..Ucb::default() }),
        ..LearnerSpec::tabular(width, BEFORE, Discount::NONE, Bounds::new(0.0, 1.0).unwrap())
    };
    Learner::new(spec, &mut Rng::stream(1, "initial")).unwrap()
}

/// A situation of one kind; all kinds belong to one.
fn at(signature: u64, width: usize) -> Observation {
    Observation { features: Features::Coarser([Signature(1000)].into()), ..seen(signature, width) }
}

fn settle(learner: &mut Learner, o: &Observation, action: u32, target: f64) {
    let (action, reward, tau) = (ActionId(action), earned(0.0), lasting(1));
    let step = Step { observation: o.clone(), action, reward, tau, usage: Default::default() };
    learner.settle(Table::Successors, &step, target);
}

fn values(learner: &Learner, o: &Observation) -> Vec<f64> {
    learner.values(Table::Successors, o)
}

fn decision(learner: &Learner, o: &Observation) -> u32 {
    learner.decide(Table::Successors, o, EpisodeId(1), 0, &mut Rng::stream(1, "policy")).action.0
}

/// By hand: the pool holds 10 visits of mean .75, of which the prior of a new situation counts kappa = 4.
#[test]
fn a_new_situation_borrows_until_its_own_visits_outweigh() {
    let mut learner = learner(2, &[], 4.0);
    for s in 0..10 {
        settle(&mut learner, &at(s, 2), 0, 0.75);
    }
    let fresh = at(50, 2);
    assert_eq!(values(&learner, &fresh), [0.75, 0.5]);
    // What nothing is known of is still tried; once it is known elsewhere, it is not tried here by force.
    assert_eq!(decision(&learner, &fresh), 1);
    (0..4).for_each(|s| settle(&mut learner, &at(s, 2), 1, 0.5));
    assert_eq!(decision(&learner, &fresh), 0);

    for n in 1..=8 {
        settle(&mut learner, &fresh, 0, 0.1);
        // The pool takes each of these targets too: its mean falls as the cell's own weight grows.
        let pool = (10.0 * 0.75 + f64::from(n) * 0.1) / (10.0 + f64::from(n));
        let expected = (4.0 * pool + f64::from(n) * 0.1) / (4.0 + f64::from(n));
        let found = values(&learner, &fresh)[0];
        assert!((found - expected).abs() < 1e-12, "{n} visits: {found} for {expected}");
    }
    // Beyond kappa visits the cell's own mean is the nearer one.
    let (value, pool) = (values(&learner, &fresh)[0], (7.5 + 0.8) / 18.0);
    assert!(value - 0.1 < pool - value, "{value} lies nearer to {pool}");
    // It learned nothing of a situation of another kind.
    assert_eq!(values(&learner, &seen(50, 2))[1], 0.5);
    assert_eq!(values(&learner, &seen(51, 2)), [0.5, 0.5]);
}

/// Columns 0 to 3 are variants (skill, model) of one role, 4 is new: the good skill of 0 and 1 with the good model of
/// 0 and 2. Column 5 is new too: the other skill and the other model.
#[test]
fn a_new_variant_of_a_good_skill_and_a_good_model_is_preferred() {
    let groups: [&[u32]; 6] = [&[0, 1, 3], &[0, 1, 4], &[0, 2, 3], &[0, 2, 4], &[0, 1, 3], &[0, 2, 4]];
    let mut learner = learner(6, &groups, 5.0);
    for s in 0..10 {
        for (action, target) in [(0, 0.9), (1, 0.6), (2, 0.5), (3, 0.2)] {
            settle(&mut learner, &at(s, 6), action, target);
        }
    }
    for o in [at(3, 6), at(70, 6)] {
        let values = values(&learner, &o);
        assert!(values[4] > values[1] && values[4] > values[2], "{values:?}");
        assert!(values[5] < values[1] && values[5] > values[3], "{values:?}");
        let new = Observation { legal: [1, 2, 4, 5].map(ActionId).into_iter().collect(), ..o };
        assert_eq!(decision(&learner, &new), 4);
    }
}

/// Where observations carry no coarser signatures, pools change no digit.
#[test]
fn without_coarser_signatures_it_is_the_table() {
    for regime in REGIMES {
        let run = |estimator: &Estimator| {
            let mut team = Team::ring(regime, |spec| spec.learner.estimator = estimator.clone(), 5);
            team.run(0..40);
            team.members.iter().map(|m| m.records.clone()).collect::<Vec<_>>()
        };
        let pooled = Estimator::Pooled(PooledSpec { groups: vec![], strength: 5.0 });
        assert_eq!(run(&pooled), run(&Estimator::Table));
    }
}

fn pooled(spec: &mut ParticipantSpec, step: StepRule, credit: Credit) {
    let groups = vec![vec![0], vec![0, 1], vec![1]];
    spec.learner = LearnerSpec {
        estimator: Estimator::Pooled(PooledSpec { groups, strength: 3.0 }),
        step,
        credit,
        policy: PolicySpec::Posterior(Posterior { variance: 0.25, floor: 0.1 }),
        ..spec.learner.clone()
    };
}

/// Replayed from its ledger, or restored from a policy file, an agent says and decides the same, bit for bit.
#[test]
fn pools_are_a_fold_of_the_records_and_survive_a_policy_file() {
    let ways = [
        (StepRule::PolyAverage { exponent: 0.6 }, Credit::ValuePassing),
        (StepRule::Resc { horizon: 4 }, Credit::Relay { lambda: 0.5 }),
        (StepRule::Mean, Credit::Trajectory),
    ];
    for (regime, (step, credit)) in REGIMES.into_iter().flat_map(|r| ways.map(|way| (r, way))) {
        let mut team = Team::ring(regime, |spec| pooled(spec, step, credit), 9);
        team.world.features = two_coarser;
        team.run(0..30);
        for member in &team.members {
            let spec = member.participant.spec().clone();
            let mut copy = Member::new(spec.clone(), 9);
            let mut replay = Replay::default();
            for record in &member.records {
                replay.take(&mut copy.participant, &mut copy.rng, record).unwrap();
            }
            assert_eq!(copy.state(), member.state(), "{regime:?} {step:?}");

            let learner = member.participant.learner();
            let mut restored = Learner::new(spec.learner, &mut Rng::stream(2, "other")).unwrap();
            let policy = AgentPolicy::of("a", vec![], vec![], learner);
            assert!(policy.tables.iter().all(|table| !table.pools.is_empty()));
            policy.restore(&mut restored).unwrap();
            assert_eq!(AgentPolicy::of("a", vec![], vec![], &restored), policy);
            let mut world = World { signatures: 6, features: two_coarser, ..World::new(3) };
            let mut streams = [Rng::stream(4, "policy"), Rng::stream(4, "policy")];
            for episode in 0..50 {
                for table in tables_of(regime) {
                    let o = world.observation(3);
                    let [a, b] = &mut streams;
                    let found = restored.decide(*table, &o, EpisodeId(episode), 3, a);
                    assert_eq!(found, learner.decide(*table, &o, EpisodeId(episode), 3, b));
                    let bits =
                        |l: &Learner| l.values(*table, &o).iter().map(|v| v.to_bits()).collect::<Vec<_>>();
                    assert_eq!(bits(&restored), bits(learner));
                }
            }
        }
    }
}

#[test]
fn pools_that_cannot_work_are_refused() {
    let check = |groups: &[Vec<u32>], strength, regime, local: bool| {
        let estimator = Estimator::Pooled(PooledSpec { groups: groups.to_vec(), strength });
        let own = LocalSpec { estimator: Estimator::Table, step: StepRule::Constant(0.1), replay: None };
        let spec = LearnerSpec {
            estimator,
            local: local.then_some(own),
            ..LearnerSpec::tabular(2, regime, Discount::NONE, Bounds::new(0.0, 1.0).unwrap())
        };
        spec.check()
    };
    let two = [vec![0], vec![1, 2]];
    assert_eq!(check(&two, 5.0, BEFORE, false), Ok(()));
    assert_eq!(check(&two, 5.0, ADAPTABLE, true), Ok(()));
    assert_eq!(check(&[], 5.0, ADAPTABLE, false), Ok(()));
    for strength in [0.0, -1.0, f64::INFINITY, f64::NAN] {
        assert!(matches!(check(&two, strength, BEFORE, false), Err(SpecError::Range { .. })), "{strength}");
    }
    // Three operations, but groups of two columns.
    assert!(matches!(check(&two, 5.0, ADAPTABLE, false), Err(SpecError::Combination(_))));
    assert!(matches!(check(&two[..1], 5.0, BEFORE, false), Err(SpecError::Combination(_))));
    assert!(matches!(check(&[vec![0], vec![1 << 16]], 5.0, BEFORE, false), Err(SpecError::Combination(_))));
}

/// Prints what a decision among 16 and 48 columns costs: `cargo test --release --test pools -- --ignored --nocapture`.
#[test]
#[ignore = "a measurement"]
fn how_long_a_decision_takes() {
    let policies = [
        PolicySpec::Ucb(Ucb::default()),
        exploring(0.1),
        PolicySpec::Posterior(Posterior { variance: 0.25, floor: 0.1 }),
    ];
    for (width, policy) in [16, 48].into_iter().flat_map(|width| policies.map(|policy| (width, policy))) {
        let groups: Vec<Vec<u32>> = (0..width).map(|c| vec![c % 6, 6 + c % 12, 18 + c / 12]).collect();
        let groups: Vec<&[u32]> = groups.iter().map(Vec::as_slice).collect();
        for estimator in [Estimator::Table, learner(width, &groups, 5.0).spec().estimator.clone()] {
            let name = if estimator == Estimator::Table { "table" } else { "pooled" };
            let spec = LearnerSpec { policy, estimator, ..learner(width, &groups, 5.0).spec().clone() };
            let mut learner = Learner::new(spec, &mut Rng::stream(1, "initial")).unwrap();
            let situation = |s: u64| Observation {
                features: Features::Coarser([Signature(1000), Signature(2000 + s % 8)].into()),
                ..Observation::of(Signature(s), ActionSet::all(width as usize))
            };
            let situations: Vec<Observation> = (0..64).map(situation).collect();
            let mut rng = Rng::stream(1, "policy");
            for (i, o) in (0..1000).zip(situations.iter().cycle()) {
                settle(&mut learner, o, i % width, f64::from(i % 7) / 7.0);
            }
            // The least of many rounds: what else the machine does is not meant.
            let mut least = f64::INFINITY;
            for _ in 0..50 {
                let start = std::time::Instant::now();
                for (i, o) in (0..400).zip(situations.iter().cycle()) {
                    std::hint::black_box(learner.decide(Table::Successors, o, EpisodeId(i), 0, &mut rng));
                }
                least = least.min(start.elapsed().as_secs_f64() * 1e6 / 400.0);
            }
            println!("{width} {policy:?} {name}: {least:.2} us");
        }
    }
}
