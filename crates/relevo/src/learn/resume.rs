//! Taking up a run: tasks that had ended are replayed, those that had not are played once more with the ledger in the
//! place of the world. A call that had come back is not made again; one that had not is.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    path::{Path, PathBuf},
};

use futures_util::FutureExt;
use relevo_core::{
    ids::AgentId,
    record::{Entry, Reader, Record},
    replay::{Replay, ReplayError},
};

use super::{LEDGER_FILE, LearnError, RunConfig, Session};
use crate::{
    agent::FailureKind,
    episode::{Call, Crew, EpisodeError, Judgement, Step},
    guard::Cost,
    ledger::{Ledger, Recovered},
    stage::Stage,
};

impl<'s> Session<'s> {
    /// Take up the run in the folder `out` where its ledger ends. A seed or number of episodes that is given must be
    /// the run's own. Also says how many bytes of a record that was being written were dropped.
    pub fn resume(
        stage: &'s Stage,
        out: &Path,
        seed: Option<u64>,
        episodes: Option<u64>,
    ) -> Result<(Self, usize), LearnError> {
        let path = out.join(LEDGER_FILE);
        let (ledger, Recovered { bytes, dropped, last }) = Ledger::recover(&path)?;
        let config = opened(stage, &path, &bytes, seed, episodes)?;
        let mut session =
            Session::of(stage, out, config, Crew::new(stage, config.seed, config.episodes)?, ledger)?;
        let (sound, ended) = session.sound(&path, &bytes)?;
        session.follow_all(&path, &bytes[..sound], &ended)?;
        session.ledger.end_behind(&bytes[..sound])?;
        let is_closed = matches!(last, Some(Record::Opened { .. } | Record::Closed { .. }));
        if is_closed && sound == bytes.len() && session.is_seal_due() {
            session.ledger.seal()?;
        }
        Ok((session, dropped + bytes.len() - sound))
    }

    /// Length of the ledger up to a call of an open task of which it is not kept what came of it, and the tasks that have
    /// ended there: a machine that lost its power has written the one to the disk and not the other. Such a call is made
    /// again.
    fn sound(&self, path: &Path, bytes: &[u8]) -> Result<(usize, BTreeSet<u64>), LearnError> {
        let mut sound = bytes.len();
        // A task that ended behind the cut is open before it.
        loop {
            let ended = closed(path, &bytes[..sound])?;
            match self.lost(path, &bytes[..sound], &ended)? {
                Some(place) => sound = place,
                None => return Ok((sound, ended)),
            }
        }
    }

    /// Where the first call begins that was made for an open task and of which it is not kept what came of it.
    fn lost(&self, path: &Path, bytes: &[u8], ended: &BTreeSet<u64>) -> Result<Option<usize>, LearnError> {
        let mut calls: BTreeMap<u64, usize> = BTreeMap::new();
        let mut reader = Reader::new(bytes);
        loop {
            let begin = reader.offset();
            let entry = reader.next_entry();
            let entry = entry.map_err(|source| LearnError::Unreadable { path: path.to_owned(), source })?;
            let Some(Entry { record, .. }) = entry else { return Ok(None) };
            let Record::Called { handoff, .. } = record else { continue };
            let task = handoff.episode.0 as u64;
            let called = calls.entry(task).or_default();
            *called += 1;
            if !ended.contains(&task) && *called > self.outcomes.calls(task) {
                return Ok(Some(begin));
            }
        }
    }

