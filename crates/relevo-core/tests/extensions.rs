//! What goes beyond one scalar per handoff: local model, refresh, standard error. Off by default.

mod common;

use common::*;
use relevo_core::{
    Rng,
    ids::{ActionId, AgentId, Handle},
    learner::{Credit, DecisionPoint, Estimator, Extensions, Learner, Regime, SpecError},
    observation::Signature,
    policy::{EpsilonGreedy, PolicySpec, Ties},
    protocol::{Effect, Event, Handoff, Next, ParticipantSpec, ValueMessage},
    record::{Record, Table},
    step::{Schedule, StepRule},
    units::Discount,
};
use std::collections::BTreeMap;

const LOCAL_MODEL: Extensions = Extensions { local_model: true, refresh: None, standard_error: None };
const REFRESH: Extensions = Extensions { local_model: false, refresh: Some(0.5), standard_error: None };
const STANDARD_ERROR: Extensions =
    Extensions { local_model: false, refresh: None, standard_error: Some(0.5) };

/// gamma 1/2, steps of 1/2, greedy.
fn extended(me: u32, others: &[u32], extensions: Extensions) -> ParticipantSpec {
    let mut spec = spec(me, others, BEFORE);
    spec.handoff_reward = earned(0.0);
    spec.learner.discount = Discount::new(0.5).unwrap();
    spec.learner.step = StepRule::Constant(0.5);
    spec.learner.policy = exploring(0.0);
    spec.learner.extensions = extensions;
    spec
}

/// Have `member` take `action` at `signature`, earn `reward` in `tau` steps and hand over.
fn hand_over(
    member: &mut Member,
    episode: u128,
    signature: u64,
    action: u32,
    reward: f64,
    tau: u32,
) -> Handoff {
    let handoff = opening(episode, member.participant.spec().id.0);
    member.tell(received(handoff, seen_only(signature, &[action])));
    match member.tell(performed(handoff.id, reward, tau, Next::Committed)).last() {
        Some(Effect::Send(handoff)) => *handoff,
        other => panic!("{other:?}"),
    }
}

/// Have `member` finish at `signature` with `reward`: settles its last column by half the way to `reward`.
fn finish(member: &mut Member, episode: u128, signature: u64, reward: f64) -> Vec<Effect> {
    let column = member.participant.spec().choices.len() as u32 - 1;
    let handoff = opening(episode, member.participant.spec().id.0);
    member.tell(received(handoff, seen_only(signature, &[column])));
    member.tell(performed(handoff.id, reward, 1, Next::Ended))
}

// ---- Local model ---------------------------------------------------------------------------------------------------

