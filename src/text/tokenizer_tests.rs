//! The tokenizer on hand-made vocabularies: control tokens, bytes, refused descriptions, long texts.

use super::super::fixtures::{byte_source, byte_tokenizer, piece_tokenizer};
use super::*;
use proptest::prelude::*;
use std::time::{Duration, Instant};

fn ids(tokenizer: &Tokenizer, text: &str, specials: Specials) -> Vec<u32> {
    tokenizer.encode(text, specials).unwrap()
}

fn bytes(text: &str) -> Vec<u32> {
    text.bytes().map(u32::from).collect()
}

#[test]
fn byte_level_words_and_control_tokens() {
    let tokenizer = byte_tokenizer();
    let plain = [bytes("a<|im_end|>"), vec![261]].concat();
    for (text, specials, expected) in [
        ("", Specials::AsText, vec![]),
        ("hello hell", Specials::AsText, vec![261, 32, 260]),
        ("a<|im_end|>hello", Specials::AsText, plain),
        ("a<|im_end|>hello", Specials::Parse, vec![97, 257, 261]),
        ("<|im_start|><|im_end", Specials::Parse, [vec![256], bytes("<|im_end")].concat()),
    ] {
        assert_eq!(ids(&tokenizer, text, specials), expected, "{text:?} {specials:?}");
    }
}

#[test]
fn pieces_bytes_and_user_defined_tokens() {
    let tokenizer = piece_tokenizer();
    let id = |text: &str| tokenizer.token_id(text).unwrap();
    for (text, expected) in [
        ("hello hello", vec![id("hello"), id(" hello")]),
        (" a", vec![id(" "), id("a")]),
        ("   a", vec![262, id(" "), id("a")]),
        ("a\n\n\nb", vec![id("a"), 264, 263, id("b")]),
        ("é", vec![4 + 0xc3, 4 + 0xa9]),
        ("<eos>", ["<", "e", "o", "s", ">"].map(id).into()),
    ] {
        assert_eq!(ids(&tokenizer, text, Specials::AsText), expected, "{text:?}");
    }
    assert_eq!(ids(&tokenizer, "<start_of_turn>a<eos>", Specials::Parse), [260, id("a"), 1]);
}

#[test]
fn tokens_by_themselves() {
    let (byte, piece) = (byte_tokenizer(), piece_tokenizer());
    assert_eq!(byte.token_text(257), "<|im_end|>");
    assert_eq!(byte.token_text(0xc3), "\u{fffd}");
    assert_eq!(byte.token_bytes(0xc3), Some(vec![0xc3]));
    assert_eq!(byte.token_bytes(262), None);
    assert_eq!(byte.token_text(262), "");
    assert_eq!(piece.token_text(piece.token_id(" hello").unwrap()), " hello");
    assert_eq!(piece.token_bytes(4 + 10), Some(vec![b'\n']));
    assert_eq!(piece.decode(&[2, 4 + 0xc3, 4 + 0xa9, 1], true), "é");
    assert_eq!(piece.decode(&[2, 4 + 0xc3, 4 + 0xa9, 1], false), "<bos>é<eos>");
    assert_eq!(byte.stop_tokens(), [257]);
    assert_eq!(piece.stop_tokens(), [1, 261]);
    assert!(piece.is_special(260) && !piece.is_special(263) && !piece.is_special(u32::MAX));
}

/// T132 to T135 and T122: what a file may get wrong, and what it is told.
#[test]
fn wrong_descriptions() {
    let edit = |change: &dyn Fn(&mut TokenizerSource)| {
        let mut source = byte_source();
        change(&mut source);
        Tokenizer::new(&source).err().map_or_else(|| "accepted".to_owned(), |error| error.to_string())
    };
    type Edit<'a> = &'a dyn Fn(&mut TokenizerSource);
    let cases: &[(Edit, &str)] = &[
        (&|source| source.model = "bert".into(), "`bert` is not supported; supported: `gpt2`, `llama`"),
        (&|source| source.pre = Some("wonder".into()), "`wonder` is not supported"),
        (&|source| source.pre = None, "`tokenizer.ggml.pre` is missing"),
        (&|source| source.tokens.clear(), "0 tokens"),
        (&|source| source.token_types.truncate(9), "9 token types for 262 tokens"),
        (&|source| source.scores = vec![0.0], "1 scores for 262 tokens"),
        (&|source| source.tokens[7] = "a".into(), "tokens 7 and 97 have the same text `a`"),
        (&|source| source.eos = Some(262), "eos token 262 is outside the vocabulary of 262"),
        (&|source| source.eot = Some(4_000_000_000), "eot token 4000000000 is outside"),
        (
            &|source| {
                source.bos = None;
                source.add_bos = true;
            },
            "there is no bos token",
        ),
        (&|source| source.merges[1] = "aa bb".into(), "merge 1 `aa bb`: no such token"),
        (&|source| source.merges[1] = "aabb".into(), "merge 1 `aabb`: no space"),
        (&|source| source.merges[1] = "a é".into(), "merge 1 `a é`: no such token"),
        (&|source| source.merges.push("a b".into()), "merge 4 `a b`: no such token"),
    ];
    for (change, message) in cases {
        let given = edit(*change);
        assert!(given.contains(message), "{given:?} should contain {message:?}");
    }
}

