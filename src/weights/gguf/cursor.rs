//! A bounded reading position in a file's bytes: every read is checked against what is left.

use crate::limits::GGUF_METADATA_BYTES_MAX;
use crate::weights::error::{FileFault, Located};

/// Reads little-endian values from `bytes[position..limit]`.
pub(super) struct Cursor<'a> {
    bytes: &'a [u8],
    position: usize,
    /// End of what may be read: the file's end, or the bound on metadata when that comes first.
    limit: usize,
}

impl<'a> Cursor<'a> {
    /// A cursor at the start of the file.
    pub(super) fn new(bytes: &'a [u8]) -> Cursor<'a> {
        Cursor { bytes, position: 0, limit: bytes.len() }
    }

    /// From here on at most [`GGUF_METADATA_BYTES_MAX`] bytes may be read, until [`Cursor::unlimit`].
    pub(super) fn limit_metadata(&mut self) {
        let bound = usize::try_from(GGUF_METADATA_BYTES_MAX).unwrap_or(usize::MAX);
        self.limit = self.position.saturating_add(bound).min(self.bytes.len());
    }

    pub(super) fn unlimit(&mut self) {
        self.limit = self.bytes.len();
    }

    /// Bytes from the start of the file.
    pub(super) fn position(&self) -> usize {
        self.position
    }

    pub(super) fn left(&self) -> u64 {
        (self.limit - self.position) as u64
    }

    /// A fault at the current position.
    pub(super) fn fault(&self, fault: FileFault) -> Located {
        Located { fault, offset: self.position as u64 }
    }

    /// Fails unless `needed` more bytes can be read.
    pub(super) fn demand(&self, what: &'static str, needed: Option<u64>) -> Result<usize, Located> {
        let needed = needed.unwrap_or(u64::MAX);
        match usize::try_from(needed) {
            Ok(count) if needed <= self.left() => Ok(count),
            _ if self.limit < self.bytes.len() => {
                Err(self.fault(FileFault::MetadataBytes { allowed: GGUF_METADATA_BYTES_MAX }))
            }
            _ => Err(self.fault(FileFault::Truncated { what, needed, left: self.left() })),
        }
    }

    /// The next `needed` bytes.
    pub(super) fn take(&mut self, what: &'static str, needed: u64) -> Result<&'a [u8], Located> {
        let count = self.demand(what, Some(needed))?;
        let start = self.position;
        self.position += count;
        Ok(&self.bytes[start..self.position])
    }

    pub(super) fn array<const N: usize>(&mut self, what: &'static str) -> Result<[u8; N], Located> {
        let mut value = [0; N];
        value.copy_from_slice(self.take(what, N as u64)?);
        Ok(value)
    }

    pub(super) fn u32(&mut self, what: &'static str) -> Result<u32, Located> {
        Ok(u32::from_le_bytes(self.array(what)?))
    }

    pub(super) fn u64(&mut self, what: &'static str) -> Result<u64, Located> {
        Ok(u64::from_le_bytes(self.array(what)?))
    }

    /// A count that may not exceed `allowed`, and whose items of at least `item_bytes` each must still fit.
    pub(super) fn count(
        &mut self,
        what: &'static str,
        allowed: u64,
        item_bytes: u64,
    ) -> Result<u64, Located> {
        let before = self.position as u64;
        let given = self.u64(what)?;
        if given > allowed {
            return Err(Located { fault: FileFault::TooMany { what, given, allowed }, offset: before });
        }
        self.demand(what, given.checked_mul(item_bytes))?;
        Ok(given)
    }

    /// A string with its 64-bit length in front.
    pub(super) fn string(&mut self, what: &'static str) -> Result<&'a str, Located> {
        let length = self.u64(what)?;
        let offset = self.position as u64;
        let bytes = self.take(what, length)?;
        std::str::from_utf8(bytes).map_err(|_| Located { fault: FileFault::Utf8 { what }, offset })
    }

    /// The same with a bound on the length, in bytes.
    pub(super) fn short_string(&mut self, what: &'static str, allowed: u64) -> Result<&'a str, Located> {
        let offset = self.position as u64;
        let text = self.string(what)?;
        if text.len() as u64 > allowed {
            let given = text.len() as u64;
            return Err(Located { fault: FileFault::TooMany { what, given, allowed }, offset });
        }
        Ok(text)
    }
}
