//! Why a decision was made: what the participant knew then, and whether it would decide the same again. The ledger is
//! read twice: first to find the decision, then to follow the one participant that made it up to there.

use std::{collections::BTreeMap, fmt, path::Path};

use relevo_core::{
    Rng,
    ids::{ActionId, AgentId, EpisodeId},
    learner::Evidence,
    observation::{Observation, Signature},
    policy_file::hex,
    protocol::{Next, Participant},
    record::{Entry, Record, Table},
    replay::Replay,
};

use super::{
    cast::Cast,
    figures::Moments,
    fold::Fold,
    task::{Choice, Decision, Masked},
};
use crate::{
    episode::newcomer,
    ledger::{Entries, LedgerError},
    report::{Estimate, table},
    stage::Stage,
};

/// The name of a decision: `EPISODE.K`, K counting the decisions of the task from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DecisionId {
    /// The task.
    pub task: u64,
    /// Its place among the decisions of the task.
    pub place: u64,
}

impl DecisionId {
    /// The decision that a text names; `None` if it names none.
    pub fn parse(text: &str) -> Option<Self> {
        let number =
            |digits: &str| digits.bytes().all(|b| b.is_ascii_digit()).then(|| digits.parse().ok())?;
        let (task, place) = text.split_once('.')?;
        Some(DecisionId { task: number(task)?, place: number(place)? })
    }
}

impl fmt::Display for DecisionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.task, self.place)
    }
}

/// Why a decision cannot be explained.
#[derive(Debug, thiserror::Error)]
pub enum ExplainError {
    /// The ledger cannot be read.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// There is no such task.
    #[error("there is no task {task} in this run: {begun} have begun, numbered from 0")]
    NoTask {
        /// What was asked for.
        task: u64,
        /// How many there are.
        begun: u64,
    },
    /// The task made fewer decisions.
    #[error("task {task} made {decisions} decisions, numbered from 0: see relevo report --task {task}")]
    NoDecision {
        /// The task.
        task: u64,
        /// How many it made.
        decisions: u64,
    },
}

/// A decision, and what it rested on.
#[derive(Clone, Debug, PartialEq)]
pub struct Explanation {
    /// The team.
    pub team: String,
    /// The decision.
    pub decision: Decision,
    /// The admissible choices, in ascending order of their columns.
    pub candidates: Vec<Candidate>,
    /// BLAKE3 chain head, hexadecimal, over the ledger up to the decision and with it.
    pub ledger: String,
    /// Whether the participant would decide the same again.
    pub replayed: Replayed,
}

/// What was known of an admissible choice.
#[derive(Clone, Debug, PartialEq)]
pub struct Candidate {
    /// Its name.
    pub choice: String,
    /// Its probability.
    pub probability: f64,
    /// Settlements before the decision.
    pub visits: u64,
    /// Failed attempts before the decision.
    pub failures: u64,
    /// Mean of the targets, with its 95% interval.
    pub mean: Option<Estimate>,
    /// The value that it was compared by; known where the decision was replayed.
    pub value: Option<f64>,
    /// Visits that a prior stood for, and choices not yet settled where they count; known where the decision was replayed.
    pub pseudo: Option<f64>,
}

/// What came of deciding again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Replayed {
    /// The same, to the bit.
    Same,
    /// Something else, for this reason.
    Differs(String),
    /// It was not tried, for this reason.
    Not(String),
}

/// Where a decision stands in a ledger.
struct Found {
    decision: Decision,
    entry: u64,
    agent: AgentId,
    table: Table,
    signature: Signature,
    probabilities: Box<[f64]>,
    ledger: [u8; 32],
    run: Run,
}

/// How the run of a ledger was to be.
#[derive(Clone, Copy, Default)]
struct Run {
    config: [u8; 32],
    seed: u64,
    episodes: u64,
}

