//! `POST /v1/completions`: from the request as typed to a checked one.

use super::names::Named;
use super::options::{Options, meant, token_ids, unsupported};
use super::resolve::defaults;
use crate::limits;
use crate::server::Context;
use crate::server::error::{ApiError, ErrorCode};
use crate::server::fields::{Fields, missing, wrong_kind};
use crate::text::Tokenizer;
use axum::http::HeaderMap;
use serde_json::{Map, Value};
use std::time::Instant;

/// A completions request as typed.
pub struct CompletionRequest {
    pub fields: Fields,
    pub headers: HeaderMap,
    /// When the last byte of it was here.
    received: Instant,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Prompt {
    /// Encoded with BOS where the model wants one.
    Text(String),
    /// Taken as they are.
    Ids(Vec<u32>),
}

#[derive(Clone, Debug)]
pub struct ValidCompletion {
    /// At least one.
    pub prompts: Vec<Prompt>,
    pub options: Options,
    /// `Some(k)`: log-probabilities with the `k` most probable tokens beside.
    pub logprobs: Option<u32>,
    /// The answer begins with the prompt.
    pub echo: bool,
    pub named: Named,
    pub received: Instant,
}

impl CompletionRequest {
    pub fn new(fields: Map<String, Value>, headers: HeaderMap) -> CompletionRequest {
        CompletionRequest { fields: Fields::new(fields), headers, received: Instant::now() }
    }

    /// The only way to a [`ValidCompletion`].
    pub fn validate(mut self, context: &Context) -> Result<ValidCompletion, ApiError> {
        let named = Named::read(&mut self.fields, &self.headers, context)?;
        let valid = ValidCompletion::read(&mut self.fields, &context.text.tokenizer, named)?;
        Ok(ValidCompletion { received: self.received, ..valid })
    }
}

impl ValidCompletion {
    /// All but the names, which need a server.
    pub(super) fn read(
        fields: &mut Fields,
        tokenizer: &Tokenizer,
        mut named: Named,
    ) -> Result<ValidCompletion, ApiError> {
        refuse_what_chats_take(fields)?;
        let options = Options::read(fields, tokenizer, defaults(&named))?;
        let echo = fields.bool("echo")?.unwrap_or(false);
        let best_of = fields.integer("best_of", 1..=limits::CHOICES_MAX as i64)?;
        if best_of.is_some_and(|best| best != i64::from(options.choices)) {
            return Err(unsupported("best_of", "only the value of `n` is supported"));
        }
        let logprobs = read_logprobs(fields)?;
        let prompts = read_prompts(fields, tokenizer)?;
        named.other_text = true;
        Ok(ValidCompletion { prompts, options, logprobs, echo, named, received: Instant::now() })
    }
}

/// Calls are read out of chats only, and only templates know documents.
fn refuse_what_chats_take(fields: &mut Fields) -> Result<(), ApiError> {
    for (name, message) in
        [("tools", "only chats take tools; leave it out"), ("documents", "not supported yet; leave it out")]
    {
        if meant(fields, name).is_some() {
            return Err(unsupported(name, message));
        }
    }
    // Clients send the choices that force nothing without tools too.
    match meant(fields, "tool_choice") {
        Some(choice) if choice != "none" && choice != "auto" => {
            Err(unsupported("tool_choice", "only chats take tools; leave it out"))
        }
        _ => Ok(()),
    }
}

/// A number; `false` is off, as routers send it.
fn read_logprobs(fields: &mut Fields) -> Result<Option<u32>, ApiError> {
    let name = "logprobs";
    if fields.rest().get(name).is_some_and(|value| *value == Value::Bool(false)) {
        fields.take(name);
        return Ok(None);
    }
    Ok(fields.integer(name, 0..=limits::COMPLETION_LOGPROBS_MAX as i64)?.map(|top| top as u32))
}

/// A string, an array of strings, an array of token ids, or an array of those.
fn read_prompts(fields: &mut Fields, tokenizer: &Tokenizer) -> Result<Vec<Prompt>, ApiError> {
    let path = fields.path("prompt");
    let items = match fields.take("prompt") {
        Some(Value::String(text)) => return Ok(vec![Prompt::Text(text)]),
        Some(Value::Array(items)) => items,
        Some(other) => return Err(wrong_kind(&path, &other, "a string, token ids, or an array of these")),
        None => return Err(missing(path)),
    };
    if items.is_empty() {
        return Err(ApiError::at(ErrorCode::InvalidValue, path, "the array is empty"));
    }
    if items.iter().all(Value::is_number) {
        return Ok(vec![Prompt::Ids(token_ids(&items, &path, tokenizer)?)]);
    }
    if items.len() > limits::PROMPTS_MAX {
        let message = format!("{} prompts are too many; at most {}", items.len(), limits::PROMPTS_MAX);
        return Err(ApiError::at(ErrorCode::InvalidValue, path, message));
    }
    let one = |(index, item): (usize, Value)| match item {
        Value::String(text) => Ok(Prompt::Text(text)),
        Value::Array(ids) if ids.is_empty() => {
            Err(ApiError::at(ErrorCode::InvalidValue, format!("{path}[{index}]"), "the array is empty"))
        }
        Value::Array(ids) => Ok(Prompt::Ids(token_ids(&ids, &format!("{path}[{index}]"), tokenizer)?)),
        other => Err(wrong_kind(&format!("{path}[{index}]"), &other, "a string or an array of token ids")),
    };
    items.into_iter().enumerate().map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_only_chats_take_is_refused() {
        let function = json!({"type": "function", "function": {"name": "f"}});
        let table = [
            (json!({"tools": [], "tool_choice": "none"}), None),
            (json!({"tools": null, "tool_choice": "auto", "documents": []}), None),
            (json!({"tool_choice": ""}), None),
            (json!({"tools": [function]}), Some("tools")),
            (json!({"documents": [{"text": "a"}]}), Some("documents")),
            (json!({"tool_choice": "required"}), Some("tool_choice")),
            (json!({"tool_choice": function}), Some("tool_choice")),
            (json!({"tool_choice": 7}), Some("tool_choice")),
        ];
        for (body, param) in table {
            let Value::Object(map) = body.clone() else { unreachable!("an object") };
            let refused = refuse_what_chats_take(&mut Fields::new(map)).err();
            assert_eq!(refused.and_then(|error| error.param).as_deref(), param, "{body}");
        }
    }
}
