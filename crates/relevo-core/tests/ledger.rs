//! The ledger: what a reader takes, and what it refuses.

mod common;

use common::*;
use proptest::prelude::*;
use relevo_core::{
    ids::{ActionId, AgentId, EpisodeId, Handle, HandoffId},
    learner::Extensions,
    observation::{ActionSet, Features, Observation, Signature},
    protocol::{Handoff, Next, ValueMessage},
    record::{Chain, Entry, FORMAT, Reader, Record, RecordError, Table, Way},
    units::{Cost, Return, Tau, Usage, Value},
};

// ---- Making ledgers ------------------------------------------------------------------------------------------------

fn opened() -> Record {
    Record::Opened { format: FORMAT.to_string(), config: [7; 32], seed: 3, episodes: 4 }
}

/// A ledger of these entries, opened, and sealed after each of `seals` (a number of entries) and at the end.
fn sealed(entries: &[Entry], seals: &[usize]) -> Vec<u8> {
    let (mut bytes, mut chain) = (vec![], Chain::default());
    let mut write = |agent, record, chain: &mut Chain| {
        let mut entry = vec![];
        Entry { agent, record }.write(&mut entry);
        chain.absorb(&entry);
        bytes.extend(entry);
    };
    write(AgentId::ORIGIN, opened(), &mut chain);
    for (i, entry) in entries.iter().enumerate() {
        write(entry.agent, entry.record.clone(), &mut chain);
        if seals.contains(&i) || i + 1 == entries.len() {
            let head = chain.seal();
            write(AgentId::ORIGIN, Record::Sealed { head }, &mut chain);
        }
    }
    bytes
}

fn read(bytes: &[u8]) -> Result<Vec<Entry>, RecordError> {
    let mut reader = Reader::new(bytes);
    let mut entries = vec![];
    while let Some(entry) = reader.next_entry()? {
        entries.push(entry);
    }
    assert_eq!(reader.offset(), bytes.len());
    Ok(entries)
}

/// What a short run of a team writes: every kind of record that a participant makes, two seals, and the driver's own.
fn small_ledger() -> (Vec<Entry>, Vec<u8>) {
    let mut entries = vec![];
    let plain = Extensions::default();
    let modelled = Extensions { local_model: true, refresh: Some(0.1), ..plain };
    let surer = Extensions { standard_error: Some(0.5), refresh: Some(0.1), ..plain };
    for (regime, extensions) in [(ADAPTABLE, plain), (BEFORE, modelled), (BEFORE, surer)] {
        let change = |spec: &mut relevo_core::protocol::ParticipantSpec| {
            spec.learner.extensions = extensions;
        };
        let mut team = Team::ring(regime, change, 2);
        team.run(0..2);
        for (i, member) in team.members.iter().enumerate() {
            let agent = AgentId(i as u32);
            entries.extend(member.records.iter().take(12).map(|r| Entry { agent, record: r.clone() }));
        }
    }
    let driver = |record| Entry { agent: AgentId::ORIGIN, record };
    entries.push(driver(Record::Named { signature: Signature(1), name: "sum=3 carry".to_string() }));
    entries.push(driver(Record::Closed {
        episode: 0,
        episode_return: 0.5,
        handoffs: 4,
        stop: "finished".to_string(),
        cost: None,
    }));
    let bytes = sealed(&entries, &[entries.len() / 3]);
    (entries, bytes)
}

// ---- Any entry -----------------------------------------------------------------------------------------------------

fn finite() -> impl Strategy<Value = f64> {
    prop_oneof![
        any::<f64>().prop_filter("finite", |x| x.is_finite()),
        Just(0.0),
        Just(-0.0),
        Just(f64::MIN_POSITIVE / 2.0),
        Just(f64::MAX),
    ]
}

fn finite32() -> impl Strategy<Value = f32> {
    any::<f32>().prop_filter("finite", |x| x.is_finite())
}

fn handoffs() -> impl Strategy<Value = HandoffId> {
    let from =
        prop_oneof![any::<u32>().prop_map(AgentId), Just(AgentId::ORIGIN), (0u32..30).prop_map(AgentId)];
    let episode = prop_oneof![any::<u128>(), 0u128..300];
    (episode, any::<u32>(), from).prop_map(|(e, seq, from)| HandoffId { episode: EpisodeId(e), seq, from })
}

