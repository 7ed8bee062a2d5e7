//! What a completion answers: one object, or a stream of chunks.

use super::answer::{Answer, finite, prompt_progress, timings, usage};
use super::choice::{Entry, Finish, Piece};
use super::compare::Choices;
use super::dialect::Dialect;
use super::generation::{Account, Generation, Happening};
use crate::engine::TokenLogprob;
use crate::server::Context;
use crate::server::error::ApiError;
use crate::server::sse::{Frames, Pings};
use crate::text::{StreamDecoder, Tokenizer};
use serde_json::{Map, Value, json};
use std::sync::Arc;

/// A prompt as it was encoded.
pub struct Encoded {
    pub ids: Vec<u32>,
    /// What `echo` shows.
    pub text: String,
    /// Whether control tokens are part of that text: in a prompt that came as text.
    pub shows_specials: bool,
}

/// What a completion's writer needs besides the generation.
pub struct CompletionAnswer {
    pub context: Arc<Context>,
    pub answer: Answer,
    pub prompts: Vec<Encoded>,
    /// Choices of each prompt; choice `j` of prompt `i` has the index `i * choices.each() + j`.
    pub choices: Choices,
    pub logprobs: Option<u32>,
    pub echo: bool,
    pub stream_usage: bool,
    pub return_progress: bool,
}

/// The four parallel lists of the completions format.
#[derive(Clone, Debug, Default, PartialEq)]
struct Logprobs {
    tokens: Vec<String>,
    token_logprobs: Vec<Value>,
    top_logprobs: Vec<Value>,
    text_offset: Vec<usize>,
}

#[derive(Default)]
struct Said {
    text: String,
    logprobs: Logprobs,
    finish: Option<Finish>,
}

impl Dialect for CompletionAnswer {
    fn answer(&self) -> &Answer {
        &self.answer
    }

    /// Waits for all choices and answers with one object.
    async fn collect(self, mut generation: Generation) -> Result<Value, ApiError> {
        let mut said: Vec<Said> = (0..self.count()).map(|_| Said::default()).collect();
        let mut watch = self.context.metrics.watch(generation.received());
        while let Some((index, news)) = generation.next().await {
            let Some(said) = said.get_mut(index) else { continue };
            let piece = match news {
                Happening::Progress { .. } => continue,
                Happening::Prefilled { prompt } => self.echoed(index, &prompt),
                Happening::Piece(piece) => {
                    watch.token(index, generation.account(index).queued);
                    (piece.text, self.listed(index, &piece.entries), piece.finish)
                }
                Happening::Failed(error) => return Err(error.into()),
            };
            said.text += &piece.0;
            said.logprobs.append(piece.1);
            said.finish = piece.2.or(said.finish);
        }
        let (first, all) = self.accounts(&generation);
        let choice = |(index, said): (usize, Said)| {
            self.context.metrics.count_finish(said.finish);
            let mut choice = json!({
                "index": index,
                "text": said.text,
                "logprobs": self.logprobs.map(|_| said.logprobs.json()),
                "finish_reason": said.finish.map(Finish::name),
            });
            self.choices.mark(index, &mut choice);
            choice
        };
        let choices: Vec<Value> = said.into_iter().enumerate().map(choice).collect();
        let mut object = self.answer.object("text_completion");
        object.insert("choices".into(), choices.into());
        self.close(&mut object, &first, &all);
        Ok(Value::Object(object))
    }

