//! Floats as they are stored, sixteen at a time.

use super::simd::Simd;

/// How a weight, a key or a value is stored.
pub(super) trait Element {
    const BYTES: usize;
    /// # Safety
    /// 16 elements to read.
    unsafe fn load<S: Simd>(s: S, from: *const u8) -> S::F;
}

pub(super) struct F32;
pub(super) struct F16;
pub(super) struct Bf16;

macro_rules! elements {
    ($($name:ident: $bytes:literal, $load:ident;)*) => {$(
        impl Element for $name {
            const BYTES: usize = $bytes;
            #[inline(always)]
            unsafe fn load<S: Simd>(s: S, from: *const u8) -> S::F {
                // SAFETY: the caller's word.
                unsafe { s.$load(from.cast()) }
            }
        }
    )*};
}

elements! {
    F32: 4, load;
    F16: 2, load_f16;
    Bf16: 2, load_bf16;
}
