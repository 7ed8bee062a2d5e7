//! One configurable decoder with hook points: config as data, rows of a step, edits, KV pages, rotary, CPU backend.
//! Knows numbers only: no vector names, no text, no HTTP.

mod backend;
pub mod candle;
mod capture;
mod config;
mod decoder;
mod edits;
mod embedding;
#[cfg(test)]
mod families_tests;
#[cfg(test)]
pub mod fixtures;
mod heads;
mod load;
mod names;
mod rope;
mod rows;
mod self_test;
mod tensors;
#[cfg(test)]
pub mod tiny;

pub use backend::Model;
pub use candle::{Constants, DenseModel, Place, gradients};
pub use config::{BlockConfig, Gating, LongRotary, ModelConfig, RotaryConfig, RotaryPairs};
pub use edits::{BlockEdits, Change, Edit, Edits, Phase, RowRule};
pub use embedding::{ControlRow, EmbeddingFacts};
pub use heads::HeadOutputs;
pub use rows::{CaptureSpec, Input, PageId, Row, Rows, Slot, SoftRows, StepOutput, TokenId, Wants};

use crate::config::{Backend, Device, Quantize};
use crate::kernels::{Isa, KernelError, KvFormat, Precision};
use crate::limits::CONTEXT_DEFAULT_MAX;
use crate::weights::WeightsError;

/// How a container's weights and settings are taken, whatever computes with them.
#[derive(Clone, Copy, Debug)]
pub struct Reading {
    /// What becomes of weights that are not packed.
    pub quantize: Option<Quantize>,
    /// Most positions of a sequence; rotary frequencies of some families depend on it, see [`LongRotary`].
    pub context: u32,
}

impl Default for Reading {
    fn default() -> Reading {
        Reading { quantize: None, context: CONTEXT_DEFAULT_MAX }
    }
}

/// How a model is brought into memory.
#[derive(Clone, Debug)]
pub struct ModelOptions {
    pub backend: Backend,
    /// Where the candle backend computes; the CPU backend has the CPU only.
    pub device: Device,
    pub precision: Precision,
    pub isa: Isa,
    pub threads: usize,
    pub reading: Reading,
    /// How the CPU backend keeps keys and values; candle keeps floats.
    pub kv_format: KvFormat,
    /// Pages of the KV cache.
    pub pages: usize,
}

#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    #[error(transparent)]
    Weights(#[from] WeightsError),
    #[error("architecture `{given}` is not supported; supported are: {known}")]
    Architecture { given: String, known: String },
    #[error("metadata key `{key}` is missing")]
    MissingKey { key: String },
    #[error("metadata key `{key}` is {given}; allowed: {allowed}")]
    Range { key: String, given: String, allowed: String },
    #[error("tensor `{tensor}` is missing")]
    MissingTensor { tensor: String },
    #[error("tensor `{tensor}` has shape {given:?}; the configuration wants {wanted:?}")]
    Shape { tensor: String, given: Vec<usize>, wanted: Vec<usize> },
    #[error("tensor `{tensor}` belongs to nothing this architecture has")]
    LeftOver { tensor: String },
    #[error("tensor `{tensor}`: {source}")]
    Pack { tensor: String, source: KernelError },
    #[error("head {h} of block {l} does not exist; the model has {n_blocks} blocks of {n_heads} heads")]
    NoSuchHead { l: u32, h: u32, n_blocks: usize, n_heads: usize },
    #[error("{given} values for a head of width {wanted}")]
    HeadWidth { given: usize, wanted: usize },
    #[error("this model's family norms the output of attention, so that no direction equals a moved head")]
    HeadBehindNorm,
    #[error("the hook at the output of block {block} does not move the residual stream as it should")]
    DeadHook { block: usize },
    #[error("{doing}: {source}")]
    Candle { doing: &'static str, source: candle_core::Error },
    #[error("{name} is {given}; allowed: {allowed}")]
    Input { name: &'static str, given: String, allowed: String },
    #[error("no gradient reaches `{tensor}`; it would stay as it is however long it is trained")]
    NoGradient { tensor: String },
}
