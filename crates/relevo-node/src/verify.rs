//! Checks all that a node has kept: the chain, and every decision once more.

use relevo::{
    episode::{Crew, EpisodeError},
    stage::Stage,
    tasks::TaskError,
    team::TeamSpec,
};
use relevo_core::protocol::Counters;

use crate::{
    machine::{Fold, MachineError},
    spec::NodeSpec,
    store::{Reader, StoreError, sqlite::SqliteReader},
};

/// What is wrong with what a node has kept.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// It cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// It is not what was written, or not what these agents would have done.
    #[error(transparent)]
    Machine(#[from] MachineError),
    /// The team cannot be set up.
    #[error(transparent)]
    Task(#[from] TaskError),
    /// An agent cannot be made.
    #[error(transparent)]
    Episode(#[from] EpisodeError),
}

/// What has been found in order.
#[derive(Clone, Debug, PartialEq)]
pub struct Verified {
    /// Commits of the ledger.
    pub commits: u64,
    /// Entries in them.
    pub entries: u64,
    /// The head of the chain.
    pub head: [u8; 32],
    /// What each agent has received and learned, by its name.
    pub agents: Vec<(String, Counters)>,
}

/// Walk through the whole ledger of a node, whether it runs or not, and compare the snapshots with what it leads to.
pub fn verify(spec: &NodeSpec, team: TeamSpec) -> Result<Verified, VerifyError> {
    let mut ledger = SqliteReader::open(&spec.state_folder())?;
    let folder = spec.team_file().parent().map(|folder| folder.to_owned()).unwrap_or_default();
    let machine = spec.machine();
    let names = ledger.peers()?.into_iter().map(|(name, _)| name).collect();
    let stage = Stage::for_node(team, &folder, names)?;
    let mut crew = Crew::new(&stage, machine.seed, machine.horizon)?;
    let mut fold = Fold::new(&stage, &machine);
    let snapshots = ledger.snapshots()?;
    let (mut commits, mut failure) = (0, None);
    let walked = ledger.whole_ledger(&mut |bytes| {
        commits += 1;
        let kept = snapshots.iter().find(|(with, _)| *with == commits);
        let taken = fold.take(&mut crew, bytes).and_then(|()| match kept {
            Some((_, snapshot)) => fold.matches(&crew, snapshot),
            None => Ok(()),
        });
        taken.map_err(|e| {
            let message = e.to_string();
            failure = Some(e);
            StoreError::Damaged(message)
        })
    });
    if let Some(failure) = failure {
        return Err(failure.into());
    }
    walked?;
    if let Some((with, _)) = snapshots.iter().find(|(with, _)| *with > commits) {
        let what = format!("a snapshot was kept with commit {with}, and the ledger has {commits}");
        return Err(MachineError::Unfit(what).into());
    }
    let agents = crew.participants.iter().zip(stage.team().local());
    let agents = agents.map(|(participant, agent)| (agent.name.clone(), participant.counters())).collect();
    Ok(Verified { commits, entries: fold.entries(), head: fold.head(), agents })
}
