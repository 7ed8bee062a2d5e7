//! The generation fields that chats and completions share, from the JSON as typed to closed ranges.

use super::sampling::read_sampling;
use super::shape::{self, Asked};
use crate::engine::Sampling;
use crate::limits;
use crate::persona::SamplingDefaults;
use crate::server::error::{ApiError, ErrorCode, shown};
use crate::server::fields::{Fields, wrong_kind};
use crate::text::{Specials, Tokenizer};
use serde_json::{Map, Value};
use std::collections::BTreeMap;

/// Everything about drawing tokens and ending, checked. Numbers are in the ranges that the engine states.
#[derive(Clone, Debug, PartialEq)]
pub struct Options {
    /// `None`: until the context ends.
    pub tokens_max: Option<u32>,
    pub choices: u32,
    pub stop_strings: Vec<String>,
    pub stop_tokens: Vec<u32>,
    /// Without the seed of the choice; the seed is drawn already.
    pub sampling: Sampling,
    pub ignore_eos: bool,
    /// What each answer must be.
    pub shape: Option<Asked>,
    pub use_cache: bool,
    /// Narrows the prefix cache to requests with the same salt.
    pub cache_salt: Option<String>,
    pub stream: bool,
    /// A last chunk with `usage` is wanted.
    pub stream_usage: bool,
    pub return_progress: bool,
    /// Each choice is wanted a second time without steering and soft prompt.
    pub compare: bool,
    pub warnings: Vec<String>,
}

impl Options {
    /// `defaults` are the persona's: they hold where the request says nothing.
    pub fn read(
        fields: &mut Fields,
        tokenizer: &Tokenizer,
        defaults: &SamplingDefaults,
    ) -> Result<Options, ApiError> {
        let shape = shape::read(fields)?;
        refuse_unsupported(fields)?;
        let stream = fields.bool("stream")?.unwrap_or(false);
        let ignore_eos = fields.aliased(&["ignore_eos", "ban_eos_token"], Fields::bool)?.unwrap_or(false);
        let mut options = Options {
            tokens_max: read_tokens_max(fields, defaults)?,
            choices: fields.integer("n", 1..=limits::CHOICES_MAX as i64)?.unwrap_or(1) as u32,
            stop_strings: read_stop(fields)?.unwrap_or_else(|| defaults.stop.clone()),
            stop_tokens: read_stop_tokens(fields, tokenizer)?,
            sampling: read_sampling(fields, tokenizer, defaults)?,
            ignore_eos,
            shape,
            use_cache: fields.bool("cache_prompt")?.unwrap_or(true),
            cache_salt: fields.string("cache_salt")?,
            stream,
            stream_usage: read_stream_usage(fields)?,
            return_progress: fields.bool("return_progress")?.unwrap_or(false),
            compare: fields.bool("compare")?.unwrap_or(false),
            warnings: Vec::new(),
        };
        if let Some(asked) = options.shape.as_ref().filter(|_| ignore_eos) {
            return Err(asked.refuse("`ignore_eos` excludes it: a complete answer could not end"));
        }
        if ignore_eos {
            let banned = tokenizer.stop_tokens().iter().map(|id| (*id, f32::NEG_INFINITY));
            options.sampling.logit_bias.extend(banned);
        }
        options.warnings.extend(ignored_samplers(fields.rest()));
        Ok(options)
    }
}

/// Without a field the default's; -1 means *until the context ends*; 0 asks for the prompt's evaluation only.
fn read_tokens_max(fields: &mut Fields, defaults: &SamplingDefaults) -> Result<Option<u32>, ApiError> {
    match given_tokens_max(fields)? {
        Some(number) => Ok(u32::try_from(number).ok()),
        None => Ok(defaults.max_tokens),
    }
}

pub(super) fn given_tokens_max(fields: &mut Fields) -> Result<Option<i64>, ApiError> {
    const NAMES: [&str; 6] = [
        "max_tokens",
        "max_completion_tokens",
        "n_predict",
        "max_new_tokens",
        "num_predict",
        "max_output_tokens",
    ];
    fields.aliased(&NAMES, |fields, name| fields.integer(name, -1..=i64::from(u32::MAX)))
}

