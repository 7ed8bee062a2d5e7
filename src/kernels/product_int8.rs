//! Products of quantised tiles with int8 activations: exact integer sums of 32 values, then f32 with the scales.

use super::activations::{Activations, BlockScale};
use super::isa::{Isa, Kernel};
use super::packed::{PackedMatrix, STRIP, TILE_K, TileLayout};
use super::planes::{self, Upper};
use super::product::Output;
use super::simd::Simd;
use crate::format::ElementFormat;
use std::marker::PhantomData;
use std::ops::Range;

/// What the kernel must know of a format when it is compiled.
trait TileKind {
    const NIBBLES: bool;
    /// As in [`TileLayout`].
    const UPPER_BITS: usize;
    /// Subtracted from the stored quants; 128 goes with [`Simd::dot_wide`].
    const OFFSET: i32;
    /// As in [`super::blocks::BlockRule`].
    const SCALES: usize;
    const MINIMUM: bool;
}

macro_rules! kinds {
    ($($name:ident: $nibbles:literal, $upper_bits:literal, $offset:literal, $scales:literal, $minimum:literal;)*) => {$(
        struct $name;
        impl TileKind for $name {
            const NIBBLES: bool = $nibbles;
            const UPPER_BITS: usize = $upper_bits;
            const OFFSET: i32 = $offset;
            const SCALES: usize = $scales;
            const MINIMUM: bool = $minimum;
        }
    )*};
}

kinds! {
    Q40: true, 0, 8, 0, false;
    Q41: true, 0, 0, 0, true;
    Q50: true, 1, 16, 0, false;
    Q51: true, 1, 0, 0, true;
    Q80: false, 0, 128, 0, false;
    Q4K: true, 0, 0, 1, true;
    Q5K: true, 1, 0, 1, true;
    Q6K: true, 2, 32, 2, false;
}

/// Computes rows `rows` of strips `strips` of `w`, whose storage is `layout`.
/// # Safety
/// No other thread writes these rows and strips of `y`.
pub(super) unsafe fn run(
    isa: Isa,
    w: &PackedMatrix,
    layout: &TileLayout,
    x: &Activations,
    y: &Output<'_>,
    strips: Range<usize>,
    rows: Range<usize>,
) {
    macro_rules! task {
        ($kind:ty) => {
            isa.run(Task { w, layout, x, y, strips, rows, kind: PhantomData::<$kind> })
        };
    }
    match w.format() {
        ElementFormat::Q4_0 => task!(Q40),
        ElementFormat::Q4_1 => task!(Q41),
        ElementFormat::Q5_0 => task!(Q50),
        ElementFormat::Q5_1 => task!(Q51),
        ElementFormat::Q8_0 => task!(Q80),
        ElementFormat::Q4_K => task!(Q4K),
        ElementFormat::Q5_K => task!(Q5K),
        ElementFormat::Q6_K => task!(Q6K),
        ElementFormat::F32
        | ElementFormat::F16
        | ElementFormat::BF16
        | ElementFormat::Q2_K
        | ElementFormat::Q3_K => unreachable!("{} has no tiles", w.format()),
    }
}

struct Task<'a, T> {
    w: &'a PackedMatrix,
    layout: &'a TileLayout,
    x: &'a Activations,
    y: &'a Output<'a>,
    strips: Range<usize>,
    rows: Range<usize>,
    kind: PhantomData<T>,
}

impl<T: TileKind> Kernel for Task<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        for strip in self.strips.clone() {
            let mut row = self.rows.start;
            while row < self.rows.end {
                // SAFETY: the rows are in range; `run` vouches for the output.
                row += unsafe {
                    match self.rows.end - row {
                        8.. if S::INT8_ROWS >= 8 => self.some_rows::<S, 8>(s, strip, row),
                        4.. => self.some_rows::<S, 4>(s, strip, row),
                        2.. => self.some_rows::<S, 2>(s, strip, row),
                        _ => self.some_rows::<S, 1>(s, strip, row),
                    }
                };
            }
        }
    }
}

