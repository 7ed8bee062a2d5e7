//! Small systems of linear equations, for what is predicted without a language model.

pub fn dot(x: &[f64], y: &[f64]) -> f64 {
    x.iter().zip(y).map(|(x, y)| x * y).sum()
}

/// (K + strength I)^-1 D by Cholesky; `None` where K is not positive definite.
pub fn solve(kernel: &[Vec<f64>], strength: f64, right: &[Vec<f64>]) -> Option<Vec<Vec<f64>>> {
    let n = kernel.len();
    let mut lower = vec![vec![0.0; n]; n];
    for i in 0..n {
        for j in 0..=i {
            let rest = kernel[i][j] - dot(&lower[i][..j], &lower[j][..j]);
            if i == j {
                let pivot = rest + strength;
                lower[i][i] = (pivot > 0.0).then(|| pivot.sqrt())?;
            } else {
                lower[i][j] = rest / lower[j][j];
            }
        }
    }
    let mut solved = right.to_vec();
    for i in 0..n {
        for j in 0..i {
            let (above, own) = solved.split_at_mut(i);
            own[0].iter_mut().zip(&above[j]).for_each(|(own, above)| *own -= lower[i][j] * above);
        }
        solved[i].iter_mut().for_each(|value| *value /= lower[i][i]);
    }
    for i in (0..n).rev() {
        let (own, below) = solved.split_at_mut(i + 1);
        for (row, below) in lower[i + 1..].iter().zip(below) {
            own[i].iter_mut().zip(below).for_each(|(own, below)| *own -= row[i] * *below);
        }
        solved[i].iter_mut().for_each(|value| *value /= lower[i][i]);
    }
    Some(solved)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_small_system() {
        // (K + 1) = [[3, 1], [1, 2]]; its inverse is [[2, -1], [-1, 3]] / 5.
        let kernel = vec![vec![2.0, 1.0], vec![1.0, 1.0]];
        let solved = solve(&kernel, 1.0, &[vec![5.0, 0.0], vec![0.0, 5.0]]).unwrap();
        for (row, expected) in solved.iter().zip([[2.0, -1.0], [-1.0, 3.0]]) {
            row.iter().zip(expected).for_each(|(value, expected)| assert!((value - expected).abs() < 1e-12));
        }
        assert!(solve(&[vec![-2.0]], 1.0, &[vec![1.0]]).is_none());
    }
}
