//! What each answer must be: `response_format` and the names that other servers have for the same, compiled before the
//! request queues, so that what is wrong with it is refused.

use super::options::{Options, meant};
use crate::constraint::{Compiled, ConstraintError, Shape};
use crate::engine::Request;
use crate::server::Context;
use crate::server::blocking::blocking;
use crate::server::error::{ApiError, ErrorCode, shown};
use crate::server::fields::{Fields, missing, wrong_kind};
use serde_json::Value;

/// A shape and the field that asked for it.
#[derive(Clone, Debug, PartialEq)]
pub struct Asked {
    pub shape: Shape,
    /// `response_format.json_schema.schema`
    path: String,
}

impl Asked {
    pub fn new(shape: Shape, path: impl Into<String>) -> Asked {
        Asked { shape, path: path.into() }
    }

    pub fn refuse(&self, message: &str) -> ApiError {
        ApiError::at(ErrorCode::InvalidValue, &self.path, message)
    }

    fn explain(&self, error: &ConstraintError) -> ApiError {
        let code = match error {
            ConstraintError::Busy => ErrorCode::Busy,
            ConstraintError::Unavailable(_) => ErrorCode::Unsupported,
            ConstraintError::TooSlow { .. } => ErrorCode::ConstraintTooComplex,
            _ => ErrorCode::InvalidValue,
        };
        let refused = ApiError::at(code, &self.path, error);
        if *error == ConstraintError::Busy { refused.retry_after(1) } else { refused }
    }
}

/// Compiles what the options ask for.
pub async fn compile(context: &Context, options: &Options) -> Result<Option<Compiled>, ApiError> {
    let Some(asked) = options.shape.clone() else { return Ok(None) };
    let grammars = context.grammars.clone();
    let work = move || grammars.compile(&asked.shape).map_err(|error| asked.explain(&error));
    blocking(work).await.map(Some)
}

/// Binds all choices, each to a run of its own.
pub fn constrain(mut requests: Vec<Request>, compiled: &Option<Compiled>) -> Vec<Request> {
    if let Some(Compiled { constraint, .. }) = compiled {
        requests.iter_mut().for_each(|request| request.constrain(constraint));
    }
    requests
}

/// Takes every field that says what an answer must be; two of them are one too many.
pub fn read(fields: &mut Fields) -> Result<Option<Asked>, ApiError> {
    let mut asked = response_format(fields)?.into_iter().collect::<Vec<_>>();
    for name in ["json_schema", "guided_json"] {
        if let Some(value) = meant(fields, name) {
            asked.push(schema(value, fields.path(name), false)?);
        }
    }
    for name in ["guided_regex", "guided_grammar", "grammar", "grammar_string", "guided_choice"] {
        if let Some(value) = meant(fields, name) {
            asked.push(plain(name, value, fields.path(name))?);
        }
    }
    if let Some(value) = meant(fields, "structured_outputs") {
        let mut inner = Fields::nested(value, &fields.path("structured_outputs"))?;
        if let Some(value) = meant(&mut inner, "json") {
            asked.push(schema(value, inner.path("json"), false)?);
        }
        for name in ["regex", "choice", "grammar"] {
            if let Some(value) = meant(&mut inner, name) {
                asked.push(plain(name, value, inner.path(name))?);
            }
        }
        if inner.bool("json_object")? == Some(true) {
            asked.push(Asked::new(Shape::JsonObject, inner.path("json_object")));
        }
    }
    // Clients with two dialects send one thing under two names.
    asked.dedup_by(|later, first| later.shape == first.shape);
    match &asked[..] {
        [] => Ok(None),
        [one] => Ok(Some(one.clone())),
        [first, second, ..] => Err(second
            .refuse(&format!("`{}` says already what the answer must be; send one of them", first.path))),
    }
}

/// `{"type": "text"}`, `json_object` or `json_schema`; the schema where OpenAI has it, or beside the type.
fn response_format(fields: &mut Fields) -> Result<Option<Asked>, ApiError> {
    let name = "response_format";
    let Some(value) = fields.take_set(name) else { return Ok(None) };
    let mut format = Fields::nested(value, &fields.path(name))?;
    let kind = format.string("type")?.ok_or_else(|| missing(format.path("type")))?;
    match kind.as_str() {
        "text" => Ok(None),
        "json_object" => match meant(&mut format, "schema") {
            Some(value) => schema(value, format.path("schema"), false).map(Some),
            None => Ok(Some(Asked::new(Shape::JsonObject, fields.path(name)))),
        },
        "json_schema" => {
            let mut inner = match format.take("json_schema") {
                Some(value) => Fields::nested(value, &format.path("json_schema"))?,
                None if format.rest().contains_key("schema") => format,
                None => return Err(missing(format.path("json_schema"))),
            };
            let strict = inner.bool("strict")?.unwrap_or(false);
            let path = inner.path("schema");
            let value = inner.take("schema").ok_or_else(|| missing(&path))?;
            schema(value, path, strict).map(Some)
        }
        other => {
            let given = shown(Value::from(other));
            let message = format!("{given} is no format; allowed are text, json_object, json_schema");
            Err(format.refuse("type", message))
        }
    }
}

