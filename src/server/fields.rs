//! Takes typed values out of a JSON object, with errors that name the field, what was given and what is allowed.

use super::error::{ApiError, ErrorCode, shown};
use crate::steering::{edit_distance, json_kind as kind};
use serde_json::{Map, Value};
use std::fmt::Display;
use std::ops::RangeInclusive;

/// The fields of one object that have not been read yet. `null` counts as absent everywhere.
pub struct Fields {
    map: Map<String, Value>,
    /// What stands before a field's name in messages, e.g. `messages[2].`.
    prefix: String,
}

impl Fields {
    pub fn new(map: Map<String, Value>) -> Fields {
        Fields { map, prefix: String::new() }
    }

    /// The fields of an object found at `path`.
    pub fn nested(value: Value, path: &str) -> Result<Fields, ApiError> {
        match value {
            Value::Object(map) => Ok(Fields { map, prefix: format!("{path}.") }),
            other => Err(wrong_kind(path, &other, "an object")),
        }
    }

    pub fn path(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }

    /// A refusal of field `name`.
    pub fn refuse(&self, name: &str, message: impl Display) -> ApiError {
        ApiError::at(ErrorCode::InvalidValue, self.path(name), message)
    }

    /// Sets a field, as if the client had sent it.
    pub fn put(&mut self, name: &str, value: Value) {
        self.map.insert(name.to_owned(), value);
    }

    /// Removes a field; `null` is absent.
    pub fn take(&mut self, name: &str) -> Option<Value> {
        self.map.shift_remove(name).filter(|value| !value.is_null())
    }

    /// The same for fields where an empty string means *off*.
    pub fn take_set(&mut self, name: &str) -> Option<Value> {
        self.take(name).filter(|value| value.as_str() != Some(""))
    }

    pub fn bool(&mut self, name: &str) -> Result<Option<bool>, ApiError> {
        match self.take_set(name) {
            None => Ok(None),
            Some(Value::Bool(value)) => Ok(Some(value)),
            Some(other) => Err(wrong_kind(&self.path(name), &other, "true or false")),
        }
    }

    pub fn string(&mut self, name: &str) -> Result<Option<String>, ApiError> {
        match self.take(name) {
            None => Ok(None),
            Some(Value::String(value)) => Ok(Some(value)),
            Some(other) => Err(wrong_kind(&self.path(name), &other, "a string")),
        }
    }

    /// A finite number in a closed range.
    pub fn number(&mut self, name: &str, allowed: RangeInclusive<f64>) -> Result<Option<f32>, ApiError> {
        let Some(value) = self.take_set(name) else { return Ok(None) };
        let path = self.path(name);
        let number = value.as_f64().ok_or_else(|| wrong_kind(&path, &value, "a number"))?;
        if !allowed.contains(&number) {
            return Err(out_of_range(&path, &value, allowed.start(), allowed.end()));
        }
        Ok(Some(number as f32))
    }

    /// A whole number in a closed range. `3.0` is taken as 3, as some clients send it.
    pub fn integer(&mut self, name: &str, allowed: RangeInclusive<i64>) -> Result<Option<i64>, ApiError> {
        let Some(value) = self.take_set(name) else { return Ok(None) };
        let path = self.path(name);
        let number = whole(&path, &value, allowed.start(), allowed.end())?;
        if !allowed.contains(&number) {
            return Err(out_of_range(&path, &value, allowed.start(), allowed.end()));
        }
        Ok(Some(number))
    }

    /// The one value that several aliases carry; different values are a refusal that names both.
    pub fn aliased<T: PartialEq>(
        &mut self,
        names: &[&str],
        mut read: impl FnMut(&mut Fields, &str) -> Result<Option<T>, ApiError>,
    ) -> Result<Option<T>, ApiError> {
        let mut found: Option<(&str, T)> = None;
        for name in names {
            let Some(value) = read(self, name)? else { continue };
            match &found {
                None => found = Some((name, value)),
                Some((_, first)) if *first == value => {}
                Some((first, _)) => {
                    return Err(
                        self.refuse(name, format!("differs from its alias `{first}`; send one of them"))
                    );
                }
            }
        }
        Ok(found.map(|(_, value)| value))
    }