fn observations() -> impl Strategy<Value = Observation> {
    let features = prop_oneof![
        Just(Features::None),
        proptest::collection::vec(finite32(), 0..5).prop_map(|x| Features::Dense(x.into())),
        proptest::collection::vec((any::<u32>(), finite32()), 0..5).prop_map(|x| Features::Sparse(x.into())),
        proptest::collection::vec(any::<u64>().prop_map(Signature), 0..9)
            .prop_map(|x| Features::Coarser(x.into())),
    ];
    let legal = proptest::collection::vec(prop_oneof![0u32..70, 0u32..65536], 0..8);
    (any::<u64>(), features, legal).prop_map(|(s, features, legal)| Observation {
        signature: Signature(s),
        features,
        legal: legal.into_iter().map(ActionId).collect::<ActionSet>(),
    })
}

fn returns() -> impl Strategy<Value = Return> {
    finite().prop_map(earned)
}

fn scalars() -> impl Strategy<Value = Value> {
    finite().prop_map(worth)
}

fn taus() -> impl Strategy<Value = Tau> {
    (1u32..).prop_map(lasting)
}

fn usages() -> impl Strategy<Value = Usage> {
    (any::<u64>(), any::<u32>()).prop_map(|(tokens, failures)| Usage { tokens, failures })
}

fn tables() -> impl Strategy<Value = Table> {
    prop_oneof![Just(Table::Successors), Just(Table::Operations)]
}

fn nexts() -> impl Strategy<Value = Next> {
    prop_oneof![
        observations().prop_map(Next::Operate),
        observations().prop_map(Next::HandOver),
        Just(Next::Committed),
        Just(Next::Ended),
    ]
}

fn messages() -> impl Strategy<Value = ValueMessage> {
    let options = (proptest::option::of(scalars()), proptest::option::of(any::<u64>().prop_map(Handle)));
    (handoffs(), scalars(), options, any::<u32>()).prop_map(
        |(handoff, value, (standard_error, handle), revision)| ValueMessage {
            handoff,
            value,
            standard_error,
            handle,
            revision,
        },
    )
}

/// What a participant writes.
fn agents_records() -> impl Strategy<Value = Record> {
    let handoff = (handoffs(), any::<u32>(), any::<u64>()).prop_map(|(id, to, clock)| Handoff {
        id,
        to: AgentId(to),
        clock,
    });
    let cell = || (tables(), any::<u64>().prop_map(Signature), any::<u32>().prop_map(ActionId));
    prop_oneof![
        (handoff, observations())
            .prop_map(|(handoff, observation)| Record::Received { handoff, observation }),
        (handoffs(), returns(), taus(), usages(), nexts()).prop_map(|(handoff, reward, tau, usage, next)| {
            Record::Performed { handoff, reward, tau, usage, next }
        }),
        messages().prop_map(|message| Record::Valued { message }),
        (handoffs(), returns()).prop_map(|(handoff, reward)| Record::Finished { handoff, reward }),
        (any::<u32>(), any::<u64>(), scalars()).prop_map(|(from, handle, value)| Record::Answered {
            from: AgentId(from),
            handle: Handle(handle),
            value
        }),
        handoffs().prop_map(|handoff| Record::Expired { handoff }),
        (handoffs(), cell(), any::<bool>(), proptest::collection::vec(finite(), 0..6), any::<u64>())
            .prop_map(|(handoff, (table, signature, action), greedy, probabilities, position)| {
                Record::Decided {
                    handoff,
                    table,
                    signature,
                    action,
                    greedy,
                    probabilities: probabilities.into(),
                    position,
                }
            }),
        (
            handoffs(),
            cell(),
            returns(),
            taus(),
            (finite(), finite()),
            usages(),
            (proptest::option::of(finite()), proptest::option::of(any::<u64>().prop_map(Signature)))
        )
            .prop_map(
                |(
                    handoff,
                    (table, signature, action),
                    reward,
                    tau,
                    (target, step),
                    usage,
                    (spread, lead),
                )| {
                    Record::Settled {
                        handoff,
                        table,
                        signature,
                        action,
                        reward,
                        tau,
                        target,
                        step,
                        usage,
                        spread,
                        lead,
                    }
                }
            ),
        (cell(), finite()).prop_map(|((table, signature, action), value)| Record::Revised {
            table,
            signature,
            action,
            value
        }),
        Just(Record::Replanned),
        (handoffs(), usages(), nexts()).prop_map(|(handoff, usage, next)| Record::Failed {
            handoff,
            usage,
            next
        }),
        (cell(), scalars(), any::<u32>()).prop_map(|((table, signature, action), value, weight)| {
            Record::Primed { table, signature, action, value, weight }
        }),
        (cell(), any::<u32>()).prop_map(|((table, signature, action), failures)| Record::Missed {
            table,
            signature,
            action,
            failures
        }),
    ]
}

