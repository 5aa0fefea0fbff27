//! A team of three whose messages are shuffled, duplicated, delayed and lost, with strangers' messages among them.

mod common;

use common::*;
use proptest::prelude::*;
use relevo_core::{
    ids::{ActionId, AgentId, HandoffId},
    observation::{ActionSet, Observation, Signature},
    protocol::{Effect, Event, Handoff, Next, ProtocolError, ValueMessage},
    record::{Record, Table},
    units::Usage,
};
use std::collections::{BTreeMap, BTreeSet};

/// What happens to one event on its way.
#[derive(Clone, Copy, Debug)]
enum Fault {
    Delivered,
    Duplicated,
    Lost,
    /// The event waits; a stranger's comes instead.
    Unknown(u8),
    /// The event waits; a pending or active handoff is given up.
    Expired,
}

/// Which of the waiting events is next, and what happens to it.
fn scripts(lossy: bool) -> impl Strategy<Value = Vec<(u16, Fault)>> {
    let lossless = prop_oneof![
        6 => Just(Fault::Delivered),
        2 => Just(Fault::Duplicated),
        1 => (0u8..6).prop_map(Fault::Unknown),
    ];
    let fault = match lossy {
        false => lossless.boxed(),
        true => prop_oneof![8 => lossless, 1 => Just(Fault::Lost), 1 => Just(Fault::Expired)].boxed(),
    };
    proptest::collection::vec((any::<u16>(), fault), 1..250)
}

/// A team under faults, with what must hold of it checked at every event.
struct Trial {
    team: Team,
    naive: Vec<Naive>,
    told: Vec<Told>,
}

/// What one member was told and did.
#[derive(Default)]
struct Told {
    handoffs: u64,
    values: u64,
    refused: u64,
    answers: BTreeMap<HandoffId, ValueMessage>,
    performed: BTreeMap<HandoffId, u32>,
    settled: BTreeSet<HandoffId>,
    settlements: u64,
}

impl Trial {
    fn new(seed: u64, regime: relevo_core::learner::Regime) -> Self {
        let team = Team::ring(regime, |_| {}, seed);
        let naive = team.members.iter().map(|m| Naive::of(m.participant.spec())).collect();
        let told = (0..3).map(|_| Told::default()).collect();
        Trial { team, naive, told }
    }

    fn run(&mut self, script: &[(u16, Fault)]) {
        let mut episode = 0;
        for &(pick, fault) in script {
            if self.team.queue.len() < 4 {
                self.team.start(episode);
                episode += 1;
            }
            let at = usize::from(pick) % self.team.queue.len();
            let (to, event) = self.team.queue.remove(at).unwrap();
            match fault {
                Fault::Delivered => self.deliver(to, event),
                Fault::Duplicated => {
                    self.team.queue.push_back((to, event.clone()));
                    self.deliver(to, event);
                }
                Fault::Lost => {}
                Fault::Unknown(kind) => {
                    self.team.queue.push_back((to, event));
                    self.deliver(to, stranger(kind, u32::from(pick)));
                }
                Fault::Expired => {
                    self.team.queue.push_back((to, event));
                    let participant = &self.team.members[to.0 as usize].participant;
                    let known: Vec<_> = participant.pending().chain(participant.active()).collect();
                    if let Some(handoff) = known.get(usize::from(pick) % known.len().max(1)) {
                        self.deliver(to, Event::Expired { handoff: *handoff });
                    }
                }
            }
        }
    }

    /// Deliver all that still waits, in order, including what it leads to.
    fn drain(&mut self) {
        while let Some((to, event)) = self.team.queue.pop_front() {
            self.deliver(to, event);
        }
    }

