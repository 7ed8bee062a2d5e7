//! Weights as candle tensors, and what a block does to rows with them: projections, rotary, norms, MLP.

use super::attention::{attention, mask};
use super::fused;
use super::linear::FrozenLinear;
use super::ops::Ops;
use super::{ModelError, failed};
use crate::format::ElementFormat;
use crate::kernels::{CausalShape, Cpu};
use crate::model::Reading;
use crate::model::config::{BlockConfig, ModelConfig, RotaryPairs};
use crate::model::names::Part;
use crate::model::rope::Rope;
use crate::model::rows::TokenId;
use crate::model::tensors::{Stored, Tensors};
use crate::weights::Container;
use candle_core::{D, DType, Device, Result, Tensor};
use std::sync::Arc;

/// A whole decoder in one float type on one device.
pub struct DenseWeights {
    pub config: ModelConfig,
    pub ops: Ops,
    pub blocks: Vec<DenseBlock>,
    /// `[d_model]`
    pub output_norm: Tensor,
    /// `[vocab_size, d_model]`
    pub head: FrozenLinear,
    /// `[vocab_size, d_model]`; shares the head's memory where the model ties them.
    pub embedding: Tensor,
    /// One per [`ModelConfig::rotaries`].
    ropes: Vec<Rope>,
}

/// Weights of one block. Query and key rows are in half-split order whatever the file has, see [`half_split`].
pub struct DenseBlock {
    attn_norm: Tensor,
    /// Queries, keys and values, one after the other: `[d_queries + 2 * d_keys, d_model]`.
    qkv: FrozenLinear,
    /// `[d_queries + 2 * d_keys]`, where [`ModelConfig::qkv_biases`].
    qkv_bias: Option<Tensor>,
    /// `[d_head]` each, where [`ModelConfig::qk_norms`].
    q_norm: Option<Tensor>,
    k_norm: Option<Tensor>,
    /// `[d_model, d_queries]`
    pub attn_output: FrozenLinear,
    post_attn_norm: Option<Tensor>,
    ffn_norm: Tensor,
    /// Gate and up, one after the other: `[2 * d_ff, d_model]`.
    gate_up: FrozenLinear,
    down: FrozenLinear,
    post_ffn_norm: Option<Tensor>,
    /// How the gate projection was read.
    pub stored: ElementFormat,
}

/// Cosines and sines of the rows at hand for one rotary configuration, `[rows, 1, d_rotary / 2]`.
#[derive(Clone)]
pub struct Angles {
    cos: Tensor,
    sin: Tensor,
}

/// What attention reads of `rows` rows.
pub struct Heads {
    /// `[rows, n_heads, d_head]`, rotated.
    pub queries: Tensor,
    /// `[rows, n_kv_heads, d_head]`, rotated.
    pub keys: Tensor,
    /// `[rows, n_kv_heads, d_head]`
    pub values: Tensor,
}

impl DenseWeights {
    pub fn load(
        container: &Container,
        device: &Device,
        dtype: DType,
        ops: Ops,
        reading: Reading,
    ) -> std::result::Result<DenseWeights, ModelError> {
        let (config, tensors) = Tensors::open(container, reading.quantize, 1)?;
        let mut loader = Loader { tensors, device, dtype };
        let blocks =
            (0..config.n_blocks).map(|l| loader.block(&config, l)).collect::<std::result::Result<_, _>>()?;
        let output_norm = loader.tensors.output_norm(&config)?;
        let output_norm = loader.vector(output_norm)?;
        let (embedding, head) = loader.tensors.tables(&config)?;
        let embedding = loader.matrix(&embedding)?;
        let head = match head {
            Some(head) => loader.matrix(&head)?,
            None => embedding.clone(),
        };
        loader.tensors.refuse_left_over()?;
        let rope = |rotary| Rope::new(rotary, config.d_rotary, reading.context);
        let ropes = config.rotaries.iter().map(rope).collect();
        let head = FrozenLinear::new(head);
        Ok(DenseWeights { config, ops, blocks, output_norm, head, embedding, ropes })
    }

