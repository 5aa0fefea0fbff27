//! What judges who compare make of the runs of an evaluation: all arms of a seed together, task by task. What runs have
//! made of their tasks stands in their folders until then.

use std::{collections::BTreeMap, fs, io::Write};

use futures_util::{StreamExt, stream};
use relevo::{
    arms::{ArmId, Run},
    judge::{Candidate, Verdict, audit, health::JudgeHealth},
    stage::Stage,
};
use serde::{Deserialize, Serialize};

use super::{super::Fault, comparison::Comparison};
use crate::world::{self, ATTEMPTS_FILE};

/// What judges said of what some arms have made of a task.
#[derive(Serialize, Deserialize)]
struct Judged {
    task: usize,
    arms: Vec<ArmId>,
    verdict: Verdict,
}

impl Comparison<'_> {
    /// Let judges compare the runs of a seed, as far as that is not on record. Returns how they did.
    pub(super) async fn judge(
        &self,
        stage: &Stage,
        seed: u64,
        runs: &mut [Run],
    ) -> Result<JudgeHealth, Fault> {
        let mut health = JudgeHealth::default();
        let arms_of = |task: usize| -> Vec<ArmId> {
            let open = runs.iter().filter(|run| run.tests[task].worth.is_some());
            open.map(|run| run.arm).collect()
        };
        let groups = (0..self.tests.len()).map(|task| (task, arms_of(task)));
        let groups: Vec<_> = groups.filter(|(_, arms)| !arms.is_empty()).collect();
        let Some((judge, _)) = stage.judge().filter(|_| !groups.is_empty()) else { return Ok(health) };

        let path = self.out.join(format!("judged-{seed}.jsonl"));
        let text = fs::read_to_string(&path).unwrap_or_default();
        // The last line may have been cut off.
        let lines = text.lines().filter_map(|line| serde_json::from_str::<Judged>(line).ok());
        let mut known: BTreeMap<_, _> = lines.map(|line| ((line.task, line.arms), line.verdict)).collect();
        let is_known = groups.iter().all(|group| known.contains_key(group));
        let attempts = if is_known { BTreeMap::new() } else { self.attempts(seed, runs)? };

        self.show("judges", &format!("seed {seed}"), groups.len() as u64);
        let fail = |e| format!("{}: it cannot be written: {e}", path.display());
        let mut file = fs::File::options().create(true).append(true).open(&path).map_err(fail)?;
        if !text.is_empty() && !text.ends_with('\n') {
            file.write_all(b"\n").map_err(fail)?;
        }
        let asked: Vec<_> = groups
            .into_iter()
            .map(|(task, arms)| {
                let known = known.remove(&(task, arms.clone()));
                let shown =
                    arms.iter().filter_map(|arm| attempts.get(&(*arm, self.tests[task].id.clone())).cloned());
                let candidates: Vec<Candidate> = shown.collect();
                async move {
                    let is_new = known.is_none();
                    let verdict = match known {
                        Some(verdict) => verdict,
                        None => stage.compare(judge, &candidates, &format!("measuring/{seed}/{task}")).await,
                    };
                    (Judged { task, arms, verdict }, is_new)
                }
            })
            .collect();
        let mut answers = stream::iter(asked).buffered(self.jobs.get());
        while let Some((mut judged, is_new)) = answers.next().await {
            self.bar.inc(1);
            if is_new {
                forget_words(&mut judged.verdict);
                file.write_all((serde_json::to_string(&judged)? + "\n").as_bytes()).map_err(fail)?;
            }
            health.observe(&judged.verdict);
            for (arm, score) in judged.arms.iter().zip(&judged.verdict.scores) {
                let run = runs.iter_mut().find(|run| run.arm == *arm).expect("one of them");
                run.tests[judged.task].judged(score.as_ref().map(|score| score.quality));
            }
        }
        Ok(health)
    }

    /// What the arms have made of the tasks, by arm and task.
    fn attempts(&self, seed: u64, runs: &[Run]) -> Result<BTreeMap<(ArmId, String), Candidate>, Fault> {
        let mut attempts = BTreeMap::new();
        for run in runs {
            let path = self.folder(run.arm, seed).join(ATTEMPTS_FILE);
            let finished = audit::read(&path).map_err(|e| {
                format!(
                    "{e}; what was judged before is not kept, so that nothing can be compared with it: choose another folder \
                     with --out"
                )
            })?;
            attempts.extend(finished.into_iter().map(|f| ((run.arm, f.candidate.task.clone()), f.candidate)));
        }
        Ok(attempts)
    }

    /// What runs have made of their tasks is judged: it becomes content where the team keeps that, and nothing else stays.
    pub(super) async fn publish(&self, stage: &Stage, runs: &[Run]) -> Result<(), Fault> {
        for run in runs {
            let folder = self.folder(run.arm, run.seed);
            let path = folder.join(ATTEMPTS_FILE);
            if !path.exists() {
                continue;
            }
            if !self.team.trace.content {
                let _ = fs::remove_file(&path);
                continue;
            }
            let mut finished = audit::read(&path)?;
            for entry in &mut finished {
                let of_task = run.tests.iter().find(|test| test.task == entry.candidate.task);
                entry.quality = of_task.and_then(|test| test.quality);
            }
            world::keep_finished(stage, &folder, &finished).await?;
        }
        Ok(())
    }
}

/// Leave out of a verdict what judges said in words, which may quote what they judged.
fn forget_words(verdict: &mut Verdict) {
    verdict.scores.iter_mut().flatten().for_each(|score| score.explanation.clear());
    verdict.failures.iter_mut().for_each(|failure| failure.last_words.clear());
}
