//! Products of bfloat16 weights with activations rounded to bfloat16; [`super::bf16`] has the order of their sums.

use super::activations::Activations;
use super::aligned::LINE;
use super::bf16::{BLOCK, Chunk, add_chunk};
use super::isa::{Isa, Kernel};
use super::packed::{PackedMatrix, STRIP, TILE_K};
use super::product::{Output, ahead};
#[cfg(target_arch = "x86_64")]
use super::simd::amx;
use super::simd::{LANES, Simd};
use std::ops::Range;

/// Elements of a strip for [`TILE_K`] values of k: `[16 pairs][16 rows][2]`.
pub(super) const CHUNK: usize = TILE_K * STRIP;
/// Up to so many rows weights come from memory, and are asked for early.
const FEW_ROWS: usize = 32;

/// Computes rows `rows` of strips `strips` of `w`, which is stored in pairs.
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
    let task = Task { isa, w, x, y, strips, rows };
    #[cfg(target_arch = "x86_64")]
    if isa.multiplies_pairs() {
        // SAFETY: that was asked; the caller's word.
        return unsafe { task.run_in_pairs() };
    }
    isa.run(task);
}

pub(super) struct Task<'a> {
    isa: Isa,
    w: &'a PackedMatrix,
    pub x: &'a Activations,
    pub y: &'a Output<'a>,
    pub strips: Range<usize>,
    pub rows: Range<usize>,
}

impl Kernel for Task<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        #[cfg(target_arch = "x86_64")]
        if S::MAY_HAVE_AMX && self.isa == Isa::Amx && self.rows.len() >= BLOCK {
            // SAFETY: a task has this instruction set only where it is available; the strips and rows are in range; `run`
            // vouches for the output.
            unsafe {
                let tiles = amx::Tiles::new(BLOCK, 2 * TILE_K);
                for first in self.strips.clone().step_by(2) {
                    match self.strips.end - first {
                        2.. => self.blocks::<S, 2>(s, &tiles, first),
                        _ => self.blocks::<S, 1>(s, &tiles, first),
                    }
                }
            }
            return;
        }
        let mut strip = self.strips.start;
        while strip < self.strips.end {
            // SAFETY: the strips and rows are in range; `run` vouches for the output.
            strip += unsafe {
                match self.strips.end - strip {
                    2.. if S::MANY_REGISTERS => self.rows::<S, 2>(s, strip),
                    _ => self.rows::<S, 1>(s, strip),
                }
            };
        }
    }
}

