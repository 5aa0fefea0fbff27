//! The eight invariants of the project, as far as the pure core can show each of them.

mod common;

use common::*;
use relevo_core::{
    Rng,
    graph::PolicyGraph,
    ids::{AgentId, EpisodeId, Handle},
    learner::{Credit, Extensions, Regime},
    observation::{ActionSet, Features, Observation, Signature},
    policy::{Policy, PolicySpec, Posterior, Scores, Ucb},
    protocol::{Effect, Effects, Event, Handoff, Journal, Limits, Next, ParticipantSpec, ValueMessage},
    record::{Record, Table},
    replay::Replay,
};

/// All extensions, in the two combinations that go together.
const EXTENDED: [Extensions; 2] = [
    Extensions { local_model: true, refresh: Some(0.05), standard_error: None },
    Extensions { local_model: false, refresh: Some(0.05), standard_error: Some(0.5) },
];

/// Every combination of regime and credit, and the extensions where they are allowed.
fn variants() -> Vec<(Regime, Credit, Extensions)> {
    let plain = REGIMES.into_iter().flat_map(|r| CREDITS.map(|c| (r, c, Extensions::default())));
    let extended = [BEFORE, ADAPTABLE].into_iter();
    let extended = extended.flat_map(|r| EXTENDED.map(|e| (r, Credit::ValuePassing, e)));
    plain.chain(extended).collect()
}

fn with(credit: Credit, extensions: Extensions) -> impl Fn(&mut ParticipantSpec) {
    move |spec| (spec.learner.credit, spec.learner.extensions) = (credit, extensions)
}

// ---- 1. What crosses back over a boundary is a handoff id and one number -------------------------------------------

/// The bytes of the one scalar on its way: an array of the id (an array of four), V as 64 bits, and three fields of
/// extensions: absent, absent, revision 0.
#[test]
fn invariant_1_a_value_is_an_id_and_one_number() {
    for (regime, credit, extensions) in variants() {
        if extensions != Extensions::default() {
            continue;
        }
        let mut team = Team::ring(regime, with(credit, extensions), 5);
        let mut seen = 0;
        for episode in 0..60 {
            team.start(episode);
            while let Some((to, event)) = team.queue.pop_front() {
                let effects = team.members[to.0 as usize].tell(event);
                for message in values(&effects) {
                    let ValueMessage { handoff, value, .. } = message;
                    assert_eq!(message, ValueMessage::new(handoff, value));
                    let mut expected = vec![0x85, 0x84, 0x00];
                    for part in [episode as u32, handoff.seq, handoff.from.0] {
                        minicbor::encode(part, &mut expected).unwrap();
                    }
                    expected.push(0xfb);
                    expected.extend(value.get().to_be_bytes());
                    expected.extend([0xf6, 0xf6, 0x00]);
                    assert_eq!(minicbor::to_vec(message).unwrap(), expected);
                    seen += 1;
                }
                // What goes forward is an id, an addressee and a clock.
                for effect in &effects {
                    if let Effect::Send(Handoff { id, to, clock }) = effect {
                        let bytes = minicbor::to_vec(Handoff { id: *id, to: *to, clock: *clock }).unwrap();
                        assert_eq!(bytes[..2], [0x83, 0x84]);
                        assert!(bytes.len() <= 3 + 3 * 5 + 2 * 9);
                    }
                }
                team.follow(to, &effects);
            }
        }
        assert!(seen > 60, "{regime:?} {credit:?}: only {seen} values");
    }
}

