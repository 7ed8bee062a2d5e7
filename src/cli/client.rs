//! A client of our own HTTP routes, for verbs that talk to a server.

use super::CliError;
use serde_json::Value;
use std::io::{BufRead, BufReader};
use std::ops::ControlFlow;
use std::time::Duration;

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

    /// Whether a server answers there and has a model.
    pub fn answers(&self) -> bool {
        let response = self.agent.get(format!("{}/health", self.base)).call();
        response.is_ok_and(|response| response.status().as_u16() == 200)
    }

    fn authorization(&self) -> String {
        format!("Bearer {}", self.key.as_deref().unwrap_or(""))
    }

    /// Posts and hands each event of the stream to `take` until it breaks or the stream ends. Leaving early closes the
    /// connection, which cancels the answer.
    pub fn post_stream(
        &self,
        path: &str,
        body: &Value,
        mut take: impl FnMut(Value) -> ControlFlow<()>,
    ) -> Result<(), CliError> {
        let request = self
            .agent
            .post(format!("{}{path}", self.base))
            .header("content-type", "application/json")
            .header("authorization", self.authorization());
        let mut response = request.send(body.to_string()).map_err(|error| self.unreachable(&error))?;
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
            if event.get("error").is_some() {
                return Err(refused(&event));
            }
            if take(event).is_break() {
                break;
            }
        }
        Ok(())
    }

    fn unreachable(&self, error: &ureq::Error) -> CliError {
        CliError::failed(format!(
            "{} does not answer: {error}; hint: start it with `demeanor serve`",
            self.base
        ))
    }
}

fn refused(body: &Value) -> CliError {
    let message = body["error"]["message"].as_str().map_or_else(|| body.to_string(), str::to_owned);
    CliError::failed(message)
}