    /// Input rows of tokens, `[ids.len(), d_model]`, scaled as the family does.
    pub fn token_rows(&self, ids: &[TokenId]) -> Result<Tensor> {
        let index = Tensor::from_slice(ids, ids.len(), self.embedding.device())?;
        let rows = self.embedding.index_select(&index, 0)?;
        match self.config.embedding_scale {
            1.0 => Ok(rows),
            scale => rows * f64::from(scale),
        }
    }

    /// Logits of normed rows by the head, or by some of its rows.
    pub fn logits(&self, head: &FrozenLinear, normed: &Tensor) -> Result<Tensor> {
        let logits = head.apply(normed)?;
        match self.config.logit_softcap {
            Some(cap) => Ops::softcap(&logits, cap),
            None => Ok(logits),
        }
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
        let half = self.config.d_rotary / 2;
        let (device, dtype) = (self.embedding.device(), self.embedding.dtype());
        let tensor =
            |values: &[f32]| Tensor::from_slice(values, (positions.len(), 1, half), device)?.to_dtype(dtype);
        self.ropes
            .iter()
            .map(|rope| {
                let mut rope = rope.clone();
                rope.set_positions(positions.iter().copied());
                Ok(Angles { cos: tensor(&rope.cos)?, sin: tensor(&rope.sin)? })
            })
            .collect()
    }
}

impl DenseBlock {
    fn parameters(&self) -> u64 {
        [&self.qkv, &self.attn_output, &self.gate_up, &self.down]
            .map(|linear| linear.weight().elem_count() as u64)
            .iter()
            .sum()
    }

    /// Queries, keys and values of the normed stream, `[rows, d_queries + 2 * d_keys]`; not yet normed or rotated.
    fn project(&self, model: &DenseWeights, stream: &Tensor) -> Result<Tensor> {
        let projected =
            self.qkv.apply(&model.ops.rms_norm(stream, &self.attn_norm, model.config.norm_epsilon)?)?;
        match &self.qkv_bias {
            Some(bias) => projected.broadcast_add(bias),
            None => Ok(projected),
        }
    }

    /// What attention reads of rows of the stream `[rows, d_model]`.
    pub fn heads(&self, model: &DenseWeights, stream: &Tensor, angles: &Angles) -> Result<Heads> {
        self.heads_of(model, &self.project(model, stream)?, angles)
    }

    fn heads_of(&self, model: &DenseWeights, projected: &Tensor, angles: &Angles) -> Result<Heads> {
        let config = &model.config;
        let rows = projected.dim(0)?;
        let (d_queries, d_keys) = (config.d_queries(), config.d_keys());
        let part = |from, len: usize| {
            projected.narrow(1, from, len)?.reshape((rows, len / config.d_head, config.d_head))
        };
        let mut queries = part(0, d_queries)?;
        let mut keys = part(d_queries, d_keys)?;
        let values = part(d_queries + d_keys, d_keys)?;
        if let (Some(q_norm), Some(k_norm)) = (&self.q_norm, &self.k_norm) {
            queries = model.ops.rms_norm(&queries, q_norm, config.norm_epsilon)?;
            keys = model.ops.rms_norm(&keys, k_norm, config.norm_epsilon)?;
        }
        Ok(Heads { queries: rotate(&queries, angles)?, keys: rotate(&keys, angles)?, values })
    }

