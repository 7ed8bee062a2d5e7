//! Sixteen lanes in one AVX-512 register.

use super::Simd;
use super::avx2::{largest_256, sum_256, sum_i_256};
use std::arch::asm;
use std::arch::x86_64::*;

/// Proof of AVX-512 F, BW, DQ, VL and VNNI, and of AVX2, FMA and F16C.
#[derive(Clone, Copy)]
pub struct Avx512(());

impl Avx512 {
    /// # Safety
    /// The machine has the features named at the type.
    #[inline(always)]
    pub unsafe fn assume() -> Avx512 {
        Avx512(())
    }

    /// Of two vectors of pairs (a, b), (c, d) the pairs (c, a), (d, b).
    #[inline(always)]
    pub fn chains(self, first: __m512i, second: __m512i) -> (__m512i, __m512i) {
        // SAFETY: `self` exists only where these instructions do.
        unsafe {
            let even = _mm512_mask_mov_epi16(_mm512_slli_epi32::<16>(first), 0x5555_5555, second);
            let odd = _mm512_mask_mov_epi16(_mm512_srli_epi32::<16>(second), 0xaaaa_aaaa, first);
            (even, odd)
        }
    }

    /// To each sum the product of the second of two pairs of bfloat16, then that of the first.
    /// # Safety
    /// The machine has AVX512-BF16.
    #[inline(always)]
    pub unsafe fn add_pairs(self, sum: __m512, w: __m512i, x: __m512i) -> __m512 {
        // SAFETY: the caller's word.
        unsafe { add_pairs(sum, w, x) }
    }
}

/// To bfloat16 with the instruction of AVX512-BF16. As assembly, because naming that feature here would keep this function
/// from becoming part of kernels for machines without it.
/// # Safety
/// The machine has AVX512-BF16.
#[inline]
#[target_feature(enable = "avx512f")]
unsafe fn narrow_bf16(value: __m512) -> __m256i {
    let halves: __m256i;
    // SAFETY: the caller's word; nothing but the register is written.
    unsafe {
        asm!("vcvtneps2bf16 {halves}, {value}", halves = lateout(ymm_reg) halves, value = in(zmm_reg) value,
            options(pure, nomem, nostack, preserves_flags));
    }
    halves
}

/// Adds to each sum the product of the second of two pairs of bfloat16, then that of the first.
/// # Safety
/// The machine has AVX512-BF16.
#[inline]
#[target_feature(enable = "avx512f")]
unsafe fn add_pairs(mut sum: __m512, w: __m512i, x: __m512i) -> __m512 {
    // SAFETY: the caller's word; nothing but the register is written.
    unsafe {
        asm!("vdpbf16ps {sum}, {w}, {x}", sum = inout(zmm_reg) sum, w = in(zmm_reg) w, x = in(zmm_reg) x,
            options(pure, nomem, nostack, preserves_flags));
    }
    sum
}

/// Methods whose only precondition is that the instructions exist.
macro_rules! operations {
    ($($name:ident($($arg:ident: $type:ty),*) -> $output:ty = $body:expr;)*) => {$(
        #[inline(always)]
        fn $name(self, $($arg: $type),*) -> $output {
            // SAFETY: `self` exists only where these instructions do.
            unsafe { $body }
        }
    )*};
}

/// Methods that read or write through a pointer.
macro_rules! memory {
    ($($name:ident($($arg:ident: $type:ty),*) -> $output:ty = $body:expr;)*) => {$(
        #[inline(always)]
        unsafe fn $name(self, $($arg: $type),*) -> $output {
            // SAFETY: `self` exists only where these instructions do; the caller vouches for the pointer.
            unsafe { $body }
        }
    )*};
}

impl Simd for Avx512 {
    type F = __m512;
    type I = __m512i;
    type B = __m512i;
    type M = __mmask16;

    const INT8_ROWS: usize = 8;
    const MAY_HAVE_AMX: bool = true;
    const MANY_REGISTERS: bool = true;

