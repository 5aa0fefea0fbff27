//! Exact expectations over problems.

use relevo_core::ids::AgentId;

use super::{KEEPS, Maths, PASSES_RIGHT, PASSES_WRONG_DIRECT, PASSES_WRONG_REASONED, Problem};

impl Maths {
    /// The mean over all problems of what `play` gives from the agent that begins, exactly. Of each of a problem's five
    /// numbers it matters only between which thresholds it lies: that makes 216 kinds of problems, of known shares.
    pub fn expectation(&mut self, mut play: impl FnMut(&mut Self, AgentId) -> f64) -> f64 {
        let d = self.data;
        let u = pieces(&[d.direct, d.reasoned]);
        let w = [pieces(&[PASSES_RIGHT]), pieces(&[PASSES_WRONG_DIRECT, PASSES_WRONG_REASONED])];
        let v = [
            pieces(&[KEEPS, d.keeps_via_thinker]),
            pieces(&[d.mends_direct, d.mends_reasoned, d.mends_via_thinker]),
        ];
        let mut mean = 0.0;
        for (u, share_u) in &u {
            for ((w0, share_w0), (w1, share_w1)) in product(&w) {
                for ((v0, share_v0), (v1, share_v1)) in product(&v) {
                    let share = share_u * share_w0 * share_w1 * share_v0 * share_v1;
                    let agent = self.begin(Problem { u: *u, w: [w0, w1], v: [v0, v1] });
                    mean += share * play(self, agent);
                }
            }
        }
        mean
    }
}

/// A point, and how much of [0, 1) it stands for.
type Piece = (f64, f64);

/// The pieces into which thresholds cut [0, 1).
fn pieces(thresholds: &[f64]) -> Vec<Piece> {
    let mut ends = [thresholds, &[0.0, 1.0]].concat();
    ends.sort_by(f64::total_cmp);
    ends.windows(2).map(|end| (0.5 * (end[0] + end[1]), end[1] - end[0])).collect()
}

fn product([a, b]: &[Vec<Piece>; 2]) -> impl Iterator<Item = (Piece, Piece)> {
    a.iter().flat_map(|x| b.iter().map(|y| (*x, *y)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        baselines::fixed::Fixed,
        environment::Environment,
        environments::maths::{DATASETS, HANDOFF_COST},
    };

    /// The shares add up, and the closed-form fit gives Table 1 back.
    #[test]
    fn table_1_is_met_exactly() {
        let routes: [&[u32]; 5] = [&[1], &[2, 1], &[1, 3, 1], &[2, 1, 3, 1], &[2, 1, 3, 2, 1]];
        for data in DATASETS {
            let mut env = Maths::new(data);
            assert!((env.expectation(|_, _| 1.0) - 1.0).abs() < 1e-12);
            for (route, accuracy) in routes.into_iter().zip(data.table) {
                let route: Vec<AgentId> = route.iter().copied().map(AgentId).collect();
                let fixed = Fixed::new(env.spec(), &route);
                let right = env.expectation(|env, agent| fixed.play(env, agent).ceil());
                assert!((right - accuracy).abs() < 1e-12, "{} {route:?}: {right}", data.name);
                // The return is the accuracy less the price of at most that many handoffs.
                let value = env.expectation(|env, agent| fixed.play(env, agent));
                assert!((right - value) / HANDOFF_COST <= route.len() as f64 + 1e-9);
            }
        }
    }
}
