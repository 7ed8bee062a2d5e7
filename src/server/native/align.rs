//! `/v1/align`: a person's answers to an inventory become a persona.

use crate::alignment::{Algorithm, AlignmentRequest, Answers, Inventory, Protocol};
use crate::limits;
use crate::server::Context;
use crate::server::blocking::blocking;
use crate::server::body::read_map;
use crate::server::error::{ApiError, ErrorCode, shown};
use crate::server::fields::{Fields, missing, wrong_kind};
use axum::Json;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{Response, StatusCode};
use axum::response::IntoResponse;
use serde_json::{Value, json};
use std::sync::Arc;

const FIELDS: [&str; 6] = ["name", "inventory", "answers", "algorithm", "protocol", "system"];
/// The inventory of a request that names none.
const DEFAULT_INVENTORY: &str = "ipip-neo-300";

/// `POST /v1/align`: 202 with the job. Names and answers are checked before it is queued; the persona is there when the
/// job is done.
pub async fn align(
    State(context): State<Arc<Context>>,
    request: Request,
) -> Result<Response<Body>, ApiError> {
    let (_, map) = read_map(request, limits::INVENTORY_BYTES_MAX + limits::ALIGN_BODY_BYTES_MAX).await?;
    let request = read(Fields::new(map))?;
    let alignments = context.alignments.clone();
    let job = blocking(move || alignments.start(request)).await?;
    Ok((StatusCode::ACCEPTED, Json(json!({"job": job}))).into_response())
}

fn read(mut fields: Fields) -> Result<AlignmentRequest, ApiError> {
    let name = fields.string("name")?.ok_or_else(|| missing("name"))?;
    let algorithm =
        one_of(&mut fields, "algorithm", &[("ridge", Algorithm::Ridge), ("pas", Algorithm::Pas)])?;
    let protocol =
        one_of(&mut fields, "protocol", &[("honest", Protocol::Honest), ("paper", Protocol::Paper)])?;
    let system = fields.string("system")?.unwrap_or_default();
    let inventory = match fields.take("inventory") {
        None => Inventory::named(DEFAULT_INVENTORY)?,
        Some(Value::String(name)) => Inventory::named(&name)?,
        Some(Value::Object(map)) => Arc::new(Inventory::parse(Value::Object(map).to_string().as_bytes())?),
        Some(other) => return Err(wrong_kind("inventory", &other, "a name or an inventory")),
    };
    let answers = fields.take("answers").ok_or_else(|| missing("answers"))?;
    fields.finish(&FIELDS)?;
    let answers = Answers::read(&answers, &inventory)?;
    if protocol == Protocol::Paper && algorithm != Algorithm::Pas {
        let message = "`paper` is a protocol of the algorithm `pas`";
        return Err(ApiError::at(ErrorCode::InvalidValue, "protocol", message));
    }
    Ok(AlignmentRequest { name, inventory, answers, algorithm, protocol, system })
}

/// One of some words, the first one where the field is absent.
fn one_of<T: Copy>(fields: &mut Fields, name: &str, words: &[(&str, T)]) -> Result<T, ApiError> {
    let given = fields.string(name)?.unwrap_or_else(|| words[0].0.to_owned());
    words.iter().find(|(word, _)| *word == given).map(|(_, value)| *value).ok_or_else(|| {
        let allowed: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
        fields.refuse(name, format!("`{}` is not known; allowed: {}", shown(&given), allowed.join(", ")))
    })
}
