//! Our own vector files: safetensors with tensors `resid.L`, and provenance as metadata.
//!
//! Layout: 8 bytes little-endian length of the header, the header (JSON), the data. The header is bounded and checked
//! before anything is read from it: no entry twice, data without holes, nothing after its end.

use super::{Assumed, Format, Imported, labels};
use crate::digest::Digest;
use crate::limits;
use crate::steering::error::SteeringError;
use crate::steering::request::shortened;
use crate::steering::vector::Vector;
use half::{bf16, f16};
use serde::Deserialize;
use serde::de::{Deserializer, Error as _, MapAccess, Visitor};
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

/// One entry of the header.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    dtype: String,
    /// Sizes per dimension, slowest first.
    shape: Vec<u64>,
    /// Begin and end in bytes, from the start of the data.
    data_offsets: (u64, u64),
}

/// The header: `__metadata__` and the tensors, each in the file's order.
struct Header {
    metadata: BTreeMap<String, String>,
    tensors: Vec<(String, Entry)>,
}

pub fn read(bytes: &[u8], name: &str, sha256: Digest) -> Result<Imported, SteeringError> {
    let (header, data) = split(bytes)?;
    check_layout(&header.tensors, data.len() as u64)?;
    let mut directions = BTreeMap::new();
    for (tensor, entry) in &header.tensors {
        let block = block_of(tensor)?;
        let (begin, end) = entry.data_offsets;
        let raw = data.get(begin as usize..end as usize).unwrap_or_default();
        directions.insert(block, values(tensor, entry, raw)?);
    }
    let mut vector = Vector::new(name, directions, "file")?;
    let label = |key: &str| header.metadata.get(key).map(String::as_str);
    (vector.provenance, vector.calibration) = labels::read(label, Format::Safetensors.name(), sha256);
    Ok(Imported { vector, assumed: Assumed::new(Format::Safetensors) })
}

/// Writes F32 tensors in ascending blocks; equal vectors give equal bytes.
pub fn write(vector: &Vector) -> Vec<u8> {
    let mut header = serde_json::Map::new();
    let metadata = labels::write(vector).into_iter().map(|(key, value)| (key.to_owned(), value.into()));
    header.insert("__metadata__".to_owned(), serde_json::Value::Object(metadata.collect()));
    let mut data = Vec::new();
    for (block, values) in vector.directions() {
        let begin = data.len();
        values.iter().for_each(|value| data.extend_from_slice(&value.to_le_bytes()));
        let entry = serde_json::json!({
            "dtype": "F32", "shape": [values.len()], "data_offsets": [begin, data.len()]
        });
        header.insert(format!("resid.{block}"), entry);
    }
    let mut text = serde_json::Value::Object(header).to_string();
    // Padded with spaces, so that the data is aligned to 8 bytes.
    text.extend(std::iter::repeat_n(' ', text.len().next_multiple_of(8) - text.len()));
    let mut bytes = (text.len() as u64).to_le_bytes().to_vec();
    bytes.extend_from_slice(text.as_bytes());
    bytes.extend_from_slice(&data);
    bytes
}

fn split(bytes: &[u8]) -> Result<(Header, &[u8]), SteeringError> {
    let (length, rest) = bytes.split_first_chunk::<8>().ok_or_else(|| bad("shorter than 8 bytes", 0))?;
    let length = u64::from_le_bytes(*length);
    if length > limits::VECTOR_HEADER_BYTES_MAX {
        let rule =
            format!("a header of {length} bytes; at most {} for a vector", limits::VECTOR_HEADER_BYTES_MAX);
        return Err(bad(&rule, 0));
    }
    let (text, data) = rest
        .split_at_checked(length as usize)
        .ok_or_else(|| bad(&format!("a header of {length} bytes in a file of {}", bytes.len()), 0))?;
    let header = serde_json::from_slice(text).map_err(|error| bad(&format!("header: {error}"), 8))?;
    Ok((header, data))
}

/// Tensors lie side by side from 0 to the end of the data, in any order of the header.
fn check_layout(tensors: &[(String, Entry)], available: u64) -> Result<(), SteeringError> {
    let mut spans: Vec<(u64, u64, &str)> = tensors
        .iter()
        .map(|(name, entry)| (entry.data_offsets.0, entry.data_offsets.1, name.as_str()))
        .collect();
    spans.sort_unstable();
    let mut end = 0;
    for (begin, stop, name) in spans {
        if begin != end || stop < begin {
            let rule = format!("tensor `{}` at {begin}..{stop}; expected to begin at {end}", shortened(name));
            return Err(bad(&rule, 8));
        }
        end = stop;
    }
    if end != available {
        return Err(bad(&format!("the tensors take {end} bytes, the file has {available}"), 8));
    }
    Ok(())
}

