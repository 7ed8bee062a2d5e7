//! Bad requests get the status and the message that the table states, and the server lives on.

use crate::harness::{Response, default_server, request_bytes};
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// One row of `fixtures/bad_requests.json`. At most one kind of body is given.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Row {
    pub name: String,
    method: String,
    path: String,
    #[serde(default)]
    headers: BTreeMap<String, String>,
    json: Option<Value>,
    /// Sent as it is, one byte per character.
    text: Option<String>,
    hex: Option<String>,
    /// Beginning, unit, times, end.
    repeat: Option<(String, String, usize, String)>,
    pub status: u16,
    /// Null: not looked at.
    pub code: Option<String>,
    param: Option<String>,
    /// Part of the message.
    message: Option<String>,
}

impl Row {
    fn body(&self) -> Vec<u8> {
        if let Some(json) = &self.json {
            return json.to_string().into_bytes();
        }
        if let Some(text) = &self.text {
            return text.chars().map(|character| character as u8).collect();
        }
        if let Some(hex) = &self.hex {
            let byte = |at: usize| u8::from_str_radix(&hex[at..at + 2], 16).expect("hex digits");
            return (0..hex.len()).step_by(2).map(byte).collect();
        }
        match &self.repeat {
            Some((begin, unit, times, end)) => format!("{begin}{}{end}", unit.repeat(*times)).into_bytes(),
            None => Vec::new(),
        }
    }

    /// The request as it is sent.
    pub fn bytes(&self) -> Vec<u8> {
        let mut headers: Vec<(&str, &str)> = Vec::new();
        if self.method == "POST" && !self.headers.contains_key("content-type") {
            headers.push(("content-type", "application/json"));
        }
        headers.extend(self.headers.iter().map(|(name, value)| (name.as_str(), value.as_str())));
        request_bytes(&self.method, &self.path, &headers, &self.body())
    }

    /// What is wrong with an answer; `None` when it is the one stated.
    fn fault(&self, response: &Response) -> Option<String> {
        let error = &response.json()["error"];
        let is = |field: &str, wanted: &Option<String>| {
            wanted.as_ref().is_none_or(|wanted| error[field].as_str() == Some(wanted))
        };
        let message = error["message"].as_str().unwrap_or_default();
        let right = response.status == self.status
            && is("code", &self.code)
            && is("param", &self.param)
            && self.message.as_ref().is_none_or(|part| message.contains(part.as_str()))
            && error["type"].is_string()
            && response.headers.contains_key("x-request-id");
        (!right).then(|| format!("{}: {} {error}", self.name, response.status))
    }
}

/// The table.
pub fn rows() -> Vec<Row> {
    serde_json::from_str(include_str!("fixtures/bad_requests.json")).expect("the table is valid")
}

#[test]
fn every_bad_request_is_refused_as_stated() {
    let rows = rows();
    assert!(rows.len() >= 40);
    let server = default_server();
    let faults: Vec<String> =
        rows.iter().filter_map(|row| row.fault(&server.exchange(&row.bytes()))).collect();
    assert!(faults.is_empty(), "{}", faults.join("\n"));
    let body = json!({"messages": [{"role": "user", "content": "hi"}], "max_tokens": 1});
    server.post("/v1/chat/completions", &body).ok();
}
