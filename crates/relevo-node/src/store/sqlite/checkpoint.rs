//! Carries what was committed from the log into the database, beside the commits: within one it would make that one, and
//! whoever waits for it, as slow as twenty others.

use std::{
    path::Path,
    sync::mpsc::{SyncSender, sync_channel},
    thread::{self, JoinHandle},
};

use rusqlite::Connection;

use super::{Sql, file};
use crate::store::StoreError;

/// Pages of the log that are not yet in the database when they begin to be carried over.
const PAGES: i64 = 2048;

/// A thread with a connection of its own.
pub(super) struct Checkpointer {
    wake: Option<SyncSender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Checkpointer {
    pub(super) fn start(path: &Path) -> Result<Self, StoreError> {
        let db = file::open_beside(path)?;
        let (wake, woken) = sync_channel(1);
        let carry = move || {
            for () in woken {
                // Should it fail, SQLite carries over within a commit, a little later, and tells of what is wrong there.
                let _ = carry_over(&db);
            }
        };
        let thread = thread::Builder::new().name("relevo-checkpoint".to_owned()).spawn(carry);
        let thread = thread.map_err(|e| StoreError::Failed(format!("no thread can be started: {e}")))?;
        Ok(Checkpointer { wake: Some(wake), thread: Some(thread) })
    }

    /// Behind a commit of this connection: begin, if there is enough.
    pub(super) fn look(&self, db: &Connection) {
        let behind = db
            .prepare_cached("PRAGMA wal_checkpoint(NOOP)")
            .and_then(|mut look| look.query_row([], |row| Ok(row.get::<_, i64>(1)? - row.get::<_, i64>(2)?)));
        if behind.is_ok_and(|pages| pages >= PAGES)
            && let Some(wake) = &self.wake
        {
            // Where it is at it already, it is called again by a later commit.
            let _ = wake.try_send(());
        }
    }
}

impl Drop for Checkpointer {
    fn drop(&mut self) {
        self.wake = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn carry_over(db: &Connection) -> Sql<()> {
    db.prepare_cached("PRAGMA wal_checkpoint(PASSIVE)")?.query_row([], |_| Ok(()))
}
