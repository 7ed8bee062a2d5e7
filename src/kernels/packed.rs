//! Weight matrices in the order in which products read them, with the bits of the file; BF16 that meets bfloat16 has zeros
//! for numbers below the smallest normal one.

use super::aligned::AlignedBytes;
use super::blocks::{Block, BlockRule, rule};
use super::dequantize::dequantize;
use super::planes;
use super::{KernelError, Precision};
use crate::format::ElementFormat;

/// Output rows of one strip: the lanes of a vector.
pub(super) const STRIP: usize = 16;
/// Values of k in one tile, and in one block of int8 activations.
pub(super) const TILE_K: usize = 32;

/// From so many bytes on, packing is shared among threads.
const THREADED_BYTES: usize = 256 << 10;

/// Weights `[n, k]`, cut into *strips* of 16 output rows (n padded with zero rows), each strip contiguous.
///
/// * Quantised formats: a strip is tiles of 16 rows x 32 k, quants first, then the scales of all tiles ([`TileLayout`]).
/// * F32, F16, BF16: a strip is `[k][16]` in the file's format.
/// * BF16 that meets bfloat16 activations: a strip is `[k / 2][16][2]`, k a multiple of 32, and numbers below the smallest
///   normal one are zero.
/// * Q2_K, Q3_K: rows as in the file; the f32 product dequantises them.
pub struct PackedMatrix {
    format: ElementFormat,
    n: usize,
    k: usize,
    precision: Precision,
    pub(super) storage: Storage,
    strip_bytes: usize,
    data: AlignedBytes,
}

pub(super) enum Storage {
    Tiles(TileLayout),
    /// `[k][16]` of elements of so many bytes.
    Dense {
        element_bytes: usize,
    },
    /// `[k / 2][16]` pairs of bfloat16.
    Pairs,
    /// 16 rows of so many bytes, as in the file.
    Rows {
        row_bytes: usize,
    },
}

/// What activations are rounded to before they meet some weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    F32,
    Bf16,
    Int8,
}

/// Where the parts of a strip of tiles lie, in bytes from its start. Tile b covers k from 32 b on. A 64-byte group holds
/// four values of k for 16 rows: byte 4 * row + i.
///
/// Nibbles: 4 groups a tile; group g has k = 8g + i in the low halves and 8g + 4 + i in the high ones; further bits are
/// in planes of their own ([`super::planes`]).
/// Bytes: 8 groups a tile; group g has k = 4g + i.
pub(super) struct TileLayout {
    pub rule: BlockRule,
    pub nibbles: bool,
    /// Bits of a quant above its nibble: 0, 1 or 2.
    pub upper_bits: usize,
    /// `[tiles]` of [`planes::bytes`].
    pub planes_at: usize,
    /// Tiles of one strip: k / 32.
    pub tiles: usize,
    /// Tiles that share a `d`: 1, or 8 in formats with blocks of 256.
    pub tiles_per_block: usize,
    /// i8 `[tiles][rule.scales][16]`.
    pub scales_at: usize,
    /// u8 `[tiles][16]`.
    pub minima_at: usize,
    /// f16 `[tiles / tiles_per_block][16]`.
    pub d_at: usize,
    /// f16, like `d`.
    pub m_at: usize,
    strip_bytes: usize,
}

impl TileLayout {
    /// Of a format whose blocks are tiles or eight tiles; `None` for the others.
    fn new(format: ElementFormat, k: usize) -> Option<TileLayout> {
        use ElementFormat::*;
        let rule = match format {
            Q4_0 | Q4_1 | Q5_0 | Q5_1 | Q8_0 | Q4_K | Q5_K | Q6_K => rule(format)?,
            F32 | F16 | BF16 | Q2_K | Q3_K => return None,
        };
        let nibbles = format != Q8_0;
        let upper_bits = match format {
            Q5_0 | Q5_1 | Q5_K => 1,
            Q6_K => 2,
            _ => 0,
        };
        let (tiles, blocks) = (k / TILE_K, k / format.block_len());
        let planes_at = tiles * if nibbles { 256 } else { 512 };
        let scales_at = planes_at + tiles * planes::bytes(upper_bits);
        let minima_at = scales_at + tiles * rule.scales * STRIP;
        let d_at = minima_at + if rule.scales > 0 && rule.has_minimum { tiles * STRIP } else { 0 };
        let m_at = d_at + blocks * STRIP * 2;
        let end = m_at + if rule.has_minimum { blocks * STRIP * 2 } else { 0 };
        let tiles_per_block = format.block_len() / TILE_K;
        let strip_bytes = end.next_multiple_of(64);
        Some(TileLayout {
            rule,
            nibbles,
            upper_bits,
            planes_at,
            tiles,
            tiles_per_block,
            scales_at,
            minima_at,
            d_at,
            m_at,
            strip_bytes,
        })
    }

