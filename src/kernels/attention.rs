//! Causal attention of a step's rows over paged keys and values.

use super::Cpu;
use super::isa::Kernel;
use super::kv::{D_HEAD_MAX, KvFormat, KvLayer};
use super::math::{exp, tanh};
use super::pool::Disjoint;
use super::simd::Simd;
use crate::limits::PAGE_POSITIONS;
use std::ops::Range;

/// Keys of one tile, counted from position 0 of the sequence.
const TILE: usize = PAGE_POSITIONS;
/// Tiles of one piece of a context. Pieces have a softmax of their own and are merged in ascending order, always.
const PIECE_TILES: usize = 512 / TILE;
/// Query rows (head and position) that share the keys in registers.
const ROWS: usize = 6;
/// Neighbouring positions of one sequence in one task at most.
const GROUP_POSITIONS: usize = 16;

/// One row of the step: its place in its sequence, and the pages that hold the sequence (page i has positions from
/// 64 i on; at least up to `position`, whose key is already written).
#[derive(Clone, Copy, Debug)]
pub struct AttentionRow<'a> {
    pub position: u32,
    pub pages: &'a [u32],
}

/// What is the same for all rows of a block.
#[derive(Clone, Copy, Debug)]
pub struct AttentionShape {
    /// A multiple of `n_kv_heads`; head h reads KV head h / (n_heads / n_kv_heads).
    pub n_heads: usize,
    pub n_kv_heads: usize,
    pub d_head: usize,
    /// Multiplies the scores.
    pub scale: f32,
    /// The row at p sees keys p - window + 1 to p.
    pub window: Option<u32>,
    /// Scores become cap * tanh(score / cap), before masking.
    pub softcap: Option<f32>,
}

/// out[row, head] = softmax(scale * q K^T) V over the keys that the row sees; `q` and `out` are `[rows, n_heads * d_head]`.
/// A row's bits depend on its own query, keys and values only.
pub fn attention(
    cpu: &Cpu,
    shape: &AttentionShape,
    kv: &KvLayer,
    rows: &[AttentionRow<'_>],
    q: &[f32],
    out: &mut [f32],
) {
    let width = shape.n_heads * shape.d_head;
    assert!(shape.n_kv_heads > 0 && shape.n_heads.is_multiple_of(shape.n_kv_heads));
    assert!(shape.n_kv_heads == kv.n_kv_heads() && shape.d_head == kv.d_head());
    assert!(q.len() == rows.len() * width && out.len() == q.len());
    assert!(shape.window != Some(0), "a window sees at least its own position");
    for row in rows {
        assert!(row.position as usize / TILE < row.pages.len(), "no page for position {}", row.position);
    }
    let groups = groups(rows);
    let out = Disjoint::new(out);
    cpu.pool.run(groups.len() * shape.n_kv_heads, &|task| {
        let (group, kv_head) = (&groups[task / shape.n_kv_heads], task % shape.n_kv_heads);
        cpu.isa.run(Group { shape, kv, rows, q, out: &out, group: group.clone(), kv_head });
    });
}

/// Runs of rows that read the same pages, so that one walk over the keys serves them.
fn groups(rows: &[AttentionRow<'_>]) -> Vec<Range<usize>> {
    let mut groups: Vec<Range<usize>> = Vec::with_capacity(rows.len());
    for (i, row) in rows.iter().enumerate() {
        match groups.last_mut() {
            Some(group) if group.len() < GROUP_POSITIONS && shares(&rows[group.start], row) => {
                group.end = i + 1
            }
            _ => groups.push(i..i + 1),
        }
    }
    groups
}

/// Whether two rows have the same last tile, and the same pages up to there.
fn shares(a: &AttentionRow<'_>, b: &AttentionRow<'_>) -> bool {
    let tiles = a.position as usize / TILE + 1;
    tiles == b.position as usize / TILE + 1
        && (std::ptr::eq(a.pages.as_ptr(), b.pages.as_ptr()) || a.pages[..tiles] == b.pages[..tiles])
}

/// The work of one task: some neighbouring rows, the heads of one KV head.
struct Group<'a> {
    shape: &'a AttentionShape,
    kv: &'a KvLayer,
    rows: &'a [AttentionRow<'a>],
    q: &'a [f32],
    out: &'a Disjoint<'a, f32>,
    group: Range<usize>,
    kv_head: usize,
}

/// One query: which row and head.
#[derive(Clone, Copy, Default)]
struct Query {
    position: usize,
    /// Where its coordinates start in `q` and `out`.
    at: usize,
}

