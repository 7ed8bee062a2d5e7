//! What every request passes before a route: request id, panic guard, Host, CORS, Origin, key, drain.

use super::Context;
use super::accept::{Lifecycle, Peer};
use super::error::{ApiError, ErrorCode, shown};
use super::metrics::route_label;
use axum::body::Body;
use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode, Version, header};
use axum::middleware::Next;
use axum::response::IntoResponse;
use std::future::Future;
use std::net::{IpAddr, Ipv4Addr};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context as TaskContext, Poll};
use std::time::Instant;
use tracing::Instrument;

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const REQUEST_ID_BYTES_MAX: usize = 128;
/// Open without a key: probes of load balancers.
const OPEN_ROUTES: [&str; 6] = ["/health", "/v1/health", "/ready", "/v1/ready", "/live", "/v1/live"];
const CORS_HEADERS: &str = "authorization, content-type, x-api-key, x-request-id, x-demeanor-steering, \
    x-demeanor-persona, x-demeanor-user";
const CORS_EXPOSED: &str = "x-request-id, x-demeanor-fingerprint, x-demeanor-persona, x-demeanor-warnings, \
    x-demeanor-probe, retry-after";

/// The outermost layer: everything below answers with a request id, and no panic leaves it.
pub async fn outermost(State(context): State<Arc<Context>>, request: Request, next: Next) -> Response<Body> {
    let started = Instant::now();
    let id = request_id(request.headers());
    let origin = allowed_origin(&context, request.headers());
    let method = request.method().clone();
    let route = route_label(request.extensions().get::<MatchedPath>().map(MatchedPath::as_str));
    // At the level of errors, so that every line of the log that a request causes carries its id.
    let span = tracing::error_span!("request", id = id.to_str().unwrap_or("-"));
    let guarded = Guarded(Box::pin(admit(context.clone(), request, next))).instrument(span.clone());
    let mut response = guarded.await.unwrap_or_else(IntoResponse::into_response);
    if let Some(origin) = origin {
        let headers = response.headers_mut();
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static(CORS_EXPOSED));
        headers.append(header::VARY, HeaderValue::from_static("origin"));
    }
    let status = response.status();
    context.metrics.count_request(route, status.as_u16());
    let ms = started.elapsed().as_millis() as u64;
    span.in_scope(|| tracing::info!(%method, route, status = status.as_u16(), ms, "answered"));
    mark(&mut response, id);
    response
}

/// Refuses what must not reach a route.
async fn admit(context: Arc<Context>, request: Request, next: Next) -> Response<Body> {
    let checked = check_host(&context, &request).and_then(|()| check_preflight(&context, &request)).and_then(
        |preflight| match preflight {
            Some(response) => Ok(Some(response)),
            None => check_origin(&context, &request)
                .and_then(|()| check_key(&context, &request))
                .and_then(|()| check_drain(&request))
                .map(|()| None),
        },
    );
    match checked {
        Ok(Some(response)) => response,
        Ok(None) => next.run(request).await,
        Err(error) => error.into_response(),
    }
}

/// Sets the request id of a response.
pub fn mark(response: &mut Response<Body>, id: HeaderValue) {
    response.headers_mut().insert(REQUEST_ID, id);
}

trait AsText {
    fn text(&self) -> &str;
}

impl AsText for HeaderValue {
    fn text(&self) -> &str {
        self.to_str().unwrap_or_default()
    }
}

/// The client's id when it is 1 to 128 visible ASCII characters, else a fresh one.
fn request_id(headers: &HeaderMap) -> HeaderValue {
    match headers.get(&REQUEST_ID) {
        Some(id)
            if (1..=REQUEST_ID_BYTES_MAX).contains(&id.len())
                && id.as_bytes().iter().all(u8::is_ascii_graphic) =>
        {
            id.clone()
        }
        _ => fresh_request_id(),
    }
}

/// `req_` and 16 random hex digits.
pub fn fresh_request_id() -> HeaderValue {
    let text = format!("req_{:016x}", super::random_u64());
    HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static("req_0"))
}

// ---- Host ----

