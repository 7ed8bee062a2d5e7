//! What lies between two products as one operation each, on the CPU in f32: forward and backward on our own kernels.
//!
//! In candle's own operations a block is some sixty nodes, each with buffers of its own; they take longer than the
//! products. The plain forms stay for other devices and types, and are what these are tested against.

use crate::kernels::{self, CausalShape, Cpu, Gate, Rotary};
use candle_core::{CpuStorage, CustomOp1, Device, Layout, Result, Shape, Storage, Tensor};
use std::sync::Arc;

/// The values of a contiguous f32 tensor on the CPU.
fn floats<'a>(storage: &'a CpuStorage, layout: &Layout) -> Result<&'a [f32]> {
    match layout.contiguous_offsets() {
        Some((from, to)) => Ok(&storage.as_slice::<f32>()?[from..to]),
        None => Err(candle_core::Error::Msg("a fused operation wants contiguous rows".into())),
    }
}

fn with_floats<R>(tensor: &Tensor, work: impl FnOnce(&[f32]) -> R) -> Result<R> {
    let tensor = tensor.contiguous()?;
    let (storage, layout) = tensor.storage_and_layout();
    match &*storage {
        Storage::Cpu(storage) => Ok(work(floats(storage, layout)?)),
        _ => Err(candle_core::Error::Msg("a fused operation wants its tensors on the CPU".into())),
    }
}

/// All values, row-major.
pub fn values(tensor: &Tensor) -> Result<Vec<f32>> {
    with_floats(tensor, <[f32]>::to_vec)
}

/// [`kernels::rms_norm`] over the last dimension.
pub struct Norm {
    pub cpu: Arc<Cpu>,
    /// `[d]`
    pub weight: Tensor,
    pub epsilon: f32,
}

impl CustomOp1 for Norm {
    fn name(&self) -> &'static str {
        "fused-rms-norm"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let x = floats(storage, layout)?;
        let d = self.weight.elem_count();
        let mut out = vec![0.0; x.len()];
        with_floats(&self.weight, |weight| {
            kernels::rms_norm(&self.cpu, x, x.len() / d, d, weight, self.epsilon, &mut out);
        })?;
        Ok((CpuStorage::F32(out), layout.shape().clone()))
    }

    fn bwd(&self, x: &Tensor, _y: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        let d = self.weight.elem_count();
        let (rows, weight) = (x.elem_count() / d, values(&self.weight)?);
        let mut out = vec![0.0; x.elem_count()];
        with_floats(grad, |grad| {
            with_floats(x, |x| {
                kernels::rms_norm_backward(&self.cpu, x, grad, rows, d, &weight, self.epsilon, &mut out);
            })
        })??;
        Tensor::from_vec(out, x.shape(), &Device::Cpu).map(Some)
    }
}

/// [`kernels::gate`]: `[rows, 2 n]` to `[rows, n]`.
pub struct GatePair {
    pub cpu: Arc<Cpu>,
    pub kind: Gate,
}

impl CustomOp1 for GatePair {
    fn name(&self) -> &'static str {
        "fused-gate"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let (rows, width) = layout.shape().dims2()?;
        let mut out = vec![0.0; rows * width / 2];
        kernels::gate(&self.cpu, self.kind, floats(storage, layout)?, width / 2, &mut out);
        Ok((CpuStorage::F32(out), (rows, width / 2).into()))
    }

    fn bwd(&self, both: &Tensor, _y: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        let (_, width) = both.dims2()?;
        let mut out = vec![0.0; both.elem_count()];
        with_floats(grad, |grad| {
            with_floats(both, |both| {
                kernels::gate_backward(&self.cpu, self.kind, both, grad, width / 2, &mut out);
            })
        })??;
        Tensor::from_vec(out, both.shape(), &Device::Cpu).map(Some)
    }
}

/// Norms of heads where the family has them, rotary and [`kernels::causal_attention`]: projected rows
/// `[b * t, (n_heads + 2 n_kv_heads) * d_head]` to `[b * t, n_heads * d_head]`.
pub struct Attention {
    pub cpu: Arc<Cpu>,
    pub shape: CausalShape,
    /// Norms of query and key heads, `[d_head]` each, and their epsilon.
    pub norms: Option<(Vec<f32>, Vec<f32>)>,
    pub epsilon: f32,
    /// `[b * t, d_rotary / 2]` each.
    pub cos: Vec<f32>,
    pub sin: Vec<f32>,
}

/// Queries, keys and values of all rows, one tensor after the other.
struct Heads {
    q: Vec<f32>,
    k: Vec<f32>,
    v: Vec<f32>,
}

