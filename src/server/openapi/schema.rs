//! JSON schemas from a short notation, so that a field's type stands beside its name on one line.
//!
//! `string`, `boolean`, `object`, `any`, `null`; `integer` and `number`, with a range as in `integer(1..8)` or
//! `number(0..)`; `[string]` for arrays; `'a'` for that text alone; alternatives between bars.

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
    if let Some(inner) = notation.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        return json!({"type": "array", "items": schema(inner)});
    }
    let (kind, range) = match notation.split_once('(') {
        Some((kind, rest)) => (kind, rest.strip_suffix(')')),
        None => (notation, None),
    };
    if kind == "any" {
        return json!({});
    }
    let mut schema = json!({"type": kind});
    if let Some((low, high)) = range.and_then(|range| range.split_once("..")) {
        for (name, bound) in [("minimum", low), ("maximum", high)] {
            if let Ok(bound) = serde_json::from_str::<serde_json::Number>(bound) {
                schema[name] = bound.into();
            }
        }
    }
    schema
}

/// Whether a notation is one of the above.
#[cfg(test)]
pub fn is_notation(text: &str) -> bool {
    text.split('|').all(|one| {
        let inner = one.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
        let word = one.strip_prefix('\'').and_then(|rest| rest.strip_suffix('\''));
        let kind = one.split('(').next().unwrap_or_default();
        inner.is_some_and(is_notation)
            || word.is_some_and(|word| !word.contains('\''))
            || ["string", "boolean", "object", "any", "null", "integer", "number"].contains(&kind)
                && one.contains('(') == one.ends_with(')')
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
            ("'a'|'b'", json!({"type": "string", "enum": ["a", "b"]})),
            ("string|null", json!({"anyOf": [{"type": "string"}, {"type": "null"}]})),
        ];
        for (notation, wanted) in table {
            assert_eq!(schema(notation), wanted, "{notation}");
            assert!(is_notation(notation), "{notation}");
        }
        for wrong in ["text", "integer(1", "", "[string"] {
            assert!(!is_notation(wrong), "{wrong}");
        }
    }
}
