//! What the binary is asked to load: each file is refused with 65 and by its name.

use super::{Given, Row};
use crate::thinking::{TEMPLATE, chain_model};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

/// Writes files and makes rows of them.
struct Maker<'a> {
    folder: &'a Path,
    rows: Vec<Row>,
}

impl Maker<'_> {
    fn path(&self, extension: &str) -> PathBuf {
        self.folder.join(format!("f{}.{extension}", self.rows.len()))
    }

    /// A model file.
    fn model(&mut self, id: &'static str, input: &str, bytes: &[u8]) {
        let path = self.path("gguf");
        std::fs::write(&path, bytes).expect("writable");
        self.refused(id, input, &path, &path.file_name().expect("a name").to_string_lossy());
    }

    /// The model at a path, which is refused by a message with `part` in it.
    fn refused(&mut self, id: &'static str, input: &str, path: &Path, part: &str) {
        let arguments = ["vectors", "list", "-m", &path.display().to_string()].map(str::to_owned).to_vec();
        self.rows.push(Row::new(
            id,
            format!("a model: {input}"),
            Given::Run(arguments),
            &format!("65 {part}"),
        ));
    }

    /// A folder of the tiny model's weights and a family's tokenizer, with changes; `part`: the file to be named.
    fn folder(&mut self, id: &'static str, input: &str, part: &str, change: impl FnOnce(&Path)) {
        let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
        let path = self.path("folder");
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir_all(&path).expect("writable");
        for (from, names) in [
            ("models/llama", &["config.json", "generation_config.json", "model.safetensors"][..]),
            ("tokenizers/llama3", &["tokenizer.json", "tokenizer_config.json"][..]),
        ] {
            for name in names {
                std::fs::copy(fixtures.join(from).join(name), path.join(name)).expect("a fixture");
            }
        }
        change(&path);
        // What two files say of each other is said of the folder.
        let part = match part {
            "tokenizer.json" => "tokenizer.json|.folder: tokenizer/model mismatch",
            "config.json" => "config.json|.folder: architecture",
            other => other,
        };
        self.refused(id, input, &path, part);
    }

    /// A folder with one JSON file changed.
    fn json(&mut self, id: &'static str, input: &str, file: &'static str, change: impl FnOnce(&mut Value)) {
        self.folder(id, input, file, |folder| {
            let text = std::fs::read_to_string(folder.join(file)).expect("a file");
            let mut value = serde_json::from_str(&text).expect("JSON");
            change(&mut value);
            std::fs::write(folder.join(file), value.to_string()).expect("writable");
        });
    }

    /// A folder with one file's bytes in the place of its own.
    fn bytes(&mut self, id: &'static str, input: &str, file: &'static str, bytes: &[u8]) {
        self.folder(id, input, file, |folder| std::fs::write(folder.join(file), bytes).expect("writable"));
    }

    /// A vector file.
    fn vector(&mut self, id: &'static str, input: &str, model: &Path, extension: &str, bytes: &[u8]) {
        let path = self.path(extension);
        std::fs::write(&path, bytes).expect("writable");
        let name = path.file_name().expect("a name").to_string_lossy().into_owned();
        let (path, model) = (path.display().to_string(), model.display().to_string());
        let arguments = ["vectors", "import", &path, "--name", "x", "-m", &model].map(str::to_owned).to_vec();
        self.rows.push(Row::new(
            id,
            format!("a vector: {input}"),
            Given::Run(arguments),
            &format!("65 {name}"),
        ));
    }

    /// A character card.
    fn card(&mut self, input: &str, model: &Path, extension: &str, bytes: &[u8]) {
        let path = self.path(extension);
        std::fs::write(&path, bytes).expect("writable");
        let name = path.file_name().expect("a name").to_string_lossy().into_owned();
        let (path, model) = (path.display().to_string(), model.display().to_string());
        let arguments = ["persona", "import", &path, "--name", "x", "-m", &model].map(str::to_owned).to_vec();
        self.rows.push(Row::new(
            "",
            format!("a card: {input}"),
            Given::Run(arguments),
            &format!("65 {name}"),
        ));
    }
}

