//! Our own routes: personas, probe, users, soft prompts, scores, vectors, traits, jobs, tokenizer, health, metrics. Unknown fields
//! are refused here.

mod activations;
mod align;
mod before;
mod jobs;
mod personas;
mod probe;
mod score;
mod soft_prompts;
mod status;
mod tokens;
mod users;
mod vectors;

pub use activations::activations;
pub use align::align;
pub use jobs::{cancel_job, job_events, list_jobs, show_job};
pub use personas::{create_persona, delete_persona, list_personas, put_persona, show_card, show_persona};
pub use probe::{show_report, start_probe};
pub use score::score;
pub use soft_prompts::{
    delete_soft_prompt, export_soft_prompt, list_soft_prompts, show_soft_prompt, upload_soft_prompt,
};
pub use status::{health, live, metrics, props, ready, root};
pub use tokens::{apply_template, detokenize, tokenize, tokenizer_info};
pub use users::{
    add_history, create_user, delete_item, delete_user, export_user, list_history, list_users, show_user,
};
pub use vectors::{
    delete_vector, export_vector, list_traits, list_vectors, show_trait, show_vector, upload_vector,
};
