//! The exact values of an instance: option kernels, optimum, the fixed point of tabular IC-Q under a map, and how far apart
//! the two can be.

use crate::{
    environments::synthetic::{Ending, Synthetic, chain::Chain, successor},
    linalg::{Lu, Square, dot},
};

/// A table with one row for each agent and choice (agent-major), one column for each situation.
pub type Values = Vec<Vec<f64>>;

/// Rewards and discounted transitions of options between situations: states, or what agents observe of them.
#[derive(Clone, Debug)]
pub struct Options {
    agents: usize,
    /// Mean reward of an option.
    pub reward: Values,
    /// `F(z' | z)`, discounted by gamma^tau: rows sum to less than 1. By agent and choice.
    pub next: Vec<Square>,
}

impl Options {
    fn choices(&self) -> usize {
        self.agents - 1
    }

    /// How many situations there are.
    pub fn situations(&self) -> usize {
        self.next[0].size()
    }

    /// Agent, choice, and the row of both.
    fn pairs(&self) -> impl Iterator<Item = (usize, usize, usize)> + use<> {
        let choices = self.choices();
        (0..self.agents * choices).map(move |row| (row / choices, row % choices, row))
    }

    /// `max_k Q(s, i, k)`, by agent and situation.
    pub fn best(&self, q: &Values) -> Values {
        let best = |i: usize, s: usize| {
            q[i * self.choices()..][..self.choices()]
                .iter()
                .fold(f64::NEG_INFINITY, |top, row| top.max(row[s]))
        };
        (0..self.agents).map(|i| (0..self.situations()).map(|s| best(i, s)).collect()).collect()
    }

    /// `Rbar + sum_s' F(s') max_k Q(s', j, k)`.
    pub fn bellman(&self, q: &Values) -> Values {
        let best = self.best(q);
        let value = |i, c, row: usize| {
            let v = &best[successor(i, c)];
            self.reward[row].iter().enumerate().map(|(s, r)| r + dot(self.next[row].row(s), v)).collect()
        };
        self.pairs().map(|(i, c, row)| value(i, c, row)).collect()
    }

    /// The fixed point of [`Options::bellman`], to 1e-12.
    pub fn optimum(&self) -> Values {
        let mut q = self.reward.clone();
        loop {
            let next = self.bellman(&q);
            let moved = distance(&next, &q);
            q = next;
            if moved < 1e-13 * (1.0 + largest(&q)) {
                return q;
            }
        }
    }

    /// The mean value of a policy over uniform agents and situations, solved exactly. `policy(i, s, c)` is the
    /// probability of a choice.
    pub fn policy_value(&self, policy: impl Fn(usize, usize, usize) -> f64) -> f64 {
        let (n, choices) = (self.situations(), self.choices());
        // (I - F_pi) V = R_pi
        let system = Square::from_fn(self.agents * n, |from, to| {
            let ((i, s), (j, t)) = ((from / n, from % n), (to / n, to % n));
            let arrives = match i == j {
                true => 0.0,
                false => {
                    let c = j - usize::from(j > i);
                    policy(i, s, c) * self.next[i * choices + c].row(s)[t]
                }
            };
            f64::from(u8::from(from == to)) - arrives
        });
        let reward: Vec<f64> = (0..self.agents * n)
            .map(|x| {
                let (i, s) = (x / n, x % n);
                (0..choices).map(|c| policy(i, s, c) * self.reward[i * choices + c][s]).sum()
            })
            .collect();
        let values = Lu::new(system).expect("discounting makes it regular").solve(&reward);
        values.iter().sum::<f64>() / values.len() as f64
    }

    /// The mean value of choosing what `q` holds for best (the first of equals); `q` need not be about these situations:
    /// `phi(i, s)` is where it is looked up.
    pub fn greedy_value(&self, q: &Values, phi: impl Fn(usize, usize) -> usize) -> f64 {
        let choices = self.choices();
        let pick = |i: usize, s: usize| {
            let o = phi(i, s);
            (1..choices).fold(0, |top, c| {
                let better = q[i * choices + c][o] > q[i * choices + top][o];
                if better { c } else { top }
            })
        };
        let picks: Vec<Vec<usize>> =
            (0..self.agents).map(|i| (0..self.situations()).map(|s| pick(i, s)).collect()).collect();
        self.policy_value(|i, s, c| f64::from(u8::from(picks[i][s] == c)))
    }
}

