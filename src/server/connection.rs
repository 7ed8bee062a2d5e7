//! One client's socket as the HTTP reader sees it: timeouts, a write-stall limit, and telling a client that only closed
//! its sending side from one that is gone.
//!
//! The end of a client's bytes (FIN) looks the same for a half-close, after which the whole answer is still wanted, and
//! for a full close, after which nothing is. So while an answer is due, the end is not passed on. Instead something
//! harmless is sent: `102 Processing` before the head of a plain answer (HTTP/1.1 clients skip 1xx), a comment line in
//! a stream. A socket that is gone answers that with a reset, which ends the connection and with it the sequence.
//!
//! The reader does not read on while bytes behind the request (a stray line end, a pipelined request) wait in its buffer,
//! so it would not come upon the end. It flushes in any case, so the socket is watched for the end there.

use super::error::{ApiError, ErrorCode};
use crate::limits;
use axum::http::StatusCode;
use std::future::Future;
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf, Ready};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::Notify;
use tokio::time::{Instant, Sleep, sleep};

/// What the connection is doing; a request in progress protects it from being closed at the end of the client's bytes.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum Phase {
    /// Between requests, or reading a head.
    Idle = 0,
    /// A request has been read; nothing of the answer has been written. 1xx may be sent.
    Waiting = 1,
    /// The same for HTTP/1.0, which knows no 1xx.
    WaitingOld = 2,
    /// The answer is being written.
    Answering = 3,
    /// The last of the answer is in the writer's buffer, not all of it in the socket.
    Flushing = 4,
}

/// Shared by the socket, the service and the answer's body.
#[derive(Default)]
pub struct ConnectionState {
    phase: AtomicU8,
    has_ended: AtomicBool,
    ended: Notify,
}

impl ConnectionState {
    fn phase(&self) -> Phase {
        match self.phase.load(Ordering::Acquire) {
            1 => Phase::Waiting,
            2 => Phase::WaitingOld,
            3 => Phase::Answering,
            4 => Phase::Flushing,
            _ => Phase::Idle,
        }
    }

    fn enter(&self, phase: Phase) {
        self.phase.store(phase as u8, Ordering::Release);
    }

    /// A request's head is complete.
    pub fn begin(&self, knows_interim: bool) {
        self.enter(if knows_interim { Phase::Waiting } else { Phase::WaitingOld });
    }

    /// Its answer is complete. The end of the client's bytes is held back until all of it has been written: whoever
    /// closed the sending side still reads.
    pub fn end(&self) {
        self.enter(Phase::Flushing);
    }

    /// The writer has nothing left. `true` where that ends an answer.
    fn flushed(&self) -> bool {
        let (from, to) = (Phase::Flushing as u8, Phase::Idle as u8);
        self.phase.compare_exchange(from, to, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }

    /// Resolves when the client's bytes ended while an answer is due.
    pub async fn client_ended(&self) {
        loop {
            let mut ended = pin!(self.ended.notified());
            ended.as_mut().enable();
            if self.has_ended.load(Ordering::Acquire) {
                return;
            }
            ended.await;
        }
    }
}

/// Resolves when something becomes known of the socket.
type Watch = Pin<Box<dyn Future<Output = io::Result<Ready>> + Send>>;

/// What tells of the end of the client's bytes, read or not. "Readable" would also, but tells of every byte.
#[cfg(any(target_os = "linux", target_os = "android"))]
const END: Interest = Interest::PRIORITY;
/// Elsewhere only reading tells.
#[cfg(not(any(target_os = "linux", target_os = "android")))]
const END: Interest = Interest::ERROR;

fn watch(read: &Arc<OwnedReadHalf>, interest: Interest) -> Watch {
    let read = read.clone();
    Box::pin(async move { read.ready(interest).await })
}

/// The socket with its timers.
pub struct Connection {
    read: Arc<OwnedReadHalf>,
    write: OwnedWriteHalf,
    state: Arc<ConnectionState>,
    /// Resolves at the end of the client's bytes.
    end: Watch,
    /// Set when the client's bytes ended while an answer was due; resolves when the socket is gone.
    gone: Option<Watch>,
    /// Bytes of the interim answer still to be sent.
    interim: &'static [u8],
    /// An answer of ours that replaces one hyper made up, and how much of it is sent.
    replacement: Option<(Vec<u8>, usize)>,
    /// Runs while a head is awaited.
    head_timer: Pin<Box<Sleep>>,
    head_started: bool,
    was_busy: bool,
    /// Runs while a write makes no progress.
    stall_timer: Option<Pin<Box<Sleep>>>,
}

const INTERIM: &[u8] = b"HTTP/1.1 102 Processing\r\n\r\n";
const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

impl Connection {
    pub fn new(stream: TcpStream, state: Arc<ConnectionState>) -> Connection {
        let (read, write) = stream.into_split();
        let read = Arc::new(read);
        Connection {
            end: watch(&read, END),
            read,
            write,
            state,
            gone: None,
            interim: &[],
            replacement: None,
            head_timer: Box::pin(sleep(Duration::from_secs(limits::HEADER_READ_SECONDS_MAX))),
            head_started: true,
            was_busy: false,
            stall_timer: None,
        }
    }

