//! The configuration of a model folder: fields of `config.json` as `transformers` writes them, with ranges.
//!
//! Both spellings of rope settings are read: `rope_theta` with `rope_scaling`, and `rope_parameters` of later versions.

use super::family::{self, Description, Family, Size, Sizes, inverse_sqrt};
use super::scaling::{Llama3, Yarn, longrope_magnitude};
use super::{Gating, LongRotary, ModelConfig, RotaryConfig, RotaryPairs};
use crate::limits;
use crate::model::ModelError;
use serde_json::{Map, Value};
use std::ops::RangeInclusive;

/// Kinds of block that may have frequencies of their own.
const KINDS: [&str; 2] = [FULL, SLIDING];
const FULL: &str = "full_attention";
const SLIDING: &str = "sliding_attention";
const CONTEXT_MAX: u64 = 1 << 24;
const BASES: RangeInclusive<f64> = 1.0..=1e9;
const CAPS: RangeInclusive<f64> = 1e-3..=1e6;
const FACTORS: RangeInclusive<f64> = 1.0..=1024.0;

pub fn read(config: &Map<String, Value>, vocab_size: usize) -> Result<ModelConfig, ModelError> {
    let top = Fields { object: config, place: "config.json:".into() };
    // A model that also sees: the text part stands in an object of its own.
    let fields = top.object("text_config")?.unwrap_or_else(|| top.clone());
    let model_type = fields.text("model_type")?.ok_or_else(|| fields.missing("model_type"))?;
    let family = family::by_model_type(model_type)?;
    refuse_what_is_not_there(&top, &fields, family)?;
    let sizes = sizes(&fields, family)?;
    let defaults = family.defaults;
    let window = window(&fields, family)?;
    let scalar = fields.number("query_pre_attn_scalar", 1e-3..=1e6)?;
    let description = Description {
        family,
        pairs: RotaryPairs::HalfSplit,
        norm_offset: if family.norms_plus_one { 1.0 } else { 0.0 },
        rotary: rotary(&fields, FULL, "rope_theta", defaults.rope_base, &sizes)?,
        local_rotary: match family.local_base {
            Some(base) => {
                refuse_one_rope_for_two(&fields)?;
                Some(rotary(&fields, SLIDING, "rope_local_base_freq", base, &sizes)?)
            }
            None => None,
        },
        windowed: windowed(&fields, family, sizes.n_blocks)?,
        window,
        attention_scale: scalar.map(inverse_sqrt),
        attention_softcap: fields.cap("attn_logit_softcapping", defaults.attention_softcap)?,
        logit_softcap: fields.cap("final_logit_softcapping", defaults.logit_softcap)?,
        sizes,
    };
    Ok(description.into_config(vocab_size))
}

/// Switches that the decoder does not have.
fn refuse_what_is_not_there(top: &Fields, fields: &Fields, family: &Family) -> Result<(), ModelError> {
    for name in ["quantization_config", "compression_config"] {
        if top.get(name).is_some() {
            return Err(top.unsupported(name, "set", "nothing: weights in F32, F16 or BF16"));
        }
    }
    for name in ["attention_bias", "mlp_bias", "use_bidirectional_attention"] {
        if fields.get(name).is_some_and(|value| *value != Value::Bool(false)) {
            return Err(fields.unsupported(name, "set", "false"));
        }
    }
    let wanted: &[&str] = match family.gating {
        Gating::Silu => &["silu", "swish"],
        Gating::GeluTanh => &["gelu_pytorch_tanh"],
    };
    // Early files of gemma say `gelu` in one of the two fields and mean the tanh form.
    let name = if fields.get("hidden_activation").is_some() { "hidden_activation" } else { "hidden_act" };
    match fields.text(name)? {
        Some(given) if !wanted.contains(&given) => Err(fields.unsupported(name, given, &wanted.join(", "))),
        _ => Ok(()),
    }
}

