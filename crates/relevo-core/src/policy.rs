//! Policies: from values to a choice, with the probability of every choice. Called by [`crate::learner`] at each
//! decision; the whole vector goes into the decision's record.
//!
//! A policy first computes its probability vector and then draws from it, so the recorded vector is the
//! propensity by construction, and replaying the record's stream position gives the same choice again.

use libm::{log, sqrt};
use smallvec::SmallVec;

use crate::{
    graph::Edge,
    ids::{ActionId, EpisodeId},
    largest::probability_of_largest,
    observation::{ActionSet, Signature},
    rng::Rng,
    step::Schedule,
};

/// What a policy may look at.
#[derive(Clone, Copy, Debug)]
pub struct Scores<'a> {
    /// The admissible choices; at least one.
    pub legal: &'a ActionSet,
    /// The value of every choice, by column.
    pub values: &'a [f64],
    /// Visits and failures of every choice, by column; empty where nothing is known.
    pub edges: &'a [Edge],
    /// Standard errors carried by successors' values, by column; empty unless that extension is on.
    pub spreads: &'a [f64],
    /// Visits that a prior stands for, by column; empty where there is none.
    pub pseudo: &'a [f64],
    /// The situation.
    pub signature: Signature,
    /// The task.
    pub episode: EpisodeId,
    /// Time in the unit of the schedules.
    pub clock: u64,
}

impl Scores<'_> {
    /// Visits of a choice, those of its prior among them.
    fn visits(&self, a: ActionId) -> f64 {
        let own = self.edges.get(a.index()).map_or(0, |e| e.visits);
        f64::from(own) + self.pseudo.get(a.index()).copied().unwrap_or(0.0)
    }

    /// Visits of the situation, those of priors among them.
    fn visits_of_all(&self) -> f64 {
        let own: u64 = self.edges.iter().map(|e| u64::from(e.visits)).sum();
        own as f64 + self.pseudo.iter().sum::<f64>()
    }

    fn failures(&self, a: ActionId) -> u32 {
        self.edges.get(a.index()).map_or(0, |e| e.failures)
    }
}

/// One number a choice, kept in place up to 16 of them: decisions are taken without asking for memory.
pub type Numbers = SmallVec<[f64; 16]>;

/// One choice, with the probability that each admissible choice had.
#[derive(Clone, Debug, PartialEq)]
pub struct Decision {
    /// What was chosen.
    pub action: ActionId,
    /// The probability of each admissible choice, in the order of the set; sums to 1.
    pub probabilities: Numbers,
    /// Whether the choice has the largest value of all admissible ones.
    pub greedy: bool,
    /// Position of the random stream before the draw.
    pub position: u64,
}

/// A rule that turns values into a choice.
pub trait Policy {
    /// The probability of each admissible choice, in the order of the set.
    fn probabilities(&self, scores: Scores<'_>) -> Numbers;

    /// Choose: one draw from [`Policy::probabilities`].
    fn decide(&self, scores: Scores<'_>, rng: &mut Rng) -> Decision {
        let position = rng.position();
        let probabilities = self.probabilities(scores);
        let action = draw(scores.legal, probabilities.iter().copied(), rng);
        Decision { action, greedy: is_greedy(scores, action), probabilities, position }
    }

    /// The choice of [`Policy::decide`], from the same draw, where nobody asks for the probabilities.
    fn choose(&self, scores: Scores<'_>, rng: &mut Rng) -> ActionId {
        draw(scores.legal, self.probabilities(scores).iter().copied(), rng)
    }
}

/// Why a decision without an admissible choice panics.
const NO_CHOICE: &str = "a decision is asked for with at least one admissible choice";

/// One draw from the probabilities of the admissible choices.
fn draw(legal: &ActionSet, probabilities: impl Iterator<Item = f64>, rng: &mut Rng) -> ActionId {
    let mut rest = rng.unit();
    // A sum of probabilities may end just below the draw: then the last possible choice is meant.
    let mut chosen = None;
    for (place, p) in probabilities.enumerate() {
        if p > 0.0 {
            chosen = Some(place);
            if rest < p {
                break;
            }
        }
        rest -= p;
    }
    chosen.and_then(|place| legal.nth(place)).expect(NO_CHOICE)
}

/// How equal values are told apart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Ties {
    /// The lowest column wins: teams put "finish" first, then fewer handoffs are preferred.
    #[default]
    First,
    /// All share the probability (routing).
    Random,
}