/// Taint: a signature and features of conspicuous bytes go into every observation and never come out, whatever is on.
#[test]
fn invariant_1_nothing_that_an_agent_sees_leaves_it() {
    const PLANTED: f32 = 1.797_693e20;
    let signature = |s: u64| Signature(0xA5C3_96F0_5A3C_0000 + s);
    let taint = |o: Observation| Observation {
        signature: signature(o.signature.0),
        features: Features::Dense([PLANTED; 3].into()),
        ..o
    };
    let needles: Vec<Vec<u8>> = (0..4)
        .map(|s| signature(s).0.to_be_bytes()[..6].to_vec())
        .chain((0..4).map(|s| signature(s).0.to_le_bytes()[2..].to_vec()))
        .chain([PLANTED.to_be_bytes().to_vec(), f64::from(PLANTED).to_be_bytes().to_vec()])
        .chain([PLANTED.to_le_bytes().to_vec(), f64::from(PLANTED).to_le_bytes().to_vec()])
        .collect();
    let occurs = |bytes: &[u8]| needles.iter().any(|n| bytes.windows(n.len()).any(|w| w == n));
    for (regime, credit, extensions) in variants() {
        let mut team = Team::ring(regime, with(credit, extensions), 6);
        let (mut sent, mut kept) = (0, false);
        for episode in 0..40 {
            team.start(episode);
            while let Some((to, event)) = team.queue.pop_front() {
                let event = match event {
                    Event::Received { handoff, observation } => received(handoff, taint(observation)),
                    Event::Performed { handoff, reward, tau, usage, next } => {
                        let next = match next {
                            Next::Operate(o) => Next::Operate(taint(o)),
                            Next::HandOver(o) => Next::HandOver(taint(o)),
                            other => other,
                        };
                        Event::Performed { handoff, reward, tau, usage, next }
                    }
                    other => other,
                };
                let effects = team.members[to.0 as usize].tell(event);
                for effect in &effects {
                    let bytes = match effect {
                        Effect::Value { message, .. } => minicbor::to_vec(message).unwrap(),
                        Effect::Send(handoff) => minicbor::to_vec(handoff).unwrap(),
                        Effect::Answer { handle, value, .. } => minicbor::to_vec((handle, value)).unwrap(),
                        Effect::Ask { handle, .. } => minicbor::to_vec(handle).unwrap(),
                        Effect::Finish { handoff } => minicbor::to_vec(handoff).unwrap(),
                        Effect::Perform { .. } | Effect::Record(_) => continue,
                    };
                    assert!(!occurs(&bytes), "{effect:?} carries what the agent saw");
                    sent += 1;
                }
                kept |= occurs(&bytes_of(to, &records(&effects)));
                team.follow(to, &effects);
            }
            team.queue.extend((0..3).map(|i| (AgentId(i), Event::Replan)));
        }
        assert!(sent > 100 && kept, "the own ledger holds it, else this test would find nothing");
    }
}

// ---- 2. No learner reads another's records -------------------------------------------------------------------------

/// A hands to B. B's private world (its situations, rewards, durations and what follows) is another one in each run,
/// but the values it returns are the same: A's ledger has the same bytes.
#[test]
fn invariant_2_an_agent_depends_on_others_through_v_alone() {
    let run = |world: u64| {
        let mut a = Member::new(spec(0, &[1], BEFORE), 1);
        let mut b = Member::new(spec(1, &[0], ADAPTABLE), world);
        let mut hidden = World { signatures: 1 << 30, ..World::new(world) };
        for episode in 0..80 {
            let situation = seen(u64::from(episode as u32 % 3), 2);
            a.tell(received(opening(episode, 0), situation));
            let effects = a.tell(performed(opening(episode, 0).id, 0.5, 2, Next::Committed));
            match effects.last() {
                Some(Effect::Send(handoff)) => {
                    // Always a new situation to B, so that V is its initial value.
                    let effects = b.tell(received(*handoff, hidden.arrival(b.participant.spec())));
                    let event = hidden.operation(b.participant.spec(), handoff.id);
                    b.tell(event);
                    a.tell(Event::Valued(values(&effects)[0]));
                }
                Some(Effect::Finish { handoff }) => drop(a.tell(finished(*handoff, 1.0))),
                other => panic!("{other:?}"),
            }
        }
        (a.ledger(), b.ledger())
    };
    let (a, b) = run(1);
    for world in 2..6 {
        let (same, other) = run(world);
        assert_ne!(b, other);
        assert_eq!(a, same, "world {world}");
    }
}

// ---- 3. Records are durable before their effects leave -------------------------------------------------------------

