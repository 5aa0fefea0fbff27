//! Snapshots: a participant that is saved and loaded at any moment goes on as if nothing had happened; other bytes are
//! refused.

mod common;

use common::*;
use relevo_core::{
    Rng,
    graph::PolicyGraph,
    ids::{ActionId, AgentId},
    learner::{Credit, Estimator, ExperienceReplay, Extensions, LocalSpec, PendingDecisions, Regime},
    observation::{Features, Signature},
    policy::{PolicySpec, Posterior, Ucb},
    pools::PooledSpec,
    protocol::{Effects, Event, Next, Participant, ParticipantSpec},
    q::{Inputs, LinearSpec, LmsRule, MlpSpec, Optimiser},
    record::Table,
    snapshot::SnapshotError,
    step::StepRule,
    units::{Confidence, Usage},
};
use std::panic;

/// An estimator, and the features of a signature that it reads.
type Kind = (Estimator, fn(u64) -> Features);

fn estimators() -> [Kind; 5] {
    let mlp = MlpSpec {
        inputs: 2,
        hidden: vec![6, 5],
        width: 0,
        optimiser: Optimiser::adam(0.01),
        batch: 3,
        trust_radius: Some(0.5),
        offset: 0.0,
    };
    let linear =
        |inputs| Estimator::Linear(LinearSpec { inputs, width: 0, init: 0.0, rule: LmsRule::default() });
    let dense: fn(u64) -> Features = |s| Features::Dense([1.0, s as f32 / 4.0 - 0.5].into());
    [
        (Estimator::Table, |_| Features::None),
        (Estimator::Pooled(PooledSpec { groups: vec![], strength: 2.5 }), two_coarser),
        (linear(Inputs::Hashed { bits: 4 }), |s| Features::Sparse([(s as u32, 1.0), (900, 0.5)].into())),
        (Estimator::Mlp(mlp.clone()), dense),
        (
            Estimator::Mlp(MlpSpec { optimiser: Optimiser::Sgd { rate: 0.1 }, trust_radius: None, ..mlp }),
            dense,
        ),
    ]
}

fn policies() -> [PolicySpec; 3] {
    [
        exploring(0.3),
        PolicySpec::Ucb(Ucb::default()),
        PolicySpec::Posterior(Posterior { variance: 0.25, floor: 0.05 }),
    ]
}

/// A specification with tight limits; what else there is to choose is drawn from `seed`.
fn specify(spec: &mut ParticipantSpec, estimator: &Estimator, policy: PolicySpec, seed: u64) {
    let mut draw = Rng::stream(seed, "specification");
    (spec.limits.pending_max, spec.limits.active_max, spec.limits.remembered_max) = (5, 8, 6);
    let learner = &mut spec.learner;
    (learner.estimator, learner.policy) = (estimator.clone(), policy);
    learner.credit = CREDITS[draw.below(3) as usize];
    let poly = StepRule::PolyAverage { exponent: 0.6 };
    learner.step = [poly, StepRule::Resc { horizon: 5 }, StepRule::Constant(0.3)][draw.below(3) as usize];
    if learner.credit == Credit::Trajectory {
        learner.step = StepRule::Mean;
    }
    learner.pending = [PendingDecisions::Ignored, PendingDecisions::Counted][draw.below(2) as usize];
    learner.signatures_max = [3, 100][draw.below(2) as usize];
    let passes = learner.credit == Credit::ValuePassing;
    if passes && learner.regime != AFTER && draw.below(2) == 0 {
        learner.extensions.standard_error = Some(0.5);
    }
    if passes && learner.regime == ADAPTABLE && matches!(estimator, Estimator::Linear(_) | Estimator::Mlp(_))
    {
        let replay = Some(ExperienceReplay { capacity: 7, updates: 2 });
        learner.local = Some(LocalSpec { estimator: estimator.clone(), step: poly, replay });
    }
}

/// A team whose events come in random order, twice, or never; some fail, some handoffs are given up, some endings are
/// trusted less.
struct Trial {
    team: Team,
    chance: Rng,
    episode: u128,
}

impl Trial {
    fn new(regime: Regime, (estimator, features): &Kind, policy: PolicySpec, seed: u64) -> Self {
        let mut team = Team::ring(regime, |spec| specify(spec, estimator, policy, seed), seed);
        team.world.features = *features;
        for member in &mut team.members {
            let table = Table::Successors;
            let prior = |s| Event::Primed {
                table,
                signature: Signature(s),
                action: ActionId(1),
                value: worth(0.5),
                weight: 3,
            };
            // Only tables take them.
            [1, 3].map(prior).into_iter().for_each(|event| drop(member.try_tell(event)));
        }
        Trial { team, chance: Rng::stream(seed, "chance"), episode: 0 }
    }