/// Stop strings under all their names, without repeats and without empty ones; `None` where no name occurs.
pub(super) fn read_stop(fields: &mut Fields) -> Result<Option<Vec<String>>, ApiError> {
    let mut stops: Vec<String> = Vec::new();
    let mut is_given = false;
    for name in ["stop", "stop_sequences", "stopping_strings"] {
        let items = match fields.take(name) {
            None => continue,
            Some(Value::Array(items)) => items,
            Some(Value::String(text)) => vec![Value::String(text)],
            Some(other) => {
                return Err(wrong_kind(&fields.path(name), &other, "a string or an array of strings"));
            }
        };
        is_given = true;
        if items.len() > limits::STOP_STRINGS_MAX {
            let message =
                format!("{} stop strings are too many; at most {}", items.len(), limits::STOP_STRINGS_MAX);
            return Err(fields.refuse(name, message));
        }
        for (index, item) in items.into_iter().enumerate() {
            let path = format!("{name}[{index}]");
            let Value::String(text) = item else {
                return Err(wrong_kind(&fields.path(&path), &item, "a string"));
            };
            if text.len() > limits::STOP_STRING_BYTES_MAX {
                let message =
                    format!("{} bytes are too long; at most {}", text.len(), limits::STOP_STRING_BYTES_MAX);
                return Err(ApiError { param: Some(name.into()), ..fields.refuse(&path, message) });
            }
            if !text.is_empty() && !stops.contains(&text) {
                stops.push(text);
            }
        }
    }
    Ok(is_given.then_some(stops))
}

/// An array of token ids of the vocabulary.
fn read_stop_tokens(fields: &mut Fields, tokenizer: &Tokenizer) -> Result<Vec<u32>, ApiError> {
    let name = "stop_token_ids";
    match fields.take(name) {
        None => Ok(Vec::new()),
        Some(Value::Array(items)) if items.len() > limits::STOP_TOKENS_MAX => {
            let message =
                format!("{} stop tokens are too many; at most {}", items.len(), limits::STOP_TOKENS_MAX);
            Err(fields.refuse(name, message))
        }
        Some(Value::Array(items)) => token_ids(&items, &fields.path(name), tokenizer),
        Some(other) => Err(wrong_kind(&fields.path(name), &other, "an array of token ids")),
    }
}

/// Token ids from JSON numbers; errors name the entry.
pub fn token_ids(items: &[Value], path: &str, tokenizer: &Tokenizer) -> Result<Vec<u32>, ApiError> {
    let read = |(index, item): (usize, &Value)| {
        token_id(item, tokenizer).ok_or_else(|| {
            let size = tokenizer.vocab_size();
            let message =
                format!("{} is no token id; the vocabulary has 0 to {}", shown(item), size.saturating_sub(1));
            ApiError { param: Some(path.into()), ..bad_entry(path, index, message) }
        })
    };
    items.iter().enumerate().map(read).collect()
}

fn token_id(value: &Value, tokenizer: &Tokenizer) -> Option<u32> {
    let id = u32::try_from(value.as_u64()?).ok()?;
    ((id as usize) < tokenizer.vocab_size()).then_some(id)
}

fn bad_entry(path: &str, index: usize, message: String) -> ApiError {
    ApiError::at(ErrorCode::InvalidValue, format!("{path}[{index}]"), message)
}

/// An object `{"id": bias}`, or pairs `[id or text, bias or false]` as llama.cpp has them; `false` bans. Of a text,
/// every token is meant. Of two entries for one token the later one counts.
pub(super) fn read_logit_bias(
    fields: &mut Fields,
    tokenizer: &Tokenizer,
) -> Result<Vec<(u32, f32)>, ApiError> {
    let name = "logit_bias";
    let entries: Vec<(Value, Value)> = match fields.take(name) {
        None => return Ok(Vec::new()),
        Some(Value::String(text)) if text.is_empty() => return Ok(Vec::new()),
        Some(Value::Object(map)) => map
            .into_iter()
            .map(|(id, bias)| (id.parse::<u64>().map_or(Value::Null, Value::from), bias))
            .collect(),
        Some(Value::Array(pairs)) => {
            pairs.into_iter().map(|pair| bias_pair(fields, pair)).collect::<Result<_, _>>()?
        }
        Some(other) => return Err(wrong_kind(&fields.path(name), &other, "an object or an array of pairs")),
    };
    let too_many = |count: usize, what: &str| {
        let message = format!("{count} {what} are too many; at most {}", limits::LOGIT_BIAS_MAX);
        Err(fields.refuse(name, message))
    };
    if entries.len() > limits::LOGIT_BIAS_MAX {
        return too_many(entries.len(), "entries");
    }
    let mut biases = BTreeMap::new();
    for (token, bias) in entries {
        let value = match &bias {
            Value::Bool(false) => Some(f32::NEG_INFINITY),
            other => other.as_f64().filter(|bias| (-100.0..=100.0).contains(bias)).map(|bias| bias as f32),
        };
        let Some(value) = value else {
            return Err(fields.refuse(name, format!("{} is no bias; allowed -100 to 100", shown(&bias))));
        };
        let ids = match &token {
            Value::String(text) => biased_text(fields, text, tokenizer)?,
            other => vec![token_id(other, tokenizer).ok_or_else(|| {
                let size = tokenizer.vocab_size();
                fields.refuse(
                    name,
                    format!("a key is no token id; the vocabulary has 0 to {}", size.saturating_sub(1)),
                )
            })?],
        };
        biases.extend(ids.into_iter().map(|id| (id, value)));
        if biases.len() > limits::LOGIT_BIAS_MAX {
            return too_many(biases.len(), "tokens");
        }
    }
    Ok(biases.into_iter().collect())
}

