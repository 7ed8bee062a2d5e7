//! Small dense linear algebra in f64 and in a fixed order: products, Cholesky factors, inverses of positive definite matrices.

/// A square matrix, row-major.
#[derive(Clone, Debug, PartialEq)]
pub struct Square {
    n: usize,
    values: Vec<f64>,
}

impl Square {
    pub fn new(n: usize, value: impl Fn(usize, usize) -> f64) -> Square {
        let values = (0..n * n).map(|at| value(at / n, at % n)).collect();
        Square { n, values }
    }

    /// `rows rows^T` of `n` rows.
    pub fn of_products(rows: &[&[f32]]) -> Square {
        let n = rows.len();
        let mut square = Square { n, values: vec![0.0; n * n] };
        for i in 0..n {
            for j in 0..=i {
                let product = dot(rows[i], rows[j]);
                square.values[i * n + j] = product;
                square.values[j * n + i] = product;
            }
        }
        square
    }

    pub fn size(&self) -> usize {
        self.n
    }

    pub fn at(&self, i: usize, j: usize) -> f64 {
        self.values[i * self.n + j]
    }

    /// The rows and columns of `chosen`.
    pub fn part(&self, chosen: &[usize]) -> Square {
        Square::new(chosen.len(), |i, j| self.at(chosen[i], chosen[j]))
    }

    /// The matrix with `value` added to its diagonal.
    pub fn plus_diagonal(&self, value: f64) -> Square {
        Square::new(self.n, |i, j| self.at(i, j) + if i == j { value } else { 0.0 })
    }

    pub fn times(&self, x: &[f64]) -> Vec<f64> {
        self.values
            .chunks_exact(self.n.max(1))
            .map(|row| row.iter().zip(x).map(|(a, b)| a * b).sum())
            .collect()
    }

    /// The lower factor `L` of `L L^T`; `None` where the matrix is not positive definite.
    fn cholesky(&self) -> Option<Square> {
        let n = self.n;
        let mut lower = Square { n, values: vec![0.0; n * n] };
        for i in 0..n {
            for j in 0..=i {
                let (head_i, head_j) = (&lower.values[i * n..i * n + j], &lower.values[j * n..j * n + j]);
                let known: f64 = head_i.iter().zip(head_j).map(|(a, b)| a * b).sum();
                let rest = self.at(i, j) - known;
                lower.values[i * n + j] = if i != j {
                    rest / lower.at(j, j)
                } else if rest > 0.0 {
                    rest.sqrt()
                } else {
                    return None;
                };
            }
        }
        Some(lower)
    }

    /// `x` of `self x = y`; `None` where the matrix is not positive definite.
    pub fn solve(&self, y: &[f64]) -> Option<Vec<f64>> {
        let (n, lower) = (self.n, self.cholesky()?);
        let mut x = y.to_vec();
        for i in 0..n {
            let known: f64 = (0..i).map(|j| lower.at(i, j) * x[j]).sum();
            x[i] = (x[i] - known) / lower.at(i, i);
        }
        for i in (0..n).rev() {
            let known: f64 = (i + 1..n).map(|j| lower.at(j, i) * x[j]).sum();
            x[i] = (x[i] - known) / lower.at(i, i);
        }
        Some(x)
    }

    /// The inverse; `None` where the matrix is not positive definite.
    pub fn inverse(&self) -> Option<Square> {
        let (n, lower) = (self.n, self.cholesky()?);
        // Rows of the inverse of L, then their products: (L L^T)^-1 = L^-T L^-1.
        let mut half = Square { n, values: vec![0.0; n * n] };
        for i in 0..n {
            half.values[i * n + i] = 1.0 / lower.at(i, i);
            for j in 0..i {
                let known: f64 = (j..i).map(|k| lower.at(i, k) * half.at(k, j)).sum();
                half.values[i * n + j] = -known / lower.at(i, i);
            }
        }
        let mut inverse = Square { n, values: vec![0.0; n * n] };
        for k in 0..n {
            for i in 0..=k {
                let factor = half.at(k, i);
                for j in 0..=k {
                    inverse.values[i * n + j] += factor * half.at(k, j);
                }
            }
        }
        Some(inverse)
    }
}

/// Summed in f64 in index order.
pub fn dot(a: &[f32], b: &[f32]) -> f64 {
    a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()
}

/// Least squares of `y` on `x`: slope and intercept. A constant `x` gives the mean.
pub fn line(x: &[f64], y: &[f64]) -> (f64, f64) {
    use crate::statistics::mean;
    let (mean_x, mean_y) = (mean(x), mean(y));
    let xx: f64 = x.iter().map(|x| (x - mean_x) * (x - mean_x)).sum();
    let xy: f64 = x.iter().zip(y).map(|(x, y)| (x - mean_x) * (y - mean_y)).sum();
    let slope = if xx > 0.0 { xy / xx } else { 0.0 };
    (slope, mean_y - slope * mean_x)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::statistics::Draws;

    #[test]
    fn solutions_and_inverses() {
        let mut draws = Draws::new(3, "algebra", 0);
        for n in [1usize, 2, 7, 30] {
            let rows: Vec<Vec<f32>> =
                (0..n).map(|_| (0..n + 3).map(|_| draws.normal() as f32).collect()).collect();
            let rows: Vec<&[f32]> = rows.iter().map(Vec::as_slice).collect();
            let matrix = Square::of_products(&rows).plus_diagonal(0.1);
            let y: Vec<f64> = (0..n).map(|i| i as f64 - 1.5).collect();
            let x = matrix.solve(&y).unwrap();
            let inverse = matrix.inverse().unwrap();
            for (back, (via, y)) in
                matrix.times(&x).iter().zip(inverse.times(&y).iter().zip(&y).map(|(v, y)| (v, y)))
            {
                assert!((back - y).abs() < 1e-9, "{back} {y}");
                assert!(x.iter().any(|x| (x - via).abs() < 1e-9));
            }
        }
        assert_eq!(Square::new(2, |_, _| 1.0).solve(&[1.0, 1.0]), None, "not positive definite");
        assert!(Square::new(1, |_, _| -1.0).inverse().is_none());
    }

    #[test]
    fn lines() {
        assert_eq!(line(&[0.0, 1.0, 2.0], &[1.0, 3.0, 5.0]), (2.0, 1.0));
        assert_eq!(line(&[1.0, 1.0], &[1.0, 3.0]), (0.0, 2.0));
    }
}
