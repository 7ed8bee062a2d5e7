//! Half floats, and exp, tanh and their friends on sixteen lanes.

use super::simd::Simd;

/// The value of a half float, exactly (subnormals, infinities and not-a-number included).
#[inline(always)]
pub(super) fn f16_to_f32(half: u16) -> f32 {
    let sign = (u32::from(half) & 0x8000) << 16;
    let magnitude = (u32::from(half) & 0x7fff) << 13;
    // Half and single exponents differ by 112: a multiplication by 2^112 is exact and handles subnormals.
    let value = f32::from_bits(magnitude) * f32::from_bits((127 + 112) << 23);
    let bits = if magnitude >= 0x7c00 << 13 { magnitude | 0x7f80_0000 } else { value.to_bits() };
    f32::from_bits(sign | bits)
}

/// Below this exp is 0, so that its power of two stays a normal number.
const EXP_MIN: f32 = -87.0;
/// Above this exp stays at about 2.4e38.
const EXP_MAX: f32 = 88.37;

/// e^x to about 1 ulp: 2^n times a Taylor polynomial of degree 7 on |r| <= ln 2 / 2. Zero below -87, at most 2.4e38;
/// not-a-number stays.
#[inline(always)]
pub(super) fn exp<S: Simd>(s: S, x: S::F) -> S::F {
    let low = s.splat(EXP_MIN);
    let clamped = s.max(low, s.min(s.splat(EXP_MAX), x));
    let n = s.round(s.mul(clamped, s.splat(std::f32::consts::LOG2_E)));
    // ln 2 in two parts, the first with trailing zeros so that n * part is exact.
    let r = s.fnma(n, s.splat(f32::from_bits(0x3f31_7200)), clamped);
    let r = s.fnma(n, s.splat(1.428_606_8e-6), r);
    let mut p = s.splat(1.0 / 5040.0);
    for coefficient in [1.0 / 720.0, 1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5, 1.0, 1.0] {
        p = s.fma(p, r, s.splat(coefficient));
    }
    s.select(s.less(x, low), s.zero(), s.mul(p, s.power_of_two(n)))
}

/// e^x for x <= 0 to about 2^-14 of itself, enough for what is rounded to bfloat16 next; what lies below -88 then becomes
/// zero. Not-a-number stays.
#[inline(always)]
pub(super) fn exp_for_bf16<S: Simd>(s: S, x: S::F) -> S::F {
    let clamped = s.max(s.splat(-88.0), x);
    let n = s.round(s.mul(clamped, s.splat(std::f32::consts::LOG2_E)));
    let r = s.fnma(n, s.splat(std::f32::consts::LN_2), clamped);
    let mut p = s.splat(1.0 / 24.0);
    for coefficient in [1.0 / 6.0, 0.5, 1.0, 1.0] {
        p = s.fma(p, r, s.splat(coefficient));
    }
    s.times_power_of_two(p, n)
}

/// tanh x: (1 - e) / (1 + e) with e = exp(-2|x|); near 0, where that cancels, the odd Taylor polynomial.
#[inline(always)]
pub(super) fn tanh<S: Simd>(s: S, x: S::F) -> S::F {
    let magnitude = s.abs(x);
    let e = exp(s, s.mul(s.splat(-2.0), magnitude));
    let far = s.div(s.sub(s.splat(1.0), e), s.add(s.splat(1.0), e));
    let far = s.select(s.less(x, s.zero()), s.sub(s.zero(), far), far);
    let square = s.mul(x, x);
    let mut p = s.splat(-1382.0 / 155_925.0);
    for coefficient in [62.0 / 2835.0, -17.0 / 315.0, 2.0 / 15.0, -1.0 / 3.0, 1.0] {
        p = s.fma(p, square, s.splat(coefficient));
    }
    s.select(s.less(magnitude, s.splat(0.35)), s.mul(p, x), far)
}

/// x * sigmoid(x).
#[inline(always)]
pub(super) fn silu<S: Simd>(s: S, x: S::F) -> S::F {
    let e = exp(s, s.sub(s.zero(), x));
    s.div(x, s.add(s.splat(1.0), e))
}

