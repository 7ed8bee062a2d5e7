//! Products of quantised tiles with int8 activations: exact integer sums of 32 values, then f32 with the scales.

use super::activations::{Activations, BlockScale};
use super::aligned::LINE;
use super::isa::{Isa, Kernel};
use super::packed::{PackedMatrix, STRIP, TILE_K, TileLayout};
use super::planes::{self, Upper};
use super::product::{Output, PREFETCH_AHEAD};
#[cfg(target_arch = "x86_64")]
use super::product_amx;
use super::simd::Simd;
use crate::format::ElementFormat;
use std::marker::PhantomData;
use std::ops::Range;

/// What the kernel must know of a format when it is compiled.
pub(super) trait TileKind {
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
            isa.run(Task { isa, w, layout, x, y, strips, rows, kind: PhantomData::<$kind> })
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

pub(super) struct Task<'a, T> {
    pub isa: Isa,
    pub w: &'a PackedMatrix,
    pub layout: &'a TileLayout,
    pub x: &'a Activations,
    pub y: &'a Output<'a>,
    pub strips: Range<usize>,
    pub rows: Range<usize>,
    pub kind: PhantomData<T>,
}

impl<T: TileKind> Kernel for Task<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        #[cfg(target_arch = "x86_64")]
        if S::MAY_HAVE_AMX && self.isa == Isa::Amx && self.rows.len() >= product_amx::ROWS_MIN {
            // SAFETY: a task has this instruction set only where it is available; `run` vouches for the output.
            return unsafe { self.run_with_amx(s) };
        }
        for strip in self.strips.clone() {
            // SAFETY: the rows are in range; `run` vouches for the output.
            unsafe { self.rows(s, strip, self.rows.clone()) }
        }
    }
}

impl<T: TileKind> Task<'_, T> {
    /// Some rows of one strip.
    /// # Safety
    /// The rows exist; nobody else writes this strip of them.
    #[inline(always)]
    pub(super) unsafe fn rows<S: Simd>(&self, s: S, strip: usize, rows: Range<usize>) {
        let mut row = rows.start;
        while row < rows.end {
            // SAFETY: the caller's word.
            row += unsafe {
                match rows.end - row {
                    8.. if S::INT8_ROWS >= 8 => self.some_rows::<S, 8>(s, strip, row),
                    4.. => self.some_rows::<S, 4>(s, strip, row),
                    2.. => self.some_rows::<S, 2>(s, strip, row),
                    _ => self.some_rows::<S, 1>(s, strip, row),
                }
            };
        }
    }

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
        // The first rows bring the strip near for the others.
        let first = row == self.rows.start;
        for tile in 0..tiles {
            // SAFETY: tiles of the strip, and R rows of k quants from `quants` on.
            unsafe {
                if first {
                    weights.prefetch::<S, T>(s, tile);
                }
                let sums = self.integer_sums::<S, R>(s, &weights, tile, quants, blocks);
                let (d, m) = scales::<S, T>(s, &weights, tile);
                for r in 0..R {
                    let block = blocks.get_unchecked(r * tiles + tile);
                    f[r] = add_tile::<S, T>(s, f[r], sums[r], (d, m), block);
                }
            }
        }
        // SAFETY: the caller's word.
        unsafe { self.write_rows(s, strip, row, &f) }
        R
    }

    /// Rows `row..row + R` of one strip to the output.
    /// # Safety
    /// They exist; nobody else writes this strip of them.
    #[inline(always)]
    pub(super) unsafe fn write_rows<S: Simd, const R: usize>(
        &self,
        s: S,
        strip: usize,
        row: usize,
        values: &[S::F; R],
    ) {
        for r in 0..R {
            // SAFETY: the caller's word.
            unsafe { self.y.write(s, row + r, strip, values[r]) }
        }
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
            let start = weights.strip.as_ptr();
            if T::NIBBLES {
                let groups = weights.nibble_groups::<S, T>(s, tile);
                for g in 0..4 {
                    let [a, b] = groups[g];
                    for r in 0..R {
                        let sum = if T::SCALES == 2 && g >= 2 { &mut high[r] } else { &mut low[r] };
                        *sum = s.dot(*sum, a, four(quants.add((r * tiles + tile) * TILE_K + 8 * g)));
                        *sum = s.dot(*sum, b, four(quants.add((r * tiles + tile) * TILE_K + 8 * g + 4)));
                    }
                }
            } else {
                for g in 0..8 {
                    let w = s.load_b(start.add(tile * 512 + g * 64));
                    for r in 0..R {
                        low[r] = s.dot_wide(low[r], w, four(quants.add((r * tiles + tile) * TILE_K + 4 * g)));
                    }
                }
            }
            if T::SCALES == 2 {
                let (first, second) = weights.two_scales(s, tile);
                for r in 0..R {
                    low[r] = s.add_i(s.mul_i(low[r], first), s.mul_i(high[r], second));
                }
            }
            low
        }
    }
}

