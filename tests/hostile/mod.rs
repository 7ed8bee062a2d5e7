//! The list of hostile inputs: bytes on a socket, requests, uploads and files, each with the answer that it must get from
//! the binary as it runs. `cargo test hostile -- --nocapture` prints the list with what was answered.
//!
//! `wire` has what HTTP itself is abused with and what stands before the routes, `routes`, `shapes`, `numbers` and `stored`
//! what routes are sent, `files` what the binary is asked to load; the requests of `fixtures/bad_requests.json` are on the list too. Numbers (T001...)
//! are those of the threat list that the tests follow, where it has the case.

mod files;
mod numbers;
mod routes;
mod shapes;
mod stored;
mod wire;

use crate::bad_requests;
use crate::harness::{
    TestModel, chat, data_folder, demeanor, folder, parts_bytes, read_response, request_bytes,
};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Cursor, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// What the server may grow by, in MiB, when the list is sent to it as often as it is: pages of the KV cache (160), the sentence encoder, what
/// is compiled for constraints, freed memory that the allocator keeps.
const GROWTH_MIB_MAX: u64 = 320;
/// And when it is sent once more, when all that is there: less than the bodies of the list together.
const GROWTH_AGAIN_MIB_MAX: u64 = 48;

/// One hostile input.
struct Row {
    /// Number in the threat list; empty: none.
    id: &'static str,
    input: String,
    given: Given,
    /// Statuses and codes that are right (`400 invalid_json`, or the status alone), several between bars; of several
    /// answers on one connection all, between commas; `closed`: no answer. For a file its exit status and a part of the
    /// message.
    expected: String,
}

enum Given {
    /// Sent as they are to the server without keys.
    Bytes(Vec<u8>),
    /// To the server that wants a key.
    Keyed(Vec<u8>),
    /// Arguments of the binary.
    Run(Vec<String>),
}

impl Row {
    fn new(id: &'static str, input: impl Into<String>, given: Given, expected: &str) -> Row {
        Row { id, input: input.into(), given, expected: expected.to_owned() }
    }
}

/// A served process that is ended with the test.
struct Served {
    child: Child,
    address: String,
}

impl Served {
    fn start(arguments: &[&str]) -> Served {
        let model = TestModel::SmolLm2.path().display().to_string();
        let mut child = Command::new(env!("CARGO_BIN_EXE_demeanor"))
            .args([
                "serve",
                "-m",
                &model,
                "--port",
                "0",
                "--context",
                "4096",
                "--kv-mib",
                "160",
                "--extract-wait",
                "300",
            ])
            .args(arguments)
            .env("DEMEANOR_DATA_DIR", data_folder())
            // An arena for each thread that ever worked would be counted as growth.
            .env("MALLOC_ARENA_MAX", "2")
            .stderr(Stdio::piped())
            .spawn()
            .expect("it runs");
        let mut lines = BufReader::new(child.stderr.take().expect("piped")).lines().map_while(Result::ok);
        let ready = lines.find(|line| line.starts_with("ready")).expect("it says where it listens");
        let address = ready.split("http://").nth(1).and_then(|rest| rest.split(' ').next());
        // Read on, so that it never waits for room in the pipe.
        let address = address.expect("an address").to_owned();
        std::thread::spawn(move || lines.for_each(drop));
        Served { child, address }
    }

    /// Everything that is answered to these bytes, after which nothing more is sent.
    fn answers(&self, bytes: &[u8]) -> String {
        let mut stream = TcpStream::connect(&self.address).expect("it listens");
        stream.set_read_timeout(Some(Duration::from_secs(120))).expect("a valid timeout");
        // What is refused unread breaks off; what counts is the answer.
        let mut writing = stream.try_clone().expect("a second handle");
        let given = bytes.to_vec();
        let writer = std::thread::spawn(move || {
            let _ = writing.write_all(&given);
            let _ = writing.shutdown(Shutdown::Write);
        });
        let mut answered = Vec::new();
        let _ = stream.read_to_end(&mut answered);
        writer.join().expect("it has written");
        told(answered)
    }

    fn chat(&self) -> Value {
        let body = chat(json!({"seed": 3, "logprobs": true})).to_string();
        let headers = [("content-type", "application/json")];
        let bytes = request_bytes("POST", "/v1/chat/completions", &headers, body.as_bytes());
        let mut stream = TcpStream::connect(&self.address).expect("it listens");
        stream.write_all(&bytes).expect("taken");
        read_response(&mut BufReader::new(stream)).expect("a response comes").ok()["choices"].clone()
    }

    /// Resident memory in MiB.
    fn memory_mib(&self) -> u64 {
        let path = format!("/proc/{}/status", self.child.id());
        let status = std::fs::read_to_string(path).expect("the process is there");
        let line = status.lines().find(|line| line.starts_with("VmRSS")).expect("its memory");
        line.split_whitespace().nth(1).and_then(|kib| kib.parse::<u64>().ok()).expect("a number") / 1024
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = Command::new("kill").arg(self.child.id().to_string()).status();
        let _ = self.child.wait();
    }
}

