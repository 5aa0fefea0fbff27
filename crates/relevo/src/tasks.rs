//! Where tasks come from and how their end is judged. Drawn by [`crate::learn`] and [`crate::evaluate`].

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
};

use relevo_core::Rng;
use serde::Deserialize;
use sha2::{Digest, Sha256};

use crate::{
    agent::Agent,
    artifact::{Artifact, Facts, Scalar, check_facts},
    judge::{Expectation, rule::Rule},
    team::{JudgeSpec, TasksSpec},
};

/// One piece of work.
#[derive(Clone, Debug)]
pub struct Task {
    /// Its name in reports.
    pub id: String,
    /// What is handed to the first agent.
    pub artifact: Artifact,
    /// What the judge compares with; no agent sees it.
    pub expected: Option<Expectation>,
}

/// A task that cannot be had.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct TaskError(pub String);

/// A supply of tasks with a judge.
pub trait TaskSource: Send + Sync {
    /// A task to learn on, drawn by `rng`.
    fn training(&self, rng: &mut Rng) -> Result<Task, TaskError>;

    /// How many tasks there are to learn on, where they can be counted.
    fn training_count(&self) -> Option<u64> {
        None
    }

    /// The `index`-th task to learn on, where they can be counted.
    fn training_at(&self, _index: u64) -> Result<Task, TaskError> {
        Err(TaskError("the tasks to learn on cannot be counted".into()))
    }

    /// The `number`-th task of a run of this seed.
    fn lesson(&self, seed: u64, number: u64) -> Result<Task, TaskError> {
        self.training(&mut Rng::stream(seed, "tasks").fork([number, 0, 0]))
    }

    /// The `index`-th task to measure on, the same for every workflow; `None` after the last. Disjoint from, or
    /// drawn independently of, those to learn on.
    fn evaluation(&self, index: u64) -> Result<Option<Task>, TaskError>;

    /// A task given by a person.
    fn open(&self, input: &Path) -> Result<Task, TaskError>;

    /// The quality of what came out, in [0, 1]; `None` if it cannot be known.
    fn quality(&self, task: &Task, artifact: &Artifact) -> Option<f64>;

    /// Bytes that differ when the tasks to learn on differ.
    fn identity(&self) -> Vec<u8>;
}

/// A simulated world: its tasks, and its agents by role.
pub trait Simulator: TaskSource {
    /// The agent that plays a role; `None` if there is no such role.
    fn agent(&self, role: &str) -> Option<Arc<dyn Agent>>;

    /// All roles, for error messages.
    fn roles(&self) -> &'static [&'static str];
}

/// Tasks from JSON-lines files.
pub struct FileTasks {
    train: Vec<Item>,
    test: Vec<Item>,
    judge: JudgeSpec,
    identity: Vec<u8>,
}

#[derive(Clone, Debug)]
struct Item {
    id: String,
    input: PathBuf,
    facts: Facts,
    expected: Option<Expectation>,
}

/// A line of a task file.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    id: String,
    /// Path of the payload, relative to the task file.
    input: PathBuf,
    #[serde(default)]
    facts: Facts,
    #[serde(default)]
    expect: Option<Expectation>,
    /// For people and their scripts; read by nobody here.
    #[serde(default)]
    #[allow(dead_code)] // accepted, and kept from agents, by not being used
    notes: serde_json::Value,
}

/// Largest payload read from a file, in bytes.
pub const PAYLOAD_BYTES_MAX: u64 = 256 << 20;

impl FileTasks {
    /// Read the task files of a team whose file lies in `directory`.
    pub fn load(spec: &TasksSpec, directory: &Path) -> Result<Self, TaskError> {
        let (train, mut identity) = read_items(&directory.join(&spec.train), spec)?;
        let (test, _) = read_items(&directory.join(&spec.test), spec)?;
        match &spec.judge {
            JudgeSpec::Rule(Rule::Sha256) => identity.push(0),
            JudgeSpec::Rule(Rule::Text) => identity.push(1),
            judge => identity.extend(serde_json::to_vec(judge).expect("texts and numbers")),
        }
        Ok(FileTasks { train, test, judge: spec.judge.clone(), identity })
    }

    fn task(&self, item: &Item) -> Result<Task, TaskError> {
        let payload = read_payload(&item.input)?;
        let artifact = Artifact { facts: item.facts.clone(), payload };
        Ok(Task { id: item.id.clone(), artifact, expected: item.expected.clone() })
    }
}

fn read_items(path: &Path, spec: &TasksSpec) -> Result<(Vec<Item>, Vec<u8>), TaskError> {
    let fail = |line: Option<usize>, what: String| {
        let line = line.map_or(String::new(), |l| format!(":{}", l + 1));
        TaskError(format!("{}{line}: {what}", path.display()))
    };
    let text = std::fs::read_to_string(path).map_err(|e| {
        let hint = if spec.missing.is_empty() { String::new() } else { format!("; {}", spec.missing) };
        fail(None, format!("the task file cannot be read: {e}{hint}"))
    })?;
    let directory = path.parent().unwrap_or(Path::new("."));
    let mut items = vec![];
    for (number, line) in text.lines().enumerate().filter(|(_, l)| !l.trim().is_empty()) {
        let line: Line = serde_json::from_str(line).map_err(|e| {
            // The line of the file is named already.
            fail(Some(number), e.to_string().replace(" at line 1 column", " at column"))
        })?;
        check_facts(&line.facts).map_err(|e| fail(Some(number), e.to_string()))?;
        if let JudgeSpec::Rule(rule) = &spec.judge {
            let expected = line
                .expect
                .as_ref()
                .ok_or_else(|| format!("expect is missing: the judge {:?} compares with it", rule.word()));
            expected.and_then(|expected| rule.check(expected)).map_err(|e| fail(Some(number), e))?;
        }
        items.push(Item {
            id: line.id,
            input: directory.join(line.input),
            facts: line.facts,
            expected: line.expect,
        });
    }
    if items.is_empty() {
        return Err(fail(None, "it holds no tasks".into()));
    }
    Ok((items, Sha256::digest(text.as_bytes()).to_vec()))
}