impl Task<'_> {
    /// All rows of W strips from `strip` on.
    /// # Safety
    /// The strips exist; nobody else writes them.
    #[inline(always)]
    unsafe fn rows<S: Simd, const W: usize>(&self, s: S, strip: usize) -> usize {
        let mut row = self.rows.start;
        while row < self.rows.end {
            // SAFETY: the caller's word.
            row += unsafe {
                match self.rows.end - row {
                    4.. if S::MANY_REGISTERS => self.some_rows::<S, 4, W>(s, strip, row),
                    2.. => self.some_rows::<S, 2, W>(s, strip, row),
                    _ => self.some_rows::<S, 1, W>(s, strip, row),
                }
            };
        }
        W
    }

    /// Rows `row..row + R` of W strips. Every row runs the same operations whatever R and W are.
    /// # Safety
    /// As [`Task::rows`]; the rows exist.
    #[inline(always)]
    unsafe fn some_rows<S: Simd, const R: usize, const W: usize>(
        &self,
        s: S,
        strip: usize,
        row: usize,
    ) -> usize {
        let k = self.x.k();
        let x = self.x.rounded()[row * k..][..R * k].as_ptr();
        let w = self.strip_starts::<W>(strip);
        let few = self.rows.len() <= FEW_ROWS;
        let mut sums = [[s.zero(); W]; R];
        for chunk in 0..k / TILE_K {
            let mut at = Chunk { x, x_stride: k, w, w_stride: 2 * STRIP, len: TILE_K };
            // SAFETY: a chunk of the rows and of the strips.
            unsafe {
                at.x = x.add(chunk * TILE_K);
                for i in 0..W {
                    at.w[i] = w[i].add(chunk * CHUNK);
                }
                add_chunk(s, at, few.then(|| self.ahead::<W>(chunk)), &mut sums);
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

    /// Where W strips start.
    pub(super) fn strip_starts<const W: usize>(&self, strip: usize) -> [*const u16; W] {
        std::array::from_fn(|i| self.w.strip(strip + i).as_ptr().cast())
    }

    /// How far the weights that are asked for are from a chunk of W strips, in bytes.
    #[inline(always)]
    pub(super) fn ahead<const W: usize>(&self, chunk: usize) -> usize {
        let at = chunk * CHUNK * 2;
        ahead(at, self.x.k() * STRIP * 2, W) - at
    }

    /// All rows, at least [`BLOCK`], of W strips on matrix units: blocks of 32 and 16, the last of which begins earlier where
    /// fewer rows are left. Rows that two blocks compute get the same bits twice.
    /// # Safety
    /// As [`Task::rows`]; `tiles` is made for [`BLOCK`] rows of 64 bytes.
    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    unsafe fn blocks<S: Simd, const W: usize>(&self, s: S, tiles: &amx::Tiles, strip: usize) {
        let Range { start: mut row, end } = self.rows;
        // SAFETY: the caller's word; the rows of each block exist.
        unsafe {
            while row < end {
                if end - row > BLOCK {
                    self.block::<S, 2, W>(s, tiles, strip, [row, (row + BLOCK).min(end - BLOCK)]);
                } else {
                    self.block::<S, 1, W>(s, tiles, strip, [row.min(end - BLOCK)]);
                }
                row += 2 * BLOCK;
            }
        }
    }

    /// Sixteen rows from each of `rows` on, of W strips.
    /// # Safety
    /// As [`Task::blocks`].
    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    unsafe fn block<S: Simd, const X: usize, const W: usize>(
        &self,
        s: S,
        tiles: &amx::Tiles,
        strip: usize,
        rows: [usize; X],
    ) {
        let k = self.x.k();
        let mut x = [self.x.halves().as_ptr(); X];
        for i in 0..X {
            x[i] = self.x.halves()[rows[i] * k..][..BLOCK * k].as_ptr();
        }
        let w = self.strip_starts::<W>(strip);
        let few = self.rows.len() <= FEW_ROWS;
        tiles.clear();
        for chunk in 0..k / TILE_K {
            if few {
                let ahead = chunk * CHUNK * 2 + self.ahead::<W>(chunk);
                for line in 0..CHUNK * 2 / LINE {
                    for i in 0..W {
                        s.prefetch(w[i].cast::<u8>().wrapping_add(ahead + line * LINE));
                    }
                }
            }
            // SAFETY: sixteen rows of k, and chunks of the strips.
            unsafe {
                let mut at = (x, w);
                for i in 0..X {
                    at.0[i] = at.0[i].add(chunk * TILE_K);
                }
                for i in 0..W {
                    at.1[i] = at.1[i].add(chunk * CHUNK);
                }
                tiles.multiply_bf16(at.0, 2 * k, at.1, LINE);
            }
        }
        let mut sums = Sums([[0.0; LANES]; BLOCK]);
        for i in 0..X {
            for j in 0..W {
                // SAFETY: the sums have sixteen rows of sixteen; the caller's word.
                unsafe {
                    let to = sums.0.as_mut_ptr();
                    match 2 * i + j {
                        0 => tiles.store::<0>(to, LINE),
                        1 => tiles.store::<1>(to, LINE),
                        2 => tiles.store::<2>(to, LINE),
                        _ => tiles.store::<3>(to, LINE),
                    }
                    for r in 0..BLOCK {
                        self.y.write(s, rows[i] + r, strip + j, s.load(to.add(r).cast()));
                    }
                }
            }
        }
    }
}

/// Of one block and strip.
#[cfg(target_arch = "x86_64")]
#[repr(C, align(64))]
struct Sums([[f32; LANES]; BLOCK]);
