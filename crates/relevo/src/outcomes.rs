//! Outcomes of calls that left the process, kept beside the ledger until their task has ended: a run that was killed
//! takes them from here, and calls nothing twice that came back. Written and read by [`crate::learn`].
//!
//! They stand one behind the other in a few files, as making a file for each would cost more than all else that is done
//! for a call. Of a task that has ended what was kept is blanked, and a file that holds nothing else is removed.
//!
//! If a team asks for it, what was kept becomes content, for people: `content/EPISODE/CALL` is what a call gave back, and
//! `content/EPISODE/CALL.given` what it was given. Each is a line of JSON with the payload behind it.

use std::{
    collections::{BTreeMap, BTreeSet, btree_map::Entry},
    fs::{self, File, OpenOptions},
    io::{self, BufRead, BufReader, Read},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use serde::{Deserialize, Serialize};

use crate::{
    agent::{Ending, Failure, Outcome},
    artifact::{Artifact, Facts},
    redact::Redactor,
};

/// The folder of kept outcomes in the folder of a run.
pub const OUTCOMES_FOLDER: &str = "outcomes";

/// The folder of kept content in the folder of a run.
pub const CONTENT_FOLDER: &str = "content";

/// An outcome that cannot be kept or had again.
#[derive(Debug, thiserror::Error)]
pub enum OutcomeError {
    /// The file system refuses.
    #[error("{}: the outcome of a call {what}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What was tried.
        what: &'static str,
        /// Why it failed.
        source: io::Error,
    },
    /// It is not what the ledger says that it was.
    #[error("{}: the outcome of a call is not the one in the ledger; restore the folder, or start a new run", path.display())]
    Altered {
        /// The folder.
        path: PathBuf,
    },
}

/// Length from which on a file is not added to, in bytes.
const FILE_BYTES: u64 = 4 << 20;

/// The longest label, in bytes.
const LABEL_BYTES_MAX: u64 = 256;

/// The kept outcomes of a run.
#[derive(Debug)]
pub struct Outcomes {
    folder: PathBuf,
    content: PathBuf,
    /// Files with something in them, by number. The last one is added to, until it is long enough.
    files: BTreeMap<u64, Shelf>,
    /// What is kept, by task, in the order in which it came.
    kept: BTreeMap<u64, Vec<Kept>>,
}

/// A file of outcomes.
#[derive(Debug)]
struct Shelf {
    file: File,
    bytes: u64,
    /// Pieces in it that are not blanked.
    pieces: usize,
    is_synced: bool,
}

/// Where a piece is.
#[derive(Clone, Copy, Debug)]
struct Kept {
    label: Label,
    file: u64,
    start: u64,
}

/// Stands before each piece, a line of JSON.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct Label {
    episode: u64,
    call: u32,
    /// Whether it is what the call was given, and not what it gave back.
    given: bool,
    /// Length of the piece that follows.
    bytes: u64,
}

/// All of an outcome but its payload, which follows it in the file.
#[derive(Serialize, Deserialize)]
struct Head {
    facts: Facts,
    private: Facts,
    tokens: u64,
    #[serde(default)]
    retries: u32,
    money: f64,
    cached: bool,
    reward: Option<f64>,
    failure: Option<Failure>,
    stderr_tail: String,
    /// Whether the payload is the one that went into the call.
    unchanged: bool,
}

