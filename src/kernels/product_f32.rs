//! Products of any weights with f32 activations: a panel of weights is dequantised once for all rows of a task, and floats
//! that few rows read are taken as they are.

use super::activations::Activations;
use super::aligned::LINE;
use super::element::{Bf16, Element, F16, F32};
use super::isa::{Isa, Kernel};
use super::packed::{PackedMatrix, STRIP, Storage, TILE_K, TileLayout};
use super::planes::{self, Upper};
use super::product::{Output, ahead};
use super::simd::Simd;
use crate::format::ElementFormat;
use std::ops::Range;

/// Rows of one task: their partial sums wait on the stack between panels.
pub(super) const ROWS_MAX: usize = 64;
/// Strips side by side: with one row, two chains of additions instead of one.
const WIDTH: usize = 2;
/// Values of k dequantised at a time, a multiple of every block length.
const PANEL: usize = 256;

/// Up to so many rows read floats without a panel.
const DIRECT_ROWS: usize = 16;

/// Computes rows `rows` (at most [`ROWS_MAX`]) of strips `strips`.
/// # Safety
/// No other thread writes these rows and strips of `y`.
pub(super) unsafe fn run(
    isa: Isa,
    w: &PackedMatrix,
    x: &Activations,
    y: &Output<'_>,
    strips: Range<usize>,
    rows: Range<usize>,
) {
    isa.run(Task { w, x, y, strips, rows });
}

struct Task<'a> {
    w: &'a PackedMatrix,
    x: &'a Activations,
    y: &'a Output<'a>,
    strips: Range<usize>,
    rows: Range<usize>,
}

/// `[WIDTH][k of the panel][16]`.
#[repr(align(64))]
struct Panel([f32; WIDTH * PANEL * STRIP]);

/// Partial sums `[row][strip][16]`.
#[repr(align(64))]
struct Sums([[[f32; STRIP]; WIDTH]; ROWS_MAX]);

impl Kernel for Task<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        assert!(self.rows.len() <= ROWS_MAX);
        if let Storage::Dense { .. } = self.w.storage
            && self.rows.len() <= DIRECT_ROWS
        {
            return match self.w.format() {
                ElementFormat::F16 => self.direct::<S, F16>(s),
                ElementFormat::BF16 => self.direct::<S, Bf16>(s),
                _ => self.direct::<S, F32>(s),
            };
        }
        let mut panel = Panel([0.0; WIDTH * PANEL * STRIP]);
        for first in self.strips.clone().step_by(WIDTH) {
            let width = WIDTH.min(self.strips.end - first);
            let mut sums = Sums([[[0.0; STRIP]; WIDTH]; ROWS_MAX]);
            for from in (0..self.w.k()).step_by(PANEL) {
                let len = PANEL.min(self.w.k() - from);
                for i in 0..width {
                    let out = &mut panel.0[i * PANEL * STRIP..][..len * STRIP];
                    dequantize_panel(s, self.w, first + i, from, out);
                }
                self.add_panel(s, &panel, from, len, &mut sums);
            }
            for (row, sums) in self.rows.clone().zip(&sums.0) {
                for (i, sums) in sums.iter().enumerate().take(width) {
                    // SAFETY: sixteen sums; `run` vouches for the output.
                    unsafe { self.y.write(s, row, first + i, s.load(sums.as_ptr())) }
                }
            }
        }
    }
}