    operations! {
        zero() -> __m512 = _mm512_setzero_ps();
        splat(value: f32) -> __m512 = _mm512_set1_ps(value);
        add(a: __m512, b: __m512) -> __m512 = _mm512_add_ps(a, b);
        sub(a: __m512, b: __m512) -> __m512 = _mm512_sub_ps(a, b);
        mul(a: __m512, b: __m512) -> __m512 = _mm512_mul_ps(a, b);
        div(a: __m512, b: __m512) -> __m512 = _mm512_div_ps(a, b);
        fma(a: __m512, b: __m512, c: __m512) -> __m512 = _mm512_fmadd_ps(a, b, c);
        fnma(a: __m512, b: __m512, c: __m512) -> __m512 = _mm512_fnmadd_ps(a, b, c);
        max(a: __m512, b: __m512) -> __m512 = _mm512_max_ps(a, b);
        min(a: __m512, b: __m512) -> __m512 = _mm512_min_ps(a, b);
        abs(a: __m512) -> __m512 = _mm512_abs_ps(a);
        round(a: __m512) -> __m512 = _mm512_roundscale_ps::<8>(a);
        power_of_two(n: __m512) -> __m512 = _mm512_castsi512_ps(
            _mm512_slli_epi32::<23>(_mm512_add_epi32(_mm512_cvtps_epi32(n), _mm512_set1_epi32(127))));
        times_power_of_two(a: __m512, n: __m512) -> __m512 = _mm512_scalef_ps(a, n);
        to_bf16(a: __m512) -> __m512 = {
            let bits = _mm512_castps_si512(a);
            let odd = _mm512_and_si512(_mm512_srli_epi32::<16>(bits), _mm512_set1_epi32(1));
            let up = _mm512_add_epi32(_mm512_add_epi32(bits, _mm512_set1_epi32(0x7fff)), odd);
            let rounded = _mm512_and_si512(up, _mm512_set1_epi32(0xffff_0000_u32 as i32));
            let normal = _mm512_cmp_ps_mask::<_CMP_GE_OQ>(_mm512_abs_ps(a), _mm512_set1_ps(f32::MIN_POSITIVE));
            let number = _mm512_cmp_ps_mask::<_CMP_ORD_Q>(a, a);
            _mm512_mask_blend_ps(
                number, _mm512_set1_ps(f32::NAN), _mm512_castsi512_ps(_mm512_maskz_mov_epi32(normal, rounded)))
        };
        sum(a: __m512) -> f32 = sum_256(
            _mm256_add_ps(_mm512_castps512_ps256(a), _mm512_extractf32x8_ps::<1>(a)));
        largest(a: __m512) -> f32 = largest_256(
            _mm256_max_ps(_mm512_castps512_ps256(a), _mm512_extractf32x8_ps::<1>(a)));

        less(a: __m512, b: __m512) -> __mmask16 = _mm512_cmp_ps_mask::<_CMP_LT_OQ>(a, b);
        select(mask: __mmask16, a: __m512, b: __m512) -> __m512 = _mm512_mask_blend_ps(mask, b, a);

        splat_i(value: i32) -> __m512i = _mm512_set1_epi32(value);
        add_i(a: __m512i, b: __m512i) -> __m512i = _mm512_add_epi32(a, b);
        mul_i(a: __m512i, b: __m512i) -> __m512i = _mm512_mullo_epi32(a, b);
        sum_i(a: __m512i) -> i32 = sum_i_256(
            _mm256_add_epi32(_mm512_castsi512_si256(a), _mm512_extracti32x8_epi32::<1>(a)));
        to_f(a: __m512i) -> __m512 = _mm512_cvtepi32_ps(a);
        to_i(a: __m512) -> __m512i = _mm512_cvtps_epi32(a);
        largest_magnitude(a: __m512, b: __m512) -> f32 = f32::from_bits(_mm512_reduce_max_epi32(_mm512_max_epi32(
            _mm512_castps_si512(_mm512_abs_ps(a)), _mm512_castps_si512(_mm512_abs_ps(b)))) as u32);

        prefetch(at: *const u8) -> () = _mm_prefetch::<_MM_HINT_T1>(at.cast());
        sub_b(a: __m512i, value: u8) -> __m512i = _mm512_sub_epi8(a, _mm512_set1_epi8(value as i8));
        low_nibbles(a: __m512i) -> __m512i = _mm512_and_si512(a, _mm512_set1_epi8(15));
        high_nibbles(a: __m512i) -> __m512i =
            _mm512_and_si512(_mm512_srli_epi16::<4>(a), _mm512_set1_epi8(15));
        left_4(a: __m512i) -> __m512i = _mm512_slli_epi16::<4>(a);
        right_1(a: __m512i) -> __m512i = _mm512_srli_epi16::<1>(a);
        right_2(a: __m512i) -> __m512i = _mm512_srli_epi16::<2>(a);
        merge(nibbles: __m512i, upper: __m512i, mask: u8) -> __m512i =
            _mm512_or_si512(nibbles, _mm512_and_si512(upper, _mm512_set1_epi8(mask as i8)));
        dot(acc: __m512i, w: __m512i, x: i32) -> __m512i = _mm512_dpbusd_epi32(acc, w, _mm512_set1_epi32(x));
        wide_start(sum: i32) -> __m512i = _mm512_set1_epi32(-128 * sum);
        dot_wide(acc: __m512i, w: __m512i, x: i32) -> __m512i =
            _mm512_dpbusd_epi32(acc, w, _mm512_set1_epi32(x));
    }

