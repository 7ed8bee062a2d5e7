//! A tokenizer as a model file describes it, checked before anything is built from it.

use super::TextError;
use crate::limits::VOCABULARY_MAX;

/// Kinds of tokens in GGUF's `token_type`.
pub mod kind {
    pub const NORMAL: i32 = 1;
    pub const UNKNOWN: i32 = 2;
    pub const CONTROL: i32 = 3;
    pub const USER_DEFINED: i32 = 4;
    /// Fills the place of an id that no token has.
    pub const UNUSED: i32 = 5;
    pub const BYTE: i32 = 6;
}

/// Where a space is put before text, as SentencePiece has it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SpacePrefix {
    #[default]
    Never,
    /// Before each stretch of text between tokens.
    Always,
    /// Before each stretch that does not begin with one.
    Missing,
    /// As `Missing`, at the start of the whole text only.
    First,
}

/// White space that a token takes with it where it stands in a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Strip {
    pub id: u32,
    pub left: bool,
    pub right: bool,
}

/// The vocabulary of a model file, in the file's own spelling.
#[derive(Clone, Debug, Default)]
pub struct TokenizerSource {
    /// `gpt2` (byte-level pairs) or `llama` (SentencePiece).
    pub model: String,
    /// Rules that cut text into words, for `gpt2`.
    pub pre: Option<String>,
    /// Text of each token, by id.
    pub tokens: Vec<String>,
    /// One score a token for `llama`, else empty. The order of the tokens says the same and is what is used.
    pub scores: Vec<f32>,
    /// One kind a token (see `kind`), or empty: all are ordinary.
    pub token_types: Vec<i32>,
    /// `left right`, best first; for `llama` usually empty: the vocabulary implies them.
    pub merges: Vec<String>,
    pub bos: Option<u32>,
    pub eos: Option<u32>,
    pub eot: Option<u32>,
    pub eom: Option<u32>,
    pub unk: Option<u32>,
    pub pad: Option<u32>,
    /// Whether a prompt begins with `bos`.
    pub add_bos: bool,
    /// Tokens that end an answer beside those named above.
    pub ends: Vec<u32>,
    /// Where a space is put before text, for `llama`.
    pub prefix: SpacePrefix,
    /// What stands for characters and bytes that are in no token; without one they are left out.
    pub unknown: Option<u32>,
    /// Whether one `unknown` stands for a whole run of such characters.
    pub fuse_unknown: bool,
    /// Whether texts are composed (NFC) first.
    pub nfc: bool,
    /// Whether a word that is a token becomes it whatever the merges say, for `gpt2`.
    pub whole_words: bool,
    /// Whether user-defined tokens of spaces only are runs of visible spaces, as GGUF files of `llama` write them; if not,
    /// visible spaces in user-defined tokens stand for spaces when they are read back.
    pub plain_space_runs: bool,
    /// Tokens that take white space with them.
    pub strips: Vec<Strip>,
}

impl TokenizerSource {
    pub(super) fn kind_of(&self, id: usize) -> i32 {
        self.token_types.get(id).copied().unwrap_or(kind::NORMAL)
    }

    /// Everything that building relies on: lengths agree, no text twice, ids inside the vocabulary.
    pub(super) fn check(&self) -> Result<(), TextError> {
        let count = self.tokens.len();
        if count == 0 || count > VOCABULARY_MAX as usize {
            return broken(format!("{count} tokens; 1 to {VOCABULARY_MAX} are allowed"));
        }
        for (what, given) in [("scores", self.scores.len()), ("token types", self.token_types.len())] {
            if given != 0 && given != count {
                return broken(format!("{given} {what} for {count} tokens"));
            }
        }
        self.check_ids()?;
        let mut order: Vec<usize> = (0..count).collect();
        order.sort_unstable_by_key(|&id| &self.tokens[id]);
        match order.windows(2).find(|pair| self.tokens[pair[0]] == self.tokens[pair[1]]) {
            Some(pair) => {
                let (a, b) = (pair[0].min(pair[1]), pair[0].max(pair[1]));
                broken(format!("tokens {a} and {b} have the same text `{}`", self.tokens[a].escape_debug()))
            }
            None => Ok(()),
        }
    }

    fn check_ids(&self) -> Result<(), TextError> {
        let named = [
            ("bos", self.bos),
            ("eos", self.eos),
            ("eot", self.eot),
            ("eom", self.eom),
            ("unknown", self.unk),
            ("padding", self.pad),
            ("unknown", self.unknown),
        ];
        let ends = self.ends.iter().map(|&id| ("end", Some(id)));
        let strips = self.strips.iter().map(|strip| ("stripping", Some(strip.id)));
        for (name, id) in named.into_iter().chain(ends).chain(strips) {
            if let Some(id) = id.filter(|&id| id as usize >= self.tokens.len()) {
                return broken(format!(
                    "{name} token {id} is outside the vocabulary of {}",
                    self.tokens.len()
                ));
            }
        }
        if self.add_bos && self.bos.is_none() {
            return broken("`add_bos_token` is set, but there is no bos token".to_owned());
        }
        Ok(())
    }
}

fn broken(reason: String) -> Result<(), TextError> {
    Err(TextError::Vocabulary(reason))
}
