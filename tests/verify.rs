//! `demeanor verify`, and the check that verbs make before they open a stranger's model: files that harm whoever reads
//! them end one process, with a message and status 65.

use crate::harness::{TestModel, data_folder, demeanor, done, empty_folder};
use demeanor::weights::{GgufWriter, ModelFile};
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

fn corpus(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(name)
}

/// A whole model of one block.
fn tiny() -> PathBuf {
    corpus("gguf_model/llama.gguf")
}

/// A small good model with another template.
fn with_template(folder: &Path, name: &str, template: &str) -> String {
    let file = ModelFile::open(&tiny()).expect("a fixture");
    let mut writer = GgufWriter::copy_of(&file);
    writer.string("tokenizer.chat_template", template);
    let path = folder.join(name);
    fs::write(&path, writer.to_bytes().expect("it fits")).expect("writable");
    path.display().to_string()
}

/// Status and standard error.
fn refused(arguments: &[&str]) -> (Option<i32>, String) {
    let output = demeanor(arguments);
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

#[test]
fn a_good_model_is_described() {
    let path = TestModel::SmolLm2.path().display().to_string();
    let (out, _) = done(&["verify", &path]);
    for part in ["GGUF file", "llama", "30 blocks of width 576", "49152 tokens", "findings  none"] {
        assert!(out.contains(part), "{part}: {out}");
    }
    let (out, _) = done(&["verify", "--json", &path]);
    let report: Value = serde_json::from_str(&out).expect("JSON");
    assert_eq!(
        (report["model"]["n_blocks"].as_u64(), report["findings"].as_array().map(Vec::len)),
        (Some(30), Some(0))
    );
}

#[test]
fn bad_files_are_refused_with_the_reason() {
    let folder = empty_folder("verify-bad");
    let whole = fs::read(tiny()).expect("a fixture");
    let write = |name: &str, bytes: &[u8]| {
        let path = folder.join(name);
        fs::write(&path, bytes).expect("writable");
        path.display().to_string()
    };
    let corpus = |name: &str| corpus(name).display().to_string();
    let doubling = "{% set ns = namespace(a='x') %}{% for i in range(60) %}{% set ns.a = ns.a + ns.a %}{% endfor %}{{ ns.a }}";
    let table = [
        (write("empty.gguf", b""), "truncated header"),
        (write("cut.gguf", &whole[..whole.len() / 2]), "tensor out of file"),
        (corpus("gguf/alignment_0.gguf"), "general.alignment"),
        (corpus("gguf/items_2_32.gguf"), "4294967296 array items"),
        (corpus("gguf/shape_2_64.gguf"), "shape overflow"),
        (with_template(&folder, "long.gguf", "{{ 'x' * 100000000 }}"), "template"),
        (with_template(&folder, "doubling.gguf", doubling), "template"),
    ];
    for (path, part) in &table {
        let (status, message) = refused(&["verify", path]);
        assert_eq!(status, Some(65), "{path}: {message}");
        assert!(message.contains(part) && message.lines().count() == 1, "{part}: {message}");
    }
    // Serving says the same of them.
    for (path, _) in &table[1..7] {
        let (status, message) = refused(&["serve", "--port", "0", "-m", path]);
        assert_eq!(status, Some(65), "{path}: {message}");
    }
}

/// A folder whose settings never end: a pipe that nobody writes to.
fn endless(name: &str) -> String {
    let folder = empty_folder(name);
    let made = Command::new("mkfifo").arg(folder.join("config.json")).status().expect("mkfifo runs");
    assert!(made.success());
    folder.display().to_string()
}

#[test]
fn a_file_that_never_ends_is_given_up() {
    let path = endless("verify-endless");
    let begin = Instant::now();
    let (status, message) = refused(&["verify", "--seconds", "1", &path]);
    assert_eq!(status, Some(65), "{message}");
    assert!(message.contains("did not end within 2 s") && message.contains("--seconds"), "{message}");
    assert!(begin.elapsed() < Duration::from_secs(60));
}

/// The widest vocabulary of the tests under a limit that it cannot keep.
#[cfg(target_os = "linux")]
#[test]
fn a_file_that_wants_too_much_memory_ends_its_reader_only() {
    let path = TestModel::Gemma.path().display().to_string();
    let (status, message) = refused(&["verify", "--memory-mib", "24", &path]);
    assert_eq!(status, Some(65), "{message}");
    assert!(message.contains("needed more than 24 MiB of memory"), "{message}");
    assert!(message.contains("--memory-mib") && !message.contains("panicked at"), "{message}");
    done(&["verify", &path]);
}

/// What the sentence encoder's folder says is read by a library of others.
#[test]
fn the_tokenizer_of_an_encoder_is_checked() {
    let folder = empty_folder("verify-encoder");
    fs::create_dir(folder.join("1_Pooling")).expect("writable");
    let write = |name: &str, text: &str| fs::write(folder.join(name), text).expect("writable");
    write(
        "config.json",
        r#"{"model_type":"bert","hidden_act":"gelu","num_hidden_layers":2,"hidden_size":8,"num_attention_heads":2,
        "intermediate_size":16,"vocab_size":300,"max_position_embeddings":64,"type_vocab_size":2,"layer_norm_eps":1e-12}"#,
    );
    write("sentence_bert_config.json", r#"{"max_seq_length":32,"do_lower_case":false}"#);
    write(
        "1_Pooling/config.json",
        r#"{"word_embedding_dimension":8,"pooling_mode_cls_token":false,"pooling_mode_mean_tokens":true,
        "pooling_mode_max_tokens":false,"pooling_mode_mean_sqrt_len_tokens":false}"#,
    );
    // Cuts a character in half.
    write(
        "tokenizer.json",
        r#"{"version":"1.0","truncation":null,"padding":null,"added_tokens":[],"normalizer":null,"pre_tokenizer":null,
        "post_processor":null,"decoder":null,"model":{"type":"BPE","dropout":null,"unk_token":null,
        "continuing_subword_prefix":"x","end_of_word_suffix":null,"fuse_unk":false,"byte_fallback":false,
        "vocab":{"a":0,"é":1},"merges":[["a","é"]]}}"#,
    );
    let path = folder.display().to_string();
    let (status, message) = refused(&["verify", &path]);
    assert_eq!(status, Some(65), "{message}");
    let model = tiny().display().to_string();
    let (status, message) = refused(&["vectors", "list", "-m", &model, "--encoder", &path]);
    assert_eq!(status, Some(65), "{message}");
}

/// Verbs check what the catalogue does not vouch for, unless they are told not to.
#[test]
fn verbs_check_before_they_open() {
    let model = tiny();
    let list = |more: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_demeanor"))
            .args(["vectors", "list", "-m"])
            .arg(&model)
            .args(more)
            .env("DEMEANOR_DATA_DIR", data_folder())
            .env("RUST_LOG", "demeanor=info")
            .stdin(Stdio::null())
            .output()
            .expect("it runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stderr).contains("checked in a process of its own")
    };
    assert!(list(&[]));
    assert!(!list(&["--no-verify"]));
}
