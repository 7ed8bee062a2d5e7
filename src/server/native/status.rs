//! How the server stands: health, readiness, metrics, llama.cpp's properties, and the line at `/`.

use crate::server::accept::Lifecycle;
use crate::server::error::{ApiError, ErrorCode};
use crate::server::exposition::{self, Facts};
use crate::server::openai::default_settings;
use crate::server::{BUILD, Context};
use axum::Extension;
use axum::Json;
use axum::extract::State;
use axum::http::header;
use axum::response::IntoResponse;
use serde_json::{Value, json};
use std::sync::Arc;

/// `GET /health`: a loaded server is healthy also when it is busy.
pub async fn health() -> Json<Value> {
    Json(json!({"status": "ok"}))
}

/// `GET /live`: the process answers.
pub async fn live() -> Json<Value> {
    Json(json!({"status": "ok"}))
}

/// `GET /ready`: whether more work should be sent here.
pub async fn ready(
    State(context): State<Arc<Context>>,
    lifecycle: Option<Extension<Lifecycle>>,
) -> Result<Json<Value>, ApiError> {
    if lifecycle.is_some_and(|lifecycle| lifecycle.draining()) {
        return Err(ApiError::new(ErrorCode::ShuttingDown, "the server is shutting down"));
    }
    if !context.engine.accepts() {
        return Err(ApiError::new(ErrorCode::Busy, "the queue is full").retry_after(1));
    }
    Ok(Json(json!({"status": "ready"})))
}

/// `GET /metrics` for Prometheus.
pub async fn metrics(State(context): State<Arc<Context>>) -> impl IntoResponse {
    let facts = Facts {
        stats: context.engine.stats(),
        info: context.engine.info(),
        metrics: &context.metrics,
        model: &context.model,
    };
    let page = exposition::page(&facts, context.settings.metrics_dialect);
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], page)
}

/// `GET /props`: what llama.cpp's front ends look up before they talk to the model.
pub async fn props(State(context): State<Arc<Context>>) -> Json<Value> {
    let size = context.engine.info().context;
    let tokenizer = &context.text.tokenizer;
    let named = |id: Option<u32>| id.map(|id| tokenizer.token_text(id)).unwrap_or_default();
    Json(json!({
        "default_generation_settings": {"id": 0, "n_ctx": size, "params": default_settings()},
        "total_slots": context.running_max(),
        "model_alias": context.model,
        // The name and not the file's path, which is nobody's business.
        "model_path": context.model,
        "modalities": {"vision": false, "audio": false},
        "chat_template": context.text.template().source(),
        "bos_token": named(tokenizer.bos()),
        "eos_token": named(tokenizer.eos()),
        "build_info": format!("demeanor {BUILD}"),
    }))
}

/// `GET /`: what this is and where to go on.
pub async fn root(State(context): State<Arc<Context>>) -> String {
    format!(
        "demeanor {BUILD} serves {}; POST /v1/chat/completions takes OpenAI's requests and a `steering` field; /docs lists all routes\n",
        context.model
    )
}
