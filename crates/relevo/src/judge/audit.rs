//! Would other judges have drawn the same conclusions? Finished tasks are scored once more, and every pair of arms is
//! compared before and after, task by task, as relative scores of different groups are not on one scale.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{self, BufRead, BufReader},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use super::{Candidate, Judge, Verdict, agreement, mean, panel::qualities, relative::GROUP_MAX};
use crate::report::Estimate;

/// A finished task, with who did it and what it was given for it: a line of JSON.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Finished {
    /// What it is to be compared by: an arm, a workflow, a run. No judge sees it.
    pub arm: String,
    /// What judges see.
    pub candidate: Candidate,
    /// The quality that it was given, in [0, 1]; `None` where it was given none.
    #[serde(default)]
    pub quality: Option<f64>,
}

/// Finished tasks that cannot be read: where, and what.
#[derive(Debug, thiserror::Error)]
#[error("{}{}: {message}", path.display(), line.map_or(String::new(), |l| format!(":{l}")))]
pub struct FinishedError {
    path: PathBuf,
    line: Option<usize>,
    message: String,
}

/// The longest line, and the most lines, of a file of finished tasks.
const LINE_BYTES_MAX: u64 = 64 << 20;
const LINES_MAX: usize = 1_000_000;

/// Conclusions from fewer tasks than this are not drawn: the normal interval is too narrow for them.
pub const TASKS_MIN: usize = 10;

/// Finished tasks from a file of JSON lines.
pub fn read(path: &Path) -> Result<Vec<Finished>, FinishedError> {
    let fail = |line, message: String| FinishedError { path: path.to_owned(), line, message };
    let file = std::fs::File::open(path).map_err(|e| fail(None, e.to_string()))?;
    let (mut reader, mut finished) = (BufReader::new(file), vec![]);
    for number in 1.. {
        let mut line = vec![];
        let got = io::Read::take(&mut reader, LINE_BYTES_MAX).read_until(b'\n', &mut line);
        match got.map_err(|e| fail(Some(number), e.to_string()))? as u64 {
            0 => break,
            LINE_BYTES_MAX => {
                return Err(fail(Some(number), format!("a line has {LINE_BYTES_MAX} bytes at most")));
            }
            _ if line.trim_ascii().is_empty() => continue,
            _ if number > LINES_MAX => {
                return Err(fail(Some(number), format!("at most {LINES_MAX} lines are read")));
            }
            _ => {}
        }
        let entry: Finished = serde_json::from_slice(&line)
            .map_err(|e| fail(Some(number), e.to_string().replace(" at line 1 column", " at column")))?;
        if entry.quality.is_some_and(|q| !(0.0..=1.0).contains(&q)) {
            return Err(fail(Some(number), "quality must lie in [0, 1], or be null".to_owned()));
        }
        finished.push(entry);
    }
    Ok(finished)
}

/// Finished tasks as a file of JSON lines.
pub fn to_lines(finished: &[Finished]) -> String {
    let lines = finished.iter().map(|entry| serde_json::to_string(entry).expect("text and numbers") + "\n");
    lines.collect()
}

/// What other judges make of finished tasks.
#[derive(Clone, Debug, Serialize)]
pub struct Audit {
    /// Groups of attempts at one task.
    pub groups: usize,
    /// Finished tasks that have a score from both.
    pub scored: usize,
    /// The share of pairs within a group that both order alike: its mean over groups. 1/2 is chance.
    pub agreement: Option<Estimate>,
    /// Distance of the qualities.
    pub distance: Option<Estimate>,
    /// Every pair of arms that have a task in common.
    pub pairs: Vec<ArmPair>,
    /// What the audit took, what went wrong, and how the judges did where they were tried; without scores.
    pub verdict: Verdict,
}

/// Two arms, before and after.
#[derive(Clone, Debug, Serialize)]
pub struct ArmPair {
    /// Their names.
    pub arms: [String; 2],
    /// Quality of the first less that of the second on the same tasks, as it was given.
    pub before: Option<Estimate>,
    /// The same, as the other judges give it.
    pub after: Option<Estimate>,
}

/// What follows from a difference.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Conclusion {
    /// The first arm is better: the 95% interval lies above 0.
    First,
    /// The second arm is better.
    Second,
    /// Nothing: the interval holds 0, or there are fewer than [`TASKS_MIN`] tasks.
    Open,
}

impl Conclusion {
    /// What follows from this difference.
    pub fn of(difference: Option<Estimate>) -> Self {
        match difference {
            Some(Estimate { mean, half_width: Some(half), n }) if n >= TASKS_MIN && mean.abs() > half => {
                if mean > 0.0 {
                    Conclusion::First
                } else {
                    Conclusion::Second
                }
            }
            _ => Conclusion::Open,
        }
    }
}

impl ArmPair {
    /// What followed before, and what follows now, where these differ.
    pub fn change(&self) -> Option<(Conclusion, Conclusion)> {
        let (before, after) = (Conclusion::of(self.before), Conclusion::of(self.after));
        (before != after).then_some((before, after))
    }
}

/// Score finished tasks once more. Attempts at the same task are judged together, as many as can be compared at once.
pub async fn audit(finished: &[Finished], judge: &dyn Judge, label: &str) -> Audit {
    let mut of_task: BTreeMap<(&str, &str), Vec<&Finished>> = BTreeMap::new();
    for entry in finished {
        of_task.entry((&entry.candidate.task, &entry.candidate.question)).or_default().push(entry);
    }
    let mut total = Verdict::default();
    let (mut groups, mut agreements, mut distances) = (0, vec![], vec![]);
    let mut differences: BTreeMap<[&str; 2], [Vec<f64>; 2]> = BTreeMap::new();
    for ((task, _), attempts) in &of_task {
        let mut scores = vec![];
        for (i, group) in attempts.chunks(GROUP_MAX).enumerate() {
            let candidates: Vec<Candidate> = group.iter().map(|entry| entry.candidate.clone()).collect();
            let verdict = judge.judge(&candidates, &format!("{label}/{task}/{i}")).await;
            let before: Vec<Option<f64>> = group.iter().map(|entry| entry.quality).collect();
            let after = qualities(&verdict.scores);
            agreements.extend(agreement(&before, &after));
            distances.extend(before.iter().zip(&after).filter_map(|(a, b)| Some(((*a)? - (*b)?).abs())));
            groups += 1;
            total.count(&verdict);
            scores.extend(
                group.iter().zip(before.iter().zip(after)).map(|(e, (b, a))| (e.arm.as_str(), [*b, a])),
            );
        }
        let arms: BTreeSet<&str> = scores.iter().map(|(arm, _)| *arm).collect();
        let mean_of = |arm: &str, which: usize| {
            mean(scores.iter().filter(|(of, _)| *of == arm).filter_map(|(_, scores)| scores[which]))
        };
        for a in &arms {
            for b in arms.range(*a..).skip(1) {
                let of_pair = differences.entry([a, b]).or_default();
                for (which, differences) in of_pair.iter_mut().enumerate() {
                    differences.extend(mean_of(a, which).zip(mean_of(b, which)).map(|(a, b)| a - b));
                }
            }
        }
    }
    let pairs = differences.into_iter().map(|(arms, [before, after])| ArmPair {
        arms: arms.map(str::to_owned),
        before: Estimate::of(before),
        after: Estimate::of(after),
    });
    Audit {
        groups,
        scored: distances.len(),
        agreement: Estimate::of(agreements),
        distance: Estimate::of(distances),
        pairs: pairs.collect(),
        verdict: total,
    }
}
