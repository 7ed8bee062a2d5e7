//! Kernel ridge over items: which constants bring the model's answers to a person's.
//!
//! The answers are linear in the constants to first order, `E(v) = E(0) + G v`; the smallest `v` for a penalty lambda is
//! `G^T a` with `a = (K + lambda I)^-1 r`, `K = G G^T` and `r` the answers minus the model's own. lambda minimises the
//! mean absolute error of leave-one-out, whose residuals are `a_i / ((K + lambda I)^-1)_ii` in closed form.

use crate::algebra::Square;

/// Penalties that are tried, in units of the kernel's mean diagonal: ten to the power of -4 to 2.5 in steps of a half.
pub const STEPS: i32 = 14;

pub fn penalty(step: i32) -> f64 {
    10f64.powf(-4.0 + 0.5 * f64::from(step))
}

/// The solution for some items.
#[derive(Clone, Debug, PartialEq)]
pub struct Fit {
    /// One coefficient for each item.
    pub coefficients: Vec<f64>,
    pub lambda: f64,
    /// Mean absolute error of leave-one-out at this lambda, in answers.
    pub left_out_error: f64,
}

/// `kernel` is scaled to a mean diagonal of about 1; `residuals` has one value for each of its rows.
pub fn fit(kernel: &Square, residuals: &[f64]) -> Fit {
    let mut best: Option<Fit> = None;
    for lambda in (0..STEPS).map(penalty) {
        // The smallest penalties may drown in rounding where items are nearly equal.
        let Some(inverse) = kernel.plus_diagonal(lambda).inverse() else { continue };
        let coefficients = inverse.times(residuals);
        let errors = coefficients.iter().enumerate().map(|(i, a)| (a / inverse.at(i, i)).abs());
        let left_out_error = errors.sum::<f64>() / residuals.len().max(1) as f64;
        if best.as_ref().is_none_or(|best| left_out_error < best.left_out_error) {
            best = Some(Fit { coefficients, lambda, left_out_error });
        }
    }
    best.unwrap_or_else(|| Fit {
        coefficients: vec![0.0; residuals.len()],
        lambda: f64::INFINITY,
        left_out_error: f64::INFINITY,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::statistics::Draws;

    /// The closed form equals leaving each item out and fitting again.
    #[test]
    fn leave_one_out_is_what_it_says() {
        let mut draws = Draws::new(5, "ridge", 0);
        let rows: Vec<Vec<f32>> = (0..9).map(|_| (0..6).map(|_| draws.normal() as f32).collect()).collect();
        let slices: Vec<&[f32]> = rows.iter().map(Vec::as_slice).collect();
        let kernel = Square::of_products(&slices);
        let residuals: Vec<f64> = (0..9).map(|_| draws.normal()).collect();
        let fit = fit(&kernel, &residuals);
        let mut error = 0.0;
        for left in 0..9 {
            let others: Vec<usize> = (0..9).filter(|i| *i != left).collect();
            let wanted: Vec<f64> = others.iter().map(|&i| residuals[i]).collect();
            let a = kernel.part(&others).plus_diagonal(fit.lambda).solve(&wanted).unwrap();
            let predicted: f64 = others.iter().zip(&a).map(|(&i, a)| kernel.at(left, i) * a).sum();
            error += (residuals[left] - predicted).abs() / 9.0;
        }
        assert!((error - fit.left_out_error).abs() < 1e-9, "{error} {}", fit.left_out_error);
        // No other penalty is better.
        for lambda in (0..STEPS).map(penalty) {
            let inverse = kernel.plus_diagonal(lambda).inverse().unwrap();
            let a = inverse.times(&residuals);
            let error: f64 = (0..9).map(|i| (a[i] / inverse.at(i, i)).abs()).sum::<f64>() / 9.0;
            assert!(error >= fit.left_out_error);
        }
    }
}
