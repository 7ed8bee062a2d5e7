//! Sha256 digests as a type: what names content, keys caches and makes fingerprints.

use sha2::{Digest as _, Sha256};
use std::fmt;

/// A sha256 of some content. Ordered, so that lists sorted by digest have one order everywhere.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Digest(pub [u8; 32]);

impl Digest {
    /// Digest of one byte string.
    pub fn of(bytes: &[u8]) -> Digest {
        Digest(Sha256::digest(bytes).into())
    }

    /// The first `n` hex digits (at most 64).
    pub fn short(&self, n: usize) -> String {
        let mut text = self.to_string();
        text.truncate(n);
        text
    }

    /// Parses 64 hex digits.
    pub fn parse(text: &str) -> Option<Digest> {
        if text.len() != 64 || !text.is_ascii() {
            return None;
        }
        let mut bytes = [0; 32];
        for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
            *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
        }
        Some(Digest(bytes))
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.short(12))
    }
}

/// Digest over several parts. Each part is written with its length, so that no two different lists of parts agree.
#[derive(Clone, Default)]
pub struct Digester(Sha256);

impl Digester {
    /// A digester for one purpose; different purposes never give equal digests.
    pub fn new(purpose: &str) -> Digester {
        let mut digester = Digester::default();
        digester.part(purpose.as_bytes());
        digester
    }

    pub fn part(&mut self, bytes: &[u8]) -> &mut Digester {
        self.0.update((bytes.len() as u64).to_le_bytes());
        self.0.update(bytes);
        self
    }

    pub fn floats(&mut self, values: &[f32]) -> &mut Digester {
        self.0.update((values.len() as u64 * 4).to_le_bytes());
        values.iter().for_each(|value| self.0.update(value.to_bits().to_le_bytes()));
        self
    }

    pub fn finish(self) -> Digest {
        Digest(self.0.finalize().into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_framed() {
        let mut a = Digester::new("t");
        a.part(b"ab").part(b"c");
        let mut b = Digester::new("t");
        b.part(b"a").part(b"bc");
        assert_ne!(a.finish(), b.finish());
    }

    #[test]
    fn text_round_trip() {
        let digest = Digest::of(b"x");
        assert_eq!(Digest::parse(&digest.to_string()), Some(digest));
        assert_eq!(Digest::parse("zz"), None);
    }
}
