//! Personality alignment: what a person answered to a questionnaire, and a persona that leans the same way.
//!
//! `inventory` is the questionnaires as data, `scoring` what a person's answers say. Answers are *raw*, what the person
//! ticked from 1 (very inaccurate) to 5 (very accurate); *keyed* is the same turned to the domain's direction, 6 - raw
//! where an item's key is -1. Only scores are keyed; what a model reads or answers is raw.

mod aligned;
mod aligner;
mod ask;
mod compile;
mod error;
mod forms;
mod gradients;
pub mod inventory;
mod linear;
mod pas;
mod prepare;
mod prepared;
mod ridge;
pub mod scoring;
mod service;

pub use aligned::{Algorithm, Aligned, Protocol};
pub use aligner::{Aligner, Told};
pub use error::AlignmentError;
pub use inventory::{Domain, Inventory, Item, Norm};
pub use prepare::BaseWeights;
pub use scoring::{Answers, DomainScores};
pub use service::{AlignmentParts, AlignmentRequest, Alignments};
