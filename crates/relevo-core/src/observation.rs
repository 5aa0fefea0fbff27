//! What one agent sees of one situation, and nothing more: `o = phi_i(z, x_i)` (paper, equation 1).
//!
//! An [`Observation`] is made by the agent's own [`Interface`], outside of the core, from the artifact it was
//! handed and its private state. It never travels to another agent.

use alloc::{boxed::Box, vec, vec::Vec};
use minicbor::{Decode, Encode};

use crate::ids::ActionId;

/// The key under which an agent keeps what it has learned of a kind of situation.
///
/// Either a small number (in the lab) or the first 64 bits of the BLAKE3 hash of a readable name
/// ([`Signature::of_name`]), so that the same situation has the same key in every run and on every machine, and
/// policies can be merged without renumbering.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
#[cbor(transparent)]
pub struct Signature(#[n(0)] pub u64);

impl Signature {
    /// The signature of a readable name such as `"dataset=mathqa given=1 checked=0"`.
    pub fn of_name(name: &str) -> Self {
        let hash = blake3::hash(name.as_bytes());
        let mut first = [0; 8];
        first.copy_from_slice(&hash.as_bytes()[..8]);
        Signature(u64::from_le_bytes(first))
    }
}

/// Numbers by which linear and neural estimators generalise between signatures.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Features {
    /// The signature says it all (tables).
    #[default]
    None,
    /// A dense vector; its length is fixed per agent.
    Dense(Box<[f32]>),
    /// Indices and values of a sparse vector; indices are hashed by the estimator into its own range.
    Sparse(Box<[(u32, f32)]>),
    /// Signatures of coarser kinds of situation to which this one belongs, from the coarsest on; at most
    /// [`COARSER_MAX`]. Tables with pools borrow from them.
    Coarser(Box<[Signature]>),
}

/// The most coarser signatures an observation may carry.
pub const COARSER_MAX: usize = 8;

impl Features {
    /// The coarser signatures, if it is those.
    pub fn coarser(&self) -> &[Signature] {
        match self {
            Features::Coarser(signatures) => signatures,
            _ => &[],
        }
    }

    /// Whether every number is finite.
    pub fn is_finite(&self) -> bool {
        match self {
            Features::None | Features::Coarser(_) => true,
            Features::Dense(x) => x.iter().all(|v| v.is_finite()),
            Features::Sparse(x) => x.iter().all(|(_, v)| v.is_finite()),
        }
    }
}

/// The choices that are admissible in a situation: a set of columns, iterated in ascending order, which is also
/// the order in which ties are broken.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ActionSet {
    low: u64,
    /// Columns from 64 on, 64 a word; the last word is never 0, so that equal sets are equal.
    high: Vec<u64>,
}

impl ActionSet {
    /// The set of the columns `0..width`.
    pub fn all(width: usize) -> Self {
        (0..width as u32).map(ActionId).collect()
    }

    /// Add a choice.
    pub fn insert(&mut self, action: ActionId) {
        let (word, bit) = (action.index() / 64, action.index() % 64);
        if word == 0 {
            self.low |= 1 << bit;
            return;
        }
        if self.high.len() < word {
            self.high.resize(word, 0);
        }
        self.high[word - 1] |= 1 << bit;
    }

    /// Whether a choice is in the set.
    pub fn contains(&self, action: ActionId) -> bool {
        let (word, bit) = (action.index() / 64, action.index() % 64);
        let word = if word == 0 { self.low } else { self.high.get(word - 1).copied().unwrap_or(0) };
        word >> bit & 1 == 1
    }

    /// How many choices there are.
    pub fn len(&self) -> usize {
        (self.low.count_ones() + self.high.iter().map(|w| w.count_ones()).sum::<u32>()) as usize
    }

    /// Whether there is no choice.
    pub fn is_empty(&self) -> bool {
        self.low == 0 && self.high.is_empty()
    }