/// Statuses and codes of the answers in these bytes.
fn told(bytes: Vec<u8>) -> String {
    let (mut reader, mut all) = (Cursor::new(bytes), Vec::new());
    while let Ok(response) = read_response(&mut reader) {
        // Sent to clients that only closed their sending side.
        if response.status == 102 {
            continue;
        }
        let code =
            serde_json::from_slice::<Value>(&response.body).unwrap_or_default()["error"]["code"].clone();
        all.push([response.status.to_string(), code.as_str().unwrap_or_default().to_owned()].join(" "));
    }
    if all.is_empty() { "closed".to_owned() } else { all.join(",").trim_end().to_owned() }
}

/// Whether `got` is one of the answers stated: with its code, or by the status alone.
fn is_expected(expected: &str, got: &str) -> bool {
    expected
        .split('|')
        .any(|one| got == one || got.strip_prefix(one).is_some_and(|rest| rest.starts_with(' ')))
}

/// Exit status and message of a run.
fn run(arguments: &[String]) -> String {
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let output = demeanor(&arguments);
    let text = String::from_utf8_lossy(&output.stderr).replace('\n', " ");
    let status = output.status.code().map_or("signal".to_owned(), |code| code.to_string());
    format!("{status} {text}")
}

#[test]
fn every_hostile_input_is_answered_as_stated() {
    let open = Served::start(&["--alias", "gpt-4o-mini,M"]);
    let keyed = Served::start(&["--api-key", "secret"]);
    // The second of two equal chats reads the prefix cache, as the one after the list does.
    open.chat();
    let (before, memory) = (open.chat(), open.memory_mib());
    let mut faults = Vec::new();
    let mut list = wire::rows();
    for part in [routes::rows(), shapes::rows(), numbers::rows(), stored::rows()] {
        list.extend(part);
    }
    list.extend(files::rows(&folder("hostile")));
    let own = list.len();
    list.extend(bad_requests::rows().iter().map(of_table));
    for row in &list {
        let (got, is_right) = match &row.given {
            Given::Bytes(bytes) => judged(&row.expected, open.answers(bytes)),
            Given::Keyed(bytes) => judged(&row.expected, keyed.answers(bytes)),
            Given::Run(arguments) => {
                let got = run(arguments);
                let (status, part) =
                    row.expected.split_once(' ').expect("a status and a part of the message");
                let is_right =
                    got.starts_with(&format!("{status} ")) && part.split('|').any(|one| got.contains(one));
                let is_right = is_right && !got.contains("panicked");
                (got, is_right)
            }
        };
        let shown: String = got.chars().take(160).collect();
        let line = format!("{:5} | {} | {} | {shown}", row.id, row.input, row.expected);
        println!("{line}");
        if !is_right {
            faults.push(line);
        }
    }
    let grown = open.memory_mib().saturating_sub(memory);
    // Pages of the KV cache count when they are first written, and how many answers get how far before their client is
    // gone depends on the machine's other work. What is lost is lost every time.
    let mut again = Vec::new();
    while again.len() < 3 && again.last().is_none_or(|again| *again > GROWTH_AGAIN_MIB_MAX) {
        let before = open.memory_mib();
        for row in &list {
            if let Given::Bytes(bytes) = &row.given {
                open.answers(bytes);
            }
        }
        again.push(open.memory_mib().saturating_sub(before));
    }
    let table = list.len() - own;
    println!(
        "{own} rows of this list and {table} of the table; memory grew by {grown} MiB, then by {again:?} MiB"
    );
    assert!(faults.is_empty(), "{}", faults.join("\n"));
    assert!(own >= 80);
    assert_eq!(open.chat(), before, "the same chat is answered by the same bytes");
    let total = grown + again.iter().sum::<u64>();
    assert!(total <= GROWTH_MIB_MAX, "memory grew by {grown} MiB, then by {again:?} MiB");
    assert!(
        again.last().is_some_and(|again| *again <= GROWTH_AGAIN_MIB_MAX),
        "memory grew by {again:?} MiB whenever all was sent again"
    );
}

fn judged(expected: &str, got: String) -> (String, bool) {
    let is_right = is_expected(expected, &got);
    (got, is_right)
}

/// A row of the table of bad requests.
fn of_table(row: &bad_requests::Row) -> Row {
    let code = row.code.as_ref().map(|code| format!(" {code}")).unwrap_or_default();
    Row::new("", &row.name, Given::Bytes(row.bytes()), &format!("{}{code}", row.status))
}

/// A request with a JSON body.
fn post(id: &'static str, input: &str, path: &str, body: Value, expected: &str) -> Row {
    text(id, input, path, body.to_string(), expected)
}

/// The same with a body that need not be JSON.
fn text(id: &'static str, input: &str, path: &str, body: impl AsRef<[u8]>, expected: &str) -> Row {
    let bytes = request_bytes("POST", path, &[("content-type", "application/json")], body.as_ref());
    Row::new(id, format!("{path}: {input}"), Given::Bytes(bytes), expected)
}

fn get(id: &'static str, path: &str, expected: &str) -> Row {
    Row::new(id, path, Given::Bytes(request_bytes("GET", path, &[], b"")), expected)
}

/// An upload in parts.
fn upload(id: &'static str, input: &str, path: &str, parts: &[(&str, &[u8])], expected: &str) -> Row {
    let headers = [("content-type", "multipart/form-data; boundary=XX")];
    let bytes = request_bytes("POST", path, &headers, &parts_bytes(parts));
    Row::new(id, format!("{path}: {input}"), Given::Bytes(bytes), expected)
}