/// 0.5 x (1 + tanh(u)) with u = sqrt(2/pi) (x + 0.044715 x^3), written as x * sigmoid(2u): the same, without cancelling.
#[inline(always)]
pub(super) fn gelu_tanh<S: Simd>(s: S, x: S::F) -> S::F {
    let cubic = s.fma(s.mul(s.splat(0.044_715), s.mul(x, x)), x, x);
    let u = s.mul(s.splat(0.797_884_6), cubic);
    let e = exp(s, s.mul(s.splat(-2.0), u));
    s.div(x, s.add(s.splat(1.0), e))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::isa::{Isa, Kernel};

    /// Weights as attention in bfloat16 makes them: rounded, and with matrix units also by their instruction.
    struct Weights<'a> {
        x: &'a [f32; 16],
        is_amx: bool,
    }

    impl Kernel for Weights<'_> {
        type Output = [f32; 16];
        #[inline(always)]
        fn run<S: Simd>(self, s: S) -> [f32; 16] {
            let (mut out, mut again, mut halves, mut same) = ([0.0; 16], [0.0; 16], [0; 16], [0; 16]);
            // SAFETY: all arrays hold 16 values; matrix units are there where `is_amx`.
            unsafe {
                let weight = exp_for_bf16(s, s.load(self.x.as_ptr()));
                let rounded = s.to_bf16(weight);
                s.store(out.as_mut_ptr(), rounded);
                s.store_bf16(halves.as_mut_ptr(), rounded);
                if self.is_amx {
                    s.store(again.as_mut_ptr(), s.round_and_store_bf16(same.as_mut_ptr(), weight));
                    for i in 0..16 {
                        let both_nan = out[i].is_nan() && again[i].is_nan();
                        assert!(both_nan || out[i].to_bits() == again[i].to_bits(), "{}", self.x[i]);
                        assert!(both_nan || halves[i] == same[i], "{}", self.x[i]);
                    }
                }
            }
            out
        }
    }

    #[test]
    fn weights_in_bfloat16_are_near_and_the_same_for_every_instruction_set() {
        let mut x: Vec<f32> = (0..160_000).map(|i| -95.0 * i as f32 / 160_000.0).collect();
        x.extend([f32::NEG_INFINITY, f32::NAN, -0.0, -1e-30, -87.0, -87.5, -88.0, -1e30]);
        x.resize(x.len().next_multiple_of(16), -1.0);
        for x in x.as_chunks::<16>().0 {
            let expected = Isa::Portable.run(Weights { x, is_amx: false });
            for (x, y) in x.iter().zip(expected) {
                let exact = f64::from(*x).exp();
                // Half a step of bfloat16 and the polynomial; below the smallest normal number all is zero.
                let bound = exact * (1.0 / 256.0 + 1e-4) + 1.3e-38;
                assert!(x.is_nan() && y.is_nan() || (f64::from(y) - exact).abs() <= bound, "{x}: {y}");
                assert!(x.is_nan() || *x > -88.0 || y == 0.0, "{x}: {y}");
            }
            for isa in Isa::available() {
                let given = isa.run(Weights { x, is_amx: isa == Isa::Amx });
                for (given, expected) in given.iter().zip(expected) {
                    let both_nan = given.is_nan() && expected.is_nan();
                    // The portable form multiplies and adds in two roundings.
                    let near = (given - expected).abs() <= expected / 120.0 + f32::MIN_POSITIVE;
                    assert!(both_nan || near, "{isa:?} {given} {expected}");
                }
            }
            let [a, b] = [Isa::Avx2, Isa::Avx512Vnni].map(|isa| isa.run(Weights { x, is_amx: false }));
            if Isa::Avx512Vnni.is_available() {
                assert!(a.iter().zip(b).all(|(a, b)| a.to_bits() == b.to_bits() || a.is_nan() && b.is_nan()));
            }
        }
    }

    struct Apply<'a> {
        function: u8,
        values: &'a mut [f32; 16],
    }

    impl Kernel for Apply<'_> {
        type Output = ();
        #[inline(always)]
        fn run<S: Simd>(self, s: S) {
            // SAFETY: the array holds 16 values.
            unsafe {
                let x = s.load(self.values.as_ptr());
                let y = match self.function {
                    0 => exp(s, x),
                    1 => tanh(s, x),
                    2 => silu(s, x),
                    _ => gelu_tanh(s, x),
                };
                s.store(self.values.as_mut_ptr(), y);
            }
        }
    }

    fn reference(function: u8, x: f64) -> f64 {
        match function {
            0 => x.exp(),
            1 => x.tanh(),
            2 => x / (1.0 + (-x).exp()),
            _ => 0.5 * x * (1.0 + ((2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x * x * x)).tanh()),
        }
    }

    #[test]
    fn functions_agree_with_f64_to_a_millionth() {
        for isa in Isa::available() {
            for function in 0..4 {
                let range = if function == 0 { 86.0 } else { 12.0 };
                for step in (0..500).step_by(if cfg!(debug_assertions) { 20 } else { 1 }) {
                    let start = -range + 2.0 * range * step as f32 / 500.0;
                    let xs: [f32; 16] = std::array::from_fn(|i| start + i as f32 * range / 4000.0);
                    let mut ys = xs;
                    isa.run(Apply { function, values: &mut ys });
                    for (x, y) in xs.into_iter().zip(ys) {
                        let expected = reference(function, f64::from(x));
                        // The reference GELU itself cancels far to the left.
                        let error = (f64::from(y) - expected).abs() / (expected.abs() + 1e-38);
                        let bound = if function == 3 && x < -3.0 { 1e-5 } else { 1.2e-6 };
                        assert!(
                            error < bound || (f64::from(y) - expected).abs() < 1e-12,
                            "{isa:?} {function} {x} {y} {expected}"
                        );
                    }
                }
            }
        }
    }

    #[test]
    fn exp_at_the_edges() {
        for isa in Isa::available() {
            let mut ys = [0.0, -0.0, -87.5, f32::NEG_INFINITY, 100.0, f32::NAN, 1.0, -1.0].repeat(2);
            let values: &mut [f32; 16] = ys.as_mut_slice().try_into().unwrap();
            isa.run(Apply { function: 0, values });
            assert_eq!(&ys[..4], &[1.0, 1.0, 0.0, 0.0], "{isa:?}");
            assert!(ys[4].is_finite() && ys[4] > 1e38 && ys[5].is_nan(), "{isa:?}");
        }
    }

    #[test]
    fn every_half_float_is_exact() {
        for half in 0..=u16::MAX {
            let (ours, theirs) = (f16_to_f32(half), half::f16::from_bits(half).to_f32());
            assert!(ours.to_bits() == theirs.to_bits() || (ours.is_nan() && theirs.is_nan()), "{half:#x}");
        }
    }
}
