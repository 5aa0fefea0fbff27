//! Posterior sampling: the recorded probabilities are those of being the largest in a fresh sample.

use libm::{erfc, exp, pow};
use relevo_core::{
    Rng,
    ids::{ActionId, EpisodeId},
    observation::{ActionSet, Signature},
    policy::{Policy, Posterior, Scores},
};

/// A mean and a deviation.
type Arm = (f64, f64);

/// What is recorded for choices with these posteriors.
fn recorded(arms: &[Arm]) -> Vec<f64> {
    let (values, spreads): (Vec<f64>, Vec<f64>) = arms.iter().copied().unzip();
    let scores = Scores {
        legal: &ActionSet::all(arms.len()),
        values: &values,
        edges: &[],
        spreads: &spreads,
        pseudo: &[],
        signature: Signature(1),
        episode: EpisodeId(1),
        clock: 0,
    };
    let p = Posterior { variance: f64::MIN_POSITIVE, floor: 0.0 }.probabilities(scores).to_vec();
    assert!((p.iter().sum::<f64>() - 1.0).abs() < 1e-12 && p.iter().all(|p| *p >= 0.0), "{arms:?}: {p:?}");
    p
}

/// `P_a = integral of phi_a prod_{b != a} Phi_b`, by the trapezoidal rule with a step of a twentieth of a deviation of
/// every arm, around each of them.
fn integrated(arms: &[Arm]) -> Vec<f64> {
    let low = arms.iter().map(|(m, s)| m - 7.0 * s).fold(f64::NEG_INFINITY, f64::max);
    let around = |&(m, s): &Arm| (-140..=140).map(move |g| m + f64::from(g) / 20.0 * s);
    let mut grid: Vec<f64> = arms.iter().flat_map(around).filter(|x| *x >= low).collect();
    grid.sort_by(f64::total_cmp);
    let mut p = vec![0.0; arms.len()];
    let mut last = (low, p.clone());
    for x in grid {
        let z: Vec<f64> = arms.iter().map(|(m, s)| (x - m) / s).collect();
        let cdf: Vec<f64> = z.iter().map(|z| 0.5 * erfc(-z * std::f64::consts::FRAC_1_SQRT_2)).collect();
        let all: f64 = cdf.iter().product();
        let density = |a: usize| all / cdf[a] * exp(-0.5 * z[a] * z[a]) / arms[a].1;
        let densities: Vec<f64> =
            (0..arms.len()).map(|a| if cdf[a] > 0.0 { density(a) } else { 0.0 }).collect();
        for a in 0..arms.len() {
            p[a] += 0.5 * (x - last.0) * (densities[a] + last.1[a]);
        }
        last = (x, densities);
    }
    let sum: f64 = p.iter().sum();
    p.iter().map(|p| p / sum).collect()
}

/// Random posteriors, from two choices to 48: alike, learned at different paces, with deviations over six orders of
/// magnitude (anywhere, around one mean, in each other's tails), one sure choice among many vague ones, and the reverse.
#[test]
fn what_is_recorded_is_the_integral() {
    let families: [fn(usize, f64, f64) -> Arm; 8] = [
        |_, u, _| (u, 0.25),
        |_, u, v| (u, 0.5 / (1.0 + (v * 30.0).floor()).sqrt()),
        |_, u, v| (u, pow(10.0, -6.0 * v)),
        |_, _, v| (0.0, pow(10.0, -6.0 * v)),
        |_, u, v| ((4.0 - 8.0 * u) * pow(10.0, -6.0 * v), pow(10.0, -6.0 * v)),
        |_, u, v| ((-2.0 - 2.0 * u) * pow(10.0, -6.0 * v), pow(10.0, -6.0 * v)),
        |a, u, _| if a == 0 { (0.0, 1e-6) } else { (-2.0 - 2.0 * u, 1.0) },
        |a, u, v| if a == 0 { (0.0, 1.0) } else { (3.0 * u - 0.5, 0.03 + 0.2 * v * v) },
    ];
    let mut rng = Rng::stream(1, "posteriors");
    for (family, arm) in families.iter().enumerate() {
        for (width, cases) in [(2, 40), (3, 20), (8, 6), (48, 1)] {
            for _ in 0..cases {
                let arms: Vec<Arm> = (0..width).map(|a| arm(a, rng.unit(), rng.unit())).collect();
                for (p, exact) in recorded(&arms).iter().zip(integrated(&arms)) {
                    assert!((p - exact).abs() < 5e-4, "family {family}: {p} for {exact} in {arms:?}");
                }
            }
        }
    }
}

