//! A model family as data: sizes and switches of the one decoder, read from GGUF metadata.

use super::ModelError;
use crate::kernels::D_HEAD_MAX;
use crate::limits;
use crate::weights::Metadata;

/// The activation between gate and up projection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gating {
    /// SwiGLU: `silu(gate) * up`.
    Silu,
    /// GeGLU in its tanh form: `gelu(gate) * up`.
    GeluTanh,
}

/// Which coordinates of a head rotate together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RotaryPairs {
    /// `(2i, 2i + 1)`: llama-family GGUF, whose Q and K rows are stored permuted for it.
    Interleaved,
    /// `(i, i + d_head / 2)`: gemma and most others.
    HalfSplit,
}

/// One set of rotary frequencies; a model has one or two (gemma3: local and global blocks).
#[derive(Clone, Debug, PartialEq)]
pub struct RotaryConfig {
    /// Base of the geometric series of wavelengths.
    pub base: f32,
    /// Positions are divided by this (linear scaling); 1 = off.
    pub linear_factor: f32,
    /// Divides each frequency (`rope_freqs.weight`, Llama 3.1 and later). `[d_head / 2]`.
    pub divisors: Option<Vec<f32>>,
}

/// What differs from block to block.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BlockConfig {
    /// Index into [`ModelConfig::rotaries`].
    pub rotary: usize,
    /// Keys a row sees, itself included; `None`: all before it.
    pub window: Option<u32>,
}

/// Sizes and switches of a decoder. `n_` counts, `d_` widths.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelConfig {
    pub architecture: String,
    pub n_blocks: usize,
    pub d_model: usize,
    pub n_heads: usize,
    pub n_kv_heads: usize,
    pub d_head: usize,
    pub d_ff: usize,
    pub vocab_size: usize,
    /// Context the model was trained for.
    pub trained_context: u32,
    pub norm_epsilon: f32,
    /// Multiplies query-key products.
    pub attention_scale: f32,
    /// Multiplies token embeddings (gemma: sqrt(d_model)); soft rows are not scaled.
    pub embedding_scale: f32,
    pub gating: Gating,
    pub rotary_pairs: RotaryPairs,
    /// Norms after attention and MLP, before they join the residual stream.
    pub post_norms: bool,
    /// Norms of each query and key head, before rotary.
    pub qk_norms: bool,
    pub rotaries: Vec<RotaryConfig>,
    /// One per block.
    pub blocks: Vec<BlockConfig>,
}

impl ModelConfig {
    /// Reads the configuration of one of the families in spec `models.md`. `vocab_size` is the height of the embedding
    /// table, `rope_divisors` the tensor `rope_freqs.weight` where the file has one.
    pub fn from_metadata(
        metadata: &Metadata,
        vocab_size: usize,
        rope_divisors: Option<Vec<f32>>,
    ) -> Result<ModelConfig, ModelError> {
        let architecture = metadata.string("general.architecture")?.ok_or(missing("general.architecture"))?;
        let fields = Fields { metadata, architecture };
        match architecture {
            "llama" => llama(&fields, vocab_size, rope_divisors),
            "gemma3" => gemma3(&fields, vocab_size, rope_divisors),
            other => Err(ModelError::Architecture { given: other.into() }),
        }
    }

    pub fn d_queries(&self) -> usize {
        self.n_heads * self.d_head
    }

    pub fn d_keys(&self) -> usize {
        self.n_kv_heads * self.d_head
    }
}

fn llama(fields: &Fields, vocab_size: usize, divisors: Option<Vec<f32>>) -> Result<ModelConfig, ModelError> {
    fields.refuse_experts()?;
    let sizes = fields.sizes()?;
    let linear_factor = match fields.string("rope.scaling.type")? {
        None | Some("none") => 1.0,
        Some("linear") => fields.float("rope.scaling.factor", Some(1.0), 1.0..=1024.0)?,
        Some(other) => return Err(fields.unsupported("rope.scaling.type", other, "none, linear")),
    };
    let rotary = RotaryConfig { base: fields.rope_base(Some(10_000.0))?, linear_factor, divisors };
    check_divisors(&rotary, sizes.d_head)?;
    let window = fields.optional_size("attention.sliding_window", limits::WIDTH_MAX)?;
    Ok(ModelConfig {
        architecture: fields.architecture.into(),
        attention_scale: inverse_sqrt(sizes.d_head),
        embedding_scale: 1.0,
        gating: Gating::Silu,
        rotary_pairs: RotaryPairs::Interleaved,
        post_norms: false,
        qk_norms: false,
        rotaries: vec![rotary],
        blocks: vec![BlockConfig { rotary: 0, window }; sizes.n_blocks],
        ..sizes.into_config(vocab_size)
    })
}

