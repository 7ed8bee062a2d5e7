//! What `/completion` answers: one object, one for each of several prompts, or a stream that ends with its last chunk.

use super::answer::{Answer, prompt_progress, timings};
use super::chat_answer::listed;
use super::choice::{Entry, Finish, Piece};
use super::completion_answer::Encoded;
use super::dialect::{Dialect, take_pieces};
use super::generation::{Account, Generation, Happening};
use super::llama::Extras;
use crate::server::Context;
use crate::server::error::ApiError;
use crate::server::sse::{Frames, Pings};
use serde_json::{Value, json};
use std::sync::Arc;

/// What this dialect's writer needs besides the generation.
pub struct LlamaAnswer {
    pub context: Arc<Context>,
    pub answer: Answer,
    pub prompts: Vec<Encoded>,
    /// Choices of each prompt; each is an answer of its own.
    pub choices: u32,
    pub extras: Extras,
    /// `generation_settings`.
    pub settings: Value,
    pub return_progress: bool,
}

/// What a choice has said so far.
#[derive(Clone, Default)]
struct Said {
    text: String,
    entries: Vec<Entry>,
    finish: Option<Finish>,
    stop: Option<String>,
}

impl Said {
    fn take(&mut self, piece: Piece) {
        self.text += &piece.text;
        self.entries.extend(piece.entries);
        self.finish = piece.finish.or(self.finish);
        self.stop = piece.stop.or(self.stop.take());
    }

    /// Why the choice ended, in this dialect's words.
    fn stop_type(&self) -> &'static str {
        match (self.finish, &self.stop) {
            (_, Some(_)) => "word",
            (Some(Finish::Length), None) => "limit",
            (Some(_), None) => "eos",
            (None, None) => "none",
        }
    }
}

impl Dialect for LlamaAnswer {
    fn answer(&self) -> &Answer {
        &self.answer
    }

    /// Waits for all choices.
    async fn collect(self, mut generation: Generation) -> Result<Value, ApiError> {
        let mut said = vec![Said::default(); self.count()];
        take_pieces(&mut generation, &self.context.metrics, |index, piece, _| {
            if let Some(said) = said.get_mut(index) {
                said.take(piece);
            }
        })
        .await?;
        let answers = said.iter().enumerate().map(|(index, said)| {
            self.context.metrics.count_finish(said.finish);
            let mut answer = self.last(index, said, generation.account(index));
            answer["content"] = json!(said.text);
            self.add_tokens(&mut answer, &said.entries);
            answer
        });
        let mut answers: Vec<Value> = answers.collect();
        Ok(if answers.len() == 1 { answers.remove(0) } else { answers.into() })
    }

    /// Writes the stream. Its last chunk has `stop: true`; there is no `[DONE]` in this dialect.
    async fn stream(self, mut generation: Generation, frames: Frames, mut pings: Pings) {
        let mut said = vec![Said::default(); self.count()];
        let mut watch = self.context.metrics.watch(generation.received());
        while let Some((index, news)) = pings.until(&frames, generation.next()).await {
            let account = generation.account(index);
            match news {
                Happening::Progress { done } => self.progress(index, Some(done), account, &frames).await,
                Happening::Prefilled { .. } => self.progress(index, None, account, &frames).await,
                Happening::Piece(piece) => {
                    watch.token(index, generation.account(index).queued);
                    let Some(said) = said.get_mut(index) else { continue };
                    self.piece(index, piece, said, account, &frames).await;
                }
                Happening::Failed(error) => return frames.data(&ApiError::from(error).body()).await,
            }
        }
    }
}

impl LlamaAnswer {
    fn count(&self) -> usize {
        self.prompts.len() * self.choices as usize
    }

    fn prompt_of(&self, index: usize) -> Option<&Encoded> {
        self.prompts.get(index / self.choices.max(1) as usize)
    }

    async fn piece(&self, index: usize, piece: Piece, said: &mut Said, account: Account, frames: &Frames) {
        if !piece.text.is_empty() || !piece.entries.is_empty() {
            let mut chunk = chunk(index, &piece.text, account);
            self.add_tokens(&mut chunk, &piece.entries);
            if self.extras.timings {
                chunk["timings"] = timings(&[account]);
            }
            frames.data(&chunk).await;
        }
        said.take(piece);
        // They are in their chunks already.
        said.entries.clear();
        if said.finish.is_some() {
            self.context.metrics.count_finish(said.finish);
            frames.data(&self.last(index, said, account)).await;
        }
    }

    async fn progress(&self, index: usize, done: Option<u32>, account: Account, frames: &Frames) {
        if self.return_progress {
            let total = self.prompt_of(index).map_or(0, |prompt| prompt.ids.len() as u32);
            let mut chunk = chunk(index, "", account);
            chunk["prompt_progress"] = prompt_progress(total, done.unwrap_or(total), account);
            frames.data(&chunk).await;
        }
    }

    /// The ids of tokens, and where asked for their log-probabilities.
    fn add_tokens(&self, answer: &mut Value, entries: &[Entry]) {
        if self.extras.tokens {
            answer["tokens"] = entries.iter().map(|entry| entry.token.id).collect();
        }
        if self.extras.probabilities.is_some() {
            let mut tokens = listed(&self.context.text.tokenizer, entries);
            for (token, entry) in tokens.iter_mut().zip(entries) {
                token["id"] = json!(entry.token.id);
                let ids = entry.token.top.iter().map(|(id, _)| *id);
                let tops = token["top_logprobs"].as_array_mut().into_iter().flatten();
                tops.zip(ids).for_each(|(top, id)| top["id"] = json!(id));
            }
            answer["completion_probabilities"] = tokens.into();
        }
    }

    /// The chunk that ends a choice, without text.
    fn last(&self, index: usize, said: &Said, account: Account) -> Value {
        let prompt = self.prompt_of(index).map(|prompt| prompt.text.as_str()).unwrap_or_default();
        let mut last = chunk(index, "", account);
        let more = json!({
            "stop": true,
            "model": self.answer.model,
            "generation_settings": self.settings,
            "prompt": prompt,
            "has_new_line": said.text.contains('\n'),
            "truncated": false,
            "stop_type": said.stop_type(),
            "stopping_word": said.stop.as_deref().unwrap_or_default(),
            "tokens_cached": account.prompt_tokens + account.generated_tokens,
            "timings": timings(&[account]),
            "system_fingerprint": self.answer.fingerprint,
            "demeanor": self.answer.demeanor,
        });
        if let (Value::Object(last), Value::Object(more)) = (&mut last, more) {
            last.extend(more);
        }
        last
    }
}

fn chunk(index: usize, text: &str, account: Account) -> Value {
    json!({
        "index": index,
        "content": text,
        "tokens": [],
        "stop": false,
        "id_slot": -1,
        "tokens_predicted": account.generated_tokens,
        "tokens_evaluated": account.prompt_tokens,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn why_a_choice_ended() {
        let table = [
            (None, None, "none"),
            (Some(Finish::Length), None, "limit"),
            (Some(Finish::Stop), None, "eos"),
            (Some(Finish::Stop), Some("x"), "word"),
        ];
        for (finish, stop, wanted) in table {
            let mut said = Said::default();
            said.take(Piece { finish, stop: stop.map(String::from), ..Piece::default() });
            // What comes later does not change it.
            said.take(Piece::default());
            assert_eq!(said.stop_type(), wanted);
        }
    }
}
