//! The store of a node that serves: a folder with an SQLite database.
//!
//! One connection writes, within a transaction that is open from the first write to the commit; SQLite appends what is
//! committed to a log (`node.db-wal`) and syncs it, once. Readers have connections of their own and see the last commit.

mod archive;
mod checkpoint;
mod file;
mod known;
mod rows;

use std::path::{Path, PathBuf};

use rusqlite::{Connection, Error, ErrorCode, OptionalExtension, Result as Sql, params};

use self::{
    checkpoint::Checkpointer,
    file::Lock,
    known::{Known, Seen},
};
use super::{Filter, MadeRow, PushRow, Reader, Recovered, Store, StoreError, TaskRow};
use crate::ids::{PeerId, TaskId, WireId};

/// The database in the folder.
const FILE: &str = "node.db";

/// Commits between two looks at how long the log is.
const LOOK_COMMITS: u64 = 8;

/// A store in a folder, which no other process may open as long as this one has it.
pub struct SqliteStore {
    checkpointer: Checkpointer,
    db: Connection,
    path: PathBuf,
    commits: u64,
    /// Whether what is open may be committed: not before it was recovered, nor after an error.
    sound: bool,
    tasks: Known<(PeerId, TaskId), TaskRow>,
    made: Known<WireId, MadeRow>,
    // Given up after the connection is closed.
    _lock: Lock,
}

/// Reads what a [`SqliteStore`] has committed, while that one is open or not.
pub struct SqliteReader {
    db: Connection,
    path: PathBuf,
}

impl SqliteStore {
    /// Open the store in this folder; both are made if there are none, for their owner only.
    pub fn open(folder: &Path) -> Result<Self, StoreError> {
        let lock = Lock::take(folder)?;
        let path = folder.join(FILE);
        let db = file::open(&path)?;
        let checkpointer = Checkpointer::start(&path)?;
        Ok(SqliteStore {
            checkpointer,
            db,
            path,
            commits: 0,
            sound: false,
            tasks: Known::default(),
            made: Known::default(),
            _lock: lock,
        })
    }

    /// Let the database grow to so many bytes and no further, the log beside it left out; beyond them it is
    /// [`StoreError::Full`].
    pub fn limit(&mut self, bytes: u64) -> Result<(), StoreError> {
        let set = || {
            let page: u32 = self.db.pragma_query_value(None, "page_size", |row| row.get(0))?;
            let pages = (bytes / u64::from(page)).clamp(1, u32::MAX.into());
            self.db.pragma_update_and_check(None, "max_page_count", pages.cast_signed(), |_| Ok(()))
        };
        set().map_err(|e| fault(&self.path, e))
    }

    /// Do something with the transaction that is open, or is opened now. After an error it is beyond use.
    fn write<T>(&mut self, work: impl FnOnce(&Connection) -> Sql<T>) -> Result<T, StoreError> {
        if !self.sound {
            return Err(StoreError::Failed(format!("{}: not recovered yet", self.path.display())));
        }
        let begin = || match self.db.is_autocommit() {
            true => self.db.prepare_cached("BEGIN IMMEDIATE")?.execute([]).map(drop),
            false => Ok(()),
        };
        let done = begin().and_then(|()| work(&self.db));
        self.sound = done.is_ok();
        done.map_err(|e| fault(&self.path, e))
    }

    fn read<T>(&mut self, work: impl FnOnce(&Connection) -> Sql<T>) -> Result<T, StoreError> {
        work(&self.db).map_err(|e| fault(&self.path, e))
    }
}

impl Store for SqliteStore {
    fn recover(&mut self) -> Result<Recovered, StoreError> {
        self.sound = false;
        self.tasks.forget();
        self.made.forget();
        let (recovered, commits) = self.read(|db| {
            if !db.is_autocommit() {
                db.execute_batch("ROLLBACK")?;
            }
            // A commit that failed, or the last one of a process that died, may stand in the log without being on the
            // disk. This small one settles it: it goes behind or over that one, and everything before it is synced.
            db.pragma_update(None, "user_version", file::VERSION)?;
            recovered(db)
        })?;
        self.commits = commits;
        self.sound = true;
        Ok(recovered)
    }

    fn ledger(
        &mut self,
        after: u64,
        each: &mut dyn FnMut(&[u8]) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        walk(&self.db, &self.path, after, each)
    }

    fn commits(&self) -> u64 {
        self.commits
    }

    fn commit(&mut self, entries: &[u8]) -> Result<(), StoreError> {
        let number = self.commits + 1;
        self.write(|db| {
            db.prepare_cached("INSERT INTO ledger VALUES (?1, ?2)")?
                .execute(params![number.cast_signed(), entries])?;
            db.prepare_cached("COMMIT")?.execute([])
        })?;
        self.commits = number;
        if number.is_multiple_of(LOOK_COMMITS) {
            self.checkpointer.look(&self.db);
        }
        Ok(())
    }

