//! The transport over real sockets, with a router that needs no model.

use super::*;
use crate::server::sse::{self, Pings};
use axum::extract::State;
use axum::routing::{get, post};
use axum::{Extension, Json};
use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream as Client};
use std::sync::Mutex;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};

/// What tests see and steer of the handlers.
#[derive(Clone)]
struct Probe {
    /// A handler of `/slow` has begun.
    begun: mpsc::UnboundedSender<()>,
    /// ... and has been dropped before or after its answer.
    dropped: mpsc::UnboundedSender<()>,
    /// Lets one `/slow` handler go on.
    release: Arc<Notify>,
}

struct OnDrop(mpsc::UnboundedSender<()>);

impl Drop for OnDrop {
    fn drop(&mut self) {
        let _ = self.0.send(());
    }
}

async fn slow(State(probe): State<Probe>) -> &'static str {
    let _signal = OnDrop(probe.dropped.clone());
    let _ = probe.begun.send(());
    probe.release.notified().await;
    "done"
}

/// A stream that never says anything but pings when the client's bytes end.
async fn quiet_stream(
    State(probe): State<Probe>,
    Extension(state): Extension<Arc<ConnectionState>>,
) -> Response<Body> {
    let mut pings = Pings::new(Some(state));
    sse::respond(|frames| async move {
        let _signal = OnDrop(probe.dropped.clone());
        frames.data(&serde_json::json!("first")).await;
        let _ = probe.begun.send(());
        pings.until(&frames, probe.release.notified()).await;
        frames.done().await;
    })
}

struct Server {
    address: std::net::SocketAddr,
    begun: mpsc::UnboundedReceiver<()>,
    dropped: mpsc::UnboundedReceiver<()>,
    release: Arc<Notify>,
    stop: Option<oneshot::Sender<()>>,
    task: tokio::task::JoinHandle<()>,
}

impl Server {
    async fn start() -> Server {
        let (begun_sender, begun) = mpsc::unbounded_channel();
        let (dropped_sender, dropped) = mpsc::unbounded_channel();
        let release = Arc::new(Notify::new());
        let probe = Probe { begun: begun_sender, dropped: dropped_sender, release: release.clone() };
        let router = Router::new()
            .route("/slow", get(slow).post(slow))
            .route("/stream", get(quiet_stream))
            .route("/echo", post(|body: String| async move { body }))
            .route("/draining", get(|Extension(l): Extension<Lifecycle>| async move { Json(l.draining()) }))
            .with_state(probe);
        let listener = bind("127.0.0.1", 0).await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let (stop, stopped) = oneshot::channel::<()>();
        let shutdown = async {
            let _ = stopped.await;
        };
        let task = tokio::spawn(serve(listener, router, shutdown));
        Server { address, begun, dropped, release, stop: Some(stop), task }
    }

    fn connect(&self) -> Client {
        let client = Client::connect(self.address).expect("connects");
        client.set_read_timeout(Some(Duration::from_secs(20))).expect("a timeout");
        client
    }

    fn send(&self, bytes: &[u8]) -> Client {
        let mut client = self.connect();
        client.write_all(bytes).expect("sends");
        client
    }
}

/// Everything until the server closes.
async fn read_all(mut client: Client) -> String {
    let read = tokio::task::spawn_blocking(move || {
        let mut bytes = Vec::new();
        // A reset after the answer is fine: what came before it counts.
        let _ = client.read_to_end(&mut bytes);
        String::from_utf8_lossy(&bytes).into_owned()
    });
    read.await.expect("reads")
}