    fn deliver(&mut self, to: AgentId, event: Event) {
        let at = to.0 as usize;
        let (member, told) = (&mut self.team.members[at], &mut self.told[at]);
        told.handoffs += u64::from(matches!(event, Event::Received { .. }));
        told.values += u64::from(matches!(event, Event::Valued(_) | Event::Finished { .. }));
        let before = member.clone();
        let effects = match member.try_tell(event.clone()) {
            Ok(effects) => effects,
            Err(_) => {
                told.refused += 1;
                unchanged(&before, member);
                return;
            }
        };
        self.naive[at].on(&event, &decided(&effects));
        for effect in &effects {
            match effect {
                Effect::Value { message, .. } => {
                    // A duplicate is answered as the first was.
                    let first = *told.answers.entry(message.handoff).or_insert(*message);
                    assert_eq!(first, *message);
                }
                Effect::Perform { handoff, .. } => *told.performed.entry(*handoff).or_default() += 1,
                Effect::Record(Record::Settled { handoff, table, .. }) => {
                    told.settlements += 1;
                    assert!(
                        *table == Table::Operations || told.settled.insert(*handoff),
                        "{handoff} settles a second time"
                    );
                }
                _ => {}
            }
        }
        self.team.follow(to, &effects);
    }

    /// What must hold at any time.
    fn holds(&self) {
        for ((member, told), naive) in self.team.members.iter().zip(&self.told).zip(&self.naive) {
            let counters = member.participant.counters();
            assert_eq!(counters.settled, told.settlements);
            assert_eq!(counters.refused, told.refused);
            // A handoff is taken on or is a duplicate; none was refused here.
            assert_eq!(counters.received + counters.duplicate_handoffs, told.handoffs);
            // A value settles, is late, or is unknown.
            let from_values = |r: &&Record| matches!(r, Record::Valued { .. } | Record::Finished { .. });
            let settling = member.records.iter().filter(from_values).count() as u64;
            assert_eq!(settling + counters.late_values + counters.unknown_values, told.values);
            // What was taken on is still worked on, expired, or led to an end.
            let active = member.participant.active().count() as u64;
            assert!(counters.received >= active);
            // An agent that cannot go on locally acts once per handoff.
            if member.participant.spec().learner.regime != ADAPTABLE {
                assert!(told.performed.values().all(|n| *n == 1));
            }
            // What it learned is what the reference learns of the values that reached it, in their order.
            naive.agrees(member).unwrap();
        }
    }
}

/// An event about something that never was.
fn stranger(kind: u8, number: u32) -> Event {
    let handoff = id(1 << 90, number, 9);
    match kind {
        0 => valued(handoff, 1.0),
        1 => finished(handoff, 1.0),
        2 => Event::Expired { handoff },
        3 => performed(handoff, 1.0, 1, Next::Ended),
        4 => Event::Valued(ValueMessage { revision: 3, ..ValueMessage::new(handoff, worth(1.0)) }),
        _ => performed(handoff, 1.0, 1, Next::HandOver(seen(1, 2))),
    }
}

/// A refused event leaves everything but the count of refusals as it was.
fn unchanged(before: &Member, after: &Member) {
    let refused = |m: &Member| format!("refused: {} }}", m.participant.counters().refused);
    assert_eq!(before.state().replace(&refused(before), ""), after.state().replace(&refused(after), ""));
    assert_eq!(before.rng.position(), after.rng.position());
    assert_eq!(before.records.len(), after.records.len());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]

    /// Nothing panics, nothing settles twice, the counters add up, duplicates get the same answer and no second
    /// `Perform`, and each agent has learned what the reference learns of the values that arrived.
    #[test]
    fn a_team_survives_faults(seed in 0u64..1000, regime in 0usize..3, script in scripts(true)) {
        let mut trial = Trial::new(seed, REGIMES[regime]);
        trial.run(&script);
        trial.holds();
        trial.drain();
        trial.holds();
    }

    /// If nothing is lost, everything ends: each handoff is settled exactly once.
    #[test]
    fn without_losses_every_handoff_is_settled(seed in 0u64..1000, regime in 0usize..3, script in scripts(false)) {
        let mut trial = Trial::new(seed, REGIMES[regime]);
        trial.run(&script);
        trial.drain();
        trial.holds();
        for (member, told) in trial.team.members.iter().zip(&trial.told) {
            prop_assert_eq!(member.participant.pending().count(), 0);
            prop_assert_eq!(member.participant.active().count(), 0);
            prop_assert_eq!(member.participant.counters().expired, 0);
            prop_assert_eq!(told.answers.len() as u64, member.participant.counters().received);
        }
    }
}

