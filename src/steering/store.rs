//! Vectors and norms of one model in the store: a row and a safetensors blob for each vector.

use super::dose::Norms;
use super::error::SteeringError;
use super::formats::safetensors;
use super::info::VectorInfo;
use super::names::is_valid_name;
use super::vector::Vector;
use crate::digest::Digest;
use crate::limits;
use crate::store::{Store, StoreError, Tenant};
use serde::{Deserialize, Serialize};
use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

/// The stored vectors of one model.
pub struct Vectors {
    store: Store,
    tenant: Tenant,
    /// The model's weights, 64 hex digits.
    weights: String,
}

/// Norms as they are kept.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StoredNorms {
    schema: String,
    weights: String,
    /// Digest of the neutral text.
    text: String,
    /// `[n_blocks]`.
    centred: Vec<f32>,
}

const NORMS_SCHEMA: &str = "demeanor.norms/1";
/// Name of the norms among a model's facts.
const NORMS: &str = "norms";

impl Vectors {
    /// Opens the vectors of a model; those that version 0.1 kept as files are taken over.
    pub fn open(store: &Store, weights: Digest) -> Vectors {
        let vectors = Vectors { store: store.clone(), tenant: Tenant::local(), weights: weights.to_string() };
        let folder = store.folder().join("vectors").join(weights.short(16));
        if folder.is_dir()
            && let Err(error) = vectors.take_over(&folder)
        {
            tracing::warn!(folder = %folder.display(), %error, "vectors of an earlier version were not all taken over");
        }
        vectors
    }

    /// Names of the stored vectors, sorted.
    pub fn names(&self) -> Result<Vec<String>, SteeringError> {
        let names = self.store.vector_names(&self.tenant, &self.weights)?;
        Ok(names.into_iter().filter(|name| is_valid_name(name)).collect())
    }

    /// Reads a vector; `None` where there is none of this name.
    pub fn load(&self, name: &str) -> Result<Option<Vector>, SteeringError> {
        let Some(blob) = self.store.vector(&self.tenant, &self.weights, checked(name)?)? else {
            return Ok(None);
        };
        let bytes = self.store.vector_content(&blob).map_err(|error| match error {
            StoreError::Corrupt { .. } => {
                SteeringError::BadFile { format: "stored", rule: error.to_string(), offset: None }
            }
            error => error.into(),
        })?;
        let sha256 = Digest::of(&bytes);
        Ok(Some(safetensors::read(&bytes, name, sha256)?.vector))
    }

    /// Writes a vector; readers see the old one or the new one, never a part.
    pub fn save(&self, vector: &Vector) -> Result<(), SteeringError> {
        let name = checked(vector.name())?;
        let spec = serde_json::to_value(VectorInfo::of(vector))
            .map_err(|error| SteeringError::Internal(error.to_string()))?;
        let content = safetensors::write(vector);
        Ok(self.store.put_vector(&self.tenant, &self.weights, name, &spec, &content)?)
    }

    /// Whether there was one.
    pub fn delete(&self, name: &str) -> Result<bool, SteeringError> {
        Ok(self.store.delete_vector(&self.tenant, &self.weights, checked(name)?)?)
    }

    /// Norms measured on this model with this neutral text; what does not fit counts as none.
    pub fn load_norms(&self, neutral: &str, n_blocks: u32) -> Option<Norms> {
        let found = self.store.model_fact(&self.weights, NORMS).ok()??;
        self.fitting(serde_json::from_value(found).ok()?, neutral, n_blocks)
    }

    fn fitting(&self, norms: StoredNorms, neutral: &str, n_blocks: u32) -> Option<Norms> {
        let fits = norms.schema == NORMS_SCHEMA
            && norms.weights == self.weights
            && norms.text == Digest::of(neutral.as_bytes()).to_string()
            && norms.centred.len() == n_blocks as usize;
        if fits { Norms::new(norms.centred) } else { None }
    }

    pub fn save_norms(&self, norms: &Norms, neutral: &str) -> Result<(), SteeringError> {
        let stored = StoredNorms {
            schema: NORMS_SCHEMA.to_owned(),
            weights: self.weights.clone(),
            text: Digest::of(neutral.as_bytes()).to_string(),
            centred: norms.values().to_vec(),
        };
        let spec =
            serde_json::to_value(stored).map_err(|error| SteeringError::Internal(error.to_string()))?;
        Ok(self.store.put_model_fact(&self.weights, NORMS, &spec)?)
    }