/// Running softmax of up to six queries over a piece of the context: the largest score, the sum of exp(score - largest),
/// and the sum of values so weighted. A query that has seen no key has -infinity, 0 and zeros.
struct Running {
    largest: [f32; ROWS],
    sum: [f32; ROWS],
    values: [[f32; D_HEAD_MAX]; ROWS],
}

impl Running {
    #[inline(always)]
    fn new() -> Running {
        Running { largest: [f32::NEG_INFINITY; ROWS], sum: [0.0; ROWS], values: [[0.0; D_HEAD_MAX]; ROWS] }
    }

    #[inline(always)]
    fn clear(&mut self, d_head: usize) {
        (self.largest, self.sum) = ([f32::NEG_INFINITY; ROWS], [0.0; ROWS]);
        self.values.iter_mut().for_each(|values| values[..d_head].fill(0.0));
    }
}

impl Kernel for Group<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let heads = self.shape.n_heads / self.shape.n_kv_heads;
        let queries = self.group.len() * heads;
        let (mut total, mut piece) = (Running::new(), Running::new());
        let mut i = 0;
        while i < queries {
            let mut query = [Query::default(); ROWS];
            let len = ROWS.min(queries - i);
            for (j, query) in query[..len].iter_mut().enumerate() {
                let (row, head) =
                    (self.group.start + (i + j) / heads, self.kv_head * heads + (i + j) % heads);
                let at = (row * self.shape.n_heads + head) * self.shape.d_head;
                *query = Query { position: self.rows[row].position as usize, at };
            }
            match len {
                6 => self.queries::<S, 6>(s, &query, &mut total, &mut piece),
                5 => self.queries::<S, 5>(s, &query, &mut total, &mut piece),
                4 => self.queries::<S, 4>(s, &query, &mut total, &mut piece),
                3 => self.queries::<S, 3>(s, &query, &mut total, &mut piece),
                2 => self.queries::<S, 2>(s, &query, &mut total, &mut piece),
                _ => self.queries::<S, 1>(s, &query, &mut total, &mut piece),
            }
            i += len;
        }
    }
}

