//! From the embeddings of a person's history to k rows of input embeddings, in plain f32 and a fixed order.
//!
//! A history item is the unit-length embedding of its text times a signed weight in [-1, 1]. Items are pooled, the pooled
//! vector is *centred* by a stored mean and *scaled* by one stored number (without that all people look alike: cosine
//! .993), and goes through one or two layers that give a *change* per row. The change is multiplied by n / (n + n0) and
//! its norm capped per row, then added to the person-free *constant prompt*, which was trained first and plays the part
//! of PPlug's instruction vector. The instruction needs no network of its own: its rows are free parameters.
//!
//! Two forms. *Static*: pooled = sum of w e over sum of |w|, independent of the request, so its rows are computed once.
//! *Input-aware* (PPlug, arXiv 2409.11901): a = softmax over e . (Q q) / temperature, with q the embedding of the request;
//! the input is (sum of a w e, sum of a w), so a layer may use whether what is near the request was liked. Differences
//! from the paper: weights are signed, pooling comes before the layers (one product per request instead of one per item),
//! and the encoder of the request is the frozen one with a learnt matrix Q behind it.
//!
//! Where there is no use in a person's rows (fewer items than `n_min`, or a pooled vector far from all people of the
//! training) the answer is the constant prompt with `effect` false.

mod file;

pub use file::{Layer, Parts};

use crate::digest::Digest;
use std::sync::Arc;

/// How history becomes rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// Independent of the request.
    Static,
    /// Depends on the request's text.
    InputAware,
}

impl Form {
    pub fn name(self) -> &'static str {
        match self {
            Form::Static => "static",
            Form::InputAware => "input-aware",
        }
    }

    pub fn parse(name: &str) -> Option<Form> {
        [Form::Static, Form::InputAware].into_iter().find(|form| form.name() == name)
    }

    /// Width of the layers' input for embeddings of width `e`.
    pub fn input_width(self, e: usize) -> usize {
        match self {
            Form::Static => e,
            Form::InputAware => e + 1,
        }
    }
}

/// One item of a history.
#[derive(Clone, Copy, Debug)]
pub struct WeightedEmbedding<'a> {
    /// Embedding of the text, unit length, `[e]`.
    pub embedding: &'a [f32],
    /// Sign and strength in [-1, 1], times recency where that is used.
    pub weight: f32,
}

/// Rows that stand for a person.
#[derive(Clone, Debug, PartialEq)]
pub struct UserRows {
    /// `[k, d_model]`, row-major.
    pub values: Vec<f32>,
    pub k: usize,
    /// False: the constant prompt, "no user effect expected".
    pub effect: bool,
}

/// A pooled vector this many times farther from the mean than people of the training typically are is not used.
const FAR: f32 = 2.5;

/// A trained projector; cheap to clone.
#[derive(Clone, Debug)]
pub struct Projector {
    parts: Arc<Parts>,
    bytes: Arc<[u8]>,
    digest: Digest,
}

impl Projector {
    /// Digest of the file.
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// Digest of the weights that it was trained through.
    pub fn weights(&self) -> Digest {
        self.parts.weights
    }

    /// Digest of the encoder whose embeddings it reads.
    pub fn encoder(&self) -> Digest {
        self.parts.encoder
    }

    pub fn encoder_name(&self) -> &str {
        &self.parts.encoder_name
    }

    pub fn form(&self) -> Form {
        self.parts.form
    }

    /// Rows of a prompt.
    pub fn k(&self) -> usize {
        self.parts.k
    }

    pub fn d_model(&self) -> usize {
        self.parts.d_model
    }

    pub fn parts(&self) -> &Parts {
        &self.parts
    }

    /// The prompt of nobody in particular.
    pub fn constant(&self) -> UserRows {
        UserRows { values: self.parts.constant.clone(), k: self.parts.k, effect: false }
    }

