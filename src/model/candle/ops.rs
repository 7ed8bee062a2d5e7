//! What lies between two products, in the form that fits the device and the float type.

use super::fused::{self, GatePair, Norm};
use crate::kernels::{Cpu, Gate, Isa};
use crate::model::config::{Gating, ModelConfig};
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
    /// The fastest form; `threads` is for the CPU's.
    pub fn new(device: &Device, dtype: DType, threads: usize) -> Ops {
        match (device, dtype) {
            (Device::Cpu, DType::F32) => Ops::Fused(Arc::new(Cpu::new(Isa::detect(), threads))),
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

/// The fused attention of one block over sequences of `t` rows; see [`fused::Attention`].
pub struct FusedAttention<'a> {
    pub cpu: &'a Arc<Cpu>,
    pub config: &'a ModelConfig,
    pub t: usize,
    pub window: Option<u32>,
    pub norms: Option<(&'a Tensor, &'a Tensor)>,
    /// `[b * t, 1, d_head / 2]` each.
    pub cos: &'a Tensor,
    pub sin: &'a Tensor,
}

impl FusedAttention<'_> {
    /// Projected rows `[b * t, (n_heads + 2 n_kv_heads) * d_head]` to `[b * t, n_heads * d_head]`.
    pub fn apply(&self, projected: &Tensor) -> Result<Tensor> {
        let config = self.config;
        let floats = |tensor: &Tensor| tensor.flatten_all()?.to_vec1::<f32>();
        let norms = match self.norms {
            Some((q, k)) => Some((floats(q)?, floats(k)?)),
            None => None,
        };
        let shape = crate::kernels::CausalShape {
            t: self.t,
            n_heads: config.n_heads,
            n_kv_heads: config.n_kv_heads,
            d_head: config.d_head,
            scale: config.attention_scale,
            window: self.window,
        };
        projected.contiguous()?.apply_op1(fused::Attention {
            cpu: self.cpu.clone(),
            shape,
            norms,
            epsilon: config.norm_epsilon,
            cos: floats(self.cos)?,
            sin: floats(self.sin)?,
        })
    }
}
