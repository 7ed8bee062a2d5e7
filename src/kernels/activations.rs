//! Rows of activations as products read them: f32, and int8 with one scale per 32 values.

use super::isa::Kernel;
use super::packed::TILE_K;
use super::pool::Disjoint;
use super::simd::Simd;
use super::{Cpu, Precision};

/// Values that one task quantises; less work than this is not worth waking a thread for.
const TASK_VALUES: usize = 1 << 15;

/// Activations `[rows, k]` of one product. The buffers are kept from call to call.
pub struct Activations {
    precision: Precision,
    rows: usize,
    k: usize,
    /// `[rows, k]`.
    values: Vec<f32>,
    /// `[rows, k]`, in -127..=127; empty when not quantised.
    quants: Vec<i8>,
    /// `[rows, k / 32]`; empty when not quantised.
    blocks: Vec<BlockScale>,
}

/// What belongs to 32 quantised values.
#[derive(Clone, Copy, Default)]
pub(super) struct BlockScale {
    /// amax / 127; not-a-number where a value is not finite, so that the damage shows in the product.
    pub scale: f32,
    /// scale * (sum of the quants).
    pub scaled_sum: f32,
    /// Sums of the first and the last sixteen quants.
    pub sums: [i32; 2],
}

impl Activations {
    pub fn new(precision: Precision) -> Activations {
        Activations { precision, rows: 0, k: 0, values: Vec::new(), quants: Vec::new(), blocks: Vec::new() }
    }

    /// Takes `x`, `[rows, k]`, and quantises it where this precision and k (a multiple of 32) allow.
    pub fn set(&mut self, cpu: &Cpu, x: &[f32], rows: usize, k: usize) {
        assert_eq!(x.len(), rows * k, "activations [{rows}, {k}]");
        (self.rows, self.k) = (rows, k);
        self.values.clear();
        self.values.extend_from_slice(x);
        self.quants.clear();
        self.blocks.clear();
        if self.precision == Precision::F32 || !k.is_multiple_of(TILE_K) {
            return;
        }
        self.quants.resize(x.len(), 0);
        self.blocks.resize(x.len() / TILE_K, BlockScale::default());
        let (quants, blocks) = (Disjoint::new(&mut self.quants), Disjoint::new(&mut self.blocks));
        cpu.pool.run(x.len().div_ceil(TASK_VALUES), &|task| {
            let from = task * TASK_VALUES;
            let x = &x[from..x.len().min(from + TASK_VALUES)];
            // SAFETY: tasks have ranges of their own; TASK_VALUES is a multiple of 32.
            let (quants, blocks) =
                unsafe { (quants.part(from, x.len()), blocks.part(from / TILE_K, x.len() / TILE_K)) };
            cpu.isa.run(Quantize { x, quants, blocks });
        });
    }

    pub fn rows(&self) -> usize {
        self.rows
    }

    pub fn k(&self) -> usize {
        self.k
    }

    pub(super) fn values(&self) -> &[f32] {
        &self.values
    }

    pub(super) fn quants(&self) -> &[i8] {
        &self.quants
    }

    pub(super) fn blocks(&self) -> &[BlockScale] {
        &self.blocks
    }

    pub(super) fn is_quantized(&self) -> bool {
        !self.quants.is_empty()
    }
}

struct Quantize<'a> {
    x: &'a [f32],
    quants: &'a mut [i8],
    blocks: &'a mut [BlockScale],
}

impl Kernel for Quantize<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let rows = self.x.chunks_exact(TILE_K).zip(self.quants.chunks_exact_mut(TILE_K));
        for ((x, quants), block) in rows.zip(self.blocks) {
            // SAFETY: both chunks hold 32 values.
            unsafe { quantize_block(s, x.as_ptr(), quants.as_mut_ptr(), block) }
        }
    }
}

/// q = round(x * 127 / amax), ties to even.
/// # Safety
/// 32 f32 to read, 32 i8 to write.
#[inline(always)]
unsafe fn quantize_block<S: Simd>(s: S, x: *const f32, quants: *mut i8, block: &mut BlockScale) {
    // SAFETY: the caller vouches for the pointers.
    unsafe {
        let (first, second) = (s.load(x), s.load(x.add(16)));
        let amax = s.largest_magnitude(first, second);
        let inverse = 127.0 / amax;
        if !inverse.is_normal() {
            // Zeros, values too small for a scale, or values that are not finite: the quants stay 0.
            let scale = if amax.is_finite() { 0.0 } else { f32::NAN };
            *block = BlockScale { scale, scaled_sum: scale, sums: [0; 2] };
            s.store_i8(quants, s.splat_i(0));
            s.store_i8(quants.add(16), s.splat_i(0));
            return;
        }
        let scale = amax / 127.0;
        let inverse = s.splat(inverse);
        let (first, second) = (s.to_i(s.mul(first, inverse)), s.to_i(s.mul(second, inverse)));
        s.store_i8(quants, first);
        s.store_i8(quants.add(16), second);
        let sums = [s.sum_i(first), s.sum_i(second)];
        *block = BlockScale { scale, scaled_sum: scale * (sums[0] + sums[1]) as f32, sums };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::Isa;

    #[test]
    fn quants_are_rounded_to_even_and_the_same_for_every_instruction_set() {
        let x: Vec<f32> = (0..64)
            .map(|i| match i {
                0 => 127.0,
                1 => 2.5,
                2 => -3.5,
                3 => 0.49,
                32 => -1e-3,
                33 => 4e-4,
                i if i < 32 => i as f32,
                _ => 0.0,
            })
            .collect();
        for isa in Isa::available() {
            let cpu = Cpu::new(isa, 1);
            let mut activations = Activations::new(Precision::Int8);
            activations.set(&cpu, &x, 1, 64);
            assert_eq!(&activations.quants()[..5], &[127, 2, -4, 0, 4], "{isa:?}");
            assert_eq!(&activations.quants()[32..35], &[-127, 51, 0], "{isa:?}");
            let blocks = activations.blocks();
            assert_eq!((blocks[0].scale, blocks[1].scale), (1.0, 1e-3 / 127.0), "{isa:?}");
            let sum: i32 = activations.quants()[..16].iter().map(|q| i32::from(*q)).sum();
            assert_eq!(blocks[0].sums[0], sum, "{isa:?}");
        }
    }

    #[test]
    fn zeros_and_values_that_are_not_finite() {
        for isa in Isa::available() {
            let cpu = Cpu::new(isa, 1);
            let mut activations = Activations::new(Precision::Int8);
            for (value, expect_nan) in [(0.0, false), (1e-40, false), (f32::NAN, true), (f32::INFINITY, true)]
            {
                let mut x = vec![0.0; 32];
                x[7] = value;
                activations.set(&cpu, &x, 1, 32);
                let block = activations.blocks()[0];
                assert!(activations.quants().iter().all(|q| *q == 0));
                assert!(
                    block.scale.is_nan() == expect_nan && (expect_nan || block.scale == 0.0),
                    "{isa:?} {value}"
                );
            }
        }
    }
}
