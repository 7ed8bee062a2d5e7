//! What `/v1/responses` answers: one response object, or the typed events of its making.

use super::answer::{Answer, timings};
use super::chat_answer::listed;
use super::choice::{Finish, Piece};
use super::dialect::{Dialect, take_pieces};
use super::generation::{Account, Generation, Happening};
use super::options::Options;
use super::responses::Echo;
use crate::server::Context;
use crate::server::error::ApiError;
use crate::server::sse::{Frames, Pings};
use serde_json::{Map, Value, json};
use std::sync::Arc;

/// What this route's writer needs besides the generation.
pub struct ResponsesAnswer {
    pub context: Arc<Context>,
    pub answer: Answer,
    pub options: Options,
    pub echo: Echo,
    /// `Some(k)`: log-probabilities are wanted.
    pub top_logprobs: Option<u32>,
}

/// What was said so far.
#[derive(Default)]
struct Said {
    text: String,
    logprobs: Vec<Value>,
    finish: Option<Finish>,
}

/// How far a response is.
enum Stage<'a> {
    InProgress,
    Ended(&'a Said, Account),
    Failed(&'a ApiError),
}

/// Numbers the events of one stream.
struct Typed {
    frames: Frames,
    number: u64,
}

impl Typed {
    /// One event; its type and number are put before its fields.
    async fn send(&mut self, kind: &str, fields: Value) {
        let mut event = Map::new();
        event.insert("type".into(), json!(kind));
        event.insert("sequence_number".into(), json!(self.number));
        if let Value::Object(fields) = fields {
            event.extend(fields);
        }
        self.number += 1;
        self.frames.event(kind, &Value::Object(event)).await;
    }
}

impl Dialect for ResponsesAnswer {
    fn answer(&self) -> &Answer {
        &self.answer
    }

    /// Waits for the answer.
    async fn collect(self, mut generation: Generation) -> Result<Value, ApiError> {
        let mut said = Said::default();
        take_pieces(&mut generation, &self.context.metrics, |_, piece, _| self.take(&mut said, piece))
            .await?;
        self.context.metrics.count_finish(said.finish);
        Ok(self.response(Stage::Ended(&said, generation.account(0))))
    }

    /// Writes the events, from `response.created` to `response.completed`. There is no `[DONE]` in this format.
    async fn stream(self, mut generation: Generation, frames: Frames, mut pings: Pings) {
        let mut events = Typed { frames: frames.clone(), number: 0 };
        for kind in ["response.created", "response.in_progress"] {
            events.send(kind, json!({"response": self.response(Stage::InProgress)})).await;
        }
        let item = self.item("in_progress", json!([]));
        events.send("response.output_item.added", json!({"output_index": 0, "item": item})).await;
        let part = self.part(&Said::default());
        events.send("response.content_part.added", self.placed("part", part)).await;
        let mut said = Said::default();
        let mut watch = self.context.metrics.watch(generation.received());
        while let Some((index, news)) = pings.until(&frames, generation.next()).await {
            match news {
                Happening::Progress { .. } | Happening::Prefilled { .. } => {}
                Happening::Piece(piece) => {
                    watch.token(index, generation.account(index).queued);
                    let (text, before) = (piece.text.clone(), said.logprobs.len());
                    self.take(&mut said, piece);
                    // Log-probabilities come with their piece, also where a token has no text to show.
                    if !text.is_empty() || said.logprobs.len() > before {
                        let mut delta = self.placed("delta", json!(text));
                        delta["logprobs"] = said.logprobs.get(before..).unwrap_or_default().into();
                        events.send("response.output_text.delta", delta).await;
                    }
                }
                Happening::Failed(error) => {
                    let error = ApiError::from(error);
                    return events
                        .send("response.failed", json!({"response": self.response(Stage::Failed(&error))}))
                        .await;
                }
            }
        }
        self.context.metrics.count_finish(said.finish);
        self.close(&mut events, &said, generation.account(0)).await;
    }
}

impl ResponsesAnswer {
    async fn close(&self, events: &mut Typed, said: &Said, account: Account) {
        let mut text = self.placed("text", json!(said.text));
        text["logprobs"] = said.logprobs.clone().into();
        events.send("response.output_text.done", text).await;
        let part = self.part(said);
        events.send("response.content_part.done", self.placed("part", part.clone())).await;
        let item = self.item(status(said), json!([part]));
        events.send("response.output_item.done", json!({"output_index": 0, "item": item})).await;
        let kind = format!("response.{}", status(said));
        events.send(&kind, json!({"response": self.response(Stage::Ended(said, account))})).await;
    }

    fn take(&self, said: &mut Said, piece: Piece) {
        if self.top_logprobs.is_some() {
            said.logprobs.extend(listed(&self.context.text.tokenizer, &piece.entries));
        }
        said.text += &piece.text;
        said.finish = piece.finish.or(said.finish);
    }

    /// Fields of an event inside the one content part of the one item.
    fn placed(&self, name: &str, value: Value) -> Value {
        let mut fields = json!({"item_id": self.item_id(), "output_index": 0, "content_index": 0});
        fields[name] = value;
        fields
    }

    fn item_id(&self) -> String {
        self.answer.id.replacen("resp_", "msg_", 1)
    }

    fn item(&self, status: &str, content: Value) -> Value {
        json!({
            "id": self.item_id(), "type": "message", "status": status, "role": "assistant", "content": content,
        })
    }

    fn part(&self, said: &Said) -> Value {
        json!({"type": "output_text", "text": said.text, "annotations": [], "logprobs": said.logprobs})
    }

    fn response(&self, stage: Stage) -> Value {
        let sampling = &self.options.sampling;
        let (state, output, usage, incomplete, error) = match &stage {
            Stage::InProgress => ("in_progress", json!([]), Value::Null, Value::Null, Value::Null),
            Stage::Ended(said, account) => {
                let incomplete = match said.finish {
                    Some(Finish::Length) => json!({"reason": "max_output_tokens"}),
                    _ => Value::Null,
                };
                let item = self.item(status(said), json!([self.part(said)]));
                (status(said), json!([item]), usage(account), incomplete, Value::Null)
            }
            Stage::Failed(error) => {
                let error = json!({"code": "server_error", "message": error.message});
                ("failed", json!([]), Value::Null, Value::Null, error)
            }
        };
        let echo = &self.echo;
        let mut response = json!({
            "id": self.answer.id,
            "object": "response",
            "created_at": self.answer.created,
            "status": state,
            "background": false,
            "error": error,
            "incomplete_details": incomplete,
            "instructions": echo.instructions,
            "max_output_tokens": self.options.tokens_max,
            "metadata": echo.metadata,
            "model": self.answer.model,
            "output": output,
            "parallel_tool_calls": false,
            "previous_response_id": null,
            "prompt_cache_key": echo.prompt_cache_key,
            "reasoning": {"effort": echo.reasoning_effort, "summary": null},
            "safety_identifier": echo.safety_identifier,
            "service_tier": "default",
            "store": false,
            "temperature": sampling.temperature,
            "text": {"format": echo.text_format.clone().unwrap_or(json!({"type": "text"}))},
            "tool_choice": "auto",
            "tools": [],
            "top_logprobs": self.top_logprobs.unwrap_or(0),
            "top_p": sampling.top_p,
            "truncation": "disabled",
            "usage": usage,
            "user": echo.user,
            "system_fingerprint": self.answer.fingerprint,
            "demeanor": self.answer.demeanor,
        });
        if let Stage::Ended(_, account) = stage {
            response["timings"] = timings(&[account]);
        }
        response
    }
}

fn status(said: &Said) -> &'static str {
    if said.finish == Some(Finish::Length) { "incomplete" } else { "completed" }
}

fn usage(account: &Account) -> Value {
    json!({
        "input_tokens": account.prompt_tokens,
        "input_tokens_details": {"cached_tokens": account.cached_tokens},
        "output_tokens": account.generated_tokens,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": account.prompt_tokens + account.generated_tokens,
    })
}
