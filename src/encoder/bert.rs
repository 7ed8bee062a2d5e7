//! BERT's forward pass for one text, in f32.
//!
//! Devlin et al. 2018: embeddings of token, position and segment, then layers of self-attention and MLP, each with a
//! residual and a norm after it. One text at a time: no padding, so no mask.

use super::config::Config;
use super::error::EncoderError;
use candle_core::{D, Device, Tensor};
use candle_nn::ops::{layer_norm, softmax_last_dim};

pub struct Bert {
    /// `[vocabulary, width]`
    words: Tensor,
    /// `[positions, width]`; the segment's row is already added.
    positions: Tensor,
    norm: Norm,
    layers: Vec<Layer>,
    heads: usize,
}

struct Layer {
    /// Queries, keys and values in one product: `[width, 3 width]`.
    attention: Linear,
    attention_out: Linear,
    attention_norm: Norm,
    /// `[width, inner]`
    mlp_in: Linear,
    mlp_out: Linear,
    mlp_norm: Norm,
}

struct Linear {
    /// `[in, out]`
    weight: Tensor,
    /// `[out]`
    bias: Tensor,
}

struct Norm {
    weight: Tensor,
    bias: Tensor,
    epsilon: f32,
}

impl Bert {
    /// `values` gives a tensor by its name in the file, or an error when it is missing or has another shape.
    pub fn load(
        config: &Config,
        values: impl Fn(&str, &[usize]) -> Result<Vec<f32>, EncoderError>,
    ) -> Result<Bert, EncoderError> {
        let width = config.width;
        let tensor = |name: &str, shape: &[usize]| -> Result<Tensor, EncoderError> {
            Ok(Tensor::from_vec(values(name, shape)?, shape, &Device::Cpu)?)
        };
        let linear = |name: &str, inputs: usize, outputs: usize| -> Result<Linear, EncoderError> {
            let weight = tensor(&format!("{name}.weight"), &[outputs, inputs])?;
            let bias = tensor(&format!("{name}.bias"), &[outputs])?;
            Ok(Linear { weight: weight.t()?.contiguous()?, bias })
        };
        let norm = |name: &str| -> Result<Norm, EncoderError> {
            Ok(Norm {
                weight: tensor(&format!("{name}.weight"), &[width])?,
                bias: tensor(&format!("{name}.bias"), &[width])?,
                epsilon: config.norm_epsilon as f32,
            })
        };
        let layer = |index: usize| -> Result<Layer, EncoderError> {
            let name = |part: &str| format!("encoder.layer.{index}.{part}");
            let parts = ["query", "key", "value"]
                .map(|part| linear(&name(&format!("attention.self.{part}")), width, width));
            let [query, key, value] = parts;
            let (query, key, value) = (query?, key?, value?);
            Ok(Layer {
                attention: Linear {
                    weight: Tensor::cat(&[&query.weight, &key.weight, &value.weight], 1)?,
                    bias: Tensor::cat(&[&query.bias, &key.bias, &value.bias], 0)?,
                },
                attention_out: linear(&name("attention.output.dense"), width, width)?,
                attention_norm: norm(&name("attention.output.LayerNorm"))?,
                mlp_in: linear(&name("intermediate.dense"), width, config.inner)?,
                mlp_out: linear(&name("output.dense"), config.inner, width)?,
                mlp_norm: norm(&name("output.LayerNorm"))?,
            })
        };
        let segments = tensor("embeddings.token_type_embeddings.weight", &[config.segments, width])?;
        let positions = tensor("embeddings.position_embeddings.weight", &[config.positions, width])?;
        Ok(Bert {
            words: tensor("embeddings.word_embeddings.weight", &[config.vocabulary, width])?,
            positions: positions.broadcast_add(&segments.narrow(0, 0, 1)?)?,
            norm: norm("embeddings.LayerNorm")?,
            layers: (0..config.layers).map(layer).collect::<Result<_, _>>()?,
            heads: config.heads,
        })
    }

    /// The last layer's row of each token, `[t][width]`.
    pub fn forward(&self, ids: &[u32]) -> Result<Vec<Vec<f32>>, EncoderError> {
        let t = ids.len();
        let ids = Tensor::new(ids, &Device::Cpu)?;
        let x = (self.words.index_select(&ids, 0)? + self.positions.narrow(0, 0, t)?)?;
        let mut x = self.norm.of(&x)?;
        for layer in &self.layers {
            let attended = layer.attention_out.of(&self.attend(&layer.attention.of(&x)?)?)?;
            x = layer.attention_norm.of(&(x + attended)?)?;
            let inner = layer.mlp_in.of(&x)?.gelu_erf()?;
            x = layer.mlp_norm.of(&(&x + layer.mlp_out.of(&inner)?)?)?;
        }
        Ok(x.to_vec2()?)
    }

    /// softmax(q k^T / sqrt(d_head)) v of each head. `qkv`: `[t, 3 width]`; gives `[t, width]`.
    fn attend(&self, qkv: &Tensor) -> candle_core::Result<Tensor> {
        let (t, three_widths) = qkv.dims2()?;
        let width = three_widths / 3;
        let head = width / self.heads;
        let part = |index: usize| {
            let rows = qkv.narrow(1, index * width, width)?.reshape((t, self.heads, head))?;
            rows.transpose(0, 1)?.contiguous()
        };
        let (query, key, value) = (part(0)?, part(1)?, part(2)?);
        let scale = 1.0 / (head as f64).sqrt();
        let scores = (query.matmul(&key.transpose(D::Minus2, D::Minus1)?)? * scale)?;
        let mixed = softmax_last_dim(&scores)?.matmul(&value)?;
        mixed.transpose(0, 1)?.reshape((t, width))
    }
}

impl Linear {
    fn of(&self, x: &Tensor) -> candle_core::Result<Tensor> {
        x.matmul(&self.weight)?.broadcast_add(&self.bias)
    }
}

impl Norm {
    fn of(&self, x: &Tensor) -> candle_core::Result<Tensor> {
        layer_norm(x, &self.weight, &self.bias, self.epsilon)
    }
}
