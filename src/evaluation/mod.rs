//! Benchmarks that a running model is scored on, one file each; they reach the model as clients do.
