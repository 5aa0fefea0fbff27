//! Small dense linear algebra: matrices of a few hundred rows, solved exactly. Written out because one factorisation is all
//! that the exact solutions of the lab need, and a library would take longer to compile than all of them to run.

/// A square matrix, row by row.
#[derive(Clone, Debug, PartialEq)]
pub struct Square {
    n: usize,
    cells: Vec<f64>,
}

impl Square {
    /// The matrix of `n` rows whose cell in row i and column j is `cell(i, j)`.
    pub fn from_fn(n: usize, cell: impl Fn(usize, usize) -> f64) -> Self {
        let cells = (0..n * n).map(|at| cell(at / n, at % n)).collect();
        Square { n, cells }
    }

    /// How many rows there are.
    pub fn size(&self) -> usize {
        self.n
    }

    /// A row.
    pub fn row(&self, i: usize) -> &[f64] {
        &self.cells[i * self.n..][..self.n]
    }

    /// `A B`.
    pub fn times(&self, b: &Square) -> Square {
        let mut out = Square::from_fn(self.n, |_, _| 0.0);
        for i in 0..self.n {
            for (k, a) in self.row(i).iter().enumerate() {
                out.row_mut(i).iter_mut().zip(b.row(k)).for_each(|(x, b)| *x += a * b);
            }
        }
        out
    }

    /// The root of the sum of squares of all cells.
    pub fn norm(&self) -> f64 {
        dot(&self.cells, &self.cells).sqrt()
    }

    fn row_mut(&mut self, i: usize) -> &mut [f64] {
        &mut self.cells[i * self.n..][..self.n]
    }
}

/// `a . b`.
pub fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(x, y)| x * y).sum()
}

/// A matrix factorised as `P A = L U` with partial pivoting.
pub struct Lu {
    /// U on and above the diagonal, L (whose diagonal is 1) below it.
    factors: Square,
    /// The row of A that each row of the factors came from.
    order: Vec<usize>,
}

impl Lu {
    /// Factorise; `None` if the matrix is singular.
    pub fn new(mut a: Square) -> Option<Self> {
        let n = a.n;
        let mut order: Vec<usize> = (0..n).collect();
        for k in 0..n {
            let pivot = (k..n).max_by(|i, j| a.row(*i)[k].abs().total_cmp(&a.row(*j)[k].abs()))?;
            if a.row(pivot)[k] == 0.0 {
                return None;
            }
            order.swap(k, pivot);
            for column in 0..n {
                a.cells.swap(k * n + column, pivot * n + column);
            }
            let (above, below) = a.cells.split_at_mut((k + 1) * n);
            let head = &above[k * n..];
            for row in below.chunks_exact_mut(n) {
                let factor = row[k] / head[k];
                row[k] = factor;
                row[k + 1..].iter_mut().zip(&head[k + 1..]).for_each(|(x, h)| *x -= factor * h);
            }
        }
        Some(Lu { factors: a, order })
    }

    /// The x with `A x = b`.
    pub fn solve(&self, b: &[f64]) -> Vec<f64> {
        let mut x: Vec<f64> = self.order.iter().map(|i| b[*i]).collect();
        // L y = P b, then U x = y
        for i in 0..x.len() {
            x[i] -= dot(&self.factors.row(i)[..i], &x[..i]);
        }
        for i in (0..x.len()).rev() {
            let row = self.factors.row(i);
            x[i] = (x[i] - dot(&row[i + 1..], &x[i + 1..])) / row[i];
        }
        x
    }

    /// The X with `A X = B`.
    pub fn solve_all(&self, b: &Square) -> Square {
        let mut out = b.clone();
        for column in 0..b.n {
            let x = self.solve(&(0..b.n).map(|i| b.row(i)[column]).collect::<Vec<_>>());
            (0..b.n).for_each(|i| out.row_mut(i)[column] = x[i]);
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use relevo_core::Rng;

    use super::*;

    #[test]
    fn a_system_is_solved_and_a_singular_one_refused() {
        for n in [1, 2, 7, 40] {
            let mut rng = Rng::stream(n as u64, "systems");
            let numbers: Vec<f64> = (0..n * n).map(|_| rng.normal()).collect();
            let a = Square::from_fn(n, |i, j| numbers[i * n + j]);
            let b: Vec<f64> = (0..n).map(|_| rng.normal()).collect();
            let lu = Lu::new(a.clone()).expect("a random matrix is regular");
            let x = lu.solve(&b);
            for (i, b) in b.iter().enumerate() {
                assert!((dot(a.row(i), &x) - b).abs() < 1e-9);
            }
            let inverse = lu.solve_all(&Square::from_fn(n, |i, j| f64::from(u8::from(i == j))));
            let product = a.times(&inverse);
            assert!((product.norm() - (n as f64).sqrt()).abs() < 1e-9);
            let identity = lu.solve_all(&a);
            for i in 0..n {
                for (j, cell) in identity.row(i).iter().enumerate() {
                    assert!((cell - f64::from(u8::from(i == j))).abs() < 1e-9);
                }
            }
        }
        assert!(Lu::new(Square::from_fn(3, |i, j| (i + j) as f64)).is_none());
    }
}
