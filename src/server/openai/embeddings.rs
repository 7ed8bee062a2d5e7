//! `POST /v1/embeddings`: vectors of texts by the sentence encoder.

use crate::encoder::{Embedded, Encoder, EncoderError, EncoderHandle, EncoderState};
use crate::limits;
use crate::server::Context;
use crate::server::blocking::blocking;
use crate::server::body::read_object;
use crate::server::error::{ApiError, ErrorCode, shown};
use crate::server::fields::{Fields, missing, wrong_kind};
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderValue, Response, header};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;
use serde_json::Value;
use std::sync::Arc;
use std::time::Duration;

/// An embeddings request, checked.
#[derive(Debug, PartialEq)]
struct ValidEmbeddings {
    /// 1 to 256, none empty.
    texts: Vec<String>,
    encoding: Encoding,
    /// The encoder's width is the only one.
    dimensions: Option<i64>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Encoding {
    Float,
    /// Little-endian f32.
    Base64,
}

#[derive(Serialize)]
struct Answer<'a> {
    object: &'static str,
    data: Vec<Row>,
    model: &'a str,
    usage: Usage,
}

#[derive(Serialize)]
struct Row {
    object: &'static str,
    index: usize,
    embedding: Numbers,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Numbers {
    Float(Vec<f32>),
    Base64(String),
}

#[derive(Serialize)]
struct Usage {
    prompt_tokens: usize,
    total_tokens: usize,
}

/// One text at a time, each on a blocking thread: a client that goes away ends its request after the text in work.
pub async fn embeddings(
    State(context): State<Arc<Context>>,
    request: Request,
) -> Result<Response<Body>, ApiError> {
    let (_, map) = read_object(request).await?;
    let valid = ValidEmbeddings::read(Fields::new(map), context.users.encoder().name())?;
    let encoder = ready(context.users.encoder())?;
    if let Some(given) = valid.dimensions.filter(|given| *given != encoder.width() as i64) {
        let message = format!("{given} is not possible; this encoder has {}", encoder.width());
        return Err(ApiError::at(ErrorCode::InvalidValue, "dimensions", message));
    }
    let limit = Duration::from_secs(limits::EMBEDDING_WAIT_SECONDS_MAX);
    let _turn = match tokio::time::timeout(limit, context.embeddings.acquire()).await {
        Ok(Ok(turn)) => turn,
        Ok(Err(closed)) => return Err(ApiError::internal(closed)),
        Err(_) => {
            let message = "other texts are being embedded";
            return Err(ApiError::new(ErrorCode::Busy, message).retry_after(10));
        }
    };
    let mut whole = Embedded { embeddings: Vec::with_capacity(valid.texts.len()), tokens: 0 };
    for text in valid.texts {
        let encoder = encoder.clone();
        let one = blocking(move || encoder.embed_counted(&[&text])).await?;
        whole.tokens += one.tokens;
        whole.embeddings.extend(one.embeddings);
    }
    answer(encoder.name(), whole, valid.encoding)
}

/// The encoder, or when to ask again. The first request starts loading it.
fn ready(handle: &EncoderHandle) -> Result<Arc<Encoder>, ApiError> {
    let refuse = |message: String, seconds: u64| {
        Err(ApiError::new(ErrorCode::EncoderNotReady, message).retry_after(seconds))
    };
    match handle.start() {
        EncoderState::Ready(encoder) => Ok(encoder),
        EncoderState::Absent | EncoderState::Loading => {
            refuse(format!("the sentence encoder `{}` is being loaded", handle.name()), 5)
        }
        EncoderState::Failed { .. } => {
            let message = format!(
                "the sentence encoder `{0}` is not available; the server's log says why; hint: `demeanor pull {0}`",
                handle.name()
            );
            refuse(message, limits::ENCODER_RETRY_SECONDS)
        }
    }
}

fn answer(model: &str, embedded: Embedded, encoding: Encoding) -> Result<Response<Body>, ApiError> {
    let numbers = |values: Vec<f32>| match encoding {
        Encoding::Float => Numbers::Float(values),
        Encoding::Base64 => {
            let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
            Numbers::Base64(STANDARD.encode(bytes))
        }
    };
    let rows = embedded.embeddings.into_iter().enumerate();
    let answer = Answer {
        object: "list",
        data: rows
            .map(|(index, values)| Row { object: "embedding", index, embedding: numbers(values) })
            .collect(),
        model,
        usage: Usage { prompt_tokens: embedded.tokens, total_tokens: embedded.tokens },
    };
    let mut response = Response::new(Body::from(serde_json::to_vec(&answer).map_err(ApiError::internal)?));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    Ok(response)
}

impl ValidEmbeddings {
    /// Fields that this route does not know are ignored, as on all of OpenAI's routes.
    fn read(mut fields: Fields, encoder: &str) -> Result<ValidEmbeddings, ApiError> {
        if let Some(model) = fields.string("model")?.filter(|model| !model.is_empty() && model != encoder) {
            let message = format!("there is no encoder `{}`; this server has `{encoder}`", shown(model));
            return Err(ApiError::at(ErrorCode::ModelNotFound, "model", message));
        }
        let encoding = match fields.string("encoding_format")?.as_deref() {
            None | Some("float") => Encoding::Float,
            Some("base64") => Encoding::Base64,
            Some(other) => {
                let message = format!("`{}` is unknown; allowed are `float` and `base64`", shown(other));
                return Err(fields.refuse("encoding_format", message));
            }
        };
        let dimensions = fields.integer("dimensions", 1..=i64::from(limits::WIDTH_MAX))?;
        Ok(ValidEmbeddings { texts: read_texts(&mut fields)?, encoding, dimensions })
    }
}

/// A string or an array of strings.
fn read_texts(fields: &mut Fields) -> Result<Vec<String>, ApiError> {
    let path = fields.path("input");
    let items = match fields.take("input") {
        Some(Value::String(text)) => {
            check_text(&text, &path)?;
            return Ok(vec![text]);
        }
        Some(Value::Array(items)) => items,
        Some(other) => return Err(wrong_kind(&path, &other, "a string or an array of strings")),
        None => return Err(missing(path)),
    };
    let most = limits::EMBEDDING_TEXTS_MAX;
    if items.is_empty() {
        return Err(ApiError::at(ErrorCode::InvalidValue, path, "the array is empty"));
    }
    if items.iter().all(|item| item.is_number() || item.is_array()) {
        let message = "token ids are not taken, since they are of another tokenizer; hint: send the texts (LangChain does with `check_embedding_ctx_length=False`)";
        return Err(ApiError::at(ErrorCode::Unsupported, path, message));
    }
    if items.len() > most {
        let message = format!("{} texts are too many; at most {most}", items.len());
        return Err(ApiError::at(ErrorCode::InvalidValue, path, message));
    }
    let one = |(index, item): (usize, Value)| {
        let path = format!("{path}[{index}]");
        let Value::String(text) = item else { return Err(wrong_kind(&path, &item, "a string")) };
        check_text(&text, &path)?;
        Ok(text)
    };
    items.into_iter().enumerate().map(one).collect()
}

fn check_text(text: &str, path: &str) -> Result<(), ApiError> {
    let most = limits::ENCODER_TEXT_BYTES_MAX;
    match text.len() {
        0 => Err(ApiError::at(ErrorCode::InvalidValue, path, "the text is empty")),
        bytes if bytes > most => {
            let message = format!("the text has {bytes} bytes; at most {most}");
            Err(ApiError::at(ErrorCode::InvalidValue, path, message))
        }
        _ => Ok(()),
    }
}

impl From<EncoderError> for ApiError {
    /// What a client can send was checked before, so every failure is ours.
    fn from(error: EncoderError) -> ApiError {
        ApiError::internal(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read(body: Value) -> Result<ValidEmbeddings, ApiError> {
        ValidEmbeddings::read(Fields::new(body.as_object().cloned().unwrap_or_default()), "enc")
    }

    #[test]
    fn good_requests() {
        let valid = read(json!({"input": "hi", "model": "enc", "user": "u", "other": 1})).expect("valid");
        assert_eq!(valid.texts, ["hi"]);
        assert_eq!((valid.encoding, valid.dimensions), (Encoding::Float, None));
        let valid = read(json!({"input": ["a", "b"], "encoding_format": "base64", "dimensions": 384}));
        assert_eq!(
            valid.expect("valid"),
            ValidEmbeddings {
                texts: vec!["a".into(), "b".into()],
                encoding: Encoding::Base64,
                dimensions: Some(384)
            }
        );
    }

    #[test]
    fn bad_requests() {
        let long = "x".repeat(limits::ENCODER_TEXT_BYTES_MAX + 1);
        for (body, code, param) in [
            (json!({}), ErrorCode::MissingField, "input"),
            (json!({"input": 7}), ErrorCode::InvalidValue, "input"),
            (json!({"input": ""}), ErrorCode::InvalidValue, "input"),
            (json!({"input": []}), ErrorCode::InvalidValue, "input"),
            (json!({"input": [1, 2, 3]}), ErrorCode::Unsupported, "input"),
            (json!({"input": [[1, 2], [3]]}), ErrorCode::Unsupported, "input"),
            (json!({"input": ["a", 1]}), ErrorCode::InvalidValue, "input[1]"),
            (json!({"input": ["a", ""]}), ErrorCode::InvalidValue, "input[1]"),
            (json!({"input": [long]}), ErrorCode::InvalidValue, "input[0]"),
            (json!({"input": vec!["a"; 257]}), ErrorCode::InvalidValue, "input"),
            (json!({"input": "a", "model": "gpt"}), ErrorCode::ModelNotFound, "model"),
            (json!({"input": "a", "model": 1}), ErrorCode::InvalidValue, "model"),
            (json!({"input": "a", "encoding_format": "hex"}), ErrorCode::InvalidValue, "encoding_format"),
            (json!({"input": "a", "dimensions": 0}), ErrorCode::InvalidValue, "dimensions"),
            (json!({"input": "a", "dimensions": "x"}), ErrorCode::InvalidValue, "dimensions"),
        ] {
            let error = read(body).expect_err(param);
            assert_eq!((error.code, error.param.as_deref()), (code, Some(param)), "{}", error.message);
        }
    }
}
