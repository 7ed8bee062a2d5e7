//! Personality alignment: what a person answered to a questionnaire, and a persona that leans the same way.
//!
//! `inventory` is the questionnaires as data, `scoring` what a person's answers say. Answers are *raw*, what the person
//! ticked from 1 (very inaccurate) to 5 (very accurate); *keyed* is the same turned to the domain's direction, 6 - raw
//! where an item's key is -1. Only scores are keyed; what a model reads or answers is raw.

mod error;
pub mod inventory;
pub mod scoring;

pub use error::AlignmentError;
pub use inventory::{Domain, Inventory, Item, Norm};
pub use scoring::{Answers, DomainScores};
