//! A client of our own HTTP routes, for verbs that talk to a server.

use super::CliError;
use serde_json::Value;
use std::io::{BufRead, BufReader};
use std::ops::ControlFlow;
use std::sync::mpsc;
use std::time::{Duration, Instant};

/// Largest answer that is read: the largest vector file and more.
const ANSWER_BYTES_MAX: u64 = 64 << 20;

/// How long a verb waits for a vector that its request started: some ten times what a small machine takes.
const VECTOR_WAIT_MAX: Duration = Duration::from_secs(900);

/// Separates the parts of an upload; its 32 digits occur in no file by chance.
const BOUNDARY: &str = "demeanor-4f1c0b7a9d3e58261b0c7f94a2d6e835";

/// A name as one part of a path, percent-encoded.
pub fn segment(name: &str) -> String {
    let safe = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    let coded = |byte: u8| if safe(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") };
    name.bytes().map(coded).collect()
}

/// A server and the key it wants, if any.
pub struct Client {
    base: String,
    key: Option<String>,
    agent: ureq::Agent,
}

impl Client {
    /// `base` is `http://HOST:PORT`.
    pub fn new(base: &str, key: Option<String>) -> Client {
        let config = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .timeout_connect(Some(Duration::from_secs(2)))
            .build();
        Client { base: base.trim_end_matches('/').into(), key, agent: config.into() }
    }

    /// Names of the models of a demeanor server there; `None` where none answers soon.
    pub fn models(&self) -> Option<Vec<String>> {
        let request =
            self.agent.get(format!("{}/v1/models", self.base)).header("authorization", self.authorization());
        let request = request.config().timeout_global(Some(Duration::from_secs(2))).build();
        let text = request.call().ok()?.body_mut().read_to_string().ok()?;
        let list: Value = serde_json::from_str(&text).ok()?;
        let ours = list["data"].as_array()?.iter().filter(|model| model["owned_by"] == "demeanor");
        let names: Vec<String> = ours.filter_map(|model| Some(model["id"].as_str()?.to_owned())).collect();
        (!names.is_empty()).then_some(names)
    }

    /// One request with an answer in one piece; the bytes of a 2xx, else the server's refusal as an error. `body` is a
    /// content type with bytes. Where a vector is still being made, asks again until it is there.
    pub fn call(
        &self,
        method: &str,
        path: &str,
        body: Option<(&str, Vec<u8>)>,
        headers: &[(&str, &str)],
    ) -> Result<Vec<u8>, CliError> {
        let (kind, bytes) = body.unwrap_or(("application/json", Vec::new()));
        let begin = Instant::now();
        loop {
            let mut request = ureq::http::Request::builder()
                .method(method)
                .uri(format!("{}{path}", self.base))
                .header("content-type", kind)
                .header("authorization", self.authorization());
            for (name, value) in headers {
                request = request.header(*name, *value);
            }
            let request = request.body(bytes.clone()).map_err(|error| {
                CliError::failed(format!("`{}{path}` cannot be asked: {error}", self.base))
            })?;
            let mut response = self.agent.run(request).map_err(|error| unreachable(&self.base, &error))?;
            let is_ok = response.status().is_success();
            let again =
                response.headers().get("retry-after").and_then(|value| value.to_str().ok()?.parse().ok());
            let bytes = response.body_mut().with_config().limit(ANSWER_BYTES_MAX).read_to_vec();
            let bytes = bytes.map_err(|error| CliError::failed(format!("the answer broke off: {error}")))?;
            if is_ok {
                return Ok(bytes);
            }
            let text = String::from_utf8_lossy(&bytes).into_owned();
            let answer = serde_json::from_str(&text).unwrap_or(Value::String(text));
            if answer["error"]["code"] != "vector_not_ready" || begin.elapsed() > VECTOR_WAIT_MAX {
                return Err(refused(&answer));
            }
            eprintln!("waiting: {}", answer["error"]["message"].as_str().unwrap_or("a vector is being made"));
            std::thread::sleep(Duration::from_secs(again.unwrap_or(2).clamp(1, 10)));
        }
    }

    /// The same in JSON both ways.
    pub fn json(
        &self,
        method: &str,
        path: &str,
        body: Option<&Value>,
        headers: &[(&str, &str)],
    ) -> Result<Value, CliError> {
        let body = body.map(|body| ("application/json", body.to_string().into_bytes()));
        read_json(&self.call(method, path, body, headers)?)
    }

    /// Posts a form of named parts; JSON comes back.
    pub fn upload(&self, path: &str, parts: &[(&str, &[u8])]) -> Result<Value, CliError> {
        let mut body = Vec::new();
        for (name, content) in parts {
            let head = format!("--{BOUNDARY}\r\ncontent-disposition: form-data; name=\"{name}\"\r\n\r\n");
            body.extend_from_slice(head.as_bytes());
            body.extend_from_slice(content);
            body.extend_from_slice(b"\r\n");
        }
        body.extend_from_slice(format!("--{BOUNDARY}--\r\n").as_bytes());
        let kind = format!("multipart/form-data; boundary={BOUNDARY}");
        read_json(&self.call("POST", path, Some((&kind, body)), &[])?)
    }

    fn authorization(&self) -> String {
        format!("Bearer {}", self.key.as_deref().unwrap_or(""))
    }

    /// Posts and hands each event of the stream to `take` until it breaks or the stream ends. `take` is also called
    /// without an event ten times a second, so that it can break while nothing comes. Leaving early closes the
    /// connection with the next event, which cancels the answer.
    pub fn post_stream(
        &self,
        path: &str,
        body: &Value,
        mut take: impl FnMut(Option<Value>) -> ControlFlow<()>,
    ) -> Result<(), CliError> {
        let request = self
            .agent
            .post(format!("{}{path}", self.base))
            .header("content-type", "application/json")
            .header("authorization", self.authorization());
        let (sender, events) = mpsc::channel();
        let (body, base) = (body.to_string(), self.base.clone());
        std::thread::spawn(move || {
            if let Err(error) = read_stream(request, &body, &base, &sender) {
                let _ = sender.send(Err(error));
            }
        });
        loop {
            let event = match events.recv_timeout(Duration::from_millis(100)) {
                Ok(event) => Some(event?),
                Err(mpsc::RecvTimeoutError::Timeout) => None,
                Err(mpsc::RecvTimeoutError::Disconnected) => return Ok(()),
            };
            if take(event).is_break() {
                return Ok(());
            }
        }
    }
}

fn read_json(bytes: &[u8]) -> Result<Value, CliError> {
    serde_json::from_slice(bytes)
        .map_err(|error| CliError::failed(format!("the server's answer is no JSON: {error}")))
}

type Request = ureq::RequestBuilder<ureq::typestate::WithBody>;
type Events = mpsc::Sender<Result<Value, CliError>>;

/// Sends a request and the events of its answer as they come; ends when nobody takes them any more.
fn read_stream(request: Request, body: &str, base: &str, events: &Events) -> Result<(), CliError> {
    let mut response = request.send(body).map_err(|error| unreachable(base, &error))?;
    if response.status().as_u16() >= 400 {
        let text = response.body_mut().read_to_string().unwrap_or_default();
        return Err(refused(&serde_json::from_str(&text).unwrap_or(Value::String(text))));
    }
    for line in BufReader::new(response.into_body().into_reader()).lines() {
        let line = line.map_err(|error| CliError::failed(format!("the stream broke: {error}")))?;
        let Some(data) = line.strip_prefix("data: ").filter(|data| *data != "[DONE]") else { continue };
        let event: Value = serde_json::from_str(data).map_err(|error| {
            CliError::failed(format!("the server sent an event that is no JSON: {error}"))
        })?;
        let failed = event.get("error").is_some();
        if events.send(if failed { Err(refused(&event)) } else { Ok(event) }).is_err() {
            break;
        }
    }
    Ok(())
}

fn unreachable(base: &str, error: &ureq::Error) -> CliError {
    CliError::failed(format!("{base} does not answer: {error}; hint: start it with `demeanor serve`"))
}

fn refused(body: &Value) -> CliError {
    let message = body["error"]["message"].as_str().map_or_else(|| body.to_string(), str::to_owned);
    CliError::failed(message)
}
