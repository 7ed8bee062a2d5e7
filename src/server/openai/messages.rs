//! The `messages` field: from JSON as clients send it to checked messages.

use super::options::unsupported;
use super::tools::made_calls;
use crate::limits;
use crate::server::error::{ApiError, ErrorCode};
use crate::server::fields::{Fields, missing, wrong_kind};
use crate::text::{CallSyntax, Message, Role};
use serde_json::{Map, Value};

/// Reads `messages`, which must be there and not be empty. Calls that an assistant made become the text that they were,
/// spelled as the model does. Warnings name what was left out.
pub fn read(
    fields: &mut Fields,
    warnings: &mut Vec<String>,
    syntax: CallSyntax,
) -> Result<Vec<Message>, ApiError> {
    let path = fields.path("messages");
    let items = match fields.take("messages") {
        Some(Value::Array(items)) => items,
        Some(other) => return Err(wrong_kind(&path, &other, "an array of messages")),
        None => {
            return Err(ApiError::at(
                ErrorCode::MissingField,
                path,
                "the field is missing; send an array of messages",
            ));
        }
    };
    if items.is_empty() {
        return Err(ApiError::at(
            ErrorCode::InvalidValue,
            path,
            "the array is empty; at least one message is needed",
        ));
    }
    if items.len() > limits::MESSAGES_MAX {
        let message = format!("{} messages are too many; at most {}", items.len(), limits::MESSAGES_MAX);
        return Err(ApiError::at(ErrorCode::InvalidValue, path, message));
    }
    items
        .into_iter()
        .enumerate()
        .map(|(index, item)| one(item, &format!("{path}[{index}]"), warnings, syntax))
        .collect()
}

/// Whether a message of the client's own stands where a persona's system text does.
pub fn have_system(messages: &[Message]) -> bool {
    messages.iter().any(|message| matches!(message.role, Role::System | Role::Developer))
}

/// Text of the last user message.
pub fn last_user_text(messages: &[Message]) -> Option<String> {
    messages.iter().rev().find(|message| message.role == Role::User).map(|message| message.content.clone())
}

/// One message found at `path`.
pub fn one(
    item: Value,
    path: &str,
    warnings: &mut Vec<String>,
    syntax: CallSyntax,
) -> Result<Message, ApiError> {
    let mut fields = Fields::nested(item, path)?;
    let role = match fields.string("role")?.as_deref() {
        Some("system") => Role::System,
        Some("developer") => Role::Developer,
        Some("user") => Role::User,
        Some("assistant") => Role::Assistant,
        Some("tool") => Role::Tool,
        Some(other) => {
            let shown: String = other.chars().take(40).collect();
            let message =
                format!("`{shown}` is no role; allowed are system, developer, user, assistant, tool");
            return Err(fields.refuse("role", message));
        }
        None => {
            return Err(missing(fields.path("role")));
        }
    };
    let calls = match fields.take("tool_calls").filter(|calls| *calls != Value::Array(Vec::new())) {
        Some(calls) => Some(made_calls(calls, &fields.path("tool_calls"), syntax)?),
        None => None,
    };
    if fields.take("function_call").is_some() {
        warnings.push(format!("`{path}.function_call` was left out; send `tool_calls`"));
    }
    let mut content = match fields.take("content") {
        Some(value) => text(value, &fields.path("content"))?,
        None if role == Role::Assistant || calls.is_some() => String::new(),
        None => {
            return Err(missing(fields.path("content")));
        }
    };
    if let Some(calls) = calls {
        if !content.is_empty() {
            content.push('\n');
        }
        content += &calls;
    }
    let reasoning = fields.string("reasoning_content")?.filter(|_| role == Role::Assistant);
    Ok(Message { role, content, name: fields.string("name")?, reasoning })
}

/// A string, or an array of text parts, which are joined.
pub fn text(value: Value, path: &str) -> Result<String, ApiError> {
    match value {
        Value::String(text) => Ok(text),
        Value::Array(parts) => {
            let part = |(index, part)| text_part(part, &format!("{path}[{index}]"));
            parts.into_iter().enumerate().map(part).collect()
        }
        other => Err(wrong_kind(path, &other, "a string or an array of text parts")),
    }
}

fn text_part(part: Value, path: &str) -> Result<String, ApiError> {
    if let Value::String(text) = part {
        return Ok(text);
    }
    let mut fields = Fields::nested(part, path)?;
    match fields.string("type")?.as_deref() {
        Some("text" | "input_text" | "output_text") => match fields.string("text")? {
            Some(text) => Ok(text),
            None => Err(missing(fields.path("text"))),
        },
        Some(other) => {
            let shown: String = other.chars().take(40).collect();
            Err(unsupported(path, &format!("a part of type `{shown}` is not supported; only text is")))
        }
        None => Err(missing(fields.path("type"))),
    }
}

