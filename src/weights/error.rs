//! What can be wrong with weights and with getting them: the errors of this room.

use crate::digest::Digest;
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
    /// A file of a model folder breaks a rule.
    #[error("`{}`: {rule}", path.display())]
    Folder { path: PathBuf, rule: String },
    #[error("cannot write `{name}` into a GGUF file: {problem}")]
    Write { name: String, problem: String },
    /// `known`: names near to it, or all.
    #[error(
        "`{name}` is neither in the catalogue nor a file; the catalogue has {known}; other models: `hf:ORG/REPO[:QUANTISATION]`, `hf:ORG/REPO/FILE`, `ollama:NAME:TAG` or the path of a GGUF file or of a folder with `config.json` and safetensors"
    )]
    UnknownModel { name: String, known: String },
    #[error("`{name}` is no sentence encoder of the catalogue; it has {known}")]
    UnknownEncoder { name: String, known: String },
    #[error(
        "`{name}` is no hub name; wanted `hf:ORG/REPO/FILE`, `hf:ORG/REPO` or `hf:ORG/REPO:QUANTISATION`, of letters, digits and `._-+=@`"
    )]
    HubName { name: String },
    #[error("`{repository}` has {} GGUF files that this may mean; name one of them: {}", files.len(), shown(files))]
    WhichFile { repository: String, files: Vec<String> },
    #[error("`{repository}` has no GGUF file of `{given}`; it has {}", shown(files))]
    NoQuantisation { repository: String, given: String, files: Vec<String> },
    #[error(
        "`{repository}` has this model in parts, which are not joined: {}; hint: choose a smaller quantisation, or merge them with llama.cpp's `llama-gguf-split --merge` and give the path",
        shown(files)
    )]
    InParts { repository: String, files: Vec<String> },
    #[error("`{repository}` has {problem}")]
    NoModel { repository: String, problem: String },
    #[error("`ollama:{name}`: {problem}")]
    Ollama { name: String, problem: String },
    #[error("the catalogue is wrong: {problem}")]
    Catalog { problem: String },
    #[error("no home folder; set `HF_HOME` to the folder that models are kept in")]
    NoHome,
    #[error("`{name}` could not be fetched: {}", tried.join("; "))]
    NoSource { name: String, tried: Vec<String> },
    #[error("{origin} sent {header} `{value}`, which is no file name; nothing was written")]
    HostileName { origin: String, header: &'static str, value: String },
    #[error("{origin} has a file of sha256 {found}; expected {expected}; nothing was kept")]
    Mismatch { origin: String, expected: Digest, found: Digest },
    #[error("`{}` cannot be read: {problem}; remove it to pin checksums anew", path.display())]
    Pins { path: PathBuf, problem: String },
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

/// The first names of a list.
fn shown(files: &[String]) -> String {
    let first: Vec<&str> = files.iter().take(20).map(String::as_str).collect();
    let rest = if files.len() > first.len() { ", ..." } else { "" };
    first.join(", ") + rest
}

/// Why a source gave no file: the next source is tried, or the pull ends here.
pub(super) enum SourceFailure {
    /// Cannot be used now; one line for the user.
    Unavailable(String),
    /// Something no other source mends or should hide: a wrong checksum, a hostile name, a full disk.
    Fatal(WeightsError),
}

impl From<WeightsError> for SourceFailure {
    fn from(error: WeightsError) -> SourceFailure {
        SourceFailure::Fatal(error)
    }
}

/// For `map_err`: an I/O error with what was done to which file.
pub(super) fn io<'a>(
    action: &'static str,
    path: &'a std::path::Path,
) -> impl FnOnce(io::Error) -> WeightsError + 'a {
    move |source| WeightsError::Io { action, path: path.to_owned(), source }
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