    fn follow_all(&mut self, path: &Path, bytes: &[u8], ended: &BTreeSet<u64>) -> Result<(), LearnError> {
        let mut scripts: BTreeMap<u64, VecDeque<Record>> = BTreeMap::new();
        let mut task = 0;
        for entry in entries(path, bytes) {
            let record = entry?.record;
            if is_of_a_task(&record) && !matches!(record, Record::Primed { .. }) {
                task = record.episode().map_or(task, |episode| episode.0 as u64);
                if !ended.contains(&task) {
                    scripts.entry(task).or_default().push_back(record);
                }
            }
        }
        let mut followed: Vec<Followed> =
            self.crew.participants.iter().map(|_| Followed::default()).collect();
        let mut half_primed = false;
        // A record that names no task belongs to that of the one before it.
        let mut task = 0;
        for entry in entries(path, bytes) {
            let entry = entry?;
            if let Some(observer) = self.stage.observer() {
                observer.recalled(&entry);
            }
            let Entry { agent, record } = entry;
            match record {
                Record::Primed { .. } => half_primed = true,
                Record::Sealed { .. } => half_primed = false,
                _ => {}
            }
            match record {
                Record::Named { signature, name } => {
                    self.open.values_mut().for_each(|episode| episode.is_named(signature));
                    self.crew.names.insert(signature, name);
                    continue;
                }
                Record::Closed { episode_return, cost, .. } => {
                    self.returns.push(episode_return);
                    cost.into_iter().for_each(|cost| self.median.observe(cost));
                    continue;
                }
                _ if !is_of_a_task(&record) => continue,
                _ => {}
            }
            let before_all = matches!(record, Record::Primed { .. });
            if !before_all {
                task = record.episode().map_or(task, |episode| episode.0 as u64);
                self.next_episode = self.next_episode.max(task.saturating_add(1));
                if let Some(script) = scripts.remove(&task) {
                    self.enter(task, script)?;
                }
            }
            if agent == AgentId::ORIGIN {
                match ended.contains(&task) {
                    true => self.recall(&record),
                    false => {
                        self.follow(task, &record).map_err(|e| e.at(self.stage, path, 0, agent.0))?;
                    }
                }
                continue;
            }
            let Some(of_agent) = followed.get_mut(agent.0 as usize) else {
                let message = format!("agent {} does not exist in this team", agent.0);
                return Err(LearnError::OtherRun { path: path.to_owned(), message });
            };
            let index = of_agent.records;
            of_agent.records += 1;
            let i = agent.0 as usize;
            let taken = match before_all || ended.contains(&task) {
                true => {
                    let (participant, rng) = (&mut self.crew.participants[i], &mut self.crew.rngs[i]);
                    of_agent.replay.take(participant, rng, &record).map_err(Astray::Replay)
                }
                false => self.follow(task, &record),
            };
            taken.map_err(|e| e.at(self.stage, path, index, agent.0))?;
        }
        match half_primed {
            false => Ok(()),
            true => Err(LearnError::OtherRun {
                path: path.to_owned(),
                message: "the run was killed during its warm start, and nothing was learned yet; remove it and start again"
                    .into(),
            }),
        }
    }

    /// Let the guards know of a call of a task that has ended, and of what judging it took.
    fn recall(&mut self, record: &Record) {
        if let Record::Judged { usage, money, ms, .. } = record {
            self.crew.guard.judged(Cost { tokens: usage.tokens, money: *money, ms: *ms }, []);
        }
        if let Record::Called { agent, ended, usage, money, ms, .. } = record {
            let cost = Cost { tokens: usage.tokens, money: *money, ms: *ms };
            let ended = match ended.as_str() {
                "done" => Ok(()),
                word => Err(FailureKind::of_word(word).unwrap_or(FailureKind::Garbage)),
            };
            self.crew.guard.recall(*agent, cost, ended);
        }
    }

    /// Play an open task until it has made this record, which it must make next.
    fn follow(&mut self, number: u64, record: &Record) -> Result<(), Astray> {
        let episode = self.open.get_mut(&number).expect("entered at its first record");
        let differs = |made: Option<Record>| Astray::Differs {
            found: Box::new(record.clone()),
            made: made.map(Box::new),
        };
        loop {
            match episode.step(&mut self.crew)? {
                Step::Done => {}
                Step::Record(_, made) if made == *record => {
                    episode.followed();
                    return Ok(());
                }
                Step::Record(_, made) => return Err(differs(Some(made))),
                Step::Ended => return Err(differs(None)),
                Step::Value(_) | Step::Away(_) | Step::Finished(_) => unreachable!("a run has no peers"),
                Step::Ask(_) => match record {
                    Record::Permitted { granted, by, .. } => {
                        episode.answered(&mut self.crew, *granted, by.clone());
                    }
                    _ => return Err(differs(None)),
                },
                Step::Judge => match record {
                    Record::Judged { quality, confidence, usage, money, ms, .. } => {
                        self.crew.guard.judged(Cost { tokens: usage.tokens, money: *money, ms: *ms }, []);
                        episode.followed();
                        let confidence = *confidence;
                        let judgement = quality.map(|quality| Judgement { quality, confidence });
                        episode.judged(judgement);
                        return Ok(());
                    }
                    _ => return Err(differs(None)),
                },
                Step::Call(Call { agent, operation, outcome, .. }) => match record {
                    Record::Called { agent: called, operation: done, outcome, ms, .. }
                        if (*called, *done) == (agent, operation) =>
                    {
                        let before = episode.scene().artifact();
                        let outcome = self.outcomes.read(number, episode.calls(), before, outcome);
                        let outcome = outcome.map_err(LearnError::from)?;
                        episode.lasted(*ms);
                        episode.followed();
                        episode.called(agent, outcome, *ms);
                        return Ok(());
                    }
                    _ if self.stage.leaves_process(agent) => return Err(differs(None)),
                    // What is simulated costs nothing, and comes to the same again.
                    _ => match outcome.now_or_never() {
                        Some(outcome) => episode.called(agent, outcome, 0),
                        None => return Err(differs(None)),
                    },
                },
            }
        }
    }
}

