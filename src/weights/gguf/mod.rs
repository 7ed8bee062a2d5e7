//! A GGUF file (versions 2 and 3) as a memory map: metadata, and tensors as views into the map.
//!
//! Everything a file says is checked when it is opened: counts and lengths against the bytes that are left before
//! anything is allocated, sizes with checked arithmetic, places of tensors against the file's end and each other. What
//! the values mean (sizes that fit an architecture, a vocabulary that fits a tokenizer) is for the rooms above.
//!
//! The map is shared with the file: whoever truncates a model file while it is served ends the process, as with any
//! program that runs from a map.

mod cursor;
mod metadata;
mod tensors;
mod writer;

pub use metadata::{ArrayPlace, Metadata, Value, ValueType};
pub use tensors::TensorView;
pub use writer::GgufWriter;

use crate::digest::Digest;
use crate::limits::{GGUF_METADATA_ENTRIES_MAX, GGUF_TENSORS_MAX};
use crate::weights::content::Content;
use crate::weights::error::{FileFault, Located, WeightsError};
use crate::weights::scan;
use cursor::Cursor;
use std::fs::File;
use std::path::Path;
use std::sync::{Arc, OnceLock};
use tensors::Tensors;

/// Magic, version and two counts.
const HEADER_BYTES: u64 = 24;
/// Fewest bytes of one metadata entry: key length, an empty key, value type, a one-byte value.
const ENTRY_BYTES_MIN: u64 = 13;
/// Fewest bytes of one tensor's description: name length, an empty name, dimension count, one dimension, type, offset.
const TENSOR_BYTES_MIN: u64 = 32;

/// An opened model file; owns the map that its tensors are views into.
pub struct ModelFile {
    path: Arc<Path>,
    content: Arc<Content>,
    metadata: Metadata,
    tensors: Tensors,
    digest: OnceLock<Digest>,
}

impl ModelFile {
    /// Maps a GGUF file and checks all of it but the weights' values, see [`ModelFile::scan_finite`].
    pub fn open(path: &Path) -> Result<ModelFile, WeightsError> {
        let io = |action| move |source| WeightsError::Io { action, path: path.to_owned(), source };
        let file = File::open(path).map_err(io("open"))?;
        let bytes = file.metadata().map_err(io("read the size of"))?.len();
        if bytes < HEADER_BYTES {
            return Err(Located { fault: FileFault::TruncatedHeader { bytes }, offset: 0 }.in_file(path));
        }
        ModelFile::parse(path.into(), Content::map(path, &file)?)
    }

    /// The same from memory; `path` is a name for messages.
    pub fn from_bytes(path: &Path, bytes: Vec<u8>) -> Result<ModelFile, WeightsError> {
        ModelFile::parse(path.into(), Content::Held(bytes))
    }

    pub fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    pub fn tensor(&self, name: &str) -> Option<TensorView<'_>> {
        self.tensors.find(name).map(|entry| entry.view(self.content.bytes()))
    }

    /// All tensors in the file's order.
    pub fn tensors(&self) -> impl Iterator<Item = TensorView<'_>> {
        self.tensors.iter().map(|entry| entry.view(self.content.bytes()))
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Size of the file.
    pub fn file_bytes(&self) -> u64 {
        self.content.bytes().len() as u64
    }

    /// Sha256 of the whole file; computed at the first call (a quarter of a second for 100 MB), then kept.
    pub fn digest(&self) -> Digest {
        *self.digest.get_or_init(|| Digest::of(self.content.bytes()))
    }

    /// Fails at the first NaN or infinity in a float tensor or in a quantisation block's scales.
    pub fn scan_finite(&self) -> Result<(), WeightsError> {
        self.tensors.iter().try_for_each(|entry| {
            let view = entry.view(self.content.bytes());
            match scan::non_finite(view.format, view.data) {
                None => Ok(()),
                Some(place) => {
                    let fault = FileFault::NonFinite { tensor: view.name.to_owned() };
                    Err(Located { fault, offset: (entry.start() + place) as u64 }.in_file(&self.path))
                }
            }
        })
    }

    fn parse(path: Arc<Path>, content: Content) -> Result<ModelFile, WeightsError> {
        let content = Arc::new(content);
        let (metadata, tensors) = read_all(&path, &content).map_err(|fault| fault.in_file(&path))?;
        Ok(ModelFile { path, content, metadata, tensors, digest: OnceLock::new() })
    }
}

fn read_all(path: &Arc<Path>, content: &Arc<Content>) -> Result<(Metadata, Tensors), Located> {
    let bytes = content.bytes();
    let mut cursor = Cursor::new(bytes);
    if (bytes.len() as u64) < HEADER_BYTES {
        return Err(cursor.fault(FileFault::TruncatedHeader { bytes: bytes.len() as u64 }));
    }
    read_magic(&mut cursor)?;
    let n_tensors = cursor.count("tensors", GGUF_TENSORS_MAX, TENSOR_BYTES_MIN)?;
    let n_entries = cursor.count("metadata entries", GGUF_METADATA_ENTRIES_MAX, ENTRY_BYTES_MIN)?;
    cursor.limit_metadata();
    let metadata = Metadata::read(path, content, &mut cursor, n_entries)?;
    cursor.unlimit();
    let tensors = Tensors::read(&mut cursor, &metadata, n_tensors, bytes.len())?;
    Ok((metadata, tensors))
}

/// Magic and version. The version shows a big-endian file: its bytes are swapped.
fn read_magic(cursor: &mut Cursor<'_>) -> Result<(), Located> {
    let magic: [u8; 4] = cursor.array("the magic")?;
    let located = |fault, offset| Err(Located { fault, offset });
    match &magic {
        b"GGUF" => {}
        b"FUGG" => return located(FileFault::BigEndian, 0),
        other => return located(FileFault::Magic { found: other.escape_ascii().to_string() }, 0),
    }
    match cursor.u32("the version")? {
        2 | 3 => Ok(()),
        found if found & 0xffff == 0 && found != 0 => located(FileFault::BigEndian, 4),
        found => located(FileFault::Version { found }, 4),
    }
}

#[cfg(test)]
mod tests;
