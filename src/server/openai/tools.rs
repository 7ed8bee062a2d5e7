//! `tools` and `tool_choice`: what may be called, how the model is told, and what an answer must be when it has to call.

use super::shape::Asked;
use crate::constraint::{Call, Shape};
use crate::limits;
use crate::persona::put_system;
use crate::server::error::{ApiError, ErrorCode, shown};
use crate::server::fields::{Fields, missing, wrong_kind};
use crate::text::{CallSyntax, ChatOptions, Message, Text};
use serde_json::{Map, Value, json};
use std::sync::Arc;

/// Functions that an answer may call.
#[derive(Clone, Debug, PartialEq)]
pub struct Tools {
    functions: Vec<Function>,
    /// The functions that must be called, one of them; `None`: the model is free.
    forced: Option<Vec<usize>>,
    /// Whether one answer may make several forced calls.
    is_parallel: bool,
}

#[derive(Clone, Debug, PartialEq)]
struct Function {
    name: String,
    /// As the client describes it.
    described: Value,
    /// Schema of the arguments.
    parameters: Value,
}

impl Tools {
    /// `None`: there are none, or none may be called.
    pub fn read(fields: &mut Fields) -> Result<Option<Tools>, ApiError> {
        let choice = fields.take_set("tool_choice");
        let is_parallel = fields.bool("parallel_tool_calls")?.unwrap_or(false);
        let path = fields.path("tools");
        let items = match fields.take("tools") {
            None => Vec::new(),
            Some(Value::Array(items)) => items,
            Some(other) => return Err(wrong_kind(&path, &other, "an array of tools")),
        };
        if items.len() > limits::TOOLS_MAX {
            let message = format!("{} tools are too many; at most {}", items.len(), limits::TOOLS_MAX);
            return Err(fields.refuse("tools", message));
        }
        let mut functions: Vec<Function> = Vec::with_capacity(items.len());
        for (index, item) in items.into_iter().enumerate() {
            let path = format!("{path}[{index}]");
            let function = Function::read(item, &path)?;
            if functions.iter().any(|other| other.name == function.name) {
                let message = format!("`{}` is described twice", function.name);
                return Err(ApiError::at(ErrorCode::InvalidValue, format!("{path}.function.name"), message));
            }
            functions.push(function);
        }
        let forced = match forced(choice, &fields.path("tool_choice"), &functions)? {
            Choice::None => return Ok(None),
            Choice::Free => None,
            Choice::OneOf(forced) => Some(forced),
        };
        Ok((!functions.is_empty()).then_some(Tools { functions, forced, is_parallel }))
    }

    pub fn names(&self) -> Arc<[String]> {
        self.functions.iter().map(|function| function.name.clone()).collect()
    }

    /// What an answer must be that has to call.
    fn shape(&self, syntax: CallSyntax) -> Option<Asked> {
        let forced = self.forced.as_ref()?;
        let call = |index: &usize| {
            let function = self.functions.get(*index)?;
            let (before, after) = syntax.around(&function.name);
            Some(Call { before, arguments: function.parameters.clone(), after: after.to_owned() })
        };
        let calls = forced.iter().filter_map(call).collect();
        let most = if self.is_parallel { limits::TOOL_CALLS_MAX } else { 1 };
        let shape = Shape::Calls { calls, between: syntax.between().to_owned(), most };
        Some(Asked::new(shape, "tools"))
    }

    /// What the answer must be: a call where one is forced, else what was asked for otherwise.
    pub fn with(
        &self,
        asked: Option<Asked>,
        syntax: CallSyntax,
        warnings: &mut Vec<String>,
    ) -> Result<Option<Asked>, ApiError> {
        match (self.shape(syntax), asked) {
            (Some(_), Some(asked)) => Err(asked.refuse("`tool_choice` forces a call; send one of them")),
            (None, Some(asked)) => {
                warnings.push("`tools`: with a format the answer cannot be a call".to_owned());
                Ok(Some(asked))
            }
            (forced, None) => Ok(forced),
        }
    }

