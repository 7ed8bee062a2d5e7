//! What training runs between products: gradients of norms and gates, attention over whole short sequences and back.

use super::Cpu;
use super::elementwise::{axpy, dot_lanes, lanes, put};
use super::isa::Kernel;
use super::math::exp;
use super::pool::Disjoint;
use super::rows::for_row_ranges;
use super::simd::{LANES, Simd};

/// The activation of a gated MLP; both have the form x * sigmoid(z(x)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gate {
    /// z = x.
    Silu,
    /// The tanh form of GELU: z = 2 sqrt(2/pi) (x + 0.044715 x^3).
    GeluTanh,
}

/// Sizes of [`causal_attention`] over sequences of `t` rows.
#[derive(Clone, Copy, Debug)]
pub struct CausalShape {
    pub t: usize,
    pub n_heads: usize,
    pub n_kv_heads: usize,
    pub d_head: usize,
    /// Multiplies query-key products.
    pub scale: f32,
    /// Keys a row sees, itself included; `None`: all before it.
    pub window: Option<u32>,
}

/// Gradient of [`super::rms_norm`] with respect to `x`: with r = 1 / sqrt(mean(x^2) + eps) and g = grad * weight,
/// out = r g - x r^3 / d * sum(g x). All are `[rows, d]`, `weight` is `[d]`.
#[allow(clippy::too_many_arguments)]
pub fn rms_norm_backward(
    cpu: &Cpu,
    x: &[f32],
    grad: &[f32],
    rows: usize,
    d: usize,
    weight: &[f32],
    eps: f32,
    out: &mut [f32],
) {
    assert!(x.len() == rows * d && grad.len() == x.len() && out.len() == x.len() && weight.len() == d);
    let out = Disjoint::new(out);
    for_row_ranges(cpu, rows, d, |from, len| {
        // SAFETY: tasks have rows of their own.
        let out = unsafe { out.part(from * d, len * d) };
        let (x, grad) = (&x[from * d..][..len * d], &grad[from * d..][..len * d]);
        cpu.isa.run(NormBackward { x, grad, weight, eps, out });
    });
}

struct NormBackward<'a> {
    x: &'a [f32],
    grad: &'a [f32],
    weight: &'a [f32],
    eps: f32,
    out: &'a mut [f32],
}

impl Kernel for NormBackward<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let d = self.weight.len();
        let rows = self.x.chunks_exact(d).zip(self.grad.chunks_exact(d));
        for ((x, grad), out) in rows.zip(self.out.chunks_exact_mut(d)) {
            for ((out, grad), weight) in out.iter_mut().zip(grad).zip(self.weight) {
                *out = grad * weight;
            }
            let inverse = 1.0 / (dot_lanes(s, x, x) / d as f32 + self.eps).sqrt();
            let back = inverse * inverse * inverse * dot_lanes(s, out, x) / d as f32;
            for (out, x) in out.iter_mut().zip(x) {
                *out = *out * inverse - x * back;
            }
        }
    }
}

/// out = activation(gate) * up, where a row of `both`, `[rows, 2 n]`, holds gate and up side by side; `out` is `[rows, n]`.
pub fn gate(cpu: &Cpu, kind: Gate, both: &[f32], n: usize, out: &mut [f32]) {
    let rows = out.len() / n;
    assert!(out.len() == rows * n && both.len() == 2 * out.len(), "gate of [{rows}, 2 * {n}]");
    let out = Disjoint::new(out);
    for_row_ranges(cpu, rows, 2 * n, |from, len| {
        // SAFETY: tasks have rows of their own.
        let out = unsafe { out.part(from * n, len * n) };
        cpu.isa.run(GateRows { kind, both: &both[2 * from * n..][..2 * len * n], n, grad: None, out });
    });
}

/// Gradient of [`gate`] with respect to `both`: `grad` is `[rows, n]`, `out` `[rows, 2 n]`.
pub fn gate_backward(cpu: &Cpu, kind: Gate, both: &[f32], grad: &[f32], n: usize, out: &mut [f32]) {
    let rows = grad.len() / n;
    assert!(grad.len() == rows * n && both.len() == 2 * grad.len() && out.len() == both.len());
    let out = Disjoint::new(out);
    for_row_ranges(cpu, rows, 2 * n, |from, len| {
        // SAFETY: tasks have rows of their own.
        let out = unsafe { out.part(2 * from * n, 2 * len * n) };
        let (both, grad) = (&both[2 * from * n..][..2 * len * n], &grad[from * n..][..len * n]);
        cpu.isa.run(GateRows { kind, both, n, grad: Some(grad), out });
    });
}

