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
    pub fn of_products<T: Copy + Into<f64>>(rows: &[&[T]]) -> Square {
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

    /// `x` of `L L^T x = y`, where this matrix is `L`.
    fn solve_twice(&self, y: impl Iterator<Item = f64>) -> Vec<f64> {
        let mut x: Vec<f64> = y.collect();
        for i in 0..self.n {
            let known: f64 = (0..i).map(|j| self.at(i, j) * x[j]).sum();
            x[i] = (x[i] - known) / self.at(i, i);
        }
        for i in (0..self.n).rev() {
            let known: f64 = (i + 1..self.n).map(|j| self.at(j, i) * x[j]).sum();
            x[i] = (x[i] - known) / self.at(i, i);
        }
        x
    }

    /// `x` of `self x = y`; `None` where the matrix is not positive definite.
    pub fn solve(&self, y: &[f64]) -> Option<Vec<f64>> {
        Some(self.cholesky()?.solve_twice(y.iter().copied()))
    }

    /// `X` of `self X = Y`, both `[size, columns]` by rows; `None` where the matrix is not positive definite.
    pub fn solve_rows(&self, right: &[Vec<f64>]) -> Option<Vec<Vec<f64>>> {
        let lower = self.cholesky()?;
        let columns = right.first().map_or(0, Vec::len);
        let solved: Vec<Vec<f64>> =
            (0..columns).map(|column| lower.solve_twice(right.iter().map(|row| row[column]))).collect();
        Some((0..self.n).map(|i| solved.iter().map(|column| column[i]).collect()).collect())
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
pub fn dot<T: Copy + Into<f64>>(a: &[T], b: &[T]) -> f64 {
    a.iter().zip(b).map(|(a, b)| (*a).into() * (*b).into()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn solutions_and_inverses() {
        for n in [1usize, 2, 7, 30] {
            let rows: Vec<Vec<f32>> = (0..n)
                .map(|i| (0..n + 3).map(|j| (1.0 + (7 * i * i + 3 * j) as f32).sin()).collect())
                .collect();
            let rows: Vec<&[f32]> = rows.iter().map(Vec::as_slice).collect();
            let matrix = Square::of_products(&rows).plus_diagonal(0.1);
            let y: Vec<f64> = (0..n).map(|i| i as f64 - 1.5).collect();
            let x = matrix.solve(&y).unwrap();
            let inverse = matrix.inverse().unwrap();
            let (back, via) = (matrix.times(&x), inverse.times(&y));
            for i in 0..n {
                assert!((back[i] - y[i]).abs() < 1e-9 && (via[i] - x[i]).abs() < 1e-9, "{i} of {n}");
            }
        }
        assert_eq!(Square::new(2, |_, _| 1.0).solve(&[1.0, 1.0]), None, "not positive definite");
        assert!(Square::new(1, |_, _| -1.0).inverse().is_none());
    }

    #[test]
    fn a_small_system() {
        // [[3, 1], [1, 2]] has the inverse [[2, -1], [-1, 3]] / 5.
        let matrix = Square::of_products(&[&[1.0, 1.0][..], &[1.0, 0.0]]).plus_diagonal(1.0);
        assert_eq!(matrix, Square::new(2, |i, j| [[3.0, 1.0], [1.0, 2.0]][i][j]));
        let solved = matrix.solve_rows(&[vec![5.0, 0.0], vec![0.0, 5.0]]).unwrap();
        for (row, expected) in solved.iter().zip([[2.0, -1.0], [-1.0, 3.0]]) {
            row.iter().zip(expected).for_each(|(value, expected)| assert!((value - expected).abs() < 1e-12));
        }
        assert_eq!(Square::new(1, |_, _| -1.0).solve_rows(&[vec![1.0]]), None);
        assert_eq!(Square::new(0, |_, _| 0.0).solve_rows(&[]), Some(Vec::new()));
    }
}
