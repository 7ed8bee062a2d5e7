//! The rows of one step: token positions of many sequences, side by side and without padding.

use super::edits::{Edits, Phase};
use crate::digest::{Digest, Digester};
use std::sync::Arc;

/// Index of a token in the vocabulary.
pub type TokenId = u32;
/// Index of a page of the KV cache ([`crate::limits::PAGE_POSITIONS`] positions of one sequence, all blocks).
pub type PageId = u32;

/// Rows of input embeddings that stand in a sequence like tokens. They enter after any embedding scaling.
#[derive(Clone, Debug, PartialEq)]
pub struct SoftRows {
    values: Arc<Values>,
    n: usize,
    digest: Digest,
}

/// `[n, d_model]`, row-major. They may stand for a person: wiped when the last holder is gone.
#[derive(Debug, PartialEq)]
struct Values(Vec<f32>);

impl Drop for Values {
    fn drop(&mut self) {
        self.0.fill(0.0);
        // Else the compiler sees that nobody reads the zeros.
        std::hint::black_box(&self.0);
    }
}

impl SoftRows {
    pub fn none() -> SoftRows {
        SoftRows { values: Arc::new(Values(Vec::new())), n: 0, digest: Digest::default() }
    }

    /// `values` is `[n, d_model]`; `None` when its length is not `n * d_model` or a value is not finite.
    pub fn new(values: Vec<f32>, n: usize, d_model: usize) -> Option<SoftRows> {
        if n == 0 || values.len() != n.checked_mul(d_model)? || values.iter().any(|value| !value.is_finite())
        {
            return None;
        }
        let mut digester = Digester::new("demeanor.soft-rows/1");
        digester.floats(&values);
        Some(SoftRows { values: Arc::new(Values(values)), n, digest: digester.finish() })
    }

    pub fn len(&self) -> usize {
        self.n
    }

    pub fn is_empty(&self) -> bool {
        self.n == 0
    }

    /// Values per row; 0 without rows.
    pub fn width(&self) -> usize {
        self.values.0.len().checked_div(self.n).unwrap_or(0)
    }

    /// Row `i`, `[d_model]`.
    pub fn row(&self, i: usize) -> &[f32] {
        &self.values.0[i * self.width()..][..self.width()]
    }

    /// All rows, `[n, d_model]`.
    pub fn values(&self) -> &[f32] {
        &self.values.0
    }

    /// Memory they take.
    pub fn bytes(&self) -> usize {
        self.values.0.len() * size_of::<f32>()
    }

    pub fn digest(&self) -> Digest {
        self.digest
    }
}

/// What a row feeds to the first block.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Input {
    Token(TokenId),
    /// Row of the sequence's [`SoftRows`].
    Soft(u32),
}

/// What a step returns for a row.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Wants {
    /// Logits `[vocab_size]`; the output head runs only for these rows.
    pub logits: bool,
    /// The hook points of the slot's [`CaptureSpec`].
    pub capture: bool,
}

/// One token position of a step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Row {
    /// Index into [`Rows::slots`].
    pub slot: u32,
    /// Position in its sequence, counted from 0, soft rows included.
    pub position: u32,
    pub phase: Phase,
    pub input: Input,
    pub wants: Wants,
}

/// Hook points to read out.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct CaptureSpec {
    /// Blocks whose `resid[l]` is wanted, ascending.
    pub resid: Vec<u32>,
    /// Heads `(l, h)` whose `head[l][h]` is wanted (one head's output before the output projection), ascending.
    pub heads: Vec<(u32, u32)>,
}

/// What the rows of one sequence share. What applies to a row travels with it; the model keeps nothing.
pub struct Slot<'a> {
    /// Pages of the sequence, in order; page i holds positions 64 i to 64 i + 63.
    pub pages: &'a [PageId],
    pub edits: &'a Edits,
    pub soft: &'a SoftRows,
    pub capture: Option<&'a CaptureSpec>,
}

/// One step. Rows of a slot come in ascending position; a row may attend to rows of its slot in the same step.
pub struct Rows<'a> {
    pub rows: &'a [Row],
    pub slots: &'a [Slot<'a>],
}

/// What a step gives back, reused from step to step.
#[derive(Default)]
pub struct StepOutput {
    /// `[n, vocab_size]` for the n rows that want logits, in row order.
    pub logits: Vec<f32>,
    /// For each row that wants a capture, in row order: `[capture.resid.len(), d_model]`, then
    /// `[capture.heads.len(), d_head]`.
    pub captures: Vec<Vec<f32>>,
}
