//! `POST /v1/responses` in its stateless text form: read as a chat whose messages are called `input` and whose system
//! text is called `instructions`. Nothing is kept here, so fields that refer to kept responses are refused.

use super::chat::{ChatRequest, ValidChat};
use super::connection;
use super::dialect::respond;
use super::messages;
use super::options::unsupported;
use super::responses_answer::ResponsesAnswer;
use super::start::{Started, start_chat};
use crate::limits;
use crate::server::Context;
use crate::server::body::read_object;
use crate::server::error::{ApiError, ErrorCode};
use crate::server::fields::{Fields, missing, wrong_kind};
use crate::text::{CallSyntax, Message, Role};
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, Response};
use serde_json::{Map, Value, json};
use std::sync::Arc;

/// What an answer repeats of its request.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Echo {
    pub instructions: Option<String>,
    pub metadata: Map<String, Value>,
    pub user: Option<String>,
    pub safety_identifier: Option<String>,
    pub prompt_cache_key: Option<String>,
    pub reasoning_effort: Option<String>,
    pub text_format: Option<Value>,
}

/// `POST /v1/responses`.
pub async fn responses(
    State(context): State<Arc<Context>>,
    request: Request,
) -> Result<Response<Body>, ApiError> {
    let connection = connection(&request);
    let (headers, map) = read_object(request).await?;
    let (valid, echo) = read(map, headers, &context).map_err(renamed)?;
    let top_logprobs = valid.logprobs;
    let started = start_chat(&context, "resp_", valid).await.map_err(renamed)?;
    let Started { generation, answer, options, .. } = started;
    let is_stream = options.stream;
    let answer = ResponsesAnswer { answer, options, echo, top_logprobs, context };
    respond(answer, generation, is_stream, connection).await
}

/// The request as the chat it stands for.
fn read(
    map: Map<String, Value>,
    headers: HeaderMap,
    context: &Context,
) -> Result<(ValidChat, Echo), ApiError> {
    let mut request = ChatRequest::new(map, headers);
    let mut warnings = Vec::new();
    let echo = translate(&mut request.fields, &mut warnings)?;
    let instructions = echo.instructions.clone();
    let mut valid = request.validate_with(context, |fields, warnings| {
        let mut messages = read_input(fields, warnings, context.text.call_syntax())?;
        let put_first = usize::from(instructions.is_some());
        if let Some(text) = instructions {
            messages.insert(0, Message::new(Role::System, &text));
        }
        Ok((messages, put_first))
    })?;
    if valid.options.compare {
        let message = "is a field of chats and completions; a response has one answer";
        return Err(ApiError::at(ErrorCode::InvalidValue, "compare", message));
    }
    // What a model thinks has no place in this form's text items.
    valid.splits_thinking = false;
    valid.options.warnings.extend(warnings);
    Ok((valid, echo))
}

/// Refuses what needs state or is not built, and gives the rest the names that chats have.
fn translate(fields: &mut Fields, warnings: &mut Vec<String>) -> Result<Echo, ApiError> {
    for name in ["previous_response_id", "conversation", "prompt"] {
        if fields.take(name).is_some() {
            let message = "no response is kept on this server; send the whole conversation as `input`";
            return Err(unsupported(name, message));
        }
    }
    if fields.bool("background")? == Some(true) {
        return Err(unsupported("background", "responses are answered at once and not kept"));
    }
    if fields.bool("store")? == Some(true) {
        warnings.push("`store`: no response is kept on this server".to_owned());
    }
    match fields.string("truncation")?.as_deref() {
        None | Some("disabled" | "") => {}
        Some("auto") => warnings.push("`truncation`: an input that is too long is refused".to_owned()),
        Some(_) => return Err(fields.refuse("truncation", "allowed are `auto` and `disabled`")),
    }
    match fields.take("tools") {
        None => {}
        Some(Value::Array(tools)) if tools.is_empty() => {}
        Some(_) => return Err(unsupported("tools", "not supported on this route yet; leave it out")),
    }
    // A response is one answer.
    fields.take("n");
    let text_format = read_text(fields)?;
    let reasoning_effort = read_effort(fields)?;
    read_logprobs(fields)?;
    let metadata = read_metadata(fields)?;
    let instructions = fields.string("instructions")?.filter(|text| !text.is_empty());
    // Those two are read again where a chat reads them.
    let text_of = |name: &str| fields.rest().get(name).and_then(Value::as_str).map(str::to_owned);
    Ok(Echo {
        user: text_of("user"),
        safety_identifier: text_of("safety_identifier"),
        prompt_cache_key: text_of("prompt_cache_key"),
        instructions,
        metadata,
        reasoning_effort,
        text_format,
    })
}

