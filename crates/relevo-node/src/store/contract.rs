//! What every [`Store`] keeps to. A program or test that brings one calls [`check`]; it panics where the store fails.

use std::sync::Arc;

use relevo::artifact::{Artifact, Scalar};
use relevo_core::ids::{AgentId, HandoffId};

use super::{Closing, Filter, MadeRow, MadeState, PushRow, Reader, Store, StoreError, TaskRow, TaskState};
use crate::ids::{PeerId, TaskId, WireId};

/// Rows that are open at once in the largest check.
const OPEN_MANY: u64 = 100_000;

/// Where a store is kept, which outlives it.
pub trait Crashable {
    /// The store.
    type Store: Store;

    /// Open the store that is kept here; an empty one at first.
    fn open(&self) -> Self::Store;

    /// Cut the power: what was not committed is gone.
    fn crash(&mut self, store: Self::Store);

    /// Leave no room for what is written from now on, or give it back.
    fn fill(&self, store: &mut Self::Store, full: bool);
}

/// Hold a store to all of it; each check is given a place of its own.
pub fn check<P: Crashable>(make: impl Fn() -> P) {
    what_is_committed_stands_and_nothing_else(make());
    nothing_is_kept_after_an_error_until_it_is_recovered(make());
    a_message_is_one_task(make());
    a_peer_reads_its_own_only(make());
    snapshots_and_what_follows_are_the_whole(make());
    a_full_disk_loses_nothing(make());
    a_reader_sees_what_is_committed(make());
    who_is_still_to_be_told_of_an_end_is_found(make());
    pages_leave_nothing_out(make());
    what_is_open_is_recovered_in_order(make());
}

/// A task as it comes in: the `n`-th of a peer.
pub fn task(peer: PeerId, n: u64) -> TaskRow {
    let message = format!("message-{n}");
    TaskRow {
        peer,
        id: TaskId::of(&format!("peer {}", peer.0), &message),
        message,
        digest: [n as u8; 32],
        context: format!("context-{}", n % 3),
        agent: AgentId(2),
        passes_value: true,
        received_ms: 1_000 + n,
        deadline_ms: u64::MAX,
        state: TaskState::Working,
        changed_ms: 1_000 + n,
        value: Some(-0.1 / (n + 1) as f64),
        result: None,
        why: None,
        stay: Some(format!("stay {n}").into_bytes()),
        closing: None,
        outcome: None,
    }
}

/// A handoff as it is made: the `n`-th, for that task.
pub fn made(task: &TaskRow, n: u64) -> MadeRow {
    let mut random = [0; 10];
    // Ids do not follow the order in which they are made.
    random[..8].copy_from_slice(&n.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes());
    MadeRow {
        wire: WireId::new(1_000, &random),
        peer: PeerId(1),
        agent: AgentId(3),
        task: (task.peer, task.id),
        handoff: handoff(task),
        deadline_ms: 9_000 + n,
        state: MadeState::Sending,
        artifact: Some(artifact(&[n as u8; 300])),
        passes_value: None,
        remote: None,
        value: None,
        settled: false,
        outcome: None,
        telling: None,
        cancels: false,
    }
}

fn handoff(task: &TaskRow) -> HandoffId {
    HandoffId { seq: 7, from: AgentId(1), ..task.id.opening(task.peer) }
}

fn artifact(payload: &[u8]) -> Artifact {
    let fact = |name: &str, value| (name.to_owned(), value);
    let facts = [
        fact("n", Scalar::Int(i64::MIN)),
        fact("ok", Scalar::Bool(true)),
        fact("t", Scalar::Text("ü\"".to_owned())),
    ];
    Artifact { facts: facts.into(), payload: Arc::from(payload) }
}

/// The store of a place, recovered, with a peer 0 and a peer 1.
fn begin<P: Crashable>(place: &P) -> P::Store {
    let mut store = place.open();
    store.recover().unwrap();
    assert_eq!((store.peer("peer 0").unwrap(), store.peer("peer 1").unwrap()), (PeerId(0), PeerId(1)));
    store
}

fn entries(n: u64) -> Vec<u8> {
    n.to_le_bytes().repeat(n as usize % 5)
}