/// A random history with two receivers; after `Replan`, `Asked`, `Answered` every cell of the local model is
/// Q(o, a) = (sum R + sum gamma^tau V) / n with the receivers' values of now.
#[test]
fn the_local_model_is_the_mean_over_own_handoffs_with_current_values() {
    let mut a = Member::new(extended(0, &[1, 2], LOCAL_MODEL), 1);
    let mut receivers =
        BTreeMap::from([1, 2].map(|me| (me, Member::new(extended(me, &[], LOCAL_MODEL), u64::from(me)))));
    let mut world = Rng::stream(4, "history");
    // Own handoffs by cell: R, gamma^tau and where the receiver was; None where the task ended.
    type Samples = Vec<(f64, Option<(f64, u32, u64)>)>;
    let mut history: BTreeMap<(u64, u32), Samples> = BTreeMap::new();
    for round in 0..6 {
        for i in 0..25u128 {
            let episode = round * 1000 + i;
            let (s, action) = (u64::from(world.below(3)), world.below(3));
            let (reward, tau) = (world.unit(), 1 + world.below(3));
            if action == 2 {
                finish(&mut a, episode, s, reward);
                history.entry((s, action)).or_default().push((reward, None));
            } else {
                let handoff = hand_over(&mut a, episode, s, action, reward, tau);
                let at = 100 + u64::from(world.below(3));
                let b = receivers.get_mut(&handoff.to.0).unwrap();
                let message = values(&b.tell(received(handoff, seen(at, 1))))[0];
                a.tell(Event::Valued(message));
                let sample = (0.5f64.powi(tau as i32), handoff.to.0, at);
                history.entry((s, action)).or_default().push((reward, Some(sample)));
            }
        }
        // The receivers' values move on.
        for (b, at) in [1, 2].into_iter().flat_map(|b| (100..103).map(move |at| (b, at))) {
            finish(
                receivers.get_mut(&b).unwrap(),
                round * 1000 + 500 + u128::from(at),
                at,
                4.0 * world.unit(),
            );
        }
        let asks = a.tell(Event::Replan);
        assert_eq!(asks[0], Effect::Record(Record::Replanned));
        let mut answers = vec![];
        for ask in &asks[1..] {
            let Effect::Ask { to, handle } = ask else { panic!("{ask:?}") };
            let effects =
                receivers.get_mut(&to.0).unwrap().tell(Event::Asked { from: AgentId(0), handle: *handle });
            let [Effect::Answer { to: AgentId(0), handle: same, value }] = effects[..] else {
                panic!("{effects:?}")
            };
            assert_eq!(same, *handle);
            answers.push((*to, same, value));
        }
        // In reverse: the order of answers does not matter.
        for (from, handle, value) in answers.into_iter().rev() {
            a.tell(Event::Answered { from, handle, value });
        }
        for ((s, action), samples) in &history {
            let current = |(gamma, b, at): (f64, u32, u64)| gamma * receivers[&b].q(at, 0);
            let sum: f64 = samples.iter().map(|(r, future)| r + future.map_or(0.0, current)).sum();
            let (found, expected) = (a.q(*s, *action as usize), sum / samples.len() as f64);
            assert!((found - expected).abs() < 1e-12, "{s} {action}: {found}, expected {expected}");
            let visits = a.graph(Table::Successors).edges(Signature(*s)).unwrap()[*action as usize].visits;
            assert_eq!(visits as usize, samples.len(), "an answer is no visit");
        }
    }
    assert_eq!(history.len(), 9);
}

#[test]
fn a_handle_tells_nothing_but_equality() {
    let mut b = Member::new(extended(1, &[], LOCAL_MODEL), 1);
    let mut handle = |episode, signature| {
        let message = values(&b.tell(received(opening(episode, 1), seen(signature, 1))))[0];
        message.handle.expect("the local model gives handles")
    };
    let (x, y) = (handle(1, 5), handle(2, 6));
    assert_eq!(handle(3, 5), x);
    assert_ne!(x, y);
    let mut c = Member::new(extended(1, &[], LOCAL_MODEL), 2);
    let other = values(&c.tell(received(opening(1, 1), seen(5, 1))))[0].handle;
    assert_ne!(other, Some(x), "another stream, another handle for the same situation");
}

#[test]
fn questions_and_answers_about_nothing_are_counted_and_change_nothing() {
    let mut a = Member::new(extended(0, &[1], LOCAL_MODEL), 1);
    let handoff = hand_over(&mut a, 1, 1, 0, 1.0, 1);
    a.tell(Event::Valued(ValueMessage {
        handle: Some(Handle(7)),
        ..ValueMessage::new(handoff.id, worth(2.0))
    }));
    let before = edges(a.graph(Table::Successors));
    for (from, handle) in [(1, 8), (2, 7)] {
        let (from, handle) = (AgentId(from), Handle(handle));
        assert!(a.tell(Event::Answered { from, handle, value: worth(50.0) }).is_empty());
        assert!(a.tell(Event::Asked { from, handle }).is_empty());
    }
    assert_eq!(a.participant.counters().unknown_values, 4);
    assert_eq!(edges(a.graph(Table::Successors)), before);
    // A known one moves the cell at once; a value out of bounds is clamped.
    a.tell(Event::Answered { from: AgentId(1), handle: Handle(7), value: worth(1e9) });
    assert_eq!(a.q(1, 0), 1.0 + 0.5 * 100.0);
}

// ---- Refresh -------------------------------------------------------------------------------------------------------

