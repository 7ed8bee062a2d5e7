//! Keys and values of one block of the model, in pages of 64 positions.

use super::aligned::AlignedBytes;
use super::isa::Kernel;
use super::pool::Disjoint;
use super::simd::Simd;
use super::{Cpu, Isa, rows};
use crate::limits::PAGE_POSITIONS;

/// How keys and values are kept; they are rounded to it before anything reads them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KvFormat {
    F16,
    F32,
    /// In pairs; queries and weights of attention are then rounded to bfloat16 too, and matrix units do its products where
    /// there are some.
    Bf16,
    /// Eight bits, and half a float as scale for up to 32 coordinates of one position and head.
    Q8,
}

/// Coordinates that share a scale in [`KvFormat::Q8`].
pub(super) const SCALED: usize = 32;

impl KvFormat {
    /// Of one coordinate, scales apart.
    pub const fn bytes(self) -> usize {
        match self {
            KvFormat::F16 | KvFormat::Bf16 => 2,
            KvFormat::F32 => 4,
            KvFormat::Q8 => 1,
        }
    }

    /// Bytes of one page of one KV head, of keys or of values: the coordinates, then the scales.
    const fn head_bytes(self, d_head: usize) -> usize {
        let scales = match self {
            KvFormat::F16 | KvFormat::Bf16 | KvFormat::F32 => 0,
            KvFormat::Q8 => d_head.div_ceil(SCALED) * size_of::<half::f16>(),
        };
        PAGE_POSITIONS * (d_head * self.bytes() + scales)
    }
}

/// Largest width of a head: attention keeps a row's sums on the stack.
pub const D_HEAD_MAX: usize = 512;

/// Where the rows of a step go: page and offset (below 64) of each, no two the same.
pub struct Places(Vec<(u32, u32)>);

impl Places {
    /// Panics when two are the same: rows are written by several threads.
    pub fn new(places: Vec<(u32, u32)>) -> Places {
        let mut sorted = places.clone();
        sorted.sort_unstable();
        assert!(sorted.windows(2).all(|pair| pair[0] != pair[1]), "two rows of a step have one place");
        assert!(places.iter().all(|(_, offset)| (*offset as usize) < PAGE_POSITIONS));
        Places(places)
    }

    /// Rows of the step.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// K and V of one block for all pages. A page of K is `[kv_head][d_head][64]` (a vector holds one coordinate of sixteen
/// positions), of V `[kv_head][64][d_head]`. In [`KvFormat::Q8`] scales follow the coordinates of each head, of K
/// `[d_head / 32][64]`, of V `[64][d_head / 32]`. In [`KvFormat::Bf16`] pairs stand together as matrix units read them: of
/// K `[d_head / 2][64][2]`, of V `[32][d_head][2]`.
pub struct KvLayer {
    n_kv_heads: usize,
    d_head: usize,
    format: KvFormat,
    pages: usize,
    keys: AlignedBytes,
    values: AlignedBytes,
}

impl KvLayer {
    /// Zeros, but memory is taken from the system only when a page is written. `d_head` is a multiple of 16, at most 512.
    pub fn new(pages: usize, n_kv_heads: usize, d_head: usize, format: KvFormat) -> KvLayer {
        assert!(
            d_head.is_multiple_of(16) && d_head <= D_HEAD_MAX,
            "d_head {d_head}: a multiple of 16 up to 512"
        );
        let len = pages * n_kv_heads * format.head_bytes(d_head);
        let (keys, values) = (AlignedBytes::zeroed(len), AlignedBytes::zeroed(len));
        KvLayer { n_kv_heads, d_head, format, pages, keys, values }
    }

    /// Bytes of a page of such a layer, keys and values together.
    pub const fn bytes_per_page(n_kv_heads: usize, d_head: usize, format: KvFormat) -> usize {
        2 * n_kv_heads * format.head_bytes(d_head)
    }

    pub fn pages(&self) -> usize {
        self.pages
    }

    pub fn n_kv_heads(&self) -> usize {
        self.n_kv_heads
    }

    pub fn d_head(&self) -> usize {
        self.d_head
    }

    pub fn format(&self) -> KvFormat {
        self.format
    }

    /// Bytes of one page of one KV head, of keys or of values.
    fn head_bytes(&self) -> usize {
        self.format.head_bytes(self.d_head)
    }

    fn page_bytes(&self) -> usize {
        self.n_kv_heads * self.head_bytes()
    }

    /// To be called when a page is given to a sequence: attention multiplies positions that a row does not see by 0, so they
    /// must be finite.
    pub fn zero_page(&mut self, page: u32) {
        let (from, len) = (page as usize * self.page_bytes(), self.page_bytes());
        self.keys.bytes_mut()[from..][..len].fill(0);
        self.values.bytes_mut()[from..][..len].fill(0);
    }

