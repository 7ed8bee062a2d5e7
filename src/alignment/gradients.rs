//! How each item's answer changes with constants added in every block, by a backward pass through the candle decoder.

use super::AlignmentError;
use super::ask::{Progress, Tokens};
use super::forms::Form;
use crate::model::{Constants, DenseModel, Place, TokenId, gradients};
use candle_core::{D, Tensor, Var};

/// Sequences of one pass: some two hundred rows, so that products run at full speed within 300 MB.
const BATCH: usize = 12;

/// Derivatives of items' signals.
#[derive(Clone, Debug, PartialEq)]
pub struct Gradients {
    pub place: Place,
    pub n_blocks: usize,
    /// Values of one block: `n_heads * d_head` or `d_model`.
    pub width: usize,
    /// `[items, n_blocks * width]`; zero in blocks before the first one that was asked for.
    pub values: Vec<f32>,
}

impl Gradients {
    pub fn of(&self, item: usize) -> &[f32] {
        let length = self.n_blocks * self.width;
        &self.values[item * length..][..length]
    }

    pub fn items(&self) -> usize {
        self.values.len() / (self.n_blocks * self.width).max(1)
    }
}

/// Derivatives of every item's signal by constants of the blocks from `first_block` on.
pub fn measure(
    model: &DenseModel,
    form: &Form,
    tokens: &Tokens,
    bias: &[f64],
    (place, first_block): (Place, usize),
    progress: Progress<'_>,
) -> Result<Gradients, AlignmentError> {
    let config = model.config();
    let width = match place {
        Place::Heads => config.d_queries(),
        Place::Attention => config.d_model,
    };
    let length = config.n_blocks * width;
    let mut values = vec![0.0; tokens.prompts.len() * length];
    // Prompts of about one length go together.
    let mut order: Vec<usize> = (0..tokens.prompts.len()).collect();
    order.sort_by_key(|&item| (tokens.prompts[item].len(), item));
    let mut done = 0;
    for batch in order.chunks(BATCH) {
        let mut vars: Vec<(String, Var)> = Vec::new();
        for l in first_block..config.n_blocks {
            let zeros = Var::zeros((batch.len(), width), model.dtype(), model.device()).map_err(failed)?;
            vars.push((format!("constant of block {l}"), zeros));
        }
        let by_block: Vec<Option<Tensor>> = (0..config.n_blocks)
            .map(|l| l.checked_sub(first_block).map(|at| vars[at].1.as_tensor().clone()))
            .collect();
        let prompts: Vec<&[TokenId]> = batch.iter().map(|&item| &tokens.prompts[item][..]).collect();
        let constants = Constants { place, by_block: &by_block };
        let signals = signals(model, form, &prompts, &tokens.options, bias, &constants)?;
        let found = gradients(&signals.sum_all().map_err(failed)?, &vars).map_err(failed)?;
        for (gradient, l) in found.iter().zip(first_block..) {
            let rows = gradient.to_dtype(candle_core::DType::F32).and_then(|rows| rows.to_vec2::<f32>());
            for (row, &item) in rows.map_err(failed)?.iter().zip(batch) {
                values[item * length + l * width..][..width].copy_from_slice(row);
            }
        }
        done += batch.len() as u64;
        progress(done, "measuring how answers change")?;
    }
    Ok(Gradients { place, n_blocks: config.n_blocks, width, values })
}

/// The form's signal for each prompt, `[b]`, differentiable in the constants.
pub(super) fn signals(
    model: &DenseModel,
    form: &Form,
    prompts: &[&[TokenId]],
    options: &[TokenId],
    bias: &[f64],
    constants: &Constants<'_>,
) -> Result<Tensor, AlignmentError> {
    let (b, d) = (prompts.len(), model.config().d_model);
    let longest = prompts.iter().map(|prompt| prompt.len()).max().unwrap_or(0);
    // Padding is any token: rows behind a sequence's end are seen by padding only.
    let padded = prompts.iter().flat_map(|prompt| {
        let filler = std::iter::repeat(&prompt[0]);
        prompt.iter().chain(filler).take(longest).copied()
    });
    let inputs = model.embed(&padded.collect::<Vec<_>>()).map_err(failed)?;
    let lengths: Vec<usize> = prompts.iter().map(|prompt| prompt.len()).collect();
    let inputs = inputs.reshape((b, longest, d)).map_err(failed)?;
    let hidden = model.hidden_with(&inputs, &lengths, constants).map_err(failed)?;
    let last: Vec<u32> = lengths.iter().enumerate().map(|(i, n)| (i * longest + n - 1) as u32).collect();
    let rows = || -> candle_core::Result<Tensor> {
        let at = Tensor::from_vec(last, b, model.device())?;
        hidden.reshape((b * longest, d))?.index_select(&at, 0)
    };
    let logits = model.logits(&rows().map_err(failed)?, Some(options)).map_err(failed)?;
    read(form, &logits, bias).map_err(failed)
}

/// [`Form::signal`] of logits `[b, options]`: what all options share cancels, so that logits do for log-probabilities.
fn read(form: &Form, logits: &Tensor, bias: &[f64]) -> candle_core::Result<Tensor> {
    let bias = Tensor::new(bias, logits.device())?.to_dtype(logits.dtype())?;
    let x = logits.broadcast_sub(&bias)?;
    if form.options.len() == 2 {
        return x.narrow(1, 0, 1)?.sub(&x.narrow(1, 1, 1)?)?.squeeze(1);
    }
    let weights = x.broadcast_sub(&x.max_keepdim(D::Minus1)?.detach())?.exp()?;
    let values = Tensor::new(form.values, logits.device())?.to_dtype(logits.dtype())?;
    weights.broadcast_mul(&values)?.sum(1)? / weights.sum(1)?
}

fn failed(error: impl std::fmt::Display) -> AlignmentError {
    AlignmentError::Failed(error.to_string())
}
