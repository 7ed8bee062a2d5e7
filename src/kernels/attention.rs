//! Causal attention of a step's rows over paged keys and values.

use super::aligned::{AlignedFloats, LINE};
use super::attention_bf16::Rounded;
use super::element::{Element, F16, F32};
use super::isa::Kernel;
use super::kv::{KvFormat, KvLayer, SCALED};
use super::math::{exp, f16_to_f32, tanh};
use super::pool::Disjoint;
use super::simd::{LANES, Simd};
use super::{Cpu, Isa};
use crate::limits::PAGE_POSITIONS;
use std::cell::RefCell;
use std::ops::Range;

/// Keys of one tile, counted from position 0 of the sequence.
pub(super) const TILE: usize = PAGE_POSITIONS;
/// Tiles of one piece of a context. Pieces have a softmax of their own and are merged in ascending order, always.
const PIECE_TILES: usize = 512 / TILE;
/// Query rows (head and position) that share the keys in registers.
const ROWS: usize = 6;
/// Neighbouring positions of one sequence in one task at most.
const GROUP_POSITIONS: usize = 16;

/// Up to so many rows one of them may have a context so long that a thread should not have it alone.
const FEW_ROWS: usize = 64;

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
    let (groups, out) = (groups(rows), Disjoint::new(out));
    let of = |task: usize| Group {
        isa: cpu.isa,
        shape,
        kv,
        rows,
        q,
        out: &out,
        group: groups[task / shape.n_kv_heads].clone(),
        kv_head: task % shape.n_kv_heads,
    };
    let tasks = groups.len() * shape.n_kv_heads;
    let is_long = rows.iter().any(|row| row.position as usize / TILE >= PIECE_TILES);
    if rows.len() > FEW_ROWS || !is_long || cpu.pool.threads() == 1 {
        return cpu.pool.run(tasks, &|task| cpu.isa.run(of(task)));
    }
    // Threads share the pieces of long contexts; they are merged in the same order as ever.
    let pieces: Vec<(usize, usize)> =
        (0..tasks).flat_map(|task| of(task).pieces().map(move |piece| (task, piece))).collect();
    let mut running: Vec<Running> = PIECES.take();
    running.resize_with(running.len().max(pieces.len()), Running::default);
    let slots = Disjoint::new(&mut running[..pieces.len()]);
    cpu.pool.run(pieces.len(), &|i| {
        // SAFETY: each slot belongs to one task.
        let [running] = (unsafe { slots.part(i, 1) }) else { return };
        cpu.isa.run(Piece { group: of(pieces[i].0), tile: pieces[i].1, running });
    });
    cpu.pool.run(tasks, &|task| {
        let from = pieces.partition_point(|piece| piece.0 < task);
        let to = pieces.partition_point(|piece| piece.0 <= task);
        cpu.isa.run(Merge { group: of(task), pieces: &running[from..to] });
    });
    PIECES.set(running);
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
pub(super) struct Group<'a> {
    pub isa: Isa,
    pub shape: &'a AttentionShape,
    kv: &'a KvLayer,
    rows: &'a [AttentionRow<'a>],
    pub q: &'a [f32],
    out: &'a Disjoint<'a, f32>,
    group: Range<usize>,
    kv_head: usize,
}

/// One query: which row and head.
#[derive(Clone, Copy, Default)]
pub(super) struct Query {
    pub position: usize,
    /// Where its coordinates start in `q` and `out`.
    pub at: usize,
}

/// Running softmax of some queries: the largest score, the sum of exp(score - largest), and the sum of values so
/// weighted. A query that has seen no key has -infinity, 0 and zeros.
#[derive(Default)]
pub(super) struct Running {
    pub largest: Vec<f32>,
    pub sum: Vec<f32>,
    /// `[queries, d_head]`.
    pub values: AlignedFloats,
}

impl Running {
    pub fn clear(&mut self, queries: usize, d_head: usize) {
        for (buffer, value) in [(&mut self.largest, f32::NEG_INFINITY), (&mut self.sum, 0.0)] {
            buffer.clear();
            buffer.resize(queries, value);
        }
        self.values.set_zeros(queries * d_head);
    }
}

