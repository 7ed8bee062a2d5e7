//! Quantisation blocks of the file formats taken apart: quants as bytes, scales, minima.

use super::math::f16_to_f32;
use crate::format::ElementFormat;

/// One block of at most 256 values. In formats with one scale per block
/// `value[i] = d * (q[i] - offset) + m`; in those with `n` scales for 32 values
/// `value[i] = (d * scales[i * n / 32]) * (q[i] - offset) - m * minima[i * n / 32]`.
/// All products are exact in f32, so only the last addition rounds.
pub(super) struct Block {
    pub q: [u8; 256],
    /// Half float.
    pub d: u16,
    /// Half float; 0 in formats without a minimum.
    pub m: u16,
    pub scales: [i8; 16],
    pub minima: [u8; 16],
}

/// What is the same for all blocks of a format.
#[derive(Clone, Copy)]
pub(super) struct BlockRule {
    /// Subtracted from `q`.
    pub offset: i32,
    /// Integer scales for each 32 values: 1 or 2, and 0 where a block has only `d`.
    pub scales: usize,
    pub has_minimum: bool,
}

/// `None` for formats that are plain numbers.
pub(super) fn rule(format: ElementFormat) -> Option<BlockRule> {
    let rule = |offset, scales, has_minimum| Some(BlockRule { offset, scales, has_minimum });
    match format {
        ElementFormat::F32 | ElementFormat::F16 | ElementFormat::BF16 => None,
        ElementFormat::Q4_0 => rule(8, 0, false),
        ElementFormat::Q4_1 => rule(0, 0, true),
        ElementFormat::Q5_0 => rule(16, 0, false),
        ElementFormat::Q5_1 => rule(0, 0, true),
        ElementFormat::Q8_0 => rule(128, 0, false),
        ElementFormat::Q2_K => rule(0, 2, true),
        ElementFormat::Q3_K => rule(4, 2, false),
        ElementFormat::Q4_K => rule(0, 1, true),
        ElementFormat::Q5_K => rule(0, 1, true),
        ElementFormat::Q6_K => rule(32, 2, false),
    }
}

impl Block {
    pub(super) fn new() -> Block {
        Block { q: [0; 256], d: 0, m: 0, scales: [0; 16], minima: [0; 16] }
    }

    /// Takes `data`, one block of `format`, apart. Formats that are plain numbers leave the block as it is.
    pub(super) fn read(&mut self, format: ElementFormat, data: &[u8]) {
        assert_eq!(data.len(), format.block_bytes());
        let half = |at: usize| u16::from_le_bytes([data[at], data[at + 1]]);
        match format {
            ElementFormat::F32 | ElementFormat::F16 | ElementFormat::BF16 => {}
            ElementFormat::Q4_0 => {
                self.d = half(0);
                nibbles_32(&data[2..18], &mut self.q);
            }
            ElementFormat::Q4_1 => {
                (self.d, self.m) = (half(0), half(2));
                nibbles_32(&data[4..20], &mut self.q);
            }
            ElementFormat::Q5_0 => {
                self.d = half(0);
                nibbles_32(&data[6..22], &mut self.q);
                fifth_bits_32(&data[2..6], &mut self.q);
            }
            ElementFormat::Q5_1 => {
                (self.d, self.m) = (half(0), half(2));
                nibbles_32(&data[8..24], &mut self.q);
                fifth_bits_32(&data[4..8], &mut self.q);
            }
            ElementFormat::Q8_0 => {
                self.d = half(0);
                for (q, byte) in self.q.iter_mut().zip(&data[2..34]) {
                    *q = byte ^ 0x80;
                }
            }
            ElementFormat::Q2_K => {
                (self.d, self.m) = (half(80), half(82));
                for (i, byte) in data[..16].iter().enumerate() {
                    (self.scales[i], self.minima[i]) = ((byte & 15) as i8, byte >> 4);
                }
                crumbs_256(&data[16..80], &mut self.q);
            }
            ElementFormat::Q3_K => self.read_q3_k(data),
            ElementFormat::Q4_K => {
                (self.d, self.m) = (half(0), half(2));
                self.read_six_bit_scales(&data[4..16]);
                nibbles_256(&data[16..144], &mut self.q);
            }
            ElementFormat::Q5_K => {
                (self.d, self.m) = (half(0), half(2));
                self.read_six_bit_scales(&data[4..16]);
                nibbles_256(&data[48..176], &mut self.q);
                for (i, q) in self.q.iter_mut().enumerate() {
                    *q |= ((data[16 + i % 32] >> (i / 32)) & 1) << 4;
                }
            }
            ElementFormat::Q6_K => self.read_q6_k(data),
        }
    }