/// theta = 1/2; V(5) moves from 0 to 1/4 (not told), 5/8 (told), 13/16 (not told), 29/32 (not told), 2 (told).
#[test]
fn a_value_is_sent_again_if_and_only_if_it_moved_by_more_than_theta() {
    let mut b = Member::new(extended(1, &[], REFRESH), 1);
    let from = |seq, from| Handoff { id: id(1, seq, from), to: AgentId(1), clock: 0 };
    // Three handoffs in situation 5, two of them of the same predecessor, and one in another situation.
    for (handoff, s) in [(from(1, 0), 5), (from(2, 0), 5), (from(3, 7), 5), (from(4, 0), 6)] {
        let message = values(&b.tell(received(handoff, seen(s, 1))))[0];
        assert_eq!((message.value.get(), message.revision), (0.0, 0));
    }
    let mut revision = 0;
    for (episode, (reward, told)) in
        [(0.5, false), (1.0, true), (1.0, false), (1.0, false), (3.09375, true)].into_iter().enumerate()
    {
        let effects = finish(&mut b, 100 + episode as u128, 5, reward);
        let sent = values(&effects);
        // One message per predecessor, for the newest handoff it made there; the origin counts as one.
        let mine: Vec<_> = sent.iter().filter(|m| m.handoff.from != AgentId::ORIGIN).collect();
        assert_eq!(mine.len(), if told { 2 } else { 0 }, "{sent:?}");
        if told {
            revision += 1;
            for (message, handoff) in mine.iter().zip([id(1, 2, 0), id(1, 3, 7)]) {
                assert_eq!((message.handoff, message.revision), (handoff, revision));
                assert_eq!(message.value.get(), b.q(5, 0));
            }
        }
    }
    assert_eq!((revision, b.q(5, 0)), (2, 2.0));
}

#[test]
fn a_refreshed_value_moves_the_newest_step_and_older_revisions_are_ignored() {
    let mut a = Member::new(extended(0, &[1], REFRESH), 1);
    let (older, newer) = (hand_over(&mut a, 1, 3, 0, 1.0, 2), hand_over(&mut a, 2, 3, 0, 1.0, 2));
    let open = hand_over(&mut a, 3, 4, 0, 1.0, 2);
    a.tell(valued(older.id, 4.0));
    a.tell(valued(newer.id, 4.0));
    // y = 1 + (1/2)^2 4 = 2 twice: Q = 1, then 3/2.
    assert_eq!(a.q(3, 0), 1.5);
    let message = |handoff: Handoff, revision, value| {
        Event::Valued(ValueMessage { revision, ..ValueMessage::new(handoff.id, worth(value)) })
    };
    // Revision 2 first: y = 1 + 1/4 12 = 4; Q = 3/2 + 1/2 (4 - 3/2) = 11/4, without a visit.
    let effects = a.tell(message(newer, 2, 12.0));
    // And the news go on, to the origin here.
    let [
        Effect::Record(Record::Valued { .. }),
        Effect::Record(Record::Revised { value, .. }),
        Effect::Value { to, .. },
    ] = effects[..]
    else {
        panic!("{effects:?}")
    };
    assert_eq!(to, AgentId::ORIGIN);
    assert_eq!((value, a.q(3, 0)), (2.75, 2.75));
    assert_eq!(a.graph(Table::Successors).visits(Signature(3)), 2);
    // Older, the same again, of a step that a newer one replaced, of one not yet answered, of a stranger.
    let before = (edges(a.graph(Table::Successors)), a.ledger());
    let stranger = Handoff { id: id(9, 9, 0), ..newer };
    for event in [
        message(newer, 1, 50.0),
        message(newer, 2, 50.0),
        message(older, 3, 50.0),
        message(open, 1, 50.0),
        message(stranger, 1, 50.0),
    ] {
        assert!(a.tell(event).is_empty());
    }
    assert_eq!((edges(a.graph(Table::Successors)), a.ledger()), before);
    assert_eq!(a.participant.counters().late_values, 5);
    assert_eq!(a.participant.pending().count(), 1, "the open handoff still waits for its first value");
    a.tell(message(newer, 3, 12.0));
    assert_eq!(a.q(3, 0), 2.75 + 0.5 * (4.0 - 2.75));
}

