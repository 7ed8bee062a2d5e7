//! Vectors on disk: one folder per model (by the digest of its weights), one safetensors file per vector.

use super::dose::Norms;
use super::error::SteeringError;
use super::formats::safetensors;
use super::names::is_valid_name;
use super::vector::Vector;
use crate::digest::Digest;
use crate::limits;
use serde::{Deserialize, Serialize};
use std::fs;
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};

/// `DATA/vectors/<16 hex digits of the weights>/`; holds `NAME.safetensors` and `norms.json`.
pub struct Store {
    folder: PathBuf,
    weights: Digest,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct NormsFile {
    schema: String,
    weights: String,
    /// Digest of the neutral text.
    text: String,
    /// `[n_blocks]`.
    centred: Vec<f32>,
}

const NORMS_SCHEMA: &str = "demeanor.norms/1";
const EXTENSION: &str = "safetensors";

impl Store {
    pub fn new(data_dir: &Path, weights: Digest) -> Store {
        Store { folder: data_dir.join("vectors").join(weights.short(16)), weights }
    }

    /// Names of the stored vectors, sorted. A folder that is not there yet is empty.
    pub fn names(&self) -> Result<Vec<String>, SteeringError> {
        let entries = match fs::read_dir(&self.folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(self.failed("list", &self.folder, &error)),
        };
        let mut names = Vec::new();
        for entry in entries {
            let path = entry.map_err(|error| self.failed("list", &self.folder, &error))?.path();
            let stem = path.file_stem().and_then(|stem| stem.to_str());
            if let (Some(stem), true) =
                (stem, path.extension().is_some_and(|extension| extension == EXTENSION))
            {
                names.extend(is_valid_name(stem).then(|| stem.to_owned()));
            }
        }
        names.sort();
        Ok(names)
    }

    /// Reads a vector; `None` where there is none of this name.
    pub fn load(&self, name: &str) -> Result<Option<Vector>, SteeringError> {
        let path = self.path(name)?;
        let bytes = match read_bounded(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(self.failed("read", &path, &error)),
        };
        let sha256 = Digest::of(&bytes);
        Ok(Some(safetensors::read(&bytes, name, sha256)?.vector))
    }

    /// Writes a vector; readers see the old file or the new one, never a part.
    pub fn save(&self, vector: &Vector) -> Result<(), SteeringError> {
        let path = self.path(vector.name())?;
        self.write(&path, &safetensors::write(vector))
    }

    /// Whether there was one.
    pub fn delete(&self, name: &str) -> Result<bool, SteeringError> {
        let path = self.path(name)?;
        match fs::remove_file(&path) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
            Err(error) => Err(self.failed("delete", &path, &error)),
        }
    }

    /// Norms measured on this model with this neutral text; a file that does not fit counts as none.
    pub fn load_norms(&self, neutral: &str, n_blocks: u32) -> Option<Norms> {
        let bytes = read_bounded(&self.folder.join("norms.json")).ok()?;
        let file: NormsFile = serde_json::from_slice(&bytes).ok()?;
        let fits = file.schema == NORMS_SCHEMA
            && file.weights == self.weights.to_string()
            && file.text == Digest::of(neutral.as_bytes()).to_string()
            && file.centred.len() == n_blocks as usize;
        if fits { Norms::new(file.centred) } else { None }
    }

    pub fn save_norms(&self, norms: &Norms, neutral: &str) -> Result<(), SteeringError> {
        let file = NormsFile {
            schema: NORMS_SCHEMA.to_owned(),
            weights: self.weights.to_string(),
            text: Digest::of(neutral.as_bytes()).to_string(),
            centred: norms.values().to_vec(),
        };
        let text = serde_json::to_vec(&file).map_err(|error| SteeringError::Internal(error.to_string()))?;
        self.write(&self.folder.join("norms.json"), &text)
    }

