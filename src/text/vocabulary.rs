//! Building what a tokenizer merges with from the vocabulary that a model file describes.

use super::TextError;
use super::bpe::{Alphabet, Bpe, Merge, Unknown, implied_merges};
use super::bytes::{byte_of, spell, unspell};
use super::hash::Lookup;
use super::pre::{Kind, Splitter};
use super::source::{TokenizerSource, kind};
use super::words::{VISIBLE_SPACE, Words};
use std::borrow::Cow;

/// Control tokens by kind, and those that the file names for a role, whatever kind it gives them.
pub(super) fn special_tokens(source: &TokenizerSource) -> Vec<bool> {
    let by_kind = |id| matches!(source.kind_of(id), kind::CONTROL | kind::UNKNOWN);
    let mut special: Vec<bool> = (0..source.tokens.len()).map(by_kind).collect();
    for id in [source.bos, source.eos, source.eot, source.eom, source.unk, source.pad].into_iter().flatten() {
        special[id as usize] = true;
    }
    special
}
/// Byte-level pairs: the file lists the merges, and each must join two tokens into a third.
pub(super) fn byte_level(source: &TokenizerSource, special: &[bool]) -> Result<(Words, Bpe), TextError> {
    let pre = source.pre.as_deref().ok_or(TextError::Missing { key: "tokenizer.ggml.pre" })?;
    let splitter = Splitter::new(Kind::named(pre)?)?;
    let index: Lookup<&str, u32> = source.tokens.iter().map(String::as_str).zip(0..).collect();
    let merges = listed_merges(&source.merges, &index, special)?;
    let mut table = [None; 256];
    for (byte, entry) in (0..=u8::MAX).zip(table.iter_mut()) {
        *entry = index.get(spell(byte).to_string().as_str()).copied();
    }
    let alphabet = Alphabet::Bytes { bytes: table, unknown: unknown(source) };
    Ok((Words::byte_level(splitter, source.nfc), Bpe::new(alphabet, &merges)))
}

/// SentencePiece pairs: characters, bytes for unknown ones, and the merges that the vocabulary implies.
pub(super) fn sentencepiece(source: &TokenizerSource, special: &[bool]) -> Result<(Words, Bpe), TextError> {
    let spelled: Vec<Cow<str>> = source.tokens.iter().map(|token| visible_spaces(source, token)).collect();
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
    let alphabet = Alphabet::Chars { chars, bytes, unknown: unknown(source) };
    Ok((Words::whole(source.prefix), Bpe::new(alphabet, &merges)))
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

pub(super) fn spaces_only(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte == b' ')
}

fn unknown(source: &TokenizerSource) -> Unknown {
    Unknown { id: source.unknown, fuse: source.fuse_unknown }
}

/// The spelling that merging sees.
fn visible_spaces<'t>(source: &TokenizerSource, token: &'t str) -> Cow<'t, str> {
    if source.plain_space_runs && spaces_only(token) {
        token.replace(' ', "\u{2581}").into()
    } else {
        token.into()
    }
}

/// The bytes that a token stands for.
pub(super) fn meaning(source: &TokenizerSource, id: usize, special: bool) -> Vec<u8> {
    let text = source.tokens[id].as_str();
    match (source.model.as_str(), source.kind_of(id)) {
        _ if special => text.as_bytes().to_vec(),
        ("llama", kind::USER_DEFINED) if !source.plain_space_runs => {
            text.replace(VISIBLE_SPACE, " ").into_bytes()
        }
        (_, kind::USER_DEFINED) => text.as_bytes().to_vec(),
        ("gpt2", _) => unspell(text).unwrap_or_else(|| text.as_bytes().to_vec()),
        (_, kind::BYTE) => byte_of(text).map_or_else(|| text.as_bytes().to_vec(), |byte| vec![byte]),
        _ => text.replace(VISIBLE_SPACE, " ").into_bytes(),
    }
}