/// The policies that a team can be given.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum PolicySpec {
    /// With probability epsilon a uniform choice, else the best.
    EpsilonGreedy(EpsilonGreedy),
    /// Annealed, reliability-aware upper confidence bounds.
    Ucb(Ucb),
    /// A Gaussian posterior around each value, one sample of it held for a whole episode.
    Posterior(Posterior),
}

impl Policy for PolicySpec {
    fn probabilities(&self, scores: Scores<'_>) -> Numbers {
        match self {
            PolicySpec::EpsilonGreedy(policy) => policy.probabilities(scores),
            PolicySpec::Ucb(policy) => policy.probabilities(scores),
            PolicySpec::Posterior(policy) => policy.probabilities(scores),
        }
    }

    fn decide(&self, scores: Scores<'_>, rng: &mut Rng) -> Decision {
        match self {
            PolicySpec::EpsilonGreedy(policy) => policy.decide(scores, rng),
            PolicySpec::Ucb(policy) => policy.decide(scores, rng),
            PolicySpec::Posterior(policy) => policy.decide(scores, rng),
        }
    }

    fn choose(&self, scores: Scores<'_>, rng: &mut Rng) -> ActionId {
        match self {
            PolicySpec::EpsilonGreedy(policy) => policy.choose(scores, rng),
            PolicySpec::Ucb(policy) => policy.choose(scores, rng),
            PolicySpec::Posterior(policy) => policy.choose(scores, rng),
        }
    }
}

/// With probability epsilon a uniform choice, else the best.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct EpsilonGreedy {
    /// epsilon.
    pub epsilon: Schedule,
    /// How equal values are told apart.
    pub ties: Ties,
}

impl Policy for EpsilonGreedy {
    fn probabilities(&self, scores: Scores<'_>) -> Numbers {
        let best = match self.ties {
            Ties::First => only(scores, first_best(scores)),
            Ties::Random => best(scores, self.ties, |a| scores.values[a.index()]),
        };
        mix(best, self.epsilon.at(scores.clock))
    }

    fn choose(&self, scores: Scores<'_>, rng: &mut Rng) -> ActionId {
        let probability = match self.ties {
            Ties::First => mixture(self.epsilon.at(scores.clock), scores.legal.len()),
            Ties::Random => return draw(scores.legal, self.probabilities(scores).iter().copied(), rng),
        };
        let best = first_best(scores);
        let places = 0..scores.legal.len();
        draw(scores.legal, places.map(|place| probability(f64::from(u8::from(place == best)))), rng)
    }
}

/// The score of AgensFlow (its section 3.4), mixed with a floor so that every choice keeps a known probability.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Ucb {
    /// Exploration at the first visit of a node, c0.
    pub exploration: f64,
    /// Exploration never falls below this.
    pub exploration_min: f64,
    /// Visits of a node after which c has halved.
    pub half_life: f64,
    /// Weight of the failure rate, lambda.
    pub reliability: f64,
    /// Visits that a situation needs before scores count; below them the first admissible choice is taken.
    pub warm_up: u64,
    /// Probability spread evenly over all admissible choices; 0 decides by the scores alone.
    pub floor: f64,
    /// How equal scores are told apart.
    pub ties: Ties,
}

impl Default for Ucb {
    fn default() -> Self {
        Ucb {
            exploration: 1.4,
            exploration_min: 0.5,
            half_life: 50.0,
            reliability: 0.5,
            warm_up: 0,
            floor: 0.01,
            ties: Ties::First,
        }
    }
}