/// Names that a request may not set for the template: they are the server's own.
const RESERVED: [&str; 11] = [
    "messages",
    "tools",
    "documents",
    "bos_token",
    "eos_token",
    "pad_token",
    "unk_token",
    "chat_template",
    "add_generation_prompt",
    "continue_final_message",
    "raise_exception",
];

/// Variables for the chat template, from `chat_template_kwargs` and the shorthands `enable_thinking` and
/// `reasoning_effort`. Those that the template does not read get a warning from it.
pub fn template_variables(fields: &mut Fields) -> Result<Map<String, Value>, ApiError> {
    let name = "chat_template_kwargs";
    let mut variables = match fields.take(name) {
        None => Map::new(),
        Some(Value::Object(map)) => map,
        Some(other) => return Err(wrong_kind(&fields.path(name), &other, "an object")),
    };
    if let Some(reserved) = RESERVED.iter().find(|reserved| variables.contains_key(**reserved)) {
        let path = fields.path(&format!("{name}.{reserved}"));
        let message = "the name is the server's own and may not be set";
        return Err(ApiError {
            param: Some(fields.path(name)),
            ..ApiError::at(ErrorCode::InvalidValue, path, message)
        });
    }
    if let Some(thinking) = fields.bool("enable_thinking")? {
        variables.entry("enable_thinking").or_insert(Value::Bool(thinking));
    }
    if let Some(effort) = fields.string("reasoning_effort")?.filter(|effort| !effort.is_empty()) {
        variables.entry("reasoning_effort").or_insert(Value::String(effort));
    }
    Ok(variables)
}

/// Texts that the answer may draw on: objects of texts, as templates take them.
pub fn documents(fields: &mut Fields) -> Result<Vec<Value>, ApiError> {
    let path = fields.path("documents");
    match fields.take_set("documents") {
        None => Ok(Vec::new()),
        Some(Value::Array(items)) => {
            let bad = items.iter().enumerate().find(|(_, item)| !item.is_object());
            bad.map_or(Ok(()), |(at, item)| Err(wrong_kind(&format!("{path}[{at}]"), item, "an object")))?;
            Ok(items)
        }
        Some(other) => Err(wrong_kind(&path, &other, "an array of objects")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn parse(messages: Value) -> Result<(Vec<Message>, Vec<String>), ApiError> {
        let Value::Object(map) = json!({"messages": messages}) else { unreachable!("an object") };
        let mut warnings = Vec::new();
        read(&mut Fields::new(map), &mut warnings, CallSyntax::Tagged).map(|messages| (messages, warnings))
    }

    #[test]
    fn contents_as_clients_send_them() {
        let (messages, warnings) = parse(json!([
            {"role": "system", "content": "s"},
            {"role": "assistant", "content": null, "tool_calls": [{"function": {"name": "f"}}]},
            {"role": "assistant", "content": null, "function_call": {}},
            {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}], "name": "n"},
        ]))
        .expect("valid");
        let contents: Vec<&str> = messages.iter().map(|message| message.content.as_str()).collect();
        let call = "<tool_call>\n{\"name\": \"f\", \"arguments\": {}}\n</tool_call>";
        assert_eq!(contents, ["s", call, "", "ab"]);
        assert_eq!(messages[3].name.as_deref(), Some("n"));
        assert_eq!(warnings.len(), 1);
    }

    #[test]
    fn refusals_name_the_place() {
        let image =
            json!([{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "file:///x"}}]}]);
        let table = [
            (json!([]), ErrorCode::InvalidValue, "messages"),
            (json!("hi"), ErrorCode::InvalidValue, "messages"),
            (json!([1]), ErrorCode::InvalidValue, "messages[0]"),
            (json!([{"content": "x"}]), ErrorCode::MissingField, "messages[0].role"),
            (json!([{"role": "bot", "content": "x"}]), ErrorCode::InvalidValue, "messages[0].role"),
            (json!([{"role": "user"}]), ErrorCode::MissingField, "messages[0].content"),
            (json!([{"role": "user", "content": 1}]), ErrorCode::InvalidValue, "messages[0].content"),
            (image, ErrorCode::Unsupported, "messages[0].content[0]"),
        ];
        for (messages, code, param) in table {
            let error = parse(messages.clone()).expect_err("must be refused");
            assert_eq!((error.code, error.param.as_deref()), (code, Some(param)), "{messages}");
        }
    }
}