    /// Rows of a person, whatever the request. The order of `items` is the order of the sums. An input-aware projector
    /// gives the constant prompt here. Embeddings of another width than the encoder's are a caller's error and count as
    /// no effect.
    pub fn static_prompt(&self, items: &[WeightedEmbedding<'_>]) -> UserRows {
        match self.parts.form {
            Form::Static => self.rows(items, |pooled| pooled),
            Form::InputAware => self.constant(),
        }
    }

    /// Rows of a person for a request with the embedding `query`, `[e]`. Weights come without recency: attention
    /// chooses the items. A static projector gives its static prompt.
    pub fn input_aware_prompt(&self, items: &[WeightedEmbedding<'_>], query: &[f32]) -> UserRows {
        match self.parts.form {
            Form::Static => self.static_prompt(items),
            Form::InputAware if query.len() != self.parts.e => self.constant(),
            Form::InputAware => self.rows(items, |_| self.parts.pool_attended(items, query)),
        }
    }

    /// `input` makes the layers' input, given the history as a static projector pools it.
    fn rows(&self, items: &[WeightedEmbedding<'_>], input: impl FnOnce(Vec<f32>) -> Vec<f32>) -> UserRows {
        let parts = &*self.parts;
        if items.iter().any(|item| item.embedding.len() != parts.e || !item.weight.is_finite()) {
            return self.constant();
        }
        let n = evidence(items);
        if n < parts.n_min {
            return self.constant();
        }
        let pooled = parts.pool_static(items);
        if parts.is_odd(&pooled, n) {
            return self.constant();
        }
        let change = parts.change(&input(pooled), n);
        let values: Vec<f32> =
            parts.constant.iter().zip(&change).map(|(base, change)| base + change).collect();
        if values.iter().any(|value| !value.is_finite()) {
            return self.constant();
        }
        UserRows { values, k: parts.k, effect: true }
    }
}

/// How much was said: the sum of |weight|.
pub fn evidence(items: &[WeightedEmbedding<'_>]) -> f32 {
    items.iter().fold(0.0, |sum, item| sum + item.weight.abs())
}

impl Parts {
    /// Sum of w e over sum of |w|, `[e]`; before centring.
    pub fn pool_static(&self, items: &[WeightedEmbedding<'_>]) -> Vec<f32> {
        let n = evidence(items).max(f32::MIN_POSITIVE);
        let mut pooled = vec![0.0; self.e];
        for item in items {
            add_scaled(&mut pooled, item.embedding, item.weight / n);
        }
        pooled
    }

    /// (sum of a w e, sum of a w), `[e + 1]`, with a = softmax over e . (Q q) / temperature; before centring.
    pub fn pool_attended(&self, items: &[WeightedEmbedding<'_>], query: &[f32]) -> Vec<f32> {
        let towards: Vec<f32> = self.query.chunks_exact(self.e).map(|row| dot(row, query)).collect();
        let scores: Vec<f32> =
            items.iter().map(|item| dot(item.embedding, &towards) / self.temperature).collect();
        let top = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let powers: Vec<f32> = scores.iter().map(|score| exp(score - top)).collect();
        let total: f32 = powers.iter().fold(0.0, |sum, power| sum + power);
        let mut pooled = vec![0.0; self.e + 1];
        for (item, power) in items.iter().zip(&powers) {
            let weight = power / total * item.weight;
            add_scaled(&mut pooled[..self.e], item.embedding, weight);
            pooled[self.e] += weight;
        }
        pooled
    }

    /// Change of the rows, `[k, d_model]`, for a pooled vector and the evidence `n` behind it.
    pub fn change(&self, pooled: &[f32], n: f32) -> Vec<f32> {
        let mut values: Vec<f32> =
            pooled.iter().zip(&self.centre).map(|(value, centre)| (value - centre) * self.scale).collect();
        for (i, layer) in self.layers.iter().enumerate() {
            if i > 0 {
                values.iter_mut().for_each(|value| *value = gelu(*value));
            }
            values = (layer.weight.chunks_exact(values.len()).zip(&layer.bias))
                .map(|(row, bias)| dot(row, &values) + bias)
                .collect();
        }
        let trust = n / (n + self.n0);
        values.iter_mut().for_each(|value| *value *= trust);
        for row in values.chunks_exact_mut(self.d_model) {
            let norm = dot(row, row).sqrt();
            if norm > self.cap {
                row.iter_mut().for_each(|value| *value *= self.cap / norm);
            }
        }
        values
    }

    /// Whether a history, pooled as the static form does, lies far from all that the projector was trained on. With few
    /// items a pooled vector is far from the mean by chance alone, so the typical distance is that between people plus
    /// that of n items.
    fn is_odd(&self, pooled: &[f32], n: f32) -> bool {
        let squares: f32 =
            pooled.iter().zip(&self.static_mean).fold(0.0, |sum, (value, mean)| sum + (value - mean).powi(2));
        let typical = self.variance_between + self.variance_within / n;
        squares > FAR * FAR * typical
    }
}

/// The tanh form, computed in f64 and rounded once: no platform's `tanh` differs in the result.
fn gelu(x: f32) -> f32 {
    let x = f64::from(x);
    let inner = (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044_715 * x * x * x);
    (0.5 * x * (1.0 + inner.tanh())) as f32
}

/// Computed in f64 and rounded once, as above.
fn exp(x: f32) -> f32 {
    f64::from(x).exp() as f32
}

fn add_scaled(sum: &mut [f32], values: &[f32], factor: f32) {
    sum.iter_mut().zip(values).for_each(|(sum, value)| *sum += value * factor);
}

/// Eight partial sums, added in one order: quick and the same everywhere.
fn dot(a: &[f32], b: &[f32]) -> f32 {
    let mut sums = [0.0f32; 8];
    let (a8, b8) = (a.chunks_exact(8), b.chunks_exact(8));
    let tail: f32 = a8.remainder().iter().zip(b8.remainder()).fold(0.0, |sum, (x, y)| sum + x * y);
    for (x, y) in a8.zip(b8) {
        for lane in 0..8 {
            sums[lane] += x[lane] * y[lane];
        }
    }
    ((sums[0] + sums[4]) + (sums[2] + sums[6])) + ((sums[1] + sums[5]) + (sums[3] + sums[7])) + tail
}

#[cfg(test)]
mod tests;
