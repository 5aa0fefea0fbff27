//! Multiple-choice problems that are generated for the model in the box: what a team of models can solve with no key and no
//! network. What that model was trained on is not among them, and what is learned on is not among what is measured on.

use std::{fs, path::Path, sync::LazyLock};

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

/// Generated problems, the levels in turn.
pub struct Problems {
    levels: Vec<Level>,
}

impl Problems {
    /// The problems that a team file asks for.
    pub fn new(section: &ProblemsSection) -> Result<Self, TaskError> {
        let levels = section.levels.iter().map(|level| level.parse().map_err(TaskError));
        Ok(Problems { levels: levels.collect::<Result<_, _>>()? })
    }

    /// The `index`-th problem of a level in one of the halves, under a seed.
    fn problem(half: Half, level: Level, seed: u64, index: u64) -> Problem {
        let parity = |problem: &Problem| u32::from_str_radix(&problem.hash()[2..4], 16).unwrap_or(0) % 2;
        // A draw lies in the other half every second time.
        let draws = (0..).map(|draw| Problem::generate(Split::Evaluation, level, seed, index << 16 | draw));
        let found = draws.take(1 << 16).find(|problem| parity(problem) == u32::from(half == Half::Measuring));
        found.expect("of 65,536 problems half are in each")
    }

    fn task(problem: &Problem, id: String) -> Task {
        let facts: Facts = [(DATASET.to_owned(), Scalar::Text(problem.level.name().to_owned()))].into();
        let key = Value::String(problem.key.to_string());
        Task {
            id,
            artifact: Artifact { facts, payload: problem.to_string().into_bytes().into() },
            expected: Some(Expectation(Map::from_iter([("text".to_owned(), key)]))),
        }
    }
}

impl TaskSource for Problems {
    fn training(&self, rng: &mut Rng) -> Result<Task, TaskError> {
        let level = self.levels[rng.below(self.levels.len() as u32) as usize];
        let (seed, index) = (u64::from(rng.below(u32::MAX)), u64::from(rng.below(u32::MAX)));
        let problem = Self::problem(Half::Learning, level, seed, index);
        Ok(Self::task(&problem, format!("{level}-{seed}-{index}")))
    }

    fn evaluation(&self, index: u64) -> Result<Option<Task>, TaskError> {
        let levels = self.levels.len() as u64;
        let (level, number) = (self.levels[(index % levels) as usize], index / levels);
        let problem = Self::problem(Half::Measuring, level, 0, number);
        Ok(Some(Self::task(&problem, format!("{level}-{number}"))))
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
        let names: Vec<&str> = self.levels.iter().map(|level| level.name()).collect();
        format!("problems@1 {}", names.join(" ")).into_bytes()
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
