//! A product with frozen weights: forward `x W^T`, backward the gradient of `x` alone.
//!
//! The gradient of candle's own product covers the weights too: three times the work, and as much memory again as the
//! model, for weights that nobody trains.

use super::{ModelError, failed};
use candle_core::backend::BackendStorage;
use candle_core::{CpuStorage, CudaStorage, CustomOp1, Layout, Result, Shape, Storage, Tensor};

/// A matrix `[n, k]` that is never trained.
#[derive(Clone, Debug)]
pub struct FrozenLinear {
    weight: Tensor,
}

impl FrozenLinear {
    /// `weight` is `[n, k]`, contiguous.
    pub fn new(weight: Tensor) -> FrozenLinear {
        FrozenLinear { weight: weight.detach() }
    }

    pub fn weight(&self) -> &Tensor {
        &self.weight
    }

    /// Columns `from..from + len` of every row, on the host: `[n, len]`.
    pub fn columns(&self, from: usize, len: usize) -> std::result::Result<Vec<f32>, ModelError> {
        let columns = self.weight.narrow(1, from, len).and_then(|columns| columns.flatten_all()?.to_vec1());
        columns.map_err(failed("reading columns of a projection"))
    }

    /// `[rows, k]` to `[rows, n]`.
    pub fn apply(&self, x: &Tensor) -> Result<Tensor> {
        x.contiguous()?.apply_op1(self.clone())
    }

    /// Rows, n, k of a product with `x`, and the layout of `W^T`.
    fn product(&self, x: &Layout, weight: &Layout) -> Result<((usize, usize, usize, usize), Layout)> {
        let (rows, k) = x.shape().dims2()?;
        let (n, own_k) = weight.shape().dims2()?;
        if k != own_k {
            let message = format!("a product of [{rows}, {k}] with frozen weights [{n}, {own_k}]");
            return Err(candle_core::Error::Msg(message));
        }
        Ok(((1, rows, n, k), weight.transpose(0, 1)?))
    }
}

impl CustomOp1 for FrozenLinear {
    fn name(&self) -> &'static str {
        "frozen-linear"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let (storage, weight_layout) = self.weight.storage_and_layout();
        let (sizes, transposed) = self.product(layout, weight_layout)?;
        match &*storage {
            Storage::Cpu(weight) => {
                Ok((x.matmul(weight, sizes, layout, &transposed)?, (sizes.1, sizes.2).into()))
            }
            _ => Err(other_device()),
        }
    }

    fn cuda_fwd(&self, x: &CudaStorage, layout: &Layout) -> Result<(CudaStorage, Shape)> {
        let (storage, weight_layout) = self.weight.storage_and_layout();
        let (sizes, transposed) = self.product(layout, weight_layout)?;
        match &*storage {
            Storage::Cuda(weight) => {
                Ok((x.matmul(weight, sizes, layout, &transposed)?, (sizes.1, sizes.2).into()))
            }
            _ => Err(other_device()),
        }
    }

    fn bwd(&self, _x: &Tensor, _y: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        Ok(Some(grad.contiguous()?.matmul(&self.weight)?))
    }
}

fn other_device() -> candle_core::Error {
    candle_core::Error::Msg("frozen weights and rows are on different devices".into())
}
