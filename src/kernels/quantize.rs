//! Rounds plain numbers to a quantised format: what `--quantize` does to weights at load.

use crate::format::ElementFormat;
use half::f16;

/// Appends `values`, whole blocks of `format`, to `out`. Only [`ElementFormat::Q8_0`] and [`ElementFormat::Q4_0`] are made.
///
/// Q8_0: the scale is the largest magnitude over 127, rounded to a half float; quants are the nearest multiples of it.
/// Q4_0: quants are -8 to 7. The value of the largest magnitude becomes -8, as in ggml, and of that scale and nine
/// near it the one with the smallest squared error is kept: a tenth less error for the same bytes.
pub fn quantize(format: ElementFormat, values: &[f32], out: &mut Vec<u8>) {
    let (blocks, rest) = values.as_chunks::<32>();
    assert!(rest.is_empty(), "whole blocks of {format}");
    match format {
        ElementFormat::Q8_0 => blocks.iter().for_each(|block| q8_0(block, out)),
        ElementFormat::Q4_0 => blocks.iter().for_each(|block| q4_0(block, out)),
        other => panic!("{other} is not made"),
    }
}

fn q8_0(values: &[f32; 32], out: &mut Vec<u8>) {
    let largest = values.iter().fold(0f32, |largest, value| largest.max(value.abs()));
    let scale = f16::from_f32((largest / 127.0).min(f16::MAX.to_f32()));
    out.extend_from_slice(&scale.to_le_bytes());
    let inverse = inverse(scale);
    out.extend(values.map(|value| nearest(value * inverse).clamp(-127, 127) as i8 as u8));
}

/// Scales that are tried, as multiples of the first.
const TRIED: [f32; 10] = [1.0, 0.86, 0.89, 0.92, 0.95, 0.98, 1.02, 1.05, 1.08, 1.12];

fn q4_0(values: &[f32; 32], out: &mut Vec<u8>) {
    let largest =
        values.iter().fold(0f32, |largest, value| if value.abs() > largest.abs() { *value } else { largest });
    let quant = |value: f32, inverse: f32| nearest(value * inverse).clamp(-8, 7);
    let limit = f16::MAX.to_f32();
    let scales = TRIED.map(|tried| f16::from_f32((largest / -8.0 * tried).clamp(-limit, limit)));
    let (steps, inverses) = (scales.map(f16::to_f32), scales.map(inverse));
    // Side by side, for the compiler to make vectors of; the order of each sum is that of the values.
    let mut errors = [0f32; TRIED.len()];
    for value in values {
        for ((error, step), inverse) in errors.iter_mut().zip(steps).zip(inverses) {
            let rest = value - step * quant(*value, inverse) as f32;
            *error += rest * rest;
        }
    }
    // Of equals the first.
    let best =
        (1..TRIED.len()).fold(0, |best, tried| if errors[tried] < errors[best] { tried } else { best });
    out.extend_from_slice(&scales[best].to_le_bytes());
    let nibble = |value: f32| (quant(value, inverses[best]) + 8) as u8;
    // The first half of a block is in the low nibbles, the second in the high ones.
    let (low, high) = values.split_at(16);
    out.extend(low.iter().zip(high).map(|(low, high)| nibble(*low) | nibble(*high) << 4));
}

/// The nearest whole number, halves away from zero, as [`f32::round`] has it: which is a call where the machine's oldest
/// kin has no instruction for it, and took a third of the time of a load.
fn nearest(x: f32) -> i32 {
    // The largest number below a half: with a half, what is just below it would be rounded up by the sum.
    (x + 0.499_999_97_f32.copysign(x)) as i32
}

/// Zero where the scale is: then all quants are.
fn inverse(scale: f16) -> f32 {
    if scale == f16::ZERO || scale == f16::NEG_ZERO { 0.0 } else { 1.0 / scale.to_f32() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::dequantize;
    use crate::kernels::tests::random;

    /// What comes back after rounding.
    fn rounded(format: ElementFormat, values: &[f32]) -> Vec<f32> {
        let mut bytes = Vec::new();
        quantize(format, values, &mut bytes);
        let mut out = vec![0.0; values.len()];
        dequantize(format, &bytes, &mut out).unwrap();
        out
    }

    #[test]
    fn values_come_back_within_a_step() {
        let values = random(64 * 32, 5);
        for (format, steps, relative) in
            [(ElementFormat::Q8_0, 254.0, 0.005), (ElementFormat::Q4_0, 14.0, 0.09)]
        {
            let back = rounded(format, &values);
            for (own, back) in values.chunks(32).zip(back.chunks(32)) {
                let largest = own.iter().fold(0f32, |largest, value| largest.max(value.abs()));
                let worst = own.iter().zip(back).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
                assert!(worst <= 1.2 * largest * 2.0 / steps, "{format}: {worst} of {largest}");
            }
            let squares =
                |values: &mut dyn Iterator<Item = f32>| values.map(|value| value * value).sum::<f32>();
            let error = squares(&mut values.iter().zip(&back).map(|(a, b)| a - b));
            let error = (error / squares(&mut values.iter().copied())).sqrt();
            assert!(error < relative, "{format}: {error}");
        }
    }

    #[test]
    fn nearest_is_round() {
        let near = |x: f32| [x.next_down(), x, x.next_up()];
        let halves = (-300..=300).flat_map(|i| near(i as f32 / 2.0));
        for x in halves.chain(random(100_000, 7).into_iter().map(|x| x * 40.0)) {
            assert_eq!(nearest(x), x.round() as i32, "{x:e}");
        }
    }

    /// One scale after the other, as the format's description says it.
    #[test]
    fn the_scale_with_the_least_error_is_found() {
        for values in random(512 * 32, 6).as_chunks::<32>().0 {
            let largest = *values.iter().rev().max_by(|a, b| a.abs().total_cmp(&b.abs())).unwrap();
            let with = |tried: f32| {
                let scale = f16::from_f32(largest / -8.0 * tried).to_f32();
                values.map(|value| scale * (value * (1.0 / scale)).round().clamp(-8.0, 7.0))
            };
            let error = |back: [f32; 32]| values.iter().zip(back).map(|(a, b)| (a - b).powi(2)).sum::<f32>();
            let least = TRIED.map(|tried| error(with(tried))).into_iter().fold(f32::MAX, f32::min);
            let best = TRIED.into_iter().find(|tried| error(with(*tried)) == least).unwrap();
            assert_eq!(rounded(ElementFormat::Q4_0, values), with(best));
        }
    }

    #[test]
    fn what_the_format_holds_stays() {
        for format in [ElementFormat::Q8_0, ElementFormat::Q4_0] {
            assert_eq!(rounded(format, &[0.0; 32]), [0.0; 32]);
            let steps: Vec<f32> = (0..32).map(|i| 0.25 * (i % 16 - 8) as f32).collect();
            if format == ElementFormat::Q4_0 {
                assert_eq!(rounded(format, &steps), steps);
            }
        }
        // Too small for a half float's scale.
        assert_eq!(rounded(ElementFormat::Q8_0, &[1e-9; 32]), [0.0; 32]);
    }
}
