//! Bodies read as the routes read them, as far as no server is needed. Fuzzing calls this, no route does.

use super::chat::ValidChat;
use super::completion::{Prompt, ValidCompletion};
use super::llama::{self, Extras};
use super::messages;
use super::names::Named;
use crate::constraint::Shape;
use crate::server::error::ApiError;
use crate::server::fields::Fields;
use crate::server::json;
use crate::text::{ChatOptions, Message, Text};

/// A chat's body without what it names: messages, template options and what the answer must be.
pub struct ReadChat {
    pub messages: Vec<Message>,
    pub template: ChatOptions,
    pub shape: Option<Shape>,
}

/// The body of `/v1/chat/completions`.
pub fn chat_body(body: &[u8], text: &Text) -> Result<ReadChat, ApiError> {
    let mut fields = Fields::new(json::object(body)?);
    let valid = ValidChat::read(&mut fields, text, Named::default(), |fields, warnings| {
        Ok((messages::read(fields, warnings, text.call_syntax())?, 0))
    })?;
    let shape = valid.options.shape.map(|asked| asked.shape);
    Ok(ReadChat { messages: valid.messages, template: valid.template, shape })
}

/// The texts of the prompts in the body of `/completion`.
pub fn completion_body(body: &[u8], text: &Text) -> Result<Vec<String>, ApiError> {
    let mut fields = Fields::new(json::object(body)?);
    let extras = Extras::read(&mut fields)?;
    let valid = ValidCompletion::read(&mut fields, &text.tokenizer, Named::default())?;
    let prompts = llama::checked(valid, extras)?.prompts.into_iter();
    Ok(prompts
        .map(|prompt| match prompt {
            Prompt::Text(prompt) => prompt,
            Prompt::Ids(ids) => text.tokenizer.decode(&ids, true),
        })
        .collect())
}