fn costs() -> impl Strategy<Value = Cost> {
    (any::<u64>(), finite(), any::<u64>()).prop_map(|(tokens, money, ms)| Cost { tokens, money, ms })
}

fn entries() -> impl Strategy<Value = Entry> {
    let drivers = prop_oneof![
        (any::<u64>(), ".{0,12}").prop_map(|(s, name)| Record::Named { signature: Signature(s), name }),
        (any::<u64>(), finite(), any::<u32>(), ".{0,12}", proptest::option::of(costs())).prop_map(
            |(episode, episode_return, handoffs, stop, cost)| {
                Record::Closed { episode, episode_return, handoffs, stop, cost }
            }
        ),
        (any::<u64>(), ".{0,12}", ".{0,6}", [0, 1].map(|_| proptest::option::of(finite())), any::<bool>())
            .prop_map(|(episode, judge, check, [value, distance], fooled)| {
                Record::Tried { episode, judge, check, value, distance, fooled }
            }),
        (handoffs(), any::<[u8; 16]>(), ".{0,12}", prop_oneof![Just(Way::In), Just(Way::Out)])
            .prop_map(|(handoff, wire, peer, way)| Record::Crossed { handoff, wire, peer, way }),
        (handoffs(), ".{0,12}").prop_map(|(handoff, why)| Record::Censored { handoff, why }),
        (any::<u64>(), any::<[u8; 32]>())
            .prop_map(|(entries, digest)| Record::Snapshotted { entries, digest }),
    ];
    prop_oneof![
        5 => (any::<u32>(), agents_records()).prop_map(|(agent, record)| Entry { agent: AgentId(agent), record }),
        1 => drivers.prop_map(|record| Entry { agent: AgentId::ORIGIN, record }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    /// Entries come back as they were written, seals hold, and writing them again gives the same bytes.
    #[test]
    fn a_ledger_is_read_as_it_was_written(
        entries in proptest::collection::vec(entries(), 1..12),
        seals in proptest::collection::vec(0usize..12, 0..3),
    ) {
        let bytes = sealed(&entries, &seals);
        let found = read(&bytes).unwrap();
        let mine: Vec<Entry> = found
            .iter()
            .filter(|e| !matches!(e.record, Record::Opened { .. } | Record::Sealed { .. }))
            .cloned()
            .collect();
        prop_assert_eq!(&mine, &entries);
        prop_assert_eq!(&found[0].record, &opened());
        let mut again = vec![];
        found.iter().for_each(|entry| entry.write(&mut again));
        prop_assert_eq!(again, bytes);
    }

    /// Whatever bytes there are, the reader says what is wrong with them and never panics.
    #[test]
    fn random_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = read(&bytes);
        // Also behind a proper beginning, where they are not refused for their format.
        let mut ledger = vec![];
        Entry { agent: AgentId::ORIGIN, record: opened() }.write(&mut ledger);
        ledger.extend(bytes);
        let _ = read(&ledger);
    }

    /// Nor on bytes that are nearly right: one entry with some of its bytes overwritten.
    #[test]
    fn mangled_entries_never_panic(
        entry in entries(),
        mangled in proptest::collection::vec((any::<u16>(), any::<u8>()), 1..4),
    ) {
        let mut bytes = sealed(std::slice::from_ref(&entry), &[]);
        for (at, byte) in mangled {
            let at = usize::from(at) % bytes.len();
            bytes[at] = byte;
        }
        if let Ok(read) = read(&bytes) {
            let mut again = vec![];
            read.iter().for_each(|entry| entry.write(&mut again));
            prop_assert_eq!(again, bytes);
        }
    }
}

// ---- Alterations ---------------------------------------------------------------------------------------------------

#[test]
fn a_team_s_ledger_is_read_as_it_was_written() {
    let (entries, bytes) = small_ledger();
    let found = read(&bytes).unwrap();
    assert_eq!(found.len(), entries.len() + 3, "it is opened once and sealed twice");
    let mut kinds: Vec<_> = found.iter().map(|e| format!("{:?}", e.record)).collect();
    kinds.iter_mut().for_each(|k| k.truncate(k.find([' ', '{']).unwrap_or(k.len())));
    kinds.sort();
    kinds.dedup();
    assert!(kinds.len() >= 9, "{kinds:?}");
}

/// Every bit of every byte, the seals' own included.
#[test]
fn one_flipped_bit_anywhere_is_detected() {
    let (_, bytes) = small_ledger();
    let mut altered = bytes.clone();
    for at in 0..bytes.len() {
        for bit in 0..8 {
            altered[at] ^= 1 << bit;
            assert!(
                read(&altered).is_err(),
                "bit {bit} of byte {at} of {} is flipped unnoticed",
                bytes.len()
            );
            altered[at] ^= 1 << bit;
        }
    }
    assert!(read(&altered).is_ok());
}

/// Entries taken out, swapped, put in twice, or taken from another ledger break the seal after them.
#[test]
fn rearranged_entries_are_detected() {
    let (_, bytes) = small_ledger();
    let mut reader = Reader::new(&bytes);
    let mut pieces = vec![];
    let mut start = 0;
    while reader.next_entry().unwrap().is_some() {
        pieces.push(&bytes[start..reader.offset()]);
        start = reader.offset();
    }
    for i in 1..pieces.len() - 1 {
        let mut without = pieces.clone();
        let piece = without.remove(i);
        assert!(read(&without.concat()).is_err(), "without entry {i}");
        let mut twice = pieces.clone();
        twice.insert(i, piece);
        assert!(read(&twice.concat()).is_err(), "with entry {i} twice");
        if pieces[i] != pieces[i + 1] {
            let mut swapped = pieces.clone();
            swapped.swap(i, i + 1);
            assert!(read(&swapped.concat()).is_err(), "with entries {i} and the next swapped");
        }
    }
}

/// Cut anywhere: the entries before the cut are read, and then the cut is reported, or the end if it falls between two.
#[test]
fn a_cut_is_reported_or_leaves_a_clean_prefix() {
    let (_, bytes) = small_ledger();
    let whole = read(&bytes).unwrap();
    let mut ends = vec![0];
    let mut reader = Reader::new(&bytes);
    while reader.next_entry().unwrap().is_some() {
        ends.push(reader.offset());
    }
    for length in 0..bytes.len() {
        let mut reader = Reader::new(&bytes[..length]);
        let before = ends.iter().filter(|end| **end <= length).count() - 1;
        for expected in &whole[..before] {
            assert_eq!(reader.next_entry().unwrap().as_ref(), Some(expected));
        }
        let last = reader.next_entry();
        let (entry, offset) = (before as u64, ends[before] as u64);
        match ends[before] == length {
            true => assert_eq!(last, Ok(None)),
            false => assert_eq!(last, Err(RecordError::CutOff { entry, offset }), "cut at {length}"),
        }
    }
}

/// A writer that goes on where a reader stopped seals what a single writer would have sealed.
#[test]
fn a_ledger_can_be_carried_on() {
    let (entries, bytes) = small_ledger();
    let half = entries.len() / 2;
    let mut first = sealed(&entries[..half], &[entries.len() / 3]);
    let (mut reader, mut last) = (Reader::new(&first), 0);
    while reader.offset() < first.len() {
        last = reader.offset();
        reader.next_entry().unwrap();
    }
    first.truncate(last);
    let mut reader = Reader::new(&first);
    while reader.next_entry().unwrap().is_some() {}
    let mut chain = reader.chain().clone();
    let mut rest = vec![];
    entries[half..].iter().for_each(|entry| entry.write(&mut rest));
    chain.absorb(&rest);
    let head = chain.seal();
    Entry { agent: AgentId::ORIGIN, record: Record::Sealed { head } }.write(&mut rest);
    first.extend(rest);
    assert_eq!(first, bytes);
}

// ---- What is refused -----------------------------------------------------------------------------------------------

fn after_opening(bytes: &[u8]) -> RecordError {
    let mut ledger = vec![];
    Entry { agent: AgentId::ORIGIN, record: opened() }.write(&mut ledger);
    ledger.extend_from_slice(bytes);
    read(&ledger).expect_err("it should be refused")
}

#[test]
fn a_ledger_of_another_format_is_refused() {
    let opening = |format: &str| {
        let (format, mut bytes) = (format.to_string(), vec![]);
        let record = Record::Opened { format, config: [0; 32], seed: 0, episodes: 0 };
        Entry { agent: AgentId::ORIGIN, record }.write(&mut bytes);
        bytes
    };
    assert!(read(&opening(FORMAT)).is_ok());
    let error = read(&opening("relevo.ledger/v2")).unwrap_err();
    assert_eq!(error, RecordError::Format { found: "relevo.ledger/v2".to_string() });
    assert!(error.to_string().contains(FORMAT));
    // Not opened at all, opened twice.
    let mut bytes = vec![];
    Entry { agent: AgentId(0), record: Record::Replanned }.write(&mut bytes);
    assert!(matches!(read(&bytes), Err(RecordError::Format { found }) if found == "Replanned"));
    assert!(matches!(after_opening(&opening(FORMAT)), RecordError::Format { .. }));
}

#[test]
fn the_driver_s_records_are_the_origin_s() {
    let mut bytes = vec![];
    Entry { agent: AgentId(1), record: opened() }.write(&mut bytes);
    assert!(read(&bytes).is_err());
    let (mut bytes, mut chain) = (vec![], Chain::default());
    Entry { agent: AgentId::ORIGIN, record: opened() }.write(&mut bytes);
    chain.absorb(&bytes);
    Entry { agent: AgentId(1), record: Record::Sealed { head: chain.seal() } }.write(&mut bytes);
    assert!(read(&bytes).is_err());
}

#[test]
fn numbers_that_are_not_finite_are_refused() {
    for bad in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
        let (handoff, signature, action) = (id(1, 1, 1), Signature(1), ActionId(0));
        let (table, reward, tau, usage) = (Table::Successors, earned(0.0), lasting(1), Usage::default());
        let settled = |target, step, spread| Record::Settled {
            handoff,
            table,
            signature,
            action,
            reward,
            tau,
            target,
            step,
            usage,
            spread,
            lead: None,
        };
        let observation = |features| Observation { features, ..seen(1, 2) };
        let arrival =
            |features| Record::Received { handoff: opening(1, 0), observation: observation(features) };
        let operation = |next| Record::Performed { handoff, reward, tau, usage, next };
        let records = [
            settled(bad, 0.5, None),
            settled(0.5, bad, None),
            settled(0.5, 0.5, Some(bad)),
            Record::Decided {
                handoff,
                table,
                signature,
                action,
                greedy: true,
                probabilities: [0.5, bad].into(),
                position: 0,
            },
            Record::Revised { table, signature, action, value: bad },
            Record::Closed { episode: 0, episode_return: bad, handoffs: 1, stop: String::new(), cost: None },
            Record::Closed {
                episode: 0,
                episode_return: 0.0,
                handoffs: 1,
                stop: String::new(),
                cost: Some(Cost { money: bad, ..Cost::default() }),
            },
            arrival(Features::Dense([bad as f32].into())),
            arrival(Features::Sparse([(0, bad as f32)].into())),
            operation(Next::Operate(observation(Features::Dense([bad as f32].into())))),
            operation(Next::HandOver(observation(Features::Sparse([(0, bad as f32)].into())))),
            Record::Failed {
                handoff,
                usage,
                next: Next::Operate(observation(Features::Dense([bad as f32].into()))),
            },
        ];
        for record in records {
            let mut bytes = vec![];
            let agent = if matches!(record, Record::Closed { .. }) { AgentId::ORIGIN } else { AgentId(0) };
            Entry { agent, record: record.clone() }.write(&mut bytes);
            let error = after_opening(&bytes);
            assert!(matches!(error, RecordError::NotCanonical { entry: 1, .. }), "{record:?}: {error}");
        }
        // A value or a reward cannot even be made of it; planted among the bytes it is refused as well.
        let mut bytes = vec![];
        let record = Record::Finished { handoff, reward: earned(1.0) };
        Entry { agent: AgentId(0), record }.write(&mut bytes);
        let place = bytes.len() - 8;
        bytes[place..].copy_from_slice(&bad.to_be_bytes());
        assert!(matches!(after_opening(&bytes), RecordError::Unreadable { entry: 1, .. }));
    }
}

