//! Files of tensors: models, vectors, soft prompts, projectors.

use crate::model::ModelConfig;
use crate::steering;
use crate::users;
use crate::verify;
use crate::weights::safetensors::{self, Bounds};
use crate::weights::{Container, GgufWriter, ModelFile, Safetensors};
use std::path::Path;

fn open(bytes: &[u8]) -> Option<ModelFile> {
    ModelFile::from_bytes(Path::new("fuzzed.gguf"), bytes.to_vec()).ok()
}

/// A GGUF file: each tensor has the bytes that its shape asks for, and a copy of the file reads as it does.
pub fn gguf(bytes: &[u8]) -> bool {
    let Some(file) = open(bytes) else { return false };
    let _ = file.scan_finite();
    let metadata = file.metadata();
    for (key, value) in metadata.entries() {
        let _ = value.to_string();
        let _ = (metadata.string(key), metadata.u32(key), metadata.f32(key), metadata.bool(key));
        let _ = (metadata.string_array(key), metadata.u32_array(key), metadata.i32_array(key));
        let _ = (metadata.f32_array(key), metadata.bool_array(key));
    }
    for tensor in file.tensors() {
        let (row, rows) = tensor.shape.split_last().expect("no tensor without dimensions");
        let row_bytes = tensor.format.row_bytes(*row).expect("rows are whole blocks");
        assert_eq!(tensor.data.len(), row_bytes * rows.iter().product::<usize>(), "{}", tensor.name);
    }
    let copy = GgufWriter::copy_of(&file).to_bytes().expect("what was read can be written");
    let copy = open(&copy).expect("what was written can be read");
    assert_eq!(copy.tensors().count(), file.tensors().count());
    for tensor in file.tensors() {
        let same = copy.tensor(tensor.name).expect("every tensor is in the copy");
        assert_eq!((same.shape, same.format, same.data), (tensor.shape, tensor.format, tensor.data));
    }
    for (key, value) in metadata.entries().filter(|(key, _)| *key != "general.alignment") {
        let same = copy.metadata().get(key).expect("every key is in the copy");
        assert_eq!(same.to_string(), value.to_string(), "{key}");
    }
    true
}

/// A model: settings, tensors, tokenizer and template, up to a rendered chat.
pub fn gguf_model(bytes: &[u8]) -> bool {
    let Some(file) = open(bytes) else { return false };
    let container = Container::from(file);
    let report = verify::examine_container(&container);
    if let Ok(config) = crate::model::Model::read_config(&container) {
        check_config(&config);
    }
    report.is_good()
}

/// What the decoder relies on.
pub(super) fn check_config(config: &ModelConfig) {
    assert_eq!(config.blocks.len(), config.n_blocks);
    assert!(config.n_kv_heads > 0 && config.n_heads.is_multiple_of(config.n_kv_heads), "{config:?}");
    assert!(config.d_rotary > 0 && config.d_rotary <= config.d_head && config.d_rotary.is_multiple_of(2));
    assert!(config.blocks.iter().all(|block| block.rotary < config.rotaries.len()));
    assert!(config.blocks.iter().all(|block| block.window != Some(0)));
    let scalars = [config.norm_epsilon, config.attention_scale, config.embedding_scale];
    assert!(scalars.iter().all(|value| value.is_finite() && *value >= 0.0), "{config:?}");
    for rotary in &config.rotaries {
        let long = rotary.long.iter().map(|long| &long.divisors);
        for divisors in rotary.divisors.iter().chain(long) {
            assert_eq!(divisors.len(), config.d_rotary / 2);
            assert!(divisors.iter().all(|divisor| divisor.is_finite() && *divisor != 0.0), "{config:?}");
        }
        assert!(rotary.base.is_finite() && rotary.magnitude.is_finite() && rotary.linear_factor > 0.0);
    }
}

/// A safetensors file: what it says reads back from what the writer makes of it.
pub fn safetensors(bytes: &[u8]) -> bool {
    let bounds = Bounds { header_bytes: 64 << 10, tensors: 256 };
    let Ok(file) = Safetensors::read(bytes, bounds) else { return false };
    let held: usize = file.tensors.values().map(|tensor| tensor.bytes.len()).sum();
    assert!(held <= bytes.len());
    let mut read = Vec::new();
    for (name, tensor) in &file.tensors {
        assert_eq!(&bytes[tensor.start..][..tensor.bytes.len()], tensor.bytes, "{name}");
        let Ok(values) = tensor.floats() else { return true };
        let shape: Vec<usize> = tensor.shape.iter().map(|size| *size as usize).collect();
        read.push((name.as_str(), shape, values));
    }
    let views: Vec<_> = read.iter().map(|(name, shape, values)| (*name, &shape[..], &values[..])).collect();
    let written = safetensors::write(&file.metadata, &views);
    let bounds = Bounds { header_bytes: 1 << 20, tensors: 256 };
    let again = Safetensors::read(&written, bounds).expect("what was written can be read");
    assert_eq!(again.metadata, file.metadata);
    for (name, _, values) in &read {
        let same = again.tensors[*name].floats().expect("floats were written");
        assert!(same.iter().map(|value| value.to_bits()).eq(values.iter().map(|value| value.to_bits())));
    }
    true
}

/// A vector in any format: finite, not zero, and the same after it was exported in the same format.
pub fn vector(bytes: &[u8]) -> bool {
    let Ok(imported) = steering::formats::read(bytes.to_vec(), "fuzzed") else { return false };
    let vector = imported.vector;
    let directions = vector.directions();
    assert!(!directions.is_empty() && directions.values().all(|values| values.len() == vector.width()));
    assert!(directions.values().all(|values| values.iter().all(|value| value.is_finite())));
    let format = steering::formats::Format::detect(bytes).expect("it was read");
    let Ok(written) = steering::formats::write(&vector, format, "model") else { return true };
    let again = steering::formats::read(written, "fuzzed").expect("what was written can be read");
    assert_eq!(again.vector.directions(), directions);
    true
}

/// A soft prompt, with a zero byte and an adapter's configuration behind it where one is given; or a projector.
pub fn soft_prompt(bytes: &[u8]) -> bool {
    if let Ok(projector) = users::Projector::read(bytes) {
        assert_eq!(projector.constant().values.len(), projector.k() * projector.d_model());
        let again = users::Projector::read(&projector.write()).expect("what was written can be read");
        assert_eq!(again.digest(), projector.digest());
        return true;
    }
    let config = bytes.iter().rposition(|byte| *byte == 0).map(|at| &bytes[at + 1..]);
    let config = config.filter(|config| config.first() == Some(&b'{'));
    let file = &bytes[..bytes.len() - config.map_or(0, |config| config.len() + 1)];
    let Ok(imported) = users::formats::read(file, config) else { return false };
    let table = imported.table;
    assert_eq!(table.values().len(), table.rows() * table.d_model());
    assert!(table.values().iter().all(|value| value.is_finite()));
    let written = users::formats::write_safetensors(&table);
    assert_eq!(users::formats::read(&written, None).expect("what was written can be read").table, table);
    true
}
