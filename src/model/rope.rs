//! Rotary position embedding: cosines and sines of the rows of a step.

use super::config::RotaryConfig;

/// Frequencies of one rotary configuration and the angles of the step at hand.
#[derive(Clone)]
pub(super) struct Rope {
    /// `[d_rotary / 2]`, in radians per position.
    frequencies: Vec<f32>,
    /// Multiplies cosines and sines.
    magnitude: f32,
    /// `[rows, d_rotary / 2]`
    pub cos: Vec<f32>,
    /// `[rows, d_rotary / 2]`
    pub sin: Vec<f32>,
}

impl Rope {
    /// `frequency[i] = base^(-2i / d_rotary) / divisor[i] / linear_factor`, for sequences of up to `context` positions.
    pub fn new(config: &RotaryConfig, d_rotary: usize, context: u32) -> Rope {
        let divisors = config.divisors_for(context);
        let frequencies = (0..d_rotary / 2)
            .map(|i| {
                let frequency = f64::from(config.base).powf(-((2 * i) as f64) / d_rotary as f64);
                let divisor = divisors.map_or(1.0, |values| f64::from(values[i]));
                (frequency / divisor / f64::from(config.linear_factor)) as f32
            })
            .collect();
        Rope { frequencies, magnitude: config.magnitude, cos: Vec::new(), sin: Vec::new() }
    }

    /// Cosines and sines of row `row` of the step, `[d_rotary / 2]`.
    pub fn angles(&self, row: usize) -> (&[f32], &[f32]) {
        let range = row * self.frequencies.len()..(row + 1) * self.frequencies.len();
        (&self.cos[range.clone()], &self.sin[range])
    }

    /// Fills `cos` and `sin` for the given positions. The angle is rounded to f32 as in `transformers`; its cosine is
    /// taken in f64 and rounded once, so that it does not depend on the machine's libm.
    pub fn set_positions(&mut self, positions: impl Iterator<Item = u32>) {
        self.cos.clear();
        self.sin.clear();
        for position in positions {
            for frequency in &self.frequencies {
                let (sin, cos) = f64::from(position as f32 * frequency).sin_cos();
                self.cos.push(cos as f32 * self.magnitude);
                self.sin.push(sin as f32 * self.magnitude);
            }
        }
    }
}
