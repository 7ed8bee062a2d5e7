//! What chat templates call: errors, the date, JSON as Python writes it.

use crate::limits::ENCODE_BYTES_MAX;
use minijinja::value::{Kwargs, ValueKind};
use minijinja::{Error, ErrorKind, Output, State, Value};
use serde::Serialize;
use std::fmt::{self, Write};
use std::io;
use std::time::{SystemTime, UNIX_EPOCH};

/// Deepest indentation and nesting of JSON; enough for any tool description.
const INDENT_MAX: usize = 16;
const DEPTH_MAX: usize = 64;
/// Longest text of a list or map written without `tojson`: no template means to, so it is a few words.
const SHOWN_BYTES_MAX: usize = 64 << 10;

pub(super) fn raise_exception(message: String) -> Result<Value, Error> {
    Err(Error::new(ErrorKind::InvalidOperation, message))
}

/// The time now, in UTC: the same chat renders the same everywhere.
pub(super) fn strftime_now(format: &str) -> String {
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    strftime(format, seconds)
}

const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];
const DAYS: [&str; 7] = ["Thursday", "Friday", "Saturday", "Sunday", "Monday", "Tuesday", "Wednesday"];

/// The specifiers that templates use; any other is kept as it is.
fn strftime(format: &str, seconds: u64) -> String {
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    let (year, month, day) = civil(days);
    let name = MONTHS[month as usize - 1];
    let weekday = DAYS[(days % 7) as usize];
    let mut out = String::new();
    let mut characters = format.chars();
    while let Some(character) = characters.next() {
        if character != '%' {
            out.push(character);
            continue;
        }
        let part = match characters.next() {
            Some('Y') => year.to_string(),
            Some('y') => format!("{:02}", year % 100),
            Some('m') => format!("{month:02}"),
            Some('d') => format!("{day:02}"),
            Some('B') => name.to_owned(),
            Some('b') => name[..3].to_owned(),
            Some('A') => weekday.to_owned(),
            Some('a') => weekday[..3].to_owned(),
            Some('H') => format!("{:02}", second / 3600),
            Some('M') => format!("{:02}", second / 60 % 60),
            Some('S') => format!("{:02}", second % 60),
            Some('%') => "%".to_owned(),
            Some(other) => format!("%{other}"),
            None => "%".to_owned(),
        };
        out += &part;
    }
    out
}

/// Year, month and day of a day counted from 1970-01-01. Years are counted from March, so that the leap day is last;
/// 400 of them are 146,097 days.
fn civil(days: u64) -> (u64, u64, u64) {
    let shifted = days + 719_468;
    let (era, of_era) = (shifted / 146_097, shifted % 146_097);
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let march_month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * march_month + 2) / 5 + 1;
    let month = if march_month < 10 { march_month + 3 } else { march_month - 9 };
    (era * 400 + year + u64::from(month <= 2), month, day)
}

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

/// Bytes up to a length; more is an error.
struct Capped {
    bytes: Vec<u8>,
    max: usize,
}

impl Capped {
    fn new(max: usize) -> Capped {
        Capped { bytes: Vec::new(), max }
    }

    fn into_value(self) -> Value {
        Value::from(String::from_utf8_lossy(&self.bytes).into_owned())
    }
}