/// Explain a decision of the run whose ledger is at `path`. Without the stage, for the reason given instead, it is
/// explained from the records alone.
pub fn explain(
    path: &Path,
    cast: &Cast,
    id: DecisionId,
    stage: Result<&Stage, String>,
) -> Result<Explanation, ExplainError> {
    let found = find(Entries::open(path)?, cast, id)?;
    let newcomer = stage.and_then(|stage| begin(stage, &found));
    let (known, replay) = follow(Entries::open(path)?, &found, id, newcomer)?;
    let (evidence, replayed) = match replay {
        Ok(evidence) => {
            let same = evidence.probabilities.iter().map(|p| p.to_bits());
            let replayed = match same.eq(found.probabilities.iter().map(|p| p.to_bits())) {
                true => Replayed::Same,
                false => Replayed::Differs(format!("the probabilities come to {:?}", evidence.probabilities)),
            };
            (Some(evidence), replayed)
        }
        Err(replayed) => (None, replayed),
    };
    let candidate = |choice: &Choice| {
        let action = ActionId(choice.column);
        let Known { targets, failures } = known.get(&action).copied().unwrap_or_default();
        let mean = targets.estimate();
        Candidate {
            choice: choice.choice.clone(),
            probability: choice.probability,
            visits: mean.map_or(0, |mean| mean.n as u64),
            failures,
            mean,
            value: evidence.as_ref().and_then(|e| e.values.get(action.index()).copied()),
            pseudo: evidence.as_ref().map(|e| e.pseudo.get(action.index()).copied().unwrap_or(0.0)),
        }
    };
    let Found { decision, ledger, .. } = found;
    let candidates = decision.choices.iter().map(candidate).collect();
    Ok(Explanation { team: cast.team.clone(), candidates, decision, ledger: hex(&ledger), replayed })
}

fn find(mut entries: Entries, cast: &Cast, id: DecisionId) -> Result<Found, ExplainError> {
    let mut fold = Fold::new(cast.clone(), Some(id.task));
    let (mut run, mut place, mut number) = (Run::default(), 0, 0);
    while let Some(entry) = entries.next_entry()? {
        if let Record::Opened { config, seed, episodes, .. } = &entry.record {
            run = Run { config: *config, seed: *seed, episodes: *episodes };
        }
        fold.take(&entry);
        let Entry { agent, record } = entry;
        if let Record::Decided { handoff, table, signature, probabilities, .. } = record
            && handoff.episode == EpisodeId(u128::from(id.task))
        {
            if place == id.place
                && let Some(decision) = fold.last_decision().filter(|last| last.decision == id.to_string())
            {
                let (decision, ledger) = (decision.clone(), entries.head());
                return Ok(Found {
                    decision,
                    entry: number,
                    agent,
                    table,
                    signature,
                    probabilities,
                    ledger,
                    run,
                });
            }
            place += 1;
        }
        number += 1;
    }
    let (session, trace) = fold.finish();
    Err(match trace {
        None => ExplainError::NoTask { task: id.task, begun: session.ended + session.open },
        Some(_) => ExplainError::NoDecision { task: id.task, decisions: place },
    })
}

/// The participant that decided, as it was before the run.
fn begin(stage: &Stage, found: &Found) -> Result<(Participant, Rng), String> {
    if stage.team().config_digest(&stage.tasks().identity()) != found.run.config {
        return Err("the team file or its training tasks have changed since the run began".to_owned());
    }
    let participants = stage.participants(found.run.episodes).map_err(|e| e.to_string())?;
    let of = participants.into_iter().nth(found.agent.0 as usize);
    let (name, spec) = of.ok_or("the team has no such participant")?;
    newcomer(name, spec, found.run.seed).map_err(|e| e.to_string())
}

/// What was known of a choice in one situation.
#[derive(Clone, Copy, Debug, Default)]
struct Known {
    targets: Moments,
    failures: u64,
}

