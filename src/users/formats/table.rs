//! Rows of input embeddings as numbers that every model could take: their count and finiteness are checked.

use crate::limits::{SOFT_ROWS_MAX, WIDTH_MAX};
use crate::users::error::UsersError;

/// `[rows, d_model]`, 1 to 64 rows, finite.
#[derive(Clone, Debug, PartialEq)]
pub struct RowTable {
    /// Row-major.
    values: Vec<f32>,
    rows: usize,
    d_model: usize,
}

impl RowTable {
    pub fn new(values: Vec<f32>, rows: usize, d_model: usize) -> Result<RowTable, UsersError> {
        let bad = |rule: String| Err(UsersError::SoftPromptFile { rule });
        if !(1..=SOFT_ROWS_MAX).contains(&rows) {
            return bad(format!("{rows} rows; a soft prompt has 1 to {SOFT_ROWS_MAX}"));
        }
        if !(1..=WIDTH_MAX as usize).contains(&d_model) || Some(values.len()) != rows.checked_mul(d_model) {
            return bad(format!("{} values for {rows} rows of {d_model}", values.len()));
        }
        let table = RowTable { values, rows, d_model };
        let damaged = table.iter().position(|row| row.iter().any(|value| !value.is_finite()));
        match damaged {
            Some(row) => bad(format!("row {row} holds a number that is not finite")),
            None => Ok(table),
        }
    }

    pub fn rows(&self) -> usize {
        self.rows
    }

    pub fn d_model(&self) -> usize {
        self.d_model
    }

    /// `[rows * d_model]`, row-major.
    pub fn values(&self) -> &[f32] {
        &self.values
    }

    /// The rows, `[d_model]` each.
    pub fn iter(&self) -> impl Iterator<Item = &[f32]> {
        self.values.chunks_exact(self.d_model)
    }
}