    /// The next event, and whom it is for.
    fn next(&mut self) -> (AgentId, Event) {
        while self.team.queue.len() < 6 {
            self.team.start(self.episode);
            self.episode += 1;
        }
        let (to, event) = {
            let at = self.chance.below(self.team.queue.len() as u32) as usize;
            self.team.queue.remove(at).unwrap()
        };
        match (self.chance.below(24), event) {
            (0, _) => {
                let participant = &self.team.members[to.0 as usize].participant;
                let handoff = participant.pending().chain(participant.active()).last();
                (to, Event::Expired { handoff: handoff.unwrap_or(second(1 << 90, 9)) })
            }
            (1 | 2, event) => {
                self.team.queue.push_back((to, event.clone()));
                (to, event)
            }
            (3..=6, Event::Performed { handoff, next, .. }) => {
                (to, Event::Failed { handoff, usage: Usage::default(), next })
            }
            (3..=6, event @ Event::Finished { handoff, .. }) => {
                self.team.queue.push_back((to, event));
                (to, Event::Trusted { handoff, confidence: Confidence::new(0.5).unwrap() })
            }
            (_, event) => (to, event),
        }
    }

    fn run(&mut self, events: usize) {
        for _ in 0..events {
            let (to, event) = self.next();
            let effects = self.team.members[to.0 as usize].try_tell(event);
            self.team.follow(to, &effects.unwrap_or_default());
            // A damaged snapshot may answer whoever it says it heard from.
            self.team.queue.retain(|(to, _)| to.0 < 3);
        }
    }
}

fn save(member: &Member) -> Vec<u8> {
    member.participant.save(&member.rng).unwrap()
}

fn load(member: &Member, bytes: &[u8]) -> Member {
    let (participant, rng) = Participant::load(member.participant.spec().clone(), bytes).unwrap();
    Member { participant, rng, records: vec![] }
}

/// Every regime, estimator and policy, over many seeds: beside each member goes one that is saved and loaded at random
/// moments. All their effects, records and refusals are the same, bit for bit, and so are their snapshots.
#[test]
fn a_loaded_participant_goes_on_as_the_saved_one() {
    let bits = |told: &Result<Effects, _>| format!("{told:?}");
    let (mut compared, mut in_flight) = (0, 0);
    for (regime, estimator) in REGIMES.into_iter().flat_map(|r| estimators().map(|e| (r, e))) {
        for (policy, seed) in policies().into_iter().flat_map(|p| (0..12).map(move |seed| (p, seed))) {
            let mut trial = Trial::new(regime, &estimator, policy, seed);
            let (mut twins, name) = (trial.team.members.clone(), &estimator.0);
            for event in 0..160 {
                let (to, what) = trial.next();
                let (member, twin) = (&mut trial.team.members[to.0 as usize], &mut twins[to.0 as usize]);
                if trial.chance.below(12) == 0 {
                    let bytes = save(member);
                    assert!(bytes == save(twin), "{regime:?} {name:?} {policy:?} {seed} {event}");
                    *twin = load(member, &bytes);
                    assert!(bytes == save(twin), "{regime:?} {name:?} {policy:?} {seed} {event}");
                    let waiting = |m: &Member| {
                        (
                            m.participant.pending().collect::<Vec<_>>(),
                            m.participant.active().collect::<Vec<_>>(),
                        )
                    };
                    assert_eq!(waiting(member), waiting(twin));
                    compared += 1;
                    in_flight += twin.participant.pending().count() + twin.participant.active().count();
                }
                let told = member.try_tell(what.clone());
                let again = twin.try_tell(what);
                assert_eq!(bits(&told), bits(&again), "{regime:?} {name:?} {policy:?} {seed} {event}");
                trial.team.follow(to, &told.unwrap_or_default());
            }
            for (member, twin) in trial.team.members.iter().zip(&twins) {
                assert!(save(member) == save(twin) && member.rng.position() == twin.rng.position());
                for table in tables_of(regime) {
                    let (graph, twin) = (member.graph(*table), twin.graph(*table));
                    let leads = |graph: &PolicyGraph| {
                        graph
                            .signatures()
                            .iter()
                            .map(|s| format!("{:?}", graph.leads(*s)))
                            .collect::<Vec<_>>()
                    };
                    assert_eq!((edges(graph), leads(graph)), (edges(twin), leads(twin)));
                    assert_eq!(graph.pools().map(edges), twin.pools().map(edges));
                }
            }
        }
    }
    assert!(
        compared > 5_000 && in_flight > 2 * compared,
        "{compared} snapshots, {in_flight} handoffs in flight"
    );
}

