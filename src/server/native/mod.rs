//! Our own routes: scores, vectors, traits, tokenizer, health, metrics. Unknown fields are refused here.

mod score;
mod status;
mod tokens;

pub use score::score;
pub use status::{health, live, metrics, ready, root};
pub use tokens::{apply_template, detokenize, tokenize, tokenizer_info};