/// gemma3 (text): neither the local rotary base nor the 5 : 1 pattern of windowed and global blocks stands in the file.
fn gemma3(fields: &Fields, vocab_size: usize, divisors: Option<Vec<f32>>) -> Result<ModelConfig, ModelError> {
    if divisors.is_some() {
        return Err(ModelError::LeftOver { tensor: "rope_freqs.weight".into() });
    }
    let sizes = fields.sizes()?;
    let linear_factor = match fields.string("rope.scaling.type")? {
        None | Some("none") => 1.0,
        Some("linear") => fields.float("rope.scaling.factor", Some(1.0), 1.0..=1024.0)?,
        Some(other) => return Err(fields.unsupported("rope.scaling.type", other, "none, linear")),
    };
    let global = RotaryConfig { base: fields.rope_base(Some(1e6))?, linear_factor, divisors: None };
    let local_base = fields.float("rope.freq_base_swa", Some(1e4), 1.0..=1e9)?;
    let local = RotaryConfig { base: local_base, linear_factor: 1.0, divisors: None };
    let window = fields.optional_size("attention.sliding_window", limits::WIDTH_MAX)?.unwrap_or(1024);
    let every = 6;
    let blocks = (0..sizes.n_blocks)
        .map(|block| match (block + 1) % every {
            0 => BlockConfig { rotary: 0, window: None },
            _ => BlockConfig { rotary: 1, window: Some(window) },
        })
        .collect();
    // The 27B model divides by the width per head of the model, the others by the head's own width.
    let scale_width = if sizes.n_blocks == 62 { sizes.d_model / sizes.n_heads } else { sizes.d_head };
    Ok(ModelConfig {
        architecture: fields.architecture.into(),
        attention_scale: inverse_sqrt(scale_width),
        // transformers multiplies by the factor rounded to the embedding's type, which is f32 here.
        embedding_scale: (sizes.d_model as f32).sqrt(),
        gating: Gating::GeluTanh,
        rotary_pairs: RotaryPairs::HalfSplit,
        post_norms: true,
        qk_norms: true,
        rotaries: vec![global, local],
        blocks,
        ..sizes.into_config(vocab_size)
    })
}

/// Sizes that every family has.
struct Sizes {
    n_blocks: usize,
    d_model: usize,
    n_heads: usize,
    n_kv_heads: usize,
    d_head: usize,
    d_ff: usize,
    trained_context: u32,
    norm_epsilon: f32,
}

impl Sizes {
    fn into_config(self, vocab_size: usize) -> ModelConfig {
        ModelConfig {
            architecture: String::new(),
            n_blocks: self.n_blocks,
            d_model: self.d_model,
            n_heads: self.n_heads,
            n_kv_heads: self.n_kv_heads,
            d_head: self.d_head,
            d_ff: self.d_ff,
            vocab_size,
            trained_context: self.trained_context,
            norm_epsilon: self.norm_epsilon,
            attention_scale: 1.0,
            embedding_scale: 1.0,
            gating: Gating::Silu,
            rotary_pairs: RotaryPairs::Interleaved,
            post_norms: false,
            qk_norms: false,
            rotaries: Vec::new(),
            blocks: Vec::new(),
        }
    }
}

/// Metadata keys of one architecture, with ranges.
struct Fields<'a> {
    metadata: &'a Metadata,
    architecture: &'a str,
}

