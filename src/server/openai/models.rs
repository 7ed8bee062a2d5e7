//! `GET /v1/models` and `/v1/models/{id}`: what can be asked for by name.

use crate::server::Context;
use crate::server::error::{ApiError, ErrorCode};
use crate::server::fields::{listed, nearest};
use crate::server::path::Segment;
use axum::Json;
use axum::extract::State;
use serde_json::{Value, json};
use std::sync::Arc;

/// The plain model first, then its aliases. Personas follow once they can be stored.
pub async fn models(State(context): State<Arc<Context>>) -> Json<Value> {
    let data: Vec<Value> = context.names().into_iter().map(|name| entry(&context, name)).collect();
    Json(json!({"object": "list", "data": data}))
}

/// One of them. The path may carry the id raw or percent-encoded.
pub async fn model(
    State(context): State<Arc<Context>>,
    Segment(id): Segment,
) -> Result<Json<Value>, ApiError> {
    let names = context.names();
    if names.contains(&id.as_str()) {
        return Ok(Json(entry(&context, &id)));
    }
    let near = nearest(&id, names.into_iter());
    let shown: String = id.chars().take(80).collect();
    let message = format!("there is no model `{shown}`; this server has {}", listed(&near));
    Err(ApiError::at(ErrorCode::ModelNotFound, "model", message))
}

fn entry(context: &Context, name: &str) -> Value {
    let info = context.engine.info();
    json!({
        "id": name,
        "object": "model",
        "created": context.created,
        "owned_by": "demeanor",
        "name": name,
        "max_model_len": info.context,
        "meta": {
            "n_ctx_train": info.trained_context,
            "n_embd": info.d_model,
            "n_params": info.parameters,
            "n_vocab": info.vocab_size,
            "size": info.file_bytes,
        },
        "architecture": {
            "architecture": info.architecture,
            "input_modalities": ["text"],
            "output_modalities": ["text"],
        },
        "demeanor": {
            "persona": null,
            "probe": null,
            "quantisation": info.quantisation,
            "arithmetic": info.arithmetic,
        },
    })
}