    /// Tells the model what there is: by its template where that knows tools, else in a system message.
    pub fn tell(&self, text: &Text, messages: &mut Vec<Message>, template: &mut ChatOptions) {
        if text.template().reads_tools() {
            template.tools = self.functions.iter().map(|function| function.described.clone()).collect();
        } else {
            template.put_first += self.put_into(messages, text.call_syntax());
        }
    }

    /// Returns the number of messages put in front.
    fn put_into(&self, messages: &mut Vec<Message>, syntax: CallSyntax) -> usize {
        let described: Vec<String> = self
            .functions
            .iter()
            .map(|function| function.described.get("function").unwrap_or(&function.described).to_string())
            .collect();
        let example = syntax.spelled("the function's name", "{\"argument\": \"value\"}");
        let text = format!(
            "You can call functions. Each line describes one of them as JSON:\n{}\nTo call a function, answer in this \
             form and with nothing else:\n{example}\nIts result comes in the next message.",
            described.join("\n")
        );
        put_system(messages, &text)
    }
}

impl Function {
    fn read(item: Value, path: &str) -> Result<Function, ApiError> {
        let described = item.clone();
        let mut tool = Fields::nested(item, path)?;
        match tool.string("type")?.as_deref() {
            Some("function") => {}
            Some(other) => {
                let given = shown(Value::from(other));
                return Err(tool.refuse("type", format!("{given} is not supported; only `function` is")));
            }
            None => return Err(missing(tool.path("type"))),
        }
        let inner = tool.take("function").ok_or_else(|| missing(tool.path("function")))?;
        let mut function = Fields::nested(inner, &tool.path("function"))?;
        let name = function.string("name")?.ok_or_else(|| missing(function.path("name")))?;
        let is_letter = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.');
        if name.is_empty() || name.len() > limits::TOOL_NAME_BYTES_MAX || !name.bytes().all(is_letter) {
            let most = limits::TOOL_NAME_BYTES_MAX;
            let message = format!("names of functions are 1 to {most} of the characters a-z A-Z 0-9 _ - .");
            return Err(function.refuse("name", message));
        }
        function.string("description")?;
        let parameters = match function.take("parameters") {
            None => json!({"type": "object", "properties": {}, "additionalProperties": false}),
            Some(Value::Object(mut map)) => {
                // Arguments are an object; reading them relies on it.
                map.insert("type".into(), "object".into());
                Value::Object(map)
            }
            Some(other) => {
                return Err(wrong_kind(&function.path("parameters"), &other, "a JSON schema: an object"));
            }
        };
        Ok(Function { name, described, parameters })
    }
}

enum Choice {
    None,
    Free,
    /// Indices of functions.
    OneOf(Vec<usize>),
}

fn forced(choice: Option<Value>, path: &str, functions: &[Function]) -> Result<Choice, ApiError> {
    let refused = |message: String| ApiError::at(ErrorCode::InvalidValue, path, message);
    let no_tools = || refused("a function must be called, but `tools` has none".to_owned());
    match choice {
        None => Ok(Choice::Free),
        Some(Value::String(word)) => match word.as_str() {
            "none" => Ok(Choice::None),
            "auto" => Ok(Choice::Free),
            "required" | "any" if functions.is_empty() => Err(no_tools()),
            "required" | "any" => Ok(Choice::OneOf((0..functions.len()).collect())),
            _ => {
                let given = shown(Value::from(word));
                Err(refused(format!("{given} is not known; allowed are none, auto, required or a function")))
            }
        },
        Some(Value::Object(map)) => {
            let name = named(&map).ok_or_else(|| {
                refused("must be `{\"type\": \"function\", \"function\": {\"name\": ..}}`".to_owned())
            })?;
            let index = functions.iter().position(|function| function.name == name);
            let index = index
                .ok_or_else(|| refused(format!("`tools` has no function {}", shown(Value::from(name)))))?;
            Ok(Choice::OneOf(vec![index]))
        }
        Some(other) => Err(wrong_kind(path, &other, "a string or an object")),
    }
}

fn named(map: &Map<String, Value>) -> Option<&str> {
    let inner = map.get("function").and_then(Value::as_object).unwrap_or(map);
    inner.get("name")?.as_str()
}

