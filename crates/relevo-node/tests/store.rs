//! Both stores, held to the contract; and what only a real disk can do.

use std::{fs, path::Path};

use relevo_node::store::{
    contract::{self, Crashable},
    memory::{Disk, Fault, MemoryStore},
    sqlite::SqliteStore,
};
use tempfile::TempDir;

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
