//! Weights as candle tensors, and what a block does to rows with them: projections, rotary, norms, MLP.

use super::linear::FrozenLinear;
use super::{ModelError, failed};
use crate::kernels::Precision;
use crate::model::config::{Gating, ModelConfig, RotaryPairs};
use crate::model::load::Tensors;
use crate::model::rope::Rope;
use crate::weights::ModelFile;
use candle_core::{D, DType, Device, Result, Tensor};

/// A whole decoder in one float type on one device.
pub struct DenseWeights {
    pub config: ModelConfig,
    pub blocks: Vec<DenseBlock>,
    /// `[d_model]`
    pub output_norm: Tensor,
    /// `[vocab_size, d_model]`
    pub head: FrozenLinear,
    /// `[vocab_size, d_model]`; shares the head's memory where the model ties them.
    pub embedding: Tensor,
}

/// Weights of one block. Query and key rows are in half-split order whatever the file has, see [`Loader::rotated`].
pub struct DenseBlock {
    attn_norm: Tensor,
    q: FrozenLinear,
    k: FrozenLinear,
    v: FrozenLinear,
    /// `[d_head]` each, where [`ModelConfig::qk_norms`].
    q_norm: Option<Tensor>,
    k_norm: Option<Tensor>,
    attn_output: FrozenLinear,
    post_attn_norm: Option<Tensor>,
    ffn_norm: Tensor,
    gate: FrozenLinear,
    up: FrozenLinear,
    down: FrozenLinear,
    post_ffn_norm: Option<Tensor>,
}

/// Cosines and sines of the rows at hand for one rotary configuration, `[rows, 1, d_head / 2]`.
#[derive(Clone)]
pub struct Angles {
    cos: Tensor,
    sin: Tensor,
}

/// What attention reads of `rows` rows.
pub struct Projected {
    /// `[rows, n_heads, d_head]`, rotated.
    pub queries: Tensor,
    /// `[rows, n_kv_heads, d_head]`, rotated.
    pub keys: Tensor,
    /// `[rows, n_kv_heads, d_head]`
    pub values: Tensor,
}

impl DenseWeights {
    pub fn load(
        file: &ModelFile,
        device: &Device,
        dtype: DType,
    ) -> std::result::Result<DenseWeights, ModelError> {
        let mut tensors = Tensors::new(file, Precision::F32);
        let config = tensors.config()?;
        let tied = file.tensor("output.weight").is_none();
        let mut loader = Loader { tensors, device, dtype };
        let (d, vocab_size) = (config.d_model, config.vocab_size);
        let blocks =
            (0..config.n_blocks).map(|l| loader.block(&config, l)).collect::<std::result::Result<_, _>>()?;
        let output_norm = loader.tensor("output_norm.weight", &[d])?;
        let embedding = loader.tensor("token_embd.weight", &[vocab_size, d])?;
        let head = if tied { embedding.clone() } else { loader.tensor("output.weight", &[vocab_size, d])? };
        loader.tensors.refuse_left_over()?;
        Ok(DenseWeights { config, blocks, output_norm, head: FrozenLinear::new(head), embedding })
    }

    /// Number of weights in products and tables.
    pub fn parameters(&self) -> u64 {
        let size = |tensor: &Tensor| tensor.elem_count() as u64;
        let tied = self.head.weight().id() == self.embedding.id();
        let tables = size(&self.embedding) + if tied { 0 } else { size(self.head.weight()) };
        tables + self.blocks.iter().map(DenseBlock::parameters).sum::<u64>()
    }

    /// Cosines and sines for rows at `positions`, one entry per [`ModelConfig::rotaries`].
    pub fn angles(&self, positions: &[u32]) -> Result<Vec<Angles>> {
        let half = self.config.d_head / 2;
        let (device, dtype) = (self.embedding.device(), self.embedding.dtype());
        let tensor =
            |values: &[f32]| Tensor::from_slice(values, (positions.len(), 1, half), device)?.to_dtype(dtype);
        self.config
            .rotaries
            .iter()
            .map(|rotary| {
                let mut rope = Rope::new(rotary, self.config.d_head);
                rope.set_positions(positions.iter().copied());
                Ok(Angles { cos: tensor(&rope.cos)?, sin: tensor(&rope.sin)? })
            })
            .collect()
    }
}

impl DenseBlock {
    fn parameters(&self) -> u64 {
        [&self.q, &self.k, &self.v, &self.attn_output, &self.gate, &self.up, &self.down]
            .map(|linear| linear.weight().elem_count() as u64)
            .iter()
            .sum()
    }

    /// `stream` is `[rows, d_model]`.
    pub fn project(&self, config: &ModelConfig, stream: &Tensor, angles: &Angles) -> Result<Projected> {
        let rows = stream.dim(0)?;
        let normed = rms_norm(stream, &self.attn_norm, config.norm_epsilon)?;
        let heads =
            |linear: &FrozenLinear, n: usize| linear.apply(&normed)?.reshape((rows, n, config.d_head));
        let mut queries = heads(&self.q, config.n_heads)?;
        let mut keys = heads(&self.k, config.n_kv_heads)?;
        let values = heads(&self.v, config.n_kv_heads)?;
        if let (Some(q_norm), Some(k_norm)) = (&self.q_norm, &self.k_norm) {
            queries = rms_norm(&queries, q_norm, config.norm_epsilon)?;
            keys = rms_norm(&keys, k_norm, config.norm_epsilon)?;
        }
        Ok(Projected { queries: rotate(&queries, angles)?, keys: rotate(&keys, angles)?, values })
    }