/// The same content in other bytes: longer integers, open-ended arrays, shorter floats, surplus fields.
#[test]
fn other_encodings_of_the_same_content_are_refused() {
    let mut replanned = vec![];
    Entry { agent: AgentId(1), record: Record::Replanned }.write(&mut replanned);
    assert_eq!(replanned, [0x82, 0x01, 0x81, 0x09]);
    let mut finished = vec![];
    let record = Record::Finished { handoff: id(0, 1, 2), reward: earned(1.0) };
    Entry { agent: AgentId(1), record }.write(&mut finished);
    let body: [u8; 18] =
        [0x82, 0x01, 0x83, 0x03, 0x84, 0x00, 0x00, 0x01, 0x02, 0xfb, 0x3f, 0xf0, 0, 0, 0, 0, 0, 0];
    assert_eq!(finished, body);
    let table: &[(&str, &[u8])] = &[
        ("an integer in two bytes", &[0x82, 0x18, 0x01, 0x81, 0x09]),
        ("an integer in nine bytes", &[0x82, 0x1b, 0, 0, 0, 0, 0, 0, 0, 1, 0x81, 0x09]),
        ("a tag in two bytes", &[0x82, 0x01, 0x81, 0x18, 0x09]),
        ("a length in two bytes", &[0x98, 0x02, 0x01, 0x81, 0x09]),
        ("an array without a stated length", &[0x9f, 0x01, 0x81, 0x09, 0xff]),
        ("a surplus field", &[0x82, 0x01, 0x82, 0x09, 0x00]),
        ("a surplus field of the entry", &[0x83, 0x01, 0x81, 0x09, 0x00]),
        ("a reward in 16 bits", &[0x82, 0x01, 0x83, 0x03, 0x84, 0, 0, 1, 2, 0xf9, 0x3c, 0x00]),
        ("a reward in 32 bits", &[0x82, 0x01, 0x83, 0x03, 0x84, 0, 0, 1, 2, 0xfa, 0x3f, 0x80, 0, 0]),
        (
            "a longer number in an id",
            &[0x82, 0x01, 0x83, 0x03, 0x84, 0, 0x18, 0x00, 1, 2, 0xfb, 0x3f, 0xf0, 0, 0, 0, 0, 0, 0],
        ),
    ];
    for (what, bytes) in table {
        let error = after_opening(bytes);
        let refused =
            matches!(error, RecordError::NotCanonical { entry: 1, .. } | RecordError::Unreadable { .. });
        assert!(refused, "{what}: {error}");
    }
    // And what is no entry at all: an unknown tag, a missing field, text, a number too large, a wrong type.
    for bytes in [
        &[0x82, 0x01, 0x81, 0x17][..],
        &[0x82, 0x01, 0x82, 0x03, 0x84, 0, 0, 1, 2],
        &[0x61, 0x41],
        &[0x82, 0x1b, 0, 0, 0, 1, 0, 0, 0, 0, 0x81, 0x09],
        &[0x82, 0xf5, 0x81, 0x09],
    ] {
        assert!(matches!(after_opening(bytes), RecordError::Unreadable { entry: 1, .. }), "{bytes:?}");
    }
}

