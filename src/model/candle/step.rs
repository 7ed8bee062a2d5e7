//! The second backend of the engine: rows of a step on candle tensors, with a paged KV cache on the same device.

use super::attention::{attention, mask};
use super::ops::Ops;
use super::weights::{Angles, DenseBlock, DenseWeights};
use super::{ModelError, failed};
use crate::config;
use crate::kernels::{self, Cpu};
use crate::limits::PAGE_POSITIONS;
use crate::model::ModelOptions;
use crate::model::capture::Captures;
use crate::model::config::ModelConfig;
use crate::model::edits::{self, Hook, InForce, StepEdits};
use crate::model::heads::{HeadOutputs, Projection};
use crate::model::rows::{Input, PageId, Rows, StepOutput, TokenId};
use crate::weights::Container;
use candle_core::{DType, Device, Tensor};
use std::sync::Arc;

/// Dense weights with their KV pages.
pub struct CandleModel {
    weights: DenseWeights,
    device: Device,
    /// For work on the host: edits, the sampler, and what lies between products where the device is the CPU.
    cpu: Arc<Cpu>,
    /// One per block.
    kv: Vec<KvTensors>,
    pages: usize,
    /// The distinct windows of the blocks, in order of appearance.
    windows: Vec<Option<u32>>,
    /// What went wrong between two steps; the next one says so.
    failure: Option<candle_core::Error>,
}

/// Keys and values of one block, `[pages * PAGE_POSITIONS, n_kv_heads * d_head]` each.
struct KvTensors {
    keys: Tensor,
    values: Tensor,
}

/// What the rows of one slot share in a step.
struct SlotPlan {
    /// Where the slot's rows stand in the step.
    rows: Vec<u32>,
    /// The slot's pages as far as its last row, as an index.
    pages: Tensor,
    /// Keys that its last row may see.
    keys: usize,
    /// Runs of rows that stand in one piece in the cache: first row, first place, rows.
    runs: Vec<(usize, usize, usize)>,
    /// `[rows, keys]`, one for each distinct window of the blocks, in the order of [`CandleModel::windows`].
    masks: Vec<Tensor>,
}

impl CandleModel {
    /// Dequantises the weights to f32 on the device.
    pub fn load(container: &Container, options: &ModelOptions) -> Result<CandleModel, ModelError> {
        let device = match options.device {
            config::Device::Cpu => Device::Cpu,
            config::Device::Cuda(index) => {
                Device::new_cuda(index).map_err(failed("opening the CUDA device"))?
            }
        };
        let cpu = Arc::new(Cpu::new(options.isa, options.threads));
        let ops = Ops::new(&device, DType::F32, || cpu.clone());
        let weights = DenseWeights::load(container, &device, DType::F32, ops, options.reading)?;
        let config = &weights.config;
        let pages = options.pages.max(2);
        let zeros = || Tensor::zeros((pages * PAGE_POSITIONS, config.d_keys()), DType::F32, &device);
        let kv = (0..config.n_blocks)
            .map(|_| Ok(KvTensors { keys: zeros()?, values: zeros()? }))
            .collect::<candle_core::Result<_>>()
            .map_err(failed("memory for keys and values"))?;
        let windows = windows(config);
        Ok(CandleModel { weights, device, cpu, kv, pages, windows, failure: None })
    }

    pub fn config(&self) -> &ModelConfig {
        &self.weights.config
    }

    pub fn cpu(&self) -> &Cpu {
        &self.cpu
    }

    pub fn pages(&self) -> usize {
        self.pages
    }

    pub fn reset_page(&mut self, page: PageId) {
        self.copy_page(page, page, 0);
    }

    /// Whether nothing stands in a page; no where the device cannot say.
    #[cfg(test)]
    pub fn page_is_zero(&self, page: PageId) -> bool {
        let is_zero = |cache: &Tensor| -> candle_core::Result<bool> {
            let values = host(&cache.narrow(0, page as usize * PAGE_POSITIONS, PAGE_POSITIONS)?)?;
            Ok(values.iter().all(|value| value.to_bits() == 0))
        };
        self.kv
            .iter()
            .all(|layer| is_zero(&layer.keys).unwrap_or(false) && is_zero(&layer.values).unwrap_or(false))
    }