    /// Causal attention inside each of `b` sequences of `t` rows, of the stream `[b * t, d_model]`:
    /// `[b * t, d_queries]`. A row of padding is seen by padding only, since it comes after all others.
    pub fn causal_attention(
        &self,
        model: &DenseWeights,
        block: BlockConfig,
        stream: &Tensor,
        angles: &Angles,
        (b, t): (usize, usize),
    ) -> Result<Tensor> {
        let config = &model.config;
        let projected = self.project(model, stream)?;
        // The fused form knows no soft cap.
        if let (Ops::Fused(cpu), None) = (&model.ops, config.attention_softcap) {
            let attention = self.fused_attention(cpu, config, block, angles, t)?;
            return projected.contiguous()?.apply_op1(attention);
        }
        let rows = self.heads_of(model, &projected, angles)?;
        let sequences = |rows: &Tensor, heads: usize| rows.reshape((b, t, heads, config.d_head));
        let positions: Vec<u32> = (0..t as u32).collect();
        let mask = mask(&positions, t, block.window, stream.device())?.to_dtype(stream.dtype())?;
        let keys = sequences(&rows.keys, config.n_kv_heads)?;
        let values = sequences(&rows.values, config.n_kv_heads)?;
        attention(config, &sequences(&rows.queries, config.n_heads)?, &keys, &values, &mask)?
            .reshape((b * t, config.d_queries()))
    }

    fn fused_attention(
        &self,
        cpu: &Arc<Cpu>,
        config: &ModelConfig,
        block: BlockConfig,
        angles: &Angles,
        t: usize,
    ) -> Result<fused::Attention> {
        let norms = match (&self.q_norm, &self.k_norm) {
            (Some(q_norm), Some(k_norm)) => Some((fused::values(q_norm)?, fused::values(k_norm)?)),
            _ => None,
        };
        let shape = CausalShape {
            t,
            n_heads: config.n_heads,
            n_kv_heads: config.n_kv_heads,
            d_head: config.d_head,
            scale: config.attention_scale,
            window: block.window,
        };
        let (cos, sin) = (fused::values(&angles.cos)?, fused::values(&angles.sin)?);
        Ok(fused::Attention { cpu: cpu.clone(), shape, norms, epsilon: config.norm_epsilon, cos, sin })
    }

    /// What attention adds to the stream: `mixed` is `[rows, d_queries]`.
    pub fn attention_output(&self, model: &DenseWeights, mixed: &Tensor) -> Result<Tensor> {
        post_norm(model, self.attn_output.apply(mixed)?, &self.post_attn_norm)
    }

    /// What the MLP adds to the stream, `[rows, d_model]`.
    pub fn mlp(&self, model: &DenseWeights, stream: &Tensor) -> Result<Tensor> {
        let normed = model.ops.rms_norm(stream, &self.ffn_norm, model.config.norm_epsilon)?;
        let gated = model.ops.gate(model.config.gating, &self.gate_up.apply(&normed)?)?;
        post_norm(model, self.down.apply(&gated)?, &self.post_ffn_norm)
    }
}

fn post_norm(model: &DenseWeights, added: Tensor, weight: &Option<Tensor>) -> Result<Tensor> {
    match weight {
        Some(weight) => model.ops.rms_norm(&added, weight, model.config.norm_epsilon),
        None => Ok(added),
    }
}

/// Rotates pairs `(i, i + d_rotary / 2)` of `[rows, heads, d_head]`; coordinates from `d_rotary` on stay.
fn rotate(x: &Tensor, angles: &Angles) -> Result<Tensor> {
    let (half, d_head) = (angles.cos.dim(D::Minus1)?, x.dim(D::Minus1)?);
    let (first, second) = (x.narrow(D::Minus1, 0, half)?, x.narrow(D::Minus1, half, half)?);
    let turned_first = (first.broadcast_mul(&angles.cos)? - second.broadcast_mul(&angles.sin)?)?;
    let turned_second = (second.broadcast_mul(&angles.cos)? + first.broadcast_mul(&angles.sin)?)?;
    let mut parts = vec![turned_first, turned_second];
    if 2 * half < d_head {
        parts.push(x.narrow(D::Minus1, 2 * half, d_head - 2 * half)?);
    }
    Tensor::cat(&parts, D::Minus1)
}

/// Reads tensors of a container as f32 and brings them to the device.
struct Loader<'a> {
    tensors: Tensors<'a>,
    device: &'a Device,
    dtype: DType,
}

