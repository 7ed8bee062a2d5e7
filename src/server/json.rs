//! Bodies as strict JSON: UTF-8, bounded depth, no duplicate keys; errors name the top-level field.

use super::error::{ApiError, ErrorCode, shown};
use crate::text::{StrictError, json_kind, read_strict};
use serde_json::{Map, Value};

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

/// Parses any JSON value.
fn value(bytes: &[u8]) -> Result<Value, ApiError> {
    if bytes.is_empty() {
        return Err(ApiError::new(ErrorCode::InvalidJson, "the body is empty; a JSON object is needed"));
    }
    let text = std::str::from_utf8(bytes).map_err(|error| {
        let message = format!("the body is not UTF-8 (byte {})", error.valid_up_to());
        ApiError::new(ErrorCode::InvalidJson, message)
    })?;
    read_strict(text).map_err(explain)
}

fn explain(error: StrictError) -> ApiError {
    let StrictError { field: param, duplicate, message } = error;
    if let Some(key) = duplicate {
        let message = format!("the field `{}` occurs twice", shown(key));
        return ApiError { param, ..ApiError::new(ErrorCode::DuplicateField, message) };
    }
    let place = param.as_ref().map(|field| format!(" in `{}`", shown(field))).unwrap_or_default();
    let message = format!("the body is not valid JSON{place}: {message}");
    ApiError { param, ..ApiError::new(ErrorCode::InvalidJson, message) }
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
