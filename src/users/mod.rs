//! What the server holds of a person: history, its embedding, and the soft prompt made from it.

mod error;
pub mod people;
pub mod projector;
pub mod train;

pub use error::UsersError;
pub use projector::{Form, Projector, UserRows, WeightedEmbedding};
