//! Tiny random models of every family with the logits of `transformers`, made by `scripts/make_tiny_models.py`.

use super::{ModelOptions, Reading, TokenId};
use crate::config::{Backend, Device};
use crate::kernels::{Isa, KvFormat, Precision};
use crate::weights::Container;
use crate::weights::safetensors::{Bounds, Safetensors};
use std::path::{Path, PathBuf};

/// Largest |difference| over largest |logit|.
pub const LIMIT: f32 = 1e-4;

pub const MODELS: [&str; 7] = ["llama", "mistral", "qwen2", "qwen3", "gemma2", "gemma3", "phi3"];

pub fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/models").join(name)
}

/// The model in both containers.
pub fn containers(name: &str) -> [Container; 2] {
    [folder(name).join("model.gguf"), folder(name)].map(|path| Container::open(&path).unwrap())
}

/// What `transformers` says.
pub struct Reference {
    pub ids: Vec<TokenId>,
    /// Positions whose logits are known.
    pub rows: Vec<usize>,
    /// `[rows, vocab_size]`
    pub logits: Vec<f32>,
}

impl Reference {
    pub fn read(name: &str, file: &str) -> Reference {
        let bytes = std::fs::read(folder(name).join(file)).unwrap();
        let read = Safetensors::read(&bytes, Bounds { header_bytes: 1 << 16, tensors: 3 }).unwrap();
        let floats = |name: &str| read.tensors[name].floats().unwrap();
        Reference {
            ids: floats("ids").iter().map(|id| *id as TokenId).collect(),
            rows: floats("rows").iter().map(|row| *row as usize).collect(),
            logits: floats("logits"),
        }
    }

    pub fn of(name: &str) -> Reference {
        Reference::read(name, "reference.safetensors")
    }

    /// max |difference| / max |logit| of logits of all positions.
    pub fn difference(&self, logits: &[f32]) -> f32 {
        let width = self.logits.len() / self.rows.len();
        let largest = self.logits.iter().fold(0f32, |largest, value| largest.max(value.abs()));
        let own = self.rows.iter().flat_map(|row| &logits[row * width..][..width]);
        let pairs = own.zip(&self.logits);
        let worst = pairs.map(|(own, wanted)| (own - wanted).abs()).fold(0f32, |worst, x| {
            // A NaN is no small difference, and stays.
            if worst.is_nan() || x <= worst { worst } else { x }
        });
        worst / largest
    }
}

pub fn options(backend: Backend, context: u32) -> ModelOptions {
    ModelOptions {
        backend,
        device: Device::Cpu,
        precision: Precision::F32,
        isa: Isa::detect(),
        threads: 2,
        reading: Reading { quantize: None, context },
        kv_format: KvFormat::F32,
        pages: 4,
    }
}
