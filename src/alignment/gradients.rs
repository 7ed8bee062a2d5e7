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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::alignment::compile;
    use crate::alignment::forms::FORMS;
    use crate::kernels::Precision;
    use crate::model::Reading;
    use crate::model::tiny::{self, D_HEAD, D_MODEL, N_BLOCKS, N_HEADS, Random};
    use candle_core::{DType, Device};

    fn model(architecture: &str, dtype: DType) -> DenseModel {
        DenseModel::load_as(&tiny::file(architecture), &Device::Cpu, dtype, Reading::default()).unwrap()
    }

    fn tokens(options: usize) -> Tokens {
        let prompts = vec![vec![3, 17, 4, 9, 21], vec![5, 17, 80], vec![44, 2, 6, 6]];
        Tokens { prompts, options: (30..30 + options as u32).collect() }
    }

    /// Signals of all prompts with one and the same constants.
    fn moved(
        model: &DenseModel,
        form: &Form,
        tokens: &Tokens,
        bias: &[f64],
        (place, constants): (Place, &[f64]),
    ) -> Vec<f64> {
        let prompts: Vec<&[TokenId]> = tokens.prompts.iter().map(Vec::as_slice).collect();
        let (width, n) = (constants.len() / N_BLOCKS, prompts.len());
        let by_block: Vec<Option<Tensor>> = (constants.chunks_exact(width))
            .map(|block| {
                let one = Tensor::from_slice(block, (1, width), &Device::Cpu).unwrap();
                Some(one.repeat((n, 1)).unwrap().to_dtype(model.dtype()).unwrap())
            })
            .collect();
        let constants = Constants { place, by_block: &by_block };
        let found = signals(model, form, &prompts, &tokens.options, bias, &constants).unwrap();
        found.to_dtype(DType::F64).unwrap().to_vec1().unwrap()
    }

    fn relative(a: &[f64], b: &[f64]) -> f64 {
        let norm = |values: Vec<f64>| values.iter().map(|x| x * x).sum::<f64>().sqrt();
        norm(a.iter().zip(b).map(|(a, b)| a - b).collect()) / norm(b.to_vec())
    }

    #[test]
    fn derivatives_equal_finite_differences() {
        let step = 1e-5;
        for (architecture, place, width) in
            [("llama", Place::Heads, N_HEADS * D_HEAD), ("gemma3", Place::Attention, D_MODEL)]
        {
            for form in [&FORMS[0], Form::named("letters").unwrap()] {
                let tokens = tokens(form.options.len());
                let bias: Vec<f64> = (0..form.options.len()).map(|i| 0.3 * i as f64 - 2.0).collect();
                let measure = |dtype, first| {
                    let model = model(architecture, dtype);
                    super::measure(&model, form, &tokens, &bias, (place, first), &mut |_, _| Ok(())).unwrap()
                };
                let (double, single, late) =
                    (measure(DType::F64, 0), measure(DType::F32, 0), measure(DType::F32, 1));
                let model = model(architecture, DType::F64);
                let (mut expected, mut found, mut rounded) = (Vec::new(), Vec::new(), Vec::new());
                for at in (0..N_BLOCKS * width).step_by(5) {
                    let signals = |by: f64| {
                        let mut constants = vec![0.0; N_BLOCKS * width];
                        constants[at] = by;
                        moved(&model, form, &tokens, &bias, (place, &constants))
                    };
                    let (plus, minus) = (signals(step), signals(-step));
                    for item in 0..tokens.prompts.len() {
                        expected.push((plus[item] - minus[item]) / (2.0 * step));
                        found.push(f64::from(double.of(item)[at]));
                        rounded.push(f64::from(single.of(item)[at]));
                    }
                }
                let (error, rounding) = (relative(&found, &expected), relative(&rounded, &expected));
                println!("{architecture}, {}: f64 {error:.1e}, f32 {rounding:.1e}", form.name);
                assert!(error < 1e-5 && rounding < 1e-2, "{architecture} {}: {error} {rounding}", form.name);
                for item in 0..tokens.prompts.len() {
                    assert!(late.of(item)[..width].iter().all(|x| *x == 0.0), "no block before the first");
                    assert!(relative_f32(&late.of(item)[width..], &single.of(item)[width..]) < 1e-5);
                }
            }
        }
    }

    fn relative_f32(a: &[f32], b: &[f32]) -> f64 {
        let wide = |values: &[f32]| values.iter().map(|x| f64::from(*x)).collect::<Vec<f64>>();
        relative(&wide(a), &wide(b))
    }

    /// Moved heads are the same as the vector that a plan carries.
    #[test]
    fn heads_equal_their_compiled_form() {
        let (form, tokens) = (&FORMS[0], tokens(2));
        let dense = model("llama", DType::F32);
        let outputs = tiny::load("llama", Precision::F32, 2).head_outputs();
        let mut random = Random(5);
        let constants: Vec<f64> =
            (0..N_BLOCKS * N_HEADS * D_HEAD).map(|_| f64::from(random.value())).collect();
        let shape = Gradients {
            place: Place::Heads,
            n_blocks: N_BLOCKS,
            width: N_HEADS * D_HEAD,
            values: Vec::new(),
        };
        let vector = compile::vector("v", &constants, &shape, &outputs, D_HEAD).unwrap().unwrap();
        assert_eq!(vector.hook, crate::steering::Hook::Attn);
        let compiled: Vec<f64> =
            vector.directions().values().flat_map(|block| block.iter().map(|x| f64::from(*x))).collect();
        let bias = [0.0, 0.0];
        let plain = moved(&dense, form, &tokens, &bias, (Place::Heads, &vec![0.0; constants.len()]));
        let heads = moved(&dense, form, &tokens, &bias, (Place::Heads, &constants));
        let attention = moved(&dense, form, &tokens, &bias, (Place::Attention, &compiled));
        let error = relative(&attention, &heads);
        println!("compiled against moved heads: {error:.1e}");
        assert!(error < 1e-5, "{error}");
        assert!(relative(&plain, &heads) > 1e-2, "the constants do something");
        let nothing = compile::vector("v", &vec![0.0; constants.len()], &shape, &outputs, D_HEAD).unwrap();
        assert_eq!(nothing, None);
        let gemma = tiny::load("gemma3", Precision::F32, 2).head_outputs();
        assert!(compile::vector("v", &constants, &shape, &gemma, D_HEAD).is_err());
    }
}
