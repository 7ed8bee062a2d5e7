//! Why a probe did not end with a report.

use crate::engine::{SequenceError, SubmitError};
use crate::jobs::JobsError;
use crate::text::TextError;
use crate::users::UsersError;

#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    /// A set, a suite, a list of personas or a report that cannot be read.
    #[error("{file}: {message}")]
    File { file: String, message: String },
    #[error("there is no suite `{given}`; there are {known}")]
    UnknownSuite { given: String, known: String },
    #[error("a prompt of the probe cannot be made: {0}")]
    Text(#[from] TextError),
    #[error("the engine refused a prompt of the probe: {0}")]
    Submit(#[from] SubmitError),
    #[error("the engine gave up a prompt of the probe: {0}")]
    Sequence(#[from] SequenceError),
    #[error("the engine ended a prompt of the probe without its scores")]
    Incomplete,
    #[error("the soft prompt of user `{id}` is not ready: {why}; try again when it is")]
    SoftPrompt { id: String, why: String },
    #[error("there is no soft prompt `{name}` for the loaded model")]
    NoSoftPrompt { name: String },
    /// Boxed: it is far larger than the others.
    #[error(transparent)]
    Users(Box<UsersError>),
    #[error(transparent)]
    Jobs(#[from] JobsError),
    #[error("cancelled")]
    Cancelled,
}

impl From<UsersError> for ProbeError {
    fn from(error: UsersError) -> ProbeError {
        ProbeError::Users(Box::new(error))
    }
}

impl ProbeError {
    pub(super) fn file(file: &str, message: impl Into<String>) -> ProbeError {
        ProbeError::File { file: file.to_owned(), message: message.into() }
    }
}
