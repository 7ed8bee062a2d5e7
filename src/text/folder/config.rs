//! `tokenizer_config.json`: which tokens have which role, and the chat template.

use super::wrong;
use crate::text::TextError;
use serde::Deserialize;

#[derive(Debug, Default, Deserialize)]
pub(super) struct TokenizerConfig {
    pub bos_token: Option<Name>,
    pub eos_token: Option<Name>,
    pub unk_token: Option<Name>,
    pub pad_token: Option<Name>,
    /// Whether a prompt begins with BOS; the post-processor says it where this does not.
    pub add_bos_token: Option<bool>,
    chat_template: Option<Templates>,
}

/// A token by its text.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub(super) enum Name {
    Text(String),
    Token { content: String },
}

impl Name {
    pub fn text(&self) -> &str {
        match self {
            Name::Text(text) | Name::Token { content: text } => text,
        }
    }
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Templates {
    One(String),
    Named(Vec<NamedTemplate>),
}

#[derive(Debug, Deserialize)]
struct NamedTemplate {
    name: String,
    template: String,
}

impl TokenizerConfig {
    pub fn read(file: &'static str, json: &str) -> Result<TokenizerConfig, TextError> {
        serde_json::from_str(json).map_err(|error| wrong(file, error.to_string()))
    }

    /// The template; of several the one named `default`, or else the first.
    pub fn template(&self) -> Option<&str> {
        match self.chat_template.as_ref()? {
            Templates::One(template) => Some(template),
            Templates::Named(templates) => {
                let default = templates.iter().find(|template| template.name == "default");
                default.or(templates.first()).map(|template| template.template.as_str())
            }
        }
    }
}