/// The same bytes under a seal of their own.
fn seal(body: &[u8]) -> Vec<u8> {
    let seal = blake3::derive_key("relevo 2026 snapshot v1", body);
    [body, &[0x58, 32], &seal].concat()
}

/// Prefixes, changed bytes and exchanged parts: without their seal all are refused. With it they are refused, or are a
/// participant whose snapshot they are, and which bears the events that come.
#[test]
fn other_bytes_are_refused_or_are_another_snapshot() {
    let (mut accepted, mut refused) = (0, 0);
    for (regime, estimator) in REGIMES.into_iter().flat_map(|r| estimators().map(|e| (r, e))) {
        for seed in 0..3 {
            let mut trial = Trial::new(regime, &estimator, policies()[seed as usize], seed);
            trial.run(150);
            let member = &trial.team.members[0];
            let bytes = save(member);
            let body = &bytes[..bytes.len() - 34];
            let spec = member.participant.spec();
            let mut draw = Rng::stream(seed, "damage");
            for end in 0..bytes.len() {
                let prefix = Participant::load(spec.clone(), &bytes[..end]);
                assert!(
                    matches!(prefix, Err(SnapshotError::Altered | SnapshotError::Format { .. })),
                    "{end}"
                );
            }
            for _ in 0..1500 {
                let mut other = body.to_vec();
                let at = draw.below(other.len() as u32) as usize;
                match draw.below(4) {
                    0 => other.truncate(at),
                    1 => other[at] = draw.bits() as u8,
                    2 => other[at] ^= 1 << draw.below(8),
                    _ => {
                        let from = draw.below(other.len() as u32) as usize;
                        let length = draw.below(40) as usize;
                        let part = other[from..other.len().min(from + length)].to_vec();
                        other.splice(at..(at + part.len()).min(body.len()), part);
                    }
                }
                if other == body {
                    continue;
                }
                let unsealed = [&other, &bytes[body.len()..]].concat();
                assert!(Participant::load(spec.clone(), &unsealed).is_err());
                let sealed = seal(&other);
                let Ok((participant, rng)) = Participant::load(spec.clone(), &sealed) else {
                    refused += 1;
                    continue;
                };
                accepted += 1;
                assert!(participant.save(&rng).unwrap() == sealed);
                let mut trial = Trial { team: trial.team.clone(), chance: trial.chance.clone(), ..trial };
                trial.team.members[0] = Member { participant, rng, records: vec![] };
                let went_on = panic::catch_unwind(panic::AssertUnwindSafe(|| trial.run(40)));
                assert!(went_on.is_ok(), "{regime:?} {:?} {seed}: byte {at} of {}", estimator.0, body.len());
            }
        }
    }
    assert!(accepted > 1_000 && refused > 5_000, "{accepted} accepted, {refused} refused");
}

type Change = fn(&mut ParticipantSpec);

