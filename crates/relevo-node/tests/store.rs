//! Both stores, held to the contract; and what only a real disk can do.

use std::{fs, os::unix::fs::PermissionsExt, path::Path};

use relevo::artifact::Artifact;
use relevo_node::{
    ids::PeerId,
    store::{
        MadeRow, MadeState, PushRow, Reader, Store, StoreError, TaskRow, TaskState,
        contract::{self, Crashable},
        memory::{Disk, Fault, MemoryStore},
        sqlite::{SqliteReader, SqliteStore},
    },
};
use rusqlite::Connection;
use tempfile::TempDir;

const PEER: PeerId = PeerId(0);
const BATCHES: u64 = 200;

impl Crashable for Memory {
    type Store = MemoryStore;

    fn open(&self) -> MemoryStore {
        MemoryStore::open(&self.0)
    }

    fn crash(&mut self, _: MemoryStore) {}

    fn fill(&self, _: &mut MemoryStore, full: bool) {
        if full {
            self.0.fail_next(Fault::Full);
        }
    }
}

struct Memory(Disk);

/// A folder; after a crash another one, with what the files held at that moment.
struct Folder(TempDir);

impl Crashable for Folder {
    type Store = SqliteStore;

    fn open(&self) -> SqliteStore {
        SqliteStore::open(self.0.path()).unwrap()
    }

    fn crash(&mut self, store: SqliteStore) {
        let after = TempDir::new().unwrap();
        copy(self.0.path(), after.path(), None);
        drop(store);
        self.0 = after;
    }

    fn fill(&self, store: &mut SqliteStore, full: bool) {
        store.limit(if full { 200_000 } else { u64::MAX }).unwrap();
    }
}

/// What a power cut leaves: the database, and its log up to some length.
fn copy(from: &Path, to: &Path, log: Option<usize>) {
    fs::copy(from.join("node.db"), to.join("node.db")).unwrap();
    let bytes = fs::read(from.join("node.db-wal")).unwrap();
    fs::write(to.join("node.db-wal"), &bytes[..log.unwrap_or(bytes.len())]).unwrap();
}

#[test]
fn memory_keeps_to_the_contract() {
    contract::check(|| Memory(Disk::default()));
}

#[test]
fn sqlite_keeps_to_the_contract() {
    contract::check(|| Folder(TempDir::new().unwrap()));
}

#[test]
fn a_cut_log_leaves_whole_commits() {
    let (folder, cut) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let mut store = SqliteStore::open(folder.path()).unwrap();
    store.recover().unwrap();
    store.peer("peer").unwrap();
    for n in 1..=BATCHES {
        // Each commit adds a row, changes the one before it, and counts.
        let before = contract::task(PEER, n - 1);
        store.put_task(&contract::task(PEER, n)).unwrap();
        let ended = TaskState::Failed;
        store.put_task(&TaskRow { stay: None, state: ended, ..before }).unwrap();
        store.count(PEER, &n.to_le_bytes()).unwrap();
        store.commit(&n.to_le_bytes()).unwrap();
    }
    let log = fs::metadata(folder.path().join("node.db-wal")).unwrap().len() as usize;
    let mut most = 0;
    // A prime step falls on every part of a page in the course of the log.
    for length in (0..log).step_by(97 * 251).chain([log]) {
        copy(folder.path(), cut.path(), Some(length));
        let mut store = SqliteStore::open(cut.path()).unwrap();
        let recovered = store.recover().unwrap();
        let last = store.commits();
        let mut n = 0;
        let read = store.ledger(0, &mut |entries| {
            n += 1;
            assert_eq!(entries, u64::to_le_bytes(n), "cut at {length}");
            Ok(())
        });
        read.unwrap();
        assert!(n == last && last >= most, "cut at {length}: {n} entries of {last} commits, {most} before");
        most = last;
        let open = (last > 0).then(|| (PEER, contract::task(PEER, last).id));
        assert_eq!(recovered.open, Vec::from_iter(open), "cut at {length}");
        let counted =
            recovered.peers.first().map_or(0, |(_, count)| u64::from_le_bytes(count[..].try_into().unwrap()));
        assert_eq!(counted, last, "cut at {length}");
        assert_eq!(store.task(PEER, contract::task(PEER, last + 1).id).unwrap(), None, "cut at {length}");
    }
    assert_eq!(most, BATCHES);
}

