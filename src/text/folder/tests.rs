//! Folders as the families have them against transformers' ids, the same vocabularies as GGUF, and hostile folders.

use super::*;
use crate::text::{Message, Role, Specials, StreamDecoder};
use crate::weights::ModelFile;
use proptest::prelude::*;
use serde_json::{Value, json};
use std::path::PathBuf;
use std::time::{Duration, Instant};

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/tokenizers").join(name)
}

fn read_json(name: &str) -> Value {
    serde_json::from_str(&std::fs::read_to_string(fixture(name)).unwrap()).unwrap()
}

fn ids(value: &Value) -> Vec<u32> {
    value.as_array().unwrap().iter().map(|id| id.as_u64().unwrap() as u32).collect()
}

/// Ids of every string in both modes, and the decoding token by token.
fn compare(family: &str, text: &Text) {
    let (expected, shared) = (read_json(&format!("{family}.json")), read_json("strings.json"));
    let rows = shared.as_array().unwrap().iter().zip(expected["shared"].as_array().unwrap());
    let mut rows: Vec<Value> = rows.map(|(text, ids)| json!([text, ids])).collect();
    rows.extend_from_slice(expected["strings"].as_array().unwrap());
    assert!(rows.len() > 220, "{family}: {} strings", rows.len());
    let mut wrong = Vec::new();
    for row in &rows {
        let given = row[0].as_str().unwrap();
        let parsed = ids(&row[1]);
        let plain = row.get(2).map_or(parsed.clone(), ids);
        for (specials, expected) in [(Specials::Parse, &parsed), (Specials::AsText, &plain)] {
            let made = text.tokenizer.encode(given, specials).unwrap();
            if made != *expected {
                wrong.push(format!("{given:?} {specials:?}\n  given    {made:?}\n  expected {expected:?}"));
            }
            let mut stream = StreamDecoder::with_specials(text.tokenizer.clone());
            let pieces: String = made.iter().map(|&id| stream.push(id)).collect();
            assert_eq!(pieces + &stream.finish(), text.tokenizer.decode(&made, false), "{given:?}");
        }
    }
    let count = wrong.len();
    wrong.truncate(8);
    assert!(wrong.is_empty(), "{family}: {count} of {} differ:\n{}", rows.len(), wrong.join("\n"));
    assert_eq!(text.tokenizer.add_bos(), expected["bos"].as_bool().unwrap(), "{family}");
}

#[test]
fn ids_of_folders_equal_transformers() {
    for family in ["llama3", "qwen", "nemo", "phi4", "gpt2", "llama2", "mistral", "phi3", "gemma", "nobytes"]
    {
        compare(family, &Text::from_folder(&fixture(family), &[]).unwrap());
    }
}

#[test]
fn ids_of_gguf_files_equal_transformers() {
    for family in ["llama3", "qwen", "nemo", "default", "llama2", "phi3", "gemma"] {
        let file = ModelFile::open(&fixture(&format!("{family}.gguf"))).unwrap();
        compare(family, &Text::from_gguf(file.metadata()).unwrap());
    }
}

#[test]
fn texts_come_back() {
    for (family, space) in [("llama3", ""), ("phi4", ""), ("llama2", " "), ("mistral", " "), ("gemma", "")] {
        let text = Text::from_folder(&fixture(family), &[]).unwrap();
        for given in ["Hello, world!", "é 😀 日本\n\n\tx", "\u{0}\u{1b}", "a  b"] {
            let made = text.tokenizer.encode(given, Specials::AsText).unwrap();
            let decoded = text.tokenizer.decode(&made, true);
            assert_eq!(decoded, format!("{space}{given}"), "{family}");
            assert_eq!(text.tokenizer.detokenize(&made, true), given, "{family}");
        }
    }
}

