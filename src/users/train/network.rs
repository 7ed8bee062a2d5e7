//! The projector as candle tensors: the same arithmetic as `projector`, differentiable in what is trained.

use super::error::{TrainError, failed};
use super::prepared::History;
use crate::statistics::Draws;
use crate::users::projector::{Form, Layer, Parts};
use candle_core::{D, DType, Device, Result, Tensor, Var};

/// A person's history behind one row of a batch.
pub struct Sample<'a> {
    pub history: &'a History,
    /// Items that count, in order.
    pub kept: Vec<usize>,
    /// Embedding of the request, `[e]`; only an input-aware form looks at it.
    pub query: &'a [f32],
}

/// Trained tensors and the fixed numbers around them.
pub struct Network {
    /// Statistics and shapes; its tensors are the starting point.
    parts: Parts,
    /// The person-free prompt, `[k, d_model]`; fixed once its own stage is over.
    pub constant: Var,
    /// `layers.i.weight` `[out, in]` and `layers.i.bias` `[out]`, then `query` `[e, e]` where the form has one.
    pub vars: Vec<(String, Var)>,
}

impl Network {
    /// Layers of a projector to be: the last one is zero, so that training starts at the constant prompt.
    pub fn new(
        parts: &Parts,
        constant: &Tensor,
        hidden: Option<usize>,
        seed: u64,
    ) -> std::result::Result<Network, TrainError> {
        let doing = failed("tensors of the projector");
        let inputs = parts.form.input_width(parts.e);
        let outputs = parts.k * parts.d_model;
        let widths = match hidden {
            Some(hidden) => vec![inputs, hidden, outputs],
            None => vec![inputs, outputs],
        };
        let mut layers = Vec::new();
        for (i, pair) in widths.windows(2).enumerate() {
            let mut draws = Draws::new(seed, "layers", i as u64);
            let last = i + 2 == widths.len();
            // Inputs have norm 1, so weights of spread 1 give values of spread 1.
            let weight = (0..pair[0] * pair[1]).map(|_| if last { 0.0 } else { draws.normal() as f32 });
            layers.push(Layer { weight: weight.collect(), bias: vec![0.0; pair[1]] });
        }
        let parts = Parts { layers, ..parts.clone() };
        Network::from_parts(parts, constant).map_err(doing)
    }

    /// Trained tensors with the values of `parts`, in the type and on the device of `constant`.
    pub fn from_parts(parts: Parts, constant: &Tensor) -> Result<Network> {
        let (device, dtype) = (constant.device(), constant.dtype());
        let var = |values: &[f32], shape: (usize, usize)| {
            Var::from_tensor(&Tensor::from_slice(values, shape, device)?.to_dtype(dtype)?)
        };
        let mut vars = Vec::new();
        for (i, layer) in parts.layers.iter().enumerate() {
            let (outputs, inputs) = (layer.bias.len(), layer.weight.len() / layer.bias.len().max(1));
            vars.push((format!("layers.{i}.weight"), var(&layer.weight, (outputs, inputs))?));
            let bias = Tensor::from_slice(&layer.bias, outputs, device)?.to_dtype(dtype)?;
            vars.push((format!("layers.{i}.bias"), Var::from_tensor(&bias)?));
        }
        if parts.form == Form::InputAware {
            vars.push(("query".to_owned(), var(&parts.query, (parts.e, parts.e))?));
        }
        Ok(Network { constant: Var::from_tensor(constant)?, vars, parts })
    }

    fn device(&self) -> &Device {
        self.constant.device()
    }

    fn dtype(&self) -> DType {
        self.constant.dtype()
    }

    /// Weight and bias of the last layer.
    pub fn last_layer(&self) -> Result<[&Var; 2]> {
        let last = self.parts.layers.len().saturating_sub(1);
        Ok([self.var(&format!("layers.{last}.weight"))?, self.var(&format!("layers.{last}.bias"))?])
    }

    /// A trained tensor by name.
    fn var(&self, name: &str) -> Result<&Var> {
        let found = self.vars.iter().find(|(known, _)| known == name);
        found.map(|(_, var)| var).ok_or_else(|| candle_core::Error::Msg(format!("no tensor {name}")))
    }

