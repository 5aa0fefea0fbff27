//! Approvals: questions to a person, on disk in the folder of a run, so that a task can wait for its answer longer than
//! any process lives.
//!
//! A question is one file `approvals/ID.json`, whole or absent at any moment. The driver asks, lets the task rest, and
//! looks again; a person answers by `relevo approvals`. After a restart the driver asks the same again and finds the
//! answer.
//!
//! All doubt is a no: a file that cannot be read, that was altered by hand, that asks something else than the driver does,
//! whose time is over, or that is gone, counts as denied. The digest in the file finds damage and careless edits. It
//! is no signature: whoever may write into the folder may also approve.

use std::{
    fmt,
    fs::{self, File, OpenOptions},
    io::{self, Read, Write},
    path::{Path, PathBuf},
};

use relevo_core::policy_file::hex;
use serde::{Deserialize, Serialize};

use crate::{agent::HandoffLabel, guard::Cost, team::nearest};

/// The version of a question's file.
pub const SCHEMA: &str = "relevo.approval/v1";

/// The folder of the questions in the folder of a run.
pub const FOLDER: &str = "approvals";

/// The most questions that a run may have asked.
pub const QUESTIONS_MAX: usize = 10_000;

/// The longest text in a question; more is cut off, which never makes a no into a yes.
pub const TEXT_BYTES_MAX: usize = 2048;

/// The longest file that is read.
const FILE_BYTES_MAX: u64 = 1 << 17;

/// The longest name of a question.
const ID_BYTES_MAX: usize = 128;

/// The questions of a run.
#[derive(Clone, Debug)]
pub struct Approvals {
    folder: PathBuf,
}

/// What a person is asked.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Asked {
    /// Who is about to be called.
    pub agent: String,
    /// Who hands over.
    pub from: String,
    /// Name of the situation that `agent` is in.
    pub situation: String,
    /// The task.
    pub task: String,
    /// What the call was expected to cost when it was asked. It may have changed since: an answer does not depend on it.
    pub estimate: Cost,
    /// Why a person is asked: `approval`, `budget-money`, ...
    pub why: String,
}

/// A question, and what has become of it. Times are milliseconds since 1970.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Approval {
    /// Its name.
    pub id: String,
    /// What is asked.
    pub asked: Asked,
    /// Since when.
    pub asked_at: u64,
    /// When it counts as denied if nobody has answered; never, if absent.
    pub expires_at: Option<u64>,
    /// The answer, if there is one.
    pub answer: Option<Answer>,
}

/// What a person answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Answer {
    /// Yes or no.
    pub decision: Decision,
    /// Who says so.
    pub by: String,
    /// Why, for people.
    pub note: String,
    /// When.
    pub decided_at: u64,
}

/// Yes or no.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Decision {
    /// Yes.
    Approved,
    /// No.
    Denied,
}

impl fmt::Display for Decision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Decision::Approved => "approved",
            Decision::Denied => "denied",
        })
    }
}

/// How a question stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Nobody has answered yet.
    Pending,
    /// Somebody has said yes; who.
    Approved(String),
    /// It is a no; the text says whose, or what is wrong.
    Denied(String),
}

impl Standing {
    /// `pending`, `approved` or `denied`.
    pub fn word(&self) -> &'static str {
        match self {
            Standing::Pending => "pending",
            Standing::Approved(_) => "approved",
            Standing::Denied(_) => "denied",
        }
    }
}

/// A question in a list: with its file, or with why that cannot be trusted.
#[derive(Clone, Debug)]
pub struct Listed {
    /// Its name.
    pub id: String,
    /// What the file says, if it can be trusted.
    pub approval: Option<Approval>,
    /// How it stands.
    pub standing: Standing,
}

/// What cannot be asked, answered or listed.
#[derive(Debug, thiserror::Error)]
#[error("{}: {message}", path.display())]
pub struct ApprovalError {
    path: PathBuf,
    message: String,
}

/// The name of a question: the handoff that it is about, and why it is asked. No handoff is asked the same twice.
pub fn question_id(handoff: &HandoffLabel, why: &str) -> String {
    format!("{}-{why}", handoff.0.replace('/', "-"))
}

impl Asked {
    /// Whether an answer to one answers the other.
    fn is_same(&self, other: &Asked) -> bool {
        *self == Asked { estimate: self.estimate, ..other.clone() }
    }

