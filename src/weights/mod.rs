//! Where weights come from and our own readers of weight files.
//!
//! `gguf` reads and writes GGUF files: memory-mapped, everything checked against the file's length before it is used.
//! `catalog`, `pull`, `hub`, `registry` and `cache` turn the name of a model into a file on disk. Nothing here knows what
//! the tensors mean: architectures, ranges of their sizes and tokenizers belong to `model` and `text`.

mod error;
pub mod gguf;

pub use error::{FileFault, WeightsError};
pub use gguf::{GgufWriter, Metadata, ModelFile, TensorView, Value};
