//! The template filter `tojson`: JSON as Python writes it, within bounds.

use super::capped::Capped;
use crate::limits::ENCODE_BYTES_MAX;
use minijinja::value::Kwargs;
use minijinja::{Error, ErrorKind, State, Value};
use serde::Serialize;
use std::fmt::Write;
use std::io;

/// Widest indentation and deepest nesting; enough for any tool description.
const INDENT_MAX: usize = 16;
const DEPTH_MAX: usize = 64;

/// `json.dumps` with `ensure_ascii` off: templates print tool descriptions with it, and models learned that spelling.
pub(super) fn tojson(state: &State, value: Value, options: Kwargs) -> Result<Value, Error> {
    let indent: Option<usize> = options.get("indent")?;
    let sort: Option<bool> = options.get("sort_keys")?;
    let ascii: Option<bool> = options.get("ensure_ascii")?;
    let separators: Option<Vec<String>> = options.get("separators")?;
    options.assert_all_used()?;
    if indent.is_some_and(|indent| indent > INDENT_MAX) {
        let message = format!("`tojson`: indent is at most {INDENT_MAX}");
        return Err(Error::new(ErrorKind::InvalidOperation, message));
    }
    let unfit = |error: serde_json::Error| Error::new(ErrorKind::BadSerialization, error.to_string());
    // By way of bounded bytes: a list can hold one long string a million times, a namespace can hold itself.
    let mut bytes = Capped::new(ENCODE_BYTES_MAX);
    value.serialize(&mut serde_json::Serializer::with_formatter(&mut bytes, Shallow(0))).map_err(unfit)?;
    let json: serde_json::Value = serde_json::from_slice(&bytes.bytes).map_err(unfit)?;
    let (comma, colon) = match separators.as_deref() {
        Some([comma, colon]) => (comma.clone(), colon.clone()),
        _ => (if indent.is_some() { "," } else { ", " }.to_owned(), ": ".to_owned()),
    };
    let style = Style { indent, sort: sort == Some(true), ascii: ascii == Some(true), comma, colon };
    let mut out = String::new();
    style.write(&json, 0, &mut out)?;
    state.consume_fuel(out.len() as u64 / 4)?;
    Ok(Value::from(out))
}

/// Compact JSON that ends at a depth.
struct Shallow(usize);

impl Shallow {
    fn deeper(&mut self) -> io::Result<()> {
        self.0 += 1;
        if self.0 > DEPTH_MAX {
            Err(io::Error::other(format!("nested deeper than {DEPTH_MAX}")))
        } else {
            Ok(())
        }
    }
}

impl serde_json::ser::Formatter for Shallow {
    fn begin_array<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.deeper()?;
        writer.write_all(b"[")
    }

    fn end_array<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.0 -= 1;
        writer.write_all(b"]")
    }

    fn begin_object<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.deeper()?;
        writer.write_all(b"{")
    }

    fn end_object<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.0 -= 1;
        writer.write_all(b"}")
    }
}

struct Style {
    indent: Option<usize>,
    sort: bool,
    ascii: bool,
    comma: String,
    colon: String,
}

impl Style {
    fn write(&self, json: &serde_json::Value, depth: usize, out: &mut String) -> Result<(), Error> {
        if depth > DEPTH_MAX {
            let message = format!("`tojson`: nested deeper than {DEPTH_MAX}");
            return Err(Error::new(ErrorKind::InvalidOperation, message));
        }
        match json {
            serde_json::Value::Array(items) => {
                self.list(items, ('[', ']'), depth, out, |style, item, out| style.write(item, depth + 1, out))
            }
            serde_json::Value::Object(map) => {
                let mut entries: Vec<_> = map.iter().collect();
                if self.sort {
                    entries.sort_by_key(|(key, _)| *key);
                }
                self.list(&entries, ('{', '}'), depth, out, |style, (key, value), out| {
                    style.string(key, out);
                    out.push_str(&style.colon);
                    style.write(value, depth + 1, out)
                })
            }
            serde_json::Value::String(text) => {
                self.string(text, out);
                Ok(())
            }
            scalar => {
                out.push_str(&scalar.to_string());
                Ok(())
            }
        }
    }

    fn list<T>(
        &self,
        items: &[T],
        brackets: (char, char),
        depth: usize,
        out: &mut String,
        each: impl Fn(&Style, &T, &mut String) -> Result<(), Error>,
    ) -> Result<(), Error> {
        out.push(brackets.0);
        for (at, item) in items.iter().enumerate() {
            if at > 0 {
                out.push_str(&self.comma);
            }
            self.line(depth + 1, out);
            each(self, item, out)?;
        }
        if !items.is_empty() {
            self.line(depth, out);
        }
        out.push(brackets.1);
        Ok(())
    }

    fn line(&self, depth: usize, out: &mut String) {
        if let Some(indent) = self.indent {
            out.push('\n');
            out.extend(std::iter::repeat_n(' ', indent * depth));
        }
    }

    fn string(&self, text: &str, out: &mut String) {
        out.push('"');
        for character in text.chars() {
            match character {
                '"' => out.push_str("\\\""),
                '\\' => out.push_str("\\\\"),
                '\n' => out.push_str("\\n"),
                '\r' => out.push_str("\\r"),
                '\t' => out.push_str("\\t"),
                '\u{8}' => out.push_str("\\b"),
                '\u{c}' => out.push_str("\\f"),
                '\0'..='\u{1f}' => escape(character, out),
                _ if self.ascii && !(' '..='~').contains(&character) => escape(character, out),
                _ => out.push(character),
            }
        }
        out.push('"');
    }
}

fn escape(character: char, out: &mut String) {
    for unit in character.encode_utf16(&mut [0; 2]) {
        // Writing to a string cannot fail.
        let _ = write!(out, "\\u{unit:04x}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_as_python_writes_it() {
        let environment = {
            let mut environment = minijinja::Environment::new();
            environment.add_filter("tojson", tojson);
            environment
        };
        let value: serde_json::Value =
            serde_json::from_str(r#"{"b": [1, 2.5, true, null], "a": {"é<\"\n": "\u0001"}, "e": []}"#)
                .unwrap();
        for (call, expected) in [
            ("v|tojson", r#"{"b": [1, 2.5, true, null], "a": {"é<\"\n": "\u0001"}, "e": []}"#),
            ("v.a|tojson(ensure_ascii=true)", r#"{"\u00e9<\"\n": "\u0001"}"#),
            (
                "v|tojson(sort_keys=true, separators=[',',':'])",
                r#"{"a":{"é<\"\n":"\u0001"},"b":[1,2.5,true,null],"e":[]}"#,
            ),
            ("v.b|tojson(indent=2)", "[\n  1,\n  2.5,\n  true,\n  null\n]"),
        ] {
            let template = format!("{{{{ {call} }}}}");
            let text = environment
                .render_str(
                    &template,
                    minijinja::context! { v => Value::from(minijinja::value::Serde(&value)) },
                )
                .unwrap();
            assert_eq!(text, expected, "{call}");
        }
        let error = environment.render_str("{{ [1]|tojson(indent=1000000000) }}", ()).unwrap_err();
        assert!(error.to_string().contains("indent is at most 16"), "{error}");
    }
}
