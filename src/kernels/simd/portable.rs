//! Sixteen lanes in plain Rust, for machines without AVX2.

use super::{LANES, Simd};
use crate::kernels::math::f16_to_f32;
use std::array::from_fn;

#[derive(Clone, Copy)]
pub struct Portable;

type F = [f32; LANES];
type I = [i32; LANES];
type B = [u8; 64];

/// Adding and subtracting this rounds |x| < 2^22 to an integer, ties to even.
const ROUNDER: f32 = 12_582_912.0;

#[inline(always)]
fn bytes_of(x: i32) -> [i32; 4] {
    x.to_le_bytes().map(|byte| i32::from(byte as i8))
}

impl Simd for Portable {
    type F = F;
    type I = I;
    type B = B;
    type M = [bool; LANES];

    const INT8_ROWS: usize = 4;
    const MAY_HAVE_AMX: bool = false;
    const MANY_REGISTERS: bool = false;

    #[inline(always)]
    fn zero(self) -> F {
        [0.0; LANES]
    }
    #[inline(always)]
    fn splat(self, value: f32) -> F {
        [value; LANES]
    }
    #[inline(always)]
    unsafe fn load(self, from: *const f32) -> F {
        // SAFETY: the caller has 16 f32 there.
        unsafe { from.cast::<F>().read_unaligned() }
    }
    #[inline(always)]
    unsafe fn store(self, to: *mut f32, value: F) {
        // SAFETY: the caller has 16 f32 there.
        unsafe { to.cast::<F>().write_unaligned(value) }
    }
    #[inline(always)]
    unsafe fn load_f16(self, from: *const u16) -> F {
        // SAFETY: the caller has 16 u16 there.
        let halves = unsafe { from.cast::<[u16; LANES]>().read_unaligned() };
        halves.map(f16_to_f32)
    }
    #[inline(always)]
    unsafe fn store_f16(self, to: *mut u16, value: F) {
        let halves = value.map(|value| half::f16::from_f32(value).to_bits());
        // SAFETY: the caller has room for 16 u16 there.
        unsafe { to.cast::<[u16; LANES]>().write_unaligned(halves) }
    }
    #[inline(always)]
    unsafe fn load_bf16(self, from: *const u16) -> F {
        // SAFETY: the caller has 16 u16 there.
        let halves = unsafe { from.cast::<[u16; LANES]>().read_unaligned() };
        halves.map(|half| f32::from_bits(u32::from(half) << 16))
    }
    #[inline(always)]
    unsafe fn load_bf16_pairs(self, from: *const u16) -> (F, F) {
        // SAFETY: the caller has 32 u16 there.
        let halves = unsafe { from.cast::<[[u16; 2]; LANES]>().read_unaligned() };
        let wide = |half: u16| f32::from_bits(u32::from(half) << 16);
        (halves.map(|pair| wide(pair[0])), halves.map(|pair| wide(pair[1])))
    }
    #[inline(always)]
    fn to_bf16(self, a: F) -> F {
        a.map(|x| {
            let bits = x.to_bits();
            match x {
                _ if x.is_nan() => f32::NAN,
                _ if x.abs() < f32::MIN_POSITIVE => 0.0,
                _ => f32::from_bits((bits + 0x7fff + (bits >> 16 & 1)) & 0xffff_0000),
            }
        })
    }
    #[inline(always)]
    unsafe fn store_bf16(self, to: *mut u16, value: F) {
        let halves = value.map(|value| (value.to_bits() >> 16) as u16);
        // SAFETY: the caller has room for 16 u16 there.
        unsafe { to.cast::<[u16; LANES]>().write_unaligned(halves) }
    }
    #[inline(always)]
    fn add(self, a: F, b: F) -> F {
        from_fn(|i| a[i] + b[i])
    }
    #[inline(always)]
    fn sub(self, a: F, b: F) -> F {
        from_fn(|i| a[i] - b[i])
    }
    #[inline(always)]
    fn mul(self, a: F, b: F) -> F {
        from_fn(|i| a[i] * b[i])
    }
    #[inline(always)]
    fn div(self, a: F, b: F) -> F {
        from_fn(|i| a[i] / b[i])
    }
    #[inline(always)]
    fn fma(self, a: F, b: F, c: F) -> F {
        from_fn(|i| a[i] * b[i] + c[i])
    }
    #[inline(always)]
    fn fnma(self, a: F, b: F, c: F) -> F {
        from_fn(|i| c[i] - a[i] * b[i])
    }
    #[inline(always)]
    fn max(self, a: F, b: F) -> F {
        from_fn(|i| if a[i] > b[i] { a[i] } else { b[i] })
    }
    #[inline(always)]
    fn min(self, a: F, b: F) -> F {
        from_fn(|i| if a[i] < b[i] { a[i] } else { b[i] })
    }
    #[inline(always)]
    fn abs(self, a: F) -> F {
        a.map(f32::abs)
    }
    #[inline(always)]
    fn round(self, a: F) -> F {
        a.map(|x| (x + ROUNDER) - ROUNDER)
    }
    #[inline(always)]
    fn power_of_two(self, n: F) -> F {
        n.map(|n| f32::from_bits(((n as i32 + 127) as u32) << 23))
    }
    #[inline(always)]
    fn sum(self, a: F) -> f32 {
        let eight: [f32; 8] = from_fn(|i| a[i] + a[i + 8]);
        let four: [f32; 4] = from_fn(|i| eight[i] + eight[i + 4]);
        (four[0] + four[2]) + (four[1] + four[3])
    }
    #[inline(always)]
    fn largest(self, a: F) -> f32 {
        a.into_iter().fold(f32::NEG_INFINITY, |m, x| if m > x { m } else { x })
    }

