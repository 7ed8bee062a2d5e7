//! Formats of dates as patterns that a calendar agrees with: the grammar engine's own let 29 February be in every year.

use serde_json::{Map, Value, json};

/// Years 0001 to 9999: there is no year 0 in most programs.
const YEAR: &str = "(?:[1-9][0-9]{3}|0[1-9][0-9]{2}|00[1-9][0-9]|000[1-9])";
/// Those of them that 4 divides, but 100 only where 400 does.
const LEAP_YEAR: &str = "(?:[0-9]{2}(?:0[48]|[2468][048]|[13579][26])|(?:0[48]|[2468][048]|[13579][26])00)";
const TIME: &str =
    r"(?:[01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](?:\.[0-9]{1,9})?(?:Z|[+-](?:[01][0-9]|2[0-3]):[0-5][0-9])";

fn date() -> String {
    format!(
        "(?:{YEAR}-(?:(?:0[13578]|1[02])-(?:0[1-9]|[12][0-9]|3[01])|(?:0[469]|11)-(?:0[1-9]|[12][0-9]|30)|\
         02-(?:0[1-9]|1[0-9]|2[0-8]))|{LEAP_YEAR}-02-29)"
    )
}

/// Tightens a schema and all schemas in it, never the other way. Values that are no schemas (`enum`, `const`) stay as
/// they are.
pub(super) fn tighten(map: &mut Map<String, Value>) {
    for (key, inner) in map.iter_mut() {
        match (key.as_str(), inner) {
            ("enum" | "const" | "default" | "examples", _) => {}
            // Keys are names here, whatever they say.
            (
                "properties" | "patternProperties" | "$defs" | "definitions" | "dependentSchemas",
                Value::Object(named),
            ) => named.values_mut().for_each(tighten_any),
            (_, inner) => tighten_any(inner),
        }
    }
    tighten_date(map);
}

fn tighten_any(value: &mut Value) {
    match value {
        Value::Array(items) => items.iter_mut().for_each(tighten_any),
        Value::Object(map) => tighten(map),
        _ => {}
    }
}

/// A pattern in the place of the format, beside others that are there.
fn tighten_date(map: &mut Map<String, Value>) {
    let pattern = match map.get("format").and_then(Value::as_str) {
        Some("date") => format!("^{}$", date()),
        Some("date-time") => format!("^{}T{TIME}$", date()),
        _ => return,
    };
    map.shift_remove("format");
    if !map.contains_key("pattern") {
        map.insert("pattern".into(), pattern.into());
    } else if let Some(Value::Array(all)) = map.get_mut("allOf") {
        all.push(json!({"pattern": pattern}));
    } else {
        map.insert("allOf".into(), json!([{"pattern": pattern}]));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_that_are_some() {
        let pattern = regex::Regex::new(&format!("^{}$", date())).expect("an expression");
        for (text, is_day) in [
            ("2024-02-29", true),
            ("2023-02-29", false),
            ("1900-02-29", false),
            ("2000-02-29", true),
            ("0000-01-01", false),
            ("0000-02-29", false),
            ("0004-02-29", true),
            ("9999-12-31", true),
            ("2024-04-31", false),
            ("2024-13-01", false),
            ("2024-00-10", false),
            ("2024-10-00", false),
        ] {
            assert_eq!(pattern.is_match(text), is_day, "{text}");
        }
        let leap =
            |year: u32| year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
        for year in 1..=9999 {
            assert_eq!(pattern.is_match(&format!("{year:04}-02-29")), leap(year), "{year}");
        }
    }

    #[test]
    fn formats_become_patterns_where_they_are_formats() {
        let mut schema = json!({
            "properties": {
                "format": {"type": "string", "format": "date"},
                "b": {"pattern": "^2", "format": "date-time"},
                "c": {"allOf": [{"minLength": 1}], "format": "date"},
                "d": {"allOf": [{"minLength": 1}], "pattern": "^2", "format": "date"},
                "default": {"format": "date"},
            },
            "$defs": {"const": {"format": "date"}},
            "default": {"format": "date"},
            "enum": [{"format": "date"}],
            "format": "uuid",
        });
        tighten_any(&mut schema);
        let properties = &schema["properties"];
        assert!(properties["format"]["pattern"].is_string() && properties["format"].get("format").is_none());
        assert_eq!(properties["b"]["pattern"], "^2");
        assert!(properties["b"]["allOf"][0]["pattern"].is_string());
        assert!(properties["c"]["pattern"].is_string());
        assert_eq!(properties["d"]["allOf"].as_array().map(Vec::len), Some(2));
        assert!(properties["default"]["pattern"].is_string());
        assert!(schema["$defs"]["const"]["pattern"].is_string());
        assert_eq!(schema["default"]["format"], "date");
        assert_eq!(schema["enum"][0]["format"], "date");
        assert_eq!(schema["format"], "uuid");
    }
}
