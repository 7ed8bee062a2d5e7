//! Reads request bodies: content type, size, time.

use super::connection::ConnectionState;
use super::error::{ApiError, ErrorCode};
use super::json;
use crate::limits;
use axum::body::{Body, HttpBody};
use axum::extract::Request;
use axum::http::{HeaderMap, header};
use http_body_util::BodyExt;
use serde_json::{Map, Value};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

/// The JSON object of a request.
pub async fn read_object(request: Request) -> Result<(HeaderMap, Map<String, Value>), ApiError> {
    read_map(request, limits::JSON_BODY_BYTES_MAX).await
}

/// The same with a limit of the route's own.
pub async fn read_map(
    request: Request,
    bytes_max: usize,
) -> Result<(HeaderMap, Map<String, Value>), ApiError> {
    let (parts, body) = request.into_parts();
    check_json(&parts.headers)?;
    let connection = parts.extensions.get::<Arc<ConnectionState>>().cloned();
    let bytes = read(&parts.headers, body, bytes_max, connection).await?;
    Ok((parts.headers, json::object(&bytes)?))
}

/// A JSON route takes `application/json`. A body without a type, or with the one that `curl -d` sends by itself, is
/// taken too, unless a browser sends it: those types need no preflight, so any page could send them.
fn check_json(headers: &HeaderMap) -> Result<(), ApiError> {
    let kind = media_type(headers);
    let from_browser = headers.contains_key(header::ORIGIN);
    match kind.as_deref() {
        Some("application/json") => Ok(()),
        None | Some("application/x-www-form-urlencoded") if !from_browser => Ok(()),
        other => Err(ApiError::new(
            ErrorCode::UnsupportedMediaType,
            format!("the content type must be `application/json`, not `{}`", other.unwrap_or("absent")),
        )),
    }
}

/// The content type without its parameters, in lower case.
pub fn media_type(headers: &HeaderMap) -> Option<String> {
    let value = headers.get(header::CONTENT_TYPE)?.to_str().unwrap_or("invalid");
    Some(value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase())
}

/// The whole body, at most `bytes_max`, within the time limit. A declared length that is too large is refused before
/// anything is kept, and without a `100 Continue`.
pub async fn read(
    headers: &HeaderMap,
    body: Body,
    bytes_max: usize,
    connection: Option<Arc<ConnectionState>>,
) -> Result<Vec<u8>, ApiError> {
    let too_large = || {
        let message = format!("the body is larger than the limit of {bytes_max} bytes");
        Err(ApiError::new(ErrorCode::BodyTooLarge, message))
    };
    let declared =
        headers.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    let is_too_large = declared.or(body.size_hint().exact()).is_some_and(|length| length > bytes_max as u64);
    let mut body = pin!(body);
    if is_too_large {
        // A client that asks first has sent nothing and shall not.
        if !headers.contains_key(header::EXPECT) {
            discard(body).await;
        }
        return too_large();
    }
    let mut bytes = Vec::new();
    let mut expired = pin!(expiry(connection));
    loop {
        let frame = tokio::select! {
            biased;
            frame = body.frame() => frame,
            message = &mut expired => return Err(ApiError::new(ErrorCode::BodyTimeout, message)),
        };
        let Some(frame) = frame else { return Ok(bytes) };
        let frame = frame
            .map_err(|_| ApiError::new(ErrorCode::BadRequest, "the body ended early or is malformed"))?;
        let Ok(data) = frame.into_data() else { continue };
        if bytes.len() + data.len() > bytes_max {
            discard(body).await;
            return too_large();
        }
        bytes.extend_from_slice(&data);
    }
}

/// Takes what still comes of a refused body, within bounds.
async fn discard(mut body: Pin<&mut Body>) {
    let drop_frames = async {
        let mut left = limits::REFUSED_BODY_BYTES_MAX;
        while let Some(Ok(frame)) = body.frame().await {
            let length = frame.data_ref().map_or(0, |data| data.len());
            let Some(rest) = left.checked_sub(length) else { break };
            left = rest;
        }
    };
    let _ = tokio::time::timeout(Duration::from_secs(limits::REFUSED_BODY_SECONDS_MAX), drop_frames).await;
}

/// Resolves when the body has had its time: sooner when the client can send no more of it.
async fn expiry(connection: Option<Arc<ConnectionState>>) -> String {
    let limit = Duration::from_secs(limits::BODY_READ_SECONDS_MAX);
    let ended = async {
        match &connection {
            Some(connection) => connection.client_ended().await,
            None => std::future::pending().await,
        }
        tokio::time::sleep(Duration::from_secs(limits::BODY_AFTER_END_SECONDS_MAX)).await;
    };
    tokio::select! {
        () = tokio::time::sleep(limit) => format!("the body did not arrive within {} s", limit.as_secs()),
        () = ended => "the connection ended before the body did".to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderValue;

    fn kind(list: &[(&'static str, &'static str)]) -> bool {
        let mut headers = HeaderMap::new();
        for (name, value) in list {
            headers.insert(*name, HeaderValue::from_static(value));
        }
        check_json(&headers).is_ok()
    }

    #[test]
    fn content_types() {
        assert!(kind(&[("content-type", "application/json; charset=utf-8")]));
        assert!(kind(&[("content-type", "Application/JSON"), ("origin", "https://a.example")]));
        assert!(kind(&[]));
        assert!(kind(&[("content-type", "application/x-www-form-urlencoded")]));
        assert!(!kind(&[
            ("content-type", "application/x-www-form-urlencoded"),
            ("origin", "https://a.example")
        ]));
        assert!(!kind(&[("origin", "https://a.example")]));
        assert!(!kind(&[("content-type", "text/plain")]));
        assert!(!kind(&[("content-type", "multipart/form-data; boundary=x")]));
    }

    #[tokio::test]
    async fn bodies_stop_at_the_limit() {
        let headers = HeaderMap::new();
        assert_eq!(read(&headers, Body::from("abc"), 3, None).await.expect("fits"), b"abc");
        let error = read(&headers, Body::from("abcd"), 3, None).await.expect_err("too large");
        assert_eq!(error.code, ErrorCode::BodyTooLarge);
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_LENGTH, HeaderValue::from(10u64 << 30));
        assert!(read(&headers, Body::from("a"), 3, None).await.is_err());
    }
}
