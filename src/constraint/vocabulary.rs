//! A model's tokens as the grammar engine wants them: a trie over their bytes, control tokens apart.

use super::ConstraintError;
use crate::text::{Specials, Tokenizer};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use toktrie::{INVALID_TOKEN, TokEnv, TokRxInfo, TokTrie, TokenizerEnv};

/// Bytes of the longest token that a trie holds; longer ones (no model has any) are never allowed.
const TOKEN_BYTES_MAX: usize = 1000;

struct Vocabulary {
    tokenizer: Arc<Tokenizer>,
    trie: TokTrie,
}

/// Ends of an answer are the tokenizer's stop tokens: a grammar allows them where it may end.
pub(super) fn environment(tokenizer: &Arc<Tokenizer>) -> Result<TokEnv, ConstraintError> {
    let build = || {
        let words: Vec<Vec<u8>> = (0..tokenizer.vocab_size() as u32).map(|id| word(tokenizer, id)).collect();
        let ends = tokenizer.stop_tokens();
        let first = ends.first().copied().unwrap_or(INVALID_TOKEN);
        let trie = TokTrie::from(&TokRxInfo::new(words.len() as u32, first), &words);
        if ends.is_empty() { trie } else { trie.with_eos_tokens(ends) }
    };
    // The trie packs ids and offsets into few bits and asserts that they fit.
    let trie = catch_unwind(AssertUnwindSafe(build))
        .map_err(|_| ConstraintError::Unavailable("its vocabulary is too large".to_owned()))?;
    Ok(Arc::new(Vocabulary { tokenizer: tokenizer.clone(), trie }))
}

/// No text begins with the byte 0xff, so behind it no grammar of texts finds a control token.
fn word(tokenizer: &Tokenizer, id: u32) -> Vec<u8> {
    let bytes = tokenizer.token_bytes(id).filter(|bytes| bytes.len() < TOKEN_BYTES_MAX).unwrap_or_default();
    match tokenizer.is_special(id) {
        true => [&[TokTrie::SPECIAL_TOKEN_MARKER][..], &bytes].concat(),
        false => bytes,
    }
}

impl TokenizerEnv for Vocabulary {
    fn tok_trie(&self) -> &TokTrie {
        &self.trie
    }

    /// The way the model has seen the text; where our tokenizer does not give back what it was given (bytes that are no
    /// text), the longest tokens that fit.
    fn tokenize_bytes(&self, bytes: &[u8]) -> Vec<u32> {
        let text = std::str::from_utf8(bytes).ok();
        let ids = text.and_then(|text| self.tokenizer.encode(text, Specials::AsText).ok());
        ids.filter(|ids| self.trie.decode_raw(ids) == bytes)
            .unwrap_or_else(|| self.trie.greedy_tokenize(bytes))
    }
}