// ---- One participant, values in any order --------------------------------------------------------------------------

/// One agent makes 40 handoffs and gets a given value for each. Uniform choices, so that what it learned in between
/// cannot change them. `order` says when each value comes, a value may come several times.
fn settlements(order: &[usize], regime: relevo_core::learner::Regime) -> (Vec<String>, Member) {
    let mut spec = spec(0, &[1, 2], regime);
    spec.learner.policy = exploring(1.0);
    let mut a = Member::new(spec, 5);
    let mut world = World::new(5);
    for episode in 0..40 {
        let (signature, reward, tau) =
            (u64::from(world.rng.below(3)), world.rng.unit(), 1 + world.rng.below(3));
        let over =
            if regime == BEFORE { Next::Committed } else { Next::HandOver(seen_only(signature, &[0, 1])) };
        a.tell(received(opening(episode, 0), seen_only(signature, &[0, 1])));
        a.tell(performed(opening(episode, 0).id, reward, tau, over));
    }
    for at in order {
        a.tell(valued(second(*at as u128, 0), *at as f64 / 7.0));
    }
    // A settlement without its step, which alone depends on the order.
    let settled = |r: &Record| match r {
        Record::Settled {
            handoff,
            table: Table::Successors,
            signature,
            action,
            reward,
            tau,
            target,
            usage,
            ..
        } => Some(format!("{handoff} {signature:?} {action:?} {reward:?} {tau:?} {target:?} {usage:?}")),
        _ => None,
    };
    let mut all: Vec<String> = a.records.iter().filter_map(settled).collect();
    all.sort();
    (all, a)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, ..ProptestConfig::default() })]

    /// Delayed, reordered and duplicated values make the same settlements as the clean run.
    #[test]
    fn the_order_of_values_does_not_change_what_is_settled(
        order in Just((0..40).collect::<Vec<usize>>()).prop_shuffle(),
        again in proptest::collection::vec((0usize..80, 0usize..40), 0..60),
        regime in 0usize..3,
    ) {
        let regime = REGIMES[regime];
        let (clean, expected) = settlements(&(0..40).collect::<Vec<_>>(), regime);
        let mut faulty = order.clone();
        again.iter().for_each(|(at, value)| faulty.insert(at % (faulty.len() + 1), *value));
        let (found, member) = settlements(&faulty, regime);
        prop_assert_eq!(clean.len(), 40);
        prop_assert_eq!(found, clean);
        prop_assert_eq!(member.participant.counters().late_values, again.len() as u64);
        // The values that arrived, each at its first arrival, in that order: the same bits.
        let mut first = BTreeSet::new();
        let once: Vec<usize> = faulty.iter().copied().filter(|v| first.insert(*v)).collect();
        let (_, reordered) = settlements(&once, regime);
        prop_assert_eq!(edges(member.graph(Table::Successors)), edges(reordered.graph(Table::Successors)));
        let visits = |m: &Member| (0..3).map(|s| m.graph(Table::Successors).visits(Signature(s))).collect::<Vec<_>>();
        prop_assert_eq!(visits(&member), visits(&expected));
    }

    /// What is lost is as if it had never been sent: the rest is learned as in a clean run of the rest.
    #[test]
    fn lost_values_only_lose_samples(kept in proptest::collection::vec(any::<bool>(), 40), regime in 0usize..3) {
        let regime = REGIMES[regime];
        let rest: Vec<usize> = (0..40).filter(|i| kept[*i]).collect();
        let (found, member) = settlements(&rest, regime);
        let (clean, _) = settlements(&(0..40).collect::<Vec<_>>(), regime);
        prop_assert_eq!(found.len(), rest.len());
        prop_assert!(found.iter().all(|s| clean.contains(s)));
        prop_assert_eq!(member.participant.pending().count(), 40 - rest.len());
    }
}