/// The good model with the bytes behind the first `marker` changed.
fn patched(good: &[u8], marker: &str, offset: usize, bytes: &[u8]) -> Vec<u8> {
    let at = good.windows(marker.len()).position(|window| window == marker.as_bytes()).expect("the marker");
    let at = at + marker.len() + offset;
    let mut changed = good.to_vec();
    changed[at..at + bytes.len()].copy_from_slice(bytes);
    changed
}

/// A file of so many tensors and entries, with nothing behind.
fn header(version: u32, tensors: u64, entries: u64) -> Vec<u8> {
    [&b"GGUF"[..], &version.to_le_bytes(), &tensors.to_le_bytes(), &entries.to_le_bytes()].concat()
}

fn entry(key: &str, kind: u32, value: &[u8]) -> Vec<u8> {
    [&(key.len() as u64).to_le_bytes()[..], key.as_bytes(), &kind.to_le_bytes(), value].concat()
}

fn tensor(name: &str, dimensions: &[u64], kind: u32, offset: u64) -> Vec<u8> {
    let mut bytes = [&(name.len() as u64).to_le_bytes()[..], name.as_bytes()].concat();
    bytes.extend((dimensions.len() as u32).to_le_bytes());
    bytes.extend(dimensions.iter().flat_map(|size| size.to_le_bytes()));
    bytes.extend(kind.to_le_bytes());
    bytes.extend(offset.to_le_bytes());
    bytes
}

/// A file of these tensors with 64 bytes of data.
fn tensors(list: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = header(3, list.len() as u64, 0);
    bytes.extend(list.concat());
    bytes.resize(bytes.len().next_multiple_of(32) + 64, 0);
    bytes
}

pub fn rows(folder: &Path) -> Vec<Row> {
    let mut make = Maker { folder, rows: Vec::new() };
    gguf(&mut make);
    templates(&mut make);
    safetensors(&mut make);
    tokenizers(&mut make);
    let model = folder.join("good.gguf");
    std::fs::write(&model, chain_model(TEMPLATE)).expect("writable");
    let pickle = b"\x80\x04\x95\x10\0\0\0";
    make.vector("T112", "a pickle called .pt", &model, "pt", pickle);
    make.vector("T111", "a pickle called .safetensors", &model, "safetensors", pickle);
    make.vector("T113", "a header of 2^63", &model, "safetensors", &(1u64 << 63).to_le_bytes());
    make.vector("T100", "GGUF and no more", &model, "gguf", b"GGUF");
    make.vector("", "JSON cut short", &model, "json", b"{\"directions\": {\"0\": [1,");
    let cards = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/cards");
    for name in ["bad_bomb.png", "bad_traversal.charx", "bad_deep.json", "bad_adapter.modelfile"] {
        let bytes = std::fs::read(cards.join(name)).expect("a fixture");
        make.card(name, &model, name.rsplit('.').next().unwrap_or_default(), &bytes);
    }
    make.rows
}

