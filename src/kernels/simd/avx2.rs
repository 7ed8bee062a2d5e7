//! Sixteen lanes in two AVX2 registers: lanes 0 to 7, then 8 to 15.

use super::Simd;
use std::arch::x86_64::*;

/// Proof of AVX2, FMA and F16C.
#[derive(Clone, Copy)]
pub struct Avx2(());

impl Avx2 {
    /// # Safety
    /// The machine has the features named at the type.
    #[inline(always)]
    pub unsafe fn assume() -> Avx2 {
        Avx2(())
    }
}

#[derive(Clone, Copy)]
pub struct Pair<T>(T, T);

type F = Pair<__m256>;
type I = Pair<__m256i>;

/// Methods that do the same to both halves.
macro_rules! halves {
    ($($name:ident($($arg:ident: $type:ty),*) -> $output:ty = $body:expr;)*) => {$(
        #[inline(always)]
        fn $name(self, $($arg: $type),*) -> $output {
            // SAFETY: `self` exists only where these instructions do.
            Pair(unsafe { $(let $arg = $arg.0;)* $body }, unsafe { $(let $arg = $arg.1;)* $body })
        }
    )*};
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

/// The tree of [`Simd::sum`] from eight lanes on.
/// # Safety
/// The machine has AVX2.
#[inline(always)]
pub(super) unsafe fn sum_256(a: __m256) -> f32 {
    // SAFETY: the caller vouches for AVX2.
    unsafe {
        let four = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps::<1>(a));
        let two = _mm_add_ps(four, _mm_movehl_ps(four, four));
        _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)))
    }
}

/// # Safety
/// The machine has AVX2.
#[inline(always)]
pub(super) unsafe fn largest_256(a: __m256) -> f32 {
    // SAFETY: the caller vouches for AVX2.
    unsafe {
        let four = _mm_max_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps::<1>(a));
        let two = _mm_max_ps(four, _mm_movehl_ps(four, four));
        _mm_cvtss_f32(_mm_max_ss(two, _mm_movehdup_ps(two)))
    }
}

/// # Safety
/// The machine has AVX2.
#[inline(always)]
pub(super) unsafe fn sum_i_256(a: __m256i) -> i32 {
    // SAFETY: the caller vouches for AVX2.
    unsafe {
        let four = _mm_add_epi32(_mm256_castsi256_si128(a), _mm256_extracti128_si256::<1>(a));
        let two = _mm_add_epi32(four, _mm_shuffle_epi32::<0b01_00_11_10>(four));
        _mm_cvtsi128_si32(_mm_add_epi32(two, _mm_shuffle_epi32::<0b10_11_00_01>(two)))
    }
}

/// # Safety
/// The machine has AVX2.
#[inline(always)]
unsafe fn largest_i_256(a: __m256i) -> i32 {
    // SAFETY: the caller vouches for AVX2.
    unsafe {
        let four = _mm_max_epi32(_mm256_castsi256_si128(a), _mm256_extracti128_si256::<1>(a));
        let two = _mm_max_epi32(four, _mm_shuffle_epi32::<0b01_00_11_10>(four));
        _mm_cvtsi128_si32(_mm_max_epi32(two, _mm_shuffle_epi32::<0b10_11_00_01>(two)))
    }
}

/// The bits of |a|, whose order as integers is that of the values.
/// # Safety
/// The machine has AVX2.
#[inline(always)]
unsafe fn magnitude(a: __m256) -> __m256i {
    // SAFETY: the caller vouches for AVX2.
    unsafe { _mm256_and_si256(_mm256_castps_si256(a), _mm256_set1_epi32(0x7fff_ffff)) }
}

/// # Safety
/// The machine has AVX2; 8 u16 to read.
#[inline(always)]
unsafe fn eight_bf16(from: *const u16) -> __m256 {
    // SAFETY: the caller vouches for both.
    unsafe {
        let wide = _mm256_cvtepu16_epi32(_mm_loadu_si128(from.cast()));
        _mm256_castsi256_ps(_mm256_slli_epi32::<16>(wide))
    }
}

