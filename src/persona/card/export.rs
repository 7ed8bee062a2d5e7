//! A persona as a card of V2 or V3: what was imported comes back with every key, our own data stands in `extensions`.

use super::{Card, EXTENSION, Version};
use crate::persona::Persona;
use serde_json::{Map, Value, json};

/// What our extension says it is.
const SCHEMA: &str = "demeanor.card/1";

/// The forms in which a card is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CardFormat {
    V2,
    V3,
}

/// The persona as a card. One without a card of its own becomes one whose description is its system text.
pub fn card_of(persona: &Persona, format: CardFormat) -> Value {
    let spec = &persona.spec;
    let given = spec.card.as_deref();
    let mut envelope = match given {
        Some(card) if card.version == Version::V1 => {
            let mut envelope = Map::new();
            envelope.insert("data".to_owned(), Value::Object(card.map()));
            envelope
        }
        Some(card) => card.map(),
        None => {
            let mut envelope = Map::new();
            envelope.insert("data".to_owned(), json!({"name": persona.name, "description": spec.system}));
            envelope
        }
    };
    let (name, version) = match format {
        CardFormat::V2 => ("chara_card_v2", "2.0"),
        CardFormat::V3 => ("chara_card_v3", "3.0"),
    };
    // A later version of the same form keeps its number.
    let is_same = envelope.get("spec").is_some_and(|spec| spec == name);
    let version = envelope.get("spec_version").filter(|_| is_same).cloned().unwrap_or(json!(version));
    let mut data = match envelope.shift_remove("data") {
        Some(Value::Object(data)) => data,
        _ => Map::new(),
    };
    for (field, default) in required(format) {
        data.entry(field).or_insert(default);
    }
    let extension = extension_of(persona, given);
    if !data.get("extensions").is_some_and(Value::is_object) {
        data.insert("extensions".to_owned(), json!({}));
    }
    if let Some(Value::Object(extensions)) = data.get_mut("extensions") {
        extensions.insert(EXTENSION.to_owned(), Value::Object(extension));
    }
    let mut out = Map::new();
    out.insert("spec".to_owned(), json!(name));
    out.insert("spec_version".to_owned(), version);
    out.insert("data".to_owned(), Value::Object(data));
    for (key, value) in envelope {
        out.entry(key).or_insert(value);
    }
    Value::Object(out)
}

/// Fields that a card must have, with what stands for nothing.
fn required(format: CardFormat) -> Vec<(&'static str, Value)> {
    let texts = [
        "name",
        "description",
        "personality",
        "scenario",
        "first_mes",
        "mes_example",
        "creator_notes",
        "system_prompt",
        "post_history_instructions",
        "creator",
        "character_version",
    ];
    let mut fields: Vec<(&str, Value)> = texts.iter().map(|name| (*name, json!(""))).collect();
    fields.extend([("alternate_greetings", json!([])), ("tags", json!([])), ("extensions", json!({}))]);
    if format == CardFormat::V3 {
        fields.push(("group_only_greetings", json!([])));
    }
    fields
}

/// A persona's own fields, those that the card itself does not say.
fn extension_of(persona: &Persona, card: Option<&Card>) -> Map<String, Value> {
    let spec = &persona.spec;
    let fields = spec.fields();
    let made = card.map_or(spec.system.as_str(), |card| card.system.as_str());
    let mut extension = Map::new();
    extension.insert("schema".to_owned(), json!(SCHEMA));
    extension.insert("name".to_owned(), json!(persona.name));
    if made != spec.system {
        extension.insert("system".to_owned(), json!(spec.system));
    }
    for name in ["steering", "soft_prompt", "sampling", "description"] {
        let value = fields.get(name).cloned().unwrap_or_default();
        let is_nothing = match &value {
            Value::Null => true,
            Value::String(text) => text.is_empty(),
            Value::Array(items) => items.is_empty(),
            Value::Object(map) => map.is_empty(),
            _ => false,
        };
        if !is_nothing {
            extension.insert(name.to_owned(), value);
        }
    }
    extension
}
