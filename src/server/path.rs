//! The variable parts of a route's path, decoded; what cannot be decoded is refused in the form of all errors.

use super::error::{ApiError, ErrorCode};
use axum::extract::{FromRequestParts, Path};
use axum::http::request::Parts;
use serde::de::DeserializeOwned;

/// A name or id in a path, percent-decoded.
pub struct Segment(pub String);

/// Several of them, in their order.
pub struct Segments<T>(pub T);

impl<S: Send + Sync> FromRequestParts<S> for Segment {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Segment, ApiError> {
        Segments::from_request_parts(parts, state).await.map(|Segments(text)| Segment(text))
    }
}

impl<S: Send + Sync, T: DeserializeOwned + Send> FromRequestParts<S> for Segments<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Segments<T>, ApiError> {
        match Path::<T>::from_request_parts(parts, state).await {
            Ok(Path(values)) => Ok(Segments(values)),
            Err(_) => {
                Err(ApiError::new(ErrorCode::BadRequest, "the path is not UTF-8 after percent-decoding"))
            }
        }
    }
}