    /// Refuses whatever has not been read: native routes know all their fields.
    pub fn finish(self, known: &[&str]) -> Result<(), ApiError> {
        match self.map.keys().min() {
            None => Ok(()),
            Some(name) => {
                let message = format!("unknown field; this route knows {}", listed(known));
                Err(ApiError::at(ErrorCode::UnknownField, self.path(name), message))
            }
        }
    }

    /// Names and values that have not been read.
    pub fn rest(&self) -> &Map<String, Value> {
        &self.map
    }
}

/// `a`, `b` and `c` for messages.
pub fn listed(names: &[&str]) -> String {
    names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}

pub fn missing(path: impl Into<String>) -> ApiError {
    ApiError::at(ErrorCode::MissingField, path, "the field is missing")
}

pub fn wrong_kind(path: &str, given: &Value, wanted: &str) -> ApiError {
    ApiError::at(ErrorCode::InvalidValue, path, format!("must be {wanted}, not {}", kind(given)))
}

fn out_of_range(path: &str, given: &Value, low: impl Display, high: impl Display) -> ApiError {
    ApiError::at(
        ErrorCode::InvalidValue,
        path,
        format!("{} is out of range; allowed {low} to {high}", shown(given)),
    )
}

fn whole(path: &str, value: &Value, low: &i64, high: &i64) -> Result<i64, ApiError> {
    if let Some(number) = value.as_i64() {
        return Ok(number);
    }
    let number = value.as_f64().ok_or_else(|| wrong_kind(path, value, "a whole number"))?;
    if number.fract() != 0.0 {
        return Err(ApiError::at(
            ErrorCode::InvalidValue,
            path,
            format!("{} is not a whole number", shown(value)),
        ));
    }
    // 2^53 bounds what a float says exactly.
    if number.abs() > 9_007_199_254_740_992.0 {
        return Err(out_of_range(path, value, low, high));
    }
    Ok(number as i64)
}

/// The nearest of `known` to `given` by edit distance, at most three, for "not found" messages.
pub fn nearest<'a>(given: &str, known: impl Iterator<Item = &'a str>) -> Vec<&'a str> {
    let letters = |name: &str| name.chars().take(64).collect::<Vec<char>>();
    let given = letters(given);
    let mut ranked: Vec<(usize, &str)> =
        known.map(|name| (edit_distance(&given, &letters(name)), name)).collect();
    ranked.sort();
    ranked.into_iter().take(3).map(|(_, name)| name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn fields(value: Value) -> Fields {
        Fields::nested(value, "x").expect("an object")
    }

    #[test]
    fn off_values_are_absent() {
        let mut f = fields(json!({"a": null, "b": "", "c": 1}));
        assert_eq!(f.number("a", 0.0..=1.0).expect("ok"), None);
        assert_eq!(f.integer("b", 0..=1).expect("ok"), None);
        assert_eq!(f.number("c", 0.0..=1.0).expect("ok"), Some(1.0));
    }

    #[test]
    fn messages_name_field_given_and_allowed() {
        let error = fields(json!({"t": 7})).number("t", 0.0..=2.0).expect_err("out of range");
        assert_eq!(error.message, "`x.t`: 7 is out of range; allowed 0 to 2");
        let error = fields(json!({"t": "1"})).number("t", 0.0..=2.0).expect_err("wrong kind");
        assert_eq!(error.message, "`x.t`: must be a number, not a string");
        let error = fields(json!({"n": 1.5})).integer("n", 1..=8).expect_err("fraction");
        assert_eq!(error.message, "`x.n`: 1.5 is not a whole number");
    }

    #[test]
    fn aliases_agree_or_are_refused() {
        let read = |f: &mut Fields| f.aliased(&["m", "k"], |f, name| f.integer(name, 0..=9));
        assert_eq!(read(&mut fields(json!({"m": 3, "k": 3}))).expect("ok"), Some(3));
        let error = read(&mut fields(json!({"m": 3, "k": 4}))).expect_err("differ");
        assert!(error.message.contains("`m`"), "{}", error.message);
    }

    #[test]
    fn nearest_names_first() {
        let known = ["warm", "formal", "war", "worm"];
        assert_eq!(nearest("warn", known.into_iter()), ["war", "warm", "worm"]);
    }
}