impl io::Write for Capped {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self.bytes.len() + bytes.len() <= self.max {
            true => self.bytes.write(bytes),
            false => Err(io::Error::other(format!("a text longer than {} bytes", self.max))),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl fmt::Write for Capped {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        io::Write::write_all(self, text.as_bytes()).map_err(|_| fmt::Error)
    }
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

/// A list or map as text, built within bounds: the engine itself pays for it only once it is there, and a namespace can
/// hold itself.
fn shown(value: &Value) -> Result<Value, Error> {
    let mut text = Capped::new(SHOWN_BYTES_MAX);
    write!(text, "{value}").map_err(|_| too_long("the text of a list or map", SHOWN_BYTES_MAX))?;
    Ok(text.into_value())
}

fn too_long(what: &str, max: usize) -> Error {
    Error::new(ErrorKind::InvalidOperation, format!("{what} is longer than {max} bytes"))
}

fn is_container(value: &Value) -> bool {
    matches!(value.kind(), ValueKind::Seq | ValueKind::Map | ValueKind::Iterable | ValueKind::Plain)
}

/// How `{{ value }}` writes: text as it is, lists and maps within bounds.
pub(super) fn format(out: &mut Output, state: &mut State, value: &Value) -> Result<(), Error> {
    let value = if is_container(value) { &shown(value)? } else { value };
    minijinja::escape_formatter(out, state, value)
}

/// The filter `string`, within bounds.
pub(super) fn string(value: Value) -> Result<Value, Error> {
    match value.kind() {
        ValueKind::String => Ok(value),
        _ => shown(&value),
    }
}

/// The filter `join`, within bounds: the engine's own pays for the text only once it is there.
pub(super) fn join(
    state: &State,
    value: Value,
    joiner: Option<String>,
    options: Kwargs,
) -> Result<Value, Error> {
    let attribute: Option<String> = options.get("attribute")?;
    let joiner = joiner.or(options.get("d")?).unwrap_or_default();
    options.assert_all_used()?;
    let mut text = Capped::new(ENCODE_BYTES_MAX);
    for (at, item) in value.try_iter()?.enumerate() {
        state.consume_fuel(1)?;
        let item = attribute.as_ref().map_or(Ok(item.clone()), |name| item.get_attr(name))?;
        let item = if is_container(&item) { shown(&item)? } else { item };
        let between = if at > 0 { joiner.as_str() } else { "" };
        write!(text, "{between}{item}").map_err(|_| too_long("a joined text", ENCODE_BYTES_MAX))?;
    }
    Ok(text.into_value())
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

/// Without `{% generation %}` and `{% endgeneration %}`, which only mark text for training: an `if` in their place
/// keeps what white space control they ask for.
pub(super) fn without_generation_tags(source: &str) -> String {
    let mut out = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(start) = rest.find("{%") {
        let (before, tag) = rest.split_at(start);
        out.push_str(before);
        let Some(end) = tag.find("%}") else {
            rest = tag;
            break;
        };
        let (tag, after) = tag.split_at(end + 2);
        let inner = tag.trim_start_matches("{%").trim_end_matches("%}");
        let word = inner.trim_matches(|c: char| c == '-' || c == '+' || c.is_whitespace());
        match word {
            "generation" => out.push_str(&tag.replace("generation", "if true")),
            "endgeneration" => out.push_str(&tag.replace("endgeneration", "endif")),
            _ => out.push_str(tag),
        }
        rest = after;
    }
    out + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates() {
        for (seconds, expected) in [
            (0, "1970-01-01 Thu Thursday 00:00:00"),
            (951_782_400, "2000-02-29 Tue Tuesday 00:00:00"),
            (1_735_689_599, "2024-12-31 Tue Tuesday 23:59:59"),
            (4_107_542_400, "2100-03-01 Mon Monday 00:00:00"),
        ] {
            assert_eq!(strftime("%Y-%m-%d %a %A %H:%M:%S", seconds), expected);
        }
        assert_eq!(strftime("%d %b %B %y %% %q %", 951_782_400), "29 Feb February 00 % %q %");
    }

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

    #[test]
    fn generation_tags() {
        for (source, expected) in [
            ("a{% generation %}b{%- endgeneration -%}c", "a{% if true %}b{%- endif -%}c"),
            ("{% if generation %}x{% endif %}", "{% if generation %}x{% endif %}"),
            ("open {% generation", "open {% generation"),
        ] {
            assert_eq!(without_generation_tags(source), expected);
        }
    }
}
