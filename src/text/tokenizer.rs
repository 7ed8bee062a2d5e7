//! Token ids of a text and bytes of a token.

use super::TextError;
use super::added::{Guard, Segment, Strips, Trie, segments};
use super::bpe::Bpe;
use super::source::{TokenizerSource, kind};
use super::vocabulary::{byte_level, meaning, sentencepiece, spaces_only, special_tokens};
use super::words::Words;
use crate::limits::ENCODE_BYTES_MAX;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Texts of control tokens that end an answer, beside those the file names.
const STOP_TEXTS: [&str; 9] = [
    "<|im_end|>",
    "<end_of_turn>",
    "<|eot_id|>",
    "<|eom_id|>",
    "<|end|>",
    "<|endoftext|>",
    "<|end_of_text|>",
    "<eos>",
    "</s>",
];

/// Whether the text of a control token becomes that token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Specials {
    /// It stays text, cut into ordinary tokens: for everything that a client wrote.
    AsText,
    /// It becomes the token.
    Parse,
}

/// A model's tokenizer. Tokens that the file calls user-defined are found in every text; control tokens only with
/// `Specials::Parse`.
pub struct Tokenizer {
    words: Words,
    bpe: Bpe,
    guard: Guard,
    user_defined: Trie,
    strips: Strips,
    /// Ordinary tokens by their bytes, where a word that is a token becomes it; else empty.
    by_bytes: Vec<u32>,
    /// What all tokens stand for, one after another; token `i` ends at `ends[i]`.
    bytes: Vec<u8>,
    ends: Vec<u32>,
    special: Vec<bool>,
    stop: Vec<u32>,
    bos: Option<u32>,
    eos: Option<u32>,
    pad: Option<u32>,
    unk: Option<u32>,
    add_bos: bool,
}

impl Tokenizer {
    /// Checks the description (lengths, ids, duplicates, merges) and builds from it.
    pub fn new(source: &TokenizerSource) -> Result<Tokenizer, TextError> {
        source.check()?;
        let special = special_tokens(source);
        let (words, bpe) = match source.model.as_str() {
            "gpt2" => byte_level(source, &special)?,
            "llama" => sentencepiece(source, &special)?,
            other => {
                let supported = "`gpt2`, `llama`".to_owned();
                let key = "tokenizer.ggml.model";
                return Err(TextError::Unsupported { key, given: other.to_owned(), supported });
            }
        };
        let ids = || source.tokens.iter().map(String::as_str).zip(0u32..);
        // A text of one character cannot be told from a client's; no model has one.
        let control = ids().filter(|(text, id)| special[*id as usize] && text.chars().nth(1).is_some());
        let user_defined = ids().filter(|(text, id)| {
            source.kind_of(*id as usize) == kind::USER_DEFINED
                && !special[*id as usize]
                && !(source.plain_space_runs && spaces_only(text))
        });
        let mut tokenizer = Tokenizer {
            words,
            bpe,
            guard: Guard::new(control),
            user_defined: Trie::new(user_defined),
            strips: source.strips.iter().map(|strip| (strip.id, (strip.left, strip.right))).collect(),
            by_bytes: Vec::new(),
            bytes: Vec::new(),
            ends: Vec::with_capacity(source.tokens.len()),
            stop: stop_tokens(source, &special),
            special,
            bos: source.bos,
            eos: source.eos,
            pad: source.pad,
            unk: source.unk,
            add_bos: source.add_bos,
        };
        for id in 0..source.tokens.len() {
            tokenizer.bytes.extend_from_slice(&meaning(source, id, tokenizer.special[id]));
            tokenizer.ends.push(tokenizer.bytes.len() as u32);
        }
        if source.whole_words {
            let ordinary =
                |id: &u32| !tokenizer.is_special(*id) && source.kind_of(*id as usize) != kind::USER_DEFINED;
            let mut by_bytes: Vec<u32> = (0..source.tokens.len() as u32).filter(ordinary).collect();
            by_bytes.sort_unstable_by_key(|&id| tokenizer.bytes_of(id));
            tokenizer.by_bytes = by_bytes;
        }
        Ok(tokenizer)
    }

    /// Token ids of `text`; a BOS is never added. At most `ENCODE_BYTES_MAX` bytes.
    pub fn encode(&self, text: &str, specials: Specials) -> Result<Vec<u32>, TextError> {
        guarded(text, || {
            let mut ids = Vec::new();
            match specials {
                Specials::AsText => self.push_text(text, true, &mut ids),
                Specials::Parse => {
                    self.push_segments(text, true, &[self.guard.control(), &self.user_defined], &mut ids)
                }
            }
            ids
        })
    }

    /// How many tokens a text has that stands inside a message.
    pub fn count(&self, text: &str) -> Result<usize, TextError> {
        self.encode(text, Specials::AsText).map(|ids| ids.len())
    }

    /// Ids of a rendered chat: control tokens are found while the client's text still carries `mark` (see `Guard`),
    /// the rest is plain text without the marks.
    pub(super) fn encode_marked(&self, text: &str, mark: char) -> Result<Vec<u32>, TextError> {
        guarded(text, || {
            let mut ids = Vec::new();
            let mut first = true;
            segments(text, &[self.guard.control()], &self.strips, &mut |segment| {
                match segment {
                    Segment::Token(id) => ids.push(id),
                    Segment::Text(part) => self.push_text(&part.replace(mark, ""), first, &mut ids),
                }
                first = false;
            });
            ids
        })
    }