impl Fields<'_> {
    fn key(&self, name: &str) -> String {
        format!("{}.{name}", self.architecture)
    }

    fn string(&self, name: &str) -> Result<Option<&str>, ModelError> {
        Ok(self.metadata.string(&self.key(name))?)
    }

    fn optional_size(&self, name: &str, max: u32) -> Result<Option<u32>, ModelError> {
        let key = self.key(name);
        match self.metadata.u32(&key)? {
            Some(value) if value == 0 || value > max => {
                Err(ModelError::Range { key, given: value.to_string(), allowed: format!("1 to {max}") })
            }
            value => Ok(value),
        }
    }

    fn size(&self, name: &str, max: u32) -> Result<usize, ModelError> {
        let value = self.optional_size(name, max)?;
        Ok(value.ok_or_else(|| ModelError::MissingKey { key: self.key(name) })? as usize)
    }

    fn float(
        &self,
        name: &str,
        default: Option<f32>,
        allowed: std::ops::RangeInclusive<f32>,
    ) -> Result<f32, ModelError> {
        let key = self.key(name);
        let value = self.metadata.f32(&key)?.or(default);
        let value = value.ok_or_else(|| ModelError::MissingKey { key: key.clone() })?;
        if !allowed.contains(&value) {
            let allowed = format!("{:e} to {:e}", allowed.start(), allowed.end());
            return Err(ModelError::Range { key, given: value.to_string(), allowed });
        }
        Ok(value)
    }

    fn rope_base(&self, default: Option<f32>) -> Result<f32, ModelError> {
        self.float("rope.freq_base", default, 1.0..=1e9)
    }

    fn unsupported(&self, name: &str, given: &str, allowed: &str) -> ModelError {
        ModelError::Range { key: self.key(name), given: given.into(), allowed: allowed.into() }
    }

    fn refuse_experts(&self) -> Result<(), ModelError> {
        match self.metadata.u32(&self.key("expert_count"))? {
            Some(n) if n > 0 => {
                Err(self.unsupported("expert_count", &n.to_string(), "0 (no mixture of experts)"))
            }
            _ => Ok(()),
        }
    }

    fn sizes(&self) -> Result<Sizes, ModelError> {
        let d_model = self.size("embedding_length", limits::WIDTH_MAX)?;
        let n_heads = self.size("attention.head_count", 4096)?;
        let n_kv_heads = self.optional_size("attention.head_count_kv", 4096)?.map_or(n_heads, |n| n as usize);
        let d_head = match self.optional_size("attention.key_length", 1024)? {
            Some(length) => length as usize,
            None if d_model.is_multiple_of(n_heads) => d_model / n_heads,
            None => return Err(self.divides("attention.head_count", n_heads, "embedding_length", d_model)),
        };
        if !n_heads.is_multiple_of(n_kv_heads) {
            return Err(self.divides("attention.head_count_kv", n_kv_heads, "attention.head_count", n_heads));
        }
        if !d_head.is_multiple_of(16) || d_head > D_HEAD_MAX {
            let allowed = format!("a multiple of 16 up to {D_HEAD_MAX}");
            return Err(self.unsupported("attention.key_length", &d_head.to_string(), &allowed));
        }
        for name in ["attention.value_length", "rope.dimension_count"] {
            if let Some(given) = self.optional_size(name, 1024)?.filter(|given| *given as usize != d_head) {
                return Err(self.unsupported(
                    name,
                    &given.to_string(),
                    &format!("{d_head}, the width of a head"),
                ));
            }
        }
        Ok(Sizes {
            n_blocks: self.size("block_count", limits::BLOCKS_MAX)?,
            d_model,
            n_heads,
            n_kv_heads,
            d_head,
            d_ff: self.size("feed_forward_length", limits::WIDTH_MAX * 4)?,
            trained_context: self.size("context_length", 1 << 24)? as u32,
            norm_epsilon: self.float("attention.layer_norm_rms_epsilon", None, 1e-12..=1.0)?,
        })
    }

    fn divides(&self, small: &str, a: usize, large: &str, b: usize) -> ModelError {
        let allowed = format!("a divisor of `{}` ({b})", self.key(large));
        ModelError::Range { key: self.key(small), given: a.to_string(), allowed }
    }
}

fn check_divisors(rotary: &RotaryConfig, d_head: usize) -> Result<(), ModelError> {
    match &rotary.divisors {
        Some(values) if values.len() != d_head / 2 => Err(ModelError::Shape {
            tensor: "rope_freqs.weight".into(),
            given: vec![values.len()],
            wanted: vec![d_head / 2],
        }),
        Some(values) if values.iter().any(|value| !value.is_finite() || *value <= 0.0) => {
            Err(ModelError::Range {
                key: "rope_freqs.weight".into(),
                given: "a value that is not positive".into(),
                allowed: "positive numbers".into(),
            })
        }
        _ => Ok(()),
    }
}

fn missing(key: &str) -> ModelError {
    ModelError::MissingKey { key: key.into() }
}

fn inverse_sqrt(width: usize) -> f32 {
    (1.0 / (width as f64).sqrt()) as f32
}
