//! What an answer may be: a schema, an expression, a list or a grammar, compiled once a request, and the tokens that may
//! come next, computed beside the model's steps. Knows the bytes of tokens; knows no logits, no sampling, no HTTP.
//!
//! The way of a request: [`Shape`] (what was asked, checked for size) -> [`Grammars::compile`] -> [`Constraint`] ->
//! [`Constraint::begin`] for each choice -> [`Masks`], which the engine asks for a [`Mask`] before each draw.
//!
//! The grammar engine is the crate llguidance. Everything that it spends is counted in steps, never in time, so that a
//! mask depends on the grammar and the tokens alone.

mod error;
mod gbnf;
mod grammars;
mod masks;
mod shape;
mod vocabulary;

pub use error::ConstraintError;
pub use grammars::{Compiled, Grammars};
pub use masks::{Constraint, Mask, Masks};
pub use shape::{Call, Shape};