/// Refreshed values travel on: C's news reach A through B.
#[test]
fn news_travel_against_the_handoffs() {
    let mut a = Member::new(extended(0, &[1], REFRESH), 1);
    let mut b = Member::new(extended(1, &[2], REFRESH), 1);
    let mut c = Member::new(extended(2, &[], REFRESH), 1);
    let first = hand_over(&mut a, 1, 3, 0, 0.0, 1);
    a.tell(Event::Valued(values(&b.tell(received(first, seen_only(4, &[0]))))[0]));
    let effects = b.tell(performed(first.id, 0.0, 1, Next::Committed));
    let Some(Effect::Send(next)) = effects.last() else { panic!("{effects:?}") };
    b.tell(Event::Valued(values(&c.tell(received(*next, seen(5, 1))))[0]));
    assert_eq!((a.q(3, 0), b.q(4, 0), c.q(5, 0)), (0.0, 0.0, 0.0));
    let news = |effects: Vec<Effect>, to| {
        let mine = |e: &Effect| matches!(e, Effect::Value { to: AgentId(t), .. } if *t == to);
        values(&effects.into_iter().filter(mine).collect::<Vec<_>>())[0]
    };
    let to_b = news(finish(&mut c, 50, 5, 32.0), 1);
    let to_a = news(b.tell(Event::Valued(to_b)), 0);
    a.tell(Event::Valued(to_a));
    // 16 at C; B goes half the way to 1/2 16; A half the way to 1/2 4.
    assert_eq!((c.q(5, 0), b.q(4, 0), a.q(3, 0)), (16.0, 4.0, 1.0));
}

// ---- Standard error ------------------------------------------------------------------------------------------------

#[test]
fn values_are_evaluated_below_and_explored_above_by_their_standard_error() {
    let mut a = Member::new(extended(0, &[1, 2], STANDARD_ERROR), 1);
    let value = |handoff: Handoff, v, se| {
        let standard_error = Some(worth(se));
        Event::Valued(ValueMessage { standard_error, ..ValueMessage::new(handoff.id, worth(v)) })
    };
    // To 1 with V = 8, se = 4 and to 2 with V = 7, se = 0, both with R = 1 and tau = 2; c = 1/2.
    let (one, two) = (hand_over(&mut a, 1, 3, 0, 1.0, 2), hand_over(&mut a, 2, 3, 1, 1.0, 2));
    let effects = a.tell(value(one, 8.0, 4.0));
    a.tell(value(two, 7.0, 0.0));
    // y = 1 + 1/4 (8 - 1/2 4) = 5/2 and 1 + 1/4 7 = 11/4; a step of 1/2 each.
    assert_eq!((a.q(3, 0), a.q(3, 1)), (1.25, 1.375));
    let Effect::Record(Record::Settled { target, spread, .. }) = &effects[1] else { panic!("{effects:?}") };
    assert_eq!((*target, *spread), (2.5, Some(1.0)));
    // spread <- spread + 1/2 (gamma^tau se - spread)
    assert_eq!(a.graph(Table::Successors).spreads(Signature(3)), Some(&[0.5, 0.0, 0.0][..]));
    // The second is worth more, but 1.25 + 2 c 0.5 = 1.75 is more than 1.375: the first is tried.
    let effects = a.tell(received(opening(3, 0), seen_only(3, &[0, 1])));
    assert_eq!(decided(&effects), [(Table::Successors, ActionId(0))]);
    // What is passed on is the greedy value, without the bonus.
    assert_eq!(values(&effects)[0].value.get(), 1.375);

    // Without the extension the same two numbers are learned as they are, and the error is not looked at.
    let mut b = Member::new(extended(0, &[1, 2], Extensions::default()), 1);
    let one = hand_over(&mut b, 1, 3, 0, 1.0, 2);
    b.tell(value(one, 8.0, 4.0));
    assert_eq!(b.q(3, 0), 1.5);
}

