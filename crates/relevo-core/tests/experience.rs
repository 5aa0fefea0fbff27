//! Experience replay: an adaptable agent learns again from its own operations, and from nothing else.

mod common;

use common::*;
use relevo_core::{
    graph::PolicyGraph,
    learner::{Credit, Estimator, ExperienceReplay, LearnerSpec, LocalSpec, SpecError},
    observation::{ActionSet, Features, Observation, Signature},
    protocol::{Next, ParticipantSpec},
    q::{MlpSpec, Optimiser},
    record::Table,
    replay::Replay,
    step::StepRule,
};

const NETWORK: fn() -> Estimator = || {
    Estimator::Mlp(MlpSpec {
        inputs: 2,
        hidden: vec![8],
        width: 0,
        optimiser: Optimiser::adam(0.01),
        batch: 4,
        trust_radius: None,
        offset: 0.0,
    })
};

fn local(updates: u32) -> LocalSpec {
    LocalSpec {
        estimator: NETWORK(),
        step: StepRule::Constant(1.0),
        replay: Some(ExperienceReplay { capacity: 50, updates }),
    }
}

fn rehearsing(updates: u32) -> ParticipantSpec {
    let mut spec = spec(0, &[1], ADAPTABLE);
    spec.learner.local = Some(local(updates));
    spec
}

/// An observation of operations, with two features.
fn situation(signature: u64, x: [f32; 2]) -> Observation {
    Observation {
        signature: Signature(signature),
        features: Features::Dense(x.into()),
        legal: ActionSet::all(3),
    }
}

/// One activation whose operation leads to successors at signature 7; the successor then returns `value`.
fn activate(member: &mut Member, episode: u128, o: Observation, value: f64) {
    let handoff = opening(episode, 0);
    member.tell(received(handoff, o));
    member.tell(performed(handoff.id, 0.0, 1, Next::HandOver(seen_only(7, &[0]))));
    member.tell(valued(second(episode, 0), value));
}

fn best(member: &Member, o: &Observation) -> f64 {
    member.participant.learner().appraise(Table::Operations, o).value.get()
}

/// Q at signature 7 rises, and with it the value of a situation that is visited no more: its operations are learned
/// again, at targets of now. Without replay the value stays low.
#[test]
fn what_was_done_before_is_worth_what_follows_now() {
    let (left, right) = (situation(1, [1.0, 0.0]), situation(2, [0.0, 1.0]));
    let learn = |updates| {
        let mut member = Member::new(rehearsing(updates), 3);
        (0..60).for_each(|episode| activate(&mut member, episode, left.clone(), 0.0));
        (60..100).for_each(|episode| activate(&mut member, episode, right.clone(), 40.0));
        member
    };
    let (member, without) = (learn(16), learn(0));
    assert!(best(&member, &left) > 2.0 * best(&without, &left).max(1.0), "{}", best(&member, &left));
}

/// A replay of the records gives the same participant, parameters and remembered operations included; the graph is
/// the fold of the settlements, which experience replay does not touch.
#[test]
fn a_ledger_leads_to_the_same_network() {
    let mut member = Member::new(rehearsing(5), 4);
    for episode in 0..120 {
        let x = [(episode % 5) as f32, (episode % 3) as f32];
        activate(&mut member, episode, situation(episode as u64 % 4, x), (episode % 7) as f64);
    }
    let mut copy = Member::new(member.participant.spec().clone(), 4);
    let mut replay = Replay::default();
    for record in &member.records {
        replay.take(&mut copy.participant, &mut copy.rng, record).unwrap();
    }
    let parameters = |m: &Member| m.participant.learner().parameters(Table::Operations);
    assert_eq!(parameters(&copy), parameters(&member));
    assert_ne!(parameters(&copy), parameters(&Member::new(rehearsing(5), 4)));
    assert_eq!(copy.state(), member.state());
    assert_eq!(copy.rng.position(), member.rng.position());

    let spec = &member.participant.spec().learner;
    let empty = PolicyGraph::new(3, spec.initial, StepRule::Constant(1.0), spec.signatures_max);
    assert_eq!(
        edges(&empty.fold(Table::Operations, &member.records)),
        edges(member.graph(Table::Operations))
    );
}

/// Only the network of an adaptable agent, under value passing, within bounds.
#[test]
fn what_does_not_go_together_is_refused() {
    let check = |change: &dyn Fn(&mut LearnerSpec)| {
        let mut spec = rehearsing(1).learner;
        change(&mut spec);
        spec.check()
    };
    assert_eq!(check(&|_| {}), Ok(()));
    assert_eq!(
        check(&|s| s.local = Some(LocalSpec { replay: None, estimator: Estimator::Table, ..local(0) })),
        Ok(())
    );
    let refused = |change: &dyn Fn(&mut LearnerSpec)| matches!(check(change), Err(SpecError::Combination(_)));
    assert!(refused(&|s| s.regime = AFTER));
    assert!(refused(&|s| s.credit = Credit::Trajectory));
    assert!(refused(&|s| s.local = Some(LocalSpec { estimator: Estimator::Table, ..local(1) })));
    for capacity in [0, ExperienceReplay::CAPACITY_MAX + 1] {
        let replay = Some(ExperienceReplay { capacity, updates: 1 });
        let result = check(&|s| s.local = Some(LocalSpec { replay, ..local(1) }));
        assert!(matches!(result, Err(SpecError::Range { .. })), "{result:?}");
    }
    let mean = check(&|s| s.local = Some(LocalSpec { step: StepRule::Mean, ..local(1) }));
    assert!(matches!(mean, Err(SpecError::MeanWithBootstrapping { .. })));
}
