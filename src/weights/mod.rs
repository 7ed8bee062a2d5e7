//! Where weights come from and our own readers of weight files.
//!
//! `gguf` reads and writes GGUF files: memory-mapped, everything checked against the file's length before it is used;
//! `safetensors` does the same with safetensors files in memory, `folder` with the shards and JSON files of a whole model;
//! `container` is one or the other. `encoder` fetches the files of a sentence encoder.
//! `pull` turns the name of a model into a file on disk: `names` and `catalog` say what a name means, `cache` where files
//! lie, `hub` and `registry` are the two kinds of sources, `pins` remembers checksums that the catalogue does not know.
//! `repository` does so for names of hub repositories, of whose files `choice` chooses; `ollama` reads another program's
//! models where they lie.
//! Nothing here knows what the tensors mean: architectures, ranges of their sizes and tokenizers belong to `model` and
//! `text`. Nothing here runs while a request is served.

mod cache;
pub mod catalog;
mod choice;
mod container;
mod content;
mod encoder;
mod error;
mod folder;
#[cfg(test)]
mod folder_tests;
pub mod gguf;
mod hub;
mod names;
mod ollama;
mod pins;
mod pull;
mod registry;
mod repository;
pub mod safetensors;
mod scan;
#[cfg(test)]
mod scratch;

pub use cache::Cache;
pub use catalog::{Catalog, EncoderEntry, Entry};
pub use container::Container;
pub use error::{FileFault, WeightsError};
pub use folder::ModelFolder;
pub use gguf::{GgufWriter, Metadata, ModelFile, TensorView, Value};
pub use hub::Hub;
pub use ollama::Ollama;
pub use pull::{Fetcher, Progress, default_model, expected_digest, locate, pull};
pub use registry::Registry;
pub use safetensors::{Safetensors, SafetensorsFault, StoredTensor};