/// The probability of the best of two Gaussians has a closed form: `Phi((m_1 - m_2) / sqrt(s_1^2 + s_2^2))`.
#[test]
fn of_two_choices_the_closed_form_is_recorded() {
    for (gap, s1, s2) in [
        (0.0, 1.0, 1.0),
        (0.5, 1.0, 0.1),
        (0.02, 0.01, 0.5),
        (3.0, 0.2, 1.0),
        (1.2, 1.0, 1.0),
        (1e-6, 1.0, 1e-6),
    ] {
        let p = recorded(&[(gap, s1), (0.0, s2)])[0];
        let exact = 0.5 * erfc(-gap / f64::hypot(s1, s2) * std::f64::consts::FRAC_1_SQRT_2);
        assert!((p - exact).abs() < 5e-4, "{gap} {s1} {s2}: {p} for {exact}");
    }
}

/// What is recorded depends on the posteriors alone: not on the order of the choices, and equals are equal to the bit.
#[test]
fn what_is_recorded_depends_on_nothing_else() {
    let mut rng = Rng::stream(2, "posteriors");
    for width in [2, 5, 16, 48, 200] {
        let arms: Vec<Arm> = (0..width).map(|a| (rng.unit(), [0.5, 0.25, rng.unit()][a % 3])).collect();
        let p = recorded(&arms);
        let (twice, reversed): (Vec<Arm>, Vec<Arm>) =
            (arms.iter().flat_map(|a| [*a; 2]).collect(), arms.iter().rev().copied().collect());
        assert!(recorded(&reversed).into_iter().rev().zip(&p).all(|(q, p)| (q - p).abs() < 1e-15));
        for pair in recorded(&twice).chunks(2) {
            assert_eq!(pair[0], pair[1]);
        }
        let alike = recorded(&vec![arms[0]; width]);
        assert!(alike.iter().all(|p| (p - 1.0 / width as f64).abs() < 1e-15), "{alike:?}");
    }
}

#[test]
fn extreme_posteriors_have_probabilities() {
    let table: [(&[Arm], &[f64]); 8] = [
        (&[(0.5, 0.1)], &[1.0]),
        (&[(1.0, 0.1), (0.0, 0.1)], &[1.0, 0.0]),
        // Deviations that vanish in the rounding of their means: a sample is the means, and the first of equals is taken.
        (&[(1e18, 0.25), (1e18, 0.25), (0.0, 0.25)], &[1.0, 0.0, 0.0]),
        (&[(-1e300, 1.0), (1e300, 1.0), (1e300, 1.0)], &[0.0, 1.0, 0.0]),
        (&[(0.0, 0.0), (0.5, 0.0), (0.5, 0.0)], &[0.0, 1.0, 0.0]),
        // One of them is vague.
        (&[(0.5, 1.0), (0.5, 0.0), (0.5, 0.0)], &[0.5, 0.5, 0.0]),
        (&[(1e18, 1e17), (1e18, 0.25)], &[0.5, 0.5]),
        (&[(0.0, f64::INFINITY), (0.0, f64::INFINITY)], &[1.0, 0.0]),
    ];
    for (arms, expected) in table {
        let p = recorded(arms);
        assert!(p.iter().zip(expected).all(|(p, e)| (p - e).abs() < 1e-3), "{arms:?}: {p:?}");
    }
}

/// The sample of an episode has a deviate for every column: what is chosen does not depend on what else is admissible,
/// and is the column that drawing all deviates in turn gives.
#[test]
fn a_choice_is_the_largest_of_all_deviates() {
    let values: Vec<f64> = (0..20).map(|a| f64::from(a % 7) / 7.0).collect();
    let policy = Posterior { variance: 0.25, floor: 1e-12 };
    for episode in 0..500u64 {
        let rng = Rng::stream(3, "sample");
        let mut held = rng.fork([episode, 0, 7]);
        let sample: Vec<f64> = values.iter().map(|v| v + 0.5 * held.normal()).collect();
        for legal in [ActionSet::all(20), (0..20).filter(|a| a % 3 != 1).map(ActionId).collect()] {
            let scores = Scores {
                legal: &legal,
                values: &values,
                edges: &[],
                spreads: &[],
                pseudo: &[],
                signature: Signature(7),
                episode: EpisodeId(episode.into()),
                clock: 0,
            };
            let best = legal.iter().max_by(|a, b| sample[a.index()].total_cmp(&sample[b.index()]));
            assert_eq!(Some(policy.choose(scores, &mut rng.clone())), best);
        }
    }
}
