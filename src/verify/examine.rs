//! The check itself: each part of a model is read as a server would read it, except the weights.

use super::{Facts, Report, Severity, printable};
use crate::encoder;
use crate::model::{Model, ModelError};
use crate::text::{ChatOptions, Message, Role, Specials, Text, TextError};
use crate::weights::Container;
use std::path::Path;

/// A chat in which every template should find its way.
const SAMPLE: [(Role, &str); 4] = [
    (Role::System, "You are brief."),
    (Role::User, "Name a colour."),
    (Role::Assistant, "Blue."),
    (Role::User, "Another one, e\u{301} \u{4e2d} \u{1f642}!"),
];

/// Reads the model, or the sentence encoder, at `path`.
pub fn examine(path: &Path) -> Report {
    let given = path.display().to_string();
    if path.join("1_Pooling").is_dir() {
        let mut report = Report { path: given, kind: Some("sentence encoder".into()), ..Report::default() };
        if let Err(error) = encoder::check(path, SAMPLE[3].1) {
            report.add(Severity::Error, "file", error);
        }
        return report;
    }
    match Container::open(path) {
        Ok(container) => Report { path: given, ..examine_container(&container) },
        Err(error) => {
            let mut report = Report { path: given, ..Report::default() };
            report.add(Severity::Error, "file", error);
            report
        }
    }
}

/// What a server would find in an opened model, its path left out. One bad part does not keep the others from being read.
pub fn examine_container(container: &Container) -> Report {
    let kind = match container {
        Container::Gguf(_) => "GGUF file",
        Container::Folder(_) => "model folder",
    };
    let mut report = Report { kind: Some(kind.into()), ..Report::default() };
    report.model = match Model::check(container) {
        Ok(config) => Some(Facts {
            architecture: printable(&config.architecture),
            parameters: container.tensors().map(|tensor| tensor.elements() as u64).sum(),
            n_blocks: config.n_blocks,
            d_model: config.d_model,
            n_heads: config.n_heads,
            n_kv_heads: config.n_kv_heads,
            vocab_size: config.vocab_size,
            trained_context: config.trained_context,
            tensors: container.tensors().count(),
            quantisation: container.quantisation().into(),
            bytes: container.file_bytes(),
        }),
        Err(error) => {
            let of_settings = matches!(
                error,
                ModelError::Architecture { .. } | ModelError::MissingKey { .. } | ModelError::Range { .. }
            );
            report.add(Severity::Error, if of_settings { "settings" } else { "tensors" }, error);
            None
        }
    };
    match Text::from_container(container) {
        Ok(text) => read_text(&text, &mut report),
        Err(error) => {
            let of_template = matches!(error, TextError::TemplateLoad(_));
            report.add(Severity::Error, if of_template { "template" } else { "tokenizer" }, error);
        }
    }
    report
}

/// Whether a model whose embedding table has so many rows knows every token that its tokenizer makes.
pub fn check_fit(text: &Text, rows: usize) -> Result<(), String> {
    match text.tokenizer.vocab_size() {
        tokens if tokens > rows => {
            Err(format!("the tokenizer has {tokens} tokens, the embedding table {rows} rows"))
        }
        _ => Ok(()),
    }
}

fn read_text(text: &Text, report: &mut Report) {
    let rows = report.model.as_ref().map(|model| model.vocab_size);
    if let Some(Err(problem)) = rows.map(|rows| check_fit(text, rows)) {
        report.add(Severity::Error, "tokenizer", problem);
    }
    if text.tokenizer.stop_tokens().is_empty() {
        report.add(Severity::Warning, "tokenizer", "no token ends an answer");
    }
    let messages: Vec<Message> = SAMPLE.iter().map(|(role, content)| Message::new(*role, content)).collect();
    for (_, content) in SAMPLE {
        match text.tokenizer.encode(content, Specials::AsText) {
            Ok(ids) if text.tokenizer.decode(&ids, false).trim() != content => {
                let message = format!("`{content}` comes back changed from its tokens");
                report.add(Severity::Warning, "tokenizer", message);
            }
            Ok(_) => {}
            Err(error) => report.add(Severity::Error, "tokenizer", error),
        }
    }
    match text.chat(&messages, &ChatOptions::default()) {
        Ok(encoded) => {
            encoded.warnings.iter().for_each(|warning| report.add(Severity::Warning, "template", warning));
        }
        Err(error) => report.add(Severity::Error, "template", error),
    }
}
