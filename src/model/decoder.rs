//! The decoder on our own kernels: one forward pass over the rows of a step, in the order of the papers, for every family.

use super::capture::Captures;
use super::config::{Gating, ModelConfig, RotaryPairs};
use super::edits::{self, Hook, StepEdits};
use super::heads::{HeadOutputs, Projection};
use super::load::{self, BlockWeights, ModelWeights};
use super::rope::Rope;
use super::rows::{Input, PageId, Row, Rows, StepOutput, TokenId};
use super::{ModelError, ModelOptions};
use crate::kernels::{
    self, Activations, AttentionRow, AttentionShape, Cpu, KvFormat, KvLayer, Places, Rotary,
};
use crate::limits::PAGE_POSITIONS;
use crate::weights::Container;

/// Packed weights with their KV pages, the backend behind [`super::Model`] that serves by default.
pub struct CpuModel {
    config: ModelConfig,
    weights: ModelWeights,
    cpu: Cpu,
    /// One per block.
    kv: Vec<KvLayer>,
    pages: usize,
    /// One per [`ModelConfig::rotaries`].
    ropes: Vec<Rope>,
    scratch: Scratch,
}

/// Buffers of a step, kept from step to step. `r` rows.
struct Scratch {
    /// Residual stream, `[r, d_model]`.
    stream: Vec<f32>,
    /// What attention or the MLP adds to the stream, `[r, d_model]`.
    added: Vec<f32>,
    /// `[r, d_queries]`, `[r, d_keys]`, `[r, d_keys]`, `[r, d_queries]`
    queries: Vec<f32>,
    keys: Vec<f32>,
    values: Vec<f32>,
    mixed: Vec<f32>,
    /// `[r, d_ff]`
    gate: Vec<f32>,
    up: Vec<f32>,
    /// The rows as products read them.
    activations: Activations,
    /// The rows that want logits.
    chosen: Vec<usize>,
}

impl CpuModel {
    /// Packs the weights.
    pub fn load(container: &Container, options: &ModelOptions) -> Result<CpuModel, ModelError> {
        let (config, weights) = load::load(container, options)?;
        Ok(CpuModel::new(config, weights, options))
    }

    pub(super) fn new(config: ModelConfig, weights: ModelWeights, options: &ModelOptions) -> CpuModel {
        let kv_format = options.kv_format;
        let pages = options.pages.max(2);
        let new_layer = |_| KvLayer::new(pages, config.n_kv_heads, config.d_head, kv_format);
        let new_rope = |rotary| Rope::new(rotary, config.d_rotary, options.reading.context);
        CpuModel {
            cpu: Cpu::new(options.isa, options.threads),
            kv: (0..config.n_blocks).map(new_layer).collect(),
            pages,
            ropes: config.rotaries.iter().map(new_rope).collect(),
            scratch: Scratch::new(&weights),
            config,
            weights,
        }
    }

    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// Where this model's kernels run.
    pub fn cpu(&self) -> &Cpu {
        &self.cpu
    }

    /// Pages of the KV cache.
    pub fn pages(&self) -> usize {
        self.pages
    }

    /// Bytes of KV for one page of positions, all blocks together.
    pub fn page_bytes(config: &ModelConfig, format: KvFormat) -> usize {
        config.n_blocks * KvLayer::bytes_per_page(config.n_kv_heads, config.d_head, format)
    }

    /// For directions of single heads.
    pub fn head_outputs(&self) -> HeadOutputs {
        let projection = |block: &BlockWeights| Projection::Packed(block.attn_output.clone());
        HeadOutputs::new(&self.config, self.weights.blocks.iter().map(projection).collect())
    }

    /// Clears a page for a new owner.
    pub fn reset_page(&mut self, page: PageId) {
        self.kv.iter_mut().for_each(|layer| layer.zero_page(page));
    }

    /// Whether nothing stands in a page.
    #[cfg(test)]
    pub fn page_is_zero(&self, page: PageId) -> bool {
        self.kv.iter().all(|layer| layer.page_is_zero(page))
    }

    /// Gives page `to` the first `positions` positions of page `from`; the others become zeros.
    pub fn copy_page(&mut self, from: PageId, to: PageId, positions: usize) {
        self.kv.iter_mut().for_each(|layer| layer.copy_page(from, to, positions));
    }

    /// The rows with which some tokens enter the first block, `[ids.len(), d_model]`.
    pub(super) fn token_rows(&self, ids: &[TokenId]) -> Vec<f32> {
        let d = self.config.d_model;
        let mut rows = vec![0.0; ids.len() * d];
        for (id, row) in ids.iter().zip(rows.chunks_exact_mut(d)) {
            token_row(&self.weights, &self.config, *id, row);
        }
        rows
    }