    #[inline(always)]
    fn less(self, a: F, b: F) -> [bool; LANES] {
        from_fn(|i| a[i] < b[i])
    }
    #[inline(always)]
    fn lanes(self, from: isize, to: isize) -> [bool; LANES] {
        from_fn(|i| (i as isize) >= from && (i as isize) < to)
    }
    #[inline(always)]
    fn select(self, mask: [bool; LANES], a: F, b: F) -> F {
        from_fn(|i| if mask[i] { a[i] } else { b[i] })
    }

    #[inline(always)]
    fn splat_i(self, value: i32) -> I {
        [value; LANES]
    }
    #[inline(always)]
    fn add_i(self, a: I, b: I) -> I {
        from_fn(|i| a[i].wrapping_add(b[i]))
    }
    #[inline(always)]
    fn mul_i(self, a: I, b: I) -> I {
        from_fn(|i| a[i].wrapping_mul(b[i]))
    }
    #[inline(always)]
    fn sum_i(self, a: I) -> i32 {
        a.into_iter().fold(0, i32::wrapping_add)
    }
    #[inline(always)]
    fn to_f(self, a: I) -> F {
        a.map(|x| x as f32)
    }
    #[inline(always)]
    fn to_i(self, a: F) -> I {
        a.map(|x| ((x + ROUNDER) - ROUNDER) as i32)
    }
    #[inline(always)]
    fn largest_magnitude(self, a: F, b: F) -> f32 {
        let bits = |x: f32| x.to_bits() & 0x7fff_ffff;
        f32::from_bits(a.into_iter().chain(b).fold(0, |m, x| m.max(bits(x))))
    }
    #[inline(always)]
    unsafe fn load_u8(self, from: *const u8) -> I {
        // SAFETY: the caller has 16 bytes there.
        unsafe { from.cast::<[u8; LANES]>().read_unaligned() }.map(i32::from)
    }
    #[inline(always)]
    unsafe fn load_i8(self, from: *const i8) -> I {
        // SAFETY: the caller has 16 bytes there.
        unsafe { from.cast::<[i8; LANES]>().read_unaligned() }.map(i32::from)
    }
    #[inline(always)]
    unsafe fn store_i8(self, to: *mut i8, value: I) {
        // SAFETY: the caller has 16 bytes there.
        unsafe { to.cast::<[i8; LANES]>().write_unaligned(value.map(|x| x as i8)) }
    }

    #[inline(always)]
    unsafe fn load_i(self, from: *const i32) -> I {
        // SAFETY: the caller has 16 i32 there.
        unsafe { from.cast::<I>().read_unaligned() }
    }
    #[inline(always)]
    fn prefetch(self, _at: *const u8) {}
    #[inline(always)]
    unsafe fn load_b(self, from: *const u8) -> B {
        // SAFETY: the caller has 64 bytes there.
        unsafe { from.cast::<B>().read_unaligned() }
    }
    #[inline(always)]
    unsafe fn store_b(self, to: *mut u8, value: B) {
        // SAFETY: the caller has 64 bytes there.
        unsafe { to.cast::<B>().write_unaligned(value) }
    }
    #[inline(always)]
    fn sub_b(self, a: B, value: u8) -> B {
        a.map(|x| x.wrapping_sub(value))
    }
    #[inline(always)]
    fn low_nibbles(self, a: B) -> B {
        a.map(|x| x & 15)
    }
    #[inline(always)]
    fn high_nibbles(self, a: B) -> B {
        a.map(|x| x >> 4)
    }
    #[inline(always)]
    fn left_4(self, a: B) -> B {
        a.map(|x| x << 4)
    }
    #[inline(always)]
    fn right_1(self, a: B) -> B {
        a.map(|x| x >> 1)
    }
    #[inline(always)]
    fn right_2(self, a: B) -> B {
        a.map(|x| x >> 2)
    }
    #[inline(always)]
    fn merge(self, nibbles: B, upper: B, mask: u8) -> B {
        from_fn(|i| nibbles[i] | upper[i] & mask)
    }
    #[inline(always)]
    fn byte<const J: i32>(self, a: B) -> I {
        from_fn(|i| i32::from(a[4 * i + J as usize]))
    }
    #[inline(always)]
    fn dot(self, acc: I, w: B, x: i32) -> I {
        let x = bytes_of(x);
        from_fn(|i| (0..4).fold(acc[i], |sum, j| sum + i32::from(w[4 * i + j]) * x[j]))
    }
    #[inline(always)]
    fn wide_start(self, _sum: i32) -> I {
        [0; LANES]
    }
    #[inline(always)]
    fn dot_wide(self, acc: I, w: B, x: i32) -> I {
        let x = bytes_of(x);
        from_fn(|i| (0..4).fold(acc[i], |sum, j| sum + (i32::from(w[4 * i + j]) - 128) * x[j]))
    }
}
