//! Parameters behind the `?` of a path: known names, whole numbers in a range.

use super::error::{ApiError, ErrorCode, shown};
use std::collections::BTreeMap;
use std::ops::RangeInclusive;

pub type QueryMap = BTreeMap<String, String>;

/// Refuses a parameter that the route does not know.
pub fn check_query(query: &QueryMap, known: &[&str]) -> Result<(), ApiError> {
    match query.keys().find(|name| !known.contains(&name.as_str())) {
        None => Ok(()),
        Some(name) => {
            let message = format!("unknown parameter; this route knows {}", known.join(", "));
            Err(ApiError::at(ErrorCode::UnknownField, name.as_str(), message))
        }
    }
}

/// The whole number of a parameter; `None` where it is absent.
pub fn whole(query: &QueryMap, name: &str, allowed: RangeInclusive<i64>) -> Result<Option<i64>, ApiError> {
    let Some(text) = query.get(name) else { return Ok(None) };
    let number = text.parse().ok().filter(|number| allowed.contains(number));
    number.map(Some).ok_or_else(|| {
        let (low, high) = (allowed.start(), allowed.end());
        let message =
            format!("`{}` is out of range; allowed are whole numbers from {low} to {high}", shown(text));
        ApiError::at(ErrorCode::InvalidValue, name, message)
    })
}
