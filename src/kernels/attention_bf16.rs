//! Attention over keys and values in bfloat16, with queries and weights rounded to it; [`super::bf16`] has the order of its
//! sums.

use super::aligned::AlignedFloats;
use super::attention::{Ahead, Group, Query, Running, TILE, Tile};
use super::bf16::{BLOCK, Chunk, add_chunk};
use super::isa::Isa;
use super::math::exp_for_bf16;
use super::packed::TILE_K;
#[cfg(target_arch = "x86_64")]
use super::simd::amx;
use super::simd::{LANES, Simd};
use std::ops::Range;

/// Queries that vectors take at a time.
const ROWS: usize = 4;
/// Queries that matrix units take at a time: two blocks.
const MANY: usize = 2 * BLOCK;
/// From so many queries on matrix units are faster.
const MANY_MIN: usize = 8;

/// The queries of a group, scaled and rounded to bfloat16, and what a block of them needs.
#[derive(Default)]
pub(super) struct Rounded {
    /// `[queries, d_head]`, for vectors.
    q: Vec<f32>,
    /// Or so for matrix units: in bfloat16, two in a float, and zeros up to a multiple of [`MANY`] rows.
    halves: AlignedFloats,
    /// `[MANY, TILE]` scores, and as many weights in bfloat16. Rows that are no queries hold anything.
    scores: AlignedFloats,
    weights: AlignedFloats,
}

/// Scores or weights of some queries for the keys of a tile.
#[repr(C, align(64))]
struct Weights<const R: usize>([[f32; TILE]; R]);

