//! Work on rows that needs no matrix: norms, gates, additions.

use super::Cpu;
use super::isa::Kernel;
use super::math::{gelu_tanh, silu, tanh};
use super::pool::Disjoint;
use super::rows::{each_row, for_row_ranges, norm_row, norm_rows_in_place};
use super::simd::{LANES, Simd};

/// out = x / sqrt(mean(x^2) + eps) * weight for each of `rows` rows of `d`; `weight` is `[d]` and already holds what is
/// multiplied (gemma's w + 1).
pub fn rms_norm(cpu: &Cpu, x: &[f32], rows: usize, d: usize, weight: &[f32], eps: f32, out: &mut [f32]) {
    assert!(x.len() == rows * d && out.len() == x.len() && weight.len() == d, "norm of [{rows}, {d}]");
    each_row(cpu, rows, [out], |row, [out]| norm_row(cpu.isa, &x[row * d..][..d], weight, eps, out));
}

/// [`rms_norm`] where the result takes the place of `x`.
pub fn rms_norm_in_place(cpu: &Cpu, x: &mut [f32], rows: usize, d: usize, weight: &[f32], eps: f32) {
    assert!(x.len() == rows * d && weight.len() == d, "norm of [{rows}, {d}]");
    each_row(cpu, rows, [x], |_, [x]| norm_rows_in_place(cpu.isa, x, weight, eps));
}

/// Of one row after another; `x` is `None` where `out` holds it.
pub(super) struct Norm<'a> {
    pub x: Option<&'a [f32]>,
    pub weight: &'a [f32],
    pub eps: f32,
    pub out: &'a mut [f32],
}

impl Kernel for Norm<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let d = self.weight.len();
        for (row, out) in self.out.chunks_exact_mut(d).enumerate() {
            if let Some(x) = self.x {
                let x = &x[row * d..][..d];
                let inverse = inverse_norm(s, x, self.eps);
                for ((out, value), weight) in out.iter_mut().zip(x).zip(self.weight) {
                    *out = value * inverse * weight;
                }
            } else {
                let inverse = inverse_norm(s, out, self.eps);
                for (value, weight) in out.iter_mut().zip(self.weight) {
                    *value = *value * inverse * weight;
                }
            }
        }
    }
}

/// 1 / sqrt(mean(x^2) + eps).
#[inline(always)]
fn inverse_norm<S: Simd>(s: S, x: &[f32], eps: f32) -> f32 {
    1.0 / (dot_lanes(s, x, x) / x.len() as f32 + eps).sqrt()
}

/// Sum of a[i] * b[i]: sixteen chains of fused additions (lane i mod 16), then the tree of [`Simd::sum`].
#[inline(always)]
pub(super) fn dot_lanes<S: Simd>(s: S, a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    let mut sum = s.zero();
    let whole = a.len() / LANES * LANES;
    for i in (0..whole).step_by(LANES) {
        // SAFETY: i + 16 is at most the length of both.
        sum = unsafe { s.fma(s.load(a.as_ptr().add(i)), s.load(b.as_ptr().add(i)), sum) };
    }
    if whole < a.len() {
        sum = s.fma(lanes(s, &a[whole..]), lanes(s, &b[whole..]), sum);
    }
    s.sum(sum)
}

/// Up to 16 values, then zeros.
#[inline(always)]
pub(super) fn lanes<S: Simd>(s: S, values: &[f32]) -> S::F {
    if values.len() == LANES {
        // SAFETY: sixteen values.
        return unsafe { s.load(values.as_ptr()) };
    }
    let mut padded = [0.0; LANES];
    padded[..values.len()].copy_from_slice(values);
    // SAFETY: an array of 16 values.
    unsafe { s.load(padded.as_ptr()) }
}

/// The first lanes, up to 16.
#[inline(always)]
pub(super) fn put<S: Simd>(s: S, value: S::F, out: &mut [f32]) {
    if out.len() == LANES {
        // SAFETY: sixteen values.
        return unsafe { s.store(out.as_mut_ptr(), value) };
    }
    let mut values = [0.0; LANES];
    // SAFETY: an array of 16 values.
    unsafe { s.store(values.as_mut_ptr(), value) }
    out.copy_from_slice(&values[..out.len()]);
}

/// x = cap * tanh(x / cap), in place.
pub fn softcap(cpu: &Cpu, x: &mut [f32], cap: f32) {
    let (len, x) = (x.len(), Disjoint::new(x));
    for_row_ranges(cpu, len.div_ceil(LANES), LANES, |from, rows| {
        let from = from * LANES;
        // SAFETY: tasks have ranges of their own.
        let out = unsafe { x.part(from, (rows * LANES).min(len - from)) };
        cpu.isa.run(Apply { activation: Activation::Softcap(cap), gate: None, up: None, out });
    });
}

#[derive(Clone, Copy)]
pub(super) enum Activation {
    Silu,
    GeluTanh,
    Softcap(f32),
}

/// out = activation(gate) * up; `gate` is `out` and `up` is 1 where absent.
pub(super) struct Apply<'a> {
    pub activation: Activation,
    pub gate: Option<&'a [f32]>,
    pub up: Option<&'a [f32]>,
    pub out: &'a mut [f32],
}