fn gguf(make: &mut Maker) {
    let good = chain_model(TEMPLATE);
    make.model("T100", "0 bytes", b"");
    make.model("T100", "GGUF alone", b"GGUF");
    make.model("T100", "23 bytes", &good[..23]);
    for share in [3, 50, 90, 99] {
        make.model("T101", &format!("cut at {share} %"), &good[..good.len() * share / 100]);
    }
    make.model("T110b", "version 4", &header(4, 0, 0));
    make.model("T110b", "big-endian", &[&b"GGUF"[..], &3u32.to_be_bytes(), &[0; 16]].concat());
    make.model("T105", "2^32 tensors", &header(3, 1 << 32, 0));
    make.model("T105", "2^63 entries", &header(3, 0, 1 << 63));
    for alignment in [0u32, 3, 1 << 31] {
        let bytes = [header(3, 0, 1), entry("general.alignment", 4, &alignment.to_le_bytes())].concat();
        make.model("T104", &format!("alignment {alignment}"), &bytes);
    }
    make.model("T110b", "a bool of 2", &[header(3, 0, 1), entry("a", 7, &[2])].concat());
    make.model(
        "T110b",
        "a text of 2^62",
        &[header(3, 0, 1), entry("a", 8, &(1u64 << 62).to_le_bytes())].concat(),
    );
    let repeated = entry("a", 4, &[0; 4]);
    make.model("T110c", "a key twice", &[header(3, 0, 2), repeated.clone(), repeated].concat());
    make.model("T106", "5 dimensions", &tensors(&[tensor("w", &[1; 5], 0, 0)]));
    make.model("T107", "2^32 x 2^32 values", &tensors(&[tensor("w", &[1 << 32, 1 << 32], 0, 0)]));
    make.model("T102", "a tensor behind the end", &tensors(&[tensor("w", &[8], 0, 1 << 40)]));
    make.model("T103", "tensors that overlap", &tensors(&[tensor("a", &[8], 0, 0), tensor("b", &[8], 0, 0)]));
    make.model("T110c", "a tensor twice", &tensors(&[tensor("a", &[8], 0, 0), tensor("a", &[8], 0, 32)]));
    make.model("T110b", "an unknown type", &tensors(&[tensor("w", &[8], 999, 0)]));
    // What is well formed and no model.
    make.model("T109", "no entries", &header(3, 0, 0));
    for (key, value) in [
        ("llama.block_count", 0u32),
        ("llama.block_count", 1 << 31),
        ("llama.attention.head_count", 0),
        ("llama.attention.head_count", 3),
        ("llama.embedding_length", 1 << 31),
        ("llama.rope.dimension_count", 33),
    ] {
        make.model("T109", &format!("{key} {value}"), &patched(&good, key, 4, &value.to_le_bytes()));
    }
    make.model(
        "T109",
        "an end token of 2^31",
        &patched(&good, "eos_token_id", 4, &(1u32 << 31).to_le_bytes()),
    );
    make.model(
        "T109",
        "an epsilon of NaN",
        &patched(&good, "layer_norm_rms_epsilon", 4, &f32::NAN.to_le_bytes()),
    );
    make.model("", "an unknown architecture", &patched(&good, "general.architecture", 12, b"xxxxx"));
    let mut broken = good.clone();
    let at = broken.len() - 4;
    broken[at..].copy_from_slice(&f32::NAN.to_le_bytes());
    make.model("T110d", "a weight that is not a number", &broken);
}

fn templates(make: &mut Maker) {
    for (id, input, template) in [
        ("T136", "a way to the system", "{{ lipsum.__globals__['os'].popen('id').read() }}"),
        ("T137", "a file of the system", "{% include '/etc/passwd' %}"),
        ("T137", "a parent", "{% extends 'x' %}"),
        (
            "T139",
            "a thousand million rounds",
            "{% for a in range(999) %}{% for b in range(999) %}{% for c in range(999) %}x{% endfor %}{% endfor %}{% endfor %}",
        ),
        (
            "T140",
            "a text of 10^9",
            "{{ 'x' * 100000000 }}{{ 'x' * 100000000 }}{{ 'x' * 100000000 }}{{ 'x' * 100000000 }}",
        ),
        ("T140", "an indent of 10^9", "{{ messages | tojson(indent=1000000000) }}"),
        ("", "a bracket that stays open", "{% for m in messages %}{{ m.content"),
        ("", "10000 brackets", &"(".repeat(10_000)),
    ] {
        let template =
            if input == "10000 brackets" { format!("{{{{ {template} }}}}") } else { template.to_owned() };
        make.model(id, &format!("a template with {input}"), &chain_model(&template));
    }
}

