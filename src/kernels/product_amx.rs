//! The int8 product of many rows on matrix units (AMX): the same integer sums as everywhere, sixteen rows at a time, and
//! the same float operations after them.

use super::activations::BlockScale;
use super::packed::{STRIP, TILE_K};
use super::product_int8::{Task, TileKind, Weights, add_tile, scales};
use super::simd::{Simd, amx};
use std::cell::RefCell;
use std::marker::PhantomData;
use std::ops::Range;

/// Rows of a block. Fewer are faster without: a strip must be unpacked first.
pub(super) const ROWS_MIN: usize = 16;
/// Bytes of an unpacked tile: `[8 groups][16 rows][4 values of k]`.
const UNPACKED: usize = TILE_K * STRIP;
/// Unpacked weights at a time, but at least a strip: they should stay in the second-level cache.
const UNPACKED_MAX: usize = 256 << 10;

thread_local! {
    static SCRATCH: RefCell<Scratch> = const { RefCell::new(Scratch { sums: Vec::new(), strips: Vec::new() }) };
}

/// What a thread keeps from task to task.
#[derive(Default)]
struct Scratch {
    /// For each place of [`amx::Tiles::multiply`].
    sums: Vec<Sums>,
    /// Some unpacked strips.
    strips: Vec<Line>,
}

/// Strips `strips`, each `[tile][`[`UNPACKED`]`]`, and four places for sums.
struct Unpacked {
    strips: Range<usize>,
    bytes: *const i8,
    sums: *mut Sums,
    /// A strip to unpack meanwhile, and where to.
    next: Option<(usize, *mut i8)>,
}

/// A cache line.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Line([i8; 64]);

/// Integer sums, `[row][16]`.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Sums([i32; STRIP * 16]);

impl<T: TileKind> Task<'_, T> {
    /// [`super::isa::Kernel::run`] where there are matrix units and at least [`ROWS_MIN`] rows. Unpacks a few strips at
    /// a time and walks over the rows, so that a block of rows stays in the first cache and the strips in the second.
    /// # Safety
    /// [`amx::is_available`]; no other thread writes these rows and strips of the output.
    #[inline(always)]
    pub(super) unsafe fn run_with_amx<S: Simd>(&self, s: S) {
        let strip_bytes = self.layout.tiles * UNPACKED;
        // Rows that use a strip once wait for memory if it is not unpacked while the strip before is used.
        let once = self.rows.len() <= ROWS_MIN + ROWS_MIN / 2;
        let strips_at_once = if once { 1 } else { (UNPACKED_MAX / strip_bytes).max(1) };
        // Taken and put back: see the rule about closures at [`super::isa::Kernel`].
        let mut scratch = SCRATCH.take();
        let lines = (strips_at_once + usize::from(once)) * strip_bytes / 64;
        scratch.strips.resize(scratch.strips.len().max(lines), Line([0; 64]));
        scratch.sums.resize(4, Sums([0; STRIP * 16]));
        let (room, sums) = (scratch.strips.as_mut_ptr().cast::<i8>(), scratch.sums.as_mut_ptr());
        for (turn, start) in self.strips.clone().step_by(strips_at_once).enumerate() {
            let strips = start..self.strips.end.min(start + strips_at_once);
            // SAFETY: `room` holds the strips; the caller's word.
            unsafe {
                let place = |turn: usize| if once { room.add(turn % 2 * strip_bytes) } else { room };
                let bytes = place(turn);
                if !once || turn == 0 {
                    for (i, strip) in strips.clone().enumerate() {
                        for tile in 0..self.layout.tiles {
                            self.unpack(s, strip, tile, bytes.add(i * strip_bytes));
                        }
                    }
                }
                let next = (once && strips.end < self.strips.end).then(|| (strips.end, place(turn + 1)));
                self.unpacked_strips(s, &Unpacked { strips, bytes, sums, next });
            }
        }
        SCRATCH.set(scratch);
    }

    /// Writes the quants of a tile less their offset, group after group, to its place in `to`.
    /// # Safety
    /// `tile` is in the strip; `to` has room for the strip.
    #[inline(always)]
    unsafe fn unpack<S: Simd>(&self, s: S, strip: usize, tile: usize, to: *mut i8) {
        let weights = Weights { strip: self.w.strip(strip), layout: self.layout };
        weights.prefetch::<S, T>(s, tile);
        // SAFETY: the caller's word.
        unsafe {
            let to = to.cast::<u8>().add(tile * UNPACKED);
            if T::NIBBLES {
                let groups = weights.nibble_groups::<S, T>(s, tile);
                for g in 0..4 {
                    s.store_b(to.add(g * 128), s.sub_b(groups[g][0], T::OFFSET as u8));
                    s.store_b(to.add(g * 128 + 64), s.sub_b(groups[g][1], T::OFFSET as u8));
                }
            } else {
                for g in 0..8 {
                    let quants = s.load_b(weights.strip.as_ptr().add(tile * 512 + g * 64));
                    s.store_b(to.add(g * 64), s.sub_b(quants, T::OFFSET as u8));
                }
            }
        }
    }

    /// All rows of some strips: blocks of sixteen, and for the rest a block that begins earlier, or the vector kernel.
    /// Rows that two blocks compute get the same bits twice.
    /// # Safety
    /// As [`Task::run_with_amx`].
    #[inline(always)]
    unsafe fn unpacked_strips<S: Simd>(&self, s: S, unpacked: &Unpacked) {
        let Range { start: mut row, end } = self.rows;
        // SAFETY: the caller's word.
        unsafe {
            let tiles = amx::Tiles::new(ROWS_MIN, TILE_K / T::SCALES.max(1));
            while end - row > ROWS_MIN / 2 {
                let first = row.min(end - ROWS_MIN);
                self.block::<S, ROWS_MIN>(s, &tiles, first, unpacked);
                row = first + ROWS_MIN;
            }
            if row < end {
                for strip in unpacked.strips.clone() {
                    self.rows(s, strip, row..end);
                }
            }
        }
    }

    /// Rows `row..row + R` of some strips.
    /// # Safety
    /// As [`Task::unpacked_strips`]; `tiles` is made for R rows.
    #[inline(always)]
    unsafe fn block<S: Simd, const R: usize>(
        &self,
        s: S,
        tiles: &amx::Tiles,
        row: usize,
        unpacked: &Unpacked,
    ) {
        let (k, n_tiles) = (self.x.k(), self.layout.tiles);
        let rows = Rows::<T> {
            tiles,
            k,
            quants: self.x.quants()[row * k..][..R * k].as_ptr(),
            blocks: &self.x.blocks()[row * n_tiles..][..R * n_tiles],
            sums: unpacked.sums,
            kind: PhantomData,
        };
        for (i, strip) in unpacked.strips.clone().enumerate() {
            let weights = Weights { strip: self.w.strip(strip), layout: self.layout };
            let mut f = [s.zero(); R];
            // SAFETY: all tiles of the strip; the caller's word.
            unsafe {
                let w = unpacked.bytes.add(i * n_tiles * UNPACKED);
                rows.multiply::<0, 1>(0, w);
                // The matrix units work on the next tile while the sums of this one are turned into floats.
                for tile in (0..n_tiles).step_by(2) {
                    if tile + 1 < n_tiles {
                        rows.multiply::<2, 3>(tile + 1, w);
                    }
                    rows.add_sums::<S, 0, 1, R>(s, &weights, tile, &mut f);
                    if tile + 2 < n_tiles {
                        rows.multiply::<0, 1>(tile + 2, w);
                    }
                    if tile + 1 < n_tiles {
                        rows.add_sums::<S, 2, 3, R>(s, &weights, tile + 1, &mut f);
                    }
                    if let Some((strip, to)) = unpacked.next {
                        self.unpack(s, strip, tile, to);
                        if tile + 1 < n_tiles {
                            self.unpack(s, strip, tile + 1, to);
                        }
                    }
                }
                self.write_rows(s, strip, row, &f);
            }
        }
    }
}