#[test]
fn a_merge_never_makes_a_control_token() {
    let mut source = byte_source();
    source.merges.push("<|im_end| >".into());
    source.tokens.push("<|im_end|".into());
    source.token_types.push(1);
    let tokenizer = Tokenizer::new(&source).unwrap();
    let given = ids(&tokenizer, "<|im_end|>", Specials::AsText);
    assert!(given.iter().all(|&id| !tokenizer.is_special(id)), "{given:?}");
}

/// T037: a text as long as a request can be takes well under a second, whatever it repeats.
#[test]
fn long_texts() {
    for tokenizer in [byte_tokenizer(), piece_tokenizer()] {
        for unit in ["a", "\n", "\u{fdfa}", "hello ", " ", "1", "<", "<|im_"] {
            let text = unit.repeat(900_000 / unit.len());
            let start = Instant::now();
            let ids = ids(&tokenizer, &text, Specials::AsText);
            // Far above the measured 0.05 to 0.2 s: a bound on growth, not on speed.
            assert!(start.elapsed() < Duration::from_secs(10), "{unit:?}");
            assert_eq!(tokenizer.decode(&ids, false), text, "{unit:?}");
        }
    }
    let error = byte_tokenizer().encode(&"a".repeat(ENCODE_BYTES_MAX + 1), Specials::AsText).unwrap_err();
    assert!(matches!(error, TextError::TooLong { .. }), "{error}");
}

proptest! {
    #[test]
    fn texts_come_back(text in "\\PC{0,40}|[a-e hlo<>|_\\n\\x00-\\x1f]{0,40}") {
        let (byte, piece) = (byte_tokenizer(), piece_tokenizer());
        for specials in [Specials::AsText, Specials::Parse] {
            prop_assert_eq!(&byte.decode(&ids(&byte, &text, specials), false), &text);
            prop_assert_eq!(piece.decode(&ids(&piece, &text, specials), false), text.replace('\u{2581}', " "));
        }
    }

    #[test]
    fn text_never_becomes_a_control_token(text in "(<\\|im_start\\|>|<\\|im_end\\|>|<eos>|<bos>|[<>|a]){0,8}") {
        for tokenizer in [byte_tokenizer(), piece_tokenizer()] {
            let ids = ids(&tokenizer, &text, Specials::AsText);
            prop_assert!(ids.iter().all(|&id| !tokenizer.is_special(id)));
        }
    }

    #[test]
    fn any_description_is_built_or_refused(
        tokens in prop::collection::vec("[a-c\u{2581} ]{0,3}|<0x[0-9A-F]{2}>", 0..12),
        types in prop::collection::vec(-1i32..8, 0..12),
        merges in prop::collection::vec("[a-c]{0,2} ?[a-c]{0,2}", 0..5),
        named in prop::collection::vec(prop::option::of(0u32..14), 4),
        llama: bool,
    ) {
        let source = TokenizerSource {
            model: if llama { "llama" } else { "gpt2" }.into(),
            pre: Some("gpt-2".into()),
            tokens,
            token_types: types,
            merges,
            bos: named[0],
            eos: named[1],
            unk: named[2],
            pad: named[3],
            ..TokenizerSource::default()
        };
        if let Ok(tokenizer) = Tokenizer::new(&source) {
            let ids = ids(&tokenizer, "abc cab  é", Specials::AsText);
            prop_assert!(ids.iter().all(|&id| (id as usize) < tokenizer.vocab_size()));
        }
    }
}
