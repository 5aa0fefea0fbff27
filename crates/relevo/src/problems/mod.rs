//! Multiple-choice problems: generated ones, which a team of models can solve with no key and no network, and those of
//! public datasets. What the model in the box was trained on is not among the generated ones, and what is learned on is not
//! among what is measured on.

mod files;

use std::{fs, path::Path, sync::LazyLock};

use files::Given;
use regex::bytes::Regex;
use relevo_core::Rng;
use relevo_lm::{Level, Problem, Split};
use serde_json::{Map, Value};

use crate::{
    artifact::{Artifact, Facts, Scalar},
    judge::Expectation,
    tasks::{Task, TaskError, TaskSource},
    team::ProblemsSection,
};

/// The fact of a task that says which kind of problem it is.
pub const DATASET: &str = "dataset";

/// Which of the problems that the model was not trained on.
#[derive(Clone, Copy, PartialEq)]
enum Half {
    /// To learn on.
    Learning,
    /// To measure on.
    Measuring,
}

/// In which half a problem is, by a hash of its text.
fn half(hash: &blake3::Hash) -> Half {
    if hash.as_bytes()[1].is_multiple_of(2) { Half::Learning } else { Half::Measuring }
}

/// Problems of one kind.
enum Dataset {
    Generated(Level),
    File { name: String, digest: blake3::Hash, learning: Vec<Given>, measuring: Vec<Given> },
}

impl Dataset {
    fn file(name: &str, path: &Path) -> Result<Self, TaskError> {
        let (learning, measuring): (Vec<Given>, Vec<Given>) = files::read(path)?
            .into_iter()
            .partition(|given| half(&blake3::hash(given.text.as_bytes())) == Half::Learning);
        if learning.is_empty() || measuring.is_empty() {
            let what = "it has too few problems to learn on one half and measure on the other";
            return Err(TaskError(format!("{}: {what}", path.display())));
        }
        let mut hasher = blake3::Hasher::new();
        for given in &learning {
            hasher.update(given.text.as_bytes()).update(&[given.key as u8]);
        }
        Ok(Dataset::File { name: name.to_owned(), digest: hasher.finalize(), learning, measuring })
    }

    fn name(&self) -> &str {
        match self {
            Dataset::Generated(level) => level.name(),
            Dataset::File { name, .. } => name,
        }
    }

    /// The `index`-th problem of a level in one of the halves, under a seed.
    fn generated(wanted: Half, level: Level, seed: u64, index: u64) -> Given {
        // A draw lies in the other half every second time.
        let draws =
            (0..1 << 16).map(|draw| Problem::generate(Split::Evaluation, level, seed, index << 16 | draw));
        let mut given = draws.map(|problem| Given { text: problem.to_string(), key: problem.key });
        let found = given.find(|given| half(&blake3::hash(given.text.as_bytes())) == wanted);
        found.expect("of 65,536 problems half are in each")
    }

    /// The problems to learn on, where they can be counted.
    fn learning(&self) -> Option<&[Given]> {
        match self {
            Dataset::Generated(_) => None,
            Dataset::File { learning, .. } => Some(learning),
        }
    }

    /// How many problems there are to measure on.
    fn measured(&self) -> u64 {
        match self {
            Dataset::Generated(_) => u64::MAX,
            Dataset::File { measuring, .. } => measuring.len() as u64,
        }
    }

    /// One of them.
    fn measuring(&self, number: u64) -> Task {
        let given = match self {
            Dataset::Generated(level) => Dataset::generated(Half::Measuring, *level, 0, number),
            Dataset::File { measuring, .. } => measuring[number as usize].clone(),
        };
        self.task(given, &number.to_string())
    }

    fn task(&self, given: Given, number: &str) -> Task {
        let facts: Facts = [(DATASET.to_owned(), Scalar::Text(self.name().to_owned()))].into();
        let key = Value::String(given.key.to_string());
        Task {
            id: format!("{}-{number}", self.name()),
            artifact: Artifact { facts, payload: given.text.into_bytes().into() },
            expected: Some(Expectation(Map::from_iter([("text".to_owned(), key)]))),
        }
    }
}

/// Problems of several datasets in turn.
pub struct Problems {
    datasets: Vec<Dataset>,
}

