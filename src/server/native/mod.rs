//! Our own routes: personas, users, scores, vectors, traits, tokenizer, health, metrics. Unknown fields are refused here.

mod personas;
mod score;
mod status;
mod tokens;
mod users;
mod vectors;

pub use personas::{create_persona, delete_persona, list_personas, put_persona, show_persona};
pub use score::score;
pub use status::{health, live, metrics, ready, root};
pub use tokens::{apply_template, detokenize, tokenize, tokenizer_info};
pub use users::{
    add_history, create_user, delete_item, delete_user, export_user, list_history, list_users, show_user,
};
pub use vectors::{
    delete_vector, export_vector, list_traits, list_vectors, show_trait, show_vector, upload_vector,
};
