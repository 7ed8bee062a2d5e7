//! The configuration of a GGUF file: metadata keys of one architecture, with ranges.

use super::family::{self, Description, Family, Size, Sizes};
use super::scaling::Yarn;
use super::{LongRotary, ModelConfig, RotaryConfig};
use crate::limits;
use crate::model::ModelError;
use crate::weights::{Metadata, Value};
use std::ops::RangeInclusive;

/// Tensors that hold divisors of rotary frequencies, where the file has them. What no scaling takes is left over.
#[derive(Default)]
pub struct RopeTensors {
    /// `rope_freqs.weight`
    pub all: Option<Vec<f32>>,
    /// `rope_factors_short.weight` and `rope_factors_long.weight`
    pub short: Option<Vec<f32>>,
    pub long: Option<Vec<f32>>,
}

impl RopeTensors {
    pub const ALL: &'static str = "rope_freqs.weight";
    pub const SHORT: &'static str = "rope_factors_short.weight";
    pub const LONG: &'static str = "rope_factors_long.weight";

    fn refuse_left_over(&self) -> Result<(), ModelError> {
        let tensors = [(&self.all, Self::ALL), (&self.short, Self::SHORT), (&self.long, Self::LONG)];
        match tensors.into_iter().find(|(values, _)| values.is_some()) {
            Some((_, tensor)) => Err(ModelError::LeftOver { tensor: tensor.into() }),
            None => Ok(()),
        }
    }
}

pub fn read(metadata: &Metadata, vocab_size: usize, rope: RopeTensors) -> Result<ModelConfig, ModelError> {
    let key = "general.architecture";
    let architecture = metadata.string(key)?.ok_or(ModelError::MissingKey { key: key.into() })?;
    let family = family::by_name(architecture)?;
    let fields = Fields { metadata, family };
    fields.refuse_experts()?;
    let sizes = fields.sizes()?;
    let defaults = family.defaults;
    let local_rotary = match family.local_base {
        Some(base) => Some(RotaryConfig::plain(fields.float("rope.freq_base_swa", Some(base), BASES)?)),
        None => None,
    };
    let description = Description {
        family,
        pairs: family.gguf_pairs,
        norm_offset: 0.0,
        rotary: rotary(&fields, &sizes, rope)?,
        local_rotary,
        window: match fields.optional_size("attention.sliding_window", 0..=u32::MAX)? {
            Some(0) => None,
            given => given.or(defaults.window),
        },
        windowed: fields.pattern(sizes.n_blocks)?,
        attention_scale: fields.optional_float("attention.scale", 1e-6..=1e6)?,
        attention_softcap: fields
            .optional_float("attn_logit_softcapping", CAPS)?
            .or(defaults.attention_softcap),
        logit_softcap: fields.optional_float("final_logit_softcapping", CAPS)?.or(defaults.logit_softcap),
        sizes,
    };
    Ok(description.into_config(vocab_size))
}

const BASES: RangeInclusive<f32> = 1.0..=1e9;
const CAPS: RangeInclusive<f32> = 1e-3..=1e6;
const FACTORS: RangeInclusive<f32> = 1.0..=1024.0;

fn rotary(fields: &Fields, sizes: &Sizes, mut rope: RopeTensors) -> Result<RotaryConfig, ModelError> {
    let base = fields.float("rope.freq_base", Some(fields.family.defaults.rope_base), BASES)?;
    let original = || fields.size("rope.scaling.original_context_length", 1 << 24).map(|n| n as u32);
    let mut rotary = RotaryConfig::plain(base);
    let given = fields.metadata.string(&fields.key("rope.scaling.type"))?;
    match (given, fields.family.partial_rotary) {
        // Files of phi3 name no type: the factors are in tensors, or there are none.
        (None | Some("none" | "longrope" | "su"), true) => {
            rotary.magnitude = fields.float("rope.scaling.attn_factor", Some(1.0), 0.1..=10.0)?;
            match (rope.short.take(), rope.long.take()) {
                (None, None) => {}
                (Some(short), Some(long)) => {
                    check_divisors(RopeTensors::SHORT, &short, sizes)?;
                    check_divisors(RopeTensors::LONG, &long, sizes)?;
                    rotary.divisors = Some(short);
                    rotary.long = Some(LongRotary { divisors: long, beyond: original()? });
                }
                (short, _) => {
                    let missing = if short.is_some() { RopeTensors::LONG } else { RopeTensors::SHORT };
                    return Err(ModelError::MissingTensor { tensor: missing.into() });
                }
            }
        }
        (None | Some("none"), _) => {}
        (Some("linear"), _) => {
            rotary.linear_factor = fields.float("rope.scaling.factor", Some(1.0), FACTORS)?
        }
        (Some("yarn"), _) => {
            let yarn = Yarn {
                factor: fields.float("rope.scaling.factor", None, FACTORS)?,
                original_context: original()?,
                beta_fast: fields.float("rope.scaling.yarn_beta_fast", Some(32.0), 0.01..=1e4)?,
                beta_slow: fields.float("rope.scaling.yarn_beta_slow", Some(1.0), 0.01..=1e4)?,
                truncated: true,
            };
            rotary.divisors = Some(yarn.divisors(base, sizes.d_rotary));
            rotary.magnitude =
                yarn.magnitude() * fields.float("rope.scaling.attn_factor", Some(1.0), 0.1..=10.0)?;
        }
        (Some(other), _) => {
            return Err(fields.unsupported(
                "rope.scaling.type",
                other,
                "none, linear, yarn; longrope for phi3",
            ));
        }
    }
    // Two scalings at once have no meaning.
    if fields.family.rope_freqs && rotary.divisors.is_none() {
        rotary.divisors = rope.all.take();
        if let Some(divisors) = &rotary.divisors {
            check_divisors(RopeTensors::ALL, divisors, sizes)?;
        }
    }
    rope.refuse_left_over()?;
    Ok(rotary)
}

