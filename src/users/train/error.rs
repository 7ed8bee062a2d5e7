//! Why training did not come to a projector.

use crate::model::ModelError;
use crate::text::TextError;
use crate::users::UsersError;
use std::path::PathBuf;

#[derive(Debug, thiserror::Error)]
pub enum TrainError {
    /// The people cannot be trained on.
    #[error("training data: {0}")]
    Data(String),
    #[error("{0}")]
    Options(String),
    #[error(transparent)]
    Model(#[from] ModelError),
    #[error(transparent)]
    Text(#[from] TextError),
    #[error("{doing}: {source}")]
    Candle { doing: &'static str, source: candle_core::Error },
    #[error("embedding of the texts: {0}")]
    Encoder(String),
    /// A loss that is not finite: rates are too large or the weights are broken.
    #[error("step {step} of stage `{stage}`: the loss is {loss}; lower `--rate`")]
    Diverged { stage: &'static str, step: usize, loss: f64 },
    #[error("checkpoint `{}`: {message}", path.display())]
    Checkpoint { path: PathBuf, message: String },
    #[error("cannot write `{}`: {source}", path.display())]
    Write { path: PathBuf, source: std::io::Error },
    #[error(transparent)]
    Projector(#[from] UsersError),
}

/// Names what was being done when candle failed.
pub fn failed(doing: &'static str) -> impl Fn(candle_core::Error) -> TrainError {
    move |source| TrainError::Candle { doing, source }
}
