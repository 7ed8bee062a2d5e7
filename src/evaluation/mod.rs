//! Benchmarks that a running model is scored on, one folder each; they reach the model as clients do.

mod linear;
pub mod papi;
mod scored;
pub mod users;
