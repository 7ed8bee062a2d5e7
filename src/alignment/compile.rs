//! Constants of heads or of attention as a vector at `attn[l]`, which a plan can carry.

use super::AlignmentError;
use super::gradients::Gradients;
use crate::model::{HeadOutputs, Place};
use crate::steering::{Hook, Vector};
use std::collections::BTreeMap;
use std::sync::Arc;

/// What adding `constants` (`[n_blocks * width]`) at a place adds at `attn[l]`. `None` where they are all zero.
pub fn vector(
    name: &str,
    constants: &[f64],
    shape: &Gradients,
    outputs: &HeadOutputs,
    d_head: usize,
) -> Result<Option<Vector>, AlignmentError> {
    let mut directions: BTreeMap<u32, Arc<[f32]>> = BTreeMap::new();
    for (l, block) in (0u32..).zip(constants.chunks_exact(shape.width.max(1))) {
        if block.iter().all(|value| *value as f32 == 0.0) {
            continue;
        }
        let direction: Vec<f32> = match shape.place {
            Place::Attention => block.iter().map(|value| *value as f32).collect(),
            Place::Heads => of_heads(l, block, outputs, d_head)?,
        };
        directions.insert(l, direction.into());
    }
    if directions.is_empty() {
        return Ok(None);
    }
    let mut vector = Vector::new(name, directions, "alignment")?;
    vector.hook = Hook::Attn;
    Ok(Some(vector))
}

/// Sums over heads in ascending order, in f64.
fn of_heads(l: u32, block: &[f64], outputs: &HeadOutputs, d_head: usize) -> Result<Vec<f32>, AlignmentError> {
    let mut sum: Vec<f64> = Vec::new();
    for (h, delta) in (0u32..).zip(block.chunks_exact(d_head.max(1))) {
        let delta: Vec<f32> = delta.iter().map(|value| *value as f32).collect();
        if delta.iter().all(|value| *value == 0.0) {
            continue;
        }
        let direction =
            outputs.direction(l, h, &delta).map_err(|error| AlignmentError::Failed(error.to_string()))?;
        sum.resize(direction.len(), 0.0);
        sum.iter_mut().zip(direction).for_each(|(sum, value)| *sum += f64::from(value));
    }
    Ok(sum.into_iter().map(|value| value as f32).collect())
}