/// The largest difference between two tables.
pub fn distance(a: &Values, b: &Values) -> f64 {
    let cells = a.iter().flatten().zip(b.iter().flatten());
    cells.fold(0.0, |far, (x, y)| (x - y).abs().max(far))
}

fn largest(q: &Values) -> f64 {
    q.iter().flatten().fold(0.0, |top, x| x.abs().max(top))
}

/// What is known of an instance, states seen as they are.
#[derive(Clone, Debug)]
pub struct Exact {
    /// Rbar and F.
    pub options: Options,
    /// mu(z, i): how often each agent is active in each state when all choices are uniform, by agent and state; sums to 1.
    pub behaviour: Values,
    /// The chain of agents and states under uniform choices.
    pub chain: Chain,
    /// Q*.
    pub optimum: Values,
    /// The largest row sum of F: gbar, times 1 - e if the task ends.
    pub contraction: f64,
}

impl Exact {
    /// Solve the instance.
    pub fn new(env: &Synthetic) -> Self {
        let design = env.design();
        let (n, p_h, gamma) = (design.states, design.handoff, design.gamma);
        let goes_on = match design.ending {
            Ending::Restart(_) => 1.0,
            Ending::Terminal(e) => 1.0 - e,
        };
        let identity = |i: usize, j: usize| f64::from(u8::from(i == j));
        let (mut reward, mut next, mut plain) = (vec![], vec![], vec![]);
        for pair in &env.pairs {
            // Rbar = (I - gamma (1 - p_h) P)^-1 r,    F = gamma p_h (I - gamma (1 - p_h) P)^-1 P
            let stays = |gamma: f64| {
                let system = |i: usize, j: usize| identity(i, j) - gamma * (1.0 - p_h) * pair.next.row(i)[j];
                Lu::new(Square::from_fn(n, system)).expect("rows of P sum to 1 and p_h > 0")
            };
            let discounted = stays(gamma);
            reward.push(discounted.solve(&pair.reward));
            let f = discounted.solve_all(&pair.next);
            next.push(Square::from_fn(n, |i, j| goes_on * gamma * p_h * f.row(i)[j]));
            // G = p_h (I - (1 - p_h) P)^-1 P
            let g = stays(1.0).solve_all(&pair.next);
            plain.push(Square::from_fn(n, |i, j| p_h * g.row(i)[j]));
        }
        let sums = next.iter().flat_map(|f| (0..n).map(|z| f.row(z).iter().sum::<f64>()));
        let contraction = sums.fold(0.0, f64::max);
        let options = Options { agents: design.agents, reward, next };
        let chain = Chain::new(design.agents, &plain, design.ending.probability());
        Exact { optimum: options.optimum(), options, behaviour: chain.stationary(), chain, contraction }
    }