/// [`gate`] where `grad` is absent, [`gate_backward`] where it is there.
struct GateRows<'a> {
    kind: Gate,
    both: &'a [f32],
    n: usize,
    grad: Option<&'a [f32]>,
    out: &'a mut [f32],
}

impl Kernel for GateRows<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let n = self.n;
        for (row, both) in self.both.chunks_exact(2 * n).enumerate() {
            let (gates, ups) = both.split_at(n);
            for at in (0..n).step_by(LANES) {
                let len = LANES.min(n - at);
                let (x, up) = (lanes(s, &gates[at..][..len]), lanes(s, &ups[at..][..len]));
                let (y, slope) = self.kind.value_and_slope(s, x);
                match self.grad {
                    None => put(s, s.mul(y, up), &mut self.out[row * n + at..][..len]),
                    Some(grad) => {
                        let grad = lanes(s, &grad[row * n + at..][..len]);
                        let out = &mut self.out[2 * row * n..][..2 * n];
                        put(s, s.mul(s.mul(grad, up), slope), &mut out[at..][..len]);
                        put(s, s.mul(grad, y), &mut out[n + at..][..len]);
                    }
                }
            }
        }
    }
}

impl Gate {
    /// y = x sigmoid(z) and y' = sigmoid(z) + x sigmoid(z) (1 - sigmoid(z)) z'.
    #[inline(always)]
    fn value_and_slope<S: Simd>(self, s: S, x: S::F) -> (S::F, S::F) {
        let one = s.splat(1.0);
        let (z, z_slope) = match self {
            Gate::Silu => (x, one),
            Gate::GeluTanh => {
                let (square, twice) = (s.mul(x, x), s.splat(2.0 * 0.797_884_6));
                let z = s.mul(twice, s.fma(s.mul(s.splat(0.044_715), square), x, x));
                (z, s.mul(twice, s.fma(s.splat(3.0 * 0.044_715), square, one)))
            }
        };
        let sigmoid = s.div(one, s.add(one, exp(s, s.sub(s.zero(), z))));
        let y = s.mul(x, sigmoid);
        (y, s.fma(s.mul(y, s.sub(one, sigmoid)), z_slope, sigmoid))
    }
}

/// Causal attention inside each sequence of `t` rows: `q` is `[b * t, n_heads * d_head]`, `k` and `v` are
/// `[b * t, n_kv_heads * d_head]`; `out` is as `q`.
pub fn causal_attention(cpu: &Cpu, shape: &CausalShape, q: &[f32], k: &[f32], v: &[f32], out: &mut [f32]) {
    let sequences = shape.sequences(q, k, v);
    assert_eq!(out.len(), q.len());
    let out = Disjoint::new(out);
    cpu.pool.run(sequences * shape.n_kv_heads, &|task| {
        cpu.isa.run(Forward { head: Head::new(shape, task, q, k, v), out: &out });
    });
}

/// Gradients of [`causal_attention`] with respect to `q`, `k` and `v`, added to what stands in `dq`, `dk` and `dv`.
#[allow(clippy::too_many_arguments)]
pub fn causal_attention_backward(
    cpu: &Cpu,
    shape: &CausalShape,
    q: &[f32],
    k: &[f32],
    v: &[f32],
    grad: &[f32],
    [dq, dk, dv]: [&mut [f32]; 3],
) {
    let sequences = shape.sequences(q, k, v);
    assert!(grad.len() == q.len() && dq.len() == q.len() && dk.len() == k.len() && dv.len() == v.len());
    let (dq, dk, dv) = (Disjoint::new(dq), Disjoint::new(dk), Disjoint::new(dv));
    cpu.pool.run(sequences * shape.n_kv_heads, &|task| {
        let head = Head::new(shape, task, q, k, v);
        cpu.isa.run(Backward { head, grad, dq: &dq, dk: &dk, dv: &dv });
    });
}

