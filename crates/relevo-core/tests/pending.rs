//! Choices made and not yet settled: where they count, tasks decided at the same time spread over what is untried.

mod common;

use common::*;
use relevo_core::{
    Rng,
    ids::EpisodeId,
    learner::{LearnerSpec, PendingDecisions},
    observation::Signature,
    policy::{PolicySpec, Posterior, Ucb},
    protocol::{Event, Next, ParticipantSpec},
    record::{Record, Table},
    replay::Replay,
    units::Usage,
};

const UCB: PolicySpec = PolicySpec::Ucb(Ucb {
    exploration: 1.4,
    exploration_min: 0.5,
    half_life: 50.0,
    reliability: 0.5,
    warm_up: 0,
    floor: 0.0,
    ties: relevo_core::policy::Ties::First,
});

fn with(pending: PendingDecisions, policy: PolicySpec) -> impl Fn(&mut ParticipantSpec) {
    move |spec| spec.learner = LearnerSpec { pending, policy, ..spec.learner.clone() }
}

/// Three tasks arrive in one situation before any of them has ended; then the second is settled and a fourth comes.
#[test]
fn tasks_at_the_same_time_do_not_all_try_the_same_choice() {
    // Ignored: the settled first choice is worth -5 now and the others are untried. Counted: it was the second that was
    // settled; the others are under way, once each, and worth more.
    for (pending, expected, open) in
        [(PendingDecisions::Ignored, [0, 0, 0, 1], 0), (PendingDecisions::Counted, [0, 1, 2, 0], 3)]
    {
        let mut spec = spec(0, &[1, 2], BEFORE);
        with(pending, UCB)(&mut spec);
        let mut a = Member::new(spec, 1);
        let mut chosen = vec![];
        for episode in 1..=4 {
            if episode == 4 {
                a.tell(performed(opening(2, 0).id, 0.0, 1, Next::Committed));
                a.tell(valued(second(2, 0), -5.0));
            }
            let told = a.records.len();
            a.tell(received(opening(episode, 0), seen(7, 3)));
            chosen.extend(a.records[told..].iter().filter_map(|record| match record {
                Record::Decided { action, .. } => Some(action.index()),
                _ => None,
            }));
        }
        assert_eq!(chosen, expected, "{pending:?}");
        assert_eq!(a.participant.learner().pending(Table::Successors), open);
    }
}

/// They widen no value, and posterior sampling reads them as visits: its deviation shrinks by them.
#[test]
fn a_choice_under_way_says_nothing_of_its_value() {
    let mut spec = spec(0, &[1, 2], BEFORE);
    with(PendingDecisions::Counted, PolicySpec::Posterior(Posterior { variance: 1.0, floor: 0.1 }))(
        &mut spec,
    );
    let mut a = Member::new(spec, 1);
    let probabilities = |a: &Member| {
        let mut rng = Rng::stream(3, "decision");
        a.participant
            .learner()
            .decide(Table::Successors, &seen(7, 3), EpisodeId(9), 0, &mut rng)
            .probabilities
    };
    let even = probabilities(&a);
    for episode in 0..20 {
        a.tell(received(opening(episode, 0), seen_only(7, &[0])));
    }
    assert_eq!(a.participant.learner().values(Table::Successors, &seen(7, 3)), [0.0; 3]);
    assert!(even[0] > 0.33 && probabilities(&a)[0] < 0.3, "{:?}", probabilities(&a));
    // Another situation is as it was.
    assert_eq!(a.participant.learner().pending(Table::Successors), 20);
    assert_eq!(a.graph(Table::Successors).edges(Signature(8)), None);
}

/// Every choice is counted until it is settled, missed or given up, whatever becomes of it; and a ledger leads to
/// the same counts. Events come in random order, some operations fail, some handoffs are given up.
#[test]
fn what_is_counted_is_what_is_in_flight() {
    for (regime, credit) in REGIMES.into_iter().flat_map(|r| CREDITS.map(|c| (r, c))) {
        let change = |spec: &mut ParticipantSpec| {
            with(PendingDecisions::Counted, UCB)(spec);
            spec.learner.credit = credit;
            spec.limits.pending_max = 6;
        };
        let mut team = Team::ring(regime, change, 31);
        let mut chance = Rng::stream(32, "faults");
        let open =
            |m: &Member| tables_of(regime).iter().map(|t| m.participant.learner().pending(*t)).sum::<u64>();
        let mut most = 0;
        for episode in 0..60 {
            team.start(episode);
            team.start(1000 + episode);
            for _ in 0..12 {
                let waiting = team.queue.len() as u32;
                if waiting == 0 {
                    break;
                }
                let (to, mut event) = team.queue.remove(chance.below(waiting) as usize).unwrap();
                let member = &mut team.members[to.0 as usize];
                if let Event::Performed { handoff, next, .. } = &event
                    && regime == ADAPTABLE
                    && chance.below(4) == 0
                {
                    event = Event::Failed { handoff: *handoff, usage: Usage::default(), next: next.clone() };
                }
                // What is left over of a handoff that was given up is refused.
                let effects = member.try_tell(event).unwrap_or_default();
                let pending = member.participant.pending().next();
                let active = member.participant.active().next();
                if let Some(handoff) = pending.or(active)
                    && chance.below(15) == 0
                {
                    member.tell(Event::Expired { handoff });
                }
                most = most.max(open(member));
                team.follow(to, &effects);
            }
        }
        assert!(most > 2, "{regime:?} {credit:?}: {most}");
        for member in &mut team.members {
            let spec = member.participant.spec().clone();
            let mut copy = Member::new(spec, 31);
            let mut replay = Replay::default();
            for record in &member.records {
                replay.take(&mut copy.participant, &mut copy.rng, record).unwrap();
            }
            for table in tables_of(regime) {
                let pending = |m: &Member| m.participant.learner().pending(*table);
                assert_eq!(pending(&copy), pending(member));
            }
            let decided =
                member.records.iter().filter(|r| matches!(r, Record::Decided { .. })).count() as u64;
            let learned = |r: &&Record| matches!(r, Record::Settled { .. } | Record::Missed { .. });
            let learned = member.records.iter().filter(learned).count() as u64;
            assert!(open(member) <= decided - learned);
            let in_flight: Vec<_> = member.participant.pending().chain(member.participant.active()).collect();
            for handoff in in_flight {
                member.tell(Event::Expired { handoff });
            }
            assert_eq!(open(member), 0, "{regime:?} {credit:?}");
        }
    }
}
