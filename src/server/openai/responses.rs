//! `POST /v1/responses` in its stateless form: read as a chat whose messages are called `input` and whose system text is
//! called `instructions`. Nothing is kept here, so fields that refer to kept responses are refused.

use super::chat::{ChatRequest, ValidChat};
use super::connection;
use super::dialect::respond;
use super::options::unsupported;
use super::responses_answer::ResponsesAnswer;
use super::responses_input::read_input;
use super::start::{Started, start_chat};
use super::tools::Tools;
use crate::limits;
use crate::server::Context;
use crate::server::body::read_object;
use crate::server::error::{ApiError, ErrorCode};
use crate::server::fields::{Fields, wrong_kind};
use crate::text::{Message, Role};
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
    /// As the client describes them.
    pub tools: Vec<Value>,
    pub tool_choice: Option<Value>,
    pub is_parallel: bool,
}

/// `POST /v1/responses`.
pub async fn responses(
    State(context): State<Arc<Context>>,
    request: Request,
) -> Result<Response<Body>, ApiError> {
    let connection = connection(&request);
    let (headers, map) = read_object(request).await?;
    let (valid, echo) = read(map, headers, &context).map_err(renamed)?;
    let (top_logprobs, functions) = (valid.logprobs, valid.tools.as_ref().map(Tools::names));
    let started = start_chat(&context, "resp_", valid).await.map_err(renamed)?;
    let Started { generation, answer, options, thinking, .. } = started;
    let is_stream = options.stream;
    let answer = ResponsesAnswer { answer, options, echo, top_logprobs, functions, thinking, context };
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
        let mut messages = read_input(fields, context.text.call_syntax(), warnings)?;
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
    let tools = read_tools(fields)?;
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
        tools,
        tool_choice: fields.rest().get("tool_choice").cloned(),
        is_parallel: fields.rest().get("parallel_tool_calls").and_then(Value::as_bool).unwrap_or(false),
        user: text_of("user"),
        safety_identifier: text_of("safety_identifier"),
        prompt_cache_key: text_of("prompt_cache_key"),
        instructions,
        metadata,
        reasoning_effort,
        text_format,
    })
}

/// Functions stand flat here; chats have them in an object of their own. Returns them as they were given.
fn read_tools(fields: &mut Fields) -> Result<Vec<Value>, ApiError> {
    let given = match fields.take("tools") {
        None => return Ok(Vec::new()),
        Some(Value::Array(given)) => given,
        Some(other) => return Err(wrong_kind(&fields.path("tools"), &other, "an array of tools")),
    };
    let nested = |tool: &Value| match tool {
        Value::Object(tool) if tool.get("type").is_some_and(|kind| kind == "function") => {
            // What else stands there says nothing to a model.
            let names = ["name", "description", "parameters"];
            let function: Map<String, Value> = (names.iter())
                .filter_map(|name| Some((name.to_string(), tool.get(*name)?.clone())))
                .collect();
            json!({"type": "function", "function": function})
        }
        other => other.clone(),
    };
    fields.put("tools", given.iter().map(nested).collect());
    Ok(given)
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

/// An error of a chat, in the words of this route.
fn renamed(error: ApiError) -> ApiError {
    let names = [
        ("messages", "input"),
        ("response_format.json_schema", "text.format"),
        ("response_format", "text.format"),
    ];
    let Some(param) = &error.param else { return error };
    if param.starts_with("tools[") {
        let flat = |text: &str| text.replacen("].function", "]", 1);
        return ApiError { param: Some(flat(param)), message: flat(&error.message), ..error };
    }
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

    #[test]
    fn refusals_name_the_place() {
        let table = [
            (json!({"previous_response_id": "resp_1"}), "previous_response_id"),
            (json!({"conversation": {"id": "c"}}), "conversation"),
            (json!({"background": true}), "background"),
            (json!({"tools": {}}), "tools"),
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
        let tool = json!({"type": "function", "name": "f", "parameters": {}, "strict": true});
        let mut given = fields(json!({"tools": [tool, {"type": "web_search"}], "tool_choice": "required"}));
        let echo = translate(&mut given, &mut Vec::new()).expect("valid");
        let function = json!({"type": "function", "function": {"name": "f", "parameters": {}}});
        assert_eq!(given.rest()["tools"], json!([function, {"type": "web_search"}]));
        assert_eq!((&echo.tools[0], echo.tool_choice), (&tool, Some(json!("required"))));
        let error = renamed(ApiError::at(ErrorCode::InvalidValue, "tools[1].function.name", "no"));
        assert_eq!(
            (error.param.as_deref(), error.message.as_str()),
            (Some("tools[1].name"), "`tools[1].name`: no")
        );
        let error = renamed(ApiError::at(ErrorCode::InvalidValue, "messages[1].role", "no"));
        assert_eq!(
            (error.param.as_deref(), error.message.as_str()),
            (Some("input[1].role"), "`input[1].role`: no")
        );
    }
}
