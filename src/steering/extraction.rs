//! Extraction: a vector from a contrast set. The default recipe: the mean over the tokens of a reply, the mean difference
//! over pairs, the middle blocks, an equal dose at each.

use super::calibration;
use super::dose::{DEFAULT_DOSE, Norms};
use super::error::SteeringError;
use super::measure::{Encoded, Meter};
use super::traits::{Contrast, digest_of};
use super::vector::{Origin, Provenance, Vector, norm};
use crate::digest::Digest;
use crate::engine::Reduce;
use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::sync::Arc;

/// Names the recipe in a vector's provenance; another recipe is another name.
pub const FORM: &str = "reply-mean-difference/1";

/// Blocks that a vector acts at, by default: the middle of the model, where the effect per dose is largest. A fifth of the
/// blocks from 44 % of the way between the first and the last (13 to 19 of 30, 7 to 10 of 18).
pub fn default_blocks(n_blocks: u32) -> RangeInclusive<u32> {
    let first = (0.44 * f64::from(n_blocks.saturating_sub(1))).round() as u32;
    first..=(first + n_blocks / 5).min(n_blocks.saturating_sub(1))
}

/// Is told how many replies are done and what happens next; its error ends the work.
pub type Progress<'a> = &'a dyn Fn(u64, &str) -> Result<(), SteeringError>;

/// For each pair of a contrast set the difference of its replies' mean residuals.
pub struct Differences {
    blocks: Vec<u32>,
    width: usize,
    /// One per pair, `[blocks.len(), d_model]`.
    pairs: Vec<Vec<f32>>,
}

impl Differences {
    /// Runs every reply through the model.
    pub fn measure(
        meter: &Meter,
        contrasts: &[Contrast],
        progress: Progress<'_>,
    ) -> Result<Differences, SteeringError> {
        let blocks: Vec<u32> = default_blocks(meter.n_blocks()).collect();
        let encoded =
            contrasts.iter().map(|contrast| meter.encode(contrast)).collect::<Result<Vec<_>, _>>()?;
        let replies = encoded.iter().flat_map(|Encoded { prompt, positive, negative }| {
            let sequence = |reply: &Vec<u32>| ([&prompt[..], reply].concat(), prompt.len() as u32);
            [sequence(positive), sequence(negative)]
        });
        let mut pairs: Vec<Vec<f32>> = Vec::with_capacity(contrasts.len());
        meter.capture(&blocks, replies, Reduce::Mean, |index, rows| {
            let row = rows.into_iter().next().unwrap_or_default();
            match pairs.last_mut() {
                Some(pair) if index % 2 == 1 => {
                    pair.iter_mut().zip(row).for_each(|(pair, value)| *pair -= value)
                }
                _ => pairs.push(row),
            }
            progress(index as u64 + 1, &format!("reply {} of {}", index + 1, 2 * contrasts.len()))
        })?;
        Ok(Differences { blocks, width: meter.engine.info().d_model as usize, pairs })
    }

    /// The mean difference with the same dose at each block, [`DEFAULT_DOSE`] in sum.
    pub fn mean(&self, name: &str, norms: &Norms) -> Result<Vector, SteeringError> {
        self.weighted(name, norms, &vec![1.0; self.pairs.len()])
    }

    /// A control of equal dose: the mean difference with the signs of half of the pairs, chosen by `seed`, reversed.
    pub fn sign_shuffled(&self, name: &str, norms: &Norms, seed: u64) -> Result<Vector, SteeringError> {
        let digest = |i: usize| Digest::of(format!("{seed} {i}").as_bytes());
        let mut order: Vec<usize> = (0..self.pairs.len()).collect();
        order.sort_by_key(|&i| digest(i));
        let mut signs = vec![1.0; self.pairs.len()];
        order.iter().take(self.pairs.len() / 2).for_each(|&i| signs[i] = -1.0);
        self.weighted(name, norms, &signs)
    }

