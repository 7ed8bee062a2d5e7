//! Our own routes: scores, vectors, traits, tokenizer, health, metrics. Unknown fields are refused here.

mod score;
mod status;
mod tokens;
mod vectors;

pub use score::score;
pub use status::{health, live, metrics, ready, root};
pub use tokens::{apply_template, detokenize, tokenize, tokenizer_info};
pub use vectors::{
    delete_vector, export_vector, list_traits, list_vectors, show_trait, show_vector, upload_vector,
};