impl Attention {
    fn widths(&self) -> [usize; 2] {
        [self.shape.n_heads, self.shape.n_kv_heads].map(|heads| heads * self.shape.d_head)
    }

    fn split(&self, rows: &[f32]) -> Heads {
        let [d_queries, d_keys] = self.widths();
        let n = rows.len() / (d_queries + 2 * d_keys);
        let part = |len| Vec::with_capacity(n * len);
        let mut heads = Heads { q: part(d_queries), k: part(d_keys), v: part(d_keys) };
        for row in rows.chunks_exact(d_queries + 2 * d_keys) {
            heads.q.extend_from_slice(&row[..d_queries]);
            heads.k.extend_from_slice(&row[d_queries..][..d_keys]);
            heads.v.extend_from_slice(&row[d_queries + d_keys..]);
        }
        heads
    }

    fn join(&self, heads: &Heads) -> Vec<f32> {
        let [d_queries, d_keys] = self.widths();
        let mut rows = Vec::with_capacity(heads.q.len() + 2 * heads.k.len());
        let keys = heads.k.chunks_exact(d_keys).zip(heads.v.chunks_exact(d_keys));
        for (q, (k, v)) in heads.q.chunks_exact(d_queries).zip(keys) {
            [q, k, v].iter().for_each(|part| rows.extend_from_slice(part));
        }
        rows
    }

    /// Turns queries and keys by their angles; back by the negative sines.
    fn rotate(&self, heads: &mut Heads, sin: &[f32]) {
        let d_head = self.shape.d_head;
        for (x, n) in [(&mut heads.q, self.shape.n_heads), (&mut heads.k, self.shape.n_kv_heads)] {
            let rows = x.len() / (n * d_head);
            kernels::rotary(&self.cpu, x, rows, n, d_head, &self.cos, sin, Rotary::HalfSplit);
        }
    }

    /// What attention reads, from projected rows split into heads.
    fn prepare(&self, heads: &mut Heads) {
        let d_head = self.shape.d_head;
        if let Some((q_norm, k_norm)) = &self.norms {
            for (x, weight) in [(&mut heads.q, q_norm), (&mut heads.k, k_norm)] {
                let rows = x.len() / d_head;
                kernels::rms_norm_in_place(&self.cpu, x, rows, d_head, weight, self.epsilon);
            }
        }
        self.rotate(heads, &self.sin);
    }

    fn backward(&self, projected: &[f32], grad: &[f32]) -> Vec<f32> {
        let raw = self.split(projected);
        let mut heads = Heads { q: raw.q.clone(), k: raw.k.clone(), v: raw.v };
        self.prepare(&mut heads);
        let zeros = |values: &[f32]| vec![0.0; values.len()];
        let mut back = Heads { q: zeros(&heads.q), k: zeros(&heads.k), v: zeros(&heads.v) };
        let out = [&mut back.q[..], &mut back.k[..], &mut back.v[..]];
        kernels::causal_attention_backward(&self.cpu, &self.shape, &heads.q, &heads.k, &heads.v, grad, out);
        let turned_back: Vec<f32> = self.sin.iter().map(|sin| -sin).collect();
        self.rotate(&mut back, &turned_back);
        if let Some((q_norm, k_norm)) = &self.norms {
            let d_head = self.shape.d_head;
            for (grad, x, weight) in [(&mut back.q, &raw.q, q_norm), (&mut back.k, &raw.k, k_norm)] {
                let (mut out, rows) = (zeros(x), x.len() / d_head);
                kernels::rms_norm_backward(&self.cpu, x, grad, rows, d_head, weight, self.epsilon, &mut out);
                *grad = out;
            }
        }
        self.join(&back)
    }
}

impl CustomOp1 for Attention {
    fn name(&self) -> &'static str {
        "fused-attention"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let mut heads = self.split(floats(storage, layout)?);
        self.prepare(&mut heads);
        let mut out = vec![0.0; heads.q.len()];
        kernels::causal_attention(&self.cpu, &self.shape, &heads.q, &heads.k, &heads.v, &mut out);
        let [d_queries, _] = self.widths();
        Ok((CpuStorage::F32(out), (heads.q.len() / d_queries, d_queries).into()))
    }

    fn bwd(&self, projected: &Tensor, _y: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        let back = with_floats(grad, |grad| with_floats(projected, |rows| self.backward(rows, grad)))??;
        Tensor::from_vec(back, projected.shape(), &Device::Cpu).map(Some)
    }
}
