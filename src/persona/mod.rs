//! Resolution of what a request names to a Condition. No personas are stored yet; a condition is plan + sampling.

mod condition;

pub use condition::{Condition, Serving};
