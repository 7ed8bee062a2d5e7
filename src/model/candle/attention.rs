//! Attention of some rows over some keys, from operations that have a gradient.

use super::ops::Ops;
use crate::model::config::ModelConfig;
use candle_core::{D, Device, Result, Tensor};

/// A score of this size is no score: its exponential is zero in f32.
const MASKED: f32 = -1e30;

/// `b` sequences with `r` rows and `n` keys each: queries `[b, r, n_heads, d_head]`, keys and values
/// `[b, n, n_kv_heads, d_head]`, mask `[r, n]` (see [`mask`]). Gives `[b, r, n_heads * d_head]`.
pub fn attention(
    config: &ModelConfig,
    queries: &Tensor,
    keys: &Tensor,
    values: &Tensor,
    mask: &Tensor,
) -> Result<Tensor> {
    let (b, r, _, d_head) = queries.dims4()?;
    let (n, n_kv) = (keys.dim(1)?, config.n_kv_heads);
    let group = config.n_heads / n_kv;
    // Query heads of one key head are rows of one product: [b, n_kv, group * r, d_head].
    let queries = (queries * f64::from(config.attention_scale))?
        .reshape((b, r, n_kv, group, d_head))?
        .permute((0, 2, 3, 1, 4))?
        .reshape((b, n_kv, group * r, d_head))?;
    let keys = keys.transpose(1, 2)?.contiguous()?;
    let values = values.transpose(1, 2)?.contiguous()?;
    let scores = queries.matmul(&keys.t()?)?.reshape((b, n_kv, group, r, n))?;
    let scores = match config.attention_softcap {
        Some(cap) => Ops::softcap(&scores, cap)?,
        None => scores,
    };
    let weights = softmax(&scores.broadcast_add(mask)?)?.reshape((b, n_kv, group * r, n))?;
    weights.matmul(&values)?.reshape((b, n_kv, group, r, d_head))?.permute((0, 3, 1, 2, 4))?.reshape((
        b,
        r,
        config.d_queries(),
    ))
}

/// `[positions.len(), n]`: zero where the row at a position sees the key at position j, itself included.
pub fn mask(positions: &[u32], n: usize, window: Option<u32>, device: &Device) -> Result<Tensor> {
    let window = window.unwrap_or(u32::MAX);
    let sees = |i: u32, j: u32| j <= i && i - j < window;
    let values: Vec<f32> = (positions.iter())
        .flat_map(|i| (0..n as u32).map(move |j| if sees(*i, j) { 0.0 } else { MASKED }))
        .collect();
    Tensor::from_vec(values, (positions.len(), n), device)
}

/// Over the last dimension. The maximum cancels out, so its gradient does too.
fn softmax(scores: &Tensor) -> Result<Tensor> {
    let shifted = scores.broadcast_sub(&scores.max_keepdim(D::Minus1)?.detach())?;
    let weights = shifted.exp()?;
    weights.broadcast_div(&weights.sum_keepdim(D::Minus1)?)
}
