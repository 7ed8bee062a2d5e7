//! The tensor directory of a GGUF file: names, shapes, formats and checked places.

use super::cursor::Cursor;
use super::metadata::{Metadata, Value};
use crate::format::ElementFormat;
use crate::limits::{
    GGUF_ALIGNMENT_MAX, GGUF_ALIGNMENT_MIN, GGUF_DIMENSIONS_MAX, GGUF_TENSOR_NAME_BYTES_MAX,
};
use crate::weights::error::{FileFault, Located};
use std::collections::HashMap;

/// Alignment of a file that names none.
const ALIGNMENT_DEFAULT: u32 = 32;

/// One tensor as it lies in the file.
#[derive(Clone, Debug)]
pub struct TensorView<'a> {
    pub name: &'a str,
    /// Row-major, slowest first: `[rows, columns]` (the file has the reverse order).
    pub shape: Vec<usize>,
    pub format: ElementFormat,
    /// Exactly the bytes that `shape` and `format` ask for.
    pub data: &'a [u8],
}

impl TensorView<'_> {
    /// Number of elements.
    pub fn elements(&self) -> usize {
        self.shape.iter().product()
    }
}

pub(super) struct TensorEntry {
    name: Box<str>,
    shape: Vec<usize>,
    format: ElementFormat,
    /// From the start of the file, with `bytes` inside it.
    start: usize,
    bytes: usize,
}

impl TensorEntry {
    pub(super) fn view<'a>(&'a self, file: &'a [u8]) -> TensorView<'a> {
        let data = &file[self.start..self.start + self.bytes];
        TensorView { name: &self.name, shape: self.shape.clone(), format: self.format, data }
    }

    pub(super) fn start(&self) -> usize {
        self.start
    }
}

/// All tensors of a file, in its order.
pub(super) struct Tensors {
    entries: Vec<TensorEntry>,
    /// Place in `entries` by name.
    index: HashMap<Box<str>, usize>,
}

/// What the directory says of one tensor, before the place of the data is known.
struct Described {
    name: Box<str>,
    shape: Vec<usize>,
    format: ElementFormat,
    bytes: u64,
    /// From the start of the data.
    relative: u64,
    /// Where the description begins, for messages.
    offset: u64,
}

impl Tensors {
    /// Reads `count` descriptions and checks every tensor's place against the file's length.
    pub(super) fn read(
        cursor: &mut Cursor<'_>,
        metadata: &Metadata,
        count: u64,
        file_bytes: usize,
    ) -> Result<Tensors, Located> {
        let alignment = alignment(metadata)?;
        let mut described = Vec::new();
        for _ in 0..count {
            described.push(describe(cursor)?);
        }
        let data_start = (cursor.position() as u64).next_multiple_of(alignment.into());
        let mut tensors = Tensors { entries: Vec::with_capacity(described.len()), index: HashMap::new() };
        for tensor in described {
            let offset = tensor.offset;
            let entry = place(tensor, alignment, data_start, file_bytes as u64)
                .map_err(|fault| Located { fault, offset })?;
            if tensors.index.insert(entry.name.clone(), tensors.entries.len()).is_some() {
                return Err(Located {
                    fault: FileFault::DuplicateTensor { tensor: entry.name.into() },
                    offset,
                });
            }
            tensors.entries.push(entry);
        }
        tensors.check_overlap()?;
        Ok(tensors)
    }