impl Group<'_> {
    /// R queries over the whole context, piece after piece. Tiles that a query does not see change none of its bits.
    #[inline(always)]
    fn queries<S: Simd, const R: usize>(
        &self,
        s: S,
        query: &[Query; ROWS],
        total: &mut Running,
        piece: &mut Running,
    ) {
        let d_head = self.shape.d_head;
        let first = query[..R].iter().map(|query| self.first_key(query.position)).min().unwrap_or(0);
        let last = query[..R].iter().map(|query| query.position).max().unwrap_or(0);
        total.clear(d_head);
        for piece_start in (first / TILE / PIECE_TILES * PIECE_TILES..=last / TILE).step_by(PIECE_TILES) {
            piece.clear(d_head);
            let tiles = piece_start.max(first / TILE)..(piece_start + PIECE_TILES).min(last / TILE + 1);
            for tile in tiles {
                self.tile::<S, R>(s, query, tile, piece);
            }
            merge::<S, R>(s, d_head, total, piece);
        }
        for r in 0..R {
            // SAFETY: each row and head belongs to one task; d_head values lie there, a multiple of 16.
            unsafe {
                let out = self.out.part(query[r].at, d_head);
                let inverse = s.splat(1.0 / total.sum[r]);
                for d in (0..d_head).step_by(16) {
                    let mean = s.mul(s.load(total.values[r].as_ptr().add(d)), inverse);
                    // Adding 0 makes a zero positive: which sign it had may depend on keys that were masked.
                    s.store(out.as_mut_ptr().add(d), s.add(mean, s.zero()));
                }
            }
        }
    }

    /// The first key that a row at `position` sees.
    #[inline(always)]
    fn first_key(&self, position: usize) -> usize {
        self.shape.window.map_or(0, |window| (position + 1).saturating_sub(window as usize))
    }

    /// Adds the 64 keys of one tile to the running softmax of R queries.
    #[inline(always)]
    fn tile<S: Simd, const R: usize>(&self, s: S, query: &[Query; ROWS], tile: usize, running: &mut Running) {
        let page = self.rows[self.group.start].pages[tile];
        let mut weights = [[0.0f32; TILE]; R];
        let keys = self.kv.key_tile(page, self.kv_head);
        match (self.kv.format(), S::MANY_REGISTERS) {
            (KvFormat::F16, true) => self.scores::<S, F16, R, 4>(s, query, keys, &mut weights),
            (KvFormat::F16, false) => self.scores::<S, F16, R, 1>(s, query, keys, &mut weights),
            (KvFormat::F32, true) => self.scores::<S, F32, R, 4>(s, query, keys, &mut weights),
            (KvFormat::F32, false) => self.scores::<S, F32, R, 1>(s, query, keys, &mut weights),
        }
        let mut keep = [1.0f32; R];
        let (mut first, mut end) = (TILE, 0);
        for r in 0..R {
            let from = self.first_key(query[r].position).saturating_sub(tile * TILE).min(TILE);
            let to = (query[r].position + 1).saturating_sub(tile * TILE).min(TILE);
            if from < to {
                (first, end) = (first.min(from), end.max(to));
                keep[r] =
                    self.softmax(s, &mut weights[r], from..to, &mut running.largest[r], &mut running.sum[r]);
            } else {
                weights[r] = [0.0; TILE];
            }
        }
        let seen = first..end;
        if seen.is_empty() {
            return;
        }
        let values = self.kv.value_tile(page, self.kv_head);
        match self.kv.format() {
            KvFormat::F16 => self.add_values::<S, F16, R>(s, values, &weights, &keep, seen, running),
            KvFormat::F32 => self.add_values::<S, F32, R>(s, values, &weights, &keep, seen, running),
        }
    }

    /// `scores[r][key] = q . k`: one chain of fused additions over ascending d for each element. `C` vectors of keys are
    /// kept in registers at a time.
    #[inline(always)]
    fn scores<S: Simd, E: Element, const R: usize, const C: usize>(
        &self,
        s: S,
        query: &[Query; ROWS],
        keys: &[u8],
        scores: &mut [[f32; TILE]; R],
    ) {
        let d_head = self.shape.d_head;
        assert!(keys.len() == d_head * TILE * E::BYTES);
        let mut q = [self.q.as_ptr(); R];
        for r in 0..R {
            q[r] = self.q[query[r].at..][..d_head].as_ptr();
        }
        for column in (0..TILE).step_by(16 * C) {
            let mut acc = [[s.zero(); C]; R];
            // SAFETY: d below d_head and columns below 64, as asserted; a row of `scores` has 64 values.
            unsafe {
                for d in 0..d_head {
                    let mut k = [s.zero(); C];
                    for c in 0..C {
                        k[c] = E::load(s, keys.as_ptr().add((d * TILE + column + 16 * c) * E::BYTES));
                    }
                    for r in 0..R {
                        let x = s.splat(*q[r].add(d));
                        for c in 0..C {
                            acc[r][c] = s.fma(x, k[c], acc[r][c]);
                        }
                    }
                }
                for r in 0..R {
                    for c in 0..C {
                        s.store(scores[r].as_mut_ptr().add(column + 16 * c), acc[r][c]);
                    }
                }
            }
        }
    }

    /// Turns the scores of one query into weights exp(score - largest), 0 for keys outside `seen` (not empty), and brings
    /// `largest` and `sum` up to date. Returns the factor by which what was summed before shrinks.
    #[inline(always)]
    fn softmax<S: Simd>(
        &self,
        s: S,
        scores: &mut [f32; TILE],
        seen: Range<usize>,
        largest: &mut f32,
        sum: &mut f32,
    ) -> f32 {
        let scale = s.splat(self.shape.scale);
        let nothing = s.splat(f32::NEG_INFINITY);
        let (from, to) = (seen.start as isize, seen.end as isize);
        let mut x = [nothing; TILE / 16];
        let mut top = nothing;
        for c in 0..TILE / 16 {
            // SAFETY: 64 scores.
            let score = s.mul(unsafe { s.load(scores.as_ptr().add(16 * c)) }, scale);
            let score = match self.shape.softcap {
                Some(cap) => s.mul(tanh(s, s.div(score, s.splat(cap))), s.splat(cap)),
                None => score,
            };
            let first = 16 * c as isize;
            x[c] = s.select(s.lanes(from - first, to - first), score, nothing);
            top = s.max(x[c], top);
        }
        let new_largest = s.largest(top).max(*largest);
        let mut parts = s.zero();
        for c in 0..TILE / 16 {
            let weight = exp(s, s.sub(x[c], s.splat(new_largest)));
            // SAFETY: 64 scores.
            unsafe { s.store(scores.as_mut_ptr().add(16 * c), weight) }
            parts = s.add(parts, weight);
        }
        let keep = one_exp(s, *largest - new_largest);
        *sum = *sum * keep + s.sum(parts);
        *largest = new_largest;
        keep
    }

    /// values = values * keep + sum over keys of weight * V, keys ascending; keys outside `seen` weigh 0 for every query.
    #[inline(always)]
    fn add_values<S: Simd, E: Element, const R: usize>(
        &self,
        s: S,
        values: &[u8],
        weights: &[[f32; TILE]; R],
        keep: &[f32; R],
        seen: Range<usize>,
        running: &mut Running,
    ) {
        let d_head = self.shape.d_head;
        let mut d = 0;
        while d < d_head {
            d += match d_head - d {
                64.. if S::MANY_REGISTERS => {
                    add_columns::<S, E, R, 4>(s, values, weights, keep, seen.clone(), running, d, d_head)
                }
                _ => add_columns::<S, E, R, 1>(s, values, weights, keep, seen.clone(), running, d, d_head),
            };
        }
    }
}