fn block_of(tensor: &str) -> Result<u32, SteeringError> {
    let shown = shortened(tensor);
    let (hook, rest) = tensor.split_once('.').unwrap_or((tensor, ""));
    match hook {
        "resid" => {}
        "attn" | "head" => {
            return Err(SteeringError::unsupported(
                "file",
                format!("tensor `{shown}`: the hook point `{hook}`"),
            ));
        }
        _ => return Err(bad(&format!("tensor `{shown}`; a vector has `resid.L`, L the 0-based block"), 8)),
    }
    let block = rest.parse::<u32>().ok().filter(|&block| block < limits::BLOCKS_MAX);
    block
        .filter(|block| block.to_string() == rest)
        .ok_or_else(|| bad(&format!("tensor `{shown}`: no block from 0 to {}", limits::BLOCKS_MAX - 1), 8))
}

fn values(tensor: &str, entry: &Entry, raw: &[u8]) -> Result<Arc<[f32]>, SteeringError> {
    let shown = shortened(tensor);
    let width = match entry.dtype.as_str() {
        "F32" => 4,
        "F16" | "BF16" => 2,
        other => {
            let message = format!("`{shown}` is {}; expected F32, F16 or BF16", shortened(other));
            return Err(SteeringError::unfit("file", message));
        }
    };
    let [n] = entry.shape[..] else {
        let message = format!("`{shown}` has shape {:?}; expected one dimension, [d_model]", entry.shape);
        return Err(SteeringError::unfit("file", message));
    };
    if n.checked_mul(width) != Some(raw.len() as u64) {
        let rule = format!("`{shown}`: {n} values of {} do not take {} bytes", entry.dtype, raw.len());
        return Err(bad(&rule, 8));
    }
    let pairs = raw.chunks_exact(2).map(|pair| [pair[0], pair[1]]);
    Ok(match entry.dtype.as_str() {
        "F16" => pairs.map(|pair| f16::from_le_bytes(pair).to_f32()).collect(),
        "BF16" => pairs.map(|pair| bf16::from_le_bytes(pair).to_f32()).collect(),
        _ => {
            raw.chunks_exact(4).map(|word| f32::from_le_bytes([word[0], word[1], word[2], word[3]])).collect()
        }
    })
}

fn bad(rule: &str, offset: usize) -> SteeringError {
    SteeringError::BadFile { format: "safetensors", rule: rule.to_owned(), offset: Some(offset) }
}

impl<'de> Deserialize<'de> for Header {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Header, D::Error> {
        deserializer.deserialize_map(HeaderVisitor)
    }
}

struct HeaderVisitor;

impl<'de> Visitor<'de> for HeaderVisitor {
    type Value = Header;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of tensors by name")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Header, A::Error> {
        let mut header = Header { metadata: BTreeMap::new(), tensors: Vec::new() };
        let mut seen = std::collections::BTreeSet::new();
        while let Some(key) = map.next_key::<String>()? {
            if !seen.insert(key.clone()) {
                return Err(A::Error::custom(format!("`{}` occurs twice", shortened(&key))));
            }
            if key == "__metadata__" {
                header.metadata = map.next_value::<Labels>()?.0;
            } else if header.tensors.len() == limits::VECTOR_TENSORS_MAX {
                let message = format!("more than {} tensors in a vector", limits::VECTOR_TENSORS_MAX);
                return Err(A::Error::custom(message));
            } else {
                header.tensors.push((key, map.next_value()?));
            }
        }
        Ok(header)
    }
}

/// `__metadata__`: text by key, no key twice. Its size is bounded by the header's.
struct Labels(BTreeMap<String, String>);

impl<'de> Deserialize<'de> for Labels {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Labels, D::Error> {
        deserializer.deserialize_map(LabelsVisitor)
    }
}

struct LabelsVisitor;

impl<'de> Visitor<'de> for LabelsVisitor {
    type Value = Labels;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of strings")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Labels, A::Error> {
        let mut labels = BTreeMap::new();
        while let Some((key, value)) = map.next_entry::<String, String>()? {
            if labels.insert(key.clone(), value).is_some() {
                return Err(A::Error::custom(format!("metadata `{}` occurs twice", shortened(&key))));
            }
        }
        Ok(Labels(labels))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(header: &str, data: &[u8]) -> Vec<u8> {
        let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
        bytes.extend_from_slice(header.as_bytes());
        bytes.extend_from_slice(data);
        bytes
    }

