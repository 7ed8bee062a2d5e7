//! `/v1/jobs`: long work, its progress as a stream, and its end on request.

use crate::jobs::JobInfo;
use crate::server::Context;
use crate::server::blocking::blocking;
use crate::server::connection::ConnectionState;
use crate::server::error::{ApiError, ErrorCode, shown};
use crate::server::path::Segment;
use crate::server::sse::{self, Pings};
use axum::body::Body;
use axum::extract::State;
use axum::http::Response;
use axum::{Extension, Json};
use serde_json::{Value, json};
use std::sync::Arc;

fn found<T>(id: &str, job: Option<T>) -> Result<T, ApiError> {
    let message = || format!("there is no job `{}`; `GET /v1/jobs` lists them", shown(id));
    job.ok_or_else(|| ApiError::at(ErrorCode::JobNotFound, "id", message()))
}

/// `GET /v1/jobs`: newest first.
pub async fn list_jobs(State(context): State<Arc<Context>>) -> Result<Json<Value>, ApiError> {
    let jobs = context.jobs.clone();
    let list = blocking(move || jobs.list()).await?;
    Ok(Json(json!({"object": "list", "data": list})))
}

/// `GET /v1/jobs/{id}`.
pub async fn show_job(
    State(context): State<Arc<Context>>,
    Segment(id): Segment,
) -> Result<Json<JobInfo>, ApiError> {
    let (jobs, asked) = (context.jobs.clone(), id.clone());
    Ok(Json(found(&id, blocking(move || jobs.get(&asked)).await?)?))
}

/// `DELETE /v1/jobs/{id}`: asks it to end; one that waits is cancelled at once, one that is over stays as it is.
pub async fn cancel_job(
    State(context): State<Arc<Context>>,
    Segment(id): Segment,
) -> Result<Json<JobInfo>, ApiError> {
    let (jobs, asked) = (context.jobs.clone(), id.clone());
    Ok(Json(found(&id, blocking(move || jobs.cancel(&asked)).await?)?))
}

/// `GET /v1/jobs/{id}/events`: the job now and at each change, until it is over.
pub async fn job_events(
    State(context): State<Arc<Context>>,
    connection: Option<Extension<Arc<ConnectionState>>>,
    Segment(id): Segment,
) -> Result<Response<Body>, ApiError> {
    let (jobs, asked) = (context.jobs.clone(), id.clone());
    let mut changes = found(&id, blocking(move || jobs.watch(&asked)).await?)?;
    let mut pings = Pings::new(connection.map(|Extension(connection)| connection));
    Ok(sse::respond(move |frames| async move {
        loop {
            let job = changes.borrow_and_update().clone();
            frames.data(&json!(job)).await;
            // Whoever worked on it is gone: nothing will change any more.
            if job.state.is_final() || pings.until(&frames, changes.changed()).await.is_err() {
                break;
            }
        }
        frames.done().await;
    }))
}