    /// How the gate projections are stored.
    pub fn quantisation(&self) -> &'static str {
        self.weights.blocks.first().map_or("", |block| block.gate.format().name())
    }

    /// Number of weights.
    pub fn parameters(&self) -> u64 {
        let embedding = (self.config.vocab_size * self.config.d_model) as u64;
        let own_table = if self.weights.embedding.is_some() { embedding } else { 0 };
        self.weights.matrices().map(|m| (m.n() * m.k()) as u64).sum::<u64>() + own_table
    }

    /// One forward pass. Rows of one slot come in ascending position; every earlier position of the slot is in its
    /// pages or comes before it in this step.
    pub fn step(&mut self, rows: &Rows, out: &mut StepOutput) {
        out.captures.clear();
        if rows.rows.is_empty() {
            out.logits.clear();
            return;
        }
        self.scratch.resize(&self.config, rows.rows.len());
        let attention_rows: Vec<AttentionRow> = (rows.rows.iter())
            .map(|row| AttentionRow { position: row.position, pages: rows.slots[row.slot as usize].pages })
            .collect();
        for rope in &mut self.ropes {
            rope.set_positions(rows.rows.iter().map(|row| row.position));
        }
        let places = Places::new(rows.rows.iter().map(|row| place(rows, row)).collect());
        let edits = StepEdits::new(rows, self.config.n_blocks);
        self.embed(rows);
        let mut captures = Captures::new(rows, &self.config);
        for l in 0..self.config.n_blocks {
            self.attention(l, &attention_rows, &places);
            captures.read_heads(l, &self.scratch.mixed);
            self.add_attention(l, rows.rows.len(), &edits);
            self.mlp(l, rows.rows.len(), &edits);
            captures.read_resid(l, &self.scratch.stream);
        }
        out.captures = captures.finish();
        self.head(rows, &mut out.logits);
    }

    /// Token embeddings (scaled where the family does) and soft rows (as they are).
    fn embed(&mut self, rows: &Rows) {
        let d = self.config.d_model;
        for (row, stream) in rows.rows.iter().zip(self.scratch.stream.chunks_exact_mut(d)) {
            match row.input {
                Input::Token(id) => token_row(&self.weights, &self.config, id, stream),
                Input::Soft(i) => stream.copy_from_slice(rows.slots[row.slot as usize].soft.row(i as usize)),
            }
        }
    }

    /// `mixed = attention(norm(stream))`, before the output projection.
    fn attention(&mut self, l: usize, attention_rows: &[AttentionRow], places: &Places) {
        let (config, w, cpu) = (&self.config, &self.weights.blocks[l], &self.cpu);
        let (n, d, d_head, eps) = (places.len(), config.d_model, config.d_head, config.norm_epsilon);
        let s = &mut self.scratch;

        s.activations.fill(cpu, n, d, [&mut s.stream], |_, [stream], normed| {
            kernels::norm_row(cpu.isa, stream, &w.attn_norm, eps, normed);
        });
        let mut parts = [
            (&w.q, &mut s.queries[..], config.d_queries()),
            (&w.k, &mut s.keys[..], config.d_keys()),
            (&w.v, &mut s.values[..], config.d_keys()),
        ];
        kernels::product_many(cpu, &mut parts, &s.activations);

        let block = config.blocks[l];
        let rope = &self.ropes[block.rotary];
        let style = match config.rotary_pairs {
            RotaryPairs::Interleaved => Rotary::Interleaved,
            RotaryPairs::HalfSplit => Rotary::HalfSplit,
        };
        let projections = [&mut s.queries[..], &mut s.keys, &mut s.values];
        self.kv[l].write_rows(cpu, places, projections, |row, queries, keys, values| {
            if let Some([q, k, v]) = &w.biases {
                kernels::add_row(cpu.isa, queries, q);
                kernels::add_row(cpu.isa, keys, k);
                kernels::add_row(cpu.isa, values, v);
            }
            if let (Some(q_norm), Some(k_norm)) = (&w.q_norm, &w.k_norm) {
                kernels::norm_rows_in_place(cpu.isa, queries, q_norm, eps);
                kernels::norm_rows_in_place(cpu.isa, keys, k_norm, eps);
            }
            let (cos, sin) = rope.angles(row);
            kernels::rotary_row(cpu.isa, queries, d_head, cos, sin, style);
            kernels::rotary_row(cpu.isa, keys, d_head, cos, sin, style);
        });
        let shape = AttentionShape {
            n_heads: config.n_heads,
            n_kv_heads: config.n_kv_heads,
            d_head,
            scale: config.attention_scale,
            window: block.window,
            softcap: config.attention_softcap,
        };
        kernels::attention(cpu, &shape, &self.kv[l], attention_rows, &s.queries, &mut s.mixed);
    }

    /// `stream += post_norm(output(mixed)) + attn edits`; in the same pass `activations = norm(stream)` for the MLP.
    fn add_attention(&mut self, l: usize, n: usize, edits: &StepEdits) {
        let (config, w, cpu) = (&self.config, &self.weights.blocks[l], &self.cpu);
        let (d, eps) = (config.d_model, config.norm_epsilon);
        let s = &mut self.scratch;
        s.activations.set(cpu, &s.mixed, n, config.d_queries());
        kernels::product(cpu, &w.attn_output, &s.activations, &mut s.added, d);
        s.activations.fill(cpu, n, d, [&mut s.stream, &mut s.added], |row, [stream, added], normed| {
            if let Some(post_norm) = &w.post_attn_norm {
                kernels::norm_rows_in_place(cpu.isa, added, post_norm, eps);
            }
            edits::apply(cpu, edits.at(l, Hook::Attn, row), added);
            kernels::add_row(cpu.isa, stream, added);
            kernels::norm_row(cpu.isa, stream, &w.ffn_norm, eps, normed);
        });
    }

    /// `stream += post_norm(mlp(activations))`, then the resid edits.
    fn mlp(&mut self, l: usize, n: usize, edits: &StepEdits) {
        let (config, w, cpu) = (&self.config, &self.weights.blocks[l], &self.cpu);
        let (d, d_ff, eps) = (config.d_model, config.d_ff, config.norm_epsilon);
        let s = &mut self.scratch;
        let mut parts = [(&w.gate, &mut s.gate[..], d_ff), (&w.up, &mut s.up[..], d_ff)];
        kernels::product_many(cpu, &mut parts, &s.activations);
        s.activations.fill(cpu, n, d_ff, [&mut s.gate, &mut s.up], |_, [gate, up], gated| {
            match config.gating {
                Gating::Silu => kernels::silu_mul_row(cpu.isa, gate, up, gated),
                Gating::GeluTanh => kernels::gelu_tanh_mul_row(cpu.isa, gate, up, gated),
            }
        });
        kernels::product(cpu, &w.down, &s.activations, &mut s.added, d);
        kernels::each_row(cpu, n, [&mut s.stream, &mut s.added], |row, [stream, added]| {
            if let Some(post_norm) = &w.post_ffn_norm {
                kernels::norm_rows_in_place(cpu.isa, added, post_norm, eps);
            }
            kernels::add_row(cpu.isa, stream, added);
            edits::apply(cpu, edits.at(l, Hook::Resid, row), stream);
        });
    }

    /// Logits of the rows that want them.
    fn head(&mut self, rows: &Rows, logits: &mut Vec<f32>) {
        let (config, cpu, s) = (&self.config, &self.cpu, &mut self.scratch);
        let d = config.d_model;
        s.chosen.clear();
        s.chosen.extend((0..rows.rows.len()).filter(|row| rows.rows[*row].wants.logits));
        let (n, chosen, stream) = (s.chosen.len(), &s.chosen, &s.stream);
        // What stands there is overwritten.
        logits.resize(n * config.vocab_size, 0.0);
        if n == 0 {
            return;
        }
        s.activations.fill(cpu, n, d, [], |i, [], normed| {
            let row = &stream[chosen[i] * d..][..d];
            kernels::norm_row(cpu.isa, row, &self.weights.output_norm, config.norm_epsilon, normed);
        });
        kernels::product(cpu, &self.weights.head, &s.activations, logits, config.vocab_size);
        if let Some(cap) = config.logit_softcap {
            kernels::softcap(cpu, logits, cap);
        }
    }
}