    /// The choices in ascending order.
    pub fn iter(&self) -> impl Iterator<Item = ActionId> + '_ {
        let (mut word, mut first, mut high) = (self.low, 0, self.high.iter());
        core::iter::from_fn(move || {
            while word == 0 {
                word = *high.next()?;
                first += 64;
            }
            let bit = word.trailing_zeros();
            word &= word - 1;
            Some(ActionId(first + bit))
        })
    }

    /// The choice with `place` others before it.
    pub(crate) fn nth(&self, place: usize) -> Option<ActionId> {
        // Most often all choices are admissible.
        match self.is_prefix() && place < self.low.count_ones() as usize {
            true => Some(ActionId(place as u32)),
            false => self.iter().nth(place),
        }
    }

    /// How many choices of the set come before `action`.
    pub(crate) fn place(&self, action: ActionId) -> usize {
        match self.is_prefix() && self.contains(action) {
            true => action.index(),
            false => self.iter().take_while(|a| *a < action).count(),
        }
    }

    /// Whether the set is `0..n`, n at most 64.
    pub(crate) fn is_prefix(&self) -> bool {
        self.high.is_empty() && self.low & self.low.wrapping_add(1) == 0
    }

    /// The first choice, if any.
    pub fn first(&self) -> Option<ActionId> {
        self.iter().next()
    }

    /// One more than the largest column in the set; 0 for the empty set.
    pub fn span(&self) -> usize {
        match self.high.last() {
            Some(word) => self.high.len() * 64 + 64 - word.leading_zeros() as usize,
            None => 64 - self.low.leading_zeros() as usize,
        }
    }
}

impl FromIterator<ActionId> for ActionSet {
    fn from_iter<I: IntoIterator<Item = ActionId>>(actions: I) -> Self {
        let mut set = ActionSet::default();
        actions.into_iter().for_each(|a| set.insert(a));
        set
    }
}

/// All that the core sees of a situation.
#[derive(Clone, Debug, Default, PartialEq, Encode, Decode)]
#[cbor(array)]
pub struct Observation {
    /// Which kind of situation it is.
    #[n(0)]
    pub signature: Signature,
    /// Numbers for estimators that generalise.
    #[n(1)]
    pub features: Features,
    /// The choices admissible here (successors, or operations, as the situation asks).
    #[n(2)]
    pub legal: ActionSet,
}

impl Observation {
    /// An observation without features.
    pub fn of(signature: Signature, legal: ActionSet) -> Self {
        Observation { signature, features: Features::None, legal }
    }
}

impl Observation {
    /// Whether a ledger can hold it, that is, whether a reader takes it back: finite features, and neither more of
    /// them than [`FEATURES_MAX`] ([`COARSER_MAX`] signatures) nor a column beyond [`ACTIONS_MAX`].
    pub fn is_recordable(&self) -> bool {
        let (features, max) = match &self.features {
            Features::None => (0, 0),
            Features::Dense(x) => (x.len(), FEATURES_MAX),
            Features::Sparse(x) => (x.len(), FEATURES_MAX),
            Features::Coarser(signatures) => (signatures.len(), COARSER_MAX as u64),
        };
        features as u64 <= max && self.legal.span() as u64 <= ACTIONS_MAX && self.features.is_finite()
    }
}

/// The observation map phi_i of one agent; `self` is its private state.
pub trait Interface {
    /// What is handed over.
    type Artifact: ?Sized;

    /// What this agent sees of the artifact.
    fn observe(&self, artifact: &Self::Artifact) -> Observation;
}

impl<C> Encode<C> for Features {
    fn encode<W: minicbor::encode::Write>(
        &self,
        e: &mut minicbor::Encoder<W>,
        _: &mut C,
    ) -> Result<(), minicbor::encode::Error<W::Error>> {
        match self {
            Features::None => e.null()?,
            Features::Dense(x) => x.iter().try_fold(e.array(x.len() as u64)?, |e, v| e.f32(*v))?,
            Features::Sparse(x) => {
                x.iter().try_fold(e.map(x.len() as u64)?, |e, (i, v)| e.u32(*i)?.f32(*v))?
            }
            // One byte string, 8 bytes a signature, little-endian.
            Features::Coarser(signatures) => {
                let bytes: Vec<u8> = signatures.iter().flat_map(|s| s.0.to_le_bytes()).collect();
                e.bytes(&bytes)?
            }
        };
        Ok(())
    }
}