    fn cut(mut self) -> Self {
        for text in [&mut self.agent, &mut self.from, &mut self.situation, &mut self.task, &mut self.why] {
            text.truncate(text.floor_char_boundary(TEXT_BYTES_MAX));
        }
        self
    }
}

impl Approval {
    /// How it stands at `now`.
    pub fn standing(&self, now: u64) -> Standing {
        match &self.answer {
            Some(Answer { decision: Decision::Approved, by, .. }) => Standing::Approved(by.clone()),
            Some(Answer { decision: Decision::Denied, by, note, .. }) => {
                let note = if note.is_empty() { String::new() } else { format!(": {note}") };
                Standing::Denied(format!("denied by {by}{note}"))
            }
            None if self.expires_at.is_some_and(|end| now >= end) => {
                Standing::Denied("nobody answered in time".into())
            }
            None => Standing::Pending,
        }
    }
}

/// A question's file.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Stored {
    schema: String,
    approval: Approval,
    /// BLAKE3 of the approval.
    digest: String,
}

fn digest(approval: &Approval) -> String {
    let bytes = serde_json::to_vec(approval).expect("an approval holds texts and numbers");
    hex(&blake3::derive_key("relevo 2026 approval v1", &bytes))
}

impl Approvals {
    /// Those of the run in the folder `run`.
    pub fn of(run: &Path) -> Self {
        Approvals { folder: run.join(FOLDER) }
    }

    /// Ask, or look how the same question stands that was asked before. When this returns, the question survives a crash.
    pub fn ask(
        &self,
        id: &str,
        asked: Asked,
        now: u64,
        expires_after_ms: Option<u64>,
    ) -> Result<Standing, ApprovalError> {
        if !is_id(id) {
            return Err(self.fault(format!(
                "{id:?} names no question: use 1 to {ID_BYTES_MAX} letters, digits and the signs - _ . (no . in front)"
            )));
        }
        fs::create_dir_all(&self.folder).map_err(|e| self.fault(format!("it cannot be created: {e}")))?;
        let _lock = self.lock()?;
        match self.path(id).try_exists() {
            Ok(false) => {}
            _ => return Ok(self.standing(id, &asked, now)),
        }
        if self.ids()?.len() >= QUESTIONS_MAX {
            return Err(
                self.fault(format!("the run has asked {QUESTIONS_MAX} questions, and may ask no more"))
            );
        }
        let expires_at = expires_after_ms.map(|ms| now.saturating_add(ms));
        let (id, asked) = (id.to_owned(), asked.cut());
        self.write(Approval { id, asked, asked_at: now, expires_at, answer: None })?;
        Ok(Standing::Pending)
    }

    /// How the question stands that was asked as `asked`.
    pub fn standing(&self, id: &str, asked: &Asked, now: u64) -> Standing {
        match self.read(id) {
            Ok(approval) if approval.asked.is_same(&asked.clone().cut()) => approval.standing(now),
            Ok(_) => Standing::Denied("its file asks something else".into()),
            Err(why) => Standing::Denied(why),
        }
    }

    /// All questions, the oldest first; those whose files cannot be trusted come last.
    pub fn list(&self, now: u64) -> Result<Vec<Listed>, ApprovalError> {
        let listed = |id: String| match self.read(&id) {
            Ok(approval) => Listed { id, standing: approval.standing(now), approval: Some(approval) },
            Err(why) => Listed { id, standing: Standing::Denied(why), approval: None },
        };
        let mut all: Vec<Listed> = self.ids()?.into_iter().map(listed).collect();
        all.sort_by_key(|l| l.approval.as_ref().map_or(u64::MAX, |a| a.asked_at));
        Ok(all)
    }