/// Follow the participant up to its decision: what it had been told of each choice there, and what it looked at.
#[expect(clippy::type_complexity, reason = "two results of one reading")]
fn follow(
    mut entries: Entries,
    found: &Found,
    id: DecisionId,
    newcomer: Result<(Participant, Rng), String>,
) -> Result<(BTreeMap<ActionId, Known>, Result<Evidence, Replayed>), ExplainError> {
    let mut known: BTreeMap<ActionId, Known> = BTreeMap::new();
    let mut replaying =
        newcomer.map_err(Replayed::Not).map(|(participant, rng)| (participant, rng, Replay::default()));
    let (mut clock, mut seen, mut chosen) = (0, Observation::default(), None);
    for _ in 0..=found.entry {
        let Some(Entry { agent, record }) = entries.next_entry()? else { break };
        if agent != found.agent {
            continue;
        }
        match &record {
            Record::Settled { table, signature, action, target, usage, .. }
                if (*table, *signature) == (found.table, found.signature) =>
            {
                let of = known.entry(*action).or_default();
                of.targets.add(*target);
                of.failures += u64::from(usage.failures);
            }
            Record::Missed { table, signature, action, failures }
                if (*table, *signature) == (found.table, found.signature) =>
            {
                known.entry(*action).or_default().failures += u64::from(*failures);
            }
            _ => {}
        }
        if record.episode() == Some(EpisodeId(u128::from(id.task))) {
            match &record {
                Record::Received { handoff, observation } => {
                    (clock, seen) = (handoff.clock, observation.clone());
                }
                Record::Performed { next: Next::Operate(o) | Next::HandOver(o), .. }
                | Record::Failed { next: Next::Operate(o) | Next::HandOver(o), .. } => seen = o.clone(),
                Record::Decided { action, .. } => chosen = Some(*action),
                _ => {}
            }
        }
        if let Ok((participant, rng, replay)) = &mut replaying
            && let Err(error) = replay.take(participant, rng, &record)
        {
            replaying = Err(Replayed::Differs(error.to_string()));
        }
    }
    let evidence = replaying.map(|(participant, ..)| {
        let episode = EpisodeId(u128::from(id.task));
        participant.learner().evidence(found.table, &seen, chosen, episode, clock)
    });
    Ok((known, evidence))
}

impl Explanation {
    /// The explanation as a terminal shows it.
    pub fn to_text(&self) -> String {
        let Decision {
            decision,
            participant,
            table: of,
            situation,
            signature,
            policy_version,
            chosen,
            greedy,
            masked,
            ..
        } = &self.decision;
        let greedy = match greedy {
            true => "no admissible choice was worth more",
            false => "exploring: another choice was worth more",
        };
        let kept = |Masked { guard, choices }: &Masked| format!("{} by {guard}", choices.join(", "));
        let masked = match masked.iter().map(kept).collect::<Vec<_>>() {
            none if none.is_empty() => "nothing".to_owned(),
            kept => kept.join("; "),
        };
        let head =
            ["choice", "probability", "value", "mean of targets", "visits", "prior visits", "failures"];
        let mut rows = vec![head.map(str::to_owned).to_vec()];
        for candidate in &self.candidates {
            let Candidate { choice, probability, visits, failures, mean, value, pseudo } = candidate;
            let number =
                |x: Option<f64>, digits: usize| x.map_or("unknown".to_owned(), |x| format!("{x:.digits$}"));
            rows.push(vec![
                format!("{} {choice}", if choice == chosen { "→" } else { " " }),
                format!("{probability:.4}"),
                number(*value, 4),
                mean.map_or(String::new(), |mean| mean.to_string()),
                visits.to_string(),
                number(*pseudo, 1),
                failures.to_string(),
            ]);
        }
        let replayed = match &self.replayed {
            Replayed::Same => "the same to the bit".to_owned(),
            Replayed::Differs(reason) => format!("NOT the same: {reason}"),
            Replayed::Not(reason) => format!("no: {reason}; told from the records alone"),
        };
        format!(
            "decision {decision} of {}: {participant} chose {chosen} ({greedy})\n\
             situation: {situation} [{signature}], {of}\n\
             kept from it by guards: {masked}\n\
             policy version: {policy_version} settlements of {participant}, ledger {}\n\n{}\n\
             replayed: {replayed}\n",
            self.team,
            &self.ledger[..16],
            table(&rows)
        )
    }
}