    /// Fails when a head has been awaited too long: 10 s for a started (or the first) one, else the idle time.
    fn check_head_timer(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        if self.state.phase() != Phase::Idle {
            self.was_busy = true;
            return Ok(());
        }
        if self.was_busy {
            self.was_busy = false;
            self.head_started = false;
            self.head_timer.as_mut().reset(Instant::now() + Duration::from_secs(limits::IDLE_SECONDS_MAX));
        }
        match self.head_timer.as_mut().poll(cx) {
            Poll::Ready(()) => Err(io::Error::new(io::ErrorKind::TimedOut, "no request head in time")),
            Poll::Pending => Ok(()),
        }
    }

    /// The first bytes of a head start its own, shorter time.
    fn note_bytes(&mut self) {
        if self.state.phase() == Phase::Idle && !self.head_started {
            self.head_started = true;
            let limit = Duration::from_secs(limits::HEADER_READ_SECONDS_MAX);
            self.head_timer.as_mut().reset(Instant::now() + limit);
        }
    }

    /// The client's bytes ended. `true` when that must not be passed on yet.
    fn hold_end(&mut self) -> bool {
        let phase = self.state.phase();
        if matches!(phase, Phase::Idle | Phase::WaitingOld) {
            return false;
        }
        if self.gone.is_none() {
            if phase == Phase::Waiting {
                self.interim = INTERIM;
            }
            self.state.has_ended.store(true, Ordering::Release);
            self.state.ended.notify_waiters();
            self.gone = Some(watch(&self.read, Interest::ERROR));
        }
        true
    }

    /// After the end of the client's bytes: fails when the socket is gone.
    fn check_gone(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        let is_gone = self.gone.as_mut().is_some_and(|gone| gone.as_mut().poll(cx).is_ready());
        if is_gone { Err(io::ErrorKind::ConnectionReset.into()) } else { Ok(()) }
    }