    fn weighted(&self, name: &str, norms: &Norms, weights: &[f32]) -> Result<Vector, SteeringError> {
        let mut sum = vec![0.0f32; self.blocks.len() * self.width];
        for (pair, weight) in self.pairs.iter().zip(weights) {
            sum.iter_mut().zip(pair).for_each(|(sum, value)| *sum += weight * value);
        }
        let share = DEFAULT_DOSE / self.blocks.len() as f32;
        let directions = self.blocks.iter().zip(sum.chunks_exact(self.width));
        let directions: BTreeMap<u32, Arc<[f32]>> = directions
            .map(|(&block, direction)| {
                let scale = share / norms.dose(block, norm(direction));
                // Poles without any difference have norm 0; the vector's own check says so.
                let scale = if scale.is_finite() { scale } else { 0.0 };
                (block, direction.iter().map(|value| value * scale).collect())
            })
            .collect();
        Vector::new(name, directions, "pairs")
    }
}

/// Extracts and calibrates: a coefficient of 1 is a perplexity rise of 5 % on neutral text.
pub fn extract(
    meter: &Meter,
    name: &str,
    contrasts: &[Contrast],
    norms: &Norms,
    progress: Progress<'_>,
) -> Result<Vector, SteeringError> {
    let differences = Differences::measure(meter, contrasts, progress)?;
    progress(2 * contrasts.len() as u64, "calibrating")?;
    calibrated(meter, name, contrasts, &differences, norms)
}

/// The second half of [`extract`]: from measured differences to the vector.
pub fn calibrated(
    meter: &Meter,
    name: &str,
    contrasts: &[Contrast],
    differences: &Differences,
    norms: &Norms,
) -> Result<Vector, SteeringError> {
    let raw = differences.mean(name, norms)?;
    let found = calibration::calibrate(meter, &raw, norms)?;
    // The scale is worked into the directions, so that an exported file's strength 1 is the calibrated point too.
    let mut vector = raw.scaled(|_| found.scale, "pairs")?;
    vector.calibration = Some(super::vector::Calibration { scale: 1.0, ..found });
    vector.provenance = Provenance {
        weights: Some(meter.engine.info().weights_digest),
        origin: Origin::Contrast {
            name: name.to_owned(),
            form: FORM.to_owned(),
            contrast: digest_of(contrasts),
        },
    };
    Ok(vector)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::steering::dose;

    #[test]
    fn middle_blocks() {
        for (n_blocks, range) in
            [(30, 13..=19), (18, 7..=10), (1, 0..=0), (2, 0..=0), (6, 2..=3), (32, 14..=20), (80, 35..=51)]
        {
            assert_eq!(default_blocks(n_blocks), range, "{n_blocks}");
        }
    }

    fn differences() -> Differences {
        let pairs = (0..8).map(|i| vec![3.0 + i as f32, 4.0, 0.0, 50.0 - i as f32]).collect();
        Differences { blocks: vec![1, 2], width: 2, pairs }
    }

    #[test]
    fn each_block_gets_the_same_share_of_the_dose() {
        let norms = Norms::new(vec![1.0, 10.0, 40.0]).unwrap();
        let (mean, control) =
            (differences().mean("v", &norms).unwrap(), differences().sign_shuffled("v", &norms, 1).unwrap());
        for vector in [&mean, &control] {
            for (block, direction) in vector.directions() {
                let dose = norms.dose(*block, norm(direction));
                assert!((dose - DEFAULT_DOSE / 2.0).abs() < 1e-6, "{block}: {dose}");
            }
            let sum = dose::over_blocks([DEFAULT_DOSE / 2.0; 2]);
            assert!(sum < DEFAULT_DOSE);
        }
        assert!(mean.directions()[&1][0] > 0.0 && mean.directions()[&2][0] == 0.0);
        assert_ne!(mean, control);
        assert_eq!(control, differences().sign_shuffled("v", &norms, 1).unwrap());
    }

    #[test]
    fn equal_poles_are_no_vector() {
        let differences = Differences { blocks: vec![0], width: 2, pairs: vec![vec![0.0; 2]; 3] };
        let norms = Norms::new(vec![1.0]).unwrap();
        assert!(matches!(differences.mean("v", &norms), Err(SteeringError::DoesNotFit { .. })));
    }
}
