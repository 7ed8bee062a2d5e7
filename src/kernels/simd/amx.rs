//! Matrix units (AMX): 256 sums over four bytes, or over two bfloat16, each with one instruction.
//!
//! Written as assembly, because the standard library has no stable names for these instructions.

use std::arch::asm;
use std::arch::x86_64::{__cpuid, __cpuid_count};
use std::sync::OnceLock;

/// Whether this machine has AMX-TILE, AMX-INT8, AMX-BF16 and AVX512-BF16 (they came together) and the system lets this
/// process use them. Asks once.
pub fn is_available() -> bool {
    static ANSWER: OnceLock<bool> = OnceLock::new();
    *ANSWER.get_or_init(|| {
        const TILE_INT8_BF16: u32 = 0b11 << 24 | 1 << 22;
        is_x86_feature_detected!("avx512bf16")
            && __cpuid(0).eax >= 7
            && __cpuid_count(7, 0).edx & TILE_INT8_BF16 == TILE_INT8_BF16
            && permitted()
    })
}

/// Linux gives a process the 8 KiB of state for each thread only when asked
/// (`arch_prctl(ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA)`).
#[cfg(target_os = "linux")]
fn permitted() -> bool {
    const SYS_ARCH_PRCTL: i64 = 158;
    const ARCH_REQ_XCOMP_PERM: i64 = 0x1023;
    const XFEATURE_XTILEDATA: i64 = 18;
    let result: i64;
    // SAFETY: this system call takes two numbers and touches no memory of ours; it overwrites rcx and r11.
    unsafe {
        asm!("syscall", inlateout("rax") SYS_ARCH_PRCTL => result, in("rdi") ARCH_REQ_XCOMP_PERM,
            in("rsi") XFEATURE_XTILEDATA, lateout("rcx") _, lateout("r11") _, options(nostack, nomem));
    }
    result == 0
}

#[cfg(not(target_os = "linux"))]
fn permitted() -> bool {
    false
}

/// The shapes of this thread's tile registers: 0 to 3 for sums, 4 and 6 for activations, 5 and 7 for weights.
#[repr(C, align(64))]
struct Shapes {
    palette: u8,
    start_row: u8,
    reserved: [u8; 14],
    row_bytes: [u16; 16],
    rows: [u8; 16],
}

/// This thread's tile registers, set up for one shape of product. They are given back when this value goes, so that
/// switches between threads do not carry 8 KiB of state.
pub struct Tiles(());

impl Tiles {
    /// For sums over `k` values (a multiple of 4, at most 64) of `rows` (at most 16) rows.
    /// # Safety
    /// [`is_available`]; no other value of this type lives in this thread.
    pub unsafe fn new(rows: usize, k: usize) -> Tiles {
        assert!((1..=16).contains(&rows) && k.is_multiple_of(4) && (4..=64).contains(&k));
        let mut shapes =
            Shapes { palette: 1, start_row: 0, reserved: [0; 14], row_bytes: [0; 16], rows: [0; 16] };
        for tile in 0..8 {
            let (rows, row_bytes) = match tile {
                0..4 => (rows, 64),
                4 | 6 => (rows, k),
                _ => (k / 4, 64),
            };
            (shapes.rows[tile], shapes.row_bytes[tile]) = (rows as u8, row_bytes as u16);
        }
        // SAFETY: the caller vouches for the instructions; `shapes` is the 64 bytes of palette 1, with sizes in range.
        unsafe { asm!("ldtilecfg [{}]", in(reg) &raw const shapes, options(nostack, readonly)) };
        Tiles(())
    }

    /// `sums[PLACE][row][j] = sum over k of x[row][k] * w[k / 4][4 j + k % 4]`, `j < 16`: `x` has rows of i8 `x_stride`
    /// bytes apart, `w` rows of 64 i8, as many as this value was made for. `PLACE` is one of four; 0 and 1 share the
    /// registers that they read into, and so do 2 and 3.
    /// # Safety
    /// The two hold what is stated.
    #[inline(always)]
    pub unsafe fn multiply<const PLACE: usize>(&self, x: *const i8, x_stride: usize, w: *const i8) {
        macro_rules! multiply {
            ($sums:literal, $x:literal, $w:literal) => {
                asm!(
                    concat!("tilezero ", $sums),
                    concat!("tileloadd ", $x, ", [{x} + {x_stride}]"),
                    concat!("tileloadd ", $w, ", [{w} + {line}]"),
                    concat!("tdpbssd ", $sums, ", ", $x, ", ", $w),
                    x = in(reg) x, x_stride = in(reg) x_stride, w = in(reg) w, line = in(reg) 64usize,
                    options(nostack, readonly),
                )
            };
        }
        // SAFETY: `self` exists only where these instructions do, with the shapes set; the caller vouches for the memory.
        unsafe {
            match PLACE {
                0 => multiply!("tmm0", "tmm4", "tmm5"),
                1 => multiply!("tmm1", "tmm4", "tmm5"),
                2 => multiply!("tmm2", "tmm6", "tmm7"),
                _ => multiply!("tmm3", "tmm6", "tmm7"),
            }
        }
    }

    /// Makes the sums of all places zero.
    #[inline(always)]
    pub fn clear(&self) {
        // SAFETY: `self` exists only where these instructions do.
        unsafe {
            asm!("tilezero tmm0", "tilezero tmm1", "tilezero tmm2", "tilezero tmm3", options(nostack, nomem));
        }
    }