/// Some rows of activations, and where their integer sums go.
struct Rows<'a, T> {
    tiles: &'a amx::Tiles,
    k: usize,
    /// `[rows, k]`.
    quants: *const i8,
    /// `[rows, tiles]`.
    blocks: &'a [BlockScale],
    sums: *mut Sums,
    kind: PhantomData<T>,
}

impl<T: TileKind> Rows<'_, T> {
    /// Begins the integer sums of a tile in place `LOW`; where it has two scales, those of its second half in `HIGH`.
    /// # Safety
    /// `w` is the unpacked strip, which has this tile.
    #[inline(always)]
    unsafe fn multiply<const LOW: usize, const HIGH: usize>(&self, tile: usize, w: *const i8) {
        // SAFETY: the caller's word.
        unsafe {
            let (x, w) = (self.quants.add(tile * TILE_K), w.add(tile * UNPACKED));
            self.tiles.multiply::<LOW>(x, self.k, w);
            if T::SCALES == 2 {
                self.tiles.multiply::<HIGH>(x.add(TILE_K / 2), self.k, w.add(UNPACKED / 2));
            }
        }
    }

    /// Adds what the sums of a tile contribute to `f`.
    /// # Safety
    /// [`Rows::multiply`] has been called for this tile and these places; the strip has this tile.
    #[inline(always)]
    unsafe fn add_sums<S: Simd, const LOW: usize, const HIGH: usize, const R: usize>(
        &self,
        s: S,
        weights: &Weights<'_>,
        tile: usize,
        f: &mut [S::F; R],
    ) {
        let n_tiles = weights.layout.tiles;
        // SAFETY: the sums have 16 rows of 16 for each place; the caller's word.
        unsafe {
            let low = self.sums.add(LOW).cast::<i32>();
            let high = self.sums.add(HIGH).cast::<i32>();
            self.tiles.store::<LOW>(low, 64);
            let mut parts = None;
            if T::SCALES == 2 {
                self.tiles.store::<HIGH>(high, 64);
                parts = Some(weights.two_scales(s, tile));
            }
            let (d, m) = scales::<S, T>(s, weights, tile);
            for r in 0..R {
                let mut sum = s.load_i(low.add(r * STRIP));
                if let Some((first, second)) = parts {
                    sum = s.add_i(s.mul_i(sum, first), s.mul_i(s.load_i(high.add(r * STRIP)), second));
                }
                let block = self.blocks.get_unchecked(r * n_tiles + tile);
                f[r] = add_tile::<S, T>(s, f[r], sum, (d, m), block);
            }
        }
    }
}