/// The order of the effects of one event, for a driver that makes each record durable before it carries out what
/// follows it in the list:
///
/// - the first record mirrors the event and stands before everything else; the only event that has effects without a
///   record is a handoff received again (its answer was recorded the first time) or a question of an extension;
/// - a handoff is received (`Received`) before its value is returned, even though the choice is recorded after it;
/// - after an operation that ends the decision, `Performed` and, if the choice was made after it, `Decided` stand before
///   the `Send` or `Finish`; a choice made before the operation was `Decided` before its `Perform`;
/// - under relay and trajectory credit, the `Settled` from which a value is computed stands before the value;
/// - `Perform`, `Send` and `Finish` are the last effect: no record comes after what it should have come before.
fn in_order(event: &Event, effects: &Effects, credit: Credit, regime: Regime) {
    let Some(first) = effects.first() else { return };
    let recorded = matches!(first, Effect::Record(record) if record.event().as_ref() == Some(event));
    let asked = matches!(event, Event::Asked { .. });
    // The clamped value of an answer is what is recorded of it.
    let answered =
        matches!((event, first), (Event::Answered { .. }, Effect::Record(Record::Answered { .. })));
    assert!(recorded || asked || answered, "{event:?} begins with {first:?}");

    let place = |of: &dyn Fn(&Effect) -> bool| effects.iter().position(of);
    let decided = place(&|e| matches!(e, Effect::Record(Record::Decided { .. })));
    let settled = place(&|e| matches!(e, Effect::Record(Record::Settled { .. })));
    let acts = |e: &Effect| matches!(e, Effect::Perform { .. } | Effect::Send(_) | Effect::Finish { .. });
    let act = place(&acts);
    if let Some(act) = act {
        assert_eq!(act + 1, effects.len(), "{event:?}: something follows the act in {effects:?}");
        match (event, regime, &effects[act]) {
            (Event::Received { .. }, AFTER, Effect::Perform { .. }) => assert_eq!(decided, None),
            (Event::Received { .. }, _, Effect::Perform { .. }) => assert!(decided.unwrap() < act),
            (Event::Performed { .. }, BEFORE, _) => assert_eq!(decided, None),
            (Event::Performed { .. }, _, _) => assert!(decided.unwrap() < act),
            other => panic!("{other:?} leads to an act"),
        }
    }
    if credit != Credit::ValuePassing
        && let Some(value) = place(&|e| matches!(e, Effect::Value { .. }))
    {
        // An agent that decides after its operation settles nothing if the task ends within it.
        let nothing = matches!((event, regime), (Event::Performed { .. }, AFTER));
        assert!(nothing || settled.unwrap() < value, "{event:?}: {effects:?}");
    }
    for (i, effect) in effects.iter().enumerate() {
        if let Effect::Value { message, .. } = effect
            && message.revision > 0
        {
            let moved =
                |e: &Effect| matches!(e, Effect::Record(Record::Settled { .. } | Record::Revised { .. }));
            assert!(
                effects[..i].iter().any(moved),
                "a refreshed value stands before what moved it: {effects:?}"
            );
        }
    }
}

#[test]
fn invariant_3_records_stand_before_the_effects_they_cause() {
    for (regime, credit, extensions) in variants() {
        let mut team = Team::ring(regime, with(credit, extensions), 7);
        let mut acts = 0;
        for episode in 0..60 {
            team.start(episode);
            team.queue.extend((0..3).map(|i| (AgentId(i), Event::Replan)));
            while let Some((to, event)) = team.queue.pop_front() {
                let replan = event == Event::Replan;
                let effects = team.members[to.0 as usize].tell(event.clone());
                if !(replan && effects.is_empty()) {
                    in_order(&event, &effects, credit, regime);
                }
                acts += usize::from(!effects.is_empty());
                team.follow(to, &effects);
            }
        }
        assert!(acts > 100);
    }
}

/// One handoff spelled out, in the order in which a driver sees it.
#[test]
fn invariant_3_the_order_of_one_handoff() {
    let names = |effects: &Effects| -> Vec<&str> {
        let name = |effect: &Effect| match effect {
            Effect::Record(Record::Received { .. }) => "received",
            Effect::Record(Record::Performed { .. }) => "performed",
            Effect::Record(Record::Decided { .. }) => "decided",
            Effect::Record(Record::Settled { .. }) => "settled",
            Effect::Record(Record::Valued { .. }) => "valued",
            Effect::Record(_) => "record",
            Effect::Value { .. } => "VALUE",
            Effect::Perform { .. } => "PERFORM",
            Effect::Send(_) => "SEND",
            Effect::Finish { .. } => "FINISH",
            Effect::Ask { .. } | Effect::Answer { .. } => "EXTENSION",
        };
        effects.iter().map(name).collect()
    };
    let o = seen_only(1, &[0]);
    let over = |regime| match regime {
        BEFORE => Next::Committed,
        _ => Next::HandOver(seen_only(2, &[0])),
    };
    type Row = (Regime, Credit, &'static [&'static str], &'static [&'static str], &'static [&'static str]);
    let (paper, relay) = (Credit::ValuePassing, Credit::Relay { lambda: 0.5 });
    let table: [Row; 6] = [
        (
            BEFORE,
            paper,
            &["received", "VALUE", "decided", "PERFORM"],
            &["performed", "SEND"],
            &["valued", "settled"],
        ),
        (
            BEFORE,
            relay,
            &["received", "decided", "PERFORM"],
            &["performed", "SEND"],
            &["valued", "settled", "VALUE"],
        ),
        (
            AFTER,
            paper,
            &["received", "PERFORM"],
            &["performed", "VALUE", "decided", "SEND"],
            &["valued", "settled"],
        ),
        (
            AFTER,
            relay,
            &["received", "PERFORM"],
            &["performed", "decided", "SEND"],
            &["valued", "settled", "VALUE"],
        ),
        (
            ADAPTABLE,
            paper,
            &["received", "VALUE", "decided", "PERFORM"],
            &["performed", "settled", "decided", "SEND"],
            &["valued", "settled"],
        ),
        (
            ADAPTABLE,
            relay,
            &["received", "decided", "PERFORM"],
            &["performed", "decided", "SEND"],
            &["valued", "settled", "settled", "VALUE"],
        ),
    ];
    for (regime, credit, on_received, on_performed, on_valued) in table {
        let mut spec = spec(0, &[1], regime);
        spec.learner.credit = credit;
        let mut a = Member::new(spec, 1);
        assert_eq!(names(&a.tell(received(opening(1, 0), o.clone()))), on_received, "{regime:?} {credit:?}");
        let effects = a.tell(performed(opening(1, 0).id, 1.0, 1, over(regime)));
        assert_eq!(names(&effects), on_performed, "{regime:?} {credit:?}");
        assert_eq!(names(&a.tell(valued(second(1, 0), 2.0))), on_valued, "{regime:?} {credit:?}");
    }
}