    fn push_text(&self, text: &str, first: bool, ids: &mut Vec<u32>) {
        self.push_segments(text, first, &[&self.user_defined], ids);
    }

    /// `first`: nothing stands before the text.
    fn push_segments(&self, text: &str, mut first: bool, tries: &[&Trie], ids: &mut Vec<u32>) {
        segments(text, tries, &self.strips, &mut |segment| {
            match segment {
                Segment::Token(id) => ids.push(id),
                Segment::Text(part) => self.words.each(part, first, &mut |word| match self.whole(word) {
                    Some(id) => ids.push(id),
                    None => self.bpe.encode(word, ids),
                }),
            }
            first = false;
        });
    }

    /// The ordinary token that is the whole word, where words may be tokens as they are.
    fn whole(&self, word: &str) -> Option<u32> {
        let find = |id: &u32| self.bytes_of(*id).cmp(&Some(word.as_bytes()));
        self.by_bytes.binary_search_by(find).ok().map(|at| self.by_bytes[at])
    }

    pub(super) fn guard(&self) -> &Guard {
        &self.guard
    }

    fn bytes_of(&self, id: u32) -> Option<&[u8]> {
        let end = *self.ends.get(id as usize)? as usize;
        let start = (id as usize).checked_sub(1).map_or(0, |before| self.ends[before] as usize);
        self.bytes.get(start..end)
    }

    /// The bytes a token stands for; a control token stands for its text. `None` outside the vocabulary.
    pub fn token_bytes(&self, id: u32) -> Option<Vec<u8>> {
        self.bytes_of(id).map(<[u8]>::to_vec)
    }

    /// A token decoded alone: a leading space stays, bytes that are no text become U+FFFD.
    pub fn token_text(&self, id: u32) -> String {
        String::from_utf8_lossy(self.bytes_of(id).unwrap_or_default()).into_owned()
    }

    /// The text of several tokens; with `skip_special` control tokens are left out. Ids outside the vocabulary stand
    /// for nothing.
    pub fn decode(&self, ids: &[u32], skip_special: bool) -> String {
        let kept = ids.iter().filter(|&&id| !(skip_special && self.is_special(id)));
        let bytes: Vec<u8> = kept.flat_map(|&id| self.bytes_of(id).unwrap_or_default()).copied().collect();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// The same as one text by itself: without the space that the tokenizer puts before a text.
    pub fn detokenize(&self, ids: &[u32], skip_special: bool) -> String {
        let text = self.decode(ids, skip_special);
        match text.strip_prefix(' ').filter(|_| self.words.puts_space()) {
            Some(rest) => rest.to_owned(),
            None => text,
        }
    }

    /// Whether a token controls the model instead of standing for text.
    pub fn is_special(&self, id: u32) -> bool {
        self.special.get(id as usize).copied().unwrap_or(false)
    }

    pub fn vocab_size(&self) -> usize {
        self.ends.len()
    }

    pub fn bos(&self) -> Option<u32> {
        self.bos
    }

    pub fn eos(&self) -> Option<u32> {
        self.eos
    }

    pub fn pad(&self) -> Option<u32> {
        self.pad
    }

    pub fn unk(&self) -> Option<u32> {
        self.unk
    }

    /// Whether a prompt begins with BOS.
    pub fn add_bos(&self) -> bool {
        self.add_bos
    }

    /// Tokens that end an answer, ascending.
    pub fn stop_tokens(&self) -> &[u32] {
        &self.stop
    }

    /// The token that stands for exactly `text`; of several a control token, then the highest: tokens of single bytes
    /// stand before those of text.
    pub fn token_id(&self, text: &str) -> Option<u32> {
        let matching = (0..self.ends.len() as u32).filter(|&id| self.bytes_of(id) == Some(text.as_bytes()));
        matching.max_by_key(|&id| (self.is_special(id), id))
    }
}

/// Runs a tokenisation on a text of allowed length; a panic in it becomes an error.
fn guarded(text: &str, run: impl FnOnce() -> Vec<u32>) -> Result<Vec<u32>, TextError> {
    if text.len() > ENCODE_BYTES_MAX {
        return Err(TextError::TooLong { bytes: text.len(), max: ENCODE_BYTES_MAX });
    }
    catch_unwind(AssertUnwindSafe(run)).map_err(|_| TextError::Failed)
}

fn stop_tokens(source: &TokenizerSource, special: &[bool]) -> Vec<u32> {
    let texts = source.tokens.iter().zip(0u32..).filter(|(text, _)| STOP_TEXTS.contains(&text.as_str()));
    let by_text = texts.map(|(_, id)| id).filter(|&id| special[id as usize]);
    let mut stop: Vec<u32> = by_text
        .chain([source.eos, source.eot, source.eom].into_iter().flatten())
        .chain(source.ends.iter().copied())
        .collect();
    stop.sort_unstable();
    stop.dedup();
    stop
}

#[cfg(test)]
#[path = "tokenizer_tests.rs"]
mod tests;