/// Page and offset of a row's position.
fn place(rows: &Rows, row: &Row) -> (PageId, u32) {
    let page = row.position as usize / PAGE_POSITIONS;
    (rows.slots[row.slot as usize].pages[page], row.position % PAGE_POSITIONS as u32)
}

impl Scratch {
    fn new(weights: &ModelWeights) -> Scratch {
        Scratch {
            stream: Vec::new(),
            added: Vec::new(),
            queries: Vec::new(),
            keys: Vec::new(),
            values: Vec::new(),
            mixed: Vec::new(),
            gate: Vec::new(),
            up: Vec::new(),
            activations: Activations::for_weights(weights.matrices()),
            chosen: Vec::new(),
        }
    }

    fn resize(&mut self, config: &ModelConfig, rows: usize) {
        for buffer in [&mut self.stream, &mut self.added] {
            buffer.resize(rows * config.d_model, 0.0);
        }
        for buffer in [&mut self.queries, &mut self.mixed] {
            buffer.resize(rows * config.d_queries(), 0.0);
        }
        for buffer in [&mut self.keys, &mut self.values] {
            buffer.resize(rows * config.d_keys(), 0.0);
        }
        for buffer in [&mut self.gate, &mut self.up] {
            buffer.resize(rows * config.d_ff, 0.0);
        }
    }
}

/// The embedding of a token, scaled where the family does.
fn token_row(weights: &ModelWeights, config: &ModelConfig, id: TokenId, out: &mut [f32]) {
    match &weights.embedding {
        Some(table) => table.row(id as usize, out),
        None => weights.head.dequantize_row(id as usize, out),
    }
    if config.embedding_scale != 1.0 {
        out.iter_mut().for_each(|value| *value *= config.embedding_scale);
    }
}
