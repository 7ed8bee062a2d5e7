//! The key-value metadata of a GGUF file, read by declared type; long arrays stay in the map until they are asked for.

use super::cursor::Cursor;
use crate::limits::{
    GGUF_ARRAY_DEPTH_MAX, GGUF_ARRAY_ITEMS_MAX, GGUF_KEY_BYTES_MAX, GGUF_METADATA_ENTRIES_MAX,
};
use crate::weights::content::Content;
use crate::weights::error::{FileFault, Located, WeightsError};
use std::collections::HashMap;
use std::fmt;
use std::ops::RangeInclusive;
use std::path::Path;
use std::sync::Arc;

/// Type of a metadata value; the discriminants are the format's ids.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ValueType {
    U8 = 0,
    I8 = 1,
    U16 = 2,
    I16 = 3,
    U32 = 4,
    I32 = 5,
    F32 = 6,
    Bool = 7,
    String = 8,
    Array = 9,
    U64 = 10,
    I64 = 11,
    F64 = 12,
}

impl ValueType {
    const ALL: [ValueType; 13] = [
        ValueType::U8,
        ValueType::I8,
        ValueType::U16,
        ValueType::I16,
        ValueType::U32,
        ValueType::I32,
        ValueType::F32,
        ValueType::Bool,
        ValueType::String,
        ValueType::Array,
        ValueType::U64,
        ValueType::I64,
        ValueType::F64,
    ];

    fn read(cursor: &mut Cursor<'_>) -> Result<ValueType, Located> {
        let offset = cursor.position() as u64;
        let id = cursor.u32("a value type")?;
        let known = usize::try_from(id).ok().and_then(|index| ValueType::ALL.get(index).copied());
        known.ok_or(Located { fault: FileFault::ValueType { id }, offset })
    }

    /// Fewest bytes of one value.
    const fn min_bytes(self) -> u64 {
        match self {
            ValueType::U8 | ValueType::I8 | ValueType::Bool => 1,
            ValueType::U16 | ValueType::I16 => 2,
            ValueType::U32 | ValueType::I32 | ValueType::F32 => 4,
            ValueType::U64 | ValueType::I64 | ValueType::F64 | ValueType::String => 8,
            ValueType::Array => 12,
        }
    }
}

/// One metadata value. Numbers and strings are held; an array is a place in the file.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    U8(u8),
    I8(i8),
    U16(u16),
    I16(i16),
    U32(u32),
    I32(i32),
    F32(f32),
    Bool(bool),
    String(Box<str>),
    Array(ArrayPlace),
    U64(u64),
    I64(i64),
    F64(f64),
}

/// Where an array's items are; checked when the file was opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ArrayPlace {
    pub items: ValueType,
    /// Number of items.
    pub len: usize,
    /// First item, in bytes from the start of the file.
    start: usize,
}

impl Value {
    fn integer(&self) -> Option<i128> {
        Some(match *self {
            Value::U8(value) => value.into(),
            Value::I8(value) => value.into(),
            Value::U16(value) => value.into(),
            Value::I16(value) => value.into(),
            Value::U32(value) => value.into(),
            Value::I32(value) => value.into(),
            Value::U64(value) => value.into(),
            Value::I64(value) => value.into(),
            _ => return None,
        })
    }

    fn float(&self) -> Option<f32> {
        match *self {
            Value::F32(value) => Some(value),
            Value::F64(value) => Some(value as f32),
            _ => None,
        }
    }

    fn flag(&self) -> Option<bool> {
        match *self {
            Value::Bool(value) => Some(value),
            _ => None,
        }
    }
}

/// What a value is, for messages: type and, where it is short, the value.
impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Value::String(text) if text.len() <= 40 => write!(f, "the string {text:?}"),
            Value::String(text) => write!(f, "a string of {} bytes", text.len()),
            Value::Array(place) => write!(f, "an array of {} {:?}", place.len, place.items),
            Value::Bool(value) => write!(f, "the bool {value}"),
            other => write!(f, "the number {other:?}"),
        }
    }
}

struct Entry {
    key: Box<str>,
    value: Value,
    /// The value's type id and bytes as they stand in the file: `start..end`.
    start: usize,
    end: usize,
}

/// All metadata of one file, in the file's order.
pub struct Metadata {
    path: Arc<Path>,
    content: Arc<Content>,
    entries: Vec<Entry>,
    /// Place in `entries` by key.
    index: HashMap<Box<str>, usize>,
}