// ---- 4. A late, duplicated, reordered or unknown value changes nothing ---------------------------------------------

#[test]
fn invariant_4_a_value_settles_at_most_once() {
    for (regime, credit, extensions) in variants() {
        let mut spec = spec(0, &[1], regime);
        with(credit, extensions)(&mut spec);
        let mut a = Member::new(spec, 1);
        let over = |s| if regime == BEFORE { Next::Committed } else { Next::HandOver(seen_only(s, &[0])) };
        for episode in 1..=4 {
            a.tell(received(opening(episode, 0), seen_only(episode as u64, &[0])));
            a.tell(performed(opening(episode, 0).id, 1.0, 2, over(episode as u64)));
        }
        // Reordered: the third before the first. Expired: the second. The fourth stays open.
        a.tell(valued(second(3, 0), 3.0));
        a.tell(valued(second(1, 0), 1.0));
        a.tell(Event::Expired { handoff: second(2, 0) });
        let counted = a.participant.counters();
        assert_eq!(counted.expired, 1);
        assert_eq!(a.q(2, 0), 0.0, "an expired handoff is not learned from, not even as 0");
        assert!(a.graph(Table::Successors).edges(Signature(2)).is_none());
        assert_eq!(a.participant.pending().collect::<Vec<_>>(), [second(4, 0)]);

        // Duplicated, late, and unknown: of another sender, of a later handoff, of a task never seen.
        let before = a.clone();
        let strangers = [id(3, 1, 9), id(3, 2, 0), id(99, 1, 0)];
        for handoff in [second(1, 0), second(3, 0), second(2, 0)].into_iter().chain(strangers) {
            assert!(a.tell(valued(handoff, 50.0)).is_empty());
            assert!(a.tell(finished(handoff, 50.0)).is_empty());
            let fresh = ValueMessage { revision: 7, ..ValueMessage::new(handoff, worth(50.0)) };
            if extensions.refresh.is_none() {
                assert!(a.tell(Event::Valued(fresh)).is_empty());
            }
        }
        assert!(a.tell(Event::Expired { handoff: second(1, 0) }).is_empty());
        for table in tables_of(regime) {
            assert_eq!(edges(a.graph(*table)), edges(before.graph(*table)));
        }
        assert_eq!(a.ledger(), before.ledger());
        let (late, unknown) = (a.participant.counters().late_values, a.participant.counters().unknown_values);
        assert_eq!(late, if extensions.refresh.is_none() { 6 + 6 } else { 6 });
        assert_eq!(unknown, 6);
        assert_eq!(a.participant.counters().settled, counted.settled);
    }
}

// ---- 5. Same seed and same events, same bytes; and the same policy from a replay -----------------------------------

fn replayed(member: &Member, seed: u64) -> Member {
    let mut copy = Member::new(member.participant.spec().clone(), seed);
    let mut replay = Replay::default();
    for record in &member.records {
        replay.take(&mut copy.participant, &mut copy.rng, record).unwrap();
        copy.records.push(record.clone());
    }
    assert!(replay.is_complete());
    copy
}