    fn snapshot(&mut self, state: &[u8]) -> Result<(), StoreError> {
        let number = (self.commits + 1).cast_signed();
        self.write(|db| {
            // The old one goes first: the new one then takes its pages.
            db.execute(
                "DELETE FROM snapshot WHERE commits < (SELECT max(commits) FROM snapshot WHERE commits < ?1)",
                [number],
            )?;
            db.execute("INSERT OR REPLACE INTO snapshot VALUES (?1, ?2)", params![number, state]).map(drop)
        })
    }

    fn peer(&mut self, name: &str) -> Result<PeerId, StoreError> {
        let known = self.read(|db| {
            db.prepare_cached("SELECT number FROM peer WHERE name = ?1")?
                .query_row([name], |row| row.get(0))
                .optional()
        })?;
        match known {
            Some(number) => Ok(PeerId(number)),
            None => self.write(|db| {
                db.prepare_cached(
                    "INSERT INTO peer VALUES ((SELECT count(*) FROM peer), ?1, x'') RETURNING number",
                )?
                .query_row([name], |row| row.get(0).map(PeerId))
            }),
        }
    }

    fn count(&mut self, peer: PeerId, counters: &[u8]) -> Result<(), StoreError> {
        self.write(|db| {
            let mut update =
                db.prepare_cached("UPDATE peer SET counters = ?2 WHERE number = ?1 RETURNING number")?;
            update.query_row(params![peer.0, counters], |_| Ok(()))
        })
    }

    fn task(&mut self, peer: PeerId, id: TaskId) -> Result<Option<TaskRow>, StoreError> {
        if let Some(seen) = self.tasks.get(&(peer, id)) {
            return Ok(seen.row().cloned());
        }
        let found = self.read(|db| rows::task(db, peer, id))?;
        let row = found.as_ref().map(|(_, row)| row.clone());
        let seen = found.map_or(Seen::Absent, |(came, row)| Seen::Row(came, row));
        self.tasks.learn((peer, id), seen, row.as_ref().map_or(0, long_of_task));
        Ok(row)
    }

    fn put_task(&mut self, row: &TaskRow) -> Result<(), StoreError> {
        let key = (row.peer, row.id);
        let kept = self.tasks.take(&key);
        let came = self.write(|db| rows::put_task(db, row, kept.as_ref()))?;
        self.tasks.learn(key, Seen::Row(came, row.clone()), long_of_task(row));
        Ok(())
    }

    fn made(&mut self, wire: WireId) -> Result<Option<MadeRow>, StoreError> {
        if let Some(seen) = self.made.get(&wire) {
            return Ok(seen.row().cloned());
        }
        let found = self.read(|db| rows::made(db, wire))?;
        let row = found.as_ref().map(|(_, row)| row.clone());
        let seen = found.map_or(Seen::Absent, |(number, row)| Seen::Row(number, row));
        self.made.learn(wire, seen, row.as_ref().map_or(0, long_of_made));
        Ok(row)
    }

    fn put_made(&mut self, row: &MadeRow) -> Result<(), StoreError> {
        let kept = self.made.take(&row.wire);
        let number = self.write(|db| rows::put_made(db, row, kept.as_ref()))?;
        self.made.learn(row.wire, Seen::Row(number, row.clone()), long_of_made(row));
        Ok(())
    }

    fn put_push(&mut self, row: &PushRow) -> Result<(), StoreError> {
        self.write(|db| {
            db.prepare_cached("INSERT OR REPLACE INTO push VALUES (?1, ?2, ?3, ?4)")?
                .execute(params![row.peer.0, row.task.bytes(), row.id, row.config])
                .map(drop)
        })
    }

    fn drop_push(&mut self, peer: PeerId, task: TaskId, id: &str) -> Result<bool, StoreError> {
        self.write(|db| {
            db.prepare_cached("DELETE FROM push WHERE peer = ?1 AND task = ?2 AND id = ?3")?
                .execute(params![peer.0, task.bytes(), id])
                .map(|dropped| dropped > 0)
        })
    }

    fn compact(&mut self, forget_before_ms: u64) -> Result<bool, StoreError> {
        self.step(forget_before_ms)
    }

    fn reader(&self) -> Result<Box<dyn Reader>, StoreError> {
        Ok(Box::new(SqliteReader { db: file::open_to_read(&self.path)?, path: self.path.clone() }))
    }
}

impl Reader for SqliteReader {
    fn task(&mut self, peer: PeerId, id: TaskId) -> Result<Option<TaskRow>, StoreError> {
        let found = rows::task(&self.db, peer, id).map_err(|e| fault(&self.path, e))?;
        Ok(found.map(|(_, row)| row))
    }

    fn tasks(&mut self, peer: PeerId, filter: &Filter) -> Result<(Vec<TaskRow>, u64), StoreError> {
        rows::tasks(&self.db, peer, filter).map_err(|e| fault(&self.path, e))
    }