fn sizes(fields: &Fields, family: &Family) -> Result<Sizes, ModelError> {
    let width = u64::from(limits::WIDTH_MAX);
    let d_model = fields.required("hidden_size", width)?;
    let (heads, kv_heads) = match family.defaults.heads {
        Some((heads, kv_heads)) => (Some(heads), Some(kv_heads)),
        None => (None, None),
    };
    let n_heads = fields.size("num_attention_heads", 4096)?.or(heads);
    let n_heads = n_heads.ok_or_else(|| fields.missing("num_attention_heads"))?;
    let n_kv_heads = fields.size("num_key_value_heads", 4096)?.or(kv_heads).unwrap_or(n_heads);
    let d_head = match fields.size("head_dim", 1024)?.or(family.defaults.d_head) {
        Some(width) => width,
        None if d_model.is_multiple_of(n_heads) => d_model / n_heads,
        None => {
            let allowed = format!("a divisor of `hidden_size` ({d_model})");
            return Err(fields.unsupported("num_attention_heads", &n_heads.to_string(), &allowed));
        }
    };
    let rope = fields.object("rope_parameters")?;
    let partial = |fields: &Fields| fields.number("partial_rotary_factor", 0.01..=1.0);
    let partial = match rope.as_ref().map(partial).transpose()?.flatten() {
        Some(partial) => partial,
        None => partial(fields)?.unwrap_or(1.0),
    };
    let context = fields.size("max_position_embeddings", CONTEXT_MAX)?;
    let context = context.or(family.defaults.trained_context);
    let sizes = Sizes {
        n_blocks: fields.required("num_hidden_layers", u64::from(limits::BLOCKS_MAX))?,
        d_model,
        n_heads,
        n_kv_heads,
        d_head,
        d_rotary: (d_head as f64 * partial) as usize,
        d_ff: fields.required("intermediate_size", 4 * width)?,
        trained_context: context.ok_or_else(|| fields.missing("max_position_embeddings"))? as u32,
        norm_epsilon: fields.number("rms_norm_eps", 1e-12..=1.0)?.unwrap_or(1e-6) as f32,
    };
    sizes.check(family, |size| {
        fields.key(match size {
            Size::Heads => "num_attention_heads",
            Size::KvHeads => "num_key_value_heads",
            Size::Head => "head_dim",
            Size::Rotary => "partial_rotary_factor",
        })
    })?;
    Ok(sizes)
}

/// The window where the model has one. `use_sliding_window: false` turns it off whatever its size.
fn window(fields: &Fields, family: &Family) -> Result<Option<u32>, ModelError> {
    let on = match fields.get("use_sliding_window") {
        Some(value) => value == &Value::Bool(true),
        None => !family.window_switch,
    };
    if !on || fields.object.get("sliding_window") == Some(&Value::Null) {
        return Ok(None);
    }
    Ok(fields.size("sliding_window", u64::from(u32::MAX))?.map(|n| n as u32).or(family.defaults.window))
}

/// Which blocks are windowed, where the file says.
fn windowed(fields: &Fields, family: &Family, n_blocks: usize) -> Result<Option<Vec<bool>>, ModelError> {
    if let Some(Value::Array(types)) = fields.get("layer_types") {
        let windowed: Option<Vec<bool>> = (types.iter())
            .map(|value| match value.as_str() {
                Some(SLIDING) => Some(true),
                Some(FULL) => Some(false),
                _ => None,
            })
            .collect();
        return match windowed {
            Some(windowed) if windowed.len() == n_blocks => Ok(Some(windowed)),
            _ => {
                let allowed =
                    format!("`full_attention` or `sliding_attention` for each of {n_blocks} blocks");
                Err(fields.unsupported("layer_types", "something else", &allowed))
            }
        };
    }
    let every = match fields.size("sliding_window_pattern", u64::from(limits::BLOCKS_MAX))? {
        None => fields.size("_sliding_window_pattern", u64::from(limits::BLOCKS_MAX))?,
        every => every,
    };
    if let Some(every) = every.filter(|_| family.global_every.is_some()) {
        return Ok(Some((1..=n_blocks).map(|l| !l.is_multiple_of(every)).collect()));
    }
    let first = fields.object.get("max_window_layers").and_then(Value::as_u64);
    Ok(first.map(|first| (0..n_blocks as u64).map(|l| l >= first).collect()))
}

