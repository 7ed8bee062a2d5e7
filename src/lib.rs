//! demeanor: a local inference server that gives every request its own personality.
//!
//! The rooms and their ranks are described in ARCHITECTURE.md; a file uses rooms of a lower rank only.

pub mod algebra;
pub mod alignment;
pub mod app;
pub mod cli;
pub mod config;
pub mod constraint;
pub mod digest;
pub mod encoder;
pub mod engine;
pub mod evaluation;
pub mod format;
#[doc(hidden)]
pub mod fuzz;
pub mod jobs;
pub mod kernels;
pub mod limits;
pub mod model;
pub mod names;
pub mod persona;
pub mod probe;
pub mod report;
pub mod server;
pub mod shipped;
pub mod speed;
pub mod statistics;
pub mod steering;
pub mod store;
pub mod sync;
pub mod text;
pub mod users;
pub mod verify;
pub mod weights;
