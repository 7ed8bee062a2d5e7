//! The model that the engine owns: one of two backends behind one set of functions.

use super::candle::CandleModel;
use super::config::ModelConfig;
use super::decoder::CpuModel;
use super::heads::HeadOutputs;
use super::rows::{PageId, Rows, StepOutput, TokenId};
use super::{ModelError, ModelOptions, load, self_test};
use crate::config::Backend;
use crate::kernels::{Cpu, KvFormat};
use crate::weights::Container;

/// A loaded model with its KV pages. Owned by one thread; what applies to a row travels with the row.
pub enum Model {
    Cpu(Box<CpuModel>),
    Candle(Box<CandleModel>),
}

impl Model {
    /// Brings the weights into memory and proves that every block's hook moves the stream.
    pub fn load(container: &Container, options: &ModelOptions) -> Result<Model, ModelError> {
        let mut model = match options.backend {
            Backend::Cpu => Model::Cpu(Box::new(CpuModel::load(container, options)?)),
            Backend::Candle => Model::Candle(Box::new(CandleModel::load(container, options)?)),
        };
        self_test::every_hook_moves_the_stream(&mut model)?;
        Ok(model)
    }

    /// The configuration alone, before anything is loaded.
    pub fn read_config(container: &Container) -> Result<ModelConfig, ModelError> {
        load::read_config(container)
    }

    /// What loading would ask of a container's settings, names and shapes, without its matrices.
    pub fn check(container: &Container) -> Result<ModelConfig, ModelError> {
        load::check(container)
    }

    pub fn config(&self) -> &ModelConfig {
        match self {
            Model::Cpu(model) => model.config(),
            Model::Candle(model) => model.config(),
        }
    }

    /// Where kernels outside the forward pass run: the sampler's.
    pub fn cpu(&self) -> &Cpu {
        match self {
            Model::Cpu(model) => model.cpu(),
            Model::Candle(model) => model.cpu(),
        }
    }

    /// Pages of the KV cache.
    pub fn pages(&self) -> usize {
        match self {
            Model::Cpu(model) => model.pages(),
            Model::Candle(model) => model.pages(),
        }
    }

    /// Bytes of KV for one page of positions, all blocks together. The candle backend keeps them in f32.
    pub fn page_bytes(config: &ModelConfig, format: KvFormat) -> usize {
        CpuModel::page_bytes(config, format)
    }

    /// Clears a page for a new owner.
    pub fn reset_page(&mut self, page: PageId) {
        match self {
            Model::Cpu(model) => model.reset_page(page),
            Model::Candle(model) => model.reset_page(page),
        }
    }

    /// Whether nothing stands in a page.
    #[cfg(test)]
    pub fn page_is_zero(&self, page: PageId) -> bool {
        match self {
            Model::Cpu(model) => model.page_is_zero(page),
            Model::Candle(model) => model.page_is_zero(page),
        }
    }

    /// Gives page `to` the first `positions` positions of page `from`; the others become zeros.
    pub fn copy_page(&mut self, from: PageId, to: PageId, positions: usize) {
        match self {
            Model::Cpu(model) => model.copy_page(from, to, positions),
            Model::Candle(model) => model.copy_page(from, to, positions),
        }
    }

    /// For directions of single heads.
    pub fn head_outputs(&self) -> HeadOutputs {
        match self {
            Model::Cpu(model) => model.head_outputs(),
            Model::Candle(model) => model.head_outputs(),
        }
    }

    /// The rows with which some tokens enter the first block, `[ids.len(), d_model]`. Fails where a device does.
    pub(super) fn token_rows(&self, ids: &[TokenId]) -> Result<Vec<f32>, ModelError> {
        match self {
            Model::Cpu(model) => Ok(model.token_rows(ids)),
            Model::Candle(model) => model.token_rows(ids),
        }
    }

    /// How the gate projections of the container are stored, in short for the whole model.
    pub fn quantisation(&self) -> &'static str {
        match self {
            Model::Cpu(model) => model.quantisation(),
            Model::Candle(model) => model.quantisation(),
        }
    }

    /// Number of weights.
    pub fn parameters(&self) -> u64 {
        match self {
            Model::Cpu(model) => model.parameters(),
            Model::Candle(model) => model.parameters(),
        }
    }

    /// One forward pass. Rows of one slot come in ascending position; every earlier position of the slot is in its
    /// pages or comes before it in this step. Fails where a device does; the CPU backend never does.
    pub fn step(&mut self, rows: &Rows, out: &mut StepOutput) -> Result<(), ModelError> {
        match self {
            Model::Cpu(model) => {
                model.step(rows, out);
                Ok(())
            }
            Model::Candle(model) => model.step(rows, out),
        }
    }
}
