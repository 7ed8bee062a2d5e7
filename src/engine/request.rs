//! What the engine is asked and what it answers: token ids, edits and numbers; no text, no names.

use crate::constraint::{Constraint, ConstraintError};
use crate::digest::Digest;
use crate::model::{CaptureSpec, Edits, SoftRows, TokenId};
use std::sync::Arc;
use std::time::Duration;

/// One sequence to run.
#[derive(Clone, Debug)]
pub struct Request {
    /// Token ids as the model sees them, BOS included where there is one. At least one.
    pub prompt: Vec<TokenId>,
    /// Soft-prompt rows and the index in `prompt` before which they stand.
    pub soft: SoftRows,
    pub soft_at: u32,
    pub edits: Arc<Edits>,
    pub want: Want,
    pub priority: Priority,
    /// Whose data the rows from `soft_at` on are, zero for nobody's: [`super::Engine::forget`] ends and wipes what carries
    /// it. It names one life of a user: who is made again under an old id is another owner.
    pub owner: Digest,
    /// Separates the prefix caches of tenants; part of the root of every key.
    pub cache_salt: Digest,
    /// Whether the prefix cache may be read and written for this request.
    pub use_cache: bool,
}

impl Request {
    /// Binds what is generated to a constraint.
    pub fn constrain(&mut self, constraint: &Constraint) {
        if let Want::Generate(generate) = &mut self.want {
            generate.constraint = Some(constraint.clone());
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Priority {
    /// A client waits.
    Serving,
    /// A job: gets what serving leaves, but never nothing.
    Job,
}

#[derive(Clone, Debug)]
pub enum Want {
    Generate(Generate),
    /// Log-probabilities of each continuation after the prompt, natural log, before any sampling change.
    Score(Vec<Vec<TokenId>>),
    /// Mean of the hook points over the rows `from..` of the prompt (token index), plus optionally each row.
    Capture(Capture),
}

#[derive(Clone, Debug)]
pub struct Generate {
    /// Tokens to generate at most; 0 evaluates the prompt only (with `prompt_logprobs`).
    pub tokens_max: u32,
    /// Generation ends after one of these is drawn; it is reported in `Token` too.
    pub stop_tokens: Arc<[TokenId]>,
    pub sampling: Sampling,
    /// What the answer must be: only tokens that it allows are drawn, from the first on.
    pub constraint: Option<Constraint>,
    /// Report the log-probability of each drawn token and of so many of the most probable ones. `None`: not computed.
    pub logprobs: Option<u32>,
    /// The same for each prompt token (switches reading the prefix cache off: every position needs logits).
    pub prompt_logprobs: Option<u32>,
}

#[derive(Clone, Debug)]
pub struct Capture {
    pub spec: CaptureSpec,
    /// First prompt token (index into `prompt`) that counts.
    pub from: u32,
    /// `Mean`: one row `[resid.len(), d_model]`; `Each`: one per token.
    pub reduce: Reduce,
}

impl Capture {
    /// `resid[l]` for each of `blocks` (ascending), from prompt token `from` on.
    pub fn after_blocks(blocks: &[u32], from: u32, reduce: Reduce) -> Capture {
        Capture { spec: CaptureSpec { resid: blocks.to_vec(), ..CaptureSpec::default() }, from, reduce }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reduce {
    Mean,
    Each,
}

/// How the next token is drawn. Order: the constraint's mask, logit bias, penalties, temperature, top_k, typical_p, top_p, min_p, draw.
#[derive(Clone, Debug, PartialEq)]
pub struct Sampling {
    /// 0: the most probable token (ties to the lower id).
    pub temperature: f32,
    /// 0 = off.
    pub top_k: u32,
    /// 1 = off.
    pub top_p: f32,
    /// 0 = off.
    pub min_p: f32,
    /// 1 = off.
    pub typical_p: f32,
    /// 1 = off; divides positive and multiplies negative logits of tokens seen in the window.
    pub repetition_penalty: f32,
    /// Tokens looked back for `repetition_penalty`, prompt included; 0 = off.
    pub repetition_window: u32,
    /// Subtracted once per token that was generated.
    pub presence_penalty: f32,
    /// Subtracted for each time a token was generated.
    pub frequency_penalty: f32,
    /// Added to logits, by token; -inf bans.
    pub logit_bias: Vec<(TokenId, f32)>,
    /// Draws are a function of (seed, choice, index of the generated token).
    pub seed: u64,
    pub choice: u32,
}

impl Default for Sampling {
    fn default() -> Sampling {
        Sampling {
            temperature: 1.0,
            top_k: 0,
            top_p: 1.0,
            min_p: 0.0,
            typical_p: 1.0,
            repetition_penalty: 1.0,
            repetition_window: 64,
            presence_penalty: 0.0,
            frequency_penalty: 0.0,
            logit_bias: Vec::new(),
            seed: 0,
            choice: 0,
        }
    }
}

/// A token with its log-probability (natural log of the softmax of the model's logits after steering, before
/// temperature, penalties, bias and samplers) and the most probable ones beside it, descending.
#[derive(Clone, Debug, PartialEq)]
pub struct TokenLogprob {
    pub id: TokenId,
    pub logprob: f32,
    pub top: Vec<(TokenId, f32)>,
}

#[derive(Clone, Debug)]
pub enum Event {
    /// A part of a prompt that is to be continued went through: `done` of its tokens, `cached` of them from the prefix
    /// cache. The last part is told by `Prefilled`.
    Progress {
        done: u32,
        cached: u32,
    },
    /// The prompt went through. `prompt` is empty unless asked for; entry i is prompt token i + 1 given all before it, soft
    /// rows included.
    Prefilled {
        cached: u32,
        /// From submission to the first step that held a row of this sequence.
        queued: Duration,
        prompt: Vec<TokenLogprob>,
    },
    /// A drawn token; stop tokens come too, right before `Done`. `logprob` is `None` unless asked for.
    Token {
        id: TokenId,
        logprob: Option<TokenLogprob>,
    },
    /// For each continuation, the log-probability of each of its tokens.
    Scored(Vec<Vec<f32>>),
    /// One row (`Mean`) or one per counted prompt token (`Each`); each is `[resid.len(), d_model]`, then
    /// `[heads.len(), d_head]`.
    Captured(Vec<Vec<f32>>),
    Done {
        reason: FinishReason,
        usage: Usage,
    },
    Failed(SequenceError),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FinishReason {
    /// A stop token was drawn.
    Stop,
    /// `tokens_max` or the end of the context was reached.
    Length,
    /// A score or capture is complete.
    Complete,
}

#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Usage {
    pub prompt_tokens: u32,
    pub soft_rows: u32,
    /// Prompt tokens whose KV came from the prefix cache.
    pub cached_tokens: u32,
    /// Drawn tokens, the stop token included.
    pub generated_tokens: u32,
    /// From submission to the first step that held a row of this sequence.
    pub queued: Duration,
    pub prefill: Duration,
    pub decode: Duration,
}

/// Why one sequence ended early; its neighbours go on.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum SequenceError {
    #[error("the model gave logits that are not finite (a steering dose far too large does this)")]
    NonFiniteLogits,
    #[error("the KV cache has no room for this sequence alone: {needed} pages needed, {total} exist")]
    CacheTooSmall { needed: u32, total: u32 },
    #[error("the engine failed and was restarted")]
    EngineFailed,
    #[error("the server is shutting down")]
    ShuttingDown,
    /// Its constraint reached a limit, or its vocabulary has no token that continues it.
    #[error("{0}")]
    Constraint(ConstraintError),
    #[error("the user of this request, or an item of their history, was deleted")]
    OwnerDeleted,
}

/// What [`super::Engine::forget`] ended and wiped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Forgotten {
    /// Running and waiting sequences.
    pub sequences: usize,
    /// Pages of the KV cache.
    pub pages: usize,
}

/// Why a request was not taken.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum SubmitError {
    #[error("the queue is full ({waiting} requests wait)")]
    Full { waiting: u32, retry_after: Duration },
    #[error("the engine is shutting down")]
    Stopped,
    #[error("{tokens} tokens do not fit the context of {context} positions")]
    TooLong { tokens: u32, context: u32 },
    #[error("token id {id} is outside the vocabulary of {vocab_size}")]
    UnknownToken { id: TokenId, vocab_size: u32 },
    #[error("the request has no token")]
    Empty,
    #[error("{0}")]
    Shape(String),
}
