//! Sixteen lanes: what a kernel may ask of an instruction set.

#[cfg(target_arch = "x86_64")]
pub mod amx;
#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod portable;

#[cfg(target_arch = "x86_64")]
pub use avx2::Avx2;
#[cfg(target_arch = "x86_64")]
pub use avx512::Avx512;
pub use portable::Portable;

/// Lanes of every vector here.
pub const LANES: usize = 16;

/// An instruction set as a value: holding one proves that this machine has it. Methods without a pointer are safe for
/// that reason; those with one need it valid for the stated number of elements, at any alignment.
pub trait Simd: Copy {
    /// 16 f32.
    type F: Copy;
    /// 16 i32.
    type I: Copy;
    /// 64 bytes; byte 4 * lane + j belongs to 32-bit lane `lane`.
    type B: Copy;
    /// 16 truth values.
    type M: Copy;

    /// Rows that the int8 product keeps in registers at most.
    const INT8_ROWS: usize;
    /// Whether machines with this instruction set may have matrix units ([`amx`]).
    const MAY_HAVE_AMX: bool;
    /// Whether the register file holds 16 float accumulators of 16 lanes beside their operands.
    const MANY_REGISTERS: bool;

    fn zero(self) -> Self::F;
    fn splat(self, value: f32) -> Self::F;
    /// # Safety
    /// 16 f32 to read.
    unsafe fn load(self, from: *const f32) -> Self::F;
    /// # Safety
    /// 16 f32 to write.
    unsafe fn store(self, to: *mut f32, value: Self::F);
    /// Sixteen half floats, exactly.
    /// # Safety
    /// 16 u16 to read.
    unsafe fn load_f16(self, from: *const u16) -> Self::F;
    /// Sixteen values rounded to half floats, ties to even.
    /// # Safety
    /// 16 u16 to write.
    unsafe fn store_f16(self, to: *mut u16, value: Self::F);
    /// Sixteen bfloat16, exactly.
    /// # Safety
    /// 16 u16 to read.
    unsafe fn load_bf16(self, from: *const u16) -> Self::F;
    /// Sixteen pairs of bfloat16, exactly: the first of each, and the second of each.
    /// # Safety
    /// 32 u16 to read.
    unsafe fn load_bf16_pairs(self, from: *const u16) -> (Self::F, Self::F);
    /// To the nearest bfloat16, ties to even. Numbers too small for a normal one become zero, as matrix units take them.
    fn to_bf16(self, a: Self::F) -> Self::F;
    /// Of values that [`Simd::to_bf16`] has rounded.
    /// # Safety
    /// 16 u16 to write.
    unsafe fn store_bf16(self, to: *mut u16, value: Self::F);
    /// [`Simd::to_bf16`] and [`Simd::store_bf16`] at once.
    /// # Safety
    /// 16 u16 to write; [`amx::is_available`] where machines with this instruction set may have it.
    #[inline(always)]
    unsafe fn round_and_store_bf16(self, to: *mut u16, value: Self::F) -> Self::F {
        let rounded = self.to_bf16(value);
        // SAFETY: the caller's word.
        unsafe { self.store_bf16(to, rounded) };
        rounded
    }
    fn add(self, a: Self::F, b: Self::F) -> Self::F;
    fn sub(self, a: Self::F, b: Self::F) -> Self::F;
    fn mul(self, a: Self::F, b: Self::F) -> Self::F;
    fn div(self, a: Self::F, b: Self::F) -> Self::F;
    /// a * b + c, in one rounding (portable: two).
    fn fma(self, a: Self::F, b: Self::F, c: Self::F) -> Self::F;
    /// c - a * b, in one rounding (portable: two).
    fn fnma(self, a: Self::F, b: Self::F, c: Self::F) -> Self::F;
    /// a > b ? a : b, so b where either is not a number.
    fn max(self, a: Self::F, b: Self::F) -> Self::F;
    /// a < b ? a : b, so b where either is not a number.
    fn min(self, a: Self::F, b: Self::F) -> Self::F;
    fn abs(self, a: Self::F) -> Self::F;
    /// To the nearest integer, ties to even; the portable form wants |a| < 2^22.
    fn round(self, a: Self::F) -> Self::F;
    /// 2^n for integral n in -126..=127, 0 for n = -127.
    fn power_of_two(self, n: Self::F) -> Self::F;
    /// a * 2^n for integral n in -127..=127; where the result is below the smallest normal number, it may be anything that
    /// is too, or zero.
    #[inline(always)]
    fn times_power_of_two(self, a: Self::F, n: Self::F) -> Self::F {
        self.mul(a, self.power_of_two(n))
    }
    /// The sum in one fixed tree: lane i + lane i+8, then 4, 2, 1 apart.
    fn sum(self, a: Self::F) -> f32;
    /// The largest lane; none may be not-a-number.
    fn largest(self, a: Self::F) -> f32;

