//! What was counted of a peer.

use std::collections::BTreeMap;

use minicbor::{Decode, Encode};

/// The most kinds of things that are counted; they are words of this program, so there are fewer.
const WORDS_MAX: usize = 256;

/// What was counted of a peer: handoffs, values, outcomes, and every refusal by its word.
#[derive(Clone, Debug, Default, PartialEq, Encode, Decode)]
#[cbor(array)]
pub struct Counters {
    /// How often, by word.
    #[n(0)]
    pub counts: BTreeMap<String, u64>,
    /// The smallest value that came.
    #[n(1)]
    pub value_min: Option<f64>,
    /// The largest.
    #[n(2)]
    pub value_max: Option<f64>,
}

impl Counters {
    /// As they are kept.
    pub fn to_bytes(&self) -> Vec<u8> {
        minicbor::to_vec(self).expect("writing into memory cannot fail")
    }

    /// As they were kept; nothing, where that cannot be read.
    pub fn of_bytes(bytes: &[u8]) -> Self {
        minicbor::decode(bytes).unwrap_or_default()
    }

    /// How often something was counted.
    pub fn of(&self, word: &str) -> u64 {
        self.counts.get(word).copied().unwrap_or(0)
    }

    pub(super) fn add(&mut self, word: &str, times: u64) {
        if let Some(count) = self.counts.get_mut(word) {
            *count += times;
        } else if self.counts.len() < WORDS_MAX {
            self.counts.insert(word.to_owned(), times);
        }
    }

    pub(super) fn saw(&mut self, value: f64) {
        self.value_min = Some(self.value_min.map_or(value, |min| min.min(value)));
        self.value_max = Some(self.value_max.map_or(value, |max| max.max(value)));
    }
}
