//! The components around a tokenizer's model, read as one of the pipelines that the supported families use.

use super::description::Description;
use super::{unsupported, wrong};
use crate::text::pre::Kind;
use crate::text::{SpacePrefix, TextError};
use serde_json::Value;

/// What the components come to.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Pipeline {
    pub words: Way,
    /// Text and id of the token that a prompt begins with.
    pub begins: Option<(String, u32)>,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// Words of bytes by the rules of this name.
    ByteLevel { pre: &'static str, nfc: bool },
    /// Pieces with visible spaces.
    Pieces { prefix: SpacePrefix },
}

pub(super) fn read(description: &Description) -> Result<Pipeline, TextError> {
    let normal = normalizers(&description.normalizer.0)?;
    let words = match pre_tokenizers(&description.pre_tokenizer.0)? {
        Cut::ByteLevel { pre } if normal.nothing_but_nfc() => Way::ByteLevel { pre, nfc: normal.nfc },
        Cut::ByteLevel { .. } => {
            return Err(unsupported("normalizer", "Prepend, Replace", "`NFC` or none before `ByteLevel`"));
        }
        Cut::Metaspace { .. } if normal != Normal::default() => {
            return Err(unsupported("normalizer", "some", "none before `Metaspace`"));
        }
        Cut::Metaspace { prefix } => Way::Pieces { prefix },
        Cut::AtSpaces | Cut::Nowhere if normal.nfc || !normal.replaces => {
            let supported = "`Replace` of spaces by `\u{2581}`, with or without `Prepend`";
            return Err(unsupported("normalizer", "none", supported));
        }
        Cut::AtSpaces | Cut::Nowhere if normal.prepends => Way::Pieces { prefix: SpacePrefix::Always },
        Cut::AtSpaces | Cut::Nowhere => Way::Pieces { prefix: SpacePrefix::Never },
    };
    decoders(&description.decoder.0, &words)?;
    Ok(Pipeline { words, begins: post_processors(&description.post_processor.0)? })
}

/// One component: its place, its type, and its fields.
struct Component<'a> {
    path: String,
    kind: &'a str,
    value: &'a Value,
}

/// A component and those inside a `Sequence`; nothing for null. `list` is the field that a `Sequence` keeps them in.
fn components<'a>(place: &str, list: &str, value: &'a Value) -> Result<Vec<Component<'a>>, TextError> {
    if value.is_null() {
        return Ok(Vec::new());
    }
    let whole = component(place.to_owned(), value)?;
    if whole.kind != "Sequence" {
        return Ok(vec![whole]);
    }
    let inner = value.get(list).and_then(Value::as_array);
    let inner = inner.ok_or_else(|| wrong("tokenizer.json", format!("`{place}.{list}` is no list")))?;
    inner.iter().enumerate().map(|(at, item)| component(format!("{place}.{list}[{at}]"), item)).collect()
}

fn component(path: String, value: &Value) -> Result<Component<'_>, TextError> {
    match value.get("type").and_then(Value::as_str) {
        Some(kind) => Ok(Component { path, kind, value }),
        None => Err(wrong("tokenizer.json", format!("`{path}` has no `type`"))),
    }
}

impl Component<'_> {
    fn bool(&self, name: &str) -> Option<bool> {
        self.value.get(name).and_then(Value::as_bool)
    }

    fn text(&self, name: &str) -> Option<&str> {
        self.value.get(name).and_then(Value::as_str)
    }

    fn pattern(&self, kind: &str) -> Option<&str> {
        self.value.get("pattern").and_then(|pattern| pattern.get(kind)).and_then(Value::as_str)
    }

    /// Refuses the component as a whole.
    fn refuse(&self, supported: &str) -> TextError {
        unsupported(&self.path, &self.value.to_string(), supported)
    }
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Normal {
    nfc: bool,
    prepends: bool,
    replaces: bool,
}

impl Normal {
    fn nothing_but_nfc(&self) -> bool {
        !self.prepends && !self.replaces
    }
}

fn normalizers(value: &Value) -> Result<Normal, TextError> {
    let mut found = Normal::default();
    for part in components("normalizer", "normalizers", value)? {
        let seen = match part.kind {
            "NFC" => &mut found.nfc,
            "Prepend" if part.text("prepend") == Some("\u{2581}") => &mut found.prepends,
            "Replace" if replaces(&part, " ", "\u{2581}") => &mut found.replaces,
            _ => {
                return Err(part.refuse("`NFC`, `Prepend` of `\u{2581}`, `Replace` of a space by `\u{2581}`"));
            }
        };
        if std::mem::replace(seen, true) {
            return Err(part.refuse("each of them once"));
        }
    }
    Ok(found)
}

fn replaces(part: &Component, what: &str, by: &str) -> bool {
    part.pattern("String") == Some(what) && part.text("content") == Some(by)
}

