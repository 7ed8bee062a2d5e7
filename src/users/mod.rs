//! What the server holds of a person: history, its embedding, and the soft prompt made from it.
//!
//! `identity` and `history` check what comes from outside, `projector` makes rows from embeddings, `service` is the one
//! handle, `serving` finds the soft prompt of a request, `embedder` works in the background. `lives` and the turns of
//! `service` are why a deleted user does not come back by something that was on its way. `soft_prompts` keeps rows that
//! came in a file of one of the `formats`. `people` and `train` make projectors and run apart from serving.

mod embedder;
mod error;
mod export;
pub mod formats;
mod history;
mod identity;
mod lives;
mod memory;
pub mod people;
pub mod projector;
mod prompt;
mod recency;
mod service;
mod serving;
mod shipped;
mod soft_prompts;
mod time;
pub mod train;

pub use error::UsersError;
pub use history::{ITEM_FIELDS, Item, Kind, NewItem, embedding_text};
pub use identity::UserId;
pub use projector::{Form, Projector, UserRows, WeightedEmbedding};
pub use prompt::{NamedPrompt, UserPrompt};
pub use recency::Recency;
pub use service::{AddedItems, Receipt, UserState, Users, UsersOptions, now};
pub use shipped::shipped_projector;
pub use soft_prompts::{AdapterFiles, SoftPromptInfo, SoftPrompts};
pub use time::Timestamp;
