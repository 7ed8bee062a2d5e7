//! Safetensors files: our own checked reader and a writer whose bytes depend on the content only.
//!
//! Layout: 8 bytes little-endian length of the header, the header (JSON), the data. The header is bounded before it is
//! parsed, and checked before anything is read from it: no entry twice, data without holes, nothing after its end.

use half::{bf16, f16};
use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, Visitor};
use std::collections::BTreeMap;
use std::fmt;

/// Characters of a foreign name in a message.
const NAME_CHARS_SHOWN: usize = 80;

/// What a reader accepts; both differ by several powers of ten between a soft prompt and a model.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    pub header_bytes: u64,
    pub tensors: usize,
}

/// A broken rule and where: offset in bytes from the start of the file.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{rule}, at byte {offset}")]
pub struct SafetensorsFault {
    pub rule: String,
    pub offset: usize,
}

/// A file whose header was checked against its length.
#[derive(Debug)]
pub struct Safetensors<'a> {
    pub metadata: BTreeMap<String, String>,
    /// By name.
    pub tensors: BTreeMap<String, StoredTensor<'a>>,
}

/// One tensor as it is stored; its bytes are not looked at.
#[derive(Clone, Debug)]
pub struct StoredTensor<'a> {
    pub dtype: String,
    /// Sizes per dimension, slowest first.
    pub shape: Vec<u64>,
    pub bytes: &'a [u8],
    /// Where `bytes` begin, from the start of the file.
    pub start: usize,
}

