//! The families of models and what each has beyond the plain decoder: one line in a table each.

use super::{BlockConfig, Gating, ModelConfig, RotaryConfig, RotaryPairs};
use crate::kernels::D_HEAD_MAX;
use crate::model::ModelError;

/// What its architecture says of a model, whatever the container.
pub struct Family {
    /// `general.architecture` in GGUF.
    pub name: &'static str,
    /// `model_type` in `config.json`.
    pub model_types: &'static [&'static str],
    pub gating: Gating,
    /// Norms after attention and MLP.
    pub post_norms: bool,
    pub qk_norms: bool,
    pub qkv_biases: bool,
    pub fused: bool,
    /// Token embeddings are multiplied by sqrt(d_model).
    pub scaled_embeddings: bool,
    /// Safetensors hold norm weights w where w + 1 is multiplied; GGUF holds w + 1.
    pub norms_plus_one: bool,
    /// Of its GGUF files; safetensors are half-split always.
    pub gguf_pairs: RotaryPairs,
    /// Where a model has a window: every so many-th block sees everything; `None`: none does.
    pub global_every: Option<usize>,
    /// Base of the frequencies of windowed blocks, where they have their own.
    pub local_base: Option<f32>,
    /// The number of blocks of the one model whose scores are scaled by `d_model / n_heads`, in files that do not say.
    pub wide_query_blocks: Option<usize>,
    /// Part of each head may stay unrotated.
    pub partial_rotary: bool,
    /// Its GGUF files may have `rope_freqs.weight`.
    pub rope_freqs: bool,
    /// `config.json` turns windows on with `use_sliding_window`; they are off where it does not say.
    pub window_switch: bool,
    /// Attention windows, score caps and other defaults of files that do not say.
    pub defaults: Defaults,
}

/// What holds where a file does not say.
#[derive(Clone, Copy)]
pub struct Defaults {
    pub rope_base: f32,
    pub window: Option<u32>,
    pub attention_softcap: Option<f32>,
    pub logit_softcap: Option<f32>,
    /// Width of a head in `config.json`; `None`: `d_model / n_heads`.
    pub d_head: Option<usize>,
    /// Heads and key heads in `config.json`.
    pub heads: Option<(usize, usize)>,
    /// Positions in `config.json`.
    pub trained_context: Option<usize>,
}

const PLAIN_DEFAULTS: Defaults = Defaults {
    rope_base: 1e4,
    window: None,
    attention_softcap: None,
    logit_softcap: None,
    d_head: None,
    heads: None,
    trained_context: None,
};

/// RMSNorm, grouped-query attention, rotary, SwiGLU.
const PLAIN: Family = Family {
    name: "",
    model_types: &[],
    gating: Gating::Silu,
    post_norms: false,
    qk_norms: false,
    qkv_biases: false,
    fused: false,
    scaled_embeddings: false,
    norms_plus_one: false,
    gguf_pairs: RotaryPairs::HalfSplit,
    global_every: None,
    local_base: None,
    wide_query_blocks: None,
    partial_rotary: false,
    rope_freqs: false,
    window_switch: false,
    defaults: PLAIN_DEFAULTS,
};

const GEMMA: Family = Family {
    gating: Gating::GeluTanh,
    post_norms: true,
    scaled_embeddings: true,
    norms_plus_one: true,
    ..PLAIN
};

const LLAMA: Family = Family {
    name: "llama",
    model_types: &["llama"],
    gguf_pairs: RotaryPairs::Interleaved,
    rope_freqs: true,
    ..PLAIN
};

pub const FAMILIES: [Family; 7] = [
    LLAMA,
    // In GGUF a llama; its first folders leave out the window that `transformers` fills in.
    Family {
        model_types: &["mistral"],
        defaults: Defaults { window: Some(4096), ..PLAIN_DEFAULTS },
        ..LLAMA
    },
    Family { name: "qwen2", model_types: &["qwen2"], qkv_biases: true, window_switch: true, ..PLAIN },
    Family {
        name: "qwen3",
        model_types: &["qwen3"],
        qk_norms: true,
        window_switch: true,
        defaults: Defaults { d_head: Some(128), ..PLAIN_DEFAULTS },
        ..PLAIN
    },
    Family {
        name: "gemma2",
        model_types: &["gemma2"],
        global_every: Some(2),
        wide_query_blocks: Some(46),
        defaults: Defaults {
            window: Some(4096),
            attention_softcap: Some(50.0),
            logit_softcap: Some(30.0),
            d_head: Some(256),
            ..PLAIN_DEFAULTS
        },
        ..GEMMA
    },
    // Neither the local base nor the pattern of windowed and global blocks stands in most GGUF files.
    Family {
        name: "gemma3",
        model_types: &["gemma3_text", "gemma3"],
        qk_norms: true,
        global_every: Some(6),
        local_base: Some(1e4),
        wide_query_blocks: Some(62),
        defaults: Defaults {
            rope_base: 1e6,
            window: Some(1024),
            d_head: Some(256),
            heads: Some((8, 4)),
            trained_context: Some(131_072),
            ..PLAIN_DEFAULTS
        },
        ..GEMMA
    },
    Family { name: "phi3", model_types: &["phi3"], fused: true, partial_rotary: true, ..PLAIN },
];

