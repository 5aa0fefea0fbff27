//! The Markov chain of agents and states, from handoff to handoff, when all choices are uniform: how often a task is
//! where, and how soon it forgets where it began.

use crate::{
    environments::synthetic::oracle::Values,
    linalg::{Lu, Square},
};

/// `M = (1 - e) G_pi + e uniform`, over agents and states, agent-major.
#[derive(Clone, Debug)]
pub struct Chain {
    agents: usize,
    states: usize,
    kernel: Square,
}

impl Chain {
    /// From the option kernels `G` of every agent and choice.
    pub(super) fn new(agents: usize, options: &[Square], e: f64) -> Self {
        let (n, choices) = (options[0].size(), agents - 1);
        let kernel = Square::from_fn(agents * n, |from, to| {
            let ((i, z), (j, t)) = ((from / n, from % n), (to / n, to % n));
            let moves = match i == j {
                true => 0.0,
                false => options[i * choices + j - usize::from(j > i)].row(z)[t] / choices as f64,
            };
            (1.0 - e) * moves + e / (agents * n) as f64
        });
        Chain { agents, states: n, kernel }
    }

    /// mu(z, i), by agent and state; sums to 1.
    pub fn stationary(&self) -> Values {
        let n = self.agents * self.states;
        // (I - M^T + 1 1^T) mu = 1: mu M = mu and sum mu = 1
        let system =
            |to: usize, from: usize| f64::from(u8::from(from == to)) - self.kernel.row(from)[to] + 1.0;
        let mu = Lu::new(Square::from_fn(n, system)).expect("the chain has one recurrent class");
        mu.solve(&vec![1.0; n]).chunks(self.states).map(<[f64]>::to_vec).collect()
    }

    /// The handoffs after which the task is within 1/4 of mu in total variation, wherever it began.
    pub fn mixing_time(&self) -> u32 {
        let mu: Vec<f64> = self.stationary().concat();
        let mixed = |m: &Square| {
            (0..m.size()).all(|x| m.row(x).iter().zip(&mu).map(|(p, mu)| (p - mu).abs()).sum::<f64>() <= 0.5)
        };
        // The distance falls with the time: find the last power of two before, then bit by bit.
        let mut powers = vec![self.kernel.clone()];
        while let Some(last) = powers.last().filter(|last| !mixed(last)) {
            powers.push(last.times(last));
        }
        let Some(mut at) = powers.len().checked_sub(2).map(|k| (1_u32 << k, powers[k].clone())) else {
            return 1;
        };
        for k in (0..powers.len() - 2).rev() {
            let next = at.1.times(&powers[k]);
            if !mixed(&next) {
                at = (at.0 + (1 << k), next);
            }
        }
        at.0 + 1
    }

    /// `-1 / ln |lambda_2|`, in handoffs.
    pub fn relaxation_time(&self) -> f64 {
        let mu: Vec<f64> = self.stationary().concat();
        let n = mu.len();
        // |lambda_2| = lim ||D^t||^(1/t) with D = M - 1 mu^T (Gelfand); t is 2^SQUARINGS.
        const SQUARINGS: i32 = 20;
        let mut d = Square::from_fn(n, |i, j| self.kernel.row(i)[j] - mu[j]);
        let (mut log, mut t) = (0.0, 1.0);
        for _ in 0..SQUARINGS {
            // ||D^t||^(1/t), the scale kept apart in `log`
            let norm = d.norm();
            d = Square::from_fn(n, |i, j| d.row(i)[j] / norm);
            log += norm.ln() / t;
            d = d.times(&d);
            t *= 2.0;
        }
        -1.0 / (log + d.norm().ln() / t)
    }
}

#[cfg(test)]
mod tests {
    use crate::environments::synthetic::{Design, Ending, Generator, Synthetic, oracle::Exact};

    /// Two blocks, left with probability s a primitive step: the block is forgotten like (1 - 2 s_h)^t, where
    /// `1 - 2 s_h = p (1 - 2 s) / (1 - (1 - p) (1 - 2 s))` is the mean of (1 - 2 s)^tau.
    #[test]
    fn two_blocks_mix_as_their_closed_form() {
        for (handoff, switch) in [(0.5_f64, 0.01_f64), (0.5, 0.0003), (1.0, 0.003)] {
            let design = Design {
                states: 16,
                handoff,
                ending: Ending::Restart(0.0),
                generator: Generator::TwoBlocks { switch },
                ..Design::default()
            };
            let chain = Exact::new(&Synthetic::new(design, 1)).chain;
            let stays = 1.0 - 2.0 * switch;
            let forgets = handoff * stays / (1.0 - (1.0 - handoff) * stays);
            // TV = 1/2 forgets^t once agents are forgotten
            let expected = (0.5_f64.ln() / forgets.ln()).ceil() as u32;
            assert_eq!(chain.mixing_time(), expected, "switch {switch}");
            let relaxation = chain.relaxation_time();
            assert!((relaxation * -forgets.ln() - 1.0).abs() < 1e-3, "{relaxation}");
        }
    }

    #[test]
    fn a_chain_that_forgets_at_once_mixes_at_once() {
        let design = Design { states: 4, ending: Ending::Restart(0.999), ..Design::default() };
        assert_eq!(Exact::new(&Synthetic::new(design, 1)).chain.mixing_time(), 1);
    }
}