    /// Gives page `to` the first `positions` positions of page `from`; the others become zeros.
    pub fn copy_page(&mut self, from: PageId, to: PageId, positions: usize) {
        let copied = |cache: &Tensor| -> candle_core::Result<()> {
            let zeros = (PAGE_POSITIONS - positions, self.config().d_keys());
            let page = match positions {
                0 => Tensor::zeros(zeros, DType::F32, &self.device)?,
                _ => {
                    let kept = cache.narrow(0, from as usize * PAGE_POSITIONS, positions)?.copy()?;
                    Tensor::cat(&[kept, Tensor::zeros(zeros, DType::F32, &self.device)?], 0)?
                }
            };
            cache.slice_set(&page, 0, to as usize * PAGE_POSITIONS)
        };
        let result = self.kv.iter().try_for_each(|layer| {
            copied(&layer.keys)?;
            copied(&layer.values)
        });
        if let Err(error) = result {
            self.failure = Some(error);
        }
    }

    /// For directions of single heads.
    pub(in crate::model) fn head_outputs(&self) -> HeadOutputs {
        let projection = |block: &DenseBlock| Projection::Dense(block.attn_output.clone());
        HeadOutputs::new(self.config(), self.weights.blocks.iter().map(projection).collect())
    }

    /// The rows with which some tokens enter the first block, `[ids.len(), d_model]`.
    pub(in crate::model) fn token_rows(&self, ids: &[TokenId]) -> Result<Vec<f32>, ModelError> {
        let rows = self.weights.token_rows(ids).and_then(|rows| host(&rows));
        rows.map_err(failed("reading rows of the embedding table"))
    }

