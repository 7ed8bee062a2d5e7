//! What a chat answers: one object, or a stream of chunks.

use super::answer::{Answer, finite, prompt_progress, timings, usage};
use super::choice::{Entry, Finish, Piece};
use super::compare::Choices;
use super::generation::{Account, Generation, Happening};
use crate::server::Context;
use crate::server::error::ApiError;
use crate::server::sse::{Frames, Pings};
use crate::text::Tokenizer;
use serde_json::{Value, json};
use std::sync::Arc;

/// What a chat's writer needs besides the generation.
pub struct ChatAnswer {
    pub context: Arc<Context>,
    pub answer: Answer,
    pub choices: Choices,
    pub wants_logprobs: bool,
    pub stream_usage: bool,
    pub return_progress: bool,
    /// Tokens of the prompt.
    pub prompt_tokens: u32,
}

/// What a choice has said so far.
#[derive(Default)]
struct Said {
    text: String,
    logprobs: Vec<Value>,
    finish: Option<Finish>,
}

impl ChatAnswer {
    /// Waits for all choices and answers with one object.
    pub async fn collect(self, mut generation: Generation) -> Result<Value, ApiError> {
        let mut said: Vec<Said> = (0..self.choices.each()).map(|_| Said::default()).collect();
        let mut watch = self.context.metrics.watch();
        while let Some((index, news)) = generation.next().await {
            match news {
                Happening::Progress { .. } | Happening::Prefilled { .. } => {}
                Happening::Piece(piece) => {
                    watch.token(index, generation.account(index).queued);
                    let Some(said) = said.get_mut(index) else { continue };
                    said.logprobs.extend(self.logprobs(&piece.entries));
                    said.text += &piece.text;
                    said.finish = piece.finish.or(said.finish);
                }
                Happening::Failed(error) => return Err(error.into()),
            }
        }
        let accounts = self.accounts(&generation);
        let choice = |(index, said): (usize, Said)| {
            self.context.metrics.count_finish(said.finish);
            let mut choice = json!({
                "index": index,
                "message": {"role": "assistant", "content": said.text, "refusal": null},
                "logprobs": self.wants_logprobs.then(|| json!({"content": said.logprobs})),
                "finish_reason": said.finish.map(Finish::name),
            });
            self.choices.mark(index, &mut choice);
            choice
        };
        let choices: Vec<Value> = said.into_iter().enumerate().map(choice).collect();
        let mut object = self.answer.object("chat.completion");
        object.insert("choices".into(), choices.into());
        object.insert("usage".into(), usage(accounts.get(..1).unwrap_or_default(), &accounts));
        object.insert("timings".into(), timings(&accounts));
        object.insert("demeanor".into(), self.answer.demeanor);
        Ok(Value::Object(object))
    }

    /// Writes the stream to its `[DONE]`.
    pub async fn stream(self, mut generation: Generation, frames: Frames, mut pings: Pings) {
        for index in 0..self.choices.each() {
            frames.data(&self.chunk(index, json!({"role": "assistant", "content": ""}), None, None)).await;
        }
        let mut watch = self.context.metrics.watch();
        while let Some((index, news)) = pings.until(&frames, generation.next()).await {
            match news {
                Happening::Progress { done } => {
                    self.progress(index, done, generation.account(index), &frames).await;
                }
                Happening::Prefilled { .. } => {
                    self.progress(index, self.prompt_tokens, generation.account(index), &frames).await;
                }
                Happening::Piece(piece) => {
                    watch.token(index, generation.account(index).queued);
                    self.piece(index, piece, generation.account(index), &frames).await;
                }
                Happening::Failed(error) => {
                    frames.data(&ApiError::from(error).body()).await;
                    return frames.done().await;
                }
            }
        }
        if self.stream_usage {
            frames.data(&self.usage_chunk(&self.accounts(&generation))).await;
        }
        frames.done().await;
    }

    fn accounts(&self, generation: &Generation) -> Vec<Account> {
        (0..self.choices.each() as usize).map(|index| generation.account(index)).collect()
    }

    async fn piece(&self, index: usize, piece: Piece, account: Account, frames: &Frames) {
        let index = index as u32;
        if !piece.text.is_empty() || !piece.entries.is_empty() {
            let logprobs = self.wants_logprobs.then(|| json!({"content": self.logprobs(&piece.entries)}));
            frames.data(&self.chunk(index, json!({"content": piece.text}), logprobs, None)).await;
        }
        if let Some(finish) = piece.finish {
            self.context.metrics.count_finish(Some(finish));
            let mut chunk = self.chunk(index, json!({}), None, Some(finish));
            chunk["timings"] = timings(&[account]);
            chunk["demeanor"] = self.answer.demeanor.clone();
            frames.data(&chunk).await;
        }
    }

    async fn progress(&self, index: usize, done: u32, account: Account, frames: &Frames) {
        if !self.return_progress || index > 0 {
            return;
        }
        let mut chunk = self.chunk(0, json!({}), None, None);
        chunk["prompt_progress"] = prompt_progress(self.prompt_tokens, done, account);
        frames.data(&chunk).await;
    }

    fn chunk(&self, index: u32, delta: Value, logprobs: Option<Value>, finish: Option<Finish>) -> Value {
        let mut object = self.answer.object("chat.completion.chunk");
        let mut choice = json!({
            "index": index, "delta": delta, "logprobs": logprobs, "finish_reason": finish.map(Finish::name),
        });
        self.choices.mark(index as usize, &mut choice);
        object.insert("choices".into(), json!([choice]));
        if self.stream_usage {
            object.insert("usage".into(), Value::Null);
        }
        Value::Object(object)
    }

    fn usage_chunk(&self, accounts: &[Account]) -> Value {
        let mut object = self.answer.object("chat.completion.chunk");
        object.insert("choices".into(), json!([]));
        object.insert("usage".into(), usage(accounts.get(..1).unwrap_or_default(), accounts));
        object.insert("timings".into(), timings(accounts));
        object.insert("demeanor".into(), self.answer.demeanor.clone());
        Value::Object(object)
    }

    fn logprobs(&self, entries: &[Entry]) -> Vec<Value> {
        if self.wants_logprobs { listed(&self.context.text.tokenizer, entries) } else { Vec::new() }
    }
}

/// Each token with its log-probability and the most probable ones beside it.
pub fn listed(tokenizer: &Tokenizer, entries: &[Entry]) -> Vec<Value> {
    let one = |entry: &Entry| {
        let top = entry.token.top.iter().map(|(id, logprob)| shown(tokenizer, *id, *logprob));
        let mut value = shown(tokenizer, entry.token.id, entry.token.logprob);
        value["top_logprobs"] = top.collect();
        value
    };
    entries.iter().map(one).collect()
}

fn shown(tokenizer: &Tokenizer, id: u32, logprob: f32) -> Value {
    json!({
        "token": tokenizer.token_text(id),
        "logprob": finite(logprob),
        "bytes": tokenizer.token_bytes(id),
    })
}
