//! Snapshots: all of a participant on which its later behaviour depends, in canonical bytes, so that it can go on without
//! a replay of its whole ledger. Whatever events follow, the participant that was saved and the one that was loaded have
//! the same effects, records and snapshots.
//!
//! A snapshot is a CBOR sequence (RFC 8742): [`FORMAT`], a digest of each part of the specification, the random stream,
//! what was learned, and the handoffs in flight or remembered, in the order of their ids. What the specification says is
//! not repeated. The last item is the BLAKE3 seal of every byte before it. A snapshot holds the key of the random stream:
//! whoever reads it knows the choices to come.

use alloc::{
    format,
    string::{String, ToString},
    vec::Vec,
};
use core::{convert::Infallible, fmt};

use crate::{
    learner::{LearnerSpec, SpecError},
    observation::Signature,
    protocol::{Participant, ParticipantSpec},
    rng::Rng,
};

/// The version of the snapshot format, written into every snapshot.
pub const FORMAT: &str = "relevo.snapshot/v1";

/// Bytes of the last item: its head, and the 32 bytes of the seal.
const SEAL_LEN: usize = 34;

pub(crate) type Writer = minicbor::Encoder<Vec<u8>>;
pub(crate) type Saved = Result<(), minicbor::encode::Error<Infallible>>;
pub(crate) type Reader<'b> = minicbor::Decoder<'b>;
pub(crate) type Loaded = Result<(), minicbor::decode::Error>;

/// Refuses what was read, unless it `holds`.
pub(crate) fn require(holds: bool, what: &'static str) -> Loaded {
    if holds { Ok(()) } else { Err(minicbor::decode::Error::message(what)) }
}

/// Counts that go up are refused from here on: they would not last.
pub(crate) const COUNT_MAX: u64 = 1 << 62;

