//! The forward pass over whole sequences that training differentiates with respect to its input rows.

use super::linear::FrozenLinear;
use super::weights::{Angles, DenseWeights, Projected, rms_norm};
use super::{ModelError, failed};
use crate::model::config::ModelConfig;
use crate::model::rows::TokenId;
use crate::weights::ModelFile;
use candle_core::{D, DType, Device, Tensor};

/// A score of this size is no score: its exponential is zero in f32.
const MASKED: f32 = -1e30;

/// A decoder with dense, frozen weights. Memory: four bytes a weight (SmolLM2-135M: 540 MB), and during a backward pass
/// the intermediate rows of every block, some `50 * d_model + 12 * d_ff` floats a row and block.
pub struct DenseModel {
    weights: DenseWeights,
}

impl DenseModel {
    /// Dequantises every weight of the file to f32.
    pub fn load(file: &ModelFile, device: &Device) -> Result<DenseModel, ModelError> {
        DenseModel::load_as(file, device, DType::F32)
    }

    /// The same in another float type; f64 for checks by finite differences.
    pub fn load_as(file: &ModelFile, device: &Device, dtype: DType) -> Result<DenseModel, ModelError> {
        Ok(DenseModel { weights: DenseWeights::load(file, device, dtype)? })
    }

    pub fn config(&self) -> &ModelConfig {
        &self.weights.config
    }

    pub fn device(&self) -> &Device {
        self.weights.embedding.device()
    }

    pub fn dtype(&self) -> DType {
        self.weights.embedding.dtype()
    }

    /// Input rows of tokens, `[n, d_model]`, scaled as the family does. Soft rows stand beside them as they are.
    pub fn embed(&self, ids: &[TokenId]) -> Result<Tensor, ModelError> {
        let index = self.index(ids)?;
        let rows = self.weights.embedding.index_select(&index, 0).map_err(failed("token embeddings"))?;
        match self.config().embedding_scale {
            1.0 => Ok(rows),
            scale => (rows * f64::from(scale)).map_err(failed("token embeddings")),
        }
    }

    /// Rows after the final norm, `[b, t, d_model]`, of `b` sequences of input rows `[b, t, d_model]`. Sequences shorter
    /// than `t` are padded on the right with anything finite; their rows past `lengths` mean nothing. Differentiable in
    /// `inputs`.
    pub fn hidden(&self, inputs: &Tensor, lengths: &[usize]) -> Result<Tensor, ModelError> {
        let (b, t) = self.check(inputs, lengths)?;
        self.forward(inputs, b, t).map_err(failed("forward pass"))
    }

    /// Logits of rows `[n, d_model]` that [`DenseModel::hidden`] gave: `[n, vocab_size]`, or `[n, ids.len()]` for a choice
    /// of tokens. Differentiable.
    pub fn logits(&self, hidden: &Tensor, ids: Option<&[TokenId]>) -> Result<Tensor, ModelError> {
        let doing = failed("output head");
        match ids {
            None => self.weights.head.apply(hidden).map_err(doing),
            Some(ids) => {
                let chosen = self.weights.head.weight().index_select(&self.index(ids)?, 0).map_err(&doing)?;
                FrozenLinear::new(chosen).apply(hidden).map_err(doing)
            }
        }
    }

    fn index(&self, ids: &[TokenId]) -> Result<Tensor, ModelError> {
        let vocab_size = self.config().vocab_size;
        if ids.is_empty() || ids.iter().any(|id| *id as usize >= vocab_size) {
            let given = match ids.iter().find(|id| **id as usize >= vocab_size) {
                Some(id) => id.to_string(),
                None => "an empty list".into(),
            };
            let allowed = format!("0 to {}, at least one", vocab_size - 1);
            return Err(ModelError::Input { name: "token ids", given, allowed });
        }
        Tensor::from_slice(ids, ids.len(), self.device()).map_err(failed("token ids on the device"))
    }

