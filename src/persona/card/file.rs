//! Files that hold a card, by their first bytes: JSON, PNG, CHARX, Modelfile. What comes out is what a client would send.

use super::{Card, Version};
use super::{CardError, modelfile, png, reading, take_extension, version_of};
use crate::limits;
use serde_json::{Map, Value, json};
use std::io::Cursor;
use zip::ZipArchive;

/// A file as the body of `POST /v1/personas`.
#[derive(Clone, Debug, PartialEq)]
pub struct Imported {
    /// What the file is, for people.
    pub kind: &'static str,
    /// A name that a persona may have, made from the file's.
    pub name: Option<String>,
    /// `card`, and what our own extension or the Modelfile brings: `system`, `steering`, `soft_prompt`, `sampling`,
    /// `description`. Values are as they stood; who stores them checks them.
    pub fields: Map<String, Value>,
    /// Stored vectors of its plan by name, safetensors in base64, where the extension brings them.
    pub vectors: Map<String, Value>,
    /// What a person should know: what was left out, what is not used.
    pub notes: Vec<String>,
}

/// Reads any file of this room. Nothing is fetched and nothing written, whatever it names.
pub fn import(bytes: &[u8]) -> Result<Imported, CardError> {
    CardError::check_bytes(bytes.len(), limits::CARD_FILE_BYTES_MAX, || "the file".to_owned())?;
    let unknown = |what: &str| Err(CardError::Unknown(what.to_owned()));
    match bytes {
        [] => unknown("the file is empty"),
        [0x89, b'P', ..] => imported("PNG picture", &png::card_in(bytes)?),
        [b'P', b'K', 3 | 5, 4 | 6, ..] => imported("CHARX archive", &card_in_archive(bytes)?),
        [0xff, 0xd8, ..] => unknown("it is a JPEG picture"),
        [b'R', b'I', b'F', b'F', ..] => unknown("it is a RIFF file, such as WEBP pictures are"),
        _ if is_json(bytes) => imported("JSON", bytes),
        _ => modelfile::import(bytes),
    }
}

fn is_json(bytes: &[u8]) -> bool {
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    matches!(bytes.trim_ascii_start().first(), Some(b'{' | b'['))
}

fn imported(kind: &'static str, json: &[u8]) -> Result<Imported, CardError> {
    let mut map = reading::object(json)?;
    let version = version_of(&map)?;
    let extension = take_extension(&mut map, version);
    let (card, mut notes) = Card::from_map(map.clone())?;
    let mut fields = Map::new();
    let (mut name, mut vectors) = (None, Map::new());
    let ours = extension.as_ref().and_then(Value::as_object);
    for (field, value) in ours.into_iter().flatten().filter(|(_, value)| !value.is_null()) {
        match field.as_str() {
            "name" => name = value.as_str().map(str::to_owned),
            "vectors" => vectors = value.as_object().cloned().unwrap_or_default(),
            "system" | "steering" | "soft_prompt" | "sampling" | "description" => {
                fields.insert(field.clone(), value.clone());
            }
            _ => {}
        }
    }
    for brought in ["steering", "soft_prompt"] {
        if let Some(value) = fields.get(brought) {
            notes.push(format!(
                "the card brings its own `{brought}`: {}",
                reading::clipped(&value.to_string())
            ));
        }
    }
    if !fields.contains_key("description") && !card.notes_of_maker.is_empty() {
        fields.insert("description".to_owned(), json!(beginning(&card.notes_of_maker)));
    }
    fields.insert("card".to_owned(), Value::Object(map));
    let name = name.filter(|name| crate::names::is_valid_name(name)).or_else(|| slug(&card.character));
    let kind = match (kind, card.version) {
        ("JSON", Version::V1) => "card V1",
        ("JSON", Version::V2) => "card V2",
        ("JSON", Version::V3) => "card V3",
        _ => kind,
    };
    Ok(Imported { kind, name, fields, vectors, notes })
}

/// As much of a text as a description may have.
fn beginning(text: &str) -> &str {
    let most = limits::PERSONA_DESCRIPTION_BYTES_MAX.min(text.len());
    let end = (0..=most).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
    text[..end].trim()
}

/// A character's name as a persona may have it: lower case, a hyphen for whatever else stands in it.
fn slug(name: &str) -> Option<String> {
    let mut out = String::new();
    for c in name.chars().flat_map(char::to_lowercase) {
        match c {
            'a'..='z' | '0'..='9' => out.push(c),
            _ if out.is_empty() || out.ends_with('-') => {}
            _ => out.push('-'),
        }
    }
    let out: String = out.chars().take(64).collect();
    let out = out.trim_end_matches('-');
    crate::names::is_valid_name(out).then(|| out.to_owned())
}

/// `card.json` of a CHARX archive; nothing else of it is unpacked.
fn card_in_archive(bytes: &[u8]) -> Result<Vec<u8>, CardError> {
    let refuse = |rule: String| CardError::Charx(rule);
    // Each file has such a mark in the archive's directory, so the reader below can find no more of them.
    let marks = bytes.windows(4).filter(|mark| *mark == b"PK\x01\x02").count();
    CardError::check_count(marks, limits::CARD_ZIP_ENTRIES_MAX, || "files in the archive".to_owned())?;
    let mut archive =
        ZipArchive::new(Cursor::new(bytes)).map_err(|error| refuse(format!("cannot be read: {error}")))?;
    for name in archive.file_names() {
        let name = name.map_err(|error| refuse(format!("a name in it cannot be read: {error}")))?;
        let leads_out = name.split(['/', '\\']).any(|part| part == "..");
        if leads_out || name.starts_with(['/', '\\']) || name.contains(':') {
            return Err(refuse(format!("the name `{}` leads out of it", reading::clipped(&name))));
        }
    }
    let file = match archive.by_name("card.json") {
        Ok(file) => file,
        Err(zip::result::ZipError::FileNotFound) => {
            return Err(refuse("there is no `card.json` in it".to_owned()));
        }
        Err(error) => return Err(refuse(format!("`card.json` cannot be read: {error}"))),
    };
    let broken = |error| refuse(format!("`card.json` cannot be unpacked: {error}"));
    reading::unpacked(file, "`card.json`, unpacked", broken)
}
