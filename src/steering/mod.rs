//! Everything about vectors that has a name: traits, extraction, files, expressions, dose, and the way from a request to
//! the numbers that the model adds.
//!
//! A request's way: [`SteeringRequest`] (what was asked, checked on its own) -> [`Library::plan`] (names to vectors, made
//! on first use) -> [`Applied`] (the model's [`Edits`](crate::model::Edits), and what the answer says about them).
//! Not here: what an edit does to a row (`model`), personas (`persona`), HTTP (`server`).

mod blocks;
mod calibration;
mod dose;
mod error;
mod expression;
mod extraction;
pub mod formats;
mod info;
mod library;
mod maker;
mod measure;
mod names;
mod norms;
mod plan;
mod report;
mod request;
mod store;
mod traits;
mod vector;

pub use crate::text::json_kind;
pub use blocks::BlockSet;
pub use dose::{Hook, Norms};
pub use error::SteeringError;
pub use expression::{Expression, Operation, Positions, Term, When};
pub use info::{OriginInfo, VectorInfo};
pub use library::{Library, LibraryOptions};
pub use maker::{Pending, State};
pub use names::{NAME_BYTES_MAX, edit_distance, is_valid_name, nearest as nearest_names};
pub use plan::{Applied, AppliedVector, edits_for};
pub use report::{CheckOptions, Effect, TraitReport, TraitsReport, check_traits};
pub use request::{Intervention, RequestRules, Source, SteeringRequest, Unit};
pub use traits::{Contrast, Trait};
pub use vector::{Calibration, ModelShape, Origin, Provenance, Vector};
