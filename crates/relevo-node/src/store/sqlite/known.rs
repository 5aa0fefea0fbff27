//! Rows that were read or written lately. The store alone writes, so that they are what stands.

use std::{collections::HashMap, hash::Hash, mem};

/// Bytes of rows, about, at which half of them make room.
const BYTES_MAX: usize = 16 << 20;
/// What a row takes besides its payload, about.
const ROW_BYTES: usize = 1_000;

/// Rows by their keys: those that were asked for since the older half was forgotten, and that half.
pub(super) struct Known<K, R> {
    newer: HashMap<K, Seen<R>>,
    older: HashMap<K, Seen<R>>,
    bytes: usize,
}

/// What is known of a key.
pub(super) enum Seen<R> {
    /// There is no row.
    Absent,
    /// The row, and its number in its table.
    Row(i64, R),
}

impl<R> Seen<R> {
    pub(super) fn row(&self) -> Option<&R> {
        match self {
            Seen::Absent => None,
            Seen::Row(_, row) => Some(row),
        }
    }
}

impl<K, R> Default for Known<K, R> {
    fn default() -> Self {
        Known { newer: HashMap::new(), older: HashMap::new(), bytes: 0 }
    }
}

impl<K: Eq + Hash, R> Known<K, R> {
    /// What is known of a key, if anything is.
    pub(super) fn get(&mut self, key: &K) -> Option<&Seen<R>> {
        if let Some((key, seen)) = self.older.remove_entry(key) {
            self.newer.insert(key, seen);
        }
        self.newer.get(key)
    }

    /// As [`Known::get`], and nothing is known of it from now on.
    pub(super) fn take(&mut self, key: &K) -> Option<Seen<R>> {
        self.older.remove(key).or_else(|| self.newer.remove(key))
    }

    /// This is known now, of a row with so long a payload.
    pub(super) fn learn(&mut self, key: K, seen: Seen<R>, payload: usize) {
        self.bytes += ROW_BYTES + payload;
        if self.bytes > BYTES_MAX / 2 {
            self.older = mem::take(&mut self.newer);
            self.bytes = ROW_BYTES + payload;
        }
        self.newer.insert(key, seen);
    }

    pub(super) fn forget(&mut self) {
        *self = Known::default();
    }
}