    /// Answer a question that is pending.
    pub fn decide(
        &self,
        id: &str,
        decision: Decision,
        by: &str,
        note: &str,
        now: u64,
    ) -> Result<Approval, ApprovalError> {
        for (what, text) in [("by", by), ("note", note)] {
            if text.len() > TEXT_BYTES_MAX {
                return Err(self.fault(format!("{what} is longer than {TEXT_BYTES_MAX} bytes: shorten it")));
            }
        }
        let ids = self.ids()?;
        if !ids.iter().any(|known| known == id) {
            let hint = match nearest(id, ids.iter().map(String::as_str)) {
                Some(near) => format!("did you mean {near:?}?"),
                None if ids.is_empty() => "nothing was ever asked".to_owned(),
                None => "`relevo approvals list` shows what is asked".to_owned(),
            };
            let id = &id[..id.floor_char_boundary(80)];
            return Err(self.fault(format!("question {id:?} is unknown; {hint}")));
        }
        let _lock = self.lock()?;
        let mut approval = self.read(id).map_err(|why| {
            self.fault(format!("question {id:?} counts as denied and cannot be answered: {why}"))
        })?;
        if let Some(Answer { decision, by, .. }) = &approval.answer {
            return Err(
                self.fault(format!("question {id:?} was {decision} by {by} already; an answer stays"))
            );
        }
        if let Standing::Denied(why) = approval.standing(now) {
            return Err(self.fault(format!("question {id:?} counts as denied and cannot be answered: {why}")));
        }
        let (by, note) = (by.to_owned(), note.to_owned());
        approval.answer = Some(Answer { decision, by, note, decided_at: now });
        self.write(approval.clone())?;
        Ok(approval)
    }

    fn fault(&self, message: String) -> ApprovalError {
        ApprovalError { path: self.folder.clone(), message }
    }

    fn path(&self, id: &str) -> PathBuf {
        self.folder.join(format!("{id}.json"))
    }

    /// The names of all questions, sorted.
    fn ids(&self) -> Result<Vec<String>, ApprovalError> {
        let entries = match fs::read_dir(&self.folder) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(vec![]),
            entries => entries.map_err(|e| self.fault(format!("it cannot be read: {e}")))?,
        };
        let name = |entry: fs::DirEntry| {
            let name = entry.file_name().into_string().ok()?;
            name.strip_suffix(".json").filter(|id| is_id(id)).map(str::to_owned)
        };
        let mut ids: Vec<String> = entries.flatten().filter_map(name).take(QUESTIONS_MAX).collect();
        ids.sort();
        Ok(ids)
    }

    /// One at a time decides; it is released when the file is closed.
    fn lock(&self) -> Result<File, ApprovalError> {
        let opened = OpenOptions::new().create(true).append(true).open(self.folder.join(".lock"));
        opened
            .and_then(|file| file.lock().map(|()| file))
            .map_err(|e| self.fault(format!("it cannot be locked: {e}")))
    }

    /// The question, or why its file cannot be trusted.
    fn read(&self, id: &str) -> Result<Approval, String> {
        let unreadable = |e: io::Error| match e.kind() {
            io::ErrorKind::NotFound => "its file is gone".to_owned(),
            _ => format!("its file cannot be read: {e}"),
        };
        let path = self.path(id);
        if !fs::symlink_metadata(&path).map_err(unreadable)?.is_file() {
            return Err("its file is none".into());
        }
        let mut text = String::new();
        File::open(path)
            .and_then(|file| file.take(FILE_BYTES_MAX).read_to_string(&mut text))
            .map_err(unreadable)?;
        let stored: Stored =
            serde_json::from_str(&text).map_err(|e| format!("its file cannot be read: {e}"))?;
        if stored.schema != SCHEMA {
            return Err(format!("its file is no {SCHEMA}"));
        }
        if stored.digest != digest(&stored.approval) || stored.approval.id != id {
            return Err("its file was altered".into());
        }
        Ok(stored.approval)
    }

    /// Whole or not at all, and there after a crash.
    fn write(&self, approval: Approval) -> Result<(), ApprovalError> {
        let path = self.path(&approval.id);
        let beside = self.folder.join(format!(".{}.tmp", approval.id));
        let stored = Stored { schema: SCHEMA.into(), digest: digest(&approval), approval };
        let mut text = serde_json::to_string_pretty(&stored).expect("an approval holds texts and numbers");
        text.push('\n');
        let write = || {
            let mut file = File::create(&beside)?;
            file.write_all(text.as_bytes())?;
            file.sync_all()?;
            fs::rename(&beside, &path)?;
            File::open(&self.folder)?.sync_all()
        };
        write().map_err(|e| self.fault(format!("question {:?} cannot be written: {e}", stored.approval.id)))
    }
}

fn is_id(id: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    (1..=ID_BYTES_MAX).contains(&id.len()) && id.chars().all(plain) && !id.starts_with('.')
}
