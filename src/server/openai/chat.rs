//! `POST /v1/chat/completions`: from the request as typed to a checked one.

use super::messages;
use super::names::Named;
use super::options::{Options, meant, unsupported};
use super::resolve::defaults;
use super::tools::Tools;
use crate::limits;
use crate::server::Context;
use crate::server::error::ApiError;
use crate::server::fields::Fields;
use crate::text::{ChatOptions, Message, Role, Text};
use axum::http::HeaderMap;
use serde_json::{Map, Value};
use std::time::Instant;

/// A chat request as typed: JSON fields under whatever names clients use, and the headers that carry more.
pub struct ChatRequest {
    pub fields: Fields,
    pub headers: HeaderMap,
    /// When the last byte of it was here.
    received: Instant,
}

/// The same with every value checked; nothing of it has been looked up yet.
#[derive(Clone, Debug)]
pub struct ValidChat {
    /// The client's alone.
    pub messages: Vec<Message>,
    pub template: ChatOptions,
    pub options: Options,
    /// `Some(k)`: log-probabilities of the drawn tokens and of the `k` most probable ones.
    pub logprobs: Option<u32>,
    pub named: Named,
    /// Functions that the answer may call.
    pub tools: Option<Tools>,
    /// Whether thinking is told apart from the answer, where the model's template names tags for it.
    pub splits_thinking: bool,
    pub received: Instant,
}

impl ChatRequest {
    pub fn new(fields: Map<String, Value>, headers: HeaderMap) -> ChatRequest {
        ChatRequest { fields: Fields::new(fields), headers, received: Instant::now() }
    }

    /// The way to a [`ValidChat`] from a body with `messages`.
    pub fn validate(self, context: &Context) -> Result<ValidChat, ApiError> {
        self.validate_with(context, |fields, warnings| {
            Ok((messages::read(fields, warnings, context.text.call_syntax())?, 0))
        })
    }

    /// The only way to a [`ValidChat`]. `read` takes the messages out of the fields and says how many of them stand
    /// before the client's own list; warnings name what it left out.
    pub fn validate_with(
        mut self,
        context: &Context,
        read: impl FnOnce(&mut Fields, &mut Vec<String>) -> Result<(Vec<Message>, usize), ApiError>,
    ) -> Result<ValidChat, ApiError> {
        let named = Named::read(&mut self.fields, &self.headers, context)?;
        let valid = ValidChat::read(&mut self.fields, &context.text, named, read)?;
        Ok(ValidChat { received: self.received, ..valid })
    }
}

impl ValidChat {
    /// All but the names, which need a server.
    pub(super) fn read(
        fields: &mut Fields,
        text: &Text,
        named: Named,
        read: impl FnOnce(&mut Fields, &mut Vec<String>) -> Result<(Vec<Message>, usize), ApiError>,
    ) -> Result<ValidChat, ApiError> {
        let mut options = Options::read(fields, &text.tokenizer, defaults(&named))?;
        let logprobs = read_logprobs(fields)?;
        let tools = Tools::read(fields)?;
        let (mut messages, put_first) = read(fields, &mut options.warnings)?;
        let mut template = ChatOptions { put_first, ..template_options(fields, &messages)? };
        if let Some(tools) = &tools {
            tools.tell(text, &mut messages, &mut template);
            options.shape = tools.with(options.shape, text.call_syntax(), &mut options.warnings)?;
        }
        let splits_thinking = splits_thinking(fields)?;
        let received = Instant::now();
        Ok(ValidChat { messages, template, options, logprobs, named, splits_thinking, tools, received })
    }
}

fn read_logprobs(fields: &mut Fields) -> Result<Option<u32>, ApiError> {
    let wanted = fields.bool("logprobs")?.unwrap_or(false);
    let top = fields.integer("top_logprobs", 0..=limits::CHAT_TOP_LOGPROBS_MAX as i64)?;
    match (wanted, top) {
        (true, top) => Ok(Some(top.unwrap_or(0) as u32)),
        (false, None | Some(0)) => Ok(None),
        (false, Some(_)) => Err(fields.refuse("top_logprobs", "needs `logprobs: true`")),
    }
}

/// `reasoning_format`, as llama.cpp has it: `none` leaves the tags in the content.
fn splits_thinking(fields: &mut Fields) -> Result<bool, ApiError> {
    match fields.string("reasoning_format")?.as_deref() {
        None | Some("" | "auto" | "deepseek") => Ok(true),
        Some("none") => Ok(false),
        Some(other) => {
            let shown: String = other.chars().take(40).collect();
            let message = format!("`{shown}` is not known; allowed are auto, deepseek and none");
            Err(fields.refuse("reasoning_format", message))
        }
    }
}

/// A chat as the model reads it, with the functions that it may call, for routes that let nothing answer it.
pub fn read_chat(
    fields: &mut Fields,
    context: &Context,
    warnings: &mut Vec<String>,
) -> Result<(Vec<Message>, ChatOptions), ApiError> {
    let text = &context.text;
    let tools = Tools::read(fields)?;
    let mut messages = messages::read(fields, warnings, text.call_syntax())?;
    let mut template = template_options(fields, &messages)?;
    if let Some(tools) = tools {
        tools.tell(text, &mut messages, &mut template);
    }
    Ok((messages, template))
}

/// What [`read_chat`] takes beside the messages and what [`template_options`] takes.
pub const TOOL_FIELDS: [&str; 3] = ["tools", "tool_choice", "parallel_tool_calls"];

/// Refuses what only chats take where a text came in their place.
pub fn refuse_chat_fields(fields: &mut Fields) -> Result<(), ApiError> {
    for name in TEMPLATE_FIELDS.iter().chain(&TOOL_FIELDS) {
        if meant(fields, name).is_some() {
            return Err(unsupported(name, "only chats take it; send `messages` or leave it out"));
        }
    }
    Ok(())
}

/// What [`template_options`] takes beside the messages.
pub const TEMPLATE_FIELDS: [&str; 6] = [
    "add_generation_prompt",
    "continue_final_message",
    "chat_template_kwargs",
    "documents",
    "enable_thinking",
    "reasoning_effort",
];

/// An assistant message that stands last is continued, unless the request says otherwise.
pub fn template_options(fields: &mut Fields, messages: &[Message]) -> Result<ChatOptions, ApiError> {
    let kwargs = messages::template_variables(fields)?;
    let prompt = fields.bool("add_generation_prompt")?;
    let ends_with_assistant = messages.last().is_some_and(|message| message.role == Role::Assistant);
    let name = "continue_final_message";
    let continue_final = match fields.bool(name)? {
        Some(true) if !ends_with_assistant => {
            return Err(fields.refuse(name, "the last message must be the assistant's to be continued"));
        }
        Some(true) if prompt == Some(true) => {
            return Err(fields.refuse(name, "true excludes `add_generation_prompt: true`"));
        }
        // Routers send `false` by default, without meaning it.
        Some(true) => true,
        Some(false) | None => ends_with_assistant && prompt != Some(true),
    };
    Ok(ChatOptions {
        add_generation_prompt: !continue_final && prompt.unwrap_or(true),
        continue_final,
        kwargs,
        documents: messages::documents(fields)?,
        ..ChatOptions::default()
    })
}