/// `text.format` is what chats call `response_format`.
fn read_text(fields: &mut Fields) -> Result<Option<Value>, ApiError> {
    let Some(text) = fields.take("text") else { return Ok(None) };
    let path = fields.path("text");
    let mut text = Fields::nested(text, &path)?;
    let Some(format) = text.take("format") else { return Ok(None) };
    let Value::Object(mut flat) = format.clone() else {
        return Err(wrong_kind(&text.path("format"), &format, "an object"));
    };
    let nested = match flat.get("type").and_then(Value::as_str) {
        Some("json_schema") => {
            flat.shift_remove("type");
            json!({"type": "json_schema", "json_schema": flat})
        }
        _ => format.clone(),
    };
    fields.put("response_format", nested);
    Ok(Some(format))
}

fn read_effort(fields: &mut Fields) -> Result<Option<String>, ApiError> {
    let Some(reasoning) = fields.take("reasoning") else { return Ok(None) };
    let path = fields.path("reasoning");
    let effort = Fields::nested(reasoning, &path)?.string("effort")?;
    if let Some(effort) = &effort {
        fields.put("reasoning_effort", json!(effort));
    }
    Ok(effort)
}

/// Log-probabilities are asked for by `include` here, or by `top_logprobs` alone.
fn read_logprobs(fields: &mut Fields) -> Result<(), ApiError> {
    let included = match fields.take("include") {
        None => false,
        Some(Value::Array(items)) => {
            let other = items.iter().enumerate().find(|(_, item)| !item.is_string());
            other
                .map_or(Ok(()), |(at, item)| Err(wrong_kind(&format!("include[{at}]"), item, "a string")))?;
            items.iter().any(|item| item == "message.output_text.logprobs")
        }
        Some(other) => return Err(wrong_kind("include", &other, "an array of strings")),
    };
    let top = fields.rest().get("top_logprobs").and_then(Value::as_f64).is_some_and(|top| top > 0.0);
    if included || top {
        fields.put("logprobs", Value::Bool(true));
    }
    Ok(())
}

/// Up to sixteen texts by name, which the answer repeats.
fn read_metadata(fields: &mut Fields) -> Result<Map<String, Value>, ApiError> {
    let path = fields.path("metadata");
    let map = match fields.take("metadata") {
        None => return Ok(Map::new()),
        Some(Value::Object(map)) => map,
        Some(other) => return Err(wrong_kind(&path, &other, "an object")),
    };
    let most = limits::METADATA_PAIRS_MAX;
    if map.len() > most {
        return Err(fields.refuse("metadata", format!("{} pairs are too many; at most {most}", map.len())));
    }
    for value in map.values() {
        let Some(text) = value.as_str() else { return Err(wrong_kind(&path, value, "texts by name")) };
        if text.len() > limits::METADATA_VALUE_BYTES_MAX {
            let most = limits::METADATA_VALUE_BYTES_MAX;
            let message = format!("a value of {} bytes is too long; at most {most}", text.len());
            return Err(fields.refuse("metadata", message));
        }
    }
    Ok(map)
}

/// A text of the user, or a list of messages. Reasoning that a client sends back is left out: the templates write their
/// own.
fn read_input(
    fields: &mut Fields,
    warnings: &mut Vec<String>,
    syntax: CallSyntax,
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
    let mut messages = Vec::new();
    for (index, item) in items.into_iter().enumerate() {
        let path = format!("{path}[{index}]");
        match item.get("type").and_then(Value::as_str) {
            None | Some("message") => messages.push(messages::one(item, &path, warnings, syntax)?),
            Some("reasoning") => {}
            Some("item_reference") => {
                return Err(unsupported(&path, "no item is kept on this server; send the item itself"));
            }
            Some(kind) => {
                let kind: String = kind.chars().take(40).collect();
                return Err(unsupported(&path, &format!("an item of type `{kind}` is not supported")));
            }
        }
    }
    if messages.is_empty() {
        return Err(ApiError::at(
            ErrorCode::InvalidValue,
            path,
            "no message is in it; at least one is needed",
        ));
    }
    Ok(messages)
}

