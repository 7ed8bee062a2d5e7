//! A model on disk in either container: a GGUF file, or a folder of safetensors with its JSON files.

use super::error::WeightsError;
use super::folder::ModelFolder;
use super::gguf::{ModelFile, TensorView};
use crate::digest::Digest;
use crate::format::ElementFormat;
use std::collections::BTreeMap;
use std::path::Path;

/// Values of `general.file_type` for the element types that are read.
const FILE_TYPES: [(u32, &str); 17] = [
    (0, "F32"),
    (1, "F16"),
    (2, "Q4_0"),
    (3, "Q4_1"),
    (7, "Q8_0"),
    (8, "Q5_0"),
    (9, "Q5_1"),
    (10, "Q2_K"),
    (11, "Q3_K_S"),
    (12, "Q3_K_M"),
    (13, "Q3_K_L"),
    (14, "Q4_K_S"),
    (15, "Q4_K_M"),
    (16, "Q5_K_S"),
    (17, "Q5_K_M"),
    (18, "Q6_K"),
    (32, "BF16"),
];

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

    /// How the weights are rounded, for people: what a GGUF file says of itself, or else the type of most bytes.
    pub fn quantisation(&self) -> &'static str {
        let said = match self {
            Container::Gguf(file) => file.metadata().u32("general.file_type").ok().flatten(),
            Container::Folder(_) => None,
        };
        let known = said.and_then(|said| FILE_TYPES.iter().find(|(id, _)| *id == said));
        known.map_or_else(|| self.most_bytes(), |(_, name)| name)
    }

    fn most_bytes(&self) -> &'static str {
        let mut bytes: BTreeMap<ElementFormat, usize> = BTreeMap::new();
        for tensor in self.tensors() {
            *bytes.entry(tensor.format).or_default() += tensor.data.len();
        }
        bytes.iter().max_by_key(|(_, bytes)| **bytes).map_or("-", |(format, _)| format.name())
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