/// What a thread keeps from task to task.
#[derive(Default)]
struct Scratch {
    queries: Vec<Query>,
    /// Over the pieces so far, and over the piece at hand.
    total: Running,
    piece: Running,
    room: Room,
}

/// Of one piece.
#[derive(Default)]
struct Room {
    tile: WideTile,
    rounded: Rounded,
}

/// Keys and values of a tile in f32, where several blocks of queries read them.
#[derive(Default)]
struct WideTile {
    keys: Vec<f32>,
    values: Vec<f32>,
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
    /// What the caller keeps from call to call.
    static PIECES: RefCell<Vec<Running>> = RefCell::default();
}

/// The keys and values of one KV head in one page.
pub(super) struct Tile<'a> {
    pub index: usize,
    format: KvFormat,
    pub keys: &'a [u8],
    pub values: &'a [u8],
}

/// Keys and values that come next, asked for in as many shares as there are queries to spread the wait over.
#[derive(Default)]
pub(super) struct Ahead<'a> {
    keys: &'a [u8],
    values: &'a [u8],
    /// Bytes of each that were asked for, and that one share is.
    asked: usize,
    share: usize,
}

impl<'a> Ahead<'a> {
    fn new((keys, values): (&'a [u8], &'a [u8]), shares: usize) -> Ahead<'a> {
        let share = keys.len().div_ceil(shares).next_multiple_of(LINE);
        Ahead { keys, values, asked: 0, share }
    }

    #[inline(always)]
    fn ask<S: Simd>(&mut self, s: S) {
        let end = (self.asked + self.share).min(self.keys.len());
        while self.asked < end {
            s.prefetch(self.keys.as_ptr().wrapping_add(self.asked));
            s.prefetch(self.values.as_ptr().wrapping_add(self.asked));
            self.asked += LINE;
        }
    }
}

impl Kernel for Group<'_> {
    type Output = ();

    /// All of the context.
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        // Taken and put back: see the rule about closures at [`Kernel`].
        let mut scratch = SCRATCH.take();
        let Scratch { queries, total, piece, room } = &mut scratch;
        self.set_queries(queries);
        total.clear(queries.len(), self.shape.d_head);
        for start in self.pieces() {
            self.piece(s, queries, start, room, piece);
            merge(s, self.shape.d_head, total, piece);
        }
        self.write(s, queries, total);
        SCRATCH.set(scratch);
    }
}

/// One piece of the context of a group, from `tile` on.
struct Piece<'a> {
    group: Group<'a>,
    tile: usize,
    running: &'a mut Running,
}

impl Kernel for Piece<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let mut scratch = SCRATCH.take();
        self.group.set_queries(&mut scratch.queries);
        self.group.piece(s, &scratch.queries, self.tile, &mut scratch.room, self.running);
        SCRATCH.set(scratch);
    }
}

/// Puts the pieces of a group, in ascending order, together.
struct Merge<'a> {
    group: Group<'a>,
    pieces: &'a [Running],
}

impl Kernel for Merge<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let mut scratch = SCRATCH.take();
        let Scratch { queries, total, .. } = &mut scratch;
        self.group.set_queries(queries);
        total.clear(queries.len(), self.group.shape.d_head);
        for piece in self.pieces {
            merge(s, self.group.shape.d_head, total, piece);
        }
        self.group.write(s, queries, total);
        SCRATCH.set(scratch);
    }
}

