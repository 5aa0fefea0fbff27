//! One step down: momentum made orthogonal (Muon) for the matrices inside the blocks, Adam for the rest.

use crate::{
    linear::{View, product},
    shape::{Matrix, Plan},
};

const MOMENTUM: f32 = 0.95;
const BETA: (f32, f32) = (0.9, 0.98);
const SMALL: f32 = 1e-8;
/// Step sizes at their highest.
const MUON_RATE: f32 = 0.012;
const ADAM_RATE: f32 = 2.4e-3;
/// Per unit of step size.
const DECAY: f32 = 0.1;
/// Gradients are scaled down to this length.
const LENGTH_MAX: f32 = 1.0;

/// Where the way down has come from.
#[derive(Clone)]
pub(crate) struct Optimiser {
    /// First moments, as long as the parameters.
    pub(crate) first: Vec<f32>,
    /// Second moments, used outside the blocks only.
    pub(crate) second: Vec<f32>,
}

impl Optimiser {
    pub(crate) fn new(plan: &Plan) -> Self {
        Optimiser { first: vec![0.0; plan.len], second: vec![0.0; plan.len] }
    }

    /// Step number `step`, from 0, at a share of the highest step size.
    pub(crate) fn step(
        &mut self,
        plan: &Plan,
        numbers: &mut [f32],
        gradient: &mut [f32],
        step: u64,
        share: f32,
    ) {
        let length = gradient.iter().map(|g| g * g).sum::<f32>().sqrt();
        if length > LENGTH_MAX {
            gradient.iter_mut().for_each(|g| *g *= LENGTH_MAX / length);
        }
        for matrix in plan.inner() {
            self.orthogonal(matrix, numbers, gradient, MUON_RATE * share);
        }
        // m = b1 m + (1 - b1) g; v = b2 v + (1 - b2) g^2; x -= rate m' / (sqrt(v') + small)
        let correct = |beta: f32| 1.0 - beta.powi(i32::try_from(step + 1).unwrap_or(i32::MAX));
        let (c1, c2) = (correct(BETA.0), correct(BETA.1));
        for matrix in [plan.embed, plan.unembed] {
            let (first, second) = (matrix.of_mut(&mut self.first), matrix.of_mut(&mut self.second));
            let all = matrix.of_mut(numbers).iter_mut().zip(matrix.of(gradient)).zip(first).zip(second);
            for (((x, g), m), v) in all {
                *m += (1.0 - BETA.0) * (g - *m);
                *v += (1.0 - BETA.1) * (g * g - *v);
                *x -= ADAM_RATE * share * (*m / c1) / ((*v / c2).sqrt() + SMALL);
            }
        }
    }

    /// x -= rate * (orthogonal(g + momentum m) + decay x), by five Newton-Schulz iterations.
    fn orthogonal(&mut self, matrix: Matrix, numbers: &mut [f32], gradient: &[f32], rate: f32) {
        let Matrix { rows, columns, .. } = matrix;
        let (g, m) = (matrix.of(gradient), matrix.of_mut(&mut self.first));
        m.iter_mut().zip(g).for_each(|(m, g)| *m = MOMENTUM * *m + g);
        let ahead: Vec<f32> = m.iter().zip(g).map(|(m, g)| g + MOMENTUM * m).collect();
        let length = ahead.iter().map(|x| x * x).sum::<f32>().sqrt() + 1e-12;
        // The short side comes first.
        let flat = rows <= columns;
        let (short, long) = if flat { (rows, columns) } else { (columns, rows) };
        let mut x = vec![0.0; short * long];
        for (i, value) in ahead.iter().enumerate() {
            let place = if flat { i } else { i % columns * rows + i / columns };
            x[place] = value / length;
        }
        let (mut a, mut b) = (vec![0.0; short * short], vec![0.0; short * short]);
        for _ in 0..5 {
            // A = X X^T; B = -4.775 A + 2.0315 A A; X = 3.4445 X + B X
            let now = View::new(&x, short, long);
            product(&mut a, short, 0.0, 1.0, now, now.t());
            b.copy_from_slice(&a);
            let square = View::new(&a, short, short);
            product(&mut b, short, -4.775, 2.0315, square, square);
            let old = x.clone();
            product(&mut x, long, 3.4445, 1.0, View::new(&b, short, short), View::new(&old, short, long));
        }
        let scale = (columns as f32 / rows as f32).max(1.0).sqrt();
        for (i, number) in matrix.of_mut(numbers).iter_mut().enumerate() {
            let place = if flat { i } else { i % columns * rows + i / columns };
            *number -= rate * (scale * x[place] + DECAY * *number);
        }
    }
}
