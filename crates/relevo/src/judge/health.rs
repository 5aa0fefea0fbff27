//! How far judges can be trusted, and what they cost: a fold of verdicts.

use std::ops::AddAssign;

use serde::{Deserialize, Serialize};

use super::{Check, Verdict};

/// What is known of the judges of a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct JudgeHealth {
    /// Verdicts.
    pub groups: u64,
    /// Candidates that got a score.
    pub scored: u64,
    /// Candidates that got none.
    pub unscored: u64,
    /// Calls of models and programs.
    pub calls: u64,
    /// Tokens that they used.
    pub tokens: u64,
    /// What they were charged, in the team's currency.
    pub money: f64,
    /// Judges that had no score for a whole group.
    pub failures: u64,
    /// Single candidates that a judge had no proper score for.
    pub flaws: u64,
    /// Canaries that were scored.
    pub canaries: u64,
    /// Canaries that fooled the judge.
    pub fooled: u64,
    /// Agreement of a judge with itself in the opposite order.
    pub swaps: Mean,
    /// Agreement with the auditor.
    pub audits: Mean,
    /// Distance of the qualities from the auditor's.
    pub audit_distance: Mean,
    /// Disagreement of several judges about one candidate.
    pub disagreement: Mean,
}

/// A running mean.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Mean {
    /// How many values.
    pub n: u64,
    /// Their sum.
    pub sum: f64,
}

impl Mean {
    /// The mean; `None` of nothing.
    pub fn value(&self) -> Option<f64> {
        (self.n > 0).then(|| self.sum / self.n as f64)
    }

    fn add(&mut self, x: f64) {
        self.n += 1;
        self.sum += x;
    }
}

impl AddAssign for JudgeHealth {
    fn add_assign(&mut self, more: Self) {
        self.groups += more.groups;
        self.scored += more.scored;
        self.unscored += more.unscored;
        self.calls += more.calls;
        self.tokens = self.tokens.saturating_add(more.tokens);
        self.money += more.money;
        self.failures += more.failures;
        self.flaws += more.flaws;
        self.canaries += more.canaries;
        self.fooled += more.fooled;
        let means = [&mut self.swaps, &mut self.audits, &mut self.audit_distance, &mut self.disagreement];
        let others = [more.swaps, more.audits, more.audit_distance, more.disagreement];
        for (mean, other) in means.into_iter().zip(others) {
            mean.n += other.n;
            mean.sum += other.sum;
        }
    }
}

impl JudgeHealth {
    /// It in a line.
    pub fn told(&self) -> String {
        let Self { groups, calls, tokens, money, unscored, canaries, fooled, .. } = self;
        let mut told = format!("judges: {groups} groups, {calls} calls, {tokens} tokens, money {money}");
        if *unscored > 0 {
            told += &format!("; {unscored} tasks without a score");
        }
        if *canaries > 0 {
            told += &format!("; fooled by {fooled} of {canaries} canaries");
        }
        for (what, mean) in [("when swapped", self.swaps), ("with the auditor", self.audits)] {
            if let Some(mean) = mean.value() {
                told += &format!("; agreement {what} {mean:.2}");
            }
        }
        told
    }

    /// Take one more verdict into account.
    pub fn observe(&mut self, verdict: &Verdict) {
        let Verdict { scores, calls, tokens, money, failures, checks } = verdict;
        self.groups += 1;
        for score in scores {
            match score {
                Some(score) => {
                    self.scored += 1;
                    self.disagreement.add(score.disagreement);
                }
                None => self.unscored += 1,
            }
        }
        self.calls += calls;
        self.tokens = self.tokens.saturating_add(*tokens);
        self.money += money;
        let flaws = failures.iter().filter(|failure| failure.candidate.is_some()).count() as u64;
        self.flaws += flaws;
        self.failures += failures.len() as u64 - flaws;
        checks.iter().for_each(|check| self.check(check));
    }

    /// Take into account how a judge did where it was tried.
    pub fn check(&mut self, check: &Check) {
        match check {
            Check::Canary { fooled, .. } => {
                self.canaries += 1;
                self.fooled += u64::from(*fooled);
            }
            Check::Swap { agreement, .. } => self.swaps.add(*agreement),
            Check::Audit { agreement, distance, .. } => {
                agreement.iter().for_each(|agreement| self.audits.add(*agreement));
                self.audit_distance.add(*distance);
            }
        }
    }
}
