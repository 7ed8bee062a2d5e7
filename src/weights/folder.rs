//! A model as a folder: `config.json`, one safetensors file or several shards as memory maps, and further JSON files.
//!
//! As with GGUF, everything that a file says is checked against its length before anything is allocated or used. Files are
//! opened by fixed names, or by names of the index that cannot leave the folder.

use super::content::Content;
use super::error::{FileFault, Located, WeightsError, io};
use super::gguf::TensorView;
use super::safetensors::{Bounds, Safetensors, StoredTensor};
use super::scan;
use crate::digest::{Digest, Digester};
use crate::format::ElementFormat;
use crate::limits::{
    END_TOKENS_MAX, MODEL_CONFIG_BYTES_MAX, SHARD_HEADER_BYTES_MAX, SHARD_INDEX_BYTES_MAX, SHARD_TENSORS_MAX,
    SHARDS_MAX,
};
use serde_json::{Map, Value};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

pub(super) const CONFIG: &str = "config.json";
pub(super) const GENERATION_CONFIG: &str = "generation_config.json";
pub(super) const ONE_FILE: &str = "model.safetensors";
pub(super) const INDEX: &str = "model.safetensors.index.json";

/// An opened model folder; owns the maps that its tensors are views into.
pub struct ModelFolder {
    path: PathBuf,
    config: Map<String, Value>,
    generation_config: Map<String, Value>,
    /// By file name.
    shards: Vec<Shard>,
    /// By name.
    tensors: BTreeMap<Box<str>, Entry>,
    digest: OnceLock<Digest>,
}

struct Shard {
    name: String,
    content: Content,
}

/// One tensor and where it lies.
struct Entry {
    /// Place in [`ModelFolder::shards`].
    shard: usize,
    /// Slowest first.
    shape: Vec<usize>,
    format: ElementFormat,
    /// In bytes from the start of the shard, with `bytes` inside it.
    start: usize,
    bytes: usize,
}

impl ModelFolder {
    /// Maps the shards of a folder and reads its settings.
    pub fn open(path: &Path) -> Result<ModelFolder, WeightsError> {
        let object = |name: &str| json_object(&path.join(name), MODEL_CONFIG_BYTES_MAX);
        let mut folder = ModelFolder {
            path: path.to_owned(),
            config: object(CONFIG)?,
            generation_config: match path.join(GENERATION_CONFIG).exists() {
                true => object(GENERATION_CONFIG)?,
                false => Map::new(),
            },
            shards: Vec::new(),
            tensors: BTreeMap::new(),
            digest: OnceLock::new(),
        };
        // Where a folder has both, `transformers` takes the one file.
        let index = path.join(INDEX);
        if path.join(ONE_FILE).exists() {
            folder.add_shard(ONE_FILE)?;
        } else if index.exists() {
            let index = Index::read(&index)?;
            index.files.iter().try_for_each(|name| folder.add_shard(name))?;
            folder.check_index(&index)?;
        } else {
            let rule =
                format!("neither `{ONE_FILE}` nor `{INDEX}` is in this folder; other formats are not read");
            return Err(broken(path, rule));
        }
        Ok(folder)
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// `config.json`.
    pub fn config(&self) -> &Map<String, Value> {
        &self.config
    }

    /// Tokens that end an answer: those of `generation_config.json`, or else of `config.json`. One number or a list.
    pub fn end_tokens(&self) -> Result<Vec<u32>, WeightsError> {
        for (name, object) in [(GENERATION_CONFIG, &self.generation_config), (CONFIG, &self.config)] {
            let found = match object.get("eos_token_id") {
                None | Some(Value::Null) => continue,
                Some(Value::Array(items)) if items.len() <= END_TOKENS_MAX => {
                    items.iter().map(token).collect()
                }
                Some(value) => token(value).map(|id| vec![id]),
            };
            return found.ok_or_else(|| {
                let rule = format!("`eos_token_id` must be a token id or a list of at most {END_TOKENS_MAX}");
                broken(&self.path.join(name), rule)
            });
        }
        Ok(Vec::new())
    }

    pub fn tensor(&self, name: &str) -> Option<TensorView<'_>> {
        self.tensors.get_key_value(name).map(|(name, entry)| self.view(name, entry))
    }

