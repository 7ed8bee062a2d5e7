//! Writes GGUF files of version 3: exported vectors, test models, edited copies of a file.

use super::ModelFile;
use super::metadata::ValueType;
use crate::format::ElementFormat;
use crate::weights::error::WeightsError;
use std::borrow::Cow;
use std::io::Write;

/// Alignment of tensor data; the format's default, so no key says it.
const ALIGNMENT: usize = 32;

/// Collects metadata and tensors, then writes them in the order they came. Setting a key or a tensor again replaces it in its
/// place.
#[derive(Default)]
pub struct GgufWriter<'a> {
    /// Key; type id and value as they stand in the file.
    entries: Vec<(String, Vec<u8>)>,
    tensors: Vec<WrittenTensor<'a>>,
}

struct WrittenTensor<'a> {
    name: String,
    /// Slowest first.
    shape: Vec<usize>,
    format: ElementFormat,
    data: Cow<'a, [u8]>,
}

impl<'a> GgufWriter<'a> {
    pub fn new() -> GgufWriter<'a> {
        GgufWriter::default()
    }

    /// All metadata and tensors of a file, to be changed and written elsewhere.
    pub fn copy_of(file: &'a ModelFile) -> GgufWriter<'a> {
        let mut writer = GgufWriter::new();
        // The copy has its own alignment.
        for (key, raw) in file.metadata().raw_entries().filter(|(key, _)| *key != "general.alignment") {
            writer.set(key, raw.to_vec());
        }
        writer.tensors = file
            .tensors()
            .map(|view| WrittenTensor {
                name: view.name.to_owned(),
                shape: view.shape,
                format: view.format,
                data: Cow::Borrowed(view.data),
            })
            .collect();
        writer
    }

    pub fn string(&mut self, key: &str, value: &str) -> &mut Self {
        let mut raw = type_id(ValueType::String);
        push_string(&mut raw, value);
        self.set(key, raw)
    }

    pub fn u32(&mut self, key: &str, value: u32) -> &mut Self {
        self.scalar(key, ValueType::U32, &value.to_le_bytes())
    }

    pub fn i32(&mut self, key: &str, value: i32) -> &mut Self {
        self.scalar(key, ValueType::I32, &value.to_le_bytes())
    }

    pub fn f32(&mut self, key: &str, value: f32) -> &mut Self {
        self.scalar(key, ValueType::F32, &value.to_le_bytes())
    }

    pub fn bool(&mut self, key: &str, value: bool) -> &mut Self {
        self.scalar(key, ValueType::Bool, &[value.into()])
    }

    pub fn string_array<S: AsRef<str>>(&mut self, key: &str, values: &[S]) -> &mut Self {
        let mut raw = array_head(ValueType::String, values.len());
        values.iter().for_each(|value| push_string(&mut raw, value.as_ref()));
        self.set(key, raw)
    }

    pub fn u32_array(&mut self, key: &str, values: &[u32]) -> &mut Self {
        self.array(key, ValueType::U32, values.len(), values.iter().flat_map(|value| value.to_le_bytes()))
    }

    pub fn i32_array(&mut self, key: &str, values: &[i32]) -> &mut Self {
        self.array(key, ValueType::I32, values.len(), values.iter().flat_map(|value| value.to_le_bytes()))
    }

    pub fn f32_array(&mut self, key: &str, values: &[f32]) -> &mut Self {
        self.array(key, ValueType::F32, values.len(), values.iter().flat_map(|value| value.to_le_bytes()))
    }

    pub fn bool_array(&mut self, key: &str, values: &[bool]) -> &mut Self {
        self.array(key, ValueType::Bool, values.len(), values.iter().map(|value| u8::from(*value)))
    }

    /// Leaves a key out.
    pub fn remove_key(&mut self, key: &str) -> &mut Self {
        self.entries.retain(|(name, _)| name != key);
        self
    }

    /// Adds or replaces a tensor; `shape` slowest first, `data` in the format's own layout. Sizes are checked when writing.
    pub fn tensor(
        &mut self,
        name: &str,
        shape: &[usize],
        format: ElementFormat,
        data: impl Into<Cow<'a, [u8]>>,
    ) -> &mut Self {
        let tensor =
            WrittenTensor { name: name.to_owned(), shape: shape.to_vec(), format, data: data.into() };
        match self.tensors.iter_mut().find(|other| other.name == name) {
            Some(place) => *place = tensor,
            None => self.tensors.push(tensor),
        }
        self
    }

    /// The same from f32 values.
    pub fn tensor_f32(&mut self, name: &str, shape: &[usize], values: &[f32]) -> &mut Self {
        let data: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        self.tensor(name, shape, ElementFormat::F32, data)
    }

    /// Leaves a tensor out.
    pub fn remove_tensor(&mut self, name: &str) -> &mut Self {
        self.tensors.retain(|tensor| tensor.name != name);
        self
    }

    /// Writes the file. Fails where a tensor's data does not fit its shape, or writing fails.
    pub fn write(&self, out: &mut impl Write) -> Result<(), WeightsError> {
        self.tensors.iter().try_for_each(check_tensor)?;
        let mut head = self.head();
        pad(&mut head);
        let io = |source| WeightsError::Io { action: "write", path: "a GGUF file".into(), source };
        out.write_all(&head).map_err(io)?;
        for tensor in &self.tensors {
            out.write_all(&tensor.data).map_err(io)?;
            let padding = tensor.data.len().next_multiple_of(ALIGNMENT) - tensor.data.len();
            out.write_all(&[0; ALIGNMENT][..padding]).map_err(io)?;
        }
        Ok(())
    }

    /// The file's bytes.
    pub fn to_bytes(&self) -> Result<Vec<u8>, WeightsError> {
        let mut bytes = Vec::new();
        self.write(&mut bytes)?;
        Ok(bytes)
    }

    /// Everything before the padding in front of the data.
    fn head(&self) -> Vec<u8> {
        let mut head = b"GGUF".to_vec();
        head.extend(3u32.to_le_bytes());
        head.extend((self.tensors.len() as u64).to_le_bytes());
        head.extend((self.entries.len() as u64).to_le_bytes());
        for (key, raw) in &self.entries {
            push_string(&mut head, key);
            head.extend(raw);
        }
        let mut place = 0u64;
        for tensor in &self.tensors {
            push_string(&mut head, &tensor.name);
            head.extend((tensor.shape.len() as u32).to_le_bytes());
            tensor.shape.iter().rev().for_each(|size| head.extend((*size as u64).to_le_bytes()));
            head.extend(tensor.format.gguf_id().to_le_bytes());
            head.extend(place.to_le_bytes());
            place += tensor.data.len().next_multiple_of(ALIGNMENT) as u64;
        }
        head
    }

    fn scalar(&mut self, key: &str, value_type: ValueType, value: &[u8]) -> &mut Self {
        let mut raw = type_id(value_type);
        raw.extend(value);
        self.set(key, raw)
    }

    fn array(
        &mut self,
        key: &str,
        items: ValueType,
        len: usize,
        bytes: impl Iterator<Item = u8>,
    ) -> &mut Self {
        let mut raw = array_head(items, len);
        raw.extend(bytes);
        self.set(key, raw)
    }

    fn set(&mut self, key: &str, raw: Vec<u8>) -> &mut Self {
        match self.entries.iter_mut().find(|(name, _)| name == key) {
            Some((_, old)) => *old = raw,
            None => self.entries.push((key.to_owned(), raw)),
        }
        self
    }
}