// ---- Duplicates and refusals, spelled out --------------------------------------------------------------------------

#[test]
fn a_handoff_received_again_gets_the_same_answer_and_no_second_perform() {
    for (regime, credit) in REGIMES.into_iter().flat_map(|r| CREDITS.map(|c| (r, c))) {
        let mut spec = spec(0, &[1], regime);
        spec.learner.credit = credit;
        let mut a = Member::new(spec, 1);
        let arrival = received(opening(1, 0), seen_only(1, &[0]));
        let other_view = received(Handoff { clock: 7, ..opening(1, 0) }, seen_only(2, &[0]));
        let mut answers = values(&a.tell(arrival.clone()));
        let again = |a: &mut Member, answers: &[ValueMessage]| {
            let before = a.ledger();
            for event in [arrival.clone(), other_view.clone()] {
                let effects = a.tell(event);
                let expected: Vec<Effect> =
                    answers.iter().map(|m| Effect::Value { to: AgentId::ORIGIN, message: *m }).collect();
                assert_eq!(effects, expected, "{regime:?} {credit:?}");
            }
            assert_eq!(a.ledger(), before);
        };
        again(&mut a, &answers);
        let over = if regime == BEFORE { Next::Committed } else { Next::HandOver(seen_only(3, &[0])) };
        answers.extend(values(&a.tell(performed(opening(1, 0).id, 1.0, 1, over.clone()))));
        again(&mut a, &answers);
        answers.extend(values(&a.tell(valued(second(1, 0), 3.0))));
        assert_eq!(answers.len(), 1, "{regime:?} {credit:?}: exactly one scalar goes back");
        again(&mut a, &answers);
        assert_eq!(a.participant.counters().duplicate_handoffs, 6);
        // An operation is over once.
        let refused = a.try_tell(performed(opening(1, 0).id, 1.0, 1, over));
        assert!(matches!(refused, Err(ProtocolError::NotActive { .. })));
    }
}

/// Every kind of refusal, in every regime, in the middle of work: the state is as it was, and so is what comes after.
#[test]
fn a_refused_event_changes_nothing() {
    for regime in REGIMES {
        let mut spec = spec(0, &[1, 2], regime);
        spec.limits.active_max = 2;
        let mut a = Member::new(spec, 1);
        let over = |s| if regime == BEFORE { Next::Committed } else { Next::HandOver(seen(s, 3)) };
        for episode in 1..20 {
            a.tell(received(opening(episode, 0), seen(episode as u64 % 4, 3)));
            a.tell(performed(opening(episode, 0).id, 1.0, 2, over(2)));
            a.tell(valued(second(episode, 0), 2.0));
        }
        let active = opening(50, 0);
        a.tell(received(active, seen(1, 3)));
        a.tell(received(opening(51, 0), seen(1, 3)));
        let ending = |o| Event::Performed {
            handoff: opening(51, 0).id,
            reward: earned(1.0),
            tau: lasting(1),
            usage: Usage::default(),
            next: o,
        };
        let none = Observation::of(Signature(1), ActionSet::default());
        let wide = seen_only(1, &[0, 3]);
        let wider = seen_only(1, &[200]);
        let mut refused: Vec<(&str, Event)> = vec![
            ("wrong addressee", received(opening(52, 1), seen(1, 3))),
            ("wrong addressee", received(Handoff { to: AgentId::ORIGIN, ..opening(52, 0) }, seen(1, 3))),
            ("overloaded", received(opening(52, 0), seen(1, 3))),
            ("unknown activation", performed(opening(60, 0).id, 1.0, 1, over(2))),
            ("ended activation", performed(opening(3, 0).id, 1.0, 1, over(2))),
        ];
        let wrong: &[Next] = match regime {
            BEFORE => &[Next::HandOver(seen(1, 3)), Next::Operate(seen(1, 3))],
            AFTER => &[
                Next::Committed,
                Next::Operate(seen(1, 3)),
                Next::HandOver(none.clone()),
                Next::HandOver(wide.clone()),
                Next::HandOver(wider.clone()),
            ],
            _ => &[
                Next::Committed,
                Next::HandOver(none.clone()),
                Next::HandOver(wide.clone()),
                Next::Operate(none.clone()),
                Next::Operate(wide.clone()),
                Next::Operate(wider.clone()),
            ],
        };
        refused.extend(wrong.iter().map(|next| ("regime or choices", ending(next.clone()))));
        check_refusals(&a, &refused, regime);
        // With room for one more: choices are checked at activation, unless nothing is decided there.
        a.tell(Event::Expired { handoff: active.id });
        if regime != AFTER {
            let arrivals = [none, wide, wider].map(|o| ("choices", received(opening(52, 0), o)));
            check_refusals(&a, &arrivals, regime);
        }
        let last = Handoff { id: id(52, u32::MAX, 3), to: AgentId(0), clock: 0 };
        check_refusals(&a, &[("too long", received(last, seen(1, 3)))], regime);
    }
}