enum Cut {
    ByteLevel { pre: &'static str },
    Metaspace { prefix: SpacePrefix },
    AtSpaces,
    Nowhere,
}

fn pre_tokenizers(value: &Value) -> Result<Cut, TextError> {
    const SUPPORTED: &str =
        "`ByteLevel`, `Digits`, `Split` by the pattern of a supported family, `Metaspace`";
    let parts = components("pre_tokenizer", "pretokenizers", value)?;
    let (last, before) = match parts.split_last() {
        None => return Ok(Cut::Nowhere),
        Some(parts) => parts,
    };
    match (last.kind, before) {
        ("Metaspace", []) => metaspace(last),
        // After spaces were replaced there is none to cut at.
        ("Split", []) if last.pattern("String") == Some(" ") => Ok(Cut::AtSpaces),
        ("ByteLevel", _) if last.bool("add_prefix_space") == Some(true) => {
            Err(last.refuse("`add_prefix_space` false"))
        }
        // GPT-2's own words unless told otherwise.
        ("ByteLevel", _) if last.bool("use_regex") != Some(false) => {
            let digits = match before {
                [] => false,
                [digits] if digits.kind == "Digits" && digits.bool("individual_digits") == Some(true) => true,
                [other, ..] => return Err(other.refuse(SUPPORTED)),
            };
            Ok(Cut::ByteLevel { pre: if digits { "smollm" } else { "gpt-2" } })
        }
        ("ByteLevel", [split]) if split.kind == "Split" => {
            let pre = split.pattern("Regex").and_then(|pattern| Kind::spelled(false, pattern));
            let how = (split.text("behavior"), split.bool("invert").unwrap_or(false));
            let covers = matches!(how, (Some("Isolated"), false) | (Some("Removed"), true));
            pre.filter(|_| covers).map(|pre| Cut::ByteLevel { pre }).ok_or_else(|| split.refuse(SUPPORTED))
        }
        ("ByteLevel", [other, ..]) => Err(other.refuse(SUPPORTED)),
        _ => Err(last.refuse(SUPPORTED)),
    }
}

fn metaspace(part: &Component) -> Result<Cut, TextError> {
    if part.text("replacement") != Some("\u{2581}") {
        return Err(part.refuse("`replacement` `\u{2581}`"));
    }
    if part.bool("split") != Some(false) {
        return Err(part.refuse("`split` false"));
    }
    let prefix = match (part.text("prepend_scheme"), part.bool("add_prefix_space")) {
        (Some("always"), _) | (None, None | Some(true)) => SpacePrefix::Missing,
        (Some("first"), _) => SpacePrefix::First,
        (Some("never"), _) | (None, Some(false)) => SpacePrefix::Never,
        _ => return Err(part.refuse("`prepend_scheme` always, first or never")),
    };
    Ok(Cut::Metaspace { prefix })
}

/// Decoders are checked only: bytes of tokens follow from the words.
fn decoders(value: &Value, words: &Way) -> Result<(), TextError> {
    let parts = components("decoder", "decoders", value)?;
    for part in &parts {
        let known = match (part.kind, words) {
            ("ByteLevel", Way::ByteLevel { .. }) => true,
            ("ByteFallback" | "Fuse" | "Metaspace", Way::Pieces { .. }) => true,
            ("Replace", Way::Pieces { .. }) => replaces(part, "\u{2581}", " "),
            // A space before the whole text.
            ("Strip", Way::Pieces { .. }) => {
                let at_most =
                    |name, most| part.value.get(name).and_then(Value::as_u64).is_some_and(|n| n <= most);
                part.text("content") == Some(" ") && at_most("start", 1) && at_most("stop", 0)
            }
            _ => false,
        };
        if !known {
            let supported = match words {
                Way::ByteLevel { .. } => "`ByteLevel`",
                Way::Pieces { .. } => {
                    "`Replace` of `\u{2581}` by a space, `ByteFallback`, `Fuse`, `Metaspace`, `Strip` of one space first"
                }
            };
            return Err(part.refuse(supported));
        }
    }
    Ok(())
}

/// The token that a template puts first.
fn post_processors(value: &Value) -> Result<Option<(String, u32)>, TextError> {
    const SUPPORTED: &str = "`ByteLevel`, `TemplateProcessing` of one token and the text";
    let mut begins = None;
    for part in components("post_processor", "processors", value)? {
        match part.kind {
            "ByteLevel" => {}
            "TemplateProcessing" => {
                let single = part.value.get("single").and_then(Value::as_array).map(Vec::as_slice);
                begins = match single {
                    Some([text]) if text.get("Sequence").is_some() => begins,
                    Some([token, text]) if begins.is_none() && text.get("Sequence").is_some() => {
                        Some(first_token(&part, token).ok_or_else(|| part.refuse(SUPPORTED))?)
                    }
                    _ => return Err(part.refuse(SUPPORTED)),
                };
            }
            _ => return Err(part.refuse(SUPPORTED)),
        }
    }
    Ok(begins)
}

fn first_token(part: &Component, token: &Value) -> Option<(String, u32)> {
    let name = token.get("SpecialToken")?.get("id")?.as_str()?;
    let special = part.value.get("special_tokens")?.get(name)?;
    match (special.get("ids")?.as_array()?.as_slice(), special.get("tokens")?.as_array()?.as_slice()) {
        ([id], [text]) => Some((text.as_str()?.to_owned(), u32::try_from(id.as_u64()?).ok()?)),
        _ => None,
    }
}