    /// Writes the stream to its `[DONE]`.
    async fn stream(self, mut generation: Generation, frames: Frames, mut pings: Pings) {
        let mut watch = self.context.metrics.watch(generation.received());
        while let Some((index, news)) = pings.until(&frames, generation.next()).await {
            match news {
                Happening::Progress { done } => self.progress(index, done, &generation, &frames).await,
                Happening::Prefilled { prompt } => {
                    let all = self.prompt_of(index).map_or(0, |prompt| prompt.ids.len() as u32);
                    self.progress(index, all, &generation, &frames).await;
                    let (text, logprobs, _) = self.echoed(index, &prompt);
                    if !text.is_empty() || !logprobs.tokens.is_empty() {
                        frames.data(&self.chunk(index, text, logprobs, None)).await;
                    }
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
            let mut object = self.answer.object("text_completion");
            object.insert("choices".into(), json!([]));
            let (first, all) = self.accounts(&generation);
            self.close(&mut object, &first, &all);
            frames.data(&Value::Object(object)).await;
        }
        frames.done().await;
    }
}

impl CompletionAnswer {
    fn count(&self) -> usize {
        self.prompts.len() * self.choices.each() as usize
    }

    /// Accounts of the first choice of each prompt, and of all.
    fn accounts(&self, generation: &Generation) -> (Vec<Account>, Vec<Account>) {
        let all: Vec<Account> = (0..self.count()).map(|index| generation.account(index)).collect();
        (all.iter().step_by(self.choices.each().max(1) as usize).copied().collect(), all)
    }

    fn close(&self, object: &mut Map<String, Value>, first: &[Account], all: &[Account]) {
        object.insert("usage".into(), usage(first, all));
        object.insert("timings".into(), timings(all));
        object.insert("demeanor".into(), self.answer.demeanor.clone());
    }

    /// For the first choice of each prompt, when it was asked for.
    async fn progress(&self, index: usize, done: u32, generation: &Generation, frames: &Frames) {
        let Some(prompt) = self.prompt_of(index).filter(|_| self.return_progress) else { return };
        if index.is_multiple_of(self.choices.each().max(1) as usize) {
            let mut chunk = self.chunk(index, String::new(), Logprobs::default(), None);
            let total = prompt.ids.len() as u32;
            chunk["prompt_progress"] = prompt_progress(total, done, generation.account(index));
            frames.data(&chunk).await;
        }
    }

    async fn piece(&self, index: usize, piece: Piece, account: Account, frames: &Frames) {
        let logprobs = self.listed(index, &piece.entries);
        let mut chunk = self.chunk(index, piece.text, logprobs, piece.finish);
        if piece.finish.is_some() {
            self.context.metrics.count_finish(piece.finish);
            chunk["timings"] = timings(&[account]);
            chunk["demeanor"] = self.answer.demeanor.clone();
        }
        frames.data(&chunk).await;
    }

    fn chunk(&self, index: usize, text: String, logprobs: Logprobs, finish: Option<Finish>) -> Value {
        let mut object = self.answer.object("text_completion");
        let logprobs = self.logprobs.map(|_| logprobs.json());
        let finish = finish.map(Finish::name);
        let mut choice = json!({"index": index, "text": text, "logprobs": logprobs, "finish_reason": finish});
        self.choices.mark(index, &mut choice);
        object.insert("choices".into(), json!([choice]));
        if self.stream_usage {
            object.insert("usage".into(), Value::Null);
        }
        Value::Object(object)
    }

    fn prompt_of(&self, index: usize) -> Option<&Encoded> {
        self.prompts.get(index / self.choices.each().max(1) as usize)
    }

    /// The prompt as the beginning of the answer. Its first token has no log-probability.
    fn echoed(&self, index: usize, prompt: &[TokenLogprob]) -> (String, Logprobs, Option<Finish>) {
        let (true, Some(encoded)) = (self.echo, self.prompt_of(index)) else {
            return (String::new(), Logprobs::default(), None);
        };
        let mut logprobs = Logprobs::default();
        if self.logprobs.is_some() {
            let tokenizer = &self.context.text.tokenizer;
            let mut decoder = match encoded.shows_specials {
                true => StreamDecoder::with_specials(tokenizer.clone()),
                false => StreamDecoder::new(tokenizer.clone()),
            };
            let mut offset = 0;
            for (position, id) in encoded.ids.iter().enumerate() {
                let given = position.checked_sub(1).and_then(|position| prompt.get(position));
                logprobs.push(tokenizer, *id, given, offset);
                // A BOS that the client did not write is not part of the text.
                let is_added = position == 0
                    && tokenizer.is_special(*id)
                    && !encoded.text.starts_with(&tokenizer.token_text(*id));
                let shown = decoder.push(*id).chars().count();
                offset += if is_added { 0 } else { shown };
            }
        }
        (encoded.text.clone(), logprobs, None)
    }

    fn listed(&self, index: usize, entries: &[Entry]) -> Logprobs {
        let mut logprobs = Logprobs::default();
        if self.logprobs.is_none() {
            return logprobs;
        }
        let shift = match self.prompt_of(index) {
            Some(encoded) if self.echo => encoded.text.chars().count(),
            _ => 0,
        };
        for entry in entries {
            let tokenizer = &self.context.text.tokenizer;
            logprobs.push(tokenizer, entry.token.id, Some(&entry.token), shift + entry.offset);
        }
        logprobs
    }
}

impl Logprobs {
    /// One token. `given` is `None` for the first token of a prompt.
    fn push(&mut self, tokenizer: &Tokenizer, id: u32, given: Option<&TokenLogprob>, offset: usize) {
        let text = tokenizer.token_text(id);
        self.text_offset.push(offset);
        self.token_logprobs.push(given.map_or(Value::Null, |given| json!(finite(given.logprob))));
        self.top_logprobs.push(given.map_or(Value::Null, |given| top_map(tokenizer, &text, given)));
        self.tokens.push(text);
    }

    fn append(&mut self, mut other: Logprobs) {
        self.tokens.append(&mut other.tokens);
        self.token_logprobs.append(&mut other.token_logprobs);
        self.top_logprobs.append(&mut other.top_logprobs);
        self.text_offset.append(&mut other.text_offset);
    }

    fn json(self) -> Value {
        json!({
            "tokens": self.tokens,
            "token_logprobs": self.token_logprobs,
            "top_logprobs": self.top_logprobs,
            "text_offset": self.text_offset,
        })
    }
}

/// Text to log-probability, most probable first, the given token always among them. Of equal texts the larger value.
fn top_map(tokenizer: &Tokenizer, text: &str, given: &TokenLogprob) -> Value {
    let mut map = Map::new();
    let top = given.top.iter().map(|(id, logprob)| (tokenizer.token_text(*id), finite(*logprob)));
    for (key, logprob) in top.chain([(text.to_string(), finite(given.logprob))]) {
        let larger = map.get(&key).and_then(Value::as_f64).is_none_or(|known| f64::from(logprob) > known);
        if larger {
            map.insert(key, json!(logprob));
        }
    }
    Value::Object(map)
}