#[test]
fn roles_and_templates_of_a_folder() {
    let text = Text::from_folder(&fixture("llama3"), &[321, 0]).unwrap();
    let tokenizer = &text.tokenizer;
    let named = |name: &str| tokenizer.token_id(name).unwrap();
    assert_eq!(tokenizer.bos(), Some(named("<|begin_of_text|>")));
    let mut ends = vec![0, 321, named("<|eot_id|>"), named("<|end_of_text|>")];
    ends.sort_unstable();
    assert_eq!(tokenizer.stop_tokens(), ends);
    let chat = text.render(&[Message::new(Role::User, "hi")], &Default::default()).unwrap();
    assert_eq!(chat.text, "<|user|>hi<|assistant|>");

    let files = TextFiles::read(&fixture("llama3")).unwrap();
    let rendered = |files: &TextFiles| {
        let text = Text::from_files(files, &[]).unwrap();
        text.render(&[Message::new(Role::User, "hi")], &Default::default()).unwrap().text
    };
    let one =
        |template: &str| json!({"bos_token": {"content": "<|begin_of_text|>"}, "chat_template": template});
    let named = json!({"chat_template": [
        {"name": "tool_use", "template": "T{{ messages[0].content }}"},
        {"name": "default", "template": "D{{ messages[0].content }}{{ messages[1:] | map(attribute='content') | join }}"},
    ]});
    let many = "{% for m in messages %}{{ m.content }}{% endfor %}";
    for (config, jinja, template_json, expected) in [
        (one("C{% for m in messages %}{{ m.content }}{% endfor %}"), None, None, "Chi"),
        (named, None, None, "Dhi"),
        (
            one(many),
            Some("J{% for m in messages %}{{ m.content }}{% endfor %}{{ bos_token }}"),
            None,
            "Jhi<|begin_of_text|>",
        ),
        (json!({}), None, Some(json!({"chat_template": many})), "hi"),
        (json!({}), None, None, "User: hi\nAssistant:"),
    ] {
        let files = TextFiles {
            config: Some(config.to_string()),
            template: jinja.map(String::from),
            template_json: template_json.map(|json| json.to_string()),
            ..files.clone()
        };
        assert_eq!(rendered(&files), expected);
    }
}

/// A folder of `family` with a change, and what loading says.
fn load(family: &str, change: impl FnOnce(&mut Value, &mut Value)) -> String {
    let files = TextFiles::read(&fixture(family)).unwrap();
    let mut tokenizer: Value = serde_json::from_str(&files.tokenizer).unwrap();
    let mut config: Value = serde_json::from_str(files.config.as_deref().unwrap()).unwrap();
    change(&mut tokenizer, &mut config);
    let files = TextFiles { tokenizer: tokenizer.to_string(), config: Some(config.to_string()), ..files };
    Text::from_files(&files, &[]).map_or_else(|error| error.to_string(), |_| "accepted".to_owned())
}

type Change = fn(&mut Value, &mut Value);