    /// `b` and `t` of the input rows.
    fn check(&self, inputs: &Tensor, lengths: &[usize]) -> Result<(usize, usize), ModelError> {
        let d = self.config().d_model;
        let (b, t) = match *inputs.dims() {
            [b, t, width] if width == d && b > 0 && t > 0 => (b, t),
            _ => {
                let (given, allowed) = (format!("{:?}", inputs.dims()), format!("[b, t, {d}]"));
                return Err(ModelError::Input { name: "the shape of input rows", given, allowed });
            }
        };
        if lengths.len() != b || lengths.iter().any(|length| *length == 0 || *length > t) {
            let (given, allowed) = (format!("{lengths:?}"), format!("{b} numbers of 1 to {t}"));
            return Err(ModelError::Input { name: "lengths of sequences", given, allowed });
        }
        Ok((b, t))
    }

    fn forward(&self, inputs: &Tensor, b: usize, t: usize) -> candle_core::Result<Tensor> {
        let config = self.config();
        let positions: Vec<u32> = (0..b).flat_map(|_| 0..t as u32).collect();
        let angles: Vec<Angles> = self.weights.angles(&positions)?;
        let mut stream = inputs.reshape((b * t, config.d_model))?;
        for (block, settings) in self.weights.blocks.iter().zip(&config.blocks) {
            let projected = block.project(config, &stream, &angles[settings.rotary])?;
            let mixed = self.attention(projected, b, t, settings.window)?;
            stream = (stream + block.attention_output(config, &mixed)?)?;
            stream = (&stream + block.mlp(config, &stream)?)?;
        }
        rms_norm(&stream, &self.weights.output_norm, config.norm_epsilon)?.reshape((b, t, config.d_model))
    }

    /// Causal attention inside each of `b` sequences of `t` rows; `[b * t, n_heads * d_head]`. A row of padding is seen by
    /// padding only, since it comes after all others.
    fn attention(
        &self,
        rows: Projected,
        b: usize,
        t: usize,
        window: Option<u32>,
    ) -> candle_core::Result<Tensor> {
        let config = self.config();
        let (n_kv, d_head) = (config.n_kv_heads, config.d_head);
        let group = config.n_heads / n_kv;
        // Query heads of one key head are rows of one product: [b, n_kv, group * t, d_head].
        let queries = (rows.queries * f64::from(config.attention_scale))?
            .reshape((b, t, n_kv, group, d_head))?
            .permute((0, 2, 3, 1, 4))?
            .reshape((b, n_kv, group * t, d_head))?;
        let keys = rows.keys.reshape((b, t, n_kv, d_head))?.transpose(1, 2)?.contiguous()?;
        let values = rows.values.reshape((b, t, n_kv, d_head))?.transpose(1, 2)?.contiguous()?;
        let scores = queries.matmul(&keys.t()?)?.reshape((b, n_kv, group, t, t))?;
        let scores = scores.broadcast_add(&self.mask(t, window)?)?;
        let weights = softmax(&scores)?.reshape((b, n_kv, group * t, t))?;
        weights
            .matmul(&values)?
            .reshape((b, n_kv, group, t, d_head))?
            .permute((0, 3, 1, 2, 4))?
            .reshape((b * t, config.d_queries()))
    }

    /// `[t, t]`: zero where row i sees row j.
    fn mask(&self, t: usize, window: Option<u32>) -> candle_core::Result<Tensor> {
        let window = window.map_or(usize::MAX, |window| window as usize);
        let values: Vec<f32> = (0..t)
            .flat_map(|i| (0..t).map(move |j| if j <= i && i - j < window { 0.0 } else { MASKED }))
            .collect();
        Tensor::from_vec(values, (t, t), self.device())?.to_dtype(self.dtype())
    }
}

/// Over the last dimension, from operations that have a gradient. The maximum cancels out, so its gradient does too.
fn softmax(scores: &Tensor) -> candle_core::Result<Tensor> {
    let shifted = scores.broadcast_sub(&scores.max_keepdim(D::Minus1)?.detach())?;
    let weights = shifted.exp()?;
    weights.broadcast_div(&weights.sum_keepdim(D::Minus1)?)
}
