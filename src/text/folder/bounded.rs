//! JSON from a stranger as values of bounded number: parsed JSON takes up to thirty times its text.

use crate::limits::{TOKENIZER_COMPONENT_VALUES_MAX, TOKENIZER_MERGES_MAX, VOCABULARY_MAX};
use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, de};
use serde_json::{Map, Value};
use std::fmt;

/// A component of a tokenizer: some tens of values.
#[derive(Debug, Default)]
pub(super) struct Small(pub Value);

impl<'de> Deserialize<'de> for Small {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Small, D::Error> {
        let mut left = TOKENIZER_COMPONENT_VALUES_MAX;
        Counted(&mut left).deserialize(deserializer).map(Small)
    }
}

/// Values that may still come.
struct Counted<'a>(&'a mut usize);

impl Counted<'_> {
    fn again(&mut self) -> Counted<'_> {
        Counted(self.0)
    }
}

impl<'de> DeserializeSeed<'de> for Counted<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        *self.0 = self.0.checked_sub(1).ok_or_else(|| {
            D::Error::custom(format!("a component of more than {TOKENIZER_COMPONENT_VALUES_MAX} values"))
        })?;
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Counted<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut items: A) -> Result<Value, A::Error> {
        let mut found = Vec::new();
        while let Some(item) = items.next_element_seed(self.again())? {
            found.push(item);
        }
        Ok(Value::Array(found))
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut entries: A) -> Result<Value, A::Error> {
        let mut found = Map::new();
        while let Some(key) = entries.next_key::<String>()? {
            let value = entries.next_value_seed(self.again())?;
            found.insert(key, value);
        }
        Ok(Value::Object(found))
    }
}

/// `{"text": id}`, in the file's order. A list (other models than byte pairs have one) is skipped: the model's kind
/// tells.
#[derive(Debug, Default)]
pub(super) struct Vocab(pub Vec<(String, u32)>);

impl<'de> Deserialize<'de> for Vocab {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Vocab, D::Error> {
        deserializer.deserialize_any(Entries)
    }
}

struct Entries;

impl<'de> Visitor<'de> for Entries {
    type Value = Vocab;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("a map from texts to ids")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Vocab, A::Error> {
        let mut found = Vec::new();
        while let Some(entry) = entries.next_entry()? {
            room(found.len(), VOCABULARY_MAX as usize, "tokens")?;
            found.push(entry);
        }
        Ok(Vocab(found))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Vocab, A::Error> {
        while items.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Vocab::default())
    }
}

/// `["left right", ..]` or `[["left", "right"], ..]`, best first.
#[derive(Debug, Default)]
pub(super) struct Merges(pub Vec<String>);

impl<'de> Deserialize<'de> for Merges {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Merges, D::Error> {
        deserializer.deserialize_seq(Lines)
    }
}

struct Lines;

impl<'de> Visitor<'de> for Lines {
    type Value = Merges;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("a list of pairs of texts")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Merges, A::Error> {
        let mut found = Vec::new();
        while let Some(Line(line)) = items.next_element()? {
            room(found.len(), TOKENIZER_MERGES_MAX, "merges")?;
            found.push(line);
        }
        Ok(Merges(found))
    }
}

fn room<E: Error>(count: usize, max: usize, what: &str) -> Result<(), E> {
    if count < max { Ok(()) } else { Err(E::custom(format!("more than {max} {what}"))) }
}

/// `left right`; no text of a pair holds a space (spaces are spelled otherwise before merging).
struct Line(String);

impl<'de> Deserialize<'de> for Line {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Line, D::Error> {
        deserializer.deserialize_any(Pair)
    }
}

struct Pair;

impl<'de> Visitor<'de> for Pair {
    type Value = Line;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("`left right` or a list of two texts without spaces")
    }

    fn visit_str<E: Error>(self, line: &str) -> Result<Line, E> {
        Ok(Line(line.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Line, A::Error> {
        let unfit = || A::Error::invalid_value(de::Unexpected::Seq, &Pair);
        let left: String = items.next_element()?.ok_or_else(unfit)?;
        let right: String = items.next_element()?.ok_or_else(unfit)?;
        match items.next_element::<IgnoredAny>()? {
            None if !left.contains(' ') && !right.contains(' ') => Ok(Line([left, right].join(" "))),
            _ => Err(unfit()),
        }
    }
}
