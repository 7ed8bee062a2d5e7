//! Zeroed memory that starts at a cache line and is touched first by who uses it.

use crate::sync::lock;
use memmap2::MmapMut;
use std::alloc::{Layout, handle_alloc_error};
use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex, Weak};

/// Bytes of a cache line, which come from memory together, and of the largest vector.
pub(super) const LINE: usize = 64;
/// Bytes of a large page on x86-64, and on most other machines.
const LARGE_PAGE: usize = 2 << 20;
/// Bytes of a region that small buffers share.
const REGION: usize = 32 << 20;

/// Bytes, zero at first, that cost nothing before they are written: large buffers come from the system page by page.
/// That is why this is no allocation with an alignment (the standard allocator fills those with zeros by hand).
pub(super) struct AlignedBytes {
    memory: Memory,
    start: usize,
    len: usize,
}

/// Floats from the start of a cache line on, kept from use to use; as many as a multiple of sixteen.
#[derive(Default)]
pub(super) struct AlignedFloats(Vec<Floats>);

#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Floats([f32; LINE / 4]);

impl AlignedFloats {
    /// At least `len`, zeros at first.
    pub(super) fn grow(&mut self, len: usize) {
        self.0.resize(self.0.len().max(len.div_ceil(LINE / 4)), Floats([0.0; LINE / 4]));
    }

    /// `len` zeros.
    pub(super) fn set_zeros(&mut self, len: usize) {
        self.0.clear();
        self.0.resize(len.div_ceil(LINE / 4), Floats([0.0; LINE / 4]));
    }
}

impl Deref for AlignedFloats {
    type Target = [f32];
    fn deref(&self) -> &[f32] {
        // SAFETY: the vector holds so many floats without gaps.
        unsafe { std::slice::from_raw_parts(self.0.as_ptr().cast(), self.0.len() * LINE / 4) }
    }
}

impl DerefMut for AlignedFloats {
    fn deref_mut(&mut self) -> &mut [f32] {
        // SAFETY: as above.
        unsafe { std::slice::from_raw_parts_mut(self.0.as_mut_ptr().cast(), self.0.len() * LINE / 4) }
    }
}

enum Memory {
    Vector(Vec<u8>),
    Region(Arc<Region>),
}

/// Memory in large pages, cut into buffers from its start on.
struct Region {
    /// Owns the memory. Reached through `start` only, as the buffers are written by different owners.
    _map: MmapMut,
    /// First byte, at a large page.
    start: *mut u8,
    len: usize,
    used: Mutex<usize>,
}

// SAFETY: `start` belongs to `_map`; every byte behind it belongs to the one buffer that it was given to.
unsafe impl Send for Region {}
// SAFETY: as above; what is shared is behind a lock.
unsafe impl Sync for Region {}

impl AlignedBytes {
    /// Ends the process when memory runs out, as `Vec` does.
    pub(super) fn zeroed(len: usize) -> AlignedBytes {
        let memory = vec![0; len + LINE];
        let start = memory.as_ptr().align_offset(LINE).min(LINE);
        AlignedBytes { memory: Memory::Vector(memory), start, len }
    }

    /// The same in large pages, which buffers share: for what is read from end to end again and again, as weights are
    /// for every token. A large page has one entry in the processor's table of addresses instead of 512, and prefetching
    /// does not stop at every 4 KiB: with two threads of the machine at hand, 81 GB/s instead of 59.
    pub(super) fn zeroed_large(len: usize) -> AlignedBytes {
        static LAST: Mutex<Weak<Region>> = Mutex::new(Weak::new());
        let mut last = lock(&LAST);
        let shared = last.upgrade();
        let (region, start) = match shared.and_then(|region| Some((region.take(len)?, region))) {
            Some((start, region)) => (region, start),
            None => {
                let region = Arc::new(Region::new(len.max(REGION)));
                let start = region.take(len).expect("a new region holds what it was made for");
                *last = Arc::downgrade(&region);
                (region, start)
            }
        };
        AlignedBytes { memory: Memory::Region(region), start, len }
    }

    pub(super) fn bytes(&self) -> &[u8] {
        match &self.memory {
            Memory::Vector(memory) => &memory[self.start..][..self.len],
            // SAFETY: these bytes of the region were given to this buffer alone, and it keeps the region.
            Memory::Region(region) => unsafe {
                std::slice::from_raw_parts(region.start.add(self.start), self.len)
            },
        }
    }

    pub(super) fn bytes_mut(&mut self) -> &mut [u8] {
        match &mut self.memory {
            Memory::Vector(memory) => &mut memory[self.start..][..self.len],
            // SAFETY: as in `bytes`, and `self` is borrowed alone.
            Memory::Region(region) => unsafe {
                std::slice::from_raw_parts_mut(region.start.add(self.start), self.len)
            },
        }
    }
}

impl Region {
    fn new(len: usize) -> Region {
        let len = len.next_multiple_of(LARGE_PAGE);
        let Ok(mut map) = MmapMut::map_anon(len + LARGE_PAGE) else {
            handle_alloc_error(Layout::from_size_align(len, LINE).unwrap_or(Layout::new::<u8>()));
        };
        // Where the system has no large pages the memory is as good as any.
        #[cfg(target_os = "linux")]
        let _ = map.advise(memmap2::Advice::HugePage);
        let offset = map.as_ptr().align_offset(LARGE_PAGE).min(LARGE_PAGE);
        let start = map[offset..].as_mut_ptr();
        Region { _map: map, start, len, used: Mutex::new(0) }
    }

    /// Where a buffer of so many bytes may lie; `None` when the rest is too small.
    fn take(&self, len: usize) -> Option<usize> {
        let mut used = lock(&self.used);
        let start = *used;
        let end = start.checked_add(len)?.checked_next_multiple_of(LINE)?;
        (end <= self.len).then(|| *used = end)?;
        Some(start)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn starts_at_a_line_and_is_zero() {
        for new in [AlignedBytes::zeroed, AlignedBytes::zeroed_large] {
            let mut buffers: Vec<AlignedBytes> = [0, 1, 63, 64, 100_000, 40 << 20].map(new).into();
            for (i, memory) in buffers.iter_mut().enumerate() {
                assert_eq!(memory.bytes().as_ptr() as usize % LINE, 0);
                assert!(memory.bytes().iter().all(|byte| *byte == 0), "buffer {i} is not new");
                memory.bytes_mut().fill(i as u8 + 1);
            }
            for (i, memory) in buffers.iter().enumerate() {
                assert!(memory.bytes().iter().all(|byte| *byte == i as u8 + 1), "buffer {i}");
            }
        }
    }
}