    fn less(self, a: Self::F, b: Self::F) -> Self::M;
    /// Lanes `from..to`; both are clamped to 0..=16.
    fn lanes(self, from: isize, to: isize) -> Self::M;
    /// mask ? a : b.
    fn select(self, mask: Self::M, a: Self::F, b: Self::F) -> Self::F;

    fn splat_i(self, value: i32) -> Self::I;
    /// # Safety
    /// 16 i32 to read.
    unsafe fn load_i(self, from: *const i32) -> Self::I;
    fn add_i(self, a: Self::I, b: Self::I) -> Self::I;
    fn mul_i(self, a: Self::I, b: Self::I) -> Self::I;
    fn sum_i(self, a: Self::I) -> i32;
    fn to_f(self, a: Self::I) -> Self::F;
    /// To the nearest integer, ties to even.
    fn to_i(self, a: Self::F) -> Self::I;
    /// The largest |lane| of both; not-a-number beats infinity beats numbers.
    fn largest_magnitude(self, a: Self::F, b: Self::F) -> f32;
    /// # Safety
    /// 16 u8 to read.
    unsafe fn load_u8(self, from: *const u8) -> Self::I;
    /// # Safety
    /// 16 i8 to read.
    unsafe fn load_i8(self, from: *const i8) -> Self::I;
    /// Lanes must lie in -128..=127.
    /// # Safety
    /// 16 i8 to write.
    unsafe fn store_i8(self, to: *mut i8, value: Self::I);

    /// Asks for the cache line at an address, which need not be valid.
    fn prefetch(self, at: *const u8);
    /// # Safety
    /// 64 u8 to read.
    unsafe fn load_b(self, from: *const u8) -> Self::B;
    /// # Safety
    /// 64 u8 to write.
    unsafe fn store_b(self, to: *mut u8, value: Self::B);
    /// Each byte less `value`, modulo 256.
    fn sub_b(self, a: Self::B, value: u8) -> Self::B;
    fn low_nibbles(self, a: Self::B) -> Self::B;
    fn high_nibbles(self, a: Self::B) -> Self::B;
    /// Each byte by four bits; the low bits of a byte are anything (only bits 4 to 7 are meant).
    fn left_4(self, a: Self::B) -> Self::B;
    /// Each byte by one bit; the highest bit of a byte is anything.
    fn right_1(self, a: Self::B) -> Self::B;
    /// Each byte by two bits; the two highest bits of a byte are anything.
    fn right_2(self, a: Self::B) -> Self::B;
    /// nibbles | (upper & mask) in each byte.
    fn merge(self, nibbles: Self::B, upper: Self::B, mask: u8) -> Self::B;
    /// Byte `J` of every 32-bit lane, zero-extended.
    fn byte<const J: i32>(self, a: Self::B) -> Self::I;
    /// acc + sum over the four bytes of each lane of w (unsigned, at most 127) * x (the four signed bytes of `x`).
    fn dot(self, acc: Self::I, w: Self::B, x: i32) -> Self::I;
    /// Where a sum of [`Simd::dot_wide`] starts; `sum` is the sum of all x that will enter.
    fn wide_start(self, sum: i32) -> Self::I;
    /// With [`Simd::wide_start`]: acc + sum of (w - 128) * x over the four bytes of each lane, w any u8, x not -128.
    fn dot_wide(self, acc: Self::I, w: Self::B, x: i32) -> Self::I;
}
