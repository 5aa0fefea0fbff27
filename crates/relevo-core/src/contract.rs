//! Laws: what every [`QFunction`] and every [`Policy`] must obey for [`crate::learner`] to be right about them.
//!
//! Each function tries one implementation on situations of the caller's choosing and panics with the law that was
//! broken, and where. They are meant for tests, of this crate's estimators and policies and of anybody else's:
//!
//! ```
//! use relevo_core::{contract, graph::PolicyGraph, ids::ActionId, step::StepRule};
//! use relevo_core::observation::{ActionSet, Observation, Signature};
//! let situations: Vec<_> = (0..3).map(|s| Observation::of(Signature(s), ActionSet::all(2))).collect();
//! contract::obeys_q_laws(|| PolicyGraph::new(2, 0.0, StepRule::Constant(0.5), 100), &situations);
//! ```

use alloc::{vec, vec::Vec};

use crate::{
    ids::{ActionId, EpisodeId},
    observation::Observation,
    policy::{Numbers, Policy, Scores},
    q::QFunction,
    rng::Rng,
};

/// What the two sums of a law may differ by, relative to their size: an estimator may keep its numbers in 32 bits.
const SLACK: f64 = 1e-5;

/// Check that what `make` makes is a Q-function, on these observations; each call must make it afresh and alike.
///
/// 1. Reading: `values` writes exactly the first `width` cells, with finite numbers, and the same ones every time.
/// 2. Moving: `update` returns `target - Q(o, a)` as it was before, moves `Q(o, a)` towards the target, and does not
///    leave it further away than it was.
/// 3. Standing still: a step of 0 changes no value anywhere.
/// 4. Determinism: the same updates give the same values, bit for bit.
///
/// An estimator that collects updates and moves later is to be made with a batch of one here.
///
/// # Panics
/// If a law is broken, saying which and where.
pub fn obeys_q_laws<Q: QFunction>(make: impl Fn() -> Q, observations: &[Observation]) {
    assert!(!observations.is_empty(), "the laws of Q-functions need at least one observation");
    let width = make().width();
    assert!(width > 0, "a Q-function has at least one choice, this one has none");

    for (i, o) in observations.iter().enumerate() {
        let q = make();
        reads(&q, o, i);
        for a in (0..width as u32).map(ActionId) {
            for (target, step) in [(1.0, 0.1), (-1.0, 0.1), (0.25, 0.5)] {
                let mut q = make();
                moves(&mut q, o, a, target, step, i);
            }
            let mut q = make();
            // Stands still, also after it has learned something.
            q.update(o, a, 0.5, 0.1);
            let before = all_values(&q, observations);
            q.update(o, a, 7.0, 0.0);
            assert!(
                before == all_values(&q, observations),
                "a step of 0 changes nothing: observation {i}, {a:?} moved a value"
            );
        }
    }

    let learned = || {
        let mut q = make();
        for round in 0..3 {
            for (i, o) in observations.iter().enumerate() {
                let a = ActionId(((i + round) % width) as u32);
                q.update(o, a, 0.3 * i as f64 - 0.2 * round as f64, 0.1);
            }
        }
        observations.iter().enumerate().for_each(|(i, o)| reads(&q, o, i));
        all_values(&q, observations)
    };
    assert!(learned() == learned(), "the same updates give the same values, bit for bit: two runs differ");
}

fn reads(q: &impl QFunction, o: &Observation, i: usize) {
    const MARK: f64 = -1234.5;
    let width = q.width();
    let mut out = vec![MARK; width + 2];
    q.values(o, &mut out);
    assert!(
        out[width..].iter().all(|v| *v == MARK),
        "values writes only the first {width} cells: at observation {i} it wrote beyond"
    );
    assert!(
        out[..width].iter().all(|v| v.is_finite()),
        "values are finite: observation {i} has {:?}",
        &out[..width]
    );
    let mut again = vec![f64::NAN; width];
    q.values(o, &mut again);
    assert!(
        bits(&out[..width]) == bits(&again),
        "values is pure and writes every cell: observation {i} gave {:?}, then {again:?}",
        &out[..width]
    );
}

fn moves(q: &mut impl QFunction, o: &Observation, a: ActionId, target: f64, step: f64, i: usize) {
    let at = |q: &_| values_of(q, o)[a.index()];
    let old = at(q);
    let error = q.update(o, a, target, step);
    let new = at(q);
    let slack = SLACK * (1.0 + target.abs() + old.abs());
    assert!(
        (error - (target - old)).abs() <= slack,
        "update returns the error before it: observation {i}, {a:?} had {old}, target {target}, returned {error}"
    );
    if (target - old).abs() > slack {
        assert!(
            (new - old) * (target - old) > 0.0,
            "update moves the value towards the target: observation {i}, {a:?} went from {old} to {new}, not to {target}"
        );
    }
    assert!(
        (target - new).abs() <= (target - old).abs() + slack,
        "update does not overshoot: observation {i}, {a:?} went from {old} past {target} to {new}"
    );
}