fn check_tensor(tensor: &WrittenTensor<'_>) -> Result<(), WeightsError> {
    let bytes = tensor.shape.split_last().and_then(|(row, rows)| {
        rows.iter().try_fold(tensor.format.row_bytes(*row)?, |product, size| product.checked_mul(*size))
    });
    if bytes == Some(tensor.data.len()) {
        return Ok(());
    }
    let problem = format!(
        "{} bytes do not make a tensor of shape {:?} in {}",
        tensor.data.len(),
        tensor.shape,
        tensor.format
    );
    Err(WeightsError::Write { name: tensor.name.clone(), problem })
}

fn type_id(value_type: ValueType) -> Vec<u8> {
    (value_type as u32).to_le_bytes().to_vec()
}

fn array_head(items: ValueType, len: usize) -> Vec<u8> {
    let mut raw = type_id(ValueType::Array);
    raw.extend((items as u32).to_le_bytes());
    raw.extend((len as u64).to_le_bytes());
    raw
}

fn push_string(bytes: &mut Vec<u8>, text: &str) {
    bytes.extend((text.len() as u64).to_le_bytes());
    bytes.extend(text.as_bytes());
}

fn pad(bytes: &mut Vec<u8>) {
    bytes.resize(bytes.len().next_multiple_of(ALIGNMENT), 0);
}
