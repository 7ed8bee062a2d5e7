//! What a file says about its vector besides numbers: provenance and calibration as text labels.

use crate::digest::Digest;
use crate::steering::request::shortened;
use crate::steering::vector::{Calibration, Origin, Provenance, Vector};
use std::collections::BTreeMap;

/// Labels of a vector, sorted by key. Unknown origins leave theirs out.
pub fn write(vector: &Vector) -> BTreeMap<&'static str, String> {
    let mut labels = BTreeMap::new();
    labels.insert("demeanor.name", vector.name().to_owned());
    if let Some(weights) = vector.provenance.weights {
        labels.insert("demeanor.weights", weights.to_string());
    }
    match &vector.provenance.origin {
        Origin::Unknown => {}
        Origin::Contrast { name, form, contrast } => {
            labels.insert("demeanor.trait", name.clone());
            labels.insert("demeanor.form", form.clone());
            labels.insert("demeanor.contrast", contrast.to_string());
        }
        Origin::Alignment { algorithm, inventory, answers } => {
            labels.insert("demeanor.algorithm", algorithm.clone());
            labels.insert("demeanor.inventory", inventory.to_string());
            labels.insert("demeanor.answers", answers.to_string());
        }
        Origin::File { format, sha256 } => {
            labels.insert("demeanor.file_format", format.clone());
            labels.insert("demeanor.file_sha256", sha256.to_string());
        }
    }
    if let Some(calibration) = &vector.calibration {
        let Calibration { scale, rise_plus, rise_minus } = calibration;
        labels.insert("demeanor.calibration", format!("{scale} {rise_plus} {rise_minus}"));
    }
    labels
}

/// Reads labels by key. A file without them, or with ones that make no sense, is a file from elsewhere: its origin is the
/// file itself and it counts as not calibrated.
pub fn read<'a>(
    label: impl Fn(&str) -> Option<&'a str>,
    format: &str,
    sha256: Digest,
) -> (Provenance, Option<Calibration>) {
    let weights = label("demeanor.weights").and_then(Digest::parse);
    let digest = |key| label(key).and_then(Digest::parse);
    let contrast = (label("demeanor.trait"), label("demeanor.form"), digest("demeanor.contrast"));
    let alignment = (label("demeanor.algorithm"), digest("demeanor.inventory"), digest("demeanor.answers"));
    let origin = match (contrast, alignment) {
        ((Some(name), Some(form), Some(contrast)), _) => {
            Origin::Contrast { name: shortened(name), form: shortened(form), contrast }
        }
        (_, (Some(algorithm), Some(inventory), Some(answers))) => {
            Origin::Alignment { algorithm: shortened(algorithm), inventory, answers }
        }
        _ => {
            let original = label("demeanor.file_sha256").and_then(Digest::parse);
            match (label("demeanor.file_format"), original) {
                (Some(format), Some(sha256)) => Origin::File { format: shortened(format), sha256 },
                _ => Origin::File { format: format.to_owned(), sha256 },
            }
        }
    };
    // A calibration holds for the weights it was measured on.
    let calibration = weights.and(label("demeanor.calibration")).and_then(calibration);
    (Provenance { weights, origin }, calibration)
}

fn calibration(text: &str) -> Option<Calibration> {
    let mut numbers = text.split(' ').map(|part| part.parse::<f32>().ok().filter(|value| value.is_finite()));
    let (scale, rise_plus, rise_minus) = (numbers.next()??, numbers.next()??, numbers.next()??);
    (scale > 0.0 && numbers.next().is_none()).then_some(Calibration { scale, rise_plus, rise_minus })
}
