//! Uploads in parts: a file with a few fields beside it, read whole within the limits of size and time.

use super::Context;
use super::error::{ApiError, ErrorCode, shown};
use super::fields::listed;
use crate::limits;
use axum::extract::{FromRequest, Multipart, Request};
use axum::http::StatusCode;
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::sync::OwnedSemaphorePermit;

/// The parts of a body by name, each at most once. A file's own name is ignored.
pub struct Parts(BTreeMap<String, Vec<u8>>);

impl Parts {
    /// Reads a multipart body whose parts are all among `known`.
    pub async fn read(request: Request, known: &[&str]) -> Result<Parts, ApiError> {
        let limit = Duration::from_secs(limits::BODY_READ_SECONDS_MAX);
        match tokio::time::timeout(limit, read_all(request, known)).await {
            Ok(result) => result,
            Err(_) => {
                let message = format!("the body did not arrive within {} s", limit.as_secs());
                Err(ApiError::new(ErrorCode::BodyTimeout, message))
            }
        }
    }

    /// The content of a part.
    pub fn take(&mut self, name: &str) -> Option<Vec<u8>> {
        self.0.remove(name)
    }

    pub fn required(&mut self, name: &str) -> Result<Vec<u8>, ApiError> {
        self.take(name).ok_or_else(|| ApiError::at(ErrorCode::MissingField, name, "the part is missing"))
    }

    /// A part as text without white space around it; empty counts as missing.
    pub fn text(&mut self, name: &str) -> Result<String, ApiError> {
        let text = String::from_utf8(self.required(name)?)
            .map_err(|_| ApiError::at(ErrorCode::InvalidValue, name, "the part is not UTF-8"))?;
        match text.trim() {
            "" => Err(ApiError::at(ErrorCode::MissingField, name, "the part is empty")),
            text => Ok(text.to_owned()),
        }
    }

    /// `true` or `false`; false where it is missing.
    pub fn flag(&mut self, name: &str) -> Result<bool, ApiError> {
        let Some(bytes) = self.take(name) else { return Ok(false) };
        match bytes.trim_ascii() {
            b"true" => Ok(true),
            b"false" | b"" => Ok(false),
            _ => Err(ApiError::at(ErrorCode::InvalidValue, name, "must be `true` or `false`")),
        }
    }
}

async fn read_all(request: Request, known: &[&str]) -> Result<Parts, ApiError> {
    let mut body = Multipart::from_request(request, &())
        .await
        .map_err(|error| bad_part(error.status(), error.body_text()))?;
    let mut parts = BTreeMap::new();
    while let Some(part) =
        body.next_field().await.map_err(|error| bad_part(error.status(), error.body_text()))?
    {
        let name = part.name().unwrap_or_default().to_owned();
        if !known.contains(&name.as_str()) {
            let message = format!("unknown part; this route knows {}", listed(known));
            return Err(ApiError::at(ErrorCode::UnknownField, shown(name), message));
        }
        let bytes = part.bytes().await.map_err(|error| bad_part(error.status(), error.body_text()))?;
        if parts.insert(name.clone(), bytes.to_vec()).is_some() {
            return Err(ApiError::at(ErrorCode::DuplicateField, name, "the part occurs twice"));
        }
    }
    Ok(Parts(parts))
}

fn bad_part(status: StatusCode, message: String) -> ApiError {
    if status == StatusCode::PAYLOAD_TOO_LARGE {
        let message = format!("the body is larger than the limit of {} bytes", limits::UPLOAD_BYTES_MAX);
        return ApiError::new(ErrorCode::BodyTooLarge, message);
    }
    ApiError::new(ErrorCode::BadRequest, format!("the multipart body cannot be read: {message}"))
}

/// Waits for one of the few places for uploads, which bound the memory that bodies take.
pub async fn turn(context: &Context) -> Result<OwnedSemaphorePermit, ApiError> {
    let limit = Duration::from_secs(limits::BODY_READ_SECONDS_MAX);
    match tokio::time::timeout(limit, context.uploads.clone().acquire_owned()).await {
        Ok(Ok(turn)) => Ok(turn),
        Ok(Err(closed)) => Err(ApiError::internal(closed)),
        Err(_) => Err(ApiError::new(ErrorCode::Busy, "other uploads are in progress").retry_after(10)),
    }
}
