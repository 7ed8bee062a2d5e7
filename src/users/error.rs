//! Why something about a user was refused: what was wrong, where, what was given and what is allowed.

/// Every refusal of this room. Nothing of a person's texts is ever part of a message.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum UsersError {
    /// A user id outside the rule of [`super::UserId`].
    #[error("`{param}`: `{given}` is no user id; ids match [A-Za-z0-9][A-Za-z0-9._@:|+-]{{0,127}}")]
    BadId { param: String, given: String },
    #[error("there is no user `{id}`; hint: `POST /v1/users` with {{\"id\": \"{id}\"}} makes one")]
    Unknown { id: String },
    #[error("there is a user `{id}` already; `POST /v1/users/{id}/history` adds to its history")]
    Exists { id: String },
    #[error("user `{id}` has no history item `{item}`; `GET /v1/users/{id}/history` lists them")]
    UnknownItem { id: String, item: String },
    /// A field of a history item: missing, of a wrong type or out of its range. `param` is `items[3].weight`.
    #[error("`{param}`: {message}")]
    Item { param: String, message: String },
    /// A field that history items do not have.
    #[error("`{param}`: unknown field; a history item knows {known}")]
    UnknownField { param: String, known: String },
    /// More than a user may have.
    #[error(
        "user `{id}` would have {given} {unit}; at most {max} are kept, delete old items or choose fewer"
    )]
    Full { id: String, given: u64, max: u64, unit: &'static str },
    #[error("{given} users exist; at most {max} are kept")]
    TooManyUsers { given: u64, max: u64 },
    /// A tensor or projector that does not fit the loaded model: says both sides.
    #[error("{0}")]
    DoesNotFit(String),
    /// A projector's file that breaks a rule of its format.
    #[error("projector: {rule}")]
    BadFile { rule: String },
    /// A soft prompt's file that breaks a rule, or rows that do not fit the loaded model.
    #[error("soft prompt: {rule}")]
    SoftPromptFile { rule: String },
    /// Another kind of file, by its first bytes. Nothing of it was looked at.
    #[error("{found} is not taken; soft prompts come as safetensors files; hint: save with safetensors")]
    NotSafetensors { found: &'static str },
    #[error(
        "soft prompt: row {row} has length {norm:.4}; the loaded model's embeddings allow {low:.4} to {high:.4}"
    )]
    SoftPromptRange { row: usize, norm: f32, low: f32, high: f32 },
    #[error("soft prompt: row {row} points where control token {token} does; no row may stand in for one")]
    ControlTokenAlias { row: usize, token: u32 },
    #[error("there is no soft prompt `{name}` for the loaded model; `GET /v1/soft_prompts` lists them")]
    UnknownSoftPrompt { name: String },
    #[error("there is a soft prompt `{name}` already; send `replace` to put another in its place")]
    SoftPromptExists { name: String },
    #[error("{max} soft prompts are stored for this model; delete one first")]
    TooManySoftPrompts { max: usize },
    /// The disk is full; nothing was changed.
    #[error("the disk of the data folder is full; nothing was changed")]
    DiskFull,
    /// The disk or the encoder failed; nothing the client can mend.
    #[error("{0}")]
    Internal(String),
}

impl UsersError {
    /// The field of the request that is wrong, where there is one.
    pub fn param(&self) -> Option<&str> {
        match self {
            UsersError::BadId { param, .. }
            | UsersError::Item { param, .. }
            | UsersError::UnknownField { param, .. } => Some(param),
            _ => None,
        }
    }

    pub(super) fn item(param: impl Into<String>, message: impl Into<String>) -> UsersError {
        UsersError::Item { param: param.into(), message: message.into() }
    }
}
