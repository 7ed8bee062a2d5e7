//! What a chat answers: one object, or a stream of chunks.

use super::answer::{Answer, finite, prompt_progress, timings, usage};
use super::calls::Calls;
use super::choice::{Entry, Finish, Piece};
use super::compare::Choices;
use super::dialect::{Dialect, take_pieces};
use super::generation::{Account, Generation, Happening};
use super::thoughts::Thoughts;
use crate::server::Context;
use crate::server::error::ApiError;
use crate::server::sse::{Frames, Pings};
use crate::text::{ThinkingTags, Tokenizer};
use serde_json::{Value, json};
use std::sync::Arc;

/// What a chat's writer needs besides the generation.
pub struct ChatAnswer {
    pub context: Arc<Context>,
    pub answer: Answer,
    pub choices: Choices,
    /// Names of the functions that may be called.
    pub functions: Option<Arc<[String]>>,
    pub wants_logprobs: bool,
    pub stream_usage: bool,
    pub return_progress: bool,
    /// Tokens of the prompt.
    pub prompt_tokens: u32,
    /// The tags around thinking, where it is told apart, and whether the prompt ends inside a block.
    pub thinking: Option<(ThinkingTags, bool)>,
}

/// What a choice has said so far.
struct Said {
    split: Split,
    reasoning: String,
    logprobs: Vec<Value>,
    finish: Option<Finish>,
}

/// What a choice thinks, says and calls.
struct Split {
    thoughts: Thoughts,
    calls: Calls,
}

impl Dialect for ChatAnswer {
    fn answer(&self) -> &Answer {
        &self.answer
    }

    /// Waits for all choices and answers with one object.
    async fn collect(self, mut generation: Generation) -> Result<Value, ApiError> {
        let fresh =
            |_| Said { split: self.split(), reasoning: String::new(), logprobs: Vec::new(), finish: None };
        let mut said: Vec<Said> = (0..self.choices.each()).map(fresh).collect();
        take_pieces(&mut generation, &self.context.metrics, |index, mut piece, account| {
            let Some(said) = said.get_mut(index) else { return };
            said.logprobs.extend(self.logprobs(&piece.entries));
            let thought = said.split.thoughts.take(&piece, account.generated_tokens);
            said.reasoning += &thought.reasoning;
            said.split.calls.take(thought.content, &mut piece.finish);
            said.finish = piece.finish.or(said.finish);
        })
        .await?;
        let accounts = self.accounts(&generation, said.iter().map(|said| &said.split));
        let choice = |(index, said): (usize, Said)| {
            self.context.metrics.count_finish(said.finish);
            let mut message = said.split.calls.message();
            if !said.reasoning.is_empty() {
                message["reasoning_content"] = said.reasoning.into();
            }
            let mut choice = json!({
                "index": index,
                "message": message,
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
    async fn stream(self, mut generation: Generation, frames: Frames, mut pings: Pings) {
        for index in 0..self.choices.each() {
            frames.data(&self.chunk(index, json!({"role": "assistant", "content": ""}), None, None)).await;
        }
        let mut splits: Vec<Split> = (0..self.choices.each()).map(|_| self.split()).collect();
        let mut watch = self.context.metrics.watch(generation.received());
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
                    let Some(split) = splits.get_mut(index) else { continue };
                    self.piece(index, piece, split, generation.account(index), &frames).await;
                }
                Happening::Failed(error) => {
                    frames.data(&ApiError::from(error).body()).await;
                    return frames.done().await;
                }
            }
        }
        if self.stream_usage {
            frames.data(&self.usage_chunk(&self.accounts(&generation, splits.iter()))).await;
        }
        frames.done().await;
    }
}

impl ChatAnswer {
    fn split(&self) -> Split {
        Split { thoughts: Thoughts::new(self.thinking), calls: Calls::new(self.functions.as_ref()) }
    }

    fn accounts<'a>(&self, generation: &Generation, splits: impl Iterator<Item = &'a Split>) -> Vec<Account> {
        let account = |(index, split): (usize, &Split)| Account {
            reasoning_tokens: split.thoughts.tokens(),
            ..generation.account(index)
        };
        splits.enumerate().map(account).collect()
    }

    async fn piece(
        &self,
        index: usize,
        mut piece: Piece,
        split: &mut Split,
        account: Account,
        frames: &Frames,
    ) {
        let index = index as u32;
        let thought = split.thoughts.take(&piece, account.generated_tokens);
        let mut deltas = split.calls.take(thought.content, &mut piece.finish);
        if !thought.reasoning.is_empty() {
            deltas.insert(0, json!({"reasoning_content": thought.reasoning}));
        }
        // Log-probabilities come with the first chunk of their piece, also where its text is held back.
        if deltas.is_empty() && !piece.entries.is_empty() {
            deltas.push(json!({"content": ""}));
        }
        let mut logprobs = self.wants_logprobs.then(|| json!({"content": self.logprobs(&piece.entries)}));
        for delta in deltas {
            frames.data(&self.chunk(index, delta, logprobs.take(), None)).await;
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
