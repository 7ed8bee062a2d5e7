//! The `input` of a response: a text, or items (messages, calls and their results, reasoning), as messages of a chat.

use super::messages;
use super::options::unsupported;
use super::tools::made_call;
use crate::limits;
use crate::server::error::{ApiError, ErrorCode};
use crate::server::fields::{Fields, missing, wrong_kind};
use crate::text::{CallSyntax, Message, Role};
use serde_json::Value;

/// Reads `input`. Calls become the text that they were, in the message of the assistant that made them; reasoning goes
/// with what the assistant said or called next.
pub fn read_input(
    fields: &mut Fields,
    syntax: CallSyntax,
    warnings: &mut Vec<String>,
) -> Result<Vec<Message>, ApiError> {
    let path = fields.path("input");
    let items = match fields.take("input") {
        Some(Value::String(text)) => return Ok(vec![Message::new(Role::User, &text)]),
        Some(Value::Array(items)) => items,
        Some(other) => return Err(wrong_kind(&path, &other, "a string or an array of messages")),
        None => return Err(missing(path)),
    };
    if items.len() > limits::MESSAGES_MAX {
        let message = format!("{} messages are too many; at most {}", items.len(), limits::MESSAGES_MAX);
        return Err(ApiError::at(ErrorCode::InvalidValue, path, message));
    }
    let mut read = Read { syntax, messages: Vec::new(), reasoning: None, last: Last::Other };
    for (index, item) in items.into_iter().enumerate() {
        read.item(item, &format!("{path}[{index}]"), warnings)?;
    }
    if read.messages.is_empty() {
        let message = "no message is in it; at least one is needed";
        return Err(ApiError::at(ErrorCode::InvalidValue, path, message));
    }
    Ok(read.messages)
}

/// What was read so far.
struct Read {
    syntax: CallSyntax,
    messages: Vec<Message>,
    /// Of the assistant's next message.
    reasoning: Option<String>,
    last: Last,
}

/// What the last item was, to which a call is added.
#[derive(PartialEq)]
enum Last {
    Said,
    Called,
    Other,
}

impl Read {
    fn item(&mut self, item: Value, path: &str, warnings: &mut Vec<String>) -> Result<(), ApiError> {
        match item.get("type").and_then(Value::as_str) {
            None | Some("message") => {
                let message = messages::one(item, path, warnings, self.syntax)?;
                self.push(message, Last::Said);
            }
            Some("function_call") => {
                let call = made_call(&mut Fields::nested(item, path)?, self.syntax)?;
                match self.messages.last_mut().filter(|_| self.last != Last::Other) {
                    Some(message) => {
                        if !message.content.is_empty() {
                            let said = self.last == Last::Said;
                            message.content += if said { "\n" } else { self.syntax.between() };
                        }
                        message.content += &call;
                    }
                    None => self.push(Message::new(Role::Assistant, &call), Last::Called),
                }
                self.last = Last::Called;
            }
            Some("function_call_output") => {
                let mut fields = Fields::nested(item, path)?;
                let output = fields.take("output").ok_or_else(|| missing(fields.path("output")))?;
                let text = messages::text(output, &fields.path("output"))?;
                self.push(Message::new(Role::Tool, &text), Last::Other);
            }
            Some("reasoning") => {
                let mut fields = Fields::nested(item, path)?;
                self.reasoning = reasoning(&mut fields)?;
                self.last = Last::Other;
            }
            Some("item_reference") => {
                return Err(unsupported(path, "no item is kept on this server; send the item itself"));
            }
            Some(kind) => {
                let kind: String = kind.chars().take(40).collect();
                return Err(unsupported(path, &format!("an item of type `{kind}` is not supported")));
            }
        }
        Ok(())
    }

    fn push(&mut self, mut message: Message, last: Last) {
        let reasoning = self.reasoning.take();
        let is_assistant = message.role == Role::Assistant;
        if is_assistant && message.reasoning.is_none() {
            message.reasoning = reasoning;
        }
        self.last = if is_assistant { last } else { Last::Other };
        self.messages.push(message);
    }
}