impl CausalShape {
    fn sequences(&self, q: &[f32], k: &[f32], v: &[f32]) -> usize {
        let rows = q.len() / (self.n_heads * self.d_head);
        assert!(self.t > 0 && rows.is_multiple_of(self.t), "{rows} rows in sequences of {}", self.t);
        assert!(q.len() == rows * self.n_heads * self.d_head && self.n_heads.is_multiple_of(self.n_kv_heads));
        assert!(k.len() == rows * self.n_kv_heads * self.d_head && v.len() == k.len());
        rows / self.t
    }
}

/// One key head of one sequence with the query heads that read it: what one task has.
struct Head<'a> {
    shape: &'a CausalShape,
    /// First row of the sequence.
    first: usize,
    kv_head: usize,
    q: &'a [f32],
    k: &'a [f32],
    v: &'a [f32],
}

impl<'a> Head<'a> {
    fn new(shape: &'a CausalShape, task: usize, q: &'a [f32], k: &'a [f32], v: &'a [f32]) -> Head<'a> {
        let (sequence, kv_head) = (task / shape.n_kv_heads, task % shape.n_kv_heads);
        Head { shape, first: sequence * shape.t, kv_head, q, k, v }
    }

    /// Where query head `h` of row `i` begins.
    #[inline(always)]
    fn query(&self, i: usize, h: usize) -> usize {
        ((self.first + i) * self.shape.n_heads + h) * self.shape.d_head
    }

    /// Where this key head of row `j` begins.
    #[inline(always)]
    fn key(&self, j: usize) -> usize {
        ((self.first + j) * self.shape.n_kv_heads + self.kv_head) * self.shape.d_head
    }

    #[inline(always)]
    fn query_heads(&self) -> std::ops::Range<usize> {
        let group = self.shape.n_heads / self.shape.n_kv_heads;
        self.kv_head * group..(self.kv_head + 1) * group
    }

    /// First key that row `i` sees.
    #[inline(always)]
    fn from(&self, i: usize) -> usize {
        self.shape.window.map_or(0, |window| (i + 1).saturating_sub(window as usize))
    }

    /// Softmax of the scores of query `q` over the keys `from..=i`, into `weights`. Loops and not closures: what is inlined
    /// into a closure loses the instruction set.
    #[inline(always)]
    fn weigh<S: Simd>(&self, s: S, i: usize, q: &[f32], weights: &mut Vec<f32>) {
        let d = self.shape.d_head;
        weights.clear();
        let mut largest = f32::NEG_INFINITY;
        for j in self.from(i)..=i {
            let score = self.shape.scale * dot_lanes(s, q, &self.k[self.key(j)..][..d]);
            largest = largest.max(score);
            weights.push(score);
        }
        let mut total = 0.0;
        for part in weights.chunks_mut(LANES) {
            let shifted = s.sub(lanes(s, part), s.splat(largest));
            put(s, exp(s, shifted), part);
            for weight in part {
                total += *weight;
            }
        }
        let inverse = 1.0 / total;
        for weight in weights {
            *weight *= inverse;
        }
    }
}

struct Forward<'a, 'b> {
    head: Head<'a>,
    out: &'b Disjoint<'b, f32>,
}

impl Kernel for Forward<'_, '_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let head = &self.head;
        let d = head.shape.d_head;
        let mut weights = Vec::with_capacity(head.shape.t);
        for h in head.query_heads() {
            for i in 0..head.shape.t {
                let at = head.query(i, h);
                head.weigh(s, i, &head.q[at..][..d], &mut weights);
                // SAFETY: tasks have query heads or sequences of their own.
                let out = unsafe { self.out.part(at, d) };
                out.fill(0.0);
                for (weight, j) in weights.iter().zip(head.from(i)..) {
                    axpy(out, *weight, &head.v[head.key(j)..][..d]);
                }
            }
        }
    }
}

struct Backward<'a, 'b> {
    head: Head<'a>,
    grad: &'a [f32],
    dq: &'b Disjoint<'b, f32>,
    dk: &'b Disjoint<'b, f32>,
    dv: &'b Disjoint<'b, f32>,
}

impl Kernel for Backward<'_, '_> {
    type Output = ();