fn check_refusals(a: &Member, refused: &[(&str, Event)], regime: relevo_core::learner::Regime) {
    for (why, event) in refused {
        let (mut touched, mut untouched) = (a.clone(), a.clone());
        let mut effects = vec![Effect::Finish { handoff: id(1, 1, 1) }];
        let error = touched.participant.apply(event.clone(), &mut touched.rng, &mut effects);
        let error = error.expect_err(why);
        assert!(!error.to_string().is_empty());
        assert_eq!(effects.len(), 1, "{why}: effects of a refused event");
        unchanged(a, &touched);
        assert_eq!(touched.participant.counters().refused, a.participant.counters().refused + 1);
        // Both go on alike.
        let mut world = World::new(3);
        for handoff in a.participant.active().collect::<Vec<_>>() {
            let operation = world.operation(a.participant.spec(), handoff);
            assert_eq!(touched.tell(operation.clone()), untouched.tell(operation), "{regime:?} {why}");
        }
        for episode in 100..110 {
            let arrival = received(opening(episode, 0), world.arrival(a.participant.spec()));
            assert_eq!(touched.try_tell(arrival.clone()), untouched.try_tell(arrival), "{regime:?} {why}");
            let operation = world.operation(a.participant.spec(), opening(episode, 0).id);
            assert_eq!(
                touched.try_tell(operation.clone()),
                untouched.try_tell(operation),
                "{regime:?} {why}"
            );
        }
        assert_eq!(touched.ledger(), untouched.ledger());
        assert_eq!(edges(touched.graph(Table::Successors)), edges(untouched.graph(Table::Successors)));
    }
}

/// The error tells which agent, which handoff, and what the limits are.
#[test]
fn refusals_say_what_and_where() {
    let mut a = Member::new(spec(0, &[1], BEFORE), 1);
    let mut refusal = |event| a.try_tell(event).unwrap_err().to_string();
    let table = [
        (
            received(opening(1, 3), seen(1, 2)),
            "1/0/origin is addressed to agent AgentId(3), not to AgentId(0)",
        ),
        (received(opening(1, 0), seen(1, 3)), "admits 3 choices up to column 3; the agent has 2"),
        (performed(id(5, 2, 4), 0.0, 1, Next::Ended), "handoff 5/2/4 is not being worked on"),
    ];
    for (event, text) in table {
        let message = refusal(event);
        assert!(message.contains(text), "{message}");
    }
    assert!(ActionSet::all(2).contains(ActionId(1)));
}
