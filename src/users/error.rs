//! Why something about a user was refused: what was wrong, where, what was given and what is allowed.

/// Every refusal of this room. Nothing of a person's texts is ever part of a message.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum UsersError {
    /// A tensor or projector that does not fit the loaded model: says both sides.
    #[error("{0}")]
    DoesNotFit(String),
    /// A projector or soft prompt file that breaks a rule of its format.
    #[error("{what}: {rule}")]
    BadFile { what: String, rule: String },
}