/// Why a participant cannot be saved, or not be loaded.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum SnapshotError {
    /// It keeps what a snapshot has no place for.
    #[error(
        "a participant with the extension {0} has no snapshots: replay its ledger, or turn the extension off"
    )]
    Extension(&'static str),
    /// A table, a linear estimator or a network is no longer finite.
    #[error("an estimate is not a finite number: it has diverged, and what comes of it is not worth keeping")]
    Diverged,
    /// The bytes do not begin as a snapshot of this format does.
    #[error("the bytes begin with {found:?}; this program reads {FORMAT:?}")]
    Format {
        /// The text that stands there, or how its bytes begin.
        found: String,
    },
    /// The seal is not that of the bytes before it.
    #[error("the snapshot is cut off or was altered: its seal is not that of its bytes")]
    Altered,
    /// It was saved by a participant that is made of something else.
    #[error("the snapshot is of another specification; these parts differ: {}", .differs.join(", "))]
    Spec {
        /// The parts that differ, in words.
        differs: Vec<&'static str>,
    },
    /// The specification cannot work, whatever the snapshot says.
    #[error(transparent)]
    Unworkable(#[from] SpecError),
    /// Its content is none that a participant can come to.
    #[error("the snapshot cannot be read at byte {offset}: {reason}")]
    Unreadable {
        /// How far it was read, in bytes.
        offset: usize,
        /// What is wrong.
        reason: String,
    },
}

impl Participant {
    /// All of this participant and of `rng`, the stream that its events are applied with. Refused with the extensions
    /// local model and refresh, and once an estimate has diverged.
    pub fn save(&self, rng: &Rng) -> Result<Vec<u8>, SnapshotError> {
        savable(self.spec())?;
        if !self.learner().is_finite() {
            return Err(SnapshotError::Diverged);
        }
        let mut writer = Writer::new(Vec::new());
        self.write(rng, &mut writer).expect("writing into memory cannot fail");
        let seal = seal(writer.writer());
        writer.bytes(&seal).expect("writing into memory cannot fail");
        Ok(writer.into_writer())
    }

    fn write(&self, rng: &Rng, e: &mut Writer) -> Saved {
        e.str(FORMAT)?.encode(digests(self.spec()).map(|(_, digest)| digest))?;
        rng.save(e)?;
        self.learner().save(e)?;
        self.save_handoffs(e)
    }

    /// The participant of this specification that [`Participant::save`] made `bytes` of, and its stream. Any bytes may
    /// be given: others are refused, with memory of the order of their number.
    pub fn load(spec: ParticipantSpec, bytes: &[u8]) -> Result<(Self, Rng), SnapshotError> {
        savable(&spec)?;
        let mut d = Reader::new(bytes);
        match d.str() {
            Ok(FORMAT) => {}
            Ok(found) => return Err(SnapshotError::Format { found: found.chars().take(64).collect() }),
            Err(_) => {
                let found = format!("{:02x?}", &bytes[..bytes.len().min(8)]);
                return Err(SnapshotError::Format { found });
            }
        }
        let sealed = bytes
            .split_last_chunk::<SEAL_LEN>()
            .filter(|(body, item)| item[..2] == [0x58, 32] && item[2..] == seal(body));
        let (body, _) = sealed.ok_or(SnapshotError::Altered)?;
        let mut d = Reader::new(body);
        Self::read(spec, body, &mut d).map_err(|e| match e {
            Refused::Content(e) => SnapshotError::Unreadable { offset: d.position(), reason: e.to_string() },
            Refused::Other(e) => e,
        })
    }

    fn read(spec: ParticipantSpec, body: &[u8], d: &mut Reader<'_>) -> Result<(Self, Rng), Refused> {
        d.skip()?;
        let expected = digests(&spec);
        let found: Vec<Signature> = d.decode()?;
        require(found.len() == expected.len(), "a specification has another number of parts")?;
        let differing = expected.iter().zip(&found).filter(|((_, expected), found)| expected != *found);
        let differs: Vec<_> = differing.map(|((part, _), _)| *part).collect();
        if !differs.is_empty() {
            return Err(Refused::Other(SnapshotError::Spec { differs }));
        }
        let rng = Rng::load(d)?;
        let mut participant =
            Participant::new(spec, &mut rng.clone()).map_err(|e| Refused::Other(e.into()))?;
        participant.learner_mut().load(d)?;
        participant.load_handoffs(d)?;
        require(participant.learner().is_finite(), "an estimate is not a finite number")?;
        let mut again = Writer::new(Vec::with_capacity(body.len()));
        participant.write(&rng, &mut again).expect("writing into memory cannot fail");
        require(again.writer() == body, "the snapshot is not in canonical form")?;
        Ok((participant, rng))
    }
}

enum Refused {
    Content(minicbor::decode::Error),
    Other(SnapshotError),
}

impl From<minicbor::decode::Error> for Refused {
    fn from(e: minicbor::decode::Error) -> Self {
        Refused::Content(e)
    }
}

fn savable(spec: &ParticipantSpec) -> Result<(), SnapshotError> {
    let extensions = spec.learner.extensions;
    match (extensions.local_model, extensions.refresh) {
        (true, _) => Err(SnapshotError::Extension("local model")),
        (_, Some(_)) => Err(SnapshotError::Extension("refresh")),
        _ => Ok(()),
    }
}

fn seal(body: &[u8]) -> [u8; 32] {
    blake3::derive_key("relevo 2026 snapshot v1", body)
}

/// The parts of a specification, each with 64 bits of the BLAKE3 hash of what it says.
fn digests(spec: &ParticipantSpec) -> [(&'static str, Signature); 18] {
    let ParticipantSpec { id, choices, learner, handoff_reward, limits, journal } = spec;
    let LearnerSpec { successors, regime, discount, bounds, initial, estimator, step, local, .. } = learner;
    let LearnerSpec { policy, credit, extensions, pending, signatures_max, .. } = learner;
    let parts: [(_, &dyn fmt::Debug); 18] = [
        ("the agent", id),
        ("its choices", choices),
        ("the reward of handing over", handoff_reward),
        ("the limits", limits),
        ("whether records are made", journal),
        ("the number of successors", successors),
        ("the regime", regime),
        ("the discount", discount),
        ("the bounds of values", bounds),
        ("the initial value", initial),
        ("the estimator", estimator),
        ("the step rule", step),
        ("how local operations are learned", local),
        ("the policy", policy),
        ("the credit", credit),
        ("the extensions", extensions),
        ("whether pending decisions count", pending),
        ("the most signatures", signatures_max),
    ];
    parts.map(|(part, says)| (part, Signature::of_name(&format!("{says:?}"))))
}
