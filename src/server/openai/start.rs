//! From a checked request to running sequences: names looked up, prompts encoded, choices submitted.

use super::answer::Answer;
use super::chat::ValidChat;
use super::compare::Choices;
use super::completion::ValidCompletion;
use super::completion_answer::Encoded;
use super::generation::Generation;
use super::options::Options;
use super::prepare::{
    PromptSize, chat_rules, completion_requests, condition, encode_chat, encode_prompts, generate, rules,
};
use super::resolve::{Chat, resolve};
use super::shape::{compile, constrain};
use crate::server::Context;
use crate::server::error::ApiError;
use crate::text::{ChatOptions, ThinkingTags};

/// A request on its way, whatever dialect its answer will be written in.
pub struct Started {
    pub generation: Generation,
    pub answer: Answer,
    pub options: Options,
    pub choices: Choices,
    /// At least one.
    pub prompts: Vec<Encoded>,
    /// Tags that part thinking from the answer, where that is wanted, and whether the prompt has opened the thinking.
    pub thinking: Option<(ThinkingTags, bool)>,
}

/// Starts a chat. `id_prefix` begins the answer's id.
pub async fn start_chat(context: &Context, id_prefix: &str, valid: ValidChat) -> Result<Started, ApiError> {
    let ValidChat { mut messages, mut template, options, logprobs, named, splits_thinking, tools, received } =
        valid;
    let compiled = compile(context, &options).await?;
    let chat = Chat { messages: &mut messages, template: &mut template };
    let resolved = resolve(context, named, Some(chat)).await?;
    let condition = condition(context, &options, &resolved, &template);
    let encoded = encode_chat(context, messages, template).await?;
    let size = PromptSize { tokens: encoded.ids.len(), soft_rows: resolved.soft_rows() };
    let generate = generate(context, &options, size, logprobs, None)?;
    let choices = Choices::of(&options);
    let requests = constrain(choices.requests(&condition, &encoded.ids, generate), &compiled);
    let tags = context.text.thinking().filter(|_| splits_thinking);
    let mut shown = if tags.is_some() { context.text.thinking_tokens().to_vec() } else { Vec::new() };
    if tools.is_some() {
        shown.extend_from_slice(context.text.call_tokens());
    }
    let rules = chat_rules(context, &options, shown);
    let generation = Generation::start(&context.engine, requests, &rules, context.running_max(), received)?;

    let mut warnings = [&options.warnings[..], &encoded.warnings, &resolved.warnings].concat();
    warnings.extend(choices.warning(&condition));
    warnings.extend(compiled.into_iter().flat_map(|compiled| compiled.warnings));
    let mut answer = Answer::new(id_prefix, context, &condition, &resolved, warnings);
    choices.describe(context, &condition, &mut answer);
    let prompt = Encoded { ids: encoded.ids, text: String::new(), shows_specials: true };
    let thinking = tags.map(|tags| (tags, encoded.thinks));
    Ok(Started { generation, answer, options, choices, prompts: vec![prompt], thinking })
}

/// Starts a completion of one or several prompts.
pub async fn start_completion(
    context: &Context,
    id_prefix: &str,
    valid: ValidCompletion,
) -> Result<Started, ApiError> {
    let ValidCompletion { prompts, options, logprobs, echo, named, received } = valid;
    let compiled = compile(context, &options).await?;
    let resolved = resolve(context, named, None).await?;
    let condition = condition(context, &options, &resolved, &ChatOptions::default());
    let prompts = encode_prompts(context, prompts).await?;
    let requests = completion_requests(context, &condition, &prompts, &options, logprobs, echo)?;
    let requests = constrain(requests, &compiled);
    let rules = rules(context, &options, true);
    let generation = Generation::start(&context.engine, requests, &rules, context.running_max(), received)?;

    let choices = Choices::of(&options);
    let mut warnings = [&options.warnings[..], &resolved.warnings].concat();
    warnings.extend(choices.warning(&condition));
    warnings.extend(compiled.into_iter().flat_map(|compiled| compiled.warnings));
    let mut answer = Answer::new(id_prefix, context, &condition, &resolved, warnings);
    choices.describe(context, &condition, &mut answer);
    Ok(Started { generation, answer, options, choices, prompts, thinking: None })
}
