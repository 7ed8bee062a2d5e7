//! Compute kernels on slices: packed products, attention over paged keys and values, elementwise work, thread pool.
//!
//! Slices in, slices out; no names of models, tokens or tensors. The only room with SIMD, and (memory maps apart) the
//! only one with `unsafe`. Every kernel is written once, generic over [`simd::Simd`], and built for each [`Isa`].
//!
//! What makes the bits of a row depend on its own inputs only, in every file here:
//! * an output element is one sum over k in one order, made by one thread; work is split over rows and output columns;
//! * one row and many rows run the same fused multiply-adds in the same order (a const number of rows, one source);
//! * float reductions use one 16-lane tree ([`simd::Simd::sum`]), so AVX2 and AVX-512 agree bit by bit;
//! * attention walks tiles of 64 keys from position 0 and merges pieces of 512 positions in ascending order.
//!
//! Bfloat16 has an exception for numbers that are hardly ever met: [`bf16`].
//!
//! The portable form multiplies and adds in two roundings; it is tested to a bound, not to the bit.

// Loops over a const number of rows or vectors index several register arrays at once.
#![allow(clippy::needless_range_loop)]

mod activations;
mod aligned;
mod attention;
mod attention_bf16;
mod bf16;
mod blocks;
mod dequantize;
mod element;
mod elementwise;
mod isa;
mod kv;
mod math;
mod packed;
mod peak;
mod planes;
mod pool;
mod product;
#[cfg(target_arch = "x86_64")]
mod product_amx;
mod product_bf16;
#[cfg(target_arch = "x86_64")]
mod product_bf16_pairs;
mod product_f32;
mod product_int8;
mod quantize;
mod reduce;
mod rotary;
mod rows;
mod simd;
#[cfg(test)]
mod tests;
mod training;

pub use activations::Activations;
pub use attention::{AttentionRow, AttentionShape, attention};
pub use dequantize::dequantize;
pub use elementwise::{axpy, rms_norm, rms_norm_in_place, scale, softcap};
pub use isa::Isa;
pub use kv::{D_HEAD_MAX, KvFormat, KvLayer, Places};
pub use packed::PackedMatrix;
pub use peak::{
    bf16_peak_of_matrix_units, bf16_peak_of_vectors, f32_peak_of_vectors, int8_peak_of_matrix_units,
    int8_peak_of_vectors,
};
pub use pool::Pool;
pub use product::{product, product_many};
pub use quantize::quantize;
pub use reduce::{all_finite, argmax, dot, max_and_log_sum_exp, softmax_weights};
pub use rotary::{Rotary, rotary};
pub use rows::{
    add_row, each_row, gelu_tanh_mul_row, norm_row, norm_rows_in_place, rotary_row, silu_mul_row,
};
pub use training::{
    CausalShape, Gate, causal_attention, causal_attention_backward, gate, gate_backward, rms_norm_backward,
};

use crate::format::ElementFormat;

/// How activations enter products.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Precision {
    /// int8 with one scale per 32 values where the weights are quantised, bfloat16 where they are that, f32 elsewhere.
    Int8,
    /// f32 against dequantised weights: the exact mode.
    F32,
}

/// Where kernels run: an instruction set and the threads that share the work.
pub struct Cpu {
    pub isa: Isa,
    pub pool: Pool,
}

impl Cpu {
    /// `threads` counts the caller; 0 is taken as 1. An instruction set that this machine lacks is replaced by the best
    /// one that it has.
    pub fn new(isa: Isa, threads: usize) -> Cpu {
        let isa = if isa.is_available() { isa } else { Isa::detect() };
        Cpu { isa, pool: Pool::new(threads) }
    }
}

/// What can be wrong with weights given to a kernel.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum KernelError {
    #[error("{format} data: {given} bytes given; {expected} needed")]
    DataLength { format: ElementFormat, given: usize, expected: usize },
    #[error("{format} rows of {k} elements: the length must be a positive multiple of {block_len}")]
    RowLength { format: ElementFormat, k: usize, block_len: usize },
    #[error("{format} matrix [{n}, {k}]: its size overflows")]
    TooLarge { format: ElementFormat, n: usize, k: usize },
}
