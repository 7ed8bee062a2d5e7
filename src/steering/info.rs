//! What is told about a stored vector: by `/v1/vectors` and `demeanor vectors`.

use super::vector::{Calibration, Origin, Vector};
use serde::Serialize;

/// A vector without its numbers.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct VectorInfo {
    pub name: String,
    /// sha256 over the directions.
    pub digest: String,
    /// Values per direction.
    pub width: usize,
    /// Blocks that it has a direction for, ascending.
    pub blocks: Vec<u32>,
    pub hook: &'static str,
    pub origin: OriginInfo,
    /// Weights that it was made on, 16 hex digits; null: unknown.
    pub weights: Option<String>,
    pub calibration: Option<Calibration>,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum OriginInfo {
    Unknown,
    Contrast { name: String, form: String, contrast: String },
    Alignment { algorithm: String, inventory: String, answers: String },
    File { format: String, sha256: String },
}

impl VectorInfo {
    pub fn of(vector: &Vector) -> VectorInfo {
        VectorInfo {
            name: vector.name().to_owned(),
            digest: vector.digest().to_string(),
            width: vector.width(),
            blocks: vector.blocks().collect(),
            hook: vector.hook.name(),
            origin: match &vector.provenance.origin {
                Origin::Unknown => OriginInfo::Unknown,
                Origin::Contrast { name, form, contrast } => OriginInfo::Contrast {
                    name: name.clone(),
                    form: form.clone(),
                    contrast: contrast.to_string(),
                },
                Origin::Alignment { algorithm, inventory, answers } => OriginInfo::Alignment {
                    algorithm: algorithm.clone(),
                    inventory: inventory.to_string(),
                    answers: answers.to_string(),
                },
                Origin::File { format, sha256 } => {
                    OriginInfo::File { format: format.clone(), sha256: sha256.to_string() }
                }
            },
            weights: vector.provenance.weights.map(|weights| weights.short(16)),
            calibration: vector.calibration,
        }
    }
}