    /// All tensors by name.
    pub fn tensors(&self) -> impl Iterator<Item = TensorView<'_>> {
        self.tensors.iter().map(|(name, entry)| self.view(name, entry))
    }

    /// Size of all shards.
    pub fn file_bytes(&self) -> u64 {
        self.shards.iter().map(|shard| shard.content.bytes().len() as u64).sum()
    }

    /// Digest over the settings and the shards, computed at the first call. The JSON files of tokenizer and template are
    /// not in it, as they are no weights.
    pub fn digest(&self) -> Digest {
        *self.digest.get_or_init(|| {
            let shards = self.shards.iter();
            let shards = shards.map(|shard| (shard.name.as_str(), Digest::of(shard.content.bytes())));
            digest(&self.config, shards)
        })
    }

    /// Fails at the first NaN or infinity.
    pub fn scan_finite(&self) -> Result<(), WeightsError> {
        self.tensors.iter().try_for_each(|(name, entry)| {
            let view = self.view(name, entry);
            match scan::non_finite(view.format, view.data) {
                None => Ok(()),
                Some(place) => {
                    let fault = FileFault::NonFinite { tensor: view.name.to_owned() };
                    let path = self.path.join(&self.shards[entry.shard].name);
                    Err(Located { fault, offset: (entry.start + place) as u64 }.in_file(&path))
                }
            }
        })
    }

    fn view<'a>(&'a self, name: &'a str, entry: &Entry) -> TensorView<'a> {
        let data = &self.shards[entry.shard].content.bytes()[entry.start..][..entry.bytes];
        TensorView { name, shape: entry.shape.clone(), format: entry.format, data }
    }

    /// Maps a shard and adds its tensors.
    fn add_shard(&mut self, name: &str) -> Result<(), WeightsError> {
        let path = self.path.join(name);
        let file = File::open(&path).map_err(io("open", &path))?;
        if file.metadata().map_err(io("read the size of", &path))?.len() == 0 {
            return Err(broken(&path, "an empty file"));
        }
        let content = Content::map(&path, &file)?;
        let bounds = Bounds { header_bytes: SHARD_HEADER_BYTES_MAX, tensors: SHARD_TENSORS_MAX };
        let read = Safetensors::read(content.bytes(), bounds).map_err(|fault| broken(&path, fault))?;
        for (name, stored) in &read.tensors {
            let entry = entry(stored, self.shards.len())
                .map_err(|rule| broken(&path, format!("tensor `{}` {rule}", shortened(name))))?;
            if self.tensors.insert(name.as_str().into(), entry).is_some() {
                return Err(broken(&path, format!("tensor `{}` is in two shards", shortened(name))));
            }
        }
        if self.tensors.len() > SHARD_TENSORS_MAX {
            return Err(broken(&path, format!("the model has more than {SHARD_TENSORS_MAX} tensors")));
        }
        drop(read);
        self.shards.push(Shard { name: name.to_owned(), content });
        Ok(())
    }

    /// Each tensor of the index is in the file that the index names.
    fn check_index(&self, index: &Index) -> Result<(), WeightsError> {
        for (tensor, file) in &index.tensors {
            let found = self.tensors.get(tensor.as_str()).map(|entry| &self.shards[entry.shard].name);
            if found != Some(file) {
                let rule = format!("tensor `{}` is not in `{file}`", shortened(tensor));
                return Err(broken(&self.path.join(INDEX), rule));
            }
        }
        Ok(())
    }
}

/// What [`ModelFolder::digest`] is for settings and shards by file name.
fn digest<'a>(config: &Map<String, Value>, shards: impl Iterator<Item = (&'a str, Digest)>) -> Digest {
    let mut digester = Digester::new("model folder");
    digester.part(Value::Object(config.clone()).to_string().as_bytes());
    for (name, sha256) in shards {
        digester.part(name.as_bytes()).part(&sha256.0);
    }
    digester.finish()
}

/// The digest that a folder has whose shards are of these sha256; they are not read.
pub(super) fn digest_of(folder: &Path, shards: &BTreeMap<String, Digest>) -> Result<Digest, WeightsError> {
    let config = json_object(&folder.join(CONFIG), MODEL_CONFIG_BYTES_MAX)?;
    Ok(digest(&config, shards.iter().map(|(name, sha256)| (name.as_str(), *sha256))))
}

