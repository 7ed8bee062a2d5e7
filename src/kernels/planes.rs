//! The bits of a quant above its low four: how a tile keeps them beside its nibbles.
//!
//! A tile's nibbles are four groups of 64 bytes; group g has k = 8g + i in the low and 8g + 4 + i in the high nibbles
//! (byte 4 * row + i). With one upper bit the tile has one plane of 64 bytes: bit g of byte 4 * row + i belongs to the low
//! nibble of group g, bit 4 + g to the high one. With two there are two planes, for the low and for the high nibbles; group
//! g's pair of bits starts at bit 4, 6, 0, 2. So a kernel reaches all of them by shifts that never leave a byte.

use super::simd::Simd;

/// Bytes of the planes of one tile.
pub(super) const fn bytes(upper_bits: usize) -> usize {
    64 * upper_bits
}

/// Byte of the planes and shift in it, for the value k (below 32) of `row`.
fn place(upper_bits: usize, row: usize, k: usize) -> (usize, usize) {
    let (group, high, lane) = (k / 8, k / 4 % 2, 4 * row + k % 4);
    match upper_bits {
        1 => (lane, group + 4 * high),
        _ => (64 * high + lane, [4, 6, 0, 2][group]),
    }
}

/// Stores the upper bits of quant `q`, the value k of `row`; the planes are zero there.
pub(super) fn put(planes: &mut [u8], upper_bits: usize, row: usize, k: usize, q: u8) {
    let (byte, shift) = place(upper_bits, row, k);
    planes[byte] |= (q >> 4) << shift;
}

/// The upper bits of value k of `row`, in the place that they have in the quant.
pub(super) fn get(planes: &[u8], upper_bits: usize, row: usize, k: usize) -> u8 {
    let (byte, shift) = place(upper_bits, row, k);
    (planes[byte] >> shift & ((1 << upper_bits) - 1)) << 4
}

/// The planes of one tile in registers, shifted so that the bits of the group at hand are bits 4 and 5.
pub(super) struct Upper<S: Simd> {
    first: [S::B; 2],
    now: [S::B; 2],
}

impl<S: Simd> Upper<S> {
    /// For group 0. `upper_bits` is 1 or 2.
    /// # Safety
    /// [`bytes`] to read at `planes`.
    #[inline(always)]
    pub(super) unsafe fn load(s: S, planes: *const u8, upper_bits: usize) -> Upper<S> {
        // SAFETY: the caller's word.
        let low = unsafe { s.load_b(planes) };
        let first = match upper_bits {
            1 => [s.left_4(low), low],
            // SAFETY: the caller's word; two planes.
            _ => [low, unsafe { s.load_b(planes.add(64)) }],
        };
        Upper { first, now: first }
    }

    /// The quants of the group at hand, from its low and its high nibbles.
    #[inline(always)]
    pub(super) fn merge(&self, s: S, upper_bits: usize, low: S::B, high: S::B) -> (S::B, S::B) {
        let mask = if upper_bits == 1 { 0x10 } else { 0x30 };
        (s.merge(low, self.now[0], mask), s.merge(high, self.now[1], mask))
    }

    /// From group `group` to the next.
    #[inline(always)]
    pub(super) fn advance(&mut self, s: S, upper_bits: usize, group: usize) {
        for i in 0..2 {
            self.now[i] = match (upper_bits, group) {
                (1, _) => s.right_1(self.now[i]),
                (_, 1) => s.left_4(self.first[i]),
                _ => s.right_2(self.now[i]),
            };
        }
    }
}