impl Metadata {
    /// Reads `count` entries and leaves the cursor behind them.
    pub(super) fn read(
        path: &Arc<Path>,
        content: &Arc<Content>,
        cursor: &mut Cursor<'_>,
        count: u64,
    ) -> Result<Metadata, Located> {
        debug_assert!(count <= GGUF_METADATA_ENTRIES_MAX);
        let mut metadata = Metadata {
            path: path.clone(),
            content: content.clone(),
            entries: Vec::new(),
            index: HashMap::new(),
        };
        for _ in 0..count {
            let offset = cursor.position() as u64;
            let key: Box<str> = cursor.short_string("a metadata key", GGUF_KEY_BYTES_MAX)?.into();
            let start = cursor.position();
            let value_type = ValueType::read(cursor)?;
            let value = read_value(cursor, value_type, 0)?;
            if metadata.index.insert(key.clone(), metadata.entries.len()).is_some() {
                let fault = FileFault::DuplicateKey { key: key.into() };
                return Err(Located { fault, offset });
            }
            metadata.entries.push(Entry { key, value, start, end: cursor.position() });
        }
        Ok(metadata)
    }

    pub fn get(&self, key: &str) -> Option<&Value> {
        self.entry(key).map(|entry| &entry.value)
    }

    /// Keys and values in the file's order.
    pub fn entries(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.entries.iter().map(|entry| (&*entry.key, &entry.value))
    }

    /// Keys with their type id and value as they stand in the file.
    pub(super) fn raw_entries(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.entries.iter().map(|entry| (&*entry.key, &self.content.bytes()[entry.start..entry.end]))
    }

    pub fn string(&self, key: &str) -> Result<Option<&str>, WeightsError> {
        self.typed(key, "a string", |value| match value {
            Value::String(text) => Some(&**text),
            _ => None,
        })
    }

    /// Any integer type whose value fits.
    pub fn u32(&self, key: &str) -> Result<Option<u32>, WeightsError> {
        self.typed(key, "an integer from 0 to 4294967295", |value| value.integer()?.try_into().ok())
    }

    /// The same within a range; outside is an error that names it.
    pub fn u32_in(&self, key: &str, allowed: RangeInclusive<u32>) -> Result<Option<u32>, WeightsError> {
        let value = self.u32(key)?;
        match value {
            Some(given) if !allowed.contains(&given) => Err(self.fault(
                key,
                FileFault::KeyRange {
                    key: key.into(),
                    given: given.to_string(),
                    allowed: format!("{} to {}", allowed.start(), allowed.end()),
                },
            )),
            value => Ok(value),
        }
    }

    pub fn f32(&self, key: &str) -> Result<Option<f32>, WeightsError> {
        self.typed(key, "a float", Value::float)
    }

    pub fn bool(&self, key: &str) -> Result<Option<bool>, WeightsError> {
        self.typed(key, "a bool", Value::flag)
    }

    pub fn string_array(&self, key: &str) -> Result<Option<Vec<&str>>, WeightsError> {
        let Some(place) = self.array(key, "an array of strings")? else { return Ok(None) };
        if place.items != ValueType::String {
            return Err(self.wrong_type(key, "an array of strings"));
        }
        let mut cursor = self.cursor(&place)?;
        let mut texts = Vec::with_capacity(place.len);
        for _ in 0..place.len {
            texts.push(cursor.string("an array item").map_err(|fault| fault.in_file(&self.path))?);
        }
        Ok(Some(texts))
    }

    /// Any integer type whose values fit.
    pub fn u32_array(&self, key: &str) -> Result<Option<Vec<u32>>, WeightsError> {
        self.number_array(key, "an array of integers from 0 to 4294967295", |value| {
            value.integer()?.try_into().ok()
        })
    }

    /// Any integer type whose values fit.
    pub fn i32_array(&self, key: &str) -> Result<Option<Vec<i32>>, WeightsError> {
        self.number_array(key, "an array of 32-bit integers", |value| value.integer()?.try_into().ok())
    }

    pub fn f32_array(&self, key: &str) -> Result<Option<Vec<f32>>, WeightsError> {
        self.number_array(key, "an array of floats", Value::float)
    }

    pub fn bool_array(&self, key: &str) -> Result<Option<Vec<bool>>, WeightsError> {
        self.number_array(key, "an array of bools", Value::flag)
    }

    fn entry(&self, key: &str) -> Option<&Entry> {
        self.index.get(key).and_then(|place| self.entries.get(*place))
    }

    fn typed<'a, T>(
        &'a self,
        key: &str,
        wanted: &'static str,
        convert: impl Fn(&'a Value) -> Option<T>,
    ) -> Result<Option<T>, WeightsError> {
        let Some(value) = self.get(key) else { return Ok(None) };
        convert(value).map(Some).ok_or_else(|| self.wrong_type(key, wanted))
    }

    fn array(&self, key: &str, wanted: &'static str) -> Result<Option<ArrayPlace>, WeightsError> {
        self.typed(key, wanted, |value| match value {
            Value::Array(place) => Some(*place),
            _ => None,
        })
    }

