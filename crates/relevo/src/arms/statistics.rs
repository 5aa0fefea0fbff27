//! Means with their intervals over seeds and tasks, and when a curve has reached its plateau.

use crate::report::Estimate;

/// How far below the final mean of the arm that learned from nothing a plateau begins.
pub const PLATEAU_SHARE: f64 = 0.05;

/// The mean of samples by seed (rows) and task (columns, the same ones in every row) with its 95% interval: for other seeds
/// and other tasks. Too wide rather than too narrow, as noise of seed and task together counts in both parts. Over one
/// seed, it is for other tasks only. `None` without samples, or where rows differ in length.
pub fn crossed(samples: &[Vec<f64>]) -> Option<Estimate> {
    let (seeds, tasks) = (samples.len(), samples.first()?.len());
    if tasks == 0 || samples.iter().any(|row| row.len() != tasks) {
        return None;
    }
    let of_seeds: Vec<f64> = samples.iter().map(|row| row.iter().sum::<f64>() / tasks as f64).collect();
    let of_tasks: Vec<f64> =
        (0..tasks).map(|t| samples.iter().map(|row| row[t]).sum::<f64>() / seeds as f64).collect();
    let mean = of_seeds.iter().sum::<f64>() / seeds as f64;
    // h^2 = (t_{S-1} s_S / sqrt S)^2 + (t_{T-1} s_T / sqrt T)^2
    let parts = [&of_seeds, &of_tasks].map(|means| squared_half_width(means, mean));
    let half_width = (parts != [None, None]).then(|| parts.into_iter().flatten().sum::<f64>().sqrt());
    Some(Estimate { mean, half_width, n: seeds * tasks })
}

fn squared_half_width(means: &[f64], mean: f64) -> Option<f64> {
    let n = means.len();
    let squares: f64 = means.iter().map(|x| (x - mean) * (x - mean)).sum();
    (n > 1).then(|| student(n - 1).powi(2) * squares / (n as f64 - 1.0) / n as f64)
}

/// The 97.5% quantile of Student's t distribution.
pub(super) fn student(degrees: usize) -> f64 {
    if let Some(exact) = degrees.checked_sub(1).and_then(|i| [12.706, 4.303, 3.182, 2.776].get(i)) {
        return *exact;
    }
    let (z, n) = (1.959_964_f64, degrees as f64);
    // Cornish-Fisher: z + (z^3 + z) / 4n + (5z^5 + 16z^3 + 3z) / 96n^2 + (3z^7 + 19z^5 + 17z^3 - 15z) / 384n^3
    z + (z.powi(3) + z) / (4.0 * n)
        + (5.0 * z.powi(5) + 16.0 * z.powi(3) + 3.0 * z) / (96.0 * n.powi(2))
        + (3.0 * z.powi(7) + 19.0 * z.powi(5) + 17.0 * z.powi(3) - 15.0 * z) / (384.0 * n.powi(3))
}

/// The first of the means that is at most [`PLATEAU_SHARE`] of it below the final one.
pub fn plateau(means: &[f64], final_mean: f64) -> Option<usize> {
    means.iter().position(|mean| *mean >= final_mean - PLATEAU_SHARE * final_mean.abs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_those_of_the_tables() {
        for (degrees, quantile) in
            [(1, 12.706), (4, 2.776), (5, 2.571), (10, 2.228), (30, 2.042), (1000, 1.962)]
        {
            assert!((student(degrees) - quantile).abs() < 4e-3, "{degrees}: {}", student(degrees));
        }
    }

    #[test]
    fn the_interval_is_for_other_seeds_and_other_tasks() {
        let half = |samples: &[Vec<f64>]| crossed(samples).unwrap().half_width;
        // Tasks differ, seeds do not: t_3 sqrt(5/3 / 4), however many seeds there are.
        let row = vec![1.0, 2.0, 3.0, 4.0];
        let of_tasks = 3.182 * (5.0_f64 / 3.0 / 4.0).sqrt();
        for seeds in [1, 3] {
            assert!((half(&vec![row.clone(); seeds]).unwrap() - of_tasks).abs() < 1e-9);
        }
        // Seeds differ, tasks do not: t_2 sqrt(1 / 3), however many tasks there are.
        let of_seeds = 4.303 * (1.0_f64 / 3.0).sqrt();
        for tasks in [1, 5] {
            let samples: Vec<Vec<f64>> = [1.0, 2.0, 3.0].map(|x| vec![x; tasks]).to_vec();
            assert!((half(&samples).unwrap() - of_seeds).abs() < 1e-9);
        }
        let estimate = crossed(&[vec![0.5]]).unwrap();
        assert_eq!((estimate.mean, estimate.half_width, estimate.n), (0.5, None, 1));
        for nothing in [vec![], vec![vec![]], vec![vec![1.0], vec![1.0, 2.0]]] {
            assert_eq!(crossed(&nothing), None, "{nothing:?}");
        }
    }

    #[test]
    fn a_plateau_begins_within_five_percent() {
        for (means, last, first) in [
            (&[0.1, 0.94, 0.96, 1.0][..], 1.0, Some(2)),
            (&[2.0, 1.0][..], 1.0, Some(0)),
            (&[-2.0, -1.06, -1.04][..], -1.0, Some(2)),
            (&[0.1, 0.2][..], 1.0, None),
            (&[][..], 1.0, None),
        ] {
            assert_eq!(plateau(means, last), first, "{means:?} for {last}");
        }
    }
}