#[test]
fn invariant_5_the_same_seed_and_events_give_the_same_bytes_and_a_replay_the_same_participant() {
    let policies = [
        exploring(0.3),
        PolicySpec::Ucb(Ucb { floor: 0.2, ..Ucb::default() }),
        PolicySpec::Posterior(Posterior { variance: 0.5, floor: 0.1 }),
    ];
    for ((regime, credit, extensions), policy) in
        variants().into_iter().flat_map(|v| policies.map(|p| (v, p)))
    {
        let run = |episodes| {
            let change = |spec: &mut ParticipantSpec| {
                with(credit, extensions)(spec);
                spec.learner.policy = policy;
            };
            let mut team = Team::ring(regime, change, 8);
            for episode in 0..episodes {
                team.run(episode..episode + 1);
                if extensions.local_model {
                    team.queue.extend((0..3).map(|i| (AgentId(i), Event::Replan)));
                }
            }
            team
        };
        let (team, twin) = (run(60), run(60));
        for (member, twin) in team.members.iter().zip(&twin.members) {
            assert_eq!(member.ledger(), twin.ledger(), "{regime:?} {credit:?} {policy:?}");
            assert!(member.records.len() > 50);
            let mut copy = replayed(member, 8);
            for table in tables_of(regime) {
                assert_eq!(edges(copy.graph(*table)), edges(member.graph(*table)));
            }
            // Nothing was lost or refused: even the counters are the same, but for refreshed values that came after a
            // newer step of their cell, which are counted and not recorded.
            let late = format!("late_values: {}", member.participant.counters().late_values);
            assert!(extensions.refresh.is_some() || late == "late_values: 0");
            assert_eq!(copy.state(), member.state().replace(&late, "late_values: 0"));
            assert_eq!(copy.rng.position(), member.rng.position());
            // And it goes on alike.
            let (mut member, mut world) = (member.clone(), World::new(9));
            for episode in 1000..1040 {
                let handoff = opening(episode, member.participant.spec().id.0);
                let arrival = received(handoff, world.arrival(member.participant.spec()));
                assert_eq!(member.tell(arrival.clone()), copy.tell(arrival));
                let operation = world.operation(member.participant.spec(), handoff.id);
                assert_eq!(member.tell(operation.clone()), copy.tell(operation));
            }
        }
    }
}

/// Events that changed nothing are not in the ledger and not needed by the replay.
#[test]
fn invariant_5_a_replay_does_without_what_changed_nothing() {
    let mut team = Team::ring(BEFORE, |_| {}, 8);
    for episode in 0..40 {
        team.start(episode);
        while let Some((to, event)) = team.queue.pop_front() {
            let member = &mut team.members[to.0 as usize];
            let effects = member.tell(event.clone());
            if !matches!(event, Event::Performed { .. }) {
                member.tell(event);
            }
            member.tell(valued(id(77, 7, 7), 1.0));
            assert!(member.try_tell(performed(id(77, 7, 7), 1.0, 1, Next::Ended)).is_err());
            team.follow(to, &effects);
        }
    }
    for member in &team.members {
        let copy = replayed(member, 8);
        assert_eq!(edges(copy.graph(Table::Successors)), edges(member.graph(Table::Successors)));
        assert_eq!(copy.rng.position(), member.rng.position());
        assert!(member.participant.counters().unknown_values > 40);
    }
}

/// A simulation that keeps no records does the same.
#[test]
fn invariant_5_omitting_the_journal_changes_nothing_else() {
    for (regime, credit, extensions) in variants() {
        let run = |journal| {
            let change = |spec: &mut ParticipantSpec| {
                with(credit, extensions)(spec);
                spec.journal = journal;
            };
            let mut team = Team::ring(regime, change, 8);
            team.run(0..60);
            team
        };
        let (kept, omitted) = (run(Journal::Kept), run(Journal::Omitted));
        assert_eq!(kept.answers, omitted.answers);
        for (a, b) in kept.members.iter().zip(&omitted.members) {
            assert!(b.records.is_empty());
            assert_eq!(a.state().replace("journal: Kept", "journal: Omitted"), b.state());
        }
    }
}

/// A ledger of another seed, or one that was changed, is not replayed.
#[test]
fn invariant_5_a_replay_refuses_what_does_not_follow() {
    let mut team = Team::ring(BEFORE, |_| {}, 8);
    team.run(0..20);
    let member = &team.members[0];
    let refuses = |records: &[Record], seed| {
        let mut copy = Member::new(member.participant.spec().clone(), seed);
        let mut replay = Replay::default();
        records.iter().any(|r| replay.take(&mut copy.participant, &mut copy.rng, r).is_err())
            || !replay.is_complete()
    };
    assert!(!refuses(&member.records, 8));
    assert!(refuses(&member.records, 9), "another seed decides otherwise");
    for (i, record) in member.records.iter().enumerate() {
        let mut without = member.records.clone();
        without.remove(i);
        // Without its last event, all of it, the ledger is a shorter ledger.
        let whole_event = i + 1 == member.records.len() && record.event().is_some();
        assert!(whole_event || refuses(&without, 8), "without record {i}, {record:?}");
    }
}

// ---- 6. Every queue, map and message has a limit -------------------------------------------------------------------

const TIGHT: Limits = Limits { pending_max: 30, active_max: 40, remembered_max: 20, extended_max: 20 };
const SIGNATURES_MAX: usize = 16;
const FLOOD: u128 = 100_000;

/// A participant under a flood: its whole state, in writing, is no longer after the flood than after its first tenth.
struct Flood {
    member: Member,
    after_first_tenth: usize,
}

