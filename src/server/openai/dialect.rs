//! How a started request is answered in the words of its route: with one object, or piece by piece.

use super::answer::Answer;
use super::choice::Piece;
use super::generation::{Account, Generation, Happening};
use crate::server::connection::ConnectionState;
use crate::server::error::ApiError;
use crate::server::metrics::Metrics;
use crate::server::sse::{self, Frames, Pings};
use axum::Json;
use axum::body::Body;
use axum::http::Response;
use axum::response::IntoResponse;
use serde_json::Value;
use std::future::Future;
use std::sync::Arc;

/// An answer in the form of one route.
pub trait Dialect: Sized + Send + 'static {
    /// What all forms share.
    fn answer(&self) -> &Answer;

    /// Waits for everything and answers with one object.
    fn collect(self, generation: Generation) -> impl Future<Output = Result<Value, ApiError>> + Send;

    /// Writes the stream to its end.
    fn stream(self, generation: Generation, frames: Frames, pings: Pings) -> impl Future<Output = ()> + Send;
}

/// The response, whole or as a stream that watches `connection`.
pub async fn respond(
    dialect: impl Dialect,
    generation: Generation,
    is_stream: bool,
    connection: Option<Arc<ConnectionState>>,
) -> Result<Response<Body>, ApiError> {
    let head = dialect.answer().headers.clone();
    let mut response = if is_stream {
        sse::respond(|frames| dialect.stream(generation, frames, Pings::new(connection)))
    } else {
        Json(dialect.collect(generation).await?).into_response()
    };
    response.headers_mut().extend(head);
    Ok(response)
}

/// Takes every piece of an answer that is told at once, with its sequence's index and account so far.
pub async fn take_pieces(
    generation: &mut Generation,
    metrics: &Metrics,
    mut take: impl FnMut(usize, Piece, Account),
) -> Result<(), ApiError> {
    let mut watch = metrics.watch(generation.received());
    while let Some((index, news)) = generation.next().await {
        match news {
            Happening::Progress { .. } | Happening::Prefilled { .. } => {}
            Happening::Piece(piece) => {
                let account = generation.account(index);
                watch.token(index, account.queued);
                take(index, piece, account);
            }
            Happening::Failed(error) => return Err(error.into()),
        }
    }
    Ok(())
}
