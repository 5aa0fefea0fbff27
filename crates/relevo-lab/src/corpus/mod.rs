//! Generated corpora with planted facts, and tasks about them whose answers are known: incidents of services, and
//! advisories about products. Pure: a seed determines every byte. Nothing in them is real.
//!
//! Each corpus has [`Document`]s that state facts in one sentence each, among sentences that state nothing and sentences
//! that once were true. A [`Question`] of one of eight [`Class`]es is about one or two subjects; no two tasks of a class
//! are about the same, so that those to measure on are never those learned on. What the documents say is read out of
//! them again by [`reading`], which knows nothing of how they were made.

mod files;
pub mod form;
mod make;
pub mod models;
pub mod question;
pub mod reading;
mod recall;
pub mod search;
pub mod vocabulary;

use serde::{Deserialize, Serialize};

pub use files::{DOCUMENTS_FILE, read_documents};
pub use make::TASKS_MAX;
pub use question::{NOT_STATED, Question};
pub use recall::recall;

/// What a corpus is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// Services, their runbooks, post-mortems and notes from on call.
    Incident,
    /// Products, their advisories, patch notes and mitigations.
    Advisory,
}

impl Kind {
    /// All kinds.
    pub const ALL: [Kind; 2] = [Kind::Incident, Kind::Advisory];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Incident => "incident",
            Kind::Advisory => "advisory",
        }
    }
}

/// A kind of task.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Class {
    /// A step of a procedure.
    Procedural,
    /// A fact of one document.
    SingleDocument,
    /// A fact of one document about what another one names.
    CrossDocument,
    /// A sum over several documents.
    Synthesis,
    /// What no document says; the right answer is to say so.
    OutOfCorpus,
    /// A number that follows from two facts.
    Derivative,
    /// The action that fits a situation and what must not be done.
    Mitigation,
    /// The greater of two.
    Pair,
}

impl Class {
    /// All classes.
    pub const ALL: [Class; 8] = [
        Class::Procedural,
        Class::SingleDocument,
        Class::CrossDocument,
        Class::Synthesis,
        Class::OutOfCorpus,
        Class::Derivative,
        Class::Mitigation,
        Class::Pair,
    ];

    /// Its name, which the fact `class` of its tasks holds.
    pub fn name(self) -> &'static str {
        match self {
            Class::Procedural => "procedural",
            Class::SingleDocument => "single-document",
            Class::CrossDocument => "cross-document",
            Class::Synthesis => "synthesis",
            Class::OutOfCorpus => "out-of-corpus",
            Class::Derivative => "derivative",
            Class::Mitigation => "mitigation",
            Class::Pair => "pair",
        }
    }

    /// Its place among all.
    pub fn index(self) -> usize {
        Class::ALL.iter().position(|class| *class == self).expect("all are listed")
    }
}

/// One document.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Document {
    /// Its name, unique in the corpus.
    pub id: String,
    /// Its title.
    pub title: String,
    /// Its text: sentences, a space between.
    pub text: String,
}

/// A question with its answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CorpusTask {
    /// Its name, unique in the corpus.
    pub id: String,
    /// What is asked.
    pub question: Question,
    /// The one right answer.
    pub answer: String,
}

/// A corpus with its tasks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Corpus {
    /// What it is about.
    pub kind: Kind,
    /// The documents.
    pub documents: Vec<Document>,
    /// Tasks to learn on.
    pub train: Vec<CorpusTask>,
    /// Tasks to measure on, about other subjects.
    pub test: Vec<CorpusTask>,
}