/// An error of a chat, in the words of this route.
fn renamed(error: ApiError) -> ApiError {
    let names = [
        ("messages", "input"),
        ("response_format.json_schema", "text.format"),
        ("response_format", "text.format"),
    ];
    let Some(param) = &error.param else { return error };
    let Some((chat, own)) = names.iter().find(|(chat, _)| param.starts_with(chat)) else { return error };
    ApiError {
        param: Some(param.replacen(chat, own, 1)),
        message: error.message.replacen(&format!("`{chat}"), &format!("`{own}"), 1),
        ..error
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(body: Value) -> Fields {
        let Value::Object(map) = body else { unreachable!("an object") };
        Fields::new(map)
    }

    fn input(value: Value) -> Result<Vec<(Role, String)>, ApiError> {
        let mut given = fields(json!({"input": value}));
        let read = read_input(&mut given, &mut Vec::new(), CallSyntax::Tagged)?;
        Ok(read.into_iter().map(|message| (message.role, message.content)).collect())
    }

    #[test]
    fn inputs_as_clients_send_them() {
        assert_eq!(input(json!("hi")).expect("valid"), [(Role::User, "hi".into())]);
        let list = json!([
            {"role": "user", "content": [{"type": "input_text", "text": "a"}]},
            {"type": "reasoning", "summary": []},
            {"type": "message", "role": "assistant", "id": "msg_1", "status": "completed",
             "content": [{"type": "output_text", "text": "b", "annotations": []}]},
            {"role": "developer", "content": "c"},
        ]);
        let wanted = [(Role::User, "a"), (Role::Assistant, "b"), (Role::Developer, "c")];
        assert_eq!(input(list).expect("valid"), wanted.map(|(role, text)| (role, text.to_string())));
    }

    #[test]
    fn refusals_name_the_place() {
        let table = [
            (json!(null), ErrorCode::MissingField, "input"),
            (json!(7), ErrorCode::InvalidValue, "input"),
            (json!([]), ErrorCode::InvalidValue, "input"),
            (json!([{"type": "reasoning"}]), ErrorCode::InvalidValue, "input"),
            (json!([{"role": "bot", "content": "x"}]), ErrorCode::InvalidValue, "input[0].role"),
            (json!([{"type": "item_reference", "id": "x"}]), ErrorCode::Unsupported, "input[0]"),
            (json!([{"type": "function_call"}]), ErrorCode::Unsupported, "input[0]"),
        ];
        for (value, code, param) in table {
            let error = input(value.clone()).expect_err("must be refused");
            assert_eq!((error.code, error.param.as_deref()), (code, Some(param)), "{value}");
        }
        let table = [
            (json!({"previous_response_id": "resp_1"}), "previous_response_id"),
            (json!({"conversation": {"id": "c"}}), "conversation"),
            (json!({"background": true}), "background"),
            (json!({"tools": [{"type": "web_search"}]}), "tools"),
            (json!({"truncation": "some"}), "truncation"),
            (json!({"text": "x"}), "text"),
            (json!({"text": {"format": "x"}}), "text.format"),
            (json!({"metadata": {"a": 1}}), "metadata"),
            (json!({"metadata": {"a": "x".repeat(513)}}), "metadata"),
            (json!({"include": "x"}), "include"),
            (json!({"include": [{}]}), "include[0]"),
            (json!({"reasoning": {"effort": 1}}), "reasoning.effort"),
        ];
        for (body, param) in table {
            let error = translate(&mut fields(body.clone()), &mut Vec::new()).expect_err("must be refused");
            assert_eq!(error.param.as_deref(), Some(param), "{body}");
        }
    }

    #[test]
    fn fields_get_the_names_of_chats() {
        let mut given = fields(json!({
            "instructions": "i", "store": true, "previous_response_id": null, "background": false, "tools": [],
            "text": {"format": {"type": "json_schema", "name": "A", "schema": {}}, "verbosity": "low"},
            "reasoning": {"effort": "low", "summary": null}, "include": ["message.output_text.logprobs"],
            "metadata": {"a": "b"}, "user": "u1",
        }));
        let mut warnings = Vec::new();
        let echo = translate(&mut given, &mut warnings).expect("valid");
        assert_eq!(given.rest()["response_format"]["json_schema"], json!({"name": "A", "schema": {}}));
        assert_eq!(
            (&given.rest()["logprobs"], &given.rest()["reasoning_effort"]),
            (&json!(true), &json!("low"))
        );
        assert_eq!((echo.instructions.as_deref(), echo.user.as_deref()), (Some("i"), Some("u1")));
        assert_eq!(warnings.len(), 1);
        let error = renamed(ApiError::at(ErrorCode::InvalidValue, "messages[1].role", "no"));
        assert_eq!(
            (error.param.as_deref(), error.message.as_str()),
            (Some("input[1].role"), "`input[1].role`: no")
        );
    }
}