/// The family of a GGUF file: the first of that name.
pub fn by_name(name: &str) -> Result<&'static Family, ModelError> {
    FAMILIES.iter().find(|family| family.name == name).ok_or_else(|| unknown(name))
}

/// The family of a model folder.
pub fn by_model_type(model_type: &str) -> Result<&'static Family, ModelError> {
    let family = FAMILIES.iter().find(|family| family.model_types.contains(&model_type));
    family.ok_or_else(|| unknown(model_type))
}

fn unknown(given: &str) -> ModelError {
    let known: Vec<&str> = FAMILIES.iter().flat_map(|family| family.model_types).copied().collect();
    ModelError::Architecture { given: given.chars().take(80).collect(), known: known.join(", ") }
}

/// Sizes that every model has, checked by [`Sizes::check`].
pub struct Sizes {
    pub n_blocks: usize,
    pub d_model: usize,
    pub n_heads: usize,
    pub n_kv_heads: usize,
    pub d_head: usize,
    pub d_rotary: usize,
    pub d_ff: usize,
    pub trained_context: u32,
    pub norm_epsilon: f32,
}

/// What a container says of a model, in one spelling.
pub struct Description {
    pub family: &'static Family,
    pub sizes: Sizes,
    pub pairs: RotaryPairs,
    pub norm_offset: f32,
    /// Of the blocks that see everything, and of all where the family has one set.
    pub rotary: RotaryConfig,
    /// Of windowed blocks, where the family has two sets.
    pub local_rotary: Option<RotaryConfig>,
    pub window: Option<u32>,
    /// Which blocks are windowed, where the container says.
    pub windowed: Option<Vec<bool>>,
    /// What multiplies scores, where the container says.
    pub attention_scale: Option<f32>,
    pub attention_softcap: Option<f32>,
    pub logit_softcap: Option<f32>,
}

impl Sizes {
    /// Relations between sizes; `key` spells a size as the container does.
    pub fn check(&self, family: &Family, key: impl Fn(Size) -> String) -> Result<(), ModelError> {
        let range = |size: Size, given: usize, allowed: String| {
            Err(ModelError::Range { key: key(size), given: given.to_string(), allowed })
        };
        if !self.n_heads.is_multiple_of(self.n_kv_heads) {
            let allowed = format!("a divisor of `{}` ({})", key(Size::Heads), self.n_heads);
            return range(Size::KvHeads, self.n_kv_heads, allowed);
        }
        if !self.d_head.is_multiple_of(16) || self.d_head > D_HEAD_MAX {
            return range(Size::Head, self.d_head, format!("a multiple of 16 up to {D_HEAD_MAX}"));
        }
        let whole = self.d_rotary == self.d_head;
        if !whole && !family.partial_rotary {
            return range(Size::Rotary, self.d_rotary, format!("{}, the width of a head", self.d_head));
        }
        if !self.d_rotary.is_multiple_of(2) || self.d_rotary > self.d_head || self.d_rotary == 0 {
            return range(Size::Rotary, self.d_rotary, format!("an even number up to {}", self.d_head));
        }
        Ok(())
    }
}

/// Sizes that [`Sizes::check`] may have to name.
#[derive(Clone, Copy)]
pub enum Size {
    Heads,
    KvHeads,
    Head,
    Rotary,
}

impl Description {
    /// The configuration that follows.
    pub fn into_config(self, vocab_size: usize) -> ModelConfig {
        let Description { family, sizes, .. } = self;
        let is_windowed = |l: usize| match (&self.windowed, family.global_every) {
            (Some(windowed), _) => windowed[l],
            (None, Some(every)) => !(l + 1).is_multiple_of(every),
            (None, None) => true,
        };
        let local = usize::from(self.local_rotary.is_some());
        let block = |l: usize| match is_windowed(l) {
            true => BlockConfig { rotary: local, window: self.window },
            false => BlockConfig { rotary: 0, window: None },
        };
        let scale_width = match family.wide_query_blocks == Some(sizes.n_blocks) {
            true => sizes.d_model / sizes.n_heads,
            false => sizes.d_head,
        };
        ModelConfig {
            architecture: family.name.into(),
            n_blocks: sizes.n_blocks,
            d_model: sizes.d_model,
            n_heads: sizes.n_heads,
            n_kv_heads: sizes.n_kv_heads,
            d_head: sizes.d_head,
            d_rotary: sizes.d_rotary,
            d_ff: sizes.d_ff,
            vocab_size,
            trained_context: sizes.trained_context,
            norm_epsilon: sizes.norm_epsilon,
            norm_offset: self.norm_offset,
            attention_scale: self.attention_scale.unwrap_or(inverse_sqrt(scale_width as f64)),
            attention_softcap: self.attention_softcap,
            logit_softcap: self.logit_softcap,
            // transformers multiplies by the factor rounded to the embedding's type, which is f32 here.
            embedding_scale: if family.scaled_embeddings { (sizes.d_model as f32).sqrt() } else { 1.0 },
            gating: family.gating,
            rotary_pairs: self.pairs,
            post_norms: family.post_norms,
            qk_norms: family.qk_norms,
            qkv_biases: family.qkv_biases,
            fused: family.fused,
            blocks: (0..sizes.n_blocks).map(block).collect(),
            rotaries: std::iter::once(self.rotary).chain(self.local_rotary).collect(),
        }
    }
}

pub fn inverse_sqrt(width: f64) -> f32 {
    (1.0 / width.sqrt()) as f32
}