#[test]
fn the_standard_error_sent_is_that_of_the_best_choice() {
    let mut b = Member::new(extended(1, &[], STANDARD_ERROR), 1);
    let mut sent = |episode| values(&b.tell(received(opening(episode, 1), seen(5, 1))))[0].standard_error;
    let width = Some(worth(200.0));
    assert_eq!(sent(1), width, "unknown: as wide as the bounds");
    finish(&mut b, 100, 5, 1.0);
    let mut sent = |episode| values(&b.tell(received(opening(episode, 1), seen(5, 1))))[0].standard_error;
    assert_eq!(sent(2), width, "one sample has no deviation");
    finish(&mut b, 101, 5, 3.0);
    finish(&mut b, 102, 5, 5.0);
    let mut sent = |episode| values(&b.tell(received(opening(episode, 1), seen(5, 1))))[0].standard_error;
    // Targets 1, 3, 5: M2 = 8, sqrt(8 / 2 / 3)
    let error = sent(3).unwrap().get();
    assert!((error - (8.0f64 / 2.0 / 3.0).sqrt()).abs() < 1e-12, "{error}");
}

/// A neighbour that exaggerates its error harms only within the bounds.
#[test]
fn a_standard_error_is_clamped_too() {
    let mut a = Member::new(extended(0, &[1], STANDARD_ERROR), 1);
    let handoff = hand_over(&mut a, 1, 3, 0, 0.0, 1);
    let standard_error = Some(worth(1e300));
    a.tell(Event::Valued(ValueMessage { standard_error, ..ValueMessage::new(handoff.id, worth(1e300)) }));
    // V = 100, se = 200: y = 1/2 (100 - 1/2 200) = 0
    assert_eq!(a.q(3, 0), 0.0);
    let handoff = hand_over(&mut a, 2, 3, 0, 0.0, 1);
    let standard_error = Some(worth(-5.0));
    a.tell(Event::Valued(ValueMessage { standard_error, ..ValueMessage::new(handoff.id, worth(8.0)) }));
    assert_eq!(a.q(3, 0), 2.0, "a negative error is none");
}

// ---- Off by default ------------------------------------------------------------------------------------------------

#[test]
fn nothing_beyond_the_paper_is_sent_or_done_by_default() {
    for (regime, credit) in REGIMES.into_iter().flat_map(|r| CREDITS.map(|c| (r, c))) {
        let mut team = Team::ring(regime, |spec| spec.learner.credit = credit, 3);
        assert_eq!(team.members[0].participant.spec().learner.extensions, Extensions::default());
        for episode in 0..60 {
            team.start(episode);
            while let Some((to, event)) = team.queue.pop_front() {
                let member = &mut team.members[to.0 as usize];
                let effects = member.tell(event);
                for effect in &effects {
                    match effect {
                        Effect::Value { message, .. } => {
                            assert_eq!(
                                (message.standard_error, message.handle, message.revision),
                                (None, None, 0)
                            );
                        }
                        Effect::Ask { .. } | Effect::Answer { .. } => panic!("{effect:?}"),
                        Effect::Record(Record::Settled { spread, .. }) => assert_eq!(*spread, None),
                        Effect::Record(
                            Record::Revised { .. } | Record::Replanned | Record::Answered { .. },
                        ) => {
                            panic!("{effect:?}")
                        }
                        _ => {}
                    }
                }
                // Asked for it, it does nothing.
                let (from, handle) = (AgentId(1), Handle(0));
                assert!(member.tell(Event::Replan).is_empty());
                assert!(member.tell(Event::Asked { from, handle }).is_empty());
                assert!(member.tell(Event::Answered { from, handle, value: worth(1.0) }).is_empty());
                team.follow(to, &effects);
            }
        }
        for member in &team.members {
            let graph = member.graph(Table::Successors);
            assert!(graph.signatures().iter().all(|s| graph.spreads(*s).is_none()));
        }
    }
}

