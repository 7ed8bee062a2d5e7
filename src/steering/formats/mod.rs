//! Files that hold vectors: one file per format, and which of them some bytes are.

pub mod gguf;
pub mod json;
mod labels;
pub mod safetensors;

use super::dose::Hook;
use super::error::SteeringError;
use super::vector::Vector;
use crate::digest::Digest;
use serde::Serialize;

/// The formats that are read and written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// llama.cpp's and repeng's control vectors.
    Gguf,
    /// Ours; lossless, with provenance.
    Safetensors,
    /// `{"directions": {"12": [...]}}`.
    Json,
}

impl Format {
    pub const ALL: [Format; 3] = [Format::Gguf, Format::Safetensors, Format::Json];

    pub fn name(self) -> &'static str {
        match self {
            Format::Gguf => "gguf",
            Format::Safetensors => "safetensors",
            Format::Json => "json",
        }
    }

    pub fn parse(name: &str, param: &str) -> Result<Format, SteeringError> {
        Format::ALL.into_iter().find(|format| format.name() == name).ok_or_else(|| {
            SteeringError::range(param, "no format of vector files; allowed: gguf, safetensors, json")
        })
    }

    /// The format of `bytes` by their beginning. Pickles and archives are refused.
    pub fn detect(bytes: &[u8]) -> Result<Format, SteeringError> {
        let pickled = matches!(bytes, [0x80, 0..=5, ..]);
        if pickled || bytes.starts_with(b"PK") || bytes.starts_with(b"\x93NUMPY") {
            let rule = "pickles, archives and NumPy files are not read; \
                        `scripts/convert_pt_vector.py` turns a torch file into safetensors";
            return Err(SteeringError::BadFile { format: "unknown", rule: rule.to_owned(), offset: Some(0) });
        }
        if bytes.starts_with(b"GGUF") {
            return Ok(Format::Gguf);
        }
        // A safetensors file starts with a 64-bit length far below 2^32; JSON has no zero bytes.
        if bytes.get(4..8) == Some(&[0; 4]) {
            return Ok(Format::Safetensors);
        }
        if bytes.iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b'{') {
            return Ok(Format::Json);
        }
        let rule = "not a GGUF control vector, safetensors or JSON file".to_owned();
        Err(SteeringError::BadFile { format: "unknown", rule, offset: Some(0) })
    }
}

/// What was read, and what reading assumed.
#[derive(Clone, Debug, PartialEq)]
pub struct Imported {
    pub vector: Vector,
    pub assumed: Assumed,
}

/// How the numbers of a file are applied. A file does not say it, and one block off is invisible in the text.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Assumed {
    pub format: &'static str,
    /// `add`: the direction is added, times the coefficient.
    pub operation: &'static str,
    /// `resid`: at the residual stream after a block; `attn`: at what attention adds to it.
    pub hook: &'static str,
    /// Added to the file's block numbers; 0: `direction.N` goes to the output of 0-based block N.
    pub block_offset: i32,
    /// Further remarks (the model that the file says it is for).
    pub notes: Vec<String>,
}

impl Assumed {
    fn new(format: Format) -> Assumed {
        Assumed { format: format.name(), operation: "add", hook: "resid", block_offset: 0, notes: Vec::new() }
    }
}

/// Reads a vector file of any format; errors say which rule is broken and where.
pub fn read(bytes: Vec<u8>, name: &str) -> Result<Imported, SteeringError> {
    let format = Format::detect(&bytes)?;
    let sha256 = Digest::of(&bytes);
    match format {
        Format::Gguf => gguf::read(bytes, name, sha256),
        Format::Safetensors => safetensors::read(&bytes, name, sha256),
        Format::Json => json::read(&bytes, name, sha256),
    }
}

