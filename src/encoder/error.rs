//! What can be wrong with an encoder: the errors of this room.

use crate::digest::Digest;
use std::io;
use std::path::PathBuf;

#[derive(Debug, thiserror::Error)]
pub enum EncoderError {
    #[error("cannot read `{}`: {source}", path.display())]
    Io { path: PathBuf, source: io::Error },
    #[error("`{}`: {problem}", path.display())]
    File { path: PathBuf, problem: String },
    #[error("`{}` has sha256 {found}, expected {expected}", path.display())]
    Mismatch { path: PathBuf, expected: Digest, found: Digest },
    /// The library gave up on a text.
    #[error("a text of {bytes} bytes cannot be tokenised: {problem}")]
    Tokenise { bytes: usize, problem: String },
    #[error("the encoder failed: {0}")]
    Compute(String),
}

impl From<candle_core::Error> for EncoderError {
    fn from(error: candle_core::Error) -> EncoderError {
        EncoderError::Compute(error.to_string())
    }
}
