//! A projector as a safetensors file (`demeanor.projector/1`): what it holds, read with checks, written.

use super::{Form, Projector};
use crate::digest::Digest;
use crate::limits;
use crate::users::UsersError;
use crate::weights::safetensors::{self, Bounds, NewTensor, Safetensors, StoredType};
use std::collections::BTreeMap;
use std::sync::Arc;

const SCHEMA: &str = "demeanor.projector/1";

const BOUNDS: Bounds =
    Bounds { header_bytes: limits::PROJECTOR_HEADER_BYTES_MAX, tensors: limits::PROJECTOR_TENSORS_MAX };

/// One linear layer: y = W x + b.
#[derive(Clone, Debug, PartialEq)]
pub struct Layer {
    /// `[out, in]`, row-major.
    pub weight: Vec<f32>,
    /// `[out]`
    pub bias: Vec<f32>,
}

/// Everything a projector is made of.
#[derive(Clone, Debug, PartialEq)]
pub struct Parts {
    pub form: Form,
    /// Rows of a prompt.
    pub k: usize,
    pub d_model: usize,
    /// Width of an embedding.
    pub e: usize,
    /// The person-free prompt, `[k, d_model]`.
    pub constant: Vec<f32>,
    /// Mean over people of the training of what the layers are given, `[e]` (static) or `[e + 1]` (input-aware).
    pub centre: Vec<f32>,
    /// Multiplies the centred vector: one over its root mean square norm over people of the training.
    pub scale: f32,
    /// One or two, with GELU between them; the last one gives `[k * d_model]`.
    pub layers: Vec<Layer>,
    /// Q of the input-aware form, `[e, e]`; empty for the static one.
    pub query: Vec<f32>,
    pub temperature: f32,
    /// Mean over people of the statically pooled vector, `[e]`; equal to `centre` for the static form.
    pub static_mean: Vec<f32>,
    /// Mean squared distance of people's statically pooled vectors to `static_mean`.
    pub variance_between: f32,
    /// Mean squared distance of one item to its person's pooled vector.
    pub variance_within: f32,
    /// A change counts by n / (n + n0), n the evidence.
    pub n0: f32,
    /// Below this evidence the constant prompt is used.
    pub n_min: f32,
    /// Largest norm of a row's change.
    pub cap: f32,
    /// Weights that it was trained through.
    pub weights: Digest,
    pub encoder: Digest,
    pub encoder_name: String,
    /// Digest of the training data, and how it was trained.
    pub data: Digest,
    pub recipe: String,
}

impl Projector {
    /// Reads a file from anywhere: shapes, types, sizes and values are checked.
    pub fn read(bytes: &[u8]) -> Result<Projector, UsersError> {
        let parts = parse(bytes)?;
        Ok(Projector { parts: Arc::new(parts), bytes: bytes.into(), digest: Digest::of(bytes) })
    }

    /// The file; equal projectors give equal bytes.
    pub fn write(&self) -> Vec<u8> {
        self.bytes.to_vec()
    }

    /// A projector of freshly trained parts. Layers, constant and query are rounded to `stored`, so that what is used
    /// now is what a reader of the file uses.
    pub fn from_parts(parts: &Parts, stored: StoredType) -> Result<Projector, UsersError> {
        Projector::read(&write(parts, stored))
    }
}

