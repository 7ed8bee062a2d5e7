//! A model on disk in either container: a GGUF file, or a folder of safetensors with its JSON files.

use super::error::WeightsError;
use super::folder::ModelFolder;
use super::gguf::{ModelFile, TensorView};
use crate::digest::Digest;
use std::path::Path;

/// An opened model. What its names and settings mean is for the rooms above, which match on the kind where the two differ.
pub enum Container {
    Gguf(ModelFile),
    Folder(ModelFolder),
}

impl Container {
    /// Opens a folder or a GGUF file and checks all of it but the weights' values, see [`Container::scan_finite`].
    pub fn open(path: &Path) -> Result<Container, WeightsError> {
        match path.is_dir() {
            true => ModelFolder::open(path).map(Container::Folder),
            false => ModelFile::open(path).map(Container::Gguf),
        }
    }

    pub fn tensor(&self, name: &str) -> Option<TensorView<'_>> {
        match self {
            Container::Gguf(file) => file.tensor(name),
            Container::Folder(folder) => folder.tensor(name),
        }
    }

    /// All tensors: in a file's order, or by name.
    pub fn tensors(&self) -> Box<dyn Iterator<Item = TensorView<'_>> + '_> {
        match self {
            Container::Gguf(file) => Box::new(file.tensors()),
            Container::Folder(folder) => Box::new(folder.tensors()),
        }
    }

    /// Size of the file, or of a folder's shards together.
    pub fn file_bytes(&self) -> u64 {
        match self {
            Container::Gguf(file) => file.file_bytes(),
            Container::Folder(folder) => folder.file_bytes(),
        }
    }

    /// Sha256 that names the weights; computed at the first call, then kept.
    pub fn digest(&self) -> Digest {
        match self {
            Container::Gguf(file) => file.digest(),
            Container::Folder(folder) => folder.digest(),
        }
    }

    /// Fails at the first NaN or infinity in a float tensor or in a quantisation block's scales.
    pub fn scan_finite(&self) -> Result<(), WeightsError> {
        match self {
            Container::Gguf(file) => file.scan_finite(),
            Container::Folder(folder) => folder.scan_finite(),
        }
    }
}

impl From<ModelFile> for Container {
    fn from(file: ModelFile) -> Container {
        Container::Gguf(file)
    }
}
