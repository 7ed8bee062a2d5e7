//! Tensors of a container by part and shape, with a record of what was asked for: none is left over.

use super::config::{self, ModelConfig, RopeTensors};
use super::names::{Names, Part};
use super::{ModelError, Quantize};
use crate::format::ElementFormat;
use crate::kernels::{self, PackedMatrix, Precision};
use crate::limits;
use crate::weights::{Container, TensorView};
use std::borrow::Cow;
use std::collections::BTreeSet;
use std::ops::Range;
use std::panic::resume_unwind;

pub(super) struct Tensors<'a> {
    container: &'a Container,
    pub names: Names,
    quantize: Option<Quantize>,
    /// That share the rounding of a matrix.
    threads: usize,
    used: BTreeSet<String>,
}

/// Rows of a stored matrix, `[n, k]`, as products or embeddings read them.
pub(super) struct Stored<'a> {
    /// Of the tensor, for messages.
    name: String,
    pub format: ElementFormat,
    pub n: usize,
    pub k: usize,
    pub data: Cow<'a, [u8]>,
    /// Threads that pack or round it.
    threads: usize,
}

/// What stands in a matrix decides how far it may be rounded.
#[derive(Clone, Copy)]
enum Kind {
    /// A projection inside a block.
    Projection,
    /// The embedding table and the head.
    Table,
}

impl<'a> Tensors<'a> {
    /// Reads the configuration. `quantize` says what becomes of matrices in F32, F16 and BF16.
    pub fn open(
        container: &'a Container,
        quantize: Option<Quantize>,
        threads: usize,
    ) -> Result<(ModelConfig, Tensors<'a>), ModelError> {
        // Norms have no say in where the embedding table is.
        let names = Names::of(container, false);
        let mut tensors = Tensors { container, names, quantize, threads, used: BTreeSet::new() };
        let vocab_size = tensors.vocab_size()?;
        let config = match container {
            Container::Gguf(file) => config::of_gguf(file.metadata(), vocab_size, tensors.rope_tensors()?)?,
            Container::Folder(folder) => ModelConfig::from_json(folder.config(), vocab_size)?,
        };
        tensors.names = Names::of(container, config.post_norms);
        Ok((config, tensors))
    }

    /// The last norm, `[d_model]`.
    pub fn output_norm(&mut self, config: &ModelConfig) -> Result<Vec<f32>, ModelError> {
        self.norm_named(config, &self.names.output_norm(), config.d_model)
    }

    /// Norm weights of a block as they are multiplied, `[d_model]`.
    pub fn norm(&mut self, config: &ModelConfig, l: usize, part: Part) -> Result<Vec<f32>, ModelError> {
        self.norm_named(config, &self.names.weight(l, part), config.d_model)
    }

    /// The same for a norm that only some families have: of heads, `[d_head]`, or after attention and MLP, `[d_model]`.
    pub fn optional_norm(
        &mut self,
        config: &ModelConfig,
        l: usize,
        part: Part,
    ) -> Result<Option<Vec<f32>>, ModelError> {
        let (is_there, len) = match part {
            Part::QNorm | Part::KNorm => (config.qk_norms, config.d_head),
            _ => (config.post_norms, config.d_model),
        };
        is_there.then(|| self.norm_named(config, &self.names.weight(l, part), len)).transpose()
    }

    fn norm_named(&mut self, config: &ModelConfig, name: &str, len: usize) -> Result<Vec<f32>, ModelError> {
        let mut values = self.vector(name, len)?;
        if config.norm_offset != 0.0 {
            values.iter_mut().for_each(|value| *value += config.norm_offset);
        }
        Ok(values)
    }

    /// Biases of queries, keys and values, where the family has them.
    pub fn biases(&mut self, config: &ModelConfig, l: usize) -> Result<Option<[Vec<f32>; 3]>, ModelError> {
        if !config.qkv_biases {
            return Ok(None);
        }
        let mut bias = |part, len| self.vector(&self.names.bias(l, part), len);
        let (queries, keys) = (config.d_queries(), config.d_keys());
        Ok(Some([bias(Part::Q, queries)?, bias(Part::K, keys)?, bias(Part::V, keys)?]))
    }

