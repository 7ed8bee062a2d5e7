//! Rotary position embedding.

use super::Cpu;
use super::isa::Kernel;
use super::rows::{each_row, rotary_row};
use super::simd::Simd;

/// Which two coordinates of a head turn together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rotary {
    /// 2i and 2i + 1 (llama files in GGUF).
    Interleaved,
    /// i and i + d_rotary / 2 (most others).
    HalfSplit,
}

/// Turns the first `d_rotary` coordinates of each head of `x`, `[rows, heads * d_head]`, in place:
/// (a, b) -> (a cos - b sin, b cos + a sin). `cos` and `sin` are `[rows, d_rotary / 2]`.
#[allow(clippy::too_many_arguments)]
pub fn rotary(
    cpu: &Cpu,
    x: &mut [f32],
    rows: usize,
    heads: usize,
    d_head: usize,
    cos: &[f32],
    sin: &[f32],
    style: Rotary,
) {
    let (width, half) = (heads * d_head, cos.len() / rows.max(1));
    assert!(2 * half <= d_head && x.len() == rows * width, "rotary of [{rows}, {heads} * {d_head}]");
    assert!(cos.len() == rows * half && sin.len() == cos.len(), "{} cosines, {} sines", cos.len(), sin.len());
    each_row(cpu, rows, [x], |row, [x]| {
        let angles = row * half..(row + 1) * half;
        rotary_row(cpu.isa, x, d_head, &cos[angles.clone()], &sin[angles], style);
    });
}

/// [`rotary_row`].
pub(super) struct Turn<'a> {
    pub x: &'a mut [f32],
    pub d_head: usize,
    pub cos: &'a [f32],
    pub sin: &'a [f32],
    pub style: Rotary,
}

impl Kernel for Turn<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        for head in self.x.chunks_exact_mut(self.d_head) {
            turn(head, self.cos, self.sin, self.style);
        }
    }
}

#[inline(always)]
fn turn(head: &mut [f32], cos: &[f32], sin: &[f32], style: Rotary) {
    let angles = cos.iter().zip(sin);
    match style {
        Rotary::Interleaved => {
            for (pair, (cos, sin)) in head.chunks_exact_mut(2).zip(angles) {
                let (a, b) = (pair[0], pair[1]);
                (pair[0], pair[1]) = (a * cos - b * sin, b * cos + a * sin);
            }
        }
        Rotary::HalfSplit => {
            let (first, second) = head[..2 * cos.len()].split_at_mut(cos.len());
            for ((x, y), (cos, sin)) in first.iter_mut().zip(second).zip(angles) {
                let (a, b) = (*x, *y);
                (*x, *y) = (a * cos - b * sin, b * cos + a * sin);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::tests::{bits, check_isas, random};

    #[test]
    fn coordinates_past_the_rotary_ones_stay() {
        let (rows, heads, d_head) = (3, 2, 16);
        let x = random(rows * heads * d_head, 3);
        let (cos, sin) = (vec![0.0; rows * 6], vec![1.0; rows * 6]);
        let cpu = Cpu::new(crate::kernels::Isa::detect(), 1);
        let mut out = x.clone();
        rotary(&cpu, &mut out, rows, heads, d_head, &cos, &sin, Rotary::HalfSplit);
        for (x, out) in x.chunks(d_head).zip(out.chunks(d_head)) {
            assert_eq!(out[12..], x[12..]);
            assert!((0..6).all(|i| out[i] == -x[i + 6] && out[i + 6] == x[i]));
        }
    }

    #[test]
    fn pairs_turn_by_their_angle() {
        let (rows, heads, d_head) = (40, 3, 16);
        let x = random(rows * heads * d_head, 1);
        let angles = random(rows * d_head / 2, 2);
        let (cos, sin): (Vec<f32>, Vec<f32>) = angles.iter().map(|a| (a.cos(), a.sin())).unzip();
        for style in [Rotary::Interleaved, Rotary::HalfSplit] {
            let results = check_isas(|cpu| {
                let mut out = x.clone();
                rotary(cpu, &mut out, rows, heads, d_head, &cos, &sin, style);
                out
            });
            assert!(results.iter().all(|out| bits(out) == bits(&results[0])));
            for (at, value) in results[0].iter().enumerate() {
                let (row, d) = (at / (heads * d_head), at % d_head);
                let (pair, partner, first) = match style {
                    Rotary::Interleaved => (d / 2, at ^ 1, d % 2 == 0),
                    Rotary::HalfSplit if d < 8 => (d, at + 8, true),
                    Rotary::HalfSplit => (d - 8, at - 8, false),
                };
                let (sin, cos) = f64::from(angles[row * 8 + pair]).sin_cos();
                let (own, other) = (f64::from(x[at]), f64::from(x[partner]));
                let expected = if first { own * cos - other * sin } else { own * cos + other * sin };
                assert!((f64::from(*value) - expected).abs() < 1e-6);
            }
        }
    }
}