/// Extension fields from outside are ignored by an agent that did not agree to them.
#[test]
fn extension_fields_do_nothing_where_they_are_off() {
    let run = |change: fn(&mut ValueMessage)| {
        let mut a = Member::new(extended(0, &[1], Extensions::default()), 1);
        for episode in 0..20 {
            let handoff = hand_over(&mut a, episode, 3, 0, 1.0, 2);
            let mut message = ValueMessage::new(handoff.id, worth(episode as f64));
            change(&mut message);
            a.tell(Event::Valued(message));
        }
        edges(a.graph(Table::Successors))
    };
    let decorated = run(|m| (m.standard_error, m.handle) = (Some(worth(9.0)), Some(Handle(4))));
    assert_eq!(run(|_| {}), decorated);
}

/// What does not go together is refused when the learner is made, with the reason.
#[test]
fn specifications_that_cannot_work_are_refused() {
    type Change = fn(&mut ParticipantSpec);
    let table: &[(Change, &str)] = &[
        (|s| s.learner.step = StepRule::Mean, "cannot be used with value passing"),
        (
            |s| (s.learner.step, s.learner.credit) = (StepRule::Mean, Credit::Relay { lambda: 0.0 }),
            "cannot be used with relay",
        ),
        (|s| s.learner.credit = Credit::Relay { lambda: 1.5 }, "lambda is 1.5"),
        (|s| s.learner.credit = Credit::Relay { lambda: f64::NAN }, "lambda is NaN"),
        (|s| s.learner.step = StepRule::Constant(0.0), "the constant step is 0"),
        (|s| s.learner.step = StepRule::Poly { exponent: 1.0 }, "exponent of the step rule"),
        (|s| s.learner.policy = exploring(1.1), "epsilon is 1.1"),
        (|s| s.learner.initial = 101.0, "the declared bounds"),
        (|s| s.learner.initial = f64::NAN, "initial value is NaN"),
        (|s| s.choices.clear(), "needs a meaning"),
        (|s| s.learner.regime = Regime::Adaptable { operations: 0 }, "at least one choice"),
        (
            |s| (s.learner.extensions, s.learner.credit) = (REFRESH, Credit::Trajectory),
            "go with value passing only",
        ),
        (
            |s| {
                (s.learner.extensions, s.learner.regime) =
                    (LOCAL_MODEL, Regime::PreConfigured(DecisionPoint::After))
            },
            "situations at activation",
        ),
        (|s| s.learner.extensions.refresh = Some(-1.0), "refresh threshold"),
        (|s| s.learner.extensions.standard_error = Some(f64::INFINITY), "weight of the standard error"),
        (
            |s| {
                let epsilon = Schedule::Power { floor: 0.1, scale: 0.0, exponent: 0.5 };
                s.learner.policy = PolicySpec::EpsilonGreedy(EpsilonGreedy { epsilon, ties: Ties::First });
            },
            "scale or exponent",
        ),
        (
            |s| {
                let ucb = relevo_core::policy::Ucb { half_life: f64::INFINITY, ..Default::default() };
                s.learner.policy = PolicySpec::Ucb(ucb);
            },
            "half-life",
        ),
        (
            |s| {
                let ucb = relevo_core::policy::Ucb { exploration: f64::INFINITY, ..Default::default() };
                s.learner.policy = PolicySpec::Ucb(ucb);
            },
            "exploration",
        ),
        (
            |s| {
                let ucb = relevo_core::policy::Ucb { reliability: f64::NAN, ..Default::default() };
                s.learner.policy = PolicySpec::Ucb(ucb);
            },
            "reliability",
        ),
        (
            |s| {
                let posterior = relevo_core::policy::Posterior { variance: f64::INFINITY, floor: 0.1 };
                s.learner.policy = PolicySpec::Posterior(posterior);
            },
            "variance",
        ),
    ];
    for (change, reason) in table {
        let mut spec = spec(0, &[1], BEFORE);
        change(&mut spec);
        let error = relevo_core::protocol::Participant::new(spec, &mut Rng::stream(1, "x")).map(|_| ());
        let error: SpecError = error.expect_err(reason);
        assert!(error.to_string().contains(reason), "{error} for {reason}");
    }
    let fine = spec(0, &[1], BEFORE).learner;
    assert_eq!(fine.estimator, Estimator::Table);
    assert!(Learner::new(fine, &mut Rng::stream(1, "x")).is_ok());
}