impl Flood {
    fn new(regime: Regime, credit: Credit, extensions: Extensions) -> Self {
        let mut spec = spec(0, &[1, 2], regime);
        (spec.limits, spec.learner.signatures_max) = (TIGHT, SIGNATURES_MAX);
        with(credit, extensions)(&mut spec);
        Flood { member: Member::new(spec, 2), after_first_tenth: 0 }
    }

    /// `wave` is given numbers from 10^9 on, so that all have as many digits.
    fn run(mut self, waves: u128, mut wave: impl FnMut(&mut Member, u128)) -> Member {
        for i in 0..waves {
            wave(&mut self.member, 1_000_000_000 + i);
            self.member.records.clear();
            let participant = &self.member.participant;
            assert!(participant.pending().count() <= TIGHT.pending_max);
            assert!(participant.active().count() <= TIGHT.active_max);
            for table in tables_of(participant.spec().learner.regime) {
                assert!(self.member.graph(*table).len() <= SIGNATURES_MAX);
            }
            if i == waves / 10 {
                self.after_first_tenth = self.member.state().len();
            }
        }
        let state = self.member.state();
        assert!(
            state.len() <= self.after_first_tenth + self.after_first_tenth / 5 + 2000,
            "the state grew from {} to {} bytes: {:.3000}",
            self.after_first_tenth,
            state.len(),
            state
        );
        self.member
    }
}

fn over(regime: Regime, signature: u64) -> Next {
    match regime {
        BEFORE => Next::Committed,
        _ => Next::HandOver(seen_only(signature, &[0, 1])),
    }
}

/// Handoffs whose operation never ends: refused beyond the limit.
#[test]
fn invariant_6_a_flood_of_handoffs_is_refused() {
    for regime in REGIMES {
        let member =
            Flood::new(regime, Credit::ValuePassing, Extensions::default()).run(FLOOD, |member, i| {
                let _ = member.try_tell(received(opening(i, 0), seen(i as u64, 3)));
            });
        let counters = member.participant.counters();
        assert_eq!(counters.received, TIGHT.active_max as u64);
        assert_eq!(counters.refused, FLOOD as u64 - counters.received);
    }
}

/// Handoffs made and never answered: the oldest expire, counted.
#[test]
fn invariant_6_a_flood_of_unanswered_handoffs_expires() {
    for (regime, credit, extensions) in variants() {
        let member = Flood::new(regime, credit, extensions).run(FLOOD / 4, |member, i| {
            member.tell(received(opening(i, 0), seen_only(i as u64, &[0, 1])));
            member.tell(performed(opening(i, 0).id, 1.0, 1, over(regime, i as u64)));
        });
        assert_eq!(member.participant.pending().count(), TIGHT.pending_max);
        let newest =
            (0..TIGHT.pending_max as u128).rev().map(|i| second(1_000_000_000 + FLOOD / 4 - 1 - i, 0));
        assert!(member.participant.pending().eq(newest), "the newest are kept");
        assert_eq!(member.participant.counters().expired, (FLOOD / 4) as u64 - TIGHT.pending_max as u64);
    }
}

/// The oldest is the one made first, not the one whose task has the smallest number.
#[test]
fn invariant_6_the_oldest_handoff_expires_whatever_its_id() {
    let mut spec = spec(0, &[1], BEFORE);
    spec.limits.pending_max = 2;
    let mut a = Member::new(spec, 1);
    for episode in [9, 8, 7, 6] {
        a.tell(received(opening(episode, 0), seen_only(1, &[0])));
        a.tell(performed(opening(episode, 0).id, 1.0, 1, Next::Committed));
    }
    assert_eq!(a.participant.pending().collect::<Vec<_>>(), [second(6, 0), second(7, 0)]);
}

/// More handoffs at a time than are remembered, from start to end, with values: nothing is left behind.
#[test]
fn invariant_6_waves_of_work_leave_nothing_behind() {
    for (regime, credit, extensions) in variants() {
        let member = Flood::new(regime, credit, extensions).run(FLOOD / 150, |member, wave| {
            let handoffs = (0..TIGHT.active_max as u128).map(|i| opening(wave * 100 + i, 0));
            for handoff in handoffs.clone() {
                member.tell(received(handoff, seen_only(wave as u64, &[0, 1])));
            }
            for (i, handoff) in handoffs.enumerate() {
                match i % 4 {
                    0 => drop(member.tell(Event::Expired { handoff: handoff.id })),
                    1 => drop(member.tell(performed(handoff.id, 1.0, 1, Next::Ended))),
                    _ => {
                        member.tell(performed(handoff.id, 1.0, 1, over(regime, wave as u64)));
                        let made = second(handoff.id.episode.0, 0);
                        let handle = extensions.local_model.then_some(Handle(wave as u64 * 100 + i as u64));
                        let message = ValueMessage { handle, ..ValueMessage::new(made, worth(1.0)) };
                        member.tell(Event::Valued(message));
                        if i % 4 == 3 {
                            // Again: late, or unknown by now.
                            member.tell(Event::Valued(ValueMessage::new(made, worth(1.0))));
                            let _ = member.try_tell(received(handoff, seen_only(wave as u64, &[0, 1])));
                        }
                    }
                }
            }
            // A handoff that was forgotten is taken for a new one: do not let those stay.
            for handoff in member.participant.active().collect::<Vec<_>>() {
                member.tell(Event::Expired { handoff });
            }
        });
        assert_eq!(member.participant.active().count(), 0);
    }
}

