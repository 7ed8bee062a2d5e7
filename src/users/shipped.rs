//! The projectors that ship in the binary: `models/projectors/*.safetensors`.

use super::projector::Projector;
use crate::digest::Digest;
use crate::shipped::BINARIES;

/// The one for these weights.
pub fn shipped_projector(weights: Digest) -> Option<Projector> {
    let files = BINARIES.iter().filter(|(path, _)| path.starts_with("projectors/"));
    files
        .filter_map(|(_, bytes)| Projector::read(bytes).ok())
        .find(|projector| projector.weights() == weights)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shipped_projector_is_found_by_its_weights() {
        for (path, bytes) in BINARIES.iter().filter(|(path, _)| path.starts_with("projectors/")) {
            let projector = Projector::read(bytes).unwrap_or_else(|error| panic!("{path}: {error}"));
            assert_eq!(
                shipped_projector(projector.weights()).map(|found| found.digest()),
                Some(projector.digest())
            );
        }
        assert!(shipped_projector(Digest::of(b"other weights")).is_none());
    }
}
