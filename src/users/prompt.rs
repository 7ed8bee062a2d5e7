//! What a request gets of a person: the soft prompt in force, or why there is none.

use crate::digest::Digest;
use crate::model::SoftRows;

/// What `user` of a request stands for.
#[derive(Clone, Debug)]
pub enum UserPrompt {
    /// The server holds nothing of this name: the request is served plainly.
    Unknown,
    /// A user without a usable soft prompt; says why, for `demeanor.warnings`.
    NotReady(String),
    Ready {
        rows: SoftRows,
        /// `u1@3`: user and version of the history that the rows were made from.
        label: String,
        /// False: the rows are the projector's constant prompt, no user effect is expected.
        effect: bool,
        /// Whose rows these are, for the engine: what must go when the user is deleted.
        owner: Digest,
    },
}

/// A soft prompt stored under a name of its own.
#[derive(Clone, Debug)]
pub struct NamedPrompt {
    pub rows: SoftRows,
    /// `poet@1`: name and version.
    pub label: String,
}
