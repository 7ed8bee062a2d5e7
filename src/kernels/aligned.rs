//! Zeroed memory that starts at a cache line and is touched first by who uses it.

/// Bytes of a cache line, and of the largest vector.
const ALIGNMENT: usize = 64;

/// Bytes, zero at first. Large ones come from the system page by page when first written, so they cost nothing before:
/// that is why this is a plain zeroed vector with an offset, and no allocation with an alignment (the standard
/// allocator fills those with zeros by hand, which touches every page).
pub(super) struct AlignedBytes {
    memory: Vec<u8>,
    start: usize,
    len: usize,
}

impl AlignedBytes {
    /// Ends the process when memory runs out, as `Vec` does.
    pub(super) fn zeroed(len: usize) -> AlignedBytes {
        let memory = vec![0; len + ALIGNMENT];
        let start = memory.as_ptr().align_offset(ALIGNMENT).min(ALIGNMENT);
        AlignedBytes { memory, start, len }
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.memory[self.start..][..self.len]
    }

    pub(super) fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.memory[self.start..][..self.len]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn starts_at_a_line_and_is_zero() {
        for len in [0, 1, 63, 64, 100_000] {
            let mut memory = AlignedBytes::zeroed(len);
            assert_eq!(memory.bytes().as_ptr() as usize % ALIGNMENT, 0);
            assert!(memory.bytes().len() == len && memory.bytes().iter().all(|byte| *byte == 0));
            memory.bytes_mut().fill(7);
            assert!(memory.bytes().iter().all(|byte| *byte == 7));
        }
    }
}