    /// Centred and scaled inputs of the layers, `[b, inputs]`, and n / (n + n0) of each, `[b, 1]`.
    pub fn features(&self, samples: &[Sample<'_>]) -> Result<(Tensor, Tensor)> {
        let mut trust = Vec::with_capacity(samples.len());
        let mut rows = Vec::with_capacity(samples.len());
        for sample in samples {
            let items = sample.history.items(&sample.kept);
            let n = crate::users::projector::evidence(&items);
            trust.push(if n < self.parts.n_min { 0.0 } else { n / (n + self.parts.n0) });
            rows.push(match self.parts.form {
                Form::Static => self.row(&self.parts.pool_static(&items))?,
                Form::InputAware => self.attended(sample)?,
            });
        }
        let pooled = Tensor::stack(&rows, 0)?;
        let centre = self.row(&self.parts.centre)?;
        let features = (pooled.broadcast_sub(&centre)? * f64::from(self.parts.scale))?;
        let trust = Tensor::from_slice(&trust, (trust.len(), 1), self.device())?.to_dtype(self.dtype())?;
        Ok((features, trust))
    }

    fn row(&self, values: &[f32]) -> Result<Tensor> {
        Tensor::from_slice(values, values.len(), self.device())?.to_dtype(self.dtype())
    }

    /// (sum of a w e, sum of a w), `[e + 1]`, differentiable in `query`.
    fn attended(&self, sample: &Sample<'_>) -> Result<Tensor> {
        let (n, e) = (sample.kept.len(), self.parts.e);
        if n == 0 {
            return Tensor::zeros(e + 1, self.dtype(), self.device());
        }
        let flat: Vec<f32> =
            sample.kept.iter().flat_map(|&i| sample.history.embeddings[i].iter().copied()).collect();
        let embeddings = Tensor::from_vec(flat, (n, e), self.device())?.to_dtype(self.dtype())?;
        let weights: Vec<f32> = sample.kept.iter().map(|&i| sample.history.weights[i]).collect();
        let weights = self.row(&weights)?;
        let query = Tensor::from_slice(sample.query, (e, 1), self.device())?.to_dtype(self.dtype())?;
        let towards = self.var("query")?.matmul(&query)?;
        let scores = (embeddings.matmul(&towards)?.squeeze(1)? / f64::from(self.parts.temperature))?;
        let powers = scores.broadcast_sub(&scores.max(0)?.detach())?.exp()?;
        let shares = powers.broadcast_div(&powers.sum_all()?)?;
        let signed = (shares * weights)?;
        let pooled = signed.unsqueeze(0)?.matmul(&embeddings)?.squeeze(0)?;
        Tensor::cat(&[pooled, signed.sum_all()?.unsqueeze(0)?], 0)
    }

    /// Changes of rows, `[b, k, d_model]`.
    pub fn changes(&self, features: &Tensor, trust: &Tensor) -> Result<Tensor> {
        let mut values = features.clone();
        for i in 0..self.parts.layers.len() {
            if i > 0 {
                values = values.gelu()?;
            }
            let weight = self.var(&format!("layers.{i}.weight"))?;
            values = values.matmul(&weight.t()?)?.broadcast_add(self.var(&format!("layers.{i}.bias"))?)?;
        }
        let values = values.broadcast_mul(trust)?;
        let rows = values.reshape((values.dim(0)?, self.parts.k, self.parts.d_model))?;
        // A tiny number below the root: at a change of exactly zero its derivative would be infinite.
        let norms = (rows.sqr()?.sum_keepdim(D::Minus1)? + 1e-12)?.sqrt()?;
        let cap = f64::from(self.parts.cap);
        let factors = norms.maximum(cap)?.recip()?;
        rows.broadcast_mul(&(factors * cap)?)
    }

    /// Rows of prompts: the fixed constant prompt plus changes, `[b, k, d_model]`.
    pub fn rows(&self, samples: &[Sample<'_>]) -> Result<Tensor> {
        let (features, trust) = self.features(samples)?;
        self.changes(&features, &trust)?.broadcast_add(&self.constant.as_detached_tensor())
    }

    /// The constant prompt `b` times, `[b, k, d_model]`, differentiable in it.
    pub fn constants(&self, b: usize) -> Result<Tensor> {
        let (k, d) = self.constant.dims2()?;
        self.constant.as_tensor().unsqueeze(0)?.broadcast_as((b, k, d))
    }

    /// The parts as trained so far.
    pub fn parts(&self, recipe: &str) -> Result<Parts> {
        let values = |tensor: &Tensor| tensor.to_dtype(DType::F32)?.flatten_all()?.to_vec1::<f32>();
        let mut parts = self.parts.clone();
        parts.constant = values(self.constant.as_tensor())?;
        for (i, layer) in parts.layers.iter_mut().enumerate() {
            layer.weight = values(self.var(&format!("layers.{i}.weight"))?)?;
            layer.bias = values(self.var(&format!("layers.{i}.bias"))?)?;
        }
        if parts.form == Form::InputAware {
            parts.query = values(self.var("query")?)?;
        }
        parts.recipe = recipe.to_owned();
        Ok(parts)
    }
}
