//! One number from many: dot products, log-sum-exp, argmax, checks.

use super::Cpu;
use super::elementwise::{dot_lanes, lanes, put};
use super::isa::{Isa, Kernel};
use super::math::exp;
use super::simd::{LANES, Simd};

/// Sum of a[i] * b[i] in sixteen lanes and one tree. Both have one length.
pub fn dot(cpu: &Cpu, a: &[f32], b: &[f32]) -> f32 {
    struct Dot<'a>(&'a [f32], &'a [f32]);
    impl Kernel for Dot<'_> {
        type Output = f32;
        #[inline(always)]
        fn run<S: Simd>(self, s: S) -> f32 {
            dot_lanes(s, self.0, self.1)
        }
    }
    cpu.isa.run(Dot(a, b))
}

/// Values whose exponentials are summed in f32 before f64 takes over.
const PART: usize = 1024;

/// The largest logit, and ln(sum exp(logit)) to about 1e-7. (-infinity, -infinity) for no logits; not-a-number in, then
/// not-a-number as the second.
pub fn max_and_log_sum_exp(cpu: &Cpu, logits: &[f32]) -> (f32, f32) {
    struct Sum<'a>(&'a [f32], f32);
    impl Kernel for Sum<'_> {
        type Output = f64;
        #[inline(always)]
        fn run<S: Simd>(self, s: S) -> f64 {
            let Sum(logits, largest) = self;
            let mut total = 0.0;
            for part in logits.chunks(PART) {
                let mut sum = s.zero();
                for values in part.chunks(LANES) {
                    let weight = exp(s, s.sub(lanes(s, values), s.splat(largest)));
                    sum = s.add(sum, s.select(s.lanes(0, values.len() as isize), weight, s.zero()));
                }
                total += f64::from(s.sum(sum));
            }
            total
        }
    }
    let largest = largest(cpu.isa, logits);
    if largest.is_infinite() {
        // All are -infinity, or one is +infinity: the sum is that.
        return (largest, largest);
    }
    let sum = cpu.isa.run(Sum(logits, largest));
    (largest, (f64::from(largest) + sum.ln()) as f32)
}

/// Turns logits into exp((logit - largest) / temperature), the largest of them 1, and gives their sum. All zeros, and 0,
/// where no logit is finite. `temperature` is above 0; no logit is +infinity or not-a-number.
pub fn softmax_weights(cpu: &Cpu, logits: &mut [f32], temperature: f32) -> f64 {
    struct Weights<'a>(&'a mut [f32], f32, f32);
    impl Kernel for Weights<'_> {
        type Output = f64;
        #[inline(always)]
        fn run<S: Simd>(self, s: S) -> f64 {
            let Weights(logits, largest, temperature) = self;
            let (largest, temperature) = (s.splat(largest), s.splat(temperature));
            let mut total = 0.0;
            for part in logits.chunks_mut(PART) {
                let mut sum = s.zero();
                let (whole, rest) = part.as_chunks_mut::<LANES>();
                for values in whole {
                    // SAFETY: an array of 16 values.
                    unsafe {
                        let logits = s.load(values.as_ptr());
                        let weight = exp(s, s.div(s.sub(logits, largest), temperature));
                        sum = s.add(sum, weight);
                        s.store(values.as_mut_ptr(), weight);
                    }
                }
                if !rest.is_empty() {
                    let weight = exp(s, s.div(s.sub(lanes(s, rest), largest), temperature));
                    sum = s.add(sum, s.select(s.lanes(0, rest.len() as isize), weight, s.zero()));
                    put(s, weight, rest);
                }
                total += f64::from(s.sum(sum));
            }
            total
        }
    }
    let largest = largest(cpu.isa, logits);
    if largest == f32::NEG_INFINITY {
        logits.fill(0.0);
        return 0.0;
    }
    cpu.isa.run(Weights(logits, largest, temperature))
}

/// -infinity for none; not-a-number is passed over.
fn largest(isa: Isa, values: &[f32]) -> f32 {
    struct Largest<'a>(&'a [f32]);
    impl Kernel for Largest<'_> {
        type Output = f32;
        #[inline(always)]
        fn run<S: Simd>(self, s: S) -> f32 {
            let (chunks, rest) = self.0.as_chunks::<{ 4 * LANES }>();
            let mut tops = [s.splat(f32::NEG_INFINITY); 4];
            for chunk in chunks {
                for i in 0..4 {
                    // SAFETY: 16 of 64 values.
                    tops[i] = s.max(unsafe { s.load(chunk.as_ptr().add(LANES * i)) }, tops[i]);
                }
            }
            let top = s.max(s.max(tops[0], tops[1]), s.max(tops[2], tops[3]));
            rest.iter().copied().fold(s.largest(top), f32::max)
        }
    }
    isa.run(Largest(values))
}

/// Index of the largest value, the lowest of equals; not-a-number is passed over. 0 when there is none.
pub fn argmax(isa: Isa, values: &[f32]) -> usize {
    let largest = largest(isa, values);
    values.iter().position(|value| *value == largest).unwrap_or(0)
}