    fn number_array<T>(
        &self,
        key: &str,
        wanted: &'static str,
        convert: impl Fn(&Value) -> Option<T>,
    ) -> Result<Option<Vec<T>>, WeightsError> {
        let Some(place) = self.array(key, wanted)? else { return Ok(None) };
        if matches!(place.items, ValueType::String | ValueType::Array) {
            return Err(self.wrong_type(key, wanted));
        }
        let mut cursor = self.cursor(&place)?;
        let mut numbers = Vec::with_capacity(place.len);
        for _ in 0..place.len {
            let value = read_value(&mut cursor, place.items, 0).map_err(|fault| fault.in_file(&self.path))?;
            numbers.push(convert(&value).ok_or_else(|| self.wrong_type(key, wanted))?);
        }
        Ok(Some(numbers))
    }

    /// A cursor at an array's first item.
    fn cursor(&self, place: &ArrayPlace) -> Result<Cursor<'_>, WeightsError> {
        let mut cursor = Cursor::new(self.content.bytes());
        cursor.take("an array", place.start as u64).map_err(|fault| fault.in_file(&self.path))?;
        Ok(cursor)
    }

    fn wrong_type(&self, key: &str, wanted: &'static str) -> WeightsError {
        let declared = self.get(key).map(Value::to_string).unwrap_or_default();
        self.fault(key, FileFault::KeyType { key: key.into(), declared, wanted })
    }

    /// A fault at the place of a key's value.
    fn fault(&self, key: &str, fault: FileFault) -> WeightsError {
        Located { fault, offset: self.offset(key) }.in_file(&self.path)
    }

    /// Where a key's value begins, in bytes from the start of the file.
    pub(super) fn offset(&self, key: &str) -> u64 {
        self.entry(key).map_or(0, |entry| entry.start as u64)
    }
}

/// Reads a value of a type; `depth` counts the arrays around it.
fn read_value(cursor: &mut Cursor<'_>, value_type: ValueType, depth: u32) -> Result<Value, Located> {
    let what = "a metadata value";
    Ok(match value_type {
        ValueType::U8 => Value::U8(u8::from_le_bytes(cursor.array(what)?)),
        ValueType::I8 => Value::I8(i8::from_le_bytes(cursor.array(what)?)),
        ValueType::U16 => Value::U16(u16::from_le_bytes(cursor.array(what)?)),
        ValueType::I16 => Value::I16(i16::from_le_bytes(cursor.array(what)?)),
        ValueType::U32 => Value::U32(cursor.u32(what)?),
        ValueType::I32 => Value::I32(i32::from_le_bytes(cursor.array(what)?)),
        ValueType::F32 => Value::F32(f32::from_le_bytes(cursor.array(what)?)),
        ValueType::Bool => Value::Bool(read_bool(cursor)?),
        ValueType::String => Value::String(cursor.string("a metadata string")?.into()),
        ValueType::Array => Value::Array(read_array(cursor, depth + 1)?),
        ValueType::U64 => Value::U64(cursor.u64(what)?),
        ValueType::I64 => Value::I64(i64::from_le_bytes(cursor.array(what)?)),
        ValueType::F64 => Value::F64(f64::from_le_bytes(cursor.array(what)?)),
    })
}

fn read_bool(cursor: &mut Cursor<'_>) -> Result<bool, Located> {
    let offset = cursor.position() as u64;
    match cursor.array("a bool")? {
        [0] => Ok(false),
        [1] => Ok(true),
        [found] => Err(Located { fault: FileFault::Bool { found }, offset }),
    }
}

/// Checks an array and steps over it without keeping its items.
fn read_array(cursor: &mut Cursor<'_>, depth: u32) -> Result<ArrayPlace, Located> {
    if depth > GGUF_ARRAY_DEPTH_MAX {
        return Err(cursor.fault(FileFault::Depth { allowed: GGUF_ARRAY_DEPTH_MAX }));
    }
    let items = ValueType::read(cursor)?;
    let len = cursor.count("array items", GGUF_ARRAY_ITEMS_MAX, items.min_bytes())?;
    let start = cursor.position();
    match items {
        ValueType::String => {
            for _ in 0..len {
                cursor.string("an array item")?;
            }
        }
        ValueType::Array => {
            for _ in 0..len {
                read_array(cursor, depth + 1)?;
            }
        }
        ValueType::Bool => {
            for _ in 0..len {
                read_bool(cursor)?;
            }
        }
        // `count` has seen that the product fits into what is left.
        fixed => {
            cursor.take("array items", len * fixed.min_bytes())?;
        }
    }
    Ok(ArrayPlace { items, len: len as usize, start })
}
