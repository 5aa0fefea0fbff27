//! What the machine can do at all, measured in the same run as what is compared with it.

use std::hint::black_box;

use foldhash::fast::FixedState;
use hashbrown::HashMap;
use relevo_core::Rng;

use crate::cpu_time;

/// `0..n` in random order.
pub fn shuffled(n: usize) -> Vec<u32> {
    let mut order: Vec<u32> = (0..n as u32).collect();
    let mut rng = Rng::stream(1, "bench/order");
    for i in (1..n).rev() {
        order.swap(i, rng.below(i as u32 + 1) as usize);
    }
    order
}

/// The key of situation `i`, spread over 64 bits as hashed names are.
pub fn key(i: u32) -> u64 {
    (u64::from(i) + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

/// A map as the graph keeps, of `n` keys: one lookup is the least that a choice takes.
pub struct Lookup(HashMap<u64, u32, FixedState>);

impl Lookup {
    pub fn new(n: usize) -> Self {
        Lookup((0..n as u32).map(|i| (key(i), i)).collect())
    }

    pub fn get(&self, i: u32) -> u32 {
        self.0[&key(i)]
    }
}

/// Seconds that `work` takes, the median of `runs` after one that does not count.
pub fn seconds(runs: usize, mut work: impl FnMut()) -> f64 {
    work();
    let mut times: Vec<f64> = (0..runs)
        .map(|_| {
            let start = cpu_time::now();
            work();
            (cpu_time::now() - start).as_secs_f64()
        })
        .collect();
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

/// Single-precision floating-point operations a second of a 512 x 512 matrix product.
pub fn sgemm_flops() -> f64 {
    const N: usize = 512;
    let (a, b, mut c) = (vec![1.0f32; N * N], vec![0.5f32; N * N], vec![0.0f32; N * N]);
    let n = N as isize;
    let time = seconds(51, || {
        // SAFETY: the three matrices are N x N, row by row, and c is not shared.
        unsafe {
            matrixmultiply::sgemm(
                N,
                N,
                N,
                1.0,
                black_box(a.as_ptr()),
                n,
                1,
                black_box(b.as_ptr()),
                n,
                1,
                0.0,
                c.as_mut_ptr(),
                n,
                1,
            )
        };
        black_box(&c);
    });
    2.0 * (N * N * N) as f64 / time
}

/// Bytes a second of reading and writing three vectors of `n` f32 at once, as an optimiser's state is swept; both
/// ways counted.
pub fn sweep_bytes(n: usize) -> f64 {
    let mut state = [vec![1.0f32; n], vec![1.0f32; n], vec![1.0f32; n]];
    let time = seconds(101, || {
        let [w, m, v] = &mut state;
        for ((w, m), v) in w.iter_mut().zip(m).zip(v) {
            (*w, *m, *v) = (*w * 0.999, *m * 0.999 + 1e-3, *v * 0.999 + 1e-3);
        }
        black_box(&state);
    });
    (6 * 4 * n) as f64 / time
}

/// Bytes a second of reading one vector of `n` f32, as a matrix times a vector does.
pub fn read_bytes(n: usize) -> f64 {
    let x = vec![1.0f32; n];
    let time = seconds(101, || {
        // Enough sums to hide the latency of adding, few enough to stay in registers.
        let mut sums = [0.0f32; 32];
        for chunk in black_box(&x).as_chunks::<32>().0 {
            for (s, x) in sums.iter_mut().zip(chunk) {
                *s += x;
            }
        }
        black_box(sums);
    });
    (4 * n) as f64 / time
}
