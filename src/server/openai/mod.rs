//! The routes that OpenAI's clients call: chats, completions, embeddings, the list of models.

mod admission;
mod answer;
mod chat;
mod chat_answer;
mod choice;
mod completion;
mod completion_answer;
mod embeddings;
mod generation;
mod messages;
mod models;
mod names;
mod options;
mod prepare;
mod resolve;
mod sampling;

pub use answer::{demeanor, finite, persona_headers};
pub use chat::{ChatRequest, template_options};
pub use choice::Finish;
pub use completion::CompletionRequest;
pub use embeddings::embeddings;
pub use messages::{have_system, last_user_text, put_system, read as read_messages};
pub use models::{model, models};
pub use names::Named;
pub use options::token_ids;
pub use prepare::{PromptSize, check_room, encode_chat, encode_text, template_digest};
pub use resolve::{Resolved, digest_checked, digest_now, probe_subject, resolve};
pub use sampling::read_defaults;

use super::Context;
use super::body::read_object;
use super::connection::ConnectionState;
use super::error::ApiError;
use super::sse::{self, Pings};
use crate::text::ChatOptions;
use answer::Answer;
use axum::Json;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::Response;
use axum::response::IntoResponse;
use chat_answer::ChatAnswer;
use completion_answer::CompletionAnswer;
use prepare::{chat_rules, completion_requests, condition, generate, rules};
use std::sync::Arc;

/// `POST /v1/chat/completions`.
pub async fn chat(State(context): State<Arc<Context>>, request: Request) -> Result<Response<Body>, ApiError> {
    let connection = request.extensions().get::<Arc<ConnectionState>>().cloned();
    let (headers, fields) = read_object(request).await?;
    let valid = ChatRequest::new(fields, headers).validate(&context)?;
    let resolved = resolve(&context, valid.named, valid.query).await?;
    let options = &valid.options;
    let condition = condition(&context, options, &resolved, &valid.template);
    let encoded = encode_chat(&context, valid.messages, valid.template).await?;
    let size = PromptSize { tokens: encoded.ids.len(), soft_rows: resolved.soft_rows() };
    let generate = generate(&context, options, size, valid.logprobs, None)?;
    let requests = (0..options.choices)
        .map(|choice| condition.request(encoded.ids.clone(), generate(condition.sampling_of(choice))))
        .collect();
    let tags = context.text.thinking().filter(|_| valid.splits_thinking);
    let rules = chat_rules(&context, options, tags.is_some());
    let generation = generation::Generation::start(&context.engine, requests, &rules, context.running_max())?;

    let warnings = [&options.warnings[..], &encoded.warnings, &resolved.warnings].concat();
    let answer = Answer::new("chatcmpl-", &context, &condition, &resolved, warnings);
    let answer = ChatAnswer {
        answer,
        choices: options.choices,
        wants_logprobs: valid.logprobs.is_some(),
        stream_usage: options.stream && options.stream_usage,
        return_progress: options.return_progress,
        prompt_tokens: encoded.ids.len() as u32,
        thinking: tags.map(|tags| (tags, encoded.thinks)),
        context,
    };
    let head = answer.answer.headers.clone();
    let mut response = if options.stream {
        sse::respond(|frames| answer.stream(generation, frames, Pings::new(connection)))
    } else {
        Json(answer.collect(generation).await?).into_response()
    };
    response.headers_mut().extend(head);
    Ok(response)
}

/// `POST /v1/completions`.
pub async fn complete(
    State(context): State<Arc<Context>>,
    request: Request,
) -> Result<Response<Body>, ApiError> {
    let connection = request.extensions().get::<Arc<ConnectionState>>().cloned();
    let (headers, fields) = read_object(request).await?;
    let valid = CompletionRequest::new(fields, headers).validate(&context)?;
    let resolved = resolve(&context, valid.named, None).await?;
    let options = &valid.options;
    let condition = condition(&context, options, &resolved, &ChatOptions::default());
    let prompts = prepare::encode_prompts(&context, valid.prompts).await?;
    let requests = completion_requests(&context, &condition, &prompts, options, valid.logprobs, valid.echo)?;
    let rules = rules(&context, options, true);
    let generation = generation::Generation::start(&context.engine, requests, &rules, context.running_max())?;

    let warnings = [&options.warnings[..], &resolved.warnings].concat();
    let answer = Answer::new("cmpl-", &context, &condition, &resolved, warnings);
    let answer = CompletionAnswer {
        answer,
        prompts,
        choices: options.choices,
        logprobs: valid.logprobs,
        echo: valid.echo,
        stream_usage: options.stream && options.stream_usage,
        context,
    };
    let head = answer.answer.headers.clone();
    let mut response = if options.stream {
        sse::respond(|frames| answer.stream(generation, frames, Pings::new(connection)))
    } else {
        Json(answer.collect(generation).await?).into_response()
    };
    response.headers_mut().extend(head);
    Ok(response)
}

/// A stream for tests of the transport.
#[cfg(test)]
pub fn test_stream<F: Future<Output = ()> + Send + 'static>(
    connection: Option<Arc<ConnectionState>>,
    write: impl FnOnce(sse::Frames, Pings) -> F,
) -> Response<Body> {
    sse::respond(|frames| write(frames, Pings::new(connection)))
}