    /// Writes tile `tile % tiles_per_block` of `block` as row `row` of tile `tile`.
    fn write(&self, strip: &mut [u8], row: usize, tile: usize, block: &Block) {
        let part = tile % self.tiles_per_block;
        let q = &block.q[part * TILE_K..][..TILE_K];
        if self.nibbles {
            for (g, eight) in q.chunks_exact(8).enumerate() {
                for i in 0..4 {
                    strip[tile * 256 + g * 64 + row * 4 + i] = eight[i] & 15 | eight[4 + i] << 4;
                }
            }
            if self.upper_bits > 0 {
                let planes = &mut strip[self.planes_at + tile * planes::bytes(self.upper_bits)..];
                q.iter().enumerate().for_each(|(k, q)| planes::put(planes, self.upper_bits, row, k, *q));
            }
        } else {
            for (g, four) in q.chunks_exact(4).enumerate() {
                strip[tile * 512 + g * 64 + row * 4..][..4].copy_from_slice(four);
            }
        }
        let per_tile = self.rule.scales;
        for i in 0..per_tile {
            strip[self.scales_at + (tile * per_tile + i) * STRIP + row] =
                block.scales[part * per_tile + i] as u8;
        }
        if self.rule.scales > 0 && self.rule.has_minimum {
            strip[self.minima_at + tile * STRIP + row] = block.minima[part];
        }
        let place = 2 * (tile / self.tiles_per_block * STRIP + row);
        strip[self.d_at + place..][..2].copy_from_slice(&block.d.to_le_bytes());
        if self.rule.has_minimum {
            strip[self.m_at + place..][..2].copy_from_slice(&block.m.to_le_bytes());
        }
    }

    /// The other way round: adds what tile `tile` holds of row `row` to `block`.
    fn read(&self, strip: &[u8], row: usize, tile: usize, block: &mut Block) {
        let part = tile % self.tiles_per_block;
        let q = &mut block.q[part * TILE_K..][..TILE_K];
        if self.nibbles {
            for (g, eight) in q.chunks_exact_mut(8).enumerate() {
                for i in 0..4 {
                    let byte = strip[tile * 256 + g * 64 + row * 4 + i];
                    (eight[i], eight[4 + i]) = (byte & 15, byte >> 4);
                }
            }
            if self.upper_bits > 0 {
                let planes = &strip[self.planes_at + tile * planes::bytes(self.upper_bits)..];
                q.iter_mut()
                    .enumerate()
                    .for_each(|(k, q)| *q |= planes::get(planes, self.upper_bits, row, k));
            }
        } else {
            for (g, four) in q.chunks_exact_mut(4).enumerate() {
                four.copy_from_slice(&strip[tile * 512 + g * 64 + row * 4..][..4]);
            }
        }
        let per_tile = self.rule.scales;
        for i in 0..per_tile {
            block.scales[part * per_tile + i] =
                strip[self.scales_at + (tile * per_tile + i) * STRIP + row] as i8;
        }
        if self.rule.scales > 0 && self.rule.has_minimum {
            block.minima[part] = strip[self.minima_at + tile * STRIP + row];
        }
        let place = 2 * (tile / self.tiles_per_block * STRIP + row);
        let half = |at: usize| u16::from_le_bytes([strip[at + place], strip[at + place + 1]]);
        block.d = half(self.d_at);
        block.m = if self.rule.has_minimum { half(self.m_at) } else { 0 };
    }
}

impl PackedMatrix {
    /// `data` holds `n` rows of `k` elements as in a model file. `precision` says how activations meet these weights.
    pub fn pack(
        format: ElementFormat,
        n: usize,
        k: usize,
        data: &[u8],
        precision: Precision,
    ) -> Result<PackedMatrix, KernelError> {
        PackedMatrix::pack_on(1, format, n, k, data, precision)
    }

