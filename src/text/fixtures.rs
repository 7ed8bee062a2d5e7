//! Small tokenizers for tests.

use super::source::{TokenizerSource, kind};
use super::{Tokenizer, bytes};

fn tokenizer(source: &TokenizerSource) -> Tokenizer {
    Tokenizer::new(source).expect("a fixture is right")
}

/// Byte-level: ids 0 to 255 are the bytes, then `<|im_start|>` 256, `<|im_end|>` 257, `he` 258, `ll` 259,
/// `hell` 260, `hello` 261.
pub(super) fn byte_source() -> TokenizerSource {
    let mut tokens: Vec<String> = (0..=255).map(|byte| bytes::spell(byte).to_string()).collect();
    tokens.extend(["<|im_start|>", "<|im_end|>", "he", "ll", "hell", "hello"].map(String::from));
    let mut token_types = vec![1; tokens.len()];
    token_types[256..258].fill(kind::CONTROL);
    TokenizerSource {
        model: "gpt2".into(),
        pre: Some("smollm".into()),
        tokens,
        token_types,
        merges: ["h e", "l l", "he ll", "hell o"].map(String::from).into(),
        bos: Some(256),
        eos: Some(257),
        ..TokenizerSource::default()
    }
}

pub(super) fn byte_tokenizer() -> Tokenizer {
    tokenizer(&byte_source())
}

/// Byte-level without merges: ids 0 to 255 are the bytes, 256 is the end token.
pub fn bytes_alone() -> Tokenizer {
    let mut tokens: Vec<String> = (0..=255).map(|byte| bytes::spell(byte).to_string()).collect();
    tokens.push("<|im_end|>".into());
    let mut token_types = vec![1; tokens.len()];
    token_types[256] = kind::CONTROL;
    tokenizer(&TokenizerSource {
        model: "gpt2".into(),
        pre: Some("smollm".into()),
        tokens,
        token_types,
        eos: Some(256),
        ..TokenizerSource::default()
    })
}

/// SentencePiece style: `<pad>` 0, `<eos>` 1, `<bos>` 2, `<unk>` 3, bytes 4 to 259, `<start_of_turn>` 260,
/// `<end_of_turn>` 261, a run of two spaces 262, newline 263, two newlines 264 (both user-defined), then pieces.
pub(super) fn piece_source() -> TokenizerSource {
    let mut tokens: Vec<String> = ["<pad>", "<eos>", "<bos>", "<unk>"].map(String::from).into();
    tokens.extend((0..=255).map(|byte| format!("<0x{byte:02X}>")));
    tokens.extend(["<start_of_turn>", "<end_of_turn>", "  ", "\n", "\n\n"].map(String::from));
    let letters = "abcdefghijklmnopqrstuvwxyz<>_".chars().map(String::from);
    tokens.extend(letters);
    tokens.extend(["\u{2581}", "he", "ll", "hell", "hello", "\u{2581}hello"].map(String::from));
    let mut token_types = vec![1; tokens.len()];
    token_types[..4].fill(kind::CONTROL);
    token_types[4..260].fill(kind::BYTE);
    token_types[260..262].fill(kind::CONTROL);
    token_types[262..265].fill(kind::USER_DEFINED);
    TokenizerSource {
        model: "llama".into(),
        scores: vec![-1.0; tokens.len()],
        tokens,
        token_types,
        bos: Some(2),
        eos: Some(1),
        unk: Some(3),
        unknown: Some(3),
        fuse_unknown: true,
        plain_space_runs: true,
        pad: Some(0),
        add_bos: true,
        ..TokenizerSource::default()
    }
}

pub(super) fn piece_tokenizer() -> Tokenizer {
    tokenizer(&piece_source())
}
