//! Model folders: what is read equals what was written; bad ones and the rule each breaks.

use super::safetensors::{NewTensor, StoredType, write_tensors};
use super::scratch::Scratch;
use super::*;
use crate::format::ElementFormat;
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

/// A folder that goes with the test.
struct Folder(Scratch);

impl Folder {
    fn new(files: &[(&str, &[u8])]) -> Folder {
        let folder = Scratch::new();
        for (name, bytes) in files {
            folder.write(name, bytes);
        }
        Folder(folder)
    }

    fn open(&self) -> Result<ModelFolder, WeightsError> {
        ModelFolder::open(&self.0.0)
    }
}

fn shard(tensors: &[(&str, &[usize], &[f32], StoredType)]) -> Vec<u8> {
    let tensors: Vec<NewTensor<'_>> = (tensors.iter())
        .map(|&(name, shape, values, stored)| NewTensor { name, shape, values, stored })
        .collect();
    write_tensors(&BTreeMap::new(), &tensors)
}

/// A file whose header is this text.
fn raw(header: &str, data: usize) -> Vec<u8> {
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend_from_slice(header.as_bytes());
    bytes.resize(bytes.len() + data, 0);
    bytes
}

const ONE: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";
const CONFIG: (&str, &[u8]) = ("config.json", br#"{"model_type":"llama","eos_token_id":7}"#);

#[test]
fn one_file_is_read() {
    let tensors = shard(&[
        ("b", &[2, 2], &[1.0, 2.0, 3.0, 4.0], StoredType::F32),
        ("a", &[2], &[0.5, -1.5], StoredType::F16),
    ]);
    let folder = Folder::new(&[CONFIG, (ONE, &tensors)]);
    let container = Container::open(&folder.0.0).unwrap();
    let names: Vec<String> = container.tensors().map(|view| view.name.to_owned()).collect();
    assert_eq!(names, ["a", "b"]);
    let view = container.tensor("b").unwrap();
    assert_eq!((view.shape, view.format), (vec![2, 2], ElementFormat::F32));
    assert_eq!(view.data, [1f32, 2.0, 3.0, 4.0].map(f32::to_le_bytes).concat());
    assert_eq!(container.tensor("a").unwrap().data.len(), 4);
    assert_eq!(container.file_bytes(), tensors.len() as u64);
    container.scan_finite().unwrap();
    // Settings and weights are in the digest; it is the same every time.
    let digest = container.digest();
    assert_eq!(folder.open().unwrap().digest(), digest);
    fs::write(folder.0.0.join(CONFIG.0), br#"{"model_type":"llama","eos_token_id":8}"#).unwrap();
    assert_ne!(folder.open().unwrap().digest(), digest);
}

#[test]
fn shards_are_read_by_their_index() {
    let (a, b) =
        (shard(&[("a", &[1], &[1.0], StoredType::F32)]), shard(&[("b", &[1], &[f32::NAN], StoredType::F32)]));
    let index =
        br#"{"metadata":{"total_size":8},"weight_map":{"a":"m-1.safetensors","b":"m-2.safetensors"}}"#;
    let files: [(&str, &[u8]); 4] =
        [CONFIG, ("m-1.safetensors", &a), ("m-2.safetensors", &b), (INDEX, index)];
    let folder = Folder::new(&files).open().unwrap();
    assert_eq!(folder.tensors().count(), 2);
    let error = folder.scan_finite().unwrap_err().to_string();
    assert!(error.contains("m-2.safetensors") && error.contains("non-finite weight: `b`"), "{error}");
}

#[test]
fn end_tokens_are_a_number_or_a_list() {
    let weights = shard(&[("a", &[1], &[1.0], StoredType::F32)]);
    for (generation, expected) in [
        (None, Ok(vec![7])),
        (Some(r#"{"eos_token_id":[1,106]}"#), Ok(vec![1, 106])),
        (Some(r#"{"eos_token_id":5}"#), Ok(vec![5])),
        (Some(r#"{"eos_token_id":null}"#), Ok(vec![7])),
        (Some(r#"{"eos_token_id":-1}"#), Err(())),
        (Some(r#"{"eos_token_id":["a"]}"#), Err(())),
    ] {
        let mut files: Vec<(&str, &[u8])> = vec![CONFIG, (ONE, &weights)];
        files.extend(generation.map(|text| ("generation_config.json", text.as_bytes())));
        let found = Folder::new(&files).open().unwrap().end_tokens();
        assert_eq!(found.map_err(|_| ()), expected, "{generation:?}");
    }
}

/// Name and bytes of a file.
type Content<'a> = (&'a str, &'a [u8]);

#[test]
fn bad_folders_are_named_by_their_fault() {
    let good = shard(&[("a", &[1], &[1.0], StoredType::F32)]);
    let other = shard(&[("b", &[1], &[1.0], StoredType::F32)]);
    let index = |map: &str| format!(r#"{{"weight_map":{map}}}"#).into_bytes();
    let deep = "[".repeat(100_000);
    let span = r#""shape":[1],"data_offsets":[0,4]"#;
    let cases: [(&[Content], &str); 17] = [
        (&[(ONE, &good)], "config.json"),
        (&[("config.json", b"[1]"), (ONE, &good)], "not a JSON object"),
        (&[("config.json", b"\xff"), (ONE, &good)], "not UTF-8"),
        (&[("config.json", &[b' '; (1 << 20) + 1]), (ONE, &good)], "more than 1048576 bytes"),
        (&[("config.json", deep.as_bytes()), (ONE, &good)], "not a JSON object"),
        (&[CONFIG], "neither `model.safetensors` nor"),
        (&[CONFIG, (ONE, b"")], "an empty file"),
        (&[CONFIG, (ONE, &u64::MAX.to_le_bytes())], "at most 8388608 are allowed"),
        (&[CONFIG, (ONE, &raw(&format!(r#"{{"a":{{"dtype":"I64",{span}}}}}"#), 4))], "F32, F16 and BF16"),
        (&[CONFIG, (ONE, &raw(&format!(r#"{{"a":{{"dtype":"F16",{span}}}}}"#), 4))], "does not take 4 bytes"),
        (&[CONFIG, (INDEX, &index("[]"))], "`weight_map` must be an object"),
        (&[CONFIG, (INDEX, &index("{}"))], "0 shards"),
        (&[CONFIG, (INDEX, &index(r#"{"a":"../m.safetensors"}"#))], "is no `NAME.safetensors`"),
        (&[CONFIG, (INDEX, &index(r#"{"a":"/etc/m.safetensors"}"#))], "is no `NAME.safetensors`"),
        (&[CONFIG, (INDEX, &index(r#"{"a":"m.safetensors"}"#))], "cannot open"),
        (
            &[CONFIG, ("m.safetensors", &other), (INDEX, &index(r#"{"a":"m.safetensors"}"#))],
            "tensor `a` is not in `m.safetensors`",
        ),
        (
            &[
                CONFIG,
                ("m.safetensors", &good),
                ("n.safetensors", &good),
                (INDEX, &index(r#"{"a":"m.safetensors","b":"n.safetensors"}"#)),
            ],
            "tensor `a` is in two shards",
        ),
    ];
    for (files, part) in cases {
        let error = Folder::new(files).open().err().expect(part).to_string();
        assert!(error.contains(part), "expected {part}: {error}");
    }
}

proptest! {
    #[test]
    fn no_index_panics(text in r#"[{}\[\]":,a-c./]{0,40}"#) {
        let good = shard(&[("a", &[1], &[1.0], StoredType::F32)]);
        let folder = Folder::new(&[CONFIG, ("a.safetensors", &good), (INDEX, text.as_bytes())]);
        let _ = folder.open();
    }
}

#[test]
fn a_path_is_opened_as_what_it_is() {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/models/gemma2");
    assert!(matches!(Container::open(&fixtures).unwrap(), Container::Folder(_)));
    assert!(matches!(Container::open(&fixtures.join("model.gguf")).unwrap(), Container::Gguf(_)));
}