    /// What becomes of the instance when agent i sees `phi(i, z)`, one of `observations`, and all choices are uniform
    /// while it is learned.
    pub fn seen_through(&self, observations: usize, phi: impl Fn(usize, usize) -> usize) -> Seen {
        let (n, mu) = (self.options.situations(), &self.behaviour);
        let mass = |i: usize| {
            let mut mass = vec![0.0; observations];
            (0..n).for_each(|z| mass[phi(i, z)] += mu[i][z]);
            mass
        };
        let mass: Vec<Vec<f64>> = (0..self.options.agents).map(mass).collect();
        // F(o' | z) = sum_{z' in o'} F(z' | z)
        let arrive = |i: usize, c: usize, row: usize, z: usize| {
            let mut to = vec![0.0; observations];
            let f = self.options.next[row].row(z);
            (0..n).for_each(|next| to[phi(successor(i, c), next)] += f[next]);
            to
        };
        let (mut reward, mut next) = (vec![], vec![]);
        for (i, c, row) in self.options.pairs() {
            // Rhat = E_w Rbar,   Fhat(o' | o) = E_w F(o' | z),   w(z | i, o) = mu(z, i) / sum_{z in o} mu(z, i)
            let mut mean = vec![0.0; observations];
            let mut to = vec![0.0; observations * observations];
            for (z, weight) in mu[i].iter().enumerate() {
                let o = phi(i, z);
                let w = weight / mass[i][o];
                mean[o] += w * self.options.reward[row][z];
                let arrive = arrive(i, c, row, z);
                to[o * observations..][..observations].iter_mut().zip(arrive).for_each(|(x, f)| *x += w * f);
            }
            reward.push(mean);
            next.push(Square::from_fn(observations, |o, p| to[o * observations + p]));
        }
        let options = Options { agents: self.options.agents, reward, next };
        let fixed_point = options.optimum();
        let best = options.best(&fixed_point);
        let ends = best
            .iter()
            .flatten()
            .fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), v| (v.min(low), v.max(high)));
        let mut gaps = Gaps { kappa: ends.1 - ends.0, contraction: self.contraction, ..Gaps::default() };
        let mut squares = 0.0;
        for (i, c, row) in self.options.pairs() {
            for (z, weight) in mu[i].iter().enumerate() {
                let o = phi(i, z);
                let from = options.next[row].row(o);
                let differs: Vec<f64> = arrive(i, c, row, z).iter().zip(from).map(|(f, g)| f - g).collect();
                // eps = |Rbar - Rhat|,   delta_TV = 1/2 sum |F - Fhat|,   kv = |sum (F - Fhat) Vhat_j|
                let eps = (self.options.reward[row][z] - options.reward[row][o]).abs();
                let tv = 0.5 * differs.iter().map(|d| d.abs()).sum::<f64>();
                let kv = dot(&differs, &best[successor(i, c)]).abs();
                let error = fixed_point[row][o] - self.optimum[row][z];
                let weight = weight / self.options.choices() as f64;
                gaps.eps.add(eps, weight);
                gaps.tv.add(tv, weight);
                gaps.kv.add(kv, weight);
                gaps.error_sup = error.abs().max(gaps.error_sup);
                squares += weight * error * error;
            }
        }
        gaps.error_squared = squares;
        Seen { fixed_point, gaps, options }
    }

    /// `E [(Q_i(phi_i(z), j) - Q*(z, i, j))^2]` under mu and uniform choices.
    pub fn squared_error(&self, q: &Values, phi: impl Fn(usize, usize) -> usize) -> f64 {
        self.expectation(|i, row, z| (q[row][phi(i, z)] - self.optimum[row][z]).powi(2))
    }

    /// `E [Q_i(phi_i(z), j) - Q*(z, i, j)]` under mu and uniform choices.
    pub fn mean_error(&self, q: &Values, phi: impl Fn(usize, usize) -> usize) -> f64 {
        self.expectation(|i, row, z| q[row][phi(i, z)] - self.optimum[row][z])
    }

    /// `E [(Q_i(o, j) - Qhat_i(o, j))^2]`, `o = phi_i(z)`, under mu and uniform choices.
    pub fn squared_distance(&self, q: &Values, other: &Values, phi: impl Fn(usize, usize) -> usize) -> f64 {
        self.expectation(|i, row, z| (q[row][phi(i, z)] - other[row][phi(i, z)]).powi(2))
    }

    /// `sum_{z, i, j} mu(z, i) / (N - 1) f(i, row of i and j, z)`.
    pub fn expectation(&self, f: impl Fn(usize, usize, usize) -> f64) -> f64 {
        let of = |(i, _, row): (usize, usize, usize)| -> f64 {
            self.behaviour[i].iter().enumerate().map(|(z, mu)| mu * f(i, row, z)).sum()
        };
        self.options.pairs().map(of).sum::<f64>() / self.options.choices() as f64
    }
}

/// What an instance is to agents that see it through a map: the abstract decision process of Theorem 1 (AIS).
pub struct Seen {
    /// Qhat: what tabular IC-Q converges to under uniform choices, by agent and choice, by observation.
    pub fixed_point: Values,
    /// How far it is from the instance.
    pub gaps: Gaps,
    /// Rhat and Fhat.
    pub options: Options,
}

