//! Token ids of a text and bytes of a token.

use super::TextError;
use super::added::{Guard, Segment, Trie, segments};
use super::bpe::{Alphabet, Bpe, Merge, implied_merges};
use super::bytes::{byte_of, spell, unspell};
use super::hash::Lookup;
use super::pre::Splitter;
use super::source::{TokenizerSource, kind};
use crate::limits::ENCODE_BYTES_MAX;
use std::borrow::Cow;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// SentencePiece's visible space.
const SPACE: char = '\u{2581}';

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

/// What happens to a text before merging.
enum Words {
    /// Cut into words of bytes.
    ByteLevel(Splitter),
    /// One word with visible spaces.
    Whole,
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
                return Err(TextError::Unsupported {
                    key: "tokenizer.ggml.model",
                    given: other.to_owned(),
                    supported,
                });
            }
        };
        let ids = || source.tokens.iter().map(String::as_str).zip(0u32..);
        // A text of one character cannot be told from a client's; no model has one.
        let control = ids().filter(|(text, id)| special[*id as usize] && text.chars().nth(1).is_some());
        let user_defined = ids().filter(|(text, id)| {
            source.kind_of(*id as usize) == kind::USER_DEFINED
                && !special[*id as usize]
                && !(source.model == "llama" && spaces_only(text))
        });
        let mut tokenizer = Tokenizer {
            words,
            bpe,
            guard: Guard::new(control),
            user_defined: Trie::new(user_defined),
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
        Ok(tokenizer)
    }

    /// Token ids of `text`; a BOS is never added. At most `ENCODE_BYTES_MAX` bytes.
    pub fn encode(&self, text: &str, specials: Specials) -> Result<Vec<u32>, TextError> {
        guarded(text, || {
            let mut ids = Vec::new();
            match specials {
                Specials::AsText => self.push_text(text, &mut ids),
                Specials::Parse => {
                    self.push_segments(text, &[self.guard.control(), &self.user_defined], &mut ids)
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
            segments(text, &[self.guard.control()], &mut |segment| match segment {
                Segment::Token(id) => ids.push(id),
                Segment::Text(part) => self.push_text(&part.replace(mark, ""), &mut ids),
            });
            ids
        })
    }

    fn push_text(&self, text: &str, ids: &mut Vec<u32>) {
        self.push_segments(text, &[&self.user_defined], ids);
    }

    fn push_segments(&self, text: &str, tries: &[&Trie], ids: &mut Vec<u32>) {
        segments(text, tries, &mut |segment| match segment {
            Segment::Token(id) => ids.push(id),
            Segment::Text(part) => match &self.words {
                Words::ByteLevel(splitter) => splitter.words(part, &mut |word| self.bpe.encode(word, ids)),
                Words::Whole => self.bpe.encode(&part.replace(' ', "\u{2581}"), ids),
            },
        });
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

/// Control tokens by kind, and those that the file names for a role, whatever kind it gives them.
fn special_tokens(source: &TokenizerSource) -> Vec<bool> {
    let by_kind = |id| matches!(source.kind_of(id), kind::CONTROL | kind::UNKNOWN);
    let mut special: Vec<bool> = (0..source.tokens.len()).map(by_kind).collect();
    for id in [source.bos, source.eos, source.eot, source.eom, source.unk, source.pad].into_iter().flatten() {
        special[id as usize] = true;
    }
    special
}

fn stop_tokens(source: &TokenizerSource, special: &[bool]) -> Vec<u32> {
    let texts = source.tokens.iter().zip(0u32..).filter(|(text, _)| STOP_TEXTS.contains(&text.as_str()));
    let by_text = texts.map(|(_, id)| id).filter(|&id| special[id as usize]);
    let mut stop: Vec<u32> =
        by_text.chain([source.eos, source.eot, source.eom].into_iter().flatten()).collect();
    stop.sort_unstable();
    stop.dedup();
    stop
}

/// Byte-level pairs: the file lists the merges, and each must join two tokens into a third.
fn byte_level(source: &TokenizerSource, special: &[bool]) -> Result<(Words, Bpe), TextError> {
    let pre = source.pre.as_deref().ok_or(TextError::Missing { key: "tokenizer.ggml.pre" })?;
    let splitter = Splitter::new(pre)?;
    let index: Lookup<&str, u32> = source.tokens.iter().map(String::as_str).zip(0..).collect();
    let merges = listed_merges(&source.merges, &index, special)?;
    let mut table = [None; 256];
    for (byte, entry) in (0u8..).zip(table.iter_mut()) {
        *entry = index.get(spell(byte).to_string().as_str()).copied();
    }
    Ok((Words::ByteLevel(splitter), Bpe::new(Alphabet::Bytes(table), &merges)))
}

/// SentencePiece pairs: characters, bytes for unknown ones, and the merges that the vocabulary implies.
fn sentencepiece(source: &TokenizerSource, special: &[bool]) -> Result<(Words, Bpe), TextError> {
    if source.add_space_prefix {
        return Err(TextError::Unsupported {
            key: "tokenizer.ggml.add_space_prefix",
            given: "true".to_owned(),
            supported: "`false`".to_owned(),
        });
    }
    let spelled: Vec<Cow<str>> = source.tokens.iter().map(|token| visible_spaces(token)).collect();
    let pieces: Vec<&str> = spelled.iter().map(AsRef::as_ref).collect();
    let merges = match source.merges.as_slice() {
        [] => implied_merges(&pieces, special),
        listed => listed_merges(listed, &pieces.iter().copied().zip(0..).collect(), special)?,
    };
    let mut chars = Lookup::default();
    let mut bytes = [None; 256];
    for (piece, id) in pieces.iter().zip(0u32..) {
        let mut characters = piece.chars();
        if let (Some(only), None) = (characters.next(), characters.next()) {
            chars.insert(only, id);
        }
        if let Some(byte) = byte_of(piece).filter(|_| source.kind_of(id as usize) == kind::BYTE) {
            bytes[usize::from(byte)] = Some(id);
        }
    }
    let alphabet = Alphabet::Chars { chars, bytes, unknown: source.unk };
    Ok((Words::Whole, Bpe::new(alphabet, &merges)))
}

/// `left right` lines as ids. A merge into a control token is left out: text must never become one.
fn listed_merges(
    lines: &[String],
    index: &Lookup<&str, u32>,
    special: &[bool],
) -> Result<Vec<Merge>, TextError> {
    let mut merges = Vec::with_capacity(lines.len());
    for (at, line) in lines.iter().enumerate() {
        let wrong = |why: &str| {
            TextError::Vocabulary(format!(
                "merge {at} `{}`: {why}",
                line.chars().take(80).collect::<String>()
            ))
        };
        let (left, right) = line.split_once(' ').ok_or_else(|| wrong("no space between two tokens"))?;
        let find =
            |text: &str| index.get(text).copied().ok_or_else(|| wrong("no such token in the vocabulary"));
        let merge =
            Merge { left: find(left)?, right: find(right)?, merged: find(&format!("{left}{right}"))? };
        if !special[merge.merged as usize] {
            merges.push(merge);
        }
    }
    Ok(merges)
}

fn spaces_only(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte == b' ')
}

/// Runs of spaces are stored as such, all other spaces as U+2581.
fn visible_spaces(token: &str) -> Cow<'_, str> {
    if spaces_only(token) { token.replace(' ', "\u{2581}").into() } else { token.into() }
}

/// The bytes that a token stands for.
fn meaning(source: &TokenizerSource, id: usize, special: bool) -> Vec<u8> {
    let text = source.tokens[id].as_str();
    match (source.model.as_str(), source.kind_of(id)) {
        _ if special => text.as_bytes().to_vec(),
        (_, kind::USER_DEFINED) => text.as_bytes().to_vec(),
        ("gpt2", _) => unspell(text).unwrap_or_else(|| text.as_bytes().to_vec()),
        (_, kind::BYTE) => byte_of(text).map_or_else(|| text.as_bytes().to_vec(), |byte| vec![byte]),
        _ => text.replace(SPACE, " ").into_bytes(),
    }
}

#[cfg(test)]
#[path = "tokenizer_tests.rs"]
mod tests;
