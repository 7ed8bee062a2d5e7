//! The bytes of a weight file, mapped or held.

use super::error::{WeightsError, io};
use memmap2::Mmap;
use std::fs::File;
use std::path::Path;

pub(super) enum Content {
    Map(Mmap),
    Held(Vec<u8>),
}

impl Content {
    /// Maps a file of at least one byte.
    pub(super) fn map(path: &Path, file: &File) -> Result<Content, WeightsError> {
        // SAFETY: the map is read-only and private to its owner; bytes are read as `u8` only, for which every value is
        // valid. Files in the model cache are replaced by rename, never written in place.
        let map = unsafe { Mmap::map(file) }.map_err(io("map", path))?;
        Ok(Content::Map(map))
    }

    pub(super) fn bytes(&self) -> &[u8] {
        match self {
            Content::Map(map) => map,
            Content::Held(bytes) => bytes,
        }
    }
}