/// A short ledger that claims a huge array costs no memory: it is cut off.
#[test]
fn coarser_signatures_are_few_and_whole() {
    let decoded = |length: u8| {
        let bytes: Vec<u8> = [0x58, length].into_iter().chain((0..length).map(|_| 7)).collect();
        minicbor::decode::<Features>(&bytes)
    };
    assert_eq!(decoded(64).unwrap().coarser(), [Signature(u64::from_le_bytes([7; 8])); 8]);
    for length in [1, 65, 72, 79] {
        assert!(decoded(length).is_err(), "{length}");
    }
}

#[test]
fn claimed_lengths_are_not_believed() {
    let huge = [0x9b, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff];
    let received = [&[0x82, 0x01, 0x83, 0x00, 0x83, 0x84, 0, 0, 1, 2, 0, 0, 0x83, 0x01][..], &huge].concat();
    assert!(matches!(after_opening(&received), RecordError::Unreadable { .. }));
    let decided = [&[0x82, 0x01, 0x88, 0x06, 0x84, 0, 0, 1, 2, 0, 1, 0, 0xf5][..], &huge].concat();
    assert!(matches!(after_opening(&decided), RecordError::CutOff { .. }));
    let text = [&[0x82, 0x01, 0x83, 0x0b, 0x01, 0x7b][..], &huge[1..]].concat();
    assert!(matches!(after_opening(&text), RecordError::CutOff { .. }));
}

#[test]
fn errors_say_where() {
    let (_, mut bytes) = small_ledger();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    let error = read(&bytes).unwrap_err();
    assert!(matches!(error, RecordError::Altered { .. }), "{error}");
    assert!(error.to_string().contains("at byte") && error.to_string().contains("altered"));
    let error = read(&bytes[..last]).unwrap_err();
    assert!(error.to_string().ends_with("is cut off"), "{error}");
}