    /// Takes over a folder of files (`NAME.safetensors`, `norms.json`) and renames it, so that it is done once. A file
    /// that cannot be read is left where it is.
    fn take_over(&self, folder: &Path) -> Result<(), SteeringError> {
        let failed = |error: io::Error| {
            SteeringError::Internal(format!("cannot take over `{}`: {error}", folder.display()))
        };
        let known = self.names()?;
        let mut taken = 0;
        for entry in fs::read_dir(folder).map_err(failed)? {
            let path = entry.map_err(failed)?.path();
            if path.file_name().is_some_and(|name| name == "norms.json") {
                if let Some(norms) =
                    read_bounded(&path).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok())
                {
                    self.store.put_model_fact(&self.weights, NORMS, &norms)?;
                }
                continue;
            }
            let Some(name) = vector_name(&path).filter(|name| !known.contains(name)) else { continue };
            let bytes = read_bounded(&path).map_err(failed)?;
            match safetensors::read(&bytes, &name, Digest::of(&bytes)) {
                Ok(read) => {
                    self.save(&read.vector)?;
                    taken += 1;
                }
                Err(error) => {
                    tracing::warn!(file = %path.display(), %error, "a vector's file cannot be read");
                }
            }
        }
        let mut done = folder.as_os_str().to_owned();
        done.push(".imported");
        fs::rename(folder, PathBuf::from(done)).map_err(failed)?;
        tracing::info!(folder = %folder.display(), vectors = taken, "vectors of an earlier version were taken over");
        Ok(())
    }
}

fn checked(name: &str) -> Result<&str, SteeringError> {
    match is_valid_name(name) {
        true => Ok(name),
        false => Err(SteeringError::range("name", "names match [a-z0-9][a-z0-9._-]{0,63}")),
    }
}

/// Name of the vector that a file of the earlier form holds.
fn vector_name(path: &Path) -> Option<String> {
    let is_vector = path.extension().is_some_and(|extension| extension == "safetensors");
    let stem = path.file_stem()?.to_str()?;
    (is_vector && is_valid_name(stem)).then(|| stem.to_owned())
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::tests::Folder;
    use std::collections::BTreeMap;
    use std::sync::Arc;

    fn vector(name: &str) -> Vector {
        Vector::new(name, BTreeMap::from([(1, Arc::from([1.0f32, 2.0]))]), "p").unwrap()
    }

    #[test]
    fn vectors_come_back() {
        let folder = Folder::new("store");
        let store = Store::open(&folder.0).unwrap();
        let vectors = Vectors::open(&store, Digest::of(b"w"));
        assert_eq!(vectors.names().unwrap(), Vec::<String>::new());
        assert_eq!(vectors.load("warm").unwrap(), None);
        vectors.save(&vector("warm")).unwrap();
        vectors.save(&vector("a.b")).unwrap();
        assert_eq!(vectors.names().unwrap(), ["a.b", "warm"]);
        let loaded = vectors.load("warm").unwrap().unwrap();
        assert_eq!(loaded.directions(), vector("warm").directions());
        assert_eq!(Vectors::open(&store, Digest::of(b"v")).names().unwrap(), Vec::<String>::new());
        assert!(vectors.delete("warm").unwrap());
        assert!(!vectors.delete("warm").unwrap());
        assert_eq!(vectors.names().unwrap(), ["a.b"]);
        for name in ["../x", "a/b", "", ".x"] {
            assert!(vectors.load(name).is_err() && vectors.delete(name).is_err(), "{name}");
        }
    }

    #[test]
    fn norms_belong_to_a_model_and_a_text() {
        let folder = Folder::new("norms");
        let store = Store::open(&folder.0).unwrap();
        let vectors = Vectors::open(&store, Digest::of(b"w"));
        let norms = Norms::new(vec![1.5, 2.25]).unwrap();
        vectors.save_norms(&norms, "text").unwrap();
        assert_eq!(vectors.load_norms("text", 2), Some(norms));
        assert_eq!(vectors.load_norms("other", 2), None);
        assert_eq!(vectors.load_norms("text", 3), None);
        assert_eq!(Vectors::open(&store, Digest::of(b"v")).load_norms("text", 2), None);
    }

    #[test]
    fn files_of_the_first_version_are_taken_over_once() {
        let folder = Folder::new("import");
        let weights = Digest::of(b"w");
        let old = folder.0.join("vectors").join(weights.short(16));
        fs::create_dir_all(&old).unwrap();
        fs::write(old.join("warm.safetensors"), safetensors::write(&vector("warm"))).unwrap();
        fs::write(old.join("broken.safetensors"), b"nothing of use").unwrap();
        fs::write(old.join("notes.txt"), b"hello").unwrap();
        let norms = format!(
            r#"{{"schema":"demeanor.norms/1","weights":"{weights}","text":"{}","centred":[1.5,2.5]}}"#,
            Digest::of(b"text")
        );
        fs::write(old.join("norms.json"), norms).unwrap();
        let store = Store::open(&folder.0).unwrap();
        let vectors = Vectors::open(&store, weights);
        assert_eq!(vectors.names().unwrap(), ["warm"]);
        assert_eq!(vectors.load("warm").unwrap().unwrap().directions(), vector("warm").directions());
        assert_eq!(vectors.load_norms("text", 2), Norms::new(vec![1.5, 2.5]));
        assert!(!old.exists() && old.with_extension("imported").join("broken.safetensors").exists());
        vectors.delete("warm").unwrap();
        assert_eq!(
            Vectors::open(&store, weights).names().unwrap(),
            Vec::<String>::new(),
            "deleted is deleted"
        );
    }
}