/// An object, or the same as a string.
fn schema(value: Value, path: String, strict: bool) -> Result<Asked, ApiError> {
    let schema = match value {
        Value::String(text) => serde_json::from_str(&text).map_err(|error| {
            ApiError::at(ErrorCode::InvalidValue, &path, format!("is not valid JSON: {error}"))
        })?,
        other => other,
    };
    match schema {
        Value::Object(_) | Value::Bool(_) => Ok(Asked::new(Shape::JsonSchema { schema, strict }, path)),
        other => Err(wrong_kind(&path, &other, "a JSON schema: an object")),
    }
}

fn plain(name: &str, value: Value, path: String) -> Result<Asked, ApiError> {
    let shape = match (name.trim_start_matches("guided_"), value) {
        ("choice", Value::Array(items)) => {
            let text = |(index, item): (usize, Value)| match item {
                Value::String(text) => Ok(text),
                other => Err(wrong_kind(&format!("{path}[{index}]"), &other, "a string")),
            };
            Shape::Choice(items.into_iter().enumerate().map(text).collect::<Result<_, _>>()?)
        }
        ("choice", other) => return Err(wrong_kind(&path, &other, "an array of strings")),
        ("regex", Value::String(text)) => Shape::Regex(text),
        (_, Value::String(text)) => Shape::Grammar(text),
        (_, other) => return Err(wrong_kind(&path, &other, "a string")),
    };
    Ok(Asked::new(shape, path))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn given(body: Value) -> Result<Option<Asked>, ApiError> {
        read(&mut Fields::nested(body, "x").expect("an object"))
    }

    #[test]
    fn shapes_under_all_their_names() {
        let (wanted, text) = (json!({"type": "object"}), "{\"type\": \"object\"}");
        let schema = |strict| Some(Shape::JsonSchema { schema: wanted.clone(), strict });
        let format = |inner: Value| json!({"response_format": inner});
        let table = [
            (json!({"response_format": ""}), None),
            (format(json!({"type": "text"})), None),
            (json!({"grammar": "", "json_schema": {}, "guided_choice": [], "guided_json": null}), None),
            (format(json!({"type": "json_object"})), Some(Shape::JsonObject)),
            (format(json!({"type": "json_object", "schema": wanted})), schema(false)),
            (format(json!({"type": "json_schema", "schema": wanted, "strict": true})), schema(true)),
            (
                format(
                    json!({"type": "json_schema", "json_schema": {"name": "a", "schema": wanted, "strict": true}}),
                ),
                schema(true),
            ),
            (format(json!({"type": "json_schema", "json_schema": {"schema": wanted}})), schema(false)),
            (json!({"json_schema": wanted, "guided_json": text}), schema(false)),
            (json!({"structured_outputs": {"json": wanted}}), schema(false)),
            (json!({"guided_regex": "a+"}), Some(Shape::Regex("a+".into()))),
            (json!({"structured_outputs": {"regex": "a+"}}), Some(Shape::Regex("a+".into()))),
            (json!({"guided_choice": ["a", "b"]}), Some(Shape::Choice(vec!["a".into(), "b".into()]))),
            (json!({"grammar": "g", "grammar_string": "g"}), Some(Shape::Grammar("g".into()))),
        ];
        for (body, shape) in table {
            assert_eq!(given(body.clone()).expect("valid").map(|asked| asked.shape), shape, "{body}");
        }
    }

    #[test]
    fn refusals_name_the_place() {
        let table = [
            (json!({"response_format": "json"}), "x.response_format"),
            (json!({"response_format": {}}), "x.response_format.type"),
            (json!({"response_format": {"type": "xml"}}), "x.response_format.type"),
            (json!({"response_format": {"type": "json_schema"}}), "x.response_format.json_schema"),
            (
                json!({"response_format": {"type": "json_schema", "json_schema": {"name": "a"}}}),
                "x.response_format.json_schema.schema",
            ),
            (
                json!({"response_format": {"type": "json_schema", "json_schema": {"schema": 1}}}),
                "x.response_format.json_schema.schema",
            ),
            (json!({"guided_json": "{"}), "x.guided_json"),
            (json!({"guided_regex": 1}), "x.guided_regex"),
            (json!({"guided_choice": "a"}), "x.guided_choice"),
            (json!({"guided_choice": ["a", 1]}), "x.guided_choice[1]"),
            (json!({"structured_outputs": [1]}), "x.structured_outputs"),
            (json!({"response_format": {"type": "json_object"}, "grammar": "g"}), "x.grammar"),
        ];
        for (body, param) in table {
            let error = given(body.clone()).expect_err("must be refused");
            assert_eq!(error.param.as_deref(), Some(param), "{body}");
        }
    }
}