    /// What attention adds to the stream: `mixed` is `[rows, n_heads * d_head]`.
    pub fn attention_output(&self, config: &ModelConfig, mixed: &Tensor) -> Result<Tensor> {
        post_norm(self.attn_output.apply(mixed)?, &self.post_attn_norm, config.norm_epsilon)
    }

    /// What the MLP adds to the stream, `[rows, d_model]`.
    pub fn mlp(&self, config: &ModelConfig, stream: &Tensor) -> Result<Tensor> {
        let normed = rms_norm(stream, &self.ffn_norm, config.norm_epsilon)?;
        let gate = self.gate.apply(&normed)?;
        let gate = match config.gating {
            Gating::Silu => gate.silu()?,
            Gating::GeluTanh => gate.gelu()?,
        };
        let added = self.down.apply(&gate.mul(&self.up.apply(&normed)?)?)?;
        post_norm(added, &self.post_ffn_norm, config.norm_epsilon)
    }
}

/// `x / sqrt(mean(x^2) + epsilon) * weight` over the last dimension.
pub fn rms_norm(x: &Tensor, weight: &Tensor, epsilon: f32) -> Result<Tensor> {
    let scale = (x.sqr()?.mean_keepdim(D::Minus1)? + f64::from(epsilon))?.sqrt()?.recip()?;
    x.broadcast_mul(&scale)?.broadcast_mul(weight)
}

fn post_norm(added: Tensor, weight: &Option<Tensor>, epsilon: f32) -> Result<Tensor> {
    match weight {
        Some(weight) => rms_norm(&added, weight, epsilon),
        None => Ok(added),
    }
}

/// Rotates pairs `(i, i + d_head / 2)` of `[rows, heads, d_head]`.
fn rotate(x: &Tensor, angles: &Angles) -> Result<Tensor> {
    let half = x.dim(D::Minus1)? / 2;
    let (first, second) = (x.narrow(D::Minus1, 0, half)?, x.narrow(D::Minus1, half, half)?);
    let turned_first = (first.broadcast_mul(&angles.cos)? - second.broadcast_mul(&angles.sin)?)?;
    let turned_second = (second.broadcast_mul(&angles.cos)? + first.broadcast_mul(&angles.sin)?)?;
    Tensor::cat(&[turned_first, turned_second], D::Minus1)
}

/// Reads tensors of a file as f32 and brings them to the device.
struct Loader<'a> {
    tensors: Tensors<'a>,
    device: &'a Device,
    dtype: DType,
}

impl Loader<'_> {
    fn tensor(&mut self, name: &str, shape: &[usize]) -> std::result::Result<Tensor, ModelError> {
        let values = self.tensors.dequantized(name, shape)?;
        self.to_device(values, shape)
    }

    fn to_device(&self, values: Vec<f32>, shape: &[usize]) -> std::result::Result<Tensor, ModelError> {
        Tensor::from_vec(values, shape, self.device)
            .and_then(|tensor| tensor.to_dtype(self.dtype))
            .map_err(failed("weights on the device"))
    }

    /// A query or key projection with rows in half-split order: one form of rotary then serves every family. Scores are
    /// sums over the coordinates of a head, whose order does not matter as long as queries and keys agree.
    fn rotated(
        &mut self,
        config: &ModelConfig,
        name: &str,
        n: usize,
    ) -> std::result::Result<FrozenLinear, ModelError> {
        let (d, d_head) = (config.d_model, config.d_head);
        let values = self.tensors.dequantized(name, &[n, d])?;
        let values = match config.rotary_pairs {
            RotaryPairs::HalfSplit => values,
            RotaryPairs::Interleaved => {
                let source = |row: usize| {
                    let (head, i) = (row / d_head, row % d_head);
                    head * d_head + 2 * (i % (d_head / 2)) + i / (d_head / 2)
                };
                (0..n).flat_map(|row| &values[source(row) * d..][..d]).copied().collect()
            }
        };
        Ok(FrozenLinear::new(self.to_device(values, &[n, d])?))
    }

    fn block(&mut self, config: &ModelConfig, l: usize) -> std::result::Result<DenseBlock, ModelError> {
        let name = |part: &str| format!("blk.{l}.{part}.weight");
        let (d, ff) = (config.d_model, config.d_ff);
        let (queries, keys) = (config.d_queries(), config.d_keys());
        let mut optional = |present: bool, part: &str, len: usize| match present {
            true => self.tensor(&name(part), &[len]).map(Some),
            false => Ok(None),
        };
        let q_norm = optional(config.qk_norms, "attn_q_norm", config.d_head)?;
        let k_norm = optional(config.qk_norms, "attn_k_norm", config.d_head)?;
        let post_attn_norm = optional(config.post_norms, "post_attention_norm", d)?;
        let post_ffn_norm = optional(config.post_norms, "post_ffw_norm", d)?;
        let q = self.rotated(config, &name("attn_q"), queries)?;
        let k = self.rotated(config, &name("attn_k"), keys)?;
        let mut linear =
            |part: &str, n: usize, k: usize| self.tensor(&name(part), &[n, k]).map(FrozenLinear::new);
        let v = linear("attn_v", keys, d)?;
        let attn_output = linear("attn_output", d, queries)?;
        let (gate, up, down) =
            (linear("ffn_gate", ff, d)?, linear("ffn_up", ff, d)?, linear("ffn_down", d, ff)?);
        let attn_norm = self.tensor(&name("attn_norm"), &[d])?;
        let ffn_norm = self.tensor(&name("ffn_norm"), &[d])?;
        Ok(DenseBlock {
            attn_norm,
            q,
            k,
            v,
            q_norm,
            k_norm,
            attn_output,
            post_attn_norm,
            ffn_norm,
            gate,
            up,
            down,
            post_ffn_norm,
        })
    }
}
