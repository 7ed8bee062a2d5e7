//! Proof at load that steering reaches the model: an edit after each block moves the stream there by what it says, and
//! the last block feels it.

use super::edits::{BlockEdits, Change, Edit, Edits, Phase, RowRule};
use super::embedding::norm;
use super::rows::{CaptureSpec, Input, Row, Rows, Slot, SoftRows, StepOutput, Wants};
use super::{Model, ModelError};
use std::sync::Arc;

/// Runs one two-token sequence per block and compares it with a plain one.
pub(super) fn every_hook_moves_the_stream(model: &mut Model) -> Result<(), ModelError> {
    let n_blocks = model.config().n_blocks;
    let spec = CaptureSpec { resid: (0..n_blocks as u32).collect(), ..CaptureSpec::default() };
    let plain = run(model, &[Edits::none()], &spec)?.remove(0);
    let d = model.config().d_model;
    let blocks: Vec<usize> = (0..n_blocks).collect();
    for group in blocks.chunks(model.pages().min(32)) {
        let edits: Vec<Edits> = group.iter().map(|l| push(model, &plain, *l)).collect();
        for ((l, edits), steered) in group.iter().zip(&edits).zip(run(model, &edits, &spec)?) {
            let Some(Change::Add { delta }) = edits.blocks[*l].resid.first().map(|edit| &edit.change) else {
                return Err(ModelError::DeadHook { block: *l });
            };
            let row = |values: &[f32], l: usize| values[l * d..][..d].to_vec();
            let moved = |l: usize| difference(&row(&steered, l), &row(&plain, l));
            // Company may change the last bits of a row on other backends than the CPU's.
            let rounding = 1e-3 * norm(delta);
            let right = norm(&difference(&moved(*l), delta)) <= rounding;
            let before = *l == 0 || norm(&moved(*l - 1)) <= rounding;
            let felt = norm(&moved(n_blocks - 1)) > 10.0 * rounding;
            if !(right && before && felt) {
                return Err(ModelError::DeadHook { block: *l });
            }
        }
    }
    (0..model.pages().min(32)).for_each(|page| model.reset_page(page as u32));
    Ok(())
}

/// Moves coordinate `l` mod `d_model` by half the row's norm.
fn push(model: &Model, plain: &[f32], l: usize) -> Edits {
    let d = model.config().d_model;
    let mut delta = vec![0.0; d];
    delta[l % d] = 0.5 * norm(&plain[l * d..][..d]);
    let mut blocks = vec![BlockEdits::default(); model.config().n_blocks];
    blocks[l].resid.push(Edit::new(Change::Add { delta: Arc::from(delta) }, RowRule::All));
    Edits::new(blocks)
}

/// One sequence of two tokens per entry of `edits`; returns all blocks of its second row, `[n_blocks, d_model]`.
fn run(model: &mut Model, edits: &[Edits], spec: &CaptureSpec) -> Result<Vec<Vec<f32>>, ModelError> {
    let none = SoftRows::none();
    let pages: Vec<[u32; 1]> = (0..edits.len() as u32).map(|page| [page]).collect();
    let slots: Vec<Slot> = (edits.iter().zip(&pages))
        .map(|(edits, pages)| Slot { pages, edits, soft: &none, capture: Some(spec) })
        .collect();
    let vocabulary = model.config().vocab_size as u32;
    let rows: Vec<Row> = (0..edits.len() as u32)
        .flat_map(|slot| {
            (0..2).map(move |position| Row {
                slot,
                position,
                phase: Phase::Response(position),
                input: Input::Token((17 + 31 * position) % vocabulary),
                wants: Wants { logits: false, capture: position == 1 },
            })
        })
        .collect();
    let mut out = StepOutput::default();
    model.step(&Rows { rows: &rows, slots: &slots }, &mut out)?;
    Ok(out.captures)
}

fn difference(a: &[f32], b: &[f32]) -> Vec<f32> {
    a.iter().zip(b).map(|(a, b)| a - b).collect()
}
