//! The ledger file: records in, in order; after a crash, all whole records out. Written by [`crate::learn`].
//!
//! A record is handed to the operating system before a call of a program that it caused, and synced to the disk
//! at every seal. A run that was killed at any moment is taken up after its last whole record.

use std::{
    fs::{File, OpenOptions, TryLockError},
    io::{Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use futures_util::future::BoxFuture;
use relevo_core::{
    ids::AgentId,
    record::{Chain, Entry, EntryDecoder, Reader, Record, RecordError},
};

/// Bytes that a crash may leave half written; more than this behind the last readable entry is damage.
const TORN_BYTES_MAX: usize = 1 << 20;

/// How often a locked ledger is tried again, 25 ms later: a program that a killed run was just starting holds the lock
/// until it has begun.
const LOCK_TRIES: u32 = 40;

/// A ledger that cannot be opened, read or written.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// The file system refuses.
    #[error("{}: {what}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What was tried.
        what: &'static str,
        /// Why it failed.
        source: std::io::Error,
    },
    /// Another process is at it.
    #[error("{}: another process is writing this ledger; wait for it to end, or use another --out", path.display())]
    Locked {
        /// The file.
        path: PathBuf,
    },
    /// The bytes are not those that were written.
    #[error(
        "{}: {source}; what stands before byte {good} is sound. Start anew in another folder with --out, or, if losing \
         the rest is acceptable, cut the file there (truncate -s {good}) and use --resume",
        path.display()
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Length of its sound part, in bytes.
        good: usize,
        /// What is wrong.
        source: RecordError,
    },
}

/// The end of a ledger that is being written.
#[derive(Debug)]
pub struct Ledger {
    path: PathBuf,
    file: File,
    buffer: Vec<u8>,
    chain: Chain,
    bytes: u64,
}

/// What an interrupted run left.
pub struct Recovered {
    /// The sound part: all whole entries.
    pub bytes: Vec<u8>,
    /// Bytes behind it, to be cut off.
    pub dropped: usize,
    /// The last entry of the sound part.
    pub last: Option<Record>,
}

impl Ledger {
    /// Begin a ledger that must not exist yet.
    pub fn create(path: &Path) -> Result<Self, LedgerError> {
        let file =
            io(path, "it cannot be created", OpenOptions::new().create_new(true).append(true).open(path))?;
        lock(path, &file)?;
        let (buffer, chain) = (Vec::new(), Chain::default());
        Ok(Ledger { path: path.to_owned(), file, buffer, chain, bytes: 0 })
    }

    /// Read a ledger up to its last whole entry. The file stays as it is until [`Ledger::end_behind`], which must come
    /// before anything is added.
    pub fn recover(path: &Path) -> Result<(Self, Recovered), LedgerError> {
        let opened = OpenOptions::new().read(true).write(true).open(path);
        let file = io(path, "it cannot be opened", opened)?;
        lock(path, &file)?;
        let mut bytes = io(path, "it cannot be read", std::fs::read(path))?;
        let mut reader = Reader::new(&bytes);
        let mut last = None;
        let mut sealed = 0;
        loop {
            match reader.next_entry() {
                Ok(Some(Entry { record, .. })) => {
                    if matches!(record, Record::Sealed { .. }) {
                        sealed = reader.offset();
                    }
                    last = Some(record);
                }
                Ok(None) => break,
                Err(RecordError::CutOff { .. }) if is_torn(&bytes[reader.offset()..]) => break,
                Err(source) => {
                    // Only what is sealed is known to be sound: an altered entry may have shifted those behind it.
                    return Err(LedgerError::Damaged { path: path.to_owned(), good: sealed, source });
                }
            }
        }
        let (good, chain) = (reader.offset(), reader.chain().clone());
        let dropped = bytes.len() - good;
        bytes.truncate(good);
        let ledger = Ledger { path: path.to_owned(), file, buffer: Vec::new(), chain, bytes: good as u64 };
        Ok((ledger, Recovered { bytes, dropped, last }))
    }

    /// Make the file end behind these entries of a recovered ledger, its first ones.
    pub fn end_behind(&mut self, sound: &[u8]) -> Result<(), LedgerError> {
        if sound.len() as u64 != self.bytes {
            let mut reader = Reader::new(sound);
            while reader.next_entry().map_err(|source| self.damaged(sound.len(), source))?.is_some() {}
            (self.chain, self.bytes) = (reader.chain().clone(), sound.len() as u64);
        }
        io(&self.path, "its torn end cannot be cut off", self.file.set_len(self.bytes))?;
        io(&self.path, "its end cannot be found", self.file.seek(SeekFrom::Start(self.bytes))).map(drop)
    }

    fn damaged(&self, good: usize, source: RecordError) -> LedgerError {
        LedgerError::Damaged { path: self.path.clone(), good, source }
    }

    /// Add an entry; it is durable after [`Ledger::flush`] or [`Ledger::seal`].
    pub fn append(&mut self, agent: AgentId, record: Record) {
        let start = self.buffer.len();
        Entry { agent, record }.write(&mut self.buffer);
        self.chain.absorb(&self.buffer[start..]);
        self.bytes += (self.buffer.len() - start) as u64;
    }

    /// Hand everything added to the operating system.
    pub fn flush(&mut self) -> Result<(), LedgerError> {
        let written = self.file.write_all(&self.buffer);
        io(&self.path, "it cannot be written (is the disk full?)", written)?;
        self.buffer.clear();
        Ok(())
    }

    /// Flush once many records have gathered.
    pub fn flush_if_large(&mut self) -> Result<(), LedgerError> {
        if self.buffer.len() >= 1 << 18 { self.flush() } else { Ok(()) }
    }