impl Group<'_> {
    /// Rounds the queries, and clears `running` with room for as many as blocks hold.
    #[inline(always)]
    pub fn round<S: Simd>(&self, s: S, queries: &[Query], rounded: &mut Rounded, running: &mut Running) {
        let d_head = self.shape.d_head;
        let with_amx = self.uses_amx::<S>(queries);
        let rows = if with_amx { queries.len().next_multiple_of(MANY) } else { queries.len() };
        running.clear(rows, d_head);
        if with_amx {
            rounded.halves.set_zeros(rows * d_head / 2);
            if rounded.scores.is_empty() {
                rounded.scores.set_zeros(MANY * TILE);
                rounded.weights.set_zeros(MANY * TILE / 2);
            }
        } else {
            rounded.q.resize(rounded.q.len().max(rows * d_head), 0.0);
        }
        let scale = s.splat(self.shape.scale);
        for (i, query) in queries.iter().enumerate() {
            let q = &self.q[query.at..][..d_head];
            for d in (0..d_head).step_by(LANES) {
                let at = i * d_head + d;
                // SAFETY: d_head is a multiple of 16; row i is in the buffer.
                unsafe {
                    let value = s.to_bf16(s.mul(s.load(q.as_ptr().add(d)), scale));
                    if with_amx {
                        s.store_bf16(rounded.halves.as_mut_ptr().cast::<u16>().add(at), value);
                    } else {
                        s.store(rounded.q.as_mut_ptr().add(at), value);
                    }
                }
            }
        }
    }

    #[inline(always)]
    fn uses_amx<S: Simd>(&self, queries: &[Query]) -> bool {
        S::MAY_HAVE_AMX
            && self.isa == Isa::Amx
            && queries.len() >= MANY_MIN
            && self.shape.d_head.is_multiple_of(2 * LANES)
    }

    /// Adds the keys of one tile to the running softmax of all queries.
    #[inline(always)]
    pub fn bf16_tile<S: Simd>(
        &self,
        s: S,
        queries: &[Query],
        tile: &Tile<'_>,
        rounded: &mut Rounded,
        ahead: &mut Ahead<'_>,
        running: &mut Running,
    ) {
        let bytes = self.shape.d_head * TILE * 2;
        assert!(tile.keys.len() == bytes && tile.values.len() == bytes);
        #[cfg(target_arch = "x86_64")]
        if self.uses_amx::<S>(queries) {
            // SAFETY: a group has this instruction set only where it is available.
            let tiles = unsafe { amx::Tiles::new(BLOCK, 2 * TILE_K) };
            for from in (0..queries.len()).step_by(MANY) {
                // SAFETY: as above.
                unsafe { self.many(s, &tiles, queries, from, tile, rounded, ahead, running) }
            }
            return;
        }
        for from in (0..queries.len()).step_by(ROWS) {
            match queries.len() - from {
                4.. => self.few::<S, 4>(s, queries, from, tile, rounded, ahead, running),
                3 => self.few::<S, 3>(s, queries, from, tile, rounded, ahead, running),
                2 => self.few::<S, 2>(s, queries, from, tile, rounded, ahead, running),
                _ => self.few::<S, 1>(s, queries, from, tile, rounded, ahead, running),
            }
        }
    }

    /// Queries `from..from + R` on vectors.
    #[inline(always)]
    #[allow(clippy::too_many_arguments)]
    fn few<S: Simd, const R: usize>(
        &self,
        s: S,
        queries: &[Query],
        from: usize,
        tile: &Tile<'_>,
        rounded: &mut Rounded,
        ahead: &mut Ahead<'_>,
        running: &mut Running,
    ) {
        let (seen, all) = self.seen::<R>(&queries[from..], tile.index);
        if all.is_empty() {
            return;
        }
        let d_head = self.shape.d_head;
        let q = &rounded.q[from * d_head..][..R * d_head];
        let mut weights = Weights([[0.0; TILE]; R]);
        for column in (0..all.end).step_by(2 * LANES) {
            if S::MANY_REGISTERS {
                scores::<S, R, 2>(s, q, tile.keys, d_head, column, &mut weights);
            } else {
                scores::<S, R, 1>(s, q, tile.keys, d_head, column, &mut weights);
                scores::<S, R, 1>(s, q, tile.keys, d_head, column + LANES, &mut weights);
            }
        }
        let (largest, sum) = (&mut running.largest[from..][..R], &mut running.sum[from..][..R]);
        // SAFETY: nothing but the scores is written.
        let keep = unsafe {
            let nowhere = std::ptr::null_mut();
            self.rounded_softmax::<S, R, false>(s, &mut weights.0, nowhere, &seen, largest, sum, ahead)
        };
        let sums = &mut running.values[from * d_head..][..R * d_head];
        let mut d = 0;
        while d < d_head {
            d += match d_head - d {
                32.. if S::MANY_REGISTERS => {
                    add_values::<S, R, 2>(s, tile.values, &weights, &keep, all.end, sums, d, d_head)
                }
                _ => add_values::<S, R, 1>(s, tile.values, &weights, &keep, all.end, sums, d, d_head),
            };
        }
    }

    /// Queries `from..from + 32`, or as many as there are, on matrix units.
    /// # Safety
    /// [`amx::is_available`]; `tiles` is made for sixteen rows of 64 bytes.
    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    #[allow(clippy::too_many_arguments)]
    unsafe fn many<S: Simd>(
        &self,
        s: S,
        tiles: &amx::Tiles,
        queries: &[Query],
        from: usize,
        tile: &Tile<'_>,
        rounded: &mut Rounded,
        ahead: &mut Ahead<'_>,
        running: &mut Running,
    ) {
        let d_head = self.shape.d_head;
        let queries = &queries[from..queries.len().min(from + MANY)];
        let end = queries.iter().map(|query| query.position + 1).max().unwrap_or(0);
        let end = end.saturating_sub(tile.index * TILE).min(TILE);
        let first = queries.iter().map(|query| self.first_key(query.position)).min().unwrap_or(0);
        if end == 0 || first >= (tile.index + 1) * TILE {
            return;
        }
        let Rounded { halves: q, scores, weights, .. } = rounded;
        assert!(scores.len() == MANY * TILE && weights.len() == MANY * TILE / 2);
        let (keys, values) = (tile.keys.as_ptr().cast::<u16>(), tile.values.as_ptr().cast::<u16>());
        let q = q[from * d_head / 2..][..MANY * d_head / 2].as_ptr().cast::<u16>();
        // SAFETY: blocks of 16 rows and 16 columns inside scores, weights and sums; keys and values have the size that
        // `bf16_tile` asserts.
        unsafe {
            for column in (0..end).step_by(2 * LANES) {
                tiles.clear();
                for d in (0..d_head).step_by(TILE_K) {
                    let k = keys.add((d / 2 * TILE + column) * 2);
                    let x = [q.add(d), q.add(BLOCK * d_head + d)];
                    tiles.multiply_bf16(x, 2 * d_head, [k, k.add(2 * LANES)], 4 * TILE);
                }
                let to = scores.as_mut_ptr().add(column);
                tiles.store_square(to, TILE);
            }
        }
        let mut row = 0;
        while row < queries.len() {
            let left = &queries[row..];
            let scores = scores[row * TILE..].as_mut_ptr();
            let weights = weights[row * TILE / 2..].as_mut_ptr().cast::<u16>();
            let at = from + row;
            // SAFETY: rows up to the last query.
            row += unsafe {
                match left.len() {
                    4.. => self.weigh::<S, 4>(s, left, tile.index, at, scores, weights, ahead, running),
                    3 => self.weigh::<S, 3>(s, left, tile.index, at, scores, weights, ahead, running),
                    2 => self.weigh::<S, 2>(s, left, tile.index, at, scores, weights, ahead, running),
                    _ => self.weigh::<S, 1>(s, left, tile.index, at, scores, weights, ahead, running),
                }
            };
        }
        // SAFETY: as above.
        unsafe {
            let x = weights.as_ptr().cast::<u16>();
            let sums = running.values[from * d_head..][..MANY * d_head].as_mut_ptr();
            for d in (0..d_head).step_by(2 * LANES) {
                let to = sums.add(d);
                tiles.load_square(to, d_head);
                for key in (0..end).step_by(TILE_K) {
                    let v = values.add((key / 2 * d_head + d) * 2);
                    let x = [x.add(key), x.add(BLOCK * TILE + key)];
                    tiles.multiply_bf16(x, 2 * TILE, [v, v.add(2 * LANES)], 4 * d_head);
                }
                tiles.store_square(to, d_head);
            }
        }
    }

    /// Turns the scores of R queries, which are `at` in `running`, into weights, and shrinks what was summed before.
    /// # Safety
    /// [`amx::is_available`]; R rows of 64 to read and to write.
    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    #[allow(clippy::too_many_arguments)]
    unsafe fn weigh<S: Simd, const R: usize>(
        &self,
        s: S,
        queries: &[Query],
        index: usize,
        at: usize,
        scores: *mut f32,
        weights: *mut u16,
        ahead: &mut Ahead<'_>,
        running: &mut Running,
    ) -> usize {
        let d_head = self.shape.d_head;
        let (seen, _) = self.seen::<R>(queries, index);
        let (largest, sum) = (&mut running.largest[at..][..R], &mut running.sum[at..][..R]);
        // SAFETY: the caller's word.
        let keep = unsafe {
            let scores = &mut *scores.cast();
            self.rounded_softmax::<S, R, true>(s, scores, weights, &seen, largest, sum, ahead)
        };
        for r in 0..R {
            if keep[r] != 1.0 {
                let values = running.values[(at + r) * d_head..][..d_head].as_mut_ptr();
                for d in (0..d_head).step_by(LANES) {
                    // SAFETY: d_head values, a multiple of 16.
                    unsafe { s.store(values.add(d), s.mul(s.load(values.add(d)), s.splat(keep[r]))) }
                }
            }
        }
        R
    }

    /// [`Group::softmax`] of scores that are scaled already, with weights rounded to bfloat16 before anything reads them.
    /// With `AMX` they come as such to `halves`, R rows of 64, else in f32 to the scores' place.
    /// # Safety
    /// With `AMX` [`super::simd::amx::is_available`], and so much to write.
    #[inline(always)]
    #[allow(clippy::too_many_arguments)]
    unsafe fn rounded_softmax<S: Simd, const R: usize, const AMX: bool>(
        &self,
        s: S,
        scores: &mut [[f32; TILE]; R],
        halves: *mut u16,
        seen: &[Range<usize>; R],
        largest: &mut [f32],
        sum: &mut [f32],
        ahead: &mut Ahead<'_>,
    ) -> [f32; R] {
        let shrink = self.comparable::<S, R, false>(s, scores, seen, largest, ahead);
        for r in 0..R {
            // A query that sees no key of this tile may not have seen any: -infinity less itself is no number.
            let top = s.splat(if seen[r].is_empty() { 0.0 } else { largest[r] });
            let mut parts = s.zero();
            for c in 0..TILE / LANES {
                // SAFETY: 64 scores; the caller's word.
                unsafe {
                    let at = scores[r].as_mut_ptr().add(LANES * c);
                    let mut weight = exp_for_bf16(s, s.sub(s.load(at), top));
                    if AMX {
                        weight = s.round_and_store_bf16(halves.add(r * TILE + LANES * c), weight);
                    } else {
                        weight = s.to_bf16(weight);
                        s.store(at, weight);
                    }
                    parts = s.add(parts, weight);
                }
            }
            sum[r] = sum[r] * shrink[r] + s.sum(parts);
        }
        std::array::from_fn(|r| shrink[r])
    }
}

