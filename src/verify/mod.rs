//! What a model's files say, checked before a server opens them: settings, tensors' names and shapes, tokenizer, template.
//!
//! [`examine`] reads everything but the weights and renders a small chat. It runs in a process of its own, which sets its
//! own limits first ([`confine`]); [`supervise`] starts that process, waits no longer than it may take, and says what became
//! of it. So what a library of others makes of a stranger's file (a panic, an abort, no end) is an exit status here.
//! Not here: whether the weights are finite and have the right sha256, which the loader checks.

mod confine;
mod examine;
mod supervise;

pub use confine::confine;
pub use examine::{check_fit, examine, examine_container};
pub use supervise::{Bounds, VerifyError, supervise};

use crate::limits::VERIFY_FINDINGS_MAX;
use serde::{Deserialize, Serialize};

/// What was found at a path.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// As it was given.
    pub path: String,
    /// `GGUF file`, `model folder` or `sentence encoder`; `None`: it could not be opened.
    pub kind: Option<String>,
    pub model: Option<Facts>,
    /// In the order in which they were found.
    pub findings: Vec<Finding>,
}

/// What a model is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Facts {
    pub architecture: String,
    /// Numbers in all tensors together.
    pub parameters: u64,
    pub n_blocks: usize,
    pub d_model: usize,
    pub n_heads: usize,
    pub n_kv_heads: usize,
    /// Rows of the embedding table.
    pub vocab_size: usize,
    pub trained_context: u32,
    pub tensors: usize,
    /// How they are rounded, in short.
    pub quantisation: String,
    /// Of the weights.
    pub bytes: u64,
}

/// Something that a person should know.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Finding {
    pub severity: Severity,
    /// `file`, `settings`, `tensors`, `tokenizer`, `template`.
    pub part: String,
    /// One line.
    pub message: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// The model cannot be served.
    Error,
    /// It can, but not as its makers may have meant.
    Warning,
}

impl Report {
    /// Whether a server may open it.
    pub fn is_good(&self) -> bool {
        self.first_error().is_none()
    }

    pub fn first_error(&self) -> Option<&Finding> {
        self.findings.iter().find(|finding| finding.severity == Severity::Error)
    }

    fn add(&mut self, severity: Severity, part: &str, message: impl std::fmt::Display) {
        if self.findings.len() < VERIFY_FINDINGS_MAX {
            let message = printable(&message.to_string());
            self.findings.push(Finding { severity, part: part.to_owned(), message });
        }
    }
}

/// A stranger's words on one line of a terminal: nothing in it controls one.
fn printable(text: &str) -> String {
    let plain = text.chars().map(|c| if c.is_control() { ' ' } else { c });
    plain.take(crate::limits::MESSAGE_CHARS_MAX).collect()
}

#[cfg(test)]
mod tests;
