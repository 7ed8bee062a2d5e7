//! What products of this machine could reach, for benches to compare with.

use super::Cpu;
use super::isa::Kernel;
#[cfg(target_arch = "x86_64")]
use super::simd::{Avx512, amx};
use super::simd::{LANES, Simd};
use std::hint::black_box;

/// Sums in registers at a time: enough to hide the latency of one.
const SUMS: usize = 12;

/// Multiplies int8 values that stay in registers, on all threads, `rounds` times each; returns the operations done (a
/// multiplication and an addition count as two). Vectors of this instruction set, without matrix units.
pub fn int8_peak_of_vectors(cpu: &Cpu, rounds: usize) -> usize {
    struct Peak(usize);
    impl Kernel for Peak {
        type Output = i32;
        #[inline(always)]
        fn run<S: Simd>(self, s: S) -> i32 {
            let bytes = black_box([3u8; 64]);
            // SAFETY: 64 bytes.
            let w = unsafe { s.load_b(bytes.as_ptr()) };
            let (x, mut sums) = (black_box(0x0102_0304), [s.splat_i(0); SUMS]);
            for _ in 0..self.0 {
                for sum in &mut sums {
                    *sum = s.dot(*sum, w, x);
                }
            }
            let mut all = s.splat_i(0);
            for sum in sums {
                all = s.add_i(all, sum);
            }
            s.sum_i(all)
        }
    }
    on_all_threads(cpu, || {
        black_box(cpu.isa.run(Peak(rounds)));
    });
    cpu.pool.threads() * rounds * SUMS * LANES * 4 * 2
}

/// The same with f32.
pub fn f32_peak_of_vectors(cpu: &Cpu, rounds: usize) -> usize {
    struct Peak(usize);
    impl Kernel for Peak {
        type Output = f32;
        #[inline(always)]
        fn run<S: Simd>(self, s: S) -> f32 {
            let (x, mut sums) = (s.splat(black_box(0.0)), [s.zero(); SUMS]);
            for _ in 0..self.0 {
                for sum in &mut sums {
                    *sum = s.fma(x, x, *sum);
                }
            }
            let mut all = s.zero();
            for sum in sums {
                all = s.add(all, sum);
            }
            s.sum(all)
        }
    }
    on_all_threads(cpu, || {
        black_box(cpu.isa.run(Peak(rounds)));
    });
    cpu.pool.threads() * rounds * SUMS * LANES * 2
}

/// The same with the instruction that AVX512-BF16 has for pairs of bfloat16. `None` where there is none, and where products
/// do not use it ([`super::Isa::multiplies_pairs`]).
pub fn bf16_peak_of_vectors(cpu: &Cpu, rounds: usize) -> Option<usize> {
    #[cfg(target_arch = "x86_64")]
    if cpu.isa.multiplies_pairs() {
        // SAFETY: that was asked.
        on_all_threads(cpu, || unsafe { multiply_pairs(rounds) });
        return Some(cpu.pool.threads() * rounds * SUMS * LANES * 2 * 2);
    }
    let _ = (cpu, rounds);
    None
}

/// # Safety
/// [`super::Isa::multiplies_pairs`].
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
unsafe fn multiply_pairs(rounds: usize) {
    // SAFETY: the caller's word.
    let s = unsafe { Avx512::assume() };
    let (x, mut sums) = (s.splat_i(black_box(0)), [s.zero(); SUMS]);
    for _ in 0..rounds {
        for sum in &mut sums {
            // SAFETY: the caller's word.
            *sum = unsafe { s.add_pairs(*sum, x, x) };
        }
    }
    black_box(sums);
}

/// int8 with matrix units, in the steps that quantised blocks of 32 allow: both operands from the first cache, sums
/// of 32 products, and the sums written back. `None` where there are no matrix units.
pub fn int8_peak_of_matrix_units(cpu: &Cpu, rounds: usize) -> Option<usize> {
    #[cfg(target_arch = "x86_64")]
    if amx::is_available() {
        const K: usize = 32;
        on_all_threads(cpu, || {
            let operands = black_box(Aligned([[1i8; LANES * K]; 2]));
            let [x, w] = &operands.0;
            let mut all = Aligned([0i32; LANES * LANES]);
            let sums = &mut all.0;
            // SAFETY: there are matrix units; the operands have 16 rows of 32 and 8 rows of 64, the sums 16 rows of 16.
            unsafe {
                let tiles = amx::Tiles::new(LANES, K);
                tiles.multiply::<0>(x.as_ptr(), K, w.as_ptr());
                for _ in 0..rounds {
                    tiles.multiply::<2>(x.as_ptr(), K, w.as_ptr());
                    tiles.store::<0>(sums.as_mut_ptr(), 64);
                    tiles.multiply::<0>(x.as_ptr(), K, w.as_ptr());
                    tiles.store::<2>(sums.as_mut_ptr(), 64);
                }
            }
            black_box(all);
        });
        return Some(cpu.pool.threads() * rounds * 2 * LANES * LANES * K * 2);
    }
    let _ = (cpu, rounds);
    None
}

/// Multiplies bfloat16 as products of many rows do, both operands from the first cache, the sums in registers. `None` where
/// there are no matrix units.
pub fn bf16_peak_of_matrix_units(cpu: &Cpu, rounds: usize) -> Option<usize> {
    #[cfg(target_arch = "x86_64")]
    if amx::is_available() {
        const K: usize = 32;
        on_all_threads(cpu, || {
            let operands = black_box(Aligned([[0u16; LANES * K]; 4]));
            let values = &operands.0;
            let (x, w) = ([values[0].as_ptr(), values[1].as_ptr()], [values[2].as_ptr(), values[3].as_ptr()]);
            let mut sums = [0f32; LANES * LANES];
            // SAFETY: there are matrix units; all operands have 16 rows of 16 pairs, the sums 16 rows of 16.
            unsafe {
                let tiles = amx::Tiles::new(LANES, 2 * K);
                tiles.clear();
                for _ in 0..rounds {
                    tiles.multiply_bf16(x, 2 * K, w, 64);
                }
                tiles.store::<0>(sums.as_mut_ptr(), 64);
            }
            black_box(sums);
        });
        return Some(cpu.pool.threads() * rounds * 4 * LANES * LANES * K * 2);
    }
    let _ = (cpu, rounds);
    None
}

/// From the start of a cache line on, as operands of products are.
#[cfg(target_arch = "x86_64")]
#[repr(align(64))]
struct Aligned<T>(T);

fn on_all_threads(cpu: &Cpu, work: impl Fn() + Sync) {
    cpu.pool.run(cpu.pool.threads(), &|_| work());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::Isa;

    #[test]
    fn operations_are_counted() {
        let cpu = Cpu::new(Isa::detect(), 2);
        assert_eq!(int8_peak_of_vectors(&cpu, 10), 2 * 10 * 12 * 16 * 8);
        assert_eq!(f32_peak_of_vectors(&cpu, 10), 2 * 10 * 12 * 16 * 2);
        assert!(bf16_peak_of_vectors(&cpu, 10).is_none_or(|count| count == 2 * 10 * 12 * 16 * 4));
        if Isa::detect() == Isa::Amx {
            assert_eq!(int8_peak_of_matrix_units(&cpu, 10), Some(2 * 10 * 2 * 16 * 16 * 64));
            assert_eq!(bf16_peak_of_matrix_units(&cpu, 10), Some(2 * 10 * 4 * 16 * 16 * 64));
        }
    }
}