impl<T: TileKind> Task<'_, T> {
    /// Rows `row..row + R` of one strip. Every row runs the same operations whatever R is.
    /// # Safety
    /// The rows exist; nobody else writes this strip of them.
    #[inline(always)]
    unsafe fn some_rows<S: Simd, const R: usize>(&self, s: S, strip: usize, row: usize) -> usize {
        let tiles = self.layout.tiles;
        let weights = Weights { strip: self.w.strip(strip), layout: self.layout };
        let quants = self.x.quants()[row * self.x.k()..][..R * self.x.k()].as_ptr();
        let blocks = &self.x.blocks()[row * tiles..][..R * tiles];
        let mut f = [s.zero(); R];
        for tile in 0..tiles {
            // SAFETY: tiles of the strip, and R rows of k quants from `quants` on.
            unsafe {
                let sums = self.integer_sums::<S, R>(s, &weights, tile, quants, blocks);
                let (d, m) = scales::<S, T>(s, &weights, tile);
                for r in 0..R {
                    let block = blocks.get_unchecked(r * tiles + tile);
                    f[r] = s.fma(s.to_f(sums[r]), s.mul(d, s.splat(block.scale)), f[r]);
                    if T::MINIMUM && T::SCALES == 0 {
                        f[r] = s.fma(m, s.splat(block.scaled_sum), f[r]);
                    } else if T::MINIMUM {
                        f[r] = s.fnma(m, s.splat(block.scaled_sum), f[r]);
                    }
                }
            }
        }
        for (r, f) in f.into_iter().enumerate() {
            let mut out = [0.0; STRIP];
            // SAFETY: `out` holds 16 values; the caller vouches for the output.
            unsafe {
                s.store(out.as_mut_ptr(), f);
                self.y.write(row + r, strip, &out);
            }
        }
        R
    }

    /// For each row the sums over a tile of (quant - offset) * x, times the integer scales where a tile has two (then
    /// below 2^24, so exact in f32). Byte tiles are Q8_0's alone.
    /// # Safety
    /// `tile` is in the strip; `quants` points to R rows of k; `blocks` is `[R, tiles]`.
    #[inline(always)]
    unsafe fn integer_sums<S: Simd, const R: usize>(
        &self,
        s: S,
        weights: &Weights<'_>,
        tile: usize,
        quants: *const i8,
        blocks: &[BlockScale],
    ) -> [S::I; R] {
        let tiles = self.layout.tiles;
        // SAFETY: the caller vouches for all three.
        unsafe {
            let (mut low, mut high) = ([s.splat_i(0); R], [s.splat_i(0); R]);
            for r in 0..R {
                let [first, second] = blocks.get_unchecked(r * tiles + tile).sums;
                if T::SCALES == 2 {
                    (low[r], high[r]) = (s.splat_i(-T::OFFSET * first), s.splat_i(-T::OFFSET * second));
                } else if T::OFFSET == 128 {
                    low[r] = s.wide_start(first + second);
                } else if T::OFFSET > 0 {
                    low[r] = s.splat_i(-T::OFFSET * (first + second));
                }
            }
            let x = |r: usize, k: usize| {
                quants.add(r * tiles * TILE_K + tile * TILE_K + k).cast::<i32>().read_unaligned()
            };
            let start = weights.strip.as_ptr();
            if T::NIBBLES {
                let mut upper = None;
                if T::UPPER_BITS > 0 {
                    let planes = weights.layout.planes_at + tile * planes::bytes(T::UPPER_BITS);
                    upper = Some(Upper::load(s, start.add(planes), T::UPPER_BITS));
                }
                for g in 0..4 {
                    let both = s.load_b(start.add(tile * 256 + g * 64));
                    let (mut a, mut b) = (s.low_nibbles(both), s.high_nibbles(both));
                    if let Some(upper) = &mut upper {
                        (a, b) = upper.merge(s, T::UPPER_BITS, a, b);
                        upper.advance(s, T::UPPER_BITS, g);
                    }
                    for r in 0..R {
                        let sum = if T::SCALES == 2 && g >= 2 { &mut high[r] } else { &mut low[r] };
                        *sum = s.dot(*sum, a, x(r, 8 * g));
                        *sum = s.dot(*sum, b, x(r, 8 * g + 4));
                    }
                }
            } else {
                for g in 0..8 {
                    let w = s.load_b(start.add(tile * 512 + g * 64));
                    for r in 0..R {
                        low[r] = s.dot_wide(low[r], w, x(r, 4 * g));
                    }
                }
            }
            if T::SCALES == 2 {
                let at = weights.strip.as_ptr().add(weights.layout.scales_at + tile * 2 * STRIP).cast::<i8>();
                let (first, second) = (s.load_i8(at), s.load_i8(at.add(STRIP)));
                for r in 0..R {
                    low[r] = s.add_i(s.mul_i(low[r], first), s.mul_i(high[r], second));
                }
            }
            low
        }
    }
}

struct Weights<'a> {
    strip: &'a [u8],
    layout: &'a TileLayout,
}

/// d and m of a tile's 16 rows, with the integer scales of formats that have one per tile. Exact in f32.
/// # Safety
/// `tile` is in the strip.
#[inline(always)]
unsafe fn scales<S: Simd, T: TileKind>(s: S, weights: &Weights<'_>, tile: usize) -> (S::F, S::F) {
    let (start, layout) = (weights.strip.as_ptr(), weights.layout);
    let block = if T::SCALES == 0 { tile } else { tile / 8 };
    // SAFETY: the layout places 16 values of each kind for this tile inside the strip.
    unsafe {
        let d = s.load_f16(start.add(layout.d_at).cast::<u16>().add(block * STRIP));
        let m = if T::MINIMUM {
            s.load_f16(start.add(layout.m_at).cast::<u16>().add(block * STRIP))
        } else {
            s.zero()
        };
        if T::SCALES != 1 {
            return (d, m);
        }
        let scale = s.load_u8(start.add(layout.scales_at + tile * STRIP));
        let minimum = s.load_u8(start.add(layout.minima_at + tile * STRIP));
        (s.mul(d, s.to_f(scale)), s.mul(m, s.to_f(minimum)))
    }
}