/// T122 to T135, and components that are nobody's.
#[test]
fn hostile_folders_are_refused() {
    let cases: &[(&str, Change, &str)] = &[
        ("llama3", |t, _| t["model"]["merges"][0] = json!(["aa", "bb"]), "merge 0 `aa bb`: no such token"),
        ("llama3", |t, _| t["model"]["merges"][0] = json!("ab"), "merge 0 `ab`: no space"),
        ("llama3", |t, _| t["model"]["merges"][0] = json!(["a b", "c"]), "two texts without spaces"),
        ("llama3", |t, _| t["model"]["merges"][0] = json!(["a", "b", "c"]), "two texts without spaces"),
        (
            "llama3",
            |t, _| t["model"]["continuing_subword_prefix"] = json!("####"),
            "`model.continuing_subword_prefix`: `a value` is not supported",
        ),
        ("llama3", |t, _| t["model"]["end_of_word_suffix"] = json!("x"), "`model.end_of_word_suffix`"),
        ("llama3", |t, _| t["model"]["dropout"] = json!(0.1), "`model.dropout`"),
        (
            "qwen",
            |t, _| t["normalizer"] = json!({"type": "Precompiled", "precompiled_charsmap": "AAAA"}),
            "`normalizer`: `{\"type\":\"Precompiled\"",
        ),
        (
            "llama3",
            |t, _| t["post_processor"]["special_tokens"] = json!({}),
            "`post_processor`: `{\"type\":\"TemplateProcessing\"",
        ),
        (
            "llama3",
            |t, _| t["post_processor"]["special_tokens"]["<|begin_of_text|>"]["ids"] = json!([5]),
            "is token 5, the vocabulary does not",
        ),
        ("llama3", |t, _| t["truncation"] = json!({"stride": 5, "max_length": 2}), "accepted"),
        (
            "llama3",
            |t, _| t["pre_tokenizer"] = json!({"type": "FixedLength", "length": 0}),
            "`pre_tokenizer`: `{\"type\":\"FixedLength\"",
        ),
        (
            "llama2",
            |t, _| t["decoder"]["decoders"][3]["start"] = json!(9),
            "`decoder.decoders[3]`: `{\"type\":\"Strip\"",
        ),
        (
            "llama3",
            |t, _| t["pre_tokenizer"]["pretokenizers"][0]["pattern"] = json!({"Regex": "(a|aa)+$"}),
            "`pre_tokenizer.pretokenizers[0]`: `{\"type\":\"Split\",\"pattern\":{\"Regex\":\"(a|aa)+$\"}",
        ),
        (
            "llama2",
            |t, _| {
                let grow = json!({"type": "Replace", "pattern": {"String": "a"}, "content": "a".repeat(50)});
                t["normalizer"]["normalizers"] = json!([grow, grow, grow, grow]);
            },
            "`normalizer.normalizers[0]`: `{\"type\":\"Replace\"",
        ),
        ("llama3", |t, _| t["added_tokens"][0]["id"] = json!(4_000_000_000u32), "token 4000000000; ids end"),
        ("llama3", |t, _| t["added_tokens"][0]["id"] = json!(1_000_000), "the highest id is 1000000"),
        ("llama3", |t, _| t["added_tokens"][0]["id"] = json!(7), "another text is added as it"),
        ("llama3", |t, _| t["added_tokens"][0]["single_word"] = json!(true), "`added_tokens[0].single_word`"),
        ("llama3", |t, _| t["model"]["vocab"]["!"] = json!(7), "token 7 has several texts"),
        ("llama3", |t, _| t["model"]["vocab"]["!"] = json!(-1), "invalid value: integer `-1`"),
        ("llama3", |t, _| t["added_tokens"][1]["content"] = json!("!"), "have the same text `!`"),
        ("llama3", |_, c| c["eos_token"] = json!("<|nothing|>"), "eos_token: `<|nothing|>` is no token"),
        ("llama3", |_, c| c["eos_token"] = json!(7), "`eos_token` is neither a text nor an object"),
        ("llama3", |_, c| c["chat_template"] = json!(7), "`chat_template` is neither a text nor a list"),
        ("llama3", |_, c| c["chat_template"] = json!([{"name": "x"}]), "`chat_template` is neither"),
        ("llama3", |_, c| c["chat_template"] = json!(vec![0; 20_000]), "more than 10000 values"),
        ("llama3", |_, c| c["bos_token"] = json!("<|eot_id|>"), "puts another token first"),
        ("llama3", |t, _| t["model"]["type"] = json!("Unigram"), "`model.type`: `Unigram` is not supported"),
        (
            "llama3",
            |t, _| t["model"] = json!({"type": "WordLevel", "vocab": {}}),
            "`WordLevel` is not supported",
        ),
        ("llama3", |t, _| t["model"]["vocab"] = json!([["a", 0.0]]), "no such token"),
        ("gpt2", |t, _| t["pre_tokenizer"]["add_prefix_space"] = json!(true), "`add_prefix_space` false"),
        ("mistral", |t, _| t["pre_tokenizer"]["split"] = json!(true), "`split` false"),
        ("mistral", |t, _| t["pre_tokenizer"]["replacement"] = json!("_"), "`replacement`"),
        ("mistral", |t, _| t["normalizer"] = json!({"type": "NFC"}), "none before `Metaspace`"),
        ("gemma", |t, _| t["normalizer"] = json!({"type": "Lowercase"}), "`normalizer`"),
        ("gemma", |t, _| t["normalizer"] = Value::Null, "`normalizer`"),
        (
            "gemma",
            |t, _| t["normalizer"] = json!({"type": "Sequence"}),
            "`normalizer.normalizers` is no list",
        ),
        ("gemma", |t, _| t["normalizer"] = json!([]), "`normalizer` has no `type`"),
        ("gpt2", |t, _| t["decoder"] = json!({"type": "WordPiece"}), "`decoder`"),
        ("gpt2", |t, _| t["post_processor"] = json!({"type": "BertProcessing"}), "`post_processor`"),
        ("gpt2", |t, _| t["decoder"]["more"] = json!(vec![0; 20_000]), "more than 10000 values"),
        (
            "gpt2",
            |_, c| c["chat_template"] = json!("{% include '/etc/passwd' %}"),
            "the chat template is refused",
        ),
    ];
    for (family, change, message) in cases {
        let given = load(family, change);
        assert!(given.contains(message), "{family}: {given:?} should contain {message:?}");
    }
    // T134.
    let nested = format!("{{\"model\":{{}},\"normalizer\":{}{}", "[".repeat(5000), "]".repeat(5000));
    for tokenizer in ["", "{}", "[]", "{\"model\": null}", &nested] {
        let files = TextFiles { tokenizer: tokenizer.to_owned(), ..TextFiles::default() };
        assert!(matches!(Text::from_files(&files, &[]), Err(TextError::File { .. })), "{tokenizer:.20}");
    }
    let error = TextFiles::read(Path::new("/nonexistent")).unwrap_err().to_string();
    assert_eq!(error, "`tokenizer.json`: it is not in the model folder");
}

