//! The folder of a store: who may look into it, who has it, and what its database is.

use std::{
    fs::{self, DirBuilder, File, OpenOptions, Permissions, TryLockError},
    io,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt},
    path::Path,
    thread,
    time::Duration,
};

use rusqlite::{Connection, OpenFlags};

use super::fault;
use crate::{folder::LOCK, store::StoreError};

/// "rlvo": stands in the header of the database.
const APPLICATION: i32 = 0x726c_766f;
/// The format of the tables.
pub(super) const VERSION: i32 = 1;

/// Pages of the log that make SQLite carry what is left of them over into the database, within a commit: 32 MiB. It is
/// done beside the commits before ([`super::checkpoint`]); this lets the log begin anew, which it does where all of it is
/// carried over.
const CHECKPOINT_PAGES: u32 = 8192;
/// Memory for pages that were read or are being written, in KiB.
const CACHE_KIB: i32 = 64 * 1024;
/// How often a locked folder is tried again, 25 ms later: a program that a killed node was just starting holds the lock
/// until it has begun.
const LOCK_TRIES: u32 = 40;

/// Keeps others out while it is held.
pub(super) struct Lock(File);

impl Lock {
    /// Make the folder, if there is none, for its owner only, and take it.
    pub(super) fn take(folder: &Path) -> Result<Self, StoreError> {
        let tell = |e: io::Error| StoreError::Failed(format!("{}: {e}", folder.display()));
        DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(tell)?;
        fs::set_permissions(folder, Permissions::from_mode(0o700)).map_err(tell)?;
        let file = private(&folder.join(LOCK)).map_err(tell)?;
        let mut tries_left = LOCK_TRIES;
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(Lock(file)),
                Err(TryLockError::WouldBlock) if tries_left > 0 => tries_left -= 1,
                Err(TryLockError::WouldBlock) => {
                    return Err(StoreError::Locked(folder.display().to_string()));
                }
                Err(TryLockError::Error(e)) => return Err(tell(e)),
            }
            thread::sleep(Duration::from_millis(25));
        }
    }
}

impl Drop for Lock {
    /// Closing alone would leave the lock with a program that is just being started, until its exec.
    fn drop(&mut self) {
        let _ = self.0.unlock();
    }
}

/// The connection that writes, to a database that is made if there is none.
pub(super) fn open(path: &Path) -> Result<Connection, StoreError> {
    let made = private(path).and_then(|_| File::open(path.parent().unwrap_or(path))?.sync_all());
    made.map_err(|e| StoreError::Failed(format!("{}: {e}", path.display())))?;
    let db = connect(path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    let new = recognise(&db, path)?;
    let set = || {
        db.pragma_update_and_check(None, "journal_mode", "wal", |_| Ok(()))?;
        db.pragma_update(None, "synchronous", "FULL")?;
        db.pragma_update(None, "secure_delete", true)?;
        db.pragma_update_and_check(None, "wal_autocheckpoint", CHECKPOINT_PAGES, |_| Ok(()))?;
        db.pragma_update(None, "cache_size", -CACHE_KIB)?;
        if new {
            let making = db.unchecked_transaction()?;
            making.execute_batch(include_str!("schema.sql"))?;
            making.pragma_update(None, "application_id", APPLICATION)?;
            making.pragma_update(None, "user_version", VERSION)?;
            making.commit()?;
        }
        Ok(())
    };
    set().map_err(|e| fault(path, e))?;
    Ok(db)
}

/// Another connection that writes, to a database that is there; what it carries over is synced.
pub(super) fn open_beside(path: &Path) -> Result<Connection, StoreError> {
    let db = connect(path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    db.pragma_update(None, "synchronous", "FULL").map_err(|e| fault(path, e))?;
    Ok(db)
}

/// A connection that only reads.
pub(super) fn open_to_read(path: &Path) -> Result<Connection, StoreError> {
    connect(path, OpenFlags::SQLITE_OPEN_READ_ONLY)
}

fn connect(path: &Path, mode: OpenFlags) -> Result<Connection, StoreError> {
    // Each connection has one owner at a time, so that SQLite need not lock it.
    let db = Connection::open_with_flags(path, mode | OpenFlags::SQLITE_OPEN_NO_MUTEX)
        .map_err(|e| fault(path, e))?;
    db.set_prepared_statement_cache_capacity(64);
    Ok(db)
}

/// Whether a database is still empty; what is not ours is refused.
fn recognise(db: &Connection, path: &Path) -> Result<bool, StoreError> {
    let read = || {
        let application: i32 = db.pragma_query_value(None, "application_id", |row| row.get(0))?;
        let version: i32 = db.pragma_query_value(None, "user_version", |row| row.get(0))?;
        let tables: i64 = db.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
        Ok((application, version, tables))
    };
    let path_shown = path.display();
    match read().map_err(|e| fault(path, e))? {
        (0, 0, 0) => Ok(true),
        (APPLICATION, VERSION, _) => Ok(false),
        (APPLICATION, version, _) => Err(StoreError::Failed(format!(
            "{path_shown}: its format is {version}, this relevo knows format {VERSION}; use the relevo that wrote it"
        ))),
        _ => Err(StoreError::Failed(format!(
            "{path_shown}: a database, but not one of a relevo node; use another folder"
        ))),
    }
}

/// Open a file, made if there is none, that only its owner may read.
pub(super) fn private(path: &Path) -> io::Result<File> {
    let file = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(path)?;
    file.set_permissions(Permissions::from_mode(0o600))?;
    Ok(file)
}