impl Kernel for Apply<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        for (i, out) in self.out.chunks_mut(LANES).enumerate() {
            let range = i * LANES..i * LANES + out.len();
            let x = lanes(s, self.gate.map_or(&*out, |gate| &gate[range.clone()]));
            let y = match self.activation {
                Activation::Silu => silu(s, x),
                Activation::GeluTanh => gelu_tanh(s, x),
                Activation::Softcap(cap) => s.mul(tanh(s, s.div(x, s.splat(cap))), s.splat(cap)),
            };
            let y = match self.up {
                Some(up) => s.mul(y, lanes(s, &up[range])),
                None => y,
            };
            put(s, y, out);
        }
    }
}

/// x += y. Both have one length.
pub(super) struct Add<'a> {
    pub x: &'a mut [f32],
    pub y: &'a [f32],
}

impl Kernel for Add<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let (x, y) = (self.x, self.y);
        assert_eq!(x.len(), y.len());
        let whole = x.len() / LANES * LANES;
        for i in (0..whole).step_by(LANES) {
            // SAFETY: i + 16 is at most the length of both.
            unsafe {
                let sum = s.add(s.load(x.as_ptr().add(i)), s.load(y.as_ptr().add(i)));
                s.store(x.as_mut_ptr().add(i), sum);
            }
        }
        for i in whole..x.len() {
            x[i] += y[i];
        }
    }
}

/// x *= s.
pub fn scale(x: &mut [f32], s: f32) {
    x.iter_mut().for_each(|x| *x *= s);
}

/// h += s * unit, each in two roundings. Both have one length. A loop and always inlined: so it has the instruction set of
/// the kernel that calls it.
#[inline(always)]
pub fn axpy(h: &mut [f32], s: f32, unit: &[f32]) {
    assert_eq!(h.len(), unit.len());
    for (h, unit) in h.iter_mut().zip(unit) {
        *h += s * unit;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::Isa;
    use crate::kernels::tests::{bits, check_isas, random};
    use crate::kernels::{add_row, gelu_tanh_mul_row, silu_mul_row};

    #[test]
    fn norms_agree_with_f64_and_do_not_depend_on_threads_or_rows() {
        for (rows, d) in [(1, 576), (3, 640), (70, 576), (5, 50), (40, 64)] {
            let (x, weight) = (random(rows * d, 1), random(d, 2));
            let results = check_isas(|cpu| {
                let mut out = vec![0.0; x.len()];
                rms_norm(cpu, &x, rows, d, &weight, 1e-5, &mut out);
                let mut in_place = x.clone();
                rms_norm_in_place(cpu, &mut in_place, rows, d, &weight, 1e-5);
                assert_eq!(bits(&in_place), bits(&out));
                let mut alone = vec![0.0; d];
                rms_norm(cpu, &x[(rows - 1) * d..], 1, d, &weight, 1e-5, &mut alone);
                assert_eq!(bits(&alone), bits(&out[(rows - 1) * d..]));
                out
            });
            for (row, x) in x.chunks_exact(d).enumerate() {
                let mean = x.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>() / d as f64;
                for (i, x) in x.iter().enumerate() {
                    let expected = f64::from(*x) / (mean + 1e-5).sqrt() * f64::from(weight[i]);
                    for out in &results {
                        let error = (f64::from(out[row * d + i]) - expected).abs();
                        assert!(error <= 1e-6 * expected.abs() + 1e-9, "{error}");
                    }
                }
            }
        }
    }

    #[test]
    fn gates_agree_with_f64_and_do_not_depend_on_threads() {
        for len in [1, 16, 100, 1536, 40_000] {
            let (gate, up): (Vec<f32>, Vec<f32>) =
                (random(len, 3).iter().map(|x| x * 4.0).collect(), random(len, 4));
            for kind in 0..3 {
                let results = check_isas(|cpu| {
                    let mut out = vec![0.0; len];
                    match kind {
                        0 => silu_mul_row(cpu.isa, &gate, &up, &mut out),
                        1 => gelu_tanh_mul_row(cpu.isa, &gate, &up, &mut out),
                        _ => {
                            out.copy_from_slice(&gate);
                            softcap(cpu, &mut out, 3.0);
                        }
                    }
                    out
                });
                for i in 0..len {
                    let (g, u) = (f64::from(gate[i]), f64::from(up[i]));
                    let inner = (2.0 / std::f64::consts::PI).sqrt() * (g + 0.044715 * g * g * g);
                    let expected = match kind {
                        0 => g / (1.0 + (-g).exp()) * u,
                        1 => g / (1.0 + (-2.0 * inner).exp()) * u,
                        _ => 3.0 * (g / 3.0).tanh(),
                    };
                    for out in &results {
                        let error = (f64::from(out[i]) - expected).abs();
                        assert!(error <= 2e-6 * expected.abs() + 1e-12, "{kind} {g} {u} {error}");
                    }
                }
            }
        }
    }

    #[test]
    fn additions() {
        let cpu = Cpu::new(Isa::detect(), 2);
        let (x, y) = (random(40_005, 5), random(40_005, 6));
        let mut sum = x.clone();
        add_row(cpu.isa, &mut sum, &y);
        assert!(sum.iter().enumerate().all(|(i, sum)| *sum == x[i] + y[i]));
        let mut h = x.clone();
        axpy(&mut h, 0.5, &y);
        scale(&mut h, 2.0);
        assert!(h.iter().enumerate().all(|(i, h)| *h == 2.0 * (x[i] + 0.5 * y[i])));
    }
}
