//! What can be wrong with weights and with getting them: the errors of this room.

use std::io;
use std::path::PathBuf;
use thiserror::Error;

#[derive(Debug, Error)]
pub enum WeightsError {
    #[error("cannot {action} `{}`: {source}", path.display())]
    Io { action: &'static str, path: PathBuf, source: io::Error },
    /// A rule of the file format is broken at `offset` bytes into the file.
    #[error("`{}`: {fault}, at byte {offset}", path.display())]
    File { path: PathBuf, fault: FileFault, offset: u64 },
    #[error("cannot write `{name}` into a GGUF file: {problem}")]
    Write { name: String, problem: String },
}

/// The rules of weight files, each with what was given and what is allowed. Sizes are bytes unless named otherwise.
#[derive(Debug, Error, PartialEq)]
pub enum FileFault {
    #[error("truncated header: {bytes} bytes, a GGUF file has at least 24")]
    TruncatedHeader { bytes: u64 },
    #[error("not a GGUF file: it starts with {found:?}, not with `GGUF`")]
    Magic { found: String },
    #[error("a big-endian GGUF file; only little-endian files can be read")]
    BigEndian,
    #[error("GGUF version {found}; versions 2 and 3 can be read")]
    Version { found: u32 },
    #[error("truncated file: {what} takes {needed} bytes, {left} are left")]
    Truncated { what: &'static str, needed: u64, left: u64 },
    #[error("metadata takes more than {allowed} bytes")]
    MetadataBytes { allowed: u64 },
    #[error("{given} {what}; at most {allowed} are allowed")]
    TooMany { what: &'static str, given: u64, allowed: u64 },
    #[error("{what} is not valid UTF-8")]
    Utf8 { what: &'static str },
    #[error("a bool of value {found}; 0 and 1 are allowed")]
    Bool { found: u8 },
    #[error("value type {id} is unknown; GGUF has 0 to 12")]
    ValueType { id: u32 },
    #[error("arrays are nested deeper than {allowed}")]
    Depth { allowed: u32 },
    #[error("metadata key `{key}` occurs twice")]
    DuplicateKey { key: String },
    #[error("metadata key `{key}` is {declared}; wanted {wanted}")]
    KeyType { key: String, declared: String, wanted: &'static str },
    #[error("metadata key `{key}` is {given}; allowed: {allowed}")]
    KeyRange { key: String, given: String, allowed: String },
    #[error("tensor `{tensor}` occurs twice")]
    DuplicateTensor { tensor: String },
    #[error("tensor `{tensor}` has {given} dimensions; 1 to {allowed} are allowed")]
    Dimensions { tensor: String, given: u32, allowed: u32 },
    #[error("shape overflow: tensor `{tensor}` of shape {shape:?} (fastest dimension first)")]
    ShapeOverflow { tensor: String, shape: Vec<u64> },
    #[error("tensor `{tensor}` is empty: shape {shape:?} (fastest dimension first)")]
    EmptyTensor { tensor: String, shape: Vec<u64> },
    #[error("tensor `{tensor}` has element type {name} (id {id}); known are {known}")]
    ElementType { tensor: String, id: u32, name: &'static str, known: String },
    #[error("tensor `{tensor}`: rows of {row} elements are no multiple of the {block} of a {format} block")]
    RowLength { tensor: String, row: u64, block: usize, format: &'static str },
    #[error("tensor `{tensor}` is stored at {given}, no multiple of the alignment {alignment}")]
    TensorAlignment { tensor: String, given: u64, alignment: u32 },
    #[error(
        "tensor out of file: `{tensor}` needs {bytes} bytes at {start}, the file's data ends after {available}"
    )]
    TensorOutOfFile { tensor: String, start: u64, bytes: u64, available: u64 },
    #[error("tensors `{first}` and `{second}` overlap")]
    Overlap { first: String, second: String },
    #[error("non-finite weight: `{tensor}`")]
    NonFinite { tensor: String },
}

/// A fault and where it is; the file's name is added by who knows it.
pub(super) struct Located {
    pub fault: FileFault,
    pub offset: u64,
}

impl Located {
    pub(super) fn in_file(self, path: &std::path::Path) -> WeightsError {
        WeightsError::File { path: path.to_owned(), fault: self.fault, offset: self.offset }
    }
}