    fn pushes(&mut self, peer: PeerId, task: TaskId) -> Result<Vec<PushRow>, StoreError> {
        rows::pushes(&self.db, peer, task).map_err(|e| fault(&self.path, e))
    }

    fn untold(&mut self, peer: PeerId, limit: usize) -> Result<Vec<PushRow>, StoreError> {
        rows::untold(&self.db, peer, limit).map_err(|e| fault(&self.path, e))
    }

    fn peers(&mut self) -> Result<Vec<(String, Vec<u8>)>, StoreError> {
        rows::peers(&self.db).map_err(|e| fault(&self.path, e))
    }
}

impl SqliteReader {
    /// What the store in this folder has committed.
    pub fn open(folder: &Path) -> Result<Self, StoreError> {
        let path = folder.join(FILE);
        if !path.exists() {
            let what = "there is no store: the node has not been served yet";
            return Err(StoreError::Failed(format!("{}: {what}", path.display())));
        }
        Ok(SqliteReader { db: file::open_to_read(&path)?, path })
    }

    /// The snapshots that are kept, each with the number of the commit with which it was.
    pub fn snapshots(&mut self) -> Result<Vec<(u64, Vec<u8>)>, StoreError> {
        let read = || {
            self.db
                .prepare("SELECT commits, state FROM snapshot ORDER BY commits")?
                .query_map([], |row| Ok((row.get(0).map(i64::cast_unsigned)?, row.get(1)?)))?
                .collect::<Sql<_>>()
        };
        read().map_err(|e| fault(&self.path, e))
    }

    /// As [`Store::ledger`].
    pub fn ledger(
        &mut self,
        after: u64,
        each: &mut dyn FnMut(&[u8]) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        walk(&self.db, &self.path, after, each)
    }
}

/// What of a row may be long, in bytes.
fn long_of_task(row: &TaskRow) -> usize {
    row.stay.as_ref().map_or(0, |stay| stay.len())
        + row.result.as_ref().map_or(0, |result| result.payload.len())
}

fn long_of_made(row: &MadeRow) -> usize {
    row.artifact.as_ref().map_or(0, |artifact| artifact.payload.len())
}

fn walk(
    db: &Connection,
    path: &Path,
    after: u64,
    each: &mut dyn FnMut(&[u8]) -> Result<(), StoreError>,
) -> Result<(), StoreError> {
    let fault = |e| fault(path, e);
    let query = "SELECT number, entries FROM ledger WHERE number > ?1 ORDER BY number";
    let mut query = db.prepare_cached(query).map_err(fault)?;
    let mut rows = query.query([after.cast_signed()]).map_err(fault)?;
    let mut before = after;
    while let Some(row) = rows.next().map_err(fault)? {
        let number = row.get(0).map(i64::cast_unsigned).map_err(fault)?;
        if number != before + 1 {
            let what = format!("commit {} of the ledger is not there", before + 1);
            return Err(StoreError::Damaged(format!("{}: {what}", path.display())));
        }
        let entries = row.get_ref(1).and_then(|entries| Ok(entries.as_blob()?)).map_err(fault)?;
        each(entries)?;
        before = number;
    }
    Ok(())
}

/// What stands, and the number of commits.
fn recovered(db: &Connection) -> Sql<(Recovered, u64)> {
    let snapshot = db
        .query_row("SELECT commits, state FROM snapshot ORDER BY commits DESC LIMIT 1", [], |row| {
            Ok((row.get(0).map(i64::cast_unsigned)?, row.get(1)?))
        })
        .optional()?;
    let open = db
        .prepare("SELECT peer, id FROM task WHERE open = 1 ORDER BY came")?
        .query_map([], |row| Ok((PeerId(row.get(0)?), TaskId::from_bytes(row.get(1)?))))?
        .collect::<Sql<_>>()?;
    let made = db
        .prepare("SELECT wire FROM made INDEXED BY made_open WHERE open = 1 ORDER BY number")?
        .query_map([], |row| rows::wire_at(row, 0))?
        .collect::<Sql<_>>()?;
    let commits = db.query_row("SELECT coalesce(max(number), 0) FROM ledger", [], |row| row.get(0))?;
    Ok((Recovered { snapshot, peers: rows::peers(db)?, open, made }, i64::cast_unsigned(commits)))
}

/// What an error of SQLite means for the store.
fn fault(path: &Path, error: Error) -> StoreError {
    let path = path.display();
    match (&error, error.sqlite_error_code()) {
        (_, Some(ErrorCode::DiskFull)) => StoreError::Full(path.to_string()),
        (_, Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase))
        | (Error::FromSqlConversionFailure(..) | Error::InvalidColumnType(..), _) => {
            StoreError::Damaged(format!("{path}: {error}"))
        }
        (Error::QueryReturnedNoRows, _) => {
            StoreError::Failed(format!("{path}: no such peer, or a task that came in another message"))
        }
        _ => StoreError::Failed(format!("{path}: {error}")),
    }
}
