//! A random model of two blocks for tests: small enough to load within milliseconds, with every part a family has.

use super::{Model, ModelOptions, Reading};
use crate::config::{Backend, Device};
use crate::kernels::{Isa, KvFormat, Precision};
use crate::weights::{Container, GgufWriter, ModelFile};
use std::path::Path;

pub const N_BLOCKS: usize = 2;
pub const D_MODEL: usize = 64;
pub const N_HEADS: usize = 4;
pub const N_KV_HEADS: usize = 2;
pub const D_HEAD: usize = 16;
const D_FF: usize = 96;
pub const VOCAB_SIZE: usize = 96;

/// A model file of an architecture, `llama` or `gemma3`.
pub fn file(architecture: &str) -> Container {
    changed(architecture, N_BLOCKS, &[])
}

/// The same with so many blocks; from six on gemma has a global one.
pub fn file_of(architecture: &str, n_blocks: usize) -> Container {
    changed(architecture, n_blocks, &[])
}

/// The same with other values in some tensors.
fn changed(architecture: &str, n_blocks: usize, tensors: &[(&str, &[f32])]) -> Container {
    let mut writer = GgufWriter::new();
    let key = |name: &str| format!("{architecture}.{name}");
    writer.string("general.architecture", architecture);
    let sizes = [
        ("block_count", n_blocks),
        ("context_length", 4096),
        ("embedding_length", D_MODEL),
        ("feed_forward_length", D_FF),
        ("attention.head_count", N_HEADS),
        ("attention.head_count_kv", N_KV_HEADS),
        ("attention.key_length", D_HEAD),
    ];
    for (name, size) in sizes {
        writer.u32(&key(name), size as u32);
    }
    writer.f32(&key("attention.layer_norm_rms_epsilon"), 1e-5);
    let mut random = Random(1);
    let mut tensor = |name: &str, shape: &[usize]| {
        let len: usize = shape.iter().product();
        let norm = shape.len() == 1;
        let scale = if norm { 0.1 } else { 1.5 / (shape[1] as f32).sqrt() };
        let values: Vec<f32> =
            (0..len).map(|_| scale * random.value() + if norm { 1.0 } else { 0.0 }).collect();
        let other = tensors.iter().find(|(changed, _)| *changed == name);
        writer.tensor_f32(name, shape, other.map_or(&values[..], |(_, values)| values));
    };
    tensor("token_embd.weight", &[VOCAB_SIZE, D_MODEL]);
    tensor("output_norm.weight", &[D_MODEL]);
    let (queries, keys) = (N_HEADS * D_HEAD, N_KV_HEADS * D_HEAD);
    for l in 0..n_blocks {
        let mut part = |name: &str, shape: &[usize]| tensor(&format!("blk.{l}.{name}.weight"), shape);
        part("attn_norm", &[D_MODEL]);
        part("ffn_norm", &[D_MODEL]);
        part("attn_q", &[queries, D_MODEL]);
        part("attn_k", &[keys, D_MODEL]);
        part("attn_v", &[keys, D_MODEL]);
        part("attn_output", &[D_MODEL, queries]);
        part("ffn_gate", &[D_FF, D_MODEL]);
        part("ffn_up", &[D_FF, D_MODEL]);
        part("ffn_down", &[D_MODEL, D_FF]);
        if architecture == "gemma3" {
            part("attn_q_norm", &[D_HEAD]);
            part("attn_k_norm", &[D_HEAD]);
            part("post_attention_norm", &[D_MODEL]);
            part("post_ffw_norm", &[D_MODEL]);
        }
    }
    let bytes = writer.to_bytes().expect("sizes agree");
    ModelFile::from_bytes(Path::new("tiny.gguf"), bytes).expect("a right file").into()
}

pub fn load(architecture: &str, precision: Precision, pages: usize) -> Model {
    load_on(Backend::Cpu, &file(architecture), precision, pages)
}

pub fn load_changed(
    architecture: &str,
    precision: Precision,
    pages: usize,
    tensors: &[(&str, &[f32])],
) -> Model {
    load_on(Backend::Cpu, &changed(architecture, N_BLOCKS, tensors), precision, pages)
}

/// A model file on either backend.
pub fn load_on(backend: Backend, file: &Container, precision: Precision, pages: usize) -> Model {
    let (isa, device) = (Isa::detect(), Device::Cpu);
    let (threads, reading) = (1, Reading::default());
    let kv_format = if precision == Precision::F32 { KvFormat::F32 } else { KvFormat::F16 };
    let options = ModelOptions { backend, device, precision, isa, threads, reading, kv_format, pages };
    Model::load(file, &options).expect("the tiny model loads")
}

/// A linear congruential generator: the same numbers everywhere.
pub struct Random(pub u64);

impl Random {
    fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        self.0 >> 33
    }

    /// In -1 to 1.
    pub fn value(&mut self) -> f32 {
        self.bits() as f32 / (1u64 << 30) as f32 - 1.0
    }

    /// In `0..below`.
    pub fn below(&mut self, below: usize) -> usize {
        self.bits() as usize % below
    }
}