#[test]
fn refusals_say_what_and_why() {
    let mut member = Member::new(spec(0, &[1, 2], BEFORE), 1);
    let bytes = save(&member);
    let load = |change: Change, bytes: &[u8]| {
        let mut spec = spec(0, &[1, 2], BEFORE);
        change(&mut spec);
        Participant::load(spec, bytes).expect_err("this is to be refused").to_string()
    };
    let of_others: [(Change, &str); 4] = [
        (|s| s.id = AgentId(4), "these parts differ: the agent"),
        (|s| s.learner.step = StepRule::Constant(0.5), "these parts differ: the step rule"),
        (
            |s| (s.learner.initial, s.limits.pending_max) = (0.5, 7),
            "these parts differ: the limits, the initial value",
        ),
        (|s| s.learner.extensions.local_model = true, "the extension local model has no snapshots"),
    ];
    for (change, text) in of_others {
        let message = load(change, &bytes);
        assert!(message.contains(text), "{message}");
    }
    let mut other = bytes.clone();
    other[100] ^= 1;
    for (bytes, text) in [
        (&b""[..], "begin with \"[]\""),
        (b"SQLite format 3", "begin with \"[53, 51, 4c"),
        (
            b"\x70relevo.ledger/v1",
            "begin with \"relevo.ledger/v1\"; this program reads \"relevo.snapshot/v1\"",
        ),
        (&other, "cut off or was altered"),
        (&seal(&bytes[..bytes.len() - 40]), "cannot be read at byte"),
        (&seal(&[&bytes[..bytes.len() - 34], &[0]].concat()), "not in canonical form"),
    ] {
        let message = load(|_| {}, bytes);
        assert!(message.contains(text), "{message}");
    }
    let graph = member.participant.learner_mut().graph_mut(Table::Successors).unwrap();
    graph.assign(Signature(1), ActionId(0), f64::NAN);
    assert_eq!(member.participant.save(&member.rng), Err(SnapshotError::Diverged));
    let mut refreshing = spec(0, &[1], BEFORE);
    refreshing.learner.extensions = Extensions { refresh: Some(0.1), ..Extensions::default() };
    let refreshing = Member::new(refreshing, 1);
    assert_eq!(refreshing.participant.save(&refreshing.rng), Err(SnapshotError::Extension("refresh")));
}

/// The format is fixed, and grows with what is known: 4 choices a node, then handoffs that wait.
#[test]
fn the_bytes_are_those_of_version_1() {
    let mut member = Member::new(spec(0, &[1, 2, 3], BEFORE), 1);
    let mut settled = |nodes: std::ops::Range<u64>| {
        for node in nodes {
            let episode = u128::from(node);
            let signature = Signature::of_name(&node.to_string());
            member.tell(received(opening(episode, 0), seen(signature.0, 4)));
            member.tell(performed(opening(episode, 0).id, 0.5, 1, Next::Committed));
            member.tell(valued(second(episode, 0), 0.25));
            member.tell(finished(second(episode, 0), 0.25));
        }
        (save(&member), member.clone())
    };
    let (small, _) = settled(0..50);
    assert_eq!(blake3::hash(&small).to_hex()[..16], *"c6d350f925528dd6");
    // Of what has ended, only so much is remembered: from 10,000 on it is the nodes that grow.
    let ((many, _), (more, mut member)) = (settled(50..12_000), settled(12_000..13_000));
    let a_node = (more.len() - many.len()) as f64 / 1000.0;
    for episode in 20_000..21_000 {
        member.tell(received(opening(episode, 0), seen(1, 4)));
        member.tell(performed(opening(episode, 0).id, 0.5, 1, Next::Committed));
    }
    let pending = (save(&member).len() - more.len()) as f64 / 1000.0;
    assert_eq!((a_node, pending), (205.0, 74.0), "bytes a node of 4 choices, and bytes a pending handoff");
}

/// Where one CBOR item after another begins, from byte `at` on.
fn items(bytes: &[u8], at: usize, count: usize) -> Vec<usize> {
    let mut decoder = minicbor::Decoder::new(bytes);
    decoder.set_position(at);
    let next = |_| {
        decoder.skip().unwrap();
        decoder.position()
    };
    std::iter::once(at).chain((0..count).map(next)).collect()
}

/// A graph whose situations, edges or sums are those of another one does not fit together.
#[test]
fn a_graph_of_parts_that_do_not_fit_is_refused() {
    let mut member = Member::new(spec(0, &[1, 2], BEFORE), 1);
    let settled = |member: &mut Member, episode: u128| {
        member.tell(received(opening(episode, 0), seen(episode as u64, 3)));
        member.tell(performed(opening(episode, 0).id, 0.5, 1, Next::Committed));
        member.tell(valued(second(episode, 0), 0.25));
        save(member)
    };
    let [one, two] = [1, 2].map(|episode| settled(&mut member, episode));
    // After the format, the digests, and the key and position of the stream comes the graph, an array of seven.
    let parts = |bytes: &[u8]| items(bytes, items(bytes, 0, 4)[4] + 1, 7);
    let (ones, twos) = (parts(&one), parts(&two));
    for (part, held) in [false, false, false, true, true, true, true].into_iter().enumerate() {
        let (start, end) = (twos[part], twos[part + 1]);
        let other = [&two[..start], &one[ones[part]..ones[part + 1]], &two[end..two.len() - 34]].concat();
        let loaded = Participant::load(spec(0, &[1, 2], BEFORE), &seal(&other));
        assert_eq!(loaded.is_ok(), held, "part {part}: {:?}", loaded.err());
    }
}
