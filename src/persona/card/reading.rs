//! Typed values out of a card's JSON; `null` is absent, a wrong type is refused with its path.

use super::CardError;
use crate::limits;
use crate::text::{json_kind, read_strict};
use serde_json::{Map, Value};
use std::io::{self, Read};

/// What comes out of a packed stream. The size that a file states is a stranger's word: what counts is what comes out.
pub fn unpacked(
    packed: impl Read,
    what: &str,
    broken: impl FnOnce(io::Error) -> CardError,
) -> Result<Vec<u8>, CardError> {
    // Base64 takes four bytes for three; some editors break it into lines.
    let most = limits::CARD_BYTES_MAX * 2;
    let mut bytes = Vec::new();
    packed.take(most as u64 + 1).read_to_end(&mut bytes).map_err(broken)?;
    CardError::check_bytes(bytes.len(), most, || what.to_owned())?;
    Ok(bytes)
}

/// An object of a card and where it stands.
pub struct Data<'a> {
    map: &'a Map<String, Value>,
    path: String,
}

impl<'a> Data<'a> {
    pub fn new(map: &'a Map<String, Value>, path: &str) -> Data<'a> {
        Data { map, path: path.to_owned() }
    }

    pub fn of(value: &'a Value, path: &str) -> Result<Data<'a>, CardError> {
        match value {
            Value::Object(map) => Ok(Data::new(map, path)),
            other => Err(kind(path.to_owned(), "an object", other)),
        }
    }

    pub fn path(&self, name: &str) -> String {
        if self.path.is_empty() { name.to_owned() } else { format!("{}.{name}", self.path) }
    }

    fn get(&self, name: &str) -> Option<&'a Value> {
        self.map.get(name).filter(|value| !value.is_null())
    }

    /// Empty where there is none.
    pub fn text(&self, name: &str) -> Result<&'a str, CardError> {
        match self.get(name) {
            None => Ok(""),
            Some(Value::String(text)) => Ok(text),
            Some(other) => Err(kind(self.path(name), "a string", other)),
        }
    }

    pub fn texts(&self, name: &str) -> Result<Vec<&'a str>, CardError> {
        let items = self.list(name)?.iter().enumerate();
        let text = |(at, item): (usize, &'a Value)| {
            item.as_str().ok_or_else(|| kind(format!("{}[{at}]", self.path(name)), "a string", item))
        };
        items.map(text).collect()
    }

    pub fn list(&self, name: &str) -> Result<&'a [Value], CardError> {
        match self.get(name) {
            None => Ok(&[]),
            Some(Value::Array(items)) => Ok(items),
            Some(other) => Err(kind(self.path(name), "an array", other)),
        }
    }

    pub fn object(&self, name: &str) -> Result<Option<Data<'a>>, CardError> {
        self.get(name).map(|value| Data::of(value, &self.path(name))).transpose()
    }

    pub fn flag(&self, name: &str) -> Result<Option<bool>, CardError> {
        match self.get(name) {
            None => Ok(None),
            Some(Value::Bool(flag)) => Ok(Some(*flag)),
            Some(other) => Err(kind(self.path(name), "true or false", other)),
        }
    }

    pub fn number(&self, name: &str) -> Result<Option<f64>, CardError> {
        match self.get(name) {
            None => Ok(None),
            Some(value) => match value.as_f64().filter(|number| number.is_finite()) {
                Some(number) => Ok(Some(number)),
                None => Err(kind(self.path(name), "a number", value)),
            },
        }
    }
}

fn kind(path: String, wanted: &'static str, given: &Value) -> CardError {
    CardError::Kind { path, wanted, given: json_kind(given) }
}

/// A card's JSON as one object.
pub fn object(bytes: &[u8]) -> Result<Map<String, Value>, CardError> {
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    let plain = |message: String| CardError::Json { field: None, message };
    let text = std::str::from_utf8(bytes)
        .map_err(|error| plain(format!("is not UTF-8 (byte {})", error.valid_up_to())))?;
    match read_strict(text) {
        Ok(Value::Object(map)) => Ok(map),
        Ok(other) => Err(plain(format!("must be an object, not {}", json_kind(&other)))),
        Err(error) => {
            let message = match error.duplicate {
                Some(key) => format!("the key `{}` occurs twice", clipped(&key)),
                None => error.message,
            };
            Err(CardError::Json { field: error.field.map(|field| clipped(&field)), message })
        }
    }
}

/// A text of the card as the model may read it: lines end in `\n`, other control characters are gone.
pub fn clean(text: &str) -> String {
    let text = text.replace("\r\n", "\n");
    text.chars().filter(|c| !c.is_control() || matches!(c, '\n' | '\t')).collect()
}

/// A client's word as a message may show it.
pub fn clipped(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(limits::SHOWN_CHARS_MAX).collect()
}