fn biased_text(fields: &Fields, text: &str, tokenizer: &Tokenizer) -> Result<Vec<u32>, ApiError> {
    if text.len() > limits::LOGIT_BIAS_TEXT_BYTES_MAX {
        let (given, most) = (text.len(), limits::LOGIT_BIAS_TEXT_BYTES_MAX);
        let message = format!("a text of {given} bytes is too long; at most {most}");
        return Err(fields.refuse("logit_bias", message));
    }
    Ok(tokenizer.encode(text, Specials::Parse)?)
}

fn bias_pair(fields: &Fields, pair: Value) -> Result<(Value, Value), ApiError> {
    let Value::Array(pair) = pair else {
        return Err(fields.refuse("logit_bias", "every entry must be a pair"));
    };
    <[Value; 2]>::try_from(pair)
        .map(|[token, bias]| (token, bias))
        .map_err(|_| fields.refuse("logit_bias", "every entry must be a pair `[token, bias]`"))
}

fn read_stream_usage(fields: &mut Fields) -> Result<bool, ApiError> {
    let Some(value) = fields.take("stream_options") else { return Ok(false) };
    let mut options = Fields::nested(value, &fields.path("stream_options"))?;
    Ok(options.bool("include_usage")?.unwrap_or(false))
}

/// Fields that are known and meaningful, but whose meaning is not built yet: never silently ignored.
fn refuse_unsupported(fields: &mut Fields) -> Result<(), ApiError> {
    const NAMES: [&str; 10] = [
        "functions",
        "suffix",
        "chat_template",
        "audio",
        "web_search_options",
        "prompt_embeds",
        "lora",
        "images",
        "image_data",
        "input_extra",
    ];
    for name in NAMES {
        if meant(fields, name).is_some() {
            return Err(unsupported(name, "not supported yet; leave it out"));
        }
    }
    match fields.take("modalities") {
        Some(value) if value != serde_json::json!(["text"]) => {
            Err(unsupported("modalities", "only text is supported"))
        }
        _ => Ok(()),
    }
}

pub(super) fn unsupported(param: &str, message: &str) -> ApiError {
    ApiError::at(ErrorCode::Unsupported, param, message)
}

/// A field's value unless it is one that means *off*.
pub(super) fn meant(fields: &mut Fields, name: &str) -> Option<Value> {
    fields.take(name).filter(|value| !is_nothing(value))
}

/// An empty string, array or object, or false.
fn is_nothing(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(map) => map.is_empty(),
        _ => false,
    }
}

/// Samplers of other servers that are not built here, with the value that switches each off.
const IGNORED_SAMPLERS: [(&str, f64); 19] = [
    ("dry_multiplier", 0.0),
    ("dynatemp_range", 0.0),
    ("epsilon_cutoff", 0.0),
    ("eta_cutoff", 0.0),
    ("guidance_scale", 1.0),
    ("length_penalty", 1.0),
    ("min_tokens", 0.0),
    ("mirostat", 0.0),
    ("mirostat_mode", 0.0),
    ("no_repeat_ngram_size", 0.0),
    ("num_beams", 1.0),
    ("penalty_alpha", 0.0),
    ("skew", 0.0),
    ("smoothing_factor", 0.0),
    ("tfs", 1.0),
    ("tfs_z", 1.0),
    ("top_a", 0.0),
    ("top_n_sigma", 0.0),
    ("xtc_probability", 0.0),
];
/// The same for fields that are texts or lists.
const IGNORED_LISTS: [&str; 3] = ["banned_strings", "custom_token_bans", "negative_prompt"];

/// One warning for each ignored sampler that was meant to do something.
fn ignored_samplers(rest: &Map<String, Value>) -> Vec<String> {
    let ignored = |name: &str| format!("`{name}` is not supported and was ignored");
    let mut warnings = Vec::new();
    for (name, neutral) in IGNORED_SAMPLERS {
        // -1 switches some of them off too.
        let meant = |value: &Value| value.as_f64().is_some_and(|number| number != neutral && number != -1.0);
        if rest.get(name).is_some_and(meant) {
            warnings.push(ignored(name));
        }
    }
    for name in IGNORED_LISTS {
        if rest.get(name).is_some_and(|value| !is_nothing(value)) {
            warnings.push(ignored(name));
        }
    }
    if rest.get("id_slot").or(rest.get("slot_id")).and_then(Value::as_i64).is_some_and(|slot| slot >= 0) {
        warnings.push(ignored("id_slot"));
    }
    warnings
}