/// Ids that no token has are filled up to a number.
#[test]
fn gaps_between_ids() {
    let files = TextFiles::read(&fixture("phi4")).unwrap();
    let mut tokenizer: Value = serde_json::from_str(&files.tokenizer).unwrap();
    let count = tokenizer["model"]["vocab"].as_object().unwrap().len() as u32;
    for (at, token) in tokenizer["added_tokens"].as_array_mut().unwrap().iter_mut().enumerate() {
        token["id"] = json!(count + 10 * (at as u32 + 1));
    }
    let files = TextFiles { tokenizer: tokenizer.to_string(), ..files };
    let text = Text::from_files(&files, &[]).unwrap();
    assert_eq!(text.tokenizer.encode("<|endoftext|>", Specials::Parse).unwrap(), [count + 10]);
    assert_eq!(text.tokenizer.vocab_size() as u32, count + 51);
    let made = text.tokenizer.encode("[PAD340]", Specials::Parse).unwrap();
    assert!(made.iter().all(|&id| id < count), "{made:?}");
}

/// T130, T131: texts that hurt other tokenizers take no time here.
#[test]
fn long_texts() {
    for family in ["llama3", "phi4", "mistral"] {
        let text = Text::from_folder(&fixture(family), &[]).unwrap();
        for unit in ["a", "\n", " ", " \n", "'s", "1", "\u{301}", "Aa", "//", "\u{1100}"] {
            let long = unit.repeat(400_000 / unit.len());
            let start = Instant::now();
            text.tokenizer.encode(&long, Specials::AsText).unwrap();
            assert!(start.elapsed() < Duration::from_secs(10), "{family} {unit:?} {:?}", start.elapsed());
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]
    /// Bytes changed, cut out or put in anywhere: an error or a tokenizer that works, never a panic.
    #[test]
    fn damaged_folders(
        family in prop::sample::select(vec!["llama3", "llama2", "qwen", "phi3"]),
        edits in prop::collection::vec((any::<prop::sample::Index>(), 0usize..4, "[\\x00-\\x7fé]{0,4}"), 1..5),
        structure in any::<bool>(),
    ) {
        let mut files = TextFiles::read(&fixture(family)).unwrap();
        let mut bytes = files.tokenizer.into_bytes();
        // The vocabulary is most of the file; damage the components about as often.
        let head = bytes.windows(7).position(|window| window == b"\"model\"").unwrap_or(bytes.len());
        for (at, cut, put) in edits {
            let at = at.index(if structure { head.min(bytes.len()) } else { bytes.len() });
            let end = (at + cut).min(bytes.len());
            bytes.splice(at..end, put.into_bytes());
        }
        files.tokenizer = String::from_utf8_lossy(&bytes).into_owned();
        if let Ok(text) = Text::from_files(&files, &[]) {
            let ids = text.tokenizer.encode("Hello  wörld\n\n123 <|user|>", Specials::Parse).unwrap();
            prop_assert!(ids.iter().all(|&id| (id as usize) < text.tokenizer.vocab_size()));
            text.tokenizer.decode(&ids, true);
        }
    }
}
