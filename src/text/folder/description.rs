//! `tokenizer.json` as typed.

use super::bounded::{Merges, Small, Vocab};
use serde::Deserialize;

#[derive(Debug, Deserialize)]
pub(super) struct Description {
    #[serde(default)]
    pub added_tokens: Vec<AddedToken>,
    #[serde(default)]
    pub normalizer: Small,
    #[serde(default)]
    pub pre_tokenizer: Small,
    #[serde(default)]
    pub post_processor: Small,
    #[serde(default)]
    pub decoder: Small,
    pub model: Model,
}

/// A token that is found in texts before words are made.
#[derive(Debug, Deserialize)]
pub(super) struct AddedToken {
    pub id: u32,
    pub content: String,
    /// Found only where no letter or digit stands next to it.
    #[serde(default)]
    pub single_word: bool,
    /// Takes the white space before it.
    #[serde(default)]
    pub lstrip: bool,
    /// Takes the white space after it.
    #[serde(default)]
    pub rstrip: bool,
    /// Controls the model.
    #[serde(default)]
    pub special: bool,
}

#[derive(Debug, Deserialize)]
pub(super) struct Model {
    #[serde(rename = "type")]
    pub kind: Option<String>,
    #[serde(default)]
    pub vocab: Vocab,
    #[serde(default)]
    pub merges: Merges,
    pub unk_token: Option<String>,
    pub dropout: Option<f32>,
    pub continuing_subword_prefix: Option<String>,
    pub end_of_word_suffix: Option<String>,
    #[serde(default)]
    pub fuse_unk: bool,
    #[serde(default)]
    pub byte_fallback: bool,
    #[serde(default)]
    pub ignore_merges: bool,
}
