//! Why a thresholds file or a report was refused: what is wrong, where, what was given, what is allowed.

use crate::store::StoreError;

/// Every refusal of this room.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum GateError {
    /// Not the form of the file at all.
    #[error("{what}: {rule}")]
    Malformed { what: &'static str, rule: String },
    /// The form is right, a value is not one that a gate may have.
    #[error("`{path}`: {given} is out of range; allowed: {allowed}")]
    Range { path: String, given: String, allowed: String },
    /// A report that was measured on something else than it is to be kept for.
    #[error("the report is about the persona digest {given}, not about {wanted}; probe the persona again")]
    OtherSubject { given: String, wanted: String },
    #[error("the report has {given} bytes; at most {max} are kept")]
    TooLarge { given: usize, max: usize },
    #[error("the disk of the data folder is full; the report was not kept")]
    DiskFull,
    /// The disk failed; nothing the caller can mend.
    #[error("{0}")]
    Store(String),
}

impl GateError {
    /// Whether the file is of the right form and its values are the fault: settings that cannot be met.
    pub fn is_range(&self) -> bool {
        matches!(self, GateError::Range { .. })
    }
}

impl From<StoreError> for GateError {
    fn from(error: StoreError) -> GateError {
        match error {
            StoreError::Full { .. } => GateError::DiskFull,
            other => GateError::Store(other.to_string()),
        }
    }
}
