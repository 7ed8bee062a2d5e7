//! Small safetensors files from outside and our own: a header that is bounded and checked, tensors as bytes, a writer.
//!
//! Layout: 8 bytes little-endian length of the header, the header (JSON), the data. Nothing is read before the header is
//! checked: no entry twice, data without holes, nothing after its end. What the tensors mean is for the rooms above.

use half::{bf16, f16};
use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, Visitor};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// A rule of the format that a file breaks.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("safetensors file: {rule}, at byte {offset}")]
pub struct SafetensorsFault {
    pub rule: String,
    /// Offset in bytes of the part that is wrong: 0 the length, 8 the header.
    pub offset: usize,
}

/// What a file may at most hold.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Names the content in messages: `a vector`.
    pub what: &'static str,
    pub header_bytes_max: u64,
    pub tensors_max: usize,
}

/// A checked file; tensors are views into its bytes, in the header's order.
#[derive(Debug)]
pub struct Safetensors<'a> {
    pub metadata: BTreeMap<String, String>,
    pub tensors: Vec<StoredTensor<'a>>,
}

#[derive(Debug)]
pub struct StoredTensor<'a> {
    pub name: String,
    /// As the file says it: `F32`, `F16`, `BF16`, or a type that [`StoredTensor::floats`] does not read.
    pub dtype: String,
    /// Sizes per dimension, slowest first.
    pub shape: Vec<u64>,
    pub data: &'a [u8],
}

/// How written values are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoredType {
    F32,
    F16,
}

/// One tensor to write; `values` is row-major, as many as `shape` says.
#[derive(Clone, Copy, Debug)]
pub struct NewTensor<'a> {
    pub name: &'a str,
    pub shape: &'a [usize],
    pub values: &'a [f32],
    pub stored: StoredType,
}

impl<'a> Safetensors<'a> {
    pub fn read(bytes: &'a [u8], bounds: Bounds) -> Result<Safetensors<'a>, SafetensorsFault> {
        let (header, data) = split(bytes, bounds)?;
        check_layout(&header.tensors, data.len() as u64)?;
        let tensors = header.tensors.into_iter().map(|(name, entry)| {
            let (begin, end) = entry.data_offsets;
            let data = data.get(begin as usize..end as usize).unwrap_or_default();
            StoredTensor { name, dtype: entry.dtype, shape: entry.shape, data }
        });
        Ok(Safetensors { metadata: header.metadata, tensors: tensors.collect() })
    }

    pub fn tensor(&self, name: &str) -> Option<&StoredTensor<'a>> {
        self.tensors.iter().find(|tensor| tensor.name == name)
    }
}

impl StoredTensor<'_> {
    /// Whether [`StoredTensor::floats`] knows the type.
    pub fn is_float(&self) -> bool {
        ["F32", "F16", "BF16"].contains(&self.dtype.as_str())
    }

    /// The values as f32, not checked for being finite. The shape must say as many as there are.
    pub fn floats(&self) -> Result<Vec<f32>, SafetensorsFault> {
        let shown = shortened(&self.name);
        let width = match self.dtype.as_str() {
            "F32" => 4,
            "F16" | "BF16" => 2,
            other => {
                return Err(bad(&format!("`{shown}` is {}; expected F32, F16 or BF16", shortened(other)), 8));
            }
        };
        let count = self.shape.iter().try_fold(1u64, |product, size| product.checked_mul(*size));
        if count.and_then(|count| count.checked_mul(width)) != Some(self.data.len() as u64) {
            let given = count.map_or("too many".to_owned(), |count| count.to_string());
            let (dtype, bytes) = (&self.dtype, self.data.len());
            return Err(bad(&format!("`{shown}`: {given} values of {dtype} do not take {bytes} bytes"), 8));
        }
        let pairs = self.data.chunks_exact(2).map(|pair| [pair[0], pair[1]]);
        Ok(match self.dtype.as_str() {
            "F16" => pairs.map(|pair| f16::from_le_bytes(pair).to_f32()).collect(),
            "BF16" => pairs.map(|pair| bf16::from_le_bytes(pair).to_f32()).collect(),
            _ => {
                let words = self.data.chunks_exact(4);
                words.map(|word| f32::from_le_bytes([word[0], word[1], word[2], word[3]])).collect()
            }
        })
    }
}

/// Writes tensors in the order given; equal content gives equal bytes.
pub fn write(metadata: &BTreeMap<String, String>, tensors: &[NewTensor<'_>]) -> Vec<u8> {
    let mut header = serde_json::Map::new();
    let labels = metadata.iter().map(|(key, value)| (key.clone(), value.as_str().into()));
    header.insert("__metadata__".to_owned(), serde_json::Value::Object(labels.collect()));
    let mut data = Vec::new();
    for tensor in tensors {
        let begin = data.len();
        for value in tensor.values {
            match tensor.stored {
                StoredType::F32 => data.extend_from_slice(&value.to_le_bytes()),
                StoredType::F16 => data.extend_from_slice(&f16::from_f32(*value).to_le_bytes()),
            }
        }
        let dtype = match tensor.stored {
            StoredType::F32 => "F32",
            StoredType::F16 => "F16",
        };
        let entry = serde_json::json!({
            "dtype": dtype, "shape": tensor.shape, "data_offsets": [begin, data.len()]
        });
        header.insert(tensor.name.to_owned(), entry);
    }
    let mut text = serde_json::Value::Object(header).to_string();
    // Padded with spaces, so that the data is aligned to 8 bytes.
    text.extend(std::iter::repeat_n(' ', text.len().next_multiple_of(8) - text.len()));
    let mut bytes = (text.len() as u64).to_le_bytes().to_vec();
    bytes.extend_from_slice(text.as_bytes());
    bytes.extend_from_slice(&data);
    bytes
}

/// One entry of the header.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    dtype: String,
    shape: Vec<u64>,
    /// Begin and end in bytes, from the start of the data.
    data_offsets: (u64, u64),
}

