//! `/v1/vectors` and `/v1/traits`: what can be steered with.

use crate::limits;
use crate::server::Context;
use crate::server::blocking::blocking;
use crate::server::body::{media_type, read_map};
use crate::server::error::{ApiError, ErrorCode};
use crate::server::fields::{Fields, missing, wrong_kind};
use crate::server::multipart::{Parts, turn};
use crate::server::path::Segment;
use crate::server::query::QueryMap;
use crate::steering::formats::{Assumed, Format};
use crate::steering::{Contrast, SteeringError, Trait, VectorInfo};
use axum::Json;
use axum::body::Body;
use axum::extract::{Query, Request, State};
use axum::http::{HeaderValue, Response, StatusCode, header};
use axum::response::IntoResponse;
use serde_json::{Map, Value, json};
use std::sync::Arc;
use tokio::sync::OwnedSemaphorePermit;

const UPLOAD_FIELDS: [&str; 5] = ["name", "directions", "pairs", "replace", "any_weights"];

/// Files are read and written on a thread of their own.
async fn on_disk<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, SteeringError> + Send + 'static,
) -> Result<T, ApiError> {
    blocking(move || work().map_err(plain_field)).await
}

/// The fields of these routes are no steering: what is wrong with them is a wrong value.
fn plain_field(error: SteeringError) -> ApiError {
    let error = ApiError::from(error);
    match error.code {
        ErrorCode::InvalidSteering => ApiError { code: ErrorCode::InvalidValue, ..error },
        _ => error,
    }
}

/// `GET /v1/vectors`: the stored ones, sorted by name. Those that traits promise are under `/v1/traits`.
pub async fn list_vectors(State(context): State<Arc<Context>>) -> Result<Json<Value>, ApiError> {
    let library = context.library.clone();
    let list = on_disk(move || library.list()).await?;
    Ok(Json(json!({"object": "list", "data": list})))
}

/// `GET /v1/vectors/{name}`.
pub async fn show_vector(
    State(context): State<Arc<Context>>,
    Segment(name): Segment,
) -> Result<Json<VectorInfo>, ApiError> {
    let library = context.library.clone();
    Ok(Json(on_disk(move || library.show(&name)).await?))
}

/// `DELETE /v1/vectors/{name}`.
pub async fn delete_vector(
    State(context): State<Arc<Context>>,
    Segment(name): Segment,
) -> Result<Json<Value>, ApiError> {
    let library = context.library.clone();
    let removed = name.clone();
    on_disk(move || library.delete(&name)).await?;
    Ok(Json(json!({"name": removed, "deleted": true})))
}

/// `GET /v1/vectors/{name}/file?format=`: safetensors unless another format is asked for.
pub async fn export_vector(
    State(context): State<Arc<Context>>,
    Segment(name): Segment,
    Query(query): Query<QueryMap>,
) -> Result<Response<Body>, ApiError> {
    let format = match query.get("format") {
        Some(format) => Format::parse(format, "format").map_err(plain_field)?,
        None => Format::Safetensors,
    };
    let library = context.library.clone();
    let file = on_disk(move || library.export(&name, format)).await?;
    let mut response = Response::new(Body::from(file));
    let kind = match format {
        Format::Json => "application/json",
        Format::Gguf | Format::Safetensors => "application/octet-stream",
    };
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    Ok(response)
}

/// `POST /v1/vectors`: a file (multipart), directions, or pairs to extract from.
pub async fn upload_vector(
    State(context): State<Arc<Context>>,
    request: Request,
) -> Result<Response<Body>, ApiError> {
    let turn = turn(&context).await?;
    if media_type(request.headers()).as_deref() == Some("multipart/form-data") {
        let upload = read_multipart(request).await?;
        return store(&context, upload, turn).await;
    }
    let (_, map) =
        read_map(request, limits::JSON_UPLOAD_BYTES_MAX).await.map_err(|error| match error.code {
            ErrorCode::BodyTooLarge => {
                let message = error.message + "; hint: send larger vectors as a file by multipart/form-data";
                ApiError::new(ErrorCode::BodyTooLarge, message)
            }
            _ => error,
        })?;
    let mut fields = Fields::new(map);
    let name = match fields.string("name")? {
        Some(name) => name,
        None => return Err(missing("name")),
    };
    let replace = fields.bool("replace")?.unwrap_or(false);
    let any_weights = fields.bool("any_weights")?.unwrap_or(false);
    let directions = fields.take("directions");
    let pairs = fields.take("pairs");
    fields.finish(&UPLOAD_FIELDS)?;
    match (directions, pairs) {
        (Some(directions), None) => {
            let file = json!({"directions": directions}).to_string().into_bytes();
            store(&context, Upload { name, file, replace, any_weights }, turn).await
        }
        (None, Some(pairs)) => extract(&context, name, read_pairs(pairs)?, replace).await,
        _ => Err(ApiError::at(
            ErrorCode::MissingField,
            "directions",
            "exactly one of `directions` and `pairs` is needed",
        )),
    }
}

/// A vector file and what shall become of it.
struct Upload {
    name: String,
    file: Vec<u8>,
    replace: bool,
    any_weights: bool,
}

