//! Rows of activations as products read them: f32, and int8 with one scale per 32 values.

use super::isa::Kernel;
use super::packed::TILE_K;
use super::pool::Disjoint;
use super::simd::Simd;
use super::{Cpu, Precision, rows};

/// Activations `[rows, k]` of one product. The buffers are kept from call to call, and longer than needed.
pub struct Activations {
    precision: Precision,
    rows: usize,
    k: usize,
    is_quantized: bool,
    /// `[rows, k]`.
    values: Vec<f32>,
    /// `[rows, k]`, in -127..=127.
    quants: Vec<i8>,
    /// `[rows, k / 32]`.
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
        Activations {
            precision,
            rows: 0,
            k: 0,
            is_quantized: false,
            values: Vec::new(),
            quants: Vec::new(),
            blocks: Vec::new(),
        }
    }

    /// Takes `x`, `[rows, k]`.
    pub fn set(&mut self, cpu: &Cpu, x: &[f32], rows: usize, k: usize) {
        assert_eq!(x.len(), rows * k, "activations [{rows}, {k}]");
        self.fill(cpu, rows, k, [], |row, [], out| out.copy_from_slice(&x[row * k..][..k]));
    }

    /// Lets `work(row, parts, out)` write each row, `[k]`, and quantises it where this precision and k (a multiple of 32)
    /// allow. `parts` are the same row of each of `buffers`, as in [`super::each_row`].
    pub fn fill<const N: usize>(
        &mut self,
        cpu: &Cpu,
        rows: usize,
        k: usize,
        buffers: [&mut [f32]; N],
        work: impl Fn(usize, [&mut [f32]; N], &mut [f32]) + Sync,
    ) {
        (self.rows, self.k) = (rows, k);
        self.is_quantized = self.precision == Precision::Int8 && k.is_multiple_of(TILE_K);
        let quantized = if self.is_quantized { rows * k } else { 0 };
        grow(&mut self.values, rows * k, 0.0);
        grow(&mut self.quants, quantized, 0);
        grow(&mut self.blocks, quantized / TILE_K, BlockScale::default());
        let widths = rows::widths(rows, &buffers);
        let buffers = buffers.map(Disjoint::new);
        let (values, quants) = (Disjoint::new(&mut self.values), Disjoint::new(&mut self.quants));
        let blocks = Disjoint::new(&mut self.blocks);
        rows::run_rows(cpu, rows, k + widths.iter().sum::<usize>(), |row| {
            // SAFETY: each row is visited once.
            let (parts, x) = unsafe { (rows::parts(&buffers, &widths, row), values.part(row * k, k)) };
            work(row, parts, x);
            if quantized > 0 {
                let (tile, tiles) = (row * k / TILE_K, k / TILE_K);
                // SAFETY: as above.
                let (quants, blocks) = unsafe { (quants.part(row * k, k), blocks.part(tile, tiles)) };
                cpu.isa.run(Quantize { x, quants, blocks });
            }
        });
    }

    pub fn rows(&self) -> usize {
        self.rows
    }

    pub fn k(&self) -> usize {
        self.k
    }

    pub(super) fn values(&self) -> &[f32] {
        &self.values[..self.rows * self.k]
    }

    pub(super) fn quants(&self) -> &[i8] {
        &self.quants[..self.rows * self.k]
    }

    pub(super) fn blocks(&self) -> &[BlockScale] {
        &self.blocks[..self.rows * self.k / TILE_K]
    }

    pub(super) fn is_quantized(&self) -> bool {
        self.is_quantized
    }
}

fn grow<T: Clone>(buffer: &mut Vec<T>, len: usize, value: T) {
    if buffer.len() < len {
        buffer.resize(len, value);
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
