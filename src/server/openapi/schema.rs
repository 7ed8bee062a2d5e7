//! JSON schemas from a short notation, so that a field's type stands beside its name on one line.
//!
//! `string`, `boolean`, `object`, `any`, `null`; `integer` and `number`, with a range as in `integer(1..8)` or
//! `number(0..)`; `[string]` for arrays; a range of characters or items as in `string(1..)` or `[string](1..8)`; `'a'` for
//! that text alone; a word with a capital for a component; alternatives between bars.

use serde_json::{Value, json};

/// The schema of a notation. A wrong notation is a fault of the table, which a test reads whole.
pub fn schema(notation: &str) -> Value {
    let alternatives: Vec<&str> = notation.split('|').collect();
    let words: Vec<&str> = alternatives
        .iter()
        .filter_map(|one| one.strip_prefix('\'').and_then(|rest| rest.strip_suffix('\'')))
        .collect();
    if words.len() == alternatives.len() {
        return json!({"type": "string", "enum": words});
    }
    match alternatives.as_slice() {
        [one] => single(one),
        several => json!({"anyOf": several.iter().map(|one| schema(one)).collect::<Vec<_>>()}),
    }
}

fn single(notation: &str) -> Value {
    let (kind, range) = split_range(notation);
    if kind == "any" {
        return json!({});
    }
    if kind.starts_with(|first: char| first.is_ascii_uppercase()) {
        return json!({"$ref": format!("#/components/schemas/{kind}")});
    }
    let (mut schema, least, most) = match (array_of(kind), kind) {
        (Some(inner), _) => (json!({"type": "array", "items": schema(inner)}), "minItems", "maxItems"),
        (None, "string") => (json!({"type": kind}), "minLength", "maxLength"),
        (None, _) => (json!({"type": kind}), "minimum", "maximum"),
    };
    if let Some((low, high)) = range.and_then(|range| range.split_once("..")) {
        for (name, bound) in [(least, low), (most, high)] {
            if let Ok(bound) = serde_json::from_str::<serde_json::Number>(bound) {
                schema[name] = bound.into();
            }
        }
    }
    schema
}

/// A notation without the range behind it, and what stands in that.
fn split_range(notation: &str) -> (&str, Option<&str>) {
    let range = notation.strip_suffix(')').and_then(|rest| rest.rsplit_once('('));
    range.map_or((notation, None), |(kind, range)| (kind, Some(range)))
}

/// What an array holds.
fn array_of(kind: &str) -> Option<&str> {
    kind.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'))
}

/// Whether a notation is one of the above.
#[cfg(test)]
pub fn is_notation(text: &str) -> bool {
    text.split('|').all(|one| {
        let word = one.strip_prefix('\'').and_then(|rest| rest.strip_suffix('\''));
        let (kind, range) = split_range(one);
        let is_range = range.is_none_or(|range| range.split_once("..").is_some());
        word.is_some_and(|word| !word.contains('\''))
            || is_range
                && (array_of(kind).is_some_and(is_notation)
                    || super::components::find(kind).is_some()
                    || ["string", "boolean", "object", "any", "null", "integer", "number"].contains(&kind))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notations() {
        let table = [
            ("string", json!({"type": "string"})),
            ("any", json!({})),
            ("integer(1..8)", json!({"type": "integer", "minimum": 1, "maximum": 8})),
            ("number(0..)", json!({"type": "number", "minimum": 0})),
            (
                "[[integer]]",
                json!({"type": "array", "items": {"type": "array", "items": {"type": "integer"}}}),
            ),
            (
                "[string(1..)](2..3)",
                json!({
                    "type": "array", "items": {"type": "string", "minLength": 1}, "minItems": 2, "maxItems": 3,
                }),
            ),
            ("Name|null", json!({"anyOf": [{"$ref": "#/components/schemas/Name"}, {"type": "null"}]})),
            ("'a'|'b'", json!({"type": "string", "enum": ["a", "b"]})),
            ("string|null", json!({"anyOf": [{"type": "string"}, {"type": "null"}]})),
        ];
        for (notation, wanted) in table {
            assert_eq!(schema(notation), wanted, "{notation}");
            assert!(is_notation(notation), "{notation}");
        }
        for wrong in ["text", "integer(1", "", "[string", "Nothing", "string(1)"] {
            assert!(!is_notation(wrong), "{wrong}");
        }
    }
}
