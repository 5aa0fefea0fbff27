//! What the agents of a node have learned, kept now and then, so that a restart need not go through the whole ledger. The
//! ledger tells the digest of each snapshot: whoever folds it finds the same.

use std::collections::BTreeMap;

use minicbor::{Decode, Decoder, Encode};
use relevo::{episode::Crew, stage::Stage};
use relevo_core::{
    ids::AgentId,
    observation::Signature,
    protocol::Participant,
    record::{Entry, EntryDecoder, Record},
};

use super::{Machine, MachineError, MachineSpec, fold};

/// The agents at one moment, and where in the ledger that was.
#[derive(Encode, Decode)]
#[cbor(array)]
pub(super) struct Snapshot {
    /// The head of the chain over all entries so far.
    #[cbor(n(0), with = "minicbor::bytes")]
    pub(super) head: [u8; 32],
    #[n(1)]
    pub(super) entries: u64,
    #[n(2)]
    pub(super) state: State,
}

/// The agents at one moment.
#[derive(Encode, Decode)]
#[cbor(array)]
pub(super) struct State {
    #[cbor(n(0), with = "minicbor::bytes")]
    config: [u8; 32],
    #[n(1)]
    names: BTreeMap<Signature, String>,
    #[n(2)]
    participants: Vec<Saved>,
}

#[derive(Encode, Decode)]
#[cbor(transparent)]
struct Saved(#[cbor(n(0), with = "minicbor::bytes")] Vec<u8>);

impl Snapshot {
    pub(super) fn read(bytes: &[u8]) -> Result<Self, MachineError> {
        minicbor::decode(bytes).map_err(|e| MachineError::Unfit(format!("the snapshot cannot be read: {e}")))
    }

    /// Refuse it where the ledger leads to something else; `head` is what a seal there would tell.
    pub(super) fn is_at(&self, state: &State, head: [u8; 32], entries: u64) -> Result<(), MachineError> {
        let behind = EntryDecoder::after(self.head, self.entries).chain().clone().seal();
        same(&(self.state.digest(), behind, self.entries), &(state.digest(), head, entries))
    }
}

impl State {
    pub(super) fn of(crew: &Crew, stage: &Stage, spec: &MachineSpec) -> Result<Self, MachineError> {
        let agents = crew.participants.iter().zip(&crew.rngs).zip((0..).map(AgentId));
        let saved = agents.map(|((participant, rng), agent)| {
            participant.save(rng).map(Saved).map_err(|source| MachineError::Snapshot {
                agent: stage.participant_name(agent).to_owned(),
                source,
            })
        });
        Ok(State {
            config: fold::config(stage, spec),
            names: crew.names.clone(),
            participants: saved.collect::<Result<_, _>>()?,
        })
    }

    /// BLAKE3 of it.
    pub(super) fn digest(&self) -> [u8; 32] {
        *blake3::hash(&bytes(self)).as_bytes()
    }

    /// Let the agents go on from here.
    pub(super) fn fill(
        &self,
        crew: &mut Crew,
        stage: &Stage,
        spec: &MachineSpec,
    ) -> Result<(), MachineError> {
        if self.config != fold::config(stage, spec) {
            return Err(fold::changed());
        }
        if self.participants.len() != crew.participants.len() {
            return Err(MachineError::Unfit("the snapshot is of other agents".to_owned()));
        }
        let agents = crew.participants.iter_mut().zip(&mut crew.rngs).zip((0..).map(AgentId));
        for (Saved(bytes), ((participant, rng), agent)) in self.participants.iter().zip(agents) {
            (*participant, *rng) =
                Participant::load(participant.spec().clone(), bytes).map_err(|source| {
                    MachineError::Snapshot { agent: stage.participant_name(agent).to_owned(), source }
                })?;
        }
        crew.names = self.names.clone();
        Ok(())
    }
}

impl Machine<'_> {
    /// Keep the agents as they are now, with the next commit.
    pub(super) fn snapshot(&mut self) -> Result<(), MachineError> {
        let state = State::of(&self.crew, self.stage, &self.spec)?;
        let (entries, digest) = (self.ledger.entries, state.digest());
        self.record(AgentId::ORIGIN, Record::Snapshotted { entries, digest });
        // The seal of the commit comes behind that record: a snapshot begins where a link does.
        let head = self.ledger.chain.clone().seal();
        let entries = self.ledger.entries + 1;
        self.store.snapshot(&bytes(&Snapshot { head, entries, state }))?;
        self.ledger.snapshot = entries;
        Ok(())
    }
}

/// Refuse a commit that does not tell of a snapshot of this digest.
pub(super) fn tells(commit: &[u8], digest: &[u8; 32]) -> Result<(), MachineError> {
    let (mut decoder, mut told) = (Decoder::new(commit), None);
    while decoder.position() < commit.len() {
        let entry: Entry = decoder.decode().map_err(|e| MachineError::Unfit(format!("the ledger: {e}")))?;
        if let Record::Snapshotted { digest, .. } = entry.record {
            told = Some(digest);
        }
    }
    match told {
        Some(told) => same(&told, digest),
        None => Err(MachineError::Unfit("the ledger does not tell of the snapshot that is kept".to_owned())),
    }
}

/// Refuse agents that are not those of which the ledger tells.
pub(super) fn same<T: PartialEq>(told: &T, found: &T) -> Result<(), MachineError> {
    match told == found {
        true => Ok(()),
        false => Err(MachineError::Unfit(
            "a snapshot is not what the ledger leads to: one of them was altered".to_owned(),
        )),
    }
}

fn bytes(value: &impl Encode<()>) -> Vec<u8> {
    minicbor::to_vec(value).expect("writing into memory cannot fail")
}
