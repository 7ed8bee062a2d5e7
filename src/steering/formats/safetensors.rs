//! Our own vector files: safetensors with tensors `resid.L` or `attn.L`, and provenance as metadata.

use super::{Assumed, Format, Imported, labels};
use crate::digest::Digest;
use crate::limits;
use crate::steering::dose::Hook;
use crate::steering::error::SteeringError;
use crate::steering::request::shortened;
use crate::steering::vector::Vector;
use crate::weights::safetensors::{self, Bounds, Safetensors, SafetensorsFault, StoredTensor};
use std::collections::BTreeMap;
use std::sync::Arc;

const BOUNDS: Bounds =
    Bounds { header_bytes: limits::VECTOR_HEADER_BYTES_MAX, tensors: limits::VECTOR_TENSORS_MAX };

pub fn read(bytes: &[u8], name: &str, sha256: Digest) -> Result<Imported, SteeringError> {
    let file = Safetensors::read(bytes, BOUNDS).map_err(refused)?;
    let mut directions = BTreeMap::new();
    let mut hooks = Vec::new();
    for (tensor, stored) in &file.tensors {
        let (hook, block) = place_of(tensor)?;
        hooks.push(hook);
        directions.insert(block, values(tensor, stored)?);
    }
    let hook = hooks.first().copied().unwrap_or_default();
    if hooks.iter().any(|other| *other != hook) {
        return Err(bad("tensors `attn.L` beside `resid.L`; a vector has one hook point", 8));
    }
    let mut vector = Vector::new(name, directions, "file")?;
    vector.hook = hook;
    let label = |key: &str| file.metadata.get(key).map(String::as_str);
    (vector.provenance, vector.calibration) = labels::read(label, Format::Safetensors.name(), sha256);
    Ok(Imported { vector, assumed: Assumed { hook: hook.name(), ..Assumed::new(Format::Safetensors) } })
}

/// Writes F32 tensors in ascending blocks; equal vectors give equal bytes.
pub fn write(vector: &Vector) -> Vec<u8> {
    let metadata = labels::write(vector).into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
    let tensors: Vec<(String, [usize; 1], &[f32])> = (vector.directions().iter())
        .map(|(block, values)| (format!("{}.{block}", vector.hook.name()), [values.len()], &values[..]))
        .collect();
    let tensors: Vec<(&str, &[usize], &[f32])> =
        tensors.iter().map(|(name, shape, values)| (&name[..], &shape[..], *values)).collect();
    safetensors::write(&metadata, &tensors)
}

/// Hook point and 0-based block of a tensor's name.
fn place_of(tensor: &str) -> Result<(Hook, u32), SteeringError> {
    let shown = shortened(tensor);
    let (hook, rest) = tensor.split_once('.').unwrap_or((tensor, ""));
    let hook = match hook {
        "resid" => Hook::Resid,
        "attn" => Hook::Attn,
        "head" => {
            return Err(SteeringError::unsupported(
                "file",
                format!("tensor `{shown}`: the hook point `{hook}`"),
            ));
        }
        _ => return Err(bad(&format!("tensor `{shown}`; a vector has `resid.L`, L the 0-based block"), 8)),
    };
    let block = rest.parse::<u32>().ok().filter(|&block| block < limits::BLOCKS_MAX);
    block
        .filter(|block| block.to_string() == rest)
        .map(|block| (hook, block))
        .ok_or_else(|| bad(&format!("tensor `{shown}`: no block from 0 to {}", limits::BLOCKS_MAX - 1), 8))
}

fn values(tensor: &str, stored: &StoredTensor<'_>) -> Result<Arc<[f32]>, SteeringError> {
    let shown = shortened(tensor);
    if !["F32", "F16", "BF16"].contains(&stored.dtype.as_str()) {
        let message = format!("`{shown}` is {}; expected F32, F16 or BF16", shortened(&stored.dtype));
        return Err(SteeringError::unfit("file", message));
    }
    let [_] = stored.shape[..] else {
        let message = format!("`{shown}` has shape {:?}; expected one dimension, [d_model]", stored.shape);
        return Err(SteeringError::unfit("file", message));
    };
    let values = stored.floats().map_err(|rule| bad(&format!("`{shown}` {rule}"), 8))?;
    Ok(values.into())
}

fn refused(fault: SafetensorsFault) -> SteeringError {
    bad(&fault.rule, fault.offset)
}

fn bad(rule: &str, offset: usize) -> SteeringError {
    SteeringError::BadFile { format: "safetensors", rule: rule.to_owned(), offset: Some(offset) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use half::{bf16, f16};

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
            (
                file(&format!(r#"{{"attn.1":{{{span}:[0,4]}},"resid.2":{{{span}:[4,8]}}}}"#), &[0x3f; 8]),
                "one hook point",
            ),
            (file(&format!(r#"{{"head.1.2":{{{span}:[0,4]}}}}"#), &[0; 4]), "`head` is not supported yet"),
            (file(&format!(r#"{{"weight":{{{span}:[0,4]}}}}"#), &[0; 4]), "a vector has `resid.L`"),
            (one("I32", "[1]", &[0; 4]), "expected F32, F16 or BF16"),
            (one("F64", "[1]", &[0; 8]), "expected F32, F16 or BF16"),
            (one("F8_E8M0", "[4]", &[0; 4]), "expected F32, F16 or BF16"),
            (one("F32", "[1,1]", &[0; 4]), "expected one dimension"),
            (one("F32", "[]", &[0; 4]), "expected one dimension"),
            (one("F32", "[0]", &[]), "no direction"),
            (one("F32", "[2]", &[0; 4]), "does not take 4 bytes"),
            (one("F32", "[4611686018427387905]", &[0; 4]), "does not take 4 bytes"),
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