/// Calls that an assistant message made, as the model would have written them.
pub fn made_calls(calls: Value, path: &str, syntax: CallSyntax) -> Result<String, ApiError> {
    let Value::Array(items) = calls else { return Err(wrong_kind(path, &calls, "an array of calls")) };
    let mut spelled = Vec::with_capacity(items.len());
    for (index, item) in items.into_iter().enumerate() {
        let mut call = Fields::nested(item, &format!("{path}[{index}]"))?;
        let inner = call.take("function").ok_or_else(|| missing(call.path("function")))?;
        let mut function = Fields::nested(inner, &call.path("function"))?;
        spelled.push(made_call(&mut function, syntax)?);
    }
    Ok(spelled.join(syntax.between()))
}

/// A call of `name` with `arguments`, which are JSON in a text.
pub fn made_call(call: &mut Fields, syntax: CallSyntax) -> Result<String, ApiError> {
    let name = call.string("name")?.ok_or_else(|| missing(call.path("name")))?;
    let arguments = match call.take("arguments") {
        None => "{}".to_owned(),
        Some(Value::String(text)) if text.trim().is_empty() => "{}".to_owned(),
        Some(Value::String(text)) => text,
        Some(other) => other.to_string(),
    };
    Ok(syntax.spelled(&name, &arguments))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn given(body: Value) -> Result<Option<Tools>, ApiError> {
        Tools::read(&mut Fields::nested(body, "x").expect("an object"))
    }

    fn tool(name: &str) -> Value {
        json!({"type": "function", "function": {"name": name, "parameters": {"properties": {"a": {"type": "integer"}}}}})
    }

    #[test]
    fn choices() {
        let tools = json!([tool("f"), tool("g")]);
        let named = json!({"type": "function", "function": {"name": "g"}});
        let table = [
            (json!({}), None),
            (json!({"tools": [], "tool_choice": "auto"}), None),
            (json!({"tools": tools, "tool_choice": "none"}), None),
            (json!({"tools": tools}), Some(None)),
            (json!({"tools": tools, "tool_choice": ""}), Some(None)),
            (json!({"tools": tools, "tool_choice": "required"}), Some(Some(vec![0, 1]))),
            (json!({"tools": tools, "tool_choice": named}), Some(Some(vec![1]))),
        ];
        for (body, forced) in table {
            assert_eq!(given(body.clone()).expect("valid").map(|tools| tools.forced), forced, "{body}");
        }
    }

    #[test]
    fn refusals_name_the_place() {
        let table = [
            (json!({"tools": {}}), "x.tools"),
            (json!({"tools": [1]}), "x.tools[0]"),
            (json!({"tools": [{"type": "web_search"}]}), "x.tools[0].type"),
            (json!({"tools": [{"type": "function"}]}), "x.tools[0].function"),
            (json!({"tools": [tool("a b")]}), "x.tools[0].function.name"),
            (json!({"tools": [tool("a"), tool("a")]}), "x.tools[1].function.name"),
            (json!({"tools": vec![tool("a"); limits::TOOLS_MAX + 1]}), "x.tools"),
            (json!({"tools": [tool("a")], "tool_choice": "b"}), "x.tool_choice"),
            (json!({"tools": [tool("a")], "tool_choice": {"function": {"name": "b"}}}), "x.tool_choice"),
            (json!({"tool_choice": "required"}), "x.tool_choice"),
        ];
        for (body, param) in table {
            let error = given(body.clone()).expect_err("must be refused");
            assert_eq!(error.param.as_deref(), Some(param), "{body}");
        }
    }

    #[test]
    fn the_model_is_told_and_calls_come_back() {
        let tools = given(json!({"tools": [tool("f")]})).expect("valid").expect("one");
        let mut messages = vec![Message::new(crate::text::Role::User, "hi")];
        assert_eq!(tools.put_into(&mut messages, CallSyntax::Tagged), 1);
        assert!(messages[0].content.contains("\"name\":\"f\""), "{}", messages[0].content);
        let calls = json!([{"id": "call_1", "type": "function", "function": {"name": "f", "arguments": "{\"a\": 1}"}}]);
        let text = made_calls(calls, "x", CallSyntax::Tagged).expect("valid");
        assert_eq!(text, "<tool_call>\n{\"name\": \"f\", \"arguments\": {\"a\": 1}}\n</tool_call>");
    }
}
