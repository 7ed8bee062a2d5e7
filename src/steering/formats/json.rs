//! Vectors as JSON, for curl: `{"directions": {"12": [0.1, ...]}}`, blocks 0-based.

use super::{Assumed, Format, Imported};
use crate::digest::Digest;
use crate::limits;
use crate::steering::error::SteeringError;
use crate::steering::request::{number, shortened};
use crate::steering::vector::{Origin, Provenance, Vector};
use serde::Deserialize;
use serde::de::{Deserializer, Error as _, MapAccess, Visitor};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

/// Directions by block; `[d_model]` each. Reading refuses blocks given twice.
struct Directions(BTreeMap<u32, Vec<f32>>);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    directions: Directions,
}

/// Reads a file; the vector's provenance is the file's digest.
pub fn read(bytes: &[u8], name: &str, sha256: Digest) -> Result<Imported, SteeringError> {
    let file: File = serde_json::from_slice(bytes).map_err(|error| SteeringError::BadFile {
        format: "JSON",
        rule: error.to_string(),
        offset: None,
    })?;
    let directions = file.directions.0.into_iter().map(|(block, values)| (block, Arc::from(values)));
    let mut vector = Vector::new(name, directions.collect(), "file")?;
    vector.provenance =
        Provenance { weights: None, origin: Origin::File { format: Format::Json.name().to_owned(), sha256 } };
    Ok(Imported { vector, assumed: Assumed::new(Format::Json) })
}

pub fn write(vector: &Vector) -> Vec<u8> {
    let directions = vector.directions().iter().map(|(block, values)| {
        let values = values.iter().map(|&value| number(value)).collect();
        (block.to_string(), Value::Array(values))
    });
    serde_json::json!({ "directions": serde_json::Map::from_iter(directions) }).to_string().into_bytes()
}

/// The `directions` of a body that is parsed already. Values may be too large for f32 here: they become infinite and
/// [`Vector::new`] refuses them.
pub fn directions_of(value: &Value, param: &str) -> Result<BTreeMap<u32, Vec<f32>>, SteeringError> {
    arrays_by(value, param, block)
}

/// The `heads` of a body: values by `block.head`, as in `{"12.3": [...]}`.
pub fn heads_of(value: &Value, param: &str) -> Result<BTreeMap<(u32, u32), Vec<f32>>, SteeringError> {
    let heads = arrays_by(value, param, head)?;
    if heads.is_empty() {
        return Err(SteeringError::range(param, "an empty object names no head"));
    }
    Ok(heads)
}

fn arrays_by<K: Ord>(
    value: &Value,
    param: &str,
    read: impl Fn(&str) -> Result<K, String>,
) -> Result<BTreeMap<K, Vec<f32>>, SteeringError> {
    let Value::Object(object) = value else {
        return Err(SteeringError::form(param, "expected an object of arrays of numbers by block"));
    };
    let mut arrays = BTreeMap::new();
    for (key, values) in object {
        let place = read(key).map_err(|message| SteeringError::range(param, message))?;
        let values = values
            .as_array()
            .and_then(|values| values.iter().map(|value| value.as_f64().map(|value| value as f32)).collect());
        let values: Vec<f32> = values.ok_or_else(|| {
            SteeringError::form(format!("{param}.{}", shortened(key)), "expected an array of numbers")
        })?;
        if arrays.insert(place, values).is_some() {
            return Err(SteeringError::range(param, format!("`{}` is given twice", shortened(key))));
        }
    }
    Ok(arrays)
}

fn head(key: &str) -> Result<(u32, u32), String> {
    let parts = key.split_once('.').and_then(|(l, h)| Some((l.parse().ok()?, h.parse().ok()?)));
    parts.filter(|(l, h)| format!("{l}.{h}") == key && *l < limits::BLOCKS_MAX).ok_or_else(|| {
        format!("`{}` is no head; heads are named by block and head, as in `12.3`", shortened(key))
    })
}

fn block(key: &str) -> Result<u32, String> {
    let block = key.parse::<u32>().ok().filter(|&block| block < limits::BLOCKS_MAX);
    block.filter(|block| block.to_string() == key).ok_or_else(|| {
        format!(
            "`{}` is no block; blocks are whole numbers from 0 to {}",
            shortened(key),
            limits::BLOCKS_MAX - 1
        )
    })
}

impl<'de> Deserialize<'de> for Directions {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Directions, D::Error> {
        deserializer.deserialize_map(DirectionsVisitor)
    }
}

struct DirectionsVisitor;

impl<'de> Visitor<'de> for DirectionsVisitor {
    type Value = Directions;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of arrays of numbers by block")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Directions, A::Error> {
        let mut directions = BTreeMap::new();
        while let Some(key) = map.next_key::<String>()? {
            let block = block(&key).map_err(A::Error::custom)?;
            if directions.contains_key(&block) {
                return Err(A::Error::custom(format!("block {block} is given twice")));
            }
            directions.insert(block, map.next_value()?);
        }
        Ok(Directions(directions))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bad_files() {
        for (text, part) in [
            (r#"{}"#, "missing field `directions`"),
            (r#"{"directions": []}"#, "an object of arrays"),
            (r#"{"directions": {}}"#, "no direction"),
            (r#"{"directions": {"1": [1], "1": [1]}}"#, "block 1 is given twice"),
            (r#"{"directions": {"-1": [1]}}"#, "`-1` is no block"),
            (r#"{"directions": {"01": [1]}}"#, "`01` is no block"),
            (r#"{"directions": {"4000000000": [1]}}"#, "no block"),
            (r#"{"directions": {"1": [[1]]}}"#, "expected f32"),
            (r#"{"directions": {"1": ["1"]}}"#, "expected f32"),
            (r#"{"directions": {"1": [1e39]}}"#, "not finite"),
            (r#"{"directions": {"1": [1, 2], "2": [1]}}"#, "block 2 has 1 values"),
            (r#"{"directions": {"1": [1]}, "name": "x"}"#, "unknown field `name`"),
        ] {
            let error = read(text.as_bytes(), "v", Digest::default()).unwrap_err().to_string();
            assert!(error.contains(part), "{text}: {error}");
        }
    }
}
