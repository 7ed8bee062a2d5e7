//! From a text to the encoder's token ids: WordPiece, with markers at both ends, cut at the encoder's length.

use super::error::EncoderError;
use crate::limits::ENCODER_TEXT_BYTES_MAX;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use tokenizers::{Tokenizer, TruncationParams};

pub struct Tokens {
    tokenizer: Tokenizer,
    /// Ids are below this.
    vocabulary: usize,
}

impl Tokens {
    /// Reads `tokenizer.json`; its own settings for length and padding are replaced.
    pub fn read(
        (path, bytes): &(PathBuf, Vec<u8>),
        tokens_max: usize,
        vocabulary: usize,
    ) -> Result<Tokens, EncoderError> {
        let bad = |problem: String| EncoderError::File { path: path.clone(), problem };
        let mut tokenizer = guarded(|| {
            let mut tokenizer = Tokenizer::from_bytes(bytes)?;
            let length = TruncationParams { max_length: tokens_max, ..TruncationParams::default() };
            tokenizer.with_truncation(Some(length))?;
            Ok(tokenizer)
        })
        .map_err(bad)?;
        tokenizer.with_padding(None);
        let size = tokenizer.get_vocab_size(true);
        if size > vocabulary {
            return Err(bad(format!("{size} tokens; the embedding table has {vocabulary} rows")));
        }
        Ok(Tokens { tokenizer, vocabulary })
    }

    /// The ids of a text. Only its first bytes are looked at, far more than what the encoder's length holds.
    pub fn of(&self, text: &str) -> Result<Vec<u32>, EncoderError> {
        let text = beginning(text);
        let failed = |problem: String| EncoderError::Tokenise { bytes: text.len(), problem };
        let encoding = guarded(|| self.tokenizer.encode(text, true)).map_err(failed)?;
        let ids = encoding.get_ids();
        match ids.iter().find(|id| **id as usize >= self.vocabulary) {
            Some(id) => Err(failed(format!("id {id} is out of range"))),
            None if ids.is_empty() => Err(failed("no token".into())),
            None => Ok(ids.to_vec()),
        }
    }
}

/// Runs the library; its errors and its panics become texts.
fn guarded<T>(work: impl FnOnce() -> tokenizers::Result<T>) -> Result<T, String> {
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(result) => result.map_err(|error| error.to_string()),
        Err(_) => Err("the tokenizer panicked".into()),
    }
}

/// At most so many bytes, whole characters.
fn beginning(text: &str) -> &str {
    let end = (0..=text.len().min(ENCODER_TEXT_BYTES_MAX)).rev().find(|at| text.is_char_boundary(*at));
    text.get(..end.unwrap_or(0)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_texts_are_cut_between_characters() {
        assert_eq!(beginning("abc"), "abc");
        assert_eq!(beginning(""), "");
        let long = format!("a{}", "\u{e9}".repeat(ENCODER_TEXT_BYTES_MAX));
        assert_eq!(beginning(&long).len(), ENCODER_TEXT_BYTES_MAX - 1);
    }

    #[test]
    fn broken_tokenizers_are_errors() {
        for text in ["", "{}", "[[[", "{\"model\":{\"type\":\"WordPiece\"}}"] {
            let file = (PathBuf::from("tokenizer.json"), text.as_bytes().to_vec());
            let error = Tokens::read(&file, 16, 100).err().unwrap().to_string();
            assert!(error.starts_with("`tokenizer.json`: "), "{error}");
        }
        assert_eq!(guarded::<()>(|| panic!("bug")), Err("the tokenizer panicked".into()));
    }
}
