//! Template values as text, within bounds that the template engine does not keep itself.

use crate::limits::ENCODE_BYTES_MAX;
use minijinja::value::{Kwargs, ValueKind};
use minijinja::{Error, ErrorKind, Output, State, Value};
use std::fmt::{self, Write};
use std::io;

/// Longest text of a list or map written without `tojson`: no template means to, so it is a few words.
const SHOWN_BYTES_MAX: usize = 64 << 10;

/// Bytes up to a length; more is an error.
pub(super) struct Capped {
    pub bytes: Vec<u8>,
    max: usize,
}

impl Capped {
    pub fn new(max: usize) -> Capped {
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