fn values_of(q: &(impl QFunction + ?Sized), o: &Observation) -> Vec<f64> {
    let mut out = vec![0.0; q.width()];
    q.values(o, &mut out);
    out
}

fn all_values(q: &impl QFunction, observations: &[Observation]) -> Vec<u64> {
    observations.iter().flat_map(|o| bits(&values_of(q, o))).collect()
}

fn bits(values: &[f64]) -> Vec<u64> {
    values.iter().map(|v| v.to_bits()).collect()
}

/// Check that a policy is one, in these situations; `seed` is that of the random draws.
///
/// 1. Its probabilities are one for each admissible choice, none negative, and sum to 1 within 1e-12; asked again,
///    they are the same bit for bit; and the values of choices that are not admissible do not enter.
/// 2. It chooses an admissible choice of positive probability, tells its probabilities as in 1 and truly whether the
///    choice has the largest value.
/// 3. `position` is where the random stream stood; taken back there, it chooses the same again, whether it tells its
///    probabilities or not.
///
/// # Panics
/// If a law is broken, saying which and where.
pub fn obeys_policy_laws(policy: &impl Policy, situations: &[Scores<'_>], seed: u64) {
    assert!(!situations.is_empty(), "the laws of policies need at least one situation");
    let mut rng = Rng::stream(seed, "contract/policy");
    for (i, situation) in situations.iter().enumerate() {
        let legal: Vec<ActionId> = situation.legal.iter().collect();
        assert!(
            !legal.is_empty(),
            "situation {i} has no admissible choice: no policy is asked to decide there"
        );
        for round in 0..8 {
            let scores = Scores { episode: EpisodeId(round), ..*situation };
            let p = policy.probabilities(scores);
            distribution(&p, legal.len(), i);
            let same = |other: Numbers| bits(&p) == bits(&other);
            assert!(
                same(policy.probabilities(scores)),
                "probabilities are pure: situation {i} gave two answers"
            );

            let mut values = scores.values.to_vec();
            let inadmissible = |a: &usize| !legal.contains(&ActionId(*a as u32));
            (0..values.len()).filter(inadmissible).for_each(|a| values[a] = 1e6);
            assert!(
                same(policy.probabilities(Scores { values: &values, ..scores })),
                "the values of inadmissible choices do not enter: situation {i}"
            );

            let position = rng.position();
            let decision = policy.decide(scores, &mut rng);
            let place = legal.iter().position(|a| *a == decision.action);
            let place =
                place.unwrap_or_else(|| panic!("a choice is admissible: situation {i} gave {decision:?}"));
            assert!(
                p[place] > 0.0,
                "what is chosen has positive probability: situation {i} gave {decision:?}"
            );
            assert!(
                same(decision.probabilities.clone()),
                "a decision tells the policy's probabilities {p:?}: situation {i} gave {decision:?}"
            );
            let value = |a: ActionId| scores.values[a.index()];
            assert!(
                decision.greedy == legal.iter().all(|a| value(*a) <= value(decision.action)),
                "a decision is greedy if no admissible choice is worth more: situation {i} gave {decision:?}"
            );
            assert!(
                decision.position == position,
                "a decision tells where the stream stood ({position}): situation {i} gave {decision:?}"
            );
            let mut back = rng.clone();
            back.seek(decision.position);
            let again = policy.decide(scores, &mut back);
            assert!(
                again == decision && back.position() == rng.position(),
                "the same position gives the same decision: situation {i} gave {decision:?}, then {again:?}"
            );
            back.seek(decision.position);
            let chosen = policy.choose(scores, &mut back);
            assert!(
                chosen == decision.action && back.position() == rng.position(),
                "a choice is the decision without its probabilities: situation {i} gave {decision:?}, then {chosen:?}"
            );
        }
    }
}

fn distribution(p: &[f64], width: usize, i: usize) {
    assert!(p.len() == width, "there is one probability a choice ({width}): situation {i} gave {p:?}");
    assert!(p.iter().all(|p| *p >= 0.0), "no probability is negative or no number: situation {i} gave {p:?}");
    let sum: f64 = p.iter().sum();
    assert!((sum - 1.0).abs() <= 1e-12, "probabilities sum to 1 within 1e-12: situation {i} gave {sum}");
}
