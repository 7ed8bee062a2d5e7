//! What lies between two products, in the form that fits the device and the float type.

use super::fused::{GatePair, Norm};
use crate::kernels::{Cpu, Gate};
use crate::model::config::Gating;
use candle_core::{D, DType, Device, Result, Tensor};
use std::sync::Arc;

/// Which form. Every operation has a gradient in both.
#[derive(Clone)]
pub enum Ops {
    /// candle's own operations: any device, any float type.
    Plain,
    /// One operation each on our kernels: the CPU in f32.
    Fused(Arc<Cpu>),
}

impl Ops {
    /// The fastest form; `cpu` is where the fused one runs.
    pub fn new(device: &Device, dtype: DType, cpu: impl FnOnce() -> Arc<Cpu>) -> Ops {
        match (device, dtype) {
            (Device::Cpu, DType::F32) => Ops::Fused(cpu()),
            _ => Ops::Plain,
        }
    }

    /// `x / sqrt(mean(x^2) + epsilon) * weight` over the last dimension.
    pub fn rms_norm(&self, x: &Tensor, weight: &Tensor, epsilon: f32) -> Result<Tensor> {
        match self {
            Ops::Plain => {
                let scale = (x.sqr()?.mean_keepdim(D::Minus1)? + f64::from(epsilon))?.sqrt()?.recip()?;
                x.broadcast_mul(&scale)?.broadcast_mul(weight)
            }
            Ops::Fused(cpu) => {
                x.contiguous()?.apply_op1(Norm { cpu: cpu.clone(), weight: weight.clone(), epsilon })
            }
        }
    }

    /// `cap * tanh(x / cap)`.
    pub fn softcap(x: &Tensor, cap: f32) -> Result<Tensor> {
        (x / f64::from(cap))?.tanh()? * f64::from(cap)
    }

    /// The gated half of an MLP: `[rows, 2 * d_ff]`, gate and up side by side, to `[rows, d_ff]`.
    pub fn gate(&self, gating: Gating, both: &Tensor) -> Result<Tensor> {
        match self {
            Ops::Plain => {
                let d_ff = both.dim(1)? / 2;
                let gate = both.narrow(1, 0, d_ff)?;
                let gate = match gating {
                    Gating::Silu => gate.silu()?,
                    Gating::GeluTanh => gate.gelu()?,
                };
                gate.mul(&both.narrow(1, d_ff, d_ff)?)
            }
            Ops::Fused(cpu) => {
                let kind = match gating {
                    Gating::Silu => Gate::Silu,
                    Gating::GeluTanh => Gate::GeluTanh,
                };
                both.contiguous()?.apply_op1(GatePair { cpu: cpu.clone(), kind })
            }
        }
    }
}
