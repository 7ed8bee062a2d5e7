//! Rope scalings as divisors of the plain frequencies, one for each pair of coordinates.

use std::f64::consts::PI;

/// Frequency of pair `i` in radians per position.
fn frequency(base: f32, d_rotary: usize, i: usize) -> f64 {
    f64::from(base).powf(-((2 * i) as f64) / d_rotary as f64)
}

/// Llama 3.1: long wavelengths are stretched by `factor`, short ones are not, those between partly.
pub struct Llama3 {
    pub factor: f32,
    pub low_frequency_factor: f32,
    pub high_frequency_factor: f32,
    /// Context of the first training, in positions.
    pub original_context: u32,
}

impl Llama3 {
    pub fn divisors(&self, base: f32, d_rotary: usize) -> Vec<f32> {
        let (low, high) = (f64::from(self.low_frequency_factor), f64::from(self.high_frequency_factor));
        let (factor, original) = (f64::from(self.factor), f64::from(self.original_context));
        let divisor = |i| {
            let turns = original * frequency(base, d_rotary, i) / (2.0 * PI);
            match turns {
                turns if turns < low => factor,
                turns if turns > high => 1.0,
                turns => {
                    let smooth = (turns - low) / (high - low);
                    1.0 / ((1.0 - smooth) / factor + smooth)
                }
            }
        };
        (0..d_rotary / 2).map(|i| divisor(i) as f32).collect()
    }
}

/// YaRN (arXiv 2309.00071): the same idea with a ramp over the index of the pair, and a factor on attention.
pub struct Yarn {
    pub factor: f32,
    pub original_context: u32,
    /// Turns within the original context from which on a pair is left alone, and below which it is stretched in full.
    pub beta_fast: f32,
    pub beta_slow: f32,
    /// Whether the ends of the ramp are whole numbers.
    pub truncated: bool,
}

impl Yarn {
    pub fn divisors(&self, base: f32, d_rotary: usize) -> Vec<f32> {
        let original = f64::from(self.original_context);
        let end = |turns: f32| {
            let turns = original / (f64::from(turns) * 2.0 * PI);
            d_rotary as f64 * turns.ln() / (2.0 * f64::from(base).ln())
        };
        let (low, high) = (end(self.beta_fast), end(self.beta_slow));
        let (low, high) = if self.truncated { (low.floor(), high.ceil()) } else { (low, high) };
        let (low, mut high) = (low.max(0.0), high.min((d_rotary - 1) as f64));
        if low == high {
            high += 0.001;
        }
        let divisor = |i: usize| {
            let stretched = ((i as f64 - low) / (high - low)).clamp(0.0, 1.0);
            1.0 / (stretched / f64::from(self.factor) + 1.0 - stretched)
        };
        (0..d_rotary / 2).map(|i| divisor(i) as f32).collect()
    }

    /// The factor on attention that the paper recommends.
    pub fn magnitude(&self) -> f32 {
        if self.factor <= 1.0 { 1.0 } else { (0.1 * f64::from(self.factor).ln() + 1.0) as f32 }
    }
}

/// LongRoPE's factor on attention, for a model stretched from one context to another.
pub fn longrope_magnitude(factor: f64, original_context: u32) -> f32 {
    match factor <= 1.0 {
        true => 1.0,
        false => (1.0 + factor.ln() / f64::from(original_context).ln()).sqrt() as f32,
    }
}
