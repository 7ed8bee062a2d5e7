//! Text to token ids and back, in the dialects of llama.cpp (`content`) and vLLM (`prompt` or `messages`).

use crate::limits;
use crate::server::Context;
use crate::server::blocking::blocking;
use crate::server::body::read_object;
use crate::server::error::{ApiError, ErrorCode};
use crate::server::fields::{Fields, missing, wrong_kind};
use crate::server::openai::{Chat, TEMPLATE_FIELDS, TOOL_FIELDS, read_chat, refuse_chat_fields, token_ids};
use crate::text::{ChatOptions, Message, Specials, Text, TextError, Tokenizer};
use axum::Json;
use axum::extract::{Request, State};
use serde_json::{Value, json};
use std::sync::Arc;

const TOKENIZE_FIELDS: [&str; 9] = [
    "content",
    "prompt",
    "messages",
    "add_special",
    "add_special_tokens",
    "parse_special",
    "with_pieces",
    "return_token_strs",
    "model",
];

/// What is to be tokenised.
enum Source {
    /// Text, and whether BOS comes before it where the model wants one.
    Text {
        text: String,
        add_special: bool,
    },
    Chat {
        messages: Vec<Message>,
        options: ChatOptions,
    },
}

/// `POST /tokenize`. `content` adds no special tokens unless asked, `prompt` does. Special tokens written in the text
/// are taken as such unless `parse_special` is false.
pub async fn tokenize(
    State(context): State<Arc<Context>>,
    request: Request,
) -> Result<Json<Value>, ApiError> {
    let (_, map) = read_object(request).await?;
    let mut fields = Fields::new(map);
    let source = read_source(&mut fields, &context)?;
    let specials = match fields.bool("parse_special")?.unwrap_or(true) {
        true => Specials::Parse,
        false => Specials::AsText,
    };
    let with_pieces = fields.bool("with_pieces")?.unwrap_or(false);
    let with_strings = fields.bool("return_token_strs")?.unwrap_or(false);
    fields.string("model")?;
    fields.finish(&[&TOKENIZE_FIELDS[..], &TEMPLATE_FIELDS, &TOOL_FIELDS].concat())?;

    let text = context.text.clone();
    let ids = blocking(move || encode(&text, source, specials)).await?;
    if ids.len() > limits::PIECES_MAX {
        for (field, asked) in [("with_pieces", with_pieces), ("return_token_strs", with_strings)] {
            if asked {
                return Err(too_many_pieces(field, ids.len()));
            }
        }
    }
    let tokenizer = &context.text.tokenizer;
    let tokens: Value = match with_pieces {
        true => ids.iter().map(|id| json!({"id": id, "piece": piece(tokenizer, *id)})).collect(),
        false => json!(ids),
    };
    let mut answer = json!({
        "tokens": tokens, "count": ids.len(), "max_model_len": context.engine.info().context,
    });
    if with_strings {
        answer["token_strs"] = ids.iter().map(|id| tokenizer.token_text(*id)).collect();
    }
    Ok(Json(answer))
}

fn too_many_pieces(field: &str, tokens: usize) -> ApiError {
    let most = limits::PIECES_MAX;
    let message = format!("the text has {tokens} tokens; at most {most} are answered with their texts");
    ApiError::at(ErrorCode::InvalidValue, field, message)
}

fn read_source(fields: &mut Fields, context: &Context) -> Result<Source, ApiError> {
    let add_special = fields.aliased(&["add_special", "add_special_tokens"], Fields::bool)?;
    let content = fields.string("content")?;
    let prompt = fields.string("prompt")?;
    let has_messages = fields.rest().get("messages").is_some_and(|messages| !messages.is_null());
    if !has_messages {
        refuse_chat_fields(fields)?;
    }
    match (content, prompt, has_messages) {
        (Some(text), None, false) => Ok(Source::Text { text, add_special: add_special.unwrap_or(false) }),
        (None, Some(text), false) => Ok(Source::Text { text, add_special: add_special.unwrap_or(true) }),
        (None, None, true) => {
            let (messages, options) = read_chat(fields, context, &mut Vec::new())?;
            Ok(Source::Chat { messages, options })
        }
        (None, None, false) => {
            let message = "one of `content`, `prompt`, `messages` is needed";
            Err(ApiError { param: Some("content".into()), ..ApiError::new(ErrorCode::MissingField, message) })
        }
        _ => {
            let message = "send only one of `content`, `prompt`, `messages`";
            Err(ApiError { param: Some("content".into()), ..ApiError::new(ErrorCode::InvalidValue, message) })
        }
    }
}