    /// With weights p and dp_j = grad . v_j: ds_j = scale p_j (dp_j - sum p dp), dq = sum ds_j k_j, dk_j += ds_j q,
    /// dv_j += p_j grad.
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let head = &self.head;
        let d = head.shape.d_head;
        let mut weights = Vec::with_capacity(head.shape.t);
        let mut slopes: Vec<f32> = Vec::with_capacity(head.shape.t);
        for h in head.query_heads() {
            for i in 0..head.shape.t {
                let (at, from) = (head.query(i, h), head.from(i));
                let (q, grad) = (&head.q[at..][..d], &self.grad[at..][..d]);
                head.weigh(s, i, q, &mut weights);
                slopes.clear();
                for j in from..=i {
                    slopes.push(dot_lanes(s, grad, &head.v[head.key(j)..][..d]));
                }
                let mean = dot_lanes(s, &weights, &slopes);
                // SAFETY: tasks have query heads or sequences of their own.
                let dq = unsafe { self.dq.part(at, d) };
                for ((weight, slope), j) in weights.iter().zip(&slopes).zip(from..) {
                    let key = head.key(j);
                    let slope = head.shape.scale * weight * (slope - mean);
                    // SAFETY: tasks have key heads or sequences of their own.
                    let (dk, dv) = unsafe { (self.dk.part(key, d), self.dv.part(key, d)) };
                    axpy(dq, slope, &head.k[key..][..d]);
                    axpy(dk, slope, q);
                    axpy(dv, *weight, grad);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::tests::{check_isas, random};

    /// Central differences of `sum(grad * value(x))` in f64, for some coordinates of `x`.
    fn assert_slopes(
        what: &str,
        x: &[f32],
        grad: &[f32],
        value: impl Fn(&[f64]) -> Vec<f64>,
        results: &[Vec<f32>],
    ) {
        let x: Vec<f64> = x.iter().map(|x| f64::from(*x)).collect();
        for i in (0..x.len()).step_by(x.len() / 23 + 1) {
            let sum = |by: f64| -> f64 {
                let mut x = x.clone();
                x[i] += by;
                value(&x).iter().zip(grad).map(|(value, grad)| value * f64::from(*grad)).sum()
            };
            let expected = (sum(1e-5) - sum(-1e-5)) / 2e-5;
            for result in results {
                let error = (f64::from(result[i]) - expected).abs();
                assert!(error <= 1e-5 * expected.abs() + 3e-6, "{what} {i}: {} for {expected}", result[i]);
            }
        }
    }

    #[test]
    fn norms_have_the_slopes_of_f64() {
        for (rows, d) in [(1, 16), (3, 50), (40, 64)] {
            let (x, grad, weight) = (random(rows * d, 1), random(rows * d, 2), random(d, 3));
            let results = check_isas(|cpu| {
                let mut out = vec![0.0; x.len()];
                rms_norm_backward(cpu, &x, &grad, rows, d, &weight, 1e-5, &mut out);
                out
            });
            let norm = |x: &[f64]| -> Vec<f64> {
                let row = |x: &[f64]| -> Vec<f64> {
                    let mean = x.iter().map(|x| x * x).sum::<f64>() / d as f64;
                    x.iter().zip(&weight).map(|(x, w)| x / (mean + 1e-5).sqrt() * f64::from(*w)).collect()
                };
                x.chunks_exact(d).flat_map(row).collect()
            };
            assert_slopes("norm", &x, &grad, norm, &results);
        }
    }

    #[test]
    fn gates_have_the_values_and_slopes_of_f64() {
        for (rows, n) in [(1, 16), (3, 21), (30, 64)] {
            let both: Vec<f32> = random(rows * 2 * n, 4).iter().map(|x| x * 3.0).collect();
            let grad = random(rows * n, 5);
            for kind in [Gate::Silu, Gate::GeluTanh] {
                let one = |x: f64, up: f64| {
                    let z = match kind {
                        Gate::Silu => x,
                        Gate::GeluTanh => {
                            2.0 * (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x * x * x)
                        }
                    };
                    x / (1.0 + (-z).exp()) * up
                };
                let value = |both: &[f64]| -> Vec<f64> {
                    both.chunks_exact(2 * n).flat_map(|row| (0..n).map(|i| one(row[i], row[n + i]))).collect()
                };
                let expected = value(&both.iter().map(|x| f64::from(*x)).collect::<Vec<_>>());
                for out in check_isas(|cpu| {
                    let mut out = vec![0.0; grad.len()];
                    gate(cpu, kind, &both, n, &mut out);
                    out
                }) {
                    assert!(
                        out.iter()
                            .zip(&expected)
                            .all(|(a, b)| (f64::from(*a) - b).abs() < 1e-5 * (1.0 + b.abs()))
                    );
                }
                let results = check_isas(|cpu| {
                    let mut out = vec![0.0; both.len()];
                    gate_backward(cpu, kind, &both, &grad, n, &mut out);
                    out
                });
                assert_slopes("gate", &both, &grad, value, &results);
            }
        }
    }

    /// The definition, in f64.
    fn attention_f64(shape: &CausalShape, q: &[f64], k: &[f64], v: &[f64]) -> Vec<f64> {
        let CausalShape { t, n_heads, n_kv_heads, d_head: d, .. } = *shape;
        let mut out = vec![0.0; q.len()];
        for row in 0..q.len() / (n_heads * d) {
            let (first, i) = (row / t * t, row % t);
            let from = shape.window.map_or(0, |window| (i + 1).saturating_sub(window as usize));
            for h in 0..n_heads {
                let kv = h / (n_heads / n_kv_heads);
                let key = |j: usize| ((first + j) * n_kv_heads + kv) * d;
                let q = &q[(row * n_heads + h) * d..][..d];
                let score = |j: usize| -> f64 {
                    q.iter().zip(&k[key(j)..]).map(|(q, k)| q * k).sum::<f64>() * f64::from(shape.scale)
                };
                let weights: Vec<f64> = (from..=i).map(|j| score(j).exp()).collect();
                let total: f64 = weights.iter().sum();
                for (j, weight) in (from..=i).zip(weights) {
                    for c in 0..d {
                        out[(row * n_heads + h) * d + c] += weight / total * v[key(j) + c];
                    }
                }
            }
        }
        out
    }

    #[test]
    fn attention_has_the_values_and_slopes_of_f64() {
        let shape = |t, n_heads, n_kv_heads, window| CausalShape {
            t,
            n_heads,
            n_kv_heads,
            d_head: 16,
            scale: 0.4,
            window,
        };
        for (b, shape) in [
            (1, shape(1, 1, 1, None)),
            (2, shape(5, 4, 2, None)),
            (2, shape(20, 3, 1, Some(4))),
            (3, shape(18, 2, 2, Some(64))),
        ] {
            let rows = b * shape.t;
            let (q, k, v) = (
                random(rows * shape.n_heads * 16, 6),
                random(rows * shape.n_kv_heads * 16, 7),
                random(rows * shape.n_kv_heads * 16, 8),
            );
            let grad = random(q.len(), 9);
            let wide = |x: &[f32]| -> Vec<f64> { x.iter().map(|x| f64::from(*x)).collect() };
            let (wide_q, wide_k, wide_v) = (wide(&q), wide(&k), wide(&v));
            let expected = attention_f64(&shape, &wide_q, &wide_k, &wide_v);
            for out in check_isas(|cpu| {
                let mut out = vec![7.0; q.len()];
                causal_attention(cpu, &shape, &q, &k, &v, &mut out);
                out
            }) {
                assert!(out.iter().zip(&expected).all(|(a, b)| (f64::from(*a) - b).abs() < 1e-5));
            }
            let back = |which: usize| {
                check_isas(|cpu| {
                    let mut out = [&q, &k, &v].map(|x| vec![0.0; x.len()]);
                    let [dq, dk, dv] = &mut out;
                    causal_attention_backward(cpu, &shape, &q, &k, &v, &grad, [dq, dk, dv]);
                    out[which].clone()
                })
            };
            assert_slopes("q", &q, &grad, |q| attention_f64(&shape, q, &wide_k, &wide_v), &back(0));
            assert_slopes("k", &k, &grad, |k| attention_f64(&shape, &wide_q, k, &wide_v), &back(1));
            assert_slopes("v", &v, &grad, |v| attention_f64(&shape, &wide_q, &wide_k, v), &back(2));
        }
    }
}