    memory! {
        load(from: *const f32) -> __m512 = _mm512_loadu_ps(from);
        store(to: *mut f32, value: __m512) -> () = _mm512_storeu_ps(to, value);
        load_f16(from: *const u16) -> __m512 = _mm512_cvtph_ps(_mm256_loadu_si256(from.cast()));
        store_f16(to: *mut u16, value: __m512) -> () =
            _mm256_storeu_si256(to.cast(), _mm512_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(value));
        load_bf16(from: *const u16) -> __m512 = _mm512_castsi512_ps(
            _mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(_mm256_loadu_si256(from.cast()))));
        load_bf16_pairs(from: *const u16) -> (__m512, __m512) = {
            let pairs = _mm512_loadu_si512(from.cast());
            let second = _mm512_and_si512(pairs, _mm512_set1_epi32(0xffff_0000_u32 as i32));
            (_mm512_castsi512_ps(_mm512_slli_epi32::<16>(pairs)), _mm512_castsi512_ps(second))
        };
        store_bf16(to: *mut u16, value: __m512) -> () = _mm256_storeu_si256(
            to.cast(), _mm512_cvtepi32_epi16(_mm512_srli_epi32::<16>(_mm512_castps_si512(value))));
        load_i(from: *const i32) -> __m512i = _mm512_loadu_si512(from.cast());
        load_u8(from: *const u8) -> __m512i = _mm512_cvtepu8_epi32(_mm_loadu_si128(from.cast()));
        load_i8(from: *const i8) -> __m512i = _mm512_cvtepi8_epi32(_mm_loadu_si128(from.cast()));
        store_i8(to: *mut i8, value: __m512i) -> () =
            _mm_storeu_si128(to.cast(), _mm512_cvtsepi32_epi8(value));
        load_b(from: *const u8) -> __m512i = _mm512_loadu_si512(from.cast());
        store_b(to: *mut u8, value: __m512i) -> () = _mm512_storeu_si512(to.cast(), value);
    }

    #[inline(always)]
    unsafe fn round_and_store_bf16(self, to: *mut u16, value: __m512) -> __m512 {
        // SAFETY: the caller's word.
        unsafe {
            let halves = narrow_bf16(value);
            _mm256_storeu_si256(to.cast(), halves);
            _mm512_castsi512_ps(_mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(halves)))
        }
    }

    #[inline(always)]
    fn lanes(self, from: isize, to: isize) -> __mmask16 {
        let below = |n: isize| ((1u32 << n.clamp(0, 16)) - 1) as u16;
        below(to) & !below(from)
    }

    #[inline(always)]
    fn byte<const J: i32>(self, a: __m512i) -> __m512i {
        // SAFETY: `self` exists only where these instructions do.
        unsafe {
            let shifted = match J {
                0 => a,
                1 => _mm512_srli_epi32::<8>(a),
                2 => _mm512_srli_epi32::<16>(a),
                _ => _mm512_srli_epi32::<24>(a),
            };
            _mm512_and_si512(shifted, _mm512_set1_epi32(255))
        }
    }
}
