//! Several judges, one verdict: the mean of their scores, and how far they are apart.

use std::{collections::BTreeMap, sync::Arc};

use async_trait::async_trait;
use futures_util::future::join_all;
use relevo_core::Rng;

use super::{Candidate, Check, Judge, Score, Verdict, agreement, mean};

/// Judges that are so far apart (a population standard deviation) say nothing: their confidence is 0.
const APART: f64 = 0.2;

/// Several judges of the same candidates.
pub struct Panel {
    /// Those whose mean counts.
    pub members: Vec<Arc<dyn Judge>>,
    /// One whose scores do not count, asked now and then to see whether it would have said the same.
    pub auditor: Option<Auditor>,
}

/// A judge of judges.
pub struct Auditor {
    /// Its name in checks.
    pub name: String,
    /// The judge.
    pub judge: Arc<dyn Judge>,
    /// The share of groups that it is asked about.
    pub rate: f64,
}

#[async_trait]
impl Judge for Panel {
    async fn judge(&self, group: &[Candidate], label: &str) -> Verdict {
        let is_audited = |auditor: &&Auditor| {
            Rng::stream(0, &format!("audit/{}/{label}", auditor.name)).unit() < auditor.rate
        };
        let auditor = self.auditor.as_ref().filter(is_audited);
        let judges = self.members.iter().chain(auditor.map(|auditor| &auditor.judge));
        let mut verdicts = join_all(judges.map(|judge| judge.judge(group, label))).await;
        let audit = auditor.and_then(|auditor| Some((auditor, verdicts.pop()?)));

        let of_candidate = |i: usize| verdicts.iter().filter_map(move |v| v.scores.get(i)?.as_ref());
        let scores = (0..group.len()).map(|i| together(&of_candidate(i).collect::<Vec<_>>())).collect();
        let mut verdict = Verdict { scores, ..Verdict::default() };
        verdicts.iter().for_each(|theirs| verdict.count(theirs));
        if let Some((auditor, theirs)) = audit {
            verdict.count(&theirs);
            let (ours, theirs) = (qualities(&verdict.scores), qualities(&theirs.scores));
            let distances = ours.iter().zip(&theirs).filter_map(|(a, b)| Some(((*a)? - (*b)?).abs()));
            if let Some(distance) = mean(distances) {
                let agreement = agreement(&ours, &theirs);
                verdict.checks.push(Check::Audit { judge: auditor.name.clone(), agreement, distance });
            }
        }
        verdict
    }
}

/// The qualities among scores.
pub(super) fn qualities(scores: &[Option<Score>]) -> Vec<Option<f64>> {
    scores.iter().map(|score| score.as_ref().map(|score| score.quality)).collect()
}

/// One score from those of several judges.
fn together(scores: &[&Score]) -> Option<Score> {
    if let [only] = scores {
        return Some((*only).clone());
    }
    let quality = mean(scores.iter().map(|score| score.quality))?;
    let variance = mean(scores.iter().map(|score| (score.quality - quality).powi(2)))?;
    let disagreement = variance.sqrt();
    // c = clip01(1 - sigma / .2), times what the judges themselves are sure of
    let own = mean(scores.iter().map(|score| score.confidence))?;
    let confidence = own * (1.0 - disagreement / APART).clamp(0.0, 1.0);
    let mut axes: BTreeMap<String, Vec<f64>> = BTreeMap::new();
    for (name, x) in scores.iter().flat_map(|score| &score.axes) {
        axes.entry(name.clone()).or_default().push(*x);
    }
    let axes = axes.into_iter().filter_map(|(name, xs)| Some((name, mean(xs)?))).collect();
    let said: Vec<&str> = scores.iter().map(|s| s.explanation.as_str()).filter(|s| !s.is_empty()).collect();
    Some(Score {
        confidence,
        axes,
        disagreement,
        ..Score::certain(quality.clamp(0.0, 1.0), said.join(" | "))
    })
}
