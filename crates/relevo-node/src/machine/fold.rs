//! What the agents of a node have learned, as the fold of its ledger.

use relevo::{episode::Crew, stage::Stage};
use relevo_core::{
    ids::AgentId,
    record::{Entry, EntryDecoder, Record},
    replay::Replay,
};

use super::{
    MachineError, MachineSpec,
    snapshot::{Snapshot, State, same},
};

/// What to do about a changed team.
const CONFIG_CHANGED: &str = "the state belongs to another team file, seed or version: serve that one, or begin anew with \
                              another `state` folder";

/// Goes through a ledger, commit by commit: verifies every seal, and tells agents what they were told, who must do again
/// what they did and be, at every snapshot, what was kept of them.
pub struct Fold<'s> {
    stage: &'s Stage,
    spec: &'s MachineSpec,
    config: [u8; 32],
    decoder: EntryDecoder,
    replays: Vec<Replay>,
}

impl<'s> Fold<'s> {
    /// From the beginning.
    pub fn new(stage: &'s Stage, spec: &'s MachineSpec) -> Self {
        let replays = stage.team().local().map(|_| Replay::default()).collect();
        Fold { stage, spec, config: config(stage, spec), decoder: EntryDecoder::default(), replays }
    }

    /// From behind the seal of this head, the last of so many entries.
    pub(super) fn after(mut self, head: [u8; 32], entries: u64) -> Self {
        self.decoder = EntryDecoder::after(head, entries);
        self
    }

    /// Take in the entries of a commit.
    pub fn take(&mut self, crew: &mut Crew, bytes: &[u8]) -> Result<(), MachineError> {
        let mut rest = bytes;
        loop {
            let before = self.decoder.offset();
            let Some(Entry { agent, record }) = self.decoder.decode(rest)? else { return Ok(()) };
            rest = &rest[(self.decoder.offset() - before) as usize..];
            match &record {
                Record::Opened { config, .. } if *config != self.config => {
                    return Err(MachineError::Unfit(CONFIG_CHANGED.to_owned()));
                }
                Record::Snapshotted { digest, .. } => {
                    same(digest, &State::of(crew, self.stage, self.spec)?.digest())?;
                }
                Record::Named { signature, name } => drop(crew.names.insert(*signature, name.clone())),
                _ => {}
            }
            if agent == AgentId::ORIGIN {
                continue;
            }
            let i = agent.0 as usize;
            let Some(replay) = self.replays.get_mut(i) else {
                return Err(MachineError::Unfit("the ledger tells of an agent that the team has not".into()));
            };
            replay.take(&mut crew.participants[i], &mut crew.rngs[i], &record).map_err(|source| {
                MachineError::Replay { agent: self.stage.participant_name(agent).to_owned(), source }
            })?;
        }
    }

    /// Refuse a stored snapshot that is not what the ledger leads to here.
    pub fn matches(&self, crew: &Crew, snapshot: &[u8]) -> Result<(), MachineError> {
        let here = State::of(crew, self.stage, self.spec)?;
        Snapshot::read(snapshot)?.is_at(&here, self.head(), self.entries())
    }

    /// How many entries there were.
    pub fn entries(&self) -> u64 {
        self.decoder.entries()
    }

    /// The head of the chain over them, as a seal behind them would tell it.
    pub fn head(&self) -> [u8; 32] {
        self.decoder.chain().clone().seal()
    }

    /// The chain, to go on with.
    pub(super) fn chain(&self) -> relevo_core::record::Chain {
        self.decoder.chain().clone()
    }
}

/// What a ledger is opened with: all that determines its agents besides the seed.
pub(super) fn config(stage: &Stage, spec: &MachineSpec) -> [u8; 32] {
    stage.team().config_digest(format!("node {}", spec.name).as_bytes())
}

/// What stands in a state that another team has left.
pub(super) fn changed() -> MachineError {
    MachineError::Unfit(CONFIG_CHANGED.to_owned())
}