const SLOW: &[u8] = b"GET /slow HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_half_close_still_gets_the_whole_answer() {
    let mut server = Server::start().await;
    let client = server.send(SLOW);
    server.begun.recv().await.expect("begun");
    client.shutdown(Shutdown::Write).expect("half-close");
    server.release.notify_one();
    let text = read_all(client).await;
    assert!(text.ends_with("done"), "{text}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bytes_that_end_with_the_request_are_a_half_close_too() {
    let mut server = Server::start().await;
    for _ in 0..20 {
        let client = server.send(SLOW);
        client.shutdown(Shutdown::Write).expect("half-close");
        server.begun.recv().await.expect("begun");
        server.release.notify_one();
        let text = read_all(client).await;
        assert!(text.ends_with("done"), "{text}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_is_gone_drops_its_handler() {
    let mut server = Server::start().await;
    let client = server.send(SLOW);
    server.begun.recv().await.expect("begun");
    drop(client);
    // The handler is never released: only the disconnect can drop it.
    server.dropped.recv().await.expect("dropped");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_is_gone_drops_its_stream() {
    let mut server = Server::start().await;
    let client = server.send(b"GET /stream HTTP/1.1\r\nhost: localhost\r\n\r\n");
    server.begun.recv().await.expect("begun");
    drop(client);
    server.dropped.recv().await.expect("dropped");
}

/// Bytes behind the request keep hyper from reading on, so it does not come upon the end by itself.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_is_gone_is_noticed_behind_surplus_bytes() {
    let mut server = Server::start().await;
    let slow: &[u8] = b"POST /slow HTTP/1.1\r\nhost: localhost\r\ncontent-length: 2\r\n\r\n{}";
    let stream: &[u8] = b"GET /stream HTTP/1.1\r\nhost: localhost\r\n\r\n";
    let pipelined = b"GET /draining HTTP/1.1\r\nhost: localhost\r\n\r\n".repeat(1000);
    for request in [slow, stream] {
        for surplus in [b"\r\n", &pipelined[..]] {
            let client = server.send(&[request, surplus].concat());
            server.begun.recv().await.expect("begun");
            drop(client);
            server.dropped.recv().await.expect("dropped");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_half_closed_client_gets_all_its_pipelined_answers() {
    let mut server = Server::start().await;
    let rest = b"GET /draining HTTP/1.1\r\nhost: localhost\r\n\r\n".repeat(1000);
    let client = server.send(&[b"GET /slow HTTP/1.1\r\nhost: localhost\r\n\r\n", &rest[..]].concat());
    server.begun.recv().await.expect("begun");
    client.shutdown(Shutdown::Write).expect("half-close");
    server.release.notify_one();
    let text = read_all(client).await;
    assert_eq!(text.matches("false").count(), 1000);
    assert!(text.contains("done") && text.ends_with("false"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_half_closed_client_keeps_its_stream() {
    let mut server = Server::start().await;
    let client = server.send(b"GET /stream HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
    server.begun.recv().await.expect("begun");
    client.shutdown(Shutdown::Write).expect("half-close");
    server.release.notify_one();
    let text = read_all(client).await;
    assert!(text.contains("data: \"first\"") && text.contains("data: [DONE]"), "{text}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hyper_s_own_refusals_are_json_with_a_request_id() {
    let server = Server::start().await;
    let many = format!("GET / HTTP/1.1\r\nhost: localhost\r\n{}\r\n", "x-i: 1\r\n".repeat(200));
    let large = format!("GET / HTTP/1.1\r\nhost: localhost\r\nx: {}\r\n\r\n", "a".repeat(40_000));
    let long = format!("GET /{} HTTP/1.1\r\nhost: localhost\r\n\r\n", "a".repeat(70_000));
    let table: [(&[u8], &[&str]); 6] = [
        (b"GET / HTTP/9.9\r\n\r\n", &["400"]),
        (b"nonsense\r\n\r\n", &["400"]),
        (b"GET / HTTP/1.1\r\nhost : x\r\n\r\n", &["400"]),
        (many.as_bytes(), &["431"]),
        (large.as_bytes(), &["431"]),
        (long.as_bytes(), &["414", "431"]),
    ];
    for (bytes, statuses) in table {
        let mut client = server.connect();
        // The server may answer and close before everything is sent.
        let _ = client.write_all(bytes);
        let text = read_all(client).await;
        let shown = String::from_utf8_lossy(&bytes[..bytes.len().min(40)]);
        let status = text.split(' ').nth(1).unwrap_or_default();
        assert!(statuses.contains(&status), "{shown}: {text}");
        assert!(text.contains("\"error\"") && text.contains("x-request-id: req_"), "{shown}: {text}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn http_2_is_not_spoken() {
    let server = Server::start().await;
    let text = read_all(server.send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")).await;
    assert!(text.is_empty() || text.starts_with("HTTP/1.1 400"), "{text}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_second_request_is_smuggled() {
    let mut server = Server::start().await;
    let smuggled: &[u8] = b"POST /echo HTTP/1.1\r\nhost: localhost\r\ncontent-length: 4\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\nGET /slow HTTP/1.1\r\nhost: localhost\r\n\r\n";
    let twice: &[u8] = b"POST /echo HTTP/1.1\r\nhost: localhost\r\ncontent-length: 4\r\ncontent-length: 5\r\n\r\nabcdeGET /slow HTTP/1.1\r\nhost: localhost\r\n\r\n";
    let huge: &[u8] =
        b"POST /echo HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\nFFFFFFFFFFFFFFFFF\r\n";
    for bytes in [smuggled, twice, huge] {
        let text = read_all(server.send(bytes)).await;
        assert!(!text.contains("done"), "{text}");
    }
    assert!(server.begun.try_recv().is_err(), "a smuggled request ran");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_are_kept_alive() {
    let server = Server::start().await;
    let request = b"GET /draining HTTP/1.1\r\nhost: localhost\r\n\r\n";
    let mut client = server.send(request);
    let mut buffer = [0; 1024];
    for _ in 0..3 {
        let n = client.read(&mut buffer).expect("reads");
        assert!(buffer[..n].ends_with(b"false"), "{}", String::from_utf8_lossy(&buffer[..n]));
        client.write_all(request).expect("sends");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn shutdown_finishes_what_runs_and_then_ends() {
    let mut server = Server::start().await;
    let client = server.send(SLOW);
    server.begun.recv().await.expect("begun");
    server.stop.take().expect("once").send(()).expect("listens");
    // New connections are still answered, so that a client is told rather than refused.
    let mut text = String::new();
    while !text.ends_with("true") {
        let request = b"GET /draining HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
        text = read_all(server.send(request)).await;
        assert!(text.starts_with("HTTP/1.1 200"), "{text}");
    }
    assert!(!server.task.is_finished());
    server.release.notify_one();
    assert!(read_all(client).await.ends_with("done"));
    server.task.await.expect("serve ends by itself");
}

#[tokio::test]
async fn before_the_model_is_there_the_server_says_loading() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let front = Front::loading();
    let server = serve(listener, front.clone(), std::future::pending());
    let clients = async {
        let seen = Mutex::new(Vec::new());
        for (path, open) in [("/health", false), ("/live", false), ("/v1/live", false), ("/health", true)] {
            if open {
                front.open(Router::new().route("/health", get(|| async { "open" })));
            }
            let request = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
            let mut client = Client::connect(address).expect("connects");
            client.write_all(request.as_bytes()).expect("sends");
            let text = read_all(client).await;
            seen.lock().expect("no panic").push(text);
        }
        seen.into_inner().expect("no panic")
    };
    let seen = tokio::select! {
        () = server => panic!("the server ended"),
        seen = clients => seen,
    };
    assert!(seen[0].starts_with("HTTP/1.1 503") && seen[0].contains("Loading model"), "{}", seen[0]);
    assert!(
        seen[0].contains("\"type\":\"unavailable_error\"") && seen[0].contains("retry-after: 2"),
        "{}",
        seen[0]
    );
    for live in &seen[1..3] {
        assert!(live.starts_with("HTTP/1.1 200"), "{live}");
    }
    assert!(seen[3].ends_with("open"), "{}", seen[3]);
}
