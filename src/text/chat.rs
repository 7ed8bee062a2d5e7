//! A chat as a prompt: messages through the template into token ids.

use super::added::absent_characters;
use super::calls::CALL_TAGS;
use super::roles::Turn;
use super::template::Chat;
use super::thinking::ThinkingTags;
use super::{CallSyntax, Specials, Template, TemplateKind, TextError, Tokenizer};
use crate::limits::MESSAGES_MAX;
use serde_json::{Map, Value};
use std::sync::Arc;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    System,
    /// OpenAI's newer name for `System`; the same to every template.
    Developer,
    User,
    Assistant,
    Tool,
}

impl Role {
    pub fn parse(name: &str) -> Option<Role> {
        match name {
            "system" => Some(Role::System),
            "developer" => Some(Role::Developer),
            "user" => Some(Role::User),
            "assistant" => Some(Role::Assistant),
            "tool" => Some(Role::Tool),
            _ => None,
        }
    }

    /// The name that templates know.
    fn in_template(self) -> &'static str {
        match self {
            Role::System | Role::Developer => "system",
            Role::User => "user",
            Role::Assistant => "assistant",
            Role::Tool => "tool",
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    pub role: Role,
    pub content: String,
    pub name: Option<String>,
    /// What the assistant thought before it; templates that know `reasoning_content` decide what to keep.
    pub reasoning: Option<String>,
}

impl Message {
    pub fn new(role: Role, content: &str) -> Message {
        Message { role, content: content.to_owned(), name: None, reasoning: None }
    }
}

#[derive(Clone, Debug)]
pub struct ChatOptions {
    /// Whether the prompt ends where an answer begins. With an assistant message last, that message is continued.
    pub add_generation_prompt: bool,
    /// The last message, an assistant's, stays open: nothing comes after its text.
    pub continue_final: bool,
    /// Messages at the front that the server put there: warnings and errors number the others from 0.
    pub put_first: usize,
    /// Place of one more message of the server's own, behind them.
    pub put_last: Option<usize>,
    /// Values for names that the template reads (`enable_thinking`).
    pub kwargs: Map<String, Value>,
    /// Descriptions of tools, as OpenAI has them; none is `null` to the template.
    pub tools: Vec<Value>,
    /// Texts that the answer may draw on; none is `null` to the template.
    pub documents: Vec<Value>,
}

impl Default for ChatOptions {
    fn default() -> ChatOptions {
        ChatOptions {
            add_generation_prompt: true,
            continue_final: false,
            put_first: 0,
            put_last: None,
            kwargs: Map::new(),
            tools: Vec::new(),
            documents: Vec::new(),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rendered {
    pub text: String,
    pub warnings: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Encoded {
    /// BOS included where the model wants it.
    pub ids: Vec<u32>,
    pub warnings: Vec<String>,
    /// Whether the prompt ends inside a block of thinking.
    pub thinks: bool,
}

/// A rendered chat in which the client's text still carries marks.
struct Composed {
    marked: String,
    mark: char,
    warnings: Vec<String>,
    thinks: bool,
}

/// A model's way with text.
pub struct Text {
    pub tokenizer: Arc<Tokenizer>,
    template: Template,
    /// See [`Text::begin_token`].
    begin: Option<u32>,
    thinking: Option<ThinkingTags>,
    thinking_tokens: Vec<u32>,
    call_tokens: Vec<u32>,
    call_syntax: CallSyntax,
}

impl Text {
    pub fn new(tokenizer: Arc<Tokenizer>, template: Template) -> Text {
        let is_begin = tokenizer.add_bos() || template.source().contains("bos_token");
        let begin = tokenizer.bos().filter(|_| is_begin);
        let thinking = ThinkingTags::named_in(template.source());
        let control = |texts: &[&str]| -> Vec<u32> {
            let ids = texts.iter().filter_map(|text| tokenizer.token_id(text));
            ids.filter(|&id| tokenizer.is_special(id)).collect()
        };
        let thinking_tokens = thinking.map_or_else(Vec::new, |tags| control(&[tags.open, tags.close]));
        let call_tokens = control(&CALL_TAGS);
        let call_syntax = CallSyntax::of(template.source());
        Text { tokenizer, template, begin, thinking, thinking_tokens, call_tokens, call_syntax }
    }

    /// With the template that the model's files have; without one a plain dialogue.
    pub(super) fn with_template(tokenizer: Tokenizer, source: Option<&str>) -> Result<Text, TextError> {
        let text = |id: Option<u32>| id.map(|id| tokenizer.token_text(id)).unwrap_or_default();
        let (bos, eos) = (text(tokenizer.bos()), text(tokenizer.eos()));
        let template = match source {
            Some(source) => Template::new(source, &bos, &eos, TemplateKind::FromFile)?,
            None => Template::plain_dialogue(&bos, &eos)?,
        };
        Ok(Text::new(Arc::new(tokenizer), template))
    }

    /// The tags around what the model thinks, where its template names some.
    pub fn thinking(&self) -> Option<ThinkingTags> {
        self.thinking
    }

    /// Control tokens that are one of those tags: an answer shows them.
    pub fn thinking_tokens(&self) -> &[u32] {
        &self.thinking_tokens
    }

    /// Control tokens that stand around a call: an answer shows them to those who read calls out of it.
    pub fn call_tokens(&self) -> &[u32] {
        &self.call_tokens
    }

    pub fn template(&self) -> &Template {
        &self.template
    }

    /// How this model spells calls of functions.
    pub fn call_syntax(&self) -> CallSyntax {
        self.call_syntax
    }

    /// Strings that end an answer beside the stop tokens: a plain dialogue's model has no token for that.
    pub fn stop_strings(&self) -> &'static [&'static str] {
        match self.template.kind() {
            TemplateKind::PlainDialogue => &["\nUser:"],
            TemplateKind::Shipped | TemplateKind::FromFile => &[],
        }
    }

    /// The prompt as text.
    pub fn render(&self, messages: &[Message], options: &ChatOptions) -> Result<Rendered, TextError> {
        let composed = self.compose(messages, options)?;
        Ok(Rendered { text: composed.marked.replace(composed.mark, ""), warnings: composed.warnings })
    }

    /// The prompt as tokens. Control tokens are those that the template wrote; the same texts in messages stay text.
    pub fn chat(&self, messages: &[Message], options: &ChatOptions) -> Result<Encoded, TextError> {
        let composed = self.compose(messages, options)?;
        let ids = self.tokenizer.encode_marked(&composed.marked, composed.mark)?;
        Ok(Encoded { ids: self.with_bos(ids), warnings: composed.warnings, thinks: composed.thinks })
    }

    /// A prompt without a template. Control tokens written in it are meant: clients that apply a template of their own
    /// send the whole dialogue this way.
    pub fn complete(&self, prompt: &str) -> Result<Vec<u32>, TextError> {
        Ok(self.with_bos(self.tokenizer.encode(prompt, Specials::Parse)?))
    }

    /// The token after which the rows of a soft prompt stand, in prompts that begin with it: BOS where it is one. (Some
    /// vocabularies call the token BOS that opens each turn; rows must not stand inside a turn's opening.)
    pub fn begin_token(&self) -> Option<u32> {
        self.begin
    }

    /// Puts BOS first where the model wants it and the template has not written it.
    fn with_bos(&self, ids: Vec<u32>) -> Vec<u32> {
        match self.tokenizer.bos().filter(|_| self.tokenizer.add_bos()) {
            Some(bos) if ids.first() != Some(&bos) => [bos].into_iter().chain(ids).collect(),
            _ => ids,
        }
    }

    fn compose(&self, messages: &[Message], options: &ChatOptions) -> Result<Composed, TextError> {
        let continued = check(messages, options)?;
        let (mut kwargs, ignored) = self.template.admit(&options.kwargs)?;
        let mut texts = vec![self.template.source()];
        texts.extend(messages.iter().map(|message| message.content.as_str()));
        texts.extend(messages.iter().filter_map(|message| message.name.as_deref()));
        texts.extend(messages.iter().filter_map(|message| message.reasoning.as_deref()));
        let given = kwargs.values().chain(&options.tools).chain(&options.documents);
        given.for_each(|value| strings(value, &mut texts));
        let [mark, end] = absent_characters(&texts).ok_or_else(|| {
            wrong("messages", "they use nearly all of Unicode's private characters".to_owned())
        })?;
        let marked = kwargs.values_mut().filter(|value| !self.template.writes(value));
        marked.for_each(|value| self.mark_strings(value, mark));
        let (mut tools, mut documents) = (options.tools.clone(), options.documents.clone());
        tools.iter_mut().chain(&mut documents).for_each(|value| self.mark_strings(value, mark));
        let place = |at: usize| {
            let own = options.put_first + usize::from(options.put_last.is_some_and(|own| own < at));
            at.checked_sub(own).filter(|_| options.put_last != Some(at))
        };
        let turn = |(at, message)| Turn { index: place(at), ..self.turn(message, mark) };
        let mut turns: Vec<Turn> = messages.iter().enumerate().map(turn).collect();
        if let Some(last) = turns.last_mut().filter(|_| continued) {
            last.content.extend([end, ' ']);
        }
        let add_generation_prompt = options.add_generation_prompt && !continued;
        let chat = Chat {
            turns: &turns,
            add_generation_prompt,
            kwargs: &kwargs,
            tools: &tools,
            documents: &documents,
        };
        let run = self.template.render(&chat)?;
        let marked = if continued { opened(run.text, end)? } else { run.text };
        let thinks = self.thinking.is_some_and(|tags| match messages.last() {
            Some(last) if continued => tags.left_open_in(&last.content),
            _ => add_generation_prompt && tags.opened_by(&marked),
        });
        let unread = (!documents.is_empty() && !self.template.reads_documents())
            .then(|| "`documents` are ignored: the chat template does not read them".to_owned());
        let warnings = run.warnings.into_iter().chain(ignored).chain(unread).collect();
        Ok(Composed { marked, mark, warnings, thinks })
    }

    fn turn(&self, message: &Message, mark: char) -> Turn {
        let guard = self.tokenizer.guard();
        Turn {
            role: message.role.in_template(),
            content: guard.mark(&message.content, mark),
            name: message.name.as_ref().map(|name| guard.mark(name, mark)),
            reasoning_content: message.reasoning.as_ref().map(|text| guard.mark(text, mark)),
            index: None,
        }
    }

    fn mark_strings(&self, value: &mut Value, mark: char) {
        match value {
            Value::String(text) => *text = self.tokenizer.guard().mark(text, mark),
            Value::Array(items) => items.iter_mut().for_each(|item| self.mark_strings(item, mark)),
            Value::Object(map) => {
                let entries = std::mem::take(map).into_iter();
                *map = entries
                    .map(|(key, mut item)| {
                        self.mark_strings(&mut item, mark);
                        (self.tokenizer.guard().mark(&key, mark), item)
                    })
                    .collect();
            }
            Value::Null | Value::Bool(_) | Value::Number(_) => {}
        }
    }
}

/// All strings in a JSON value.
fn strings<'a>(value: &'a Value, found: &mut Vec<&'a str>) {
    match value {
        Value::String(text) => found.push(text),
        Value::Array(items) => items.iter().for_each(|item| strings(item, found)),
        Value::Object(map) => map.iter().for_each(|(key, item)| {
            found.push(key);
            strings(item, found);
        }),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// Whether the last message is to be continued.
fn check(messages: &[Message], options: &ChatOptions) -> Result<bool, TextError> {
    if messages.is_empty() || messages.len() > MESSAGES_MAX {
        return Err(wrong(
            "messages",
            format!("{} messages; 1 to {MESSAGES_MAX} are allowed", messages.len()),
        ));
    }
    let assistant_last = messages.last().is_some_and(|message| message.role == Role::Assistant);
    if options.continue_final && !assistant_last {
        let reason = "the last message is not an assistant message, there is nothing to continue".to_owned();
        return Err(wrong("continue_final_message", reason));
    }
    Ok(assistant_last && (options.continue_final || options.add_generation_prompt))
}

/// `text` up to where the last message ends: `end` and a space were put after it. Where the template trimmed the space,
/// it would have trimmed the message's own too.
fn opened(mut text: String, end: char) -> Result<String, TextError> {
    let at = text.rfind(end).ok_or_else(|| {
        wrong("messages", "the chat template drops the last message, so it cannot be continued".to_owned())
    })?;
    let kept = text[at..].strip_prefix(end).is_some_and(|after| after.starts_with(' '));
    text.truncate(at);
    if !kept {
        text.truncate(text.trim_end().len());
    }
    Ok(text)
}

fn wrong(name: &str, reason: String) -> TextError {
    TextError::Argument { name: name.to_owned(), reason }
}

#[cfg(test)]
#[path = "chat_tests.rs"]
mod tests;