    /// Projections to queries, keys and values, whether the container has them in one tensor or in three.
    pub fn q_k_v(&mut self, config: &ModelConfig, l: usize) -> Result<[Stored<'a>; 3], ModelError> {
        let (d, queries, keys) = (config.d_model, config.d_queries(), config.d_keys());
        if config.fused {
            let name = self.names.weight(l, Part::Qkv);
            let height = queries + 2 * keys;
            let mut part = |from, len| self.rows(&name, [height, d], from..from + len, Kind::Projection);
            return Ok([part(0, queries)?, part(queries, keys)?, part(queries + keys, keys)?]);
        }
        Ok([
            self.matrix(l, Part::Q, queries, d)?,
            self.matrix(l, Part::K, keys, d)?,
            self.matrix(l, Part::V, keys, d)?,
        ])
    }

    /// The two projections into the MLP.
    pub fn gate_up(&mut self, config: &ModelConfig, l: usize) -> Result<[Stored<'a>; 2], ModelError> {
        let (d, ff) = (config.d_model, config.d_ff);
        if config.fused {
            let name = self.names.weight(l, Part::GateUp);
            let mut part = |from| self.rows(&name, [2 * ff, d], from..from + ff, Kind::Projection);
            return Ok([part(0)?, part(ff)?]);
        }
        Ok([self.matrix(l, Part::Gate, ff, d)?, self.matrix(l, Part::Up, ff, d)?])
    }

    /// A projection of a block, `[n, k]`.
    pub fn matrix(&mut self, l: usize, part: Part, n: usize, k: usize) -> Result<Stored<'a>, ModelError> {
        self.rows(&self.names.weight(l, part), [n, k], 0..n, Kind::Projection)
    }

    /// The embedding table, and the head where it is not the same: `[vocab_size, d_model]` each.
    pub fn tables(&mut self, config: &ModelConfig) -> Result<(Stored<'a>, Option<Stored<'a>>), ModelError> {
        let shape = [config.vocab_size, config.d_model];
        let embedding = self.rows(&self.names.embedding(), shape, 0..shape[0], Kind::Table)?;
        let name = self.names.head();
        let said = self.says_tied();
        match self.container.tensor(name) {
            None if said == Some(false) => Err(ModelError::MissingTensor { tensor: name.into() }),
            None => Ok((embedding, None)),
            // Some folders hold the table twice. Another head beside "tied" would be ignored elsewhere: which is meant?
            Some(view) if said == Some(true) => {
                let table = self.container.tensor(&self.names.embedding());
                if table.is_none_or(|table| table.data != view.data || table.format != view.format) {
                    return Err(ModelError::LeftOver { tensor: name.into() });
                }
                self.used.insert(name.into());
                Ok((embedding, None))
            }
            Some(_) => {
                let head = self.rows(name, shape, 0..shape[0], Kind::Table)?;
                Ok((embedding, Some(head)))
            }
        }
    }

    /// A tensor that nothing asked for means an architecture that is not understood.
    pub fn refuse_left_over(&self) -> Result<(), ModelError> {
        let is_left_over =
            |view: &TensorView<'_>| !self.used.contains(view.name) && !self.names.is_left_out(view.name);
        match self.container.tensors().find(is_left_over) {
            Some(view) => Err(ModelError::LeftOver { tensor: view.name.chars().take(200).collect() }),
            None => Ok(()),
        }
    }

    /// Whether head and embedding table are one, where a folder says so.
    fn says_tied(&self) -> Option<bool> {
        match self.container {
            Container::Gguf(_) => None,
            Container::Folder(folder) => folder.config().get("tie_word_embeddings")?.as_bool(),
        }
    }

    fn vocab_size(&self) -> Result<usize, ModelError> {
        let name = self.names.embedding();
        let view = self.container.tensor(&name).ok_or(ModelError::MissingTensor { tensor: name.clone() })?;
        match view.shape[..] {
            [rows, _] if rows > 0 && rows <= limits::VOCABULARY_MAX as usize => Ok(rows),
            _ => Err(ModelError::Shape { tensor: name, given: view.shape, wanted: vec![] }),
        }
    }

    fn rope_tensors(&mut self) -> Result<RopeTensors, ModelError> {
        let mut read = |name: &str| match self.container.tensor(name) {
            // The configuration checks the length; it has a bound because heads have.
            Some(view) if view.elements() <= kernels::D_HEAD_MAX => {
                self.vector(name, view.elements()).map(Some)
            }
            Some(view) => Err(ModelError::Shape {
                tensor: name.into(),
                given: view.shape,
                wanted: vec![kernels::D_HEAD_MAX / 2],
            }),
            None => Ok(None),
        };
        Ok(RopeTensors {
            all: read(RopeTensors::ALL)?,
            short: read(RopeTensors::SHORT)?,
            long: read(RopeTensors::LONG)?,
        })
    }

    fn view(&mut self, name: &str, wanted: &[usize]) -> Result<TensorView<'a>, ModelError> {
        let container: &'a Container = self.container;
        let view = container.tensor(name).ok_or(ModelError::MissingTensor { tensor: name.into() })?;
        if view.shape != wanted {
            return Err(ModelError::Shape { tensor: name.into(), given: view.shape, wanted: wanted.into() });
        }
        self.used.insert(name.into());
        Ok(view)
    }

    fn vector(&mut self, name: &str, len: usize) -> Result<Vec<f32>, ModelError> {
        let view = self.view(name, &[len])?;
        let mut values = vec![0.0; len];
        kernels::dequantize(view.format, view.data, &mut values)
            .map_err(|source| ModelError::Pack { tensor: name.into(), source })?;
        Ok(values)
    }

    /// Some rows of a matrix of this shape.
    fn rows(
        &mut self,
        name: &str,
        shape: [usize; 2],
        rows: Range<usize>,
        kind: Kind,
    ) -> Result<Stored<'a>, ModelError> {
        let view = self.view(name, &shape)?;
        let row_bytes = view.data.len() / shape[0];
        let data = &view.data[rows.start * row_bytes..rows.end * row_bytes];
        let (n, k) = (rows.len(), shape[1]);
        let (format, data, threads) = (view.format, Cow::Borrowed(data), self.threads);
        let stored = Stored { name: name.into(), format, n, k, data, threads };
        match self.quantize {
            Some(quantize) => stored.quantized(quantize.format(matches!(kind, Kind::Table))),
            None => Ok(stored),
        }
    }
}

