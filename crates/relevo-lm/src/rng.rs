//! Randomness as an argument: named, seeded streams.

use rand_chacha::ChaCha8Rng;
use rand_core::{Rng as _, SeedableRng};

/// A stream of random numbers: ChaCha8, keyed by BLAKE3 of a name and numbers.
pub(crate) struct Rng(ChaCha8Rng);

impl Rng {
    /// The stream called `name` under these numbers; another name or number is another stream.
    pub(crate) fn stream(name: &str, keys: &[u64]) -> Self {
        let mut hasher = blake3::Hasher::new_derive_key("relevo-lm 2026 random stream v1");
        for key in keys {
            hasher.update(&key.to_le_bytes());
        }
        hasher.update(name.as_bytes());
        Rng(ChaCha8Rng::from_seed(*hasher.finalize().as_bytes()))
    }

    /// Uniform on [0, 1), 53 bits.
    pub(crate) fn unit(&mut self) -> f64 {
        (self.0.next_u64() >> 11) as f64 * (1.0 / (1u64 << 53) as f64)
    }

    /// Uniform on 0..n; `n` must not be 0.
    pub(crate) fn below(&mut self, n: usize) -> usize {
        debug_assert!(n > 0);
        ((u128::from(self.0.next_u64()) * n as u128) >> 64) as usize
    }

    /// Uniform on low..=high.
    pub(crate) fn between(&mut self, low: i64, high: i64) -> i64 {
        low + self.below((high - low + 1) as usize) as i64
    }

    /// One of these.
    pub(crate) fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.below(from.len())]
    }

    /// Standard normal (Box and Muller).
    pub(crate) fn normal(&mut self) -> f64 {
        let radius = (-2.0 * (1.0 - self.unit()).ln()).sqrt();
        radius * (2.0 * core::f64::consts::PI * self.unit()).cos()
    }

    /// In a random order.
    pub(crate) fn shuffle<T>(&mut self, items: &mut [T]) {
        for i in (1..items.len()).rev() {
            items.swap(i, self.below(i + 1));
        }
    }
}
