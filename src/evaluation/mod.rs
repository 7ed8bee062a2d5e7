//! Benchmarks that a running model is scored on, one folder each; they reach the model as clients do.

pub mod bbq;
pub mod benchmark;
pub mod conditions;
pub mod crows_pairs;
mod csv;
pub mod papi;
mod scored;
pub mod users;