#[test]
fn one_process_has_a_folder_and_nobody_else_looks_into_it() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("new/node");
    let mut store = SqliteStore::open(&path).unwrap();
    store.recover().unwrap();
    store.commit(b"").unwrap();
    let mode = |name: &str| fs::metadata(path.join(name)).unwrap().permissions().mode() & 0o777;
    assert_eq!(
        (mode(""), mode("node.db"), mode("node.db-wal"), mode("node.lock")),
        (0o700, 0o600, 0o600, 0o600)
    );
    let second = SqliteStore::open(&path).err().unwrap();
    assert!(matches!(second, StoreError::Locked(_)), "{second}");
    drop(store);
    SqliteStore::open(&path).unwrap();
}

/// Writes a file.
type Write = fn(&Path);

#[test]
fn what_is_no_store_of_this_format_is_refused_and_left_alone() {
    let cases: [(&str, Write); 3] = [
        ("its format is 2, this relevo knows format 1", |path| {
            drop(SqliteStore::open(path.parent().unwrap()).unwrap());
            Connection::open(path).unwrap().pragma_update(None, "user_version", 2).unwrap();
        }),
        ("not one of a relevo node", |path| {
            Connection::open(path).unwrap().execute_batch("CREATE TABLE theirs (x)").unwrap();
        }),
        ("file is not a database", |path| fs::write(path, "a letter, long enough".repeat(99)).unwrap()),
    ];
    for (said, write) in cases {
        let folder = TempDir::new().unwrap();
        let path = folder.path().join("node.db");
        write(&path);
        let before = fs::read(&path).unwrap();
        let error = SqliteStore::open(folder.path()).err().unwrap().to_string();
        assert!(error.contains(said) && error.contains("node.db"), "{error}");
        assert!(fs::read(&path).unwrap() == before, "{said}");
    }
}

#[test]
fn a_state_that_changes_does_not_write_what_is_long_again() {
    let folder = TempDir::new().unwrap();
    let mut store = SqliteStore::open(folder.path()).unwrap();
    store.recover().unwrap();
    store.peer("peer").unwrap();
    let long = Some(Artifact { payload: vec![5; 1 << 20].into(), ..Artifact::default() });
    let mut task = TaskRow { result: long.clone(), ..contract::task(PEER, 1) };
    let mut made = MadeRow { artifact: long, ..contract::made(&task, 1) };
    let mut log = vec![];
    for n in 0..10 {
        (task.changed_ms, task.outcome) = (n, Some(n as f64));
        (made.deadline_ms, made.cancels) = (n, n % 2 == 0);
        store.put_task(&task).unwrap();
        store.put_made(&made).unwrap();
        store.commit(b"").unwrap();
        log.push(fs::metadata(folder.path().join("node.db-wal")).unwrap().len());
    }
    let grown = log[9] - log[0];
    assert!(log[0] > 2 << 20 && grown < 1 << 19, "{log:?}");
    assert_eq!(store.task(PEER, task.id).unwrap(), Some(task));
    assert_eq!(store.made(made.wire).unwrap(), Some(made));
}

#[test]
fn credentials_that_were_dropped_are_not_on_the_disk() {
    let folder = TempDir::new().unwrap();
    let mut store = SqliteStore::open(folder.path()).unwrap();
    store.recover().unwrap();
    store.peer("peer").unwrap();
    let secret = b"token-of-the-caller";
    let config = String::from_utf8(secret.repeat(900)).unwrap();
    let push = PushRow { peer: PEER, task: contract::task(PEER, 1).id, id: "p".to_owned(), config };
    let found = || {
        let bytes = fs::read(folder.path().join("node.db")).unwrap();
        bytes.windows(secret.len()).any(|window| window == secret)
    };
    store.put_push(&push).unwrap();
    store.commit(b"").unwrap();
    drop(store);
    assert!(found(), "kept while it is wanted");
    let mut store = SqliteStore::open(folder.path()).unwrap();
    store.recover().unwrap();
    assert!(store.drop_push(PEER, push.task, "p").unwrap());
    store.commit(b"").unwrap();
    drop(store);
    assert!(!found());
}

#[test]
fn memory_fails_as_it_is_told() {
    for (fault, there) in
        [(Fault::Full, false), (Fault::NotDone, false), (Fault::Done, true), (Fault::Torn, false)]
    {
        let disk = Disk::default();
        let mut store = MemoryStore::open(&disk);
        store.recover().unwrap();
        store.peer("peer").unwrap();
        store.commit(b"first").unwrap();
        disk.fail_next(fault);
        let row = contract::task(PEER, 1);
        let wrote = store.put_task(&row);
        assert_eq!(wrote.is_err(), fault == Fault::Torn);
        let error = wrote.and_then(|()| store.commit(b"second")).unwrap_err();
        assert_eq!(matches!(error, StoreError::Full(_)), fault == Fault::Full, "{error}");
        assert!(store.commit(b"third").is_err(), "{fault:?}: not recovered yet");
        let open = store.recover().unwrap().open;
        assert_eq!((open.len(), store.commits()), (usize::from(there), 1 + u64::from(there)), "{fault:?}");
        assert_eq!(disk.clone().task(PEER, row.id).unwrap(), there.then_some(row), "{fault:?}");
        store.commit(b"fourth").unwrap();
    }
}