impl Task<'_> {
    /// Few rows of weights stored as floats.
    #[inline(always)]
    fn direct<S: Simd, E: Element>(&self, s: S) {
        for first in self.strips.clone().step_by(WIDTH) {
            let mut row = self.rows.start;
            while row < self.rows.end {
                row += match (self.rows.end - row, self.strips.end - first) {
                    (8.., WIDTH..) if S::MANY_REGISTERS => self.direct_rows::<S, E, 8, WIDTH>(s, first, row),
                    (4.., WIDTH..) if S::MANY_REGISTERS => self.direct_rows::<S, E, 4, WIDTH>(s, first, row),
                    (2.., WIDTH..) => self.direct_rows::<S, E, 2, WIDTH>(s, first, row),
                    (_, WIDTH..) => self.direct_rows::<S, E, 1, WIDTH>(s, first, row),
                    _ => self.direct_rows::<S, E, 1, 1>(s, first, row),
                };
            }
        }
    }

    /// Rows `row..row + R` of W strips, stored as E: the same sums as [`add_rows`] makes.
    #[inline(always)]
    fn direct_rows<S: Simd, E: Element, const R: usize, const W: usize>(
        &self,
        s: S,
        strip: usize,
        row: usize,
    ) -> usize {
        let k = self.x.k();
        let x = self.x.values()[row * k..][..R * k].as_ptr();
        let mut w = [self.w.strip(strip).as_ptr(); W];
        for i in 0..W {
            w[i] = self.w.strip(strip + i).as_ptr();
            assert!(self.w.strip(strip + i).len() == k * STRIP * E::BYTES);
        }
        let mut f = [[s.zero(); W]; R];
        for from in (0..k).step_by(TILE_K) {
            let start = from * STRIP * E::BYTES;
            let ahead = ahead(start, k * STRIP * E::BYTES, W) - start;
            for k_index in from..k.min(from + TILE_K) {
                let at = k_index * STRIP * E::BYTES;
                if at.is_multiple_of(LINE) {
                    for i in 0..W {
                        s.prefetch(w[i].wrapping_add(at + ahead));
                    }
                }
                let mut weights = [s.zero(); W];
                // SAFETY: k_index below k, rows and strips as cut above.
                unsafe {
                    for i in 0..W {
                        weights[i] = E::load(s, w[i].add(at));
                    }
                    for r in 0..R {
                        let x = s.splat(*x.add(r * k + k_index));
                        for i in 0..W {
                            f[r][i] = s.fma(x, weights[i], f[r][i]);
                        }
                    }
                }
            }
        }
        for r in 0..R {
            for i in 0..W {
                // SAFETY: `run` vouches for the output.
                unsafe { self.y.write(s, row + r, strip + i, f[r][i]) }
            }
        }
        R
    }

    #[inline(always)]
    fn add_panel<S: Simd>(&self, s: S, panel: &Panel, from: usize, len: usize, sums: &mut Sums) {
        let mut row = 0;
        while row < self.rows.len() {
            let x = &self.x.values()[(self.rows.start + row) * self.x.k() + from..];
            let left = self.rows.len() - row;
            let sums = &mut sums.0[row..];
            row += match left {
                8.. if S::MANY_REGISTERS => add_rows::<S, 8>(s, panel, x, self.x.k(), len, sums),
                4.. if S::MANY_REGISTERS => add_rows::<S, 4>(s, panel, x, self.x.k(), len, sums),
                2.. => add_rows::<S, 2>(s, panel, x, self.x.k(), len, sums),
                _ => add_rows::<S, 1>(s, panel, x, self.x.k(), len, sums),
            };
        }
    }
}

/// Goes on with the sums of R rows: one chain of fused additions over ascending k for each element, whatever R is.
/// `x` starts at the panel's first k of the first row; rows are `stride` apart.
#[inline(always)]
fn add_rows<S: Simd, const R: usize>(
    s: S,
    panel: &Panel,
    x: &[f32],
    stride: usize,
    len: usize,
    sums: &mut [[[f32; STRIP]; WIDTH]],
) -> usize {
    assert!(len <= PANEL && sums.len() >= R && x.len() >= (R - 1) * stride + len);
    let mut f = [[s.zero(); WIDTH]; R];
    // SAFETY: by the assertion all indices are inside.
    unsafe {
        for r in 0..R {
            for i in 0..WIDTH {
                f[r][i] = s.load(sums[r][i].as_ptr());
            }
        }
        for k in 0..len {
            let mut w = [s.zero(); WIDTH];
            for i in 0..WIDTH {
                w[i] = s.load(panel.0.as_ptr().add((i * PANEL + k) * STRIP));
            }
            for r in 0..R {
                let x = s.splat(*x.as_ptr().add(r * stride + k));
                for i in 0..WIDTH {
                    f[r][i] = s.fma(x, w[i], f[r][i]);
                }
            }
        }
        for r in 0..R {
            for i in 0..WIDTH {
                s.store(sums[r][i].as_mut_ptr(), f[r][i]);
            }
        }
    }
    R
}