impl Ucb {
    /// The score of a choice: mean, plus a bonus for what is little known, minus a penalty for what fails.
    /// `node` is N, `n` the visits and `f` the failures of the choice, `mean` its value; a prior counts among the
    /// visits.
    pub fn score(&self, node: f64, n: f64, f: u32, mean: f64) -> f64 {
        // c(N) = max(c_min, c0 2^(-N / half_life));  c0 at N <= 0
        let c = (self.exploration * libm::pow(0.5, node / self.half_life)).max(self.exploration_min);
        let f = f64::from(f);
        if n == 0.0 && f == 0.0 {
            f64::INFINITY
        } else if n == 0.0 {
            // -lambda + c sqrt(ln(N + 1) / max(1, f))
            -self.reliability + c * sqrt(log(node + 1.0) / f.max(1.0))
        } else {
            // Q + c sqrt(ln(N + 1) / n) - lambda f / (n + f)
            mean + c * sqrt(log(node + 1.0) / n) - self.reliability * f / (n + f)
        }
    }
}

impl Policy for Ucb {
    fn probabilities(&self, scores: Scores<'_>) -> Numbers {
        let node = scores.visits_of_all();
        if node < self.warm_up as f64 {
            return mix(only(scores, 0), self.floor);
        }
        let best = best(scores, self.ties, |a| {
            self.score(node, scores.visits(a), scores.failures(a), scores.values[a.index()])
        });
        mix(best, self.floor)
    }
}

/// Posterior sampling: each value is taken to be `N(Q, variance / (n + 1))`, n with the visits of a prior; one sample of all of them is held for
/// the whole episode and followed greedily, mixed with a floor.
///
/// The recorded probabilities are those of being the best in a fresh sample (by quadrature, to 5e-4), that is,
/// over the sample of the episode. The sample itself is a function of the stream, the episode and the situation, so
/// that holding it needs no memory and replaying a decision needs no history.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Posterior {
    /// Variance of one sample of a target; the prior counts as one sample.
    pub variance: f64,
    /// Probability spread evenly over all admissible choices.
    pub floor: f64,
}

impl Posterior {
    fn deviation(&self, scores: Scores<'_>, a: ActionId) -> f64 {
        let own = self.variance / (scores.visits(a) + 1.0);
        // The uncertainty that came with the successors' values adds to the agent's own.
        let passed = scores.spreads.get(a.index()).copied().unwrap_or(0.0);
        sqrt(own + passed * passed)
    }
}

impl Policy for Posterior {
    fn probabilities(&self, scores: Scores<'_>) -> Numbers {
        let posterior = |a: ActionId| (scores.values[a.index()], self.deviation(scores, a));
        let posteriors: SmallVec<[(f64, f64); 16]> = scores.legal.iter().map(posterior).collect();
        mix(probability_of_largest(&posteriors), self.floor)
    }

    fn decide(&self, scores: Scores<'_>, rng: &mut Rng) -> Decision {
        let position = rng.position();
        let action = self.choose(scores, rng);
        let probabilities = self.probabilities(scores);
        Decision { action, greedy: is_greedy(scores, action), probabilities, position }
    }

    fn choose(&self, scores: Scores<'_>, rng: &mut Rng) -> ActionId {
        if rng.unit() < self.floor {
            let nth = rng.below(scores.legal.len() as u32) as usize;
            return scores.legal.nth(nth).expect(NO_CHOICE);
        }
        let EpisodeId(episode) = scores.episode;
        let mut held = rng.fork([episode as u64, (episode >> 64) as u64, scores.signature.0]);
        let mut best: Option<(ActionId, f64)> = None;
        // One deviate a column, legal or not: the sample does not depend on what else is admissible. Where even its
        // bound is not better than the best so far, the deviate is drawn and not worked out.
        for a in (0..scores.values.len() as u32).map(ActionId) {
            let legal = scores.legal.contains(a);
            let (value, deviation) = (scores.values[a.index()], self.deviation(scores, a));
            let is_better = |z: f64| legal && best.is_none_or(|(_, top)| value + deviation * z > top);
            if let Some(z) = held.normal_if(is_better).filter(|z| is_better(*z)) {
                best = Some((a, value + deviation * z));
            }
        }
        best.expect(NO_CHOICE).0
    }
}