/// The turn ends with the work, also when the client is gone before.
async fn store(
    context: &Context,
    upload: Upload,
    turn: OwnedSemaphorePermit,
) -> Result<Response<Body>, ApiError> {
    let library = context.library.clone();
    let Upload { name, file, replace, any_weights } = upload;
    let (info, assumed): (VectorInfo, Assumed) = on_disk(move || {
        let _turn = turn;
        library.upload(&name, file, replace, any_weights)
    })
    .await?;
    let mut answer = serde_json::to_value(info).map_err(ApiError::internal)?;
    answer["assumed"] = json!(assumed);
    Ok((StatusCode::CREATED, Json(answer)).into_response())
}

/// Starts the extraction; its job and the vector's own route tell how far it is.
async fn extract(
    context: &Context,
    name: String,
    pairs: Vec<Contrast>,
    replace: bool,
) -> Result<Response<Body>, ApiError> {
    let library = context.library.clone();
    let shown = name.clone();
    let job = on_disk(move || library.extract(&name, pairs, replace)).await?.job;
    let answer = match job {
        Some(job) => json!({"name": shown, "job": job}),
        None => json!({"name": shown, "job": {"kind": "extract", "state": "queued"}}),
    };
    Ok((StatusCode::ACCEPTED, Json(answer)).into_response())
}

/// `[["reply of one pole", "of the other", "prompt"?]]`.
fn read_pairs(pairs: Value) -> Result<Vec<Contrast>, ApiError> {
    let Value::Array(items) = pairs else { return Err(wrong_kind("pairs", &pairs, "an array of pairs")) };
    let one = |(index, item): (usize, Value)| {
        let path = format!("pairs[{index}]");
        let shape =
            "must be `[reply of one pole, reply of the other]` with an optional prompt behind, all strings";
        let refuse = || ApiError::at(ErrorCode::InvalidValue, path.clone(), shape);
        let Value::Array(parts) = item else { return Err(refuse()) };
        let texts: Option<Vec<String>> = parts.iter().map(|part| part.as_str().map(str::to_string)).collect();
        let mut texts = texts.ok_or_else(refuse)?.into_iter();
        match (texts.next(), texts.next(), texts.next(), texts.next()) {
            (Some(positive), Some(negative), prompt, None) => Ok(Contrast { prompt, positive, negative }),
            _ => Err(refuse()),
        }
    };
    items.into_iter().enumerate().map(one).collect()
}

/// The parts `file`, `name`, `replace` and `any_weights`.
async fn read_multipart(request: Request) -> Result<Upload, ApiError> {
    let mut parts = Parts::read(request, &["file", "name", "replace", "any_weights"]).await?;
    Ok(Upload {
        file: parts.required("file")?,
        name: parts.text("name")?,
        replace: parts.flag("replace")?,
        any_weights: parts.flag("any_weights")?,
    })
}

/// `GET /v1/traits`: what vectors can be made of on first use.
pub async fn list_traits(State(context): State<Arc<Context>>) -> Json<Value> {
    let data: Vec<Value> =
        context.library.traits().iter().map(|found| Value::Object(summary(found))).collect();
    Json(json!({"object": "list", "data": data}))
}

/// `GET /v1/traits/{name}`: one with its contrast sets; either pole names it.
pub async fn show_trait(
    State(context): State<Arc<Context>>,
    Segment(name): Segment,
) -> Result<Json<Value>, ApiError> {
    let traits = context.library.traits();
    let Some(found) = traits.iter().find(|found| found.name == name || found.opposite == name) else {
        let names = traits.iter().flat_map(|found| [found.name.as_str(), found.opposite.as_str()]);
        let near = crate::server::fields::nearest(&name, names);
        let shown: String = name.chars().take(80).collect();
        let message =
            format!("there is no trait `{shown}`; nearest: {}", crate::server::fields::listed(&near));
        return Err(ApiError::at(ErrorCode::TraitNotFound, "name", message));
    };
    let mut answer = summary(found);
    answer.insert("train".into(), contrasts(&found.training()));
    answer.insert("held_out".into(), contrasts(&found.held_out()));
    Ok(Json(Value::Object(answer)))
}

fn summary(found: &Trait) -> Map<String, Value> {
    let (train, held_out) = (found.training().len(), found.held_out().len());
    let mut map = Map::new();
    map.insert("name".into(), json!(found.name));
    map.insert("opposite".into(), json!(found.opposite));
    map.insert("description".into(), json!(found.description));
    map.insert("harmful".into(), json!(found.harmful));
    map.insert("pairs".into(), json!({"train": train, "held_out": held_out}));
    map
}

fn contrasts(list: &[Contrast]) -> Value {
    list.iter()
        .map(|pair| json!({"prompt": pair.prompt, "positive": pair.positive, "negative": pair.negative}))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_as_typed() {
        let pairs = read_pairs(json!([["a", "b"], ["c", "d", "p"]])).expect("valid");
        assert_eq!(pairs[0].prompt, None);
        assert_eq!(pairs[1].prompt.as_deref(), Some("p"));
        for bad in [json!("x"), json!([["a"]]), json!([["a", 1]]), json!([["a", "b", "c", "d"]]), json!([1])]
        {
            assert!(read_pairs(bad.clone()).is_err(), "{bad}");
        }
    }
}