impl Loader<'_> {
    fn matrix(&self, stored: &Stored<'_>) -> std::result::Result<Tensor, ModelError> {
        self.to_device(stored.values()?, &[stored.n, stored.k])
    }

    fn vector(&self, values: Vec<f32>) -> std::result::Result<Tensor, ModelError> {
        let len = values.len();
        self.to_device(values, &[len])
    }

    fn norm(
        &mut self,
        config: &ModelConfig,
        l: usize,
        part: Part,
    ) -> std::result::Result<Tensor, ModelError> {
        let values = self.tensors.norm(config, l, part)?;
        self.vector(values)
    }

    fn optional_norm(
        &mut self,
        config: &ModelConfig,
        l: usize,
        part: Part,
    ) -> std::result::Result<Option<Tensor>, ModelError> {
        self.tensors.optional_norm(config, l, part)?.map(|values| self.vector(values)).transpose()
    }

    fn to_device(&self, values: Vec<f32>, shape: &[usize]) -> std::result::Result<Tensor, ModelError> {
        Tensor::from_vec(values, shape, self.device)
            .and_then(|tensor| tensor.to_dtype(self.dtype))
            .map_err(failed("weights on the device"))
    }

    fn block(&mut self, config: &ModelConfig, l: usize) -> std::result::Result<DenseBlock, ModelError> {
        let d = config.d_model;
        let (queries, keys) = (config.d_queries(), config.d_keys());
        let [q, k, v] = self.tensors.q_k_v(config, l)?;
        let mut qkv = half_split(config, q.values()?, d);
        qkv.extend(half_split(config, k.values()?, d));
        qkv.extend(v.values()?);
        let qkv_bias = match self.tensors.biases(config, l)? {
            Some([q, k, v]) => {
                let biases = [half_split(config, q, 1), half_split(config, k, 1), v].concat();
                Some(self.vector(biases)?)
            }
            None => None,
        };
        let [gate, up] = self.tensors.gate_up(config, l)?;
        let mut gate_up = gate.values()?;
        gate_up.extend(up.values()?);
        let attn_output = self.tensors.matrix(l, Part::AttnOutput, d, queries)?;
        let down = self.tensors.matrix(l, Part::Down, d, config.d_ff)?;
        Ok(DenseBlock {
            attn_norm: self.norm(config, l, Part::AttnNorm)?,
            qkv: FrozenLinear::new(self.to_device(qkv, &[queries + 2 * keys, d])?),
            qkv_bias,
            q_norm: self.optional_norm(config, l, Part::QNorm)?,
            k_norm: self.optional_norm(config, l, Part::KNorm)?,
            attn_output: FrozenLinear::new(self.matrix(&attn_output)?),
            post_attn_norm: self.optional_norm(config, l, Part::PostAttnNorm)?,
            ffn_norm: self.norm(config, l, Part::FfnNorm)?,
            gate_up: FrozenLinear::new(self.to_device(gate_up, &[2 * config.d_ff, d])?),
            down: FrozenLinear::new(self.matrix(&down)?),
            post_ffn_norm: self.optional_norm(config, l, Part::PostFfnNorm)?,
            stored: gate.format,
        })
    }
}

/// Rows of a query or key projection, `width` values each, in half-split order: one form of rotary then serves every
/// family. Scores are sums over the coordinates of a head, whose order does not matter as long as queries and keys agree.
fn half_split(config: &ModelConfig, values: Vec<f32>, width: usize) -> Vec<f32> {
    let (d_head, d_rotary) = (config.d_head, config.d_rotary);
    match config.rotary_pairs {
        RotaryPairs::HalfSplit => values,
        RotaryPairs::Interleaved => {
            let source = |row: usize| {
                let (head, i) = (row / d_head, row % d_head);
                match i < d_rotary {
                    true => head * d_head + 2 * (i % (d_rotary / 2)) + i / (d_rotary / 2),
                    false => row,
                }
            };
            (0..values.len() / width)
                .flat_map(|row| &values[source(row) * width..][..width])
                .copied()
                .collect()
        }
    }
}