impl Group<'_> {
    fn set_queries(&self, queries: &mut Vec<Query>) {
        let (d_head, heads) = (self.shape.d_head, self.shape.n_heads / self.shape.n_kv_heads);
        queries.clear();
        for row in self.group.clone() {
            for head in self.kv_head * heads..(self.kv_head + 1) * heads {
                let at = (row * self.shape.n_heads + head) * d_head;
                queries.push(Query { position: self.rows[row].position as usize, at });
            }
        }
    }

    /// The tiles that some row of the group sees.
    fn tiles(&self) -> Range<usize> {
        let positions = || self.rows[self.group.clone()].iter().map(|row| row.position as usize);
        let first = positions().map(|position| self.first_key(position)).min().unwrap_or(0);
        let last = positions().max().unwrap_or(0);
        first / TILE..last / TILE + 1
    }

    /// The first tiles of the pieces that some row of the group sees. Pieces start at multiples of their length.
    fn pieces(&self) -> impl Iterator<Item = usize> + use<> {
        let tiles = self.tiles();
        (tiles.start / PIECE_TILES * PIECE_TILES..tiles.end).step_by(PIECE_TILES)
    }

    /// All queries over the piece from tile `start` on, tile after tile. Tiles that a query does not see change none of
    /// its bits.
    #[inline(always)]
    fn piece<S: Simd>(&self, s: S, queries: &[Query], start: usize, room: &mut Room, running: &mut Running) {
        let d_head = self.shape.d_head;
        // Several blocks of queries read a tile of floats faster than one that each of them has to widen.
        let widen = match self.kv.format() {
            KvFormat::F32 | KvFormat::Bf16 => false,
            KvFormat::F16 => queries.len() > ROWS,
            KvFormat::Q8 => true,
        };
        let tiles = self.tiles();
        match self.kv.format() {
            KvFormat::Bf16 => self.round(s, queries, &mut room.rounded, running),
            _ => running.clear(queries.len(), d_head),
        }
        let end = (start + PIECE_TILES).min(tiles.end);
        for index in start.max(tiles.start)..end {
            let page = self.rows[self.group.start].pages[index];
            let (k, v) = (self.kv.key_tile(page, self.kv_head), self.kv.value_tile(page, self.kv_head));
            let tile = if widen {
                let WideTile { keys, values } = &mut room.tile;
                let (keys, values) = match self.kv.format() {
                    KvFormat::Q8 => (wide_keys(s, d_head, k, keys), wide_values(s, d_head, v, values)),
                    _ => (widened(s, k, keys), widened(s, v, values)),
                };
                Tile { index, format: KvFormat::F32, keys, values }
            } else {
                Tile { index, format: self.kv.format(), keys: k, values: v }
            };
            // The tile after this one comes nearer while this one is used.
            let mut ahead = Ahead::default();
            if index + 1 < end {
                let page = self.rows[self.group.start].pages[index + 1];
                let next = (self.kv.key_tile(page, self.kv_head), self.kv.value_tile(page, self.kv_head));
                ahead = Ahead::new(next, queries.len());
            }
            if tile.format == KvFormat::Bf16 {
                self.bf16_tile(s, queries, &tile, &mut room.rounded, &mut ahead, running);
                continue;
            }
            for from in (0..queries.len()).step_by(ROWS) {
                match queries.len() - from {
                    6.. => self.tile::<S, 6>(s, queries, from, &tile, &mut ahead, running),
                    5 => self.tile::<S, 5>(s, queries, from, &tile, &mut ahead, running),
                    4 => self.tile::<S, 4>(s, queries, from, &tile, &mut ahead, running),
                    3 => self.tile::<S, 3>(s, queries, from, &tile, &mut ahead, running),
                    2 => self.tile::<S, 2>(s, queries, from, &tile, &mut ahead, running),
                    _ => self.tile::<S, 1>(s, queries, from, &tile, &mut ahead, running),
                }
            }
        }
    }

    /// Means of the values, where the queries want them.
    #[inline(always)]
    fn write<S: Simd>(&self, s: S, queries: &[Query], total: &Running) {
        let d_head = self.shape.d_head;
        for (query, (sum, values)) in
            queries.iter().zip(total.sum.iter().zip(total.values.chunks_exact(d_head)))
        {
            // SAFETY: each row and head belongs to one task; d_head values lie there, a multiple of 16.
            unsafe {
                let out = self.out.part(query.at, d_head);
                let inverse = s.splat(1.0 / sum);
                for d in (0..d_head).step_by(16) {
                    let mean = s.mul(s.load(values.as_ptr().add(d)), inverse);
                    // Adding 0 makes a zero positive: which sign it had may depend on keys that were masked.
                    s.store(out.as_mut_ptr().add(d), s.add(mean, s.zero()));
                }
            }
        }
    }

    /// The first key that a row at `position` sees.
    #[inline(always)]
    pub fn first_key(&self, position: usize) -> usize {
        self.shape.window.map_or(0, |window| (position + 1).saturating_sub(window as usize))
    }

    /// Adds the keys of one tile to the running softmax of queries `from..from + R`.
    #[inline(always)]
    fn tile<S: Simd, const R: usize>(
        &self,
        s: S,
        queries: &[Query],
        from: usize,
        tile: &Tile<'_>,
        ahead: &mut Ahead<'_>,
        running: &mut Running,
    ) {
        let queries = &queries[from..][..R];
        let (seen, all) = self.seen::<R>(queries, tile.index);
        if all.is_empty() {
            return;
        }
        let mut weights = [[0.0f32; TILE]; R];
        match tile.format {
            KvFormat::F16 => self.all_scores::<S, F16, R>(s, queries, tile.keys, all.end, &mut weights),
            _ => self.all_scores::<S, F32, R>(s, queries, tile.keys, all.end, &mut weights),
        }
        let (largest, sum) = (&mut running.largest[from..][..R], &mut running.sum[from..][..R]);
        let keep = self.softmax(s, &mut weights, &seen, largest, sum, ahead);
        let d_head = self.shape.d_head;
        let sums = &mut running.values[from * d_head..][..R * d_head];
        match tile.format {
            KvFormat::F16 => self.add_values::<S, F16, R>(s, tile.values, &weights, &keep, all, sums),
            _ => self.add_values::<S, F32, R>(s, tile.values, &weights, &keep, all, sums),
        }
    }

    /// The keys of tile `index` that each query sees, and all between the first and the last of them.
    #[inline(always)]
    pub fn seen<const R: usize>(&self, queries: &[Query], index: usize) -> ([Range<usize>; R], Range<usize>) {
        let mut seen: [Range<usize>; R] = [const { 0..0 }; R];
        let (mut first, mut end) = (TILE, 0);
        for r in 0..R {
            let below = |key: usize| key.saturating_sub(index * TILE).min(TILE);
            seen[r] = below(self.first_key(queries[r].position))..below(queries[r].position + 1);
            if !seen[r].is_empty() {
                (first, end) = (first.min(seen[r].start), end.max(seen[r].end));
            }
        }
        (seen, first..end)
    }

    /// [`Group::scores`] of the keys before `end`, and some more up to a multiple of 16.
    #[inline(always)]
    fn all_scores<S: Simd, E: Element, const R: usize>(
        &self,
        s: S,
        queries: &[Query],
        keys: &[u8],
        end: usize,
        scores: &mut [[f32; TILE]; R],
    ) {
        let columns = end.div_ceil(16);
        match columns {
            4 if S::MANY_REGISTERS => self.scores::<S, E, R, 4>(s, queries, keys, 0, scores),
            3 if S::MANY_REGISTERS => self.scores::<S, E, R, 3>(s, queries, keys, 0, scores),
            2 if S::MANY_REGISTERS => self.scores::<S, E, R, 2>(s, queries, keys, 0, scores),
            _ => {
                for column in 0..columns {
                    self.scores::<S, E, R, 1>(s, queries, keys, 16 * column, scores);
                }
            }
        }
    }

    /// `scores[r][key] = q . k` for 16 C keys from `column` on: one chain of fused additions over ascending d for each.
    #[inline(always)]
    fn scores<S: Simd, E: Element, const R: usize, const C: usize>(
        &self,
        s: S,
        queries: &[Query],
        keys: &[u8],
        column: usize,
        scores: &mut [[f32; TILE]; R],
    ) {
        let d_head = self.shape.d_head;
        assert!(keys.len() == d_head * TILE * E::BYTES && column + 16 * C <= TILE);
        let mut q = [self.q.as_ptr(); R];
        for r in 0..R {
            q[r] = self.q[queries[r].at..][..d_head].as_ptr();
        }
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

    /// Turns the scores of each query into weights exp(score - largest), 0 for keys that it does not see, and brings
    /// `largest` and `sum` up to date. Returns the factors by which what was summed before shrinks.
    #[inline(always)]
    fn softmax<S: Simd, const R: usize>(
        &self,
        s: S,
        scores: &mut [[f32; TILE]; R],
        seen: &[Range<usize>; R],
        largest: &mut [f32],
        sum: &mut [f32],
        ahead: &mut Ahead<'_>,
    ) -> [f32; R] {
        let shrink = self.comparable::<S, R, true>(s, scores, seen, largest, ahead);
        for r in 0..R {
            if seen[r].is_empty() {
                scores[r] = [0.0; TILE];
                continue;
            }
            let mut parts = s.zero();
            for c in 0..TILE / LANES {
                // SAFETY: 64 scores.
                unsafe {
                    let at = scores[r].as_mut_ptr().add(LANES * c);
                    let weight = exp(s, s.sub(s.load(at), s.splat(largest[r])));
                    s.store(at, weight);
                    parts = s.add(parts, weight);
                }
            }
            sum[r] = sum[r] * shrink[r] + s.sum(parts);
        }
        std::array::from_fn(|r| shrink[r])
    }

    /// Brings scores into the form in which they are compared: scaled (with `SCALE`), capped, and -infinity for keys that
    /// the query does not see. Brings `largest` up to date, and returns the factors by which what was summed before
    /// shrinks.
    #[inline(always)]
    pub fn comparable<S: Simd, const R: usize, const SCALE: bool>(
        &self,
        s: S,
        scores: &mut [[f32; TILE]; R],
        seen: &[Range<usize>; R],
        largest: &mut [f32],
        ahead: &mut Ahead<'_>,
    ) -> [f32; LANES] {
        let scale = s.splat(self.shape.scale);
        let nothing = s.splat(f32::NEG_INFINITY);
        // One exponential for the factors of all queries; a query that sees no key of this tile keeps what it has.
        let mut shrink = [0.0; LANES];
        for r in 0..R {
            let (from, to) = (seen[r].start as isize, seen[r].end as isize);
            let mut top = nothing;
            for c in 0..TILE / LANES {
                // SAFETY: 64 scores.
                unsafe {
                    let at = scores[r].as_mut_ptr().add(LANES * c);
                    let mut score = s.load(at);
                    if SCALE {
                        score = s.mul(score, scale);
                    }
                    if let Some(cap) = self.shape.softcap {
                        score = s.mul(tanh(s, s.div(score, s.splat(cap))), s.splat(cap));
                    }
                    if to - from < TILE as isize {
                        let first = (LANES * c) as isize;
                        score = s.select(s.lanes(from - first, to - first), score, nothing);
                    }
                    s.store(at, score);
                    top = s.max(score, top);
                }
            }
            if from < to {
                let new_largest = s.largest(top).max(largest[r]);
                shrink[r] = largest[r] - new_largest;
                largest[r] = new_largest;
            }
            ahead.ask(s);
        }
        // SAFETY: sixteen values.
        unsafe { s.store(shrink.as_mut_ptr(), exp(s, s.load(shrink.as_ptr()))) }
        shrink
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
        sums: &mut [f32],
    ) {
        let d_head = self.shape.d_head;
        let mut d = 0;
        while d < d_head {
            d += match d_head - d {
                64.. if S::MANY_REGISTERS => {
                    add_columns::<S, E, R, 4>(s, values, weights, keep, seen.clone(), sums, d, d_head)
                }
                _ => add_columns::<S, E, R, 1>(s, values, weights, keep, seen.clone(), sums, d, d_head),
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
    sums: &mut [f32],
    d: usize,
    d_head: usize,
) -> usize {
    assert!(d + 16 * C <= d_head && sums.len() == R * d_head && seen.end <= TILE);
    assert!(values.len() == d_head * TILE * E::BYTES);
    // SAFETY: keys below 64 and coordinates below d_head, as asserted.
    unsafe {
        let mut acc = [[s.zero(); C]; R];
        for r in 0..R {
            for c in 0..C {
                let old = s.load(sums.as_ptr().add(r * d_head + d + 16 * c));
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
                s.store(sums.as_mut_ptr().add(r * d_head + d + 16 * c), acc[r][c]);
            }
        }
    }
    16 * C
}

/// total = total + piece, for queries that saw a key of the piece.
#[inline(always)]
fn merge<S: Simd>(s: S, d_head: usize, total: &mut Running, piece: &Running) {
    let values = total.values.chunks_exact_mut(d_head).zip(piece.values.chunks_exact(d_head));
    for (r, (all, new)) in values.enumerate() {
        if piece.largest[r] == f32::NEG_INFINITY {
            continue;
        }
        let largest = total.largest[r].max(piece.largest[r]);
        let keep_old = one_exp(s, total.largest[r] - largest);
        let keep_new = one_exp(s, piece.largest[r] - largest);
        total.largest[r] = largest;
        total.sum[r] = total.sum[r] * keep_old + piece.sum[r] * keep_new;
        for d in (0..d_head).step_by(16) {
            // SAFETY: both have d_head values, a multiple of 16.
            unsafe {
                let before = s.mul(s.load(all.as_ptr().add(d)), s.splat(keep_old));
                let after = s.fma(s.load(new.as_ptr().add(d)), s.splat(keep_new), before);
                s.store(all.as_mut_ptr().add(d), after);
            }
        }
    }
}

/// Half floats as f32, as bytes; `room` keeps them.
#[inline(always)]
fn widened<'a, S: Simd>(s: S, halves: &[u8], room: &'a mut Vec<f32>) -> &'a [u8] {
    let len = halves.len() / 2;
    assert!(len.is_multiple_of(16), "tiles of 64 positions");
    room.resize(room.len().max(len), 0.0);
    for i in (0..len).step_by(16) {
        // SAFETY: both hold `len` values.
        unsafe { s.store(room.as_mut_ptr().add(i), s.load_f16(halves.as_ptr().cast::<u16>().add(i))) }
    }
    bytes_of(&room[..len])
}

/// Keys of [`KvFormat::Q8`] as f32, `[d_head][64]`.
#[inline(always)]
fn wide_keys<'a, S: Simd>(s: S, d_head: usize, keys: &[u8], room: &'a mut Vec<f32>) -> &'a [u8] {
    let len = d_head * TILE;
    assert!(keys.len() == len + d_head.div_ceil(SCALED) * TILE * 2);
    room.resize(room.len().max(len), 0.0);
    let (quants, scales) = (keys.as_ptr().cast::<i8>(), keys[len..].as_ptr().cast::<u16>());
    for d in 0..d_head {
        for column in (0..TILE).step_by(16) {
            // SAFETY: d below d_head, columns below 64; the sizes were asserted.
            unsafe {
                let scale = s.load_f16(scales.add(d / SCALED * TILE + column));
                let quant = s.to_f(s.load_i8(quants.add(d * TILE + column)));
                s.store(room.as_mut_ptr().add(d * TILE + column), s.mul(quant, scale));
            }
        }
    }
    bytes_of(&room[..len])
}

