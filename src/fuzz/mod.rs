//! One function for each kind of outside data, for fuzzing: it returns whatever the bytes are, and what it takes keeps its
//! promises.
//!
//! `fuzz/` drives the functions with libFuzzer, `tests/fuzz.rs` with seeded changes of the same corpus. Each says whether
//! its bytes were taken, so that a corpus which is refused at the first byte is noticed.

mod data;
mod files;
mod personas;
mod requests;
mod texts;

/// One kind of data.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// Of its corpus and of its file under `fuzz/fuzz_targets`.
    pub name: &'static str,
    /// Whether the bytes were taken.
    pub read: fn(&[u8]) -> bool,
}

const fn target(name: &'static str, read: fn(&[u8]) -> bool) -> Target {
    Target { name, read }
}

/// All of them, by name.
pub const TARGETS: [Target; 21] = [
    target("card_charx", personas::card),
    target("card_json", personas::card),
    target("card_png", personas::card),
    target("chat_body", requests::chat),
    target("completion_body", requests::completion),
    target("config_json", texts::config),
    target("constraint", requests::constraint),
    target("expression", requests::expression),
    target("gguf", files::gguf),
    target("gguf_model", files::gguf_model),
    target("inventory", data::inventory),
    target("lorebook", personas::lorebook),
    target("modelfile", personas::card),
    target("people", data::people),
    target("persona", personas::persona),
    target("probe_report", data::probe_report),
    target("safetensors", files::safetensors),
    target("soft_prompt", files::soft_prompt),
    target("template", texts::template),
    target("tokenizer_json", texts::tokenizer),
    target("vector", files::vector),
];

/// Runs the target of this name.
pub fn run(name: &str, bytes: &[u8]) {
    let found = TARGETS.iter().find(|target| target.name == name);
    (found.expect("a target of the table").read)(bytes);
}

/// The bytes as text; every parser of text is given UTF-8.
fn text(bytes: &[u8]) -> Option<&str> {
    std::str::from_utf8(bytes).ok()
}