fn read_payload(path: &Path) -> Result<Arc<[u8]>, TaskError> {
    let fail = |what: String| TaskError(format!("{}: {what}", path.display()));
    let size = std::fs::metadata(path).map_err(|e| fail(format!("the input cannot be read: {e}")))?.len();
    if size > PAYLOAD_BYTES_MAX {
        return Err(fail(format!("the input has {size} bytes; at most {PAYLOAD_BYTES_MAX} are read")));
    }
    let bytes = std::fs::read(path).map_err(|e| fail(format!("the input cannot be read: {e}")))?;
    Ok(bytes.into())
}

impl TaskSource for FileTasks {
    fn training(&self, rng: &mut Rng) -> Result<Task, TaskError> {
        self.task(&self.train[rng.below(self.train.len() as u32) as usize])
    }

    fn training_count(&self) -> Option<u64> {
        Some(self.train.len() as u64)
    }

    fn training_at(&self, index: u64) -> Result<Task, TaskError> {
        let item = self.train.get(index as usize);
        self.task(item.ok_or_else(|| TaskError(format!("there is no training task {index}")))?)
    }

    fn evaluation(&self, index: u64) -> Result<Option<Task>, TaskError> {
        self.test.get(index as usize).map(|item| self.task(item)).transpose()
    }

    fn open(&self, input: &Path) -> Result<Task, TaskError> {
        let artifact = Artifact { facts: BTreeMap::new(), payload: read_payload(input)? };
        let id = input.file_name().map_or_else(String::new, |n| n.to_string_lossy().into_owned());
        // A file of the task lists has a known result; any other is routed all the same.
        let same = |item: &&Item| item.input.canonicalize().ok() == input.canonicalize().ok();
        let known = self.test.iter().chain(&self.train).find(same);
        Ok(Task { id, artifact, expected: known.and_then(|item| item.expected.clone()) })
    }

    fn quality(&self, task: &Task, artifact: &Artifact) -> Option<f64> {
        let expected = task.expected.as_ref()?;
        match &self.judge {
            JudgeSpec::Rule(rule) => rule.score(expected, &artifact.payload).ok().map(|score| score.quality),
            JudgeSpec::Command(_) | JudgeSpec::Relative(_) => None,
        }
    }

    fn identity(&self) -> Vec<u8> {
        self.identity.clone()
    }
}

/// The same tasks, learned on in epochs: in each, every one that can be counted comes once, in an order of its own.
pub struct Epochs(pub Arc<dyn TaskSource>);

impl TaskSource for Epochs {
    fn training(&self, rng: &mut Rng) -> Result<Task, TaskError> {
        self.0.training(rng)
    }

    fn training_count(&self) -> Option<u64> {
        self.0.training_count()
    }

    fn training_at(&self, index: u64) -> Result<Task, TaskError> {
        self.0.training_at(index)
    }

    fn lesson(&self, seed: u64, number: u64) -> Result<Task, TaskError> {
        let Some(count) = self.0.training_count() else { return self.0.lesson(seed, number) };
        let mut rng = Rng::stream(seed, "epochs").fork([number / count, 0, 0]);
        let mut order: Vec<u64> = (0..count).collect();
        // Fisher-Yates, as far as it is needed
        let place = (number % count) as usize;
        for i in 0..=place {
            order.swap(i, i + rng.below(count as u32 - i as u32) as usize);
        }
        self.0.training_at(order[place])
    }

    fn evaluation(&self, index: u64) -> Result<Option<Task>, TaskError> {
        self.0.evaluation(index)
    }

    fn open(&self, input: &Path) -> Result<Task, TaskError> {
        self.0.open(input)
    }

    fn quality(&self, task: &Task, artifact: &Artifact) -> Option<f64> {
        self.0.quality(task, artifact)
    }

    fn identity(&self) -> Vec<u8> {
        [&self.0.identity()[..], b"in epochs"].concat()
    }
}

/// No tasks: a node is brought its own by others, who also judge them.
pub(crate) struct NoTasks;

impl NoTasks {
    fn none<T>() -> Result<T, TaskError> {
        Err(TaskError("a node has no tasks of its own: others bring them".into()))
    }
}

impl TaskSource for NoTasks {
    fn training(&self, _: &mut Rng) -> Result<Task, TaskError> {
        Self::none()
    }

    fn evaluation(&self, _: u64) -> Result<Option<Task>, TaskError> {
        Self::none()
    }

    fn open(&self, _: &Path) -> Result<Task, TaskError> {
        Self::none()
    }

    fn quality(&self, _: &Task, _: &Artifact) -> Option<f64> {
        None
    }

    fn identity(&self) -> Vec<u8> {
        b"brought by others".to_vec()
    }
}

/// Facts from pairs, for simulators.
pub fn facts<const N: usize>(pairs: [(&str, Scalar); N]) -> Facts {
    pairs.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}
