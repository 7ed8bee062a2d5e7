//! Sums of products of bfloat16 in the order of matrix units.
//!
//! Products of two bfloat16 are exact in f32. Over each 32 values of k the even ones go into one chain of fused additions
//! from 0 and the odd ones into another; then chain + chain, then that to the sum so far. Vectors do one by one, and the
//! instruction of AVX512-BF16 two by two, what matrix units do at once, so the bits are the same, whatever the instruction set
//! and the number of rows. One exception: where a value on the way falls below the smallest normal number (1.2e-38), these
//! two take it for zero and other vectors do not.

use super::packed::TILE_K;
use super::simd::Simd;

/// Values of k in two pairs of one chain.
pub(super) const FOUR: usize = 4;

/// Brings bfloat16 in order of k into pairs of one chain, the earlier one second: of k to k + 3 (k + 2, k) and (k + 3, k + 1).
pub(super) fn pair_up(halves: &mut [u16]) {
    for four in halves.as_chunks_mut::<FOUR>().0 {
        *four = [four[2], four[0], four[3], four[1]];
    }
}

/// Rows of a block on matrix units.
pub(super) const BLOCK: usize = 16;

/// Where [`add_chunk`] finds its operands.
#[derive(Clone, Copy)]
pub(super) struct Chunk<const W: usize> {
    /// Values that bfloat16 holds exactly, of the first row; rows are `x_stride` apart.
    pub x: *const f32,
    pub x_stride: usize,
    /// For each of W columns of sixteen, pairs of k, `w_stride` elements apart.
    pub w: [*const u16; W],
    pub w_stride: usize,
    /// Values of k, even; 32 but for the end of a width that is no multiple of it.
    pub len: usize,
}

/// Adds `len` products to `sums[row][column of sixteen]`.
/// # Safety
/// R rows of `len` values, and for each column `len / 2` times sixteen pairs; what lies `ahead` bytes after them is only
/// asked for.
#[inline(always)]
pub(super) unsafe fn add_chunk<S: Simd, const R: usize, const W: usize>(
    s: S,
    chunk: Chunk<W>,
    ahead: Option<usize>,
    sums: &mut [[S::F; W]; R],
) {
    let Chunk { x, x_stride, w, w_stride, len } = chunk;
    debug_assert!(len <= TILE_K && len.is_multiple_of(2));
    let (mut even, mut odd) = ([[s.zero(); W]; R], [[s.zero(); W]; R]);
    for pair in 0..len / 2 {
        // SAFETY: the caller's word.
        unsafe {
            let mut weights = [(s.zero(), s.zero()); W];
            for i in 0..W {
                let at = w[i].add(pair * w_stride);
                if let Some(ahead) = ahead {
                    s.prefetch(at.cast::<u8>().wrapping_add(ahead));
                }
                weights[i] = s.load_bf16_pairs(at);
            }
            for r in 0..R {
                let x = x.add(r * x_stride + 2 * pair);
                let (first, second) = (s.splat(*x), s.splat(*x.add(1)));
                for i in 0..W {
                    even[r][i] = s.fma(first, weights[i].0, even[r][i]);
                    odd[r][i] = s.fma(second, weights[i].1, odd[r][i]);
                }
            }
        }
    }
    for r in 0..R {
        for i in 0..W {
            sums[r][i] = s.add(sums[r][i], s.add(even[r][i], odd[r][i]));
        }
    }
}
