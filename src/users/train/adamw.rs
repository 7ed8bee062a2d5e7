//! AdamW (Loshchilov and Hutter 2019) whose state can be kept: a resumed run takes the same steps.

use candle_core::{Result, Tensor, Var};

const BETA_1: f64 = 0.9;
const BETA_2: f64 = 0.999;
const EPSILON: f64 = 1e-8;

/// One trained tensor with its running moments.
pub struct Slot {
    pub name: String,
    pub var: Var,
    /// Running means of the gradient and of its square, of the tensor's shape.
    pub moments: [Tensor; 2],
    /// Multiplies the learning rate.
    pub rate: f64,
    /// Decoupled weight decay, per unit of learning rate.
    pub decay: f64,
}

pub struct AdamW {
    pub slots: Vec<Slot>,
    /// Steps taken.
    pub steps: usize,
}

impl AdamW {
    /// `(name, tensor, rate factor, decay)` of each trained tensor.
    pub fn new(vars: Vec<(String, Var, f64, f64)>) -> Result<AdamW> {
        let slot = |(name, var, rate, decay): (String, Var, f64, f64)| {
            let zero = var.as_tensor().zeros_like()?;
            Ok(Slot { name, var, moments: [zero.clone(), zero], rate, decay })
        };
        Ok(AdamW { slots: vars.into_iter().map(slot).collect::<Result<_>>()?, steps: 0 })
    }

    pub fn vars(&self) -> Vec<(String, Var)> {
        self.slots.iter().map(|slot| (slot.name.clone(), slot.var.clone())).collect()
    }

    /// One step with the gradients of the slots, in their order.
    pub fn step(&mut self, gradients: &[Tensor], rate: f64) -> Result<()> {
        self.steps += 1;
        let steps = self.steps as i32;
        let (first, second) = (1.0 - BETA_1.powi(steps), 1.0 - BETA_2.powi(steps));
        for (slot, gradient) in self.slots.iter_mut().zip(gradients) {
            let rate = rate * slot.rate;
            let mean = ((&slot.moments[0] * BETA_1)? + (gradient * (1.0 - BETA_1))?)?;
            let square = ((&slot.moments[1] * BETA_2)? + (gradient.sqr()? * (1.0 - BETA_2))?)?;
            let step = ((&mean / first)? / ((&square / second)?.sqrt()? + EPSILON)?)?;
            let kept = (slot.var.as_tensor() * (1.0 - rate * slot.decay))?;
            slot.var.set(&(kept - (step * rate)?)?)?;
            // Without their history: moments would else hold the whole graph of the step.
            slot.moments = [mean.detach(), square.detach()];
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;

    #[test]
    fn two_steps_by_hand() {
        let var = Var::from_slice(&[1.0f32], 1, &Device::Cpu).unwrap();
        let mut optimiser = AdamW::new(vec![("x".into(), var.clone(), 1.0, 0.1)]).unwrap();
        let gradient = |value: f32| Tensor::from_slice(&[value], 1, &Device::Cpu).unwrap();
        // The first step goes by the rate against the sign, whatever the size; before it 1 shrinks by .01 * .1.
        optimiser.step(&[gradient(4.0)], 0.01).unwrap();
        let one = var.to_vec1::<f32>().unwrap()[0];
        assert!((one - (0.999 - 0.01)).abs() < 1e-6, "{one}");
        // m = (.9 * .4 + .1 * -4) / (1 - .81) = -.2105, v = 16: a step of -rate * m / 4.
        optimiser.step(&[gradient(-4.0)], 0.01).unwrap();
        let two = var.to_vec1::<f32>().unwrap()[0];
        assert!((two - (one * 0.999 + 0.01 * 0.210_526 / 4.0)).abs() < 1e-6, "{two}");
    }
}
