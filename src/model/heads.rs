//! Directions of one head's output as directions at `attn[l]`: the output projection is linear, so adding `delta` to
//! `head[l][h]` is adding `W_o[:, h] . delta` to what attention adds to the stream.

use super::candle::FrozenLinear;
use super::{ModelConfig, ModelError};
use crate::kernels::PackedMatrix;
use std::sync::Arc;

/// The output projection of one block, `[d_model, n_heads * d_head]`, as its backend holds it.
pub(super) enum Projection {
    Packed(Arc<PackedMatrix>),
    Dense(FrozenLinear),
}

impl Projection {
    /// Columns `from..from + len` of every row, `[d_model, len]`. Fails where a device does.
    fn columns(&self, from: usize, len: usize) -> Result<Vec<f32>, ModelError> {
        match self {
            Projection::Packed(matrix) => {
                let mut row = vec![0.0; matrix.k()];
                let mut columns = Vec::with_capacity(matrix.n() * len);
                for index in 0..matrix.n() {
                    matrix.dequantize_row(index, &mut row);
                    columns.extend_from_slice(&row[from..][..len]);
                }
                Ok(columns)
            }
            Projection::Dense(matrix) => matrix.columns(from, len),
        }
    }
}

/// The output projections of a model, shared with it. Cheap to clone.
#[derive(Clone)]
pub struct HeadOutputs {
    /// One per block.
    projections: Arc<[Projection]>,
    n_heads: usize,
    d_head: usize,
    /// Whether a norm stands between the projection and `attn[l]`.
    post_norms: bool,
}

impl HeadOutputs {
    pub(super) fn new(config: &ModelConfig, projections: Vec<Projection>) -> HeadOutputs {
        HeadOutputs {
            projections: projections.into(),
            n_heads: config.n_heads,
            d_head: config.d_head,
            post_norms: config.post_norms,
        }
    }

    /// Whether no direction equals a moved head: then [`HeadOutputs::direction`] refuses.
    pub fn is_behind_norm(&self) -> bool {
        self.post_norms
    }

    /// What adding `delta` (`[d_head]`) to the output of head `h` of block `l` adds at `attn[l]`, `[d_model]`. Each value is
    /// one sum in ascending order, in f64.
    ///
    /// Errors: no such head, another width, and a family that norms attention's output before it joins the stream (gemma):
    /// there the change depends on the row, and no one direction is equal to it. Fails where a device does, too.
    pub fn direction(&self, l: u32, h: u32, delta: &[f32]) -> Result<Vec<f32>, ModelError> {
        let projection = self.projections.get(l as usize).filter(|_| (h as usize) < self.n_heads);
        let Some(projection) = projection else {
            let (n_blocks, n_heads) = (self.projections.len(), self.n_heads);
            return Err(ModelError::NoSuchHead { l, h, n_blocks, n_heads });
        };
        if delta.len() != self.d_head {
            return Err(ModelError::HeadWidth { given: delta.len(), wanted: self.d_head });
        }
        if self.post_norms {
            return Err(ModelError::HeadBehindNorm);
        }
        let columns = projection.columns(h as usize * self.d_head, self.d_head)?;
        let product = |row: &[f32]| {
            row.iter().zip(delta).map(|(w, x)| f64::from(*w) * f64::from(*x)).sum::<f64>() as f32
        };
        Ok(columns.chunks_exact(self.d_head).map(product).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::Precision;
    use crate::model::tiny::{self, D_HEAD, D_MODEL, N_BLOCKS, N_HEADS, VOCAB_SIZE};
    use crate::model::{
        BlockEdits, CaptureSpec, Change, Edit, Edits, Input, Model, Phase, Row, RowRule, Rows, Slot,
        SoftRows, StepOutput, Wants,
    };

    const ROWS: usize = 9;

    /// Captures and logits of nine tokens.
    fn run(model: &mut Model, edits: &Edits, spec: &CaptureSpec) -> StepOutput {
        let soft = SoftRows::none();
        let slots = [Slot { pages: &[0], edits, soft: &soft, capture: Some(spec) }];
        let rows: Vec<Row> = (0..ROWS as u32)
            .map(|position| Row {
                slot: 0,
                position,
                phase: Phase::Prompt,
                input: Input::Token((7 * position) % VOCAB_SIZE as u32),
                wants: Wants { logits: true, capture: true },
            })
            .collect();
        let mut out = StepOutput::default();
        model.step(&Rows { rows: &rows, slots: &slots }, &mut out).unwrap();
        out
    }

    fn added(block: usize, delta: Vec<f32>) -> Edits {
        let mut blocks = vec![BlockEdits::default(); N_BLOCKS];
        blocks[block].attn.push(Edit::new(Change::Add { delta: delta.into() }, RowRule::All));
        Edits::new(blocks)
    }

    /// Taking away, at `attn`, what a captured head says of the last row is the same as a projection that does not read this
    /// head: so the capture is this head's output, and the direction is what moving it does.
    #[test]
    fn a_head_taken_away_is_a_head_that_is_not_read() {
        let file = tiny::file("llama");
        let projection = file.tensor("blk.1.attn_output.weight").expect("the tiny model has it").data;
        let projection: Vec<f32> =
            projection.chunks_exact(4).map(|bytes| f32::from_le_bytes(bytes.try_into().unwrap())).collect();
        let last = |out: StepOutput| out.captures.last().expect("nine rows").clone();
        let distance = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        let mut model = tiny::load("llama", Precision::F32, 2);
        let heads = CaptureSpec { resid: vec![1], heads: (0..N_HEADS as u32).map(|h| (1, h)).collect() };
        let resid = CaptureSpec { resid: vec![1], heads: vec![] };
        let plain = last(run(&mut model, &Edits::none(), &heads));
        assert_eq!(plain.len(), D_MODEL + N_HEADS * D_HEAD);
        let (plain, outputs) = plain.split_at(D_MODEL);
        for (h, output) in outputs.chunks_exact(D_HEAD).enumerate() {
            let direction = model.head_outputs().direction(1, h as u32, output).unwrap();
            let taken = added(1, direction.iter().map(|value| -value).collect());
            let taken = last(run(&mut model, &taken, &resid));
            let mut unread = projection.clone();
            unread.chunks_exact_mut(N_HEADS * D_HEAD).for_each(|row| row[h * D_HEAD..][..D_HEAD].fill(0.0));
            let changed = [("blk.1.attn_output.weight", &unread[..])];
            let mut without = tiny::load_changed("llama", Precision::F32, 2, &changed);
            let unread = last(run(&mut without, &Edits::none(), &resid));
            assert!(distance(&taken, &unread) < 1e-5, "head {h}: {}", distance(&taken, &unread));
            assert!(distance(&taken, plain) > 1e-2, "head {h} does something");
        }
    }

    #[test]
    fn refusals() {
        let heads = tiny::load("llama", Precision::F32, 2).head_outputs();
        let message = |l, h, n| heads.direction(l, h, &vec![0.0; n]).unwrap_err().to_string();
        assert_eq!(message(2, 0, 16), "head 0 of block 2 does not exist; the model has 2 blocks of 4 heads");
        assert_eq!(message(0, 4, 16), "head 4 of block 0 does not exist; the model has 2 blocks of 4 heads");
        assert_eq!(message(0, 0, 17), "17 values for a head of width 16");
        let gemma = tiny::load("gemma3", Precision::F32, 2).head_outputs();
        let error = gemma.direction(0, 0, &[0.0; 16]).unwrap_err();
        assert!(matches!(error, ModelError::HeadBehindNorm), "{error}");
    }
}