/// Lanes with from <= index < to.
/// # Safety
/// The machine has AVX2.
#[inline(always)]
unsafe fn between(index: __m256i, from: i32, to: i32) -> __m256 {
    // SAFETY: the caller vouches for AVX2.
    unsafe {
        let too_early = _mm256_cmpgt_epi32(_mm256_set1_epi32(from), index);
        let early_enough = _mm256_cmpgt_epi32(_mm256_set1_epi32(to), index);
        _mm256_castsi256_ps(_mm256_andnot_si256(too_early, early_enough))
    }
}

/// # Safety
/// The machine has AVX2.
#[inline(always)]
unsafe fn dot_wide_256(acc: __m256i, w: __m256i, x: __m256i) -> __m256i {
    // SAFETY: the caller vouches for AVX2.
    unsafe {
        let signed = _mm256_xor_si256(w, _mm256_set1_epi8(-128));
        let pairs = _mm256_maddubs_epi16(_mm256_abs_epi8(signed), _mm256_sign_epi8(x, signed));
        _mm256_add_epi32(acc, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)))
    }
}

impl Simd for Avx2 {
    type F = F;
    type I = I;
    type B = I;
    type M = F;

    const INT8_ROWS: usize = 4;
    const MAY_HAVE_AMX: bool = false;
    const MANY_REGISTERS: bool = false;

