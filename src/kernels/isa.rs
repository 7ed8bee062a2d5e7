//! Run-time choice of the instruction set.

#[cfg(target_arch = "x86_64")]
use super::simd::{Avx2, Avx512, amx};
use super::simd::{Portable, Simd};
#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::__cpuid;
#[cfg(target_arch = "x86_64")]
use std::sync::OnceLock;

/// Instruction set that kernels run with. All but portable give the same bits ([`super::bf16`] names an exception); portable
/// agrees to rounding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Isa {
    /// Any machine.
    Portable,
    /// AVX2, FMA and F16C (x86-64-v3).
    Avx2,
    /// AVX-512 F, BW, DQ, VL and VNNI.
    Avx512Vnni,
    /// The same and AVX512-BF16, with matrix units (AMX-INT8, AMX-BF16) for many rows.
    Amx,
}

impl Isa {
    pub const ALL: [Isa; 4] = [Isa::Portable, Isa::Avx2, Isa::Avx512Vnni, Isa::Amx];

    /// The fastest that this machine has.
    pub fn detect() -> Isa {
        Isa::ALL.into_iter().rev().find(|isa| isa.is_available()).unwrap_or(Isa::Portable)
    }

    /// All that this machine has, slowest first.
    pub fn available() -> Vec<Isa> {
        Isa::ALL.into_iter().filter(|isa| isa.is_available()).collect()
    }

    pub fn parse(name: &str) -> Option<Isa> {
        Isa::ALL.into_iter().find(|isa| isa.name() == name)
    }

    pub const fn name(self) -> &'static str {
        match self {
            Isa::Portable => "portable",
            Isa::Avx2 => "avx2",
            Isa::Avx512Vnni => "avx512-vnni",
            Isa::Amx => "amx-int8",
        }
    }

    /// Whether this machine can run it. Cheap: the standard library caches what it detected.
    #[cfg(target_arch = "x86_64")]
    pub fn is_available(self) -> bool {
        let avx2 = || {
            is_x86_feature_detected!("avx2")
                && is_x86_feature_detected!("fma")
                && is_x86_feature_detected!("f16c")
        };
        let avx512 = || {
            avx2()
                && is_x86_feature_detected!("avx512f")
                && is_x86_feature_detected!("avx512bw")
                && is_x86_feature_detected!("avx512dq")
                && is_x86_feature_detected!("avx512vl")
                && is_x86_feature_detected!("avx512vnni")
        };
        match self {
            Isa::Portable => true,
            Isa::Avx2 => avx2(),
            Isa::Avx512Vnni => avx512(),
            Isa::Amx => avx512() && amx::is_available(),
        }
    }

    #[cfg(not(target_arch = "x86_64"))]
    pub fn is_available(self) -> bool {
        self == Isa::Portable
    }

    /// Whether AVX512-BF16 multiplies pairs faster than f32 does the same: on AMD's processors in half the time (Zen 4); Intel's,
    /// which have matrix units for it, take twice as long (Sapphire Rapids).
    #[cfg(target_arch = "x86_64")]
    pub(super) fn multiplies_pairs(self) -> bool {
        static ANSWER: OnceLock<bool> = OnceLock::new();
        let is_fast = || {
            let vendor = __cpuid(0);
            Isa::Avx512Vnni.is_available()
                && is_x86_feature_detected!("avx512bf16")
                && [vendor.ebx, vendor.edx, vendor.ecx].map(u32::to_le_bytes).concat() == b"AuthenticAMD"
        };
        self == Isa::Avx512Vnni && *ANSWER.get_or_init(is_fast)
    }

    #[cfg(not(target_arch = "x86_64"))]
    pub(super) fn multiplies_pairs(self) -> bool {
        false
    }

    /// Runs a kernel built for this instruction set; the portable build where the machine lacks it, so that a value of
    /// this type is never a licence to execute an illegal instruction.
    pub(super) fn run<K: Kernel>(self, kernel: K) -> K::Output {
        #[cfg(target_arch = "x86_64")]
        if self.is_available() {
            match self {
                Isa::Portable => {}
                // SAFETY: the features that the function enables were detected above.
                Isa::Avx2 => return unsafe { run_avx2(kernel) },
                // SAFETY: the features that the function enables were detected above.
                Isa::Avx512Vnni | Isa::Amx => return unsafe { run_avx512(kernel) },
            }
        }
        kernel.run(Portable)
    }
}

/// Work that is compiled once for each instruction set. `run` and everything it calls are `#[inline(always)]`, so that
/// it becomes part of a function with the target features. So nothing vectorised stands in a closure: whether a closure is
/// inlined is the compiler's choice, and where it is not, every vector operation in it becomes a call.
pub(super) trait Kernel {
    type Output;
    fn run<S: Simd>(self, simd: S) -> Self::Output;
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma,f16c")]
fn run_avx2<K: Kernel>(kernel: K) -> K::Output {
    // SAFETY: this function runs only where these features exist.
    kernel.run(unsafe { Avx2::assume() })
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
fn run_avx512<K: Kernel>(kernel: K) -> K::Output {
    // SAFETY: this function runs only where these features exist.
    kernel.run(unsafe { Avx512::assume() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_round_trip_and_the_detected_one_is_available() {
        for isa in Isa::ALL {
            assert_eq!(Isa::parse(isa.name()), Some(isa));
        }
        assert_eq!(Isa::parse("sse9"), None);
        assert!(Isa::available().contains(&Isa::detect()));
        assert!(Isa::available().contains(&Isa::Portable));
    }
}