/// DNS rebinding: a page of some other site may make a browser call us under its own name. Addresses cannot be
/// rebound, so every literal address is allowed; names must be known.
fn check_host(context: &Context, request: &Request) -> Result<(), ApiError> {
    let mut hosts = request.headers().get_all(header::HOST).iter();
    let invalid = |message: &str| Err(ApiError::new(ErrorCode::HostMissing, message));
    let host = match (hosts.next(), hosts.next()) {
        (Some(_), Some(_)) => return invalid("the request has two Host headers"),
        (Some(host), None) => host.text(),
        (None, _) if request.version() < Version::HTTP_11 => return Ok(()),
        (None, _) => return invalid("the request has no Host header"),
    };
    let host = request.uri().authority().map_or(host, |authority| authority.as_str());
    let Some(name) = host_name(host) else {
        return invalid("the Host header is not a host name with an optional port");
    };
    if is_known_host(context, name) {
        return Ok(());
    }
    Err(ApiError::new(
        ErrorCode::WrongHost,
        format!("the host `{}` is not one of this server's; hint: add it with --allowed-host", shown(name)),
    ))
}

/// `name[:port]` or `[v6][:port]` without the port.
fn host_name(host: &str) -> Option<&str> {
    let (name, port) = match host.strip_prefix('[') {
        Some(rest) => {
            let (name, tail) = rest.split_once(']')?;
            (name, tail)
        }
        None => host.find(':').map_or((host, ""), |at| host.split_at(at)),
    };
    let port_ok = port.is_empty()
        || port.strip_prefix(':').is_some_and(|digits| !digits.is_empty() && digits.parse::<u16>().is_ok());
    let name_ok = !name.is_empty()
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_' | b':'));
    (port_ok && name_ok).then_some(name)
}

fn is_known_host(context: &Context, name: &str) -> bool {
    let name = name.trim_end_matches('.');
    name.parse::<IpAddr>().is_ok()
        || name.eq_ignore_ascii_case("localhost")
        || name.to_ascii_lowercase().ends_with(".localhost")
        || name.eq_ignore_ascii_case(&context.settings.host)
        || context.settings.allowed_hosts.iter().any(|host| name.eq_ignore_ascii_case(host))
}

// ---- CORS ----

/// The request's origin when the operator named it.
fn allowed_origin(context: &Context, headers: &HeaderMap) -> Option<HeaderValue> {
    let origin = headers.get(header::ORIGIN)?;
    is_named_origin(context, origin.text()).then(|| origin.clone())
}

fn is_named_origin(context: &Context, origin: &str) -> bool {
    context.settings.cors_origins.iter().any(|known| known.trim_end_matches('/') == origin)
}

/// Answers a preflight; `None` when the request is not one.
fn check_preflight(context: &Context, request: &Request) -> Result<Option<Response<Body>>, ApiError> {
    let headers = request.headers();
    let asks =
        headers.contains_key(header::ORIGIN) && headers.contains_key(header::ACCESS_CONTROL_REQUEST_METHOD);
    if request.method() != Method::OPTIONS || !asks {
        return Ok(None);
    }
    if allowed_origin(context, headers).is_none() {
        return Err(origin_refused());
    }
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::NO_CONTENT;
    for (name, value) in [
        (header::ACCESS_CONTROL_ALLOW_METHODS, "GET, POST, PUT, DELETE, OPTIONS"),
        (header::ACCESS_CONTROL_ALLOW_HEADERS, CORS_HEADERS),
        (header::ACCESS_CONTROL_MAX_AGE, "600"),
    ] {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    Ok(Some(response))
}

fn origin_refused() -> ApiError {
    let message =
        "this origin may not call this server from a browser; hint: --cors-origin names those that may";
    ApiError::new(ErrorCode::OriginRefused, message)
}

/// A page of some other site can make a browser send forms and uploads here without asking first. Browsers say where
/// such a request comes from, so one that may change something must come from a named origin or from this server's
/// own pages. Clients that are no browsers send no Origin.
fn check_origin(context: &Context, request: &Request) -> Result<(), ApiError> {
    if matches!(*request.method(), Method::GET | Method::HEAD | Method::OPTIONS) {
        return Ok(());
    }
    let headers = request.headers();
    let host = headers.get(header::HOST).map(AsText::text);
    let host = request.uri().authority().map(|authority| authority.as_str()).or(host).unwrap_or_default();
    let mut origins = headers.get_all(header::ORIGIN).iter();
    let allowed =
        origins.all(|origin| is_named_origin(context, origin.text()) || is_own_origin(origin.text(), host));
    if allowed { Ok(()) } else { Err(origin_refused()) }
}

/// Whether an origin is where `host` (name and port of the Host header) leads to.
fn is_own_origin(origin: &str, host: &str) -> bool {
    let (authority, default_port) = match origin.split_once("://") {
        Some(("http", authority)) => (authority, ":80"),
        Some(("https", authority)) => (authority, ":443"),
        _ => return false,
    };
    let bare = |name: &str| name.strip_suffix(default_port).unwrap_or(name).to_ascii_lowercase();
    !authority.is_empty() && bare(authority) == bare(host)
}

// ---- key, drain ----

fn check_key(context: &Context, request: &Request) -> Result<(), ApiError> {
    if OPEN_ROUTES.contains(&request.uri().path()) {
        return Ok(());
    }
    let peer =
        request.extensions().get::<Peer>().map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |peer| peer.0.ip());
    context.keys.check(request.headers(), peer)
}

