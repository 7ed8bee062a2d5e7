//! Benchmarks that a running model is scored on, one folder each; they reach the model as clients do.

pub mod users;
