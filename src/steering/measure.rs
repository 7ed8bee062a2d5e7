//! Runs measurements through the engine as any client would, at low priority: captures, scores, perplexity.

use super::error::SteeringError;
use super::traits::Contrast;
use crate::digest::Digest;
use crate::engine::{Capture, Engine, Event, Events, Generate, Priority, Reduce, Request, Sampling, Want};
use crate::model::{Edits, SoftRows, TokenId};
use crate::text::{ChatOptions, Message, Role, Specials, Text};
use std::sync::Arc;

/// Requests of one measurement that are with the engine at once: enough to share steps, few enough to leave the queue to
/// clients.
const IN_FLIGHT: usize = 6;
/// Tokens of one piece of neutral text, BOS not counted.
const PIECE_TOKENS: usize = 127;

/// What measurements need of a loaded model. Its methods block; they belong on a thread of their own.
#[derive(Clone)]
pub struct Meter {
    pub engine: Engine,
    pub text: Arc<Text>,
}

/// What came back for one request.
#[derive(Default)]
struct Outcome {
    /// Log-probability of prompt token i + 1.
    prompt: Vec<f32>,
    captured: Vec<Vec<f32>>,
    scored: Vec<Vec<f32>>,
    tokens: Vec<TokenId>,
}

/// Two replies to one prompt as tokens.
pub struct Encoded {
    pub prompt: Vec<TokenId>,
    pub positive: Vec<TokenId>,
    pub negative: Vec<TokenId>,
}

impl Meter {
    pub fn n_blocks(&self) -> u32 {
        self.engine.info().n_blocks
    }

    /// The first `pieces` pieces of a text, each a sequence of its own that begins as the model wants it.
    pub fn pieces(&self, text: &str, pieces: usize) -> Result<Vec<Vec<TokenId>>, SteeringError> {
        let tokenizer = &self.text.tokenizer;
        let ids = tokenizer.encode(text, Specials::AsText).map_err(text_failed)?;
        let bos = tokenizer.bos().filter(|_| tokenizer.add_bos());
        // A short context cuts the pieces, with room for BOS and one token to come.
        let len = PIECE_TOKENS.min(self.engine.info().context as usize - 2);
        let pieces = ids.chunks_exact(len).take(pieces);
        Ok(pieces.map(|piece| bos.into_iter().chain(piece.iter().copied()).collect()).collect())
    }

    /// A contrast in the model's own chat form: what precedes both replies, and each reply without an end token.
    pub fn encode(&self, contrast: &Contrast) -> Result<Encoded, SteeringError> {
        let positive = self.dialogue(contrast, &contrast.positive)?;
        let negative = self.dialogue(contrast, &contrast.negative)?;
        let opening = self.opening(contrast)?;
        let shared = common(&opening, &positive).min(common(&opening, &negative));
        // At least one token precedes a reply, and each reply has at least one of its own.
        let shared = shared.min(positive.len().saturating_sub(1)).min(negative.len().saturating_sub(1));
        if shared == 0 {
            let message = "the model's chat form leaves no token before a reply";
            return Err(SteeringError::Internal(message.to_owned()));
        }
        Ok(Encoded {
            prompt: positive[..shared].to_vec(),
            positive: positive[shared..].to_vec(),
            negative: negative[shared..].to_vec(),
        })
    }

    /// A chat up to where the answer begins.
    pub fn chat(&self, prompt: &str) -> Result<Vec<TokenId>, SteeringError> {
        let messages = [Message::new(Role::User, prompt)];
        let encoded = self.text.chat(&messages, &ChatOptions::default()).map_err(text_failed)?;
        Ok(encoded.ids)
    }

    fn opening(&self, contrast: &Contrast) -> Result<Vec<TokenId>, SteeringError> {
        match &contrast.prompt {
            Some(prompt) => self.chat(prompt),
            // A space, because a chat has at least one message: what an empty user turn would be.
            None => self.chat(" "),
        }
    }

    fn dialogue(&self, contrast: &Contrast, reply: &str) -> Result<Vec<TokenId>, SteeringError> {
        let prompt = contrast.prompt.as_deref().unwrap_or(" ");
        let messages = [Message::new(Role::User, prompt), Message::new(Role::Assistant, reply)];
        let options =
            ChatOptions { add_generation_prompt: false, continue_final: true, ..ChatOptions::default() };
        Ok(self.text.chat(&messages, &options).map_err(text_failed)?.ids)
    }

    /// Captures `resid` at `blocks` for each sequence, from its token `from` on: `(tokens, from)`. `take` gets the index of
    /// the sequence and its rows, `[blocks.len(), d_model]` each: one (`Mean`) or one per token (`Each`).
    pub fn capture(
        &self,
        blocks: &[u32],
        sequences: impl IntoIterator<Item = (Vec<TokenId>, u32)>,
        reduce: Reduce,
        mut take: impl FnMut(usize, Vec<Vec<f32>>) -> Result<(), SteeringError>,
    ) -> Result<(), SteeringError> {
        let requests = sequences.into_iter().map(|(prompt, from)| {
            request(prompt, Arc::default(), Want::Capture(Capture::after_blocks(blocks, from, reduce)))
        });
        self.run(requests, |index, outcome| take(index, outcome.captured))
    }

