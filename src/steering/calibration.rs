//! Calibration: the scale at which a vector raises the negative log-likelihood of neutral text by 0.05 nat per token, at
//! its worse sign. That is a perplexity rise of 5 %, and it is what a coefficient of 1 means.

use super::dose::Norms;
use super::error::SteeringError;
use super::measure::Meter;
use super::norms::{PIECES, neutral_text};
use super::plan::{edits_for, provisional_scale};
use super::vector::{Calibration, Vector};
use crate::statistics::mean;
use std::sync::Arc;

/// Rise of the mean negative log-likelihood at a coefficient of 1, nat per token.
pub const TARGET_RISE: f64 = 0.05;
/// A checked rise may be off by so much of the target.
const TOLERANCE: f64 = 0.3;
/// Scales that are tried; the rise is quadratic in the scale, so the second is nearly always right.
const ROUNDS: usize = 5;
/// The scale changes at most by this factor from one round to the next: far outside the quadratic range a measured rise
/// says little.
const STEP_MAX: f64 = 3.0;

/// Calibrates a vector on the loaded model; its directions stay as they are.
pub fn calibrate(meter: &Meter, vector: &Vector, norms: &Norms) -> Result<Calibration, SteeringError> {
    let pieces = meter.pieces(neutral_text()?, PIECES)?;
    let plain = mean(&meter.nll(&pieces, &Arc::default())?);
    let n_blocks = meter.n_blocks();
    let rise = |scale: f64| {
        let edits = Arc::new(edits_for(vector, scale as f32, n_blocks));
        Ok(mean(&meter.nll(&pieces, &edits)?) - plain)
    };
    search(f64::from(provisional_scale(vector, norms)), rise)
}

/// Finds the scale from measured rises, starting at `start`: `scale * sqrt(target / rise)`, checked and repeated.
fn search(
    start: f64,
    mut rise: impl FnMut(f64) -> Result<f64, SteeringError>,
) -> Result<Calibration, SteeringError> {
    let mut scale = start;
    let mut best: Option<(f64, Calibration)> = None;
    for _ in 0..ROUNDS {
        let (plus, minus) = (rise(scale)?, rise(-scale)?);
        let worse = plus.max(minus);
        let off = (worse / TARGET_RISE - 1.0).abs();
        if best.as_ref().is_none_or(|(least, _)| off < *least) {
            let found = Calibration { scale: scale as f32, rise_plus: plus as f32, rise_minus: minus as f32 };
            best = Some((off, found));
        }
        if off <= TOLERANCE {
            break;
        }
        let step = (TARGET_RISE / worse.max(1e-9)).sqrt();
        scale *= step.clamp(1.0 / STEP_MAX, STEP_MAX);
    }
    match best {
        Some((_, found)) if found.scale.is_finite() && found.scale > 0.0 => Ok(found),
        _ => Err(SteeringError::Internal("calibration found no usable scale".to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs the search on a curve and returns the scale and the number of scales tried.
    fn run(start: f64, curve: impl Fn(f64) -> f64) -> (f64, usize) {
        let mut tried = 0;
        let found = search(start, |scale| {
            tried += 1;
            Ok(curve(scale))
        });
        (f64::from(found.unwrap().scale), tried / 2)
    }

    #[test]
    fn quadratic_curves_take_two_rounds() {
        for k in [0.5, 2.6, 16.0] {
            let (scale, rounds) = run(0.15, |scale| k * scale * scale);
            assert!((k * scale * scale / TARGET_RISE - 1.0).abs() < 0.3, "{k}: {scale}");
            assert!(rounds <= 3, "{k}: {rounds}");
        }
    }

    #[test]
    fn the_worse_sign_decides() {
        let (scale, _) =
            run(1.0, |scale| if scale > 0.0 { 0.01 * scale * scale } else { 0.2 * scale * scale });
        assert!((scale - 0.5).abs() < 1e-6, "{scale}");
    }

    #[test]
    fn odd_curves_end() {
        // Destroyed text, no effect at all, a sign that improves the text.
        for curve in [|_: f64| 9.0, |_: f64| 0.0, |scale: f64| scale.signum() * 0.01 * scale * scale] {
            let (scale, rounds) = run(1.0, curve);
            assert!(scale > 0.0 && rounds <= ROUNDS);
        }
    }
}
