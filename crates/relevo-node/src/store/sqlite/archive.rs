//! What a database need not hold any more: commits that snapshots stand for go into files beside it, and what is over
//! for long is forgotten.

use std::{
    fs::{self, File},
    io::Write,
    path::{Path, PathBuf},
};

use minicbor::{Decoder, Encoder};
use rusqlite::{Connection, Result as Sql, params};

use super::{SqliteReader, SqliteStore, file::private, rows};
use crate::store::{StoreError, TaskState};

/// Bytes of entries that make a file full, and rows that are forgotten at a time: so little that a commit which waits for
/// it does not wait long.
const ARCHIVE_BYTES: usize = 8 << 20;
const FORGET_ROWS: u32 = 250;

/// The folder of the files, beside the database.
const FOLDER: &str = "archive";

/// Commits in a file, a CBOR sequence of byte strings: from which to which, both within.
struct Archive {
    from: u64,
    to: u64,
    path: PathBuf,
}

impl SqliteStore {
    /// As [`Store::compact`]: commits up to the older of two snapshots go into files in the folder `archive`; tasks that
    /// were over, and handoffs that were made, before this time are forgotten, unless something is still to be done about
    /// them.
    pub(super) fn step(&mut self, forget_before_ms: u64) -> Result<bool, StoreError> {
        if !self.db.is_autocommit() {
            return Err(StoreError::Failed(format!("{}: not committed yet", self.path.display())));
        }
        let archived = self.archive()?;
        self.tasks.forget();
        self.made.forget();
        let forgot = self.write(|db| {
            let forgot = forget(db, forget_before_ms)?;
            db.execute_batch("COMMIT").map(|()| forgot)
        })?;
        Ok(archived || forgot)
    }

    /// Move some commits into a file; whether there were any. The file is whole before they leave the database, and read
    /// instead of them from then on.
    fn archive(&mut self) -> Result<bool, StoreError> {
        let (first, upto): (Option<i64>, Option<i64>) = self.read(|db| {
            db.query_row(
                "SELECT (SELECT min(number) FROM ledger), (SELECT min(commits) FROM snapshot HAVING count(*) = 2)",
                [],
                |row| Ok((row.get(0)?, row.get(1)?)),
            )
        })?;
        let (Some(first), Some(upto)) = (first, upto) else { return Ok(false) };
        if first > upto {
            return Ok(false);
        }
        let last = match archives(&self.archive_folder())?.last() {
            // It was written by a process that died then.
            Some(last) if last.to >= first.cast_unsigned() => last.to.cast_signed(),
            _ => {
                let (bytes, last) = self.read(|db| encode(db, first, upto))?;
                let folder = self.archive_folder();
                keep(&folder, &format!("{first:020}-{last:020}.cbor"), &bytes)
                    .map_err(|e| failed(&folder, e))?;
                last
            }
        };
        self.write(|db| {
            db.execute("DELETE FROM ledger WHERE number <= ?1", [last])?;
            db.execute_batch("COMMIT")
        })?;
        Ok(true)
    }

    fn archive_folder(&self) -> PathBuf {
        self.path.with_file_name(FOLDER)
    }
}

impl SqliteReader {
    /// Read all commits from the first: those in the archive, then those in the database.
    pub fn whole_ledger(
        &mut self,
        each: &mut dyn FnMut(&[u8]) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        // What is in the database is settled before the archive is looked at: what goes there meanwhile is read from here.
        let settle = || {
            self.db.execute_batch("BEGIN")?;
            self.db.query_row("SELECT max(number) FROM ledger", [], |row| row.get::<_, Option<i64>>(0))
        };
        settle().map_err(|e| super::fault(&self.path, e))?;
        let read = self.archived(each).and_then(|done| self.ledger(done, each));
        self.db.execute_batch("ROLLBACK").map_err(|e| super::fault(&self.path, e))?;
        read
    }

    /// Read the commits in the archive; how many there are.
    fn archived(&self, each: &mut dyn FnMut(&[u8]) -> Result<(), StoreError>) -> Result<u64, StoreError> {
        let mut done = 0;
        for Archive { from, to, path } in archives(&self.path.with_file_name(FOLDER))? {
            let damaged = |what: &str| StoreError::Damaged(format!("{}: {what}", path.display()));
            if from != done + 1 {
                return Err(damaged(&format!("the commits before, from {}, are not there", done + 1)));
            }
            let bytes = fs::read(&path).map_err(|e| failed(&path, e))?;
            let mut decoder = Decoder::new(&bytes);
            for _ in from..=to {
                each(decoder.bytes().map_err(|e| damaged(&e.to_string()))?)?;
            }
            if decoder.position() != bytes.len() {
                return Err(damaged("there is more in it than its name says"));
            }
            done = to;
        }
        Ok(done)
    }
}

