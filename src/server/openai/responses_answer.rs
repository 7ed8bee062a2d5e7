//! What `/v1/responses` answers: one response object, or the typed events of its making.

use super::answer::{Answer, timings};
use super::calls::told;
use super::chat_answer::listed;
use super::choice::{Finish, Piece};
use super::dialect::{Dialect, take_pieces};
use super::generation::{Account, Generation, Happening};
use super::options::Options;
use super::responses::Echo;
use super::responses_output::{Event, Output};
use super::thoughts::Thoughts;
use crate::server::Context;
use crate::server::error::ApiError;
use crate::server::sse::{Frames, Pings};
use crate::text::{CallReader, ThinkingTags, Told};
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
    /// Names of the functions that may be called.
    pub functions: Option<Arc<[String]>>,
    /// The tags around thinking, where it is told apart, and whether the prompt ends inside a block.
    pub thinking: Option<(ThinkingTags, bool)>,
}

/// What was thought, said and called so far.
struct Said {
    output: Output,
    thoughts: Thoughts,
    reader: Option<CallReader>,
    /// Log-probabilities of text that is held back: of the message or of a call.
    waiting: Vec<Value>,
    finish: Option<Finish>,
}

impl Said {
    fn status(&self) -> &'static str {
        if self.finish == Some(Finish::Length) { "incomplete" } else { "completed" }
    }
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

    async fn send_all(&mut self, events: &mut Vec<Event>) {
        for (kind, fields) in events.drain(..) {
            self.send(kind, fields).await;
        }
    }
}

impl Dialect for ResponsesAnswer {
    fn answer(&self) -> &Answer {
        &self.answer
    }

    /// Waits for the answer.
    async fn collect(self, mut generation: Generation) -> Result<Value, ApiError> {
        let mut said = self.nothing();
        let mut untold = Vec::new();
        take_pieces(&mut generation, &self.context.metrics, |_, piece, account| {
            self.take(&mut said, piece, account, &mut untold);
            untold.clear();
        })
        .await?;
        said.output.end(said.status(), &mut untold);
        self.context.metrics.count_finish(said.finish);
        Ok(self.response(Stage::Ended(&said, generation.account(0))))
    }

    /// Writes the events, from `response.created` to `response.completed`. There is no `[DONE]` in this format.
    async fn stream(self, mut generation: Generation, frames: Frames, mut pings: Pings) {
        let mut typed = Typed { frames: frames.clone(), number: 0 };
        for kind in ["response.created", "response.in_progress"] {
            typed.send(kind, json!({"response": self.response(Stage::InProgress)})).await;
        }
        let mut said = self.nothing();
        let mut events = Vec::new();
        let mut watch = self.context.metrics.watch(generation.received());
        while let Some((index, news)) = pings.until(&frames, generation.next()).await {
            match news {
                Happening::Progress { .. } | Happening::Prefilled { .. } => {}
                Happening::Piece(piece) => {
                    let account = generation.account(index);
                    watch.token(index, account.queued);
                    self.take(&mut said, piece, account, &mut events);
                    typed.send_all(&mut events).await;
                }
                Happening::Failed(error) => {
                    let error = ApiError::from(error);
                    return typed
                        .send("response.failed", json!({"response": self.response(Stage::Failed(&error))}))
                        .await;
                }
            }
        }
        self.context.metrics.count_finish(said.finish);
        said.output.end(said.status(), &mut events);
        typed.send_all(&mut events).await;
        let kind = format!("response.{}", said.status());
        let response = self.response(Stage::Ended(&said, generation.account(0)));
        typed.send(&kind, json!({"response": response})).await;
    }
}

impl ResponsesAnswer {
    fn nothing(&self) -> Said {
        Said {
            output: Output::new(self.answer.id.trim_start_matches("resp_")),
            thoughts: Thoughts::new(self.thinking),
            reader: self.functions.as_ref().map(|names| CallReader::new(names.clone())),
            waiting: Vec::new(),
            finish: None,
        }
    }

    fn take(&self, said: &mut Said, piece: Piece, account: Account, events: &mut Vec<Event>) {
        if self.top_logprobs.is_some() {
            said.waiting.extend(listed(&self.context.text.tokenizer, &piece.entries));
        }
        let thought = said.thoughts.take(&piece, account.generated_tokens);
        if said.thoughts.tokens() == account.generated_tokens {
            // These are the thinking's own.
            said.waiting.clear();
        }
        if !thought.reasoning.is_empty() {
            said.output.think(&thought.reasoning, events);
        }
        for told in told(&mut said.reader, thought.content, piece.finish.is_some()) {
            match told {
                Told::Content(text) if text.is_empty() => {}
                Told::Content(text) => said.output.say(&text, std::mem::take(&mut said.waiting), events),
                Told::Call { name, .. } => said.output.call(name, events),
                Told::Arguments { text, .. } => said.output.argue(&text, events),
            }
        }
        if said.output.has_calls() {
            said.waiting.clear();
        }
        if let Some(finish) = piece.finish {
            let called = finish == Finish::Stop && said.output.has_calls();
            said.finish = Some(if called { Finish::ToolCalls } else { finish });
            if !said.waiting.is_empty() {
                said.output.say("", std::mem::take(&mut said.waiting), events);
            }
        }
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
                let output = json!(said.output.items(said.status()));
                let usage = usage(account, said.thoughts.tokens());
                (said.status(), output, usage, incomplete, Value::Null)
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
            "parallel_tool_calls": echo.is_parallel,
            "previous_response_id": null,
            "prompt_cache_key": echo.prompt_cache_key,
            "reasoning": {"effort": echo.reasoning_effort, "summary": null},
            "safety_identifier": echo.safety_identifier,
            "service_tier": "default",
            "store": false,
            "temperature": sampling.temperature,
            "text": {"format": echo.text_format.clone().unwrap_or(json!({"type": "text"}))},
            "tool_choice": echo.tool_choice.clone().unwrap_or(json!("auto")),
            "tools": echo.tools,
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

fn usage(account: &Account, reasoning_tokens: u32) -> Value {
    json!({
        "input_tokens": account.prompt_tokens,
        "input_tokens_details": {"cached_tokens": account.cached_tokens},
        "output_tokens": account.generated_tokens,
        "output_tokens_details": {"reasoning_tokens": reasoning_tokens},
        "total_tokens": account.prompt_tokens + account.generated_tokens,
    })
}
