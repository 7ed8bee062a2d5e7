//! Why something about a persona was refused: what was wrong, what was given, and what to do.

use super::card::CardError;
use super::soft::Offer;

/// Every refusal of this room. `param` is the field at fault.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum PersonaError {
    #[error("`{param}`: `{given}` is no name of a persona; names match [a-z0-9][a-z0-9._-]{{0,63}}")]
    BadName { param: &'static str, given: String },
    #[error("`{param}`: there is no persona `{name}`{}", hint(.nearest))]
    Unknown { param: String, name: String, nearest: Vec<String> },
    #[error("`version`: persona `{name}` has no version {version}; the newest is {newest}")]
    UnknownVersion { name: String, version: u32, newest: u32 },
    #[error(
        "`name`: there is a persona `{name}` already (version {version}); `PUT /v1/personas/{name}` makes a new version"
    )]
    Exists { name: String, version: u32 },
    /// The caller's idea of what is stored is out of date.
    #[error("`if-match`: persona `{name}` is at {}; read it again", state(.version))]
    Changed { name: String, version: Option<u32> },
    #[error("`name`: {max} {what} are stored, no more are kept; delete some first")]
    TooMany { what: &'static str, max: u64 },
    #[error("`{param}`: {given} bytes are too long; at most {max}")]
    TooLong { param: &'static str, given: usize, max: usize },
    /// A request can have one soft prompt.
    #[error(
        "`{second}`: brings {second_is}, but `{first}` brings {first_is}; a request has one soft prompt, \
         `\"soft_prompt\": false` turns all of them off"
    )]
    TwoSoftPrompts { first: &'static str, first_is: String, second: &'static str, second_is: String },
    #[error("`{param}`: {error}")]
    Card { param: &'static str, error: CardError },
    #[error(
        "`card`: `{given}` is neither a card nor the digest of the one that persona `{name}` has now; send the whole card"
    )]
    UnknownCard { name: String, given: String },
    /// A stored row that this build cannot read.
    #[error("the stored persona `{name}` (version {version}) cannot be read: {message}")]
    Stored { name: String, version: u32, message: String },
    #[error("the disk of the data folder is full; nothing was changed")]
    DiskFull,
    /// The disk failed; nothing the client can mend.
    #[error("{0}")]
    Store(String),
}

impl PersonaError {
    /// The field of the request that is wrong, where there is one.
    pub fn param(&self) -> Option<&str> {
        match self {
            PersonaError::BadName { param, .. } | PersonaError::TooLong { param, .. } => Some(param),
            PersonaError::Unknown { param, .. } => Some(param),
            PersonaError::UnknownVersion { .. } => Some("version"),
            PersonaError::Exists { .. } | PersonaError::TooMany { .. } => Some("name"),
            PersonaError::Changed { .. } => Some("if-match"),
            PersonaError::TwoSoftPrompts { second, .. } => Some(second),
            PersonaError::Card { param, .. } => Some(param),
            PersonaError::UnknownCard { .. } => Some("card"),
            PersonaError::Stored { .. } | PersonaError::DiskFull | PersonaError::Store(_) => None,
        }
    }

    pub(super) fn two_soft_prompts(first: &Offer, second: &Offer) -> PersonaError {
        PersonaError::TwoSoftPrompts {
            first: first.carrier,
            first_is: first.source.to_string(),
            second: second.carrier,
            second_is: second.source.to_string(),
        }
    }
}

fn hint(nearest: &[String]) -> String {
    if nearest.is_empty() {
        return "; `GET /v1/personas` lists them".to_owned();
    }
    let names: Vec<String> = nearest.iter().map(|name| format!("`{name}`")).collect();
    format!("; nearest: {}", names.join(", "))
}

fn state(version: &Option<u32>) -> String {
    version.map_or_else(|| "no version: it does not exist".to_owned(), |version| format!("version {version}"))
}
