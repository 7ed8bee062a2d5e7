//! How tokens are drawn: a request's fields, a persona's defaults where the request says nothing, the server's last.

use super::options::{given_tokens_max, read_logit_bias, read_stop};
use crate::engine::Sampling;
use crate::persona::SamplingDefaults;
use crate::server::error::{ApiError, ErrorCode, shown};
use crate::server::fields::{Fields, listed, wrong_kind};
use crate::text::Tokenizer;
use serde_json::Value;

/// The `sampling` object of a persona: a request's fields of the same names and ranges.
pub fn read_defaults(value: Value) -> Result<SamplingDefaults, ApiError> {
    const NAMES: [&str; 11] = [
        "temperature",
        "top_p",
        "top_k",
        "min_p",
        "typical_p",
        "repetition_penalty",
        "presence_penalty",
        "frequency_penalty",
        "max_tokens",
        "seed",
        "stop",
    ];
    let mut fields = Fields::nested(value, "sampling")?;
    if let Some(name) = fields.rest().keys().find(|name| !NAMES.contains(&name.as_str())) {
        let message = format!("a persona has no such sampling default; it may have {}", listed(&NAMES));
        return Err(ApiError::at(ErrorCode::UnknownField, fields.path(name), message));
    }
    let fields = &mut fields;
    let drawn = read_drawn(fields)?;
    Ok(SamplingDefaults {
        max_tokens: given_tokens_max(fields)?.and_then(|number| u32::try_from(number).ok()),
        seed: given_seed(fields)?.flatten(),
        stop: read_stop(fields)?.unwrap_or_default(),
        ..drawn
    })
}

/// The numbers of a draw as the request gives them.
fn read_drawn(fields: &mut Fields) -> Result<SamplingDefaults, ApiError> {
    let above_zero = f64::from(f32::MIN_POSITIVE);
    let penalty = |fields: &mut Fields, name: &str| fields.number(name, -2.0..=2.0);
    let repetition = ["repetition_penalty", "repeat_penalty", "rep_pen"];
    Ok(SamplingDefaults {
        temperature: fields.number("temperature", 0.0..=2.0)?,
        top_k: fields.integer("top_k", -1..=1 << 24)?.map(|k| u32::try_from(k).unwrap_or(0)),
        top_p: fields.number("top_p", above_zero..=1.0)?,
        min_p: fields.number("min_p", 0.0..=1.0)?,
        typical_p: fields
            .aliased(&["typical_p", "typical"], |fields, name| fields.number(name, above_zero..=1.0))?,
        repetition_penalty: fields.aliased(&repetition, |fields, name| fields.number(name, 0.01..=100.0))?,
        presence_penalty: penalty(fields, "presence_penalty")?,
        frequency_penalty: penalty(fields, "frequency_penalty")?,
        ..SamplingDefaults::default()
    })
}

pub(super) fn read_sampling(
    fields: &mut Fields,
    tokenizer: &Tokenizer,
    own: &SamplingDefaults,
) -> Result<Sampling, ApiError> {
    let default = Sampling::default();
    let drawn = read_drawn(fields)?;
    let window = ["repeat_last_n", "rep_pen_range", "repetition_penalty_range"];
    let repetition_window = fields.aliased(&window, |fields, name| fields.integer(name, -1..=1 << 24))?;
    Ok(Sampling {
        temperature: drawn.temperature.or(own.temperature).unwrap_or(default.temperature),
        top_k: drawn.top_k.or(own.top_k).unwrap_or(default.top_k),
        top_p: drawn.top_p.or(own.top_p).unwrap_or(default.top_p),
        min_p: drawn.min_p.or(own.min_p).unwrap_or(default.min_p),
        typical_p: drawn.typical_p.or(own.typical_p).unwrap_or(default.typical_p),
        repetition_penalty: drawn
            .repetition_penalty
            .or(own.repetition_penalty)
            .unwrap_or(default.repetition_penalty),
        // -1 is the whole context.
        repetition_window: match repetition_window {
            None => default.repetition_window,
            Some(window) => u32::try_from(window).unwrap_or(u32::MAX),
        },
        presence_penalty: drawn.presence_penalty.or(own.presence_penalty).unwrap_or(default.presence_penalty),
        frequency_penalty: drawn
            .frequency_penalty
            .or(own.frequency_penalty)
            .unwrap_or(default.frequency_penalty),
        logit_bias: read_logit_bias(fields, tokenizer)?,
        seed: read_seed(fields, own)?,
        choice: 0,
    })
}

/// A seed of the client's, else the persona's, or one drawn here. Drawn ones fit 53 bits, so that every JSON reader
/// returns them intact.
fn read_seed(fields: &mut Fields, own: &SamplingDefaults) -> Result<u64, ApiError> {
    let drawn = || crate::server::random_u64() >> 11;
    match given_seed(fields)? {
        Some(seed) => Ok(seed.unwrap_or_else(drawn)),
        None => Ok(own.seed.unwrap_or_else(drawn)),
    }
}

/// `Some(None)`: a random one is asked for.
fn given_seed(fields: &mut Fields) -> Result<Option<Option<u64>>, ApiError> {
    let mut given: Option<Option<u64>> = None;
    for name in ["seed", "sampler_seed"] {
        let Some(value) = fields.take(name) else { continue };
        let seed = match &value {
            Value::String(text) if text.is_empty() => None,
            _ => one_seed(fields, name, &value)?,
        };
        if given.is_some_and(|other| other != seed) {
            return Err(fields.refuse(name, "differs from its alias `seed`; send one of them"));
        }
        given = Some(seed);
    }
    Ok(given)
}

/// `None` for a negative seed: random.
fn one_seed(fields: &Fields, name: &str, value: &Value) -> Result<Option<u64>, ApiError> {
    let allowed = "allowed are whole numbers from 0 to 2^64 - 1, or a negative one for a random seed";
    if let Some(seed) = value.as_u64() {
        return Ok(Some(seed));
    }
    match value.as_f64() {
        Some(number) if number < 0.0 && number.fract() == 0.0 => Ok(None),
        Some(number) if number.fract() == 0.0 && number < 9e15 => Ok(Some(number as u64)),
        Some(_) => Err(fields.refuse(name, format!("{} is no seed; {allowed}", shown(value)))),
        None => Err(wrong_kind(&fields.path(name), value, "a whole number")),
    }
}
