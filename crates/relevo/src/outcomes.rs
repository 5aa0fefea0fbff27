//! Outcomes of calls that left the process, kept beside the ledger until their task has ended: a run that was killed
//! takes them from here, and calls nothing twice that came back. Written and read by [`crate::learn`].
//!
//! If a team asks for it, they are then kept as content, for people: `content/EPISODE/CALL` is what a call gave back, and
//! `content/EPISODE/CALL.given` what it was given. Each is a line of JSON with the payload behind it.

use std::{
    fs::{self, File},
    io,
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
    #[error("{}: the outcome of a call is not the one in the ledger; restore the file, or start a new run", path.display())]
    Altered {
        /// The file.
        path: PathBuf,
    },
}

/// The kept outcomes of a run.
#[derive(Debug)]
pub struct Outcomes {
    folder: PathBuf,
    content: PathBuf,
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
    /// Those of the run in the folder `run`.
    pub fn of_run(run: &Path) -> Self {
        Outcomes { folder: run.join(OUTCOMES_FOLDER), content: run.join(CONTENT_FOLDER) }
    }

    /// Keep what came of the `call`-th call of an episode, into which `before` went; returns its BLAKE3.
    pub fn keep(
        &self,
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
        let mut bytes = serde_json::to_vec(&head).expect("text, numbers and maps with text keys");
        bytes.push(b'\n');
        if !unchanged {
            bytes.extend_from_slice(&outcome.artifact.payload);
        }
        let path = self.path(episode, call);
        write(&path, &bytes)?;
        // On the disk before the record that rests on it can be.
        let synced = File::open(&path).and_then(|file| file.sync_data());
        synced.map_err(|source| OutcomeError::Io { path, what: "cannot be kept", source })?;
        Ok(*blake3::hash(&bytes).as_bytes())
    }

    /// Keep, for people, what a call was given.
    pub fn keep_given(&self, episode: u64, call: u32, given: &Artifact) -> Result<(), OutcomeError> {
        #[derive(Serialize)]
        struct Given<'a> {
            facts: &'a Facts,
        }
        let mut bytes = serde_json::to_vec(&Given { facts: &given.facts }).expect("a map with text keys");
        bytes.push(b'\n');
        bytes.extend_from_slice(&given.payload);
        write(&self.path(episode, call).with_extension("given"), &bytes)
    }

    /// What came of a call, as it was kept.
    pub fn read(
        &self,
        episode: u64,
        call: u32,
        before: &Artifact,
        digest: &[u8; 32],
    ) -> Result<Outcome, OutcomeError> {
        let path = self.path(episode, call);
        let bytes = fs::read(&path).map_err(|source| OutcomeError::Io {
            path: path.clone(),
            what: "cannot be read",
            source,
        })?;
        let altered = || OutcomeError::Altered { path: path.clone() };
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

    /// The task has ended: nothing of its content stays.
    pub fn forget(&self, episode: u64) {
        // What cannot be removed harms nobody: it is not read again.
        let _ = fs::remove_dir_all(self.folder.join(episode.to_string()));
    }

    /// Tasks of which something is kept.
    pub fn tasks(&self) -> Vec<u64> {
        let entries = fs::read_dir(&self.folder).into_iter().flatten().flatten();
        entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
    }

    /// The task has ended: what is kept of it becomes content, after it has gone through the redactor if there is one.
    /// Returns how many files were dropped because it failed on them, or because they could not be written.
    pub async fn publish(&self, episode: u64, redactor: Option<&Redactor>) -> u64 {
        let (from, to) = (self.folder.join(episode.to_string()), self.content.join(episode.to_string()));
        let Ok(entries) = fs::read_dir(&from) else { return 0 };
        let mut dropped = 0;
        for entry in entries.flatten() {
            let kept = match (fs::create_dir_all(&to), redactor) {
                (Err(e), _) => Err(e),
                (Ok(()), None) => fs::rename(entry.path(), to.join(entry.file_name())),
                (Ok(()), Some(redactor)) => redactor.redact(&entry.path(), &to.join(entry.file_name())).await,
            };
            dropped += u64::from(kept.is_err());
        }
        self.forget(episode);
        dropped
    }

    fn path(&self, episode: u64, call: u32) -> PathBuf {
        self.folder.join(episode.to_string()).join(call.to_string())
    }
}

fn write(path: &Path, bytes: &[u8]) -> Result<(), OutcomeError> {
    let fail = |source| OutcomeError::Io { path: path.to_owned(), what: "cannot be kept", source };
    fs::create_dir_all(path.parent().expect("a file in a folder")).map_err(fail)?;
    fs::write(path, bytes).map_err(fail)
}