/// `scores[r][key] = q . k` for 16 C keys from `column` on.
#[inline(always)]
fn scores<S: Simd, const R: usize, const C: usize>(
    s: S,
    q: &[f32],
    keys: &[u8],
    d_head: usize,
    column: usize,
    scores: &mut Weights<R>,
) {
    assert!(q.len() == R * d_head && keys.len() == d_head * TILE * 2 && column + C * LANES <= TILE);
    let keys = keys.as_ptr().cast::<u16>();
    let mut sums = [[s.zero(); C]; R];
    for d in (0..d_head).step_by(TILE_K) {
        // SAFETY: by the assertion.
        unsafe {
            let mut w = [keys; C];
            for c in 0..C {
                w[c] = keys.add((d / 2 * TILE + column + c * LANES) * 2);
            }
            let (x, len) = (q.as_ptr().add(d), TILE_K.min(d_head - d));
            add_chunk(s, Chunk { x, x_stride: d_head, w, w_stride: 2 * TILE, len }, None, &mut sums);
        }
    }
    for r in 0..R {
        for c in 0..C {
            // SAFETY: by the assertion.
            unsafe { s.store(scores.0[r].as_mut_ptr().add(column + c * LANES), sums[r][c]) }
        }
    }
}

/// values = values * keep + sum over the keys before `end`, up to a multiple of 32, of weight * V, for coordinates d to
/// d + 16 C. All V of the tile must be finite: keys that a query does not see weigh 0.
#[inline(always)]
#[allow(clippy::too_many_arguments)]
fn add_values<S: Simd, const R: usize, const C: usize>(
    s: S,
    values: &[u8],
    weights: &Weights<R>,
    keep: &[f32; R],
    end: usize,
    sums: &mut [f32],
    d: usize,
    d_head: usize,
) -> usize {
    assert!(d + C * LANES <= d_head && sums.len() == R * d_head && end <= TILE);
    assert!(values.len() == d_head * TILE * 2);
    let values = values.as_ptr().cast::<u16>();
    // SAFETY: by the assertions; chunks of keys end at 64.
    unsafe {
        let mut all = [[s.zero(); C]; R];
        for r in 0..R {
            for c in 0..C {
                let old = s.load(sums.as_ptr().add(r * d_head + d + c * LANES));
                all[r][c] = s.mul(old, s.splat(keep[r]));
            }
        }
        for key in (0..end).step_by(TILE_K) {
            let mut w = [values; C];
            for c in 0..C {
                w[c] = values.add((key / 2 * d_head + d + c * LANES) * 2);
            }
            let x = weights.0.as_ptr().cast::<f32>().add(key);
            let chunk = Chunk { x, x_stride: TILE, w, w_stride: 2 * d_head, len: TILE_K };
            add_chunk(s, chunk, None, &mut all);
        }
        for r in 0..R {
            for c in 0..C {
                s.store(sums.as_mut_ptr().add(r * d_head + d + c * LANES), all[r][c]);
            }
        }
    }
    C * LANES
}
