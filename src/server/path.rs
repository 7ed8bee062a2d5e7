//! The one variable part of a route's path, decoded; what cannot be decoded is refused in the form of all errors.

use super::error::{ApiError, ErrorCode};
use axum::extract::{FromRequestParts, Path};
use axum::http::request::Parts;

/// A name or id in a path, percent-decoded.
pub struct Segment(pub String);

impl<S: Send + Sync> FromRequestParts<S> for Segment {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Segment, ApiError> {
        match Path::<String>::from_request_parts(parts, state).await {
            Ok(Path(text)) => Ok(Segment(text)),
            Err(_) => {
                Err(ApiError::new(ErrorCode::BadRequest, "the path is not UTF-8 after percent-decoding"))
            }
        }
    }
}