/// Values, ends, expiries, answers and questions about what was never there.
#[test]
fn invariant_6_a_flood_of_unknown_messages_leaves_nothing() {
    for extensions in [Extensions::default(), EXTENDED[0], EXTENDED[1]] {
        let member = Flood::new(BEFORE, Credit::ValuePassing, extensions).run(FLOOD / 5, |member, i| {
            let (handle, from) = (Handle(i as u64), AgentId(1));
            member.tell(valued(second(i, 0), 1.0));
            member.tell(finished(second(i, 0), 1.0));
            member.tell(Event::Expired { handoff: second(i, 0) });
            member.tell(Event::Asked { from, handle });
            member.tell(Event::Answered { from, handle, value: worth(1.0) });
        });
        assert_eq!(member.participant.counters().unknown_values, 4 * FLOOD as u64 / 5);
    }
}

/// Two handoffs of different senders with the same number lead to the same id: the first is given up, not forgotten.
#[test]
fn invariant_6_a_clash_of_ids_is_an_expiry() {
    for credit in CREDITS {
        let mut spec = spec(0, &[1], BEFORE);
        spec.learner.credit = credit;
        let mut a = Member::new(spec, 1);
        for from in [5, 6] {
            let handoff = Handoff { id: id(1, 3, from), to: AgentId(0), clock: 0 };
            a.tell(received(handoff, seen_only(1, &[0])));
            a.tell(performed(handoff.id, 1.0, 1, Next::Committed));
        }
        assert_eq!((a.participant.pending().count(), a.participant.counters().expired), (1, 1));
        a.tell(valued(id(1, 4, 0), 1.0));
        assert_eq!(a.participant.counters().settled, 1);
    }
}

/// The signature under which a full graph keeps the rest may itself be met, even first.
#[test]
fn invariant_6_a_graph_is_bounded_whatever_it_meets() {
    for first in [PolicyGraph::OTHER, Signature(3)] {
        let mut graph = PolicyGraph::new(1, 0.0, relevo_core::step::StepRule::Constant(1.0), 4);
        for s in [first].into_iter().chain((0..100).map(Signature)) {
            graph.settle(s, relevo_core::ids::ActionId(0), 1.0, 1.0, Default::default());
        }
        assert!(graph.len() <= 4, "{:?}", graph.signatures());
        assert_eq!(graph.edges(Signature(77)).unwrap()[0].value, 1.0);
        let visits: u64 = graph.signatures().iter().map(|s| graph.visits(*s)).sum();
        assert_eq!(visits, 101);
    }
}

/// A ledger's reader has limits too: what it would refuse is not let in, so that no record is ever unreadable.
#[test]
fn invariant_6_what_could_not_be_read_again_is_refused() {
    let sparse = Features::Sparse(vec![(0, 1.0); (1 << 20) + 1].into());
    let wide: ActionSet = [relevo_core::ids::ActionId(1 << 16)].into_iter().collect();
    for regime in REGIMES {
        let unreadable = [
            Observation { features: Features::Dense([f32::NAN].into()), ..seen(1, 2) },
            Observation { features: Features::Sparse([(3, f32::INFINITY)].into()), ..seen(1, 2) },
            Observation { features: sparse.clone(), ..seen(1, 2) },
            Observation {
                features: Features::Coarser([relevo_core::observation::Signature(1); 9].into()),
                ..seen(1, 2)
            },
            Observation { legal: wide.clone(), ..seen(1, 2) },
        ];
        let mut a = Member::new(spec(0, &[1], regime), 1);
        for observation in unreadable {
            let o = observation.clone();
            assert!(a.try_tell(received(opening(1, 0), o)).is_err(), "{regime:?}: at activation");
            a.tell(received(opening(2, 0), seen(1, 2)));
            for next in [Next::HandOver(observation.clone()), Next::Operate(observation)] {
                assert!(a.try_tell(performed(opening(2, 0).id, 1.0, 1, next)).is_err(), "{regime:?}: later");
            }
        }
    }
}

// ---- 7. Every decision carries its probabilities; replaying its position gives it again ----------------------------