fn ledger(store: &mut dyn Store, after: u64) -> Vec<Vec<u8>> {
    let mut all = vec![];
    let read = store.ledger(after, &mut |entries| {
        all.push(entries.to_vec());
        Ok(())
    });
    read.unwrap();
    all
}

fn what_is_committed_stands_and_nothing_else<P: Crashable>(mut place: P) {
    let mut store = begin(&place);
    let (mut kept, mut done) = (task(PeerId(0), 1), task(PeerId(0), 2));
    let (mut sent, mut told) = (made(&kept, 1), made(&done, 2));
    let push = |id: &str| PushRow {
        peer: PeerId(0),
        task: kept.id,
        id: id.to_owned(),
        config: format!(r#"{{"id":"{id}","url":"https://x.example/?ä"}}"#),
    };
    for row in [&kept, &done] {
        store.put_task(row).unwrap();
    }
    for row in [&sent, &told] {
        store.put_made(row).unwrap();
    }
    for id in ["", "b", "a"] {
        store.put_push(&push(id)).unwrap();
    }
    store.count(PeerId(1), b"\x00\xff").unwrap();
    assert_eq!(store.task(PeerId(0), kept.id).unwrap().as_ref(), Some(&kept), "read before the commit");
    store.commit(&entries(1)).unwrap();

    // Every field changes, to what it may become.
    kept.stay = Some(vec![0; 70_000]);
    done.stay = None;
    done.result = Some(artifact(&[7; 200_000]));
    done.state = TaskState::Completed;
    sent.passes_value = Some(false);
    done.changed_ms = 5_000;
    done.closing = Some(Closing::There(sent.wire));
    done.value = Some(f64::MIN_POSITIVE);
    done.outcome = Some(-0.0);
    kept.why = Some("late".to_owned());
    kept.closing = Some(Closing::Here(handoff(&kept)));
    sent.artifact = Some(artifact(b""));
    (told.artifact, told.state, told.settled) = (None, MadeState::Ended, true);
    (told.remote, told.value, told.outcome) = (Some("their ü".to_owned()), Some(f64::INFINITY), Some(0.3));
    (told.telling, told.cancels) = (Some(sent.wire), true);
    for row in [&kept, &done] {
        store.put_task(row).unwrap();
    }
    for row in [&sent, &told] {
        store.put_made(row).unwrap();
    }
    assert!(store.drop_push(PeerId(0), kept.id, "").unwrap());
    assert!(
        !store.drop_push(PeerId(1), kept.id, "a").unwrap()
            && !store.drop_push(PeerId(0), kept.id, "").unwrap()
    );
    store.commit(&entries(2)).unwrap();

    let check = |mut store: P::Store, what: &str| {
        let recovered = store.recover().unwrap();
        assert_eq!(recovered.open, [(PeerId(0), kept.id)], "{what}");
        assert_eq!(recovered.made, [sent.wire, told.wire], "{what}");
        assert_eq!(
            recovered.peers,
            [("peer 0".to_owned(), vec![]), ("peer 1".to_owned(), vec![0, 255])],
            "{what}"
        );
        assert_eq!(store.commits(), 2, "{what}");
        assert_eq!(ledger(&mut store, 0), [entries(1), entries(2)], "{what}");
        for row in [&kept, &done] {
            assert_eq!(store.task(PeerId(0), row.id).unwrap().as_ref(), Some(row), "{what}");
        }
        let outcome = store.task(PeerId(0), done.id).unwrap().unwrap().outcome;
        assert_eq!(outcome.map(f64::to_bits), Some((-0.0f64).to_bits()), "{what}: to the bit");
        for row in [&sent, &told] {
            assert_eq!(store.made(row.wire).unwrap().as_ref(), Some(row), "{what}");
        }
        assert_eq!(
            store.reader().unwrap().pushes(PeerId(0), kept.id).unwrap(),
            [push("a"), push("b")],
            "{what}"
        );
        store
    };
    place.crash(store);
    let mut store = check(place.open(), "after a crash behind a commit");
    let write = |store: &mut P::Store, step: usize| match step {
        0 => assert_eq!(store.peer("another").unwrap(), PeerId(2)),
        1 => store.count(PeerId(1), b"more").unwrap(),
        2 => store.put_task(&TaskRow { why: None, ..done.clone() }).unwrap(),
        3 => store.put_made(&MadeRow { cancels: false, ..told.clone() }).unwrap(),
        4 => assert!(store.drop_push(PeerId(0), kept.id, "a").unwrap()),
        _ => store.snapshot(b"state").unwrap(),
    };
    for writes in 0..=6 {
        (0..writes).for_each(|step| write(&mut store, step));
        place.crash(store);
        store = check(place.open(), &format!("after a crash behind {writes} writes"));
        (0..writes).for_each(|step| write(&mut store, step));
        store = check(store, "begun again");
    }
}

fn nothing_is_kept_after_an_error_until_it_is_recovered<P: Crashable>(place: P) {
    let mut store = place.open();
    assert!(store.put_task(&task(PeerId(0), 0)).is_err() && store.commit(b"").is_err(), "not yet recovered");
    drop(store);
    let mut store = begin(&place);
    store.put_task(&task(PeerId(0), 1)).unwrap();
    assert!(matches!(store.count(PeerId(9), b""), Err(StoreError::Failed(_))), "no such peer");
    assert!(store.commit(b"half").is_err());
    store.recover().unwrap();
    assert_eq!((store.commits(), store.task(PeerId(0), task(PeerId(0), 1).id).unwrap()), (0, None));
    store.commit(b"nothing").unwrap();
    assert_eq!((store.commits(), ledger(&mut store, 0)), (1, vec![b"nothing".to_vec()]));
}

fn a_message_is_one_task<P: Crashable>(place: P) {
    let mut store = begin(&place);
    let first = task(PeerId(0), 1);
    store.put_task(&first).unwrap();
    store.put_task(&TaskRow { message: first.message.clone(), ..task(PeerId(1), 1) }).unwrap();
    store.commit(b"").unwrap();
    for (wrong, what) in [
        (
            TaskRow { message: first.message.clone(), ..task(PeerId(0), 2) },
            "a message that is a task already",
        ),
        (TaskRow { message: "another".to_owned(), ..first.clone() }, "a task that came in another message"),
    ] {
        assert!(matches!(store.put_task(&wrong), Err(StoreError::Failed(_))), "{what}");
        store.recover().unwrap();
    }
    let (one, same) = (task(PeerId(0), 3), TaskRow { message: "message-3".to_owned(), ..task(PeerId(0), 4) });
    store.put_task(&one).unwrap();
    assert!(store.put_task(&same).is_err(), "neither is committed yet");
}

fn a_peer_reads_its_own_only<P: Crashable>(place: P) {
    let mut store = begin(&place);
    let (mine, other) = (task(PeerId(0), 1), TaskRow { peer: PeerId(1), ..task(PeerId(0), 1) });
    let other = TaskRow { context: "theirs".to_owned(), ..other };
    let push = |peer| PushRow { peer, task: mine.id, id: "p".to_owned(), config: format!("of {}", peer.0) };
    store.put_task(&mine).unwrap();
    store.put_push(&push(PeerId(0))).unwrap();
    assert_eq!(store.task(PeerId(1), mine.id).unwrap(), None);
    store.commit(b"").unwrap();
    let mut reader = store.reader().unwrap();
    let filter = Filter { limit: 10, ..Filter::default() };
    assert_eq!(reader.task(PeerId(1), mine.id).unwrap(), None);
    assert_eq!(reader.tasks(PeerId(1), &filter).unwrap(), (vec![], 0));
    assert_eq!(reader.pushes(PeerId(1), mine.id).unwrap(), []);
    // Even under one id they are two tasks.
    store.put_task(&other).unwrap();
    store.put_push(&push(PeerId(1))).unwrap();
    store.commit(b"").unwrap();
    for (peer, row) in [(PeerId(0), mine.clone()), (PeerId(1), other)] {
        assert_eq!(store.task(peer, mine.id).unwrap(), Some(row.clone()));
        assert_eq!(reader.tasks(peer, &filter).unwrap(), (vec![row], 1));
        assert_eq!(reader.pushes(peer, mine.id).unwrap(), [push(peer)]);
    }
}

fn snapshots_and_what_follows_are_the_whole<P: Crashable>(mut place: P) {
    let mut store = begin(&place);
    for n in 1..=20 {
        if n % 6 == 0 {
            store.snapshot(b"to be replaced").unwrap();
            store.snapshot(format!("state {n}").as_bytes()).unwrap();
        }
        store.commit(&entries(n)).unwrap();
    }
    place.crash(store);
    let mut store = place.open();
    let (upto, state) = store.recover().unwrap().snapshot.unwrap();
    assert_eq!((upto, state), (18, b"state 18".to_vec()));
    assert_eq!(ledger(&mut store, upto), [entries(19), entries(20)]);
    assert_eq!(ledger(&mut store, 0), (1..=20).map(entries).collect::<Vec<_>>());
    assert_eq!(ledger(&mut store, 20), Vec::<Vec<u8>>::new());
    let mut calls = 0;
    let stop = store.ledger(0, &mut |_| {
        calls += 1;
        Err(StoreError::Damaged("enough".to_owned()))
    });
    assert!(matches!(stop, Err(StoreError::Damaged(_))) && calls == 1);
}

fn a_full_disk_loses_nothing<P: Crashable>(place: P) {
    let mut store = begin(&place);
    store.put_task(&task(PeerId(0), 0)).unwrap();
    store.commit(&entries(0)).unwrap();
    place.fill(&mut store, true);
    let mut last = 0;
    let full = loop {
        let n = last + 1;
        let row = TaskRow { result: Some(artifact(&[1; 5_000])), ..task(PeerId(0), n) };
        match store.put_task(&row).and_then(|()| store.commit(&entries(n))) {
            Ok(()) => last = n,
            Err(error) => break error,
        }
        assert!(last < 1_000, "it never fills");
    };
    assert!(matches!(full, StoreError::Full(_)), "{full}");
    place.fill(&mut store, false);
    assert_eq!(store.recover().unwrap().open.len() as u64, last + 1);
    assert_eq!(store.commits(), last + 1);
    assert_eq!(store.task(PeerId(0), task(PeerId(0), last + 1).id).unwrap(), None);
    store.put_task(&task(PeerId(0), last + 1)).unwrap();
    store.commit(&entries(last + 1)).unwrap();
    assert_eq!(ledger(&mut store, 0), (0..=last + 1).map(entries).collect::<Vec<_>>());
}

fn a_reader_sees_what_is_committed<P: Crashable>(place: P) {
    let mut store = begin(&place);
    store.commit(b"").unwrap();
    let mut reader: Box<dyn Reader> = store.reader().unwrap();
    let mut row = task(PeerId(0), 1);
    for change in 2_000..2_010 {
        let before = reader.task(PeerId(0), row.id).unwrap();
        row.changed_ms = change;
        store.put_task(&row).unwrap();
        store.count(PeerId(0), &change.to_le_bytes()).unwrap();
        assert_eq!(reader.task(PeerId(0), row.id).unwrap(), before);
        store.commit(b"").unwrap();
        assert_eq!(reader.task(PeerId(0), row.id).unwrap().as_ref(), Some(&row));
        assert_eq!(reader.peers().unwrap()[0].1, change.to_le_bytes());
    }
    let (rows, _) = reader.tasks(PeerId(0), &Filter { limit: 10, ..Filter::default() }).unwrap();
    assert_eq!(rows, [row], "once, where it changed last");
}

fn who_is_still_to_be_told_of_an_end_is_found<P: Crashable>(mut place: P) {
    let mut store = begin(&place);
    let push = |row: &TaskRow, id: &str| PushRow {
        peer: row.peer,
        task: row.id,
        id: id.to_owned(),
        config: "{}".to_owned(),
    };
    let mut all: Vec<TaskRow> = (0..4).map(|n| task(PeerId((n == 3).into()), n)).collect();
    for row in &all {
        store.put_task(row).unwrap();
        store.put_push(&push(row, "a")).unwrap();
        store.put_push(&push(row, "b")).unwrap();
    }
    // The first is at work; the second has ended, one of its places was told; the others were told nothing.
    for row in &mut all[1..] {
        row.state = TaskState::Canceled;
        store.put_task(row).unwrap();
    }
    assert!(store.drop_push(PeerId(0), all[1].id, "a").unwrap());
    store.commit(b"").unwrap();
    place.crash(store);
    let mut reader = place.open().reader().unwrap();
    let sorted = |mut rows: Vec<PushRow>| {
        rows.sort_by_key(|row| (row.task, row.id.clone()));
        rows
    };
    let due = [push(&all[1], "b"), push(&all[2], "a"), push(&all[2], "b")];
    assert_eq!(sorted(reader.untold(PeerId(0), 9).unwrap()), sorted(due.into()));
    assert_eq!(reader.untold(PeerId(1), 9).unwrap(), [push(&all[3], "a"), push(&all[3], "b")]);
    assert_eq!(reader.untold(PeerId(0), 2).unwrap().len(), 2);
}

fn pages_leave_nothing_out<P: Crashable>(place: P) {
    let mut store = begin(&place);
    let mut all: Vec<TaskRow> = (0..50).map(|n| task(PeerId((n % 5 == 0).into()), n)).collect();
    for (n, row) in all.iter_mut().enumerate() {
        // Several change at the same time.
        row.changed_ms = 1_000 + n as u64 / 4;
        row.state = if n % 2 == 0 { TaskState::Working } else { TaskState::Failed };
        store.put_task(row).unwrap();
    }
    store.commit(b"").unwrap();
    all.sort_by_key(|row| std::cmp::Reverse((row.changed_ms, row.id)));
    let mut reader = store.reader().unwrap();
    let context = Some("context-1".to_owned());
    for filter in [
        Filter::default(),
        Filter { context: context.clone(), ..Filter::default() },
        Filter { state: Some(TaskState::Failed), ..Filter::default() },
        Filter { changed_since_ms: Some(1_006), ..Filter::default() },
        Filter { changed_since_ms: Some(u64::MAX), ..Filter::default() },
        Filter {
            context,
            state: Some(TaskState::Failed),
            changed_since_ms: Some(1_002),
            ..Filter::default()
        },
    ] {
        let wanted = |row: &&TaskRow| {
            row.peer == PeerId(0)
                && filter.context.as_ref().is_none_or(|context| row.context == *context)
                && filter.state.is_none_or(|state| row.state == state)
                && filter.changed_since_ms.is_none_or(|since| row.changed_ms >= since)
        };
        let wanted: Vec<&TaskRow> = all.iter().filter(wanted).collect();
        let (mut paged, mut after) = (vec![], None);
        loop {
            let (page, count) =
                reader.tasks(PeerId(0), &Filter { limit: 3, after, ..filter.clone() }).unwrap();
            assert_eq!(count, wanted.len() as u64, "{filter:?}");
            let Some(last) = page.last() else { break };
            after = Some((last.changed_ms, last.id));
            paged.extend(page);
        }
        assert_eq!(paged.iter().collect::<Vec<_>>(), wanted, "{filter:?}");
    }
}

fn what_is_open_is_recovered_in_order<P: Crashable>(mut place: P) {
    let mut store = begin(&place);
    for n in 0..OPEN_MANY {
        let row = task(PeerId((n % 2) as u32), n);
        store.put_made(&made(&row, n)).unwrap();
        store.put_task(&row).unwrap();
        if n % 4_096 == 0 {
            store.commit(b"").unwrap();
        }
    }
    // What is over is not open, and what changes keeps its place.
    for n in (0..OPEN_MANY).step_by(1_000) {
        let row = task(PeerId((n % 2) as u32), n);
        let over = MadeRow { state: MadeState::Ended, settled: true, artifact: None, ..made(&row, n) };
        store.put_made(&over).unwrap();
        let ended = TaskState::Failed;
        store.put_task(&TaskRow { stay: None, state: ended, ..row }).unwrap();
        let next = task(PeerId(((n + 1) % 2) as u32), n + 1);
        store.put_made(&MadeRow { state: MadeState::Taken, ..made(&next, n + 1) }).unwrap();
        store.put_task(&TaskRow { stay: Some(vec![]), ..next }).unwrap();
    }
    store.commit(b"").unwrap();
    place.crash(store);
    let recovered = place.open().recover().unwrap();
    let open = (0..OPEN_MANY).filter(|n| n % 1_000 != 0);
    let (tasks, handoffs): (Vec<_>, Vec<_>) = open
        .map(|n| task(PeerId((n % 2) as u32), n))
        .map(|row| ((row.peer, row.id), row))
        .zip((0..OPEN_MANY).filter(|n| n % 1_000 != 0))
        .map(|((key, row), n)| (key, made(&row, n).wire))
        .unzip();
    assert!(recovered.open == tasks, "tasks, in the order in which they came");
    assert!(recovered.made == handoffs, "handoffs, in the order in which they were made");
}