    /// Whether all bytes of a page are zero.
    #[cfg(test)]
    pub fn page_is_zero(&self, page: u32) -> bool {
        let (from, len) = (page as usize * self.page_bytes(), self.page_bytes());
        [&self.keys, &self.values]
            .iter()
            .all(|buffer| buffer.bytes()[from..][..len].iter().all(|byte| *byte == 0))
    }

    /// Gives page `to` the first `positions` positions (at most 64) of page `from`; the others become zeros.
    pub fn copy_page(&mut self, from: u32, to: u32, positions: usize) {
        assert!(positions <= PAGE_POSITIONS && from.max(to) < self.pages as u32);
        if positions == 0 {
            return self.zero_page(to);
        }
        let (page_bytes, head_bytes, element) = (self.page_bytes(), self.head_bytes(), self.format.bytes());
        let (from, to) = (from as usize * page_bytes, to as usize * page_bytes);
        let row_bytes = self.d_head * element;
        for buffer in [&mut self.keys, &mut self.values] {
            buffer.bytes_mut().copy_within(from..from + page_bytes, to);
        }
        // Keys are stored by coordinate, values by position; so are their scales.
        let (coordinates, scales) =
            (self.d_head * PAGE_POSITIONS * element, self.d_head.div_ceil(SCALED) * 2);
        let in_pairs = self.format == KvFormat::Bf16;
        let key_bytes = if in_pairs { 2 * element } else { element };
        for head in self.keys.bytes_mut()[to..][..page_bytes].chunks_exact_mut(head_bytes) {
            let (keys, key_scales) = head.split_at_mut(coordinates);
            let later = |row: &mut [u8], element: usize| row[positions * element..].fill(0);
            keys.chunks_exact_mut(PAGE_POSITIONS * key_bytes).for_each(|row| later(row, key_bytes));
            key_scales.chunks_exact_mut(PAGE_POSITIONS * 2).for_each(|row| later(row, 2));
        }
        for head in self.values.bytes_mut()[to..][..page_bytes].chunks_exact_mut(head_bytes) {
            let (values, value_scales) = head.split_at_mut(coordinates);
            if in_pairs && positions % 2 == 1 {
                let half_kept = &mut values[(positions - 1) * row_bytes..][..2 * row_bytes];
                half_kept.chunks_exact_mut(2 * element).for_each(|pair| pair[element..].fill(0));
                values[(positions + 1) * row_bytes..].fill(0);
            } else {
                values[positions * row_bytes..].fill(0);
            }
            if !value_scales.is_empty() {
                value_scales[positions * scales..].fill(0);
            }
        }
    }

    /// Stores the keys and values of a step's rows, each `[rows, n_kv_heads * d_head]`, after `prepare(row, queries, keys,
    /// values)` has seen their row and that of `queries`. They are rounded to nearest, ties to even; beyond the
    /// range of half floats they become infinite.
    pub fn write_rows(
        &mut self,
        cpu: &Cpu,
        places: &Places,
        [queries, keys, values]: [&mut [f32]; 3],
        prepare: impl Fn(usize, &mut [f32], &mut [f32], &mut [f32]) + Sync,
    ) {
        let (rows, width) = (places.0.len(), self.n_kv_heads * self.d_head);
        assert!(keys.len() == rows * width && values.len() == rows * width);
        assert!(places.0.iter().all(|(page, _)| (*page as usize) < self.pages));
        let (format, d_head, head_bytes) = (self.format, self.d_head, self.head_bytes());
        let page_bytes = self.page_bytes();
        let widths = [queries.len() / rows.max(1), width, width];
        let buffers = [queries, keys, values].map(Disjoint::new);
        let all = [&mut self.keys, &mut self.values].map(|buffer| Disjoint::new(buffer.bytes_mut()));
        rows::run_rows(cpu, rows, widths.iter().sum(), |row| {
            // SAFETY: each row is visited once.
            let [q, k, v] = unsafe { rows::parts(&buffers, &widths, row) };
            prepare(row, q, k, v);
            let (page, offset) = (places.0[row].0 as usize, places.0[row].1 as usize);
            for (head, (k, v)) in k.chunks_exact(d_head).zip(v.chunks_exact(d_head)).enumerate() {
                let from = page * page_bytes + head * head_bytes;
                // No two rows have one place.
                let [keys, values] = [0, 1].map(|i| all[i].start_of(from, head_bytes));
                cpu.isa.run(WriteHead { format, keys, values, offset, k, v });
            }
        });
    }

