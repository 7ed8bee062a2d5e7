//! Rows of activations as products read them: f32, int8 with one scale per 32 values, and bfloat16.

use super::aligned::AlignedFloats;
use super::bf16::pair_up;
use super::isa::{Isa, Kernel};
use super::packed::{Form, PackedMatrix, TILE_K};
use super::pool::Disjoint;
use super::simd::{LANES, Simd};
use super::{Cpu, Precision, rows};

/// Activations `[rows, k]` of one product. The buffers are kept from call to call, and longer than needed.
pub struct Activations {
    /// The forms wanted beside f32.
    int8: bool,
    bf16: bool,
    rows: usize,
    k: usize,
    /// Whether the rows at hand have them: k is a multiple of 32.
    has_blocks: bool,
    /// `[rows, k]`.
    values: Vec<f32>,
    /// `[rows, k]`, in -127..=127.
    quants: Vec<i8>,
    /// `[rows, k / 32]`.
    blocks: Vec<BlockScale>,
    /// `[rows, k]`, rounded to bfloat16: for vectors, and for matrix units or instructions for pairs.
    rounded: Vec<f32>,
    /// Two in a float.
    halves: AlignedFloats,
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
    /// For any weights that were packed with this precision.
    pub fn new(precision: Precision) -> Activations {
        let rounds = precision == Precision::Int8;
        Activations::with_forms(rounds, rounds)
    }