/// The files of an archive, in order.
fn archives(folder: &Path) -> Result<Vec<Archive>, StoreError> {
    let listed = match fs::read_dir(folder) {
        Ok(listed) => listed.collect::<Result<Vec<_>, _>>(),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(vec![]),
        Err(e) => Err(e),
    };
    let mut archives: Vec<Archive> = listed
        .map_err(|e| failed(folder, e))?
        .into_iter()
        .filter_map(|entry| {
            let name = entry.file_name();
            let (from, to) = name.to_str()?.strip_suffix(".cbor")?.split_once('-')?;
            Some(Archive { from: from.parse().ok()?, to: to.parse().ok()?, path: entry.path() })
        })
        .collect();
    archives.sort_by_key(|archive| archive.from);
    Ok(archives)
}

/// Commits from `first` up to `upto` at most, as they stand in a file, and the last of them.
fn encode(db: &Connection, first: i64, upto: i64) -> Sql<(Vec<u8>, i64)> {
    let mut encoder = Encoder::new(vec![]);
    let mut last = first;
    let mut query = db.prepare("SELECT number, entries FROM ledger WHERE number <= ?1 ORDER BY number")?;
    let mut rows = query.query([upto])?;
    while encoder.writer().len() < ARCHIVE_BYTES
        && let Some(row) = rows.next()?
    {
        last = row.get(0)?;
        encoder.bytes(row.get_ref(1)?.as_blob()?).expect("memory takes all that is written");
    }
    Ok((encoder.into_writer(), last))
}

/// Write a file that is there whole or not at all.
fn keep(folder: &Path, name: &str, bytes: &[u8]) -> std::io::Result<()> {
    fs::create_dir_all(folder)?;
    let new = folder.join("new");
    let mut file = private(&new)?;
    file.set_len(0)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(new, folder.join(name))?;
    File::open(folder)?.sync_all()
}

/// Forget some of what is over since before this time; whether there was anything.
fn forget(db: &Connection, before_ms: u64) -> Sql<bool> {
    let before = i64::try_from(before_ms).unwrap_or(i64::MAX);
    let tasks = db
        .prepare_cached(
            "SELECT came, task.peer, task.id FROM peer CROSS JOIN task ON task.peer = peer.number
            WHERE changed_ms < ?1 AND state != ?2 AND task.open = 0
                AND NOT EXISTS (SELECT 1 FROM made WHERE open = 1 AND task_peer = task.peer AND made.task = task.id)
            LIMIT ?3",
        )?
        .query_map(params![before, TaskState::Working as i64, FORGET_ROWS], |row| {
            Ok((row.get(0)?, row.get(1)?, row.get(2)?))
        })?
        .collect::<Sql<Vec<(i64, i64, [u8; 16])>>>()?;
    for (came, peer, id) in &tasks {
        db.prepare_cached("DELETE FROM push WHERE peer = ?1 AND task = ?2")?.execute(params![peer, id])?;
        db.prepare_cached("DELETE FROM result WHERE task = ?1")?.execute([came])?;
        db.prepare_cached("DELETE FROM task WHERE came = ?1")?.execute([came])?;
    }
    let made = db
        .prepare_cached(
            "SELECT number FROM made WHERE wire < ?1 AND open = 0
                AND NOT EXISTS (SELECT 1 FROM task WHERE task.peer = task_peer AND task.id = made.task)
            LIMIT ?2",
        )?
        .query_map(params![rows::first_wire_of(before), FORGET_ROWS], |row| row.get(0))?
        .collect::<Sql<Vec<i64>>>()?;
    for number in &made {
        db.prepare_cached("DELETE FROM artifact WHERE made = ?1")?.execute([number])?;
        db.prepare_cached("DELETE FROM made WHERE number = ?1")?.execute([number])?;
    }
    Ok(!tasks.is_empty() || !made.is_empty())
}

fn failed(path: &Path, error: std::io::Error) -> StoreError {
    match error.kind() {
        std::io::ErrorKind::StorageFull => StoreError::Full(path.display().to_string()),
        _ => StoreError::Failed(format!("{}: {error}", path.display())),
    }
}
