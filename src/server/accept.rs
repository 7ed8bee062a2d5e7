//! The accept loop: connections, their limits, and an orderly end.

use super::connection::{Connection, ConnectionState};
use super::error::{ApiError, ErrorCode};
use crate::limits;
use axum::Router;
use axum::body::{Body, Bytes, HttpBody};
use axum::http::{Request, Response, Version};
use axum::response::IntoResponse;
use hyper::body::{Frame, Incoming, SizeHint};
use hyper_util::rt::{TokioIo, TokioTimer};
use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{Notify, Semaphore, watch};
use tokio::task::JoinSet;
use tower::ServiceExt;

/// The router, once the model is loaded; until then every request is answered 503 in llama.cpp's words.
#[derive(Clone, Default)]
pub struct Front(Arc<OnceLock<Router>>);

impl Front {
    /// A front that is still loading.
    pub fn loading() -> Front {
        Front::default()
    }

    /// Opens the routes. A second call changes nothing.
    pub fn open(&self, router: Router) {
        let _ = self.0.set(router);
    }
}

impl From<Router> for Front {
    fn from(router: Router) -> Front {
        let front = Front::loading();
        front.open(router);
        front
    }
}

/// Known to every request as an extension: how the server as a whole stands.
#[derive(Clone, Default)]
pub struct Lifecycle(Arc<LifecycleInner>);

#[derive(Default)]
struct LifecycleInner {
    draining: AtomicBool,
    /// Requests whose answer is not complete.
    active: AtomicUsize,
    quiet: Notify,
}

impl Lifecycle {
    /// Whether the server is shutting down and takes no new work.
    pub fn draining(&self) -> bool {
        self.0.draining.load(Ordering::Acquire)
    }

    fn leave(&self) {
        if self.0.active.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.0.quiet.notify_one();
        }
    }

    /// Waits until no request is in progress.
    async fn quiet(&self) {
        while self.0.active.load(Ordering::Acquire) > 0 {
            self.0.quiet.notified().await;
        }
    }
}

/// The peer's address, known to every request as an extension.
#[derive(Clone, Copy, Debug)]
pub struct Peer(pub SocketAddr);