/// The first admissible choice with the largest score.
pub fn argmax(legal: &ActionSet, score: impl Fn(ActionId) -> f64) -> Option<ActionId> {
    let mut best: Option<(ActionId, f64)> = None;
    for a in legal.iter() {
        let s = score(a);
        if best.is_none_or(|(_, b)| s > b) {
            best = Some((a, s));
        }
    }
    best.map(|(a, _)| a)
}

/// The first admissible choice with the largest of `values`.
pub(crate) fn most_valued(legal: &ActionSet, values: &[f64]) -> Option<ActionId> {
    if !legal.is_prefix() || legal.is_empty() {
        return argmax(legal, |a| values[a.index()]);
    }
    // Most often all choices are admissible: then this is a plain loop.
    let (mut best, mut top) = (0, values[0]);
    for (a, v) in values[..legal.len()].iter().enumerate() {
        if *v > top {
            (best, top) = (a, *v);
        }
    }
    Some(ActionId(best as u32))
}

/// The place of [`most_valued`] among the admissible choices.
fn first_best(scores: Scores<'_>) -> usize {
    let best = most_valued(scores.legal, scores.values).expect("at least one admissible choice");
    scores.legal.place(best)
}

/// Whether no admissible choice is worth more.
pub(crate) fn is_greedy(scores: Scores<'_>, action: ActionId) -> bool {
    let value = scores.values[action.index()];
    match scores.legal.is_prefix() {
        true => scores.values[..scores.legal.len()].iter().all(|v| *v <= value),
        false => scores.legal.iter().all(|a| scores.values[a.index()] <= value),
    }
}

/// The distribution on the choice at `place`.
fn only(scores: Scores<'_>, place: usize) -> Numbers {
    let mut p = Numbers::from_elem(0.0, scores.legal.len());
    p[place] = 1.0;
    p
}

/// The distribution on the best choices.
fn best(scores: Scores<'_>, ties: Ties, score: impl Fn(ActionId) -> f64) -> Numbers {
    let top = argmax(scores.legal, &score).expect("at least one admissible choice");
    if ties == Ties::First {
        return only(scores, scores.legal.place(top));
    }
    let best = score(top);
    let mut p: Numbers = scores.legal.iter().map(|a| f64::from(u8::from(score(a) == best))).collect();
    let n: f64 = p.iter().sum();
    p.iter_mut().for_each(|x| *x /= n);
    p
}

/// `(1 - share) p + share / k`: a mixture with the uniform distribution on `k` choices.
fn mixture(share: f64, k: usize) -> impl Fn(f64) -> f64 {
    let uniform = share / k as f64;
    move |p| (1.0 - share) * p + uniform
}

fn mix(mut p: Numbers, share: f64) -> Numbers {
    let mixed = mixture(share, p.len());
    p.iter_mut().for_each(|x| *x = mixed(*x));
    p
}

#[cfg(test)]
mod tests {
    use alloc::vec::Vec;

    use super::*;

    fn edges(visits: &[u32]) -> Vec<Edge> {
        visits.iter().map(|n| Edge { value: 0.0, visits: *n, failures: 0 }).collect()
    }