fn write(parts: &Parts, stored: StoredType) -> Vec<u8> {
    let metadata = [
        ("schema", SCHEMA.to_owned()),
        ("form", parts.form.name().to_owned()),
        ("k", parts.k.to_string()),
        ("d_model", parts.d_model.to_string()),
        ("embedding", parts.e.to_string()),
        ("scale", parts.scale.to_string()),
        ("temperature", parts.temperature.to_string()),
        ("variance_between", parts.variance_between.to_string()),
        ("variance_within", parts.variance_within.to_string()),
        ("n0", parts.n0.to_string()),
        ("n_min", parts.n_min.to_string()),
        ("cap", parts.cap.to_string()),
        ("weights", parts.weights.to_string()),
        ("encoder", parts.encoder.to_string()),
        ("encoder_name", parts.encoder_name.clone()),
        ("data", parts.data.to_string()),
        ("recipe", parts.recipe.clone()),
    ];
    let metadata: BTreeMap<String, String> =
        metadata.into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
    let (k, d, e) = (parts.k, parts.d_model, parts.e);
    let mut tensors = vec![
        // Small, and differences of nearly equal numbers are taken of them: kept whole.
        ("centre".to_owned(), vec![parts.centre.len()], &parts.centre, StoredType::F32),
        ("static_mean".to_owned(), vec![e], &parts.static_mean, StoredType::F32),
        ("constant".to_owned(), vec![k, d], &parts.constant, stored),
    ];
    if parts.form == Form::InputAware {
        tensors.push(("query".to_owned(), vec![e, e], &parts.query, stored));
    }
    for (i, layer) in parts.layers.iter().enumerate() {
        let outputs = layer.bias.len();
        let inputs = layer.weight.len() / outputs.max(1);
        tensors.push((format!("layers.{i}.weight"), vec![outputs, inputs], &layer.weight, stored));
        tensors.push((format!("layers.{i}.bias"), vec![outputs], &layer.bias, stored));
    }
    let tensors: Vec<NewTensor<'_>> = (tensors.iter())
        .map(|(name, shape, values, stored)| NewTensor { name, shape, values, stored: *stored })
        .collect();
    safetensors::write_tensors(&metadata, &tensors)
}

fn parse(bytes: &[u8]) -> Result<Parts, UsersError> {
    if bytes.len() > limits::PROJECTOR_BYTES_MAX {
        let max = limits::PROJECTOR_BYTES_MAX;
        return Err(bad(format!("{} bytes; at most {max}", bytes.len())));
    }
    let file = Safetensors::read(bytes, BOUNDS).map_err(|fault| bad(fault.to_string()))?;
    let labels = Labels(&file.metadata);
    let schema = labels.text("schema")?;
    if schema != SCHEMA {
        return Err(bad(format!("schema `{}`; expected `{SCHEMA}`", shown(schema))));
    }
    let form = labels.text("form")?;
    let form = Form::parse(form)
        .ok_or_else(|| bad(format!("form `{}`; allowed: static, input-aware", shown(form))))?;
    let k = labels.size("k", limits::SOFT_ROWS_MAX)?;
    let d_model = labels.size("d_model", limits::WIDTH_MAX as usize)?;
    let e = labels.size("embedding", limits::EMBEDDING_WIDTH_MAX)?;
    let inputs = form.input_width(e);
    let mut tensors = Tensors { file: &file, used: 0 };
    let query = match form {
        Form::Static => Vec::new(),
        Form::InputAware => tensors.take("query", &[e, e])?,
    };
    Ok(Parts {
        form,
        k,
        d_model,
        e,
        constant: tensors.take("constant", &[k, d_model])?,
        centre: tensors.take("centre", &[inputs])?,
        static_mean: tensors.take("static_mean", &[e])?,
        layers: tensors.layers(inputs, k * d_model)?,
        query,
        scale: labels.number("scale", 1e-6..=1e6)?,
        temperature: labels.number("temperature", 1e-4..=1e4)?,
        variance_between: labels.number("variance_between", 0.0..=4.0)?,
        variance_within: labels.number("variance_within", 0.0..=4.0)?,
        n0: labels.number("n0", 0.0..=1e6)?,
        n_min: labels.number("n_min", 0.0..=1e6)?,
        cap: labels.number("cap", 0.0..=1e4)?,
        weights: labels.digest("weights")?,
        encoder: labels.digest("encoder")?,
        encoder_name: labels.text("encoder_name")?.to_owned(),
        data: labels.digest("data")?,
        recipe: labels.text("recipe")?.to_owned(),
    })
    .and_then(|parts| tensors.all_used().map(|()| parts))
}

