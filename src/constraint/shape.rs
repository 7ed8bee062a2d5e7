//! What was asked for, with its bounds, and as a grammar.

use super::{ConstraintError, gbnf};
use crate::digest::{Digest, Digester};
use crate::limits;
use llguidance::api::TopLevelGrammar;
use serde_json::{Map, Value, json};

/// White space between the parts of a JSON answer: a space, or a new line and its indentation. A model that likes white
/// space too much would otherwise write nothing else.
const JSON_SPACE: &str = r"\x20|\x0A\x20{0,24}";

/// What a whole answer must be.
#[derive(Clone, Debug, PartialEq)]
pub enum Shape {
    /// Any JSON object.
    JsonObject,
    /// A JSON value that a schema takes. Keywords that cannot be enforced are an error where `strict` is set, else a
    /// warning.
    JsonSchema { schema: Value, strict: bool },
    /// A text that the expression matches from first to last; syntax of the crate regex.
    Regex(String),
    /// One of these texts.
    Choice(Vec<String>),
    /// One to `most` of these calls, `between` standing between two.
    Calls { calls: Vec<Call>, between: String, most: u32 },
    /// A grammar in llguidance's dialect of Lark, or in llama.cpp's GBNF.
    Grammar(String),
}

/// Arguments in the text that makes a call of them.
#[derive(Clone, Debug, PartialEq)]
pub struct Call {
    pub before: String,
    /// Schema of the arguments.
    pub arguments: Value,
    pub after: String,
}

impl Shape {
    /// Bytes, nesting and number, before anything looks at the contents.
    pub fn check(&self) -> Result<(), ConstraintError> {
        let (bytes, depth) = match self {
            Shape::JsonObject => (0, 0),
            Shape::JsonSchema { schema, .. } => (schema.to_string().len(), depth(schema)),
            Shape::Calls { calls, .. } => {
                let bytes = calls.iter().map(|call| call.before.len() + call.arguments.to_string().len());
                (bytes.sum(), calls.iter().map(|call| depth(&call.arguments)).max().unwrap_or(0))
            }
            Shape::Regex(text) | Shape::Grammar(text) => (text.len(), brackets(text)),
            Shape::Choice(texts) => {
                if texts.is_empty() || texts.len() > limits::CONSTRAINT_CHOICES_MAX {
                    let (given, most) = (texts.len(), limits::CONSTRAINT_CHOICES_MAX);
                    return Err(ConstraintError::Shape(format!("{given} choices; 1 to {most} are allowed")));
                }
                if texts.iter().any(String::is_empty) {
                    return Err(ConstraintError::Shape("an empty choice is no answer".to_owned()));
                }
                (texts.iter().map(String::len).sum(), 0)
            }
        };
        if bytes > limits::CONSTRAINT_BYTES_MAX {
            return Err(ConstraintError::TooLong { given: bytes, max: limits::CONSTRAINT_BYTES_MAX });
        }
        if depth > limits::CONSTRAINT_DEPTH_MAX {
            let max = limits::CONSTRAINT_DEPTH_MAX;
            return Err(ConstraintError::TooDeep { what: "brackets stand", given: depth, max });
        }
        match self {
            Shape::Regex(text) | Shape::Grammar(text) if text.trim().is_empty() => {
                Err(ConstraintError::Shape("it is empty".to_owned()))
            }
            Shape::JsonSchema { schema, .. } if !schema.is_object() && !schema.is_boolean() => {
                Err(ConstraintError::Shape("a schema is an object".to_owned()))
            }
            _ => Ok(()),
        }
    }

    /// Two shapes with one digest allow the same answers.
    pub fn digest(&self) -> Digest {
        let mut digester = Digester::new("demeanor.constraint/1");
        match self {
            Shape::JsonObject => digester.part(b"object"),
            Shape::JsonSchema { schema, strict } => {
                digester.part(b"schema").part(&[u8::from(*strict)]).part(schema.to_string().as_bytes())
            }
            Shape::Regex(text) => digester.part(b"regex").part(text.as_bytes()),
            Shape::Choice(texts) => {
                texts.iter().fold(digester.part(b"choice"), |digester, text| digester.part(text.as_bytes()))
            }
            Shape::Calls { calls, between, most } => {
                digester.part(b"calls").part(&most.to_le_bytes()).part(between.as_bytes());
                calls.iter().fold(&mut digester, |digester, call| {
                    digester.part(call.before.as_bytes()).part(call.after.as_bytes());
                    digester.part(call.arguments.to_string().as_bytes())
                })
            }
            Shape::Grammar(text) => digester.part(b"grammar").part(text.as_bytes()),
        };
        digester.finish()
    }

    pub(super) fn grammar(&self) -> Result<TopLevelGrammar, ConstraintError> {
        Ok(match self {
            Shape::JsonObject => {
                TopLevelGrammar::from_json_schema(with_options(&json!({"type": "object"}), true))
            }
            Shape::JsonSchema { schema, strict } => {
                TopLevelGrammar::from_json_schema(with_options(schema, *strict))
            }
            Shape::Regex(text) => TopLevelGrammar::from_regex(whole(text)),
            Shape::Choice(texts) => TopLevelGrammar::from_lark(choice_grammar(texts)),
            Shape::Calls { calls, between, most } => {
                TopLevelGrammar::from_lark(calls_grammar(calls, between, *most))
            }
            Shape::Grammar(text) if gbnf::is_gbnf(text) => TopLevelGrammar::from_lark(gbnf::to_lark(text)?),
            Shape::Grammar(text) => TopLevelGrammar::from_lark(text.clone()),
        })
    }
}