    fn one(dtype: &str, shape: &str, data: &[u8]) -> Vec<u8> {
        let end = data.len();
        file(
            &format!(r#"{{"resid.1":{{"dtype":"{dtype}","shape":{shape},"data_offsets":[0,{end}]}}}}"#),
            data,
        )
    }

    #[test]
    fn float_types() {
        for (dtype, data) in [
            ("F32", 1.5f32.to_le_bytes().to_vec()),
            ("F16", f16::from_f32(1.5).to_le_bytes().to_vec()),
            ("BF16", bf16::from_f32(1.5).to_le_bytes().to_vec()),
        ] {
            let read = read(&one(dtype, "[1]", &data), "v", Digest::default()).unwrap();
            assert_eq!(read.vector.directions()[&1][..], [1.5], "{dtype}");
        }
    }

    #[test]
    fn bad_files() {
        let span = r#""dtype":"F32","shape":[1],"data_offsets""#;
        let huge = file(&" ".repeat(65_537), &[]);
        let many: Vec<String> =
            (0..257).map(|i| format!(r#""resid.{i}":{{{span}:[{},{}]}}"#, 4 * i, 4 * i + 4)).collect();
        for (bytes, part) in [
            (u64::MAX.to_le_bytes().to_vec(), "at most 65536"),
            (huge, "at most 65536"),
            (100u64.to_le_bytes().to_vec(), "in a file of 8"),
            (file("[]", &[]), "an object of tensors"),
            (file("{} x", &[]), "trailing characters"),
            (file(&"[".repeat(60_000), &[]), "header"),
            (file("{\"\u{0}\":1}", &[]), "control character"),
            (file(&format!("{{{}}}", many.join(",")), &[0; 257 * 4]), "more than 256 tensors"),
            (
                file(&format!(r#"{{"resid.1":{{{span}:[0,4]}},"resid.1":{{{span}:[0,4]}}}}"#), &[0; 4]),
                "occurs twice",
            ),
            (file(r#"{"__metadata__":{"a":"1","a":"2"}}"#, &[]), "`a` occurs twice"),
            (file(r#"{"__metadata__":{"a":1}}"#, &[]), "expected a string"),
            (file(&format!(r#"{{"resid.1":{{{span}:[4,8]}}}}"#), &[0; 8]), "begin at 0"),
            (
                file(&format!(r#"{{"resid.1":{{{span}:[0,4]}},"resid.2":{{{span}:[2,6]}}}}"#), &[0; 6]),
                "begin at 4",
            ),
            (file(&format!(r#"{{"resid.1":{{{span}:[4,0]}}}}"#), &[0; 4]), "begin at 0"),
            (file(&format!(r#"{{"resid.1":{{{span}:[0,4]}}}}"#), &[0; 5]), "the file has 5"),
            (file(&format!(r#"{{"resid.x":{{{span}:[0,4]}}}}"#), &[0; 4]), "no block"),
            (file(&format!(r#"{{"resid.4000":{{{span}:[0,4]}}}}"#), &[0; 4]), "no block"),
            (file(&format!(r#"{{"attn.1":{{{span}:[0,4]}}}}"#), &[0; 4]), "`attn` is not supported yet"),
            (file(&format!(r#"{{"head.1.2":{{{span}:[0,4]}}}}"#), &[0; 4]), "`head` is not supported yet"),
            (file(&format!(r#"{{"weight":{{{span}:[0,4]}}}}"#), &[0; 4]), "a vector has `resid.L`"),
            (one("I32", "[1]", &[0; 4]), "expected F32, F16 or BF16"),
            (one("F64", "[1]", &[0; 8]), "expected F32, F16 or BF16"),
            (one("F8_E8M0", "[4]", &[0; 4]), "expected F32, F16 or BF16"),
            (one("F32", "[1,1]", &[0; 4]), "expected one dimension"),
            (one("F32", "[]", &[0; 4]), "expected one dimension"),
            (one("F32", "[0]", &[]), "no direction"),
            (one("F32", "[2]", &[0; 4]), "do not take 4 bytes"),
            (one("F32", "[4611686018427387905]", &[0; 4]), "do not take 4 bytes"),
            (one("F32", "[1]", &[0; 4]), "zero norm"),
            (one("F32", "[1]", &f32::NAN.to_le_bytes()), "not finite"),
            (one("F16", "[1]", &f16::INFINITY.to_le_bytes()), "not finite"),
        ] {
            let error = read(&bytes, "v", Digest::default()).unwrap_err().to_string();
            assert!(error.contains(part), "expected {part}: {error}");
        }
    }

    /// Another implementation reads what we write.
    #[test]
    fn the_reference_implementation_agrees() {
        let directions = BTreeMap::from([(2, Arc::from([1.0f32, -2.5])), (11, Arc::from([3.0f32, 4.0]))]);
        let bytes = write(&Vector::new("v", directions, "p").unwrap());
        let parsed = ::safetensors::SafeTensors::deserialize(&bytes).unwrap();
        let tensor = parsed.tensor("resid.2").unwrap();
        assert_eq!((tensor.dtype(), tensor.shape()), (::safetensors::Dtype::F32, &[2][..]));
        assert_eq!(tensor.data(), [1.0f32.to_le_bytes(), (-2.5f32).to_le_bytes()].concat());
        assert_eq!(parsed.len(), 2);
    }
}
