//! A model as data: sizes and switches of the one decoder.
//!
//! `family` says what the families have and lack; `gguf` and `folder` read the settings of the two containers into one
//! [`family::Description`], from which the configuration follows; `scaling` turns rope scalings into divisors.

mod family;
mod folder;
mod gguf;
mod scaling;
#[cfg(test)]
mod tests;

pub(super) use gguf::{RopeTensors, read as of_gguf};

use super::ModelError;
use serde_json::{Map, Value};

/// The activation between gate and up projection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gating {
    /// SwiGLU: `silu(gate) * up`.
    Silu,
    /// GeGLU in its tanh form: `gelu(gate) * up`.
    GeluTanh,
}

/// Which coordinates of a head rotate together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RotaryPairs {
    /// `(2i, 2i + 1)`: llama-family GGUF, whose Q and K rows are stored permuted for it.
    Interleaved,
    /// `(i, i + d_rotary / 2)`: most others, and every family in safetensors.
    HalfSplit,
}

/// One set of rotary frequencies; a model has one or two (gemma3: local and global blocks).
#[derive(Clone, Debug, PartialEq)]
pub struct RotaryConfig {
    /// Base of the geometric series of wavelengths.
    pub base: f32,
    /// Positions are divided by this (linear scaling); 1 = off.
    pub linear_factor: f32,
    /// Divides each frequency (Llama 3.1 and later, yarn, phi3's short factors). `[d_rotary / 2]`.
    pub divisors: Option<Vec<f32>>,
    /// Takes the place of `divisors` in a model that serves long contexts (phi3).
    pub long: Option<LongRotary>,
    /// Multiplies cosines and sines (yarn and phi3: an attention factor); 1 = off.
    pub magnitude: f32,
}

/// Divisors for contexts beyond the one that the model was trained with first.
#[derive(Clone, Debug, PartialEq)]
pub struct LongRotary {
    /// `[d_rotary / 2]`
    pub divisors: Vec<f32>,
    /// In force where a sequence may have more positions than this. Not where it has: keys in the cache would be rotated
    /// by one set and queries by the other, and a row's bits would depend on how long its sequence becomes.
    pub beyond: u32,
}

impl RotaryConfig {
    /// Frequencies without any scaling.
    pub fn plain(base: f32) -> RotaryConfig {
        RotaryConfig { base, linear_factor: 1.0, divisors: None, long: None, magnitude: 1.0 }
    }

    /// The divisors of a model that serves sequences of up to `context` positions.
    pub fn divisors_for(&self, context: u32) -> Option<&[f32]> {
        match &self.long {
            Some(long) if context > long.beyond => Some(&long.divisors),
            _ => self.divisors.as_deref(),
        }
    }
}

/// What differs from block to block.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BlockConfig {
    /// Index into [`ModelConfig::rotaries`].
    pub rotary: usize,
    /// Keys a row sees, itself included; `None`: all before it.
    pub window: Option<u32>,
}

/// Sizes and switches of a decoder. `n_` counts, `d_` widths.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelConfig {
    pub architecture: String,
    pub n_blocks: usize,
    pub d_model: usize,
    pub n_heads: usize,
    pub n_kv_heads: usize,
    pub d_head: usize,
    /// Coordinates of a head that rotate, the first ones; the others stay as they are.
    pub d_rotary: usize,
    pub d_ff: usize,
    pub vocab_size: usize,
    /// Context the model was trained for.
    pub trained_context: u32,
    pub norm_epsilon: f32,
    /// Added to norm weights as the container holds them: 1 where it has w and w + 1 is multiplied.
    pub norm_offset: f32,
    /// Multiplies query-key products.
    pub attention_scale: f32,
    /// Scores become `cap * tanh(score / cap)` before masking.
    pub attention_softcap: Option<f32>,
    /// The same for logits.
    pub logit_softcap: Option<f32>,
    /// Multiplies token embeddings (gemma: sqrt(d_model)); soft rows are not scaled.
    pub embedding_scale: f32,
    pub gating: Gating,
    pub rotary_pairs: RotaryPairs,
    /// Norms after attention and MLP, before they join the residual stream.
    pub post_norms: bool,
    /// Norms of each query and key head, before rotary.
    pub qk_norms: bool,
    /// Queries, keys and values have biases.
    pub qkv_biases: bool,
    /// Queries, keys and values are one tensor, gate and up another; both are split at load.
    pub fused: bool,
    pub rotaries: Vec<RotaryConfig>,
    /// One per block.
    pub blocks: Vec<BlockConfig>,
}

impl ModelConfig {
    /// Reads `config.json` of a model folder. `vocab_size` is the height of the embedding table.
    pub fn from_json(config: &Map<String, Value>, vocab_size: usize) -> Result<ModelConfig, ModelError> {
        folder::read(config, vocab_size)
    }

    pub fn d_queries(&self) -> usize {
        self.n_heads * self.d_head
    }

    pub fn d_keys(&self) -> usize {
        self.n_kv_heads * self.d_head
    }
}