fn encode(text: &Text, source: Source, specials: Specials) -> Result<Vec<u32>, TextError> {
    match source {
        Source::Text { text: content, add_special } => {
            let tokenizer = &text.tokenizer;
            let mut ids = tokenizer.encode(&content, specials)?;
            let bos =
                tokenizer.bos().filter(|bos| add_special && tokenizer.add_bos() && ids.first() != Some(bos));
            if let Some(bos) = bos {
                ids.insert(0, bos);
            }
            Ok(ids)
        }
        Source::Chat { messages, options } => Ok(text.chat(&messages, &options)?.ids),
    }
}

/// The text of a token, or its bytes when they are no whole characters.
fn piece(tokenizer: &Tokenizer, id: u32) -> Value {
    let bytes = tokenizer.token_bytes(id).unwrap_or_default();
    match String::from_utf8(bytes) {
        Ok(text) => json!(text),
        Err(error) => json!(error.into_bytes()),
    }
}

/// `POST /detokenize`: answers under both names in use.
pub async fn detokenize(
    State(context): State<Arc<Context>>,
    request: Request,
) -> Result<Json<Value>, ApiError> {
    let (_, map) = read_object(request).await?;
    let mut fields = Fields::new(map);
    let tokenizer = &context.text.tokenizer;
    let ids = match fields.take("tokens") {
        Some(Value::Array(items)) => token_ids(&items, "tokens", tokenizer)?,
        Some(other) => return Err(wrong_kind("tokens", &other, "an array of token ids")),
        None => return Err(missing("tokens")),
    };
    fields.string("model")?;
    fields.finish(&["tokens", "model"])?;
    let text = tokenizer.detokenize(&ids, false);
    Ok(Json(json!({"content": text, "prompt": text})))
}

/// `POST /apply-template`: the prompt of a chat as text; with `persona` as that persona's chat is read.
pub async fn apply_template(
    State(context): State<Arc<Context>>,
    request: Request,
) -> Result<Json<Value>, ApiError> {
    let (_, map) = read_object(request).await?;
    let mut fields = Fields::new(map);
    let mut warnings = Vec::new();
    let (mut messages, mut options) = read_chat(&mut fields, &context, &mut warnings)?;
    let persona = fields.string("persona")?.filter(|name| !name.is_empty());
    fields.string("model")?;
    fields.finish(&[&["persona", "messages"][..], &TEMPLATE_FIELDS, &TOOL_FIELDS, &["model"]].concat())?;
    if let Some(name) = persona {
        let persona = context.personas.find(&name, "persona")?;
        let chat = Chat { messages: &mut messages, template: &mut options };
        warnings.extend(chat.frame(&context, &persona).await?.warnings);
    }
    let text = context.text.clone();
    let rendered = blocking(move || text.render(&messages, &options)).await?;
    warnings.extend(rendered.warnings);
    Ok(Json(json!({"prompt": rendered.text, "warnings": warnings})))
}

/// `GET /tokenizer_info`: enough for lm-evaluation-harness to need no tokenizer of its own.
pub async fn tokenizer_info(State(context): State<Arc<Context>>) -> Json<Value> {
    let tokenizer = &context.text.tokenizer;
    let named = |id: Option<u32>| id.map(|id| tokenizer.token_text(id));
    Json(json!({
        "tokenizer_class": "GGUF",
        "bos_token": named(tokenizer.bos()),
        "eos_token": named(tokenizer.eos()),
        "pad_token": named(tokenizer.pad()),
        "bos_token_id": tokenizer.bos(),
        "eos_token_id": tokenizer.eos(),
        "pad_token_id": tokenizer.pad(),
        "add_bos_token": tokenizer.add_bos(),
        "vocab_size": tokenizer.vocab_size(),
        "model_max_length": context.engine.info().context,
        "chat_template": context.text.template().source(),
    }))
}
