//! Products of bfloat16 with the instruction that AVX512-BF16 has for pairs.
//!
//! It adds the product of the second values of a pair to a sum and then that of the first ones, each fused. So pairs of two
//! values of one chain ([`super::bf16::pair_up`]) give the bits of that chain.

use super::bf16::FOUR;
use super::packed::TILE_K;
use super::product_bf16::{CHUNK, Task};
use super::simd::{Avx512, LANES, Simd};

impl Task<'_> {
    /// All rows and strips; the activations' halves are paired up.
    /// # Safety
    /// [`super::Isa::multiplies_pairs`]; the rows and strips exist, and nobody else writes them.
    #[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
    pub(super) unsafe fn run_in_pairs(self) {
        // SAFETY: the caller's word, as for all below.
        let s = unsafe { Avx512::assume() };
        let mut strip = self.strips.start;
        while strip < self.strips.end {
            strip += unsafe {
                match self.strips.end - strip {
                    2.. => self.rows_in_pairs::<2>(s, strip),
                    _ => self.rows_in_pairs::<1>(s, strip),
                }
            };
        }
    }

    /// All rows of W strips from `strip` on.
    /// # Safety
    /// As [`Task::run_in_pairs`].
    #[inline(always)]
    unsafe fn rows_in_pairs<const W: usize>(&self, s: Avx512, strip: usize) -> usize {
        let mut row = self.rows.start;
        while row < self.rows.end {
            // SAFETY: the caller's word.
            row += unsafe {
                match self.rows.end - row {
                    4.. => self.some_in_pairs::<4, W>(s, strip, row),
                    2.. => self.some_in_pairs::<2, W>(s, strip, row),
                    _ => self.some_in_pairs::<1, W>(s, strip, row),
                }
            };
        }
        W
    }

    /// Rows `row..row + R` of W strips. Every row runs the same operations whatever R and W are.
    /// # Safety
    /// As [`Task::run_in_pairs`].
    #[inline(always)]
    unsafe fn some_in_pairs<const R: usize, const W: usize>(
        &self,
        s: Avx512,
        strip: usize,
        row: usize,
    ) -> usize {
        let k = self.x.k();
        let x = self.x.halves()[row * k..][..R * k].as_ptr();
        let w = self.strip_starts::<W>(strip);
        let first = row == self.rows.start;
        let mut sums = [[s.zero(); W]; R];
        for chunk in 0..k / TILE_K {
            let ahead = self.ahead::<W>(chunk);
            let (mut even, mut odd) = ([[s.zero(); W]; R], [[s.zero(); W]; R]);
            for four in 0..TILE_K / FOUR {
                let mut weights = [(s.splat_i(0), s.splat_i(0)); W];
                // SAFETY: four values of k of the rows, and of the strips two lines; `ahead` is only asked for.
                unsafe {
                    for i in 0..W {
                        let at = w[i].add(chunk * CHUNK + four * FOUR * LANES);
                        let second = at.add(2 * LANES);
                        if first {
                            s.prefetch(at.cast::<u8>().wrapping_add(ahead));
                            s.prefetch(second.cast::<u8>().wrapping_add(ahead));
                        }
                        weights[i] = s.chains(s.load_b(at.cast()), s.load_b(second.cast()));
                    }
                    for r in 0..R {
                        let x = x.add(r * k + chunk * TILE_K + four * FOUR).cast::<i32>();
                        let x = (s.splat_i(x.read_unaligned()), s.splat_i(x.add(1).read_unaligned()));
                        for i in 0..W {
                            even[r][i] = s.add_pairs(even[r][i], weights[i].0, x.0);
                            odd[r][i] = s.add_pairs(odd[r][i], weights[i].1, x.1);
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
        for r in 0..R {
            for i in 0..W {
                // SAFETY: the caller's word.
                unsafe { self.y.write(s, row + r, strip + i, sums[r][i]) }
            }
        }
        R
    }
}
