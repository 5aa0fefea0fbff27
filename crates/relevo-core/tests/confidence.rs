//! Confidence in how a task ended scales the step, never the value; it holds for the one event that it announces.

use relevo_core::{
    Rng,
    ids::{AgentId, EpisodeId, HandoffId},
    learner::{Credit, DecisionPoint, LearnerSpec, Regime},
    observation::{ActionSet, Observation, Signature},
    protocol::{Choice, Effect, Event, Handoff, Journal, Limits, Next, Participant, ParticipantSpec},
    record::{Record, Table},
    replay::Replay,
    step::StepRule,
    units::{Bounds, Confidence, Discount, Return, Tau, Usage},
};

fn participant(credit: Credit) -> (Participant, Rng) {
    let regime = Regime::PreConfigured(DecisionPoint::Before);
    let learner = LearnerSpec::tabular(1, regime, Discount::NONE, Bounds::new(-1.0, 1.0).unwrap());
    let spec = ParticipantSpec {
        id: AgentId(0),
        choices: vec![Choice::Finish],
        learner: LearnerSpec { step: StepRule::Constant(0.5), credit, ..learner },
        handoff_reward: Return::ZERO,
        limits: Limits::default(),
        journal: Journal::Kept,
    };
    (Participant::new(spec, &mut Rng::stream(1, "initial")).unwrap(), Rng::stream(1, "policy"))
}

fn seen() -> Observation {
    Observation::of(Signature(1), ActionSet::all(1))
}

/// One task that ends with reward 1, announced as trusted so far in this handoff, if at all.
fn episode(n: u128, trusted: Option<(HandoffId, f64)>) -> Vec<Event> {
    let id = HandoffId::opening(EpisodeId(n));
    let (reward, next) = (Return::ZERO, Next::Committed);
    let mut events = vec![
        Event::Received { handoff: Handoff { id, to: AgentId(0), clock: 0 }, observation: seen() },
        Event::Performed { handoff: id, reward, tau: Tau::ONE, usage: Usage::default(), next },
    ];
    if let Some((handoff, confidence)) = trusted {
        events.push(Event::Trusted { handoff, confidence: Confidence::new(confidence).unwrap() });
    }
    events.push(Event::Finished { handoff: ended(n), reward: Return::new(1.0).unwrap() });
    events
}

fn ended(n: u128) -> HandoffId {
    HandoffId::opening(EpisodeId(n)).next(AgentId(0)).unwrap()
}

#[test]
fn half_trusted_is_half_a_step() {
    let trusted = [None, Some((ended(1), 0.5)), Some((ended(7), 0.5)), Some((ended(3), 0.0)), None];
    let expected = [0.5, 0.625, 0.8125, 0.8125, 0.90625];
    for credit in [Credit::ValuePassing, Credit::Trajectory] {
        let (mut agent, mut rng) = participant(credit);
        let mut records: Vec<Record> = vec![];
        for (n, (trusted, expected)) in (0..).zip(trusted.into_iter().zip(expected)) {
            for event in episode(n, trusted) {
                let mut effects = vec![];
                agent.apply(event, &mut rng, &mut effects).unwrap();
                records.extend(effects.into_iter().filter_map(|effect| match effect {
                    Effect::Record(record) => Some(record),
                    _ => None,
                }));
            }
            assert_eq!(agent.learner().values(Table::Successors, &seen()), [expected], "episode {n}");
        }
        let (mut again, mut rng) = participant(credit);
        let mut replay = Replay::default();
        records.iter().for_each(|record| replay.take(&mut again, &mut rng, record).unwrap());
        assert_eq!(again.learner().values(Table::Successors, &seen()), [expected[4]]);
    }
}

#[test]
fn confidence_is_a_share() {
    for wrong in [-0.1, 1.1, f64::NAN, f64::INFINITY] {
        assert!(Confidence::new(wrong).is_err(), "{wrong}");
    }
}