    /// [`KvLayer::write_rows`] for one row as it is.
    pub fn write(&mut self, page: u32, offset: usize, k: &[f32], v: &[f32]) {
        let width = self.n_kv_heads * self.d_head;
        assert!((page as usize) < self.pages && offset < PAGE_POSITIONS);
        assert!(k.len() == width && v.len() == width);
        let (d_head, head_bytes) = (self.d_head, self.head_bytes());
        for (head, (k, v)) in k.chunks_exact(d_head).zip(v.chunks_exact(d_head)).enumerate() {
            let from = page as usize * self.page_bytes() + head * head_bytes;
            let [keys, values] = [&mut self.keys, &mut self.values]
                .map(|buffer| buffer.bytes_mut()[from..][..head_bytes].as_mut_ptr());
            Isa::detect().run(WriteHead { format: self.format, keys, values, offset, k, v });
        }
    }

    /// Keys of one page and head, in the layer's format and order.
    pub(super) fn key_tile(&self, page: u32, head: usize) -> &[u8] {
        let from = page as usize * self.page_bytes() + head * self.head_bytes();
        &self.keys.bytes()[from..][..self.head_bytes()]
    }

    /// Values of one page and head, in the layer's format and order.
    pub(super) fn value_tile(&self, page: u32, head: usize) -> &[u8] {
        let from = page as usize * self.page_bytes() + head * self.head_bytes();
        &self.values.bytes()[from..][..self.head_bytes()]
    }
}

/// Stores one position of one KV head, in the order that [`KvLayer`] states. Both pointers are to that head of a page, and
/// nobody else touches this position of it.
struct WriteHead<'a> {
    format: KvFormat,
    keys: *mut u8,
    values: *mut u8,
    offset: usize,
    k: &'a [f32],
    v: &'a [f32],
}

impl Kernel for WriteHead<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        // SAFETY: what the type states.
        unsafe { self.write(s) }
    }
}

impl WriteHead<'_> {
    /// # Safety
    /// What the type states; d_head is a multiple of 16.
    #[inline(always)]
    unsafe fn write<S: Simd>(self, s: S) {
        let WriteHead { format, keys, values, offset, k, v } = self;
        let d_head = k.len();
        // SAFETY: d below d_head and an offset below 64, so all of it lies in the head; tiles start at cache lines.
        unsafe {
            match format {
                KvFormat::F32 => {
                    let (keys, values) = (keys.cast::<f32>(), values.cast::<f32>().add(offset * d_head));
                    for (d, k) in k.iter().enumerate() {
                        keys.add(d * PAGE_POSITIONS + offset).write(*k);
                    }
                    values.copy_from_nonoverlapping(v.as_ptr(), d_head);
                }
                KvFormat::F16 => {
                    let (keys, values) = (keys.cast::<u16>(), values.cast::<u16>());
                    for d in (0..d_head).step_by(16) {
                        let mut halves = [0; 16];
                        s.store_f16(halves.as_mut_ptr(), s.load(k.as_ptr().add(d)));
                        for (i, half) in halves.iter().enumerate() {
                            keys.add((d + i) * PAGE_POSITIONS + offset).write(*half);
                        }
                        s.store_f16(values.add(offset * d_head + d), s.load(v.as_ptr().add(d)));
                    }
                }
                KvFormat::Bf16 => {
                    let (keys, values) = (keys.cast::<u16>(), values.cast::<u16>());
                    for d in (0..d_head).step_by(16) {
                        let mut halves = [0; 16];
                        s.store_bf16(halves.as_mut_ptr(), s.to_bf16(s.load(k.as_ptr().add(d))));
                        for (i, pair) in halves.as_chunks::<2>().0.iter().enumerate() {
                            let to = keys.add(((d / 2 + i) * PAGE_POSITIONS + offset) * 2);
                            to.copy_from_nonoverlapping(pair.as_ptr(), 2);
                        }
                        s.store_bf16(halves.as_mut_ptr(), s.to_bf16(s.load(v.as_ptr().add(d))));
                        for (i, half) in halves.iter().enumerate() {
                            values.add((offset / 2 * d_head + d + i) * 2 + offset % 2).write(*half);
                        }
                    }
                }
                KvFormat::Q8 => {
                    let scales_at = d_head * PAGE_POSITIONS;
                    let key_scales = keys.add(scales_at).cast::<half::f16>();
                    let value_scales = values.add(scales_at).cast::<half::f16>();
                    let (keys, values) = (keys.cast::<i8>(), values.cast::<i8>());
                    for (block, (k, v)) in k.chunks(SCALED).zip(v.chunks(SCALED)).enumerate() {
                        let (scale, quants) = quantized(k);
                        key_scales.add(block * PAGE_POSITIONS + offset).write(scale);
                        for (i, q) in quants[..k.len()].iter().enumerate() {
                            keys.add((block * SCALED + i) * PAGE_POSITIONS + offset).write(*q);
                        }
                        let (scale, quants) = quantized(v);
                        value_scales.add(offset * d_head.div_ceil(SCALED) + block).write(scale);
                        let to = values.add(offset * d_head + block * SCALED);
                        to.copy_from_nonoverlapping(quants.as_ptr(), v.len());
                    }
                }
            }
        }
    }
}

