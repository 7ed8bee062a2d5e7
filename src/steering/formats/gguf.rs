//! Control vectors of llama.cpp and repeng: GGUF files with one tensor `direction.N` per block.
//!
//! `direction.N` (F32, `[d_model]`) is added to the output of 0-based block N. llama.cpp has no `direction.0`.

use super::{Assumed, Format, Imported, labels};
use crate::digest::Digest;
use crate::format::ElementFormat;
use crate::limits;
use crate::steering::error::SteeringError;
use crate::steering::vector::Vector;
use crate::weights::{GgufWriter, ModelFile, TensorView, WeightsError};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

const ARCHITECTURE: &str = "controlvector";

pub fn read(bytes: Vec<u8>, name: &str, sha256: Digest) -> Result<Imported, SteeringError> {
    let file = ModelFile::from_bytes(Path::new(name), bytes).map_err(fault)?;
    let metadata = file.metadata();
    let architecture = metadata.string("general.architecture").map_err(fault)?.unwrap_or("missing");
    if architecture != ARCHITECTURE {
        let architecture = crate::steering::request::shortened(architecture);
        return Err(bad(format!(
            "`general.architecture` is `{architecture}`; a vector has `{ARCHITECTURE}`"
        )));
    }
    let mut directions = BTreeMap::new();
    for tensor in file.tensors() {
        let block = block_of(tensor.name)?;
        directions.insert(block, values(&tensor)?);
    }
    let mut assumed = Assumed::new(Format::Gguf);
    if let Some(hint) = metadata.string("controlvector.model_hint").map_err(fault)? {
        let hint = crate::steering::request::shortened(hint);
        assumed.notes.push(format!("the file says it is for the architecture `{hint}`"));
    }
    let mut vector = Vector::new(name, directions, "file")?;
    let label = |key: &str| metadata.string(key).ok().flatten();
    (vector.provenance, vector.calibration) = labels::read(label, Format::Gguf.name(), sha256);
    Ok(Imported { vector, assumed })
}

/// Writes the directions as they are. `model` goes into `controlvector.model_hint`.
pub fn write(vector: &Vector, model: &str) -> Result<Vec<u8>, SteeringError> {
    if vector.directions().contains_key(&0) {
        let message = "the vector has a direction for block 0, which GGUF control vectors cannot hold \
                       (llama.cpp counts them from 1); export as safetensors or JSON";
        return Err(SteeringError::unfit("format", message));
    }
    let mut writer = GgufWriter::new();
    writer.string("general.architecture", ARCHITECTURE);
    writer.string("controlvector.model_hint", model);
    writer.u32("controlvector.layer_count", vector.directions().len() as u32);
    for (key, value) in labels::write(vector) {
        writer.string(key, &value);
    }
    for (block, values) in vector.directions() {
        writer.tensor_f32(&format!("direction.{block}"), &[values.len()], values);
    }
    writer.to_bytes().map_err(|error| SteeringError::Internal(error.to_string()))
}

fn block_of(tensor: &str) -> Result<u32, SteeringError> {
    let block = tensor.strip_prefix("direction.").and_then(|number| number.parse::<u32>().ok());
    match block {
        Some(0) => {
            Err(bad("`direction.0`: control vectors count blocks from 1 (llama.cpp rejects 0)".to_owned()))
        }
        Some(block) if block < limits::BLOCKS_MAX && tensor == format!("direction.{block}") => Ok(block),
        _ => Err(bad(format!(
            "tensor `{}`; a control vector has `direction.1` to `direction.{}`",
            crate::steering::request::shortened(tensor),
            limits::BLOCKS_MAX - 1
        ))),
    }
}

fn values(tensor: &TensorView<'_>) -> Result<Arc<[f32]>, SteeringError> {
    if tensor.shape.len() != 1 {
        let message =
            format!("`{}` has shape {:?}; expected one dimension, [d_model]", tensor.name, tensor.shape);
        return Err(SteeringError::unfit("file", message));
    }
    if tensor.format != ElementFormat::F32 {
        return Err(SteeringError::unfit(
            "file",
            format!("`{}` is {}; expected F32", tensor.name, tensor.format),
        ));
    }
    let words = tensor.data.chunks_exact(4);
    Ok(words.map(|word| f32::from_le_bytes([word[0], word[1], word[2], word[3]])).collect())
}

fn bad(rule: String) -> SteeringError {
    SteeringError::BadFile { format: "GGUF", rule, offset: None }
}

fn fault(error: WeightsError) -> SteeringError {
    match error {
        WeightsError::File { fault, offset, .. } => SteeringError::BadFile {
            format: "GGUF",
            rule: fault.to_string(),
            offset: usize::try_from(offset).ok(),
        },
        other => bad(other.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(architecture: &str, tensors: &[(&str, &[usize])]) -> Vec<u8> {
        let mut writer = GgufWriter::new();
        writer.string("general.architecture", architecture);
        for (name, shape) in tensors {
            writer.tensor_f32(name, shape, &vec![1.0; shape.iter().product()]);
        }
        writer.to_bytes().unwrap()
    }

    #[test]
    fn a_foreign_file_says_what_was_assumed() {
        let mut writer = GgufWriter::new();
        writer.string("general.architecture", "controlvector");
        writer.string("controlvector.model_hint", "llama");
        writer.u32("controlvector.layer_count", 1);
        writer.tensor_f32("direction.5", &[3], &[1.0, 2.0, 3.0]);
        let read = read(writer.to_bytes().unwrap(), "v", Digest::default()).unwrap();
        assert_eq!(read.vector.directions()[&5][..], [1.0, 2.0, 3.0]);
        let Assumed { operation, hook, block_offset, notes, .. } = read.assumed;
        assert_eq!((operation, hook, block_offset), ("add", "resid", 0));
        assert_eq!(notes, ["the file says it is for the architecture `llama`"]);
    }

    #[test]
    fn bad_files() {
        for (bytes, part) in [
            (file("llama", &[("direction.1", &[4])]), "`general.architecture` is `llama`"),
            (file("controlvector", &[]), "no direction"),
            (file("controlvector", &[("direction.0", &[4])]), "count blocks from 1"),
            (file("controlvector", &[("direction.x", &[4])]), "tensor `direction.x`"),
            (file("controlvector", &[("direction.01", &[4])]), "tensor `direction.01`"),
            (file("controlvector", &[("direction.4000", &[4])]), "direction.1023"),
            (file("controlvector", &[("direction.1", &[4, 1])]), "shape [4, 1]"),
            (file("controlvector", &[("direction.1", &[4]), ("direction.2", &[3])]), "block 2 has 3 values"),
        ] {
            let error = read(bytes, "v", Digest::default()).unwrap_err().to_string();
            assert!(error.contains(part), "{error}");
        }
    }

    #[test]
    fn block_0_is_not_exported() {
        let vector = Vector::new("v", BTreeMap::from([(0, Arc::from([1.0f32]))]), "p").unwrap();
        assert!(write(&vector, "llama").unwrap_err().to_string().contains("block 0"));
    }
}