impl Outcomes {
    /// Those of the run in the folder `run`, with what an earlier process has left.
    pub fn of_run(run: &Path) -> Result<Self, OutcomeError> {
        let (folder, content) = (run.join(OUTCOMES_FOLDER), run.join(CONTENT_FOLDER));
        let (files, kept) = (BTreeMap::new(), BTreeMap::new());
        let mut outcomes = Outcomes { folder, content, files, kept };
        let entries = match fs::read_dir(&outcomes.folder) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(outcomes),
            Err(source) => {
                return Err(OutcomeError::Io { path: outcomes.folder, what: "cannot be read", source });
            }
            Ok(entries) => entries,
        };
        for number in entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()) {
            let found = outcomes.look_through(number);
            found.map_err(|source| outcomes.failed(number, "cannot be read", source))?;
        }
        Ok(outcomes)
    }

    /// Find what is in a file. Behind what was being written when a process was killed there is nothing.
    fn look_through(&mut self, number: u64) -> io::Result<()> {
        let file = OpenOptions::new().read(true).write(true).open(self.path(number))?;
        let length = file.metadata()?.len();
        let (mut reader, mut start, mut pieces) = (BufReader::new(&file), 0, 0);
        let mut line = vec![];
        loop {
            line.clear();
            Read::by_ref(&mut reader).take(LABEL_BYTES_MAX).read_until(b'\n', &mut line)?;
            let Ok(label) = serde_json::from_slice::<Label>(&line) else { break };
            let begin = start + line.len() as u64;
            match begin.checked_add(label.bytes) {
                Some(end) if line.ends_with(b"\n") && end <= length => start = end,
                _ => break,
            }
            // A piece begins with JSON, if it has not been blanked.
            let is_blank = reader.fill_buf()?.first() == Some(&0);
            reader.seek_relative(label.bytes as i64)?;
            if !is_blank {
                self.kept.entry(label.episode).or_default().push(Kept { label, file: number, start: begin });
                pieces += 1;
            }
        }
        if pieces == 0 {
            return fs::remove_file(self.path(number));
        }
        let shelf = Shelf { file, bytes: start, pieces, is_synced: false };
        self.files.insert(number, shelf);
        Ok(())
    }

    /// Keep what came of the `call`-th call of an episode, into which `before` went; returns its BLAKE3. It is in the hands
    /// of the operating system then, and on the disk after [`Outcomes::unsynced`] were synced.
    pub fn keep(
        &mut self,
        episode: u64,
        call: u32,
        before: &Artifact,
        outcome: &Outcome,
    ) -> Result<[u8; 32], OutcomeError> {
        let unchanged = Arc::ptr_eq(&before.payload, &outcome.artifact.payload);
        let head = Head {
            facts: outcome.artifact.facts.clone(),
            private: outcome.private.clone(),
            tokens: outcome.tokens,
            retries: outcome.retries,
            money: outcome.money,
            cached: outcome.cached,
            reward: outcome.reward,
            failure: outcome.failure().cloned(),
            stderr_tail: outcome.stderr_tail.clone(),
            unchanged,
        };
        let payload: &[u8] = if unchanged { &[] } else { &outcome.artifact.payload };
        let piece = piece(&head, payload);
        self.add(episode, call, false, &piece)?;
        Ok(*blake3::hash(&piece).as_bytes())
    }

    /// Keep, for people, what a call was given.
    pub fn keep_given(&mut self, episode: u64, call: u32, given: &Artifact) -> Result<(), OutcomeError> {
        #[derive(Serialize)]
        struct Given<'a> {
            facts: &'a Facts,
        }
        self.add(episode, call, true, &piece(&Given { facts: &given.facts }, &given.payload))
    }

    fn add(&mut self, episode: u64, call: u32, given: bool, piece: &[u8]) -> Result<(), OutcomeError> {
        let number = match self.files.last_key_value() {
            Some((number, shelf)) if shelf.bytes < FILE_BYTES => *number,
            last => last.map_or(0, |(number, _)| number + 1),
        };
        let added = self.add_to(number, Label { episode, call, given, bytes: piece.len() as u64 }, piece);
        added.map_err(|source| self.failed(number, "cannot be kept", source))
    }

    fn add_to(&mut self, number: u64, label: Label, piece: &[u8]) -> io::Result<()> {
        let path = self.path(number);
        let shelf = match self.files.entry(number) {
            Entry::Occupied(shelf) => shelf.into_mut(),
            Entry::Vacant(place) => {
                fs::create_dir_all(&self.folder)?;
                let file =
                    OpenOptions::new().read(true).write(true).create(true).truncate(true).open(path)?;
                place.insert(Shelf { file, bytes: 0, pieces: 0, is_synced: false })
            }
        };
        let mut bytes = serde_json::to_vec(&label)?;
        bytes.push(b'\n');
        let start = shelf.bytes + bytes.len() as u64;
        bytes.extend_from_slice(piece);
        shelf.file.write_all_at(&bytes, shelf.bytes)?;
        shelf.bytes += bytes.len() as u64;
        shelf.pieces += 1;
        shelf.is_synced = false;
        self.kept.entry(label.episode).or_default().push(Kept { label, file: number, start });
        Ok(())
    }

    /// The files with something that has not been synced, which whoever takes them is about to do.
    pub fn unsynced(&mut self) -> io::Result<Vec<File>> {
        let mut files = vec![];
        for shelf in self.files.values_mut().filter(|shelf| !shelf.is_synced) {
            files.push(shelf.file.try_clone()?);
            shelf.is_synced = true;
        }
        Ok(files)
    }

    /// Of how many calls of an episode it is kept what came of them.
    pub fn calls(&self, episode: u64) -> usize {
        let pieces = self.kept.get(&episode).into_iter().flatten().filter(|kept| !kept.label.given);
        pieces.map(|kept| kept.label.call).collect::<BTreeSet<_>>().len()
    }

    fn find(&self, episode: u64, call: u32) -> Option<Kept> {
        let mut pieces = self.kept.get(&episode)?.iter();
        pieces.rfind(|kept| kept.label.call == call && !kept.label.given).copied()
    }

    /// What came of a call, as it was kept.
    pub fn read(
        &self,
        episode: u64,
        call: u32,
        before: &Artifact,
        digest: &[u8; 32],
    ) -> Result<Outcome, OutcomeError> {
        let altered = || OutcomeError::Altered { path: self.folder.clone() };
        let kept = self.find(episode, call).ok_or_else(altered)?;
        let bytes = self.taken(&kept).map_err(|source| self.failed(kept.file, "cannot be read", source))?;
        if blake3::hash(&bytes).as_bytes() != digest {
            return Err(altered());
        }
        let end = bytes.iter().position(|b| *b == b'\n').ok_or_else(altered)?;
        let head: Head = serde_json::from_slice(&bytes[..end]).map_err(|_| altered())?;
        let payload = if head.unchanged { before.payload.clone() } else { bytes[end + 1..].into() };
        Ok(Outcome {
            artifact: Artifact { facts: head.facts, payload },
            private: head.private,
            tokens: head.tokens,
            retries: head.retries,
            money: head.money,
            cached: head.cached,
            reward: head.reward,
            ending: head.failure.map_or(Ending::Done, Ending::Failed),
            stderr_tail: head.stderr_tail,
        })
    }

    fn taken(&self, kept: &Kept) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; kept.label.bytes as usize];
        self.files[&kept.file].file.read_exact_at(&mut bytes, kept.start)?;
        Ok(bytes)
    }

    /// The task has ended: nothing of its content stays.
    pub fn forget(&mut self, episode: u64) {
        for Kept { label, file, start } in self.kept.remove(&episode).unwrap_or_default() {
            let shelf = self.files.get_mut(&file).expect("a file is there while something is in it");
            shelf.pieces -= 1;
            // What cannot be removed harms nobody: it is not read again.
            if shelf.pieces == 0 {
                self.files.remove(&file);
                let _ = fs::remove_file(self.path(file));
            } else {
                let _ = shelf.file.write_all_at(&vec![0; label.bytes as usize], start);
            }
        }
    }

    /// Tasks of which something is kept.
    pub fn tasks(&self) -> Vec<u64> {
        self.kept.keys().copied().collect()
    }

    /// The task has ended: what is kept of it becomes content, after it has gone through the redactor if there is one.
    /// Returns how many pieces were dropped because it failed on them, or because they could not be written.
    pub async fn publish(&mut self, episode: u64, redactor: Option<&Redactor>) -> u64 {
        let to = self.content.join(episode.to_string());
        let mut dropped = 0;
        for kept in self.kept.get(&episode).into_iter().flatten() {
            dropped += u64::from(self.publish_one(kept, &to, redactor).await.is_err());
        }
        self.forget(episode);
        dropped
    }

    async fn publish_one(&self, kept: &Kept, to: &Path, redactor: Option<&Redactor>) -> io::Result<()> {
        let to = to.join(format!("{}{}", kept.label.call, if kept.label.given { ".given" } else { "" }));
        let whole = self.folder.join("whole");
        fs::create_dir_all(to.parent().expect("a file in a folder"))?;
        fs::write(&whole, self.taken(kept)?)?;
        match redactor {
            None => fs::rename(whole, to),
            Some(redactor) => {
                let redacted = redactor.redact(&whole, &to).await;
                fs::remove_file(whole).and(redacted)
            }
        }
    }

    fn path(&self, number: u64) -> PathBuf {
        self.folder.join(number.to_string())
    }

    fn failed(&self, number: u64, what: &'static str, source: io::Error) -> OutcomeError {
        OutcomeError::Io { path: self.path(number), what, source }
    }
}

/// A line of JSON with the payload behind it.
fn piece(head: &impl Serialize, payload: &[u8]) -> Vec<u8> {
    let mut bytes = serde_json::to_vec(head).expect("text, numbers and maps with text keys");
    bytes.push(b'\n');
    bytes.extend_from_slice(payload);
    bytes
}