/// Writes a vector file. `model` names the model in formats that have a place for it.
pub fn write(vector: &Vector, format: Format, model: &str) -> Result<Vec<u8>, SteeringError> {
    if vector.hook != Hook::Resid && format != Format::Safetensors {
        let message = format!(
            "the vector's directions are for the hook point `{}`, for which {} has no place; export as safetensors",
            vector.hook.name(),
            format.name()
        );
        return Err(SteeringError::unfit("format", message));
    }
    match format {
        Format::Gguf => gguf::write(vector, model),
        Format::Safetensors => Ok(safetensors::write(vector)),
        Format::Json => Ok(json::write(vector)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::steering::vector::{Calibration, Origin, Provenance};
    use proptest::prelude::*;
    use std::sync::Arc;

    fn vector() -> Vector {
        let directions = [
            (3, vec![0.1f32, -2.0, 3.5e-7]),
            (4, vec![1.0, 0.0, -0.0]),
            (17, vec![f32::MIN_POSITIVE, 1e30, 7.0]),
        ];
        let directions = directions.into_iter().map(|(block, values)| (block, Arc::from(values)));
        let mut vector = Vector::new("warm", directions.collect(), "file").unwrap();
        vector.provenance = Provenance {
            weights: Some(Digest::of(b"weights")),
            origin: Origin::Contrast {
                name: "warm".into(),
                form: "reply-mean-difference".into(),
                contrast: Digest::of(b"pairs"),
            },
        };
        vector.calibration = Some(Calibration { scale: 1.25, rise_plus: 0.049, rise_minus: 0.0401 });
        vector
    }

    #[test]
    fn round_trips() {
        for format in Format::ALL {
            let bytes = write(&vector(), format, "llama").unwrap();
            assert_eq!(Format::detect(&bytes), Ok(format));
            let read = read(bytes, "warm").unwrap();
            assert_eq!(read.vector.directions(), vector().directions(), "{format:?}");
            assert_eq!(read.assumed.format, format.name());
            if format != Format::Json {
                assert_eq!(read.vector, vector(), "{format:?} keeps provenance and calibration");
            }
        }
    }

    #[test]
    fn directions_at_attention_are_written_as_safetensors_only() {
        let origin = Origin::Alignment {
            algorithm: "ridge".into(),
            inventory: Digest::of(b"items"),
            answers: Digest::of(b"answers"),
        };
        let mut vector = vector();
        vector.hook = Hook::Attn;
        vector.provenance.origin = origin;
        let bytes = write(&vector, Format::Safetensors, "llama").unwrap();
        let found = read(bytes, "warm").unwrap();
        assert_eq!((found.vector, found.assumed.hook), (vector.clone(), "attn"));
        for format in [Format::Gguf, Format::Json] {
            let error = write(&vector, format, "llama").unwrap_err().to_string();
            assert!(error.contains("hook point `attn`"), "{error}");
        }
    }

    #[test]
    fn foreign_types_are_refused_by_their_first_bytes() {
        for (bytes, part) in [
            (&b"\x80\x02}q\x00."[..], "convert_pt_vector.py"),
            (b"PK\x03\x04rest", "convert_pt_vector.py"),
            (b"\x93NUMPY\x01\x00", "convert_pt_vector.py"),
            (b"hello", "not a GGUF"),
            (b"", "not a GGUF"),
        ] {
            let error = read(bytes.to_vec(), "v").unwrap_err();
            assert!(matches!(error, SteeringError::BadFile { .. }), "{error:?}");
            assert!(error.to_string().contains(part), "{error}");
        }
    }

    #[test]
    fn every_truncation_of_content_is_an_error() {
        for format in Format::ALL {
            let whole = write(&vector(), format, "llama").unwrap();
            for length in 0..whole.len() {
                // GGUF files may end in padding.
                if let Ok(read) = read(whole[..length].to_vec(), "v") {
                    assert_eq!(read.vector.directions(), vector().directions(), "{format:?} cut at {length}");
                }
            }
        }
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = read(bytes, "v");
        }

        #[test]
        fn no_mutation_panics(which in 0usize..3, at in any::<prop::sample::Index>(), byte in any::<u8>()) {
            let mut bytes = write(&vector(), Format::ALL[which], "llama").unwrap();
            let at = at.index(bytes.len());
            bytes[at] = byte;
            if let Ok(read) = read(bytes, "v") {
                prop_assert!(read.vector.width() > 0);
            }
        }
    }
}