/// The most features an observation may carry; more are refused when a ledger or message is read.
pub const FEATURES_MAX: u64 = 1 << 20;

impl<'b, C> Decode<'b, C> for Features {
    fn decode(d: &mut minicbor::Decoder<'b>, _: &mut C) -> Result<Self, minicbor::decode::Error> {
        use minicbor::{data::Type, decode::Error};
        let bounded = |length: Option<u64>| match length {
            Some(n) if n <= FEATURES_MAX => Ok(n),
            _ => Err(Error::message("a feature vector has a stated length of at most 2^20")),
        };
        match d.datatype()? {
            Type::Null => d.null().map(|()| Features::None),
            Type::Array => {
                let n = bounded(d.array()?)?;
                (0..n).map(|_| d.f32()).collect::<Result<_, _>>().map(Features::Dense)
            }
            Type::Map => {
                let n = bounded(d.map()?)?;
                (0..n).map(|_| Ok((d.u32()?, d.f32()?))).collect::<Result<_, _>>().map(Features::Sparse)
            }
            Type::Bytes => {
                let (signatures, rest) = d.bytes()?.as_chunks();
                match rest.is_empty() && signatures.len() <= COARSER_MAX {
                    true => Ok(Features::Coarser(
                        signatures.iter().map(|s| Signature(u64::from_le_bytes(*s))).collect(),
                    )),
                    false => Err(Error::message("coarser signatures are at most 8, of 8 bytes each")),
                }
            }
            _ => Err(Error::message("features are null, an array, a map or a byte string")),
        }
    }
}

/// The most choices an action set read from a ledger or message may span.
pub const ACTIONS_MAX: u64 = 1 << 16;

impl<C> Encode<C> for ActionSet {
    fn encode<W: minicbor::encode::Write>(
        &self,
        e: &mut minicbor::Encoder<W>,
        _: &mut C,
    ) -> Result<(), minicbor::encode::Error<W::Error>> {
        if self.high.is_empty() {
            e.u64(self.low)?;
            return Ok(());
        }
        e.array(1 + self.high.len() as u64)?.u64(self.low)?;
        for word in &self.high {
            e.u64(*word)?;
        }
        Ok(())
    }
}

impl<'b, C> Decode<'b, C> for ActionSet {
    fn decode(d: &mut minicbor::Decoder<'b>, _: &mut C) -> Result<Self, minicbor::decode::Error> {
        use minicbor::decode::Error;
        if d.datatype()? != minicbor::data::Type::Array {
            return Ok(ActionSet { low: d.u64()?, high: vec![] });
        }
        const WORDS_MAX: u64 = ACTIONS_MAX / 64;
        let Some(n @ 2..=WORDS_MAX) = d.array()? else {
            return Err(Error::message("an action set has a stated length of at most 2^16 actions"));
        };
        let low = d.u64()?;
        let high = (1..n).map(|_| d.u64()).collect::<Result<Vec<_>, _>>()?;
        if high.last() == Some(&0) {
            return Err(Error::message("an action set must not end in an empty word"));
        }
        Ok(ActionSet { low, high })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::collections::BTreeSet;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn an_action_set_is_a_sorted_set(actions in proptest::collection::vec(0u32..300, 0..40)) {
            let model: BTreeSet<_> = actions.iter().copied().collect();
            let set: ActionSet = actions.iter().copied().map(ActionId).collect();
            prop_assert_eq!(set.iter().map(|a| a.0).collect::<Vec<_>>(), model.iter().copied().collect::<Vec<_>>());
            prop_assert_eq!(set.len(), model.len());
            prop_assert_eq!(set.span(), model.last().map_or(0, |m| *m as usize + 1));
            for a in 0..310 {
                prop_assert_eq!(set.contains(ActionId(a)), model.contains(&a));
            }
            for set in [&set, &ActionSet::all(actions.len())] {
                for (place, a) in set.iter().enumerate() {
                    prop_assert_eq!((set.nth(place), set.place(a)), (Some(a), place));
                }
                prop_assert_eq!(set.nth(set.len()), None);
            }
            let bytes = minicbor::to_vec(&set).unwrap();
            prop_assert_eq!(minicbor::decode::<ActionSet>(&bytes).unwrap(), set);
        }
    }
}
