//! What the routes that look into the model share: a prompt or a chat under a condition, and numbers that come back.

use crate::digest::Digest;
use crate::engine::{Engine, Event, Request, Sampling, Usage};
use crate::persona::Condition;
use crate::server::Context;
use crate::server::error::{ApiError, ErrorCode};
use crate::server::fields::Fields;
use crate::server::openai::{
    Chat, Named, PromptSize, Resolved, TEMPLATE_FIELDS, check_room, encode_chat, encode_text, read_messages,
    refuse_chat_fields, resolve, template_digest, template_options,
};
use crate::text::{ChatOptions, Message};

/// Fields that say what the model reads and under which condition, as both routes take them.
const FIELDS: [&str; 8] =
    ["model", "messages", "prompt", "persona", "steering", "soft_prompt", "user", "safety_identifier"];

/// All fields that both routes take.
pub fn known() -> Vec<&'static str> {
    [&FIELDS[..], &TEMPLATE_FIELDS, &["cache_prompt"]].concat()
}

/// What continuations follow, or what is looked into.
pub struct Before {
    source: Source,
    /// Whether the prefix cache may be used.
    use_cache: bool,
}

enum Source {
    Text(String),
    Chat { messages: Vec<Message>, options: ChatOptions },
}

/// Token ids of a prompt.
pub struct Prompt {
    pub ids: Vec<u32>,
    /// The field that it came from.
    field: &'static str,
}

impl Before {
    pub fn read(
        fields: &mut Fields,
        context: &Context,
        warnings: &mut Vec<String>,
    ) -> Result<Before, ApiError> {
        let use_cache = fields.bool("cache_prompt")?.unwrap_or(true);
        Ok(Before { source: Source::read(fields, context, warnings)?, use_cache })
    }

    /// Looks the names up; a persona's texts go around the messages.
    pub async fn resolve(&mut self, context: &Context, mut named: Named) -> Result<Resolved, ApiError> {
        let chat = match &mut self.source {
            Source::Text(_) => {
                named.other_text = true;
                None
            }
            Source::Chat { messages, options } => Some(Chat { messages, template: options }),
        };
        resolve(context, named, chat).await
    }

    /// The condition under which the prompt is read.
    pub fn condition(&self, context: &Context, resolved: &Resolved) -> Condition {
        let mut condition = resolved.condition(context, Sampling::default());
        condition.template_options = self.template_digest();
        condition.use_cache = self.use_cache;
        condition
    }

    fn template_digest(&self) -> Digest {
        match &self.source {
            Source::Text(_) => template_digest(&ChatOptions::default()),
            Source::Chat { options, .. } => template_digest(options),
        }
    }

    pub async fn encode(self, context: &Context, warnings: &mut Vec<String>) -> Result<Prompt, ApiError> {
        match self.source {
            Source::Text(text) => Ok(Prompt { ids: encode_text(context, text).await?, field: "prompt" }),
            Source::Chat { messages, options } => {
                let encoded = encode_chat(context, messages, options).await?;
                warnings.extend(encoded.warnings);
                Ok(Prompt { ids: encoded.ids, field: "messages" })
            }
        }
    }
}

impl Source {
    fn read(fields: &mut Fields, context: &Context, warnings: &mut Vec<String>) -> Result<Source, ApiError> {
        let has_messages = fields.rest().get("messages").is_some_and(|messages| !messages.is_null());
        match (fields.string("prompt")?, has_messages) {
            (Some(text), false) => {
                refuse_chat_fields(fields)?;
                Ok(Source::Text(text))
            }
            (None, true) => {
                let messages = read_messages(fields, warnings, context.text.call_syntax())?;
                let options = template_options(fields, &messages)?;
                Ok(Source::Chat { messages, options })
            }
            (Some(_), true) => Err(fields.refuse("prompt", "send either `prompt` or `messages`")),
            (None, false) => {
                Err(ApiError::at(ErrorCode::MissingField, "messages", "`messages` or `prompt` is needed"))
            }
        }
    }
}

impl Prompt {
    /// Refuses a prompt that with the soft prompt and `more` tokens does not fit the context.
    pub fn check_room(&self, context: &Context, resolved: &Resolved, more: usize) -> Result<(), ApiError> {
        let size = PromptSize { tokens: self.ids.len() + more, soft_rows: resolved.soft_rows() };
        let room = check_room(context, size, 0);
        room.map(drop).map_err(|error| ApiError { param: Some(self.field.into()), ..error })
    }
}

/// Runs a score (for each continuation its tokens' log-probabilities) or a capture (its rows).
pub async fn numbers(engine: &Engine, request: Request) -> Result<(Vec<Vec<f32>>, Usage), ApiError> {
    let mut events = engine.submit(request)?;
    let mut found = None;
    while let Some(event) = events.next().await {
        match event {
            Event::Scored(numbers) | Event::Captured(numbers) => found = Some(numbers),
            Event::Done { usage, .. } => {
                let ended = || ApiError::internal("a sequence ended without its numbers");
                return found.map(|numbers| (numbers, usage)).ok_or_else(ended);
            }
            Event::Failed(error) => return Err(error.into()),
            Event::Progress { .. } | Event::Prefilled { .. } | Event::Token { .. } => {}
        }
    }
    Err(ApiError::internal("a sequence's events ended early"))
}