fn check_drain(request: &Request) -> Result<(), ApiError> {
    let draining = request.extensions().get::<Lifecycle>().is_some_and(Lifecycle::draining);
    if draining && !OPEN_ROUTES.contains(&request.uri().path()) && request.uri().path() != "/metrics" {
        return Err(ApiError::new(ErrorCode::ShuttingDown, "the server is shutting down"));
    }
    Ok(())
}

/// A future whose panic becomes a 500; the message stays in the log.
struct Guarded<F>(Pin<Box<F>>);

impl<F: Future<Output = Response<Body>>> Future for Guarded<F> {
    type Output = Result<Response<Body>, ApiError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<Self::Output> {
        let future = &mut self.0;
        match catch_unwind(AssertUnwindSafe(|| pin!(future.as_mut()).poll(cx))) {
            Ok(Poll::Pending) => Poll::Pending,
            Ok(Poll::Ready(response)) => Poll::Ready(Ok(response)),
            Err(_) => Poll::Ready(Err(ApiError::internal("a request handler panicked"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_names() {
        let table = [
            ("localhost:8080", Some("localhost")),
            ("[::1]:8080", Some("::1")),
            ("[::1]", Some("::1")),
            ("127.0.0.1", Some("127.0.0.1")),
            ("127.0.0.1@evil", None),
            ("a:b", None),
            ("a:", None),
            ("", None),
            ("[::1", None),
            ("a b", None),
        ];
        for (host, name) in table {
            assert_eq!(host_name(host), name, "{host}");
        }
    }

    #[test]
    fn own_origins() {
        let table = [
            ("http://127.0.0.1:8080", "127.0.0.1:8080", true),
            ("http://LocalHost", "localhost", true),
            ("http://localhost", "localhost:80", true),
            ("https://a.example", "a.example:443", true),
            ("http://[::1]:8080", "[::1]:8080", true),
            ("http://localhost:3000", "localhost:8080", false),
            ("https://localhost", "localhost:80", false),
            ("http://localhost.evil.example:8080", "localhost:8080", false),
            ("https://evil.example", "localhost:8080", false),
            ("null", "null", false),
            ("", "", false),
            ("http://", "", false),
            ("file://", "", false),
        ];
        for (origin, host, own) in table {
            assert_eq!(is_own_origin(origin, host), own, "{origin} {host}");
        }
    }

    #[test]
    fn request_ids_are_visible_ascii_or_fresh() {
        let with = |value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(REQUEST_ID, HeaderValue::from_str(value).expect("a header value"));
            request_id(&headers)
        };
        assert_eq!(with("abc-1"), "abc-1");
        assert!(with("a b").text().starts_with("req_"));
        assert!(with(&"x".repeat(129)).text().starts_with("req_"));
        assert!(request_id(&HeaderMap::new()).text().starts_with("req_"));
    }
}
