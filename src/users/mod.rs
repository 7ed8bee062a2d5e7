//! What the server holds of a person: history, its embedding, and the soft prompt made from it.

mod error;
pub mod projector;

pub use error::UsersError;
pub use projector::{Form, Projector, UserRows, WeightedEmbedding};
