//! Rotary position embedding: cosines and sines of the rows of a step.

use super::config::RotaryConfig;

/// Frequencies of one rotary configuration and the angles of the step at hand.
#[derive(Clone)]
pub(super) struct Rope {
    /// `[d_head / 2]`, in radians per position.
    frequencies: Vec<f32>,
    /// `[rows, d_head / 2]`
    pub cos: Vec<f32>,
    /// `[rows, d_head / 2]`
    pub sin: Vec<f32>,
}

impl Rope {
    /// `frequency[i] = base^(-2i / d_head) / divisor[i] / linear_factor`.
    pub fn new(config: &RotaryConfig, d_head: usize) -> Rope {
        let frequencies = (0..d_head / 2)
            .map(|i| {
                let frequency = f64::from(config.base).powf(-((2 * i) as f64) / d_head as f64);
                let divisor = config.divisors.as_ref().map_or(1.0, |values| f64::from(values[i]));
                (frequency / divisor / f64::from(config.linear_factor)) as f32
            })
            .collect();
        Rope { frequencies, cos: Vec::new(), sin: Vec::new() }
    }

    /// Fills `cos` and `sin` for the given positions. The angle is rounded to f32 as in `transformers`; its cosine is
    /// taken in f64 and rounded once, so that it does not depend on the machine's libm.
    pub fn set_positions(&mut self, positions: impl Iterator<Item = u32>) {
        self.cos.clear();
        self.sin.clear();
        for position in positions {
            for frequency in &self.frequencies {
                let (sin, cos) = f64::from(position as f32 * frequency).sin_cos();
                self.cos.push(cos as f32);
                self.sin.push(sin as f32);
            }
        }
    }
}
