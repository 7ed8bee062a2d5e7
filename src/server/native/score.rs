//! `POST /v1/score`: log-probabilities of given continuations under a condition.

use super::before::{self, Before, numbers};
use crate::engine::Want;
use crate::limits;
use crate::server::Context;
use crate::server::blocking::blocking;
use crate::server::body::read_object;
use crate::server::error::ApiError;
use crate::server::fields::{Fields, missing, wrong_kind};
use crate::server::openai::{Named, demeanor, finite, persona_headers};
use crate::text::{Specials, Text, TextError};
use axum::Json;
use axum::extract::{Request, State};
use axum::http::HeaderMap;
use serde_json::{Value, json};
use std::sync::Arc;

/// Each continuation is tokenised by itself, without special tokens; a leading space is part of it.
pub async fn score(
    State(context): State<Arc<Context>>,
    request: Request,
) -> Result<(HeaderMap, Json<Value>), ApiError> {
    let (headers, map) = read_object(request).await?;
    let mut fields = Fields::new(map);
    let mut warnings = Vec::new();
    let named = Named::read(&mut fields, &headers, &context)?;
    let mut before = Before::read(&mut fields, &context, &mut warnings)?;
    let choices = read_choices(&mut fields)?;
    fields.finish(&[&["choices"][..], &before::known()].concat())?;

    let resolved = before.resolve(&context, named).await?;
    warnings.extend(resolved.warnings.iter().cloned());
    let condition = before.condition(&context, &resolved);
    let prompt = before.encode(&context, &mut warnings).await?;
    let (choices, ids) = encode_choices(&context.text, choices).await?;
    let longest = ids.iter().map(Vec::len).max().unwrap_or(0);
    prompt.check_room(&context, &resolved, longest)?;

    let request = condition.request(prompt.ids, Want::Score(ids.clone()));
    let (logprobs, usage) = numbers(&context.engine, request).await?;
    let list: Vec<Value> = choices
        .iter()
        .zip(&ids)
        .zip(logprobs)
        .map(|((text, ids), logprobs)| {
            let logprobs: Vec<f32> = logprobs.into_iter().map(finite).collect();
            let sum: f64 = logprobs.iter().map(|logprob| f64::from(*logprob)).sum();
            json!({"text": text, "token_ids": ids, "logprobs": logprobs, "sum": sum, "bytes": text.len()})
        })
        .collect();
    let fingerprint = condition.fingerprint(&context.serving());
    let scored: usize = ids.iter().map(Vec::len).sum();
    let answer = json!({
        "object": "score",
        "model": resolved.model_name(&context),
        "choices": list,
        "usage": {
            "prompt_tokens": usage.prompt_tokens,
            "completion_tokens": scored,
            "total_tokens": usage.prompt_tokens as usize + scored,
            "prompt_tokens_details": {"cached_tokens": usage.cached_tokens},
        },
        "demeanor": demeanor(&resolved, &condition, warnings, &fingerprint, None),
    });
    let mut headers = HeaderMap::new();
    persona_headers(&context, &resolved, &mut headers);
    Ok((headers, Json(answer)))
}

fn read_choices(fields: &mut Fields) -> Result<Vec<String>, ApiError> {
    let items = match fields.take("choices") {
        Some(Value::Array(items)) => items,
        Some(other) => return Err(wrong_kind("choices", &other, "an array of strings")),
        None => return Err(missing("choices")),
    };
    if items.is_empty() || items.len() > limits::SCORE_CHOICES_MAX {
        let message = format!("{} choices; allowed 1 to {}", items.len(), limits::SCORE_CHOICES_MAX);
        return Err(fields.refuse("choices", message));
    }
    let one = |(index, item): (usize, Value)| match item {
        Value::String(text) if !text.is_empty() => Ok(text),
        Value::String(_) => Err(fields.refuse(&format!("choices[{index}]"), "the text is empty")),
        other => Err(wrong_kind(&format!("choices[{index}]"), &other, "a string")),
    };
    items.into_iter().enumerate().map(one).collect()
}

type Choices = (Vec<String>, Vec<Vec<u32>>);

async fn encode_choices(text: &Arc<Text>, choices: Vec<String>) -> Result<Choices, ApiError> {
    let tokenizer = text.tokenizer.clone();
    blocking(move || {
        let ids: Result<Vec<Vec<u32>>, TextError> =
            choices.iter().map(|choice| tokenizer.encode(choice, Specials::AsText)).collect();
        ids.map(|ids| (choices, ids))
    })
    .await
}