impl Problems {
    /// The problems that a team file in `directory` asks for.
    pub fn new(section: &ProblemsSection, directory: &Path) -> Result<Self, TaskError> {
        let all = section.levels.is_empty() && section.files.is_empty();
        let named = section.levels.iter().map(|level| level.parse().map_err(TaskError));
        let levels = if all { Level::ALL.to_vec() } else { named.collect::<Result<_, _>>()? };
        let generated = levels.into_iter().map(|level| Ok(Dataset::Generated(level)));
        let files = section.files.iter().map(|(name, path)| Dataset::file(name, &directory.join(path)));
        Ok(Problems { datasets: generated.chain(files).collect::<Result<_, _>>()? })
    }
}

impl TaskSource for Problems {
    fn training(&self, rng: &mut Rng) -> Result<Task, TaskError> {
        let dataset = &self.datasets[rng.below(self.datasets.len() as u32) as usize];
        Ok(match dataset {
            Dataset::Generated(level) => {
                let (seed, index) = (u64::from(rng.below(u32::MAX)), u64::from(rng.below(u32::MAX)));
                let given = Dataset::generated(Half::Learning, *level, seed, index);
                dataset.task(given, &format!("{seed}-{index}"))
            }
            Dataset::File { learning, .. } => {
                let index = rng.below(learning.len() as u32) as usize;
                dataset.task(learning[index].clone(), &index.to_string())
            }
        })
    }

    fn training_count(&self) -> Option<u64> {
        self.datasets.iter().map(|dataset| Some(dataset.learning()?.len() as u64)).sum()
    }

    fn training_at(&self, index: u64) -> Result<Task, TaskError> {
        let mut left = index as usize;
        for dataset in &self.datasets {
            let learning = dataset.learning().unwrap_or(&[]);
            match learning.get(left) {
                Some(given) => return Ok(dataset.task(given.clone(), &left.to_string())),
                None => left -= learning.len(),
            }
        }
        Err(TaskError(format!("there is no problem {index} to learn on")))
    }

    fn evaluation(&self, index: u64) -> Result<Option<Task>, TaskError> {
        // As long as every dataset has problems, they come in turn; then those do that still have some.
        let count = self.datasets.len() as u64;
        let shortest = self.datasets.iter().map(Dataset::measured).min().unwrap_or(0);
        let mut number = (index / count).min(shortest);
        let mut left = index - number * count;
        loop {
            let mut there = self.datasets.iter().filter(|dataset| dataset.measured() > number);
            match (there.clone().count() as u64, there.nth(left as usize)) {
                (0, _) => return Ok(None),
                (_, Some(dataset)) => return Ok(Some(dataset.measuring(number))),
                (passed, None) => (number, left) = (number + 1, left - passed),
            }
        }
    }

    fn open(&self, input: &Path) -> Result<Task, TaskError> {
        let text = fs::read(input).map_err(|e| TaskError(format!("{}: {e}", input.display())))?;
        let id = input.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned());
        Ok(Task { id, artifact: Artifact { facts: Facts::new(), payload: text.into() }, expected: None })
    }

    fn quality(&self, task: &Task, artifact: &Artifact) -> Option<f64> {
        let key = task.expected.as_ref()?.0.get("text")?.as_str()?.chars().next()?;
        Some(f64::from(u8::from(last_answer(&artifact.payload) == Some(key))))
    }

    fn identity(&self) -> Vec<u8> {
        let one = |dataset: &Dataset| match dataset {
            Dataset::Generated(level) => level.name().to_owned(),
            Dataset::File { name, digest, .. } => format!("{name}={digest}"),
        };
        format!("problems@1 {}", self.datasets.iter().map(one).collect::<Vec<_>>().join(" ")).into_bytes()
    }
}

/// The letter of the last answer in a text: `Answer: C`, `**Answer:** (C)`, `The answer is C.`
///
/// ```
/// use relevo::problems::last_answer;
///
/// assert_eq!(last_answer(b"Answer: A\n\n[editor]\n**Answer:** (C)"), Some('C'));
/// assert_eq!(last_answer(b"I cannot answer."), None);
/// assert_eq!(last_answer(b"Answer: A\n\n[checker]\nThe answer A is wrong."), Some('A'));
/// ```
pub fn last_answer(text: &[u8]) -> Option<char> {
    static ANSWER: LazyLock<Regex> =
        LazyLock::new(|| Regex::new(r"(?i)\banswer\W*(?::|is)\W*(?-i:([A-E]))\b").expect("it is a pattern"));
    let letter = ANSWER.captures_iter(text).last()?.get(1)?.as_bytes();
    letter.first().map(|byte| char::from(*byte))
}
