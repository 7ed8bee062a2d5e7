//! `/v1/probe`: runs the safety probe on a stored persona as a job, and gives the newest report back.

use crate::probe::ProbeOptions;
use crate::server::Context;
use crate::server::blocking::blocking;
use crate::server::body::read_object;
use crate::server::error::{ApiError, ErrorCode, shown};
use crate::server::fields::{Fields, missing};
use crate::server::openai::{digest_now, probe_subject};
use crate::server::path::Segment;
use axum::Json;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use serde_json::{Value, json};
use std::sync::Arc;

const FIELDS: [&str; 4] = ["persona", "suite", "seed", "attribution"];
/// Of a run that names none.
const SUITE: &str = "quick";
const SEED: i64 = 1;
/// Whole numbers up to here survive every JSON reader.
const SEED_MAX: i64 = 1 << 53;

/// `POST /v1/probe`: 202 with the job. The report is that of the persona as it is now, whatever is stored meanwhile.
pub async fn start_probe(
    State(context): State<Arc<Context>>,
    request: Request,
) -> Result<(StatusCode, Json<Value>), ApiError> {
    let (_, map) = read_object(request).await?;
    let mut fields = Fields::new(map);
    let name = fields.string("persona")?.ok_or_else(|| missing("persona"))?;
    let options = ProbeOptions {
        suite: fields.string("suite")?.unwrap_or_else(|| SUITE.to_owned()),
        seed: fields.integer("seed", 0..=SEED_MAX)?.unwrap_or(SEED) as u64,
        attribution: fields.bool("attribution")?.unwrap_or(false),
    };
    fields.finish(&FIELDS)?;
    let persona = context.personas.find(&name, "persona")?;
    let subject = probe_subject(&context, &persona).await?;
    let prober = context.prober.clone();
    let job = blocking(move || prober.start(subject, &options)).await?;
    Ok((StatusCode::ACCEPTED, Json(json!({"job": job}))))
}

/// `GET /v1/probe/{persona}`: the newest report of the digest that the persona has now; 404 `unprobed` without one.
pub async fn show_report(
    State(context): State<Arc<Context>>,
    Segment(name): Segment,
) -> Result<Json<Value>, ApiError> {
    let persona = context.personas.find(&name, "persona")?;
    let digest = digest_now(&context, &persona.spec).await?;
    let prober = context.prober.clone();
    let report = blocking(move || Ok::<_, ApiError>(prober.newest(&digest))).await?;
    let unprobed = || {
        let message = format!(
            "there is no report on `{}` as it is now; hint: `POST /v1/probe` or `demeanor probe {}`",
            shown(persona.label()),
            shown(&persona.name)
        );
        ApiError::at(ErrorCode::Unprobed, "persona", message)
    };
    report.map(|report| Json(Value::clone(&report))).ok_or_else(unprobed)
}