    /// `sums[2 i + j] += x[i] w[j]` over sixteen pairs of bfloat16, for i < X and j < W, both at most 2: `x[i]` has rows
    /// of as many pairs `x_stride` bytes apart, `w[j]` is sixteen rows of sixteen pairs `w_stride` bytes apart. This value was
    /// made for k = 64 bytes.
    ///
    /// [`crate::kernels::bf16`] has the order of a sum.
    /// # Safety
    /// The operands hold what is stated.
    #[inline(always)]
    pub unsafe fn multiply_bf16<const X: usize, const W: usize>(
        &self,
        x: [*const u16; X],
        x_stride: usize,
        w: [*const u16; W],
        w_stride: usize,
    ) {
        macro_rules! multiply {
            ($($line:literal)*; $($name:ident = $value:expr),*) => {
                asm!($($line,)* x_stride = in(reg) x_stride, w_stride = in(reg) w_stride,
                    $($name = in(reg) $value,)* options(nostack, readonly))
            };
        }
        // SAFETY: `self` exists only where these instructions do, with the shapes set; the caller vouches for the memory.
        unsafe {
            match (X, W) {
                (1, 1) => multiply!(
                    "tileloadd tmm4, [{x} + {x_stride}]" "tileloadd tmm5, [{w} + {w_stride}]"
                    "tdpbf16ps tmm0, tmm4, tmm5"; x = x[0], w = w[0]),
                (1, 2) => multiply!(
                    "tileloadd tmm4, [{x} + {x_stride}]" "tileloadd tmm5, [{w} + {w_stride}]"
                    "tdpbf16ps tmm0, tmm4, tmm5" "tileloadd tmm7, [{v} + {w_stride}]"
                    "tdpbf16ps tmm1, tmm4, tmm7"; x = x[0], w = w[0], v = w[1]),
                (2, 1) => multiply!(
                    "tileloadd tmm4, [{x} + {x_stride}]" "tileloadd tmm5, [{w} + {w_stride}]"
                    "tdpbf16ps tmm0, tmm4, tmm5" "tileloadd tmm6, [{z} + {x_stride}]"
                    "tdpbf16ps tmm2, tmm6, tmm5"; x = x[0], z = x[1], w = w[0]),
                (2, 2) => multiply!(
                    "tileloadd tmm4, [{x} + {x_stride}]" "tileloadd tmm5, [{w} + {w_stride}]"
                    "tdpbf16ps tmm0, tmm4, tmm5" "tileloadd tmm7, [{v} + {w_stride}]"
                    "tdpbf16ps tmm1, tmm4, tmm7" "tileloadd tmm6, [{z} + {x_stride}]"
                    "tdpbf16ps tmm2, tmm6, tmm5" "tdpbf16ps tmm3, tmm6, tmm7";
                    x = x[0], z = x[1], w = w[0], v = w[1]),
                _ => unreachable!("{X} times {W} tiles of sums"),
            }
        }
    }

    /// Reads all sums from 32 rows of 32 f32, `stride` values apart: `sums[2 i + j]` from row 16 i and column 16 j on. This
    /// value was made for sixteen rows.
    /// # Safety
    /// So much to read at `from`.
    #[inline(always)]
    pub unsafe fn load_square(&self, from: *const f32, stride: usize) {
        macro_rules! load {
            ($sums:literal, $from:expr) => {
                asm!(concat!("tileloadd ", $sums, ", [{from} + {stride}]"), from = in(reg) $from,
                    stride = in(reg) 4 * stride, options(nostack, readonly))
            };
        }
        // SAFETY: as in `multiply`.
        unsafe {
            load!("tmm0", from);
            load!("tmm1", from.add(16));
            load!("tmm2", from.add(16 * stride));
            load!("tmm3", from.add(16 * stride + 16));
        }
    }

    /// Writes all sums to where [`Tiles::load_square`] reads them.
    /// # Safety
    /// So much to write at `to`.
    #[inline(always)]
    pub unsafe fn store_square(&self, to: *mut f32, stride: usize) {
        // SAFETY: the caller's word.
        unsafe {
            self.store::<0>(to, 4 * stride);
            self.store::<1>(to.add(16), 4 * stride);
            self.store::<2>(to.add(16 * stride), 4 * stride);
            self.store::<3>(to.add(16 * stride + 16), 4 * stride);
        }
    }

    /// Writes `sums[PLACE]` to rows of 16 i32 or f32, `stride` bytes apart, as many as this value was made for.
    /// # Safety
    /// So much to write at `to`.
    #[inline(always)]
    pub unsafe fn store<const PLACE: usize>(&self, to: *mut impl Copy, stride: usize) {
        macro_rules! store {
            ($sums:literal) => {
                asm!(concat!("tilestored [{to} + {stride}], ", $sums), to = in(reg) to, stride = in(reg) stride,
                    options(nostack))
            };
        }
        // SAFETY: as in `multiply`.
        unsafe {
            match PLACE {
                0 => store!("tmm0"),
                1 => store!("tmm1"),
                2 => store!("tmm2"),
                _ => store!("tmm3"),
            }
        }
    }
}

impl Drop for Tiles {
    fn drop(&mut self) {
        // SAFETY: `self` exists only where this instruction does.
        unsafe { asm!("tilerelease", options(nostack, nomem)) };
    }
}
