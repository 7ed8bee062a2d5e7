//! What is found in the fixtures of every family, and in files that lack something or lie.

use super::*;
use crate::weights::{Container, GgufWriter, ModelFile};
use std::path::{Path, PathBuf};

const FAMILIES: [&str; 7] = ["llama", "mistral", "qwen2", "qwen3", "gemma2", "gemma3", "phi3"];

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)
}

/// The parts that were found wrong.
fn wrong(report: &Report) -> Vec<&str> {
    let errors = report.findings.iter().filter(|finding| finding.severity == Severity::Error);
    errors.map(|finding| finding.part.as_str()).collect()
}

/// A model whose file is changed by `change`.
fn changed(change: impl FnOnce(&mut GgufWriter<'_>)) -> Report {
    let whole = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus/gguf_model/llama.gguf");
    let file = ModelFile::open(&whole).unwrap();
    let mut writer = GgufWriter::copy_of(&file);
    change(&mut writer);
    let file = ModelFile::from_bytes(Path::new("changed.gguf"), writer.to_bytes().unwrap()).unwrap();
    examine_container(&Container::from(file))
}

/// Every tensor of every family in both containers is known to the check: none is left over, none is missing.
#[test]
fn tensors_of_all_families_are_known() {
    for family in FAMILIES {
        for path in [fixture(&format!("models/{family}/model.gguf")), fixture(&format!("models/{family}"))] {
            let container = Container::open(&path).unwrap();
            let report = examine_container(&container);
            assert!(
                !wrong(&report).iter().any(|part| ["settings", "tensors"].contains(part)),
                "{}: {:?}",
                path.display(),
                report.findings
            );
            let facts = report.model.unwrap();
            assert!(facts.n_blocks > 0 && facts.parameters > 1000 && facts.tensors > 10, "{facts:?}");
        }
    }
}

#[test]
fn a_model_that_can_be_served_has_no_error() {
    let report = changed(|_| {});
    assert!(report.is_good(), "{:?}", report.findings);
    assert_eq!(report.kind.as_deref(), Some("GGUF file"));
    assert_eq!(report.model.unwrap().architecture, "llama");
}

#[test]
fn each_part_is_found_wrong_by_itself() {
    type Change = fn(&mut GgufWriter<'_>);
    let table: [(Change, &[&str]); 6] = [
        (
            |writer| {
                writer.remove_tensor("blk.0.ffn_up.weight");
            },
            &["tensors"],
        ),
        (
            |writer| {
                writer.tensor_f32("blk.0.ffn_up.bias", &[4], &[0.0; 4]);
            },
            &["tensors"],
        ),
        (
            |writer| {
                writer.u32("llama.attention.head_count", 0);
            },
            &["settings"],
        ),
        (
            |writer| {
                writer.string_array("tokenizer.ggml.tokens", &["a", "a"]);
            },
            &["tokenizer"],
        ),
        (
            |writer| {
                writer.string("tokenizer.chat_template", "{{ 'x' * 100000000 }}");
            },
            &["template"],
        ),
        (
            |writer| {
                writer.u32("llama.block_count", 1 << 31).remove_key("tokenizer.ggml.model");
            },
            &["settings", "tokenizer"],
        ),
    ];
    for (index, (change, parts)) in table.into_iter().enumerate() {
        let report = changed(change);
        assert_eq!(wrong(&report), parts, "{index}: {:?}", report.findings);
    }
}

#[test]
fn what_cannot_be_opened_is_said() {
    let report = examine(&fixture("cards"));
    assert_eq!((wrong(&report), report.kind.is_some()), (vec!["file"], false), "{report:?}");
}

#[test]
fn a_strangers_words_stay_on_one_line() {
    let mut report = Report::default();
    report.add(Severity::Error, "file", format!("a\u{1b}[2Jb\nc{}", "d".repeat(10_000)));
    let message = &report.findings[0].message;
    assert!(message.starts_with("a [2Jb cd") && message.len() < 1000, "{message}");
    (0..100).for_each(|_| report.add(Severity::Error, "file", "x"));
    assert_eq!(report.findings.len(), VERIFY_FINDINGS_MAX);
}
