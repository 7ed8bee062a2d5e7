//! The centred residual norms of a model, from neutral text: what doses are relative to. Measured once per model.

use super::dose::Norms;
use super::error::SteeringError;
use super::measure::Meter;
use super::vector::norm;
use crate::engine::Reduce;
use crate::shipped;
use crate::statistics::median;

/// Pieces of neutral text that are used: about 500 tokens.
pub const PIECES: usize = 4;

/// Neutral text for norms and calibration.
pub fn neutral_text() -> Result<&'static str, SteeringError> {
    shipped::file("neutral.txt")
        .ok_or_else(|| SteeringError::Internal("`models/neutral.txt` is not in this build".to_owned()))
}

/// Measures `median_t |h_l(t) - mean(h_l)|` for every block l, the first token of each piece left out.
///
/// Two passes, so that no more than a piece's rows are ever held: the mean, then the distances from it.
pub fn measure(meter: &Meter) -> Result<Norms, SteeringError> {
    let blocks: Vec<u32> = (0..meter.n_blocks()).collect();
    let pieces = meter.pieces(neutral_text()?, PIECES)?;
    if pieces.is_empty() {
        return Err(SteeringError::Internal("the neutral text is too short".to_owned()));
    }
    let sequences = || pieces.iter().map(|piece| (piece.clone(), 1));
    let mut sum: Vec<f32> = Vec::new();
    meter.capture(&blocks, sequences(), Reduce::Mean, |_, rows| {
        let row = rows.into_iter().next().unwrap_or_default();
        sum.resize(row.len(), 0.0);
        sum.iter_mut().zip(row).for_each(|(sum, value)| *sum += value);
        Ok(())
    })?;
    let mean: Vec<f32> = sum.iter().map(|sum| sum / pieces.len() as f32).collect();
    let width = meter.engine.info().d_model as usize;
    let mut distances: Vec<Vec<f32>> = vec![Vec::new(); blocks.len()];
    meter.capture(&blocks, sequences(), Reduce::Each, |_, rows| {
        for row in rows {
            push_distances(&row, &mean, width, &mut distances);
        }
        Ok(())
    })?;
    let centred = distances.iter().map(|values| median(values)).collect();
    Norms::new(centred).ok_or_else(|| {
        SteeringError::Internal("the model's residual norms are not finite and positive".to_owned())
    })
}

/// Distance of one token's rows `[n_blocks, d_model]` from the mean, per block.
fn push_distances(row: &[f32], mean: &[f32], width: usize, distances: &mut [Vec<f32>]) {
    let blocks = row.chunks_exact(width).zip(mean.chunks_exact(width));
    for ((values, mean), distances) in blocks.zip(distances) {
        let centred: Vec<f32> = values.iter().zip(mean).map(|(value, mean)| value - mean).collect();
        distances.push(norm(&centred));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances_are_per_block() {
        let mut distances = vec![Vec::new(), Vec::new()];
        push_distances(&[4.0, 6.0, 1.0, 1.0], &[1.0, 2.0, 1.0, 0.0], 2, &mut distances);
        assert_eq!(distances, [vec![5.0], vec![1.0]]);
    }
}
