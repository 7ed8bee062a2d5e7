//! The routes that OpenAI's clients call: chats, completions, responses, embeddings, the list of models; and llama.cpp's
//! `/completion`, a completion under other names.

mod admission;
mod answer;
mod calls;
mod chat;
mod chat_answer;
mod choice;
mod compare;
mod completion;
mod completion_answer;
mod dialect;
mod embeddings;
mod generation;
mod llama;
mod llama_answer;
mod messages;
mod models;
mod names;
mod options;
mod prepare;
mod resolve;
mod responses;
mod responses_answer;
mod responses_input;
mod responses_output;
mod sampling;
mod serverless;
mod shape;
mod start;
mod thoughts;
mod tools;

pub use answer::{demeanor, finite, persona_headers};
pub use chat::{ChatRequest, TEMPLATE_FIELDS, TOOL_FIELDS, read_chat, refuse_chat_fields, template_options};
pub use choice::Finish;
pub use completion::CompletionRequest;
pub use embeddings::embeddings;
pub use llama::{default_settings, llama_completion};
pub use messages::read as read_messages;
pub use models::{model, models};
pub use names::Named;
pub use options::token_ids;
pub use prepare::{PromptSize, check_room, encode_chat, encode_text, template_digest};
pub use resolve::{Chat, Resolved, digest_checked, digest_now, probe_subject, resolve};
pub use responses::responses;
pub use sampling::read_defaults;
pub use serverless::{ReadChat, chat_body, completion_body};

use super::Context;
use super::body::read_object;
use super::connection::ConnectionState;
use super::error::ApiError;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::Response;
use chat_answer::ChatAnswer;
use completion_answer::CompletionAnswer;
use dialect::respond;
use start::{Started, start_chat, start_completion};
use std::sync::Arc;
use tools::Tools;

/// `POST /v1/chat/completions`.
pub async fn chat(State(context): State<Arc<Context>>, request: Request) -> Result<Response<Body>, ApiError> {
    let connection = connection(&request);
    let (headers, fields) = read_object(request).await?;
    let valid = ChatRequest::new(fields, headers).validate(&context)?;
    let wants_logprobs = valid.logprobs.is_some();
    let functions = valid.tools.as_ref().map(Tools::names);
    let started = start_chat(&context, "chatcmpl-", valid).await?;
    let Started { generation, answer, options, choices, prompts, thinking } = started;
    let answer = ChatAnswer {
        answer,
        choices,
        functions,
        wants_logprobs,
        stream_usage: options.stream && options.stream_usage,
        return_progress: options.return_progress,
        prompt_tokens: prompts.first().map_or(0, |prompt| prompt.ids.len() as u32),
        thinking,
        context,
    };
    respond(answer, generation, options.stream, connection).await
}

/// `POST /v1/completions`.
pub async fn complete(
    State(context): State<Arc<Context>>,
    request: Request,
) -> Result<Response<Body>, ApiError> {
    let connection = connection(&request);
    let (headers, fields) = read_object(request).await?;
    let valid = CompletionRequest::new(fields, headers).validate(&context)?;
    let (logprobs, echo) = (valid.logprobs, valid.echo);
    let started = start_completion(&context, "cmpl-", valid).await?;
    let Started { generation, answer, options, choices, prompts, .. } = started;
    let answer = CompletionAnswer {
        answer,
        prompts,
        choices,
        logprobs,
        echo,
        stream_usage: options.stream && options.stream_usage,
        return_progress: options.return_progress,
        context,
    };
    respond(answer, generation, options.stream, connection).await
}

/// The connection that a request came on, for streams to watch.
fn connection(request: &Request) -> Option<Arc<ConnectionState>> {
    request.extensions().get::<Arc<ConnectionState>>().cloned()
}