    /// How the gate projections were stored.
    pub fn quantisation(&self) -> &'static str {
        self.weights.blocks.first().map_or("", |block| block.stored.name())
    }

    /// Number of weights.
    pub fn parameters(&self) -> u64 {
        self.weights.parameters()
    }

    /// See [`crate::model::Model::step`].
    pub fn step(&mut self, rows: &Rows, out: &mut StepOutput) -> Result<(), ModelError> {
        out.logits.clear();
        out.captures.clear();
        if let Some(error) = self.failure.take() {
            return Err(failed("writing a page of keys and values")(error));
        }
        if rows.rows.is_empty() {
            return Ok(());
        }
        let mut captures = Captures::new(rows, self.config());
        out.logits = self.forward(rows, &mut captures).map_err(failed("forward pass"))?;
        out.captures = captures.finish();
        Ok(())
    }

    /// Logits of the rows that want them, `[n, vocab_size]`.
    fn forward(&self, rows: &Rows, captures: &mut Captures) -> candle_core::Result<Vec<f32>> {
        let config = self.config();
        let plans = self.plans(rows)?;
        let order: Vec<u32> = plans.iter().flat_map(|plan| plan.rows.iter().copied()).collect();
        let positions: Vec<u32> = rows.rows.iter().map(|row| row.position).collect();
        let angles = self.weights.angles(&positions)?;
        let edits = StepEdits::new(rows, config.n_blocks);
        let capturing = rows.rows.iter().any(|row| row.wants.capture);
        let mut stream = self.embed(rows)?;
        for (l, block) in config.blocks.iter().enumerate() {
            let window = self.windows.iter().position(|window| *window == block.window).unwrap_or(0);
            let mixed = self.attention(l, &stream, &angles[block.rotary], &plans, window)?;
            let mixed = in_order(&mixed, &order, &self.device)?;
            if capturing {
                captures.read_heads(l, &host(&mixed)?);
            }
            let added = self.weights.blocks[l].attention_output(&self.weights, &mixed)?;
            let added = self.edited(added, &edits, l, Hook::Attn)?;
            stream = (stream + added)?;
            stream = (&stream + self.weights.blocks[l].mlp(&self.weights, &stream)?)?;
            stream = self.edited(stream, &edits, l, Hook::Resid)?;
            if capturing {
                captures.read_resid(l, &host(&stream)?);
            }
        }
        self.head(rows, &stream)
    }

    /// Token embeddings (scaled where the family does) and soft rows (as they are), `[rows, d_model]`.
    fn embed(&self, rows: &Rows) -> candle_core::Result<Tensor> {
        let (n, d) = (rows.rows.len(), self.config().d_model);
        let ids: Vec<TokenId> = (rows.rows.iter())
            .map(|row| match row.input {
                Input::Token(id) => id,
                Input::Soft(_) => 0,
            })
            .collect();
        let tokens = self.weights.token_rows(&ids)?;
        if rows.rows.iter().all(|row| matches!(row.input, Input::Token(_))) {
            return Ok(tokens);
        }
        let mut keep = vec![1f32; n];
        let mut soft = vec![0f32; n * d];
        for (i, row) in rows.rows.iter().enumerate() {
            if let Input::Soft(j) = row.input {
                keep[i] = 0.0;
                soft[i * d..][..d].copy_from_slice(rows.slots[row.slot as usize].soft.row(j as usize));
            }
        }
        let keep = Tensor::from_vec(keep, (n, 1), &self.device)?;
        tokens.broadcast_mul(&keep)? + Tensor::from_vec(soft, (n, d), &self.device)?
    }

    /// Writes keys and values of all rows to their pages, then attends slot by slot: `[rows, d_queries]`, slots one after
    /// the other.
    fn attention(
        &self,
        l: usize,
        stream: &Tensor,
        angles: &Angles,
        plans: &[SlotPlan],
        window: usize,
    ) -> candle_core::Result<Tensor> {
        let config = self.config();
        let (n, d_keys) = (stream.dim(0)?, config.d_keys());
        let projected = self.weights.blocks[l].heads(&self.weights, stream, angles)?;
        let (keys, values) = (projected.keys.reshape((n, d_keys))?, projected.values.reshape((n, d_keys))?);
        let kv = &self.kv[l];
        let mut mixed = Vec::with_capacity(plans.len());
        for plan in plans {
            let (keys, values) =
                (pick(&keys, &plan.rows, &self.device)?, pick(&values, &plan.rows, &self.device)?);
            for (first, place, len) in &plan.runs {
                kv.keys.slice_set(&keys.narrow(0, *first, *len)?.contiguous()?, 0, *place)?;
                kv.values.slice_set(&values.narrow(0, *first, *len)?.contiguous()?, 0, *place)?;
            }
            let queries = pick(&projected.queries, &plan.rows, &self.device)?.unsqueeze(0)?;
            let (keys, values) = (self.read(&kv.keys, plan)?, self.read(&kv.values, plan)?);
            let rows = attention(config, &queries, &keys, &values, &plan.masks[window])?;
            mixed.push(rows.squeeze(0)?);
        }
        Tensor::cat(&mixed, 0)
    }

    /// The slot's keys or values, `[1, keys, n_kv_heads, d_head]`.
    fn read(&self, cache: &Tensor, plan: &SlotPlan) -> candle_core::Result<Tensor> {
        let config = self.config();
        let pages = cache.reshape((self.pages, PAGE_POSITIONS * config.d_keys()))?;
        let rows = plan.pages.elem_count() * PAGE_POSITIONS;
        pages
            .index_select(&plan.pages, 0)?
            .reshape((1, rows, config.n_kv_heads, config.d_head))?
            .narrow(1, 0, plan.keys)
    }

    /// Applies the edits at one hook point, by the same rule on the host as the CPU backend. Rows go there and back only where
    /// a projection must read them.
    fn edited(&self, values: Tensor, edits: &StepEdits, l: usize, hook: Hook) -> candle_core::Result<Tensor> {
        let n = values.dim(0)?;
        let all = || (0..n).flat_map(|row| edits.at(l, hook, row));
        if all().next().is_none() {
            return Ok(values);
        }
        let shape = (n, self.config().d_model);
        let projects = all().any(|edit| matches!(edit, InForce::Project { .. }));
        let mut rows = if projects { host(&values)? } else { vec![0.0; shape.0 * shape.1] };
        kernels::each_row(&self.cpu, n, [&mut rows], |row, [h]| {
            edits::apply(&self.cpu, edits.at(l, hook, row), h)
        });
        let rows = Tensor::from_vec(rows, shape, &self.device)?;
        if projects { Ok(rows) } else { values + rows }
    }

    fn head(&self, rows: &Rows, stream: &Tensor) -> candle_core::Result<Vec<f32>> {
        let wanted: Vec<u32> =
            (0..).zip(rows.rows).filter(|(_, row)| row.wants.logits).map(|(i, _)| i).collect();
        if wanted.is_empty() {
            return Ok(Vec::new());
        }
        let chosen = pick(stream, &wanted, &self.device)?;
        let epsilon = self.config().norm_epsilon;
        let normed = self.weights.ops.rms_norm(&chosen, &self.weights.output_norm, epsilon)?;
        host(&self.weights.logits(&self.weights.head, &normed)?)
    }

    fn plans(&self, rows: &Rows) -> candle_core::Result<Vec<SlotPlan>> {
        (rows.slots.iter().enumerate())
            .map(|(slot, shared)| {
                let own: Vec<u32> = (0..)
                    .zip(rows.rows)
                    .filter(|(_, row)| row.slot as usize == slot)
                    .map(|(i, _)| i)
                    .collect();
                (own, shared)
            })
            .filter(|(own, _)| !own.is_empty())
            .map(|(own, shared)| self.plan(rows, own, shared.pages))
            .collect()
    }

    fn plan(&self, rows: &Rows, own: Vec<u32>, pages: &[PageId]) -> candle_core::Result<SlotPlan> {
        let positions: Vec<u32> = own.iter().map(|row| rows.rows[*row as usize].position).collect();
        let keys = positions.iter().map(|position| *position as usize + 1).max().unwrap_or(0);
        let mut runs: Vec<(usize, usize, usize)> = Vec::new();
        for (i, position) in positions.iter().map(|position| *position as usize).enumerate() {
            let place =
                pages[position / PAGE_POSITIONS] as usize * PAGE_POSITIONS + position % PAGE_POSITIONS;
            match runs.last_mut() {
                Some((_, first, len)) if *first + *len == place => *len += 1,
                _ => runs.push((i, place, 1)),
            }
        }
        let masks = self.windows.iter().map(|window| mask(&positions, keys, *window, &self.device));
        let masks = masks.collect::<candle_core::Result<_>>()?;
        let pages = Tensor::new(&pages[..keys.div_ceil(PAGE_POSITIONS)], &self.device)?;
        Ok(SlotPlan { rows: own, pages, keys, runs, masks })
    }
}

/// The distinct windows of a model's blocks, in order of appearance.
fn windows(config: &ModelConfig) -> Vec<Option<u32>> {
    let mut windows = Vec::new();
    for block in &config.blocks {
        if !windows.contains(&block.window) {
            windows.push(block.window);
        }
    }
    windows
}

/// Rows of a tensor by index; without a copy where they stand side by side.
fn pick(rows: &Tensor, index: &[u32], device: &Device) -> candle_core::Result<Tensor> {
    match index.first() {
        Some(first) if index.iter().copied().eq(*first..*first + index.len() as u32) => {
            rows.narrow(0, *first as usize, index.len())
        }
        _ => rows.index_select(&Tensor::new(index, device)?, 0),
    }
}

/// Puts row i of `rows` to place `order[i]`.
fn in_order(rows: &Tensor, order: &[u32], device: &Device) -> candle_core::Result<Tensor> {
    let mut from = vec![0; order.len()];
    (0..).zip(order).for_each(|(i, place)| from[*place as usize] = i);
    pick(rows, &from, device)
}

/// All values, row-major.
fn host(values: &Tensor) -> candle_core::Result<Vec<f32>> {
    values.flatten_all()?.to_vec1()
}
