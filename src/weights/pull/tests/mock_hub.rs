//! A hub on loopback that answers as told and remembers what it was asked.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::sync::{Arc, Mutex};
use std::thread;

pub(super) use crate::weights::scratch::Scratch;

/// One request: `GET /path`, and header lines with lower-case names.
#[derive(Clone, Debug)]
pub(super) struct Asked {
    pub line: String,
    headers: Vec<(String, String)>,
}

impl Asked {
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// First byte of the range asked for.
    pub(super) fn range_start(&self) -> usize {
        let range = self.header("range").and_then(|range| range.strip_prefix("bytes=")?.strip_suffix('-'));
        range.map_or(0, |start| start.parse().unwrap())
    }
}

/// What to answer: status line, header lines, body. `cut` closes the connection after so many bytes of the body.
pub(super) struct Answer {
    pub status: &'static str,
    pub headers: Vec<(&'static str, String)>,
    pub body: Vec<u8>,
    pub cut: Option<usize>,
}

/// How a usual hub answers for one file.
#[derive(Clone)]
pub(super) struct HubFile {
    pub content: Vec<u8>,
    pub etag: String,
    pub commit: String,
}

impl HubFile {
    pub(super) fn answer(&self, asked: &Asked) -> Answer {
        let start = asked.range_start();
        let mut headers =
            vec![("ETag", format!("\"{}\"", self.etag)), ("X-Repo-Commit", self.commit.clone())];
        if start > 0 {
            headers.push(("Content-Range", format!("bytes {start}-{}/{0}", self.content.len())));
        }
        let status = if start > 0 { "206 Partial Content" } else { "200 OK" };
        Answer { status, headers, body: self.content[start..].to_vec(), cut: None }
    }
}

pub(super) fn status(status: &'static str) -> Answer {
    Answer { status, headers: Vec::new(), body: Vec::new(), cut: None }
}

pub(super) struct MockHub {
    pub endpoint: String,
    asked: Arc<Mutex<Vec<Asked>>>,
}

impl MockHub {
    /// Starts a hub on a free port; it lives as long as the process.
    pub(super) fn start(answer: impl Fn(&Asked) -> Answer + Send + 'static) -> MockHub {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let asked = Arc::new(Mutex::new(Vec::new()));
        let log = asked.clone();
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let mut reader = BufReader::new(stream);
                let Some(request) = read_request(&mut reader) else { continue };
                log.lock().unwrap().push(request.clone());
                let bytes = write_answer(&request, answer(&request));
                // A client may have gone away; that is part of some tests.
                let _ = reader.into_inner().write_all(&bytes);
            }
        });
        MockHub { endpoint, asked }
    }

    /// Request lines so far.
    pub(super) fn lines(&self) -> Vec<String> {
        self.asked.lock().unwrap().iter().map(|asked| asked.line.clone()).collect()
    }

    pub(super) fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().clone()
    }

    pub(super) fn downloads(&self) -> usize {
        self.lines().iter().filter(|line| line.starts_with("GET")).count()
    }
}

fn read_request(reader: &mut impl BufRead) -> Option<Asked> {
    let mut lines = reader.lines();
    let first = lines.next()?.ok()?;
    let line = first.rsplit_once(' ')?.0.to_owned();
    let mut headers = Vec::new();
    for text in lines.map_while(Result::ok).take_while(|text| !text.is_empty()) {
        let (name, value) = text.split_once(": ")?;
        headers.push((name.to_lowercase(), value.to_owned()));
    }
    Some(Asked { line, headers })
}

fn write_answer(request: &Asked, answer: Answer) -> Vec<u8> {
    let mut head = format!("HTTP/1.1 {}\r\nConnection: close\r\n", answer.status);
    head.push_str(&format!("Content-Length: {}\r\n", answer.body.len()));
    answer.headers.iter().for_each(|(name, value)| head.push_str(&format!("{name}: {value}\r\n")));
    head.push_str("\r\n");
    let mut bytes = head.into_bytes();
    if !request.line.starts_with("HEAD") {
        bytes.extend(&answer.body[..answer.cut.unwrap_or(answer.body.len())]);
    }
    bytes
}