    /// The same on so many threads; half of the time goes into memory that the system clears when it is first written.
    pub fn pack_on(
        threads: usize,
        format: ElementFormat,
        n: usize,
        k: usize,
        data: &[u8],
        precision: Precision,
    ) -> Result<PackedMatrix, KernelError> {
        let too_large = || KernelError::TooLarge { format, n, k };
        let row_length = || KernelError::RowLength { format, k, block_len: format.block_len() };
        if k == 0 || !k.is_multiple_of(format.block_len()) {
            return Err(row_length());
        }
        let row_bytes = format.row_bytes(k).ok_or_else(too_large)?;
        let expected = n.checked_mul(row_bytes).ok_or_else(too_large)?;
        if data.len() != expected {
            return Err(KernelError::DataLength { format, given: data.len(), expected });
        }
        // The data exists, so n * k elements of at least two bits fit the address space; 8 bytes each may not.
        k.checked_mul(64).and_then(|bytes| bytes.checked_mul(n.max(STRIP))).ok_or_else(too_large)?;
        let storage = storage_of(format, k, row_bytes, precision);
        let strip_bytes = match &storage {
            Storage::Tiles(layout) => layout.strip_bytes,
            Storage::Dense { element_bytes } => k * STRIP * element_bytes,
            Storage::Pairs => k * STRIP * 2,
            Storage::Rows { row_bytes } => STRIP * row_bytes,
        };
        let mut packed = AlignedBytes::zeroed_large(n.div_ceil(STRIP) * strip_bytes);
        let pack_strips = |strips: &mut [u8], data: &[u8]| {
            let strips = strips.chunks_exact_mut(strip_bytes.max(1));
            for (strip, rows) in strips.zip(data.chunks(STRIP * row_bytes)) {
                for (row, data) in rows.chunks_exact(row_bytes).enumerate() {
                    pack_row(format, &storage, strip, row, data);
                }
            }
        };
        let threads = if data.len() < THREADED_BYTES { 1 } else { threads.max(1) };
        let strips_each = n.div_ceil(STRIP).div_ceil(threads).max(1);
        let parts = packed.bytes_mut().chunks_mut((strips_each * strip_bytes).max(1));
        let parts = parts.zip(data.chunks(strips_each * STRIP * row_bytes));
        if threads == 1 {
            parts.for_each(|(strips, data)| pack_strips(strips, data));
        } else {
            std::thread::scope(|scope| {
                for (strips, data) in parts {
                    scope.spawn(|| pack_strips(strips, data));
                }
            });
        }
        Ok(PackedMatrix { format, n, k, precision, storage, strip_bytes, data: packed })
    }

    /// Output rows.
    pub fn n(&self) -> usize {
        self.n
    }

    /// Length of a row, the sum's length.
    pub fn k(&self) -> usize {
        self.k
    }

    pub fn format(&self) -> ElementFormat {
        self.format
    }

    /// Memory that it occupies.
    pub fn bytes(&self) -> usize {
        self.data.bytes().len()
    }

    pub(super) fn form(&self) -> Form {
        match self.storage {
            Storage::Tiles(_) if self.precision == Precision::Int8 => Form::Int8,
            Storage::Pairs => Form::Bf16,
            Storage::Tiles(_) | Storage::Dense { .. } | Storage::Rows { .. } => Form::F32,
        }
    }

    pub(super) fn strips(&self) -> usize {
        self.n.div_ceil(STRIP)
    }

    pub(super) fn strip(&self, index: usize) -> &[u8] {
        &self.data.bytes()[index * self.strip_bytes..][..self.strip_bytes]
    }

    /// The values of row `row` (below n); `out` is `[k]`.
    pub fn dequantize_row(&self, row: usize, out: &mut [f32]) {
        assert!(
            row < self.n && out.len() == self.k,
            "row {row} of {}, {} values of {}",
            self.n,
            out.len(),
            self.k
        );
        let (strip, row) = (self.strip(row / STRIP), row % STRIP);
        match &self.storage {
            Storage::Tiles(layout) => {
                let mut block = Block::new();
                for (i, out) in out.chunks_exact_mut(self.format.block_len()).enumerate() {
                    for part in 0..layout.tiles_per_block {
                        layout.read(strip, row, i * layout.tiles_per_block + part, &mut block);
                    }
                    block.dequantize(layout.rule, out);
                }
            }
            Storage::Dense { element_bytes } => {
                let elements = strip.chunks_exact(STRIP * element_bytes);
                for (value, column) in out.iter_mut().zip(elements) {
                    let element = &column[row * element_bytes..][..*element_bytes];
                    self.must_dequantize(element, std::slice::from_mut(value));
                }
            }
            Storage::Pairs => {
                let pairs = strip.chunks_exact(STRIP * 4);
                for (values, pairs) in out.chunks_exact_mut(2).zip(pairs) {
                    self.must_dequantize(&pairs[row * 4..][..4], values);
                }
            }
            Storage::Rows { row_bytes } => self.must_dequantize(&strip[row * row_bytes..][..*row_bytes], out),
        }
    }

    /// Values `from..from + out.len()` of row `row` of a strip stored as rows; both are multiples of the block length.
    pub(super) fn dequantize_part(&self, strip: &[u8], row: usize, from: usize, out: &mut [f32]) {
        let bytes_of = |elements: usize| elements / self.format.block_len() * self.format.block_bytes();
        let start = row * bytes_of(self.k) + bytes_of(from);
        self.must_dequantize(&strip[start..start + bytes_of(out.len())], out);
    }

    /// Of data cut to size here.
    fn must_dequantize(&self, data: &[u8], out: &mut [f32]) {
        dequantize(self.format, data, out).expect("pack has checked the sizes");
    }
}

