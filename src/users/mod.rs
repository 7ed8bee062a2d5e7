//! What the server holds of a person: history, its embedding, and the soft prompt made from it.

mod error;
mod identity;
mod prompt;
mod service;
mod time;

pub use error::UsersError;
pub use identity::UserId;
pub use prompt::{NamedPrompt, UserPrompt};
pub use service::Users;
pub use time::Timestamp;