/// The header: `__metadata__` and the tensors, each in the file's order.
struct Header {
    metadata: BTreeMap<String, String>,
    tensors: Vec<(String, Entry)>,
}

fn split(bytes: &[u8], bounds: Bounds) -> Result<(Header, &[u8]), SafetensorsFault> {
    let (length, rest) = bytes.split_first_chunk::<8>().ok_or_else(|| bad("shorter than 8 bytes", 0))?;
    let length = u64::from_le_bytes(*length);
    if length > bounds.header_bytes_max {
        let Bounds { what, header_bytes_max, .. } = bounds;
        return Err(bad(&format!("a header of {length} bytes; at most {header_bytes_max} for {what}"), 0));
    }
    let (text, data) = rest
        .split_at_checked(length as usize)
        .ok_or_else(|| bad(&format!("a header of {length} bytes in a file of {}", bytes.len()), 0))?;
    let mut deserializer = serde_json::Deserializer::from_slice(text);
    let header = HeaderVisitor(bounds)
        .deserialize(&mut deserializer)
        .and_then(|header| deserializer.end().map(|()| header))
        .map_err(|error| bad(&format!("header: {error}"), 8))?;
    Ok((header, data))
}

/// Tensors lie side by side from 0 to the end of the data, in any order of the header.
fn check_layout(tensors: &[(String, Entry)], available: u64) -> Result<(), SafetensorsFault> {
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

fn bad(rule: &str, offset: usize) -> SafetensorsFault {
    SafetensorsFault { rule: rule.to_owned(), offset }
}

/// A name from the file as a message may show it.
fn shortened(text: &str) -> String {
    let mut short: String = text.chars().take(80).flat_map(char::escape_debug).collect();
    if text.chars().nth(80).is_some() {
        short.push_str("...");
    }
    short
}

struct HeaderVisitor(Bounds);

impl<'de> DeserializeSeed<'de> for HeaderVisitor {
    type Value = Header;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Header, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for HeaderVisitor {
    type Value = Header;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of tensors by name")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Header, A::Error> {
        let Bounds { what, tensors_max, .. } = self.0;
        let mut header = Header { metadata: BTreeMap::new(), tensors: Vec::new() };
        let mut seen = BTreeSet::new();
        while let Some(key) = map.next_key::<String>()? {
            if !seen.insert(key.clone()) {
                return Err(A::Error::custom(format!("`{}` occurs twice", shortened(&key))));
            }
            if key == "__metadata__" {
                header.metadata = map.next_value::<Labels>()?.0;
            } else if header.tensors.len() == tensors_max {
                return Err(A::Error::custom(format!("more than {tensors_max} tensors in {what}")));
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

    const BOUNDS: Bounds = Bounds { what: "a test", header_bytes_max: 64 << 10, tensors_max: 2 };

    #[test]
    fn what_is_written_is_read_again() {
        let metadata = BTreeMap::from([("schema".to_owned(), "s/1".to_owned())]);
        let tensors = [
            NewTensor { name: "b", shape: &[2, 1], values: &[1.0, -2.5], stored: StoredType::F32 },
            NewTensor { name: "a", shape: &[1], values: &[0.5], stored: StoredType::F16 },
        ];
        let bytes = write(&metadata, &tensors);
        let read = Safetensors::read(&bytes, BOUNDS).unwrap();
        assert_eq!(read.metadata, metadata);
        assert_eq!(read.tensor("b").unwrap().shape, [2, 1]);
        assert_eq!(read.tensor("b").unwrap().floats().unwrap(), [1.0, -2.5]);
        assert_eq!(read.tensor("a").unwrap().floats().unwrap(), [0.5]);
        let other = ::safetensors::SafeTensors::deserialize(&bytes).unwrap();
        assert_eq!(other.tensor("a").unwrap().dtype(), ::safetensors::Dtype::F16);
    }

    #[test]
    fn bounds_are_the_callers() {
        let tensor = NewTensor { name: "", shape: &[1], values: &[1.0], stored: StoredType::F32 };
        let three = ["a", "b", "c"].map(|name| NewTensor { name, ..tensor });
        let bytes = write(&BTreeMap::new(), &three);
        for (bounds, part) in [
            (BOUNDS, "more than 2 tensors in a test"),
            (Bounds { header_bytes_max: 8, ..BOUNDS }, "at most 8 for a test"),
        ] {
            let error = Safetensors::read(&bytes, bounds).unwrap_err().to_string();
            assert!(error.contains(part), "{error}");
        }
        assert_eq!(Safetensors::read(&bytes, Bounds { tensors_max: 3, ..BOUNDS }).unwrap().tensors.len(), 3);
    }
}
