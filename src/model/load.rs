//! From a container to the weights that the CPU backend computes with.

use super::config::ModelConfig;
use super::names::Part;
use super::tensors::{Stored, Tensors};
use super::{ModelError, ModelOptions};
use crate::format::ElementFormat;
use crate::kernels::{self, PackedMatrix, Precision};
use crate::weights::Container;
use std::sync::Arc;

/// Weights of one block. Norm weights are what is multiplied: gemma's hold w + 1.
pub(super) struct BlockWeights {
    pub attn_norm: Vec<f32>,
    pub q: PackedMatrix,
    pub k: PackedMatrix,
    pub v: PackedMatrix,
    /// Of queries, keys and values, where [`ModelConfig::qkv_biases`].
    pub biases: Option<[Vec<f32>; 3]>,
    /// `[d_head]` each, where [`ModelConfig::qk_norms`].
    pub q_norm: Option<Vec<f32>>,
    pub k_norm: Option<Vec<f32>>,
    /// Shared with [`super::HeadOutputs`].
    pub attn_output: Arc<PackedMatrix>,
    pub post_attn_norm: Option<Vec<f32>>,
    pub ffn_norm: Vec<f32>,
    pub gate: PackedMatrix,
    pub up: PackedMatrix,
    pub down: PackedMatrix,
    pub post_ffn_norm: Option<Vec<f32>>,
}

/// Weights of a whole decoder.
pub(super) struct ModelWeights {
    pub blocks: Vec<BlockWeights>,
    pub output_norm: Vec<f32>,
    /// `[vocab_size, d_model]`
    pub head: PackedMatrix,
    /// The embedding table where it is not the head's.
    pub embedding: Option<EmbeddingTable>,
}

impl ModelWeights {
    /// All matrices that products read.
    pub fn matrices(&self) -> impl Iterator<Item = &PackedMatrix> {
        self.blocks.iter().flat_map(BlockWeights::matrices).chain([&self.head])
    }
}

impl BlockWeights {
    fn matrices(&self) -> [&PackedMatrix; 7] {
        [&self.q, &self.k, &self.v, &self.attn_output, &self.gate, &self.up, &self.down]
    }
}

/// Rows of an embedding table as the file stores them.
pub(super) struct EmbeddingTable {
    format: ElementFormat,
    row_bytes: usize,
    bytes: Vec<u8>,
}

impl EmbeddingTable {
    fn new(stored: Stored<'_>) -> EmbeddingTable {
        let row_bytes = stored.data.len() / stored.n;
        EmbeddingTable { format: stored.format, row_bytes, bytes: stored.data.into_owned() }
    }

    /// Row `index` in f32, `[d_model]`.
    pub fn row(&self, index: usize, out: &mut [f32]) {
        let bytes = &self.bytes[index * self.row_bytes..][..self.row_bytes];
        kernels::dequantize(self.format, bytes, out).expect("the table's size was checked at load");
    }
}

/// The configuration: settings, and what the shapes of a few tensors say.
pub(super) fn read_config(container: &Container) -> Result<ModelConfig, ModelError> {
    Tensors::open(container, None, 1).map(|(config, _)| config)
}

/// Reads the configuration, then every tensor.
pub(super) fn load(
    container: &Container,
    options: &ModelOptions,
) -> Result<(ModelConfig, ModelWeights), ModelError> {
    let (config, mut tensors) = Tensors::open(container, options.reading.quantize, options.threads)?;
    let weights = weights(&config, &mut tensors, options.precision)?;
    tensors.refuse_left_over()?;
    Ok((config, weights))
}

/// Reads the configuration and looks at every tensor's name and shape, not at the values of matrices.
pub(super) fn check(container: &Container) -> Result<ModelConfig, ModelError> {
    let (config, mut tensors) = Tensors::open(container, None, 1)?;
    let d = config.d_model;
    for l in 0..config.n_blocks {
        for part in [Part::AttnNorm, Part::FfnNorm] {
            tensors.norm(&config, l, part)?;
        }
        for part in [Part::QNorm, Part::KNorm, Part::PostAttnNorm, Part::PostFfnNorm] {
            tensors.optional_norm(&config, l, part)?;
        }
        tensors.q_k_v(&config, l)?;
        tensors.biases(&config, l)?;
        tensors.gate_up(&config, l)?;
        tensors.matrix(l, Part::AttnOutput, d, config.d_queries())?;
        tensors.matrix(l, Part::Down, d, config.d_ff)?;
    }
    tensors.output_norm(&config)?;
    tensors.tables(&config)?;
    tensors.refuse_left_over()?;
    Ok(config)
}

/// The tensors that a configuration asks for.
pub(super) fn weights(
    config: &ModelConfig,
    tensors: &mut Tensors<'_>,
    precision: Precision,
) -> Result<ModelWeights, ModelError> {
    let blocks =
        (0..config.n_blocks).map(|l| block(config, tensors, precision, l)).collect::<Result<_, _>>()?;
    let output_norm = tensors.output_norm(config)?;
    let (table, head) = tensors.tables(config)?;
    let (head, embedding) = match head {
        Some(head) => (head.pack(precision)?, Some(EmbeddingTable::new(table))),
        None => (table.pack(precision)?, None),
    };
    Ok(ModelWeights { blocks, output_norm, head, embedding })
}

fn block(
    config: &ModelConfig,
    tensors: &mut Tensors<'_>,
    precision: Precision,
    l: usize,
) -> Result<BlockWeights, ModelError> {
    let d = config.d_model;
    let [q, k, v] = tensors.q_k_v(config, l)?;
    let [gate, up] = tensors.gate_up(config, l)?;
    let attn_output = tensors.matrix(l, Part::AttnOutput, d, config.d_queries())?;
    Ok(BlockWeights {
        attn_norm: tensors.norm(config, l, Part::AttnNorm)?,
        q: q.pack(precision)?,
        k: k.pack(precision)?,
        v: v.pack(precision)?,
        biases: tensors.biases(config, l)?,
        q_norm: tensors.optional_norm(config, l, Part::QNorm)?,
        k_norm: tensors.optional_norm(config, l, Part::KNorm)?,
        attn_output: Arc::new(attn_output.pack(precision)?),
        post_attn_norm: tensors.optional_norm(config, l, Part::PostAttnNorm)?,
        ffn_norm: tensors.norm(config, l, Part::FfnNorm)?,
        gate: gate.pack(precision)?,
        up: up.pack(precision)?,
        down: tensors.matrix(l, Part::Down, d, config.d_ff)?.pack(precision)?,
        post_ffn_norm: tensors.optional_norm(config, l, Part::PostFfnNorm)?,
    })
}