/// Values of [`KvFormat::Q8`] as f32, `[64][d_head]`.
#[inline(always)]
fn wide_values<'a, S: Simd>(s: S, d_head: usize, values: &[u8], room: &'a mut Vec<f32>) -> &'a [u8] {
    let (len, blocks) = (d_head * TILE, d_head.div_ceil(SCALED));
    assert!(values.len() == len + blocks * TILE * 2);
    room.resize(room.len().max(len), 0.0);
    let (quants, scales) = values.split_at(len);
    for key in 0..TILE {
        for d in (0..d_head).step_by(16) {
            let at = 2 * (key * blocks + d / SCALED);
            let scale = s.splat(f16_to_f32(u16::from_ne_bytes([scales[at], scales[at + 1]])));
            // SAFETY: d + 16 is at most d_head, keys below 64; the sizes were asserted.
            unsafe {
                let quant = s.to_f(s.load_i8(quants.as_ptr().cast::<i8>().add(key * d_head + d)));
                s.store(room.as_mut_ptr().add(key * d_head + d), s.mul(quant, scale));
            }
        }
    }
    bytes_of(&room[..len])
}

fn bytes_of(values: &[f32]) -> &[u8] {
    // SAFETY: any bytes are bytes, and floats hold four each.
    unsafe { std::slice::from_raw_parts(values.as_ptr().cast(), 4 * values.len()) }
}

/// The exp of the vectors, for one number; 0 for -infinity.
#[inline(always)]
fn one_exp<S: Simd>(s: S, x: f32) -> f32 {
    s.largest(exp(s, s.splat(x)))
}