/// Names of the shards that an index lists.
pub(super) fn shards_of(index: &Path) -> Result<BTreeSet<String>, WeightsError> {
    Ok(Index::read(index)?.files)
}

/// `model.safetensors.index.json`.
struct Index {
    /// File by tensor.
    tensors: BTreeMap<String, String>,
    files: BTreeSet<String>,
}

impl Index {
    fn read(path: &Path) -> Result<Index, WeightsError> {
        let object = json_object(path, SHARD_INDEX_BYTES_MAX)?;
        let Some(Value::Object(map)) = object.get("weight_map") else {
            return Err(broken(path, "`weight_map` must be an object of file names by tensor"));
        };
        let mut index = Index { tensors: BTreeMap::new(), files: BTreeSet::new() };
        for (tensor, file) in map {
            let file = file.as_str().filter(|file| is_shard_name(file)).ok_or_else(|| {
                let rule = format!("the file of tensor `{}` is no `NAME.safetensors`", shortened(tensor));
                broken(path, rule)
            })?;
            index.tensors.insert(tensor.clone(), file.to_owned());
            index.files.insert(file.to_owned());
        }
        match index.files.len() {
            1..=SHARDS_MAX => Ok(index),
            given => Err(broken(path, format!("{given} shards; 1 to {SHARDS_MAX} are allowed"))),
        }
    }
}

/// A plain file name that cannot leave the folder.
fn is_shard_name(name: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    name.len() <= 255 && name.ends_with(".safetensors") && !name.starts_with('.') && name.chars().all(plain)
}

/// The entry of a stored tensor; the text says what is wrong with it.
fn entry(stored: &StoredTensor<'_>, shard: usize) -> Result<Entry, String> {
    let format = match stored.dtype.as_str() {
        "F32" => ElementFormat::F32,
        "F16" => ElementFormat::F16,
        "BF16" => ElementFormat::BF16,
        other => return Err(format!("is {}; F32, F16 and BF16 are read", shortened(other))),
    };
    let size = |size: &u64| usize::try_from(*size).ok().filter(|size| *size > 0);
    let shape: Option<Vec<usize>> = stored.shape.iter().map(size).collect();
    let elements = |shape: &Vec<usize>| shape.iter().try_fold(1usize, |n, size| n.checked_mul(*size));
    let bytes = shape.as_ref().and_then(elements).and_then(|n| n.checked_mul(format.block_bytes()));
    match shape {
        Some(shape) if bytes == Some(stored.bytes.len()) && !shape.is_empty() => {
            Ok(Entry { shard, shape, format, start: stored.start, bytes: stored.bytes.len() })
        }
        _ => Err(format!("of shape {:?} does not take {} bytes", stored.shape, stored.bytes.len())),
    }
}

fn token(value: &Value) -> Option<u32> {
    value.as_u64().and_then(|id| u32::try_from(id).ok())
}

fn json_object(path: &Path, bytes_max: u64) -> Result<Map<String, Value>, WeightsError> {
    let text = read_text(path, bytes_max)?;
    serde_json::from_str(&text).map_err(|error| broken(path, format!("not a JSON object: {error}")))
}

/// A whole file of at most so many bytes, whatever its size is said to be.
fn read_text(path: &Path, bytes_max: u64) -> Result<String, WeightsError> {
    let file = File::open(path).map_err(io("open", path))?;
    let mut bytes = Vec::new();
    file.take(bytes_max + 1).read_to_end(&mut bytes).map_err(io("read", path))?;
    if bytes.len() as u64 > bytes_max {
        return Err(broken(path, format!("more than {bytes_max} bytes")));
    }
    String::from_utf8(bytes).map_err(|_| broken(path, "not UTF-8"))
}

/// A name from outside, escaped and cut for a message.
fn shortened(name: &str) -> String {
    name.chars().take(80).flat_map(char::escape_debug).collect()
}

fn broken(path: &Path, rule: impl std::fmt::Display) -> WeightsError {
    WeightsError::Folder { path: path.to_owned(), rule: rule.to_string() }
}
