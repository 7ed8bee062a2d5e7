//! What can go wrong between text and tokens.

use crate::weights::WeightsError;

/// Errors of the text room. Those a client can cause (`TooLong`, `Template`, `TemplateLimit`, `Argument`) are answered
/// with a 400; the others stop a model from loading.
#[derive(Debug, thiserror::Error)]
pub enum TextError {
    #[error("`{key}`: `{given}` is not supported; supported: {supported}")]
    Unsupported { key: &'static str, given: String, supported: String },
    #[error("`{key}` is missing in the model file")]
    Missing { key: &'static str },
    /// A file of a model folder.
    #[error("`{file}`: {reason}")]
    File { file: &'static str, reason: String },
    #[error("tokenizer/model mismatch: {0}")]
    Vocabulary(String),
    #[error("the chat template is refused: {0}")]
    TemplateLoad(String),
    #[error("the text has {bytes} bytes; at most {max} are tokenised")]
    TooLong { bytes: usize, max: usize },
    /// The template raised. `message` is the index of the first message it does not take.
    #[error("{}the chat template says: {reason}", at(*.message))]
    Template { message: Option<usize>, reason: String },
    #[error("the chat template ran past its limit: {reason}")]
    TemplateLimit { reason: String },
    #[error("`{name}`: {reason}")]
    Argument { name: String, reason: String },
    /// A panic inside tokenisation, caught.
    #[error("the text could not be tokenised")]
    Failed,
    #[error(transparent)]
    Weights(#[from] WeightsError),
}

fn at(message: Option<usize>) -> String {
    message.map(|index| format!("`messages[{index}]`: ")).unwrap_or_default()
}
