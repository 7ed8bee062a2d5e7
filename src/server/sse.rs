//! Server-sent events: a body that is written by one future and ends everything when the client is gone.

use crate::limits;
use crate::server::connection::ConnectionState;
use crate::server::error::ApiError;
use axum::body::{Body, Bytes};
use axum::http::{HeaderValue, Response, header};
use futures_core::Stream;
use serde_json::Value;
use std::convert::Infallible;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::sync::mpsc;
use tracing::Instrument;

/// Frames that may wait for the socket before the writer waits too.
const FRAMES_WAITING_MAX: usize = 16;

/// The writer's end. Every send waits while the client reads slowly.
#[derive(Clone)]
pub struct Frames(mpsc::Sender<Bytes>);

impl Frames {
    /// One `data:` line.
    pub async fn data(&self, value: &Value) {
        self.raw(format!("data: {value}\n\n")).await;
    }

    /// A `data:` line with the name of its kind before it.
    pub async fn event(&self, kind: &str, value: &Value) {
        self.raw(format!("event: {kind}\ndata: {value}\n\n")).await;
    }

    /// A comment, which clients skip.
    async fn ping(&self) {
        self.raw(": ping\n\n".into()).await;
    }

    /// The last line of every stream.
    pub async fn done(&self) {
        self.raw("data: [DONE]\n\n".into()).await;
    }

    /// A failed send means that the body is being dropped, and this future with it.
    async fn raw(&self, text: String) {
        let _ = self.0.send(Bytes::from(text)).await;
    }
}

/// When a quiet stream must show that it is alive: every 15 s, and when the client's bytes have ended (the socket of a
/// client that is gone answers the next bytes with a reset).
pub struct Pings {
    connection: Option<Arc<ConnectionState>>,
    every: Duration,
}

impl Pings {
    pub fn new(connection: Option<Arc<ConnectionState>>) -> Pings {
        Pings { connection, every: Duration::from_secs(limits::PING_SECONDS) }
    }

    /// Waits for `news`, which is polled to its end, and sends pings meanwhile.
    pub async fn until<T>(&mut self, frames: &Frames, news: impl Future<Output = T>) -> T {
        let mut news = std::pin::pin!(news);
        loop {
            tokio::select! {
                biased;
                value = &mut news => return value,
                () = client_ended(self.connection.clone()) => {
                    self.connection = None;
                    frames.ping().await;
                }
                () = tokio::time::sleep(self.every) => frames.ping().await,
            }
        }
    }
}

async fn client_ended(connection: Option<Arc<ConnectionState>>) {
    match connection {
        Some(connection) => connection.client_ended().await,
        None => std::future::pending().await,
    }
}

type Writer = Pin<Box<dyn Future<Output = ()> + Send>>;

/// The reader's end: polls the writer when no frame waits. Dropping it drops the writer and what the writer holds.
struct EventStream {
    frames: mpsc::Receiver<Bytes>,
    writer: Option<Writer>,
    /// Frames after a panic of the writer.
    last: Vec<Bytes>,
}

impl Stream for EventStream {
    type Item = Result<Bytes, Infallible>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            if let Poll::Ready(Some(frame)) = self.frames.poll_recv(cx) {
                return Poll::Ready(Some(Ok(frame)));
            }
            let Some(writer) = &mut self.writer else {
                return Poll::Ready(self.last.pop().map(Ok));
            };
            match catch_unwind(AssertUnwindSafe(|| writer.as_mut().poll(cx))) {
                Ok(Poll::Ready(())) => self.writer = None,
                Ok(Poll::Pending) => match self.frames.poll_recv(cx) {
                    Poll::Ready(Some(frame)) => return Poll::Ready(Some(Ok(frame))),
                    Poll::Ready(None) => self.writer = None,
                    Poll::Pending => return Poll::Pending,
                },
                Err(_) => {
                    self.writer = None;
                    let error = ApiError::internal("the writer of a stream panicked").body();
                    self.last =
                        vec![Bytes::from("data: [DONE]\n\n"), Bytes::from(format!("data: {error}\n\n"))];
                }
            }
        }
    }
}

/// A 200 whose body is what `write` sends.
pub fn respond<F: Future<Output = ()> + Send + 'static>(write: impl FnOnce(Frames) -> F) -> Response<Body> {
    let (sender, frames) = mpsc::channel(FRAMES_WAITING_MAX);
    // What it logs belongs to the request that opened the stream.
    let writer: Writer = Box::pin(write(Frames(sender)).in_current_span());
    let mut response =
        Response::new(Body::from_stream(EventStream { frames, writer: Some(writer), last: Vec::new() }));
    for (name, value) in [
        (header::CONTENT_TYPE, "text/event-stream"),
        (header::CACHE_CONTROL, "no-cache"),
        (header::HeaderName::from_static("x-accel-buffering"), "no"),
    ] {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::BodyExt;
    use serde_json::json;

    async fn collect(response: Response<Body>) -> String {
        let bytes = response.into_body().collect().await.expect("a body").to_bytes();
        String::from_utf8(bytes.to_vec()).expect("UTF-8")
    }

    #[tokio::test]
    async fn frames_in_order() {
        let response = respond(|frames| async move {
            for i in 0..40 {
                frames.data(&json!(i)).await;
            }
            frames.done().await;
        });
        assert_eq!(response.headers()[header::CONTENT_TYPE], "text/event-stream");
        let text = collect(response).await;
        assert!(text.starts_with("data: 0\n\ndata: 1\n\n") && text.ends_with("data: 39\n\ndata: [DONE]\n\n"));
    }

    #[tokio::test]
    async fn a_panic_becomes_an_error_in_the_stream() {
        let response = respond(|frames| async move {
            frames.data(&json!(1)).await;
            panic!("on purpose");
        });
        let text = collect(response).await;
        assert!(text.starts_with("data: 1\n\ndata: {\"error\":"), "{text}");
        assert!(text.ends_with("data: [DONE]\n\n"), "{text}");
        assert!(!text.contains("on purpose"));
    }

    #[tokio::test]
    async fn dropping_the_body_drops_the_writer() {
        let (alive, mut gone) = mpsc::channel::<()>(1);
        let response = respond(|frames| async move {
            let _alive = alive;
            frames.data(&json!(1)).await;
            std::future::pending::<()>().await;
        });
        let mut body = response.into_body();
        body.frame().await.expect("a frame").expect("no error");
        drop(body);
        assert_eq!(gone.recv().await, None);
    }

    #[tokio::test]
    async fn quiet_streams_ping() {
        let response = respond(|frames| async move {
            let mut pings = Pings { connection: None, every: Duration::from_millis(1) };
            pings.until(&frames, std::future::pending::<()>()).await;
        });
        let mut body = response.into_body();
        for _ in 0..2 {
            let frame = body.frame().await.expect("a frame").expect("no error");
            assert_eq!(frame.into_data().expect("data"), ": ping\n\n");
        }
    }
}