    fn path(&self, name: &str) -> Result<PathBuf, SteeringError> {
        if !is_valid_name(name) {
            let message = "names match [a-z0-9][a-z0-9._-]{0,63}";
            return Err(SteeringError::range("name", message));
        }
        Ok(self.folder.join(format!("{name}.{EXTENSION}")))
    }

    fn write(&self, path: &Path, bytes: &[u8]) -> Result<(), SteeringError> {
        replace(path, bytes).map_err(|error| self.failed("write", path, &error))
    }

    fn failed(&self, action: &str, path: &Path, error: &io::Error) -> SteeringError {
        SteeringError::Internal(format!("cannot {action} `{}`: {error}", path.display()))
    }
}

/// Reads a file of at most [`limits::UPLOAD_BYTES_MAX`] bytes.
fn read_bounded(path: &Path) -> io::Result<Vec<u8>> {
    let file = fs::File::open(path)?;
    let bytes = file.metadata()?.len();
    if bytes > limits::UPLOAD_BYTES_MAX as u64 {
        let message = format!("{bytes} bytes; at most {}", limits::UPLOAD_BYTES_MAX);
        return Err(io::Error::new(ErrorKind::InvalidData, message));
    }
    let mut content = Vec::new();
    io::Read::read_to_end(&mut io::Read::take(file, limits::UPLOAD_BYTES_MAX as u64), &mut content)?;
    Ok(content)
}

/// Writes beside `path`, flushes to disk, renames. Two writers at once: one of them wins whole.
fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(folder)?;
    // The process and the content make the name; a file left over by a crash is overwritten or harmless.
    let part = folder.join(format!(".{}-{}.part", std::process::id(), Digest::of(bytes).short(12)));
    let written = fs::File::create(&part).and_then(|mut file| {
        file.write_all(bytes)?;
        file.sync_all()
    });
    written.and_then(|()| fs::rename(&part, path)).inspect_err(|_| drop(fs::remove_file(&part)))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use std::collections::BTreeMap;
    use std::sync::Arc;

    /// A folder of its own for one test, removed at the end.
    pub struct Folder(pub PathBuf);

    impl Folder {
        pub fn new(test: &str) -> Folder {
            let folder = std::env::temp_dir().join(format!("demeanor-{test}-{}", std::process::id()));
            let _ = fs::remove_dir_all(&folder);
            Folder(folder)
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn vector(name: &str) -> Vector {
        Vector::new(name, BTreeMap::from([(1, Arc::from([1.0f32, 2.0]))]), "p").unwrap()
    }

    #[test]
    fn vectors_come_back() {
        let folder = Folder::new("store");
        let store = Store::new(&folder.0, Digest::of(b"w"));
        assert_eq!(store.names().unwrap(), Vec::<String>::new());
        assert_eq!(store.load("warm").unwrap(), None);
        store.save(&vector("warm")).unwrap();
        store.save(&vector("a.b")).unwrap();
        assert_eq!(store.names().unwrap(), ["a.b", "warm"]);
        let loaded = store.load("warm").unwrap().unwrap();
        assert_eq!(loaded.directions(), vector("warm").directions());
        assert!(store.delete("warm").unwrap());
        assert!(!store.delete("warm").unwrap());
        assert_eq!(store.names().unwrap(), ["a.b"]);
        for name in ["../x", "a/b", "", ".x"] {
            assert!(store.load(name).is_err() && store.delete(name).is_err(), "{name}");
        }
    }

    #[test]
    fn norms_belong_to_a_model_and_a_text() {
        let folder = Folder::new("norms");
        let store = Store::new(&folder.0, Digest::of(b"w"));
        let norms = Norms::new(vec![1.5, 2.25]).unwrap();
        store.save_norms(&norms, "text").unwrap();
        assert_eq!(store.load_norms("text", 2), Some(norms));
        assert_eq!(store.load_norms("other", 2), None);
        assert_eq!(store.load_norms("text", 3), None);
        let other = Store { folder: store.folder.clone(), weights: Digest::of(b"v") };
        assert_eq!(other.load_norms("text", 2), None);
    }
}