/// In a family whose kinds of block have frequencies of their own, `rope_parameters` must say whose it holds.
fn refuse_one_rope_for_two(fields: &Fields) -> Result<(), ModelError> {
    let Some(parameters) = fields.object("rope_parameters")? else { return Ok(()) };
    match KINDS.iter().any(|kind| parameters.get(kind).is_some()) {
        true => Ok(()),
        false => Err(fields.unsupported(
            "rope_parameters",
            "one for all blocks",
            "an object with `full_attention` and `sliding_attention`",
        )),
    }
}

/// The frequencies of one kind of block. `base_name` is the field that holds their base where `rope_parameters` does not.
fn rotary(
    fields: &Fields,
    kind: &str,
    base_name: &str,
    default_base: f32,
    sizes: &Sizes,
) -> Result<RotaryConfig, ModelError> {
    let scaling = match fields.object("rope_parameters")? {
        Some(parameters) if KINDS.iter().any(|kind| parameters.get(kind).is_some()) => {
            parameters.object(kind)?
        }
        Some(parameters) => Some(parameters),
        // Before `rope_parameters`, scaling was for blocks that see everything.
        None if kind == FULL => fields.object("rope_scaling")?,
        None => None,
    };
    let base =
        match scaling.as_ref().map(|scaling| scaling.number("rope_theta", BASES)).transpose()?.flatten() {
            Some(base) => base,
            None => fields.number(base_name, BASES)?.unwrap_or(f64::from(default_base)),
        };
    let mut rotary = RotaryConfig::plain(base as f32);
    let Some(scaling) = scaling else { return Ok(rotary) };
    let original = || {
        let name = "original_max_position_embeddings";
        let own = scaling.size(name, CONTEXT_MAX)?;
        let original = if own.is_some() { own } else { fields.size(name, CONTEXT_MAX)? };
        original.map(|n| n as u32).ok_or_else(|| scaling.missing(name))
    };
    let factor = || scaling.number("factor", FACTORS)?.ok_or_else(|| scaling.missing("factor"));
    let magnitude = scaling.number("attention_factor", 0.1..=10.0)?.map(|value| value as f32);
    let d_rotary = sizes.d_rotary;
    let name = if scaling.get("rope_type").is_some() { "rope_type" } else { "type" };
    match scaling.text(name)? {
        None | Some("default") => {}
        Some("linear") => rotary.linear_factor = factor()? as f32,
        Some("llama3") => {
            let number = |name: &str| {
                scaling
                    .number(name, 1e-3..=1e6)?
                    .map(|value| value as f32)
                    .ok_or_else(|| scaling.missing(name))
            };
            let scaling = Llama3 {
                factor: factor()? as f32,
                low_frequency_factor: number("low_freq_factor")?,
                high_frequency_factor: number("high_freq_factor")?,
                original_context: original()?,
            };
            rotary.divisors = Some(scaling.divisors(rotary.base, d_rotary));
        }
        Some("yarn") => {
            for name in ["mscale", "mscale_all_dim"] {
                if scaling.get(name).is_some() {
                    return Err(scaling.unsupported(name, "set", "nothing"));
                }
            }
            let beta = |name: &str, default: f64| {
                Ok::<f32, ModelError>(scaling.number(name, 0.01..=1e4)?.unwrap_or(default) as f32)
            };
            let yarn = Yarn {
                factor: factor()? as f32,
                original_context: original()?,
                beta_fast: beta("beta_fast", 32.0)?,
                beta_slow: beta("beta_slow", 1.0)?,
                truncated: scaling.get("truncate") != Some(&Value::Bool(false)),
            };
            rotary.divisors = Some(yarn.divisors(rotary.base, d_rotary));
            rotary.magnitude = magnitude.unwrap_or(yarn.magnitude());
        }
        Some("longrope" | "su") => {
            let original = original()?;
            let stretched = f64::from(sizes.trained_context) / f64::from(original);
            let factor = scaling.number("factor", FACTORS)?.unwrap_or(stretched);
            rotary.magnitude = magnitude.unwrap_or(longrope_magnitude(factor, original));
            rotary.divisors = Some(scaling.factors("short_factor", d_rotary / 2)?);
            let long = scaling.factors("long_factor", d_rotary / 2)?;
            rotary.long = Some(LongRotary { divisors: long, beyond: original });
        }
        Some(other) => {
            return Err(scaling.unsupported(name, other, "default, linear, llama3, yarn, longrope"));
        }
    }
    Ok(rotary)
}

