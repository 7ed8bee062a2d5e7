//! Between a checked request and the engine: plan, token ids, room in the context, condition.

use super::choice::ChoiceRules;
use super::completion::Prompt;
use super::completion_answer::Encoded;
use super::options::Options;
use crate::digest::Digest;
use crate::engine::{Generate, Request, Sampling, Want};
use crate::persona::Condition;
use crate::server::Context;
use crate::server::error::{ApiError, ErrorCode};
use crate::steering::{Applied, SteeringRequest};
use crate::text::{self, ChatOptions, Message};
use std::sync::Arc;
use std::time::Duration;

/// Looks the vectors up and compiles the plan; waits for extraction at most `--extract-wait`.
pub async fn plan(context: &Context, steering: &SteeringRequest) -> Result<Applied, ApiError> {
    if steering.is_empty() {
        return Ok(Applied::none());
    }
    let wait = Duration::from_secs_f32(context.settings.extract_wait_seconds.clamp(0.0, 3600.0));
    Ok(context.library.plan(steering, wait).await?)
}

/// Renders and tokenises on a thread of its own: long texts take longer than other requests should wait.
pub async fn encode_chat(
    context: &Context,
    messages: Vec<Message>,
    options: ChatOptions,
) -> Result<text::Encoded, ApiError> {
    let text = context.text.clone();
    blocking(move || text.chat(&messages, &options)).await
}

/// A plain prompt with BOS where the model wants one. An empty prompt is the BOS token, or else the EOS token.
pub async fn encode_text(context: &Context, prompt: String) -> Result<Vec<u32>, ApiError> {
    let text = context.text.clone();
    let mut ids = blocking(move || text.complete(&prompt)).await?;
    if ids.is_empty() {
        let tokenizer = &context.text.tokenizer;
        ids.extend(tokenizer.bos().or(tokenizer.eos()));
    }
    Ok(ids)
}

/// Runs tokenisation off the async threads.
pub async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, text::TextError> + Send + 'static,
) -> Result<T, ApiError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => Ok(result?),
        Err(error) => Err(ApiError::internal(error)),
    }
}

pub async fn encode_prompts(context: &Context, prompts: Vec<Prompt>) -> Result<Vec<Encoded>, ApiError> {
    let mut encoded = Vec::with_capacity(prompts.len());
    for prompt in prompts {
        encoded.push(match prompt {
            Prompt::Text(text) => Encoded { ids: encode_text(context, text.clone()).await?, text },
            Prompt::Ids(ids) => Encoded { text: context.text.tokenizer.decode(&ids, true), ids },
        });
    }
    Ok(encoded)
}

pub fn condition(options: &Options, applied: &Applied) -> Condition {
    let mut condition = Condition::new(applied.edits.clone(), options.sampling.clone());
    condition.use_cache = options.use_cache;
    if let Some(salt) = &options.cache_salt {
        condition.cache_salt = Digest::of(salt.as_bytes());
    }
    condition
}

/// Refuses a prompt that leaves no room for `wanted` tokens (0 or 1); returns the tokens there is room for.
pub fn check_room(context: &Context, prompt_tokens: usize, wanted: u32) -> Result<u32, ApiError> {
    let size = context.engine.info().context;
    let room = u64::from(size).checked_sub(prompt_tokens as u64).filter(|room| *room >= u64::from(wanted));
    room.map(|room| room as u32).ok_or_else(|| {
        let mut error = ApiError::new(
            ErrorCode::ContextLengthExceeded,
            format!("the prompt has {prompt_tokens} tokens, which leaves no room in this server's context of {size}"),
        );
        error.param = Some("messages".into());
        error
    })
}

/// What the engine shall do with each choice of one prompt.
pub fn generate(
    context: &Context,
    options: &Options,
    prompt_tokens: usize,
    logprobs: Option<u32>,
    prompt_logprobs: Option<u32>,
) -> Result<impl Fn(Sampling) -> Want + use<>, ApiError> {
    let wanted = options.tokens_max;
    let room = check_room(context, prompt_tokens, if wanted == Some(0) { 0 } else { 1 })?;
    let cap = context.settings.max_output_tokens.unwrap_or(u32::MAX);
    let tokens_max = wanted.unwrap_or(u32::MAX).min(cap).min(room);
    let stop_tokens = stop_tokens(context, options);
    Ok(move |sampling| {
        let stop_tokens = stop_tokens.clone();
        Want::Generate(Generate { tokens_max, stop_tokens, sampling, logprobs, prompt_logprobs })
    })
}

fn stop_tokens(context: &Context, options: &Options) -> Arc<[u32]> {
    let own: &[u32] = if options.ignore_eos { &[] } else { context.text.tokenizer.stop_tokens() };
    own.iter().chain(&options.stop_tokens).copied().collect()
}

pub fn rules(context: &Context, options: &Options, lists_end_token: bool) -> ChoiceRules {
    // A chat in a model without end-of-turn token ends where the other speaker begins.
    let own: &[&str] = if lists_end_token || options.ignore_eos { &[] } else { context.text.stop_strings() };
    let stop_strings = options.stop_strings.iter().cloned().chain(own.iter().map(|stop| stop.to_string()));
    ChoiceRules {
        tokenizer: context.text.tokenizer.clone(),
        stop_strings: stop_strings.collect(),
        stop_tokens: stop_tokens(context, options),
        lists_end_token,
    }
}

/// One request for each choice of each prompt, prompt-major. The maps of this route always hold the most probable
/// token, so at least one is asked for.
pub fn completion_requests(
    context: &Context,
    condition: &Condition,
    prompts: &[Encoded],
    options: &Options,
    logprobs: Option<u32>,
    echo: bool,
) -> Result<Vec<Request>, ApiError> {
    let top = logprobs.map(|top| top.max(1));
    let mut requests = Vec::new();
    for prompt in prompts {
        let prompt_top = top.filter(|_| echo);
        let generate = generate(context, options, prompt.ids.len(), top, prompt_top)
            .map_err(|error| ApiError { param: error.param.map(|_| "prompt".into()), ..error })?;
        for choice in 0..options.choices {
            requests.push(condition.request(prompt.ids.clone(), generate(condition.sampling_of(choice))));
        }
    }
    Ok(requests)
}
