//! The forward pass over whole sequences, differentiable in its input rows and in constants added inside the blocks.

use super::linear::FrozenLinear;
use super::ops::Ops;
use super::weights::{Angles, DenseWeights};
use super::{ModelError, failed};
use crate::kernels::{Cpu, Isa};
use crate::model::Reading;
use crate::model::config::ModelConfig;
use crate::model::rows::TokenId;
use crate::weights::Container;
use candle_core::{DType, Device, Tensor};
use std::sync::Arc;

/// A decoder with dense, frozen weights. Memory: four bytes a weight (SmolLM2-135M: 540 MB), and during a backward pass
/// the intermediate rows of every block: a row of SmolLM2 takes a megabyte.
pub struct DenseModel {
    weights: DenseWeights,
}

/// Where in a block a constant is added.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// `head[l][h]`: the outputs of all heads, before the output projection; a constant is `[n_heads * d_head]`.
    Heads,
    /// `attn[l]`: what attention adds to the stream, after any norm; a constant is `[d_model]`.
    Attention,
}

/// Constants that are added to every row of a sequence.
pub struct Constants<'a> {
    pub place: Place,
    /// One for each block, `[b, width of the place]`; `None`: nothing is added.
    pub by_block: &'a [Option<Tensor>],
}

impl Constants<'_> {
    /// `rows` (`[b * t, width]`) with the constant of block `l`, where there is one for this place.
    fn added(&self, place: Place, l: usize, rows: Tensor, b: usize, t: usize) -> candle_core::Result<Tensor> {
        match self.by_block.get(l) {
            Some(Some(constant)) if place == self.place => {
                let width = rows.dim(1)?;
                let rows = rows.reshape((b, t, width))?.broadcast_add(&constant.reshape((b, 1, width))?)?;
                rows.reshape((b * t, width))
            }
            _ => Ok(rows),
        }
    }
}

impl DenseModel {
    /// Dequantises every weight of the file to f32.
    pub fn load(container: &Container, device: &Device, reading: Reading) -> Result<DenseModel, ModelError> {
        DenseModel::load_as(container, device, DType::F32, reading)
    }

    /// The same in another float type; f64 for checks by finite differences.
    pub fn load_as(
        container: &Container,
        device: &Device,
        dtype: DType,
        reading: Reading,
    ) -> Result<DenseModel, ModelError> {
        let threads = std::thread::available_parallelism().map_or(1, |n| n.get());
        let ops = Ops::new(device, dtype, || Arc::new(Cpu::new(Isa::detect(), threads)));
        Ok(DenseModel { weights: DenseWeights::load(container, device, dtype, ops, reading)? })
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
        self.check_ids(ids)?;
        self.weights.token_rows(ids).map_err(failed("token embeddings"))
    }

    /// Rows after the final norm, `[b, t, d_model]`, of `b` sequences of input rows `[b, t, d_model]`. Sequences shorter
    /// than `t` are padded on the right with anything finite; their rows past `lengths` mean nothing. Differentiable in
    /// `inputs`.
    pub fn hidden(&self, inputs: &Tensor, lengths: &[usize]) -> Result<Tensor, ModelError> {
        self.hidden_with(inputs, lengths, &Constants { place: Place::Heads, by_block: &[] })
    }

    /// The same with constants added inside the blocks; differentiable in them.
    pub fn hidden_with(
        &self,
        inputs: &Tensor,
        lengths: &[usize],
        constants: &Constants<'_>,
    ) -> Result<Tensor, ModelError> {
        let (b, t) = self.check(inputs, lengths)?;
        self.forward(inputs, b, t, constants).map_err(failed("forward pass"))
    }

    /// Logits of rows `[n, d_model]` that [`DenseModel::hidden`] gave: `[n, vocab_size]`, or `[n, ids.len()]` for a choice
    /// of tokens. Differentiable.
    pub fn logits(&self, hidden: &Tensor, ids: Option<&[TokenId]>) -> Result<Tensor, ModelError> {
        let doing = failed("output head");
        match ids {
            None => self.weights.logits(&self.weights.head, hidden).map_err(doing),
            Some(ids) => {
                self.check_ids(ids)?;
                let index = Tensor::from_slice(ids, ids.len(), self.device()).map_err(&doing)?;
                let chosen = self.weights.head.weight().index_select(&index, 0).map_err(&doing)?;
                self.weights.logits(&FrozenLinear::new(chosen), hidden).map_err(doing)
            }
        }
    }

    fn check_ids(&self, ids: &[TokenId]) -> Result<(), ModelError> {
        let vocab_size = self.config().vocab_size;
        if ids.is_empty() || ids.iter().any(|id| *id as usize >= vocab_size) {
            let given = match ids.iter().find(|id| **id as usize >= vocab_size) {
                Some(id) => id.to_string(),
                None => "an empty list".into(),
            };
            let allowed = format!("0 to {}, at least one", vocab_size - 1);
            return Err(ModelError::Input { name: "token ids", given, allowed });
        }
        Ok(())
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

    fn forward(
        &self,
        inputs: &Tensor,
        b: usize,
        t: usize,
        constants: &Constants<'_>,
    ) -> candle_core::Result<Tensor> {
        let (model, config) = (&self.weights, self.config());
        let positions: Vec<u32> = (0..b).flat_map(|_| 0..t as u32).collect();
        let angles: Vec<Angles> = self.weights.angles(&positions)?;
        let mut stream = inputs.reshape((b * t, config.d_model))?;
        for (l, (block, settings)) in model.blocks.iter().zip(&config.blocks).enumerate() {
            let mixed =
                block.causal_attention(model, *settings, &stream, &angles[settings.rotary], (b, t))?;
            let mixed = constants.added(Place::Heads, l, mixed, b, t)?;
            let added = block.attention_output(model, &mixed)?;
            stream = (stream + constants.added(Place::Attention, l, added, b, t)?)?;
            stream = (&stream + block.mlp(model, &stream)?)?;
        }
        model.ops.rms_norm(&stream, &model.output_norm, config.norm_epsilon)?.reshape((b, t, config.d_model))
    }
}