    /// hmask[32], qs[64], scales[12], d. The third bit is inverted: set means "do not subtract 4".
    fn read_q3_k(&mut self, data: &[u8]) {
        self.d = u16::from_le_bytes([data[108], data[109]]);
        crumbs_256(&data[32..96], &mut self.q);
        for (i, q) in self.q.iter_mut().enumerate() {
            *q |= ((data[i % 32] >> (i / 32)) & 1) << 2;
        }
        let packed = &data[96..108];
        for (i, scale) in self.scales.iter_mut().enumerate() {
            let low = if i < 8 { packed[i] & 15 } else { packed[i - 8] >> 4 };
            let high = (packed[8 + i % 4] >> (2 * (i / 4))) & 3;
            *scale = (low | high << 4) as i8 - 32;
        }
    }

    /// ql[128], qh[64], scales[16], d. Each half of 128 values uses 64 bytes of ql and 32 of qh.
    fn read_q6_k(&mut self, data: &[u8]) {
        self.d = u16::from_le_bytes([data[208], data[209]]);
        for (i, q) in self.q.iter_mut().enumerate() {
            let (half, quarter, j) = (i / 128, i / 32 % 4, i % 32);
            let low = data[64 * half + 32 * (quarter % 2) + j] >> (4 * (quarter / 2)) & 15;
            let high = data[128 + 32 * half + j] >> (2 * quarter) & 3;
            *q = low | high << 4;
        }
        for (scale, byte) in self.scales.iter_mut().zip(&data[192..208]) {
            *scale = *byte as i8;
        }
    }

    /// Eight scales and eight minima of six bits in twelve bytes (Q4_K, Q5_K).
    fn read_six_bit_scales(&mut self, packed: &[u8]) {
        for i in 0..4 {
            self.scales[i] = (packed[i] & 63) as i8;
            self.minima[i] = packed[i + 4] & 63;
            self.scales[i + 4] = (packed[i + 8] & 15 | packed[i] >> 6 << 4) as i8;
            self.minima[i + 4] = packed[i + 8] >> 4 | packed[i + 4] >> 6 << 4;
        }
    }

    /// The values of the block; `out` has the format's block length.
    pub(super) fn dequantize(&self, rule: BlockRule, out: &mut [f32]) {
        let (d, m) = (f16_to_f32(self.d), f16_to_f32(self.m));
        for (i, (value, q)) in out.iter_mut().zip(self.q).enumerate() {
            let q = (i32::from(q) - rule.offset) as f32;
            let place = i * rule.scales / 32;
            *value = if rule.scales == 0 {
                let product = d * q;
                if rule.has_minimum { product + m } else { product }
            } else {
                let product = d * f32::from(self.scales[place]) * q;
                if rule.has_minimum { product - m * f32::from(self.minima[place]) } else { product }
            };
        }
    }
}

/// 32 values: the low nibbles of 16 bytes, then the high ones.
fn nibbles_32(data: &[u8], q: &mut [u8; 256]) {
    for (i, byte) in data.iter().enumerate() {
        (q[i], q[i + 16]) = (byte & 15, byte >> 4);
    }
}

/// Bit i of four bytes is bit 4 of value i.
fn fifth_bits_32(data: &[u8], q: &mut [u8; 256]) {
    for (i, q) in q[..32].iter_mut().enumerate() {
        *q |= ((data[i / 8] >> (i % 8)) & 1) << 4;
    }
}

/// 256 values: of each 32 bytes the low nibbles, then the high ones.
fn nibbles_256(data: &[u8], q: &mut [u8; 256]) {
    for (i, byte) in data.iter().enumerate() {
        let at = i / 32 * 64 + i % 32;
        (q[at], q[at + 32]) = (byte & 15, byte >> 4);
    }
}

/// 256 values of two bits: of each 32 bytes bits 0-1 of all, then 2-3, 4-5, 6-7.
fn crumbs_256(data: &[u8], q: &mut [u8; 256]) {
    for (i, byte) in data.iter().enumerate() {
        for j in 0..4 {
            q[i / 32 * 128 + 32 * j + i % 32] = byte >> (2 * j) & 3;
        }
    }
}