/// A listener for [`serve`] whose connections buffer little: a reader that takes nothing is noticed after so many bytes.
pub async fn bind(host: &str, port: u16) -> io::Result<TcpListener> {
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the host has no address");
    for address in tokio::net::lookup_host((host, port)).await? {
        let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
        socket.set_reuseaddr(true)?;
        socket.set_send_buffer_size(limits::SEND_BUFFER_BYTES)?;
        match socket.bind(address).and_then(|()| socket.listen(limits::CONNECTIONS_MAX as u32)) {
            Ok(listener) => return Ok(listener),
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// Serves until `shutdown` resolves; then new requests are answered 503 while running ones finish, at most
/// [`limits::DRAIN_SECONDS_MAX`]. Dropping the future ends everything at once (a second signal does that).
pub async fn serve(listener: TcpListener, front: impl Into<Front>, shutdown: impl Future<Output = ()>) {
    let front = front.into();
    let lifecycle = Lifecycle::default();
    let (closing, closed) = watch::channel(false);
    let permits = Arc::new(Semaphore::new(limits::CONNECTIONS_MAX));
    let mut connections = JoinSet::new();
    let mut shutdown = pin!(shutdown);
    let mut drained = pin!(drain(lifecycle.clone()));
    let mut running = true;
    loop {
        tokio::select! {
            biased;
            () = &mut shutdown, if running => {
                running = false;
                lifecycle.0.draining.store(true, Ordering::Release);
                let _ = closing.send(true);
            }
            () = &mut drained, if !running => break,
            (stream, peer, permit) = accept(&listener, &permits) => {
                let connection = connect(stream, peer, front.clone(), lifecycle.clone(), closed.clone());
                connections.spawn(async move { connection.await; drop(permit) });
            }
            Some(_) = connections.join_next(), if !connections.is_empty() => {}
        }
    }
    // Answers that are complete may still be in socket buffers of this process.
    let flush = async { while connections.join_next().await.is_some() {} };
    let _ = tokio::time::timeout(Duration::from_millis(500), flush).await;
}

async fn drain(lifecycle: Lifecycle) {
    let limit = Duration::from_secs(limits::DRAIN_SECONDS_MAX);
    if tokio::time::timeout(limit, lifecycle.quiet()).await.is_err() {
        tracing::warn!("requests were still running after {} s; they are cut off", limit.as_secs());
    }
}

type Permit = tokio::sync::OwnedSemaphorePermit;

/// The next connection under the cap. Errors of `accept` (out of file handles, a client already gone) are waited out.
async fn accept(listener: &TcpListener, permits: &Arc<Semaphore>) -> (TcpStream, SocketAddr, Permit) {
    loop {
        let Ok(permit) = permits.clone().acquire_owned().await else { std::future::pending().await };
        match listener.accept().await {
            Ok((stream, peer)) => return (stream, peer, permit),
            Err(error) => {
                tracing::warn!(%error, "accepting a connection failed");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

/// Runs one connection to its end.
async fn connect(
    stream: TcpStream,
    peer: SocketAddr,
    front: Front,
    lifecycle: Lifecycle,
    mut closed: watch::Receiver<bool>,
) {
    let _ = stream.set_nodelay(true);
    let state = Arc::new(ConnectionState::default());
    let io = TokioIo::new(Connection::new(stream, state.clone()));
    let service = hyper::service::service_fn(move |request: Request<Incoming>| {
        // Here and not in the future: the end of the client's bytes may be seen before the future is polled.
        let active = Active::begin(&request, lifecycle.clone(), state.clone());
        answer(request, peer, front.clone(), active)
    });
    // A connection that comes during the shutdown gets one answer.
    let late = *closed.borrow();
    let connection = hyper::server::conn::http1::Builder::new()
        .keep_alive(!late)
        .timer(TokioTimer::new())
        .header_read_timeout(Duration::from_secs(limits::IDLE_SECONDS_MAX))
        .max_headers(limits::HEADER_LINES_MAX)
        .max_buf_size(limits::HEADER_BYTES_MAX)
        .serve_connection(io, service);
    let mut connection = pin!(connection);
    let closing = async {
        if late {
            return std::future::pending().await;
        }
        let _ = closed.wait_for(|closed| *closed).await;
    };
    let end = tokio::select! {
        end = connection.as_mut() => end,
        () = closing => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = end {
        tracing::debug!(%error, "a connection ended early");
    }
}

async fn answer(
    mut request: Request<Incoming>,
    peer: SocketAddr,
    front: Front,
    active: Active,
) -> Result<Response<Counted>, Infallible> {
    request.extensions_mut().insert(Peer(peer));
    request.extensions_mut().insert(active.lifecycle.clone());
    request.extensions_mut().insert(active.state.clone());
    let response = match front.0.get() {
        Some(router) => match router.clone().oneshot(request.map(Body::new)).await {
            Ok(response) => response,
            Err(never) => match never {},
        },
        None => loading(request.uri().path()),
    };
    Ok(response.map(|body| Counted { body, _guard: active }))
}

/// Before the model is there: alive, but not ready.
fn loading(path: &str) -> Response<Body> {
    let mut response = match path {
        "/live" | "/v1/live" => Response::new(Body::from("{\"status\":\"ok\"}")),
        _ => ApiError::new(ErrorCode::Loading, "Loading model").retry_after(2).into_response(),
    };
    super::layers::mark(&mut response, super::layers::fresh_request_id());
    response
}

/// Counts a request while its answer is not complete.
struct Active {
    lifecycle: Lifecycle,
    state: Arc<ConnectionState>,
}

impl Active {
    fn begin(request: &Request<Incoming>, lifecycle: Lifecycle, state: Arc<ConnectionState>) -> Active {
        state.begin(request.version() >= Version::HTTP_11);
        lifecycle.0.active.fetch_add(1, Ordering::AcqRel);
        Active { lifecycle, state }
    }
}

impl Drop for Active {
    fn drop(&mut self) {
        self.state.end();
        self.lifecycle.leave();
    }
}

/// An answer's body; its drop is the end of the request.
struct Counted {
    body: Body,
    _guard: Active,
}

impl HttpBody for Counted {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
#[path = "accept_tests.rs"]
mod tests;