/// Writes `[k][16]` for `out.len() / 16` values of k from `from` on (a multiple of [`PANEL`]) of one strip.
#[inline(always)]
fn dequantize_panel<S: Simd>(s: S, w: &PackedMatrix, strip: usize, from: usize, out: &mut [f32]) {
    let strip = w.strip(strip);
    match &w.storage {
        Storage::Tiles(layout) => {
            for (i, out) in out.chunks_exact_mut(TILE_K * STRIP).enumerate() {
                // SAFETY: the tile is in the strip, `out` takes 32 x 16 values.
                unsafe { dequantize_tile(s, layout, strip, from / TILE_K + i, out.as_mut_ptr()) }
            }
        }
        Storage::Dense { element_bytes } => {
            let elements = strip[from * STRIP * element_bytes..].chunks_exact(STRIP * element_bytes);
            for (out, column) in out.chunks_exact_mut(STRIP).zip(elements) {
                // SAFETY: 16 elements of the format to read, 16 values to write.
                unsafe {
                    let values = match w.format() {
                        ElementFormat::F16 => s.load_f16(column.as_ptr().cast()),
                        ElementFormat::BF16 => s.load_bf16(column.as_ptr().cast()),
                        _ => s.load(column.as_ptr().cast()),
                    };
                    s.store(out.as_mut_ptr(), values);
                }
            }
        }
        Storage::Pairs => {
            for (pair, out) in out.chunks_exact_mut(2 * STRIP).enumerate() {
                // SAFETY: 16 pairs to read, `from` is even; 32 values to write.
                unsafe {
                    let (first, second) =
                        s.load_bf16_pairs(strip.as_ptr().cast::<u16>().add((from + 2 * pair) * STRIP));
                    s.store(out.as_mut_ptr(), first);
                    s.store(out.as_mut_ptr().add(STRIP), second);
                }
            }
        }
        Storage::Rows { .. } => {
            let mut values = [0.0; PANEL];
            let len = out.len() / STRIP;
            for row in 0..STRIP {
                w.dequantize_part(strip, row, from, &mut values[..len]);
                for (column, value) in out.chunks_exact_mut(STRIP).zip(values) {
                    column[row] = value;
                }
            }
        }
    }
}

/// The values of one tile, `[32][16]`: as in [`super::blocks::Block`], products exact, one rounding in the last addition.
/// # Safety
/// `tile` is in the strip; 512 f32 to write.
#[inline(always)]
unsafe fn dequantize_tile<S: Simd>(s: S, layout: &TileLayout, strip: &[u8], tile: usize, out: *mut f32) {
    let offset = s.splat(layout.rule.offset as f32);
    let start = strip.as_ptr();
    let block = tile / layout.tiles_per_block * STRIP;
    let per_tile = layout.rule.scales;
    // SAFETY: the layout places all that is read here inside the strip; the caller vouches for `out`.
    unsafe {
        let d = s.load_f16(start.add(layout.d_at).cast::<u16>().add(block));
        let mut scales = [d; 2];
        if per_tile > 0 {
            for (i, scale) in scales.iter_mut().enumerate() {
                let place = tile * per_tile + i.min(per_tile - 1);
                *scale = s.mul(d, s.to_f(s.load_i8(start.add(layout.scales_at + place * STRIP).cast())));
            }
        }
        let mut m = None;
        if layout.rule.has_minimum {
            let d = s.load_f16(start.add(layout.m_at).cast::<u16>().add(block));
            m = Some(if per_tile > 0 {
                let minima = s.to_f(s.load_u8(start.add(layout.minima_at + tile * STRIP)));
                s.sub(s.zero(), s.mul(d, minima))
            } else {
                d
            });
        }
        let mut upper = None;
        if layout.upper_bits > 0 {
            let planes = layout.planes_at + tile * planes::bytes(layout.upper_bits);
            upper = Some(Upper::load(s, start.add(planes), layout.upper_bits));
        }
        for g in 0..4 {
            let (mut first, mut second) = if layout.nibbles {
                let both = s.load_b(start.add(tile * 256 + g * 64));
                (s.low_nibbles(both), s.high_nibbles(both))
            } else {
                let at = start.add(tile * 512 + g * 128);
                (s.load_b(at), s.load_b(at.add(64)))
            };
            if let Some(upper) = &mut upper {
                (first, second) = upper.merge(s, layout.upper_bits, first, second);
                upper.advance(s, layout.upper_bits, g);
            }
            let scale = scales[g / 2];
            for (i, quants) in [first, second].into_iter().enumerate() {
                let out = out.add((8 * g + 4 * i) * STRIP);
                store_values(s, s.byte::<0>(quants), offset, scale, m, out);
                store_values(s, s.byte::<1>(quants), offset, scale, m, out.add(STRIP));
                store_values(s, s.byte::<2>(quants), offset, scale, m, out.add(2 * STRIP));
                store_values(s, s.byte::<3>(quants), offset, scale, m, out.add(3 * STRIP));
            }
        }
    }
}

/// scale * (q - offset), and + m where there is one.
/// # Safety
/// 16 f32 to write.
#[inline(always)]
unsafe fn store_values<S: Simd>(s: S, q: S::I, offset: S::F, scale: S::F, m: Option<S::F>, out: *mut f32) {
    let product = s.mul(scale, s.sub(s.to_f(q), offset));
    let value = match m {
        Some(m) => s.add(product, m),
        None => product,
    };
    // SAFETY: the caller's word.
    unsafe { s.store(out, value) }
}