fn check_divisors(tensor: &str, values: &[f32], sizes: &Sizes) -> Result<(), ModelError> {
    if values.len() != sizes.d_rotary / 2 {
        let (given, wanted) = (vec![values.len()], vec![sizes.d_rotary / 2]);
        return Err(ModelError::Shape { tensor: tensor.into(), given, wanted });
    }
    if values.iter().any(|value| !value.is_finite() || *value <= 0.0) {
        return Err(ModelError::Range {
            key: tensor.into(),
            given: "a value that is not positive".into(),
            allowed: "positive numbers".into(),
        });
    }
    Ok(())
}

/// Metadata keys of one architecture, with ranges.
struct Fields<'a> {
    metadata: &'a Metadata,
    family: &'static Family,
}

impl Fields<'_> {
    fn key(&self, name: &str) -> String {
        format!("{}.{name}", self.family.name)
    }

    fn optional_size(&self, name: &str, allowed: RangeInclusive<u32>) -> Result<Option<u32>, ModelError> {
        let key = self.key(name);
        match self.metadata.u32(&key)? {
            Some(value) if !allowed.contains(&value) => {
                let allowed = format!("{} to {}", allowed.start(), allowed.end());
                Err(ModelError::Range { key, given: value.to_string(), allowed })
            }
            value => Ok(value),
        }
    }

    fn size(&self, name: &str, max: u32) -> Result<usize, ModelError> {
        let value = self.optional_size(name, 1..=max)?;
        Ok(value.ok_or_else(|| ModelError::MissingKey { key: self.key(name) })? as usize)
    }

    fn optional_float(&self, name: &str, allowed: RangeInclusive<f32>) -> Result<Option<f32>, ModelError> {
        let key = self.key(name);
        match self.metadata.f32(&key)? {
            Some(value) if !allowed.contains(&value) => {
                let allowed = format!("{:e} to {:e}", allowed.start(), allowed.end());
                Err(ModelError::Range { key, given: value.to_string(), allowed })
            }
            value => Ok(value),
        }
    }

    fn float(
        &self,
        name: &str,
        default: Option<f32>,
        allowed: RangeInclusive<f32>,
    ) -> Result<f32, ModelError> {
        let value = self.optional_float(name, allowed)?.or(default);
        value.ok_or_else(|| ModelError::MissingKey { key: self.key(name) })
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

    /// Which blocks are windowed, where the file says: every so many-th is not, or a list.
    fn pattern(&self, n_blocks: usize) -> Result<Option<Vec<bool>>, ModelError> {
        let name = "attention.sliding_window_pattern";
        let key = self.key(name);
        match self.metadata.get(&key) {
            None => Ok(None),
            Some(Value::Array(_)) => {
                let windowed = self.metadata.bool_array(&key)?.unwrap_or_default();
                match windowed.len() == n_blocks {
                    true => Ok(Some(windowed)),
                    false => {
                        let given = format!("a list of {}", windowed.len());
                        Err(self.unsupported(name, &given, &format!("{n_blocks} values, one a block")))
                    }
                }
            }
            Some(_) => {
                let every = self.size(name, limits::BLOCKS_MAX)?;
                Ok(Some((1..=n_blocks).map(|l| !l.is_multiple_of(every)).collect()))
            }
        }
    }

    fn sizes(&self) -> Result<Sizes, ModelError> {
        let d_model = self.size("embedding_length", limits::WIDTH_MAX)?;
        let n_heads = self.size("attention.head_count", 4096)?;
        let n_kv_heads =
            self.optional_size("attention.head_count_kv", 1..=4096)?.map_or(n_heads, |n| n as usize);
        let d_head = match self.optional_size("attention.key_length", 1..=1024)? {
            Some(length) => length as usize,
            None if d_model.is_multiple_of(n_heads) => d_model / n_heads,
            None => {
                let allowed = format!("a divisor of `{}` ({d_model})", self.key("embedding_length"));
                return Err(self.unsupported("attention.head_count", &n_heads.to_string(), &allowed));
            }
        };
        let value_length = self.optional_size("attention.value_length", 1..=1024)?;
        if let Some(given) = value_length.filter(|given| *given as usize != d_head) {
            let allowed = format!("{d_head}, the width of a head");
            return Err(self.unsupported("attention.value_length", &given.to_string(), &allowed));
        }
        let rotary = self.optional_size("rope.dimension_count", 1..=1024)?;
        let sizes = Sizes {
            n_blocks: self.size("block_count", limits::BLOCKS_MAX)?,
            d_model,
            n_heads,
            n_kv_heads,
            d_head,
            d_rotary: rotary.map_or(d_head, |n| n as usize),
            d_ff: self.size("feed_forward_length", limits::WIDTH_MAX * 4)?,
            trained_context: self.size("context_length", 1 << 24)? as u32,
            norm_epsilon: self.float("attention.layer_norm_rms_epsilon", None, 1e-12..=1.0)?,
        };
        sizes.check(self.family, |size| {
            self.key(match size {
                Size::Heads => "attention.head_count",
                Size::KvHeads => "attention.head_count_kv",
                Size::Head => "attention.key_length",
                Size::Rotary => "rope.dimension_count",
            })
        })?;
        Ok(sizes)
    }
}
