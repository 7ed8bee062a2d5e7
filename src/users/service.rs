//! The users of a server: the one handle through which history is added, read, embedded and forgotten.

use super::error::UsersError;
use super::prompt::{NamedPrompt, UserPrompt};
use std::sync::Arc;

/// Handle to everything the server holds of people; cheap to clone.
#[derive(Clone)]
pub struct Users {
    inner: Arc<Inner>,
}

struct Inner {}

impl Users {
    /// A server that knows nobody.
    pub fn nobody() -> Users {
        Users { inner: Arc::new(Inner {}) }
    }

    /// The soft prompt of a user. `query` is the last user message, for projectors that look at it. May read the store
    /// and run the encoder: call it off the async threads.
    pub fn prompt_for(&self, _id: &str, _query: Option<&str>) -> UserPrompt {
        let _ = &self.inner;
        UserPrompt::Unknown
    }

    /// A stored soft prompt for the loaded model.
    pub fn named(&self, _name: &str) -> Result<Option<NamedPrompt>, UsersError> {
        Ok(None)
    }
}