fn storage_of(format: ElementFormat, k: usize, row_bytes: usize, precision: Precision) -> Storage {
    match format {
        ElementFormat::BF16 if precision == Precision::Int8 && k.is_multiple_of(TILE_K) => Storage::Pairs,
        ElementFormat::F32 => Storage::Dense { element_bytes: 4 },
        ElementFormat::F16 | ElementFormat::BF16 => Storage::Dense { element_bytes: 2 },
        _ => TileLayout::new(format, k).map_or(Storage::Rows { row_bytes }, Storage::Tiles),
    }
}

/// Writes row `row` of a strip; `data` is the row as in the file.
fn pack_row(format: ElementFormat, storage: &Storage, strip: &mut [u8], row: usize, data: &[u8]) {
    match storage {
        Storage::Tiles(layout) => {
            let mut block = Block::new();
            for (i, data) in data.chunks_exact(format.block_bytes()).enumerate() {
                block.read(format, data);
                for part in 0..layout.tiles_per_block {
                    layout.write(strip, row, i * layout.tiles_per_block + part, &block);
                }
            }
        }
        Storage::Dense { element_bytes } => {
            for (column, element) in
                strip.chunks_exact_mut(STRIP * element_bytes).zip(data.chunks_exact(*element_bytes))
            {
                column[row * element_bytes..][..*element_bytes].copy_from_slice(element);
            }
        }
        Storage::Pairs => {
            for (pairs, pair) in strip.chunks_exact_mut(STRIP * 4).zip(data.chunks_exact(4)) {
                for (element, from) in pairs[row * 4..][..4].chunks_exact_mut(2).zip(pair.chunks_exact(2)) {
                    // Matrix units take such numbers for zero, so all do.
                    let is_small = (from[1] & 0x7f, from[0] & 0x80) == (0, 0);
                    element.copy_from_slice(if is_small { &[0, 0] } else { from });
                }
            }
        }
        Storage::Rows { row_bytes } => strip[row * row_bytes..][..*row_bytes].copy_from_slice(data),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::tests::random_blocks;
    use proptest::prelude::*;

    #[test]
    fn packing_keeps_every_value() {
        for format in ElementFormat::ALL {
            for (n, k) in [(1, 256), (16, 512), (17, 256), (48, 768), (1000, 1024)] {
                let data = random_blocks(format, n, k, 3);
                let packed = PackedMatrix::pack(format, n, k, &data, Precision::Int8).unwrap();
                let (mut expected, mut given) = (vec![0.0; n * k], vec![0.0; n * k]);
                dequantize(format, &data, &mut expected).unwrap();
                for (row, out) in given.chunks_exact_mut(k).enumerate() {
                    packed.dequantize_row(row, out);
                }
                let shared = PackedMatrix::pack_on(3, format, n, k, &data, Precision::Int8).unwrap();
                assert!(shared.data.bytes() == packed.data.bytes(), "{format} [{n}, {k}]");
                let bits = |values: &[f32]| values.iter().map(|value| value.to_bits()).collect::<Vec<_>>();
                assert!(bits(&given) == bits(&expected), "{format} [{n}, {k}]");
                // At most 3 % over the file, padding of n apart (K-types keep 6-bit scales in bytes).
                let padded = data.len() / n * n.next_multiple_of(STRIP);
                assert!(packed.bytes() * 100 <= padded * 103, "{format} [{n}, {k}]: {}", packed.bytes());
            }
        }
    }

    proptest! {
        #[test]
        fn any_sizes_and_bytes_pack_or_are_refused(
            format in proptest::sample::select(ElementFormat::ALL.to_vec()),
            n in prop_oneof![0usize..40, Just(usize::MAX), Just(usize::MAX / 64)],
            k in prop_oneof![0usize..600, Just(256), Just(usize::MAX - 255)],
            data in prop_oneof![
                proptest::collection::vec(any::<u8>(), 0..2000),
                (0usize..4).prop_map(|rows| vec![0x5a; rows * 144]),
            ],
        ) {
            // Rows of absurd length are refused even where there is none.
            prop_assume!(n > 0 || k < 1 << 30);
            let fits = k > 0 && format.row_bytes(k).and_then(|bytes| bytes.checked_mul(n)) == Some(data.len());
            let packed = PackedMatrix::pack(format, n, k, &data, Precision::Int8);
            prop_assert_eq!(packed.is_ok(), fits);
            let mut out = vec![0.0f32; k.min(600)];
            prop_assert_eq!(
                dequantize(format, &data, &mut out).is_ok(),
                format.row_bytes(out.len()) == Some(data.len())
            );
            if let Ok(packed) = packed && n > 0 {
                packed.dequantize_row(n - 1, &mut out);
            }
        }
    }
}
