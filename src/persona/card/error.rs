//! Why a file is not taken as a character card or Modelfile.

/// Every refusal of a card: what, where, given, allowed.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum CardError {
    #[error("{what}: {given} are too many; at most {max}")]
    TooMany { what: String, given: usize, max: usize },
    #[error("{what}: {given} bytes are too long; at most {max}")]
    TooLong { what: String, given: usize, max: usize },
    #[error(
        "is no character card: {0}; a card is JSON, a PNG picture with a `chara` or `ccv3` chunk, a CHARX archive or an \
         Ollama Modelfile"
    )]
    Unknown(String),
    #[error("the PNG picture, byte {offset}: {rule}")]
    Png { offset: usize, rule: String },
    #[error("the CHARX archive: {0}")]
    Charx(String),
    /// The text of a chunk.
    #[error("the chunk `{chunk}`: {rule}")]
    Chunk { chunk: String, rule: String },
    #[error("the card's JSON{place}: {message}", place = .field.as_ref().map(|field| format!(" in `{field}`")).unwrap_or_default())]
    Json { field: Option<String>, message: String },
    #[error("`{path}`: must be {wanted}, not {given}")]
    Kind { path: String, wanted: &'static str, given: &'static str },
    #[error("`{path}`: `{given}` is not known; this build reads {allowed}")]
    Version { path: &'static str, given: String, allowed: &'static str },
    #[error("the Modelfile, line {line}: {message}")]
    Modelfile { line: usize, message: String },
}

impl CardError {
    /// Refuses more bytes than `max`.
    pub fn check_bytes(given: usize, max: usize, what: impl FnOnce() -> String) -> Result<(), CardError> {
        if given > max { Err(CardError::TooLong { what: what(), given, max }) } else { Ok(()) }
    }

    /// Refuses more things than `max`.
    pub fn check_count(given: usize, max: usize, what: impl FnOnce() -> String) -> Result<(), CardError> {
        if given > max { Err(CardError::TooMany { what: what(), given, max }) } else { Ok(()) }
    }
}