impl<'a> Stored<'a> {
    pub fn pack(&self, precision: Precision) -> Result<PackedMatrix, ModelError> {
        PackedMatrix::pack_on(self.threads, self.format, self.n, self.k, &self.data, precision)
            .map_err(|source| ModelError::Pack { tensor: self.name.clone(), source })
    }

    /// All values, `[n, k]`.
    pub fn values(&self) -> Result<Vec<f32>, ModelError> {
        let mut values = vec![0.0; self.n * self.k];
        kernels::dequantize(self.format, &self.data, &mut values)
            .map_err(|source| ModelError::Pack { tensor: self.name.clone(), source })?;
        Ok(values)
    }

    /// Rounded to `format` if it holds plain numbers and its rows are whole blocks; else as it is.
    fn quantized(self, format: ElementFormat) -> Result<Stored<'a>, ModelError> {
        if self.format.block_len() != 1 || !self.k.is_multiple_of(format.block_len()) {
            return Ok(self);
        }
        let row_bytes = self.data.len() / self.n;
        let rows_each = self.n.div_ceil(self.threads.max(1));
        let rounded: Vec<Vec<u8>> = std::thread::scope(|scope| {
            let this = &self;
            let start = |rows| scope.spawn(move || this.rounded_rows(rows, format));
            // All are started before the first is waited for.
            let parts: Vec<_> = self.data.chunks(rows_each * row_bytes).map(start).collect();
            let results = parts.into_iter().map(|part| part.join());
            results
                .map(|result| result.unwrap_or_else(|panic| resume_unwind(panic)))
                .collect::<Result<_, _>>()
        })?;
        Ok(Stored { format, data: Cow::Owned(rounded.concat()), ..self })
    }

    /// Whole rows of this matrix in `format`.
    fn rounded_rows(&self, rows: &[u8], format: ElementFormat) -> Result<Vec<u8>, ModelError> {
        let row_bytes = self.data.len() / self.n;
        let mut row = vec![0.0; self.k];
        let mut out = Vec::with_capacity(rows.len() / row_bytes * format.row_bytes(self.k).unwrap_or(0));
        for bytes in rows.chunks_exact(row_bytes) {
            kernels::dequantize(self.format, bytes, &mut row)
                .map_err(|source| ModelError::Pack { tensor: self.name.clone(), source })?;
            kernels::quantize(format, &row, &mut out);
        }
        Ok(out)
    }
}