/// A mean under mu and uniform choices, and a largest value.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Gap {
    /// Mean.
    pub mean: f64,
    /// Largest.
    pub sup: f64,
}

impl Gap {
    fn add(&mut self, value: f64, weight: f64) {
        self.mean += weight * value;
        self.sup = self.sup.max(value);
    }
}

/// How much a map hides.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Gaps {
    /// Of rewards.
    pub eps: Gap,
    /// Of transitions, in total variation.
    pub tv: Gap,
    /// Of transitions, as Vhat feels them.
    pub kv: Gap,
    /// The span of Vhat.
    pub kappa: f64,
    /// `sup |Q* - Qhat o phi|`.
    pub error_sup: f64,
    /// The mean of its square under mu.
    pub error_squared: f64,
    contraction: f64,
}

impl Gaps {
    /// `(eps_mean + kv_mean) / (1 - gbar)`.
    pub fn proxy_kv(&self) -> f64 {
        (self.eps.mean + self.kv.mean) / (1.0 - self.contraction)
    }

    /// `(eps_mean + kappa delta_mean) / (1 - gbar)`.
    pub fn proxy_tv(&self) -> f64 {
        (self.eps.mean + self.kappa * self.tv.mean) / (1.0 - self.contraction)
    }

    /// `(eps_sup + kv_sup) / (1 - gbar)`, which `error_sup` cannot exceed.
    pub fn bound(&self) -> f64 {
        (self.eps.sup + self.kv.sup) / (1.0 - self.contraction)
    }
}

#[cfg(test)]
mod tests {
    use relevo_core::{Rng, ids::ActionId};

    use super::*;
    use crate::{
        environment::{Environment, Next},
        environments::synthetic::{Design, Generator, ObservationMap},
    };

    const GENERATORS: [Generator; 3] = [Generator::smooth(8), Generator::Dense, Generator::Garnet];

    fn seen(env: &Synthetic, exact: &Exact) -> Seen {
        exact.seen_through(env.design().observations(), |i, z| env.observed(i, z))
    }

    #[test]
    fn the_optimum_solves_its_equation_and_mu_is_stationary() {
        for (seed, generator) in GENERATORS.into_iter().enumerate() {
            for handoff in [0.2, 0.5, 1.0] {
                let design = Design { states: 16, generator, handoff, ..Design::default() };
                let env = Synthetic::new(design, seed as u64);
                let exact = Exact::new(&env);
                assert!(distance(&exact.options.bellman(&exact.optimum), &exact.optimum) < 1e-11);
                // Every option of the model lasts as long, whatever the state: F has constant row sums.
                assert!((exact.contraction - design.discount_mean()).abs() < 1e-12);
                let mass: f64 = exact.behaviour.iter().flatten().sum();
                assert!((mass - 1.0).abs() < 1e-12 && exact.behaviour.iter().flatten().all(|m| *m > 0.0));
                // The best choices are worth what the optimum says.
                let best = exact.options.best(&exact.optimum);
                let mean = best.iter().flatten().sum::<f64>() / (4.0 * 16.0);
                let value = exact.options.greedy_value(&exact.optimum, |_, z| z);
                assert!((value - mean).abs() < 1e-10);
            }
        }
    }

    #[test]
    fn a_map_that_hides_nothing_leaves_no_gap() {
        for generator in GENERATORS {
            for map in
                [ObservationMap::TailMergeUnpermuted, ObservationMap::Bucket, ObservationMap::TailMerge]
            {
                let env = Synthetic::new(Design { states: 16, generator, map, ..Design::default() }, 4);
                let exact = Exact::new(&env);
                let seen = seen(&env, &exact);
                assert!(seen.gaps.bound() < 1e-12 && seen.gaps.error_sup < 1e-11, "{map:?}");
                let learned = exact.squared_error(&seen.fixed_point, |i, z| env.observed(i, z));
                assert!(learned < 1e-20);
            }
        }
    }

