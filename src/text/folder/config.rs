//! `tokenizer_config.json`: which tokens have which role, and the chat template.

use super::bounded::Small;
use super::{CONFIG, wrong};
use crate::text::TextError;
use serde::Deserialize;
use serde_json::Value;

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct TokenizerConfig {
    pub bos_token: Small,
    pub eos_token: Small,
    pub unk_token: Small,
    pub pad_token: Small,
    /// Whether a prompt begins with BOS; the post-processor says it where this does not.
    pub add_bos_token: Option<bool>,
    chat_template: Small,
}

impl TokenizerConfig {
    pub fn read(file: &'static str, json: &str) -> Result<TokenizerConfig, TextError> {
        serde_json::from_str(json).map_err(|error| wrong(file, error.to_string()))
    }

    /// The template; of several the one named `default`, or else the first.
    pub fn template(&self, file: &'static str) -> Result<Option<&str>, TextError> {
        let found = match &self.chat_template.0 {
            Value::Null => return Ok(None),
            Value::Array(named) => {
                let default = named.iter().find(|item| item["name"] == "default");
                default.or(named.first()).and_then(|item| item.get("template"))
            }
            template => Some(template),
        };
        let unfit = || wrong(file, "`chat_template` is neither a text nor a list of named texts".to_owned());
        found.and_then(Value::as_str).map(Some).ok_or_else(unfit)
    }
}

/// The text of the token that `name` names: a string, or an object that has it as `content`. An empty one is none.
pub(super) fn token<'a>(name: &str, value: &'a Small) -> Result<Option<&'a str>, TextError> {
    let text = match &value.0 {
        Value::Null => return Ok(None),
        Value::Object(map) => map.get("content").and_then(Value::as_str),
        value => value.as_str(),
    };
    let unfit = || wrong(CONFIG, format!("`{name}` is neither a text nor an object with `content`"));
    text.map(|text| Some(text).filter(|text| !text.is_empty())).ok_or_else(unfit)
}