    /// Negative log-likelihood of each token but the first, nat, for each piece under `edits`.
    pub fn nll(&self, pieces: &[Vec<TokenId>], edits: &Arc<Edits>) -> Result<Vec<f64>, SteeringError> {
        let want = Want::Generate(Generate {
            tokens_max: 0,
            stop_tokens: Arc::from([]),
            sampling: Sampling::default(),
            constraint: None,
            logprobs: None,
            prompt_logprobs: Some(0),
        });
        let mut nll = Vec::new();
        let requests = pieces.iter().map(|piece| request(piece.clone(), edits.clone(), want.clone()));
        self.run(requests, |_, outcome| {
            nll.extend(outcome.prompt.iter().map(|logprob| -f64::from(*logprob)));
            Ok(())
        })?;
        if nll.is_empty() || nll.iter().any(|value| !value.is_finite()) {
            return Err(SteeringError::Internal(
                "the model gave no log-likelihood for neutral text".to_owned(),
            ));
        }
        Ok(nll)
    }

    /// Log-probability of either reply of each contrast under `edits`: `(positive, negative)`.
    pub fn score(&self, contrasts: &[Encoded], edits: &Arc<Edits>) -> Result<Vec<(f64, f64)>, SteeringError> {
        let requests = contrasts.iter().map(|contrast| {
            let want = Want::Score(vec![contrast.positive.clone(), contrast.negative.clone()]);
            request(contrast.prompt.clone(), edits.clone(), want)
        });
        let mut scores = Vec::with_capacity(contrasts.len());
        self.run(requests, |_, outcome| {
            let sum = |values: &Vec<f32>| values.iter().map(|&value| f64::from(value)).sum::<f64>();
            match &outcome.scored[..] {
                [positive, negative] => scores.push((sum(positive), sum(negative))),
                _ => return Err(SteeringError::Internal("a score came back incomplete".to_owned())),
            }
            Ok(())
        })?;
        Ok(scores)
    }

    /// The most probable answers to some prompts, as text, up to where the model's chat form ends them.
    pub fn greedy(
        &self,
        prompts: &[String],
        edits: &Arc<Edits>,
        tokens_max: u32,
    ) -> Result<Vec<String>, SteeringError> {
        let stop_tokens: Arc<[TokenId]> = Arc::from(self.text.tokenizer.stop_tokens());
        let prompts = prompts.iter().map(|prompt| self.chat(prompt)).collect::<Result<Vec<_>, _>>()?;
        let requests = prompts.into_iter().map(|prompt| {
            let want = Want::Generate(Generate {
                tokens_max,
                stop_tokens: stop_tokens.clone(),
                sampling: Sampling { temperature: 0.0, ..Sampling::default() },
                constraint: None,
                logprobs: None,
                prompt_logprobs: None,
            });
            request(prompt, edits.clone(), want)
        });
        let mut texts = Vec::new();
        self.run(requests, |_, outcome| {
            let mut answer = self.text.tokenizer.decode(&outcome.tokens, true);
            let end = self.text.stop_strings().iter().filter_map(|stop| answer.find(stop)).min();
            answer.truncate(end.unwrap_or(answer.len()));
            texts.push(answer);
            Ok(())
        })?;
        Ok(texts)
    }

    /// Runs requests, a few at once, and hands their outcomes over in order.
    fn run(
        &self,
        requests: impl IntoIterator<Item = Request>,
        mut take: impl FnMut(usize, Outcome) -> Result<(), SteeringError>,
    ) -> Result<(), SteeringError> {
        let requests = requests.into_iter().enumerate().map(|(index, request)| Ok((request, index)));
        self.engine.run_in_order(IN_FLIGHT, requests, |events, index| take(index, finished(events)?))
    }
}

fn finished(mut events: Events) -> Result<Outcome, SteeringError> {
    let mut outcome = Outcome::default();
    while let Some(event) = events.next_blocking() {
        match event {
            Event::Progress { .. } => {}
            Event::Prefilled { prompt, .. } => {
                outcome.prompt = prompt.iter().map(|token| token.logprob).collect();
            }
            Event::Token { id, .. } => outcome.tokens.push(id),
            Event::Scored(scored) => outcome.scored = scored,
            Event::Captured(captured) => outcome.captured = captured,
            Event::Done { .. } => return Ok(outcome),
            Event::Failed(error) => return Err(SteeringError::Internal(error.to_string())),
        }
    }
    Err(SteeringError::Internal("the engine ended a measurement early".to_owned()))
}

fn request(prompt: Vec<TokenId>, edits: Arc<Edits>, want: Want) -> Request {
    Request {
        prompt,
        soft: SoftRows::none(),
        soft_at: 0,
        edits,
        want,
        priority: Priority::Job,
        owner: Digest::default(),
        cache_salt: Digest::of(b"demeanor.measurement"),
        use_cache: true,
    }
}

fn common(a: &[TokenId], b: &[TokenId]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}

fn text_failed(error: crate::text::TextError) -> SteeringError {
    SteeringError::Internal(error.to_string())
}