/// Whether no value is infinite or not-a-number.
pub fn all_finite(isa: Isa, values: &[f32]) -> bool {
    struct Zeros<'a>(&'a [f32]);
    impl Kernel for Zeros<'_> {
        type Output = bool;
        #[inline(always)]
        fn run<S: Simd>(self, s: S) -> bool {
            let (chunks, rest) = self.0.as_chunks::<{ 4 * LANES }>();
            // Zero times a value that is not finite is not a number, and stays it.
            let mut sums = [s.zero(); 4];
            for chunk in chunks {
                for i in 0..4 {
                    // SAFETY: 16 of 64 values.
                    sums[i] = s.fma(unsafe { s.load(chunk.as_ptr().add(LANES * i)) }, s.zero(), sums[i]);
                }
            }
            let sum = s.add(s.add(sums[0], sums[1]), s.add(sums[2], sums[3]));
            s.sum(sum) == 0.0 && rest.iter().all(|value| value.is_finite())
        }
    }
    isa.run(Zeros(values))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::tests::{check_isas, random};

    #[test]
    fn dot_agrees_with_f64() {
        for len in [0, 1, 15, 16, 576, 1000] {
            let (a, b) = (random(len, 1), random(len, 2));
            let expected: f64 = a.iter().zip(&b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum();
            for out in check_isas(|cpu| vec![dot(cpu, &a, &b)]) {
                assert!((f64::from(out[0]) - expected).abs() < 1e-4);
            }
        }
    }

    #[test]
    fn log_sum_exp_agrees_with_f64() {
        for len in [1, 17, 1024, 5000, 49_152] {
            let logits: Vec<f32> = random(len, len as u64).iter().map(|x| x * 20.0 - 7.0).collect();
            let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            let sum: f64 = logits.iter().map(|x| (f64::from(*x) - f64::from(largest)).exp()).sum();
            let expected = f64::from(largest) + sum.ln();
            for out in check_isas(|cpu| {
                let (largest, sum) = max_and_log_sum_exp(cpu, &logits);
                vec![largest, sum]
            }) {
                assert_eq!(out[0], largest);
                assert!(
                    (f64::from(out[1]) - expected).abs() <= 1e-6 * expected.abs(),
                    "{} {expected}",
                    out[1]
                );
            }
        }
    }

    #[test]
    fn weights_agree_with_f64() {
        for (len, temperature) in [(1, 1.0), (17, 0.3), (5000, 0.8), (49_152, 2.0)] {
            let mut logits: Vec<f32> = random(len, len as u64).iter().map(|x| x * 20.0 - 7.0).collect();
            logits[len / 2] = f32::NEG_INFINITY;
            let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            let weight = |x: f32| (f64::from(x - largest) / f64::from(temperature)).exp();
            for out in check_isas(|cpu| {
                let mut values = logits.clone();
                let total = softmax_weights(cpu, &mut values, temperature);
                if largest == f32::NEG_INFINITY {
                    assert_eq!((total, values.as_slice()), (0.0, [0.0].as_slice()));
                    return values;
                }
                let expected: f64 = logits.iter().map(|x| weight(*x)).sum();
                assert!((total / expected - 1.0).abs() < 1e-6, "{total} {expected}");
                assert_eq!(values.iter().copied().fold(0.0, f32::max), 1.0);
                assert_eq!(values[len / 2], 0.0);
                values
            }) {
                for (own, logit) in out.iter().zip(&logits).filter(|(_, logit)| logit.is_finite()) {
                    let expected = weight(*logit);
                    assert!(
                        (f64::from(*own) - expected).abs() <= 1e-5 * expected + 1e-37,
                        "{own} {expected}"
                    );
                }
            }
        }
    }

    #[test]
    fn edges() {
        let cpu = Cpu::new(crate::kernels::Isa::detect(), 1);
        let lowest = f32::NEG_INFINITY;
        assert_eq!(max_and_log_sum_exp(&cpu, &[]), (lowest, lowest));
        assert_eq!(max_and_log_sum_exp(&cpu, &[lowest, lowest]), (lowest, lowest));
        assert_eq!(max_and_log_sum_exp(&cpu, &[lowest, 2.0]), (2.0, 2.0));
        assert!(max_and_log_sum_exp(&cpu, &[f32::NAN, 2.0]).1.is_nan());
        for (values, expected) in [
            (vec![], 0),
            (vec![f32::NAN], 0),
            (vec![f32::NAN, -1.0, 3.0, 3.0], 2),
            (vec![5.0; 100], 0),
            ((0..100).map(|i| (i % 50) as f32).collect(), 49),
        ] {
            assert_eq!(argmax(cpu.isa, &values), expected);
        }
        assert!(all_finite(cpu.isa, &[]) && all_finite(cpu.isa, &[1.0; 3000]));
        for (i, bad) in
            [(0, f32::NAN), (1000, lowest), (1023, f32::INFINITY), (2999, f32::NAN), (2998, lowest)]
        {
            let mut values = vec![f32::MAX; 3000];
            values[i] = bad;
            assert!(!all_finite(cpu.isa, &values), "{bad} at {i}");
        }
    }
}