#[test]
fn invariant_7_every_decision_carries_its_probabilities_and_can_be_made_again() {
    let policies = [
        exploring(0.0),
        exploring(0.3),
        exploring(1.0),
        PolicySpec::Ucb(Ucb { floor: 0.2, ..Ucb::default() }),
        PolicySpec::Posterior(Posterior { variance: 0.5, floor: 0.1 }),
    ];
    for (regime, policy) in REGIMES.into_iter().flat_map(|r| policies.map(|p| (r, p))) {
        let mut team = Team::ring(regime, |spec| spec.learner.policy = policy, 12);
        let mut decisions = 0;
        for episode in 0..60 {
            team.start(episode);
            while let Some((to, event)) = team.queue.pop_front() {
                let before = team.members[to.0 as usize].clone();
                let effects = team.members[to.0 as usize].tell(event.clone());
                let observation = match &event {
                    Event::Received { observation, .. } => Some(observation),
                    Event::Performed { next: Next::Operate(o) | Next::HandOver(o), .. } => Some(o),
                    _ => None,
                };
                for record in records(&effects) {
                    let Record::Decided {
                        handoff,
                        table,
                        signature,
                        action,
                        greedy,
                        probabilities,
                        position,
                    } = record
                    else {
                        continue;
                    };
                    let o = observation.unwrap();
                    assert_eq!((signature, probabilities.len()), (o.signature, o.legal.len()));
                    assert!((probabilities.iter().sum::<f64>() - 1.0).abs() < 1e-12);
                    let place = o.legal.iter().position(|a| a == action).expect("an admissible choice");
                    assert!(probabilities[place] > 0.0 && probabilities.iter().all(|p| *p >= 0.0));
                    // The learner as it was, the stream taken to the position: the same decision. (The value of a
                    // local step is settled between event and decision, which an operation's table alone can see.)
                    if regime == ADAPTABLE && matches!(event, Event::Performed { next: Next::Operate(_), .. })
                    {
                        continue;
                    }
                    let mut rng = stream(12, to);
                    rng.seek(position);
                    let clock = episode as u64;
                    let learner = before.participant.learner();
                    let again = learner.decide(table, o, EpisodeId(episode), clock, &mut rng);
                    assert_eq!((again.action, again.greedy, again.position), (action, greedy, position));
                    assert_eq!(*again.probabilities, *probabilities);
                    assert_eq!(handoff.episode, EpisodeId(episode));
                    decisions += 1;
                }
                team.follow(to, &effects);
            }
        }
        assert!(decisions > 50, "{regime:?} {policy:?}: {decisions}");
    }
}

/// The recorded vector is what a policy says of its scores: seek and decide at the policy itself.
#[test]
fn invariant_7_a_policy_decides_the_same_at_the_same_position() {
    let policy = PolicySpec::Posterior(Posterior { variance: 1.0, floor: 0.2 });
    let (legal, values) = (ActionSet::all(5), [0.1, 0.2, 0.3, 0.2, 0.1]);
    let mut rng = Rng::stream(3, "decisions");
    for episode in 0..200 {
        let (signature, episode) = (Signature(1), EpisodeId(episode));
        let scores = Scores {
            legal: &legal,
            values: &values,
            edges: &[],
            spreads: &[],
            pseudo: &[],
            signature,
            episode,
            clock: 0,
        };
        let decision = policy.decide(scores, &mut rng);
        let mut back = Rng::stream(3, "decisions");
        back.seek(decision.position);
        assert_eq!(policy.decide(scores, &mut back), decision);
    }
}

// ---- 8. A derived state has no writer: the graph is a fold of its records ------------------------------------------

#[test]
fn invariant_8_the_graph_is_the_fold_of_its_records() {
    for (regime, credit, extensions) in variants() {
        let change = |spec: &mut ParticipantSpec| {
            with(credit, extensions)(spec);
            spec.learner.step = relevo_core::step::StepRule::PolyAverage { exponent: 0.6 };
            spec.learner.signatures_max = 3;
        };
        let mut team = Team::ring(regime, change, 13);
        for episode in 0..80 {
            team.run(episode..episode + 1);
            team.queue.extend((0..3).map(|i| (AgentId(i), Event::Replan)));
        }
        for member in &team.members {
            for table in tables_of(regime) {
                let graph = member.graph(*table);
                let learner = &member.participant.spec().learner;
                let empty =
                    PolicyGraph::new(graph.width(), learner.initial, learner.step, learner.signatures_max);
                let fold = empty.fold(*table, &member.records);
                assert_eq!(edges(&fold), edges(graph), "{regime:?} {credit:?}");
                for signature in graph.signatures() {
                    assert_eq!(fold.spreads(*signature), graph.spreads(*signature));
                }
                assert_eq!(fold.len(), 3, "the limit was reached");
            }
        }
        let replanned = team.members.iter().any(|m| m.records.contains(&Record::Replanned));
        assert_eq!(replanned, extensions.local_model);
    }
}