    /// `sup |Q* - Qhat o phi| <= (eps_sup + kv_sup) / (1 - gbar)`.
    #[test]
    fn the_bound_holds() {
        let maps = [ObservationMap::TailMergeUnpermuted, ObservationMap::Bucket, ObservationMap::TailMerge];
        for generator in GENERATORS {
            for map in maps {
                for rho in [0.8, 0.6, 0.4, 0.2, 0.01] {
                    for ending in [Ending::Restart(0.02), Ending::Terminal(0.05)] {
                        let design = Design { states: 16, generator, map, rho, ending, ..Design::default() };
                        let env = Synthetic::new(design, 5);
                        let gaps = seen(&env, &Exact::new(&env)).gaps;
                        assert!(gaps.error_sup <= gaps.bound() + 1e-10, "{design:?}: {gaps:?}");
                        assert!(gaps.error_sup > 0.0);
                    }
                }
            }
        }
    }

    /// 20,000 episodes each of choosing at random and of the best choices: the mean return meets the exact value within 5
    /// standard errors (false alarm below 1e-6 a check; the seeds are fixed).
    #[test]
    fn sampled_returns_meet_the_exact_values() {
        for (generator, best) in GENERATORS.into_iter().zip([true, false, true]) {
            let ending = Ending::Terminal(0.05);
            let design = Design { states: 16, generator, noise: 0.5, ending, ..Design::default() };
            let mut env = Synthetic::new(design, 6);
            let exact = Exact::new(&env);
            let value = match best {
                true => exact.options.greedy_value(&exact.optimum, |_, z| z),
                false => exact.options.policy_value(|_, _, _| 1.0 / 3.0),
            };
            let mut rng = Rng::stream(6, "choices");
            let (mut sum, mut squares, n) = (0.0, 0.0, 20_000);
            for seed in 0..n {
                let mut agent = env.reset(seed).0 as usize;
                let (mut total, mut discount) = (0.0, 1.0);
                loop {
                    let q = |c: usize| exact.optimum[agent * 3 + c][env.state];
                    let choice = match best {
                        true => (1..3).fold(0, |top, c| if q(c) > q(top) { c } else { top }),
                        false => rng.below(3) as usize,
                    };
                    let t = env.step(ActionId(choice as u32));
                    total += discount * t.reward.get();
                    discount *= env.spec().discount.over(t.tau);
                    match t.next {
                        Next::Active(next) => agent = next.0 as usize,
                        Next::Terminal => break,
                    }
                }
                sum += total;
                squares += total * total;
            }
            let mean = sum / n as f64;
            let error = ((squares / n as f64 - mean * mean) / n as f64).sqrt();
            assert!((mean - value).abs() < 5.0 * error, "{generator:?}: {mean} ± {error} for {value}");
        }
    }

    /// 400,000 handoffs at random, 16 batches: the agents and states met have the frequencies of mu, within 6 standard
    /// errors of the batch means (64 checks, false alarm about 1e-3; the seed is fixed).
    #[test]
    fn a_task_that_continues_meets_states_as_often_as_mu_says() {
        let mut env = Synthetic::new(Design { states: 8, ..Design::default() }, 7);
        let exact = Exact::new(&env);
        let mut rng = Rng::stream(7, "choices");
        let mut agent = env.reset(1).0 as usize;
        let (batches, length) = (16, 25_000);
        let mut counts = vec![vec![0.0; batches]; 32];
        for handoff in 0..batches * length {
            counts[agent * 8 + env.state][handoff / length] += 1.0 / length as f64;
            let t = env.step(ActionId(rng.below(3)));
            let Next::Active(next) = t.next else { panic!("it continues") };
            agent = env.restarts().unwrap_or(next).0 as usize;
        }
        for (frequency, mu) in counts.iter().zip(exact.behaviour.iter().flatten()) {
            let mean = frequency.iter().sum::<f64>() / batches as f64;
            let variance = frequency.iter().map(|f| (f - mean).powi(2)).sum::<f64>() / (batches - 1) as f64;
            assert!((mean - mu).abs() < 6.0 * (variance / batches as f64).sqrt(), "{mean} for {mu}");
        }
    }
}
