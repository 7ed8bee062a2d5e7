//! `POST /v1/score`: log-probabilities of given continuations under a condition.

use crate::digest::Digest;
use crate::engine::{Event, Sampling, Usage, Want};
use crate::limits;
use crate::persona::Condition;
use crate::server::Context;
use crate::server::body::read_object;
use crate::server::error::{ApiError, ErrorCode};
use crate::server::fields::{Fields, wrong_kind};
use crate::server::openai::{
    Named, PromptSize, blocking, check_room, demeanor, encode_chat, encode_text, finite, last_user_text,
    persona_headers, put_system, read_messages, resolve, template_digest, template_options,
};
use crate::text::{ChatOptions, Message, Specials, Text, TextError};
use axum::Json;
use axum::extract::{Request, State};
use axum::http::HeaderMap;
use serde_json::{Value, json};
use std::sync::Arc;

const FIELDS: [&str; 15] = [
    "model",
    "messages",
    "prompt",
    "choices",
    "persona",
    "steering",
    "soft_prompt",
    "user",
    "safety_identifier",
    "add_generation_prompt",
    "continue_final_message",
    "chat_template_kwargs",
    "enable_thinking",
    "reasoning_effort",
    "cache_prompt",
];

/// What continuations follow, or what is looked into.
pub(super) enum Before {
    Text(String),
    Chat { messages: Vec<Message>, options: ChatOptions },
}

/// Each continuation is tokenised by itself, without special tokens; a leading space is part of it.
pub async fn score(
    State(context): State<Arc<Context>>,
    request: Request,
) -> Result<(HeaderMap, Json<Value>), ApiError> {
    let (headers, map) = read_object(request).await?;
    let mut fields = Fields::new(map);
    let mut warnings = Vec::new();
    let named = Named::read(&mut fields, &headers, &context)?;
    let mut before = read_before(&mut fields, &mut warnings)?;
    let choices = read_choices(&mut fields)?;
    let use_cache = fields.bool("cache_prompt")?.unwrap_or(true);
    fields.finish(&FIELDS)?;

    let query = before.query();
    if let (Before::Chat { messages, options }, Some(persona)) = (&mut before, &named.persona) {
        options.put_first = put_system(messages, &persona.spec.system);
    }
    let resolved = resolve(&context, named, query).await?;
    warnings.extend(resolved.warnings.iter().cloned());
    let mut condition = resolved.condition(&context, Sampling::default());
    condition.use_cache = use_cache;
    condition.template_options = before.template_digest();
    let (prompt, path) = match before {
        Before::Text(text) => (encode_text(&context, text).await?, "prompt"),
        Before::Chat { messages, options } => {
            let encoded = encode_chat(&context, messages, options).await?;
            warnings.extend(encoded.warnings);
            (encoded.ids, "messages")
        }
    };
    let (choices, ids) = encode_choices(&context.text, choices).await?;
    let longest = ids.iter().map(Vec::len).max().unwrap_or(0);
    let size = PromptSize { tokens: prompt.len() + longest, soft_rows: resolved.soft_rows() };
    check_room(&context, size, 0).map_err(|error| ApiError { param: Some(path.into()), ..error })?;

    let (logprobs, usage) = run(&context, &condition, prompt, ids.clone()).await?;
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
    persona_headers(resolved.persona_label().as_deref(), &mut headers);
    Ok((headers, Json(answer)))
}

impl Before {
    /// The last user message, for soft prompts that depend on it.
    pub fn query(&self) -> Option<String> {
        match self {
            Before::Text(_) => None,
            Before::Chat { messages, .. } => last_user_text(messages),
        }
    }

    pub fn template_digest(&self) -> Digest {
        match self {
            Before::Text(_) => template_digest(&ChatOptions::default()),
            Before::Chat { options, .. } => template_digest(options),
        }
    }
}

pub(super) fn read_before(fields: &mut Fields, warnings: &mut Vec<String>) -> Result<Before, ApiError> {
    let has_messages = fields.rest().get("messages").is_some_and(|messages| !messages.is_null());
    match (fields.string("prompt")?, has_messages) {
        (Some(text), false) => Ok(Before::Text(text)),
        (None, true) => {
            let messages = read_messages(fields, warnings)?;
            let options = template_options(fields, &messages)?;
            Ok(Before::Chat { messages, options })
        }
        (Some(_), true) => Err(fields.refuse("prompt", "send either `prompt` or `messages`")),
        (None, false) => {
            Err(ApiError::at(ErrorCode::MissingField, "messages", "`messages` or `prompt` is needed"))
        }
    }
}

fn read_choices(fields: &mut Fields) -> Result<Vec<String>, ApiError> {
    let items = match fields.take("choices") {
        Some(Value::Array(items)) => items,
        Some(other) => return Err(wrong_kind("choices", &other, "an array of strings")),
        None => return Err(ApiError::at(ErrorCode::MissingField, "choices", "the field is missing")),
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

async fn run(
    context: &Context,
    condition: &Condition,
    prompt: Vec<u32>,
    choices: Vec<Vec<u32>>,
) -> Result<(Vec<Vec<f32>>, Usage), ApiError> {
    let mut events = context.engine.submit(condition.request(prompt, Want::Score(choices)))?;
    let mut scored = None;
    while let Some(event) = events.next().await {
        match event {
            Event::Scored(logprobs) => scored = Some(logprobs),
            Event::Done { usage, .. } => {
                return scored
                    .map(|logprobs| (logprobs, usage))
                    .ok_or_else(|| ApiError::internal("a score ended without its numbers"));
            }
            Event::Failed(error) => return Err(error.into()),
            Event::Prefilled { .. } | Event::Token { .. } | Event::Captured(_) => {}
        }
    }
    Err(ApiError::internal("a score's events ended early"))
}