/// Tensors of a file by name, counted so that none is left over.
struct Tensors<'a> {
    file: &'a Safetensors<'a>,
    used: usize,
}

impl Tensors<'_> {
    fn take(&mut self, name: &str, shape: &[usize]) -> Result<Vec<f32>, UsersError> {
        let tensor = self.file.tensors.get(name).ok_or_else(|| bad(format!("tensor `{name}` is missing")))?;
        if !tensor.shape.iter().copied().eq(shape.iter().map(|size| *size as u64)) {
            return Err(bad(format!("tensor `{name}` has shape {:?}; expected {shape:?}", tensor.shape)));
        }
        let values = tensor.floats().map_err(|rule| bad(format!("tensor `{name}` {rule}")))?;
        if let Some(at) = values.iter().position(|value| !value.is_finite()) {
            return Err(bad(format!("tensor `{name}` has a value that is not finite, at {at}")));
        }
        self.used += 1;
        Ok(values)
    }

    /// `layers.0` alone, or with `layers.1` behind it.
    fn layers(&mut self, inputs: usize, outputs: usize) -> Result<Vec<Layer>, UsersError> {
        let two = self.file.tensors.contains_key("layers.1.weight");
        let hidden = self.file.tensors.get("layers.0.bias").and_then(|bias| bias.shape.first().copied());
        let hidden = hidden.unwrap_or(0) as usize;
        if two && !(1..=limits::PROJECTOR_HIDDEN_MAX).contains(&hidden) {
            let max = limits::PROJECTOR_HIDDEN_MAX;
            return Err(bad(format!("a hidden layer of {hidden}; allowed: 1 to {max}")));
        }
        let widths = if two { vec![inputs, hidden, outputs] } else { vec![inputs, outputs] };
        let layer = |(i, pair): (usize, &[usize])| {
            let weight = self.take(&format!("layers.{i}.weight"), &[pair[1], pair[0]])?;
            Ok(Layer { weight, bias: self.take(&format!("layers.{i}.bias"), &[pair[1]])? })
        };
        widths.windows(2).enumerate().map(layer).collect()
    }

    fn all_used(&self) -> Result<(), UsersError> {
        match self.file.tensors.len() {
            count if count == self.used => Ok(()),
            count => Err(bad(format!("{count} tensors; {} of them belong to a projector", self.used))),
        }
    }
}

struct Labels<'a>(&'a BTreeMap<String, String>);

impl Labels<'_> {
    fn text(&self, key: &str) -> Result<&str, UsersError> {
        self.0.get(key).map(String::as_str).ok_or_else(|| bad(format!("metadata `{key}` is missing")))
    }

    fn wrong(&self, key: &str, allowed: &str) -> UsersError {
        let given = self.0.get(key).map(String::as_str).unwrap_or_default();
        bad(format!("metadata `{key}` is `{}`; allowed: {allowed}", shown(given)))
    }

    fn size(&self, key: &str, max: usize) -> Result<usize, UsersError> {
        let value = self.text(key)?.parse::<usize>().ok();
        value.filter(|value| (1..=max).contains(value)).ok_or_else(|| self.wrong(key, &format!("1 to {max}")))
    }

    fn number(&self, key: &str, allowed: std::ops::RangeInclusive<f32>) -> Result<f32, UsersError> {
        let value = self.text(key)?.parse::<f32>().ok();
        let range = || format!("{:e} to {:e}", allowed.start(), allowed.end());
        value.filter(|value| allowed.contains(value)).ok_or_else(|| self.wrong(key, &range()))
    }

    fn digest(&self, key: &str) -> Result<Digest, UsersError> {
        Digest::parse(self.text(key)?).ok_or_else(|| self.wrong(key, "64 hex digits"))
    }
}

fn shown(text: &str) -> String {
    text.chars().take(limits::SHOWN_CHARS_MAX).flat_map(char::escape_debug).collect()
}

fn bad(rule: String) -> UsersError {
    UsersError::BadFile { rule }
}