    /// Bytes that the client has sent; none at their end.
    fn poll_receive(&mut self, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let stream: &TcpStream = (*self.read).as_ref();
        loop {
            ready!(stream.poll_read_ready(cx))?;
            match stream.try_read_buf(buffer) {
                Ok(_) => return Poll::Ready(Ok(())),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }

    /// Sends the interim answer, unless the real one has begun.
    fn send_interim(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        if self.state.phase() != Phase::Waiting && self.interim.len() == INTERIM.len() {
            self.interim = &[];
        }
        while !self.interim.is_empty() {
            let Poll::Ready(n) = Pin::new(&mut self.write).poll_write(cx, self.interim)? else { break };
            self.interim = self.interim.get(n..).unwrap_or_default();
        }
        Ok(())
    }

    /// Writes with the stall limit.
    fn poll_send(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if let Poll::Ready(n) = Pin::new(&mut self.write).poll_write(cx, bytes)? {
            self.stall_timer = None;
            return Poll::Ready(Ok(n));
        }
        let limit = Duration::from_secs(limits::WRITE_STALL_SECONDS_MAX);
        let timer = self.stall_timer.get_or_insert_with(|| Box::pin(sleep(limit)));
        ready!(timer.as_mut().poll(cx));
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the reader takes nothing")))
    }

    /// Sends the replacement, then reports `given` bytes as written.
    fn poll_replacement(&mut self, cx: &mut Context<'_>, given: usize) -> Poll<io::Result<usize>> {
        while let Some((bytes, sent)) = self.replacement.take() {
            if sent >= bytes.len() {
                return Poll::Ready(Ok(given));
            }
            let progress = self.poll_send(cx, bytes.get(sent..).unwrap_or_default());
            let sent = sent + if let Poll::Ready(Ok(n)) = &progress { *n } else { 0 };
            self.replacement = Some((bytes, sent));
            ready!(progress)?;
        }
        Poll::Ready(Ok(given))
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        this.check_head_timer(cx)?;
        let before = buffer.filled().len();
        ready!(this.poll_receive(cx, buffer))?;
        if buffer.filled().len() > before {
            this.note_bytes();
        } else if buffer.remaining() > 0 && this.hold_end() {
            // Until the answer is complete, when the reader asks again.
            this.check_gone(cx)?;
            return Poll::Pending;
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Connection {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.replacement.is_some() {
            return this.poll_replacement(cx, bytes.len());
        }
        if let Some(answer) = automatic_answer(bytes) {
            this.replacement = Some((answer, 0));
            return this.poll_replacement(cx, bytes.len());
        }
        // An interim answer that is partly out must be finished before anything else.
        while !this.interim.is_empty() && this.interim.len() < INTERIM.len() {
            let n = ready!(this.poll_send(cx, this.interim))?;
            this.interim = this.interim.get(n..).unwrap_or_default();
        }
        if bytes != CONTINUE && matches!(this.state.phase(), Phase::Waiting | Phase::WaitingOld) {
            this.state.enter(Phase::Answering);
        }
        this.poll_send(cx, bytes)
    }

    /// Nothing is buffered here, and the reader comes here with an empty buffer of its own. It flushes whenever it has looked for news and has nothing left to write, so
    /// this is where the end of the client's bytes is noticed and the interim answer is sent.
    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.state.flushed() {
            // The reader must look again: for the end that was held back, and to have its timer set.
            cx.waker().wake_by_ref();
        }
        if this.state.phase() == Phase::Idle {
            return Poll::Ready(Ok(()));
        }
        if this.gone.is_none() && this.end.as_mut().poll(cx).is_ready() && !this.hold_end() {
            // HTTP/1.0, which knows no interim answer. A new watch: a finished one must not be polled again.
            this.end = Box::pin(std::future::pending());
        }
        this.send_interim(cx)?;
        this.check_gone(cx)?;
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().write).poll_shutdown(cx)
    }
}

/// hyper answers a head it cannot read by itself, without a body. Such an answer is recognised (it is one whole head,
/// an error, and lacks the request id that all of ours carry) and replaced by one in the form of all other errors.
fn automatic_answer(bytes: &[u8]) -> Option<Vec<u8>> {
    let status: u16 = std::str::from_utf8(bytes.strip_prefix(b"HTTP/1.1 ")?.get(..3)?).ok()?.parse().ok()?;
    let head = std::str::from_utf8(bytes).ok()?;
    if !matches!(status, 400 | 414 | 431) || !head.ends_with("\r\n\r\n") || head.contains("x-request-id") {
        return None;
    }
    let (code, message) = match status {
        414 => (ErrorCode::BadRequest, "the request line is too long".to_string()),
        431 => (
            ErrorCode::BadRequest,
            format!(
                "the request head is too large; allowed {} bytes in {} header lines",
                limits::HEADER_BYTES_MAX,
                limits::HEADER_LINES_MAX
            ),
        ),
        _ => (ErrorCode::BadRequest, "the request is not valid HTTP/1.1".to_string()),
    };
    let body = ApiError::new(code, message).body().to_string();
    let reason = StatusCode::from_u16(status).ok()?.canonical_reason().unwrap_or("Error");
    let id = super::layers::fresh_request_id();
    let id = id.to_str().unwrap_or_default();
    let head = format!(
        "HTTP/1.1 {status} {reason}\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\nx-request-id: {id}\r\n\r\n",
        body.len()
    );
    Some((head + &body).into_bytes())
}
