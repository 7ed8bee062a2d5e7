//! What can be wrong with a shape, and what can go wrong on the way.

/// Errors of the constraint room. All but `Busy` and `Unavailable` are the asker's.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum ConstraintError {
    #[error("{given} bytes are too long; at most {max} are compiled")]
    TooLong { given: usize, max: usize },
    #[error("{what} {given} levels deep; at most {max} are compiled")]
    TooDeep { what: &'static str, given: usize, max: usize },
    #[error("{0}")]
    Shape(String),
    /// The grammar engine does not take it.
    #[error("it cannot be enforced: {0}")]
    Refused(String),
    #[error("it takes longer than {seconds} s to compile; simplify it")]
    TooSlow { seconds: u64 },
    /// A limit was reached while an answer was being written.
    #[error("the constraint on the answer became too complex: {0}")]
    TooComplex(String),
    #[error("other constraints are being compiled; try again")]
    Busy,
    /// The vocabulary of this model does not go with the grammar engine.
    #[error("answers of this model cannot be constrained: {0}")]
    Unavailable(String),
}

/// Where the engine panicked.
pub(super) const FAILED: &str = "the grammar engine failed on it";

/// A message of the grammar engine, short, and without what is ours to know only.
pub(super) fn cleaned(message: &str) -> String {
    if message.contains("panic:") {
        return FAILED.to_owned();
    }
    let text = message.split("<non-verbose/>").next().unwrap_or_default().trim();
    let flat: String = text.split_whitespace().collect::<Vec<_>>().join(" ");
    flat.chars().take(400).collect()
}
