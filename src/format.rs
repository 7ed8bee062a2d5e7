//! How the elements of a stored tensor are encoded: names, block lengths and block sizes of GGUF's types.

use std::fmt;

/// Encoding of a stored tensor. A *quantisation block* is `block_len` consecutive elements of one row, stored in
/// `block_bytes` bytes. Layouts are those of ggml's `block_*` structs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[allow(non_camel_case_types)]
pub enum ElementFormat {
    F32,
    F16,
    BF16,
    Q4_0,
    Q4_1,
    Q5_0,
    Q5_1,
    Q8_0,
    Q2_K,
    Q3_K,
    Q4_K,
    Q5_K,
    Q6_K,
}

impl ElementFormat {
    pub const ALL: [ElementFormat; 13] = [
        ElementFormat::F32,
        ElementFormat::F16,
        ElementFormat::BF16,
        ElementFormat::Q4_0,
        ElementFormat::Q4_1,
        ElementFormat::Q5_0,
        ElementFormat::Q5_1,
        ElementFormat::Q8_0,
        ElementFormat::Q2_K,
        ElementFormat::Q3_K,
        ElementFormat::Q4_K,
        ElementFormat::Q5_K,
        ElementFormat::Q6_K,
    ];

    /// Elements of one quantisation block.
    pub const fn block_len(self) -> usize {
        match self {
            ElementFormat::F32 | ElementFormat::F16 | ElementFormat::BF16 => 1,
            ElementFormat::Q4_0
            | ElementFormat::Q4_1
            | ElementFormat::Q5_0
            | ElementFormat::Q5_1
            | ElementFormat::Q8_0 => 32,
            ElementFormat::Q2_K
            | ElementFormat::Q3_K
            | ElementFormat::Q4_K
            | ElementFormat::Q5_K
            | ElementFormat::Q6_K => 256,
        }
    }

    /// Bytes of one quantisation block.
    pub const fn block_bytes(self) -> usize {
        match self {
            ElementFormat::F32 => 4,
            ElementFormat::F16 | ElementFormat::BF16 => 2,
            ElementFormat::Q4_0 => 18,
            ElementFormat::Q4_1 => 20,
            ElementFormat::Q5_0 => 22,
            ElementFormat::Q5_1 => 24,
            ElementFormat::Q8_0 => 34,
            ElementFormat::Q2_K => 84,
            ElementFormat::Q3_K => 110,
            ElementFormat::Q4_K => 144,
            ElementFormat::Q5_K => 176,
            ElementFormat::Q6_K => 210,
        }
    }

    /// Bytes of a row of `len` elements; `None` when `len` is no multiple of the block length or the size overflows.
    pub fn row_bytes(self, len: usize) -> Option<usize> {
        if !len.is_multiple_of(self.block_len()) {
            return None;
        }
        (len / self.block_len()).checked_mul(self.block_bytes())
    }

    pub const fn name(self) -> &'static str {
        match self {
            ElementFormat::F32 => "F32",
            ElementFormat::F16 => "F16",
            ElementFormat::BF16 => "BF16",
            ElementFormat::Q4_0 => "Q4_0",
            ElementFormat::Q4_1 => "Q4_1",
            ElementFormat::Q5_0 => "Q5_0",
            ElementFormat::Q5_1 => "Q5_1",
            ElementFormat::Q8_0 => "Q8_0",
            ElementFormat::Q2_K => "Q2_K",
            ElementFormat::Q3_K => "Q3_K",
            ElementFormat::Q4_K => "Q4_K",
            ElementFormat::Q5_K => "Q5_K",
            ElementFormat::Q6_K => "Q6_K",
        }
    }

    /// The type id of GGUF (`ggml_type`).
    pub const fn gguf_id(self) -> u32 {
        match self {
            ElementFormat::F32 => 0,
            ElementFormat::F16 => 1,
            ElementFormat::Q4_0 => 2,
            ElementFormat::Q4_1 => 3,
            ElementFormat::Q5_0 => 6,
            ElementFormat::Q5_1 => 7,
            ElementFormat::Q8_0 => 8,
            ElementFormat::Q2_K => 10,
            ElementFormat::Q3_K => 11,
            ElementFormat::Q4_K => 12,
            ElementFormat::Q5_K => 13,
            ElementFormat::Q6_K => 14,
            ElementFormat::BF16 => 30,
        }
    }

    pub fn from_gguf_id(id: u32) -> Option<ElementFormat> {
        ElementFormat::ALL.into_iter().find(|format| format.gguf_id() == id)
    }
}

impl fmt::Display for ElementFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