/// Up to 32 values as eight bits and a scale: value = scale * quant, to within half a step. The scale is not-a-number
/// where a value is, or where one is beyond the range of a half float, so that the damage shows.
fn quantized(values: &[f32]) -> (half::f16, [i8; SCALED]) {
    let mut largest = 0.0f32;
    for value in values {
        largest = if value.is_nan() { f32::NAN } else { largest.max(value.abs()) };
        if largest.is_nan() {
            break;
        }
    }
    let scale = half::f16::from_f32(largest / 127.0);
    let mut quants = [0; SCALED];
    if !scale.is_finite() {
        return (half::f16::NAN, quants);
    }
    let wide = scale.to_f32();
    let inverse = if wide > 0.0 { 1.0 / wide } else { 0.0 };
    for (quant, value) in quants.iter_mut().zip(values) {
        *quant = (value * inverse).round_ties_even().clamp(-127.0, 127.0) as i8;
    }
    (scale, quants)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copied_page_has_the_wanted_positions_and_zeros() {
        for format in [KvFormat::F16, KvFormat::F32, KvFormat::Bf16, KvFormat::Q8] {
            let mut layer = KvLayer::new(3, 2, 16, format);
            let row = |offset: usize| (0..32).map(|i| (1 + offset + i) as f32).collect::<Vec<f32>>();
            for offset in 0..64 {
                layer.write(0, offset, &row(offset), &row(offset + 100));
                layer.write(1, offset, &row(offset + 7), &row(offset + 7));
            }
            layer.copy_page(0, 1, 5);
            (0..5).for_each(|offset| layer.write(2, offset, &row(offset), &row(offset + 100)));
            for head in 0..2 {
                assert!(layer.key_tile(1, head) == layer.key_tile(2, head), "{format:?}");
                assert!(layer.value_tile(1, head) == layer.value_tile(2, head), "{format:?}");
            }
        }
    }

    #[test]
    fn positions_land_where_attention_looks() {
        for format in [KvFormat::F16, KvFormat::F32, KvFormat::Bf16, KvFormat::Q8] {
            let (heads, d_head) = (2, 16);
            let mut layer = KvLayer::new(3, heads, d_head, format);
            let k: Vec<f32> = (0..heads * d_head).map(|i| i as f32).collect();
            let v: Vec<f32> = k.iter().map(|x| -x).collect();
            layer.write(1, 63, &k, &v);
            let element = |tile: &[u8], at: usize| match format {
                KvFormat::F16 => half::f16::from_ne_bytes([tile[2 * at], tile[2 * at + 1]]).to_f32(),
                KvFormat::F32 => f32::from_ne_bytes(tile[4 * at..][..4].try_into().unwrap()),
                KvFormat::Bf16 => half::bf16::from_ne_bytes([tile[2 * at], tile[2 * at + 1]]).to_f32(),
                KvFormat::Q8 => f32::from(tile[at] as i8),
            };
            let in_pairs = format == KvFormat::Bf16;
            let key_at = |d: usize| if in_pairs { (d / 2 * 64 + 63) * 2 + d % 2 } else { d * 64 + 63 };
            let value_at = |d: usize| if in_pairs { (31 * d_head + d) * 2 + 1 } else { 63 * d_head + d };
            // 15 or 31 is the largest of a head.
            let step =
                |head: usize| if format == KvFormat::Q8 { (15 + 16 * head) as f32 / 127.0 } else { 1.0 };
            for head in 0..heads {
                for d in 0..d_head {
                    let expected = (head * d_head + d) as f32 / step(head);
                    // Half a step, and what the rounding of the scale does to 127 steps.
                    let bound = if format == KvFormat::Q8 { 0.6 } else { 0.0 };
                    let (key, value) = (layer.key_tile(1, head), layer.value_tile(1, head));
                    assert!((element(key, key_at(d)) - expected).abs() <= bound);
                    assert!((element(value, value_at(d)) + expected).abs() <= bound);
                }
            }
            let sum =
                |layer: &KvLayer| layer.keys.bytes().iter().map(|byte| usize::from(*byte)).sum::<usize>();
            assert!(sum(&layer) > 0);
            layer.zero_page(1);
            assert_eq!(sum(&layer), 0);
            let bytes = layer.keys.bytes().len() + layer.values.bytes().len();
            assert_eq!(bytes, 3 * KvLayer::bytes_per_page(heads, d_head, format));
        }
    }
}