    fn scores<'a>(legal: &'a ActionSet, values: &'a [f64], edges: &'a [Edge]) -> Scores<'a> {
        let (signature, episode) = (Signature(1), EpisodeId(1));
        Scores { legal, values, edges, spreads: &[], pseudo: &[], signature, episode, clock: 0 }
    }

    fn greedy(epsilon: f64, ties: Ties) -> PolicySpec {
        PolicySpec::EpsilonGreedy(EpsilonGreedy { epsilon: Schedule::Constant(epsilon), ties })
    }

    /// 40,000 decisions: each frequency lies within 5 standard errors of the stated probability (plus the 5e-4 of
    /// the quadrature for posterior sampling); false alarm below 1e-5.
    #[test]
    fn what_is_chosen_has_the_stated_probability() {
        let legal: ActionSet = [0, 2, 3].map(ActionId).into_iter().collect();
        let (values, edges) = ([0.1, 9.0, 0.15, 0.1], edges(&[3, 0, 5, 40]));
        let policies = [
            (greedy(0.3, Ties::First), 0.0),
            (greedy(0.1, Ties::Random), 0.0),
            (PolicySpec::Ucb(Ucb { floor: 0.2, ..Ucb::default() }), 0.0),
            (PolicySpec::Posterior(Posterior { variance: 0.25, floor: 0.1 }), 5e-4),
        ];
        for (policy, slack) in policies {
            let mut rng = Rng::stream(5, "frequencies");
            let mut counts = [0.0; 4];
            let n = 40_000;
            for episode in 0..n {
                let scores = Scores { episode: EpisodeId(episode), ..scores(&legal, &values, &edges) };
                counts[policy.decide(scores, &mut rng).action.index()] += 1.0;
            }
            let p = policy.probabilities(scores(&legal, &values, &edges));
            assert!((p.iter().sum::<f64>() - 1.0).abs() < 1e-12 && counts[1] == 0.0, "{policy:?}");
            for (a, p) in legal.iter().zip(&p) {
                let frequency = counts[a.index()] / n as f64;
                let error = 5.0 * (p * (1.0 - p) / n as f64).sqrt() + slack;
                assert!((frequency - p).abs() <= error, "{policy:?} {a:?}: {frequency} for {p}");
            }
        }
    }

    #[test]
    fn a_posterior_sample_is_held_for_the_episode() {
        let policy = PolicySpec::Posterior(Posterior { variance: 1.0, floor: 0.0 });
        let (legal, values) = (ActionSet::all(4), [0.0; 4]);
        let mut rng = Rng::stream(5, "held");
        let first = policy.decide(scores(&legal, &values, &[]), &mut rng).action;
        for _ in 0..20 {
            assert_eq!(policy.decide(scores(&legal, &values, &[]), &mut rng).action, first);
        }
    }

    #[test]
    fn below_the_warm_up_the_first_admissible_choice_is_taken() {
        let ucb = Ucb { warm_up: 5, floor: 0.0, ..Ucb::default() };
        let legal: ActionSet = [1, 3].map(ActionId).into_iter().collect();
        let values = [0.0, 0.2, 0.0, 0.9];
        // Visits of choices that are not admissible here count too: they are the situation's.
        for (visits, first) in [([1, 1, 1, 1], 1.0), ([2, 1, 1, 1], 0.0)] {
            let edges = edges(&visits);
            assert_eq!(ucb.probabilities(scores(&legal, &values, &edges)).as_slice(), [first, 1.0 - first]);
        }
    }

    #[test]
    fn a_prior_counts_as_visits() {
        let (legal, values) = (ActionSet::all(3), [0.5, 0.25, 0.5]);
        let visited = edges(&[2, 1, 4]);
        let ucb = PolicySpec::Ucb(Ucb { floor: 0.0, ..Ucb::default() });
        let posterior = PolicySpec::Posterior(Posterior { variance: 0.25, floor: 0.1 });
        for policy in [ucb, posterior] {
            let prior = Scores { pseudo: &[2.0, 1.0, 4.0], ..scores(&legal, &values, &[]) };
            let own = policy.probabilities(scores(&legal, &values, &visited));
            assert_eq!(policy.probabilities(prior), own, "{policy:?}");
        }
        // Only what neither a visit, a prior nor a failure speaks of is tried by force.
        for (pseudo, chosen) in [([0.5, 0.0, 0.5], 1), ([0.5, 0.5, 0.5], 0)] {
            let scores = Scores { pseudo: &pseudo, ..scores(&legal, &values, &[]) };
            assert_eq!(ucb.probabilities(scores)[chosen], 1.0);
        }
    }

    #[test]
    fn the_score_is_that_of_agensflow() {
        let ucb = Ucb::default();
        assert_eq!(ucb.score(0.0, 0.0, 0, 0.0), f64::INFINITY);
        assert_eq!(ucb.score(50.0, 4.0, 1, 0.5), 0.5 + 0.7 * sqrt(log(51.0) / 4.0) - 0.5 * 1.0 / 5.0);
        assert_eq!(ucb.score(1000.0, 0.0, 2, 0.0), -0.5 + 0.5 * sqrt(log(1001.0) / 2.0));
    }
}
