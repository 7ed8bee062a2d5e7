//! Strict reading of JSON from outside: bounded depth, no duplicate keys; failures name the top-level key.

use crate::limits::JSON_DEPTH_MAX;
use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};
use std::cell::RefCell;
use std::fmt;

/// Why a text is not taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StrictError {
    /// Top-level key that was being read.
    pub field: Option<String>,
    /// Key that occurs twice, where that is the reason.
    pub duplicate: Option<String>,
    /// The reader's own words otherwise.
    pub message: String,
}

/// Parses one JSON value of any kind.
pub fn read_strict(text: &str) -> Result<Value, StrictError> {
    let place = Place::default();
    let mut reader = serde_json::Deserializer::from_str(text);
    let read = Strict { place: &place, depth: 0 }.deserialize(&mut reader);
    read.and_then(|value| reader.end().map(|()| value)).map_err(|error| StrictError {
        field: place.field.take(),
        duplicate: place.duplicate.take(),
        message: error.to_string(),
    })
}

/// Where the reader is, kept so that a failure can name the field.
#[derive(Default)]
struct Place {
    /// Top-level key being read.
    field: RefCell<Option<String>>,
    /// Key that occurred twice.
    duplicate: RefCell<Option<String>>,
}

/// Reads one value at `depth`.
struct Strict<'a> {
    place: &'a Place,
    depth: usize,
}

impl Strict<'_> {
    fn inner<E: serde::de::Error>(&self) -> Result<Strict<'_>, E> {
        if self.depth >= JSON_DEPTH_MAX {
            return Err(E::custom(format!("more than {JSON_DEPTH_MAX} levels of nesting")));
        }
        Ok(Strict { place: self.place, depth: self.depth + 1 })
    }
}

impl<'de> DeserializeSeed<'de> for Strict<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Strict<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Value, E> {
        Number::from_f64(value).map(Value::Number).ok_or_else(|| E::custom("number out of range"))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(Value::String(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element_seed(self.inner()?)? {
            list.push(item);
        }
        Ok(Value::Array(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let mut map = Map::new();
        while let Some(key) = entries.next_key::<String>()? {
            if self.depth == 0 {
                *self.place.field.borrow_mut() = Some(key.clone());
            }
            if map.contains_key(&key) {
                *self.place.duplicate.borrow_mut() = Some(key);
                return Err(A::Error::custom("duplicate field"));
            }
            let value = entries.next_value_seed(self.inner()?)?;
            map.insert(key, value);
            if self.depth == 0 {
                *self.place.field.borrow_mut() = None;
            }
        }
        Ok(Value::Object(map))
    }
}