/// The texts of a reasoning item. A summary is no part of what the model wrote.
fn reasoning(fields: &mut Fields) -> Result<Option<String>, ApiError> {
    let path = fields.path("content");
    let parts = match fields.take("content") {
        None => return Ok(None),
        Some(Value::Array(parts)) => parts,
        Some(other) => return Err(wrong_kind(&path, &other, "an array of parts")),
    };
    let texts: Vec<&str> = parts.iter().filter_map(|part| part.get("text")?.as_str()).collect();
    Ok((!texts.is_empty()).then(|| texts.concat()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read(value: Value) -> Result<Vec<Message>, ApiError> {
        let Value::Object(map) = json!({"input": value}) else { unreachable!("an object") };
        read_input(&mut Fields::new(map), CallSyntax::Tagged, &mut Vec::new())
    }

    fn input(value: Value) -> Vec<(Role, String)> {
        let read = read(value).expect("valid");
        read.into_iter().map(|message| (message.role, message.content)).collect()
    }

    #[test]
    fn inputs_as_clients_send_them() {
        assert_eq!(input(json!("hi")), [(Role::User, "hi".into())]);
        let list = json!([
            {"role": "user", "content": [{"type": "input_text", "text": "a"}]},
            {"type": "reasoning", "summary": []},
            {"type": "message", "role": "assistant", "id": "msg_1", "status": "completed",
             "content": [{"type": "output_text", "text": "b", "annotations": []}]},
            {"role": "developer", "content": "c"},
        ]);
        let wanted = [(Role::User, "a"), (Role::Assistant, "b"), (Role::Developer, "c")];
        assert_eq!(input(list), wanted.map(|(role, text)| (role, text.to_string())));
    }

    #[test]
    fn calls_join_the_message_that_made_them() {
        let call =
            |name: &str| json!({"type": "function_call", "call_id": "c", "name": name, "arguments": "{}"});
        let thought = json!({"type": "reasoning", "content": [{"type": "reasoning_text", "text": "Hm."}]});
        let result = json!({"type": "function_call_output", "call_id": "c", "output": "21"});
        let parts = json!({"type": "function_call_output", "output": [{"type": "input_text", "text": "22"}]});
        let messages = read(json!([
            {"role": "user", "content": "q"}, thought, {"role": "assistant", "content": "I ask."}, call("f"), call("g"),
            result, parts, call("h"), {"role": "user", "content": "r"},
        ]))
        .expect("valid");
        let spelled = |name: &str| CallSyntax::Tagged.spelled(name, "{}");
        let wanted = [
            (Role::User, "q".to_owned()),
            (Role::Assistant, format!("I ask.\n{}\n{}", spelled("f"), spelled("g"))),
            (Role::Tool, "21".to_owned()),
            (Role::Tool, "22".to_owned()),
            (Role::Assistant, spelled("h")),
            (Role::User, "r".to_owned()),
        ];
        let found: Vec<(Role, String)> =
            messages.iter().map(|message| (message.role, message.content.clone())).collect();
        assert_eq!(found, wanted);
        assert_eq!(messages[1].reasoning.as_deref(), Some("Hm."));
        assert!(
            messages.iter().enumerate().all(|(index, message)| index == 1 || message.reasoning.is_none())
        );
        // Reasoning before a call alone, and reasoning that nothing of the assistant follows.
        let messages = read(json!([thought, call("f")])).expect("valid");
        assert_eq!(messages[0].reasoning.as_deref(), Some("Hm."));
        let messages = read(json!([thought, {"role": "user", "content": "q"}, call("f")])).expect("valid");
        assert_eq!(messages[1].reasoning, None);
    }

    #[test]
    fn refusals_name_the_place() {
        let table = [
            (json!(null), ErrorCode::MissingField, "input"),
            (json!(7), ErrorCode::InvalidValue, "input"),
            (json!([]), ErrorCode::InvalidValue, "input"),
            (json!([{"type": "reasoning"}]), ErrorCode::InvalidValue, "input"),
            (json!([{"type": "reasoning", "content": "x"}]), ErrorCode::InvalidValue, "input[0].content"),
            (json!([{"role": "bot", "content": "x"}]), ErrorCode::InvalidValue, "input[0].role"),
            (json!([{"type": "item_reference", "id": "x"}]), ErrorCode::Unsupported, "input[0]"),
            (json!([{"type": "web_search_call"}]), ErrorCode::Unsupported, "input[0]"),
            (json!([{"type": "function_call"}]), ErrorCode::MissingField, "input[0].name"),
            (json!([{"type": "function_call_output"}]), ErrorCode::MissingField, "input[0].output"),
            (
                json!([{"type": "function_call_output", "output": [{"type": "input_image"}]}]),
                ErrorCode::Unsupported,
                "input[0].output[0]",
            ),
        ];
        for (value, code, param) in table {
            let error = read(value.clone()).expect_err("must be refused");
            assert_eq!((error.code, error.param.as_deref()), (code, Some(param)), "{value}");
        }
    }
}