impl<'a> Safetensors<'a> {
    pub fn read(bytes: &'a [u8], bounds: Bounds) -> Result<Safetensors<'a>, SafetensorsFault> {
        let (length, rest) =
            bytes.split_first_chunk::<8>().ok_or_else(|| fault("shorter than 8 bytes", 0))?;
        let length = u64::from_le_bytes(*length);
        if length > bounds.header_bytes {
            let rule = format!("a header of {length} bytes; at most {} are allowed", bounds.header_bytes);
            return Err(fault(rule, 0));
        }
        let (text, data) = rest
            .split_at_checked(length as usize)
            .ok_or_else(|| fault(format!("a header of {length} bytes in a file of {}", bytes.len()), 0))?;
        let mut reader = serde_json::Deserializer::from_slice(text);
        let header = HeaderSeed { tensors_max: bounds.tensors }
            .deserialize(&mut reader)
            .and_then(|header| reader.end().map(|()| header))
            .map_err(|error| fault(format!("header: {error}"), 8))?;
        check_layout(&header.tensors, data.len() as u64)?;
        let bytes_before_data = bytes.len() - data.len();
        let mut tensors = BTreeMap::new();
        for (name, entry) in header.tensors {
            let (begin, end) = entry.data_offsets;
            let bytes = data.get(begin as usize..end as usize).unwrap_or_default();
            let start = bytes_before_data + begin as usize;
            tensors.insert(name, StoredTensor { dtype: entry.dtype, shape: entry.shape, bytes, start });
        }
        Ok(Safetensors { metadata: header.metadata, tensors })
    }
}

impl StoredTensor<'_> {
    /// The values in the order of the file; F32, F16 and BF16 are read. The inner text says what does not fit.
    pub fn floats(&self) -> Result<Vec<f32>, String> {
        let width = match self.dtype.as_str() {
            "F32" => 4,
            "F16" | "BF16" => 2,
            other => return Err(format!("is {}; expected F32, F16 or BF16", shortened(other))),
        };
        let count = self.shape.iter().try_fold(1u64, |product, size| product.checked_mul(*size));
        if count.and_then(|count| count.checked_mul(width)) != Some(self.bytes.len() as u64) {
            let (shape, bytes) = (&self.shape, self.bytes.len());
            return Err(format!("has shape {shape:?} of {}, which does not take {bytes} bytes", self.dtype));
        }
        let pairs = self.bytes.chunks_exact(2).map(|pair| [pair[0], pair[1]]);
        let words = self.bytes.chunks_exact(4).map(|word| [word[0], word[1], word[2], word[3]]);
        Ok(match self.dtype.as_str() {
            "F16" => pairs.map(|pair| f16::from_le_bytes(pair).to_f32()).collect(),
            "BF16" => pairs.map(|pair| bf16::from_le_bytes(pair).to_f32()).collect(),
            _ => words.map(f32::from_le_bytes).collect(),
        })
    }
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

/// Writes F32 tensors in the order given; equal content gives equal bytes.
pub fn write(metadata: &BTreeMap<String, String>, tensors: &[(&str, &[usize], &[f32])]) -> Vec<u8> {
    let tensors: Vec<NewTensor<'_>> = (tensors.iter())
        .map(|&(name, shape, values)| NewTensor { name, shape, values, stored: StoredType::F32 })
        .collect();
    write_tensors(metadata, &tensors)
}

/// The same where each tensor says how it is stored.
pub fn write_tensors(metadata: &BTreeMap<String, String>, tensors: &[NewTensor<'_>]) -> Vec<u8> {
    let mut header = serde_json::Map::new();
    if !metadata.is_empty() {
        let labels = metadata.iter().map(|(key, value)| (key.clone(), value.clone().into()));
        header.insert("__metadata__".to_owned(), serde_json::Value::Object(labels.collect()));
    }
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
        let offsets = [begin, data.len()];
        let entry = serde_json::json!({"dtype": dtype, "shape": tensor.shape, "data_offsets": offsets});
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

struct Header {
    metadata: BTreeMap<String, String>,
    tensors: BTreeMap<String, Entry>,
}

/// Tensors lie side by side from 0 to the end of the data, in any order of the header.
fn check_layout(tensors: &BTreeMap<String, Entry>, available: u64) -> Result<(), SafetensorsFault> {
    let mut spans: Vec<(u64, u64, &str)> = tensors
        .iter()
        .map(|(name, entry)| (entry.data_offsets.0, entry.data_offsets.1, name.as_str()))
        .collect();
    spans.sort_unstable();
    let mut end = 0;
    for (begin, stop, name) in spans {
        if begin != end || stop < begin {
            let name = shortened(name);
            return Err(fault(format!("tensor `{name}` at {begin}..{stop}; expected to begin at {end}"), 8));
        }
        end = stop;
    }
    match end == available {
        true => Ok(()),
        false => Err(fault(format!("the tensors take {end} bytes, the file has {available}"), 8)),
    }
}

struct HeaderSeed {
    tensors_max: usize,
}

impl<'de> DeserializeSeed<'de> for HeaderSeed {
    type Value = Header;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Header, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for HeaderSeed {
    type Value = Header;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of tensors by name")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Header, A::Error> {
        let (mut metadata, mut tensors) = (None, BTreeMap::new());
        while let Some(key) = map.next_key::<String>()? {
            let twice = match key.as_str() {
                "__metadata__" => metadata.replace(map.next_value::<Labels>()?.0).is_some(),
                _ if tensors.len() == self.tensors_max => {
                    return Err(A::Error::custom(format!("more than {} tensors", self.tensors_max)));
                }
                _ => tensors.insert(key.clone(), map.next_value()?).is_some(),
            };
            if twice {
                return Err(A::Error::custom(format!("`{}` occurs twice", shortened(&key))));
            }
        }
        Ok(Header { metadata: metadata.unwrap_or_default(), tensors })
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

fn fault(rule: impl Into<String>, offset: usize) -> SafetensorsFault {
    SafetensorsFault { rule: rule.into(), offset }
}

/// A name from outside, escaped and cut for a message.
fn shortened(name: &str) -> String {
    let shown: String = name.chars().take(NAME_CHARS_SHOWN).flat_map(char::escape_debug).collect();
    if name.chars().count() > NAME_CHARS_SHOWN { shown + "..." } else { shown }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const BOUNDS: Bounds = Bounds { header_bytes: 64 << 10, tensors: 4 };

    fn file(header: &str, data: &[u8]) -> Vec<u8> {
        let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
        bytes.extend_from_slice(header.as_bytes());
        bytes.extend_from_slice(data);
        bytes
    }

    fn sample() -> Vec<u8> {
        let metadata = BTreeMap::from([("a".to_owned(), "1".to_owned())]);
        write(&metadata, &[("x", &[2, 2], &[1.0, -2.5, 0.0, 4.0]), ("y", &[1], &[7.0])])
    }

    #[test]
    fn what_is_written_is_read_again() {
        let bytes = sample();
        let read = Safetensors::read(&bytes, BOUNDS).unwrap();
        assert_eq!(read.metadata["a"], "1");
        assert_eq!(read.tensors["x"].shape, [2, 2]);
        assert_eq!(read.tensors["x"].floats().unwrap(), [1.0, -2.5, 0.0, 4.0]);
        assert_eq!(read.tensors["y"].floats().unwrap(), [7.0]);
        // Another implementation agrees.
        let other = ::safetensors::SafeTensors::deserialize(&bytes).unwrap();
        assert_eq!(other.tensor("x").unwrap().shape(), [2, 2]);
    }

    #[test]
    fn half_floats_are_written() {
        let tensor = NewTensor { name: "x", shape: &[2], values: &[1.5, -0.25], stored: StoredType::F16 };
        let bytes = write_tensors(&BTreeMap::new(), &[tensor]);
        assert_eq!(Safetensors::read(&bytes, BOUNDS).unwrap().tensors["x"].floats().unwrap(), [1.5, -0.25]);
        let other = ::safetensors::SafeTensors::deserialize(&bytes).unwrap();
        assert_eq!(other.tensor("x").unwrap().dtype(), ::safetensors::Dtype::F16);
    }

    #[test]
    fn half_types_are_widened() {
        for (dtype, data) in
            [("F16", f16::from_f32(1.5).to_le_bytes()), ("BF16", bf16::from_f32(1.5).to_le_bytes())]
        {
            let header = format!(r#"{{"x":{{"dtype":"{dtype}","shape":[1,1],"data_offsets":[0,2]}}}}"#);
            let bytes = file(&header, &data);
            assert_eq!(Safetensors::read(&bytes, BOUNDS).unwrap().tensors["x"].floats().unwrap(), [1.5]);
        }
    }

    #[test]
    fn broken_files_are_named_by_their_fault() {
        let span = r#""dtype":"F32","shape":[1],"data_offsets""#;
        let many: Vec<String> =
            (0..5).map(|i| format!(r#""t{i}":{{{span}:[{},{}]}}"#, 4 * i, 4 * i + 4)).collect();
        for (bytes, part) in [
            (vec![1, 2, 3], "shorter than 8"),
            (u64::MAX.to_le_bytes().to_vec(), "at most 65536"),
            (100u64.to_le_bytes().to_vec(), "in a file of 8"),
            (file("[]", &[]), "an object of tensors"),
            (file("{} x", &[]), "trailing characters"),
            (file(&"[".repeat(60_000), &[]), "header"),
            (file(&format!("{{{}}}", many.join(",")), &[0; 20]), "more than 4 tensors"),
            (file(&format!(r#"{{"x":{{{span}:[0,4]}},"x":{{{span}:[0,4]}}}}"#), &[0; 4]), "`x` occurs twice"),
            (file(r#"{"__metadata__":{"a":"1","a":"2"}}"#, &[]), "`a` occurs twice"),
            (file(r#"{"__metadata__":{},"__metadata__":{}}"#, &[]), "occurs twice"),
            (file(r#"{"__metadata__":{"a":1}}"#, &[]), "expected a string"),
            (file(&format!(r#"{{"x":{{{span}:[4,8]}}}}"#), &[0; 8]), "begin at 0"),
            (file(&format!(r#"{{"x":{{{span}:[0,4]}},"y":{{{span}:[2,6]}}}}"#), &[0; 6]), "begin at 4"),
            (file(&format!(r#"{{"x":{{{span}:[4,0]}}}}"#), &[0; 4]), "begin at 0"),
            (file(&format!(r#"{{"x":{{{span}:[0,4]}}}}"#), &[0; 5]), "the file has 5"),
        ] {
            let fault = Safetensors::read(&bytes, BOUNDS).unwrap_err().to_string();
            assert!(fault.contains(part), "expected {part}: {fault}");
        }
        for (dtype, shape, part) in [
            ("I64", "[1]", "expected F32, F16 or BF16"),
            ("F32", "[2]", "does not take 8 bytes"),
            ("F32", "[4611686018427387905,4]", "does not take 8 bytes"),
        ] {
            let header = format!(r#"{{"x":{{"dtype":"{dtype}","shape":{shape},"data_offsets":[0,8]}}}}"#);
            let bytes = file(&header, &[0; 8]);
            let found = Safetensors::read(&bytes, BOUNDS).unwrap().tensors["x"].floats();
            match shape {
                "[2]" => assert_eq!(found.unwrap(), [0.0, 0.0]),
                _ => assert!(found.unwrap_err().contains(part), "{dtype} {shape}"),
            }
        }
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Safetensors::read(&bytes, BOUNDS);
        }

        #[test]
        fn no_mutation_panics(at in any::<prop::sample::Index>(), byte in any::<u8>()) {
            let mut bytes = sample();
            let at = at.index(bytes.len());
            bytes[at] = byte;
            if let Ok(read) = Safetensors::read(&bytes, BOUNDS) {
                read.tensors.values().for_each(|tensor| drop(tensor.floats()));
            }
        }
    }
}