/// The options of the grammar engine travel in the schema, so a client's own are dropped.
fn with_options(schema: &Value, strict: bool) -> Value {
    let mut map = schema.as_object().cloned().unwrap_or_default();
    if schema == &Value::Bool(false) {
        // Nothing is valid: the compiler says so.
        map.insert("not".into(), Value::Object(Map::new()));
    }
    let options = json!({"whitespace_pattern": JSON_SPACE, "lenient": !strict, "coerce_one_of": !strict});
    map.insert("x-guidance".into(), options);
    Value::Object(map)
}

fn choice_grammar(texts: &[String]) -> String {
    let quoted: Vec<String> = texts.iter().map(|text| quoted(text)).collect();
    format!("start: {}", quoted.join(" | "))
}

/// Each call's arguments are a grammar of their own, so that `#` in them refers to their own schema. Keywords that are
/// not enforced give warnings.
fn calls_grammar(calls: &[Call], between: &str, most: u32) -> String {
    let names: Vec<String> = (0..calls.len()).map(|index| format!("call_{index}")).collect();
    let more = most.saturating_sub(1);
    let mut lark =
        format!("start: call ({} call){{0,{more}}}\ncall: {}\n", quoted(between), names.join(" | "));
    if more == 0 {
        lark = format!("start: {}\n", names.join(" | "));
    }
    for (index, call) in calls.iter().enumerate() {
        let (before, after) = (quoted(&call.before), quoted(&call.after));
        lark += &format!("call_{index}: {before} arguments_{index} {after}\n");
        lark += &format!("arguments_{index}: %json {}\n", with_options(&call.arguments, false));
    }
    lark
}

/// A text in Lark's quotes.
fn quoted(text: &str) -> String {
    Value::from(text).to_string()
}

/// An expression without anchors: it is matched as a whole anyway.
fn whole(text: &str) -> &str {
    let text = text.strip_prefix('^').unwrap_or(text);
    match text.strip_suffix('$') {
        Some(rest) if rest.bytes().rev().take_while(|byte| *byte == b'\\').count() % 2 == 0 => rest,
        _ => text,
    }
}

/// Levels of a JSON value.
fn depth(value: &Value) -> usize {
    match value {
        Value::Array(items) => 1 + items.iter().map(depth).max().unwrap_or(0),
        Value::Object(map) => 1 + map.values().map(depth).max().unwrap_or(0),
        _ => 0,
    }
}

/// Most brackets open at once, those in quotes too: an upper bound of what a parser recurses.
fn brackets(text: &str) -> usize {
    let (mut open, mut most) = (0usize, 0);
    for byte in text.bytes() {
        match byte {
            b'(' | b'[' | b'{' => open += 1,
            b')' | b']' | b'}' => open = open.saturating_sub(1),
            _ => {}
        }
        most = most.max(open);
    }
    most
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(before: &str, after: &str) -> Call {
        Call { before: before.into(), arguments: json!({}), after: after.into() }
    }

    #[test]
    fn bounds() {
        let mut deep = json!(1);
        for _ in 0..=limits::CONSTRAINT_DEPTH_MAX {
            deep = json!([deep]);
        }
        let schema = |schema: Value| Shape::JsonSchema { schema, strict: true };
        let long = "a".repeat(limits::CONSTRAINT_BYTES_MAX + 1);
        let table = [
            (Shape::JsonObject, true),
            (schema(json!({"type": "object"})), true),
            (schema(json!(true)), true),
            (schema(json!([])), false),
            (schema(deep), false),
            (Shape::Regex("(a)".repeat(300)), true),
            (Shape::Regex("(".repeat(300)), false),
            (Shape::Regex(String::new()), false),
            (Shape::Grammar(long), false),
            (Shape::Choice(vec![]), false),
            (Shape::Choice(vec!["a".into(), String::new()]), false),
            (Shape::Choice(vec!["a".into(); limits::CONSTRAINT_CHOICES_MAX + 1]), false),
            (Shape::Choice(vec!["a".into()]), true),
        ];
        for (shape, allowed) in table {
            let shown = format!("{shape:?}").chars().take(80).collect::<String>();
            assert_eq!(shape.check().is_ok(), allowed, "{shown}");
        }
    }

    #[test]
    fn anchors_are_dropped_where_they_are_some() {
        for (given, kept) in [("^a$", "a"), ("a", "a"), (r"a\$", r"a\$"), (r"a\\$", r"a\\")] {
            assert_eq!(whole(given), kept);
        }
    }

    #[test]
    fn every_part_is_in_the_digest() {
        let shapes = [
            Shape::JsonObject,
            Shape::JsonSchema { schema: json!({}), strict: true },
            Shape::JsonSchema { schema: json!({}), strict: false },
            Shape::JsonSchema { schema: json!({"type": "object"}), strict: true },
            Shape::Regex("a".into()),
            Shape::Grammar("a".into()),
            Shape::Choice(vec!["a".into()]),
            Shape::Choice(vec!["a".into(), "b".into()]),
            Shape::Choice(vec!["ab".into()]),
            Shape::Calls { calls: vec![call("a", "b")], between: "c".into(), most: 1 },
            Shape::Calls { calls: vec![call("a", "b")], between: "c".into(), most: 2 },
            Shape::Calls { calls: vec![call("ab", "")], between: "c".into(), most: 1 },
        ];
        let digests: std::collections::BTreeSet<Digest> = shapes.iter().map(Shape::digest).collect();
        assert_eq!(digests.len(), shapes.len());
    }
}
