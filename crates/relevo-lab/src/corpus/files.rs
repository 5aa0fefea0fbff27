//! A corpus as files: what a team file names, and the documents.

use std::{fs, io, path::Path};

use serde_json::json;

use super::{Class, Corpus, CorpusTask, Document, Kind, NOT_STATED, vocabulary::Vocabulary};

/// The file of the documents, a line each.
pub const DOCUMENTS_FILE: &str = "documents.jsonl";

/// What is said of a corpus, the team that works on it, and its skills.
const TEAM: [(&str, &str); 5] = [
    ("README.md", include_str!("team/README.md")),
    ("team.toml", include_str!("team/team.toml")),
    ("skills/concise.md", include_str!("team/skills/concise.md")),
    ("skills/cot.md", include_str!("team/skills/cot.md")),
    ("skills/evidence.md", include_str!("team/skills/evidence.md")),
];

impl Corpus {
    /// The files that it is, by their paths: documents, task lists, a question for each task, and the team to run.
    pub fn files(&self) -> Vec<(String, String)> {
        let lines = |lines: &mut dyn Iterator<Item = serde_json::Value>| {
            lines.map(|line| line.to_string() + "\n").collect::<String>()
        };
        let mut documents = self.documents.iter().map(|d| serde_json::to_value(d).expect("texts"));
        let mut files = vec![(DOCUMENTS_FILE.to_owned(), lines(&mut documents))];
        for (name, tasks) in [("train.jsonl", &self.train), ("test.jsonl", &self.test)] {
            files.push((name.to_owned(), lines(&mut tasks.iter().map(line))));
        }
        let named =
            |text: &str| text.replace("name = \"corpus\"", &format!("name = \"{}\"", self.kind.name()));
        files.extend(TEAM.map(|(path, text)| (path.to_owned(), named(text))));
        let tasks = self.train.iter().chain(&self.test);
        files.extend(tasks.map(|task| (input(task), task.question.text() + "\n")));
        files
    }
}

fn input(task: &CorpusTask) -> String {
    format!("tasks/{}.txt", task.id)
}

/// A line of a task file.
fn line(task: &CorpusTask) -> serde_json::Value {
    let class = task.question.class;
    // What whoever asks knows: what kind of question it is, and how much hangs on it.
    let need = if class == Class::Mitigation { "0.9" } else { "0.5" };
    json!({
        "id": task.id,
        "input": input(task),
        "facts": {"class": class.name(), "requires_factual_grounding": true, "verification_need": need},
        "expect": {"regex": pattern(task.question.kind, &task.answer)},
    })
}

/// The answers that count as this one: whatever its case, quotation marks, unit and full stop.
fn pattern(kind: Kind, answer: &str) -> String {
    debug_assert!(answer.chars().all(|c| c.is_ascii_alphanumeric() || c == ' ' || c == '-'));
    let unit = match answer.bytes().all(|b| b.is_ascii_digit()) {
        true => format!("(?: ?{})?", Vocabulary::of(kind).unit),
        false => String::new(),
    };
    let lead = if answer == NOT_STATED { "(?:it is )?" } else { "(?:the |to )?" };
    format!("(?i)^[\\s\"'`*]*{lead}{answer}{unit}[\\s\"'`*.]*$")
}

/// Read the documents of a folder that [`Corpus::files`] was written to; the message says what is wrong and what to do.
pub fn read_documents(folder: &Path) -> Result<Vec<Document>, String> {
    let path = folder.join(DOCUMENTS_FILE);
    let text = fs::read_to_string(&path).map_err(|e: io::Error| {
        format!("{}: the documents cannot be read: {e}; `relevo lab corpus` makes some", path.display())
    })?;
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    let documents = lines.map(|(at, line)| {
        serde_json::from_str(line).map_err(|e| {
            let what = e.to_string().replace(" at line 1 column", " at column");
            format!("{}:{}: {what}", path.display(), at + 1)
        })
    });
    let documents: Vec<Document> = documents.collect::<Result<_, _>>()?;
    match documents.is_empty() {
        true => Err(format!("{}: it holds no documents", path.display())),
        false => Ok(documents),
    }
}