/// `f` and what a tile adds to it: its integer sum times the scales of weights and activations, and the minimum's part.
#[inline(always)]
pub(super) fn add_tile<S: Simd, T: TileKind>(
    s: S,
    f: S::F,
    sum: S::I,
    (d, m): (S::F, S::F),
    block: &BlockScale,
) -> S::F {
    let f = s.fma(s.to_f(sum), s.mul(d, s.splat(block.scale)), f);
    match (T::MINIMUM, T::SCALES) {
        (false, _) => f,
        (true, 0) => s.fma(m, s.splat(block.scaled_sum), f),
        (true, _) => s.fnma(m, s.splat(block.scaled_sum), f),
    }
}

/// Four quants as one number.
/// # Safety
/// So many to read.
#[inline(always)]
unsafe fn four(quants: *const i8) -> i32 {
    // SAFETY: the caller's word.
    unsafe { quants.cast::<i32>().read_unaligned() }
}

pub(super) struct Weights<'a> {
    pub strip: &'a [u8],
    pub layout: &'a TileLayout,
}

impl Weights<'_> {
    /// Asks for the tile [`PREFETCH_AHEAD`] after one, with its scales; strips follow each other.
    #[inline(always)]
    pub(super) fn prefetch<S: Simd, T: TileKind>(&self, s: S, tile: usize) {
        let (layout, bytes) = (self.layout, if T::NIBBLES { 256 } else { 512 });
        let distance = PREFETCH_AHEAD / bytes;
        let (mut strips, mut tile) = (distance / layout.tiles, tile + distance % layout.tiles);
        if tile >= layout.tiles {
            (strips, tile) = (strips + 1, tile - layout.tiles);
        }
        let strip = self.strip.as_ptr().wrapping_add(strips * self.strip.len());
        let ask = |at: usize| s.prefetch(strip.wrapping_add(at));
        for line in 0..bytes / LINE {
            ask(tile * bytes + line * LINE);
        }
        let plane_bytes = planes::bytes(T::UPPER_BITS);
        for line in 0..plane_bytes / LINE {
            ask(layout.planes_at + tile * plane_bytes + line * LINE);
        }
        if T::SCALES > 0 {
            ask(layout.scales_at + tile * T::SCALES * STRIP);
        }
        if T::SCALES == 1 {
            ask(layout.minima_at + tile * STRIP);
        }
        let block = block_of::<T>(tile);
        ask(layout.d_at + block * STRIP * 2);
        if T::MINIMUM {
            ask(layout.m_at + block * STRIP * 2);
        }
    }

    /// The integer scales of the halves of a tile that has two.
    /// # Safety
    /// `tile` is in the strip.
    #[inline(always)]
    pub(super) unsafe fn two_scales<S: Simd>(&self, s: S, tile: usize) -> (S::I, S::I) {
        // SAFETY: the layout places two times 16 scales of this tile inside the strip.
        unsafe {
            let at = self.strip.as_ptr().add(self.layout.scales_at + tile * 2 * STRIP).cast::<i8>();
            (s.load_i8(at), s.load_i8(at.add(STRIP)))
        }
    }

    /// The four groups of a tile of nibbles: of group g the quants of k = 8g + i, and those of 8g + 4 + i.
    /// # Safety
    /// `tile` is in the strip.
    #[inline(always)]
    pub(super) unsafe fn nibble_groups<S: Simd, T: TileKind>(&self, s: S, tile: usize) -> [[S::B; 2]; 4] {
        let start = self.strip.as_ptr();
        // SAFETY: the layout places the groups and planes of this tile inside the strip.
        unsafe {
            let mut upper = None;
            if T::UPPER_BITS > 0 {
                let planes = self.layout.planes_at + tile * planes::bytes(T::UPPER_BITS);
                upper = Some(Upper::load(s, start.add(planes), T::UPPER_BITS));
            }
            let mut groups = [[s.load_b(start.add(tile * 256)); 2]; 4];
            for g in 0..4 {
                let both = s.load_b(start.add(tile * 256 + g * 64));
                let (mut a, mut b) = (s.low_nibbles(both), s.high_nibbles(both));
                if let Some(upper) = &mut upper {
                    (a, b) = upper.merge(s, T::UPPER_BITS, a, b);
                    upper.advance(s, T::UPPER_BITS, g);
                }
                groups[g] = [a, b];
            }
            groups
        }
    }
}

/// The block that a tile belongs to: its own, or one of eight tiles.
#[inline(always)]
fn block_of<T: TileKind>(tile: usize) -> usize {
    if T::SCALES == 0 { tile } else { tile / 8 }
}

/// d and m of a tile's 16 rows, with the integer scales of formats that have one per tile. Exact in f32.
/// # Safety
/// `tile` is in the strip.
#[inline(always)]
pub(super) unsafe fn scales<S: Simd, T: TileKind>(s: S, weights: &Weights<'_>, tile: usize) -> (S::F, S::F) {
    let (start, layout) = (weights.strip.as_ptr(), weights.layout);
    let block = block_of::<T>(tile);
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