/// Fields of one JSON object. `null` is as good as absent.
#[derive(Clone)]
struct Fields<'a> {
    object: &'a Map<String, Value>,
    /// What stands before a field's name in messages.
    place: String,
}

impl<'a> Fields<'a> {
    fn key(&self, name: &str) -> String {
        format!("{}{name}", self.place)
    }

    fn get(&self, name: &str) -> Option<&'a Value> {
        self.object.get(name).filter(|value| !value.is_null())
    }

    fn object(&self, name: &str) -> Result<Option<Fields<'a>>, ModelError> {
        match self.get(name) {
            None => Ok(None),
            Some(Value::Object(object)) => Ok(Some(Fields { object, place: format!("{}.", self.key(name)) })),
            Some(_) => Err(self.unsupported(name, "something else", "an object")),
        }
    }

    fn text(&self, name: &str) -> Result<Option<&'a str>, ModelError> {
        match self.get(name) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(_) => Err(self.unsupported(name, "something else", "a string")),
        }
    }

    fn number(&self, name: &str, allowed: RangeInclusive<f64>) -> Result<Option<f64>, ModelError> {
        let Some(value) = self.get(name) else { return Ok(None) };
        match value.as_f64() {
            Some(number) if allowed.contains(&number) => Ok(Some(number)),
            number => {
                let given = number.map_or("no number".to_owned(), |number| number.to_string());
                Err(self.unsupported(name, &given, &format!("{:e} to {:e}", allowed.start(), allowed.end())))
            }
        }
    }

    fn size(&self, name: &str, max: u64) -> Result<Option<usize>, ModelError> {
        let Some(value) = self.get(name) else { return Ok(None) };
        match value.as_u64() {
            Some(size) if (1..=max).contains(&size) => Ok(Some(size as usize)),
            size => {
                let given = size.map_or("no whole number".to_owned(), |size| size.to_string());
                Err(self.unsupported(name, &given, &format!("1 to {max}")))
            }
        }
    }

    fn required(&self, name: &str, max: u64) -> Result<usize, ModelError> {
        self.size(name, max)?.ok_or_else(|| self.missing(name))
    }

    /// A soft cap; `null` says that there is none, and the default holds where the field is absent.
    fn cap(&self, name: &str, default: Option<f32>) -> Result<Option<f32>, ModelError> {
        match self.object.contains_key(name) {
            true => Ok(self.number(name, CAPS)?.map(|cap| cap as f32)),
            false => Ok(default),
        }
    }

    /// A list of so many positive numbers.
    fn factors(&self, name: &str, len: usize) -> Result<Vec<f32>, ModelError> {
        let positive =
            |value: &Value| value.as_f64().filter(|value| (1e-3..=1e6).contains(value)).map(|v| v as f32);
        let factors = match self.get(name) {
            Some(Value::Array(items)) if items.len() == len => items.iter().map(positive).collect(),
            None => return Err(self.missing(name)),
            Some(_) => None,
        };
        factors.ok_or_else(|| self.unsupported(name, "something else", &format!("{len} positive numbers")))
    }

    fn missing(&self, name: &str) -> ModelError {
        ModelError::MissingKey { key: self.key(name) }
    }

    fn unsupported(&self, name: &str, given: &str, allowed: &str) -> ModelError {
        let given = given.chars().take(80).collect();
        ModelError::Range { key: self.key(name), given, allowed: allowed.into() }
    }
}