#[test]
fn what_is_archived_is_read_on_and_a_crash_on_the_way_is_harmless() {
    let (folder, halfway, begun) =
        (TempDir::new().unwrap(), TempDir::new().unwrap(), TempDir::new().unwrap());
    let mut store = SqliteStore::open(folder.path()).unwrap();
    store.recover().unwrap();
    store.peer("peer").unwrap();
    let over = |n| {
        let row = contract::task(PEER, n);
        TaskRow { state: TaskState::Failed, stay: None, result: None, changed_ms: n, ..row }
    };
    let push = |n| PushRow { peer: PEER, task: over(n).id, id: "p".to_owned(), config: "{}".to_owned() };
    let long = vec![7; 100_000];
    for n in 1..=300 {
        // The 5th is worked on, and a handoff of the 7th is not over.
        store
            .put_task(&if n == 5 { TaskRow { changed_ms: n, ..contract::task(PEER, n) } } else { over(n) })
            .unwrap();
        store.put_push(&push(n)).unwrap();
        let made = contract::made(&over(n), n);
        let ended = MadeRow { state: MadeState::Ended, settled: true, ..made.clone() };
        store.put_made(if n == 7 { &made } else { &ended }).unwrap();
        if [100, 200].contains(&n) {
            store.snapshot(b"state").unwrap();
        }
        store.commit(&[&n.to_le_bytes(), &long[..]].concat()).unwrap();
    }
    copy(folder.path(), halfway.path(), None);
    copy(folder.path(), begun.path(), None);
    fs::create_dir(begun.path().join("archive")).unwrap();
    fs::write(begun.path().join("archive/new"), "half of a file").unwrap();

    let compact = |store: &mut SqliteStore| {
        let mut steps = 0;
        while store.compact(250).unwrap() {
            steps += 1;
        }
        steps
    };
    let check = |store: &mut SqliteStore, place: &TempDir, what: &str| {
        let mut whole = vec![];
        let read = SqliteReader::open(place.path()).unwrap().whole_ledger(&mut |entries| {
            whole.push(u64::from_le_bytes(entries[..8].try_into().unwrap()));
            Ok(())
        });
        read.unwrap();
        assert!(whole.into_iter().eq(1..=300), "{what}");
        let mut tail = 0;
        let read = store.ledger(100, &mut |_| {
            tail += 1;
            Ok(())
        });
        read.unwrap();
        assert_eq!((tail, store.commits()), (200, 300), "{what}");
    };
    assert!(compact(&mut store) > 1, "in steps");
    check(&mut store, &folder, "compacted");
    copy_archive(folder.path(), halfway.path());
    for (place, what) in [(&halfway, "files written, rows still there"), (&begun, "a file half written")] {
        let mut store = SqliteStore::open(place.path()).unwrap();
        store.recover().unwrap();
        check(&mut store, place, what);
        compact(&mut store);
        check(&mut store, place, what);
        let names = |folder: &TempDir| {
            let listed = fs::read_dir(folder.path().join("archive")).unwrap();
            let mut names: Vec<_> = listed.map(|entry| entry.unwrap().file_name()).collect();
            names.sort();
            names
        };
        assert_eq!(names(place), names(&folder), "{what}");
    }
    let mut reader = store.reader().unwrap();
    for n in 1..=300 {
        let kept = n == 5 || n == 7 || n >= 250;
        assert_eq!(store.task(PEER, over(n).id).unwrap().is_some(), kept, "task {n}");
        assert_eq!(reader.pushes(PEER, over(n).id).unwrap().len(), usize::from(kept), "push {n}");
    }
    store.put_task(&over(301)).unwrap();
    assert!(matches!(store.compact(0), Err(StoreError::Failed(_))), "not committed yet");
    store.commit(b"").unwrap();
    // Handoffs go by the time at which they were made, which is 1,000 for all of them.
    while store.compact(1_001).unwrap() {}
    for n in 1..=300 {
        let row = store.made(contract::made(&over(n), n).wire).unwrap();
        assert_eq!(row.is_some(), n == 5 || n == 7, "handoff {n}");
    }
}

fn copy_archive(from: &Path, to: &Path) {
    fs::create_dir(to.join("archive")).unwrap();
    for entry in fs::read_dir(from.join("archive")).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), to.join("archive").join(entry.file_name())).unwrap();
    }
}
