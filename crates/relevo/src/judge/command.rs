//! A judge that is a program in any language, started once for every candidate under the promises of
//! [`crate::agent::process`].
//!
//! # The contract `relevo.judge/v1`
//!
//! The program runs in a fresh private directory with the answer as the file `in`. On stdin comes one line of JSON:
//!
//! ```json
//! {"schema":"relevo.judge/v1","task":"7","question":"","expect":{"tests":["a"]},"answer":{"path":"in","bytes":1234}}
//! ```
//!
//! `expect` is that of the task file, as it stands there, or null. With `by = "reply"` it prints one line of JSON on
//! stdout and exits with code 0:
//!
//! ```json
//! {"score":0.7,"confidence":0.9,"explanation":"one test of two fails","tokens":0,"money":0.0}
//! ```
//!
//! `score` is in [0, 1], or null where it cannot tell; all else may be left out, and `confidence` is then 1. With `by =
//! "exit-code"`, code 0 is the score 1 and code 1 the score 0, and stdout is not read. Anything else gives no score.

use std::{os::unix::process::ExitStatusExt, path::Path, time::Duration};

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use super::{Candidate, EXPLANATION_BYTES_MAX, Expectation, Judge, JudgeFailure, Score, Verdict, shorten};
use crate::agent::{
    Failure,
    process::{Exit, INPUT, ProcessAgent, tail},
    reply::only_line,
};

const SCHEMA: &str = "relevo.judge/v1";

/// A program that judges.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CommandSpec {
    /// The program and its arguments, with paths from the folder of the team file.
    pub command: Vec<String>,
    /// What says the score.
    #[serde(default)]
    pub by: ScoredBy,
    /// Longest call, in milliseconds.
    #[serde(default = "default_timeout_ms")]
    pub timeout_ms: u64,
    /// Names of environment variables that the program may see, besides PATH, HOME, LANG, TZ and TMPDIR.
    #[serde(default)]
    pub environment: Vec<String>,
}

fn default_timeout_ms() -> u64 {
    30_000
}

/// What says the score.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ScoredBy {
    /// The line on stdout.
    #[default]
    Reply,
    /// The exit code: 0 for 1, 1 for 0.
    ExitCode,
}

/// A program as a judge: every candidate for itself.
pub struct CommandJudge {
    program: ProcessAgent,
    by: ScoredBy,
}

#[derive(Serialize)]
struct Request<'a> {
    schema: &'static str,
    task: &'a str,
    question: &'a str,
    expect: Option<&'a Expectation>,
    answer: Answer,
}

#[derive(Serialize)]
struct Answer {
    path: &'static str,
    bytes: usize,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Reply {
    score: Option<f64>,
    confidence: Option<f64>,
    #[serde(default)]
    explanation: String,
    #[serde(default)]
    tokens: u64,
    #[serde(default)]
    money: f64,
}

impl CommandJudge {
    /// The judge of a team whose file lies in `directory`.
    pub fn new(spec: &CommandSpec, directory: &Path) -> Self {
        let mut program = ProcessAgent::new(spec.command.clone(), directory);
        program.timeout = Duration::from_millis(spec.timeout_ms);
        program.environment.extend(spec.environment.iter().cloned());
        CommandJudge { program, by: spec.by }
    }

    async fn ask(
        &self,
        candidate: &Candidate,
        verdict: &mut Verdict,
        stderr: &mut Vec<u8>,
    ) -> Result<Option<Score>, Failure> {
        let request = Request {
            schema: SCHEMA,
            task: &candidate.task,
            question: &candidate.question,
            expect: candidate.expected.as_ref(),
            answer: Answer { path: INPUT, bytes: candidate.answer.len() },
        };
        let mut line = serde_json::to_vec(&request).map_err(|e| Failure::NotStarted(e.to_string()))?;
        line.push(b'\n');
        verdict.calls += 1;
        let exit = self.program.run(&line, candidate.answer.as_slice().into(), stderr).await?;
        let Exit { status, stdout, .. } = exit;
        let last_words = || tail(stderr).trim().to_owned();
        match (self.by, status.code()) {
            (ScoredBy::Reply, Some(0)) => {}
            (ScoredBy::ExitCode, Some(0)) => return Ok(Some(Score::certain(1.0, last_words()))),
            (ScoredBy::ExitCode, Some(1)) => return Ok(Some(Score::certain(0.0, last_words()))),
            (_, code) => return Err(Failure::Crashed { code, signal: status.signal() }),
        }
        let garbage = |reason: String| Failure::Garbage(shorten(reason, EXPLANATION_BYTES_MAX));
        let line = only_line(&stdout).map_err(garbage)?;
        let reply: Reply = serde_json::from_str(line)
            .map_err(|e| garbage(format!("the line on stdout is no reply of {SCHEMA}: {e}")))?;
        let (confidence, money) = (reply.confidence.unwrap_or(1.0), reply.money);
        if !(money.is_finite() && money >= 0.0) {
            return Err(garbage(format!("`money` of the reply is {money}; it is a cost, 0 or more")));
        }
        verdict.tokens = verdict.tokens.saturating_add(reply.tokens);
        verdict.money += money;
        for (name, x) in [("score", reply.score.unwrap_or(0.0)), ("confidence", confidence)] {
            if !(0.0..=1.0).contains(&x) {
                return Err(garbage(format!("`{name}` of the reply is {x}; it must lie in [0, 1]")));
            }
        }
        let score = |quality| Score { confidence, ..Score::certain(quality, reply.explanation) };
        Ok(reply.score.map(score))
    }
}

#[async_trait]
impl Judge for CommandJudge {
    async fn judge(&self, group: &[Candidate], _label: &str) -> Verdict {
        let mut verdict = Verdict::none(group.len());
        for (i, candidate) in group.iter().enumerate() {
            let mut stderr = vec![];
            match self.ask(candidate, &mut verdict, &mut stderr).await {
                Ok(score) => verdict.scores[i] = score,
                Err(failure) => verdict.failures.push(JudgeFailure {
                    judge: self.program.command.first().cloned().unwrap_or_default(),
                    candidate: Some(i),
                    failure,
                    last_words: tail(&stderr).trim().to_owned(),
                }),
            }
        }
        verdict
    }
}