/// Whether a record is about one task, and made again where that is played once more.
fn is_of_a_task(record: &Record) -> bool {
    !matches!(
        record,
        Record::Opened { .. }
            | Record::Sealed { .. }
            | Record::Halted { .. }
            | Record::Named { .. }
            | Record::Closed { .. }
            | Record::Tried { .. }
            | Record::Snapshotted { .. }
    )
}

/// How far the records of one participant have been followed.
#[derive(Default)]
struct Followed {
    replay: Replay,
    records: u64,
}

/// Where a ledger cannot be followed.
enum Astray {
    /// In a task that had ended.
    Replay(ReplayError),
    /// In a task that had not: it comes to another record, or to none.
    Differs { found: Box<Record>, made: Option<Box<Record>> },
    /// What it takes to go on cannot be had.
    Learn(LearnError),
}

impl From<EpisodeError> for Astray {
    fn from(error: EpisodeError) -> Self {
        Astray::Learn(error.into())
    }
}

impl From<LearnError> for Astray {
    fn from(error: LearnError) -> Self {
        Astray::Learn(error)
    }
}

impl Astray {
    fn at(self, stage: &Stage, path: &Path, index: u64, agent: u32) -> LearnError {
        let source = match self {
            Astray::Learn(error) => return error,
            Astray::Replay(source) => source,
            Astray::Differs { found, made } => ReplayError::Differs { index, found, expected: made },
        };
        let agent = stage.participant_name(AgentId(agent)).to_owned();
        LearnError::Replay { path: path.to_owned(), agent, source }
    }
}

/// The tasks that have ended.
fn closed(path: &Path, bytes: &[u8]) -> Result<BTreeSet<u64>, LearnError> {
    let closed = entries(path, bytes).filter_map(|entry| match entry.map(|entry| entry.record) {
        Ok(Record::Closed { episode, .. }) => Some(Ok(episode)),
        Ok(_) => None,
        Err(e) => Some(Err(e)),
    });
    closed.collect()
}

fn entries(path: &Path, bytes: &[u8]) -> impl Iterator<Item = Result<Entry, LearnError>> {
    let mut reader = Reader::new(bytes);
    std::iter::from_fn(move || reader.next_entry().transpose())
        .map(|entry| entry.map_err(|source| LearnError::Unreadable { path: path.to_owned(), source }))
}

/// How the run of a ledger is to be, if it is a run of this team, and of this seed and number of episodes.
fn opened(
    stage: &Stage,
    path: &Path,
    bytes: &[u8],
    seed: Option<u64>,
    episodes: Option<u64>,
) -> Result<RunConfig, LearnError> {
    let path: PathBuf = path.to_owned();
    let first = Reader::new(bytes).next_entry();
    let first = first.map_err(|source| LearnError::Unreadable { path: path.clone(), source })?;
    let other = |message: String| LearnError::OtherRun { path, message };
    let Some(Entry { record: Record::Opened { config, seed: ran, episodes: asked, .. }, .. }) = first else {
        return Err(other(
            "the ledger is empty: nothing was learned yet; remove it and start the run again, without --resume".into(),
        ));
    };
    if config != stage.team().config_digest(&stage.tasks().identity()) {
        return Err(other(
            "the team file or its training tasks have changed since this run began, and learned values would not fit; \
             undo the change, or start a new run with --out"
                .into(),
        ));
    }
    if seed.is_some_and(|s| s != ran) || episodes.is_some_and(|n| n != asked) {
        return Err(other(format!(
            "this run was begun with --seed {ran} --episodes {asked}; exploration is planned over all its episodes, so \
             resume it with these (or leave them out), or start a new run with --out"
        )));
    }
    Ok(RunConfig { seed: ran, episodes: asked })
}