    /// For these weights only: forms that none of them reads are not made.
    pub fn for_weights<'a>(weights: impl Iterator<Item = &'a PackedMatrix>) -> Activations {
        let (mut int8, mut bf16) = (false, false);
        for form in weights.map(PackedMatrix::form) {
            int8 |= form == Form::Int8;
            bf16 |= form == Form::Bf16;
        }
        Activations::with_forms(int8, bf16)
    }

    fn with_forms(int8: bool, bf16: bool) -> Activations {
        Activations {
            int8,
            bf16,
            rows: 0,
            k: 0,
            has_blocks: false,
            values: Vec::new(),
            quants: Vec::new(),
            blocks: Vec::new(),
            rounded: Vec::new(),
            halves: AlignedFloats::default(),
        }
    }

    /// Takes `x`, `[rows, k]`.
    pub fn set(&mut self, cpu: &Cpu, x: &[f32], rows: usize, k: usize) {
        assert_eq!(x.len(), rows * k, "activations [{rows}, {k}]");
        self.fill(cpu, rows, k, [], |row, [], out| out.copy_from_slice(&x[row * k..][..k]));
    }

    /// Lets `work(row, parts, out)` write each row, `[k]`, and brings it into the other forms where k (a multiple of 32)
    /// allows. `parts` are the same row of each of `buffers`, as in [`super::each_row`].
    pub fn fill<const N: usize>(
        &mut self,
        cpu: &Cpu,
        rows: usize,
        k: usize,
        buffers: [&mut [f32]; N],
        work: impl Fn(usize, [&mut [f32]; N], &mut [f32]) + Sync,
    ) {
        (self.rows, self.k) = (rows, k);
        self.has_blocks = k.is_multiple_of(TILE_K);
        let len = |wanted: bool| if wanted { rows * k } else { 0 };
        let (int8, bf16) = (self.has(Form::Int8), self.has(Form::Bf16));
        let in_pairs = cpu.isa.multiplies_pairs();
        let halves = bf16 && (in_pairs || cpu.isa == Isa::Amx);
        grow(&mut self.values, rows * k, 0.0);
        grow(&mut self.quants, len(int8), 0);
        grow(&mut self.blocks, len(int8) / TILE_K, BlockScale::default());
        grow(&mut self.rounded, len(bf16), 0.0);
        self.halves.grow(len(halves) / 2);
        let widths = rows::widths(rows, &buffers);
        let buffers = buffers.map(Disjoint::new);
        let (values, quants) = (Disjoint::new(&mut self.values), Disjoint::new(&mut self.quants));
        let blocks = Disjoint::new(&mut self.blocks);
        let (rounded, to_halves) = (Disjoint::new(&mut self.rounded), Disjoint::new(&mut self.halves));
        rows::run_rows(cpu, rows, k + widths.iter().sum::<usize>(), |row| {
            // SAFETY: each row is visited once.
            let (parts, x) = unsafe { (rows::parts(&buffers, &widths, row), values.part(row * k, k)) };
            work(row, parts, x);
            if bf16 {
                let half = if halves { k / 2 } else { 0 };
                // SAFETY: as above.
                let (rounded, halves) =
                    unsafe { (rounded.part(row * k, k), to_halves.part(row * half, half)) };
                cpu.isa.run(Round { x, rounded, halves, in_pairs });
            }
            if int8 {
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

    /// Rounded to bfloat16.
    pub(super) fn rounded(&self) -> &[f32] {
        &self.rounded[..self.rows * self.k]
    }

    /// The same as bfloat16, with matrix units, or in the order of [`pair_up`] with instructions for pairs.
    pub(super) fn halves(&self) -> &[u16] {
        let halves = &self.halves[..self.rows * self.k / 2];
        // SAFETY: any bytes are u16, of which a float holds two.
        unsafe { std::slice::from_raw_parts(halves.as_ptr().cast(), 2 * halves.len()) }
    }

    /// Whether the rows at hand are there in this form.
    pub(super) fn has(&self, form: Form) -> bool {
        match form {
            Form::F32 => true,
            Form::Bf16 => self.bf16 && self.has_blocks,
            Form::Int8 => self.int8 && self.has_blocks,
        }
    }
}

fn grow<T: Clone>(buffer: &mut Vec<T>, len: usize, value: T) {
    if buffer.len() < len {
        buffer.resize(len, value);
    }
}

struct Round<'a> {
    x: &'a [f32],
    rounded: &'a mut [f32],
    /// Two in a float; empty where nobody wants them.
    halves: &'a mut [f32],
    /// Whether they stand in the order of [`pair_up`].
    in_pairs: bool,
}

impl Kernel for Round<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let k = self.x.len();
        assert!(k.is_multiple_of(LANES) && self.rounded.len() == k);
        assert!(self.halves.is_empty() || 2 * self.halves.len() == k);
        for i in (0..k).step_by(LANES) {
            // SAFETY: 16 values of each from i on.
            unsafe {
                let value = s.to_bf16(s.load(self.x.as_ptr().add(i)));
                s.store(self.rounded.as_mut_ptr().add(i), value);
                if !self.halves.is_empty() {
                    let halves = self.halves.as_mut_ptr().cast::<u16>().add(i);
                    s.store_bf16(halves, value);
                    if self.in_pairs {
                        pair_up(&mut *halves.cast::<[u16; LANES]>());
                    }
                }
            }
        }
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

    #[test]
    fn rounding_to_bfloat16_is_that_of_half_and_small_numbers_are_zero() {
        let mut x: Vec<f32> =
            [0x3f80_8000u32, 0x3f81_8000, 0x3f80_8001, 0xbf80_7fff, 0x7f7f_ffff, 0x0080_0000, 0x8080_0000]
                .map(f32::from_bits)
                .to_vec();
        x.extend([f32::INFINITY, f32::NEG_INFINITY, 0.0, -0.0, 1e-39, -1e-42, f32::MAX, 1.0, -3.7]);
        x.extend(crate::kernels::tests::random(48, 4));
        for isa in Isa::available() {
            let mut activations = Activations::new(Precision::Int8);
            activations.set(&Cpu::new(isa, 1), &x, 1, 64);
            for (x, given) in x.iter().zip(activations.rounded()) {
                let expected =
                    if x.abs() < f32::MIN_POSITIVE { 0.0 } else { half::bf16::from_f32(*x).to_f32() };
                assert!(*given == expected, "{isa:?} {x:e}: {given:e} {expected:e}");
            }
            if isa == Isa::Amx || isa.multiplies_pairs() {
                let mut halves = activations.halves().to_vec();
                if isa.multiplies_pairs() {
                    halves
                        .as_chunks_mut()
                        .0
                        .iter_mut()
                        .for_each(|four| *four = [four[1], four[3], four[0], four[2]]);
                }
                let wide = halves.iter().map(|half| f32::from_bits(u32::from(*half) << 16));
                assert!(wide.eq(activations.rounded().iter().copied()));
            }
            let damaged: Vec<f32> = (0..32).map(|i| if i == 5 { -f32::NAN } else { 1.0 }).collect();
            activations.set(&Cpu::new(isa, 1), &damaged, 1, 32);
            assert!(activations.rounded().iter().enumerate().all(|(i, x)| x.is_nan() == (i == 5)), "{isa:?}");
        }
    }
}
