//! The same decoder on candle tensors: gradients for training, and a second backend for other devices.
//!
//! `weights` holds every matrix dequantised and what a block does to rows, whoever asks; `dense` is the forward pass over
//! whole sequences that training differentiates; `step` serves the engine with paged keys and values; `linear` is a product whose weights are frozen, `ops` and
//! `fused` are what lies between products. The arithmetic is that of
//! the exact mode up to rounding; its bits do depend on the rows that share a step, so byte equality is promised by the
//! CPU backend only.
//!
//! Only operations with a gradient are used here. In candle 0.11 `rms_norm`, `softmax_last_dim`, `rope` and products of
//! packed weights have none and say nothing: see [`gradients`], which does.

mod attention;
mod dense;
mod fused;
mod gradients;
mod linear;
mod ops;
mod step;
#[cfg(test)]
mod tests;
mod weights;

pub use dense::{Constants, DenseModel, Place};
pub use gradients::gradients;
pub(super) use linear::FrozenLinear;
pub use step::CandleModel;

use super::ModelError;

/// Names what was being done when candle failed.
fn failed(doing: &'static str) -> impl Fn(candle_core::Error) -> ModelError {
    move |source| ModelError::Candle { doing, source }
}