/// [`Group::add_values`] for coordinates d to d + 16 C.
#[inline(always)]
#[allow(clippy::too_many_arguments)]
fn add_columns<S: Simd, E: Element, const R: usize, const C: usize>(
    s: S,
    values: &[u8],
    weights: &[[f32; TILE]; R],
    keep: &[f32; R],
    seen: Range<usize>,
    running: &mut Running,
    d: usize,
    d_head: usize,
) -> usize {
    assert!(d + 16 * C <= d_head && d_head <= D_HEAD_MAX && R <= ROWS && seen.end <= TILE);
    assert!(values.len() == d_head * TILE * E::BYTES);
    // SAFETY: keys below 64 and coordinates below d_head, as asserted.
    unsafe {
        let mut acc = [[s.zero(); C]; R];
        for r in 0..R {
            for c in 0..C {
                let old = s.load(running.values[r].as_ptr().add(d + 16 * c));
                acc[r][c] = s.mul(old, s.splat(keep[r]));
            }
        }
        for key in seen {
            let mut v = [s.zero(); C];
            for c in 0..C {
                v[c] = E::load(s, values.as_ptr().add((key * d_head + d + 16 * c) * E::BYTES));
            }
            for r in 0..R {
                let weight = s.splat(*weights[r].as_ptr().add(key));
                for c in 0..C {
                    acc[r][c] = s.fma(weight, v[c], acc[r][c]);
                }
            }
        }
        for r in 0..R {
            for c in 0..C {
                s.store(running.values[r].as_mut_ptr().add(d + 16 * c), acc[r][c]);
            }
        }
    }
    16 * C
}

/// total = total + piece, for queries that saw a key of the piece.
#[inline(always)]
fn merge<S: Simd, const R: usize>(s: S, d_head: usize, total: &mut Running, piece: &Running) {
    for r in 0..R {
        if piece.largest[r] == f32::NEG_INFINITY {
            continue;
        }
        let largest = total.largest[r].max(piece.largest[r]);
        let (old, new) = (one_exp(s, total.largest[r] - largest), one_exp(s, piece.largest[r] - largest));
        total.largest[r] = largest;
        total.sum[r] = total.sum[r] * old + piece.sum[r] * new;
        for d in (0..d_head).step_by(16) {
            // SAFETY: d_head is a multiple of 16, at most D_HEAD_MAX.
            unsafe {
                let before = s.mul(s.load(total.values[r].as_ptr().add(d)), s.splat(old));
                let after = s.fma(s.load(piece.values[r].as_ptr().add(d)), s.splat(new), before);
                s.store(total.values[r].as_mut_ptr().add(d), after);
            }
        }
    }
}

/// The exp of the vectors, for one number; 0 for -infinity.
#[inline(always)]
fn one_exp<S: Simd>(s: S, x: f32) -> f32 {
    s.largest(exp(s, s.splat(x)))
}

/// How a key or value is stored.
trait Element {
    const BYTES: usize;
    /// # Safety
    /// 16 elements to read.
    unsafe fn load<S: Simd>(s: S, from: *const u8) -> S::F;
}

struct F16;
struct F32;

impl Element for F16 {
    const BYTES: usize = 2;
    #[inline(always)]
    unsafe fn load<S: Simd>(s: S, from: *const u8) -> S::F {
        // SAFETY: the caller's word.
        unsafe { s.load_f16(from.cast()) }
    }
}

impl Element for F32 {
    const BYTES: usize = 4;
    #[inline(always)]
    unsafe fn load<S: Simd>(s: S, from: *const u8) -> S::F {
        // SAFETY: the caller's word.
        unsafe { s.load(from.cast()) }
    }
}
