//! `GET /v1/models` and `/v1/models/{id}`: what can be asked for by name.

use super::admission::standing_now;
use crate::limits;
use crate::persona::Persona;
use crate::persona::gate::{NotAdmitted, State as Probed};
use crate::server::Context;
use crate::server::error::{ApiError, ErrorCode, shown};
use crate::server::fields::{listed, nearest};
use crate::server::path::Segment;
use crate::server::query::QueryMap;
use axum::Json;
use axum::extract::{Query, State};
use serde_json::{Value, json};
use std::sync::Arc;

/// The plain model first, then its aliases, then `model@persona` by name: the first 200, or as many as `?limit=` asks for.
/// With `--gate enforce` those that passed the probe.
pub async fn models(
    State(context): State<Arc<Context>>,
    Query(query): Query<QueryMap>,
) -> Result<Json<Value>, ApiError> {
    let limit = match query.get("limit") {
        None => limits::PERSONA_MODELS_LISTED,
        Some(text) => text.parse().map_err(|_| {
            let message = format!("`{}` is no number of personas", shown(text));
            ApiError::at(ErrorCode::InvalidValue, "limit", message)
        })?,
    };
    let mut data: Vec<Value> = context.names().into_iter().map(|name| entry(&context, name, None)).collect();
    let most = data.len().saturating_add(limit);
    let (personas, _) = context.personas.page(None, usize::MAX);
    for persona in &personas {
        if data.len() >= most {
            break;
        }
        let probe = standing_now(&context, persona).await.state;
        if probe == Probed::Passed || !context.gate.enforces() {
            data.push(persona_entry(&context, persona, probe));
        }
    }
    Ok(Json(json!({"object": "list", "data": data})))
}

/// One of them. The path may carry the id raw or percent-encoded.
pub async fn model(
    State(context): State<Arc<Context>>,
    Segment(id): Segment,
) -> Result<Json<Value>, ApiError> {
    let names = context.names();
    if names.contains(&id.as_str()) {
        return Ok(Json(entry(&context, &id, None)));
    }
    let of_persona = names.iter().find_map(|name| id.strip_prefix(name)?.strip_prefix('@'));
    if let Some(persona) = of_persona {
        let persona = context.personas.find(persona, "model")?;
        let standing = standing_now(&context, &persona).await;
        if context.gate.enforces() && standing.state != Probed::Passed {
            return Err(NotAdmitted::persona(&persona, standing).into());
        }
        return Ok(Json(persona_entry(&context, &persona, standing.state)));
    }
    let near = nearest(&id, names.into_iter());
    let shown: String = id.chars().take(80).collect();
    let message = format!("there is no model `{shown}`; this server has {}", listed(&near));
    Err(ApiError::at(ErrorCode::ModelNotFound, "model", message))
}

fn persona_entry(context: &Context, persona: &Persona, probe: Probed) -> Value {
    entry(context, &format!("{}@{}", context.model, persona.name), Some((persona, probe)))
}

fn entry(context: &Context, name: &str, persona: Option<(&Persona, Probed)>) -> Value {
    let info = context.engine.info();
    json!({
        "id": name,
        "object": "model",
        "created": persona.map_or(context.created as i64, |(persona, _)| persona.created),
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
            "persona": persona.map(|(persona, _)| persona.label()),
            "probe": persona.map(|(_, probe)| probe.name()),
            "quantisation": info.quantisation,
            "arithmetic": info.arithmetic,
        },
    })
}
