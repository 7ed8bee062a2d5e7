//! Rows and prompts through the frozen model: log-odds of answers and the loss of replies, differentiable in the rows.

use super::error::{TrainError, failed};
use super::prepared::{PreparedQuestion, Sequence};
use crate::model::{DenseModel, TokenId};
use candle_core::{D, Tensor};
use std::collections::BTreeMap;

/// Log-odds of the first against the second choice of each question after the soft rows, `[b]`. `rows` is
/// `[b, k, d_model]`.
pub fn log_odds(
    model: &DenseModel,
    rows: &Tensor,
    questions: &[&PreparedQuestion],
) -> Result<Tensor, TrainError> {
    let sequences: Vec<&Sequence> = questions.iter().map(|question| &question.sequence).collect();
    let (hidden, lengths) = forward(model, rows, &sequences)?;
    let ends: Vec<(usize, usize)> = lengths.iter().enumerate().map(|(i, length)| (i, length - 1)).collect();
    let last = pick(&hidden, &ends)?;
    // Each choice token once, and where the two of each question stand among them.
    let mut columns: BTreeMap<TokenId, u32> = BTreeMap::new();
    questions.iter().flat_map(|question| question.choices).for_each(|id| {
        columns.entry(id).or_default();
    });
    columns.values_mut().zip(0..).for_each(|(column, i)| *column = i);
    let ids: Vec<TokenId> = columns.keys().copied().collect();
    let logits = model.logits(&last, Some(&ids))?;
    let doing = failed("log-odds");
    let column = |side: usize| -> candle_core::Result<Tensor> {
        let at: Vec<u32> = questions.iter().map(|question| columns[&question.choices[side]]).collect();
        let at = Tensor::from_vec(at, (questions.len(), 1), logits.device())?;
        logits.gather(&at, 1)?.squeeze(1)
    };
    column(0).and_then(|first| first - column(1)?).map_err(doing)
}

/// Mean negative log-probability of the reply tokens, a scalar. `reply_from[i]` is the index of the first one in the
/// tokens of sequence i.
pub fn reply_loss(
    model: &DenseModel,
    rows: &Tensor,
    sequences: &[&Sequence],
    reply_from: &[usize],
) -> Result<Tensor, TrainError> {
    let doing = failed("loss of replies");
    let k = rows.dim(1).map_err(&doing)?;
    let (hidden, _) = forward(model, rows, sequences)?;
    let (mut places, mut wanted) = (Vec::new(), Vec::new());
    for (i, (sequence, from)) in sequences.iter().zip(reply_from).enumerate() {
        for at in *from..sequence.ids.len() {
            // The row before a token predicts it; soft rows stand in front.
            places.push((i, k + at - 1));
            wanted.push(sequence.ids[at]);
        }
    }
    let logits = model.logits(&pick(&hidden, &places)?, None)?;
    let loss = || -> candle_core::Result<Tensor> {
        let n = wanted.len();
        let largest = logits.max_keepdim(D::Minus1)?.detach();
        let shifted = logits.broadcast_sub(&largest)?;
        let log_sum = shifted.exp()?.sum_keepdim(D::Minus1)?.log()?;
        let chosen = shifted.gather(&Tensor::from_vec(wanted, (n, 1), logits.device())?, 1)?;
        (log_sum - chosen)?.mean_all()
    };
    loss().map_err(doing)
}

/// Rows after the final norm, `[b, t, d_model]`, and each sequence's length with its soft rows.
fn forward(
    model: &DenseModel,
    rows: &Tensor,
    sequences: &[&Sequence],
) -> Result<(Tensor, Vec<usize>), TrainError> {
    let doing = failed("input rows");
    let (b, k, d) = rows.dims3().map_err(&doing)?;
    let at = sequences.first().map_or(0, |sequence| sequence.soft_at);
    if sequences.len() != b || sequences.iter().any(|sequence| sequence.soft_at != at) {
        let message =
            "the prompts of a batch begin differently: some with the model's first token, some without";
        return Err(TrainError::Data(message.into()));
    }
    let longest = sequences.iter().map(|sequence| sequence.ids.len()).max().unwrap_or(0);
    // Padding is any token: rows behind a sequence's end are seen by padding only.
    let padded = |sequence: &&Sequence| {
        let filler = std::iter::repeat(sequence.ids[0]);
        sequence.ids.iter().copied().chain(filler).take(longest).collect::<Vec<_>>()
    };
    let ids: Vec<TokenId> = sequences.iter().flat_map(padded).collect();
    let tokens = model.embed(&ids)?;
    let inputs = || -> candle_core::Result<Tensor> {
        let tokens = tokens.reshape((b, longest, d))?;
        let (head, tail) = (tokens.narrow(1, 0, at)?, tokens.narrow(1, at, longest - at)?);
        match at {
            0 => Tensor::cat(&[rows, &tail], 1),
            _ => Tensor::cat(&[&head, rows, &tail], 1),
        }
    };
    let inputs = inputs().map_err(doing)?;
    let lengths: Vec<usize> = sequences.iter().map(|sequence| sequence.ids.len() + k).collect();
    Ok((model.hidden(&inputs, &lengths)?, lengths))
}

/// The rows `(sequence, position)` of `[b, t, d_model]`: `[n, d_model]`.
fn pick(hidden: &Tensor, places: &[(usize, usize)]) -> Result<Tensor, TrainError> {
    let pick = || -> candle_core::Result<Tensor> {
        let (b, t, d) = hidden.dims3()?;
        let at: Vec<u32> = places.iter().map(|(i, position)| (i * t + position) as u32).collect();
        let at = Tensor::from_vec(at, places.len(), hidden.device())?;
        hidden.reshape((b * t, d))?.index_select(&at, 0)
    };
    pick().map_err(failed("rows of a batch"))
}
