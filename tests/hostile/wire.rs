//! What HTTP itself is abused with, and what stands before the routes: hosts, keys, paths.

use super::{Given, Row, get};
use crate::harness::request_bytes;
use serde_json::json;

const HOST: &str = "host: localhost\r\n";

fn wire(id: &'static str, input: &str, bytes: impl AsRef<[u8]>, expected: &str) -> Row {
    Row::new(id, input, Given::Bytes(bytes.as_ref().to_vec()), expected)
}

/// A POST to `/tokenize` with these header lines and bytes behind them.
fn framed(id: &'static str, input: &str, headers: &str, body: &str, expected: &str) -> Row {
    let head = format!("POST /tokenize HTTP/1.1\r\n{HOST}content-type: application/json\r\n{headers}\r\n");
    wire(id, input, head + body, expected)
}

fn keyed(
    id: &'static str,
    input: &str,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    expected: &str,
) -> Row {
    let bytes = request_bytes(method, path, headers, b"");
    Row::new(id, format!("with keys: {input}"), Given::Keyed(bytes), expected)
}

pub fn rows() -> Vec<Row> {
    let many = "x-i: 1\r\n".repeat(200);
    let smuggled = format!("0\r\n\r\nGET /v1/models HTTP/1.1\r\n{HOST}\r\n");
    let good = json!({"content": "a"}).to_string();
    let chunk = format!("{:x}\r\n{good}\r\n0\r\n\r\n", good.len());
    let too_long = format!("110000\r\n{}\r\n0\r\n\r\n", " ".repeat(0x11_0000));
    let extended = format!("5;{}\r\nhello\r\n0\r\n\r\n", "x".repeat(40_000));
    let mut rows = vec![
        wire("T001", "HTTP/9.9", format!("GET / HTTP/9.9\r\n{HOST}\r\n"), "400"),
        wire("T002", "a line of 9000 letters", format!("{}\r\n\r\n", "a".repeat(9000)), "400"),
        wire(
            "T002",
            "a path of 70000 bytes",
            format!("GET /{} HTTP/1.1\r\n{HOST}\r\n", "a".repeat(70_000)),
            "414|431|closed",
        ),
        wire(
            "T003",
            "a header of 1 MiB",
            format!("GET / HTTP/1.1\r\n{HOST}x: {}\r\n\r\n", "a".repeat(1 << 20)),
            "431|closed",
        ),
        wire("T004", "200 headers", format!("GET / HTTP/1.1\r\n{HOST}{many}\r\n"), "431"),
        wire("T005", "the preface of HTTP/2", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "400|closed"),
        framed(
            "T006",
            "a length and chunks, a second request behind",
            "content-length: 4\r\ntransfer-encoding: chunked\r\n",
            &smuggled,
            "400",
        ),
        framed("T006", "two lengths", "content-length: 4\r\ncontent-length: 40\r\n", &good, "400"),
        framed("T006", "a list of lengths", "content-length: 13, 40\r\n", &good, "400"),
        framed("", "a negative length", "content-length: -1\r\n", &good, "400"),
        framed("", "a signed length", "content-length: +13\r\n", &good, "400"),
        framed("", "a length of 2^64", "content-length: 18446744073709551616\r\n", &good, "400"),
        framed(
            "",
            "chunks that are not the last coding",
            "transfer-encoding: chunked, gzip\r\n",
            &chunk,
            "400",
        ),
        framed("", "an unknown coding", "transfer-encoding: xchunked\r\n", &chunk, "400"),
        framed(
            "T007",
            "a chunk of FFFFFFFFFFFFFFFFF bytes",
            "transfer-encoding: chunked\r\n",
            "FFFFFFFFFFFFFFFFF\r\nabc",
            "400",
        ),
        framed("T007", "a chunk of -1 bytes", "transfer-encoding: chunked\r\n", "-1\r\nabc", "400"),
        framed(
            "",
            "a chunk with an extension of 40000 bytes",
            "transfer-encoding: chunked\r\n",
            &extended,
            "400",
        ),
        framed("T016", "1.1 MB in chunks", "transfer-encoding: chunked\r\n", &too_long, "413 body_too_large"),
        framed(
            "T017",
            "100-continue and 10 GiB",
            "expect: 100-continue\r\ncontent-length: 10737418240\r\n",
            "",
            "413 body_too_large",
        ),
        framed("", "a body that ends early", "content-length: 100\r\n", &good, "400|408"),
        framed(
            "",
            "a body said to be gzip",
            "content-encoding: gzip\r\ncontent-length: 4\r\n",
            "\x1f\x0b\x08\x01",
            "400|415",
        ),
        wire("", "a header name with a space", format!("GET /live HTTP/1.1\r\n{HOST}x y: 1\r\n\r\n"), "400"),
        wire(
            "",
            "a header value with a zero byte",
            format!("GET /live HTTP/1.1\r\n{HOST}x: a\0b\r\n\r\n"),
            "400",
        ),
        wire("", "a folded header line", format!("GET /live HTTP/1.1\r\n{HOST}x: a\r\n b\r\n\r\n"), "400"),
        wire("", "a method with a zero byte", format!("GE\0T /live HTTP/1.1\r\n{HOST}\r\n"), "400"),
        wire("", "a method in small letters", format!("get /live HTTP/1.1\r\n{HOST}\r\n"), "405"),
        wire("", "a tunnel", "CONNECT localhost:22 HTTP/1.1\r\nhost: localhost:22\r\n\r\n", "400|404|405"),
        wire(
            "",
            "the hello of TLS",
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03abcdefgh\r\n\r\n",
            "400|closed",
        ),
        wire("", "the banner of SSH", "SSH-2.0-OpenSSH_9.2\r\n\r\n", "400"),
        wire(
            "",
            "an upgrade to h2c",
            format!(
                "GET /live HTTP/1.1\r\n{HOST}connection: upgrade, http2-settings\r\nupgrade: h2c\r\nhttp2-settings: AAMAAABk\r\n\r\n"
            ),
            "200",
        ),
        wire(
            "",
            "an upgrade to a web socket",
            format!(
                "GET /live HTTP/1.1\r\n{HOST}connection: upgrade\r\nupgrade: websocket\r\nsec-websocket-key: AAAA\r\n\r\n"
            ),
            "200",
        ),
        wire(
            "T044",
            "a foreign host",
            "GET /v1/models HTTP/1.1\r\nhost: evil.example\r\n\r\n",
            "421 host_not_allowed",
        ),
        wire(
            "T041",
            "a foreign host in the request line",
            format!("GET http://evil.example/v1/models HTTP/1.1\r\n{HOST}\r\n"),
            "421 host_not_allowed",
        ),
        wire("T047", "no host", "GET /v1/models HTTP/1.1\r\n\r\n", "400 invalid_host"),
        wire("T047", "two hosts", format!("GET /v1/models HTTP/1.1\r\n{HOST}{HOST}\r\n"), "400 invalid_host"),
        wire(
            "T047",
            "a host behind a user",
            "GET /v1/models HTTP/1.1\r\nhost: 127.0.0.1@evil\r\n\r\n",
            "400 invalid_host",
        ),
        wire(
            "T045",
            "a text from another page",
            format!(
                "POST /v1/chat/completions HTTP/1.1\r\n{HOST}origin: https://evil.example\r\ncontent-type: text/plain\r\ncontent-length: 2\r\n\r\n{{}}"
            ),
            "403 origin_not_allowed",
        ),
        wire(
            "T046",
            "a preflight of another page",
            format!(
                "OPTIONS /v1/users HTTP/1.1\r\n{HOST}origin: https://evil.example\r\naccess-control-request-method: DELETE\r\n\r\n"
            ),
            "403 origin_not_allowed",
        ),
        get("T041", "//v1/models", "404 route_not_found"),
        get("T041", "/v1/../v1/models", "404 route_not_found"),
        get("T041", "/v1/models%2f", "404"),
        get("T052", "/v1/personas/..%2f..%2fetc%2fpasswd", "404 persona_not_found"),
        get("T052", "/v1/vectors/%00", "404 vector_not_found"),
        get("T052", "/v1/users/%c0%ae%c0%ae", "400"),
        get("T052", "/v1/soft_prompts/..%5c..%5cx/file", "404 soft_prompt_not_found"),
        get("", "/v1/jobs/job-18446744073709551616", "404 job_not_found"),
        get("", "/v1/jobs/-1/events", "404 job_not_found"),
        get("", "/v1/users?limit=-1", "400 invalid_value"),
        get("", "/v1/users?limit=99999999999999999999", "400 invalid_value"),
        get("", "/v1/personas?after=%00&limit=1&limit=2", "200"),
        get("", "/v1/models?limit=1e9", "400 invalid_value"),
        get("", "/v1/personas/x?version=0", "400 invalid_value"),
    ];
    let bearer = |key: &str| [("authorization", format!("Bearer {key}"))];
    let wrong = bearer("wrong");
    let wrong = [(wrong[0].0, wrong[0].1.as_str())];
    rows.extend([
        keyed("T039", "no key", "GET", "/v1/models", &[], "401 invalid_api_key"),
        keyed("T039", "a wrong key", "GET", "/v1/models", &wrong, "401 invalid_api_key"),
        keyed(
            "T039",
            "a beginning of the key",
            "GET",
            "/v1/models",
            &[("authorization", "Bearer secre")],
            "401 invalid_api_key",
        ),
        keyed(
            "T039",
            "Basic",
            "GET",
            "/v1/models",
            &[("authorization", "Basic c2VjcmV0OnNlY3JldA==")],
            "401 invalid_api_key",
        ),
        keyed(
            "T039",
            "the key in the address",
            "GET",
            "/v1/models?token=secret&api_key=secret",
            &[],
            "401 invalid_api_key",
        ),
        keyed(
            "T039",
            "two keys",
            "GET",
            "/v1/models",
            &[("authorization", "Bearer wrong"), ("authorization", "Bearer secret")],
            "401 invalid_api_key",
        ),
        keyed("T041", "/V1/models", "GET", "/V1/models", &[], "401|404"),
        keyed("T041", "/live/../v1/models", "GET", "/live/../v1/models", &[], "401|404"),
        keyed("T040", "metrics without a key", "GET", "/metrics", &[], "401|429"),
        keyed("T040", "a deletion without a key", "DELETE", "/v1/users/ada", &[], "401|429"),
    ]);
    // After ten in a minute the rate of wrong keys is used up; the right one is served on.
    rows.extend((0..4).map(|_| keyed("T043", "one more wrong key", "GET", "/v1/models", &wrong, "401|429")));
    rows.push(keyed("T043", "the fifteenth", "GET", "/v1/models", &wrong, "429 too_many_failed_keys"));
    rows.push(keyed(
        "T043",
        "the right key then",
        "GET",
        "/live",
        &[("authorization", "Bearer secret")],
        "200",
    ));
    rows
}