    halves! {
        add(a: F, b: F) -> F = _mm256_add_ps(a, b);
        sub(a: F, b: F) -> F = _mm256_sub_ps(a, b);
        mul(a: F, b: F) -> F = _mm256_mul_ps(a, b);
        div(a: F, b: F) -> F = _mm256_div_ps(a, b);
        fma(a: F, b: F, c: F) -> F = _mm256_fmadd_ps(a, b, c);
        fnma(a: F, b: F, c: F) -> F = _mm256_fnmadd_ps(a, b, c);
        max(a: F, b: F) -> F = _mm256_max_ps(a, b);
        min(a: F, b: F) -> F = _mm256_min_ps(a, b);
        abs(a: F) -> F = _mm256_castsi256_ps(magnitude(a));
        round(a: F) -> F = _mm256_round_ps::<8>(a);
        power_of_two(n: F) -> F = _mm256_castsi256_ps(
            _mm256_slli_epi32::<23>(_mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127))));
        less(a: F, b: F) -> F = _mm256_cmp_ps::<_CMP_LT_OQ>(a, b);
        select(mask: F, a: F, b: F) -> F = _mm256_blendv_ps(b, a, mask);
        add_i(a: I, b: I) -> I = _mm256_add_epi32(a, b);
        mul_i(a: I, b: I) -> I = _mm256_mullo_epi32(a, b);
        to_f(a: I) -> F = _mm256_cvtepi32_ps(a);
        to_i(a: F) -> I = _mm256_cvtps_epi32(a);
        to_bf16(a: F) -> F = {
            let bits = _mm256_castps_si256(a);
            let odd = _mm256_and_si256(_mm256_srli_epi32::<16>(bits), _mm256_set1_epi32(1));
            let up = _mm256_add_epi32(_mm256_add_epi32(bits, _mm256_set1_epi32(0x7fff)), odd);
            let rounded = _mm256_and_si256(up, _mm256_set1_epi32(0xffff_0000_u32 as i32));
            let smallest = _mm256_set1_ps(f32::MIN_POSITIVE);
            let normal = _mm256_cmp_ps::<_CMP_GE_OQ>(_mm256_castsi256_ps(magnitude(a)), smallest);
            let number = _mm256_cmp_ps::<_CMP_ORD_Q>(a, a);
            _mm256_blendv_ps(
                _mm256_set1_ps(f32::NAN), _mm256_and_ps(_mm256_castsi256_ps(rounded), normal), number)
        };
        low_nibbles(a: I) -> I = _mm256_and_si256(a, _mm256_set1_epi8(15));
        left_4(a: I) -> I = _mm256_slli_epi16::<4>(a);
        right_1(a: I) -> I = _mm256_srli_epi16::<1>(a);
        right_2(a: I) -> I = _mm256_srli_epi16::<2>(a);
        high_nibbles(a: I) -> I = _mm256_and_si256(_mm256_srli_epi16::<4>(a), _mm256_set1_epi8(15));
    }

    operations! {
        zero() -> F = Pair(_mm256_setzero_ps(), _mm256_setzero_ps());
        splat(value: f32) -> F = Pair(_mm256_set1_ps(value), _mm256_set1_ps(value));
        sum(a: F) -> f32 = sum_256(_mm256_add_ps(a.0, a.1));
        largest(a: F) -> f32 = largest_256(_mm256_max_ps(a.0, a.1));
        splat_i(value: i32) -> I = Pair(_mm256_set1_epi32(value), _mm256_set1_epi32(value));
        sum_i(a: I) -> i32 = sum_i_256(_mm256_add_epi32(a.0, a.1));
        largest_magnitude(a: F, b: F) -> f32 = f32::from_bits(largest_i_256(_mm256_max_epi32(
            _mm256_max_epi32(magnitude(a.0), magnitude(a.1)),
            _mm256_max_epi32(magnitude(b.0), magnitude(b.1)))) as u32);
        prefetch(at: *const u8) -> () = _mm_prefetch::<_MM_HINT_T1>(at.cast());
        sub_b(a: I, value: u8) -> I = {
            let value = _mm256_set1_epi8(value as i8);
            Pair(_mm256_sub_epi8(a.0, value), _mm256_sub_epi8(a.1, value))
        };
        merge(nibbles: I, upper: I, mask: u8) -> I = {
            let mask = _mm256_set1_epi8(mask as i8);
            Pair(
                _mm256_or_si256(nibbles.0, _mm256_and_si256(upper.0, mask)),
                _mm256_or_si256(nibbles.1, _mm256_and_si256(upper.1, mask)))
        };
        wide_start(_sum: i32) -> I = Pair(_mm256_setzero_si256(), _mm256_setzero_si256());
    }

    memory! {
        load(from: *const f32) -> F = Pair(_mm256_loadu_ps(from), _mm256_loadu_ps(from.add(8)));
        store(to: *mut f32, value: F) -> () = {
            _mm256_storeu_ps(to, value.0);
            _mm256_storeu_ps(to.add(8), value.1);
        };
        load_f16(from: *const u16) -> F = Pair(
            _mm256_cvtph_ps(_mm_loadu_si128(from.cast())), _mm256_cvtph_ps(_mm_loadu_si128(from.add(8).cast())));
        store_f16(to: *mut u16, value: F) -> () = {
            _mm_storeu_si128(to.cast(), _mm256_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(value.0));
            _mm_storeu_si128(to.add(8).cast(), _mm256_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(value.1));
        };
        load_bf16(from: *const u16) -> F = Pair(eight_bf16(from), eight_bf16(from.add(8)));
        load_bf16_pairs(from: *const u16) -> (F, F) = {
            let upper = _mm256_set1_epi32(0xffff_0000_u32 as i32);
            let a = _mm256_loadu_si256(from.cast());
            let b = _mm256_loadu_si256(from.add(16).cast());
            (
                Pair(
                    _mm256_castsi256_ps(_mm256_slli_epi32::<16>(a)),
                    _mm256_castsi256_ps(_mm256_slli_epi32::<16>(b))),
                Pair(
                    _mm256_castsi256_ps(_mm256_and_si256(a, upper)),
                    _mm256_castsi256_ps(_mm256_and_si256(b, upper))))
        };
        store_bf16(to: *mut u16, value: F) -> () = {
            let a = _mm256_srli_epi32::<16>(_mm256_castps_si256(value.0));
            let b = _mm256_srli_epi32::<16>(_mm256_castps_si256(value.1));
            let words = _mm256_permute4x64_epi64::<0b11_01_10_00>(_mm256_packus_epi32(a, b));
            _mm256_storeu_si256(to.cast(), words);
        };
        load_i(from: *const i32) -> I = Pair(
            _mm256_loadu_si256(from.cast()), _mm256_loadu_si256(from.add(8).cast()));
        load_u8(from: *const u8) -> I = Pair(
            _mm256_cvtepu8_epi32(_mm_loadl_epi64(from.cast())),
            _mm256_cvtepu8_epi32(_mm_loadl_epi64(from.add(8).cast())));
        load_i8(from: *const i8) -> I = Pair(
            _mm256_cvtepi8_epi32(_mm_loadl_epi64(from.cast())),
            _mm256_cvtepi8_epi32(_mm_loadl_epi64(from.add(8).cast())));
        store_i8(to: *mut i8, value: I) -> () = {
            let words = _mm256_permute4x64_epi64::<0b11_01_10_00>(_mm256_packs_epi32(value.0, value.1));
            let bytes = _mm_packs_epi16(_mm256_castsi256_si128(words), _mm256_extracti128_si256::<1>(words));
            _mm_storeu_si128(to.cast(), bytes);
        };
        load_b(from: *const u8) -> I = Pair(
            _mm256_loadu_si256(from.cast()), _mm256_loadu_si256(from.add(32).cast()));
        store_b(to: *mut u8, value: I) -> () = {
            _mm256_storeu_si256(to.cast(), value.0);
            _mm256_storeu_si256(to.add(32).cast(), value.1);
        };
    }

    #[inline(always)]
    fn lanes(self, from: isize, to: isize) -> F {
        let (from, to) = (from.clamp(0, 16) as i32, to.clamp(0, 16) as i32);
        // SAFETY: `self` exists only where these instructions do.
        unsafe {
            let first = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
            let second = _mm256_add_epi32(first, _mm256_set1_epi32(8));
            Pair(between(first, from, to), between(second, from, to))
        }
    }

    #[inline(always)]
    fn byte<const J: i32>(self, a: I) -> I {
        // SAFETY: `self` exists only where these instructions do.
        unsafe {
            let shifted = match J {
                0 => a,
                1 => Pair(_mm256_srli_epi32::<8>(a.0), _mm256_srli_epi32::<8>(a.1)),
                2 => Pair(_mm256_srli_epi32::<16>(a.0), _mm256_srli_epi32::<16>(a.1)),
                _ => Pair(_mm256_srli_epi32::<24>(a.0), _mm256_srli_epi32::<24>(a.1)),
            };
            let low = _mm256_set1_epi32(255);
            Pair(_mm256_and_si256(shifted.0, low), _mm256_and_si256(shifted.1, low))
        }
    }

    /// Two products of at most 127 * 128 fit the 16 bits of the first addition.
    #[inline(always)]
    fn dot(self, acc: I, w: I, x: i32) -> I {
        // SAFETY: `self` exists only where these instructions do.
        unsafe {
            let (x, one) = (_mm256_set1_epi32(x), _mm256_set1_epi16(1));
            Pair(
                _mm256_add_epi32(acc.0, _mm256_madd_epi16(_mm256_maddubs_epi16(w.0, x), one)),
                _mm256_add_epi32(acc.1, _mm256_madd_epi16(_mm256_maddubs_epi16(w.1, x), one)),
            )
        }
    }

    /// u8 x i8 pairs would saturate (2 * 255 * 127 > 32767), so the sign of w - 128 moves to x: 2 * 128 * 127 fits.
    #[inline(always)]
    fn dot_wide(self, acc: I, w: I, x: i32) -> I {
        // SAFETY: `self` exists only where these instructions do.
        unsafe {
            let x = _mm256_set1_epi32(x);
            Pair(dot_wide_256(acc.0, w.0, x), dot_wide_256(acc.1, w.1, x))
        }
    }
}
