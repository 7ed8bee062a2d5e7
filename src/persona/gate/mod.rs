//! The gate: which conditions are served, decided by what the safety probe measured on them.
//!
//! A report binds to the persona digest ([`Reports`] keeps the newest of each), so one changed byte in prompt, plan or
//! soft prompt is another persona without a report. [`Thresholds`] says what a report must show, and judges it anew when
//! it is asked, so that a changed file judges old numbers. Not here: how something is measured (`probe`), what a request's
//! fields look like (`server`).

mod admission;
mod error;
mod judge;
mod measured;
mod reports;
mod thresholds;

pub use admission::{
    Admitted, Case, CasePersona, CaseSoft, Direction, Gate, NotAdmitted, Standing, State, directions,
    not_planned,
};
pub use error::GateError;
pub use judge::{Judgement, Verdict};
pub use measured::{Aspect, Change, Measured, SCHEMA};
pub use reports::Reports;
pub use thresholds::{AdHoc, Against, Bound, Rule, Thresholds};
