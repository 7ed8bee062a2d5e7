//! Strict reading of JSON bodies: UTF-8, bounded depth, no duplicate keys; errors name the top-level field.

use super::error::{ApiError, ErrorCode, shown};
use crate::limits::JSON_DEPTH_MAX;
use crate::steering::json_kind;
use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};
use std::cell::RefCell;
use std::fmt;

/// Parses a body that must be one JSON object.
pub fn object(bytes: &[u8]) -> Result<Map<String, Value>, ApiError> {
    match value(bytes)? {
        Value::Object(map) => Ok(map),
        other => Err(ApiError::new(
            ErrorCode::InvalidJson,
            format!("the body must be a JSON object, not {}", json_kind(&other)),
        )),
    }
}

/// Parses any JSON value under the bounds of this file.
fn value(bytes: &[u8]) -> Result<Value, ApiError> {
    if bytes.is_empty() {
        return Err(ApiError::new(ErrorCode::InvalidJson, "the body is empty; a JSON object is needed"));
    }
    let text = std::str::from_utf8(bytes).map_err(|error| {
        let message = format!("the body is not UTF-8 (byte {})", error.valid_up_to());
        ApiError::new(ErrorCode::InvalidJson, message)
    })?;
    let place = Place::default();
    let mut reader = serde_json::Deserializer::from_str(text);
    Strict { place: &place, depth: 0 }
        .deserialize(&mut reader)
        .and_then(|value| reader.end().map(|()| value))
        .map_err(|error| place.explain(&error))
}

/// Where the reader is, kept so that a failure can name the field.
#[derive(Default)]
struct Place {
    /// Top-level key being read.
    field: RefCell<Option<String>>,
    /// Key that occurred twice.
    duplicate: RefCell<Option<String>>,
}

impl Place {
    fn explain(&self, error: &serde_json::Error) -> ApiError {
        let param = self.field.borrow().clone();
        if let Some(key) = self.duplicate.borrow().as_ref() {
            let mut api =
                ApiError::new(ErrorCode::DuplicateField, format!("the field `{}` occurs twice", shown(key)));
            api.param = param;
            return api;
        }
        let place = param.as_ref().map(|field| format!(" in `{}`", shown(field))).unwrap_or_default();
        let mut api =
            ApiError::new(ErrorCode::InvalidJson, format!("the body is not valid JSON{place}: {error}"));
        api.param = param;
        api
    }
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

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn refusals() {
        let deep = "[".repeat(100_000);
        let nested = format!("{{\"a\":{}1{}}}", "[".repeat(64), "]".repeat(64));
        let table: &[(&[u8], ErrorCode, Option<&str>)] = &[
            (b"", ErrorCode::InvalidJson, None),
            (b"[]", ErrorCode::InvalidJson, None),
            (b"null", ErrorCode::InvalidJson, None),
            (b"{\"model\":", ErrorCode::InvalidJson, Some("model")),
            (b"{} x", ErrorCode::InvalidJson, None),
            (b"{\"a\":\"\xff\"}", ErrorCode::InvalidJson, None),
            (b"{\"a\":\"\\ud800\"}", ErrorCode::InvalidJson, Some("a")),
            (b"{\"temperature\":1e400}", ErrorCode::InvalidJson, Some("temperature")),
            (b"{\"temperature\":NaN}", ErrorCode::InvalidJson, Some("temperature")),
            (b"{\"t\":0,\"t\":2}", ErrorCode::DuplicateField, Some("t")),
            (b"{\"b\":{\"x\":0,\"x\":2}}", ErrorCode::DuplicateField, Some("b")),
            (deep.as_bytes(), ErrorCode::InvalidJson, None),
            (nested.as_bytes(), ErrorCode::InvalidJson, Some("a")),
        ];
        for (bytes, code, param) in table {
            let error = object(bytes).expect_err("must be refused");
            let text = String::from_utf8_lossy(&bytes[..bytes.len().min(40)]);
            assert_eq!((error.code, error.param.as_deref()), (*code, *param), "{text}");
        }
    }

    #[test]
    fn large_integers_stay_exact() {
        let map = object(b"{\"seed\":18446744073709551615}").expect("valid");
        assert_eq!(map["seed"].as_u64(), Some(u64::MAX));
    }

    proptest! {
        #[test]
        fn random_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = object(&bytes);
        }

        #[test]
        fn agrees_with_serde_on_objects(keys in proptest::collection::btree_map("[a-z]{1,4}", any::<i64>(), 0..8)) {
            let text = serde_json::to_string(&keys).expect("serialises");
            let plain: Value = serde_json::from_str(&text).expect("parses");
            prop_assert_eq!(Value::Object(object(text.as_bytes()).expect("valid")), plain);
        }
    }
}