    /// Seal everything before, and sync it to the disk.
    pub fn seal(&mut self) -> Result<(), LedgerError> {
        self.seal_unsynced()?;
        io(&self.path, "it cannot be synced", self.file.sync_data())
    }

    /// Seal everything before, and hand it to the operating system.
    pub fn seal_unsynced(&mut self) -> Result<(), LedgerError> {
        let head = self.chain.seal();
        self.append(AgentId::ORIGIN, Record::Sealed { head });
        self.flush()
    }

    /// Begin to sync what was handed to the operating system to the disk, on a thread of its own, and before it the files
    /// that it rests on; within a tokio runtime.
    pub fn sync(&self, rests_on: std::io::Result<Vec<File>>) -> BoxFuture<'static, Result<(), LedgerError>> {
        let (path, file) = (self.path.clone(), self.file.try_clone());
        let syncing = tokio::task::spawn_blocking(move || {
            rests_on?.iter().try_for_each(File::sync_data)?;
            file?.sync_data()
        });
        Box::pin(async move {
            let synced = syncing.await.unwrap_or_else(|e| Err(std::io::Error::other(e)));
            io(&path, "it cannot be synced", synced)
        })
    }

    /// Chain head over all bytes so far.
    pub fn head(&self) -> [u8; 32] {
        self.chain.clone().seal()
    }

    /// Its length in bytes.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }
}

/// Reads a ledger from its file, entry by entry, verifies every seal on the way, and holds no more of it than it must. A
/// last entry that is cut off, as in a run that goes on or was killed, is left out.
#[derive(Debug)]
pub struct Entries {
    path: PathBuf,
    file: File,
    decoder: EntryDecoder,
    buffer: Vec<u8>,
    /// What of the buffer has been decoded.
    done: usize,
    ended: bool,
    sealed: u64,
}

/// Bytes that are read at a time.
const CHUNK: usize = 1 << 18;
/// No entry is longer: the widest observation takes less.
const ENTRY_BYTES_MAX: usize = 1 << 25;

impl Entries {
    /// Begin at the first entry.
    pub fn open(path: &Path) -> Result<Self, LedgerError> {
        let file = io(path, "it cannot be opened", File::open(path))?;
        let (path, decoder) = (path.to_owned(), EntryDecoder::default());
        Ok(Entries { path, file, decoder, buffer: vec![], done: 0, ended: false, sealed: 0 })
    }

    /// Chain head over the entries so far.
    pub fn head(&self) -> [u8; 32] {
        self.decoder.chain().clone().seal()
    }

    /// The next entry; `None` at the end.
    pub fn next_entry(&mut self) -> Result<Option<Entry>, LedgerError> {
        loop {
            let rest = &self.buffer[self.done..];
            let before = self.decoder.offset();
            match self.decoder.decode(rest) {
                Ok(Some(entry)) => {
                    self.done += (self.decoder.offset() - before) as usize;
                    if matches!(entry.record, Record::Sealed { .. }) {
                        self.sealed = self.decoder.offset();
                    }
                    return Ok(Some(entry));
                }
                Ok(None) if !self.ended => self.read_on()?,
                Err(RecordError::CutOff { .. }) if !self.ended && rest.len() < ENTRY_BYTES_MAX => {
                    self.read_on()?;
                }
                Ok(None) => return Ok(None),
                Err(RecordError::CutOff { .. }) if is_torn(rest) => return Ok(None),
                // Only what is sealed is known to be sound: an altered entry may have shifted those behind it.
                Err(source) => {
                    let good = self.sealed as usize;
                    return Err(LedgerError::Damaged { path: self.path.clone(), good, source });
                }
            }
        }
    }

    fn read_on(&mut self) -> Result<(), LedgerError> {
        self.buffer.drain(..self.done);
        self.done = 0;
        let read = Read::by_ref(&mut self.file).take(CHUNK as u64).read_to_end(&mut self.buffer);
        self.ended = io(&self.path, "it cannot be read", read)? == 0;
        Ok(())
    }
}

impl Drop for Ledger {
    /// Closing alone would leave the lock with a program that is just being started, until its exec.
    fn drop(&mut self) {
        let _ = self.file.unlock();
    }
}

/// Whether the rest of a ledger, whose first entry is cut off, can be what a crash left: one entry half written. If it
/// goes on with the end of an episode, that entry only says that it is longer than it is.
fn is_torn(rest: &[u8]) -> bool {
    let mut closed = vec![];
    let record =
        Record::Closed { episode: 0, episode_return: 0.0, handoffs: 0, stop: String::new(), cost: None };
    Entry { agent: AgentId::ORIGIN, record }.write(&mut closed);
    // Up to the number of the episode: no text holds these bytes, and no number that is met by chance.
    let head = &closed[..8];
    rest.len() <= TORN_BYTES_MAX && !rest.windows(head.len()).skip(1).any(|window| window == head)
}

fn io<T>(path: &Path, what: &'static str, result: std::io::Result<T>) -> Result<T, LedgerError> {
    result.map_err(|source| LedgerError::Io { path: path.to_owned(), what, source })
}

fn lock(path: &Path, file: &File) -> Result<(), LedgerError> {
    let mut tries_left = LOCK_TRIES;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(()),
            Err(TryLockError::WouldBlock) if tries_left > 0 => tries_left -= 1,
            Err(TryLockError::WouldBlock) => return Err(LedgerError::Locked { path: path.to_owned() }),
            Err(TryLockError::Error(source)) => {
                return Err(LedgerError::Io { path: path.to_owned(), what: "it cannot be locked", source });
            }
        }
        thread::sleep(Duration::from_millis(25));
    }
}
