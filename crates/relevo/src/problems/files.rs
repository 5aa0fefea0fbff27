//! Multiple-choice problems of public datasets, in the forms in which those are published: MathQA as JSON (`Problem`,
//! `options`, `correct`), MMLU as CSV without a head (question, four options, letter) or as JSON (`question`, `choices`,
//! `answer`).

use std::{fs, path::Path};

use serde::Deserialize;

use crate::tasks::TaskError;

/// The largest file, in bytes, and the longest question and option.
const BYTES_MAX: u64 = 64 << 20;
const TEXT_MAX: usize = 16 << 10;

/// The letters of options.
const LETTERS: &[u8] = b"ABCDE";

/// A problem as agents see it, and the letter of the right option.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Given {
    pub(super) text: String,
    pub(super) key: char,
}

#[derive(Deserialize)]
#[serde(untagged, expecting = "problems have Problem, options and correct, or question, choices and answer")]
enum Entry {
    MathQa {
        #[serde(rename = "Problem")]
        problem: String,
        options: String,
        correct: String,
    },
    Mmlu {
        question: String,
        choices: Vec<String>,
        answer: usize,
    },
}

/// Read a file of problems.
pub(super) fn read(path: &Path) -> Result<Vec<Given>, TaskError> {
    let fail = |what: String| TaskError(format!("{}: {what}", path.display()));
    let size = fs::metadata(path).map_err(|e| fail(format!("the problems cannot be read: {e}")))?.len();
    if size > BYTES_MAX {
        return Err(fail(format!("it has {size} bytes; at most {BYTES_MAX} are read")));
    }
    let bytes = fs::read(path).map_err(|e| fail(format!("the problems cannot be read: {e}")))?;
    let problems = match path.extension().and_then(|end| end.to_str()) {
        Some("json") => of_json(&bytes),
        Some("csv") => of_csv(&bytes),
        _ => Err("its name ends neither in .json (MathQA, MMLU) nor in .csv (MMLU)".to_owned()),
    };
    let problems = problems.map_err(fail)?;
    if problems.is_empty() { Err(fail("it holds no problems".into())) } else { Ok(problems) }
}

fn of_json(bytes: &[u8]) -> Result<Vec<Given>, String> {
    let entries: Vec<serde_json::Value> =
        serde_json::from_slice(bytes).map_err(|e| format!("it is no list of problems in JSON: {e}"))?;
    let one = |(number, entry): (usize, serde_json::Value)| {
        let given = serde_json::from_value(entry).map_err(|e| e.to_string()).and_then(|entry| match entry {
            Entry::MathQa { problem, options, correct } => {
                given(&problem, &apart(&options), place(&correct).ok_or("correct is no letter from a to e")?)
            }
            Entry::Mmlu { question, choices, answer } => {
                given(&question, &choices.iter().map(String::as_str).collect::<Vec<_>>(), answer)
            }
        });
        given.map_err(|what| format!("problem {}: {what}", number + 1))
    };
    entries.into_iter().enumerate().map(one).collect()
}

fn of_csv(bytes: &[u8]) -> Result<Vec<Given>, String> {
    let mut reader = csv::ReaderBuilder::new().has_headers(false).flexible(true).from_reader(bytes);
    let one = |record: Result<csv::StringRecord, csv::Error>| {
        let record = record.map_err(|e| e.to_string())?;
        let line = record.position().map_or(0, csv::Position::line);
        let fields: Vec<&str> = record.iter().collect();
        let read = match fields[..] {
            [question, ref options @ .., answer] if !options.is_empty() => place(answer)
                .ok_or_else(|| "its last field is no letter from A to E".to_owned())
                .and_then(|key| given(question, options, key)),
            _ => Err("it has no question, options and letter".to_owned()),
        };
        read.map_err(|what| format!("line {line}: {what}"))
    };
    reader.records().map(one).collect()
}

/// The place of an option by its letter.
fn place(letter: &str) -> Option<usize> {
    match letter.trim().to_ascii_uppercase().as_bytes() {
        [letter] => LETTERS.iter().position(|l| l == letter),
        _ => None,
    }
}

/// The options of `a ) 38 , b ) 27.5 , c ) none of these`. A comma may belong to an option: the letters tell them apart.
fn apart(options: &str) -> Vec<&str> {
    let mut starts = vec![];
    let mut from = 0;
    for letter in LETTERS {
        let letter = letter.to_ascii_lowercase() as char;
        let marks = [format!("{letter} )"), format!("{letter})")];
        let found = marks.iter().filter_map(|mark| {
            let at = options[from..].match_indices(mark.as_str()).map(|(at, _)| from + at);
            // The letter stands alone.
            let alone = |at: &usize| !options[..*at].ends_with(char::is_alphanumeric);
            at.into_iter().find(alone).map(|at| (at, at + mark.len()))
        });
        let Some((begin, end)) = found.min() else { break };
        starts.push((begin, end));
        from = end;
    }
    let ends = starts.iter().skip(1).map(|(begin, _)| *begin).chain([options.len()]);
    let trimmed = |((_, from), to): (&(usize, usize), usize)| {
        options[*from..to].trim_matches(|c: char| c.is_whitespace() || ",[]'\"".contains(c))
    };
    starts.iter().zip(ends).map(trimmed).collect()
}

/// In the form in which the problems of the model in the box are.
fn given(question: &str, options: &[&str], key: usize) -> Result<Given, String> {
    if !(2..=LETTERS.len()).contains(&options.len()) {
        return Err(format!("it has {} options; two to five can be told apart", options.len()));
    }
    if key >= options.len() {
        return Err(format!("the right one would be option {}, of {}", key + 1, options.len()));
    }
    let line = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    let question = line(question);
    let options: Vec<String> = options.iter().map(|option| line(option)).collect();
    if question.is_empty() || options.iter().chain([&question]).any(|text| text.len() > TEXT_MAX) {
        return Err(format!("the question is empty, or a text is longer than {TEXT_MAX} bytes"));
    }
    let named = options.iter().zip(LETTERS).map(|(option, letter)| format!("{}) {option}", *letter as char));
    let text = format!("{question}\n{}", named.collect::<Vec<_>>().join(" "));
    Ok(Given { text, key: LETTERS[key] as char })
}
