//! From a weight file to a decoder's tensors: every tensor is asked for by name and shape, none is left over.

use super::config::ModelConfig;
use super::{ModelError, ModelOptions};
use crate::format::ElementFormat;
use crate::kernels::{self, PackedMatrix, Precision};
use crate::limits;
use crate::weights::ModelFile;
use std::collections::BTreeSet;
use std::sync::Arc;

/// Weights of one block. Norm weights are f32; gemma's already hold w + 1.
pub(super) struct BlockWeights {
    pub attn_norm: Vec<f32>,
    pub q: PackedMatrix,
    pub k: PackedMatrix,
    pub v: PackedMatrix,
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

/// Rows of an embedding table as the file stores them.
pub(super) struct EmbeddingTable {
    format: ElementFormat,
    row_bytes: usize,
    bytes: Vec<u8>,
}

impl EmbeddingTable {
    /// Row `index` in f32, `[d_model]`.
    pub fn row(&self, index: usize, out: &mut [f32]) {
        let bytes = &self.bytes[index * self.row_bytes..][..self.row_bytes];
        kernels::dequantize(self.format, bytes, out).expect("the table's size was checked at load");
    }
}

/// The configuration: metadata, and what the shapes of a few tensors say.
pub(super) fn read_config(file: &ModelFile) -> Result<ModelConfig, ModelError> {
    let mut tensors = Tensors::new(file, Precision::F32);
    tensors.config()
}

/// Reads the configuration, then every tensor.
pub(super) fn load(
    file: &ModelFile,
    options: &ModelOptions,
) -> Result<(ModelConfig, ModelWeights), ModelError> {
    let mut tensors = Tensors::new(file, options.precision);
    let config = tensors.config()?;
    let vocab_size = config.vocab_size;
    let blocks = (0..config.n_blocks).map(|l| tensors.block(&config, l)).collect::<Result<_, _>>()?;
    let output_norm = tensors.vector("output_norm.weight", config.d_model)?;
    let tied = file.tensor("output.weight").is_none();
    let head_name = if tied { "token_embd.weight" } else { "output.weight" };
    let head = tensors.matrix(head_name, vocab_size, config.d_model)?;
    let embedding =
        if tied { None } else { Some(tensors.table("token_embd.weight", vocab_size, config.d_model)?) };
    tensors.refuse_left_over()?;
    Ok((config, ModelWeights { blocks, output_norm, head, embedding }))
}

/// Tensors of a file, with a record of those that were used.
pub(super) struct Tensors<'a> {
    file: &'a ModelFile,
    precision: Precision,
    used: BTreeSet<String>,
}

impl<'a> Tensors<'a> {
    pub fn new(file: &'a ModelFile, precision: Precision) -> Tensors<'a> {
        Tensors { file, precision, used: BTreeSet::new() }
    }

    pub fn config(&mut self) -> Result<ModelConfig, ModelError> {
        let vocab_size = self.vocab_size()?;
        let divisors = match self.file.tensor("rope_freqs.weight") {
            Some(view) => Some(self.vector("rope_freqs.weight", view.shape.iter().product())?),
            None => None,
        };
        ModelConfig::from_metadata(self.file.metadata(), vocab_size, divisors)
    }

    fn vocab_size(&self) -> Result<usize, ModelError> {
        let name = "token_embd.weight";
        let view = self.file.tensor(name).ok_or(ModelError::MissingTensor { tensor: name.into() })?;
        match view.shape[..] {
            [rows, _] if rows > 0 && rows <= limits::VOCABULARY_MAX as usize => Ok(rows),
            _ => Err(ModelError::Shape { tensor: name.into(), given: view.shape.clone(), wanted: vec![] }),
        }
    }

    fn view(&mut self, name: &str, wanted: &[usize]) -> Result<(ElementFormat, &[u8]), ModelError> {
        let view = self.file.tensor(name).ok_or(ModelError::MissingTensor { tensor: name.into() })?;
        if view.shape != wanted {
            return Err(ModelError::Shape { tensor: name.into(), given: view.shape, wanted: wanted.into() });
        }
        self.used.insert(name.into());
        Ok((view.format, view.data))
    }

    pub fn matrix(&mut self, name: &str, n: usize, k: usize) -> Result<PackedMatrix, ModelError> {
        let precision = self.precision;
        let (format, data) = self.view(name, &[n, k])?;
        PackedMatrix::pack(format, n, k, data, precision)
            .map_err(|source| ModelError::Pack { tensor: name.into(), source })
    }

    pub fn vector(&mut self, name: &str, len: usize) -> Result<Vec<f32>, ModelError> {
        self.dequantized(name, &[len])
    }

    /// A tensor's values in f32, slowest dimension first.
    pub fn dequantized(&mut self, name: &str, shape: &[usize]) -> Result<Vec<f32>, ModelError> {
        let (format, data) = self.view(name, shape)?;
        let mut values = vec![0.0; shape.iter().product()];
        kernels::dequantize(format, data, &mut values)
            .map_err(|source| ModelError::Pack { tensor: name.into(), source })?;
        Ok(values)
    }

    fn table(&mut self, name: &str, n: usize, k: usize) -> Result<EmbeddingTable, ModelError> {
        let (format, data) = self.view(name, &[n, k])?;
        Ok(EmbeddingTable { format, row_bytes: data.len() / n, bytes: data.to_vec() })
    }

    fn block(&mut self, config: &ModelConfig, l: usize) -> Result<BlockWeights, ModelError> {
        let name = |part: &str| format!("blk.{l}.{part}.weight");
        let (d, q, kv, ff) = (config.d_model, config.d_queries(), config.d_keys(), config.d_ff);
        let mut optional = |present: bool, part: &str, len: usize| match present {
            true => self.vector(&name(part), len).map(Some),
            false => Ok(None),
        };
        let q_norm = optional(config.qk_norms, "attn_q_norm", config.d_head)?;
        let k_norm = optional(config.qk_norms, "attn_k_norm", config.d_head)?;
        let post_attn_norm = optional(config.post_norms, "post_attention_norm", d)?;
        let post_ffn_norm = optional(config.post_norms, "post_ffw_norm", d)?;
        Ok(BlockWeights {
            attn_norm: self.vector(&name("attn_norm"), d)?,
            q: self.matrix(&name("attn_q"), q, d)?,
            k: self.matrix(&name("attn_k"), kv, d)?,
            v: self.matrix(&name("attn_v"), kv, d)?,
            q_norm,
            k_norm,
            attn_output: Arc::new(self.matrix(&name("attn_output"), d, q)?),
            post_attn_norm,
            ffn_norm: self.vector(&name("ffn_norm"), d)?,
            gate: self.matrix(&name("ffn_gate"), ff, d)?,
            up: self.matrix(&name("ffn_up"), ff, d)?,
            down: self.matrix(&name("ffn_down"), d, ff)?,
            post_ffn_norm,
        })
    }

    /// A tensor that nothing asked for means an architecture that is not understood.
    pub fn refuse_left_over(&self) -> Result<(), ModelError> {
        match self.file.tensors().find(|view| !self.used.contains(view.name)) {
            Some(view) => Err(ModelError::LeftOver { tensor: view.name.into() }),
            None => Ok(()),
        }
    }
}