    pub(super) fn find(&self, name: &str) -> Option<&TensorEntry> {
        self.index.get(name).and_then(|place| self.entries.get(*place))
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &TensorEntry> {
        self.entries.iter()
    }

    fn check_overlap(&self) -> Result<(), Located> {
        let mut by_start: Vec<&TensorEntry> = self.entries.iter().collect();
        by_start.sort_by_key(|entry| entry.start);
        for pair in by_start.windows(2) {
            let [first, second] = pair else { continue };
            if first.start + first.bytes > second.start {
                let fault =
                    FileFault::Overlap { first: first.name.to_string(), second: second.name.to_string() };
                return Err(Located { fault, offset: second.start as u64 });
            }
        }
        Ok(())
    }
}

/// The file's alignment; only a `u32` is an alignment.
fn alignment(metadata: &Metadata) -> Result<u32, Located> {
    let key = "general.alignment";
    let fault = match metadata.get(key) {
        None => return Ok(ALIGNMENT_DEFAULT),
        Some(Value::U32(given))
            if given.is_power_of_two() && (GGUF_ALIGNMENT_MIN..=GGUF_ALIGNMENT_MAX).contains(given) =>
        {
            return Ok(*given);
        }
        Some(Value::U32(given)) => FileFault::KeyRange {
            key: key.into(),
            given: given.to_string(),
            allowed: format!("powers of two from {GGUF_ALIGNMENT_MIN} to {GGUF_ALIGNMENT_MAX}"),
        },
        Some(other) => FileFault::KeyType {
            key: key.into(),
            declared: other.to_string(),
            wanted: "an unsigned 32-bit integer",
        },
    };
    Err(Located { fault, offset: metadata.offset(key) })
}

fn describe(cursor: &mut Cursor<'_>) -> Result<Described, Located> {
    let offset = cursor.position() as u64;
    let name = cursor.short_string("bytes of a tensor name", GGUF_TENSOR_NAME_BYTES_MAX)?;
    let given = cursor.u32("a dimension count")?;
    if given == 0 || given > GGUF_DIMENSIONS_MAX {
        let fault = FileFault::Dimensions { tensor: name.into(), given, allowed: GGUF_DIMENSIONS_MAX };
        return Err(Located { fault, offset });
    }
    let mut dimensions = Vec::with_capacity(given as usize);
    for _ in 0..given {
        dimensions.push(cursor.u64("a dimension")?);
    }
    let id = cursor.u32("an element type")?;
    let relative = cursor.u64("a tensor offset")?;
    let format =
        ElementFormat::from_gguf_id(id).ok_or_else(|| Located { fault: unknown_format(name, id), offset })?;
    let (shape, bytes) = measure(name, &dimensions, format).map_err(|fault| Located { fault, offset })?;
    Ok(Described { name: name.into(), shape, format, bytes, relative, offset })
}

/// Shape slowest first, and bytes of the data.
fn measure(name: &str, dimensions: &[u64], format: ElementFormat) -> Result<(Vec<usize>, u64), FileFault> {
    let overflow = || FileFault::ShapeOverflow { tensor: name.into(), shape: dimensions.to_vec() };
    if dimensions.contains(&0) {
        return Err(FileFault::EmptyTensor { tensor: name.into(), shape: dimensions.to_vec() });
    }
    let mut shape = Vec::with_capacity(dimensions.len());
    for dimension in dimensions.iter().rev() {
        shape.push(usize::try_from(*dimension).map_err(|_| overflow())?);
    }
    let (row, rows) = shape.split_last().ok_or_else(overflow)?;
    if !row.is_multiple_of(format.block_len()) {
        return Err(FileFault::RowLength {
            tensor: name.into(),
            row: *row as u64,
            block: format.block_len(),
            format: format.name(),
        });
    }
    let elements = shape.iter().try_fold(1usize, |product, size| product.checked_mul(*size));
    let row_bytes = format.row_bytes(*row);
    let bytes = rows.iter().try_fold(row_bytes, |product, size| Some(product?.checked_mul(*size)));
    match (elements, bytes.flatten()) {
        (Some(_), Some(bytes)) => Ok((shape, bytes as u64)),
        _ => Err(overflow()),
    }
}

/// The tensor's place in the file.
fn place(
    tensor: Described,
    alignment: u32,
    data_start: u64,
    file_bytes: u64,
) -> Result<TensorEntry, FileFault> {
    if !tensor.relative.is_multiple_of(alignment.into()) {
        return Err(FileFault::TensorAlignment {
            tensor: tensor.name.into(),
            given: tensor.relative,
            alignment,
        });
    }
    let end = data_start.checked_add(tensor.relative).and_then(|start| start.checked_add(tensor.bytes));
    if end.is_none_or(|end| end > file_bytes) {
        return Err(FileFault::TensorOutOfFile {
            tensor: tensor.name.into(),
            start: tensor.relative,
            bytes: tensor.bytes,
            available: file_bytes.saturating_sub(data_start),
        });
    }
    Ok(TensorEntry {
        name: tensor.name,
        shape: tensor.shape,
        format: tensor.format,
        // Both are below the file's length, which is a `usize`.
        start: (data_start + tensor.relative) as usize,
        bytes: tensor.bytes as usize,
    })
}

fn unknown_format(tensor: &str, id: u32) -> FileFault {
    let name = match id {
        4 | 5 => "Q4_2 or Q4_3 (withdrawn)",
        9 => "Q8_1",
        15 => "Q8_K",
        16 => "IQ2_XXS",
        17 => "IQ2_XS",
        18 => "IQ3_XXS",
        19 => "IQ1_S",
        20 => "IQ4_NL",
        21 => "IQ3_S",
        22 => "IQ2_S",
        23 => "IQ4_XS",
        24 => "I8",
        25 => "I16",
        26 => "I32",
        27 => "I64",
        28 => "F64",
        29 => "IQ1_M",
        34 => "TQ1_0",
        35 => "TQ2_0",
        39 => "MXFP4",
        _ => "unknown",
    };
    let known = ElementFormat::ALL.map(ElementFormat::name).join(", ");
    FileFault::ElementType { tensor: tensor.into(), id, name, known }
}
