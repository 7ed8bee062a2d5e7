//! One configurable decoder with hook points: config as data, rows of a step, edits, kv, rope, CPU backend.

mod edits;
mod rows;

pub use edits::{BlockEdits, Change, Edit, Edits, Phase, RowRule};
pub use rows::{CaptureSpec, Input, PageId, Row, Rows, Slot, SoftRows, StepOutput, TokenId, Wants};
