//! Between a checked request and the engine: plan, token ids, room in the context, condition.

use super::choice::ChoiceRules;
use super::compare::Choices;
use super::completion::Prompt;
use super::completion_answer::Encoded;
use super::options::Options;
use super::resolve::Resolved;
use crate::digest::{Digest, Digester};
use crate::engine::{Generate, Request, Sampling, Want};
use crate::limits;
use crate::persona::Condition;
use crate::server::Context;
use crate::server::blocking::blocking;
use crate::server::error::{ApiError, ErrorCode};
use crate::steering::{Applied, SteeringRequest};
use crate::text::{self, ChatOptions, Message};
use serde_json::Value;
use std::sync::Arc;

/// Looks the vectors up and compiles the plan; waits for extraction at most `--extract-wait`.
pub async fn plan(context: &Context, steering: &SteeringRequest) -> Result<Applied, ApiError> {
    if steering.is_empty() {
        return Ok(Applied::none());
    }
    Ok(context.library.plan(steering, context.extract_wait()).await?)
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

pub async fn encode_prompts(context: &Context, prompts: Vec<Prompt>) -> Result<Vec<Encoded>, ApiError> {
    let mut encoded = Vec::with_capacity(prompts.len());
    for prompt in prompts {
        encoded.push(match prompt {
            Prompt::Text(text) => {
                Encoded { ids: encode_text(context, text.clone()).await?, text, shows_specials: true }
            }
            Prompt::Ids(ids) => {
                Encoded { text: context.text.tokenizer.decode(&ids, true), ids, shows_specials: false }
            }
        });
    }
    Ok(encoded)
}

/// The condition of a chat or completion.
pub fn condition(
    context: &Context,
    options: &Options,
    resolved: &Resolved,
    template: &ChatOptions,
) -> Condition {
    let mut condition = resolved.condition(context, options.sampling.clone());
    condition.use_cache = options.use_cache;
    if let Some(salt) = &options.cache_salt {
        condition.cache_salt = Digest::of(salt.as_bytes());
    }
    condition.template_options = template_digest(template);
    condition.ends = ends_digest(options);
    condition
}

/// What of the template options shapes a prompt.
pub fn template_digest(template: &ChatOptions) -> Digest {
    let mut digester = Digester::new("demeanor.template-options/1");
    let flags = [u8::from(template.add_generation_prompt), u8::from(template.continue_final)];
    digester.part(&flags).part(Value::Object(template.kwargs.clone()).to_string().as_bytes());
    if !(template.tools.is_empty() && template.documents.is_empty()) {
        for list in [&template.tools, &template.documents] {
            digester.part(Value::Array(list.clone()).to_string().as_bytes());
        }
    }
    digester.finish()
}

/// What of the options ends an answer, its shape included.
fn ends_digest(options: &Options) -> Digest {
    let mut digester = Digester::new("demeanor.ends/1");
    let most = options.tokens_max.map(|most| most.to_le_bytes());
    digester.part(most.as_ref().map_or(&[][..], |most| &most[..])).part(&[u8::from(options.ignore_eos)]);
    digester.part(&(options.stop_strings.len() as u64).to_le_bytes());
    for stop in &options.stop_strings {
        digester.part(stop.as_bytes());
    }
    for token in &options.stop_tokens {
        digester.part(&token.to_le_bytes());
    }
    if let Some(asked) = &options.shape {
        digester.part(&asked.shape.digest().0);
    }
    digester.finish()
}

/// What a prompt takes of the context.
#[derive(Clone, Copy, Debug, Default)]
pub struct PromptSize {
    pub tokens: usize,
    /// Rows of the soft prompt.
    pub soft_rows: usize,
}

/// Refuses a prompt that leaves no room for `wanted` tokens (0 or 1); returns the tokens there is room for.
pub fn check_room(context: &Context, prompt: PromptSize, wanted: u32) -> Result<u32, ApiError> {
    let size = context.engine.info().context;
    let PromptSize { tokens, soft_rows } = prompt;
    let taken = (tokens + soft_rows) as u64;
    let room = u64::from(size).checked_sub(taken).filter(|room| *room >= u64::from(wanted));
    room.map(|room| room as u32).ok_or_else(|| {
        let soft = if soft_rows > 0 { format!(" and {soft_rows} rows of a soft prompt") } else { String::new() };
        let mut error = ApiError::new(
            ErrorCode::ContextLengthExceeded,
            format!("the prompt has {tokens} tokens{soft}, which leaves no room in this server's context of {size}"),
        );
        error.param = Some("messages".into());
        error
    })
}

/// Tokens that one choice may have: what was asked for, as far as operator and context allow.
fn tokens_max(context: &Context, options: &Options, prompt: PromptSize) -> Result<u32, ApiError> {
    let wanted = options.tokens_max;
    let room = check_room(context, prompt, if wanted == Some(0) { 0 } else { 1 })?;
    let cap = context.settings.max_output_tokens.unwrap_or(u32::MAX);
    Ok(wanted.unwrap_or(u32::MAX).min(cap).min(room))
}

/// What the engine shall do with each choice of one prompt.
pub fn generate(
    context: &Context,
    options: &Options,
    prompt: PromptSize,
    logprobs: Option<u32>,
    prompt_logprobs: Option<u32>,
) -> Result<impl Fn(Sampling) -> Want + use<>, ApiError> {
    let tokens_max = tokens_max(context, options, prompt)?;
    let stop_tokens = stop_tokens(context, options);
    Ok(move |sampling| {
        let stop_tokens = stop_tokens.clone();
        Want::Generate(Generate {
            tokens_max,
            stop_tokens,
            sampling,
            constraint: None,
            logprobs,
            prompt_logprobs,
        })
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
        shown: Arc::default(),
    }
}

/// The same for a chat. `shown`: control tokens whose text the answer has in it, for those who part it by them.
pub fn chat_rules(context: &Context, options: &Options, shown: Vec<u32>) -> ChoiceRules {
    ChoiceRules { shown: shown.into(), ..rules(context, options, false) }
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
    let choices = Choices::of(options);
    let top = logprobs.map(|top| top.max(1));
    let size = |prompt: &Encoded| PromptSize { tokens: prompt.ids.len(), soft_rows: condition.soft.len() };
    let at_prompt = |error: ApiError| ApiError { param: error.param.map(|_| "prompt".into()), ..error };
    if let Some(top) = top {
        let mut tokens = 0;
        for prompt in prompts {
            let own = if echo { prompt.ids.len() as u64 } else { 0 };
            tokens += own + u64::from(tokens_max(context, options, size(prompt)).map_err(at_prompt)?);
        }
        check_entries(tokens * u64::from(choices.each()), top)?;
    }
    let mut requests = Vec::new();
    for prompt in prompts {
        let prompt_top = top.filter(|_| echo);
        let generate = generate(context, options, size(prompt), top, prompt_top).map_err(at_prompt)?;
        requests.extend(choices.requests(condition, &prompt.ids, generate));
    }
    Ok(requests)
}

/// Refuses an answer of more log-probabilities than the server wants to hold: for each of `tokens` its own and those of
/// `top` others.
fn check_entries(tokens: u64, top: u32) -> Result<(), ApiError> {
    let entries = tokens.saturating_mul(u64::from(top) + 1);
    if entries <= limits::COMPLETION_TOP_ENTRIES_MAX {
        return Ok(());
    }
    let most = limits::COMPLETION_TOP_ENTRIES_MAX;
    let message = format!(
        "up to {tokens} tokens with {top} others each may need {entries} log-probabilities, more than the limit of \
         {most}; lower `logprobs`, `max_tokens`, `n` or the number of prompts"
    );
    Err(ApiError::at(ErrorCode::InvalidValue, "logprobs", message))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn log_probabilities_of_one_answer_are_bounded() {
        let table = [
            // lm-evaluation-harness: a batch of 16 prompts of 8k tokens, one token each.
            (16 * (8192 + 1), 1, true),
            // Every token a body of ids can hold.
            (150_000, 1, true),
            (8192, 100, true),
            (8 * 8192, 100, false),
            (128 * 8 * 4096, 1, false),
            (u64::MAX, 100, false),
        ];
        for (tokens, top, allowed) in table {
            let result = check_entries(tokens, top);
            assert_eq!(result.is_ok(), allowed, "{tokens} {top}");
            assert!(allowed || result.is_err_and(|error| error.param.as_deref() == Some("logprobs")));
        }
    }
}