fn safetensors(make: &mut Maker) {
    const WEIGHTS: &str = "model.safetensors";
    let of = |header: &str, data: usize| {
        [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &vec![0; data]].concat()
    };
    let one = r#""dtype":"F32","shape":[1],"data_offsets":[0,4]"#;
    make.bytes("T111", "a pickle", WEIGHTS, b"\x80\x04\x95\x10\0\0\0\0\0\0\0");
    make.bytes("T111", "a zip", WEIGHTS, b"PK\x03\x04\x14\0\0\0\0\0\0\0");
    make.bytes("T113", "a header of 2^63", WEIGHTS, &(1u64 << 63).to_le_bytes());
    make.bytes("T113", "a header of 100 MB", WEIGHTS, &100_000_001u64.to_le_bytes());
    make.bytes("T115", "a header 100000 deep", WEIGHTS, &of(&"[".repeat(100_000), 0));
    make.bytes("T115", "bytes that are no tensor's", WEIGHTS, &of(&format!("{{\"a\":{{{one}}}}}"), 8));
    make.bytes(
        "T116",
        "a shape of 2^64",
        WEIGHTS,
        &of(r#"{"a":{"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,4]}}"#, 4),
    );
    make.bytes("T117", "a tensor twice", WEIGHTS, &of(&format!("{{\"a\":{{{one}}},\"a\":{{{one}}}}}"), 4));
    make.folder("T120", "a shard in the folder above", "safetensors.index.json", |folder| {
        std::fs::remove_file(folder.join(WEIGHTS)).expect("it is there");
        let index = json!({"weight_map": {"a": "../x.safetensors"}}).to_string();
        std::fs::write(folder.join("model.safetensors.index.json"), index).expect("writable");
    });
    make.folder("T112", "weights as a pickle alone", "safetensors", |folder| {
        std::fs::rename(folder.join(WEIGHTS), folder.join("pytorch_model.bin")).expect("it is there");
    });
    const CONFIG: &str = "config.json";
    make.bytes("T119", "a configuration 100000 deep", CONFIG, "[".repeat(100_000).as_bytes());
    make.json("T119", "an unknown architecture", CONFIG, |config| config["model_type"] = json!("x"));
    make.json("T119", "10^9 layers", CONFIG, |config| config["num_hidden_layers"] = json!(1_000_000_000));
    make.json("T119", "a rope of 0", CONFIG, |config| config["rope_theta"] = json!(0));
    make.json("T119", "no heads", CONFIG, |config| config["num_attention_heads"] = json!(0));
}

fn tokenizers(make: &mut Maker) {
    const FILE: &str = "tokenizer.json";
    make.bytes("T134", "a tokenizer 5000 deep", FILE, format!("{{\"model\":{}", "[".repeat(5000)).as_bytes());
    make.bytes("", "a tokenizer of nothing", FILE, b"");
    for (id, input, change) in [
        (
            "T122",
            "a merge of no token",
            (|t| t["model"]["merges"][0] = json!(["aa", "bb"])) as fn(&mut Value),
        ),
        ("T123", "a prefix of ####", |t| t["model"]["continuing_subword_prefix"] = json!("####")),
        ("T124", "a prefix and a letter of two bytes", |t| {
            t["model"]["continuing_subword_prefix"] = json!("x");
            t["model"]["merges"][0] = json!(["a", "é"]);
        }),
        ("T125", "a compiled normaliser", |t| {
            t["normalizer"] = json!({"type": "Precompiled", "precompiled_charsmap": "AAAA"})
        }),
        ("T126", "a special token that is not there", |t| t["post_processor"]["special_tokens"] = json!({})),
        ("T128", "pieces of length 0", |t| t["pre_tokenizer"] = json!({"type": "FixedLength", "length": 0})),
        ("T130", "an expression that backtracks", |t| {
            t["pre_tokenizer"]["pretokenizers"][0]["pattern"] = json!({"Regex": "(a|aa)+$"})
        }),
        ("T132", "a token 4000000000", |t| t["added_tokens"][0]["id"] = json!(4_000_000_000u32)),
        ("T133", "a token -1", |t| t["model"]["vocab"]["!"] = json!(-1)),
        ("T133", "two texts of one token", |t| t["model"]["vocab"]["!"] = json!(7)),
    ] {
        make.json(id, input, FILE, change);
    }
}
